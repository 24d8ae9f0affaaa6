//! Random histories of a log that keeps its promises: all are accepted, and each is noticed once it is spoilt.
//!
//! The log has a committed part and a tail that a change of leader may take away; producers retry, give up, and hear
//! late; a group rebalances, with a member that sleeps through it and commits that nobody hears of. What is done takes
//! effect at one moment between its two times, as it does with a real broker.

use std::collections::VecDeque;

use super::{Anomaly, LIMITS, names};
use crate::history::Sent;
use crate::torture::checker::history::{History, Time, show};
use crate::torture::checker::{Limits, check};

const KEYS: usize = 2;
const PRODUCERS: usize = 2;
const MEMBERS: usize = 2;
const STEPS: usize = 500;

/// One partition. `None` is an offset that no reader is shown.
#[derive(Default)]
struct Log {
    committed: Vec<Option<Sent>>,
    tail: Vec<Sent>,
    group_offset: i64,
    /// Commits that nobody knows the fate of, and that may still come.
    late_commits: Vec<i64>,
}

/// What one producer has under way to one partition, in order.
#[derive(Default)]
struct Queue {
    next: u64,
    waiting: VecDeque<Sent>,
    /// In the log, and nobody was told yet.
    unanswered: Vec<Sent>,
}

/// A member of the group.
struct Member {
    generation: i32,
    positions: [Option<i64>; KEYS],
    asleep: bool,
}

struct Model {
    random: fastrand::Rng,
    now: Time,
    lines: Vec<String>,
    logs: [Log; KEYS],
    queues: [[Queue; KEYS]; PRODUCERS],
    reader: [i64; KEYS],
    members: [Member; MEMBERS],
    generation: i32,
    /// When each process may go on: it does one thing at a time.
    busy: [Time; 10],
}

impl Model {
    fn new(seed: u64) -> Model {
        let member = || Member { generation: 0, positions: [None; KEYS], asleep: false };
        let mut model = Model {
            random: fastrand::Rng::with_seed(seed),
            now: 1_000,
            lines: Vec::new(),
            logs: Default::default(),
            queues: Default::default(),
            reader: [0; KEYS],
            members: [member(), member()],
            generation: 0,
            busy: [0; 10],
        };
        model.lines.push("3 assign 1000 t-0@0 t-1@0".to_owned());
        model.rebalance();
        model
    }

    fn run(mut self) -> Vec<String> {
        for _ in 0..STEPS {
            self.now += self.random.u64(1..5);
            let (key, producer, member) =
                (self.random.usize(..KEYS), self.random.usize(..PRODUCERS), self.random.usize(..MEMBERS));
            match self.random.u8(0..24) {
                0..5 => self.send(producer, key),
                5..9 => self.append(producer, key),
                9..12 => self.commit_tail(key),
                12..14 => self.acknowledge(producer, key),
                14 => self.change_leader(key),
                15 => self.give_up(producer, key),
                16..18 => self.poll(),
                18..20 => self.member_poll(member, key),
                20..22 => self.member_commit(member, key),
                22 => self.observe(),
                _ => self.disturb_group(member, key),
            }
        }
        self.finish()
    }

    /// When an operation that takes effect now is over. Its process does nothing else before.
    fn ended(&mut self, process: usize) -> Time {
        self.busy[process] = self.now + self.random.u64(1..40);
        self.busy[process]
    }

    fn is_busy(&self, process: usize) -> bool {
        self.busy[process] >= self.now
    }

    fn send(&mut self, producer: usize, key: usize) {
        let queue = &mut self.queues[producer][key];
        let sent = Sent { producer: (producer * KEYS + key) as u32, number: queue.next };
        queue.next += 1;
        queue.waiting.push_back(sent);
        let now = self.now;
        self.lines.push(format!("{producer} send {} {now} t-{key}={}", now - 1, show(Some(sent))));
        self.now += 1;
    }

