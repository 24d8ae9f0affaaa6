//! What a node promises of groups: an answer is as durable as what it rests on, and nobody is answered from a
//! coordinator that has not read everything. The rules of groups themselves are tested in `ottla-group`.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

mod common;

use std::{
    future::Future,
    io::{self, IoSlice},
    ops::Range,
    os::fd::BorrowedFd,
    path::Path,
    pin::pin,
    sync::{Arc, Barrier, Condvar, Mutex},
    task::{Context, Poll, Wake, Waker},
    thread::{self, Thread},
    time::Instant,
};

use bytes::Bytes;
use common::{DEADLINE, eventually, open, open_on};
use ottla_group::{
    Command, CommitOffset, CommitOffsets, Committed, ConsumerHeartbeat, ConsumerHeartbeatReply, FetchOffsets,
    GroupState, Join, JoinRefusal, Joined, Refusal, Reply, Sync,
};
use ottla_log::{Disk, DiskFile, SimDisk, Space};
use ottla_metadata::{Command as MetadataCommand, OFFSETS_TOPIC, TopicRef};
use ottla_node::{NoCoordinator, Node, Pending, group_partition};
use ottla_types::{LeaderEpoch, Offset, PartitionIndex, TopicId};

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for an answer as a connection does.
fn wait<T: Unpin>(pending: Pending<T>) -> Result<T, NoCoordinator> {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut pending = pin!(pending);
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Poll::Ready(answer) = pending.as_mut().poll(&mut Context::from_waker(&waker)) {
            return answer;
        }
        let left = deadline.checked_duration_since(Instant::now()).unwrap_or_else(|| panic!("no answer in time"));
        thread::park_timeout(left);
    }
}

/// A node with its offsets topic.
fn open_with_topic(disk: &SimDisk) -> Arc<Node> {
    let node = open(disk);
    node.request_topic(OFFSETS_TOPIC);
    eventually("the offsets topic", || node.topics().named(OFFSETS_TOPIC).is_some());
    node
}

fn committing(group: &str, offset: i64, metadata: &str) -> Command {
    Command::CommitOffsets(CommitOffsets {
        group: group.into(),
        member: "".into(),
        instance: None,
        epoch: -1,
        knows_member_epochs: true,
        retention_ms: None,
        offsets: vec![CommitOffset {
            topic: "t".into(),
            topic_id: TopicId::ZERO,
            partition: PartitionIndex(0),
            offset: Offset(offset),
            leader_epoch: LeaderEpoch(7),
            metadata: metadata.into(),
        }],
    })
}

fn submit(node: &Node, group: &str, offset: i64, metadata: &str) -> Pending<Result<Vec<Result<(), Refusal>>, Refusal>> {
    node.groups().submit(group, committing(group, offset, metadata), |reply| match reply {
        Reply::CommitOffsets(rows) => Some(rows),
        _ => None,
    })
}

/// Commits and waits; whether it was taken.
fn commit(node: &Node, group: &str, offset: i64) -> Result<(), NoCoordinator> {
    wait(submit(node, group, offset, "note")).map(|rows| assert_eq!(rows, Ok(vec![Ok(())])))
}

fn fetch(node: &Node, group: &str) -> Result<Option<Committed>, NoCoordinator> {
    let wanted = FetchOffsets {
        group: group.into(),
        member: None,
        member_epoch: -1,
        partitions: Some(vec![("t".into(), PartitionIndex(0))]),
        require_stable: false,
    };
    wait(node.groups().query(group, |groups, now| groups.fetch_offsets(now, &wanted)))
        .map(|rows| rows.unwrap().remove(0).committed)
}

fn committed_offset(node: &Node, group: &str) -> Result<Option<i64>, NoCoordinator> {
    fetch(node, group).map(|committed| committed.map(|committed| committed.offset.0))
}

#[test]
fn groups_are_spread_as_kafka_spreads_them() {
    // Java's hash codes: 96354 for "abc", the smallest number for "polygenelubricants", 165931005 for the last.
    assert_eq!(group_partition("abc", 50), 4);
    assert_eq!(group_partition("", 50), 0);
    assert_eq!(group_partition("polygenelubricants", 50), 0);
    assert_eq!(group_partition("gruppe-äöü-\u{1F9A6}", 50), 5);
}

