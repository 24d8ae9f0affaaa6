//! Offsets and whole groups: who may commit, what is deleted, and what expires.

use std::sync::Arc;

use ottla_types::Tick;

use super::{Context, Coordinator, Group};
use crate::{
    CommitOffsets, Committed, DeleteOffsets, GroupId, GroupState, Record, Refusal,
    offsets::{Offsets, commit},
    timers::Timer,
};

/// How many offsets expire at once, about: they are one batch.
const EXPIRED_AT_ONCE: usize = 1_000;
/// How long others get a turn before the next. Not at once: these may not have been written down.
const EXPIRY_PAUSE_MS: i64 = 100;

impl Coordinator {
    pub(super) fn commit_offsets(
        &mut self,
        ctx: &Context<'_>,
        request: &CommitOffsets,
        records: &mut Vec<Record>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        match self.groups.get(&request.group) {
            // The first commit of somebody who is no member makes a group of offsets alone.
            None if request.epoch < 0 => {}
            None if request.knows_member_epochs => return Err(no_such_group(&request.group)),
            None => return Err(Refusal::IllegalGeneration),
            Some(Group::Consumer(group)) => group.validate_commit(request)?,
            Some(Group::Classic(group)) => {
                group.validate_commit(request)?;
                group.committed(ctx, &mut self.timers, &request.member);
            }
        }
        Ok(commit(ctx, request, records))
    }

    pub(super) fn delete_offsets(
        &self,
        request: &DeleteOffsets,
        records: &mut Vec<Record>,
    ) -> Result<Vec<Result<(), Refusal>>, Refusal> {
        let group = self.existing(&request.group)?;
        if let Group::Classic(group) = group {
            group.validate_delete_offsets()?;
        }
        Ok(self.offsets.delete(&request.group, &request.partitions, |topic| group.is_subscribed(topic), records))
    }

    pub(super) fn delete_group(&self, id: &GroupId, records: &mut Vec<Record>) -> Result<(), Refusal> {
        let group = self.existing(id)?;
        if !group.is_empty() {
            return Err(Refusal::NonEmptyGroup);
        }
        self.offsets.delete_all(id, records);
        records.extend(group.tombstones(id));
        Ok(())
    }

    /// Lets offsets go that nobody needs any more, and groups that have neither members nor offsets.
    pub(super) fn expire_offsets(&mut self, ctx: &Context<'_>, records: &mut Vec<Record>) {
        for (id, group) in &self.groups {
            let since = |topic: &str, committed: &Committed| group.expires_since(topic, committed);
            let is_bare = self.offsets.expire(ctx, id, since, records);
            if is_bare && group.is_empty() && !group.has_pending() {
                records.extend(group.tombstones(id));
            }
            if records.len() >= EXPIRED_AT_ONCE {
                // The rest when these are gone.
                return self.set_expiry(ctx, EXPIRY_PAUSE_MS);
            }
        }
        self.set_expiry(ctx, ctx.config.offsets_retention_check_interval_ms);
    }

    pub(super) fn set_expiry(&mut self, ctx: &Context<'_>, after_ms: i64) {
        let after_ms = u64::try_from(after_ms).unwrap_or(0);
        self.timers.set(Timer::Expiry, Tick(ctx.now.0.saturating_add(after_ms)));
    }

    pub(super) fn existing(&self, id: &str) -> Result<&Group, Refusal> {
        self.groups.get(id).filter(|group| group.exists(&self.offsets, id)).ok_or_else(|| no_such_group(id))
    }
}

impl Group {
    /// Whether there is anything to it but ids that were given away.
    pub(super) fn exists(&self, offsets: &Offsets, id: &str) -> bool {
        match self {
            Group::Classic(group) => group.exists() || offsets.has(id),
            Group::Consumer(_) => true,
        }
    }

    fn is_empty(&self) -> bool {
        match self {
            Group::Classic(group) => group.is_empty(),
            Group::Consumer(group) => group.is_empty(),
        }
    }

    fn has_pending(&self) -> bool {
        matches!(self, Group::Classic(group) if group.has_pending())
    }

    fn is_subscribed(&self, topic: &str) -> bool {
        match self {
            Group::Classic(group) => group.is_subscribed(topic),
            Group::Consumer(group) => group.is_subscribed(topic),
        }
    }

    /// Since when an offset waits for its expiry; `None` while it does not, because somebody reads the topic or may be
    /// about to (rule G4, bug class B37).
    fn expires_since(&self, topic: &str, committed: &Committed) -> Option<ottla_types::Timestamp> {
        let since = match self {
            Group::Classic(group) => group.expires_since(committed.committed_at),
            Group::Consumer(group) => {
                matches!(group.state(), GroupState::Empty | GroupState::Stable).then_some(committed.committed_at)
            }
        };
        since.filter(|_| !self.is_subscribed(topic))
    }

    fn tombstones(&self, id: &GroupId) -> Vec<Record> {
        match self {
            Group::Classic(_) => vec![Record::ClassicGroup(Arc::clone(id), None)],
            Group::Consumer(group) => group.tombstones(),
        }
    }
}

fn no_such_group(id: &str) -> Refusal {
    Refusal::GroupIdNotFound(format!("Group {id} not found."))
}