    fn append(&mut self, producer: usize, key: usize) {
        let queue = &mut self.queues[producer][key];
        if let Some(sent) = queue.waiting.pop_front() {
            queue.unanswered.push(sent);
            self.logs[key].tail.push(sent);
        }
    }

    fn commit_tail(&mut self, key: usize) {
        let count = self.random.usize(..=self.logs[key].tail.len());
        let log = &mut self.logs[key];
        log.committed.extend(log.tail.drain(..count).map(Some));
        if log.tail.is_empty() && self.random.u8(0..8) == 0 {
            log.committed.push(None);
        }
    }

    fn acknowledge(&mut self, producer: usize, key: usize) {
        let committed = &self.logs[key].committed;
        let unanswered = &mut self.queues[producer][key].unanswered;
        let place = |sent: &Sent| committed.iter().position(|it| *it == Some(*sent));
        let ready: Vec<usize> = (0..unanswered.len()).filter(|index| place(&unanswered[*index]).is_some()).collect();
        let Some(index) = self.random.choice(ready) else { return };
        let sent = unanswered.remove(index);
        let known = self.random.u8(0..8) > 0;
        let offset = place(&sent).filter(|_| known).map_or(-1, |offset| offset as i64);
        let at = self.now + self.random.u64(0..30);
        self.lines.push(format!("{producer} ack {at} t-{key}@{offset}={}", show(Some(sent))));
    }

    /// What was not committed is gone, and sent again by those who still wait, in their order.
    fn change_leader(&mut self, key: usize) {
        let keep = self.random.usize(..=self.logs[key].tail.len());
        for sent in self.logs[key].tail.split_off(keep).into_iter().rev() {
            let queue = &mut self.queues[sent.producer as usize / KEYS][key];
            if let Some(index) = queue.unanswered.iter().position(|it| *it == sent) {
                queue.unanswered.remove(index);
                queue.waiting.push_front(sent);
            }
        }
    }

    /// The library gives up what it sent: that may be in the log or come there later, except if it says otherwise.
    fn give_up(&mut self, producer: usize, key: usize) {
        let now = self.now;
        let queue = &mut self.queues[producer][key];
        if self.random.bool() {
            if let Some(sent) = queue.waiting.pop_back() {
                let (error, sent) = ("OUT_OF_ORDER_SEQUENCE_NUMBER", show(Some(sent)));
                self.lines.push(format!("{producer} fail {now} {error} t-{key}={sent}"));
            }
        } else if let Some(sent) = queue.unanswered.pop() {
            self.lines.push(format!("{producer} fail {now} REQUEST_TIMED_OUT t-{key}={}", show(Some(sent))));
        }
    }

    fn read(&mut self, key: usize, from: i64) -> (Vec<String>, i64) {
        let committed = &self.logs[key].committed;
        let end = (from as usize + self.random.usize(0..6)).min(committed.len());
        let all = (from..).zip(&committed[from as usize..end]);
        let records = all.filter_map(|(offset, it)| it.map(|sent| format!("t-{key}@{offset}={}", show(Some(sent)))));
        (records.collect(), end as i64)
    }

    fn poll(&mut self) {
        if self.is_busy(3) {
            return;
        }
        let (began, mut words) = (self.now, Vec::new());
        for key in 0..KEYS {
            let (records, next) = self.read(key, self.reader[key]);
            words.extend(records);
            self.reader[key] = next;
        }
        let ended = self.ended(3);
        self.lines.push(format!("3 poll {began} {ended} {}", words.join(" ")).trim_end().to_owned());
    }

    fn member_poll(&mut self, member: usize, key: usize) {
        let process = 4 + member;
        let Some(position) = self.members[member].positions[key].filter(|_| !self.is_busy(process)) else { return };
        let (records, next) = self.read(key, position);
        self.members[member].positions[key] = Some(next);
        let (began, ended) = (self.now, self.ended(process));
        self.lines.push(format!("{process} poll {began} {ended} {}", records.join(" ")).trim_end().to_owned());
    }