#[test]
fn g1_b38_a_commit_that_was_answered_survives_a_power_cut_whole() {
    for seed in 0..5 {
        let disk = SimDisk::new(seed);
        let node = open_with_topic(&disk);
        for number in 0..20 {
            commit(&node, &format!("group-{}", number % 7), number).unwrap();
        }
        let after = open(&disk.crash());
        for group in 0..7 {
            let name = format!("group-{group}");
            eventually("loaded", || committed_offset(&after, &name) != Err(NoCoordinator::Loading));
            let committed = fetch(&after, &name).unwrap().unwrap();
            let expected = (0..20).rfind(|number| number % 7 == group).unwrap();
            assert_eq!(committed.offset, Offset(expected), "seed {seed}");
            assert_eq!((committed.leader_epoch, &*committed.metadata), (LeaderEpoch(7), "note"));
        }
    }
}

#[test]
fn g1_a_commit_that_can_not_be_synced_is_not_answered_as_done() {
    let disk = SimDisk::new(3);
    let node = open_with_topic(&disk);
    commit(&node, "g", 1).unwrap();
    disk.fail_syncs(true);
    assert_eq!(commit(&node, "g", 2), Err(NoCoordinator::NotHere));
}

#[test]
fn who_comes_first_to_a_new_coordinator_is_served_however_many_come_at_once() {
    for seed in 0..30 {
        let disk = SimDisk::new(seed);
        let node = open_with_topic(&disk);
        let start = Barrier::new(4);
        let all = thread::scope(|scope| {
            let one = |number: i64| {
                let (node, start) = (&node, &start);
                scope.spawn(move || {
                    start.wait();
                    commit(node, "g", number)
                })
            };
            let threads: Vec<_> = (0..4).map(one).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect::<Vec<_>>()
        });
        assert_eq!(all, vec![Ok(()); 4], "seed {seed}");
    }
}

#[test]
fn a_full_disk_refuses_commits_and_takes_them_again() {
    let disk = SimDisk::new(4);
    let node = open_with_topic(&disk);
    commit(&node, "g", 1).unwrap();
    disk.set_capacity(Some(disk.used()));
    // What is reserved already takes some more.
    let refused = (2..10_000).find(|&offset| commit(&node, "g", offset) == Err(NoCoordinator::NotAvailable)).unwrap();
    assert_eq!(committed_offset(&node, "g"), Ok(Some(refused - 1)), "what was refused never happened");
    disk.set_capacity(None);
    commit(&node, "g", 7).unwrap();
    assert_eq!(committed_offset(&node, "g"), Ok(Some(7)));
}

#[test]
fn b36_a_session_that_ends_on_a_full_disk_ends_once_there_is_room() {
    let disk = SimDisk::new(7);
    let sessions = [
        ("offsets.topic.num.partitions", "1"),
        ("group.consumer.min.session.timeout.ms", "1500"),
        ("group.consumer.session.timeout.ms", "1500"),
        ("group.consumer.min.heartbeat.interval.ms", "10"),
        ("group.consumer.heartbeat.interval.ms", "10"),
        ("group.initial.rebalance.delay.ms", "2000"),
    ];
    let node = open_on(Arc::new(disk.clone()), 1, &sessions);
    node.request_topic(OFFSETS_TOPIC);
    eventually("the offsets topic", || node.topics().named(OFFSETS_TOPIC).is_some());
    common::create(&node, "t", 1, &[]);
    wait(enter(&node, "g")).unwrap().unwrap();
    let waiting = join(&node, "waits", "");
    // Well before the session ends, what is reserved already is filled up.
    fill(&disk, &node);
    // The first rebalance is over later than the session, and nothing has to be written down for it.
    wait(waiting).unwrap().unwrap();
    disk.set_capacity(None);
    let members = || {
        wait(node.groups().query("g", |groups, now| groups.describe_consumer(now, "g")))
            .map(|group| group.unwrap().members.len())
    };
    eventually("the session ends", || members() == Ok(0));
}

