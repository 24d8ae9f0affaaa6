//! What nodes ask each other, and the answers, as bytes.
//!
//! A request names the node it is meant for, with its directory: one that came to another disk is refused (rule M2).
//! Requests and answers carry a checksum, because a changed index could undo what was agreed on; and they are checked
//! here for all that the library takes for granted, so that no peer's bytes make it panic.
//!
//! Formats: `docs/formats/metadata-log.md`. Next: `network.rs`, which sends them.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use ottla_log::checked_file;

use crate::{
    entry,
    error::RequestError,
    snapshot,
    types::{Entry, LogId, Peer, Snapshot, Types, Vote, log_id, next_index, term_of},
    wire::{self, Malformed},
};

const REQUEST: [u8; 4] = *b"OQRQ";
const ANSWER: [u8; 4] = *b"OQAN";
const VERSION: u16 = 1;
const APPEND: u8 = 1;
const VOTE: u8 = 2;
const PRE_VOTE: u8 = 3;
const SNAPSHOT: u8 = 4;
const TRANSFER: u8 = 5;
/// The least bytes of an entry: term, length, version and kind.
const ENTRY_BYTES_MIN: usize = 10;

/// What a peer asks for.
pub(crate) enum Request {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<Types>),
    PreVote(VoteRequest<Types>),
    Snapshot { vote: Vote, snapshot: Snapshot },
    Transfer(TransferLeaderRequest<Types>),
}

fn envelope(kind: u8, from: &Peer, to: &Peer) -> Vec<u8> {
    let mut out = vec![kind];
    for peer in [to, from] {
        out.extend_from_slice(&peer.id.0.to_be_bytes());
        out.extend_from_slice(&peer.directory);
    }
    out
}

pub(crate) fn append(from: &Peer, to: &Peer, request: &AppendEntriesRequest<Types>) -> Bytes {
    let mut out = envelope(APPEND, from, to);
    wire::put_leader_id(&mut out, &request.vote.leader_id);
    wire::put_maybe_log_id(&mut out, request.prev_log_id.as_ref());
    wire::put_maybe_log_id(&mut out, request.leader_commit.as_ref());
    put_count(&mut out, request.entries.len());
    for each in &request.entries {
        out.extend_from_slice(&term_of(&each.log_id).to_be_bytes());
        let value = entry::encode(&each.payload);
        put_count(&mut out, value.len());
        out.extend_from_slice(&value);
    }
    seal(REQUEST, &out)
}

pub(crate) fn vote(from: &Peer, to: &Peer, request: &VoteRequest<Types>, pre: bool) -> Bytes {
    let mut out = envelope(if pre { PRE_VOTE } else { VOTE }, from, to);
    wire::put_leader_id(&mut out, &request.vote.leader_id);
    wire::put_maybe_log_id(&mut out, request.last_log_id.as_ref());
    out.push(u8::from(request.leadership_transfer));
    seal(REQUEST, &out)
}

pub(crate) fn install(from: &Peer, to: &Peer, vote: &Vote, snapshot: &Snapshot) -> Bytes {
    let mut out = envelope(SNAPSHOT, from, to);
    wire::put_leader_id(&mut out, &vote.leader_id);
    out.extend_from_slice(&snapshot::encode(&snapshot.meta, &snapshot.snapshot));
    seal(REQUEST, &out)
}

pub(crate) fn transfer(from: &Peer, to: &Peer, request: &TransferLeaderRequest<Types>) -> Bytes {
    let mut out = envelope(TRANSFER, from, to);
    wire::put_vote(&mut out, request.from_leader());
    out.extend_from_slice(&request.to_node_id().0.to_be_bytes());
    wire::put_maybe_log_id(&mut out, request.last_log_id());
    seal(REQUEST, &out)
}

fn seal(magic: [u8; 4], body: &[u8]) -> Bytes {
    checked_file::encode(magic, VERSION, body).into()
}

