//! Tests of the simulated disk: single promises by name, then all of them against a plain model.

use std::{collections::BTreeMap, time::Duration};

use kvraft_base::{Disk, DiskErrorKind, DiskFile, Prng};
use proptest::prelude::*;

use super::{
    ChangePoint, ContentLoss, CrashPolicy, DiskCosts, Exposures, NameLoss, SECTOR_SIZE_BYTES,
    SimDisk,
};

fn disk() -> SimDisk {
    SimDisk::new("s1", DiskCosts::FREE)
}

fn content(disk: &SimDisk, path: &str) -> Option<Vec<u8>> {
    let file = disk.open(path).ok()?;
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    Some(bytes)
}

fn put(disk: &SimDisk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.create(path).unwrap();
    file.write_at(0, bytes).unwrap();
    file
}

fn crash(disk: &SimDisk, policy: CrashPolicy) -> SimDisk {
    disk.crash(&mut Prng::new(1), policy);
    disk.reboot()
}

/// The two halves of durability: the content needs a sync, and so does the name.
#[test]
fn content_and_name_are_durable_each_by_its_own_sync() {
    let disk = disk();
    let both = put(&disk, "both", b"synced");
    both.sync().unwrap();
    let _content_only = put(&disk, "empty", b"not synced");
    disk.sync_dir("").unwrap();
    put(&disk, "nameless", b"synced").sync().unwrap();
    both.write_at(0, b"SYN").unwrap();
    let after = crash(&disk, CrashPolicy::LOSE_ALL);
    assert_eq!(content(&after, "both").unwrap(), b"synced");
    assert_eq!(content(&after, "empty").unwrap(), b"");
    assert_eq!(content(&after, "nameless"), None);
}

/// With luck everything survives; a program must not count on it, nor on the contrary.
#[test]
fn keeping_all_loses_nothing() {
    let disk = disk();
    let _file = put(&disk, "a", &[7; 2000]);
    let after = crash(&disk, CrashPolicy::KEEP_ALL);
    assert_eq!(content(&after, "a").unwrap(), [7; 2000]);
}

/// Of changes of names that are not synced the newest may survive alone.
#[test]
fn newest_name_survives_without_what_it_relied_on() {
    let disk = disk();
    put(&disk, "old", b"old").sync().unwrap();
    disk.sync_dir("").unwrap();
    put(&disk, "mark", b"mark").sync().unwrap();
    disk.rename("old", "new").unwrap();
    let policy = CrashPolicy { content: ContentLoss::All, names: NameLoss::AllButLast };
    let after = crash(&disk, policy);
    assert_eq!(content(&after, "new").unwrap(), b"old");
    assert_eq!((content(&after, "mark"), content(&after, "old")), (None, None));
}

/// Copies are made at each kind of moment as often as was asked for, in the order of the moments.
#[test]
fn film_counts_names_and_sizes_apart() {
    let disk = disk();
    disk.load_film(Exposures { names: 2, sizes: 1 });
    let file = put(&disk, "a", b"a");
    file.sync().unwrap();
    file.write_at(1, b"b").unwrap();
    file.sync().unwrap();
    disk.rename("a", "b").unwrap();
    disk.rename("b", "c").unwrap();
    let (copies, made) = disk.take_film();
    assert_eq!(made, Exposures { names: 2, sizes: 1 });
    let seen = copies.iter().map(|copy| copy.reboot().list("").unwrap());
    assert_eq!(seen.collect::<Vec<_>>(), [["a"], ["a"], ["b"]]);
    disk.rename("c", "d").unwrap();
    assert_eq!(disk.take_film().1, Exposures::default());
}

