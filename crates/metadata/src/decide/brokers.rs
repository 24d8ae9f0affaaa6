//! Decisions about brokers that come, go quiet, stop, break and leave, each with the elections that follow.
//!
//! What is not here: sessions (who was heard of when is the controller's own), and moving replicas off a broker before
//! it leaves (`drain.rs`).

use std::collections::BTreeSet;

use ottla_types::{BrokerEpoch, BrokerId, Timestamp};

use super::{features, transition::Setting};
use crate::{
    Broker, BrokerRegistration, DamagedCopy, Image, Partition, Record, Refusal, Reply,
    config::{Durability, Settings},
};

/// What a broker is registered with whose directory is not known.
const UNKNOWN_DIRECTORY: [u8; 16] = [0; 16];

type Decision = Result<(Vec<Record>, Reply), Refusal>;

pub(super) fn register(
    image: &Image,
    settings: &Settings,
    now: Timestamp,
    registration: BrokerRegistration,
) -> Decision {
    let BrokerRegistration { id, directory, incarnation, rack, listeners, ended, alone, features } = registration;
    let features = features::registered(image, features)?;
    if directory == UNKNOWN_DIRECTORY {
        return Err(Refusal::InvalidRequest("A broker's data directory has an id that is not all zeros.".to_owned()));
    }
    let id = id.or_else(|| image.broker_in(directory).map(|known| known.id)).unwrap_or_else(|| image.next_broker_id());
    if id.0 < 0 {
        return Err(Refusal::InvalidRequest(format!("A broker's number is 0 or more, not {id}.")));
    }
    if let Some(other) = image.broker_in(directory).filter(|other| other.id != id) {
        return Err(Refusal::InvalidRequest(format!(
            "The data directory of broker {} can't be broker {id}'s.",
            other.id
        )));
    }
    let (mut same_directory, mut clean) = (true, true);
    let before = image.broker(id).map(|known| known.epoch);
    if let Some(known) = image.broker(id) {
        // A1: the same process that asks again keeps its epoch (its first answer may have been lost).
        if known.incarnation == incarnation {
            return Ok((Vec::new(), Reply::BrokerRegistered { id, epoch: known.epoch }));
        }
        same_directory = [UNKNOWN_DIRECTORY, directory].contains(&known.directory);
        clean = same_directory && ended.proves(known);
        // The session has ended if it was fenced, if what it left behind says so, or if the asking process must know.
        if !known.fenced && !clean && !alone {
            return Err(Refusal::DuplicateRegistration(id));
        }
    }
    // This record's own offset: who has an image beyond it has applied the registration (M4).
    let offset = image.offset().0;
    let epoch = BrokerEpoch(offset.max(image.last_broker_epoch().0.saturating_add(1)));
    let leads_all = || image.partitions_of(id).all(|(.., partition)| partition.leader == Some(id));
    let goes_on = alone && same_directory && image.brokers().all(|broker| broker.id == id) && leads_all();
    let registered = Record::BrokerRegistered {
        id,
        epoch,
        incarnation,
        directory,
        rack,
        listeners,
        registered: now,
        fenced: !goes_on,
        features,
    };
    if goes_on {
        let unclean = !clean && image.led_by(id).next().is_some();
        let records = [Some(registered), unclean.then_some(Record::BrokerRestartedUncleanly { id })];
        return Ok((records.into_iter().flatten().collect(), Reply::BrokerRegistered { id, epoch }));
    }
    let after = with(image, &registered);
    let mut records = vec![registered];
    let concerned = |partition: &Partition| in_sync_or_eligible(partition, id) || led_last(partition, id);
    records.extend(Setting::new(&after, settings).sweep(concerned, |topic, config, transition| {
        // A2. What was synced survives an end that was not clean, and recovery tells if it did not (L5).
        let synced = config.durability == Durability::Fsync
            && image.topic(topic).is_some_and(|topic| before.is_none_or(|before| before >= topic.synced_since));
        let unproven = !clean && !synced && !cfg!(zoo = "B12");
        transition.unproven = unproven.then_some(id);
        transition.lost = (!same_directory).then_some(id);
    }));
    Ok((records, Reply::BrokerRegistered { id, epoch }))
}

pub(super) fn fence(image: &Image, settings: &Settings, id: BrokerId, epoch: BrokerEpoch) -> Decision {
    let broker = registered(image, id, epoch)?;
    if broker.fenced {
        return Ok((Vec::new(), Reply::Done));
    }
    let fenced = changed(broker, |broker| broker.fenced = true);
    let (_, records) = change(image, settings, fenced, |partition| partition.isr.contains(&id));
    Ok((records, Reply::Done))
}

/// A broker that is on its way out stays fenced: it comes back with a new registration.
pub(super) fn unfence(image: &Image, settings: &Settings, id: BrokerId, epoch: BrokerEpoch) -> Decision {
    let broker = registered(image, id, epoch)?;
    if !broker.fenced || broker.shutting_down {
        return Ok((Vec::new(), Reply::Done));
    }
    let unfenced = changed(broker, |broker| broker.fenced = false);
    let offline = |partition: &Partition| partition.leader.is_none() && partition.replicas.contains(&id);
    let (_, records) = change(image, settings, unfenced, offline);
    Ok((records, Reply::Done))
}

