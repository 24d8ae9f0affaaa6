//! The members as processes: started, stopped for a while, asked to leave, killed.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};

use super::Kind;
use super::flow::{Seen, now};
use super::history::{Event, What, Who};
use crate::broker::Process;
use crate::libraries::{Library, command, text};

/// How long a member may take to leave: a client gives a dead broker this long by default, and then some.
const LEAVE_PATIENCE: Duration = Duration::from_secs(60);
/// Under KIP-848 nobody gets an instance id while its last holder may live, and libraries give up when they are told.
const SESSION: Duration = Duration::from_secs(7);
/// Every so many members is a static one.
const STATIC_EVERY: usize = 4;

pub(crate) const LIBRARIES: [Library; 3] = [
    Library {
        name: "go",
        prepare: |cache| vec![(command("go", &["build", "-o", &text(&cache.join("go")), "."]), "compat/groups/go")],
        program: |cache| Command::new(cache.join("go")),
    },
    Library {
        name: "python",
        prepare: |cache| {
            let place = cache.join("python");
            let pip = text(&place.join("bin/pip"));
            vec![
                (command("python3", &["-m", "venv", &text(&place)]), "."),
                (command(&pip, &["install", "--quiet", "-r", "requirements.txt"]), "compat/groups/python"),
            ]
        },
        program: |cache| {
            let mut program = Command::new(cache.join("python/bin/python"));
            program.arg("compat/groups/python/member.py");
            program
        },
    },
    Library {
        name: "java",
        prepare: |cache| {
            let (jars, classes) = (text(&cache.join("java/libs/*")), text(&cache.join("java/classes")));
            vec![
                (command("mvn", &["-q", "dependency:copy-dependencies"]), "compat/groups/java"),
                (command("javac", &["-cp", &jars, "-d", &classes, "Member.java"]), "compat/groups/java"),
            ]
        },
        program: |cache| {
            let path = format!("{}:{}", text(&cache.join("java/libs/*")), text(&cache.join("java/classes")));
            // Many of them share a small machine: a small heap, one collector thread, no second compiler.
            command("java", &["-Xmx64m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &path, "Member"])
        },
    },
];

/// What all members have in common.
pub(crate) struct Group<'a> {
    /// The libraries that are there, by their place in `LIBRARIES`.
    pub(crate) libraries: &'a [usize],
    pub(crate) cache: &'a Path,
    pub(crate) place: &'a Path,
    pub(crate) address: SocketAddr,
    pub(crate) topic: &'a str,
    pub(crate) kind: Kind,
    pub(crate) seen: Arc<Mutex<Seen>>,
}

/// All members, alive or not.
pub(crate) struct Members<'a> {
    group: Group<'a>,
    slots: Vec<Slot>,
    started: Who,
    /// What was done to them.
    pub(crate) faults: Faults,
    /// What no member may do.
    pub(crate) failures: Vec<String>,
}

#[derive(Debug, Default)]
pub(crate) struct Faults {
    pub(crate) killed: usize,
    pub(crate) left: usize,
    pub(crate) stopped: usize,
    pub(crate) stalled: usize,
}

/// The place of one member, which is filled again when it has gone.
struct Slot {
    library: usize,
    instance: Option<String>,
    state: State,
}

enum State {
    Running(Member),
    Stopped(Member, Instant),
    Leaving(Member, Instant),
    /// To be started again then.
    Gone(Instant),
}

