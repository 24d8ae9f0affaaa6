//! Who may commit, and ask for what was committed (rule G5).

use ottla_group::*;

use crate::world::*;

#[test]
fn g5_only_members_in_their_epoch_commit() {
    let mut world = World::new(&[("t", 2)]);
    assert_eq!(world.commit("", -1, "t", 0), Ok(()), "nobody is there to be disturbed");
    world.heartbeat(joining("a", &["t"])).unwrap();
    assert_eq!(world.commit("a", 1, "t", 0), Ok(()));
    assert_eq!(world.commit("a", 2, "t", 0), Err(Refusal::StaleMemberEpoch));
    assert_eq!(world.commit("a", 0, "t", 0), Err(Refusal::StaleMemberEpoch));
    assert_eq!(world.commit("", -1, "t", 0), Err(Refusal::UnknownMemberId));
    assert_eq!(world.commit("b", 1, "t", 0), Err(Refusal::UnknownMemberId));
    world.heartbeat(alive("a", -1)).unwrap();
    assert_eq!(world.commit("", -1, "t", 0), Ok(()));
}

#[test]
fn g5_an_epoch_that_is_past_commits_only_what_was_held_since() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    world.heartbeat(joining("b", &["t"])).unwrap();
    let kept = world.heartbeat(alive("a", 1)).unwrap().assignment.unwrap();
    let (_, kept_partition) = world.named(&kept).into_iter().next().unwrap();
    let lost = 1 - kept_partition;
    assert_eq!(world.commit("a", 1, "t", lost), Ok(()), "what it gives up it may commit until it has");
    let given_up = ConsumerHeartbeat { owned: Some(kept), ..alive("a", 1) };
    assert_eq!(world.heartbeat(given_up).unwrap().member_epoch, 2);
    // The answer is on its way, and the member still believes in epoch 1.
    assert_eq!(world.commit("a", 1, "t", kept_partition), Ok(()));
    assert_eq!(world.commit("a", 1, "t", lost), Err(Refusal::StaleMemberEpoch));

    world.heartbeat(alive("b", 2)).unwrap();
    assert_eq!(world.commit("b", 1, "t", lost), Err(Refusal::StaleMemberEpoch), "it has it since epoch 2");
    assert_eq!(world.commit("b", 2, "t", lost), Ok(()));
    world.reload();
    assert_eq!(world.commit("a", 1, "t", kept_partition), Ok(()));
    assert_eq!(world.commit("b", 1, "t", lost), Err(Refusal::StaleMemberEpoch));
}

#[test]
fn g5_offsets_are_told_to_members_in_their_epoch() {
    let mut world = World::new(&[("t", 2)]);
    world.heartbeat(joining("a", &["t"])).unwrap();
    let ctx = Context {
        now: ottla_types::Tick(0),
        wall: ottla_types::Timestamp(0),
        image: &world.image,
        config: &world.config,
    };
    let fetch = |member: Option<&str>, member_epoch| {
        let group = GROUP.into();
        let member = member.map(Into::into);
        let fetch = FetchOffsets { group, member, member_epoch, partitions: None, require_stable: false };
        world.coordinator.fetch_offsets(&ctx, &fetch).map(|_| ())
    };
    assert_eq!(fetch(None, -1), Ok(()));
    assert_eq!(fetch(Some("a"), 1), Ok(()));
    assert_eq!(fetch(Some("a"), 0), Err(Refusal::StaleMemberEpoch));
    assert_eq!(fetch(Some("b"), 1), Err(Refusal::UnknownMemberId));
}
