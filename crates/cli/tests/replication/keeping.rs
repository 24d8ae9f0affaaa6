//! What nodes keep, what they tell of their disks, and how long they take to leave.

use std::time::{Duration, Instant};

use ottla_client::{Client, LogDir, Target, TopicPartition};
use ottla_protocol::{ErrorCode, messages::InitProducerIdRequest};
use ottla_types::BrokerId;
use serde_json::Value;
use tokio::runtime::Runtime;

use crate::cluster::{Cluster, lines};

/// What node `number` says lies in its directory.
fn log_dir(cluster: &Cluster, number: usize) -> LogDir {
    let address = cluster.some().address.clone();
    Runtime::new().unwrap().block_on(async {
        let client = Client::connect(&[address], "keeping").await.unwrap();
        let mut dirs = client.describe_log_dirs(BrokerId(i32::try_from(number).unwrap())).await.unwrap();
        assert_eq!(dirs.len(), 1);
        dirs.remove(0)
    })
}

/// The bytes of a topic on a node.
fn bytes_of(cluster: &Cluster, number: usize, topic: &str) -> u64 {
    log_dir(cluster, number).partitions.iter().filter(|(at, _)| &*at.topic == topic).map(|(_, bytes)| bytes).sum()
}

#[test]
fn the_tightest_budget_of_all_replicas_holds_whoever_leads() {
    const BUDGET: u64 = 1 << 20;
    let budget = format!("ottla.retention.topic.bytes={BUDGET}");
    let cluster = Cluster::with(&[&[], &[], &[&budget]]);
    for topic in ["small", "large"] {
        cluster.some().ok(&["topic", "create", topic, "-p", "4", "-r", "1"]);
    }
    // Node 3 has a copy of all of one topic and leads nothing of it, and none of the other.
    for (partitions, to) in [("small:0,1", "1,3"), ("small:2,3", "2,3"), ("large:0,1", "1,2"), ("large:2,3", "2,1")] {
        cluster.some().ok(&["cluster", "reassign", partitions, "--to", to, "--wait"]);
    }
    cluster.wait_in_sync("small", 2);
    cluster.some().ok(&["cluster", "elect", "preferred"]);
    let text = "x".repeat(1000);
    let written: Vec<String> = lines("", 6000).into_iter().map(|line| line + &text).collect();
    for batch in written.chunks(500) {
        cluster.produce(cluster.some(), "small", batch);
        cluster.produce(cluster.some(), "large", batch);
    }
    cluster.wait_until("node 3 is within its budget", |cluster| bytes_of(cluster, 3, "small") <= BUDGET);
    let leads_nothing = |partition: &Value| partition["leader"] == 1 || partition["leader"] == 2;
    assert!(cluster.partitions("small").iter().all(leads_nothing), "{:?}", cluster.partitions("small"));
    cluster.wait_until("its leaders have let go as well", |cluster| {
        let kept = cluster.consume(cluster.some(), "small");
        // Of the newest there is as much as the budget has room for, and no more.
        assert_eq!(kept.last(), written.last());
        (200..=1100).contains(&kept.len())
    });
    assert_eq!(cluster.consume(cluster.some(), "large").len(), written.len(), "nobody's budget");
}

#[test]
fn each_node_tells_of_its_own_disk_and_all_are_shown_together() {
    let cluster = Cluster::of(3);
    cluster.some().ok(&["topic", "create", "t", "-p", "3", "-r", "2"]);
    cluster.wait_in_sync("t", 2);
    cluster.produce(cluster.some(), "t", &lines("a", 300));
    let nodes = cluster.node(2).ok(&["cluster", "nodes", "--json"]);
    let nodes: Vec<Value> = nodes.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(nodes.len(), 3);
    for node in &nodes {
        assert!(node["disk_total"].as_u64() > Some(0) && node["disk_free"].as_u64() > Some(0), "{node}");
        assert_eq!(node["version"], env!("CARGO_PKG_VERSION"), "{node}");
    }
    // Kafka's way: every broker is asked, and answers for what lies there.
    let dirs: Vec<LogDir> = (1..=3).map(|number| log_dir(&cluster, number)).collect();
    assert!(dirs.iter().all(|dir| dir.total_bytes > Some(0) && dir.usable_bytes > Some(0)), "{dirs:?}");
    let bytes = |dir: &LogDir| dir.partitions.iter().map(|(_, bytes)| bytes).sum::<u64>();
    assert!(dirs.iter().filter(|dir| bytes(dir) > 0).count() >= 2, "each of two replicas counts: {dirs:?}");
    for (index, partition) in cluster.partitions("t").iter().enumerate() {
        let is_it = |at: &TopicPartition| &*at.topic == "t" && usize::try_from(at.partition.0) == Ok(index);
        let holds = |dir: &LogDir| dir.partitions.iter().any(|(at, _)| is_it(at));
        let held: Vec<i64> = (1..).zip(&dirs).filter(|(_, dir)| holds(dir)).map(|(number, _)| number).collect();
        let mut replicas: Vec<i64> =
            partition["replicas"].as_array().unwrap().iter().filter_map(Value::as_i64).collect();
        replicas.sort_unstable();
        assert_eq!(held, replicas, "{partition}");
    }
}

#[test]
fn a_node_that_alone_has_a_copy_need_not_wait_to_leave() {
    let mut cluster = Cluster::of(3);
    cluster.some().ok(&["topic", "create", "single", "-p", "6", "-r", "1"]);
    cluster.some().ok(&["topic", "create", "copied", "-p", "6", "-r", "3"]);
    cluster.wait_in_sync("copied", 3);
    cluster.produce(cluster.some(), "single", &lines("a", 60));
    let leads = |cluster: &Cluster, topic: &str, number: i64| {
        cluster.partitions(topic).iter().filter(|partition| partition["leader"] == number).count()
    };
    assert!(leads(&cluster, "single", 2) > 0 && leads(&cluster, "copied", 2) > 0);
    let begun = Instant::now();
    cluster.stop(2);
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    // What could go to others did so before.
    assert_eq!(leads(&cluster, "copied", 2), 0);
    cluster.start(2);
    cluster.wait_until("all is back", |cluster| {
        cluster.partitions("single").iter().all(|partition| partition["leader"].as_i64() > Some(0))
    });
    assert_eq!(cluster.consume(cluster.some(), "single"), lines("a", 60));
}

#[test]
fn a_producer_hears_soon_that_there_is_no_controller() {
    let mut cluster = Cluster::of(3);
    cluster.some().ok(&["topic", "create", "t", "-p", "1", "-r", "3"]);
    let left = cluster.node(1).address.clone();
    cluster.kill(2);
    cluster.kill(3);
    let code = Runtime::new().unwrap().block_on(async {
        let client = Client::connect(&[left], "alone").await.unwrap();
        let begun = Instant::now();
        let request = InitProducerIdRequest { transactional_id: None, ..Default::default() };
        let answer = client.request(Target::Broker(BrokerId(1)), &request).await.unwrap();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        answer.error_code
    });
    assert_eq!(code, ErrorCode::CoordinatorLoadInProgress.code());
}
