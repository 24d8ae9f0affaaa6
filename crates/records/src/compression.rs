//! The five codecs of a batch, and decompression under a limit.
//!
//! None of the libraries bounds what it writes, so every decoder here stops at the caller's [`Decompress`] limit: a
//! few kilobytes can claim gigabytes. Snappy has two framings in the field, the Java one (xerial: 16 bytes of header,
//! then blocks) and bare snappy; both are read, xerial is written. Next: `record.rs`.

use std::{fmt, io, io::Read, io::Write, str::FromStr};

use flate2::{bufread::MultiGzDecoder, write::GzEncoder};
use lz4_flex::frame::{BlockMode, BlockSize, FrameDecoder, FrameEncoder, FrameInfo};

use crate::BatchError;

const XERIAL_MAGIC: [u8; 8] = *b"\x82SNAPPY\0";
/// Version 1, readable by version 1.
const XERIAL_VERSIONS: [u8; 8] = [0, 0, 0, 1, 0, 0, 0, 1];
const XERIAL_BLOCK: usize = 32 * 1024;
/// A snappy element yields at most 64 bytes from 3, so a larger claim is false and not worth an allocation.
const SNAPPY_RATIO_MAX: usize = 22;

/// How the records of a batch are compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952.
    Gzip,
    /// Snappy blocks in the framing of the Java library.
    Snappy,
    /// The LZ4 frame format.
    Lz4,
    /// Zstandard (KIP-110).
    Zstd,
}

/// The text is none of `none`, `gzip`, `snappy`, `lz4`, `zstd`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a compression is one of none, gzip, snappy, lz4, zstd")]
pub struct UnknownCompressionName;

impl Compression {
    const NAMES: [(Compression, &'static str); 5] = [
        (Compression::None, "none"),
        (Compression::Gzip, "gzip"),
        (Compression::Snappy, "snappy"),
        (Compression::Lz4, "lz4"),
        (Compression::Zstd, "zstd"),
    ];

    /// The codec's number in the attribute bits.
    pub(crate) fn id(self) -> u8 {
        self as u8
    }

    /// The codec with this number, if there is one.
    pub(crate) fn from_id(id: u8) -> Option<Compression> {
        Compression::NAMES.get(usize::from(id)).map(|&(compression, _)| compression)
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(Compression::NAMES[usize::from(self.id())].1)
    }
}

impl FromStr for Compression {
    type Err = UnknownCompressionName;

    fn from_str(text: &str) -> Result<Self, UnknownCompressionName> {
        let known = Compression::NAMES.iter().find(|(_, name)| *name == text);
        known.map(|&(compression, _)| compression).ok_or(UnknownCompressionName)
    }
}

/// What decompressing one batch may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decompress {
    /// Most bytes the records of one batch may have when decompressed.
    pub max_bytes: usize,
}

/// Appends `records`, compressed, to `out`. `level` is the codec's own scale, `None` its default; a level outside the
/// scale means its nearest end. Snappy has no levels, and the LZ4 encoder has one.
pub(crate) fn compress(
    codec: Compression,
    level: Option<i32>,
    records: &[u8],
    out: &mut Vec<u8>,
) -> Result<(), BatchError> {
    let done = match codec {
        Compression::None => out.write_all(records),
        Compression::Gzip => gzip(level, records, out),
        Compression::Snappy => xerial(records, out),
        Compression::Lz4 => lz4(records, out),
        Compression::Zstd => zstd(level, records, out),
    };
    done.map_err(|error| BatchError::Codec { codec, reason: error.to_string() })
}

fn gzip(level: Option<i32>, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // Kafka's -1 is zlib's own default, as is `None`.
    let level = match level {
        Some(level @ 0..) => flate2::Compression::new(level.clamp(0, 9).cast_unsigned()),
        _ => flate2::Compression::default(),
    };
    let mut encoder = GzEncoder::new(out, level);
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

fn xerial(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&XERIAL_VERSIONS);
    let mut encoder = snap::raw::Encoder::new();
    for block in records.chunks(XERIAL_BLOCK) {
        let size_at = out.len();
        let data_at = size_at + 4;
        out.resize(data_at + snap::raw::max_compress_len(block.len()), 0);
        let size = encoder.compress(block, &mut out[data_at..]).map_err(io::Error::other)?;
        out.truncate(data_at + size);
        let size = u32::try_from(size).map_err(io::Error::other)?;
        out[size_at..data_at].copy_from_slice(&size.to_be_bytes());
    }
    Ok(())
}