#[test]
fn what_is_too_large_to_be_written_down_is_refused_for_good_and_harms_nobody_else() {
    let disk = SimDisk::new(8);
    let settings = [("offsets.topic.num.partitions", "1"), ("group.initial.rebalance.delay.ms", "0")];
    let node = open_on(Arc::new(disk.clone()), 1, &settings);
    node.request_topic(OFFSETS_TOPIC);
    eventually("the offsets topic", || node.topics().named(OFFSETS_TOPIC).is_some());
    let join = |size: usize| {
        let join = Join { protocols: vec![("range".into(), vec![0; size].into())], ..joining("g", "") };
        let joined = node.groups().submit("g", Command::Join(join), |reply| match reply {
            Reply::Join(joined) => Some(joined),
            _ => None,
        });
        wait(joined).unwrap().unwrap()
    };
    let sync = |member: &Arc<str>, generation| {
        let sync = ottla_group::Sync {
            group: "g".into(),
            member: Arc::clone(member),
            instance: None,
            generation,
            protocol_type: None,
            protocol: None,
            assignments: Vec::new(),
        };
        let synced = node.groups().submit("g", Command::Sync(sync), |reply| match reply {
            Reply::Sync(synced) => Some(synced.map(drop)),
            _ => None,
        });
        wait(synced)
    };
    let large = join(2 << 20);
    assert_eq!(sync(&large.member, large.generation), Err(NoCoordinator::TooLarge));
    commit(&node, "other", 1).unwrap();
    let left = ottla_group::LeavingMember { member: large.member, instance: None, reason: None };
    let leave = Command::Leave(ottla_group::Leave { group: "g".into(), members: vec![left] });
    let left = node.groups().submit("g", leave, |reply| match reply {
        Reply::Leave(rows) => Some(rows),
        _ => None,
    });
    wait(left).unwrap().unwrap();
    // Nearly as much as fits, after which there is not much room in that batch.
    let small = join(1_040_000);
    assert_eq!(sync(&small.member, small.generation), Ok(Ok(())));
}

#[test]
fn a_decision_of_many_batches_is_all_there_after_a_start() {
    let disk = SimDisk::new(9);
    let node = open_with_topic(&disk);
    let Command::CommitOffsets(one) = committing("g", 7, &"x".repeat(4_000)) else { panic!("another command") };
    let offsets = (0..1_000).map(|number| CommitOffset { partition: PartitionIndex(number), ..one.offsets[0].clone() });
    let many = Command::CommitOffsets(CommitOffsets { offsets: offsets.collect(), ..one });
    let committed = node.groups().submit("g", many, |reply| match reply {
        Reply::CommitOffsets(rows) => Some(rows),
        _ => None,
    });
    assert_eq!(wait(committed).unwrap().unwrap(), vec![Ok(()); 1_000]);
    node.shut_down().unwrap();
    let node = open(&disk);
    let all =
        FetchOffsets { group: "g".into(), member: None, member_epoch: -1, partitions: None, require_stable: false };
    let count = || {
        wait(node.groups().query("g", |groups, now| groups.fetch_offsets(now, &all))).map(|rows| rows.unwrap().len())
    };
    eventually("loaded", || count() != Err(NoCoordinator::Loading));
    assert_eq!(count(), Ok(1_000));
}

#[test]
fn g1_a_group_whose_change_of_protocol_can_not_be_written_down_stays_what_it_was() {
    let disk = SimDisk::new(9);
    let settings = [("offsets.topic.num.partitions", "1"), ("group.initial.rebalance.delay.ms", "0")];
    let node = open_on(Arc::new(disk.clone()), 1, &settings);
    node.request_topic(OFFSETS_TOPIC);
    eventually("the offsets topic", || node.topics().named(OFFSETS_TOPIC).is_some());
    common::create(&node, "t", 1, &[]);
    let joined = wait(join(&node, "g", "")).unwrap().unwrap();
    let sync = Sync {
        group: "g".into(),
        member: Arc::clone(&joined.member),
        instance: None,
        generation: joined.generation,
        protocol_type: None,
        protocol: None,
        assignments: vec![(joined.member, Bytes::from_static(ASSIGNMENT))],
    };
    let synced = node.groups().submit("g", Command::Sync(sync), |reply| match reply {
        Reply::Sync(synced) => Some(synced),
        _ => None,
    });
    assert_eq!(&wait(synced).unwrap().unwrap().assignment[..], ASSIGNMENT);

    fill(&disk, &node);
    assert_eq!(wait(enter(&node, "g")), Err(NoCoordinator::NotAvailable));
    let described = || wait(node.groups().query("g", |groups, _| groups.describe_classic("g")));
    eventually("loaded anew", || described() != Err(NoCoordinator::Loading));
    assert_eq!(described().unwrap().unwrap().state, GroupState::Stable);
    disk.set_capacity(None);
    assert!(wait(enter(&node, "g")).unwrap().is_ok());
    let described = wait(node.groups().query("g", |groups, now| groups.describe_consumer(now, "g")));
    assert_eq!(described.unwrap().unwrap().members.len(), 2);
}

