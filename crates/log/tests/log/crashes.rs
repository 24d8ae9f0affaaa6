//! What the simulated disk may lose, and that it loses all of it now and then: a power cut that spares something would
//! spare the bugs that hang on it.
//!
//! What it has in common with a real disk is in `disks.rs`.

use std::{
    collections::BTreeSet,
    io::{ErrorKind, IoSlice},
    path::Path,
    sync::Arc,
};

use ottla_log::{Disk, DiskFile, SimDisk};

const SEEDS: u64 = 400;
const PAGE: usize = 4096;
const SECTOR: usize = 512;

fn write(file: &Arc<dyn DiskFile>, position: usize, bytes: &[u8]) {
    file.write_vectored_at(&[IoSlice::new(bytes)], position as u64).unwrap();
}

/// A disk with a directory that survives, and in it a file that does.
fn with_file(seed: u64, bytes: &[u8]) -> (SimDisk, Arc<dyn DiskFile>) {
    let disk = SimDisk::new(seed);
    disk.create_dir_all(Path::new("d")).unwrap();
    let file = disk.create(Path::new("d/f")).unwrap();
    write(&file, 0, bytes);
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("")).unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    (disk, file)
}

fn survivor(disk: &SimDisk) -> Vec<u8> {
    disk.crash().read_file(Path::new("d/f")).unwrap()
}

#[test]
fn l4_a_power_cut_keeps_overwritten_pages_or_not_and_tears_them_at_sectors() {
    const OLD: u8 = 1;
    const NEW: u8 = 2;
    let (from, to) = (PAGE + 100, 4 * PAGE + 300);
    let (mut whole, mut none, mut torn_at) = (0, 0, BTreeSet::new());
    let mut kept_by_page = [0; 4];
    for seed in 0..SEEDS {
        let (disk, file) = with_file(seed, &[OLD; 6 * PAGE]);
        write(&file, from, &vec![NEW; to - from]);
        let bytes = survivor(&disk);
        assert_eq!(bytes.len(), 6 * PAGE);
        assert!(bytes[..from].iter().chain(&bytes[to..]).all(|byte| *byte == OLD), "what nobody wrote, seed {seed}");
        let mut pages = 0;
        for page in 1..5 {
            let (first, last) = (from.max(page * PAGE), to.min((page + 1) * PAGE));
            let kept = bytes[first..last].iter().take_while(|byte| **byte == NEW).count();
            assert!(bytes[first + kept..last].iter().all(|byte| *byte == OLD), "page {page}, seed {seed}");
            let end = first + kept;
            assert!(kept == 0 || end == last || end.is_multiple_of(SECTOR), "torn at {end}, seed {seed}");
            if kept > 0 && end < last {
                torn_at.insert(end % PAGE / SECTOR);
            }
            if end == last {
                kept_by_page[page - 1] += 1;
                pages += 1;
            }
        }
        whole += u64::from(pages == 4);
        none += u64::from(bytes == [OLD; 6 * PAGE]);
    }
    assert!((SEEDS / 4..SEEDS / 2).contains(&whole), "all of it was kept {whole} times");
    assert!((SEEDS / 50..SEEDS / 8).contains(&none), "nothing was kept {none} times");
    assert_eq!(torn_at, (1..8).collect());
    for kept in kept_by_page {
        assert!((SEEDS / 2..SEEDS * 4 / 5).contains(&kept), "{kept_by_page:?}");
    }
}

