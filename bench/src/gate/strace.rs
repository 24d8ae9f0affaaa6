//! System calls by `strace`: exact, with the names beside the numbers.
//!
//! The broker runs under it from its start, and the list it writes is read from one point to another.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};

use super::broker::Broker;

/// How often each system call was made.
pub(super) type Calls = BTreeMap<String, u64>;

/// A broker under strace.
pub(super) struct Strace {
    pub(super) broker: Broker,
    list: PathBuf,
}

impl Strace {
    pub(super) fn start(binary: &Path, place: &Path) -> Result<Strace> {
        let list = place.join("strace");
        let path = list.to_str().context("the path of the list is not UTF-8")?;
        // With -D the broker is our child, and strace its grandchild. Short strings: we want the names.
        let wrapper = ["strace", "-D", "-f", "-s0", "-e", "signal=none", "-o", path].map(str::to_owned);
        let broker = Broker::start(binary, place, &wrapper)?;
        Ok(Strace { broker, list })
    }

    /// A point from which to count.
    pub(super) fn point(&self) -> Result<u64> {
        Ok(self.list.metadata()?.len())
    }

    /// The calls since a point.
    pub(super) fn calls(&self, point: u64) -> Result<Calls> {
        let mut list = File::open(&self.list)?;
        list.seek(SeekFrom::Start(point))?;
        let mut lines = String::new();
        list.read_to_string(&mut lines)?;
        Ok(parse(&lines, self.broker.housekeeper()?))
    }
}

/// Reads a list of `THREAD NAME(ARGUMENTS...`. A call that was interrupted has a second line, with `<... NAME resumed`
/// in place of the name.
fn parse(lines: &str, ignored: u32) -> Calls {
    let mut calls = Calls::new();
    for line in lines.lines() {
        let Some((thread, call)) = line.split_once(' ') else { continue };
        let Some((name, _)) = call.trim_start().split_once('(') else { continue };
        let is_name = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if is_name && thread.parse() != Ok(ignored) {
            *calls.entry(name.to_owned()).or_default() += 1;
        }
    }
    calls
}

#[cfg(test)]
mod tests {
    use super::{Calls, parse};

    #[test]
    fn a_call_is_counted_once_and_the_housekeeper_not_at_all() {
        let lines = "\
701  recvfrom(12, \"\"..., 4096, 0, NULL, NULL) = 192
701  pwritev(14, [{iov_base=\"\"..., iov_len=16}], 1, 0 <unfinished ...>
702  futex(0x7f, FUTEX_WAIT_PRIVATE, 2, NULL) = 0
703  futex(0x7f, FUTEX_WAIT_PRIVATE, 2, NULL) = -1 ETIMEDOUT (Connection timed out)
701  <... pwritev resumed>)            = 192
704  +++ exited with 0 +++
701  recvfrom(12, 0x7f, 4096, 0, NULL, NULL) = -1 EAGAIN (Resource temporarily unavailable)
";
        let expected: Calls = [("futex", 1), ("pwritev", 1), ("recvfrom", 2)].map(|(n, c)| (n.to_owned(), c)).into();
        assert_eq!(parse(lines, 703), expected);
    }
}