pub(super) fn begin_shutdown(image: &Image, settings: &Settings, id: BrokerId, epoch: BrokerEpoch) -> Decision {
    let broker = registered(image, id, epoch)?;
    let leaving = changed(broker, |broker| broker.shutting_down = true);
    let (after, mut records) = change(image, settings, leaving, |partition| partition.isr.contains(&id));
    if broker.shutting_down {
        // It said so before; only what has changed since is new.
        records.remove(0);
    }
    let moved = records.iter().filter(|record| match record {
        Record::PartitionChanged { topic, index, partition } => {
            let before = after.topic(*topic).and_then(|topic| topic.partition(*index));
            before.is_some_and(|before| before.leader == Some(id)) && partition.leader != Some(id)
        }
        _ => false,
    });
    let leaderships = after.led_by(id).count() - moved.count();
    Ok((records, Reply::ShuttingDown { leaderships }))
}

pub(super) fn report_damage(
    image: &Image,
    settings: &Settings,
    broker: BrokerId,
    epoch: BrokerEpoch,
    copies: Vec<DamagedCopy>,
) -> Decision {
    registered(image, broker, epoch)?;
    let setting = Setting::new(image, settings);
    let mut records = Vec::new();
    let mut seen = BTreeSet::new();
    for DamagedCopy { topic: id, index, partition_epoch } in copies {
        let Some(topic) = image.topic(id).filter(|_| seen.insert((id, index))) else { continue };
        let Some(partition) = topic.partition(index).filter(|partition| partition.replicas.contains(&broker)) else {
            continue;
        };
        if partition_epoch < partition.partition_epoch {
            return Err(Refusal::InvalidUpdateVersion);
        }
        let mut transition = setting.transition(partition, &setting.config(topic));
        transition.lost = Some(broker);
        records.extend(transition.record(id, index));
    }
    Ok((records, Reply::Done))
}

pub(super) fn unregister(image: &Image, settings: &Settings, id: BrokerId) -> Decision {
    let broker = image.broker(id).ok_or(Refusal::BrokerNotRegistered(id))?;
    if !broker.fenced {
        return Err(Refusal::InvalidRequest(format!("Broker {id} is running; stop it before it is unregistered.")));
    }
    let mut needed = image.partitions_of(id).filter(|(.., partition)| is_last_copy(partition, id));
    if let Some((topic, index, _)) = needed.next() {
        let more = needed.count();
        return Err(Refusal::InvalidRequest(format!(
            "Broker {id} holds the last copy of {}-{index} and of {more} other partition(s); start it and drain it \
             first, or delete what may be lost.",
            topic.name
        )));
    }
    let unregistered = Record::BrokerUnregistered { id };
    let after = with(image, &unregistered);
    let mut records = vec![unregistered];
    let concerned = |partition: &Partition| in_sync_or_eligible(partition, id) || led_last(partition, id);
    records.extend(Setting::new(&after, settings).sweep(concerned, |_, _, transition| transition.lost = Some(id)));
    Ok((records, Reply::Done))
}

/// The broker, if that is its registration.
pub(super) fn registered(image: &Image, id: BrokerId, epoch: BrokerEpoch) -> Result<&Broker, Refusal> {
    image.broker(id).map(|broker| &**broker).filter(|broker| broker.epoch == epoch).ok_or(Refusal::StaleBrokerEpoch(id))
}

/// The record of a broker's next state.
pub(super) fn changed(broker: &Broker, change: impl FnOnce(&mut Broker)) -> Record {
    let mut broker = broker.clone();
    change(&mut broker);
    let Broker { id, fenced, shutting_down, draining, .. } = broker;
    Record::BrokerChanged { id, fenced, shutting_down, draining }
}

/// The image as it will be.
pub(super) fn with(image: &Image, record: &Record) -> Image {
    let mut after = image.clone();
    after.apply(record);
    after
}

/// A broker's change, first of the records, and what it makes of the partitions that are `affected`. The image has the
/// broker's change alone.
fn change(
    image: &Image,
    settings: &Settings,
    record: Record,
    affected: impl Fn(&Partition) -> bool,
) -> (Image, Vec<Record>) {
    let after = with(image, &record);
    let mut records = vec![record];
    records.extend(Setting::new(&after, settings).sweep(affected, |_, _, _| {}));
    (after, records)
}

fn in_sync_or_eligible(partition: &Partition, id: BrokerId) -> bool {
    partition.isr.contains(&id) || partition.elr.contains(&id)
}

fn led_last(partition: &Partition, id: BrokerId) -> bool {
    partition.leader.or(partition.last_known_leader) == Some(id)
}

/// Whether nobody but this replica is known to have every committed record.
fn is_last_copy(partition: &Partition, id: BrokerId) -> bool {
    if partition.isr.is_empty() && partition.elr.is_empty() {
        return led_last(partition, id) || *partition.replicas == [id];
    }
    partition.isr.iter().chain(partition.elr.iter()).all(|&has_all| has_all == id)
}