/// A read may be answered once with what another sector holds; then the truth is back, and so it is
/// when the sector has been written meanwhile.
#[test]
fn a_read_is_answered_from_elsewhere_once() {
    let disk = disk();
    let file = put(&disk, "a", &[[1; 512], [2; 512], [1; 512]].concat());
    file.sync().unwrap();
    assert!(!disk.misread("a", 0, 1024), "both hold the same");
    assert!(!disk.misread("a", 0, 5000), "there is nothing");
    assert!(disk.misread("a", 512, 0));
    assert!(disk.has_damage("a"));
    let mut bytes = [0; 8];
    file.read_at(508, &mut bytes).unwrap();
    assert_eq!(bytes, [1; 8]);
    assert!(!disk.has_damage("a"));
    file.read_at(508, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 1, 1, 2, 2, 2, 2]);
    assert!(disk.misread("a", 512, 0));
    file.write_at(600, &[3]).unwrap();
    assert_eq!(content(&disk, "a").unwrap()[512..514], [2, 2]);
    assert!(disk.misread("a", 1024, 512));
    file.set_len(1000).unwrap();
    file.set_len(1536).unwrap();
    assert_eq!(content(&disk, "a").unwrap()[1024..], [0; 512]);
}

/// Replacing a file by rename gives the old one or the new one, both whole when synced.
#[test]
fn rename_is_atomic() {
    let mut seen = BTreeMap::new();
    for seed in 0..64 {
        let disk = disk();
        put(&disk, "table", b"old").sync().unwrap();
        disk.sync_dir("").unwrap();
        put(&disk, "table.new", b"new").sync().unwrap();
        disk.rename("table.new", "table").unwrap();
        disk.crash(&mut Prng::new(seed), CrashPolicy::EACH);
        let after = disk.reboot();
        *seen.entry(content(&after, "table").unwrap()).or_insert(0) += 1;
    }
    assert_eq!(seen.keys().collect::<Vec<_>>(), [b"new", b"old"], "both happen");
}

/// Open handles go on working when their file is replaced or removed, and see their own file.
#[test]
fn handles_outlive_names() {
    let disk = disk();
    let old = put(&disk, "a", b"old");
    put(&disk, "b", b"new").sync().unwrap();
    disk.rename("b", "a").unwrap();
    disk.sync_dir("").unwrap();
    let mut buffer = [0; 3];
    old.read_at(0, &mut buffer).unwrap();
    assert_eq!(&buffer, b"old");
    disk.remove("a").unwrap();
    disk.sync_dir("").unwrap();
    old.write_at(0, b"OLD").unwrap();
    assert_eq!(disk.size_bytes(), 3);
    drop(old);
    assert_eq!(disk.size_bytes(), 0);
}

/// A removal that was not synced is undone, and the file comes back as it was synced.
#[test]
fn removed_file_comes_back() {
    let disk = disk();
    put(&disk, "a", b"alive").sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.remove("a").unwrap();
    assert_eq!(disk.open("a").unwrap_err().kind, DiskErrorKind::NotFound);
    let after = crash(&disk, CrashPolicy::LOSE_ALL);
    assert_eq!(content(&after, "a").unwrap(), b"alive");
}

/// A directory is a name too: what is inside an unsynced one goes with it.
#[test]
fn directories_need_a_sync_of_their_parent() {
    let disk = disk();
    for dir in ["kept", "lost"] {
        disk.create_dir(dir).unwrap();
        if dir == "kept" {
            disk.sync_dir("").unwrap();
        }
        put(&disk, &format!("{dir}/x"), b"x").sync().unwrap();
        disk.sync_dir(dir).unwrap();
    }
    assert_eq!(disk.list("").unwrap(), ["kept", "lost"]);
    let after = crash(&disk, CrashPolicy::LOSE_ALL);
    assert_eq!(after.list("").unwrap(), ["kept"]);
    assert_eq!(after.list("kept").unwrap(), ["x"]);
    assert_eq!(after.list("lost").unwrap_err().kind, DiskErrorKind::NotFound);
    assert_eq!(after.open("lost/x").unwrap_err().kind, DiskErrorKind::NotFound);
    assert_eq!(after.create("lost/x").unwrap_err().kind, DiskErrorKind::NotFound);
}

