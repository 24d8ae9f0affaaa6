//! Consumers that read of the replica in their rack (KIP-392).

use std::time::{Duration, Instant};

use ottla_client::{Client, ConsumerConfig, Start, Target, TopicPartition};
use ottla_protocol::{
    ErrorCode, Records,
    messages::{
        FetchRequest, FetchResponse,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::PartitionData,
    },
};
use ottla_types::{BrokerId, PartitionIndex};
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, lines};

const RACKS: [&str; 3] = ["a", "b", "c"];

/// Three nodes, each in a rack of its own, with one partition that has a copy on each.
fn in_three_racks() -> Cluster {
    let settings = RACKS.map(|rack| format!("broker.rack={rack}"));
    let cluster = Cluster::with(&[&[&settings[0]], &[&settings[1]], &[&settings[2]]]);
    cluster.some().ok(&["topic", "create", "t", "-p", "1", "-r", "3"]);
    cluster.wait_in_sync("t", 3);
    cluster
}

/// Asks single nodes of the cluster.
struct Asker {
    runtime: Runtime,
    client: Client,
    topic: FetchTopic,
}

impl Asker {
    fn new(cluster: &Cluster) -> Asker {
        let runtime = Runtime::new().unwrap();
        let address = cluster.some().address.clone();
        let client = runtime.block_on(Client::connect(&[address], "near")).unwrap();
        let known = runtime.block_on(client.topic("t", false)).unwrap();
        let topic = FetchTopic { topic: "t".into(), topic_id: known.id, partitions: Vec::new() };
        Asker { runtime, client, topic }
    }

    fn ask(&self, node: usize, request: &FetchRequest) -> FetchResponse {
        let target = Target::Broker(BrokerId(i32::try_from(node).unwrap()));
        self.runtime.block_on(self.client.request(target, request)).unwrap()
    }

    fn request(&self, rack: &str, from: i64, max_wait: Duration) -> FetchRequest {
        let partition = FetchPartition { fetch_offset: from, partition_max_bytes: 1 << 20, ..Default::default() };
        FetchRequest {
            max_wait_ms: i32::try_from(max_wait.as_millis()).unwrap(),
            min_bytes: 1,
            max_bytes: 1 << 20,
            topics: vec![FetchTopic { partitions: vec![partition], ..self.topic.clone() }],
            rack_id: rack.into(),
            session_epoch: -1,
            ..Default::default()
        }
    }

    /// What `node` answers to a consumer in `rack` that wants what comes at `from`.
    fn fetch(&self, node: usize, rack: &str, from: i64) -> PartitionData {
        let answer = self.ask(node, &self.request(rack, from, Duration::from_secs(1)));
        answer.responses.into_iter().next().unwrap().partitions.into_iter().next().unwrap()
    }
}

fn bytes(answer: &PartitionData) -> usize {
    match &answer.records {
        Some(Records::Bytes(bytes)) => bytes.len(),
        _ => 0,
    }
}

#[test]
fn kip_392_a_consumer_is_sent_to_the_follower_in_its_rack() {
    let cluster = in_three_racks();
    cluster.produce(cluster.some(), "t", &lines("a", 100));
    let leader = cluster.leader("t").unwrap();
    let follower = leader % 3 + 1;
    let (there, here) = (RACKS[follower - 1], RACKS[leader - 1]);
    let asker = Asker::new(&cluster);

    let sent = asker.fetch(leader, there, 0);
    assert_eq!((sent.error_code, sent.preferred_read_replica), (0, i32::try_from(follower).unwrap()));
    assert_eq!((bytes(&sent), sent.high_watermark, sent.log_start_offset), (0, 100, 0));
    // At the end too, and at once: there is no data to wait for.
    let before = Instant::now();
    let patient = asker.ask(leader, &asker.request(there, 100, Duration::from_secs(30)));
    assert_eq!(patient.responses[0].partitions[0].preferred_read_replica, sent.preferred_read_replica);
    assert!(before.elapsed() < Duration::from_secs(20));

    // In a session the first answer opens, and in each that follows.
    let opened = asker.ask(leader, &FetchRequest { session_epoch: 0, ..asker.request(there, 0, Duration::ZERO) });
    let next = FetchRequest {
        session_id: opened.session_id,
        session_epoch: 1,
        topics: Vec::new(),
        ..asker.request(there, 0, Duration::ZERO)
    };
    for answer in [&opened, &asker.ask(leader, &next)] {
        assert_eq!((answer.error_code, answer.responses.len()), (0, 1), "{answer:?}");
        assert_eq!(answer.responses[0].partitions[0].preferred_read_replica, sent.preferred_read_replica);
    }

    // Who stands with the leader, nowhere, or where there are no brokers, is served by it.
    for rack in [here, "", "nowhere"] {
        let served = asker.fetch(leader, rack, 0);
        assert_eq!((served.error_code, served.preferred_read_replica), (0, -1), "{rack:?}");
        assert!(bytes(&served) > 100, "{rack:?}");
    }
    // The follower serves, and sends nobody anywhere; beyond its end it says so, and the leader does it itself.
    let served = asker.fetch(follower, there, 0);
    assert_eq!((served.error_code, served.preferred_read_replica), (0, -1));
    assert!(bytes(&served) > 100);
    for node in [follower, leader] {
        let beyond = asker.fetch(node, there, 101);
        let expected = (ErrorCode::OffsetOutOfRange.code(), -1);
        assert_eq!((beyond.error_code, beyond.preferred_read_replica), expected, "node {node}");
    }
}

