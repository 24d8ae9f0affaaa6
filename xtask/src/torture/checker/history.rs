//! What clients and observers did: operations, and the lines they are stored in.
//!
//! A line is `PROCESS KIND ...`, with words apart by one space and times in microseconds of the wall clock. A partition
//! (KEY) is `TOPIC-INDEX`, a value (V) is `PRODUCER.NUMBER` and never sent twice, or `?` for one that is damaged.
//!
//! | line | meaning |
//! |---|---|
//! | `send INTENDED BEGAN KEY=V ...` | sent in one call, in this order; due at INTENDED |
//! | `ack AT KEY@OFFSET=V ...` | acknowledged; an OFFSET below 0 is unknown |
//! | `fail AT ERROR KEY=V ...` | the library gave up; what ERROR is tells whether it surely did not happen |
//! | `poll BEGAN AT KEY@OFFSET=V ...` | what one poll brought, in this order |
//! | `step BEGAN AT KEY@OFFSET=V ... > KEY@OFFSET=V ...` | polled, and sent and acknowledged, as one |
//! | `assign AT KEY@OFFSET ...` | reads these from there on, by its own choice, and no others |
//! | `assigned AT GENERATION KEY ...` | the group gave it these too |
//! | `revoked AT KEY ...` | and took these away |
//! | `commit BEGAN AT KEY@OFFSET ...` | committed for the group |
//! | `refused BEGAN AT ERROR KEY@OFFSET ...` | not committed, or not known to be |
//! | `committed BEGAN AT KEY@OFFSET ...` | read by somebody else: what the group has committed |
//! | `ends BEGAN AT KEY@LSO/HW ...` | last stable offset and high watermark, as readers are told |
//! | `final BEGAN AT KEY FROM TO OFFSET=V ...` | in the end: all there is from FROM to before TO |
//! | `ended AT` | the process is gone |
//! | `version TEXT`, `error AT TEXT` | for people |
//!
//! A line that begins with `#` is for people too. There is one group in a history.

use std::collections::{BTreeMap, HashMap};
use std::io::BufRead;

use anyhow::{Context, Result, bail};

use super::errors::is_definite;
use crate::history::Sent;

/// Microseconds since the epoch.
pub(crate) type Time = u64;
/// Who did something.
pub(crate) type Process = u32;

/// A partition, by its place in `History::keys`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Key(u32);

impl Key {
    pub(crate) fn index(self) -> usize {
        self.0 as usize
    }
}

/// What became of a send.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Ok {
        at: Time,
        /// `None` if the library could not tell.
        offset: Option<i64>,
    },
    /// It surely did not happen.
    Fail,
    /// It may have happened, or still may.
    Info,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Send {
    pub(crate) key: Key,
    pub(crate) value: Sent,
    pub(crate) intended: Time,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Polled {
    pub(crate) key: Key,
    pub(crate) offset: i64,
    pub(crate) value: Option<Sent>,
}

/// An operation. Those of one process are in the order in which it began them.
#[derive(Clone, Debug)]
pub(crate) struct Op {
    pub(crate) process: Process,
    pub(crate) began: Time,
    /// As `began` for what is only said once; of sends each has its own end.
    pub(crate) ended: Time,
    pub(crate) what: What,
}

#[derive(Clone, Debug)]
pub(crate) enum What {
    /// Values sent in one call, records of one poll, or both in one step.
    Records {
        sends: Vec<Send>,
        polls: Vec<Polled>,
    },
    Assign {
        from: Vec<(Key, i64)>,
    },
    Assigned {
        generation: i32,
        keys: Vec<Key>,
    },
    Revoked {
        keys: Vec<Key>,
    },
    Commit {
        outcome: Outcome,
        offsets: Vec<(Key, i64)>,
    },
    Committed {
        offsets: Vec<(Key, i64)>,
    },
    Ends {
        ends: Vec<End>,
    },
    Final {
        key: Key,
        from: i64,
        to: i64,
        records: Vec<(i64, Option<Sent>)>,
    },
    Ended,
}

/// The ends of a partition that readers are told: of committed transactions, and of everything.
#[derive(Clone, Copy, Debug)]
pub(crate) struct End {
    pub(crate) key: Key,
    pub(crate) last_stable: i64,
    pub(crate) high_watermark: i64,
}

/// Where a send is: operation, and place in it.
pub(crate) type SendAt = (u32, u32);

#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    pub(crate) keys: Vec<String>,
    pub(crate) ops: Vec<Op>,
    /// Every value that was sent.
    pub(crate) sent: HashMap<Sent, SendAt>,
    /// Libraries and their versions, by process.
    pub(crate) versions: BTreeMap<Process, String>,
    names: HashMap<String, Key>,
    began: Option<Time>,
}

