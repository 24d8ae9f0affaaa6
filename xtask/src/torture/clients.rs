//! The clients as processes, and the history they write: lines with the number of the process in front.
//!
//! What they say goes to one file as it comes. Beside it only that is remembered which the harness waits for: that
//! writes go on in every partition, and that readers have come to the end.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, bail};
use parking_lot::Mutex;

use super::checker::history::{Process as Number, Time};
use crate::broker::{Process, until};
use crate::libraries::{Library, command, text};

/// How long a client may take to end.
const PATIENCE: Duration = Duration::from_secs(120);
/// Producers' numbers of one library begin at its place times this.
const PRODUCERS: usize = 100;

pub(crate) const LIBRARIES: [Library; 3] = [
    Library {
        name: "go",
        prepare: |cache| vec![(command("go", &["build", "-o", &text(&cache.join("go")), "."]), "compat/torture/go")],
        program: |cache| Command::new(cache.join("go")),
    },
    Library {
        name: "python",
        prepare: |cache| {
            let place = cache.join("python");
            let pip = text(&place.join("bin/pip"));
            vec![
                (command("python3", &["-m", "venv", &text(&place)]), "."),
                (command(&pip, &["install", "--quiet", "-r", "requirements.txt"]), "compat/torture/python"),
            ]
        },
        program: |cache| {
            let mut program = Command::new(cache.join("python/bin/python"));
            program.arg("compat/torture/python/client.py");
            program
        },
    },
    Library {
        name: "java",
        prepare: |cache| {
            let (jars, classes) = (text(&cache.join("java/libs/*")), text(&cache.join("java/classes")));
            vec![
                (command("mvn", &["-q", "dependency:copy-dependencies"]), "compat/torture/java"),
                (command("javac", &["-cp", &jars, "-d", &classes, "Client.java"]), "compat/torture/java"),
            ]
        },
        program: |cache| {
            let path = format!("{}:{}", text(&cache.join("java/libs/*")), text(&cache.join("java/classes")));
            command("java", &["-Xmx128m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", &path, "Client"])
        },
    },
];

/// The clock of every line.
pub(crate) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time::try_from(since.as_micros()).unwrap_or(Time::MAX)
}

/// The history as it is written, and what of it is remembered.
#[derive(Debug)]
pub(crate) struct Story {
    file: BufWriter<File>,
    /// How many records are acknowledged, by process and partition.
    acknowledged: BTreeMap<(Number, String), u64>,
    /// Where the readers are that chose their partitions themselves: the next offset, by process and partition.
    positions: BTreeMap<(Number, String), i64>,
}

impl Story {
    pub(crate) fn create(file: &Path) -> Result<Story> {
        let file = BufWriter::new(File::create(file).with_context(|| file.display().to_string())?);
        Ok(Story { file, acknowledged: BTreeMap::new(), positions: BTreeMap::new() })
    }

    /// Writes down what a process says.
    pub(crate) fn say(&mut self, process: Number, line: &str) -> Result<()> {
        writeln!(self.file, "{process} {line}")?;
        if let Some(rest) = line.strip_prefix("ack ") {
            for (key, _) in places(rest) {
                *self.acknowledged.entry((process, key.to_owned())).or_default() += 1;
            }
        } else if let Some(rest) = line.strip_prefix("assign ") {
            self.positions.extend(places(rest).map(|(key, offset)| ((process, key.to_owned()), offset)));
        } else if line.starts_with("poll ") {
            for (key, offset) in places(line) {
                if let Some(position) = self.positions.get_mut(&(process, key.to_owned())) {
                    *position = offset + 1;
                }
            }
        }
        Ok(())
    }

    /// Writes something down for people.
    pub(crate) fn note(&mut self, words: &str) -> Result<()> {
        Ok(writeln!(self.file, "# {words}")?)
    }

    /// How many records are acknowledged by now, by partition.
    pub(crate) fn acknowledged(&self) -> BTreeMap<String, u64> {
        let mut by_partition: BTreeMap<String, u64> = BTreeMap::new();
        for ((_, key), count) in &self.acknowledged {
            *by_partition.entry(key.clone()).or_default() += count;
        }
        by_partition
    }

    /// The same by process and partition.
    pub(crate) fn acknowledged_to(&self) -> BTreeMap<(Number, String), u64> {
        self.acknowledged.clone()
    }

    /// A reader that is not there yet, in words.
    pub(crate) fn behind(&self, ends: &BTreeMap<String, i64>) -> Option<String> {
        self.positions.iter().find_map(|((process, key), position)| {
            let end = ends.get(key).filter(|end| position < end)?;
            Some(format!("process {process} has read {key} up to {position} of {end}"))
        })
    }

    pub(crate) fn flush(&mut self) -> Result<()> {
        Ok(self.file.flush()?)
    }
}