impl<'a> Members<'a> {
    pub(crate) fn start(group: Group<'a>, count: usize) -> Result<Members<'a>> {
        let now = Instant::now();
        let slots = (0..count)
            .map(|index| Slot {
                library: group.libraries.get(index % group.libraries.len()).copied().unwrap_or_default(),
                instance: (index % STATIC_EVERY == STATIC_EVERY - 1).then(|| format!("static-{index}")),
                state: State::Gone(now),
            })
            .collect();
        let mut members = Members { group, slots, started: 0, faults: Faults::default(), failures: Vec::new() };
        members.tick()?;
        Ok(members)
    }

    /// Does what is due by now: goes on with stopped members, starts others in the places of those that are gone.
    pub(crate) fn tick(&mut self) -> Result<()> {
        let now = Instant::now();
        for slot in &mut self.slots {
            let state = std::mem::replace(&mut slot.state, State::Gone(now));
            slot.state = match state {
                State::Running(mut member) => match member.process.0.try_wait()? {
                    None => State::Running(member),
                    Some(status) => {
                        self.failures.push(format!("process {} ended by itself: {status}", member.who));
                        member.gone()?;
                        State::Gone(now)
                    }
                },
                State::Stopped(member, until) if until <= now => {
                    member.signal(Signal::CONT)?;
                    State::Running(member)
                }
                State::Leaving(mut member, since) => match member.process.0.try_wait()? {
                    None if since + LEAVE_PATIENCE > now => State::Leaving(member, since),
                    None => {
                        self.failures.push(format!("process {} does not leave", member.who));
                        member.kill()?;
                        State::Gone(now)
                    }
                    Some(status) => {
                        if !status.success() {
                            self.failures.push(format!("process {} left badly: {status}", member.who));
                        }
                        member.gone()?;
                        State::Gone(now)
                    }
                },
                State::Gone(until) if until <= now => {
                    self.started += 1;
                    State::Running(Member::start(&self.group, slot.library, slot.instance.as_deref(), self.started)?)
                }
                waiting => waiting,
            };
        }
        Ok(())
    }

    /// Does something bad to one of them, unless a third of them are away already.
    pub(crate) fn disturb(&mut self, random: &mut fastrand::Rng) -> Result<()> {
        let running: Vec<usize> = (0..self.slots.len()).filter(|index| self.is_running(*index)).collect();
        if running.len() * 3 <= self.slots.len() * 2 {
            return Ok(());
        }
        let Some(slot) = random.choice(running).and_then(|index| self.slots.get_mut(index)) else { return Ok(()) };
        let now = Instant::now();
        let later = |most: u64, random: &mut fastrand::Rng| now + Duration::from_millis(random.u64(0..most));
        let State::Running(mut member) = std::mem::replace(&mut slot.state, State::Gone(now)) else { return Ok(()) };
        slot.state = match random.u8(0..10) {
            0..2 => {
                self.faults.killed += 1;
                member.kill()?;
                let held = slot.instance.is_some() && self.group.kind == Kind::Consumer;
                State::Gone(later(4_000, random) + if held { SESSION } else { Duration::ZERO })
            }
            2..4 => {
                self.faults.left += 1;
                member.input = None;
                State::Leaving(member, now)
            }
            4..7 => {
                self.faults.stopped += 1;
                member.signal(Signal::STOP)?;
                State::Stopped(member, later(16_000, random))
            }
            _ => {
                self.faults.stalled += 1;
                if let Some(input) = &mut member.input {
                    writeln!(input, "{}", random.u64(1_000..10_000))?;
                }
                State::Running(member)
            }
        };
        Ok(())
    }

    fn is_running(&self, index: usize) -> bool {
        self.slots.get(index).is_some_and(|slot| matches!(slot.state, State::Running(_)))
    }

    /// Has everybody leave, and waits for it.
    pub(crate) fn finish(&mut self) -> Result<()> {
        let deadline = Instant::now() + LEAVE_PATIENCE;
        for slot in &mut self.slots {
            let state = std::mem::replace(&mut slot.state, State::Gone(deadline));
            if let State::Stopped(member, _) = &state {
                member.signal(Signal::CONT)?;
            }
            if let State::Running(mut member) | State::Stopped(mut member, _) | State::Leaving(mut member, _) = state {
                member.input = None;
                slot.state = State::Leaving(member, Instant::now());
            }
        }
        while self.slots.iter().any(|slot| matches!(slot.state, State::Leaving(..))) {
            self.tick_leaving(deadline)?;
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// As `tick`, and nobody is started any more.
    fn tick_leaving(&mut self, deadline: Instant) -> Result<()> {
        self.slots.iter_mut().for_each(|slot| {
            if let State::Gone(until) = &mut slot.state {
                *until = deadline + LEAVE_PATIENCE;
            }
        });
        self.tick()
    }
}

/// One running member.
struct Member {
    who: Who,
    process: Process,
    input: Option<ChildStdin>,
    reader: JoinHandle<Result<()>>,
}

impl Member {
    fn start(group: &Group<'_>, library: usize, instance: Option<&str>, who: Who) -> Result<Member> {
        let library = LIBRARIES.get(library).context("no such library")?;
        let mut program = (library.program)(group.cache);
        program.arg(group.address.to_string()).arg(group.topic).arg(group.kind.name()).arg(group.kind.name());
        program.args(instance);
        let file = |kind| File::create(group.place.join(format!("{}-{who}.{kind}", library.name)));
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(file("log")?);
        let mut process = Process(program.spawn()?);
        let input = process.0.stdin.take();
        let output = BufReader::new(process.0.stdout.take().context("no output")?);
        let (seen, copy) = (Arc::clone(&group.seen), file("jsonl")?);
        let reader = thread::spawn(move || read(output, copy, who, &seen));
        Ok(Member { who, process, input, reader })
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.process.0), signal)?)
    }

    fn kill(mut self) -> Result<()> {
        self.process.0.kill()?;
        self.process.0.wait()?;
        self.gone()
    }

    /// Waits until all it said is read.
    fn gone(self) -> Result<()> {
        let who = self.who;
        self.reader.join().ok().with_context(|| format!("what process {who} said could not be read"))?
    }
}

/// What is said goes to the history, and to a file for whoever has to find out what happened.
fn read(mut output: impl BufRead, mut copy: File, who: Who, seen: &Mutex<Seen>) -> Result<()> {
    let mut line = Vec::new();
    while output.read_until(b'\n', &mut line)? > 0 {
        copy.write_all(&line)?;
        // A line that was cut off by a kill was not followed by the commit of what it says.
        if line.ends_with(b"\n") {
            match serde_json::from_slice::<Event>(&line) {
                Ok(event) => seen.lock().event(who, event),
                Err(error) => bail!("process {who} said {:?}: {error}", String::from_utf8_lossy(&line)),
            }
        }
        line.clear();
    }
    seen.lock().event(who, Event { at: now(), what: What::Ended });
    Ok(())
}
