//! Takes the ISRs that partitions led here want committed to the controller (AlterPartition, KIP-497).
//!
//! All that gather while one request is under way go in the next. A request whose outcome is not known is sent again,
//! as long as the partition is led in the same epoch: the controller recognises what it has done already by the
//! partition epoch. What is not here: when an ISR changes (`ottla_replica`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use ottla_node::IsrChange;
use ottla_protocol::{
    ErrorCode,
    messages::{
        AlterPartitionRequest, AlterPartitionResponse,
        alter_partition_request::{BrokerState, PartitionData, TopicData},
    },
};
use ottla_replica::{CommittedIsr, IsrRefusal};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, TopicId};
use tokio::{sync::Notify, time::sleep};

use crate::{api::alter_partition, server::Broker};

/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(50);
/// Partitions in one request.
const PARTITIONS_MAX: usize = 10_000;

impl Broker {
    /// Carries proposals to the controller until the broker stops.
    pub(crate) async fn propose_isrs(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        self.node.isr_changes().on_change(move || ring.notify_one());
        let mut waiting = Vec::new();
        while !*stopping.borrow() {
            waiting.extend(self.node.isr_changes().take());
            // What another leadership wanted is no matter any more, but is owed an answer.
            for stale in waiting
                .extract_if(.., |change: &mut IsrChange| !change.partition.leads_in(change.proposal.leader_epoch))
            {
                stale.partition.isr_answered(Err(IsrRefusal::Unanswered));
            }
            if waiting.is_empty() {
                tokio::select! {
                    _ = stopping.changed() => {}
                    () = bell.notified() => {}
                }
                continue;
            }
            let batch: Vec<IsrChange> = waiting.drain(..waiting.len().min(PARTITIONS_MAX)).collect();
            let unanswered = self.propose(batch).await;
            if !unanswered.is_empty() {
                waiting.extend(unanswered);
                sleep(RETRY).await;
            }
        }
    }

    /// Sends one request, and returns those that got no answer.
    async fn propose(&self, changes: Vec<IsrChange>) -> Vec<IsrChange> {
        let Some(epoch) = self.node.epoch() else { return changes };
        let mut topics: HashMap<TopicId, Vec<PartitionData>> = HashMap::new();
        for IsrChange { partition, proposal } in &changes {
            // A replica does not know the registration of its own broker.
            let state = |(broker, known): &(BrokerId, BrokerEpoch)| BrokerState {
                broker_id: broker.0,
                broker_epoch: if *broker == self.node.id() { epoch.0 } else { known.0 },
            };
            topics.entry(partition.topic()).or_default().push(PartitionData {
                partition_index: partition.index().0,
                leader_epoch: proposal.leader_epoch.0,
                new_isr_with_epochs: proposal.isr.iter().map(state).collect(),
                leader_recovery_state: i8::from(proposal.recovering),
                partition_epoch: proposal.partition_epoch,
                ..Default::default()
            });
        }
        let request = AlterPartitionRequest {
            broker_id: self.node.id().0,
            broker_epoch: epoch.0,
            topics: topics.into_iter().map(|(topic_id, partitions)| TopicData { topic_id, partitions }).collect(),
        };
        match self.ask_controller(request, alter_partition::serve).await {
            Ok(answer) if answer.error_code == ErrorCode::None.code() => answered(changes, answer),
            Ok(answer) => {
                tracing::debug!(code = answer.error_code, "changes of ISRs were refused; trying again");
                changes
            }
            Err(error) => {
                tracing::debug!(%error, "changes of ISRs were not answered; trying again");
                changes
            }
        }
    }
}

/// Gives each partition its answer; those that have none are returned.
fn answered(changes: Vec<IsrChange>, answer: AlterPartitionResponse) -> Vec<IsrChange> {
    let mut rows = HashMap::new();
    for topic in answer.topics {
        for row in topic.partitions {
            rows.insert((topic.topic_id, PartitionIndex(row.partition_index)), row);
        }
    }
    let mut unanswered = Vec::new();
    for change in changes {
        let partition = &change.partition;
        match rows.get(&(partition.topic(), partition.index())) {
            None => unanswered.push(change),
            Some(row) if row.error_code == ErrorCode::None.code() => partition.isr_answered(Ok(CommittedIsr {
                leader: (row.leader_id >= 0).then_some(BrokerId(row.leader_id)),
                leader_epoch: LeaderEpoch(row.leader_epoch),
                partition_epoch: row.partition_epoch,
                isr: row.isr.iter().copied().map(BrokerId).collect(),
                recovering: row.leader_recovery_state != 0,
            })),
            Some(row) => {
                let (topic, code) = (partition.topic_name(), row.error_code);
                tracing::debug!(%topic, partition = %partition.index(), code, "an ISR was refused");
                partition.isr_answered(Err(match code {
                    code if code == ErrorCode::IneligibleReplica.code() => IsrRefusal::NotAttempted,
                    code if code == ErrorCode::NotController.code() => IsrRefusal::Unanswered,
                    _ => IsrRefusal::Superseded,
                }));
            }
        }
    }
    unanswered
}
