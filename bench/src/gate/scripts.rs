//! What the gate has the broker do: one entry for each kind of request whose cost is recorded.
//!
//! A script prepares its own topics and then gives request after request, the same bytes in every run. Not here: how
//! they are sent (`gate.rs`) and what is counted (`callgrind.rs`, `strace.rs`, `broker.rs`).

use anyhow::{Context, Result, bail};
use bytes::Bytes;
use ottla_protocol::messages::{
    ApiVersionsRequest, CreateTopicsRequest, FetchRequest, InitProducerIdRequest, MetadataRequest, ProduceRequest,
    create_topics_request::CreatableTopic,
    fetch_request::{FetchPartition, FetchTopic},
    metadata_request::MetadataRequestTopic,
    produce_request::{PartitionProduceData, TopicProduceData},
};
use ottla_records::{BatchBuilder, Compression};
use ottla_types::{ProducerEpoch, ProducerId, Timestamp};

use super::client::{Client, decode, frame};

const API_VERSIONS: i16 = 3;
const CREATE_TOPICS: i16 = 7;
const FETCH: i16 = 12;
const INIT_PRODUCER_ID: i16 = 4;
const METADATA: i16 = 12;
const PRODUCE: i16 = 9;

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;
/// Records carry this time in every run.
const WRITTEN_AT: Timestamp = Timestamp(1_700_000_000_000);

/// One kind of request, again and again.
pub(super) struct Script {
    pub(super) name: &'static str,
    /// Requests written in one go and answered before the next ones.
    pub(super) in_flight: u32,
    /// How often that is counted.
    pub(super) turns: u32,
    pub(super) prepare: fn(&mut Client) -> Result<Requests>,
}

/// The requests of a script.
pub(super) struct Requests {
    pub(super) next: Box<dyn FnMut() -> Result<Bytes>>,
    /// Whether an answer is what it should be: refusals are cheap.
    pub(super) check: Box<dyn Fn(Bytes) -> Result<()>>,
}

pub(super) const SCRIPTS: [Script; 10] = [
    Script { name: "produce one record of 100 B", in_flight: 1, turns: 300, prepare: produce_one },
    Script { name: "produce 16 KiB, idempotent, 5 in flight", in_flight: 5, turns: 50, prepare: produce_idempotent },
    Script { name: "produce 1 MiB", in_flight: 1, turns: 20, prepare: produce_bulk },
    Script { name: "produce 100 KiB, zstd", in_flight: 1, turns: 50, prepare: produce_zstd },
    Script { name: "fetch 1 MiB", in_flight: 1, turns: 50, prepare: fetch_bulk },
    Script { name: "fetch one record of 100 B", in_flight: 1, turns: 300, prepare: fetch_one },
    Script { name: "fetch nothing, session of 100 partitions", in_flight: 1, turns: 300, prepare: fetch_nothing },
    Script { name: "fetch one record, session of 1,000 partitions", in_flight: 1, turns: 100, prepare: fetch_moved },
    Script { name: "metadata of one topic", in_flight: 1, turns: 300, prepare: metadata },
    Script { name: "api versions", in_flight: 1, turns: 300, prepare: api_versions },
];

fn produce_one(client: &mut Client) -> Result<Requests> {
    create(client, "one", 1)?;
    produce_again("one", batch(1, 100, Compression::None, None)?)
}

fn produce_idempotent(client: &mut Client) -> Result<Requests> {
    const RECORDS: i32 = 16;
    create(client, "idempotent", 1)?;
    let asked = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: 0,
        producer_id: -1,
        producer_epoch: -1,
    };
    let given = client.call(&asked, INIT_PRODUCER_ID)?;
    succeeded(given.error_code)?;
    let mut sequence = 0;
    let next = move || {
        let producer = (ProducerId(given.producer_id), ProducerEpoch(given.producer_epoch), sequence);
        sequence += RECORDS;
        frame(&produce("idempotent", batch(RECORDS, KIB, Compression::None, Some(producer))?), PRODUCE)
    };
    Ok(Requests { next: Box::new(next), check: Box::new(produced) })
}

