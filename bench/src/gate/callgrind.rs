//! User instructions and allocations by `valgrind --tool=callgrind`: exact, whatever else the machine does.
//!
//! The tool is told to forget and to write out what it counted by `vgdb` while the broker runs; a dump is read here.
//! The format of a dump is in valgrind's manual, chapter "Callgrind Format Specification".

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use super::broker::Broker;

/// What the dump of the broker's thread for regular work mentions. That follows the clock and not the requests.
const HOUSEKEEPER: &str = "ottla_node::housekeeping::Shared::run";

/// What was counted between two points.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) instructions: u64,
    /// Calls of the allocator that ask for memory.
    pub(super) allocations: u64,
}

/// A broker under callgrind.
pub(super) struct Callgrind {
    pub(super) broker: Broker,
    place: PathBuf,
    number: u32,
}

impl Callgrind {
    pub(super) fn start(binary: &Path, place: &Path) -> Result<Callgrind> {
        let wrapper = [
            "valgrind".to_owned(),
            "--tool=callgrind".to_owned(),
            format!("--callgrind-out-file={}", place.join("callgrind").display()),
            // Counting starts when the first script is warm; until then this is several times faster.
            "--instr-atstart=no".to_owned(),
            // A file for each thread, so that one of them can be left out.
            "--separate-threads=yes".to_owned(),
        ];
        let broker = Broker::start(binary, place, &wrapper)?;
        let callgrind = Callgrind { broker, place: place.to_owned(), number: 0 };
        callgrind.tell("instrumentation on")?;
        Ok(callgrind)
    }

    /// Forgets what was counted.
    pub(super) fn zero(&self) -> Result<()> {
        self.tell("zero")
    }

    /// What was counted since, without the housekeeper. What it was made of is left in `keep`.
    pub(super) fn counts(&mut self, keep: &Path) -> Result<Counts> {
        self.tell("dump")?;
        self.number += 1;
        fs::create_dir_all(keep)?;
        // callgrind.NUMBER-THREAD
        let prefix = format!("callgrind.{}-", self.number);
        let mut counts = Counts::default();
        for entry in fs::read_dir(&self.place)? {
            let entry = entry?;
            if !entry.file_name().to_string_lossy().starts_with(&prefix) {
                continue;
            }
            let dump = fs::read_to_string(entry.path())?;
            if !dump.contains(HOUSEKEEPER) {
                let thread = parse(&dump)?;
                counts.instructions += thread.instructions;
                counts.allocations += thread.allocations;
                fs::copy(entry.path(), keep.join(entry.file_name()))?;
            }
        }
        if counts.instructions == 0 {
            bail!("callgrind counted nothing");
        }
        Ok(counts)
    }

    fn tell(&self, command: &str) -> Result<()> {
        let told = Command::new("vgdb").arg(format!("--pid={}", self.broker.pid())).arg(command).output()?;
        if !told.status.success() {
            bail!("vgdb {command}: {}", String::from_utf8_lossy(&told.stderr));
        }
        Ok(())
    }
}

/// Reads a dump.
fn parse(dump: &str) -> Result<Counts> {
    let mut counts = Counts::default();
    let mut names = HashMap::new();
    let (mut caller, mut callee, mut complete) = ("", "", false);
    for line in dump.lines() {
        if let Some(text) = line.strip_prefix("fn=") {
            caller = function(text, &mut names);
        } else if let Some(text) = line.strip_prefix("cfn=") {
            callee = function(text, &mut names);
        } else if let Some(text) = line.strip_prefix("calls=") {
            // The functions of the allocator call each other; only what comes from outside is somebody's request.
            if is_allocator(callee) && callee.contains("alloc") && !is_allocator(caller) {
                let calls = text.split(' ').next().unwrap_or_default();
                counts.allocations += calls.parse::<u64>().with_context(|| line.to_owned())?;
            }
        } else if let Some(text) = line.strip_prefix("totals:") {
            counts.instructions = text.trim().parse().with_context(|| line.to_owned())?;
            complete = true;
        }
    }
    if !complete {
        bail!("a dump without a total");
    }
    Ok(counts)
}

/// A name stands behind its number where it comes first, `(7) main`, and is left out later, `(7)`.
fn function<'a>(text: &'a str, names: &mut HashMap<&'a str, &'a str>) -> &'a str {
    match text.split_once(' ') {
        Some((number, name)) => {
            names.insert(number, name);
            name
        }
        None => names.get(text).copied().unwrap_or_default(),
    }
}

/// Whether a function is mimalloc's.
fn is_allocator(name: &str) -> bool {
    name.trim_start_matches('_').starts_with("mi_")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on fails")]

    use super::{Counts, parse};

    const DUMP: &str = "\
version: 1
events: Ir

fl=(1)
fn=(1) ottla_broker::api::produce::prepare
12 300
cfn=(2) mi_malloc_aligned
calls=3 0
12 150
cfn=(4) mi_free
calls=3 0
13 60

fn=(2)
0 100
cfn=(3) _mi_malloc_generic
calls=1 0
0 50

fn=(5) alloc::raw_vec::grow
20 10
cfn=(2)
calls=2 0
20 100
cfn=(6) mi_realloc_aligned
calls=1 0
20 30

totals: 12345
";

    #[test]
    fn requests_for_memory_are_counted_where_they_come_from_outside_of_the_allocator() {
        assert_eq!(parse(DUMP).unwrap(), Counts { instructions: 12345, allocations: 6 });
    }

    #[test]
    fn a_dump_that_was_cut_short_is_an_error() {
        assert!(parse(DUMP.split_once("totals").unwrap().0).is_err());
    }
}
