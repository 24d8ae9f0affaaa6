//! Headers, frames, gathering, error codes: what stands around the messages.

use bytes::{Bytes, BytesMut};
use bytestring::ByteString;
use ottla_protocol::{
    ApiKey, Chunk, DecodeError, EncodeError, ErrorCode, GatherOut, Reader, Records, Region, RequestHeader,
    ResponseHeader,
    frame::{FrameError, Splitter},
    messages::{
        ApiVersionsRequest, ApiVersionsResponse, FetchRequest, FetchResponse, MetadataRequest, MetadataResponse,
        ProduceRequest,
        fetch_response::{FetchableTopicResponse, PartitionData},
        produce_request::{PartitionProduceData, TopicProduceData},
    },
};

fn header(api_key: ApiKey, api_version: i16) -> RequestHeader {
    RequestHeader { api_key, api_version, correlation_id: 7, client_id: Some(ByteString::from_static("me")) }
}

/// The chunks as one run of bytes, with `.` for each byte of a region.
fn concat(chunks: &[Chunk]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(chunk) => bytes.extend_from_slice(chunk),
            Chunk::Region(region) => bytes.resize(bytes.len() + region.len as usize, b'.'),
        }
    }
    bytes
}

#[test]
fn a_flexible_request_header_keeps_the_old_client_id_and_adds_a_tag_section() {
    let mut out = Vec::new();
    header(ApiKey::Fetch, 11).encode(&mut out).unwrap();
    assert_eq!(out, b"\0\x01\0\x0b\0\0\0\x07\0\x02me");
    out.clear();
    header(ApiKey::Fetch, 12).encode(&mut out).unwrap();
    assert_eq!(out, b"\0\x01\0\x0c\0\0\0\x07\0\x02me\0");

    let mut reader = Reader::new(Bytes::from_static(b"\0\x01\0\x0c\0\0\0\x07\0\x02me\x01\x09\x03xyz!"));
    assert_eq!(RequestHeader::decode(&mut reader), Ok(header(ApiKey::Fetch, 12)));
    assert_eq!(reader.remaining(), 1, "the reader stands behind the unknown tag");
}

#[test]
fn a_request_of_an_unknown_key_is_refused_and_of_an_unknown_version_is_read_as_far_as_the_header() {
    let refused = RequestHeader::decode(&mut Reader::new(Bytes::from_static(b"\x03\xe8\0\0\0\0\0\x01\xff\xff")));
    assert_eq!(refused, Err(DecodeError::UnknownApiKey(1000)));

    let mut reader = Reader::new(Bytes::from_static(b"\0\x12\0\x63\0\0\0\x07\0\x02me\0rest"));
    assert_eq!(RequestHeader::decode(&mut reader), Ok(header(ApiKey::ApiVersions, 99)));
    assert_eq!(
        ApiVersionsRequest::decode(&mut reader, 99),
        Err(DecodeError::UnsupportedVersion { api: ApiKey::ApiVersions, version: 99 })
    );
}

#[test]
fn the_response_header_of_api_versions_never_has_a_tag_section() {
    for (api, version, expected) in [
        (ApiKey::ApiVersions, 0, &b"\0\0\0\x07"[..]),
        (ApiKey::ApiVersions, 4, b"\0\0\0\x07"),
        (ApiKey::Metadata, 8, b"\0\0\0\x07"),
        (ApiKey::Metadata, 9, b"\0\0\0\x07\0"),
    ] {
        let mut out = Vec::new();
        ResponseHeader { correlation_id: 7 }.encode(&mut out, api, version);
        assert_eq!(out, expected, "{} v{version}", api.name());
        let mut reader = Reader::new(Bytes::from(out));
        assert_eq!(ResponseHeader::decode(&mut reader, api, version), Ok(ResponseHeader { correlation_id: 7 }));
        assert_eq!(reader.finish(), Ok(()));
    }
}

#[test]
fn api_keys_have_kafkas_numbers_and_versions() {
    assert_eq!(ApiKey::try_from(75), Ok(ApiKey::DescribeTopicPartitions));
    assert_eq!(ApiKey::Fetch.versions(), 4..=18);
    assert_eq!(ApiKey::InitProducerId.versions(), 0..=5);
    assert_eq!(ApiKey::DescribeLogDirs.versions(), 1..=5);
    assert_eq!(ApiKey::Produce.first_flexible(), Some(9));
    assert_eq!(ApiKey::AlterPartition.versions(), 2..=3);
    assert_eq!(ApiKey::BrokerHeartbeat.versions(), 0..=2);
    let ours: Vec<_> = ApiKey::ALL.iter().filter(|api| !api.is_kafkas()).map(|api| *api as i16).collect();
    assert!(ours.len() >= 4 && ours.iter().copied().eq((20_000..).take(ours.len())), "{ours:?}");
    for api in ApiKey::ALL {
        assert_eq!(ApiKey::try_from(*api as i16), Ok(*api));
    }
}