impl History {
    /// Reads stored lines; the error says which line is wrong.
    pub(crate) fn read(lines: impl BufRead) -> Result<History> {
        let mut history = History::default();
        for (index, line) in lines.lines().enumerate() {
            let line = line?;
            history.line(&line).with_context(|| format!("line {}: {line:.100}", index + 1))?;
        }
        Ok(history)
    }

    /// Takes a line.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let mut words = line.split(' ');
        let process = number(words.next())?;
        let kind = words.next().context("no kind")?;
        if kind == "version" {
            self.versions.insert(process, words.collect::<Vec<_>>().join(" "));
            return Ok(());
        }
        let first: Time = number(words.next())?;
        self.began.get_or_insert(first);
        let has_two_times =
            matches!(kind, "send" | "poll" | "step" | "commit" | "refused" | "committed" | "ends" | "final");
        let second = if has_two_times { number(words.next())? } else { first };
        let (mut began, ended) = (first, second);
        let what = match kind {
            "error" => return Ok(()),
            "ack" => return self.acknowledged(first, words),
            "fail" => return self.failed(words),
            "send" => {
                began = second;
                let sends = words.map(|word| self.send(word, first)).collect::<Result<_>>()?;
                What::Records { sends, polls: Vec::new() }
            }
            "poll" => {
                let polls = words.map(|word| self.polled(word)).collect::<Result<_>>()?;
                What::Records { sends: Vec::new(), polls }
            }
            "step" => self.step(began, ended, words)?,
            "assign" => What::Assign { from: words.map(|word| self.place(word)).collect::<Result<_>>()? },
            "assigned" => {
                What::Assigned { generation: number(words.next())?, keys: words.map(|word| self.key(word)).collect() }
            }
            "revoked" => What::Revoked { keys: words.map(|word| self.key(word)).collect() },
            "commit" => {
                let outcome = Outcome::Ok { at: ended, offset: None };
                What::Commit { outcome, offsets: words.map(|word| self.place(word)).collect::<Result<_>>()? }
            }
            "refused" => {
                let definite = is_definite(words.next().context("no error")?);
                let outcome = if definite { Outcome::Fail } else { Outcome::Info };
                What::Commit { outcome, offsets: words.map(|word| self.place(word)).collect::<Result<_>>()? }
            }
            "committed" => What::Committed { offsets: words.map(|word| self.place(word)).collect::<Result<_>>()? },
            "ends" => What::Ends { ends: words.map(|word| self.end(word)).collect::<Result<_>>()? },
            "final" => {
                let key = self.key(words.next().context("no partition")?);
                let (from, to) = (number(words.next())?, number(words.next())?);
                let record = |word: &str| -> Result<(i64, Option<Sent>)> {
                    let (offset, found) = word.split_once('=').context("no value")?;
                    Ok((number(Some(offset))?, value(found)?))
                };
                What::Final { key, from, to, records: words.map(record).collect::<Result<_>>()? }
            }
            "ended" => What::Ended,
            _ => bail!("there is no {kind:?}"),
        };
        self.push(Op { process, began, ended, what })
    }

    /// Adds an operation, and remembers what it sent.
    fn push(&mut self, op: Op) -> Result<()> {
        let index = u32::try_from(self.ops.len())?;
        if let What::Records { sends, .. } = &op.what {
            for (place, send) in sends.iter().enumerate() {
                if self.sent.insert(send.value, (index, u32::try_from(place)?)).is_some() {
                    bail!("{} is sent twice", show(Some(send.value)));
                }
            }
        }
        self.ops.push(op);
        Ok(())
    }

    fn acknowledged<'a>(&mut self, at: Time, words: impl Iterator<Item = &'a str>) -> Result<()> {
        for word in words {
            let Polled { key, offset, value } = self.polled(word)?;
            let offset = (offset >= 0).then_some(offset);
            self.answered(key, value, Outcome::Ok { at, offset })?;
        }
        Ok(())
    }

    fn failed<'a>(&mut self, mut words: impl Iterator<Item = &'a str>) -> Result<()> {
        let definite = is_definite(words.next().context("no error")?);
        for word in words {
            let Send { key, value, .. } = self.send(word, 0)?;
            self.answered(key, Some(value), if definite { Outcome::Fail } else { Outcome::Info })?;
        }
        Ok(())
    }

    fn answered(&mut self, key: Key, value: Option<Sent>, outcome: Outcome) -> Result<()> {
        let send = value.and_then(|value| self.sent.get(&value).copied()).and_then(|at| self.send_mut(at));
        match send {
            Some(send) if send.key == key && send.outcome == Outcome::Info => send.outcome = outcome,
            Some(send) if send.key == key => bail!("{} is answered twice", show(value)),
            _ => bail!("{} was not sent there", show(value)),
        }
        Ok(())
    }

    fn step<'a>(&mut self, began: Time, ended: Time, words: impl Iterator<Item = &'a str>) -> Result<What> {
        let (mut sends, mut polls, mut sending) = (Vec::new(), Vec::new(), false);
        for word in words {
            if word == ">" {
                sending = true;
                continue;
            }
            let polled = self.polled(word)?;
            if sending {
                let outcome = Outcome::Ok { at: ended, offset: Some(polled.offset) };
                let value = polled.value.context("a damaged value is sent")?;
                sends.push(Send { key: polled.key, value, intended: began, outcome });
            } else {
                polls.push(polled);
            }
        }
        Ok(What::Records { sends, polls })
    }

    fn key(&mut self, name: &str) -> Key {
        if let Some(key) = self.names.get(name) {
            return *key;
        }
        // There are no more keys than bytes in the history, and these do not fit in memory before this overflows.
        let key = Key(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        self.keys.push(name.to_owned());
        self.names.insert(name.to_owned(), key);
        key
    }

    /// `KEY=V`
    fn send(&mut self, word: &str, intended: Time) -> Result<Send> {
        let (key, sent) = word.split_once('=').context("no value")?;
        let sent = value(sent)?.context("a damaged value is sent")?;
        Ok(Send { key: self.key(key), value: sent, intended, outcome: Outcome::Info })
    }

    /// `KEY@OFFSET=V`
    fn polled(&mut self, word: &str) -> Result<Polled> {
        let (place, found) = word.split_once('=').context("no value")?;
        let (key, offset) = self.place(place)?;
        Ok(Polled { key, offset, value: value(found)? })
    }

    /// `KEY@OFFSET`
    fn place(&mut self, word: &str) -> Result<(Key, i64)> {
        let (key, offset) = word.split_once('@').context("no offset")?;
        Ok((self.key(key), number(Some(offset))?))
    }

    /// `KEY@LSO/HW`
    fn end(&mut self, word: &str) -> Result<End> {
        let (key, ends) = word.split_once('@').context("no offset")?;
        let (last_stable, high_watermark) = ends.split_once('/').context("no high watermark")?;
        Ok(End {
            key: self.key(key),
            last_stable: number(Some(last_stable))?,
            high_watermark: number(Some(high_watermark))?,
        })
    }

    /// The operation at this place.
    pub(crate) fn op(&self, index: u32) -> Option<&Op> {
        self.ops.get(index as usize)
    }

    /// The send of a value, with its operation.
    pub(crate) fn send_of(&self, value: Sent) -> Option<(&Op, &Send)> {
        let (index, place) = self.sent.get(&value)?;
        let op = self.op(*index)?;
        match &op.what {
            What::Records { sends, .. } => Some((op, sends.get(*place as usize)?)),
            _ => None,
        }
    }

    fn send_mut(&mut self, (index, place): SendAt) -> Option<&mut Send> {
        match &mut self.ops.get_mut(index as usize)?.what {
            What::Records { sends, .. } => sends.get_mut(place as usize),
            _ => None,
        }
    }

    /// Every operation with its place.
    pub(crate) fn all(&self) -> impl Iterator<Item = (u32, &Op)> {
        // As many as fit; `push` takes no more.
        (0..u32::MAX).zip(&self.ops)
    }

    /// Every send with its operation.
    pub(crate) fn sends(&self) -> impl Iterator<Item = (u32, &Op, &Send)> {
        self.all().flat_map(|(index, op)| {
            let sends = if let What::Records { sends, .. } = &op.what { sends.as_slice() } else { &[][..] };
            sends.iter().map(move |send| (index, op, send))
        })
    }

    pub(crate) fn name(&self, key: Key) -> &str {
        self.keys.get(key.index()).map_or("?", String::as_str)
    }

    /// A time as people read it: seconds since the first line, and as it stands in the history.
    pub(crate) fn when(&self, time: Time) -> String {
        let micros = time.saturating_sub(self.began.unwrap_or_default());
        format!("{}.{:06} s ({time})", micros / 1_000_000, micros % 1_000_000)
    }

    /// An operation in a few words.
    pub(crate) fn who(&self, index: u32) -> String {
        match self.op(index) {
            Some(op) => format!("process {} at {}", op.process, self.when(op.ended)),
            None => "nobody".to_owned(),
        }
    }
}

/// A value as it stands in the history.
pub(crate) fn show(value: Option<Sent>) -> String {
    value.map_or_else(|| "?".to_owned(), |Sent { producer, number }| format!("{producer}.{number}"))
}

fn value(word: &str) -> Result<Option<Sent>> {
    if word == "?" {
        return Ok(None);
    }
    let (producer, sent) = word.split_once('.').context("a value is PRODUCER.NUMBER")?;
    Ok(Some(Sent { producer: number(Some(producer))?, number: number(Some(sent))? }))
}

fn number<T: std::str::FromStr>(word: Option<&str>) -> Result<T> {
    let word = word.context("a number is missing")?;
    word.parse().ok().with_context(|| format!("{word:?} is not a number that fits"))
}