/// Nothing from before a crash, or from a process that has ended, reaches the disk again.
#[test]
fn old_handles_are_severed() {
    let disk = disk();
    let file = put(&disk, "a", b"1");
    disk.sever();
    assert_eq!(file.write_at(0, b"2").unwrap_err().kind, DiskErrorKind::Severed);
    assert_eq!(disk.open("a").unwrap_err().kind, DiskErrorKind::Severed);
    let next = disk.reboot();
    assert_eq!(content(&next, "a").unwrap(), b"1", "the machine did not lose power");
    let handle = next.handle();
    disk.crash(&mut Prng::new(0), CrashPolicy::KEEP_ALL);
    assert_eq!(handle.list("").unwrap_err().kind, DiskErrorKind::Severed);
    assert_eq!(content(&disk.reboot(), "a").unwrap(), b"1");
}

/// A fuse cuts the power in the middle of the n-th change; reads are not counted.
#[test]
fn fuse_blows_in_the_nth_change() {
    let disk = disk();
    let file = put(&disk, "a", b"first");
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.arm_fuse(2);
    file.write_at(0, b"F").unwrap();
    file.read_at(0, &mut [0; 5]).unwrap();
    assert!(!disk.is_fuse_blown());
    assert_eq!(file.sync().unwrap_err().kind, DiskErrorKind::Severed);
    assert!(disk.is_fuse_blown());
    assert_eq!(file.read_at(0, &mut [0; 5]).unwrap_err().kind, DiskErrorKind::Severed);
    let after = crash(&disk, CrashPolicy::LOSE_ALL);
    assert!(!disk.is_fuse_blown());
    assert_eq!(content(&after, "a").unwrap(), b"first");
}

/// The write in which power is lost may be done in part: some sectors from its beginning.
#[test]
fn fuse_tears_a_write_between_sectors() {
    let mut sizes = BTreeMap::new();
    for before in 0..40 {
        let disk = disk();
        for _ in 0..before {
            disk.create_dir("x").unwrap();
        }
        let file = put(&disk, "a", &[1; 1_800]);
        disk.arm_fuse(1);
        file.write_at(100, &[9; 1_600]).unwrap_err();
        let bytes = content(&crash(&disk, CrashPolicy::KEEP_ALL), "a").unwrap();
        let new_count = bytes[100..].iter().take_while(|byte| **byte == 9).count();
        assert!(bytes[100 + new_count..].iter().all(|byte| *byte == 1));
        *sizes.entry(100 + new_count).or_insert(0) += 1;
    }
    assert_eq!(sizes.keys().copied().collect::<Vec<_>>(), [100, 512, 1_024, 1_536, 1_700]);
}

/// Virtual time is what the parameters say, and is taken once.
#[test]
fn cost_adds_up() {
    let disk = SimDisk::new("s1", DiskCosts { operation_ns: 10, kib_ns: 1000, sync_ns: 500 });
    let file = put(&disk, "a", &[0; 2048]);
    file.sync().unwrap();
    assert_eq!(disk.take_cost(), Duration::from_nanos(10 + 10 + 2000 + 10 + 500));
    assert_eq!(disk.take_cost(), Duration::ZERO);
    let stats = disk.stats();
    assert_eq!((stats.written_bytes, stats.sync_count, stats.synced_sectors), (2048, 1, 4));
}

/// A full disk refuses growth and nothing else.
#[test]
fn full_disk_refuses_growth() {
    let disk = disk();
    disk.set_capacity(Some(100));
    let file = put(&disk, "a", &[1; 100]);
    assert_eq!(file.write_at(99, &[2; 2]).unwrap_err().kind, DiskErrorKind::Full);
    assert_eq!(file.set_len(101).unwrap_err().kind, DiskErrorKind::Full);
    file.write_at(50, &[3; 50]).unwrap();
    file.set_len(10).unwrap();
    assert_eq!(content(&disk, "a").unwrap(), [1; 10]);
}

/// A sync that fails says so, and makes nothing durable.
#[test]
fn failed_sync_makes_nothing_durable() {
    let disk = disk();
    let file = put(&disk, "a", b"one");
    disk.sync_dir("").unwrap();
    disk.arm_sync_failure(1, false);
    assert_eq!(file.sync().unwrap_err().kind, DiskErrorKind::Failed);
    assert_eq!(content(&crash(&disk, CrashPolicy::LOSE_ALL), "a").unwrap(), b"");
}

