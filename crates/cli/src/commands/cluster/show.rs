//! How a cluster and its nodes look: a page for people, JSON for programs.
//!
//! Only text is made here; the answers come from `ottla_client`.

use ottla_client::{Node, Nodes};
use ottla_types::BrokerId;
use serde_json::{Value, json};

use crate::output::{self, Table, count};

/// More topics than this are counted, not named.
const NAMED_MAX: usize = 20;
/// The copies that a topic should have, where there are nodes for them.
const COPIES: usize = 3;

/// What is not as it should be, in a few words each.
pub(super) fn troubles(nodes: &Nodes) -> Vec<String> {
    let mut troubles = Vec::new();
    if nodes.controller.is_none() {
        troubles.push("there is no controller".to_owned());
    }
    let down: Vec<_> = nodes.nodes.iter().filter(|node| node.fenced).map(|node| node.id).collect();
    match &down[..] {
        [] => {}
        [one] => troubles.push(format!("node {one} is down")),
        more => troubles.push(format!("nodes {} are down", ids(more))),
    }
    let partitions = [
        (nodes.offline, "without a leader"),
        (nodes.below_min_isr, "below min.insync.replicas"),
        (nodes.under_replicated, "with copies out of sync"),
    ];
    for (number, what) in partitions.into_iter().filter(|(number, _)| *number > 0) {
        troubles.push(format!("{} {what}", count(number, "partition")));
    }
    troubles
}

/// `ottla cluster status`.
pub(super) fn page(nodes: &Nodes) -> String {
    let controller = nodes.controller.map_or("no controller".to_owned(), |id| format!("controller {id}"));
    let level = nodes.level.map_or(String::new(), |level| format!(", feature level {level}"));
    let mut page = format!("Cluster {}, {controller}{level}\n", nodes.cluster_id);
    page += &format!("{}, {}", count(nodes.nodes.len(), "node"), count(nodes.partitions, "partition"));
    if nodes.reassigning > 0 {
        page += &format!(", {} of them on the way to other nodes", nodes.reassigning);
    }
    let troubles = troubles(nodes);
    if troubles.is_empty() {
        page += "\nAll nodes are up and all copies in sync.\n";
    } else {
        page += "\n";
        for trouble in &troubles {
            page += &format!("  ! {trouble}\n");
        }
    }
    page += "\n";
    page += &table(&nodes.nodes).text();
    page + &single_copies(nodes) + &possible_upgrade(nodes)
}

/// That there is more than the cluster makes use of.
fn possible_upgrade(nodes: &Nodes) -> String {
    let highest = nodes.nodes.iter().filter_map(|node| node.levels).map(|(_, max)| max).max();
    match highest.zip(nodes.level).filter(|(highest, level)| highest > level) {
        Some((highest, _)) => format!(
            "\nThere are nodes that support feature level {highest}. Once all do, and none has to go back:\n  \
             ottla cluster upgrade\n"
        ),
        None => String::new(),
    }
}

/// Which topics a lost disk would take away, and what to do about it.
fn single_copies(nodes: &Nodes) -> String {
    let topics = &nodes.single_copy_topics;
    let Some(first) = topics.first() else { return String::new() };
    if nodes.nodes.len() < 2 {
        return "\nTopics have one copy each; it takes a second node to hold another: `ottla serve --join HOST:PORT`.\n"
            .to_owned();
    }
    let more = match topics.len().saturating_sub(NAMED_MAX) {
        0 => String::new(),
        more => format!(" and {more} more (--json names all)"),
    };
    let named: Vec<&str> = topics.iter().take(NAMED_MAX).map(String::as_str).collect();
    let named = format!("\nTopics with one copy, which are lost with its disk: {}{more}\n", named.join(", "));
    let able = nodes.nodes.iter().filter(|node| !node.fenced && !node.draining && !node.shutting_down).count();
    match able.min(COPIES) {
        0 | 1 => named,
        copies => format!(
            "{named}To hold one of them on {copies} nodes:\n  \
             ottla topic replicas {first} --replication-factor {copies}\n"
        ),
    }
}