fn open(magic: [u8; 4], bytes: &Bytes) -> Result<Bytes, Malformed> {
    let body = checked_file::decode(magic, VERSION, bytes);
    body.map(|body| bytes.slice_ref(body)).ok_or(Malformed("it is not whole, or of a version that is not known"))
}

fn put_count(out: &mut Vec<u8>, count: usize) {
    // Nothing that is sent comes near: proposals, messages and snapshots have limits.
    out.extend_from_slice(&u32::try_from(count).unwrap_or(u32::MAX).to_be_bytes());
}

/// Reads a request that came to `me`.
pub(crate) fn decode(bytes: &Bytes, me: &Peer) -> Result<Request, RequestError> {
    let malformed = |error: Malformed| RequestError::Malformed(error.0);
    let input = &mut open(REQUEST, bytes).map_err(malformed)?;
    let kind = wire::take_u8(input).map_err(malformed)?;
    let to = take_peer(input).map_err(malformed)?;
    if to != *me {
        return Err(RequestError::NotForThisNode { id: to.id });
    }
    let _from = take_peer(input).map_err(malformed)?;
    decode_body(kind, input).map_err(malformed)
}

fn take_peer(input: &mut Bytes) -> Result<Peer, Malformed> {
    Ok(Peer { id: wire::take_id(input)?, directory: wire::take_directory(input)? })
}

fn decode_body(kind: u8, input: &mut Bytes) -> Result<Request, Malformed> {
    let request = match kind {
        APPEND => Request::Append(take_append(input)?),
        VOTE => Request::Vote(take_vote(input)?),
        PRE_VOTE => Request::PreVote(take_vote(input)?),
        SNAPSHOT => {
            let vote = Vote { leader_id: wire::take_leader_id(input)?, committed: true };
            let snapshot = snapshot::decode(input).ok_or(Malformed("the snapshot is not whole"))?;
            no_later(snapshot.meta.last_log_id.as_ref(), vote.leader_id.term)?;
            no_later(snapshot.meta.last_membership.log_id().as_ref(), vote.leader_id.term)?;
            input.clear();
            Request::Snapshot { vote, snapshot }
        }
        TRANSFER => {
            let (vote, to) = (wire::take_vote(input)?, wire::take_id(input)?);
            Request::Transfer(TransferLeaderRequest::new(vote, to, wire::take_maybe_log_id(input)?))
        }
        _ => return Err(Malformed("it is of a kind that is not known")),
    };
    wire::end(input)?;
    Ok(request)
}

/// Nothing that a leader sends is of a later term than its own.
fn no_later(id: Option<&LogId>, term: i32) -> Result<(), Malformed> {
    match id {
        Some(id) if term_of(id) > term => Err(Malformed("it is of a later term than its leader's")),
        _ => Ok(()),
    }
}

fn take_vote(input: &mut Bytes) -> Result<VoteRequest<Types>, Malformed> {
    let vote = Vote { leader_id: wire::take_leader_id(input)?, committed: false };
    let mut request = VoteRequest::new(vote, wire::take_maybe_log_id(input)?);
    request.leadership_transfer = wire::take_flag(input)?;
    Ok(request)
}

