//! Reading and writing what more than one format is made of: log ids, votes, memberships. Big-endian throughout.
//!
//! Every read is bounded by the bytes that are left, and every number by what Raft can go on counting from. Formats:
//! `docs/formats/metadata-log.md`. Next: `entry.rs`, `message.rs`.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{Buf, Bytes};
use openraft::vote::RaftLeaderId;
use ottla_types::BrokerId;

use crate::types::{Directory, LeaderId, LogId, Membership, Vote, log_id, term_of};

/// No term is ever near this; one that is would leave none to follow it.
const TERM_MAX: i32 = i32::MAX / 2;
/// As an index is an offset.
const INDEX_MAX: u64 = i64::MAX as u64 / 2;
/// Old and new voters, while they change.
const CONFIGS_MAX: usize = 2;

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Malformed(pub(crate) &'static str);

const SHORT: Malformed = Malformed("it ends early");

pub(crate) fn take_u8(input: &mut Bytes) -> Result<u8, Malformed> {
    input.try_get_u8().map_err(|_| SHORT)
}

pub(crate) fn take_u16(input: &mut Bytes) -> Result<u16, Malformed> {
    input.try_get_u16().map_err(|_| SHORT)
}

pub(crate) fn take_u32(input: &mut Bytes) -> Result<u32, Malformed> {
    input.try_get_u32().map_err(|_| SHORT)
}

pub(crate) fn take_flag(input: &mut Bytes) -> Result<bool, Malformed> {
    match take_u8(input)? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("a flag is neither 0 nor 1")),
    }
}

pub(crate) fn take_term(input: &mut Bytes) -> Result<i32, Malformed> {
    let term = input.try_get_i32().map_err(|_| SHORT)?;
    if (0..=TERM_MAX).contains(&term) { Ok(term) } else { Err(Malformed("a term is out of range")) }
}

pub(crate) fn take_id(input: &mut Bytes) -> Result<BrokerId, Malformed> {
    let id = input.try_get_i32().map_err(|_| SHORT)?;
    if id >= 0 { Ok(BrokerId(id)) } else { Err(Malformed("a broker's id is negative")) }
}

pub(crate) fn take_directory(input: &mut Bytes) -> Result<Directory, Malformed> {
    let mut directory = Directory::default();
    input.try_copy_to_slice(&mut directory).map_err(|_| SHORT)?;
    Ok(directory)
}

/// The next `len` bytes, sharing their memory.
pub(crate) fn take_bytes(input: &mut Bytes, len: u32) -> Result<Bytes, Malformed> {
    let len = usize::try_from(len).map_err(|_| SHORT)?;
    if len > input.len() { Err(SHORT) } else { Ok(input.split_to(len)) }
}

pub(crate) fn end(input: &Bytes) -> Result<(), Malformed> {
    if input.is_empty() { Ok(()) } else { Err(Malformed("bytes follow its end")) }
}

pub(crate) fn take_log_id(input: &mut Bytes) -> Result<LogId, Malformed> {
    let term = take_term(input)?;
    let index = input.try_get_u64().map_err(|_| SHORT)?;
    if index <= INDEX_MAX { Ok(log_id(term, index)) } else { Err(Malformed("an index is out of range")) }
}

pub(crate) fn put_log_id(out: &mut Vec<u8>, id: &LogId) {
    out.extend_from_slice(&term_of(id).to_be_bytes());
    out.extend_from_slice(&id.index.to_be_bytes());
}

/// A log id, or that there is none.
pub(crate) fn take_maybe_log_id(input: &mut Bytes) -> Result<Option<LogId>, Malformed> {
    if take_flag(input)? { take_log_id(input).map(Some) } else { Ok(None) }
}

pub(crate) fn put_maybe_log_id(out: &mut Vec<u8>, id: Option<&LogId>) {
    out.push(u8::from(id.is_some()));
    if let Some(id) = id {
        put_log_id(out, id);
    }
}

/// A leader or candidate: its term and its id.
pub(crate) fn take_leader_id(input: &mut Bytes) -> Result<LeaderId, Malformed> {
    let term = take_term(input)?;
    Ok(LeaderId::new(term, take_id(input)?))
}

pub(crate) fn put_leader_id(out: &mut Vec<u8>, id: &LeaderId) {
    out.extend_from_slice(&id.term.to_be_bytes());
    out.extend_from_slice(&id.voted_for.0.to_be_bytes());
}

pub(crate) fn take_vote(input: &mut Bytes) -> Result<Vote, Malformed> {
    let leader_id = take_leader_id(input)?;
    Ok(Vote { leader_id, committed: take_flag(input)? })
}

pub(crate) fn put_vote(out: &mut Vec<u8>, vote: &Vote) {
    put_leader_id(out, &vote.leader_id);
    out.push(u8::from(vote.committed));
}

pub(crate) fn take_membership(input: &mut Bytes) -> Result<Membership, Malformed> {
    let configs = usize::from(take_u8(input)?);
    if configs > CONFIGS_MAX {
        return Err(Malformed("there are more than two sets of voters"));
    }
    let mut voters = Vec::with_capacity(configs);
    for _ in 0..configs {
        let count = take_u16(input)?;
        voters.push((0..count).map(|_| take_id(input)).collect::<Result<BTreeSet<_>, _>>()?);
    }
    let count = take_u16(input)?;
    let nodes = (0..count)
        .map(|_| Ok((take_id(input)?, take_directory(input)?)))
        .collect::<Result<BTreeMap<_, _>, Malformed>>()?;
    Membership::new(voters, nodes).map_err(|_| Malformed("a voter is no member, or there is no voter"))
}

pub(crate) fn put_membership(out: &mut Vec<u8>, membership: &Membership) {
    let count = |count: usize| u16::try_from(count).unwrap_or(u16::MAX).to_be_bytes();
    let configs = membership.get_joint_config();
    out.push(u8::try_from(configs.len()).unwrap_or(u8::MAX));
    for voters in configs {
        out.extend_from_slice(&count(voters.len()));
        voters.iter().for_each(|id| out.extend_from_slice(&id.0.to_be_bytes()));
    }
    out.extend_from_slice(&count(membership.nodes().count()));
    for (id, directory) in membership.nodes() {
        out.extend_from_slice(&id.0.to_be_bytes());
        out.extend_from_slice(directory);
    }
}
