//! A simulated broker: its disk, what it knows of the cluster, and its copies of partitions, which are the real ones.
//!
//! As `ottla_node`'s `Partition` and `Controller` do, in straight code: a copy is opened by the first who needs it,
//! takes what the metadata says once the broker is registered, and is set aside if it is damaged and another leads.
//! What is not here: when any of this happens (`life.rs`), following (`following.rs`), who is answered (`serving.rs`).

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use ottla_log::{Checkpoint, Disk, Log, LogConfig, OpenError, Recovered, SimDisk, SyncError, SyncPlan, Synced};
use ottla_metadata::{
    CleanEnd, Image, Partition,
    config::{Durability as TopicDurability, Settings as MetadataSettings, TopicConfig},
};
use ottla_replica::{Assignment, Durability, Effect, IsrProposal, Replica, Settings};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, Offset, Tick, Timestamp};

use crate::{
    event::{FollowerFetch, Place},
    plan::Plan,
};

/// `replica.lag.time.max.ms`
pub(crate) const LAG_MAX_MS: u64 = 2000;
/// The wall clock when the simulation begins.
const WALL_CLOCK_MS: i64 = 1_700_000_000_000;

/// What a checkpoint file holds of a partition.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) log: Checkpoint,
    pub(crate) high_watermark: Offset,
}

#[derive(Debug)]
pub(crate) enum State {
    Closed(Option<Known>),
    Open(Box<Replica>),
    Offline(Option<Known>),
}

/// What became known of a damaged copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Damage {
    None,
    Found,
    Reported,
}

/// A producer that waits for its batch to be committed.
#[derive(Debug)]
pub(crate) struct Parked {
    pub(crate) producer: usize,
    pub(crate) attempt: u64,
    pub(crate) base: Offset,
    pub(crate) end: Offset,
    pub(crate) epoch: LeaderEpoch,
    pub(crate) until: u64,
}

/// One broker's copy of a partition.
#[derive(Debug)]
pub(crate) struct Copy {
    pub(crate) state: State,
    pub(crate) assignment: Option<Assignment>,
    pub(crate) config: TopicConfig,
    pub(crate) damage: Damage,
    /// The checkpoint has to be stored before the next Fetch.
    pub(crate) checkpoint_owed: bool,
    pub(crate) sync_listed: bool,
    pub(crate) plan: Option<SyncPlan>,
    pub(crate) synced: Option<Result<Synced, SyncError>>,
    pub(crate) parked: Vec<Parked>,
    pub(crate) seen: Seen,
}

/// What the checks have seen of an open copy.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) high_watermark: Offset,
    /// Everything below agrees with the truth.
    pub(crate) verified: Offset,
    /// The epoch in which it was last seen to lead.
    pub(crate) led: LeaderEpoch,
}

/// What a broker follows one leader in.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) generation: u64,
    pub(crate) set: Vec<(Place, LeaderEpoch)>,
    /// A request is under way, and given up then.
    pub(crate) asked_until: Option<u64>,
    /// What the leader last told of its high watermarks.
    pub(crate) told: BTreeMap<Place, Offset>,
}

/// ISRs that a broker wants committed.
#[derive(Debug, Default)]
pub(crate) struct Proposals {
    pub(crate) waiting: Vec<(Place, IsrProposal)>,
    pub(crate) asked: Vec<(Place, IsrProposal)>,
    pub(crate) id: u64,
    pub(crate) until: u64,
}

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    pub(crate) disk: SimDisk,
    pub(crate) directory: [u8; 16],
    pub(crate) up: bool,
    /// Counts its runs.
    pub(crate) life: u32,
    pub(crate) paused_until: u64,
    pub(crate) incarnation: [u8; 16],
    /// Left by a clean stop, gone with the next start.
    pub(crate) proof: CleanEnd,
    /// The proof that this run began with.
    pub(crate) ended: CleanEnd,
    pub(crate) image: Image,
    /// How many decisions the image holds.
    pub(crate) applied: usize,
    pub(crate) registered: bool,
    /// A sync failed: nothing is served until the next start (rule L10).
    pub(crate) failed: bool,
    /// It wants to stop, and does so then at the latest.
    pub(crate) leaving: Option<u64>,
    /// Its disk has no room until then.
    pub(crate) full_until: u64,
    pub(crate) metadata_late_until: u64,
    pub(crate) syncs_slow_until: u64,
    pub(crate) clock_ms: i64,
    pub(crate) ticks: u64,
    pub(crate) heartbeat_at: u64,
    pub(crate) copies: BTreeMap<Place, Copy>,
    /// The checkpoint file.
    pub(crate) stored: BTreeMap<Place, Known>,
    /// The checkpoint file as this run found it, until the broker is registered.
    pub(crate) last_run: BTreeMap<Place, Known>,
    pub(crate) following: BTreeMap<BrokerId, Following>,
    pub(crate) fetches: Vec<(u64, FollowerFetch)>,
    pub(crate) proposals: Proposals,
    pub(crate) generation: u64,
}

