//! IncrementalAlterConfigs (key 44): sets, deletes, appends to or subtracts from the configs it names, and leaves the
//! rest alone (KIP-339).

use bytestring::ByteString;
use ottla_metadata::{Command, IncrementalAlteration, config::Operation};
use ottla_protocol::messages::{
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
    incremental_alter_configs_request::AlterableConfig,
    incremental_alter_configs_response::AlterConfigsResourceResponse,
};

use super::{
    Context,
    configs::{Altered, Failure, altered},
};

pub(super) fn handle(
    context: &Context<'_>,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let mut answers = Vec::with_capacity(request.resources.len());
    let mut resources = Vec::with_capacity(request.resources.len());
    for wanted in request.resources {
        let target = altered(wanted.resource_type, &wanted.resource_name).and_then(|resource| {
            let operations = wanted.configs.into_iter().map(operation).collect::<Result<_, _>>()?;
            resources.push(IncrementalAlteration { resource: resource.clone(), operations });
            Ok(resource)
        });
        answers.push((wanted.resource_type, wanted.resource_name, target));
    }
    let asked = resources.iter().map(|alteration| alteration.resource.clone()).collect();
    let command = Command::IncrementalAlterConfigs { resources, validate_only: request.validate_only };
    let outcome = Altered::of(context.broker.node.submit(command), asked);
    let responses = answers.into_iter().map(|(resource_type, resource_name, target)| {
        let (error_code, error_message) = outcome.answer(&target);
        AlterConfigsResourceResponse { error_code, error_message, resource_type, resource_name }
    });
    IncrementalAlterConfigsResponse { responses: responses.collect(), ..Default::default() }
}

/// What is to be done with one config. The value that SET, APPEND and SUBTRACT need may be null on the wire; the
/// controller refuses that.
fn operation(config: AlterableConfig) -> Result<(String, Option<Operation>), Failure> {
    let value = |value: Option<ByteString>| value.map(|value| value.to_string());
    let operation = match config.config_operation {
        0 => value(config.value).map(Operation::Set),
        1 => Some(Operation::Delete),
        2 => value(config.value).map(Operation::Append),
        3 => value(config.value).map(Operation::Subtract),
        other => return Err(Failure::invalid_request(format!("Unknown operation type {other} for {}.", config.name))),
    };
    Ok((config.name.to_string(), operation))
}