/// `KEY@OFFSET` of each word that has one.
fn places(words: &str) -> impl Iterator<Item = (&str, i64)> {
    words.split(' ').filter_map(|word| {
        let (key, rest) = word.split_once('@')?;
        Some((key, rest.split('=').next()?.parse().ok()?))
    })
}

/// What a client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Produce,
    Assign,
    Group,
}

/// What all clients are told.
pub(crate) struct Load<'a> {
    pub(crate) cache: &'a Path,
    /// For what they say on their standard error.
    pub(crate) place: &'a Path,
    /// Apart by commas, as are the topics.
    pub(crate) bootstrap: String,
    pub(crate) topics: String,
    pub(crate) partitions: i32,
    pub(crate) group: &'static str,
    pub(crate) story: Arc<Mutex<Story>>,
}

/// A running client.
pub(crate) struct Client {
    pub(crate) role: Role,
    name: String,
    process: Process,
    input: Option<ChildStdin>,
    reader: JoinHandle<Result<()>>,
}

impl Client {
    /// Starts a library, by its place in `LIBRARIES`, in a role.
    pub(crate) fn start(load: &Load<'_>, index: usize, role: Role) -> Result<Client> {
        let library = LIBRARIES.get(index).context("no such library")?;
        let mut program = (library.program)(load.cache);
        let partitions = load.partitions.to_string();
        let (word, number, last) = match role {
            Role::Produce => ("produce", index, vec![partitions, (index * PRODUCERS).to_string()]),
            Role::Assign => ("assign", index + LIBRARIES.len(), vec![partitions]),
            Role::Group => ("group", index + 2 * LIBRARIES.len(), vec![load.group.to_owned()]),
        };
        let (name, number) = (format!("{}-{word}", library.name), Number::try_from(number)?);
        program.arg(word).arg(&load.bootstrap).arg(&load.topics).args(last);
        let log = File::create(load.place.join(format!("{name}.log")))?;
        program.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut process = Process(program.spawn().with_context(|| name.clone())?);
        let input = process.0.stdin.take();
        let output = BufReader::new(process.0.stdout.take().context("no output")?);
        let story = Arc::clone(&load.story);
        let reader = thread::spawn(move || read(output, number, &story));
        Ok(Client { role, name, process, input, reader })
    }

    /// What went wrong if it has ended although nobody asked it to.
    pub(crate) fn ended_by_itself(&mut self) -> Result<Option<String>> {
        Ok(self.process.0.try_wait()?.map(|status| format!("{} ended by itself: {status}", self.name)))
    }

    /// Tells it to end.
    pub(crate) fn ask_to_end(&mut self) {
        self.input = None;
    }

    /// Waits until it has ended, and all it said is written down.
    pub(crate) fn finish(mut self) -> Result<()> {
        self.input = None;
        if !until(PATIENCE, || Ok(self.process.0.try_wait()?.is_some()))? {
            bail!("{} does not end within {PATIENCE:?}", self.name);
        }
        let status = self.process.0.wait()?;
        self.reader.join().ok().with_context(|| format!("what {} said could not be read", self.name))??;
        if !status.success() {
            bail!("{} ended: {status}", self.name);
        }
        Ok(())
    }
}

fn read(mut output: impl BufRead, number: Number, story: &Mutex<Story>) -> Result<()> {
    let mut line = String::new();
    while output.read_line(&mut line)? > 0 {
        // A line that was cut off says nothing.
        if let Some(whole) = line.strip_suffix('\n') {
            story.lock().say(number, whole)?;
        }
        line.clear();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_clients_say_is_kept_and_what_the_harness_waits_for_is_remembered() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("history");
        let mut story = Story::create(&file).unwrap();
        story.note("a note").unwrap();
        for line in ["send 1 1 a-0=1.0", "ack 2 a-0@4=1.0", "fail 3 REQUEST_TIMED_OUT a-1=2.0"] {
            story.say(1, line).unwrap();
        }
        assert_eq!(story.acknowledged(), BTreeMap::from([("a-0".to_owned(), 1)]));
        let ends = BTreeMap::from([("a-0".to_owned(), 5)]);
        assert_eq!(story.behind(&ends), None, "nobody reads");
        story.say(4, "assign 3 a-0@0 a-1@0").unwrap();
        story.say(4, "poll 4 5 a-0@3=1.7").unwrap();
        assert_eq!(story.behind(&ends).unwrap(), "process 4 has read a-0 up to 4 of 5");
        story.say(4, "poll 5 6 a-0@4=1.0").unwrap();
        story.say(7, "poll 5 6 a-0@1=?").unwrap();
        assert_eq!(story.behind(&ends), None);
        story.flush().unwrap();
        let kept = std::fs::read_to_string(file).unwrap();
        assert!(kept.starts_with("# a note\n1 send 1 1 a-0=1.0\n1 ack 2 ") && kept.ends_with("\n7 poll 5 6 a-0@1=?\n"));
    }
}