fn produce_bulk(client: &mut Client) -> Result<Requests> {
    create(client, "bulk", 1)?;
    produce_again("bulk", batch(1000, KIB, Compression::None, None)?)
}

fn produce_zstd(client: &mut Client) -> Result<Requests> {
    create(client, "zstd", 1)?;
    produce_again("zstd", batch(200, KIB, Compression::Zstd, None)?)
}

fn produce_again(topic: &'static str, batch: Bytes) -> Result<Requests> {
    let frame = frame(&produce(topic, batch), PRODUCE)?;
    Ok(Requests { next: Box::new(move || Ok(frame.clone())), check: Box::new(produced) })
}

fn fetch_bulk(client: &mut Client) -> Result<Requests> {
    create(client, "fetched-bulk", 1)?;
    let written = batch(1000, KIB, Compression::None, None)?;
    fetch_again(client, "fetched-bulk", written)
}

fn fetch_one(client: &mut Client) -> Result<Requests> {
    create(client, "fetched-one", 1)?;
    let written = batch(1, 100, Compression::None, None)?;
    fetch_again(client, "fetched-one", written)
}

/// Writes a batch, and reads that batch without a session.
fn fetch_again(client: &mut Client, topic: &'static str, written: Bytes) -> Result<Requests> {
    let length = written.len();
    client.send(&frame(&produce(topic, written), PRODUCE)?)?;
    produced(client.receive()?)?;
    let frame = frame(&FetchRequest { session_epoch: -1, ..fetch(topic, 1) }, FETCH)?;
    let check = move |answer: Bytes| {
        let answer = decode::<FetchRequest>(answer, FETCH)?;
        let partition = answer.responses.first().and_then(|topic| topic.partitions.first());
        let partition = partition.context("an answer without the partition")?;
        succeeded(partition.error_code)?;
        match partition.records.as_ref().map_or(0, |records| records.len()) {
            got if got == length => Ok(()),
            got => bail!("{got} bytes of records instead of {length}"),
        }
    };
    Ok(Requests { next: Box::new(move || Ok(frame.clone())), check: Box::new(check) })
}

fn fetch_nothing(client: &mut Client) -> Result<Requests> {
    create(client, "empty", 100)?;
    let opened = client.call(&fetch("empty", 100), FETCH)?;
    succeeded(opened.error_code)?;
    let mut session_epoch = 0;
    let next = move || {
        session_epoch += 1;
        let topics = Vec::new();
        frame(&FetchRequest { session_id: opened.session_id, session_epoch, topics, ..fetch("", 0) }, FETCH)
    };
    let check = |answer| {
        let answer = decode::<FetchRequest>(answer, FETCH)?;
        succeeded(answer.error_code)?;
        if answer.responses.is_empty() { Ok(()) } else { bail!("news of partitions to which nothing happened") }
    };
    Ok(Requests { next: Box::new(next), check: Box::new(check) })
}

/// Each request moves one of the session's partitions on and has the record there for its answer.
fn fetch_moved(client: &mut Client) -> Result<Requests> {
    const PARTITIONS: i32 = 1000;
    const RECORDS: i64 = 50;
    create(client, "moved", PARTITIONS)?;
    let written = frame(&produce("moved", batch(1, 100, Compression::None, None)?), PRODUCE)?;
    for _ in 0..RECORDS {
        client.send(&written)?;
        produced(client.receive()?)?;
    }
    let opened = client.call(&fetch("moved", PARTITIONS), FETCH)?;
    succeeded(opened.error_code)?;
    let mut session_epoch = 0;
    let next = move || {
        session_epoch += 1;
        let mut request = FetchRequest { session_id: opened.session_id, session_epoch, ..fetch("moved", 1) };
        for partition in request.topics.iter_mut().flat_map(|topic| &mut topic.partitions) {
            partition.fetch_offset = i64::from(session_epoch) % RECORDS;
            // Less than a record: one is given all the same.
            partition.partition_max_bytes = 1;
        }
        frame(&request, FETCH)
    };
    let check = |answer| {
        let answer = decode::<FetchRequest>(answer, FETCH)?;
        succeeded(answer.error_code)?;
        match answer.responses.iter().map(|topic| topic.partitions.len()).sum() {
            1 => Ok(()),
            moved => bail!("news of {moved} partitions instead of one"),
        }
    };
    Ok(Requests { next: Box::new(next), check: Box::new(check) })
}

