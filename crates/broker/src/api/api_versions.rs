//! ApiVersions (key 18): which APIs and versions are served, and which features the cluster has finalised.
//!
//! Derived from the table of requests, so that nothing is advertised that is not served; Kafka's one exception is
//! Produce, see [`advertised`]. A version above ours is answered in version 0, which every client can read: that is
//! how client and broker find a version they share (KIP-511). KIP-584 for the features.

use bytestring::ByteString;
use ottla_node::Node;
use ottla_protocol::{
    ApiKey, ErrorCode, GatherOut, Reader,
    messages::{
        ApiVersionsRequest, ApiVersionsResponse,
        api_versions_response::{ApiVersion, FinalizedFeatureKey, SupportedFeatureKey},
    },
};

use super::{Client, Context, Operation, Row, TABLE, decode, encode};
use crate::connection::Close;

/// First version that names the client's software, and the first that carries features.
const SOFTWARE_VERSION: i16 = 3;
/// First version whose readers can take a feature with minimum 0 (KAFKA-17011).
const ZERO_FEATURE_VERSION: i16 = 4;
/// How much of a client's name and version is kept, in bytes each: they only appear in logs.
const SOFTWARE_KEPT: usize = 64;
/// The name that Ottla's own nodes and command line give their software.
const OTTLA: &str = "ottla";

pub(super) fn serve(context: &Context<'_>, client: &mut Client, reader: &mut Reader) -> Result<GatherOut, Close> {
    if !ApiKey::ApiVersions.versions().contains(&context.version()) {
        let response = ApiVersionsResponse {
            error_code: ErrorCode::UnsupportedVersion.code(),
            api_keys: advertised(false).collect(),
            ..Default::default()
        };
        let mut out = GatherOut::new();
        out.response_in(ApiKey::ApiVersions, 0, context.header.correlation_id, &response)
            .map_err(|error| Close::Unanswerable(ApiKey::ApiVersions, error))?;
        return Ok(out);
    }
    let request: ApiVersionsRequest = decode(context, reader)?;
    if context.version() >= SOFTWARE_VERSION {
        let (name, version) = (&request.client_software_name, &request.client_software_version);
        if !is_software_text(name) || !is_software_text(version) {
            let error_code = ErrorCode::InvalidRequest.code();
            return encode(context.header, &ApiVersionsResponse { error_code, ..Default::default() });
        }
        client.software = Some((kept(name), kept(version)));
    }
    let is_ottla = client.software.as_ref().is_some_and(|(name, _)| name == OTTLA);
    encode(context.header, &response(&context.broker.node, context.version(), is_ottla))
}

fn response(node: &Node, version: i16, is_ottla: bool) -> ApiVersionsResponse {
    let image = node.image();
    let told = node.settings().supported_features();
    let told = told.filter(|feature| feature.min > 0 || version >= ZERO_FEATURE_VERSION);
    let supported = told.map(|feature| SupportedFeatureKey {
        name: ByteString::from_static(feature.name),
        min_version: feature.min,
        max_version: feature.max,
    });
    let finalized = image.features().iter().map(|(name, &level)| FinalizedFeatureKey {
        name: name.as_str().into(),
        max_version_level: level,
        min_version_level: level,
    });
    ApiVersionsResponse {
        api_keys: advertised(is_ottla).collect(),
        supported_features: supported.collect(),
        finalized_features_epoch: image.features_epoch(),
        finalized_features: finalized.collect(),
        ..Default::default()
    }
}

/// What the table serves, by ascending key. What brokers say to each other, and what only Ottla's own command line
/// says, is told to Ottla's own software alone: tools list what they hear of. Produce is shown from version 0 although
/// its versions 0 to 2 are closed doors: librdkafka looks whether its old versions are in the range before it
/// compresses (KAFKA-18659).
fn advertised(to_ottla: bool) -> impl Iterator<Item = ApiVersion> {
    let is_told = move |row: &&Row| to_ottla || (row.key.is_kafkas() && row.operation != Operation::ClusterAction);
    TABLE.iter().filter(is_told).map(|row| {
        let versions = row.key.versions();
        ApiVersion {
            api_key: row.key as i16,
            min_version: if row.key == ApiKey::Produce { 0 } else { *versions.start() },
            max_version: *versions.end(),
        }
    })
}

/// Letters and digits of ASCII, with dots and hyphens between them.
fn is_software_text(text: &str) -> bool {
    let is_edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let bytes = text.as_bytes();
    is_edge(bytes.first())
        && is_edge(bytes.last())
        && bytes.iter().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-'))
}

/// A copy of its own: a slice would keep the whole frame in memory for as long as the connection lives.
fn kept(text: &str) -> String {
    text.chars().take(SOFTWARE_KEPT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_holds_each_key_once() {
        assert!(TABLE.is_sorted_by(|a, b| (a.key as i16) < (b.key as i16)));
    }

    #[test]
    fn client_rule_4_software_names_are_letters_and_digits_around_dots_and_hyphens() {
        for text in ["a", "apache-kafka-java", "4.3.0", "0", "A--..z"] {
            assert!(is_software_text(text), "{text:?}");
        }
        for text in ["", "-", "-a", "a-", ".1", "1.", "a b", "a_b", "ä", "a\nb"] {
            assert!(!is_software_text(text), "{text:?}");
        }
    }
}