    fn member_commit(&mut self, member: usize, key: usize) {
        let process = 4 + member;
        let Some(position) = self.members[member].positions[key].filter(|_| !self.is_busy(process)) else { return };
        let (began, ended) = (self.now, self.ended(process));
        let place = format!("t-{key}@{position}");
        let log = &mut self.logs[key];
        let said = if self.members[member].generation != self.generation {
            format!("refused {began} {ended} ILLEGAL_GENERATION {place}")
        } else {
            match self.random.u8(0..8) {
                0 => {
                    log.group_offset = position;
                    format!("refused {began} {ended} REQUEST_TIMED_OUT {place}")
                }
                1 => {
                    log.late_commits.push(position);
                    format!("refused {began} {ended} REQUEST_TIMED_OUT {place}")
                }
                _ => {
                    log.group_offset = position;
                    format!("commit {began} {ended} {place}")
                }
            }
        };
        self.lines.push(format!("{process} {said}"));
    }

    fn observe(&mut self) {
        if self.is_busy(8) {
            return;
        }
        let (began, ended) = (self.now, self.ended(8));
        let ends: Vec<String> =
            (0..KEYS).map(|key| format!("t-{key}@{0}/{0}", self.logs[key].committed.len())).collect();
        let offsets: Vec<String> = (0..KEYS).map(|key| format!("t-{key}@{}", self.logs[key].group_offset)).collect();
        self.lines.push(format!("8 ends {began} {ended} {}", ends.join(" ")));
        self.lines.push(format!("8 committed {began} {ended} {}", offsets.join(" ")));
    }

    fn disturb_group(&mut self, member: usize, key: usize) {
        match self.random.u8(0..3) {
            0 => self.members[member].asleep = !self.members[member].asleep,
            1 => {
                // An earlier commit that was under way all the time; no broker takes it in a later generation.
                if let Some(offset) = self.logs[key].late_commits.pop() {
                    self.logs[key].group_offset = offset;
                }
            }
            _ => self.rebalance(),
        }
    }

    /// Everybody who is awake gives up what it has, and gets its share of the next generation.
    fn rebalance(&mut self) {
        let awake: Vec<usize> = (0..MEMBERS).filter(|it| !self.members[*it].asleep && !self.is_busy(4 + *it)).collect();
        if awake.is_empty() {
            return;
        }
        self.generation += 1;
        self.logs.iter_mut().for_each(|log| log.late_commits.clear());
        for member in &awake {
            let held: Vec<String> = (0..KEYS)
                .filter(|key| self.members[*member].positions[*key].take().is_some())
                .map(|key| format!("t-{key}"))
                .collect();
            if !held.is_empty() {
                self.lines.push(format!("{} revoked {} {}", 4 + member, self.now, held.join(" ")));
            }
        }
        self.now += 1;
        for (place, member) in awake.iter().enumerate() {
            let given: Vec<usize> = (0..KEYS).filter(|key| key % awake.len() == place).collect();
            let names: Vec<String> = given.iter().map(|key| format!("t-{key}")).collect();
            for key in given {
                self.members[*member].positions[key] = Some(self.logs[key].group_offset);
            }
            self.members[*member].generation = self.generation;
            let line = format!("{} assigned {} {} {}", 4 + member, self.now, self.generation, names.join(" "));
            self.lines.push(line.trim_end().to_owned());
        }
        self.now += 1;
    }

    fn finish(mut self) -> Vec<String> {
        for key in 0..KEYS {
            let log = &mut self.logs[key];
            log.committed.extend(log.tail.drain(..).map(Some));
        }
        self.now += 1_000;
        for key in 0..KEYS {
            let (now, end) = (self.now, self.logs[key].committed.len());
            for from in (0..end.max(1)).step_by(7) {
                let to = end.min(from + 7);
                let chunk = (from..).zip(&self.logs[key].committed[from..to]);
                let records = chunk.filter_map(|(at, it)| it.map(|sent| format!("{at}={}", show(Some(sent)))));
                let records: Vec<String> = records.collect();
                let line = format!("9 final {now} {} t-{key} {from} {to} {}", now + 1, records.join(" "));
                self.lines.push(line.trim_end().to_owned());
            }
        }
        self.lines
    }
}

