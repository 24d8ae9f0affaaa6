//! DescribeConfigs (key 32): every config of a resource with its value, where that comes from and what else it could
//! be.
//!
//! Tools stop working on what is missing here, so everything is reported, set or not (KIP-133, KIP-226 for sources and
//! synonyms, KIP-569 for types and documentation). Client metrics, which Ottla does not serve, have an empty list, as
//! in Kafka have those that nobody configured. Next: `ottla_metadata::config::Layers`.

use std::collections::HashSet;

use bytestring::ByteString;
use ottla_metadata::{
    Image,
    config::{Entry, Layers},
    validate_topic_name,
};
use ottla_protocol::{
    ErrorCode,
    messages::{
        DescribeConfigsRequest, DescribeConfigsResponse,
        describe_configs_request::DescribeConfigsResource,
        describe_configs_response::{DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym},
    },
};
use ottla_types::BrokerId;

use super::{
    Context,
    configs::{BROKER, BROKER_LOGGER, CLIENT_METRICS, Failure, GROUP, TOPIC},
};

/// The type of a config that Ottla does not know.
const UNKNOWN_TYPE: i8 = 0;

pub(super) fn handle(context: &Context<'_>, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let node = &context.broker.node;
    let image = node.image();
    let view = View {
        broker: node.id(),
        layers: image.layers(node.id(), node.settings()),
        image: &image,
        synonyms: request.include_synonyms,
        documentation: request.include_documentation,
    };
    // An answer is hundreds of times larger than what asks for it, so each resource is described once.
    let mut seen = HashSet::with_capacity(request.resources.len());
    let results = request.resources.iter().map(|resource| {
        let found = if seen.insert((resource.resource_type, &*resource.resource_name)) {
            view.entries(resource.resource_type, &resource.resource_name)
        } else {
            Err(Failure::invalid_request("Each resource must appear at most once."))
        };
        let mut result = DescribeConfigsResult {
            resource_type: resource.resource_type,
            resource_name: resource.resource_name.clone(),
            ..Default::default()
        };
        match found {
            Ok(entries) => {
                let asked = entries.into_iter().filter(|entry| is_asked(resource, &entry.name));
                result.configs = asked.map(|entry| view.described(entry)).collect();
            }
            Err(failure) => {
                result.error_code = failure.code.code();
                result.error_message = Some(failure.message);
            }
        }
        result
    });
    DescribeConfigsResponse { results: results.collect(), ..Default::default() }
}

/// Whether the client wants to hear of this config; null and an empty list mean all.
fn is_asked(resource: &DescribeConfigsResource, name: &str) -> bool {
    match &resource.configuration_keys {
        Some(keys) if !keys.is_empty() => keys.iter().any(|key| &**key == name),
        _ => true,
    }
}

/// The cluster's configs as one request sees them.
struct View<'a> {
    broker: BrokerId,
    image: &'a Image,
    layers: Layers<'a>,
    synonyms: bool,
    documentation: bool,
}

impl View<'_> {
    fn entries(&self, resource_type: i8, name: &str) -> Result<Vec<Entry>, Failure> {
        match resource_type {
            TOPIC => {
                validate_topic_name(name).map_err(|why| Failure::new(ErrorCode::InvalidTopicException, why))?;
                let topic = self.image.topic_named(name).ok_or_else(|| {
                    Failure::new(ErrorCode::UnknownTopicOrPartition, format!("The topic '{name}' does not exist."))
                })?;
                Ok(self.layers.topic_entries(&topic.overrides))
            }
            BROKER if name.is_empty() => Ok(self.layers.cluster_entries()),
            BROKER => self.check_broker(name, " or empty string").map(|()| self.layers.broker_entries()),
            // Log levels are the operator's at start-up; there are no loggers to change.
            BROKER_LOGGER => self.check_broker(name, "").map(|()| Vec::new()),
            CLIENT_METRICS if name.is_empty() => {
                Err(Failure::invalid_request("Client metrics subscription name must not be empty"))
            }
            GROUP if name.is_empty() => Err(Failure::invalid_request("Group name must not be empty")),
            GROUP => Ok(self.layers.group_entries(self.image.group_configs(name))),
            CLIENT_METRICS => Ok(Vec::new()),
            other => Err(Failure::invalid_request(format!("Unsupported resource type: {other}"))),
        }
    }

    /// A broker knows only its own static configs, so it answers for itself alone.
    fn check_broker(&self, name: &str, alternative: &str) -> Result<(), Failure> {
        if name == self.broker.to_string() {
            return Ok(());
        }
        Err(Failure::invalid_request(match name.parse::<i32>() {
            Ok(_) => format!("Unexpected broker id, expected {}{alternative}, but received {name}", self.broker),
            Err(_) => format!("Broker id must be an integer, but it is: {name}"),
        }))
    }

    fn described(&self, entry: Entry) -> DescribeConfigsResourceResult {
        let synonyms = entry.synonyms.into_iter().filter(|_| self.synonyms).map(|synonym| DescribeConfigsSynonym {
            name: synonym.name.into(),
            value: synonym.value.map(Into::into),
            source: synonym.source.code(),
        });
        DescribeConfigsResourceResult {
            name: entry.name.into(),
            value: entry.value.map(Into::into),
            read_only: entry.read_only,
            config_source: entry.source.code(),
            is_sensitive: entry.sensitive,
            synonyms: synonyms.collect(),
            config_type: entry.kind.map_or(UNKNOWN_TYPE, |kind| kind.code()),
            documentation: self.documentation.then(|| ByteString::from_static(entry.documentation)),
        }
    }
}
