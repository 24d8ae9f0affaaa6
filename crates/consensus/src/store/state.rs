//! The few numbers that Raft must not forget beside its log: for whom this node voted, what was purged, what is known
//! to be committed.
//!
//! A small checked file, replaced whole (rule L7). Format: `docs/formats/metadata-log.md`.

use std::{io, path::Path};

use bytes::Bytes;
use ottla_log::{Disk, checked_file, write_atomically};

use crate::{
    types::{LogId, Vote},
    wire::{self, Malformed},
};

const FILE: &str = "quorum-state";
const MAGIC: [u8; 4] = *b"OQST";
const VERSION: u16 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) vote: Option<Vote>,
    /// The last entry that went with the snapshot that replaced it. Durable here before it goes.
    pub(crate) purged: Option<LogId>,
    /// Durable in the log and committed; there may be more.
    pub(crate) committed: Option<LogId>,
}

impl State {
    /// What is in the directory; `None` if there never was any.
    pub(crate) fn load(disk: &dyn Disk, dir: &Path) -> io::Result<Option<State>> {
        match disk.read(&dir.join(FILE)) {
            Ok(bytes) => {
                let state = checked_file::decode(MAGIC, VERSION, &bytes).and_then(|body| decode(body).ok());
                state
                    .map(Some)
                    .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("the file {FILE} is damaged")))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Durable once it returns.
    pub(crate) fn store(&self, disk: &dyn Disk, dir: &Path) -> io::Result<()> {
        let mut body = vec![u8::from(self.vote.is_some())];
        if let Some(vote) = &self.vote {
            wire::put_vote(&mut body, vote);
        }
        wire::put_maybe_log_id(&mut body, self.purged.as_ref());
        wire::put_maybe_log_id(&mut body, self.committed.as_ref());
        write_atomically(disk, &dir.join(FILE), &checked_file::encode(MAGIC, VERSION, &body))
    }
}

fn decode(body: &[u8]) -> Result<State, Malformed> {
    let mut input = Bytes::copy_from_slice(body);
    let input = &mut input;
    let vote = if wire::take_flag(input)? { Some(wire::take_vote(input)?) } else { None };
    let state = State { vote, purged: wire::take_maybe_log_id(input)?, committed: wire::take_maybe_log_id(input)? };
    wire::end(input)?;
    Ok(state)
}
