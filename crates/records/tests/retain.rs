//! Batches without some of their records: what stays has its bytes, and nothing from strangers panics.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod support;

use bytes::Bytes;
use ottla_records::{BatchHeader, OpenBatch, Retained, crc_matches};
use ottla_types::{Offset, Timestamp};
use support::{CODECS, LIMITS, NOW, all, sample};

fn retain(batch: &Bytes, horizon: Option<i64>, offsets: &[i64]) -> Retained {
    let header = BatchHeader::parse(batch).unwrap();
    let open = OpenBatch::open(&header, batch, LIMITS).unwrap();
    open.retain(horizon.map(Timestamp), |record| offsets.contains(&record.offset.0)).unwrap()
}

fn rewritten(batch: &Bytes, horizon: Option<i64>, offsets: &[i64]) -> Bytes {
    let Retained::Rewritten(new) = retain(batch, horizon, offsets) else { unreachable!("it is rewritten") };
    assert!(crc_matches(&new));
    new
}

#[test]
fn what_stays_is_the_same_record_under_every_codec() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        let before = BatchHeader::parse(&batch).unwrap();
        let left = rewritten(&batch, None, &[0, 2]);
        let header = BatchHeader::parse(&left).unwrap();
        let records = all(&batch);
        assert_eq!(all(&left), [records[0].clone(), records[2].clone()], "{codec}");
        assert_eq!(header.max_timestamp, Timestamp(NOW.0 + 10), "the youngest went");
        assert_eq!((header.record_count, header.last_offset_delta), (2, 2));
        let (id, epoch, sequence) = (before.producer_id, before.producer_epoch, before.base_sequence);
        assert_eq!((header.producer_id, header.producer_epoch, header.base_sequence), (id, epoch, sequence));
        assert_eq!(header.compression(), before.compression());
        assert_eq!(retain(&batch, None, &[0, 1, 2]), Retained::Unchanged);
        assert_eq!(retain(&batch, Some(5), &[]), Retained::Nothing);
    }
}

#[test]
fn the_delete_horizon_is_set_once_where_a_tombstone_stays_and_moves_no_timestamp() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        for horizon in [0, NOW.0, NOW.0 + 86_400_000, i64::MAX] {
            let marked = rewritten(&batch, Some(horizon), &[0, 1, 2]);
            assert_eq!(BatchHeader::parse(&marked).unwrap().delete_horizon(), Some(Timestamp(horizon)));
            assert_eq!(all(&marked), all(&batch), "{codec}");
            assert_eq!(retain(&marked, Some(horizon / 2 + 1), &[0, 1, 2]), Retained::Unchanged);
        }
        assert_eq!(BatchHeader::parse(&rewritten(&batch, Some(7), &[0, 1])).unwrap().delete_horizon(), None);
    }
}

#[test]
fn an_emptied_batch_keeps_its_place_and_its_producer() {
    let batch = rewritten(&sample(CODECS[4]).build().unwrap(), Some(7), &[0, 2]);
    let header = BatchHeader::parse(&batch).unwrap();
    let empty = header.emptied().unwrap();
    assert!(crc_matches(&empty));
    let left = BatchHeader::parse(&empty).unwrap();
    assert_eq!((left.record_count, left.size(), left.delete_horizon()), (0, 61, None));
    assert_eq!((left.base_offset, left.last_offset()), (header.base_offset, Offset(2)));
    assert_eq!((left.producer_id, left.last_sequence()), (header.producer_id, header.last_sequence()));
    assert_eq!((left.max_timestamp, left.largest_timestamp()), (header.max_timestamp, Timestamp::NONE));
    assert!(all(&empty).is_empty());
}

#[test]
fn damaged_records_are_an_error_and_never_a_panic() {
    for codec in CODECS {
        let batch = sample(codec).build().unwrap();
        for position in 61..batch.len() {
            for bit in 0..8 {
                let mut bytes = batch.to_vec();
                bytes[position] ^= 1 << bit;
                let bytes = Bytes::from(bytes);
                let header = BatchHeader::parse(&bytes).unwrap();
                if let Ok(open) = OpenBatch::open(&header, &bytes, LIMITS) {
                    let mut seen = 0;
                    let _ = open.visit(|_| {
                        seen += 1;
                        true
                    });
                    assert!(seen <= 3);
                    let _ = open.retain(Some(Timestamp(i64::MIN)), |record| record.offset.0 != 1);
                }
            }
        }
    }
}
