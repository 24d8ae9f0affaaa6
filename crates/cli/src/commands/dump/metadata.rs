//! What `ottla dump` says of the directory `metadata`: entries of the log, votes, snapshots.
//!
//! The formats are in `docs/formats/metadata-log.md` and `metadata-record.md`. Next: `../dump.rs`.

use ottla_metadata::Record;
use serde_json::json;

use super::{Dump, Fields};
use crate::failure::Failure;

const ENTRY_VERSION: u8 = 1;

impl Dump<'_> {
    /// One entry of the log: nothing, what a decision changes, or who is in the cluster.
    pub(super) fn entry(&self, offset: i64, value: &[u8]) -> Result<(), Failure> {
        let mut value = Fields(value);
        let Some([version, kind]) = value.take::<2>() else {
            return self.damaged(&format!("entry {offset}: it ends early"));
        };
        let shown = match (version, kind) {
            (ENTRY_VERSION, 0) => {
                self.say("metadata entry", &json!({ "offset": offset, "entry": "blank" }), &format!("{offset} blank"))?;
                Some(())
            }
            (ENTRY_VERSION, 1) => match value.i32() {
                Some(_) => self.metadata_records(Some(offset), value)?,
                None => None,
            },
            (ENTRY_VERSION, 2) => match value.members() {
                Some(members) => {
                    let json = json!({ "offset": offset, "entry": "members", "voters": members.voters });
                    self.say("metadata entry", &json, &format!("{offset} {members}"))?;
                    Some(())
                }
                None => None,
            },
            _ => return self.damaged(&format!("entry {offset}: version {version}, kind {kind}")),
        };
        shown.map_or_else(|| self.damaged(&format!("entry {offset}: it ends early")), Ok)
    }

    pub(super) fn quorum_state(&self, mut body: Fields<'_>) -> Result<Option<()>, Failure> {
        let vote = match body.flag() {
            Some(false) => None,
            Some(true) => match (body.i32(), body.i32(), body.flag()) {
                (Some(term), Some(id), Some(elected)) => Some((term, id, elected)),
                _ => return Ok(None),
            },
            None => return Ok(None),
        };
        let (Some(purged), Some(committed)) = (body.maybe_log_id(), body.maybe_log_id()) else { return Ok(None) };
        let voted = vote.map_or("no vote".to_owned(), |(term, id, elected)| {
            format!("voted for {id} in term {term}, {}", if elected { "who was elected" } else { "not known elected" })
        });
        let index = |id: Option<(i32, i64)>| id.map(|(_, index)| index);
        let up_to = |id| index(id).map_or("nothing".to_owned(), |index| format!("up to entry {index}"));
        self.say(
            "quorum state",
            &json!({
                "term": vote.map(|(term, ..)| term),
                "voted_for": vote.map(|(_, id, _)| id),
                "elected": vote.map(|(.., elected)| elected),
                "purged": index(purged),
                "committed": index(committed),
            }),
            &format!("{voted}; purged: {}; known to be committed: {}", up_to(purged), up_to(committed)),
        )?;
        Ok(Some(()))
    }

    pub(super) fn metadata_snapshot(&self, mut body: Fields<'_>) -> Result<Option<()>, Failure> {
        let (Some(last), Some(_)) = (body.maybe_log_id(), body.maybe_log_id()) else { return Ok(None) };
        let Some(members) = body.members() else { return Ok(None) };
        let last = last.map(|(_, index)| index);
        self.say(
            "metadata snapshot",
            &json!({ "last_entry": last, "voters": members.voters }),
            &format!("a snapshot up to entry {}; {members}", last.unwrap_or(-1)),
        )?;
        self.metadata_records(None, body)
    }

    /// Records with the length of each before it.
    fn metadata_records(&self, offset: Option<i64>, mut bytes: Fields<'_>) -> Result<Option<()>, Failure> {
        while !bytes.0.is_empty() {
            let Some(len) = bytes.u32() else { return Ok(None) };
            let Some((record, rest)) = bytes.0.split_at_checked(len as usize) else { return Ok(None) };
            bytes.0 = rest;
            match Record::decode(record) {
                Ok(record) => {
                    let place = offset.map_or(String::new(), |offset| format!("{offset} "));
                    let json = json!({ "offset": offset, "record": format!("{record:?}") });
                    self.say("metadata record", &json, &format!("{place}{record:?}"))?;
                }
                Err(error) => self.damaged(&format!("a metadata record: {error}"))?,
            }
        }
        Ok(Some(()))
    }
}

/// Who is in the cluster: one set of voters, or the old and the new one while they change; and all nodes.
struct Members {
    voters: Vec<Vec<i32>>,
    nodes: Vec<i32>,
}

impl std::fmt::Display for Members {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "voters {:?} of nodes {:?}", self.voters, self.nodes)
    }
}

impl Fields<'_> {
    fn flag(&mut self) -> Option<bool> {
        self.take::<1>().map(|[byte]| byte != 0)
    }

    /// Term and index, or that there is none; `None` if the bytes end early.
    fn maybe_log_id(&mut self) -> Option<Option<(i32, i64)>> {
        if self.flag()? { Some(Some((self.i32()?, self.i64()?))) } else { Some(None) }
    }

    fn members(&mut self) -> Option<Members> {
        let [sets] = self.take::<1>()?;
        let voters = (0..sets).map(|_| (0..self.u16()?).map(|_| self.i32()).collect()).collect::<Option<_>>()?;
        let nodes = (0..self.u16()?)
            .map(|_| {
                let id = self.i32()?;
                self.take::<16>().map(|_directory| id)
            })
            .collect::<Option<_>>()?;
        Some(Members { voters, nodes })
    }

    fn u16(&mut self) -> Option<u16> {
        self.take().map(u16::from_be_bytes)
    }
}
