//! Joining, staying, leaving, and coming back in the place of another.

use ottla_group::*;

use crate::world::*;

fn refused(result: Result<ConsumerHeartbeatReply, Refusal>) -> Refusal {
    result.unwrap_err()
}

fn instance(name: &str, heartbeat: ConsumerHeartbeat) -> ConsumerHeartbeat {
    ConsumerHeartbeat { instance: Some(name.into()), ..heartbeat }
}

#[test]
fn a_member_joins_stays_and_leaves() {
    let mut world = World::new(&[("t", 3)]);
    let reply = world.heartbeat(joining("a", &["t"])).unwrap();
    assert_eq!((reply.member.as_deref(), reply.member_epoch, reply.heartbeat_interval_ms), (Some("a"), 1, 5_000));
    assert_eq!(reply.assignment, Some(world.partitions("t", &[0, 1, 2])));
    assert_eq!(world.describe().state, GroupState::Stable);

    let written = world.log.len();
    let reply = world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (1, None));
    assert_eq!(world.log.len(), written, "a heartbeat that changes nothing writes nothing");

    let reply = world.heartbeat(alive("a", -1)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (-1, None));
    assert_eq!(world.describe().state, GroupState::Empty);
    assert_eq!(refused(world.heartbeat(alive("a", 1))), Refusal::UnknownMemberId);
}

#[test]
fn a_member_without_an_id_is_given_one_when_it_joins() {
    let mut world = World::new(&[("t", 1)]);
    let reply = world.heartbeat(joining("", &["t"])).unwrap();
    let member = reply.member.unwrap();
    assert_eq!(member.len(), 22);
    assert_eq!(world.heartbeat(alive(&member, 1)).unwrap().member_epoch, 1);
    assert_eq!(refused(world.heartbeat(alive("", 1))), Refusal::InvalidRequest("MemberId can't be empty.".to_owned()));
}

#[test]
fn what_makes_no_sense_is_refused() {
    let mut world = World::new(&[("t", 1)]);
    let good = || joining("a", &["t"]);
    let owned = Some(world.partitions("t", &[0]));
    let bad = [
        ConsumerHeartbeat { group: "".into(), ..good() },
        ConsumerHeartbeat { instance: Some("".into()), ..good() },
        ConsumerHeartbeat { rack: Some("".into()), ..good() },
        ConsumerHeartbeat { rebalance_timeout_ms: None, ..good() },
        ConsumerHeartbeat { topics: None, ..good() },
        ConsumerHeartbeat { owned: None, ..good() },
        ConsumerHeartbeat { owned, ..good() },
        ConsumerHeartbeat { member_epoch: -2, ..good() },
        ConsumerHeartbeat { member_epoch: -3, ..good() },
    ];
    for heartbeat in bad {
        let refusal = refused(world.heartbeat(heartbeat));
        assert!(matches!(refusal, Refusal::InvalidRequest(_)), "{refusal:?}");
    }
    let unknown = ConsumerHeartbeat { server_assignor: Some("sticky".into()), ..good() };
    assert!(matches!(refused(world.heartbeat(unknown)), Refusal::UnsupportedAssignor(_)));
    let unreadable = ConsumerHeartbeat { topics: None, topics_regex: Some("a)|(b".into()), ..good() };
    assert!(matches!(refused(world.heartbeat(unreadable)), Refusal::InvalidRegularExpression(_)));
    assert!(matches!(refused(world.heartbeat(alive("a", 1))), Refusal::GroupIdNotFound(_)));
    assert!(world.log.is_empty() && world.find().is_none(), "nothing of it is left");
}

#[test]
fn g5_an_epoch_that_is_not_the_members_is_fenced() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    assert!(matches!(refused(world.heartbeat(alive("a", 2))), Refusal::FencedMemberEpoch(_)));
    world.heartbeat(joining("b", &["t"])).unwrap();
    let given_up = ConsumerHeartbeat { owned: Some(world.partitions("t", &[0])), ..alive("a", 1) };
    world.heartbeat(alive("a", 1)).unwrap();
    assert_eq!(world.heartbeat(given_up).unwrap().member_epoch, 2);
    assert!(matches!(refused(world.heartbeat(alive("a", 1))), Refusal::FencedMemberEpoch(_)));

    let reply = world.heartbeat(joining("a", &["t"])).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment.unwrap().len()), (2, 1), "it comes back as it was");
}