fn take_append(input: &mut Bytes) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let vote = Vote { leader_id: wire::take_leader_id(input)?, committed: true };
    let prev_log_id = wire::take_maybe_log_id(input)?;
    let leader_commit = wire::take_maybe_log_id(input)?;
    let count = usize::try_from(wire::take_u32(input)?).map_err(|_| Malformed("it ends early"))?;
    if count > input.len() / ENTRY_BYTES_MIN {
        return Err(Malformed("it has more entries than bytes"));
    }
    let mut entries = Vec::with_capacity(count);
    let mut last = prev_log_id.as_ref().map_or(0, term_of);
    let first = next_index(prev_log_id.as_ref());
    for index in (first..).take(count) {
        let term = wire::take_term(input)?;
        if term < last {
            return Err(Malformed("its terms go back"));
        }
        last = term;
        let len = wire::take_u32(input)?;
        let payload = entry::decode(wire::take_bytes(input, len)?)?;
        entries.push(Entry { log_id: log_id(term, index), payload });
    }
    if last > vote.leader_id.term {
        return Err(Malformed("it has entries of a later term than its leader's"));
    }
    no_later(leader_commit.as_ref(), vote.leader_id.term)?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub(crate) fn encode_appended(answer: &AppendEntriesResponse<Types>) -> Bytes {
    let mut out = Vec::new();
    match answer {
        AppendEntriesResponse::Success => out.push(0),
        AppendEntriesResponse::PartialSuccess(upto) => {
            out.push(1);
            wire::put_maybe_log_id(&mut out, upto.as_ref());
        }
        AppendEntriesResponse::Conflict => out.push(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.push(3);
            wire::put_vote(&mut out, vote);
        }
    }
    seal(ANSWER, &out)
}

pub(crate) fn decode_appended(bytes: Bytes) -> Result<AppendEntriesResponse<Types>, Malformed> {
    let input = &mut open(ANSWER, &bytes)?;
    let answer = match wire::take_u8(input)? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(wire::take_maybe_log_id(input)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(wire::take_vote(input)?),
        _ => return Err(Malformed("an answer of a kind that is not known")),
    };
    wire::end(input)?;
    Ok(answer)
}

pub(crate) fn encode_voted(answer: &VoteResponse<Types>) -> Bytes {
    let mut out = Vec::new();
    wire::put_vote(&mut out, &answer.vote);
    out.push(u8::from(answer.vote_granted));
    wire::put_maybe_log_id(&mut out, answer.last_log_id.as_ref());
    seal(ANSWER, &out)
}

pub(crate) fn decode_voted(bytes: Bytes) -> Result<VoteResponse<Types>, Malformed> {
    let input = &mut open(ANSWER, &bytes)?;
    let (vote, granted) = (wire::take_vote(input)?, wire::take_flag(input)?);
    let last = wire::take_maybe_log_id(input)?;
    wire::end(input)?;
    Ok(VoteResponse::new(vote, last, granted))
}

pub(crate) fn encode_installed(answer: &SnapshotResponse<Types>) -> Bytes {
    let mut out = Vec::new();
    wire::put_vote(&mut out, &answer.vote);
    seal(ANSWER, &out)
}

pub(crate) fn decode_installed(bytes: Bytes) -> Result<SnapshotResponse<Types>, Malformed> {
    let input = &mut open(ANSWER, &bytes)?;
    let vote = wire::take_vote(input)?;
    wire::end(input)?;
    Ok(SnapshotResponse::new(vote))
}

pub(crate) fn encode_transferred(answer: &TransferLeaderResponse<Types>) -> Bytes {
    let mut out = Vec::new();
    match answer {
        Ok(()) => out.push(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.push(1);
            wire::put_vote(&mut out, expected);
            wire::put_vote(&mut out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.push(2);
            wire::put_maybe_log_id(&mut out, expected.as_ref());
            wire::put_maybe_log_id(&mut out, actual.as_ref());
        }
    }
    seal(ANSWER, &out)
}

pub(crate) fn decode_transferred(bytes: Bytes) -> Result<TransferLeaderResponse<Types>, Malformed> {
    let input = &mut open(ANSWER, &bytes)?;
    let answer = match wire::take_u8(input)? {
        0 => Ok(()),
        1 => {
            let expected = wire::take_vote(input)?;
            Err(TransferLeaderError::VoteChanged { expected, actual: wire::take_vote(input)? })
        }
        2 => {
            let expected = wire::take_maybe_log_id(input)?;
            Err(TransferLeaderError::LogNotFlushed { expected, actual: wire::take_maybe_log_id(input)? })
        }
        _ => return Err(Malformed("an answer of a kind that is not known")),
    };
    wire::end(input)?;
    Ok(answer)
}
