//! A member's next step to its target: give up first, rise, then get what is free.
//!
//! What is not here: the target (`assignor.rs`), and what makes a member known (`heartbeat.rs`).

use std::collections::{BTreeMap, BTreeSet};

use super::{Current, Place};
use crate::{MemberState, Refusal, TopicPartitions};

/// What a step depends on.
pub(super) struct Step<'a, Wants, Held> {
    /// The epoch of the target.
    pub(super) epoch: i32,
    /// What the member should have.
    pub(super) target: &'a BTreeSet<Place>,
    /// Whether the member still wants a partition. The target may be older than its subscription.
    pub(super) wants: Wants,
    /// Whether somebody else has a partition.
    pub(super) is_held: Held,
    /// What the member says it has; `None` for as before.
    pub(super) owned: Option<&'a [TopicPartitions]>,
}

impl<Wants: Fn(&Place) -> bool, Held: Fn(&Place) -> bool> Step<'_, Wants, Held> {
    /// Where a member comes to from `current`; an equal value if it has to wait or has arrived.
    ///
    /// # Errors
    /// A newer broker left the member in a state unknown here: it has to come back with nothing.
    pub(super) fn from(&self, current: &Current) -> Result<Current, Refusal> {
        match current.state {
            MemberState::Stable if current.epoch == self.epoch => Ok(self.give_up_unwanted(current)),
            MemberState::UnrevokedPartitions if self.still_has(&current.revoking) => Ok(self.give_up_unwanted(current)),
            MemberState::Stable | MemberState::UnrevokedPartitions | MemberState::UnreleasedPartitions => {
                Ok(self.advance(current))
            }
            MemberState::Unknown if self.owned.is_some_and(|owned| owned.iter().all(|t| t.partitions.is_empty())) => {
                Ok(self.advance(current))
            }
            MemberState::Unknown => Err(Refusal::FencedMemberEpoch(
                "The member is in a state this broker does not know; it must give up its partitions and rejoin.".into(),
            )),
        }
    }

    fn advance(&self, current: &Current) -> Current {
        let is_due = |place: &Place| self.target.contains(place) && (self.wants)(place);
        let (mut assigned, revoking): (BTreeMap<_, _>, BTreeMap<_, _>) =
            current.assigned.iter().map(|(place, since)| (*place, *since)).partition(|(place, _)| is_due(place));
        if self.still_has(&revoking) {
            // It stays in its epoch: what it does not have yet might not be free.
            return self.at(current, current.epoch, MemberState::UnrevokedPartitions, assigned, revoking);
        }
        let mut state = MemberState::Stable;
        for place in self.target.iter().filter(|place| is_due(place)) {
            if (self.is_held)(place) {
                state = MemberState::UnreleasedPartitions;
            } else {
                assigned.entry(*place).or_insert(self.epoch);
            }
        }
        self.at(current, self.epoch, state, assigned, BTreeMap::new())
    }

    /// Topics it no longer wants go at once, without waiting for a target that says so.
    fn give_up_unwanted(&self, current: &Current) -> Current {
        if current.assigned.keys().all(&self.wants) {
            return current.clone();
        }
        let (assigned, unwanted): (BTreeMap<_, _>, BTreeMap<_, _>) =
            current.assigned.iter().map(|(place, since)| (*place, *since)).partition(|(place, _)| (self.wants)(place));
        let mut revoking = current.revoking.clone();
        revoking.extend(unwanted);
        if self.still_has(&revoking) {
            self.at(current, current.epoch, MemberState::UnrevokedPartitions, assigned, revoking)
        } else {
            self.at(current, current.epoch, current.state, assigned, BTreeMap::new())
        }
    }

    /// Whether the member has not yet said that it gave these up.
    fn still_has(&self, revoking: &BTreeMap<Place, i32>) -> bool {
        let Some(owned) = self.owned else { return !revoking.is_empty() };
        super::state::places(owned).any(|place| revoking.contains_key(&place))
    }

    fn at(
        &self,
        current: &Current,
        epoch: i32,
        state: MemberState,
        assigned: BTreeMap<Place, i32>,
        revoking: BTreeMap<Place, i32>,
    ) -> Current {
        // An epoch that stays keeps the one before, for a member whose last two answers are lost.
        let previous_epoch = if epoch == current.epoch { current.previous_epoch } else { current.epoch };
        Current { epoch, previous_epoch, state, assigned, revoking }
    }
}