/// The nodes, one a row.
pub(super) fn table(nodes: &[Node]) -> Table {
    let header =
        ["NODE", "STATE", "VOTES", "LEADS", "HOLDS", "BEHIND", "FREE", "OF", "RACK", "VERSION", "LEVELS", "ADDRESS"];
    let mut table = Table::new(&header);
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), output::bytes);
    let or_dash = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    for node in nodes {
        let addresses: Vec<_> = addresses(node).into_iter().map(|(_, address)| address).collect();
        table.row([
            node.id.to_string(),
            state(node),
            if node.voter { "yes" } else { "no" }.to_owned(),
            node.leaders.to_string(),
            node.replicas.to_string(),
            node.under_replicated.to_string(),
            size(node.disk_free),
            size(node.disk_total),
            or_dash(node.rack.as_deref().unwrap_or_default()),
            or_dash(&node.version),
            node.levels.map_or("-".to_owned(), |(min, max)| format!("{min}-{max}")),
            or_dash(&addresses.join(" ")),
        ]);
    }
    table
}

fn state(node: &Node) -> String {
    let mut state = match node {
        Node { fenced: true, .. } => "down",
        Node { shutting_down: true, .. } => "stopping",
        _ => "up",
    }
    .to_owned();
    if node.draining {
        state += ", leaving";
    }
    if node.controller {
        state += ", controller";
    }
    state
}

/// Name and address of each listener.
fn addresses(node: &Node) -> Vec<(&str, String)> {
    let listeners = node.listeners.iter().map(|listener| {
        let host = if listener.host.contains(':') { format!("[{}]", listener.host) } else { listener.host.clone() };
        (listener.name.as_str(), format!("{host}:{}", listener.port))
    });
    listeners.collect()
}

/// All of it, for programs.
pub(super) fn as_json(nodes: &Nodes) -> Value {
    json!({
        "cluster": nodes.cluster_id,
        "controller": nodes.controller.map(|id| id.0),
        "healthy": troubles(nodes).is_empty(),
        "partitions": nodes.partitions,
        "offline": nodes.offline,
        "under_replicated": nodes.under_replicated,
        "below_min_isr": nodes.below_min_isr,
        "reassigning": nodes.reassigning,
        "single_copy_topics": nodes.single_copy_topics,
        "level": nodes.level,
        "nodes": nodes.nodes.iter().map(node_as_json).collect::<Vec<_>>(),
    })
}

/// One node, for programs.
pub(super) fn node_as_json(node: &Node) -> Value {
    let listeners = addresses(node).into_iter().map(|(name, address)| json!({ "name": name, "address": address }));
    json!({
        "node": node.id.0,
        "directory": node.directory.to_string(),
        "rack": node.rack,
        "state": state(node),
        "fenced": node.fenced,
        "shutting_down": node.shutting_down,
        "draining": node.draining,
        "voter": node.voter,
        "controller": node.controller,
        "listeners": listeners.collect::<Vec<_>>(),
        "leaders": node.leaders,
        "replicas": node.replicas,
        "under_replicated": node.under_replicated,
        "disk_total": node.disk_total,
        "disk_free": node.disk_free,
        "version": node.version,
        "min_level": node.levels.map(|(min, _)| min),
        "max_level": node.levels.map(|(_, max)| max),
    })
}

/// Ids with commas between them; a dash for none.
pub(super) fn ids(brokers: &[BrokerId]) -> String {
    if brokers.is_empty() {
        return "-".to_owned();
    }
    brokers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

pub(super) fn numbers(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|id| id.0).collect()
}

#[cfg(test)]
mod tests {
    use ottla_client::NodeListener;

    use super::*;

    fn node(id: i32) -> Node {
        let listener = NodeListener { name: "PLAINTEXT".to_owned(), host: "::1".to_owned(), port: 9092 };
        Node {
            id: BrokerId(id),
            directory: Default::default(),
            rack: None,
            fenced: false,
            shutting_down: false,
            draining: false,
            voter: true,
            controller: id == 1,
            listeners: vec![listener],
            replicas: 12,
            leaders: 4,
            under_replicated: 0,
            disk_total: Some(2 << 30),
            disk_free: None,
            version: "0.1.0".to_owned(),
            levels: Some((1, 2)),
        }
    }