#[test]
fn kip_392_a_consumer_comes_back_to_the_leader_when_its_follower_is_gone() {
    let mut cluster = in_three_racks();
    let (before, after) = (lines("a", 100), lines("b", 100));
    cluster.produce(cluster.some(), "t", &before);
    let leader = cluster.leader("t").unwrap();
    let follower = leader % 3 + 1;
    let there = RACKS[follower - 1];
    let asker = Asker::new(&cluster);
    let mut consumer = asker.runtime.block_on(async {
        let at = TopicPartition::new("t", PartitionIndex(0));
        let config = ConsumerConfig { rack: Some(there.to_owned()), ..ConsumerConfig::default() };
        ottla_client::Consumer::new(&asker.client, config, &[(at, Start::Earliest)]).await.unwrap()
    });
    let mut read = Vec::new();
    let mut read_until = |count: usize, read: &mut Vec<String>| {
        let deadline = Instant::now() + Duration::from_secs(60);
        while read.len() < count {
            assert!(Instant::now() < deadline, "{} of {count}", read.len());
            let fetched = asker.runtime.block_on(consumer.poll()).unwrap();
            let values = fetched.iter().flat_map(|fetched| &fetched.records).filter_map(|record| record.value.clone());
            read.extend(values.map(|value| String::from_utf8(value.to_vec()).unwrap()));
        }
    };
    read_until(100, &mut read);
    cluster.kill(follower);
    cluster.produce(cluster.node(leader), "t", &after);
    read_until(200, &mut read);
    assert_eq!(read, [before, after].concat());
    // Once it is known to be gone nobody is sent there any more.
    cluster.wait_until("the follower is fenced", |cluster| cluster.live().len() == 2);
    cluster.wait_until("the leader serves", |cluster| {
        cluster.leader("t").is_some_and(|leader| bytes(&asker.fetch(leader, there, 0)) > 100)
    });
}

#[test]
fn kip_392_the_command_line_reads_of_its_rack() {
    let mut cluster = in_three_racks();
    let written = lines("a", 100);
    cluster.produce(cluster.some(), "t", &written);
    for rack in RACKS {
        let read = cluster.some().ok(&["consume", "t", "--rack", rack]);
        assert_eq!(read.lines().map(str::to_owned).collect::<Vec<_>>(), written, "{rack}");
    }
    // A follower that is out of the ISR sends consumers away. It is, while it starts.
    let leader = cluster.leader("t").unwrap();
    let follower = leader % 3 + 1;
    cluster.stop(follower);
    cluster.produce(cluster.node(leader), "t", &written);
    cluster.start(follower);
    let read = cluster.node(leader).ok(&["consume", "t", "--rack", RACKS[follower - 1]]);
    assert_eq!(read.lines().count(), 200);
}

#[test]
fn replica_selector_class_may_keep_consumers_at_leaders() {
    const LEADER: &str = "replica.selector.class=org.apache.kafka.common.replica.LeaderSelector";
    let cluster = Cluster::with(&[&["broker.rack=a", LEADER], &["broker.rack=b", LEADER]]);
    cluster.some().ok(&["topic", "create", "t", "-p", "1", "-r", "2"]);
    cluster.wait_in_sync("t", 2);
    cluster.produce(cluster.some(), "t", &lines("a", 10));
    let leader = cluster.leader("t").unwrap();
    let served = Asker::new(&cluster).fetch(leader, if leader == 1 { "b" } else { "a" }, 0);
    assert_eq!((served.error_code, served.preferred_read_replica), (0, -1));
    assert!(bytes(&served) > 10);
}
