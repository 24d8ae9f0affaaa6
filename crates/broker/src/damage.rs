//! Tells the controller which copies of partitions here are damaged, so that nobody relies on them (rule L5).
//!
//! What is not here: finding damage (`ottla_log`), and what becomes of the copy afterwards (`ottla_node::Partition`).

use std::{collections::HashMap, sync::Arc, time::Duration};

use ottla_node::Partition;
use ottla_protocol::{
    ErrorCode,
    messages::{ReportDamageRequest, report_damage_request::Topic},
};
use ottla_types::{PartitionIndex, TopicId};
use tokio::{sync::Notify, time::sleep};

use crate::{api::report_damage, server::Broker};

/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(500);

impl Broker {
    /// Reports damage until the broker stops.
    pub(crate) async fn report_damage(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        let bell = Arc::new(Notify::new());
        let ring = Arc::clone(&bell);
        self.node.damaged().on_change(move || ring.notify_one());
        let mut waiting = Vec::new();
        while !*stopping.borrow() {
            waiting.extend(self.node.damaged().take());
            waiting.retain(|place| self.copy_of(*place).is_some_and(|copy| copy.owes_damage_report()));
            if waiting.is_empty() {
                tokio::select! {
                    _ = stopping.changed() => {}
                    () = bell.notified() => {}
                }
            } else if self.tell_damage(&waiting).await {
                waiting.drain(..).filter_map(|place| self.copy_of(place)).for_each(|copy| copy.damage_reported());
            } else {
                sleep(RETRY).await;
            }
        }
    }

    /// The copy that lies here now.
    fn copy_of(&self, (topic, index): (TopicId, PartitionIndex)) -> Option<Arc<Partition>> {
        self.node.topics().with_id(topic)?.partition(index).cloned()
    }

    /// Whether the controller knows now.
    async fn tell_damage(&self, damaged: &[(TopicId, PartitionIndex)]) -> bool {
        let Some(epoch) = self.node.epoch() else { return false };
        let mut topics: HashMap<TopicId, Topic> = HashMap::new();
        for &(topic_id, index) in damaged {
            let Some(copy) = self.copy_of((topic_id, index)) else { continue };
            let topic = topics.entry(topic_id).or_insert_with(|| Topic { topic_id, ..Topic::default() });
            topic.partitions.push(index.0);
            topic.partition_epochs.push(copy.partition_epoch());
        }
        let topics = topics.into_values().collect();
        let request = ReportDamageRequest { broker_id: self.node.id().0, broker_epoch: epoch.0, topics };
        let answer = self.ask_controller(request, report_damage::serve).await;
        matches!(answer, Ok(answer) if answer.error_code == ErrorCode::None.code())
    }
}
