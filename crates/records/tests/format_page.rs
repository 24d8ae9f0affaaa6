//! The worked example of `docs/formats/record-batch.md` is what the builder builds.

use ottla_records::{BatchBuilder, Compression};
use ottla_types::{ProducerEpoch, ProducerId, Timestamp};

const PAGE: &str = include_str!("../../../docs/formats/record-batch.md");

#[test]
fn the_example_on_the_format_page_is_true() {
    let example = PAGE.split("```").nth(3).unwrap();
    // Two hex digits at a time, up to the words that explain them.
    let bytes = example.lines().flat_map(|line| {
        let hex = line.split("  ").next().unwrap();
        hex.split_whitespace().map(|byte| u8::from_str_radix(byte, 16).unwrap())
    });

    let mut builder = BatchBuilder::new(Compression::None, None).producer(ProducerId(7), ProducerEpoch(0), 10);
    builder.push(Timestamp(1_700_000_000_000), Some(b"k"), Some(b"hello"), &[(b"h", Some(b"1"))]).unwrap();
    builder.push(Timestamp(1_700_000_000_100), None, None, &[]).unwrap();
    assert_eq!(builder.build().unwrap(), bytes.collect::<Vec<_>>());
}