#[test]
fn frames_are_split_whatever_the_pieces_they_arrive_in() {
    let stream = b"\0\0\0\x03abc\0\0\0\0\0\0\0\x05hello";
    for piece in 1..stream.len() {
        let mut buffer = BytesMut::new();
        let mut frames = Vec::new();
        for bytes in stream.chunks(piece) {
            buffer.extend_from_slice(bytes);
            while let Some(frame) = Splitter::new(5).split(&mut buffer).unwrap() {
                frames.push(frame);
            }
        }
        assert_eq!(frames, ["abc", "", "hello"], "in pieces of {piece}");
        assert!(buffer.is_empty());
    }
}

#[test]
fn a_frame_of_a_negative_or_too_large_length_is_refused_before_it_arrives() {
    let split = |bytes: &[u8]| Splitter::new(5).split(&mut BytesMut::from(bytes));
    assert_eq!(split(b"\0\0\0\x06"), Err(FrameError::TooLarge { length: 6, max: 5 }));
    assert_eq!(split(b"\xff\xff\xff\xff"), Err(FrameError::Negative(-1)));
    assert_eq!(split(b"\xff\xff\xff"), Ok(None));
}

#[test]
fn a_produce_request_gives_its_records_as_slices_of_the_frame() {
    let records = Bytes::from(vec![9; 100_000]);
    let partition = PartitionProduceData { index: 3, records: Some(records.clone()) };
    let topic = TopicProduceData { name: "orders".into(), partition_data: vec![partition], ..Default::default() };
    let request = ProduceRequest { acks: -1, topic_data: vec![topic], ..Default::default() };
    let mut out = Vec::new();
    request.encode(&mut out, 12).unwrap();
    let frame = Bytes::from(out);
    let read = ProduceRequest::decode(&mut Reader::new(frame.clone()), 12).unwrap();
    assert_eq!(read, request);
    let slice = read.topic_data[0].partition_data[0].records.clone().unwrap();
    assert!(frame.as_ptr_range().contains(&slice.as_ptr()), "the records were copied");
}

fn fetch_response(records: impl IntoIterator<Item = Records>) -> FetchResponse {
    let partitions = records
        .into_iter()
        .map(|records| PartitionData { records: Some(records), ..PartitionData::default() })
        .collect();
    let topic = FetchableTopicResponse { partitions, ..FetchableTopicResponse::default() };
    FetchResponse { responses: vec![topic], ..FetchResponse::default() }
}

#[test]
fn a_fetch_response_carries_memory_and_regions_without_copying() {
    let memory = Bytes::from(vec![b'm'; 50_000]);
    let region = Region { token: 42, len: 1_000_000 };
    let response =
        fetch_response([Records::Bytes(memory.clone()), Records::Region(region), Records::Bytes("small".into())]);
    let request = header(ApiKey::Fetch, 18);
    let mut out = GatherOut::new();
    out.response(&request, &response).unwrap();
    let length = out.len();
    let chunks = out.finish();
    assert_eq!(chunks.iter().map(Chunk::len).sum::<usize>(), length);
    assert_eq!(chunks.len(), 5, "{:?}", chunks.iter().map(Chunk::len).collect::<Vec<_>>());
    let Chunk::Bytes(shared) = &chunks[1] else { panic!("{:?}", chunks[1]) };
    assert_eq!(shared.as_ptr(), memory.as_ptr(), "the records were copied");
    assert_eq!(chunks[3], Chunk::Region(region));

    let mut received = BytesMut::from(&concat(&chunks)[..]);
    let frame = Splitter::new(100 << 20).split(&mut received).unwrap().unwrap();
    assert!(received.is_empty());
    let mut reader = Reader::new(frame);
    assert_eq!(ResponseHeader::decode(&mut reader, ApiKey::Fetch, 18).unwrap().correlation_id, 7);
    let read = FetchResponse::decode(&mut reader, 18).unwrap();
    let mut partitions = read.responses[0].partitions.iter().map(|partition| partition.records.clone().unwrap());
    assert_eq!(partitions.next(), Some(Records::Bytes(memory)));
    assert_eq!(partitions.next(), Some(Records::Bytes(Bytes::from(vec![b'.'; 1_000_000]))));
    assert_eq!(partitions.next(), Some(Records::Bytes("small".into())));
}

#[test]
fn gathered_and_contiguous_bytes_are_the_same() {
    let response = fetch_response((0..20).map(|size| Records::Bytes(Bytes::from(vec![size as u8; size * 1_000]))));
    for version in ApiKey::Fetch.versions() {
        let mut contiguous = Vec::new();
        response.encode(&mut contiguous, version).unwrap();
        let mut gathered = GatherOut::new();
        response.encode(&mut gathered, version).unwrap();
        assert_eq!(gathered.len(), contiguous.len());
        assert_eq!(concat(&gathered.finish()), contiguous, "v{version}");
    }
}

