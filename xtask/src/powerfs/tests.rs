//! What a volume keeps and what it loses, one rule a test.

use super::*;

fn volume() -> Volume {
    Volume::new(7, Names::WithTheirDirectory, None)
}

fn name(name: &str) -> &OsStr {
    OsStr::new(name)
}

/// A file whose name is safe and whose content is not.
fn named(volume: &mut Volume, file: &str) -> u64 {
    let inode = volume.create(ROOT, name(file), false).unwrap().inode;
    volume.sync_directory(ROOT).unwrap();
    inode
}

fn content(volume: &mut Volume, inode: u64) -> Vec<u8> {
    volume.read(inode, 0, usize::MAX).unwrap().to_vec()
}

#[test]
fn synced_bytes_survive_and_later_ones_do_not() {
    let mut volume = volume();
    let inode = named(&mut volume, "a.log");
    volume.write(inode, 0, b"safe").unwrap();
    volume.sync_file(inode).unwrap();
    volume.write(inode, 4, b" and not").unwrap();
    volume.write(inode, 0, b"SAFE").unwrap();
    assert_eq!(content(&mut volume, inode), b"SAFE and not");
    volume.cut(Loss::Everything);
    assert_eq!(content(&mut volume, inode), b"safe");
    assert_eq!(volume.counters().bytes_lost, 12);
}

#[test]
fn a_synced_file_without_a_synced_name_is_gone() {
    let mut volume = volume();
    let inode = volume.create(ROOT, name("a"), false).unwrap().inode;
    volume.write(inode, 0, b"x").unwrap();
    volume.sync_file(inode).unwrap();
    volume.cut(Loss::Everything);
    assert_eq!(volume.lookup(ROOT, name("a")).unwrap_err(), ErrorKind::NotFound);
}

#[test]
fn a_journal_saves_the_name_with_the_file() {
    let mut volume = Volume::new(7, Names::WithAnySync, None);
    let inode = volume.create(ROOT, name("a"), false).unwrap().inode;
    volume.write(inode, 0, b"x").unwrap();
    volume.sync_file(inode).unwrap();
    volume.cut(Loss::Everything);
    assert_eq!(content(&mut volume, inode), b"x");
    assert_eq!(volume.lookup(ROOT, name("a")).unwrap().inode, inode);
}

#[test]
fn a_name_in_an_unsaved_directory_is_gone_with_it() {
    let mut volume = volume();
    let directory = volume.create(ROOT, name("d"), true).unwrap().inode;
    volume.create(directory, name("f"), false).unwrap();
    volume.sync_directory(directory).unwrap();
    volume.cut(Loss::Everything);
    assert!(volume.lookup(ROOT, name("d")).is_err());
}

#[test]
fn an_unsaved_rename_and_an_unsaved_removal_come_undone() {
    let mut volume = volume();
    let old = named(&mut volume, "checkpoint");
    let new = named(&mut volume, "checkpoint.tmp");
    named(&mut volume, "removed");
    volume.rename((ROOT, name("checkpoint.tmp")), (ROOT, name("checkpoint")), true).unwrap();
    volume.remove(ROOT, name("removed"), false).unwrap();
    volume.cut(Loss::Everything);
    assert_eq!(volume.lookup(ROOT, name("checkpoint")).unwrap().inode, old);
    assert_eq!(volume.lookup(ROOT, name("checkpoint.tmp")).unwrap().inode, new);
    assert!(volume.lookup(ROOT, name("removed")).is_ok());
}

#[test]
fn a_rename_between_directories_is_saved_by_either_and_never_in_both() {
    let mut volume = volume();
    let a = volume.create(ROOT, name("a"), true).unwrap().inode;
    let b = volume.create(ROOT, name("b"), true).unwrap().inode;
    volume.sync_directory(ROOT).unwrap();
    volume.create(a, name("f"), false).unwrap();
    volume.rename((a, name("f")), (b, name("g")), true).unwrap();
    volume.sync_directory(b).unwrap();
    volume.cut(Loss::Everything);
    assert!(volume.lookup(a, name("f")).is_err());
    assert!(volume.lookup(b, name("g")).is_ok());
}

#[test]
fn saving_one_directory_saves_all_that_renames_have_tied_to_it() {
    let mut volume = volume();
    let [a, b, c] = ["a", "b", "c"].map(|it| volume.create(ROOT, name(it), true).unwrap().inode);
    volume.create(b, name("y"), false).unwrap();
    for directory in [ROOT, b] {
        volume.sync_directory(directory).unwrap();
    }
    volume.create(c, name("x"), false).unwrap();
    volume.rename((c, name("x")), (b, name("x")), true).unwrap();
    volume.rename((b, name("y")), (a, name("y")), true).unwrap();
    volume.sync_directory(a).unwrap();
    volume.cut(Loss::Everything);
    let listed = [a, b, c].map(|directory| volume.list(directory).unwrap().len());
    assert_eq!(listed, [1, 1, 0]);
}