#[test]
fn g5_a_member_that_missed_an_answer_is_taken_along_if_it_claims_nothing_more() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.heartbeat(joining("b", &["t"])).unwrap();
    let kept = world.heartbeat(alive("a", 1)).unwrap().assignment.unwrap();
    let given_up = || ConsumerHeartbeat { owned: Some(kept.clone()), ..alive("a", 1) };
    assert_eq!(world.heartbeat(given_up()).unwrap().member_epoch, 2);
    // That answer was lost: the member repeats itself, and hears all there is to hear.
    let reply = world.heartbeat(given_up()).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, Some(kept)));
    let claims_more = ConsumerHeartbeat { owned: Some(world.partitions("t", &[0, 1])), ..alive("a", 1) };
    assert!(matches!(refused(world.heartbeat(claims_more)), Refusal::FencedMemberEpoch(_)));
}

#[test]
fn a_quiet_member_is_gone_after_its_session() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.heartbeat(joining("b", &["t"])).unwrap();
    world.pass(44_999);
    world.heartbeat(alive("b", 2)).unwrap();
    world.pass(1);
    let members = world.describe().members;
    assert_eq!(members.len(), 1);
    let reply = world.heartbeat(alive("b", 2)).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (3, Some(world.partitions("t", &[0, 1]))));
    world.pass(45_000);
    assert_eq!(world.describe().state, GroupState::Empty);
}

#[test]
fn after_a_reload_everybody_has_a_whole_session() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.pass(44_000);
    world.reload();
    world.pass(44_000);
    assert_eq!(world.heartbeat(alive("a", 1)).unwrap().member_epoch, 1);
}

#[test]
fn a_group_has_its_own_timeouts() {
    use ottla_metadata::{ConfigResource, Record as MetadataRecord};
    let mut world = World::new(&[("t", 2)]);
    for (key, value) in [("consumer.session.timeout.ms", "50000"), ("consumer.heartbeat.interval.ms", "7000")] {
        let resource = ConfigResource::Group(GROUP.into());
        world.image.apply(&MetadataRecord::ConfigSet { resource, key: key.into(), value: value.into() });
    }
    assert_eq!(world.heartbeat(joining("a", &["t"])).unwrap().heartbeat_interval_ms, 7_000);
    world.pass(49_000);
    assert_eq!(world.describe().members.len(), 1);
    world.pass(1_000);
    assert!(world.describe().members.is_empty());
}

#[test]
fn a_full_group_takes_nobody_more() {
    let mut world = World::new(&[("t", 2)]);
    world.config.consumer_max_size = 1;
    world.heartbeat(instance("i", joining("a", &["t"]))).unwrap();
    assert_eq!(refused(world.heartbeat(joining("b", &["t"]))), Refusal::GroupMaxSizeReached);
    world.heartbeat(instance("i", alive("a", -2))).unwrap();
    world.heartbeat(instance("i", joining("c", &["t"]))).unwrap();
    assert_eq!(world.heartbeat(instance("i", alive("c", 1))).unwrap().member_epoch, 1);
}

#[test]
fn a_static_member_comes_back_to_what_it_had_and_moves_nothing() {
    let mut world = World::new(&[("t", 4)]);
    world.heartbeat(instance("i", joining("a", &["t"]))).unwrap();
    world.heartbeat(joining("b", &["t"])).unwrap();
    let had = world.heartbeat(instance("i", alive("a", 1))).unwrap().assignment.unwrap();
    let given_up = ConsumerHeartbeat { owned: Some(had.clone()), ..alive("a", 1) };
    world.heartbeat(instance("i", given_up)).unwrap();
    world.heartbeat(alive("b", 2)).unwrap();
    let before = world.describe();
    assert_eq!(before.state, GroupState::Stable);

    assert_eq!(world.heartbeat(instance("i", alive("a", -2))).unwrap().member_epoch, -2);
    assert_eq!(world.heartbeat(alive("b", 2)).unwrap().assignment, None);
    let reply = world.heartbeat(instance("i", joining("a2", &["t"]))).unwrap();
    assert_eq!((reply.member_epoch, reply.assignment), (2, Some(had)));
    assert_eq!(world.describe().group_epoch, before.group_epoch);
    assert_eq!(world.describe().state, GroupState::Stable);
    assert_eq!(refused(world.heartbeat(instance("i", alive("a", 2)))), Refusal::FencedInstanceId);
}

