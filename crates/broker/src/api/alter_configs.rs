//! AlterConfigs (key 33): everything that is set on a resource is replaced by what the request holds.
//!
//! What a request leaves out goes back to its default, which is why newer clients use IncrementalAlterConfigs.

use ottla_metadata::{Command, ConfigAlteration};
use ottla_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, alter_configs_request::AlterableConfig,
    alter_configs_response::AlterConfigsResourceResponse,
};

use super::{
    Context,
    configs::{Altered, altered},
};

pub(super) fn handle(context: &Context<'_>, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let mut answers = Vec::with_capacity(request.resources.len());
    let mut resources = Vec::with_capacity(request.resources.len());
    for wanted in request.resources {
        let target = altered(wanted.resource_type, &wanted.resource_name);
        if let Ok(resource) = target.clone() {
            let config =
                |config: AlterableConfig| (config.name.to_string(), config.value.map(|value| value.to_string()));
            resources.push(ConfigAlteration { resource, configs: wanted.configs.into_iter().map(config).collect() });
        }
        answers.push((wanted.resource_type, wanted.resource_name, target));
    }
    let asked = resources.iter().map(|alteration| alteration.resource.clone()).collect();
    let command = Command::AlterConfigs { resources, validate_only: request.validate_only };
    let outcome = Altered::of(context.broker.node.submit(command), asked);
    let responses = answers.into_iter().map(|(resource_type, resource_name, target)| {
        let (error_code, error_message) = outcome.answer(&target);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    AlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}
