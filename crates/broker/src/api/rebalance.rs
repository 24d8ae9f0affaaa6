//! Rebalance (key 20003, Ottla's own): replicas and leaders are spread evenly over the nodes, by reassignments.

use ottla_metadata::{Command, Move, Reply};
use ottla_protocol::{
    ErrorCode,
    messages::{RebalanceRequest, RebalanceResponse, rebalance_response::Move as WireMove},
};
use ottla_types::BrokerId;

use super::{Context, configs::Failure};

pub(super) fn handle(context: &Context<'_>, request: RebalanceRequest) -> RebalanceResponse {
    let refused = |code: ErrorCode, message| RebalanceResponse {
        error_code: code.code(),
        error_message: Some(message),
        ..Default::default()
    };
    match context.broker.node.submit(Command::Rebalance { dry_run: request.dry_run }).map_err(Failure::from) {
        Ok(Reply::Rebalanced(moves)) => {
            RebalanceResponse { moves: moves.iter().map(moved).collect(), ..Default::default() }
        }
        Ok(_) => refused(ErrorCode::UnknownServerError, "the controller answered another command".into()),
        Err(failure) => refused(failure.code, failure.message),
    }
}

fn moved(moved: &Move) -> WireMove {
    let ids = |brokers: &[BrokerId]| brokers.iter().map(|broker| broker.0).collect();
    WireMove { topic: (&*moved.topic).into(), partition: moved.index.0, from: ids(&moved.from), to: ids(&moved.to) }
}