/// What opening a copy came to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Opened {
    Open,
    /// Below what was durable something is missing: what.
    Damaged(String),
    /// A sync failed.
    Failed,
    /// Not now.
    Unavailable,
}

impl Copy {
    pub(crate) fn new(known: Option<Known>, config: TopicConfig) -> Copy {
        Copy {
            state: State::Closed(known),
            assignment: None,
            config,
            damage: Damage::None,
            checkpoint_owed: false,
            sync_listed: false,
            plan: None,
            synced: None,
            parked: Vec::new(),
            seen: Seen::default(),
        }
    }

    pub(crate) fn replica(&self) -> Option<&Replica> {
        match &self.state {
            State::Open(replica) => Some(replica),
            State::Closed(_) | State::Offline(_) => None,
        }
    }

    pub(crate) fn replica_mut(&mut self) -> Option<&mut Replica> {
        match &mut self.state {
            State::Open(replica) => Some(replica),
            State::Closed(_) | State::Offline(_) => None,
        }
    }

    pub(crate) fn known(&self) -> Option<Known> {
        match &self.state {
            State::Open(replica) => {
                Some(Known { log: replica.log().checkpoint(), high_watermark: replica.high_watermark().offset })
            }
            State::Closed(known) | State::Offline(known) => known.clone(),
        }
    }

    /// For people who look into a failure.
    pub(crate) fn describe(&self) -> String {
        let more = format!("damage {:?}, owes checkpoint {}", self.damage, self.checkpoint_owed);
        match &self.state {
            State::Closed(_) => format!("closed, {more}"),
            State::Offline(_) => format!("offline, {more}"),
            State::Open(replica) => {
                let (log, high_watermark) = (replica.log(), replica.high_watermark().offset);
                let (start, end, durable) = (log.start(), log.end().offset, log.durable_end().offset);
                let (role, epoch) = (replica.role(), replica.leader_epoch());
                format!("{role:?} in {epoch}, {start} to {end}, durable {durable}, committed {high_watermark}, {more}")
            }
        }
    }

    /// The epoch of the leadership as the metadata has it here, and whether `me` leads.
    pub(crate) fn leadership(&self, me: BrokerId) -> (LeaderEpoch, bool) {
        let offline = matches!(self.state, State::Offline(_));
        self.assignment.as_ref().map_or((LeaderEpoch::NONE, false), |assignment| {
            (assignment.leader_epoch, assignment.leader == Some(me) && !offline)
        })
    }

    /// Whether `me` is to lead, even if it can't.
    pub(crate) fn leadership_given(&self, me: BrokerId) -> bool {
        self.assignment.as_ref().is_some_and(|assignment| assignment.leader == Some(me))
    }

    pub(crate) fn leads_in(&self, me: BrokerId, epoch: LeaderEpoch) -> bool {
        self.leadership(me) == (epoch, true)
    }

    pub(crate) fn is_fsync(&self) -> bool {
        self.config.durability == TopicDurability::Fsync
    }

    /// A follower's Fetch has to wait: its leader counts what is on the disk.
    pub(crate) fn owes_sync(&self) -> bool {
        let waits = self.is_fsync() && !cfg!(zoo = "B13");
        waits && self.replica().is_some_and(|replica| replica.log().durable_end() < replica.log().end())
    }
}

impl Broker {
    pub(crate) fn new(id: BrokerId, seed: u64, directory: [u8; 16]) -> Broker {
        Broker {
            id,
            disk: empty_disk(seed),
            directory,
            up: false,
            life: 0,
            paused_until: 0,
            incarnation: [0; 16],
            proof: CleanEnd::default(),
            ended: CleanEnd::default(),
            image: Image::default(),
            applied: 0,
            registered: false,
            failed: false,
            leaving: None,
            full_until: 0,
            metadata_late_until: 0,
            syncs_slow_until: 0,
            clock_ms: 0,
            ticks: 0,
            heartbeat_at: 0,
            copies: BTreeMap::new(),
            stored: BTreeMap::new(),
            last_run: BTreeMap::new(),
            following: BTreeMap::new(),
            fetches: Vec::new(),
            proposals: Proposals::default(),
            generation: 0,
        }
    }

