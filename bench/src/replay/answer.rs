//! Reads the answer to a [`FetchFrame`](super::frame::FetchFrame) while it arrives, without its records: of those only
//! the first batch's header is looked at.
//!
//! No socket here: the caller hands in what it received and drops what [`Answer::droppable`] says. Next: `consumer.rs`.

use anyhow::{Context, Result, bail};
use ottla_records::{BatchHeader, HEADER_SIZE};

/// One partition of the answer.
#[derive(Clone, Debug)]
pub(super) struct Part {
    pub(super) partition: i32,
    pub(super) error: i16,
    pub(super) high_watermark: i64,
    pub(super) log_start: i64,
    pub(super) bytes: usize,
    /// The first batch, where there is a whole header.
    pub(super) first: Option<BatchHeader>,
}

/// What comes next on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    Front,
    /// A partition; so many are left with it.
    Partition(u32),
    /// The tags behind its records.
    Tags(u32),
    End,
}

#[derive(Debug)]
pub(super) struct Answer {
    /// Received and not yet understood.
    head: Vec<u8>,
    next: Next,
    /// Bytes to come that need not be seen.
    droppable: usize,
    /// Bytes of the frame behind us, and all of them, length included.
    behind: usize,
    total: usize,
    pub(super) correlation: i32,
    pub(super) error: i16,
    pub(super) parts: Vec<Part>,
}

impl Answer {
    pub(super) fn new() -> Answer {
        Answer {
            head: Vec::new(),
            next: Next::Front,
            droppable: 0,
            behind: 0,
            total: usize::MAX,
            correlation: 0,
            error: 0,
            parts: Vec::new(),
        }
    }

    /// Makes ready for the next answer.
    pub(super) fn clear(&mut self) {
        let (mut head, mut parts) = (std::mem::take(&mut self.head), std::mem::take(&mut self.parts));
        head.clear();
        parts.clear();
        *self = Answer { head, parts, ..Answer::new() };
    }

    /// How many of the bytes to come may be dropped; if there are any, [`Answer::take`] need not be called.
    pub(super) fn droppable(&self) -> usize {
        self.droppable
    }

    pub(super) fn dropped(&mut self, bytes: usize) {
        self.droppable -= bytes;
        self.behind += bytes;
    }

    pub(super) fn is_complete(&self) -> bool {
        self.behind == self.total
    }

    /// Takes bytes as they arrived, and understands as much as there is.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<()> {
        self.head.extend_from_slice(bytes);
        let mut at = 0;
        loop {
            let here = self.droppable.min(self.head.len() - at);
            self.dropped(here);
            at += here;
            if self.droppable > 0 || self.is_complete() {
                break;
            }
            let mut cursor = Cursor { rest: &self.head[at..] };
            let Some(found) = read(self.next, &mut cursor)? else { break };
            let read = self.head.len() - at - cursor.rest.len();
            at += read;
            self.behind += read;
            self.apply(found)?;
        }
        self.head.drain(..at);
        Ok(())
    }

    fn apply(&mut self, found: Found) -> Result<()> {
        let left = match self.next {
            Next::Front => 0,
            Next::Partition(left) | Next::Tags(left) => left,
            Next::End => bail!("an answer goes on behind its end"),
        };
        self.next = match found {
            Found::Front { total, correlation, error, partitions } => {
                (self.total, self.correlation, self.error) = (total, correlation, error);
                if partitions == 0 { Next::End } else { Next::Partition(partitions) }
            }
            Found::Partition(part) => {
                self.droppable = part.bytes;
                self.parts.push(part);
                Next::Tags(left)
            }
            Found::Tags if left > 1 => Next::Partition(left - 1),
            Found::Tags => Next::End,
        };
        if self.next == Next::End {
            // The topic's tags and the answer's.
            self.droppable = self.total.checked_sub(self.behind).context("an answer is longer than it says")?;
        }
        Ok(())
    }
}

/// What [`read`] made out.
enum Found {
    Front { total: usize, correlation: i32, error: i16, partitions: u32 },
    Partition(Part),
    Tags,
}

/// Reads what comes next; `None` if it isn't all there.
fn read(next: Next, cursor: &mut Cursor<'_>) -> Result<Option<Found>> {
    Ok(match next {
        Next::Front => front(cursor),
        Next::Partition(_) => match partition(cursor) {
            Some(part) => Some(Found::Partition(part?)),
            None => None,
        },
        Next::Tags(_) => tags(cursor).map(|()| Found::Tags),
        Next::End => bail!("an answer goes on behind its end"),
    })
}

fn front(cursor: &mut Cursor<'_>) -> Option<Found> {
    let length = i32::from_be_bytes(cursor.take()?);
    let correlation = i32::from_be_bytes(cursor.take()?);
    tags(cursor)?;
    let _throttle = cursor.take::<4>()?;
    let error = i16::from_be_bytes(cursor.take()?);
    let _session = cursor.take::<4>()?;
    let topics = cursor.varint()?;
    let partitions = if topics > 1 {
        let name = cursor.varint()?.saturating_sub(1);
        cursor.skip(name as usize)?;
        cursor.varint()?.saturating_sub(1)
    } else {
        0
    };
    let total = 4 + usize::try_from(length).unwrap_or(0);
    Some(Found::Front { total, correlation, error, partitions })
}