/// A consumer's subscription to `t`, and its assignment of partition 0, in version 0 of Kafka's formats.
const SUBSCRIPTION: &[u8] = b"\0\0\0\0\0\x01\0\x01t\xff\xff\xff\xff";
const ASSIGNMENT: &[u8] = b"\0\0\0\0\0\x01\0\x01t\0\0\0\x01\0\0\0\0\xff\xff\xff\xff";

/// Fills the disk up to the last byte that is reserved for the offsets topic.
fn fill(disk: &SimDisk, node: &Node) {
    disk.set_capacity(Some(disk.used()));
    let wide = "x".repeat(4000);
    while wait(submit(node, "fills", 1, &wide)).is_ok() {}
    while commit(node, "fills", 1).is_ok() {}
}

fn join(node: &Node, group: &str, member: &str) -> Pending<Result<Joined, JoinRefusal>> {
    node.groups().submit(group, Command::Join(joining(group, member)), |reply| match reply {
        Reply::Join(joined) => Some(joined),
        _ => None,
    })
}

fn enter(node: &Node, group: &str) -> Pending<Result<ConsumerHeartbeatReply, Refusal>> {
    node.groups().submit(group, Command::ConsumerHeartbeat(entering(group)), |reply| match reply {
        Reply::ConsumerHeartbeat(heard) => Some(heard),
        _ => None,
    })
}

fn joining(group: &str, member: &str) -> Join {
    Join {
        group: group.into(),
        member: member.into(),
        instance: None,
        client_id: "test".into(),
        client_host: "/127.0.0.1".into(),
        session_timeout_ms: 30_000,
        rebalance_timeout_ms: 30_000,
        protocol_type: "consumer".into(),
        protocols: vec![("range".into(), Bytes::from_static(SUBSCRIPTION))],
        requires_member_id: false,
        supports_skipping_assignment: true,
        reason: None,
    }
}

fn entering(group: &str) -> ConsumerHeartbeat {
    ConsumerHeartbeat {
        group: group.into(),
        member: "m".into(),
        member_epoch: 0,
        instance: None,
        rack: None,
        client_id: "test".into(),
        client_host: "/127.0.0.1".into(),
        rebalance_timeout_ms: Some(30_000),
        topics: Some(vec!["t".into()]),
        topics_regex: None,
        server_assignor: None,
        owned: Some(Vec::new()),
        client_makes_ids: true,
    }
}

#[test]
fn offsets_of_a_deleted_topic_are_forgotten_for_good() {
    let disk = SimDisk::new(5);
    let node = open_with_topic(&disk);
    common::create(&node, "t", 1, &[]);
    commit(&node, "g", 1).unwrap();
    node.submit(MetadataCommand::DeleteTopics { topics: vec![TopicRef::Name("t".into())] }).unwrap();
    eventually("the offset is gone", || committed_offset(&node, "g") == Ok(None));
    node.shut_down().unwrap();
    let node = open(&disk);
    eventually("loaded", || committed_offset(&node, "g") != Err(NoCoordinator::Loading));
    assert_eq!(committed_offset(&node, "g"), Ok(None));
}

/// Open or not.
#[derive(Clone, Debug, Default)]
struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    fn set(&self, open: bool) {
        *self.0.0.lock().unwrap() = open;
        self.0.1.notify_all();
    }

    fn pass(&self) {
        let opened = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(opened, DEADLINE, |opened| !*opened).unwrap());
    }
}

/// A disk whose partition files can't be opened nor synced until the gate is open.
#[derive(Clone, Debug)]
struct Gated {
    disk: SimDisk,
    gate: Gate,
}

#[derive(Debug)]
struct GatedFile {
    file: Arc<dyn DiskFile>,
    gate: Gate,
}

impl DiskFile for GatedFile {
    fn read_at(&self, buf: &mut [u8], position: u64) -> io::Result<usize> {
        self.file.read_at(buf, position)
    }
    fn write_vectored_at(&self, bufs: &[IoSlice<'_>], position: u64) -> io::Result<()> {
        self.file.write_vectored_at(bufs, position)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
    fn reserve(&self, position: u64, len: u64) -> io::Result<()> {
        self.file.reserve(position, len)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass();
        self.file.sync_data()
    }
    fn is_resident(&self, range: Range<u64>) -> bool {
        self.file.is_resident(range)
    }
    fn write_out(&self, end: u64) -> io::Result<()> {
        self.file.write_out(end)
    }
    fn prefetch(&self, range: Range<u64>) {
        self.file.prefetch(range);
    }
    fn as_fd(&self) -> Option<BorrowedFd<'_>> {
        self.file.as_fd()
    }
}

impl Disk for Gated {
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        if path.starts_with("/data/topics") {
            self.gate.pass();
        }
        self.disk.open(path)
    }
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = self.disk.create(path)?;
        match path.starts_with("/data/topics") {
            true => Ok(Arc::new(GatedFile { file, gate: self.gate.clone() })),
            false => Ok(file),
        }
    }
    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }
    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir_all(path)
    }
    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }
    fn file_len(&self, path: &Path) -> io::Result<u64> {
        self.disk.file_len(path)
    }
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.sync_dir(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
}