    /// The wall clock, which nobody may rely on.
    pub(crate) fn wall_clock(&self, now: u64) -> Timestamp {
        let passed = i64::try_from(now).unwrap_or(i64::MAX);
        Timestamp(WALL_CLOCK_MS.saturating_add(passed).saturating_add(self.clock_ms))
    }

    /// The registration of this run, once it is known here.
    pub(crate) fn epoch(&self) -> Option<BrokerEpoch> {
        let own = self.image.broker(self.id).filter(|broker| broker.incarnation == self.incarnation);
        own.map(|own| own.epoch)
    }

    pub(crate) fn serves(&self) -> bool {
        self.up && !self.failed && self.registered
    }

    /// The place of that name and number, if there is a copy of it here.
    pub(crate) fn place(&self, topic: &str, index: ottla_types::PartitionIndex) -> Option<Place> {
        let place = (self.image.topic_named(topic)?.id, index);
        self.copies.contains_key(&place).then_some(place)
    }

    /// Opens a copy if nobody has.
    pub(crate) fn open(&mut self, place: Place, now: u64, plan: &Plan, effects: &mut Vec<Effect>) -> Opened {
        let (wall_clock, dir) = (self.wall_clock(now), directory_of(place));
        let Some(copy) = self.copies.get_mut(&place) else { return Opened::Unavailable };
        let known = match &mut copy.state {
            State::Open(_) => return Opened::Open,
            State::Offline(_) => return Opened::Unavailable,
            State::Closed(known) => known.clone(),
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let high_watermark = known.as_ref().map_or(Offset::ZERO, |known| known.high_watermark);
        let checkpoint = known.as_ref().map(|known| known.log.clone());
        let opened = Log::open(disk, dir, log_config(plan), checkpoint, wall_clock);
        match opened {
            Ok((_, Recovered { damaged: Some(damage), .. })) => {
                copy.state = State::Offline(known);
                if copy.damage == Damage::None {
                    copy.damage = Damage::Found;
                }
                Opened::Damaged(damage.to_string())
            }
            Ok((log, _)) => {
                let mut replica = Replica::new(log, self.id, high_watermark, settings(&copy.config));
                if let Some(assignment) = &copy.assignment
                    && replica.assign(Tick(now), assignment, effects).is_err()
                {
                    return Opened::Unavailable;
                }
                copy.seen = Seen::default();
                copy.state = State::Open(Box::new(replica));
                Opened::Open
            }
            Err(OpenError::Sync(_)) => Opened::Failed,
            Err(OpenError::Io { .. } | OpenError::Append(_)) => Opened::Unavailable,
        }
    }

    /// Makes what `image` says of a topic hold here; the places whose copies are gone.
    pub(crate) fn take_topic(
        &mut self,
        topic: ottla_types::TopicId,
        settings_of: &MetadataSettings,
        now: u64,
        effects: &mut Vec<(Place, Effect)>,
    ) {
        let held: Vec<Place> = self.copies.keys().copied().filter(|place| place.0 == topic).collect();
        let described = self.image.topic(topic).cloned();
        for place in held {
            let there = described.as_ref().and_then(|topic| topic.partition(place.1));
            if there.is_none_or(|partition| !partition.replicas.contains(&self.id)) {
                self.copies.remove(&place);
                self.discard(place);
            }
        }
        let Some(topic) = described else { return };
        let defaults = TopicConfig::resolve(&self.image.layers(self.id, settings_of));
        let config = defaults.with_overrides(&topic.overrides);
        let me = self.id;
        for (index, partition) in topic.numbered().filter(|(_, partition)| partition.replicas.contains(&me)) {
            let place = (topic.id, index);
            let known = self.last_run.get(&place).cloned();
            // What is stored of a copy that was taken away must not be held against the one that comes for it.
            let stale = known.is_none() && self.stored.contains_key(&place);
            let copy =
                self.copies.entry(place).or_insert_with(|| Copy { checkpoint_owed: stale, ..Copy::new(known, config) });
            if copy.config != config {
                copy.config = config;
                if let State::Open(replica) = &mut copy.state {
                    replica.set_settings(settings(&config));
                }
            }
            if self.registered {
                let mut wanted = Vec::new();
                self.assign(place, assignment(partition), now, &mut wanted);
                effects.extend(wanted.into_iter().map(|effect| (place, effect)));
            }
        }
    }

    fn assign(&mut self, place: Place, assignment: Assignment, now: u64, effects: &mut Vec<Effect>) {
        let Some(copy) = self.copies.get_mut(&place) else { return };
        copy.assignment = Some(assignment.clone());
        self.begin_anew_if_damaged(place);
        let Some(copy) = self.copies.get_mut(&place) else { return };
        if let State::Open(replica) = &mut copy.state
            && replica.assign(Tick(now), &assignment, effects).is_err()
        {
            copy.state = State::Offline(copy.known());
        }
    }

    /// A damaged copy is made anew as soon as another broker leads and the controller knows (rule L5).
    pub(crate) fn begin_anew_if_damaged(&mut self, place: Place) -> bool {
        let Some(copy) = self.copies.get_mut(&place) else { return false };
        let led_by_other = copy.assignment.as_ref().is_some_and(|assignment| {
            assignment.leader.is_some_and(|leader| leader != self.id) && !assignment.isr.contains(&self.id)
        });
        let anew = led_by_other && copy.damage == Damage::Reported && matches!(copy.state, State::Offline(_));
        if anew {
            copy.state = State::Closed(None);
            copy.damage = Damage::None;
            // What is stored about the old copy must not be held against the new one.
            copy.checkpoint_owed = true;
            self.discard(place);
        }
        anew
    }

    /// An operator accepts that a damaged copy is all there is, and removes it.
    pub(crate) fn give_up_damaged(&mut self, place: Place) {
        if let Some(copy) = self.copies.get_mut(&place).filter(|copy| matches!(copy.state, State::Offline(_))) {
            (copy.state, copy.damage) = (State::Closed(None), Damage::None);
            self.discard(place);
        }
    }

    fn discard(&mut self, place: Place) {
        // Set aside under a name that nobody opens, as the node does; that its name may come back is part of it.
        let dir = directory_of(place);
        let mut aside = dir.clone().into_os_string();
        aside.push(".deleted");
        let aside = PathBuf::from(aside);
        if self.disk.exists(&aside).unwrap_or(false) {
            let _ = self.disk.remove_dir_all(&aside);
        }
        if self.disk.exists(&dir).unwrap_or(false) {
            let _ = self.disk.rename(&dir, &aside);
            let _ = self.disk.remove_dir_all(&aside);
            // The simulated disk knows a directory by its name: a rename must not come to hold after what a new
            // directory of the name has synced.
            let _ = self.disk.sync_dir(ROOT.as_ref());
        }
    }

    /// Directories of partitions that the cluster does not have here go, once it is known what it has.
    pub(crate) fn quarantine_unknown(&mut self) {
        let known: Vec<PathBuf> = self.copies.keys().map(|place| directory_of(*place)).collect();
        let root = PathBuf::from(ROOT);
        for name in self.disk.list(&root).unwrap_or_default() {
            let dir = root.join(name);
            if !known.contains(&dir) {
                let _ = self.disk.remove_dir_all(&dir);
            }
        }
    }

    /// Writes the checkpoint file.
    pub(crate) fn store_checkpoint(&mut self) {
        self.stored = self.copies.iter().filter_map(|(place, copy)| Some((*place, copy.known()?))).collect();
        self.copies.values_mut().for_each(|copy| copy.checkpoint_owed = false);
    }
}

const ROOT: &str = "data";

pub(crate) fn empty_disk(seed: u64) -> SimDisk {
    let disk = SimDisk::new(seed);
    // An empty disk of this kind refuses neither.
    let _ = disk.create_dir_all(ROOT.as_ref());
    let _ = disk.sync_dir("".as_ref());
    disk
}

pub(crate) fn directory_of((topic, index): Place) -> PathBuf {
    PathBuf::from(ROOT).join(format!("{topic}-{index}"))
}

/// Small segments and checkpoints, so that everything happens soon.
fn log_config(plan: &Plan) -> LogConfig {
    LogConfig {
        segment_bytes: plan.segment_bytes,
        index_interval_bytes: 256,
        checkpoint_bytes: plan.checkpoint_bytes,
        file_delete_delay_ms: 0,
        ..LogConfig::default()
    }
}

fn settings(config: &TopicConfig) -> Settings {
    Settings {
        durability: match config.durability {
            TopicDurability::Fsync => Durability::Fsync,
            TopicDurability::Replicated => Durability::Replicated,
        },
        min_insync_replicas: usize::try_from(config.min_insync_replicas).unwrap_or(usize::MAX),
        lag_max: Tick(LAG_MAX_MS),
    }
}

pub(crate) fn assignment(described: &Partition) -> Assignment {
    Assignment {
        leader: described.leader,
        leader_epoch: described.leader_epoch,
        partition_epoch: described.partition_epoch,
        replicas: Arc::clone(&described.replicas),
        adding: Arc::clone(&described.adding),
        isr: Arc::clone(&described.isr),
        recovering: described.recovering,
    }
}