fn partition(cursor: &mut Cursor<'_>) -> Option<Result<Part>> {
    let partition = i32::from_be_bytes(cursor.take()?);
    let error = i16::from_be_bytes(cursor.take()?);
    let high_watermark = i64::from_be_bytes(cursor.take()?);
    let _last_stable = cursor.take::<8>()?;
    let log_start = i64::from_be_bytes(cursor.take()?);
    // Aborted transactions: null or none, because nobody asked for committed records only.
    if cursor.varint()? > 1 {
        return Some(Err(anyhow::anyhow!("partition {partition} has aborted transactions")));
    }
    let _preferred_replica = cursor.take::<4>()?;
    let bytes = cursor.varint()?.saturating_sub(1) as usize;
    let first = if bytes < HEADER_SIZE {
        None
    } else {
        match BatchHeader::parse(cursor.rest.get(..HEADER_SIZE)?) {
            Ok(header) => Some(header),
            Err(error) => return Some(Err(error.into())),
        }
    };
    Some(Ok(Part { partition, error, high_watermark, log_start, bytes, first }))
}

fn tags(cursor: &mut Cursor<'_>) -> Option<()> {
    for _ in 0..cursor.varint()? {
        let _tag = cursor.varint()?;
        let size = cursor.varint()?;
        cursor.skip(size as usize)?;
    }
    Some(())
}

/// The rest of what was received; every read is `None` where it ends too early.
struct Cursor<'a> {
    rest: &'a [u8],
}

impl Cursor<'_> {
    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (taken, rest) = self.rest.split_first_chunk()?;
        self.rest = rest;
        Some(*taken)
    }

    fn skip(&mut self, bytes: usize) -> Option<()> {
        self.rest = self.rest.get(bytes..)?;
        Some(())
    }

    fn varint(&mut self) -> Option<u32> {
        let mut value = 0;
        for shift in [0, 7, 14, 21, 28] {
            let [byte] = self.take()?;
            value |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                break;
            }
        }
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use ottla_protocol::messages::FetchResponse;
    use ottla_protocol::messages::fetch_response::{FetchableTopicResponse, PartitionData};
    use ottla_protocol::{ApiKey, Records, ResponseHeader};
    use ottla_records::Compression;

    use super::super::frame::{Batch, FetchFrame};
    use super::*;

    fn encoded() -> (Vec<u8>, usize) {
        let batch = Batch::of_records(100, 7, Compression::None).unwrap().bytes;
        let partition = |partition_index, records| PartitionData {
            partition_index,
            high_watermark: 700,
            last_stable_offset: 700,
            log_start_offset: 3,
            preferred_read_replica: -1,
            records: Some(Records::Bytes(records)),
            ..Default::default()
        };
        let topic = FetchableTopicResponse {
            topic: "topic".into(),
            partitions: vec![
                partition(4, [&batch[..], &batch[..]].concat().into()),
                partition(1, bytes::Bytes::new()),
                partition(2, batch.clone()),
            ],
            ..Default::default()
        };
        let body = FetchResponse { responses: vec![topic], ..Default::default() };
        let mut frame = vec![0; 4];
        ResponseHeader { correlation_id: 5 }.encode(&mut frame, ApiKey::Fetch, FetchFrame::VERSION);
        body.encode(&mut frame, FetchFrame::VERSION).unwrap();
        let length = u32::try_from(frame.len() - 4).unwrap().to_be_bytes();
        frame[..4].copy_from_slice(&length);
        (frame, batch.len())
    }

    #[test]
    fn an_answer_is_read_in_pieces_of_any_size() {
        let (frame, batch) = encoded();
        let mut answer = Answer::new();
        for piece in [1, 7, 61, 100, 1000, frame.len()] {
            answer.clear();
            let mut rest = &frame[..];
            while !rest.is_empty() {
                assert!(!answer.is_complete());
                let (now, later) = rest.split_at(piece.min(rest.len()));
                let (now, later) = match answer.droppable() {
                    0 => (now, later),
                    most => rest.split_at(most.min(now.len())),
                };
                if answer.droppable() > 0 {
                    answer.dropped(now.len())
                } else {
                    answer.take(now).unwrap()
                }
                rest = later;
            }
            assert!(answer.is_complete());
            assert_eq!((answer.correlation, answer.error), (5, 0));
            let parts: Vec<_> = answer.parts.iter().map(|it| (it.partition, it.bytes, it.first.is_some())).collect();
            assert_eq!(parts, [(4, 2 * batch, true), (1, 0, false), (2, batch, true)]);
            assert_eq!((answer.parts[0].high_watermark, answer.parts[0].log_start), (700, 3));
            assert_eq!(answer.parts[0].first.unwrap().record_count, 7);
        }
    }
}
