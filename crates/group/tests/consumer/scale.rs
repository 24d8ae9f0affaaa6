//! A large group: what it costs to bring 500 members to 1,000 partitions, in requests and in records.

use std::collections::BTreeSet;

use ottla_group::*;

use crate::world::*;

const MEMBERS: usize = 500;

struct Client {
    id: String,
    epoch: i32,
    owned: Option<Vec<TopicPartitions>>,
}

impl Client {
    /// One heartbeat, and what the answer says to have from now on.
    fn beat(&mut self, world: &mut World) {
        let owned = self.owned.take();
        let reply = world.heartbeat(ConsumerHeartbeat { owned, ..alive(&self.id, self.epoch) }).unwrap();
        (self.epoch, self.owned) = (reply.member_epoch, reply.assignment);
    }
}

#[test]
fn g5_500_members_share_1000_partitions_after_a_few_heartbeats() {
    let mut world = World::new(&[("t", 600), ("u", 400)]);
    world.config.consumer_assignment_interval_ms = 1_000;
    let mut clients = Vec::new();
    for number in 0..MEMBERS {
        let id = format!("member-{number}");
        let reply = world.heartbeat(joining(&id, &["t", "u"])).unwrap();
        clients.push(Client { id, epoch: reply.member_epoch, owned: reply.assignment });
        world.pass(10);
    }
    let mut rounds = 0;
    while world.describe().state != GroupState::Stable {
        rounds += 1;
        clients.iter_mut().for_each(|client| client.beat(&mut world));
        world.pass(5_000);
    }
    assert!(rounds <= 4, "{rounds} heartbeats each");
    assert!(world.log.len() < MEMBERS * 12, "{} records", world.log.len());
    let group = world.describe();
    let owned: BTreeSet<Named> = group.members.iter().flat_map(|member| world.named(&member.assignment)).collect();
    assert_eq!(owned.len(), 1_000);
    assert!(group.members.iter().all(|member| world.named(&member.assignment).len() == 2));

    let written = world.log.len();
    clients.iter_mut().for_each(|client| client.beat(&mut world));
    assert_eq!(world.log.len(), written, "then heartbeats write nothing");
}
