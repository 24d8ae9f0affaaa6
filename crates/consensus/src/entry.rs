//! What one entry of the metadata log holds: nothing, a proposal, or who is in the cluster.
//!
//! The same bytes lie in the log, as the value of the record, and travel to peers. Its term and index are not in them:
//! they are the leader epoch and the offset of the batch. Format: `docs/formats/metadata-log.md`. Next: `message.rs`.

use bytes::Bytes;
use ottla_types::LeaderEpoch;

use crate::{
    types::{Payload, Proposal},
    wire::{self, Malformed},
};

const VERSION: u8 = 1;
const BLANK: u8 = 0;
const PROPOSAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

pub(crate) fn encode(payload: &Payload) -> Vec<u8> {
    match payload {
        Payload::Blank => vec![VERSION, BLANK],
        Payload::Normal(proposal) => {
            let mut out = Vec::with_capacity(6 + proposal.payload.len());
            out.extend_from_slice(&[VERSION, PROPOSAL]);
            out.extend_from_slice(&proposal.term.0.to_be_bytes());
            out.extend_from_slice(&proposal.payload);
            out
        }
        Payload::Membership(membership) => {
            let mut out = vec![VERSION, MEMBERSHIP];
            wire::put_membership(&mut out, membership);
            out
        }
    }
}

pub(crate) fn decode(mut bytes: Bytes) -> Result<Payload, Malformed> {
    if wire::take_u8(&mut bytes)? != VERSION {
        return Err(Malformed("an entry of a version that is not known"));
    }
    let payload = match wire::take_u8(&mut bytes)? {
        BLANK => Payload::Blank,
        PROPOSAL => {
            let term = LeaderEpoch(wire::take_term(&mut bytes)?);
            return Ok(Payload::Normal(Proposal { term, payload: bytes }));
        }
        MEMBERSHIP => Payload::Membership(wire::take_membership(&mut bytes)?),
        _ => return Err(Malformed("an entry of a kind that is not known")),
    };
    wire::end(&bytes)?;
    Ok(payload)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use ottla_types::BrokerId;

    use super::*;
    use crate::types::Membership;

    #[test]
    fn the_examples_of_the_format_page_are_written_and_read() {
        let page = include_str!("../../../docs/formats/metadata-log.md");
        let rows = page.lines().filter(|line| line.starts_with("01 0"));
        let examples: Vec<Vec<u8>> = rows
            .map(|row| row.replace(' ', ""))
            .map(|digits| {
                let pairs = (0..digits.len()).step_by(2).map(|at| &digits[at..at + 2]);
                pairs.map(|pair| u8::from_str_radix(pair, 16).unwrap()).collect()
            })
            .collect();
        let proposal = Proposal { term: LeaderEpoch(5), payload: Bytes::from_static(b"hi") };
        let nodes = BTreeMap::from([(BrokerId(1), [0x0a; 16])]);
        let members = Membership::new(vec![BTreeSet::from([BrokerId(1)])], nodes).unwrap();
        for (payload, example) in [Payload::Normal(proposal), Payload::Membership(members)].iter().zip(&examples) {
            assert_eq!(encode(payload), *example);
            assert!(decode(example.clone().into()).unwrap() == *payload);
        }
        assert_eq!(examples.len(), 2);
        assert!(decode(examples[1][1..].to_vec().into()).is_err());
    }
}
