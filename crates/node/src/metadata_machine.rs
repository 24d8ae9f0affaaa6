//! The node's end of the metadata log: what was agreed on becomes the image, in the order of the log.
//!
//! Every node of a cluster applies the same records (rule M4); a proposal is one decision's records, a snapshot those
//! that make the whole image. What is not here: agreeing (`ottla_consensus`), deciding and publishing
//! (`controller.rs`). Format: `docs/formats/metadata-record.md`.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_consensus::{Application, Status};
use ottla_metadata::{DecodeError, Image, Record};

use crate::controller::Controller;

/// Feeds a controller from the log. Lives on the thread of consensus.
pub(crate) struct MetadataMachine {
    pub(crate) controller: Arc<Controller>,
}

impl Application for MetadataMachine {
    fn apply(&mut self, proposal: &Bytes) {
        let records = decode(proposal).unwrap_or_else(|error| stop(&error));
        self.check_levels(&records);
        self.controller.apply(&records);
    }

    fn snapshot(&self) -> Bytes {
        encode(&self.controller.image().to_records())
    }

    fn restore(&mut self, snapshot: &Bytes) -> Result<(), String> {
        let records = decode(snapshot).map_err(|error| error.to_string())?;
        if !matches!(records.last(), Some(Record::SnapshotEnd { .. })) {
            return Err("it is not whole".to_owned());
        }
        self.check_levels(&records);
        let mut image = Image::default();
        records.iter().for_each(|record| image.apply(record));
        self.controller.replace(image);
        Ok(())
    }

    fn status(&mut self, status: &Status) {
        self.controller.status_changed(status);
    }
}

impl MetadataMachine {
    /// Ends the process where a level was finalised that it does not serve: the others go on in ways that this version
    /// does not know. What lies here is whole, and a newer version goes on with it.
    fn check_levels(&self, records: &[Record]) {
        if let Err(error) = self.controller.settings().check_levels(records) {
            tracing::error!(%error, "this node can't be part of its cluster any more; stopping");
            std::process::exit(1);
        }
    }
}

/// An image that misses a fact is wrong, and whoever acts on it endangers what others hold.
fn stop(error: &DecodeError) -> ! {
    tracing::error!(%error, "what the cluster agreed on can't be read by this version; stopping at once");
    std::process::abort();
}

/// Records with the length of each before it.
pub(crate) fn encode(records: &[Record]) -> Bytes {
    let mut out = BytesMut::new();
    for record in records {
        let bytes = record.encode();
        // A record is far smaller: its lists are of brokers and listeners.
        out.put_u32(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
        out.put_slice(&bytes);
    }
    out.freeze()
}

fn decode(bytes: &[u8]) -> Result<Vec<Record>, DecodeError> {
    let mut records = Vec::new();
    let mut rest = bytes;
    while let Some((len, tail)) = rest.split_first_chunk::<4>() {
        let (record, tail) =
            tail.split_at_checked(u32::from_be_bytes(*len) as usize).ok_or(DecodeError::UnexpectedEnd)?;
        records.push(Record::decode(record)?);
        rest = tail;
    }
    if rest.is_empty() { Ok(records) } else { Err(DecodeError::UnexpectedEnd) }
}
