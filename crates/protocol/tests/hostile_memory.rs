//! What hostile lengths make the process reserve, as the kernel counts it. Alone in its binary, because the count is
//! the process's.

#![cfg(target_os = "linux")]

mod support;

use bytes::Bytes;
use support::{Fill, each_version, sample};

/// The largest size of the address space so far, in bytes: reserving shows here even if nothing is touched.
fn peak() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmPeak:"))?;
    let kilobytes: u64 = line.trim().trim_end_matches(" kB").parse().ok()?;
    Some(kilobytes << 10)
}

#[test]
fn lengths_of_a_gigabyte_in_small_frames_reserve_nothing() {
    let lengths: [&[u8]; 3] = [&[0x3f, 0xff, 0xff, 0xff], &[0xff, 0xff, 0xff, 0xff, 0x07], &[0x00, 0x7f, 0xff, 0xff]];
    let mut decoded = 0;
    let mut hostile = Vec::new();
    each_version(|api, message, version, _| {
        let bytes = sample(api, message, version, Fill::Random, 3);
        let codec = support::codec(&message.structs[0].name);
        hostile.push((codec, version, bytes[..bytes.len().min(2_000)].to_vec()));
    });
    let before = peak().unwrap();
    for (codec, version, bytes) in &hostile {
        for at in 0..bytes.len() {
            for length in lengths {
                let mut bytes = bytes.clone();
                bytes[at..].iter_mut().zip(length).for_each(|(byte, new)| *byte = *new);
                let _ = (codec.recode)(Bytes::from(bytes), *version);
                decoded += 1;
            }
        }
    }
    let reserved = peak().unwrap() - before;
    assert!(decoded > 10_000, "{decoded}");
    assert!(reserved < 16 << 20, "{reserved} bytes reserved by {decoded} small frames");
}
