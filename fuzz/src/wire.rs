//! The wire: frames, request headers, every message in every version, and the records of the metadata log.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use ottla_metadata::{BrokerFeature, Image, Listener, Partition, Record};
use ottla_protocol::{
    ApiKey, Message, Reader, RequestHeader, each_message,
    frame::{FrameError, Splitter},
    messages,
};
use ottla_types::{BrokerEpoch, BrokerId, LeaderEpoch, PartitionIndex, Timestamp, TopicId};

use crate::node;
use sample::{Fill, sample};

#[allow(dead_code, reason = "written for the tests of the codec")]
#[path = "../../crates/protocol/tests/support/sample.rs"]
mod sample;
#[allow(dead_code, reason = "written for the generator of the codec")]
#[path = "../../crates/protocol/build/schema.rs"]
mod schema;

/// Kafka's `socket.request.max.bytes` in small.
const FRAME_MAX: usize = 4096;

/// A stream, arriving in pieces of a size that its first byte says, is cut into frames: what was cut and what is left
/// is what arrived, nothing is longer than allowed, and nothing but what arrived is kept.
pub(crate) fn frame(data: &[u8]) -> bool {
    let Some((&step, stream)) = data.split_first() else { return false };
    let splitter = Splitter::new(FRAME_MAX);
    let mut buffer = BytesMut::new();
    let mut cut = Vec::new();
    for piece in stream.chunks(usize::from(step).max(1)) {
        buffer.put_slice(piece);
        loop {
            let before = buffer.len();
            match splitter.split(&mut buffer) {
                Ok(Some(frame)) => {
                    assert!(frame.len() <= FRAME_MAX);
                    assert_eq!(before, buffer.len() + 4 + frame.len());
                    cut.extend_from_slice(&(frame.len() as u32).to_be_bytes());
                    cut.extend_from_slice(&frame);
                }
                Ok(None) => {
                    assert_eq!(before, buffer.len());
                    break;
                }
                Err(error) => {
                    let length = i32::from_be_bytes(buffer[..4].try_into().unwrap());
                    match error {
                        FrameError::Negative(said) => assert!(said == length && length < 0),
                        FrameError::TooLarge { length: said, .. } => {
                            assert!(said == length as usize && said > FRAME_MAX);
                        }
                    }
                    return false;
                }
            }
        }
    }
    cut.extend_from_slice(&buffer);
    assert_eq!(cut, stream);
    true
}

pub(crate) fn frames() -> Vec<Vec<u8>> {
    let request = requests().swap_remove(0);
    let mut stream = vec![7];
    for _ in 0..3 {
        stream.extend_from_slice(&(request.len() as u32).to_be_bytes());
        stream.extend_from_slice(&request);
    }
    vec![stream, vec![1, 0, 0, 0, 0, 0, 0, 0, 0], b"\x05GET / HTTP/1.1\r\n\r\n".to_vec()]
}

/// How a message is read, for all of them alike.
struct Row {
    api: ApiKey,
    request: bool,
    /// Decodes and encodes; none if the bytes are refused.
    recode: fn(Bytes, i16) -> Option<Vec<u8>>,
}

fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    macro_rules! row {
        ($name:ident) => {
            rows.push(Row {
                api: messages::$name::API,
                request: stringify!($name).ends_with("Request"),
                recode: recode::<messages::$name>,
            })
        };
    }
    each_message!(row);
    rows
}

fn recode<M: Message>(body: Bytes, version: i16) -> Option<Vec<u8>> {
    let message = within_budget(&body, |reader| M::decode(reader, version)).ok()?;
    let mut out = Vec::new();
    message.encode(&mut out, version).expect("what was read in a version can be written in it");
    Some(out)
}

/// Runs a decoder and holds it to its budget: 16 bytes for each byte of input, and 64 KiB.
fn within_budget<T>(body: &Bytes, decode: impl FnOnce(&mut Reader) -> T) -> T {
    let mut reader = Reader::new(body.clone());
    let mut decoded = None;
    let used = allocation_counter::measure(|| decoded = Some(decode(&mut reader)));
    let allowed = 16 * body.len() as u64 + (64 << 10);
    assert!(used.bytes_max <= allowed, "{} bytes for an input of {}", used.bytes_max, body.len());
    decoded.unwrap()
}

