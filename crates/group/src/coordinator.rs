//! The groups of one partition of `__consumer_offsets`: commands in, records and replies out.
//!
//! What is not here: the rules of each kind of group (`classic.rs`, `consumer.rs`) and of offsets (`offsets.rs`); this
//! file finds the group, keeps the timers, and applies records to whom they belong. Next: `coordinator/` for how each
//! command finds its group.

mod limits;
mod members;
mod offsets;

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
};

use ottla_metadata::Image;
use ottla_types::{Tick, Timestamp, TopicId};

use crate::{
    ClassicDescription, Command, ConsumerDescription, FetchOffsets, FetchedOffset, GroupConfig, GroupId, GroupListing,
    GroupType, Record, Refusal, Reply, classic, consumer,
    offsets::Offsets,
    timers::{Timer, Timers},
};

/// What a decision is made against, besides the coordinator's own state.
#[derive(Clone, Copy, Debug)]
pub struct Context<'a> {
    /// Now, for timeouts.
    pub now: Tick,
    /// Now, for what is written down.
    pub wall: Timestamp,
    /// The topics, and the configs of single groups.
    pub image: &'a Image,
    /// The broker's settings.
    pub config: &'a GroupConfig,
}

/// Names one command, so that its reply finds the way back. The driver counts them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(pub u64);

/// What follows from a command.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// To be appended as one batch, and applied in this order. If they can't be appended nothing of this decision
    /// holds that is durable, and its replies are an error.
    pub records: Vec<Record>,
    /// Replies to this command or to earlier ones, to be sent once everything appended so far is committed.
    pub replies: Vec<(Ticket, Reply)>,
    /// A group has become one of the other kind. If the records can't be appended, the coordinator is to be loaded
    /// anew: it holds what is not so.
    pub changes_kind: bool,
}

/// The groups of one partition; see the crate.
pub struct Coordinator {
    groups: HashMap<GroupId, Group>,
    offsets: Offsets,
    timers: Timers,
    /// Draws 16 random bytes, for member ids.
    entropy: Box<dyn FnMut() -> [u8; 16] + Send>,
}

enum Group {
    Classic(classic::Group),
    Consumer(consumer::Group),
}

impl Coordinator {
    /// No groups yet. `entropy` draws 16 random bytes.
    pub fn new(entropy: Box<dyn FnMut() -> [u8; 16] + Send>) -> Coordinator {
        Coordinator { groups: HashMap::new(), offsets: Offsets::default(), timers: Timers::default(), entropy }
    }