fn judge(lines: &[String]) -> super::Verdict {
    // What is random takes no time limits.
    let limits = Limits { lag: Time::MAX, ..LIMITS };
    check(&History::read(lines.join("\n").as_bytes()).unwrap(), limits)
}

#[test]
fn correct_histories_are_accepted() {
    let (mut acknowledged, mut failed, mut found) = (0, 0, 0);
    for seed in 0..400 {
        let lines = Model::new(seed).run();
        let verdict = judge(&lines);
        assert!(verdict.is_clean(), "seed {seed}: {verdict:#?}\n{}", lines.join("\n"));
        acknowledged += verdict.numbers.acknowledged;
        failed += verdict.numbers.failed;
        found += verdict.numbers.unknown_found;
    }
    // The histories are about something.
    assert!(acknowledged > 5_000 && failed > 400 && found > 2_000, "{acknowledged} {failed} {found}");
}

/// Changes one line that satisfies a condition, one of them at random.
fn spoil(
    lines: &mut [String],
    random: &mut fastrand::Rng,
    wanted: impl Fn(&str) -> bool,
    change: impl Fn(&str) -> String,
) -> bool {
    let fitting: Vec<usize> = (0..lines.len()).filter(|index| wanted(&lines[*index])).collect();
    let Some(index) = random.choice(fitting) else { return false };
    lines[index] = change(&lines[index]);
    true
}

#[test]
fn spoilt_histories_are_not() {
    let mut spoilt = [0; 3];
    for seed in 0..200 {
        let mut random = fastrand::Rng::with_seed(seed);
        let good = Model::new(seed).run();
        let with_many = |line: &str| line.contains(" final ") && line.split('=').count() > 2;
        let has_acknowledged = |line: &str, word: &str| {
            let sent = word.split_once('=').unwrap().1;
            line.contains(" final ") && good.iter().any(|it| it.contains(" ack ") && it.ends_with(&format!("={sent}")))
        };

        // The last record of a line is gone, and it was acknowledged.
        let mut lines = good.clone();
        let last = |line: &str| line.rsplit_once(' ').unwrap().1.to_owned();
        let wanted = |line: &str| with_many(line) && has_acknowledged(line, &last(line));
        if spoil(&mut lines, &mut random, wanted, |line| line.rsplit_once(' ').unwrap().0.to_owned()) {
            assert!(names(&judge(&lines)).contains(&Anomaly::LostWrite), "seed {seed}");
            spoilt[0] += 1;
        }
        // The reader gets its first record of a poll again.
        let mut lines = good.clone();
        let again = |line: &str| {
            let first = line.split(' ').nth(4).unwrap_or_default();
            format!("{line} {first}")
        };
        if spoil(&mut lines, &mut random, |line| line.starts_with("3 poll ") && line.contains('@'), again) {
            assert!(names(&judge(&lines)).contains(&Anomaly::IntNonmonotonicPoll), "seed {seed}");
            spoilt[1] += 1;
        }
        // Two records have changed places.
        let mut lines = good.clone();
        let swapped = |line: &str| {
            let (rest, last) = line.rsplit_once(' ').unwrap();
            let (rest, before) = rest.rsplit_once(' ').unwrap();
            let (one, other) = (last.split_once('=').unwrap(), before.split_once('=').unwrap());
            format!("{rest} {}={} {}={}", other.0, one.1, one.0, other.1)
        };
        if spoil(&mut lines, &mut random, with_many, swapped) {
            // Two that nobody was told of, and nobody polled, may stand either way round.
            spoilt[2] += usize::from(!judge(&lines).is_clean());
        }
    }
    assert!(spoilt[0] > 150 && spoilt[1] > 150 && spoilt[2] > 150, "{spoilt:?}");
}