/// What a failed sync has marked clean is shown to the next process, whose sync succeeds, and is
/// lost with the power; unless its page is written again.
#[test]
fn falsely_clean_pages_lie_until_power_is_lost() {
    for is_rewritten in [false, true] {
        let disk = disk();
        let file = put(&disk, "a", &[1; 600]);
        file.sync().unwrap();
        disk.sync_dir("").unwrap();
        file.write_at(0, &[2; 1000]).unwrap();
        disk.arm_sync_failure(1, true);
        assert_eq!(file.sync().unwrap_err().kind, DiskErrorKind::Failed);
        disk.sever();
        let next = disk.reboot();
        assert!(next.is_forsaken());
        assert!(!next.is_synced("a"), "what is marked clean goes with the power");
        assert_eq!(content(&next, "a").unwrap(), [2; 1000]);
        let file = next.open("a").unwrap();
        if is_rewritten {
            file.write_at(999, &[2]).unwrap();
        }
        file.sync().unwrap();
        let after = crash(&next, CrashPolicy::KEEP_ALL);
        let mut lost = [0; 1000];
        lost[..600].fill(1);
        let expected = if is_rewritten { [2; 1000] } else { lost };
        assert_eq!(content(&after, "a").unwrap(), expected);
    }
}

/// A fuse at a named point counts changes of that kind only.
#[test]
fn fuse_at_a_point_waits_for_it() {
    let disk = disk();
    disk.arm_fuse_at(ChangePoint::Sync, 2);
    let file = put(&disk, "a", b"one");
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(0, b"two").unwrap();
    assert_eq!(file.sync().unwrap_err().kind, DiskErrorKind::Severed);
    assert_eq!(content(&crash(&disk, CrashPolicy::LOSE_ALL), "a").unwrap(), b"one");
}

/// Files that interrupted steps leave, and handles nobody closed, are found.
#[test]
fn left_over_files_are_found() {
    let disk = disk();
    let open = put(&disk, "a", b"1");
    assert_eq!(disk.left_over(), Vec::<String>::new());
    disk.remove("a").unwrap();
    put(&disk, "table.new", b"2").sync().unwrap();
    assert_eq!(disk.left_over(), ["table.new", "1 open files without a name"]);
    drop(open);
    for spare in ["1.old", "2.old"] {
        put(&disk, spare, b"3").sync().unwrap();
    }
    assert_eq!(disk.left_over(), ["table.new", "2.old"], "one is kept for use");
}

/// Bit rot is durable.
#[test]
fn damage_stays() {
    let disk = disk();
    put(&disk, "a", &[0; 4]).sync().unwrap();
    disk.sync_dir("").unwrap();
    assert!(disk.damage("a", 2, 0x80));
    assert!(!disk.damage("a", 4, 1) && !disk.damage("b", 0, 1));
    assert_eq!(content(&crash(&disk, CrashPolicy::LOSE_ALL), "a").unwrap(), [0, 0, 0x80, 0]);
}

/// Reads beyond the end are errors, not zeroes.
#[test]
fn short_reads_are_errors() {
    let disk = disk();
    let file = put(&disk, "a", b"abc");
    assert_eq!(file.read_at(1, &mut [0; 3]).unwrap_err().kind, DiskErrorKind::Failed);
    assert_eq!(file.read_at(u64::MAX, &mut [0; 1]).unwrap_err().kind, DiskErrorKind::Failed);
    assert!(file.write_at(u64::MAX, b"x").is_err());
}

/// One call in a generated program.
#[derive(Clone, Debug)]
enum Step {
    Write { file: usize, offset: usize, size: usize },
    SetLen { file: usize, size: usize },
    Sync { file: usize },
    Create { file: usize },
    Rename { source: usize, target: usize },
    Remove { file: usize },
    SyncDir,
}

