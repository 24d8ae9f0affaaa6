//! UpdateFeatures (key 57): feature levels are raised or lowered, all that are named or none (KIP-584, KIP-1022).

use ottla_metadata::{Command, FeatureChange, FeatureUpdate};
use ottla_protocol::{
    ErrorCode,
    messages::{
        UpdateFeaturesRequest, UpdateFeaturesResponse, update_features_request::FeatureUpdateKey,
        update_features_response::UpdatableFeatureResult,
    },
};

use super::{Context, configs::Failure};

/// First version that says in which direction a level goes, and the last with an outcome for each feature.
const DIRECTIONS_VERSION: i16 = 1;
const OUTCOMES_VERSION: i16 = 1;

pub(super) fn handle(context: &Context<'_>, request: UpdateFeaturesRequest) -> UpdateFeaturesResponse {
    let version = context.version();
    let Some(updates) = request.feature_updates.iter().map(|asked| update(asked, version)).collect() else {
        return refused(Failure::invalid_request("The controller does not support the given upgrade type."));
    };
    let node = &context.broker.node;
    let validate_only = request.validate_only;
    let reported = node.reported_features();
    match node.submit(Command::UpdateFeatures { updates, validate_only, reported }).map_err(Failure::from) {
        Ok(_) => UpdateFeaturesResponse {
            error_message: None,
            results: if version <= OUTCOMES_VERSION { outcomes(request) } else { Vec::new() },
            ..Default::default()
        },
        // Kafka's tools show this sentence for each feature.
        Err(Failure { code: code @ ErrorCode::InvalidUpdateVersion, message }) => refused(Failure::new(
            code,
            format!("The update failed for all features since the following feature had an error: {message}"),
        )),
        Err(failure) => refused(failure),
    }
}

/// What is asked for; `None` if its direction is none.
fn update(asked: &FeatureUpdateKey, version: i16) -> Option<FeatureUpdate> {
    let change = match asked.upgrade_type {
        _ if version < DIRECTIONS_VERSION && asked.allow_downgrade => FeatureChange::SafeDowngrade,
        1 => FeatureChange::Upgrade,
        2 => FeatureChange::SafeDowngrade,
        3 => FeatureChange::UnsafeDowngrade,
        _ => return None,
    };
    Some(FeatureUpdate { name: asked.feature.to_string(), level: asked.max_version_level, change })
}

fn outcomes(request: UpdateFeaturesRequest) -> Vec<UpdatableFeatureResult> {
    let done =
        |asked: FeatureUpdateKey| UpdatableFeatureResult { feature: asked.feature, error_code: 0, error_message: None };
    request.feature_updates.into_iter().map(done).collect()
}

fn refused(failure: Failure) -> UpdateFeaturesResponse {
    UpdateFeaturesResponse {
        error_code: failure.code.code(),
        error_message: Some(failure.message),
        ..Default::default()
    }
}
