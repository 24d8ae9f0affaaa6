//! What producers were told against what a fresh reader found: the judge of every durability proof.
//!
//! A producer numbers its records of one partition 0, 1, 2 ... and sends a number only after those before it; a value
//! spells out its producer and number and repeats them to its full length, so that a reader can tell a value that was
//! never sent, or was damaged, from one that was. An acknowledged record has to be found once, at the offset that was
//! acknowledged, after its producer's earlier ones. A record that was sent and not acknowledged may be found or not.
//! The judge knows nothing of brokers or files.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;

/// A partition: topic and index.
pub(crate) type Partition = (String, i32);

/// One record, by who sent it and its place among what they sent to that partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Sent {
    pub(crate) producer: u32,
    pub(crate) number: u64,
}

impl Sent {
    /// The bytes of this record, `len` or, if it takes more to say who it is, a few more.
    pub(crate) fn value(self, len: usize) -> Vec<u8> {
        let mut name = String::new();
        let _ = write!(name, "{}:{}:{len};", self.producer, self.number);
        let full = len.max(name.len());
        name.bytes().cycle().take(full).collect()
    }

    /// The record that has exactly these bytes.
    pub(crate) fn parse(value: &[u8]) -> Option<Sent> {
        let name = value.split(|byte| *byte == b';').next()?;
        let mut numbers = std::str::from_utf8(name).ok()?.split(':');
        let sent = Sent { producer: numbers.next()?.parse().ok()?, number: numbers.next()?.parse().ok()? };
        let len: usize = numbers.next()?.parse().ok()?;
        // Before the value is built to be compared: a damaged length must not be believed.
        let plausible = len <= value.len() && numbers.next().is_none();
        (plausible && sent.value(len) == value).then_some(sent)
    }
}

/// What the producers did, as they know it.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    partitions: BTreeMap<Partition, PartitionHistory>,
}

#[derive(Clone, Debug, Default)]
struct PartitionHistory {
    /// How many records each producer has sent so far; their numbers are those below.
    sent: HashMap<u32, u64>,
    acknowledged: Vec<(Sent, i64)>,
    /// What lay below this offset was deleted on request.
    start: i64,
}

impl History {
    /// Remembers that a record is about to be sent.
    pub(crate) fn sent(&mut self, partition: &Partition, sent: Sent) {
        let count = self.of(partition).sent.entry(sent.producer).or_default();
        *count = (*count).max(sent.number + 1);
    }

    /// Whether a record was sent as far as this history knows.
    pub(crate) fn has_sent(&self, partition: &Partition, sent: Sent) -> bool {
        self.partitions.get(partition).is_some_and(|history| history.has_sent(sent))
    }

    /// Remembers that a record was acknowledged at an offset.
    pub(crate) fn acknowledged(&mut self, partition: &Partition, sent: Sent, offset: i64) {
        self.of(partition).acknowledged.push((sent, offset));
    }

    /// Remembers that the records before an offset were deleted on request: nobody has to find them.
    pub(crate) fn deleted_before(&mut self, partition: &Partition, offset: i64) {
        let start = &mut self.of(partition).start;
        *start = offset.max(*start);
    }

    /// How many records were acknowledged.
    pub(crate) fn acknowledgements(&self) -> usize {
        self.partitions.values().map(|partition| partition.acknowledged.len()).sum()
    }

    /// All partitions anything was sent to.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = &Partition> {
        self.partitions.keys()
    }

    fn of(&mut self, partition: &Partition) -> &mut PartitionHistory {
        if !self.partitions.contains_key(partition) {
            self.partitions.insert(partition.clone(), PartitionHistory::default());
        }
        self.partitions.entry(partition.clone()).or_default()
    }

    /// Compares with what was read: of each partition all records in the order they were read.
    pub(crate) fn judge(&self, read: &HashMap<Partition, Vec<(i64, bytes::Bytes)>>) -> Verdict {
        let mut verdict = Verdict::default();
        for (partition, history) in &self.partitions {
            history.judge(partition, read.get(partition).map_or(&[][..], Vec::as_slice), &mut verdict);
        }
        verdict
    }
}

impl PartitionHistory {
    fn has_sent(&self, sent: Sent) -> bool {
        self.sent.get(&sent.producer).is_some_and(|count| sent.number < *count)
    }