#[test]
fn torn_pages_hold_some_state_they_were_in_and_nothing_else() {
    let mut outcomes = std::collections::HashSet::new();
    for seed in 0..2000 {
        let mut volume = Volume::new(seed, Names::WithTheirDirectory, None);
        let inode = named(&mut volume, "a.log");
        volume.write(inode, 0, &[1; 2 * PAGE]).unwrap();
        volume.sync_file(inode).unwrap();
        volume.write(inode, 0, &[2; 2 * PAGE]).unwrap();
        volume.write(inode, 2 * PAGE as u64, &[3; PAGE]).unwrap();
        volume.cut(Loss::Torn);
        let bytes = content(&mut volume, inode);
        assert!(bytes.len() == 2 * PAGE || bytes.len() == 3 * PAGE, "length {}", bytes.len());
        let pages: Vec<u8> = bytes
            .chunks(PAGE)
            .map(|page| {
                assert!(page.iter().all(|byte| *byte == page[0]), "a page is written whole or not at all");
                page[0]
            })
            .collect();
        assert!(pages[..2].iter().all(|page| matches!(page, 1 | 2)), "{pages:?}");
        assert!(pages.get(2).is_none_or(|page| matches!(page, 0 | 3)), "{pages:?}");
        outcomes.insert(pages);
    }
    // Four states of the old pages, times the new page missing, empty or there.
    assert_eq!(outcomes.len(), 12, "{outcomes:?}");
}

#[test]
fn a_lost_truncation_brings_the_bytes_back() {
    let mut volume = volume();
    let inode = named(&mut volume, "a.log");
    volume.write(inode, 0, b"abcdef").unwrap();
    volume.sync_file(inode).unwrap();
    volume.truncate(inode, 2).unwrap();
    assert_eq!(content(&mut volume, inode), b"ab");
    volume.cut(Loss::Everything);
    assert_eq!(content(&mut volume, inode), b"abcdef");
}

#[test]
fn lies_are_lost() {
    for (lie, file) in [(Lie::Logs, "a.log"), (Lie::OtherFiles, "a.index"), (Lie::All, "anything")] {
        let mut volume = Volume::new(7, Names::WithTheirDirectory, None);
        let inode = named(&mut volume, file);
        volume.lie = Some(lie);
        volume.write(inode, 0, b"x").unwrap();
        volume.sync_file(inode).unwrap();
        volume.cut(Loss::Everything);
        assert_eq!(content(&mut volume, inode), b"", "{lie:?}");
        assert_eq!(volume.counters().lies, 1);
    }
    let mut volume = Volume::new(7, Names::WithTheirDirectory, Some(Lie::Directories));
    named(&mut volume, "a.log");
    volume.cut(Loss::Everything);
    assert!(volume.lookup(ROOT, name("a.log")).is_err());
}

#[test]
fn a_fuse_ends_every_change_and_every_sync() {
    let mut volume = volume();
    let inode = named(&mut volume, "a.log");
    volume.light(Fuse::Sync(2));
    volume.write(inode, 0, b"safe").unwrap();
    volume.sync_file(inode).unwrap();
    volume.write(inode, 4, b" not").unwrap();
    assert!(volume.sync_file(inode).is_err());
    assert!(volume.is_dark());
    assert!(volume.write(inode, 8, b"late").is_err());
    assert!(volume.create(ROOT, name("late"), false).is_err());
    volume.cut(Loss::Everything);
    assert_eq!(content(&mut volume, inode), b"safe");
    assert!(!volume.is_dark());
    volume.sync_file(inode).unwrap();
}

#[test]
fn after_a_failed_sync_the_next_one_succeeds_and_saves_nothing_of_it() {
    let mut volume = volume();
    let inode = named(&mut volume, "a.log");
    volume.light(Fuse::FailingSync(2));
    volume.write(inode, 0, b"one ").unwrap();
    volume.sync_file(inode).unwrap();
    volume.write(inode, 4, b"two ").unwrap();
    assert!(volume.sync_file(inode).is_err());
    assert!(!volume.is_dark());
    volume.write(inode, 8, b"three").unwrap();
    volume.sync_file(inode).unwrap();
    assert_eq!(content(&mut volume, inode), b"one two three");
    volume.cut(Loss::Everything);
    assert_eq!(content(&mut volume, inode), b"one \0\0\0\0three");
}