    /// Takes a record in: while loading, or right after it was decided and appended. The only way durable state
    /// changes.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::OffsetCommit(group, topic, partition, committed) => {
                if committed.is_some() {
                    let simple = || Group::Classic(classic::Group::new(Arc::clone(group)));
                    self.groups.entry(Arc::clone(group)).or_insert_with(simple);
                }
                self.offsets.apply(group, topic, *partition, committed.as_ref());
            }
            Record::ClassicGroup(id, Some(value)) => match self.groups.get_mut(id) {
                Some(Group::Classic(group)) => group.apply(value),
                _ => {
                    let mut group = classic::Group::new(Arc::clone(id));
                    group.apply(value);
                    self.groups.insert(Arc::clone(id), Group::Classic(group));
                }
            },
            Record::ClassicGroup(id, None) => {
                if let Some(Group::Classic(_)) = self.groups.get(id) {
                    self.drop_group(id);
                }
            }
            Record::ConsumerGroup(id, None) => {
                if let Some(Group::Consumer(_)) = self.groups.get(id) {
                    self.drop_group(id);
                }
            }
            Record::ConsumerGroup(id, Some(_))
            | Record::ConsumerMember(id, _, Some(_))
            | Record::ConsumerTarget(id, Some(_))
            | Record::ConsumerTargetMember(id, _, Some(_))
            | Record::ConsumerCurrent(id, _, Some(_))
            | Record::ConsumerRegex(id, _, Some(_)) => match self.groups.get_mut(id) {
                Some(Group::Consumer(group)) => group.apply(record),
                _ => {
                    let mut group = consumer::Group::new(Arc::clone(id));
                    group.apply(record);
                    self.groups.insert(Arc::clone(id), Group::Consumer(group));
                }
            },
            Record::ConsumerMember(id, _, None)
            | Record::ConsumerTarget(id, None)
            | Record::ConsumerTargetMember(id, _, None)
            | Record::ConsumerCurrent(id, _, None)
            | Record::ConsumerRegex(id, _, None) => {
                if let Some(Group::Consumer(group)) = self.groups.get_mut(id) {
                    group.apply(record);
                }
            }
        }
    }

    /// The log has been read to its end: time runs for the groups from now, and for everybody anew (rule G3).
    pub fn loaded(&mut self, ctx: &Context<'_>) {
        for group in self.groups.values() {
            match group {
                Group::Classic(group) => group.start_timers(ctx, &mut self.timers),
                Group::Consumer(group) => group.start_timers(ctx, &mut self.timers),
            }
        }
        self.set_expiry(ctx, ctx.config.offsets_retention_check_interval_ms);
    }

    /// What follows from `command`. Its reply is here, or comes with a later decision.
    pub fn decide(&mut self, ctx: &Context<'_>, ticket: Ticket, command: Command) -> Decision {
        let mut out = Decision::default();
        if let Err(reply) = limits::check(ctx, &command) {
            out.replies.push((ticket, *reply));
            return out;
        }
        match command {
            Command::Join(join) => self.join(ctx, ticket, join, &mut out),
            Command::Sync(sync) => self.sync(ctx, ticket, sync, &mut out),
            Command::Heartbeat(heartbeat) => {
                let result = self.heartbeat(ctx, &heartbeat, &mut out);
                out.replies.push((ticket, Reply::Heartbeat(result)));
            }
            Command::Leave(leave) => {
                let rows = self.leave(ctx, leave, &mut out);
                out.replies.push((ticket, Reply::Leave(Ok(rows))));
            }
            Command::ConsumerHeartbeat(heartbeat) => {
                let result = self.consumer_heartbeat(ctx, heartbeat, &mut out);
                out.replies.push((ticket, Reply::ConsumerHeartbeat(result)));
            }
            Command::CommitOffsets(commit) => {
                let result = self.commit_offsets(ctx, &commit, &mut out.records);
                out.replies.push((ticket, Reply::CommitOffsets(result)));
            }
            Command::DeleteOffsets(delete) => {
                let result = self.delete_offsets(&delete, &mut out.records);
                out.replies.push((ticket, Reply::DeleteOffsets(result)));
            }
            Command::DeleteGroup(group) => {
                let result = self.delete_group(&group, &mut out.records);
                out.replies.push((ticket, Reply::DeleteGroup(result)));
            }
            Command::TopicsDeleted(topics) => self.offsets.delete_topics(&topics, &mut out.records),
            Command::TimePassed => self.time_passed(ctx, &mut out),
        }
        out
    }

    /// When [`Command::TimePassed`] is due next, which may be at once: it goes no further than the first consequence.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.timers.next()
    }

    /// How far a group is. It may rest on records that are not committed yet; the driver waits for those.
    ///
    /// # Errors
    /// Who asks says it is a member and is none, or of another epoch.
    pub fn fetch_offsets(&self, _ctx: &Context<'_>, fetch: &FetchOffsets) -> Result<Vec<FetchedOffset>, Refusal> {
        if let Some(Group::Consumer(group)) = self.groups.get(&fetch.group) {
            group.validate_fetch(fetch.member.as_ref(), fetch.member_epoch)?;
        }
        Ok(self.offsets.fetch(&fetch.group, fetch.partitions.as_deref()))
    }

    /// The topics that somebody has committed offsets of, for [`Command::TopicsDeleted`] after a load.
    pub fn topics(&self) -> BTreeSet<(TopicId, Arc<str>)> {
        self.offsets.topics()
    }

    /// Every group, in no order.
    pub fn list(&self) -> Vec<GroupListing> {
        let existing = self.groups.iter().filter(|(id, group)| group.exists(&self.offsets, id));
        let groups = existing.map(|(id, group)| match group {
            Group::Classic(group) => group.listing(),
            Group::Consumer(group) => GroupListing {
                group: Arc::clone(id),
                protocol_type: classic::CONSUMER.into(),
                state: group.state(),
                kind: GroupType::Consumer,
            },
        });
        groups.collect()
    }

    /// DescribeGroups.
    ///
    /// # Errors
    /// There is no such group, or it is a consumer group.
    pub fn describe_classic(&self, id: &str) -> Result<ClassicDescription, Refusal> {
        match self.existing(id)? {
            Group::Classic(group) => Ok(group.describe()),
            Group::Consumer(_) => Err(Refusal::GroupIdNotFound(format!("Group {id} is not a classic group."))),
        }
    }

    /// ConsumerGroupDescribe.
    ///
    /// # Errors
    /// There is no such group, or it is a classic group.
    pub fn describe_consumer(&self, ctx: &Context<'_>, id: &str) -> Result<ConsumerDescription, Refusal> {
        match self.existing(id)? {
            Group::Consumer(group) => Ok(group.describe(ctx)),
            Group::Classic(_) => Err(Refusal::GroupIdNotFound(format!("Group {id} is not a consumer group."))),
        }
    }

    /// Does what is due, up to the first that has a consequence: what comes after has to see its records applied, and
    /// must not fail with it.
    fn time_passed(&mut self, ctx: &Context<'_>, out: &mut Decision) {
        while out.records.is_empty() && out.replies.is_empty() {
            let Some(timer) = self.timers.take_due(ctx.now) else { return };
            match timer {
                Timer::Session(group, member) => self.session_expired(ctx, &group, &member, out),
                Timer::Rebalance(group) => self.on_classic(ctx, &group, out, classic::Group::rebalance_due),
                Timer::Sync(group) => self.on_classic(ctx, &group, out, classic::Group::sync_due),
                Timer::PendingMember(group, member) => {
                    self.on_classic(ctx, &group, out, |group, turn| group.pending_expired(turn, &member));
                }
                Timer::Revocation(group, member) => self.revocation_overdue(ctx, &group, &member, out),
                Timer::Expiry => self.expire_offsets(ctx, &mut out.records),
            }
        }
    }

    /// A group's record is gone. If its offsets are not, it is a group of offsets alone.
    fn drop_group(&mut self, id: &GroupId) {
        if self.offsets.has(id) {
            self.groups.insert(Arc::clone(id), Group::Classic(classic::Group::new(Arc::clone(id))));
        } else {
            self.groups.remove(id);
        }
    }
}