#[test]
fn g5_a_static_members_place_is_not_free_before_it_leaves_or_its_session_ends() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(instance("i", joining("a", &["t"]))).unwrap();
    assert_eq!(refused(world.heartbeat(instance("i", joining("b", &["t"])))), Refusal::UnreleasedInstanceId);
    // The same process that joins again is no other.
    assert_eq!(world.heartbeat(instance("i", joining("a", &["t"]))).unwrap().member_epoch, 1);
    world.pass(45_000);
    assert_eq!(world.heartbeat(instance("i", joining("b", &["t"]))).unwrap().member_epoch, 3);
    assert_eq!(refused(world.heartbeat(instance("i", alive("a", 1)))), Refusal::FencedInstanceId);
    assert_eq!(refused(world.heartbeat(instance("j", alive("a", 1)))), Refusal::UnknownMemberId);
}

#[test]
fn a_static_member_that_does_not_come_back_is_gone_after_its_session() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(instance("i", joining("a", &["t"]))).unwrap();
    world.pass(10_000);
    world.heartbeat(instance("i", alive("a", -2))).unwrap();
    world.pass(34_999);
    assert_eq!(world.describe().members.len(), 1);
    world.pass(1);
    assert!(world.describe().members.is_empty());
}

#[test]
fn an_admin_removes_members_of_either_kind() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(instance("i", joining("a", &["t"]))).unwrap();
    world.heartbeat(joining("b", &["t"])).unwrap();
    let leaving = |member: &str, instance: Option<&str>| LeavingMember {
        member: member.into(),
        instance: instance.map(Into::into),
        reason: None,
    };
    let members = vec![leaving("", Some("i")), leaving("b", None), leaving("c", None), leaving("x", Some("i"))];
    let Reply::Leave(Ok(rows)) = world.ask(Command::Leave(Leave { group: GROUP.into(), members })) else { panic!() };
    let results: Vec<_> = rows.into_iter().map(|row| row.result).collect();
    assert_eq!(results, [Ok(()), Ok(()), Err(Refusal::UnknownMemberId), Err(Refusal::FencedInstanceId)]);
    assert!(world.describe().members.is_empty());
}

#[test]
fn an_empty_group_is_deleted_with_everything_it_wrote() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    let delete = || Command::DeleteGroup(GROUP.into());
    assert_eq!(world.ask(delete()), Reply::DeleteGroup(Err(Refusal::NonEmptyGroup)));
    world.heartbeat(alive("a", -1)).unwrap();
    assert_eq!(world.ask(delete()), Reply::DeleteGroup(Ok(())));
    assert!(world.find().is_none() && world.find_replayed().is_none());
    assert_eq!(world.compacted(), []);
}

#[test]
fn what_a_heartbeat_says_anew_of_a_member_is_known_of_it() {
    let mut world = World::new(&[("t", 1)]);
    let epoch = world.heartbeat(joining("a", &["t"])).unwrap().member_epoch;
    let rack = |rack: &str| ConsumerHeartbeat { rack: Some(rack.into()), ..alive("a", epoch) };
    for east_or_west in ["east", "west", "west"] {
        world.heartbeat(rack(east_or_west)).unwrap();
        assert_eq!(world.member("a").rack.as_deref(), Some(east_or_west));
    }
    world.heartbeat(ConsumerHeartbeat { client_host: "/10.9.9.9".into(), ..alive("a", epoch) }).unwrap();
    let member = world.member("a");
    assert_eq!((&*member.client_host, member.rack.as_deref()), ("/10.9.9.9", Some("west")));
}