    fn judge(&self, (topic, index): &Partition, read: &[(i64, bytes::Bytes)], verdict: &mut Verdict) {
        let place = |offset: i64| format!("{topic}-{index} at offset {offset}");
        let mut offset_of: HashMap<Sent, i64> = HashMap::with_capacity(read.len());
        let mut highest: HashMap<u32, u64> = HashMap::new();
        let mut last_offset = -1;
        for (offset, value) in read {
            if *offset <= last_offset {
                verdict.report(Anomaly::Reordered, || format!("{}, read after offset {last_offset}", place(*offset)));
            }
            last_offset = *offset;
            let sent = Sent::parse(value).filter(|sent| self.has_sent(*sent));
            let Some(sent) = sent else {
                verdict.report(Anomaly::Invented, || format!("{}: a value nobody sent", place(*offset)));
                continue;
            };
            if let Some(before) = offset_of.insert(sent, *offset) {
                verdict.report(Anomaly::Duplicate, || format!("{}, {sent:?} was at {before} already", place(*offset)));
                offset_of.insert(sent, before);
                continue;
            }
            let highest = highest.entry(sent.producer).or_default();
            if sent.number < *highest {
                verdict.report(Anomaly::Reordered, || {
                    format!("{}: {sent:?} after number {highest} of that producer", place(*offset))
                });
            }
            *highest = sent.number.max(*highest);
        }
        verdict.read += read.len();

        let mut promised: HashMap<i64, Sent> = HashMap::with_capacity(self.acknowledged.len());
        for (sent, offset) in &self.acknowledged {
            verdict.acknowledged += 1;
            if let Some(other) = promised.insert(*offset, *sent)
                && other != *sent
            {
                verdict.report(Anomaly::OffsetReused, || format!("{}: {other:?} and {sent:?}", place(*offset)));
            }
            match offset_of.get(sent) {
                None if *offset < self.start => verdict.deleted += 1,
                None => verdict.report(Anomaly::Lost, || format!("{}: {sent:?}", place(*offset))),
                Some(found) if found != offset => {
                    verdict.report(Anomaly::Misplaced, || format!("{}: {sent:?} is at {found}", place(*offset)));
                }
                Some(_) => verdict.found += 1,
            }
        }
    }
}

/// What can be wrong with a history.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Anomaly {
    /// Acknowledged and not there.
    Lost,
    /// There, and acknowledged at another offset.
    Misplaced,
    /// There more than once.
    Duplicate,
    /// There before a record its producer had sent earlier, or offsets that do not rise.
    Reordered,
    /// There and never sent, or damaged.
    Invented,
    /// One offset acknowledged for two records.
    OffsetReused,
}

/// How many of everything, and the first few in words.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// Acknowledged records.
    pub(crate) acknowledged: usize,
    /// Acknowledged records that are where they were acknowledged.
    pub(crate) found: usize,
    /// Acknowledged records that were deleted on request since.
    pub(crate) deleted: usize,
    /// Records read, acknowledged or not.
    pub(crate) read: usize,
    anomalies: BTreeMap<Anomaly, usize>,
    examples: Vec<String>,
}

const EXAMPLES: usize = 10;

impl Verdict {
    fn report(&mut self, anomaly: Anomaly, words: impl FnOnce() -> String) {
        *self.anomalies.entry(anomaly).or_default() += 1;
        if self.examples.len() < EXAMPLES {
            self.examples.push(format!("{anomaly:?}: {}", words()));
        }
    }

    pub(crate) fn count(&self, anomaly: Anomaly) -> usize {
        self.anomalies.get(&anomaly).copied().unwrap_or(0)
    }

    /// Nothing wrong at all.
    pub(crate) fn is_clean(&self) -> bool {
        self.anomalies.is_empty()
    }

