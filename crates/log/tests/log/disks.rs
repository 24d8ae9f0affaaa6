//! The simulated disk does what the real one does, and the real one does it with and without Linux's own calls: or the
//! tests on the first would say nothing of the second.

use std::{
    io::{self, IoSlice},
    path::Path,
};

use ottla_log::{Disk, OsDisk, ReadError, SimDisk};
use ottla_types::Offset;
use proptest::{collection::vec, prelude::*};

use crate::common;

const NAMES: [&str; 3] = ["a", "b", "c"];

#[derive(Clone, Debug)]
enum Step {
    Create(usize),
    Write(usize, u64, Vec<usize>),
    Read(usize, u64, usize),
    Truncate(usize, u64),
    Rename(usize, usize),
    Remove(usize),
    Sync(usize),
}

fn step() -> impl Strategy<Value = Step> {
    let name = || 0..NAMES.len();
    prop_oneof![
        2 => name().prop_map(Step::Create),
        4 => (name(), 0u64..40, vec(0usize..20, 0..6)).prop_map(|(name, at, lens)| Step::Write(name, at, lens)),
        4 => (name(), 0u64..60, 0usize..60).prop_map(|(name, at, len)| Step::Read(name, at, len)),
        1 => (name(), 0u64..60).prop_map(|(name, len)| Step::Truncate(name, len)),
        2 => (name(), name()).prop_map(|(from, to)| Step::Rename(from, to)),
        1 => name().prop_map(Step::Remove),
        1 => name().prop_map(Step::Sync),
    ]
}

/// What a step answers, and what is there afterwards.
type Seen = (Result<Vec<u8>, io::ErrorKind>, Vec<(String, u64, Vec<u8>)>, Vec<bool>);

fn take(disk: &dyn Disk, root: &Path, number: u8, step: &Step) -> Seen {
    let path = |name: usize| root.join(NAMES[name]);
    let take = || -> io::Result<Vec<u8>> {
        match step {
            Step::Create(name) => disk.create(&path(*name)).map(|_| Vec::new()),
            Step::Write(name, at, lens) => {
                let buffers: Vec<Vec<u8>> = lens.iter().map(|len| vec![number; *len]).collect();
                let slices: Vec<IoSlice<'_>> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
                disk.open(&path(*name))?.write_vectored_at(&slices, *at).map(|()| Vec::new())
            }
            Step::Read(name, at, len) => {
                let mut bytes = vec![0; *len];
                let read = disk.open(&path(*name))?.read_at(&mut bytes, *at)?;
                bytes.truncate(read);
                Ok(bytes)
            }
            Step::Truncate(name, len) => disk.open(&path(*name))?.truncate(*len).map(|()| Vec::new()),
            Step::Rename(from, to) => disk.rename(&path(*from), &path(*to)).map(|()| Vec::new()),
            Step::Remove(name) => disk.remove(&path(*name)).map(|()| Vec::new()),
            Step::Sync(name) => {
                let file = disk.open(&path(*name))?;
                file.write_out(file.len()?)?;
                file.sync_data()?;
                disk.sync_dir(root).map(|()| Vec::new())
            }
        }
    };
    let answer = take().map_err(|error| error.kind());
    let mut names = disk.list(root).unwrap();
    names.sort();
    let files = names.into_iter().map(|name| {
        let path = root.join(&name);
        let (len, bytes) = (disk.file_len(&path).unwrap(), disk.read(&path).unwrap());
        assert_eq!(disk.open(&path).unwrap().len().unwrap(), len);
        (name, len, bytes)
    });
    (answer, files.collect(), NAMES.map(|name| disk.exists(&root.join(name)).unwrap()).to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn all_disks_do_the_same(steps in vec(step(), 1..40)) {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (native, portable, sim) = (OsDisk::new(), OsDisk::portable(), SimDisk::new(1));
        sim.create_dir_all("root".as_ref()).unwrap();
        for (number, step) in (1..).zip(&steps) {
            let seen = take(&native, one.path(), number, step);
            prop_assert_eq!(&seen, &take(&portable, other.path(), number, step), "{:?} without Linux's calls", step);
            prop_assert_eq!(&seen, &take(&sim, "root".as_ref(), number, step), "{:?} simulated", step);
        }
    }
}

#[test]
fn more_buffers_than_one_call_takes_are_all_written() {
    let dir = tempfile::tempdir().unwrap();
    let file = OsDisk::new().create(&dir.path().join("a")).unwrap();
    let buffers: Vec<[u8; 3]> = (0..2500u16).map(|number| [number as u8, (number >> 8) as u8, 7]).collect();
    let slices: Vec<IoSlice<'_>> = buffers.iter().map(|buffer| IoSlice::new(buffer)).collect();
    file.write_vectored_at(&slices, 10).unwrap();
    let mut bytes = vec![1; 7510];
    assert_eq!(file.read_at(&mut bytes, 0).unwrap(), 7510);
    assert_eq!((&bytes[..10], &bytes[10..]), (&[0; 10][..], buffers.as_flattened()));
}

#[test]
fn what_linux_offers_is_taken_where_it_is_there_and_changes_no_byte() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    for (disk, native) in [(OsDisk::new(), true), (OsDisk::portable(), false)] {
        let file = disk.create(&path).unwrap();
        file.write_vectored_at(&[IoSlice::new(&[5; 10_000])], 0).unwrap();
        // A file system that can't reserve says so, as a disk without Linux's calls does.
        let reserved = file.reserve(0, 1 << 20).map_err(|error| error.kind());
        assert!(reserved == Err(io::ErrorKind::Unsupported) || native && reserved == Ok(()), "{reserved:?}");
        assert_eq!(file.len().unwrap(), 10_000);
        assert!(native || !file.is_resident(0..10_000), "nobody can know");
        assert!(!native || file.is_resident(7..7), "there is nothing that could be elsewhere");
        file.prefetch(0..10_000);
        assert!(file.as_fd().is_some());
        let space = disk.space(dir.path()).unwrap();
        assert!(0 < space.available && space.available <= space.total && space.total > 1 << 20, "{space:?}");
        disk.create_dir_all(&dir.path().join("b/c")).unwrap();
        assert!(disk.exists(&dir.path().join("b/c")).unwrap());
        disk.remove_dir_all(&dir.path().join("b")).unwrap();
        assert!(!disk.exists(&dir.path().join("b")).unwrap());
    }
}

