//! Topics that clients have created by asking for them: a broker asks its controller, and the client asks again.
//!
//! Many clients ask for the same topic at once, and go on asking until it is there: names are gathered, and each is
//! asked for once. What is not here: whether it may be (`auto.create.topics.enable` is looked at by `api/metadata.rs`),
//! and what it becomes (`ottla_metadata`).

use std::{sync::Arc, time::Duration};

use ottla_metadata::OFFSETS_TOPIC;
use ottla_node::Node;
use ottla_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse, create_topics_request::CreatableTopic};
use tokio::time::sleep;

use crate::server::Broker;

/// Names that may wait. What comes on top is dropped: clients ask again.
const WANTED_MAX: usize = 1000;
/// Pause before the next try.
const RETRY: Duration = Duration::from_millis(100);

impl Broker {
    /// Has topics created with the defaults, in a while and without an answer.
    pub(crate) fn request_topics(&self, names: Vec<String>) {
        if self.node.is_controller() {
            names.iter().for_each(|name| self.node.request_topic(name));
            return;
        }
        let mut wanted = self.wanted_topics.lock();
        let room = WANTED_MAX.saturating_sub(wanted.len());
        wanted.extend(names.into_iter().take(room));
        drop(wanted);
        self.changed.notify_waiters();
    }

    /// Takes the names to the controller until the broker stops.
    pub(crate) async fn create_topics(self: Arc<Self>) {
        let mut stopping = self.stopping.subscribe();
        while !*stopping.borrow() {
            let changed = self.changed.notified();
            let names = std::mem::take(&mut *self.wanted_topics.lock());
            if names.is_empty() {
                tokio::select! {
                    _ = stopping.changed() => {}
                    () = changed => {}
                }
                continue;
            }
            let topic = |name: &String| CreatableTopic {
                name: name.as_str().into(),
                num_partitions: -1,
                replication_factor: -1,
                ..Default::default()
            };
            // The topic of committed offsets alone: see `api/create_topics.rs`.
            let (internal, others): (Vec<_>, Vec<_>) = names.iter().partition(|name| *name == OFFSETS_TOPIC);
            for names in [internal, others].iter().filter(|names| !names.is_empty()) {
                let topics = names.iter().map(|name| topic(name)).collect();
                let request = CreateTopicsRequest { topics, ..Default::default() };
                if let Err(error) = self.ask_controller(request, here).await {
                    tracing::debug!(%error, "topics that clients asked for are not created yet");
                    sleep(RETRY).await;
                }
            }
        }
    }
}

/// What the controller does. Nobody looks at the answer.
fn here(node: &Node, request: CreateTopicsRequest) -> CreateTopicsResponse {
    request.topics.iter().for_each(|topic| node.request_topic(&topic.name));
    CreateTopicsResponse::default()
}
