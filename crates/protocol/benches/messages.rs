//! What decoding and encoding the two requests of the hot path cost, with one partition and with sixteen.
//!
//! `cargo bench -p ottla-protocol`

#![allow(clippy::unwrap_used, reason = "a benchmark that cannot go on fails")]

use bytes::Bytes;
use divan::{Bencher, black_box, counter::ItemsCount};
use ottla_protocol::{
    ApiKey, Chunk, GatherOut, Message, Reader, Records, Region, RequestHeader,
    messages::{
        FetchRequest, FetchResponse, ProduceRequest, ProduceResponse,
        fetch_request::{FetchPartition, FetchTopic},
        fetch_response::{FetchableTopicResponse, PartitionData},
        produce_request::{PartitionProduceData, TopicProduceData},
        produce_response::{PartitionProduceResponse, TopicProduceResponse},
    },
};

const PARTITIONS: [i32; 2] = [1, 16];
const PRODUCE: RequestHeader =
    RequestHeader { api_key: ApiKey::Produce, api_version: 12, correlation_id: 7, client_id: None };
const FETCH: RequestHeader =
    RequestHeader { api_key: ApiKey::Fetch, api_version: 12, correlation_id: 7, client_id: None };

fn main() {
    divan::main();
}

#[divan::bench(args = PARTITIONS)]
fn decode_produce(bencher: Bencher, partitions: i32) {
    let records = Bytes::from(vec![b'x'; 200]);
    let partition = |index| PartitionProduceData { index, records: Some(records.clone()) };
    let topic = TopicProduceData {
        name: "a-topic".into(),
        partition_data: (0..partitions).map(partition).collect(),
        ..TopicProduceData::default()
    };
    decode(bencher, &PRODUCE, &ProduceRequest { acks: -1, topic_data: vec![topic], ..ProduceRequest::default() });
}

#[divan::bench(args = PARTITIONS)]
fn encode_produce(bencher: Bencher, partitions: i32) {
    let partition = |index| PartitionProduceResponse { index, base_offset: 5, ..PartitionProduceResponse::default() };
    let topic = TopicProduceResponse {
        name: "a-topic".into(),
        partition_responses: (0..partitions).map(partition).collect(),
        ..TopicProduceResponse::default()
    };
    encode(bencher, &PRODUCE, &ProduceResponse { responses: vec![topic], ..ProduceResponse::default() });
}

#[divan::bench(args = PARTITIONS)]
fn decode_fetch(bencher: Bencher, partitions: i32) {
    let partition = |partition| FetchPartition { partition, fetch_offset: 5, ..FetchPartition::default() };
    let topic = FetchTopic {
        topic: "a-topic".into(),
        partitions: (0..partitions).map(partition).collect(),
        ..FetchTopic::default()
    };
    decode(bencher, &FETCH, &FetchRequest { topics: vec![topic], ..FetchRequest::default() });
}

/// The records stay where they are, as they do in a broker.
#[divan::bench(args = PARTITIONS)]
fn encode_fetch(bencher: Bencher, partitions: i32) {
    let partition = |partition_index| PartitionData {
        partition_index,
        high_watermark: 5,
        records: Some(Records::Region(Region { token: 0, len: 1 << 20 })),
        ..PartitionData::default()
    };
    let topic = FetchableTopicResponse {
        topic: "a-topic".into(),
        partitions: (0..partitions).map(partition).collect(),
        ..FetchableTopicResponse::default()
    };
    encode(bencher, &FETCH, &FetchResponse { responses: vec![topic], ..FetchResponse::default() });
}

fn decode<M: Message>(bencher: Bencher, header: &RequestHeader, body: &M) {
    let mut out = GatherOut::new();
    out.request(header, body).unwrap();
    let frame: Vec<u8> = out.finish().iter().flat_map(bytes_of).copied().collect();
    // As a broker gets it: without the length.
    let frame = Bytes::from(frame).slice(4..);
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let mut reader = Reader::new(black_box(&frame).clone());
        let header = RequestHeader::decode(&mut reader).unwrap();
        M::decode(&mut reader, header.api_version).unwrap()
    });
}

fn encode<M: Message>(bencher: Bencher, request: &RequestHeader, body: &M) {
    bencher.counter(ItemsCount::new(1_usize)).bench_local(|| {
        let mut out = GatherOut::new();
        out.response(request, black_box(body)).unwrap();
        out.finish()
    });
}

fn bytes_of(chunk: &Chunk) -> &[u8] {
    match chunk {
        Chunk::Bytes(bytes) => bytes,
        Chunk::Region(_) => &[],
    }
}
