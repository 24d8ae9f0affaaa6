//! Producer ids for clients, from blocks that the controller gives this broker (KIP-730).
//!
//! One request for a block is under way at a time, and goes on whoever gives up. Nobody is kept waiting for a
//! controller that can't be found: a client asks again, of whichever broker it likes. What is not here: what a client
//! may ask for (`api/init_producer_id.rs`).

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use ottla_protocol::{ErrorCode, messages::AllocateProducerIdsRequest};
use ottla_types::{BrokerEpoch, ProducerId};
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep, timeout_at},
};

use crate::{api::allocate_producer_ids, server::Broker};

/// How long a client waits for a block: several times what a controller takes that is there.
const WAIT: Duration = Duration::from_secs(1);
/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(100);

/// The way to the next block.
#[derive(Default)]
pub(crate) struct ProducerIds {
    /// The controller is being asked.
    asking: AtomicBool,
    /// It has answered.
    answered: Notify,
    /// With the error that it has no more.
    exhausted: Mutex<Option<ErrorCode>>,
}

impl Broker {
    /// A producer id that was never given before: one of this broker's block, or of a new one.
    pub(crate) async fn allocate_producer_id(self: &Arc<Self>) -> Result<ProducerId, ErrorCode> {
        let deadline = Instant::now() + WAIT;
        loop {
            let answered = self.producer_ids.answered.notified();
            if let Some(id) = self.node.take_producer_id() {
                return Ok(id);
            }
            // Not before the cluster knows this run of the broker.
            let epoch = self.node.epoch().ok_or(ErrorCode::CoordinatorLoadInProgress)?;
            if !self.producer_ids.asking.swap(true, Ordering::AcqRel) {
                tokio::spawn(Arc::clone(self).ask_for_producer_ids(epoch));
            }
            // Clients ask again.
            timeout_at(deadline, answered).await.map_err(|_| ErrorCode::CoordinatorLoadInProgress)?;
            if let Some(code) = *self.producer_ids.exhausted.lock() {
                return Err(code);
            }
        }
    }

    async fn ask_for_producer_ids(self: Arc<Self>, epoch: BrokerEpoch) {
        let request = AllocateProducerIdsRequest { broker_id: self.node.id().0, broker_epoch: epoch.0 };
        let given = match self.ask_controller(request, allocate_producer_ids::serve).await {
            Ok(answer) if answer.error_code == ErrorCode::None.code() => {
                let count = u32::try_from(answer.producer_id_len).unwrap_or(0);
                self.node.add_producer_ids(ProducerId(answer.producer_id_start), count);
                *self.producer_ids.exhausted.lock() = None;
                true
            }
            Ok(answer) => {
                let final_code = Some(ErrorCode::UnknownServerError).filter(|code| code.code() == answer.error_code);
                *self.producer_ids.exhausted.lock() = final_code;
                tracing::debug!(code = answer.error_code, "the controller gives no producer ids");
                final_code.is_some()
            }
            Err(error) => {
                tracing::debug!(%error, "the controller gives no producer ids");
                false
            }
        };
        if !given {
            sleep(RETRY).await;
        }
        self.producer_ids.asking.store(false, Ordering::Release);
        self.producer_ids.answered.notify_waiters();
    }
}
