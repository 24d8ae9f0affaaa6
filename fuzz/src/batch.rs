//! Record batches from a producer: parsed, split, validated, decompressed, searched by time.

use bytes::Bytes;
use ottla_records::{
    BatchBuilder, BatchHeader, Compression, Decompress, HEADER_SIZE, ProducePolicy, TimestampType, TopicCompression,
    crc_matches, first_at_or_after, records, split, validate_produced,
};
use ottla_types::{ProducerEpoch, ProducerId, Timestamp};

const NOW: Timestamp = Timestamp(1_700_000_000_000);
const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];
/// What one batch may grow to.
const LIMITS: Decompress = Decompress { max_bytes: 256 << 10 };
/// What decompressing may take: the limit doubled while a buffer grows, and the window and tables of a codec.
const DECOMPRESS_MAX: u64 = 3 * LIMITS.max_bytes as u64 + (9 << 20);

fn policy(choice: u8) -> ProducePolicy {
    ProducePolicy {
        max_message_bytes: 1 << 20,
        timestamp_type: if choice & 1 == 0 { TimestampType::CreateTime } else { TimestampType::LogAppendTime },
        before_max_ms: i64::MAX,
        after_max_ms: 3_600_000,
        now: NOW,
        require_keys: choice & 2 != 0,
        compression: match choice >> 2 & 7 {
            0..=3 => TopicCompression::Producer,
            other => TopicCompression::Codec(CODECS[usize::from(other - 3)], None),
        },
        zstd_allowed: choice & 32 == 0,
        decompress: LIMITS,
    }
}

/// The first byte chooses the topic's settings, the second whether length and CRC are made right, so that what lies
/// behind them is reached.
pub(crate) fn batch(data: &[u8]) -> bool {
    let [choice, mend, bytes @ ..] = data else { return false };
    let mut bytes = bytes.to_vec();
    if mend & 1 == 0 && bytes.len() >= HEADER_SIZE {
        let length = (bytes.len() - 12) as u32;
        bytes[8..12].copy_from_slice(&length.to_be_bytes());
        bytes[16] = 2;
        let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &bytes[21..]) as u32;
        bytes[17..21].copy_from_slice(&crc.to_be_bytes());
    }
    let bytes = Bytes::from(bytes);
    let used = allocation_counter::measure(|| read_all_ways(&bytes));
    let allowed = 16 * bytes.len() as u64 + (64 << 10) + DECOMPRESS_MAX;
    assert!(used.bytes_max <= allowed, "{} bytes for a batch of {}", used.bytes_max, bytes.len());
    let Ok(produced) = validate_produced(&bytes, &policy(*choice)) else { return false };
    // What Produce takes can be stored and read.
    assert!(crc_matches(&produced.bytes));
    assert_eq!(BatchHeader::parse(&produced.bytes).as_ref(), Ok(&produced.header));
    assert_eq!(produced.header.size(), produced.bytes.len());
    if produced.header.compression() == Ok(Compression::None) {
        let read = records(&produced.header, &produced.bytes, LIMITS).unwrap().collect::<Result<Vec<_>, _>>();
        let count = read.expect("the strict pass took it").len();
        assert_eq!(count, usize::try_from(produced.header.record_count).unwrap());
    }
    true
}

fn read_all_ways(bytes: &Bytes) {
    let mut total = 0;
    for part in split(bytes) {
        let Ok((header, batch)) = part else { break };
        assert_eq!(header.size(), batch.len());
        total += batch.len();
        let _ = crc_matches(&batch);
        let _ = first_at_or_after(&header, &batch, NOW, LIMITS);
        let Ok(records) = records(&header, &batch, LIMITS) else { continue };
        let mut size = 0;
        for record in records.map_while(Result::ok) {
            assert!(record.offset >= header.base_offset && record.offset <= header.last_offset());
            size += record.key.map_or(0, |key| key.len()) + record.value.map_or(0, |value| value.len());
        }
        assert!(size <= LIMITS.max_bytes.max(batch.len()));
    }
    assert!(total <= bytes.len());
}

pub(crate) fn batches() -> Vec<Vec<u8>> {
    let mut batches = Vec::new();
    for codec in CODECS {
        for (choice, large) in [(0, false), (2, false), (1, true), (0b10_100, false)] {
            let mut builder = BatchBuilder::new(codec, None);
            if large {
                builder = builder.producer(ProducerId(7), ProducerEpoch(1), i32::MAX - 1);
            }
            let value = vec![b'v'; if large { 9_000 } else { 20 }];
            builder.push(NOW, Some(b"key"), Some(&value), &[(b"trace", Some(b"on")), (b"", None)]).unwrap();
            builder.push(Timestamp(NOW.0 + 5), Some(b""), None, &[]).unwrap();
            batches.push([&[choice, 0][..], &builder.build().unwrap()].concat());
        }
    }
    batches
}
