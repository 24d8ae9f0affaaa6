//! Produce with batches that are none: the answer is an error, the connection stays.

use bytes::Bytes;
use ottla_records::{BatchBuilder, Compression};
use ottla_types::Timestamp;

use crate::victim::{NOW, attack, good_batch, only_error, produce};

const CODECS: [Compression; 5] =
    [Compression::None, Compression::Gzip, Compression::Snappy, Compression::Lz4, Compression::Zstd];

/// A batch with bytes replaced, and length and CRC made right where asked.
fn patched(at: usize, bytes: &[u8], mend: bool) -> Bytes {
    let mut batch = good_batch().to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    if mend { mended(batch) } else { batch.into() }
}

fn mended(mut batch: Vec<u8>) -> Bytes {
    let length = u32::try_from(batch.len() - 12).unwrap();
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, &batch[21..]) as u32;
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
    batch.into()
}

#[test]
fn batches_that_contradict_themselves_are_refused() {
    attack(|victim| {
        let whole = good_batch();
        let mut wrong = vec![
            ("nothing", Bytes::new()),
            ("a piece", whole.slice(..30)),
            ("two batches", Bytes::from([&whole[..], &whole].concat())),
            ("bytes behind it", Bytes::from([&whole[..], &[0; 9]].concat())),
            ("length -1", patched(8, &(-1i32).to_be_bytes(), false)),
            ("length 2^31-1", patched(8, &i32::MAX.to_be_bytes(), false)),
            ("magic 1", patched(16, &[1], true)),
            ("magic -1", patched(16, &[0xff], true)),
            ("wrong CRC", patched(17, &[1, 2, 3, 4], false)),
            ("codec 7", patched(21, &[0, 7], true)),
            ("control batch", patched(21, &[0, 0x20], true)),
            ("last delta 5", patched(23, &5i32.to_be_bytes(), true)),
            ("last delta -1", patched(23, &(-1i32).to_be_bytes(), true)),
            ("count 2^31-1", patched(57, &i32::MAX.to_be_bytes(), true)),
            ("count -1", patched(57, &(-1i32).to_be_bytes(), true)),
            ("base offset 7", patched(0, &7i64.to_be_bytes(), true)),
            ("timestamp max", patched(27, &i64::MAX.to_be_bytes(), true)),
        ];
        // A record whose header count is -1, and one whose length is.
        for (name, record) in [("headers -1", &[0x0c, 0, 0, 0, 1, 1, 1][..]), ("record -1", &[1])] {
            wrong.push((name, mended([&whole[..61], record].concat())));
        }
        let mut peer = victim.connect();
        for (name, batch) in wrong {
            let answer = peer.call(&produce(batch), 9).expect("an answer, and the connection goes on");
            // A base offset is the broker's to give; Kafka ignores what a client says there.
            assert!(only_error(&answer) != 0 || name == "base offset 7", "{name} was taken");
        }
    });
}

/// Zeros in a batch that is small enough to be taken: what counts is what it costs.
fn bomb(codec: Compression, size: usize) {
    let mut builder = BatchBuilder::new(codec, None);
    builder.push(NOW, None, Some(&vec![0; size]), &[]).unwrap();
    let bomb = builder.build().unwrap();
    // Timestamps that cannot be right make the broker look inside.
    let mut lying = bomb.to_vec();
    lying[35..43].copy_from_slice(&i64::MAX.to_be_bytes());
    let lying = mended(lying);
    attack(|victim| {
        let mut peer = victim.connect();
        for _ in 0..4 {
            peer.call(&produce(bomb.clone()), 9).expect("an answer");
            let answer = peer.call(&produce(lying.clone()), 9).expect("an answer");
            assert_ne!(only_error(&answer), 0, "{codec}");
        }
    });
}

#[test]
fn a_gzip_bomb_stays_small() {
    bomb(Compression::Gzip, 200 << 20);
}

#[test]
fn a_snappy_bomb_stays_small() {
    bomb(Compression::Snappy, 20 << 20);
}

#[test]
fn an_lz4_bomb_stays_small() {
    bomb(Compression::Lz4, 200 << 20);
}

#[test]
fn a_zstd_bomb_stays_small() {
    bomb(Compression::Zstd, 200 << 20);
}

#[test]
fn compressed_noise_and_codecs_within_codecs_do_no_harm() {
    attack(|victim| {
        let mut peer = victim.connect();
        for outer in CODECS {
            for inner in CODECS {
                let mut builder = BatchBuilder::new(inner, None);
                builder.push(NOW, None, Some(&[7; 1_000]), &[]).unwrap();
                let mut batch = builder.build().unwrap().to_vec();
                batch[22] = CODECS.iter().position(|codec| *codec == outer).unwrap() as u8;
                // An impossible timestamp, so that it is looked into.
                batch[35..43].copy_from_slice(&i64::MAX.to_be_bytes());
                let answer = peer.call(&produce(mended(batch)), 9).expect("an answer");
                // What is no longer compressed can be read, and its largest timestamp is put right, as Kafka does.
                let readable = inner == outer;
                assert_eq!(only_error(&answer) == 0, readable, "{inner} as {outer}");
            }
        }
    });
}

#[test]
fn timestamps_at_the_ends_of_time_are_refused_or_served() {
    attack(|victim| {
        let mut peer = victim.connect();
        for at in [i64::MIN, -2, -1, 0, i64::MAX - 1, i64::MAX] {
            let mut builder = BatchBuilder::new(Compression::None, None);
            if builder.push(Timestamp(at), None, Some(b"value"), &[]).is_ok() {
                peer.call(&produce(builder.build().unwrap()), 9).expect("an answer");
            }
        }
    });
}