/// What is read must be written the same way ever after.
fn round_trip(row: &Row, body: Bytes, version: i16) -> bool {
    let len = body.len();
    let Some(once) = (row.recode)(body, version) else { return false };
    let twice = (row.recode)(Bytes::from(once.clone()), version);
    if twice.is_none() && once.len() < len {
        // What was unknown in it is gone, and with it the bytes that paid for the memory of a long array.
        return true;
    }
    assert!(twice.as_ref() == Some(&once), "{:?} version {version}: {len} bytes, written as {}", row.api, once.len());
    true
}

/// A frame as a broker gets it: the header says which API and version.
pub(crate) fn request(data: &[u8]) -> bool {
    let frame = Bytes::copy_from_slice(data);
    let mut left = 0;
    let header = within_budget(&frame, |reader| {
        let header = RequestHeader::decode(reader);
        left = reader.remaining();
        header
    });
    let Ok(header) = header else { return false };
    let body = frame.slice(frame.len() - left..);
    let rows = rows();
    let row = rows.iter().find(|row| row.request && row.api == header.api_key);
    row.is_some_and(|row| round_trip(row, body, header.api_version))
}

/// A body in the message and version that the first two bytes choose.
pub(crate) fn message(data: &[u8]) -> bool {
    let [which, version, body @ ..] = data else { return false };
    let rows = rows();
    let row = &rows[usize::from(*which) % rows.len()];
    let versions = row.api.versions();
    let count = versions.end() - versions.start() + 1;
    round_trip(row, Bytes::copy_from_slice(body), versions.start() + i16::from(*version) % count)
}

/// Every message in every version, filled in four ways: its place in `rows`, the version, the body.
fn bodies() -> Vec<(usize, i16, Vec<u8>)> {
    let rows = rows();
    let apis = schema::load(concat!(env!("CARGO_MANIFEST_DIR"), "/../crates/protocol/schema")).unwrap();
    let mut bodies = Vec::new();
    for api in &apis {
        for (message, is_request) in [(&api.request, true), (&api.response, false)] {
            let same = |row: &Row| row.api as i16 == api.key && row.request == is_request;
            let at = rows.iter().position(same).unwrap();
            for version in api.versions.min..=api.versions.max {
                for seed in 0..4 {
                    let fill = [Fill::Empty, Fill::Random, Fill::Random, Fill::UnknownTags][seed as usize];
                    bodies.push((at, version, sample(api, message, version, fill, seed)));
                }
            }
        }
    }
    bodies
}

pub(crate) fn messages() -> Vec<Vec<u8>> {
    let rows = rows();
    let with_choice = |(at, version, body): (usize, i16, Vec<u8>)| {
        [&[at as u8, (version - rows[at].api.versions().start()) as u8][..], &body].concat()
    };
    let mut messages: Vec<Vec<u8>> = bodies().into_iter().map(with_choice).collect();
    // 16,384 elements of a byte or two each, with both kinds of count: where decoded is largest beside encoded.
    for (at, row) in rows.iter().enumerate() {
        let newest = (row.api.versions().end() - row.api.versions().start()) as u8;
        for (version, count) in [(newest, &[0x81, 0x80, 0x01][..]), (0, &[0, 0, 0x40, 0])] {
            for element in [0, 1] {
                let mut message = [&[at as u8, version][..], count].concat();
                message.resize(32 << 10, element);
                messages.push(message);
            }
        }
    }
    messages
}

pub(crate) fn requests() -> Vec<Vec<u8>> {
    let rows = rows();
    let mut requests = Vec::new();
    for (at, version, body) in bodies().into_iter().filter(|(at, ..)| rows[*at].request) {
        let client_id = (at % 3 != 0).then(|| "fuzz".into());
        let header = RequestHeader { api_key: rows[at].api, api_version: version, correlation_id: 7, client_id };
        let mut frame = Vec::new();
        header.encode(&mut frame).unwrap();
        frame.extend_from_slice(&body);
        requests.push(frame);
    }
    requests
}