fn step() -> impl Strategy<Value = Step> {
    let file = 0..3_usize;
    let place = 0..4 * SECTOR_SIZE_BYTES;
    prop_oneof![
        4 => (file.clone(), place.clone(), 0..3 * SECTOR_SIZE_BYTES)
            .prop_map(|(file, offset, size)| Step::Write { file, offset, size }),
        1 => (file.clone(), place).prop_map(|(file, size)| Step::SetLen { file, size }),
        2 => file.clone().prop_map(|file| Step::Sync { file }),
        1 => file.clone().prop_map(|file| Step::Create { file }),
        1 => (file.clone(), file.clone()).prop_map(|(source, target)| Step::Rename { source, target }),
        1 => file.prop_map(|file| Step::Remove { file }),
        1 => Just(Step::SyncDir),
    ]
}

fn policy() -> impl Strategy<Value = CrashPolicy> {
    let content = prop_oneof![
        Just(ContentLoss::All),
        Just(ContentLoss::None),
        Just(ContentLoss::Tail),
        Just(ContentLoss::Cut),
        Just(ContentLoss::Each { kept: 2, lost: 2, torn: 1 }),
    ];
    let names = prop_oneof![
        Just(NameLoss::All),
        Just(NameLoss::None),
        Just(NameLoss::Tail),
        Just(NameLoss::Each),
        Just(NameLoss::AllButLast)
    ];
    (content, names).prop_map(|(content, names)| CrashPolicy { content, names })
}

/// A file as a plain model: whole copies of what it is and of what was synced.
#[derive(Clone, Debug, Default)]
struct Plain {
    live: Vec<u8>,
    synced: Vec<u8>,
}

/// A disk as a plain model: whole copies of everything, with file numbers for identity.
#[derive(Debug, Default)]
struct PlainDisk {
    files: Vec<Plain>,
    live: BTreeMap<String, usize>,
    synced: BTreeMap<String, usize>,
    /// Every file a name has meant since names were synced.
    since: BTreeMap<String, Vec<Option<usize>>>,
}

impl PlainDisk {
    fn bind(&mut self, name: &str, file: Option<usize>) {
        match file {
            Some(file) => self.live.insert(name.to_owned(), file),
            None => self.live.remove(name),
        };
        self.since.entry(name.to_owned()).or_default().push(file);
    }

    /// Does the same step on the disk and on the model.
    fn take(&mut self, disk: &SimDisk, step: &Step, stamp: u8) {
        let name = |file: usize| ["a", "b", "c"][file].to_owned();
        match *step {
            Step::Create { file } => {
                disk.create(&name(file)).unwrap();
                if let Some(present) = self.live.get(&name(file)) {
                    self.files[*present].live.clear();
                } else {
                    self.files.push(Plain::default());
                    self.bind(&name(file), Some(self.files.len() - 1));
                }
            }
            Step::Rename { source, target } => {
                let done = disk.rename(&name(source), &name(target)).is_ok();
                let moved = self.live.get(&name(source)).copied();
                assert_eq!(done, moved.is_some());
                if let (Some(moved), true) = (moved, source != target) {
                    self.bind(&name(source), None);
                    self.bind(&name(target), Some(moved));
                }
            }
            Step::Remove { file } => {
                let done = disk.remove(&name(file)).is_ok();
                assert_eq!(done, self.live.contains_key(&name(file)));
                if done {
                    self.bind(&name(file), None);
                }
            }
            Step::SyncDir => {
                disk.sync_dir("").unwrap();
                self.synced.clone_from(&self.live);
                self.since.clear();
            }
            Step::Write { file, .. } | Step::SetLen { file, .. } | Step::Sync { file } => {
                let Ok(open) = disk.open(&name(file)) else { return };
                let plain = &mut self.files[self.live[&name(file)]];
                plain.take(&*open, step, stamp);
            }
        }
    }
}

impl Plain {
    fn take(&mut self, open: &dyn DiskFile, step: &Step, stamp: u8) {
        match *step {
            Step::Write { offset, size, .. } => {
                open.write_at(offset as u64, &vec![stamp; size]).unwrap();
                if 0 < size {
                    self.live.resize(self.live.len().max(offset + size), 0);
                    self.live[offset..offset + size].fill(stamp);
                }
            }
            Step::SetLen { size, .. } => {
                open.set_len(size as u64).unwrap();
                self.live.resize(size, 0);
            }
            _ => {
                open.sync().unwrap();
                self.synced.clone_from(&self.live);
            }
        }
    }

