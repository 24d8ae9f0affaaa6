//! Which of the members' protocols a generation uses, and the one thing the broker reads in their metadata.

use std::{collections::BTreeMap, sync::Arc};

use super::{Group, Phase};
use crate::{DecodeError, Join, wire::Reader};

impl Group {
    /// Whether somebody who joins has a protocol in common with everybody who is there.
    pub(super) fn supports(&self, join: &Join) -> bool {
        if self.phase == Phase::Empty {
            return !join.protocol_type.is_empty() && !join.protocols.is_empty();
        }
        self.protocol_type.as_ref() == Some(&join.protocol_type)
            && join.protocols.iter().any(|(name, _)| self.is_common(name))
    }

    /// The protocol that most members have first among those that all of them know.
    pub(super) fn vote(&self) -> Option<Arc<str>> {
        let offered = self.members.values().next()?.protocols.iter();
        let mut votes: BTreeMap<&Arc<str>, usize> =
            offered.map(|(name, _)| (name, 0)).filter(|(name, _)| self.is_common(name)).collect();
        for member in self.members.values() {
            let mut names = member.protocols.iter().map(|(name, _)| name);
            if let Some(first) = names.find(|name| votes.contains_key(*name)) {
                *votes.entry(first).or_default() += 1;
            }
        }
        // The name decides between equals, so that it is always the same one.
        votes.into_iter().rev().max_by_key(|(_, votes)| *votes).map(|(name, _)| Arc::clone(name))
    }

    fn is_common(&self, protocol: &str) -> bool {
        self.members.values().all(|member| member.knows(protocol))
    }
}

/// The topics in the metadata of a consumer, which come behind a version; what follows them is not read.
pub(super) fn topics(metadata: &[u8]) -> Result<Vec<Arc<str>>, DecodeError> {
    let mut reader = Reader::new(metadata);
    let _version = reader.i16()?;
    let count = reader.count(2)?;
    (0..count).map(|_| reader.text()).collect()
}