#[test]
fn a_region_cannot_be_written_to_a_contiguous_buffer() {
    let response = fetch_response([Records::Region(Region { token: 0, len: 1 })]);
    assert_eq!(response.encode(&mut Vec::new(), 18), Err(EncodeError::RegionInBuffer));
}

#[test]
fn several_responses_gather_into_one_output_and_a_failed_one_leaves_no_trace() {
    let mut out = GatherOut::new();
    out.response(&header(ApiKey::Metadata, 0), &MetadataResponse::default()).unwrap();
    let length = out.len();
    let large = Records::Bytes(Bytes::from(vec![0; 10_000]));
    let mut too_new = fetch_response([large]);
    too_new.responses[0].partitions[0].preferred_read_replica = 5;
    let refused = out.response(&header(ApiKey::Fetch, 4), &too_new);
    assert_eq!(refused, Err(EncodeError::NotInVersion { field: "PartitionData.preferred_read_replica", version: 4 }));
    assert_eq!(out.len(), length);
    out.response_in(ApiKey::ApiVersions, 0, 9, &ApiVersionsResponse::default()).unwrap();

    let mut stream = BytesMut::from(&concat(&out.finish())[..]);
    let splitter = Splitter::new(1 << 20);
    let mut ids = Vec::new();
    while let Some(frame) = splitter.split(&mut stream).unwrap() {
        ids.push(ResponseHeader::decode(&mut Reader::new(frame), ApiKey::Metadata, 0).unwrap().correlation_id);
    }
    assert_eq!(ids, [7, 9]);
}

#[test]
fn a_field_that_the_version_lacks_is_an_error_unless_kafka_may_ignore_it() {
    let strict = FetchRequest { replica_id: 3, ..FetchRequest::default() };
    assert!(strict.encode(&mut Vec::new(), 14).is_ok());
    let refused = strict.encode(&mut Vec::new(), 15);
    assert_eq!(refused, Err(EncodeError::NotInVersion { field: "FetchRequest.replica_id", version: 15 }));

    let mut plain = Vec::new();
    FetchRequest::default().encode(&mut plain, 10).unwrap();
    let mut lax = Vec::new();
    FetchRequest { rack_id: "r1".into(), ..FetchRequest::default() }.encode(&mut lax, 10).unwrap();
    assert_eq!(lax, plain);
}

#[test]
fn null_where_the_version_allows_none_is_an_error() {
    let all_topics = MetadataRequest { topics: None, ..MetadataRequest::default() };
    assert!(all_topics.encode(&mut Vec::new(), 1).is_ok());
    let refused = all_topics.encode(&mut Vec::new(), 0);
    assert_eq!(refused, Err(EncodeError::Null { field: "MetadataRequest.topics" }));
    let null = Bytes::from_static(b"\xff\xff\xff\xff");
    assert_eq!(MetadataRequest::decode(&mut Reader::new(null), 0), Err(DecodeError::UnexpectedNull));
}

#[test]
fn what_is_too_long_for_the_wire_is_an_error() {
    let long = FetchRequest { rack_id: "r".repeat(32_768).into(), ..FetchRequest::default() };
    assert_eq!(long.encode(&mut Vec::new(), 11), Err(EncodeError::TooLong(32_768)));
    let region = Records::Region(Region { token: 0, len: u32::MAX });
    let refused = GatherOut::new().response(&header(ApiKey::Fetch, 18), &fetch_response([region]));
    assert_eq!(refused, Err(EncodeError::TooLong(u32::MAX as usize)));
    let region = Records::Region(Region { token: 0, len: i32::MAX as u32 });
    let refused = GatherOut::new().response(&header(ApiKey::Fetch, 18), &fetch_response([region]));
    assert!(matches!(refused, Err(EncodeError::TooLong(_))), "the frame itself is too long: {refused:?}");
}

#[test]
fn error_codes_have_kafkas_numbers_and_names() {
    assert_eq!(ErrorCode::ALL.len(), 135);
    assert!(ErrorCode::ALL.iter().map(|code| code.code()).eq(-1..=133), "no number is left out");
    for code in ErrorCode::ALL {
        assert_eq!(ErrorCode::from_code(code.code()), Some(*code));
        assert!(!code.message().is_empty() && !code.message().ends_with('.'));
    }
    assert_eq!(ErrorCode::from_code(134), None);
    assert_eq!(ErrorCode::NotLeaderOrFollower.code(), 6);
    assert_eq!(ErrorCode::NotLeaderOrFollower.name(), "NOT_LEADER_OR_FOLLOWER");
    assert!(ErrorCode::NotLeaderOrFollower.is_retriable());
    assert!(!ErrorCode::MessageTooLarge.is_retriable());
}