#[test]
fn l4_a_power_cut_leaves_of_what_was_appended_data_zeros_garbage_or_nothing() {
    let (before, after) = (1000, 3 * PAGE);
    let appended: Vec<u8> = (0..after - before).map(|at| (at % 251) as u8 | 1).collect();
    let mut lengths = BTreeSet::new();
    let (mut zeros, mut garbage, mut holes) = (0, 0, 0);
    for seed in 0..SEEDS {
        let (disk, file) = with_file(seed, &[7; 1000]);
        write(&file, before, &appended);
        let bytes = survivor(&disk);
        assert!(bytes[..before].iter().all(|byte| *byte == 7) && bytes.len() <= after, "seed {seed}");
        lengths.insert(bytes.len());
        let wrong: Vec<usize> = (before..bytes.len()).filter(|&at| bytes[at] != appended[at - before]).collect();
        let Some(&last) = wrong.last() else { continue };
        if wrong.iter().any(|&at| bytes[at] != 0) {
            garbage += 1;
        } else if last + 1 == bytes.len() {
            zeros += 1;
        } else {
            holes += 1;
        }
    }
    assert!(lengths.contains(&before) && lengths.contains(&after), "nothing and everything");
    assert!(lengths.iter().filter(|length| !length.is_multiple_of(SECTOR)).count() > 20, "{lengths:?}");
    assert!(zeros > 10 && garbage > 10 && holes > 10, "{zeros} zeros, {garbage} garbage, {holes} holes");
}

#[test]
fn l4_a_power_cut_undoes_a_truncation_that_was_not_synced_or_not() {
    let lengths = |synced: bool| -> BTreeSet<usize> {
        let one = |seed| {
            let (disk, file) = with_file(seed, &[7; 1000]);
            file.truncate(300).unwrap();
            if synced {
                file.sync_data().unwrap();
            }
            assert_eq!(file.len().unwrap(), 300);
            let bytes = survivor(&disk);
            assert_eq!(bytes[..300], [7; 300], "seed {seed}");
            bytes.len()
        };
        (0..40).map(one).collect()
    };
    // Anything in between may have been garbage at one time.
    let unsynced = lengths(false);
    assert_eq!((unsynced.first(), unsynced.last()), (Some(&300), Some(&1000)));
    assert_eq!(lengths(true), [300].into());
    let emptied = |seed| {
        let (disk, _) = with_file(seed, &[7; 1000]);
        disk.create(Path::new("d/f")).unwrap();
        assert_eq!(disk.file_len(Path::new("d/f")).unwrap(), 0);
        survivor(&disk).len()
    };
    let lengths: BTreeSet<usize> = (0..40).map(emptied).collect();
    assert_eq!((lengths.first(), lengths.last()), (Some(&0), Some(&1000)));
}

#[test]
fn l7_names_whose_directory_was_not_synced_may_be_lost_each_by_itself() {
    let path = Path::new;
    let mut seen = BTreeSet::new();
    for seed in 0..SEEDS {
        let (disk, _) = with_file(seed, b"f");
        for name in ["d/from", "d/gone"] {
            disk.create(path(name)).unwrap();
        }
        disk.sync_dir(path("d")).unwrap();
        disk.create_dir_all(path("d/in")).unwrap();
        disk.create(path("d/in/new")).unwrap();
        disk.rename(path("d/from"), path("d/to")).unwrap();
        disk.remove(path("d/gone")).unwrap();
        // Of another directory: nothing here becomes durable by it.
        disk.sync_dir(path("")).unwrap();
        let crashed = disk.crash();
        let there = |name: &str| crashed.exists(path(name)).unwrap();
        assert!(there("d/from") != there("d/to"), "a rename is done or not, seed {seed}");
        assert!(there("d/in") || !there("d/in/new"), "nothing lies in a directory that is not there, seed {seed}");
        seen.insert((there("d/to"), there("d/gone"), there("d/in"), there("d/in/new")));

        disk.sync_dir(path("d")).unwrap();
        disk.sync_dir(path("d/in")).unwrap();
        let crashed = disk.crash();
        assert_eq!(crashed.list(path("d")).unwrap(), ["f", "in", "to"]);
        assert_eq!(crashed.list(path("d/in")).unwrap(), ["new"]);
    }
    assert_eq!(seen.len(), 2 * 2 * 3, "{seen:?}");
}