    fn nodes(count: i32) -> Nodes {
        Nodes {
            cluster_id: "c1".to_owned(),
            controller: Some(BrokerId(1)),
            nodes: (1..=count).map(node).collect(),
            partitions: 12,
            offline: 0,
            under_replicated: 0,
            below_min_isr: 0,
            reassigning: 0,
            single_copy_topics: Vec::new(),
            level: Some(2),
        }
    }

    #[test]
    fn a_page_of_a_cluster_that_is_well() {
        let expected = "\
Cluster c1, controller 1, feature level 2
2 nodes, 12 partitions
All nodes are up and all copies in sync.

NODE  STATE           VOTES  LEADS  HOLDS  BEHIND  FREE  OF       RACK  VERSION  LEVELS  ADDRESS
   1  up, controller  yes        4     12       0  -     2.0 GiB  -       0.1.0  1-2     [::1]:9092
   2  up              yes        4     12       0  -     2.0 GiB  -       0.1.0  1-2     [::1]:9092
";
        assert_eq!(page(&nodes(2)), expected);
        assert_eq!(as_json(&nodes(2))["healthy"], true);
    }

    #[test]
    fn a_page_names_what_is_wrong_and_what_to_do() {
        let mut nodes = nodes(4);
        (nodes.offline, nodes.under_replicated, nodes.below_min_isr, nodes.reassigning) = (1, 5, 2, 3);
        (nodes.nodes[2].fenced, nodes.nodes[3].draining) = (true, true);
        nodes.single_copy_topics = vec!["orders".to_owned(), "payments".to_owned()];
        let page = page(&nodes);
        for line in [
            "4 nodes, 12 partitions, 3 of them on the way to other nodes",
            "  ! node 3 is down",
            "  ! 1 partition without a leader",
            "  ! 2 partitions below min.insync.replicas",
            "  ! 5 partitions with copies out of sync",
            "Topics with one copy, which are lost with its disk: orders, payments",
            // Nodes that are down or leaving take no copies.
            "  ottla topic replicas orders --replication-factor 2",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
        assert!(!page.contains("All nodes are up"), "{page}");
        assert_eq!(state(&nodes.nodes[3]), "up, leaving");
        assert_eq!(as_json(&nodes)["healthy"], false);
    }

    #[test]
    fn a_page_says_that_the_level_can_be_raised() {
        let mut nodes = nodes(2);
        let hint = "There are nodes that support feature level 2. Once all do, and none has to go back:\n  \
                    ottla cluster upgrade\n";
        assert!(!page(&nodes).contains(hint), "it is at the highest");
        (nodes.level, nodes.nodes[1].levels) = (Some(1), None);
        assert!(page(&nodes).contains(hint));
        nodes.nodes[0].levels = Some((1, 1));
        assert!(!page(&nodes).contains(hint));
        nodes.level = None;
        assert!(!page(&nodes).contains("level"), "an older node was asked");
    }

    #[test]
    fn many_topics_are_counted_and_a_lone_node_is_told_to_get_company() {
        let mut nodes = nodes(3);
        nodes.single_copy_topics = (0..NAMED_MAX + 2).map(|number| format!("t{number}")).collect();
        let page_of_three = page(&nodes);
        assert!(page_of_three.contains(" and 2 more (--json names all)"), "{page_of_three}");
        assert!(page_of_three.contains("ottla topic replicas t0 --replication-factor 3\n"), "{page_of_three}");
        nodes.nodes[1].fenced = true;
        nodes.nodes[2].fenced = true;
        let page_of_an_outage = page(&nodes);
        assert!(page_of_an_outage.contains("nodes 2,3 are down"), "{page_of_an_outage}");
        // Nobody is there to take copies, and more nodes are not what is missing.
        assert!(page_of_an_outage.contains("t0, t1") && !page_of_an_outage.contains("ottla "), "{page_of_an_outage}");
        nodes.nodes.truncate(1);
        let page_of_one = page(&nodes);
        assert!(page_of_one.contains("ottla serve --join") && !page_of_one.contains("topic replicas"), "{page_of_one}");
    }
}