/// A record of the metadata log: what is read is written in its newest version, and reads the same again. It may say
/// anything: the image takes it, and a snapshot gives it back.
pub(crate) fn metadata_record(data: &[u8]) -> bool {
    let mut record = None;
    let used = allocation_counter::measure(|| record = Record::decode(data).ok());
    assert!(used.bytes_max <= 16 * data.len() as u64 + (64 << 10), "{} bytes for {}", used.bytes_max, data.len());
    let Some(record) = record else { return false };
    let once = record.encode();
    assert_eq!(Record::decode(&once).as_ref(), Ok(&record));
    let mut image = Image::default();
    // The topic that the records of the corpus speak of.
    for setting in [topic_created(), partition(Partition::default(), false), record] {
        image.apply(&setting);
    }
    let mut restored = Image::default();
    image.to_records().iter().for_each(|record| restored.apply(record));
    assert_eq!(restored, image);
    true
}

/// The records of a node's log, and one of each kind that only a cluster of many writes.
pub(crate) fn metadata_records() -> Vec<Vec<u8>> {
    let brokers = |ids: &[i32]| ids.iter().copied().map(BrokerId).collect::<Arc<[BrokerId]>>();
    let moving = Partition {
        replicas: brokers(&[1, 2, 3, 4]),
        isr: brokers(&[2]),
        elr: brokers(&[3]),
        leader: Some(BrokerId(2)),
        leader_epoch: LeaderEpoch(5),
        partition_epoch: 9,
        adding: brokers(&[4]),
        removing: brokers(&[1]),
        ..Partition::default()
    };
    let offline = Partition { last_known_leader: Some(BrokerId(2)), recovering: true, ..Partition::default() };
    let listener =
        Listener { name: "PLAINTEXT".to_owned(), host: "localhost".to_owned(), port: 9092, security_protocol: 0 };
    let registered = |features: Arc<[BrokerFeature]>| Record::BrokerRegistered {
        id: BrokerId(3),
        epoch: BrokerEpoch(7),
        incarnation: [1; 16],
        directory: [2; 16],
        rack: Some("here".into()),
        listeners: [listener.clone()].into(),
        registered: Timestamp(9),
        fenced: true,
        features,
    };
    let records = [
        topic_created(),
        partition(moving.clone(), true),
        partition(moving, false),
        partition(offline, true),
        registered([].into()),
        registered([BrokerFeature { name: "f".to_owned(), min: 1, max: 2 }].into()),
        Record::BrokerChanged { id: BrokerId(3), fenced: false, shutting_down: true, draining: true },
        Record::BrokerUnregistered { id: BrokerId(3) },
        Record::BrokerRestartedUncleanly { id: BrokerId(2) },
    ];
    let mut bytes: Vec<Vec<u8>> = records.iter().map(|record| record.encode().to_vec()).collect();
    // As a version before clusters of many wrote them.
    bytes.push(b"\x03\x00\0\0\0\x01\0\0\0\0\0\0\0\x07iiiiiiiiiiiiiiii\x00\x00\0\0\0\0\0\0\0\x09".to_vec());
    bytes.push([&[6, 0][..], &[7; 16], &[0, 0, 0, 0, 1, 0, 0, 0, 1, 0], &[0; 12]].concat());
    bytes.extend(node::metadata_records());
    bytes
}

fn topic_created() -> Record {
    Record::TopicCreated { id: TopicId::from_bytes([7; 16]), name: "t".into(), created: Timestamp(0) }
}

/// Of the first partition of that topic.
fn partition(partition: Partition, changed: bool) -> Record {
    let (topic, index) = (TopicId::from_bytes([7; 16]), PartitionIndex(0));
    match changed {
        true => Record::PartitionChanged { topic, index, partition },
        false => Record::PartitionCreated { topic, index, partition },
    }
}