#[test]
fn g2_b35_b36_while_a_coordinator_loads_everything_is_told_to_wait() {
    let disk = SimDisk::new(6);
    let node = open_with_topic(&disk);
    commit(&node, "g", 41).unwrap();
    node.shut_down().unwrap();
    drop(node);

    let gated = Gated { disk: disk.clone(), gate: Gate::default() };
    let node = open_on(Arc::new(gated.clone()), 1000, &[]);
    assert_eq!(committed_offset(&node, "g"), Err(NoCoordinator::Loading));
    assert_eq!(commit(&node, "g", 42), Err(NoCoordinator::Loading));
    gated.gate.set(true);
    // Never an offset that is missing: a consumer would start over (B35).
    let mut seen = Err(NoCoordinator::Loading);
    eventually("loaded", || {
        seen = committed_offset(&node, "g");
        assert!(matches!(seen, Err(NoCoordinator::Loading) | Ok(Some(_))), "{seen:?}");
        seen.is_ok()
    });
    assert_eq!(seen, Ok(Some(41)));
    commit(&node, "g", 42).unwrap();
}

#[test]
fn g1_a_coordinator_that_is_loaded_anew_knows_what_is_still_on_its_way_to_the_disk() {
    let gated = Gated { disk: SimDisk::new(10), gate: Gate::default() };
    gated.gate.set(true);
    let node = open_on(Arc::new(gated.clone()), 1, &[]);
    node.request_topic(OFFSETS_TOPIC);
    eventually("the offsets topic", || node.topics().named(OFFSETS_TOPIC).is_some());
    commit(&node, "g", 41).unwrap();

    gated.gate.set(false);
    let on_its_way = submit(&node, "g", 42, "note");
    let bug = wait(node.groups().query("g", |_, _| -> () { panic!("a bug in a coordinator, as the test wants it") }));
    assert_eq!(bug, Err(NoCoordinator::NotHere));
    eventually("loaded", || {
        let pending = node.groups().query("g", |_, _| ());
        let mut pending = pin!(pending);
        let answer = pending.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        answer != Poll::Ready(Err(NoCoordinator::Loading))
    });
    gated.gate.set(true);
    assert_eq!(wait(on_its_way), Ok(Ok(vec![Ok(())])));
    assert_eq!(committed_offset(&node, "g"), Ok(Some(42)), "what was answered as done is known");
}

#[test]
fn offsets_of_a_topic_that_is_deleted_while_a_coordinator_loads_are_forgotten() {
    let disk = SimDisk::new(11);
    let node = open_with_topic(&disk);
    common::create(&node, "t", 1, &[]);
    let topic_id = node.image().topic_named("t").unwrap().id;
    let Command::CommitOffsets(mut known) = committing("g", 41, "note") else { panic!("another command") };
    known.offsets[0].topic_id = topic_id;
    let pending = node.groups().submit("g", Command::CommitOffsets(known), |reply| match reply {
        Reply::CommitOffsets(rows) => Some(rows),
        _ => None,
    });
    assert_eq!(wait(pending), Ok(Ok(vec![Ok(())])));
    node.shut_down().unwrap();
    drop(node);

    let gated = Gated { disk: disk.clone(), gate: Gate::default() };
    let loading = open_on(Arc::new(gated.clone()), 1000, &[]);
    loading.submit(MetadataCommand::DeleteTopics { topics: vec![TopicRef::Name("t".into())] }).unwrap();
    assert_eq!(committed_offset(&loading, "g"), Err(NoCoordinator::Loading));
    let disk = disk.crash();
    gated.gate.set(true);

    let node = open(&disk);
    common::create(&node, "t", 1, &[]);
    eventually("loaded", || committed_offset(&node, "g") != Err(NoCoordinator::Loading));
    assert_eq!(committed_offset(&node, "g"), Ok(None), "a new topic of the same name is read from its start");
}
