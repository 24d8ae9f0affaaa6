//! What every target has to be, whatever members want and had.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ottla_types::{PartitionIndex, TopicId};
use proptest::prelude::*;

use super::{Place, Spec, Subscriber, Targets, range, uniform};

fn topic(number: u8) -> TopicId {
    TopicId::from_bytes([number + 1; 16])
}

fn place(number: u8, partition: i32) -> Place {
    (topic(number), PartitionIndex(partition))
}

/// Who wants which topics, by number; the sizes of those topics.
fn spec(wants: &[BTreeSet<u8>], sizes: &[i32]) -> Spec {
    let members = wants.iter().map(|topics| Subscriber {
        topics: Arc::new(topics.iter().map(|number| topic(*number)).collect()),
        before: BTreeSet::new(),
    });
    let wanted = (0..).zip(sizes).filter(|(number, _)| wants.iter().any(|topics| topics.contains(number)));
    Spec { members: members.collect(), topics: wanted.map(|(number, size)| (topic(number), *size)).collect() }
}

fn with_before(mut spec: Spec, before: &Targets) -> Spec {
    for (member, before) in spec.members.iter_mut().zip(before) {
        member.before.clone_from(before);
    }
    spec
}

/// Any targets before, in which nobody has what another has.
fn scatter(spec: Spec, places: &[(usize, Place)]) -> Spec {
    let mut before: Targets = vec![BTreeSet::new(); spec.members.len()];
    for (place, member) in places.iter().map(|(member, place)| (place, member)).collect::<BTreeMap<_, _>>() {
        let at = member % before.len();
        before[at].insert(*place);
    }
    with_before(spec, &before)
}

fn any_wants() -> impl Strategy<Value = Vec<BTreeSet<u8>>> {
    prop::collection::vec(prop::collection::btree_set(0..4u8, 0..4), 1..9)
}

fn any_sizes() -> impl Strategy<Value = Vec<i32>> {
    prop::collection::vec(0..20i32, 4)
}

fn any_places() -> impl Strategy<Value = Vec<(usize, Place)>> {
    let place = (0..5u8, 0..25i32).prop_map(|(number, partition)| place(number, partition));
    prop::collection::vec((0..9usize, place), 0..60)
}

/// Every partition that somebody wants is given to exactly one that wants it, and nothing else is given.
fn assert_exact(spec: &Spec, targets: &Targets) {
    let mut given = BTreeSet::new();
    for (member, target) in spec.members.iter().zip(targets) {
        for place in target {
            assert!(member.topics.contains(&place.0), "{place:?} is given to somebody who does not want it");
            assert!(given.insert(*place), "{place:?} is given twice");
        }
    }
    assert_eq!(given, spec.places().collect());
}

/// How many partitions are with another member than before, or with none.
fn moves(spec: &Spec, targets: &Targets) -> usize {
    spec.members.iter().zip(targets).map(|(member, target)| member.before.difference(target).count()).sum()
}

fn sizes(targets: &Targets) -> Vec<usize> {
    targets.iter().map(BTreeSet::len).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn g5_every_partition_has_one_target(wants in any_wants(), sizes in any_sizes(), places in any_places()) {
        let spec = scatter(spec(&wants, &sizes), &places);
        assert_exact(&spec, &uniform::assign(&spec));
        assert_exact(&spec, &range::assign(&spec));
    }

    #[test]
    fn a_target_that_is_right_stays(wants in any_wants(), sizes in any_sizes(), places in any_places()) {
        let spec = scatter(spec(&wants, &sizes), &places);
        let first = uniform::assign(&spec);
        let spec = with_before(spec, &first);
        prop_assert_eq!(&uniform::assign(&spec), &first);
        let first = range::assign(&spec);
        let spec = with_before(spec, &first);
        prop_assert_eq!(range::assign(&spec), first);
    }

    #[test]
    fn uniform_is_level_and_moves_no_more_than_that_takes(
        members in 1..9usize, sizes_of in any_sizes(), places in any_places(),
    ) {
        let spec = scatter(spec(&vec![BTreeSet::from([0, 1, 2, 3]); members], &sizes_of), &places);
        let targets = uniform::assign(&spec);
        let sizes = sizes(&targets);
        prop_assert!(sizes.iter().max().unwrap() - sizes.iter().min().unwrap() <= 1, "{:?}", sizes);
        // What exceeds a fair share has to go, and of the shares the larger ones go to those who have most.
        let mut had: Vec<usize> =
            spec.members.iter().map(|m| m.before.iter().filter(|place| spec.may_keep(m, place)).count()).collect();
        had.sort_unstable_by(|a, b| b.cmp(a));
        let mut shares = sizes;
        shares.sort_unstable_by(|a, b| b.cmp(a));
        let excess: usize = had.iter().zip(&shares).map(|(had, share)| had.saturating_sub(*share)).sum();
        let lost: usize =
            spec.members.iter().map(|m| m.before.iter().filter(|place| !spec.may_keep(m, place)).count()).sum();
        prop_assert_eq!(moves(&spec, &targets), excess + lost);
    }

    #[test]
    fn uniform_leaves_nothing_that_one_move_would_better(
        wants in any_wants(), sizes in any_sizes(), places in any_places(),
    ) {
        let spec = scatter(spec(&wants, &sizes), &places);
        let targets = uniform::assign(&spec);
        for (from, has) in targets.iter().enumerate() {
            for (to, member) in spec.members.iter().enumerate().filter(|(to, _)| targets[*to].len() + 1 < has.len()) {
                prop_assert!(!has.iter().any(|place| member.topics.contains(&place.0)), "{} to {}", from, to);
            }
        }
    }

    #[test]
    fn range_gives_each_topic_evenly_in_runs_that_line_up(members in 1..9usize, size in 0..20i32) {
        let spec = spec(&vec![BTreeSet::from([0, 1, 2]); members], &[size, size, size]);
        let targets = range::assign(&spec);
        for target in &targets {
            let of = |number| -> Vec<i32> {
                target.iter().filter(|(of, _)| *of == topic(number)).map(|(_, partition)| partition.0).collect()
            };
            prop_assert_eq!(of(0), of(1));
            prop_assert_eq!(of(0), of(2));
            prop_assert!(of(0).windows(2).all(|pair| pair[1] == pair[0] + 1));
            let fair = usize::try_from(size).unwrap() / members;
            prop_assert!((fair..=fair + 1).contains(&of(0).len()));
        }
    }
}

#[test]
fn uniform_of_500_members_and_1000_partitions_takes_no_time() {
    let wants = vec![BTreeSet::from([0, 1]); 500];
    let first = uniform::assign(&spec(&wants, &[500, 500]));
    assert!(sizes(&first).iter().all(|size| *size == 2));
    let mut different = wants;
    different[0] = BTreeSet::from([0]);
    let spec = with_before(spec(&different, &[500, 500]), &first);
    let targets = uniform::assign(&spec);
    assert_exact(&spec, &targets);
    assert!(moves(&spec, &targets) <= 2);
}
