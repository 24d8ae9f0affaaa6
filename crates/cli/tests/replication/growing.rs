//! Nodes that join, and what is there already.

use crate::cluster::{Cluster, lines};

#[test]
fn three_nodes_are_one_cluster_that_keeps_a_copy_on_each() {
    let cluster = Cluster::of(3);
    cluster.node(2).ok(&["topic", "create", "t", "-p", "3"]);
    for partition in cluster.partitions("t") {
        assert_eq!(partition["replicas"].as_array().map(Vec::len), Some(3), "{partition}");
    }
    let written = lines("a", 300);
    cluster.produce(cluster.node(2), "t", &written);
    cluster.wait_in_sync("t", 3);
    for number in 1..=3 {
        assert_eq!(cluster.consume(cluster.node(number), "t"), written, "through node {number}");
    }
}

#[test]
fn one_node_with_data_becomes_three_and_every_topic_can_have_three_copies() {
    let mut cluster = Cluster::found();
    let before = lines("before", 500);
    cluster.produce(cluster.node(1), "t", &before);
    cluster.node(1).ok(&["consume", "t", "--group", "g", "--max", "1"]);
    let (two, three) = (cluster.join(), cluster.join());
    assert_eq!((two, three), (2, 3));
    cluster.wait_until("all vote on the metadata log", |cluster| cluster.voters() == 3);
    // Nobody asked for the copies of the offsets topic.
    cluster.wait_in_sync("__consumer_offsets", 3);
    cluster.node(3).ok(&["topic", "replicas", "t", "--replication-factor", "3"]);
    cluster.wait_in_sync("t", 3);
    cluster.kill(1);
    cluster.wait_until("another leads", |cluster| cluster.leader("t").is_some_and(|leader| leader != 1));
    assert_eq!(cluster.consume(cluster.node(two), "t"), before);
    let described = cluster.node(three).ok(&["group", "describe", "g", "--json"]);
    assert!(described.contains("\"committed\":1"), "{described}");
}
