//! What must hold after every command, whatever came before it: V's invariants that an image can show.

use ottla_metadata::{
    Command, Image, Partition,
    config::{Overrides, Settings, TopicConfig},
};
use ottla_types::BrokerId;

/// Panics if `command` led from an image to one that breaks a rule.
pub(crate) fn check(before: &Image, after: &Image, settings: &Settings, command: &Command) {
    let none = Overrides::new();
    let layers = ottla_metadata::config::Layers { broker: &none, cluster: after.cluster_configs(), settings };
    let defaults = TopicConfig::resolve(&layers);
    for (topic, index, partition) in after.partitions() {
        let at = || format!("{}-{index} after {command:?}: {partition:?}", topic.name);
        check_state(after, partition, &at);
        let Some(earlier) = before.topic(topic.id).and_then(|topic| topic.partition(index)) else { continue };
        let min = defaults.with_overrides(&topic.overrides).min_insync_replicas;
        check_step(earlier, partition, min, command, &|| format!("{}, which was {earlier:?}", at()));
    }
}

fn check_state(image: &Image, partition: &Partition, at: &dyn Fn() -> String) {
    let Partition { replicas, isr, elr, adding, removing, .. } = partition;
    let unfenced = |id: BrokerId| image.broker(id).is_some_and(|broker| !broker.fenced);
    match partition.leader {
        Some(leader) => assert!(isr.contains(&leader) && partition.last_known_leader.is_none(), "{}", at()),
        None => assert!(isr.is_empty(), "{}", at()),
    }
    for list in [replicas, isr, elr, adding, removing] {
        assert!((1..list.len()).all(|end| !list[..end].contains(&list[end])), "one twice: {}", at());
        assert!(list.iter().all(|member| replicas.contains(member)), "no replica: {}", at());
    }
    assert!(isr.iter().all(|member| unfenced(*member)), "A1: {}", at());
    assert!(!isr.iter().any(|member| elr.contains(member)), "A3: {}", at());
    assert!(!adding.iter().any(|replica| removing.contains(replica)), "{}", at());
    assert!(replicas.len() > removing.len(), "{}", at());
    let eligible = elr.iter().any(|&id| image.is_live(id));
    assert!(partition.leader.is_some() || !eligible, "A4, nobody leads and one could: {}", at());
}

fn check_step(before: &Partition, after: &Partition, min: u32, command: &Command, at: &dyn Fn() -> String) {
    let same = Partition { partition_epoch: before.partition_epoch, ..after.clone() } == *before;
    // A higher min.insync.replicas begins an epoch in which all else stays.
    let may_stay = matches!(command, Command::AlterConfigs { .. } | Command::IncrementalAlterConfigs { .. });
    let is_newer = after.partition_epoch != before.partition_epoch;
    assert!(same != is_newer || same && may_stay, "I3: {}", at());
    assert!(after.partition_epoch >= before.partition_epoch && after.leader_epoch >= before.leader_epoch, "{}", at());
    let had_all = |id: &BrokerId| before.isr.contains(id) || before.elr.contains(id);
    // A leader says who has caught up with it, and the same change may make that one lead.
    let has_joined = matches!(command, Command::AlterPartitions { .. });
    if after.leader != before.leader {
        assert!(after.leader_epoch > before.leader_epoch, "{}", at());
        let proven = after.leader.is_none_or(|leader| had_all(&leader) || has_joined);
        assert!(proven || after.recovering, "A4, elected without a word: {}", at());
    }
    // A3 and B12: how many hold all that is committed never falls below what commits, but by a loss.
    let holders = |partition: &Partition| partition.isr.len() + partition.elr.len();
    let needed = after.effective_min_isr(min);
    let enough = holders(after) >= needed.min(holders(before));
    assert!(enough || loses_copies(command) || after.recovering, "A3: {}", at());
    assert!(after.isr.len() < needed || after.elr.is_empty(), "A3: {}", at());
    assert!(after.elr.iter().all(had_all), "A3: {}", at());
    if after.recovering && before.recovering {
        assert!(after.isr.len() <= 1, "A4: {}", at());
    }
}

/// Whether copies may be gone with it.
fn loses_copies(command: &Command) -> bool {
    matches!(command, Command::RegisterBroker(_) | Command::ReportDamage { .. } | Command::UnregisterBroker { .. })
}