#[test]
fn a_file_that_is_gone_is_an_error_of_the_disk_and_no_offset_out_of_range() {
    let sim = SimDisk::new(1);
    let (mut log, _) = common::open(&sim, common::small(), None);
    for _ in 0..3 {
        common::append(&mut log, common::batch(4, 10));
        log.roll(common::NOW).unwrap();
    }
    common::sync(&mut log);
    let checkpoint = log.checkpoint();
    let (log, _) = common::open(&sim, common::small(), Some(checkpoint));
    sim.remove(&common::segment_path(4, ".log")).unwrap();
    let read = |offset| log.reader().read(Offset(offset), log.end(), 1, true);
    assert_eq!(read(1).unwrap().first_batch_offset, Offset(0));
    assert!(matches!(read(5), Err(ReadError::Io(error)) if error.kind() == io::ErrorKind::NotFound));
    assert_eq!(read(9).unwrap().first_batch_offset, Offset(8));
}

#[test]
fn what_is_to_be_sent_is_asked_for_where_it_lies() {
    let dir = tempfile::tempdir().unwrap();
    for disk in [OsDisk::new(), OsDisk::portable()] {
        let path = dir.path().join(format!("{disk:?}"));
        let (mut log, _) =
            ottla_log::Log::open(std::sync::Arc::new(disk), path, common::small(), None, common::NOW).unwrap();
        common::append(&mut log, common::batch(1, 100));
        common::append(&mut log, common::batch(1, 5000));
        for offset in [0, 1] {
            let plan = log.reader().read(Offset(offset), log.end(), u64::MAX, true).unwrap();
            assert_eq!(plan.regions.len(), 1);
            plan.regions[0].prefetch();
            // Nobody has to know; with Linux's own calls what was just written mostly is.
            plan.regions[0].is_resident();
            assert_eq!(plan.len(), plan.read().unwrap().len() as u64);
        }
    }
}