    /// The first few anomalies, a line each.
    pub(crate) fn examples(&self) -> &[String] {
        &self.examples
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers 0 to `n` of producer 1, acknowledged at offsets 0 to `n`, and what is read if all is well.
    fn good(n: u64) -> (History, Vec<(i64, Sent)>) {
        let mut history = History::default();
        let mut read = Vec::new();
        for number in 0..n {
            let sent = Sent { producer: 1, number };
            history.sent(&place(), sent);
            history.acknowledged(&place(), sent, number as i64);
            read.push((number as i64, sent));
        }
        (history, read)
    }

    fn place() -> Partition {
        ("t".to_owned(), 0)
    }

    fn judge(history: &History, read: &[(i64, Sent)]) -> Verdict {
        let read = read.iter().map(|(offset, sent)| (*offset, sent.value(40).into())).collect();
        history.judge(&HashMap::from([(place(), read)]))
    }

    fn only(verdict: &Verdict, anomaly: Anomaly) {
        assert_eq!(verdict.count(anomaly), 1, "{verdict:?}");
        assert_eq!(verdict.anomalies.len(), 1, "{verdict:?}");
    }

    #[test]
    fn a_good_history_is_clean() {
        let (mut history, mut read) = good(3);
        // Sent and not acknowledged: one of them is there, one is not.
        for number in 3..5 {
            history.sent(&place(), Sent { producer: 1, number });
        }
        read.push((3, Sent { producer: 1, number: 3 }));
        let verdict = judge(&history, &read);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.acknowledged, verdict.found, verdict.read), (3, 3, 4));
    }

    #[test]
    fn an_acknowledged_record_that_is_missing_is_lost() {
        let (history, mut read) = good(3);
        read.remove(1);
        only(&judge(&history, &read), Anomaly::Lost);
    }

    #[test]
    fn only_what_was_deleted_on_request_may_be_missing() {
        let (mut history, read) = good(4);
        history.deleted_before(&place(), 2);
        let verdict = judge(&history, &read[2..]);
        assert!(verdict.is_clean(), "{verdict:?}");
        assert_eq!((verdict.found, verdict.deleted), (2, 2));
        only(&judge(&history, &read[3..]), Anomaly::Lost);
    }

    #[test]
    fn a_partition_that_was_not_read_is_lost() {
        let (history, _) = good(3);
        assert_eq!(history.judge(&HashMap::new()).count(Anomaly::Lost), 3);
    }

    #[test]
    fn a_record_at_another_offset_is_misplaced() {
        let (history, mut read) = good(3);
        read[2].0 = 7;
        only(&judge(&history, &read), Anomaly::Misplaced);
    }

    #[test]
    fn a_record_twice_is_a_duplicate() {
        let (history, mut read) = good(3);
        read.push((3, read[2].1));
        only(&judge(&history, &read), Anomaly::Duplicate);
    }

    #[test]
    fn an_older_record_after_a_newer_one_is_reordered() {
        let (mut history, _) = good(0);
        let [first, second] = [0, 1].map(|number| Sent { producer: 1, number });
        history.sent(&place(), second);
        only(&judge(&history, &[(0, second), (1, first)]), Anomaly::Reordered);
    }

    #[test]
    fn offsets_that_do_not_rise_are_reordered() {
        let (mut history, _) = good(0);
        let [first, second] = [0, 1].map(|number| Sent { producer: 1, number });
        history.sent(&place(), second);
        only(&judge(&history, &[(4, first), (4, second)]), Anomaly::Reordered);
    }

    #[test]
    fn a_record_nobody_sent_is_invented() {
        let (history, mut read) = good(3);
        read.push((3, Sent { producer: 1, number: 3 }));
        only(&judge(&history, &read), Anomaly::Invented);
        let (history, mut read) = good(3);
        read.push((3, Sent { producer: 2, number: 0 }));
        only(&judge(&history, &read), Anomaly::Invented);
    }

    #[test]
    fn a_damaged_value_is_invented() {
        let whole = Sent { producer: 4, number: 17 }.value(100);
        assert_eq!(Sent::parse(&whole), Some(Sent { producer: 4, number: 17 }));
        for index in 0..whole.len() {
            let mut damaged = whole.clone();
            damaged[index] ^= 1;
            assert_eq!(Sent::parse(&damaged), None, "byte {index}");
        }
        assert_eq!(Sent::parse(&whole[..99]), None);
        assert_eq!(Sent::parse(b""), None);
    }

    #[test]
    fn an_offset_acknowledged_for_two_records_is_reused() {
        let (mut history, read) = good(3);
        let late = Sent { producer: 1, number: 3 };
        history.sent(&place(), late);
        history.acknowledged(&place(), late, 2);
        let verdict = judge(&history, &read);
        assert_eq!((verdict.count(Anomaly::OffsetReused), verdict.count(Anomaly::Lost)), (1, 1), "{verdict:?}");
    }
}