fn lz4(records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    // Independent blocks of 64 KiB: what Kafka's Java reader demands of the former and is fastest with for the latter.
    let info = FrameInfo::new().block_size(BlockSize::Max64KB).block_mode(BlockMode::Independent);
    let mut encoder = FrameEncoder::with_frame_info(info, out);
    encoder.write_all(records)?;
    encoder.finish().map(drop).map_err(io::Error::other)
}

fn zstd(level: Option<i32>, records: &[u8], out: &mut Vec<u8>) -> io::Result<()> {
    let mut encoder = zstd::stream::write::Encoder::new(out, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL))?;
    encoder.set_pledged_src_size(Some(records.len() as u64))?;
    encoder.write_all(records)?;
    encoder.finish().map(drop)
}

/// The decompressed form of `body`, which must not be [`Compression::None`] (it would be copied).
pub(crate) fn decompress(codec: Compression, body: &[u8], limit: Decompress) -> Result<Vec<u8>, BatchError> {
    let damaged = |error: io::Error| BatchError::Codec { codec, reason: error.to_string() };
    match codec {
        Compression::None => drain(body, body, limit, damaged),
        Compression::Gzip => drain(MultiGzDecoder::new(body), body, limit, damaged),
        Compression::Lz4 => drain(FrameDecoder::new(body), body, limit, damaged),
        // The decoder reserves the frame's window, at most 128 MiB of address space, but touches no more of it than
        // it writes, which the limit bounds.
        Compression::Zstd => {
            let decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(damaged)?;
            drain(decoder, body, limit, damaged)
        }
        Compression::Snappy => snappy(body, limit),
    }
}

/// Everything `decoder` yields, if that is within the limit.
fn drain(
    decoder: impl Read,
    body: &[u8],
    limit: Decompress,
    damaged: impl Fn(io::Error) -> BatchError,
) -> Result<Vec<u8>, BatchError> {
    let mut records = Vec::with_capacity(body.len().saturating_mul(3).min(limit.max_bytes));
    let stop = (limit.max_bytes as u64).saturating_add(1);
    decoder.take(stop).read_to_end(&mut records).map_err(damaged)?;
    if records.len() > limit.max_bytes {
        return Err(BatchError::DecompressedTooLarge { max_bytes: limit.max_bytes });
    }
    Ok(records)
}

fn snappy(body: &[u8], limit: Decompress) -> Result<Vec<u8>, BatchError> {
    let mut records = Vec::new();
    let Some(framed) = body.strip_prefix(&XERIAL_MAGIC) else {
        snappy_block(body, limit, &mut records)?;
        return Ok(records);
    };
    // The versions say who may read it; there has only ever been one.
    let mut blocks = framed.get(XERIAL_VERSIONS.len()..).ok_or_else(|| snappy_damaged("the header ends early"))?;
    while !blocks.is_empty() {
        let (size, rest) = blocks.split_first_chunk().ok_or_else(|| snappy_damaged("a block size ends early"))?;
        let size = usize::try_from(u32::from_be_bytes(*size)).unwrap_or(usize::MAX);
        let (block, rest) = rest.split_at_checked(size).ok_or_else(|| snappy_damaged("a block ends early"))?;
        snappy_block(block, limit, &mut records)?;
        blocks = rest;
    }
    Ok(records)
}

fn snappy_block(block: &[u8], limit: Decompress, records: &mut Vec<u8>) -> Result<(), BatchError> {
    let claimed = snap::raw::decompress_len(block).map_err(|error| snappy_damaged(&error.to_string()))?;
    let start = records.len();
    let end = start.saturating_add(claimed);
    if end > limit.max_bytes {
        return Err(BatchError::DecompressedTooLarge { max_bytes: limit.max_bytes });
    }
    if claimed > block.len().saturating_mul(SNAPPY_RATIO_MAX) {
        return Err(snappy_damaged("a block claims more than it can hold"));
    }
    records.resize(end, 0);
    let written = snap::raw::Decoder::new().decompress(block, &mut records[start..]);
    let written = written.map_err(|error| snappy_damaged(&error.to_string()))?;
    records.truncate(start + written);
    Ok(())
}

fn snappy_damaged(reason: &str) -> BatchError {
    BatchError::Codec { codec: Compression::Snappy, reason: reason.to_owned() }
}
