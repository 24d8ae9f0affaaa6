//! The `cleaned` file: how far a log is compacted, where it may have holes, and which segments are just being replaced
//! (docs/formats/cleaned.md).
//!
//! Replacing the file is the moment a replacement holds (rule L9): before it a start finds the old segments, after it
//! it finishes the work. Who replaces what is in `swap.rs`.

use std::{io, path::Path};

use ottla_types::{Offset, Timestamp};

use crate::{
    checked_file,
    disk::Disk,
    log::Shared,
    segment::{CLEANED, Files, INDEX, LOG},
};

const FILE: &str = "cleaned";
const MAGIC: [u8; 4] = *b"OTCL";
const VERSION: u16 = 1;
const NONE: i64 = -1;

/// What compaction has done to a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct CleanMark {
    /// Below, only the last record of each key is left.
    pub(crate) clean_to: Offset,
    /// Below, offsets may be missing. A gap further up is damage, or a torn write.
    pub(crate) holes_below: Offset,
    /// From when on tombstones below `clean_to` may go.
    pub(crate) horizon: Option<Timestamp>,
    /// The segments of these offsets are being replaced by the `.cleaned` file of the first.
    pub(crate) replacing: Option<(Offset, Offset)>,
}

impl CleanMark {
    fn encode(&self) -> Vec<u8> {
        let (from, to) = self.replacing.unwrap_or((Offset(NONE), Offset(NONE)));
        let horizon = self.horizon.map_or(NONE, |horizon| horizon.0);
        let fields = [self.clean_to.0, self.holes_below.0, horizon, from.0, to.0];
        checked_file::encode(MAGIC, VERSION, fields.map(i64::to_be_bytes).as_flattened())
    }

    fn decode(bytes: &[u8]) -> Option<CleanMark> {
        let (fields, rest) = checked_file::decode(MAGIC, VERSION, bytes)?.as_chunks::<8>();
        let [clean_to, holes_below, horizon, from, to] = *fields else { return None };
        let [clean_to, holes_below, horizon, from, to] =
            [clean_to, holes_below, horizon, from, to].map(i64::from_be_bytes);
        rest.is_empty().then_some(CleanMark {
            clean_to: Offset(clean_to),
            holes_below: Offset(holes_below),
            horizon: (horizon != NONE).then_some(Timestamp(horizon)),
            replacing: (from != NONE).then_some((Offset(from), Offset(to))),
        })
    }

    /// Puts it in place of the older one. The directory is the caller's to sync.
    fn write(&self, files: &Files) -> io::Result<()> {
        checked_file::write(files.disk.as_ref(), &files.dir.join(FILE), &self.encode())
    }

    /// Reads it for a start, and finishes what it says was under way; `names` are those of the directory, before and
    /// after. A file that is not whole says nothing: holes are possible everywhere and all is to be cleaned again.
    pub(crate) fn load(files: &Files, names: Vec<String>) -> io::Result<(CleanMark, Vec<String>)> {
        let mut mark = CleanMark::peek(files.disk.as_ref(), &files.dir, &names)?;
        let Some((from, to)) = mark.replacing.take() else { return Ok((mark, names)) };
        finish_replacing(files, from, to)?;
        files.disk.sync_dir(&files.dir)?;
        mark.write(files)?;
        files.disk.sync_dir(&files.dir)?;
        Ok((mark, files.disk.list(&files.dir)?))
    }

    /// What it says in a directory of these names.
    pub(crate) fn peek(disk: &dyn Disk, dir: &Path, names: &[String]) -> io::Result<CleanMark> {
        if !names.iter().any(|name| name == FILE) {
            return Ok(CleanMark::default());
        }
        let unknown = CleanMark { holes_below: Offset(i64::MAX), ..CleanMark::default() };
        Ok(CleanMark::decode(&disk.read(&dir.join(FILE))?).unwrap_or(unknown))
    }

    /// What is still true of a log that ends at `end`.
    pub(crate) fn cut(self, end: Offset) -> CleanMark {
        CleanMark { clean_to: self.clean_to.min(end), holes_below: self.holes_below.min(end), ..self }
    }
}

impl Shared {
    /// Changes what the file says; the directory is the caller's to sync. Compaction and the sync of a copy both do,
    /// each its own part and one at a time.
    pub(crate) fn change_cleaned(&self, change: impl FnOnce(CleanMark) -> CleanMark) -> io::Result<()> {
        let mut mark = self.cleaned.lock();
        let next = change(*mark);
        if next != *mark {
            next.write(&self.files)?;
            *mark = next;
        }
        Ok(())
    }
}

/// Puts the new segment `from` in the place of those from there to `to`. May be done again from any point.
pub(crate) fn finish_replacing(files: &Files, from: Offset, to: Offset) -> io::Result<()> {
    let disk = files.disk.as_ref();
    let renamed = |ending: &str| {
        let new = files.path(from, &format!("{ending}{CLEANED}"));
        match disk.rename(&new, &files.path(from, ending)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true),
        }
    };
    renamed(LOG)?;
    if !renamed(INDEX)? {
        // Nobody can tell whose index it is; it is built again when it is wanted.
        remove(files, from, INDEX)?;
    }
    for name in disk.list(&files.dir)? {
        if let Some((digits, ending @ ("log" | "index"))) = name.split_once('.')
            && let Ok(base) = digits.parse::<i64>()
            && from.0 < base
            && base < to.0
        {
            remove(files, Offset(base), if ending == "log" { LOG } else { INDEX })?;
        }
    }
    Ok(())
}

/// Removes a segment's file, if it is there.
fn remove(files: &Files, base: Offset, ending: &str) -> io::Result<()> {
    match files.disk.remove(&files.path(base, ending)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_the_format_page_is_written_and_read() {
        let page = include_str!("../../../docs/formats/cleaned.md");
        let rows = page.lines().filter(|line| line.starts_with("00") && line.len() > 6);
        let digits = rows.flat_map(|row| row[6..].split_whitespace());
        let example: Vec<u8> = digits.map(|digits| u8::from_str_radix(digits, 16).unwrap()).collect();
        let mark = CleanMark {
            clean_to: Offset(300),
            holes_below: Offset(300),
            horizon: Some(Timestamp(1_700_000_000_000)),
            replacing: None,
        };
        assert_eq!(mark.encode(), example);
        assert_eq!(CleanMark::decode(&example), Some(mark));
        assert_eq!(CleanMark::decode(&example[1..]), None);
    }
}