#[test]
fn a_directory_takes_what_is_in_it_along_and_away() {
    let path = Path::new;
    let (disk, _) = with_file(1, b"f");
    disk.create_dir_all(path("d/in/deep")).unwrap();
    write(&disk.create(path("d/in/deep/x")).unwrap(), 0, b"x");
    disk.rename(path("d/in"), path("e")).unwrap();
    assert_eq!(disk.list(path("d")).unwrap(), ["f"]);
    assert_eq!(disk.list(path("e")).unwrap(), ["deep"]);
    assert_eq!(disk.read_file(path("e/deep/x")).unwrap(), b"x");
    assert_eq!((disk.read_file(path("e/deep")), disk.used()), (None, 2));
    disk.remove_dir_all(path("e")).unwrap();
    assert!(!disk.exists(path("e")).unwrap() && !disk.exists(path("e/deep/x")).unwrap());
    assert_eq!(disk.used(), 1, "what has no name takes no space");
    let kinds = [
        disk.remove_dir_all(path("e")).unwrap_err().kind(),
        disk.list(path("d/f")).unwrap_err().kind(),
        disk.create(path("e/y")).unwrap_err().kind(),
        disk.open(path("d")).unwrap_err().kind(),
        disk.create_dir_all(path("d/f/under")).unwrap_err().kind(),
    ];
    let gone = ErrorKind::NotFound;
    assert_eq!(kinds, [gone, gone, gone, ErrorKind::IsADirectory, ErrorKind::NotADirectory]);
}