    /// Every byte is the synced one, the last written one, or zero where the sizes differ; an
    /// undisturbed file is exactly itself.
    fn explains(&self, bytes: &[u8]) -> bool {
        if self.live == self.synced {
            return self.live == bytes;
        }
        let (low, high) = (self.live.len(), self.synced.len());
        let size_fits = low.min(high) <= bytes.len() && bytes.len() <= low.max(high);
        let at = |side: &[u8], offset: usize| side.get(offset).copied().unwrap_or(0);
        size_fits
            && bytes.iter().enumerate().all(|(offset, byte)| {
                *byte == at(&self.live, offset) || *byte == at(&self.synced, offset)
            })
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(600) })]

    /// Whatever a program does and however power is lost, a synced name leads to a file again, and
    /// each file holds only bytes that were synced in it or written to it last; a fully synced file
    /// is itself. Then life goes on, and a second crash loses nothing more.
    #[test]
    fn crash_keeps_what_was_synced_and_invents_nothing(
        steps in prop::collection::vec(step(), 0..40),
        policy in policy(),
        seed: u64,
    ) {
        let disk = disk();
        let mut plain = PlainDisk::default();
        for (at, step) in steps.iter().enumerate() {
            plain.take(&disk, step, u8::try_from(at + 1).unwrap());
            for (name, file) in &plain.live {
                prop_assert_eq!(&content(&disk, name).unwrap(), &plain.files[*file].live);
            }
        }
        disk.crash(&mut Prng::new(seed), policy);
        let after = disk.reboot();
        for name in ["a", "b", "c"] {
            let bytes = content(&after, name);
            let synced = plain.synced.get(name).copied();
            let since = plain.since.get(name).cloned().unwrap_or_default();
            let explained = since.into_iter().chain([synced]).any(|file| match (file, &bytes) {
                (None, None) => true,
                (Some(file), Some(bytes)) => plain.files[file].explains(bytes),
                _ => false,
            });
            prop_assert!(explained, "{} holds {:?}", name, bytes);
        }
        let image: Vec<_> = ["a", "b", "c"].map(|name| content(&after, name)).into();
        disk.crash(&mut Prng::new(seed ^ 1), policy);
        let again: Vec<_> = ["a", "b", "c"].map(|name| content(&disk.reboot(), name)).into();
        prop_assert_eq!(image, again);
    }

    /// The same program, policy and seed leave the same bytes.
    #[test]
    fn crash_is_a_function_of_its_seed(
        steps in prop::collection::vec(step(), 0..40),
        policy in policy(),
        seed: u64,
    ) {
        let run = || {
            let disk = disk();
            for (at, step) in steps.iter().enumerate() {
                take_blindly(&disk, step, u8::try_from(at + 1).unwrap());
            }
            disk.crash(&mut Prng::new(seed), policy);
            let after = disk.reboot();
            let names = after.list("").unwrap();
            names.iter().map(|name| (name.clone(), content(&after, name))).collect::<Vec<_>>()
        };
        prop_assert_eq!(run(), run());
    }
}

/// Does a step on the disk alone, whatever it answers.
fn take_blindly(disk: &SimDisk, step: &Step, stamp: u8) {
    let name = |file: usize| ["a", "b", "c"][file];
    match *step {
        Step::Create { file } => drop(disk.create(name(file))),
        Step::Rename { source, target } => drop(disk.rename(name(source), name(target))),
        Step::Remove { file } => drop(disk.remove(name(file))),
        Step::SyncDir => drop(disk.sync_dir("")),
        Step::Write { file, .. } | Step::SetLen { file, .. } | Step::Sync { file } => {
            if let Ok(open) = disk.open(name(file)) {
                Plain::default().take(&*open, step, stamp);
            }
        }
    }
}
