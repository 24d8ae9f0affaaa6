//! DeleteTopics (key 20): by name, or from version 6 on by name or id (KIP-516).

use bytestring::ByteString;
use ottla_metadata::{Command, Reply, TopicRef};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DeleteTopicsRequest, DeleteTopicsResponse, delete_topics_request::DeleteTopicState,
        delete_topics_response::DeletableTopicResult,
    },
};
use ottla_types::TopicId;

use super::{
    Context,
    configs::{Failure, rows},
};

/// First version that names topics by id.
const TOPIC_ID_VERSION: i16 = 6;
/// First version whose clients know TOPIC_DELETION_DISABLED.
const DELETION_DISABLED_VERSION: i16 = 3;

pub(super) fn handle(context: &Context<'_>, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut responses = Vec::new();
    let mut topics = Vec::new();
    if context.version() >= TOPIC_ID_VERSION {
        for topic in request.topics {
            match reference(&topic) {
                Ok(topic) => topics.push(topic),
                Err(failure) => responses.push(refused(topic.name, topic.topic_id, failure)),
            }
        }
    } else {
        topics.extend(request.topic_names.iter().map(|name| TopicRef::Name(name.to_string())));
    }
    let asked = topics.clone();
    let pick = |reply| match reply {
        Reply::TopicsDeleted(rows) => Some(rows),
        _ => None,
    };
    let outcome = context.broker.node.submit(Command::DeleteTopics { topics });
    for (topic, row) in rows(outcome, asked, pick) {
        responses.push(match row {
            Ok(deleted) => {
                DeletableTopicResult { name: Some((&*deleted.name).into()), topic_id: deleted.id, ..Default::default() }
            }
            Err(mut failure) => {
                if failure.code == ErrorCode::TopicDeletionDisabled && context.version() < DELETION_DISABLED_VERSION {
                    failure.code = ErrorCode::InvalidRequest;
                }
                match topic {
                    TopicRef::Name(name) => refused(Some(name.into()), TopicId::ZERO, failure),
                    TopicRef::Id(id) => refused(None, id, failure),
                }
            }
        });
    }
    DeleteTopicsResponse { responses, ..Default::default() }
}

fn reference(topic: &DeleteTopicState) -> Result<TopicRef, Failure> {
    match &topic.name {
        Some(_) if !topic.topic_id.is_zero() => {
            Err(Failure::invalid_request("You may not specify both topic name and topic id."))
        }
        Some(name) => Ok(TopicRef::Name(name.to_string())),
        None if topic.topic_id.is_zero() => Err(Failure::invalid_request("Neither topic name nor id were specified.")),
        None => Ok(TopicRef::Id(topic.topic_id)),
    }
}

fn refused(name: Option<ByteString>, topic_id: TopicId, failure: Failure) -> DeletableTopicResult {
    DeletableTopicResult { name, topic_id, error_code: failure.code.code(), error_message: Some(failure.message) }
}
