//! A snapshot as bytes: what it covers, who was in the cluster then, and the application's own bytes.
//!
//! The same bytes lie on the disk and travel to peers, with a checksum over all of them; what is not whole is refused.
//! Files are `store/`'s business. Format: `docs/formats/metadata-log.md`. Next: `store/mod.rs`.

use bytes::Bytes;
use ottla_log::checked_file;

use crate::{
    types::{Snapshot, SnapshotMeta, StoredMembership},
    wire::{self, Malformed},
};

const MAGIC: [u8; 4] = *b"OMSN";
/// Version 1 was that of a cluster of one.
const VERSION: u16 = 2;
/// The largest that is made or taken, in bytes: it travels as one message, and is held in memory.
pub(crate) const BYTES_MAX: usize = 256 << 20;

pub(crate) fn encode(meta: &SnapshotMeta, application: &[u8]) -> Vec<u8> {
    let mut body = Vec::with_capacity(application.len() + 64);
    wire::put_maybe_log_id(&mut body, meta.last_log_id.as_ref());
    wire::put_maybe_log_id(&mut body, meta.last_membership.log_id().as_ref());
    wire::put_membership(&mut body, meta.last_membership.membership());
    body.extend_from_slice(application);
    checked_file::encode(MAGIC, VERSION, &body)
}

/// `None` if it is not whole, or of no use.
pub(crate) fn decode(bytes: &Bytes) -> Option<Snapshot> {
    if bytes.len() > BYTES_MAX {
        return None;
    }
    let body = checked_file::decode(MAGIC, VERSION, bytes)?;
    decode_body(bytes.slice_ref(body)).ok()
}

fn decode_body(mut body: Bytes) -> Result<Snapshot, Malformed> {
    let input = &mut body;
    let last_log_id = wire::take_maybe_log_id(input)?;
    let log_id = wire::take_maybe_log_id(input)?;
    let last_membership = StoredMembership::new(log_id, wire::take_membership(input)?);
    if last_log_id.is_none() || log_id > last_log_id {
        return Err(Malformed("it covers nothing, or less than its members"));
    }
    Ok(Snapshot { meta: SnapshotMeta { last_log_id, last_membership }, snapshot: body })
}