fn metadata(client: &mut Client) -> Result<Requests> {
    create(client, "described", 1)?;
    let topic = MetadataRequestTopic { name: Some("described".into()), ..MetadataRequestTopic::default() };
    let frame = frame(&MetadataRequest { topics: Some(vec![topic]), ..MetadataRequest::default() }, METADATA)?;
    let check = |answer| {
        let answer = decode::<MetadataRequest>(answer, METADATA)?;
        succeeded(answer.topics.first().context("an answer without the topic")?.error_code)
    };
    Ok(Requests { next: Box::new(move || Ok(frame.clone())), check: Box::new(check) })
}

fn api_versions(_: &mut Client) -> Result<Requests> {
    let request = ApiVersionsRequest { client_software_name: "gate".into(), client_software_version: "1".into() };
    let frame = frame(&request, API_VERSIONS)?;
    let check = |answer| succeeded(decode::<ApiVersionsRequest>(answer, API_VERSIONS)?.error_code);
    Ok(Requests { next: Box::new(move || Ok(frame.clone())), check: Box::new(check) })
}

fn create(client: &mut Client, name: &str, partitions: i32) -> Result<()> {
    let topic = CreatableTopic {
        name: name.into(),
        num_partitions: partitions,
        replication_factor: 1,
        ..CreatableTopic::default()
    };
    let request = CreateTopicsRequest { topics: vec![topic], timeout_ms: 30_000, validate_only: false };
    let answer = client.call(&request, CREATE_TOPICS)?;
    succeeded(answer.topics.first().context("an answer without the topic")?.error_code)
}

fn produce(topic: &str, batch: Bytes) -> ProduceRequest {
    ProduceRequest {
        acks: -1,
        timeout_ms: 30_000,
        topic_data: vec![TopicProduceData {
            name: topic.into(),
            partition_data: vec![PartitionProduceData { index: 0, records: Some(batch) }],
            ..TopicProduceData::default()
        }],
        ..ProduceRequest::default()
    }
}

fn produced(answer: Bytes) -> Result<()> {
    let answer = decode::<ProduceRequest>(answer, PRODUCE)?;
    let partition = answer.responses.first().and_then(|topic| topic.partition_responses.first());
    succeeded(partition.context("an answer without the partition")?.error_code)
}

/// Asks for everything from offset 0 on, and for an answer at once.
fn fetch(topic: &str, partitions: i32) -> FetchRequest {
    let partition = |partition| FetchPartition {
        partition,
        current_leader_epoch: -1,
        last_fetched_epoch: -1,
        log_start_offset: -1,
        partition_max_bytes: 2 * MIB as i32,
        ..FetchPartition::default()
    };
    let topic = FetchTopic {
        topic: topic.into(),
        partitions: (0..partitions).map(partition).collect(),
        ..FetchTopic::default()
    };
    FetchRequest {
        replica_id: -1,
        session_id: 0,
        session_epoch: 0,
        max_wait_ms: 0,
        min_bytes: 1,
        max_bytes: 2 * MIB as i32,
        topics: vec![topic],
        ..FetchRequest::default()
    }
}

/// A batch of records that a codec makes half as large.
fn batch(
    records: i32,
    record_bytes: usize,
    compression: Compression,
    producer: Option<(ProducerId, ProducerEpoch, i32)>,
) -> Result<Bytes> {
    let mut random = fastrand::Rng::with_seed(42);
    let mut batch = BatchBuilder::new(compression, None);
    if let Some((id, epoch, sequence)) = producer {
        batch = batch.producer(id, epoch, sequence);
    }
    let mut value = vec![0; record_bytes];
    for _ in 0..records {
        let (noise, _) = value.split_at_mut(record_bytes / 2);
        random.fill(noise);
        batch.push(WRITTEN_AT, None, Some(&value), &[])?;
    }
    Ok(batch.build()?)
}

fn succeeded(code: i16) -> Result<()> {
    if code == 0 { Ok(()) } else { bail!("the broker answers with error {code}") }
}