#[test]
fn l11_space_is_what_files_and_reservations_leave_of_the_capacity() {
    let path = Path::new("d/f");
    let (disk, file) = with_file(1, &[7; 100]);
    let other = disk.create(Path::new("d/g")).unwrap();
    disk.set_capacity(Some(1000));
    assert_eq!((disk.space(path).unwrap().total, disk.space(path).unwrap().available), (1000, 900));
    other.reserve(0, 600).unwrap();
    assert_eq!(disk.space(path).unwrap().available, 300);
    other.reserve(100, 200).unwrap();
    assert_eq!(disk.used(), 700, "it had that already");

    // Up to the last byte, and then as much as there is room for.
    file.reserve(0, 400).unwrap();
    assert_eq!(file.reserve(0, 401).unwrap_err().kind(), ErrorKind::StorageFull);
    write(&file, 100, &[8; 300]);
    let full = file.write_vectored_at(&[IoSlice::new(&[9; 50])], 380).unwrap_err();
    assert_eq!((full.kind(), file.len().unwrap()), (ErrorKind::StorageFull, 400));
    assert_eq!(disk.read_file(path).unwrap()[379..], [[8].as_slice(), &[9; 20]].concat());
    write(&other, 0, &[1; 600]);
    assert_eq!(disk.used(), 1000);

    // A file that is cut gives back what was reserved, and one that is removed all of it.
    other.truncate(50).unwrap();
    assert_eq!(disk.used(), 450);
    disk.remove(Path::new("d/g")).unwrap();
    assert_eq!(disk.space(path).unwrap().available, 600);
    let crashed = disk.crash();
    assert_eq!(crashed.space(path).unwrap().total, 1000, "the machine keeps its disk");
    disk.set_capacity(None);
    write(&file, 5000, &[1]);
    disk.set_reserves(false);
    assert_eq!(file.reserve(0, 1).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(disk.crash().open(path).unwrap().reserve(0, 1).unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!(file.truncate((1 << 32) + 1).unwrap_err().kind(), ErrorKind::FileTooLarge);
    assert!(file.write_vectored_at(&[IoSlice::new(&[1])], 1 << 32).is_err());
}

#[test]
fn l10_a_sync_that_fails_or_lies_leaves_nothing_durable() {
    let path = Path::new("d/f");
    for lie in [false, true] {
        let (disk, file) = with_file(5, &[7; 100]);
        write(&file, 0, &[8; 100]);
        disk.lie_about_syncs(lie);
        disk.fail_syncs(!lie);
        assert_eq!(file.sync_data().is_ok(), lie);
        assert_eq!(disk.sync_dir(Path::new("d")).is_ok(), lie);
        disk.fail_syncs(false);
        assert_eq!(disk.read_file(path).unwrap(), [8; 100], "readers see it all the same");
        let survivors: BTreeSet<Vec<u8>> = (0..20).map(|_| survivor(&disk)).collect();
        // What was dropped is dropped for good; what only seemed synced may have gone out.
        let expected = if lie { vec![vec![7; 100], vec![8; 100]] } else { vec![vec![7; 100]] };
        assert_eq!(survivors, expected.into_iter().collect());
        disk.lie_about_syncs(false);
        disk.lie_about_dir_syncs(true);
        disk.create(Path::new("d/new")).unwrap();
        disk.sync_dir(Path::new("d")).unwrap();
        let kept: BTreeSet<bool> = (0..20).map(|_| disk.crash().exists(Path::new("d/new")).unwrap()).collect();
        assert_eq!(kept, [false, true].into());
    }
    let (disk, file) = with_file(5, &[7; 100]);
    write(&file, 0, &[8; 100]);
    disk.fail_syncs(true);
    assert!(file.write_out(100).is_err());
    assert_eq!(survivor(&disk), [7; 100]);
}

#[test]
fn writes_and_opens_fail_when_they_are_told_to_and_count() {
    let (disk, file) = with_file(1, &[7; 100]);
    let before = disk.stats();
    disk.fail_writes(true);
    assert!(file.write_vectored_at(&[IoSlice::new(&[8; 40])], 0).is_err());
    disk.fail_writes(false);
    let bytes = disk.read_file(Path::new("d/f")).unwrap();
    assert_eq!((&bytes[..20], &bytes[20..40]), ([8; 20].as_slice(), [7; 20].as_slice()), "torn in the middle");
    let mut read = [0; 30];
    assert_eq!(file.read_at(&mut read, 90).unwrap(), 10);
    assert!(file.is_resident(0..100) && !file.is_resident(0..101));
    file.sync_data().unwrap();
    disk.sync_dir(Path::new("d")).unwrap();
    disk.fail_opens(true);
    assert!(disk.open(Path::new("d/f")).is_err() && disk.create(Path::new("d/g")).is_err());
    assert!(disk.list(Path::new("d")).is_err() && disk.sync_dir(Path::new("d")).is_err());
    disk.fail_opens(false);
    disk.open(Path::new("d/f")).unwrap();
    let after = disk.stats();
    let bytes = [after.bytes_read - before.bytes_read, after.bytes_written - before.bytes_written];
    assert_eq!(bytes, [10, 20]);
    let calls = [after.writes - before.writes, after.syncs - before.syncs, after.opens - before.opens];
    assert_eq!((calls, after.dir_syncs - before.dir_syncs), ([1, 1, 1], 2));
}

#[test]
fn after_its_last_call_a_machine_does_nothing_until_it_starts_again() {
    let path = Path::new("d/f");
    let (disk, file) = with_file(1, &[7; 100]);
    disk.fail_after(2);
    write(&file, 0, &[8]);
    assert!(!disk.is_dead());
    file.sync_data().unwrap();
    assert!(disk.is_dead());
    assert!(file.write_vectored_at(&[IoSlice::new(&[9])], 0).is_err() && file.sync_data().is_err());
    assert!(file.truncate(0).is_err() && file.reserve(0, 1).is_err());
    assert!(disk.create(path).is_err() && disk.create_dir_all(Path::new("e")).is_err());
    assert!(disk.rename(path, Path::new("d/g")).is_err() && disk.remove(path).is_err());
    assert!(disk.remove_dir_all(Path::new("d")).is_err() && disk.sync_dir(Path::new("d")).is_err());
    assert_eq!(disk.read_file(path).unwrap()[..2], [8, 7]);
    let again = disk.restart();
    assert!(!again.is_dead());
    write(&again.open(path).unwrap(), 0, &[9]);

    // Another disk with what is there now, whatever becomes of this one.
    let fork = again.fork();
    again.remove(path).unwrap();
    assert_eq!((survivor(&fork)[0], fork.used()), (9, 100));
    assert!(fork.flip_bit(path, 99, 3) && !fork.flip_bit(path, 100, 3) && !fork.flip_bit(Path::new("d"), 0, 0));
    assert_eq!((survivor(&fork)[99], fork.read_file(path).unwrap()[99]), (7 ^ 8, 7 ^ 8));
    assert!(fork.flip_bit(path, 99, 3));
    assert_eq!(survivor(&fork)[99], 7);
}
