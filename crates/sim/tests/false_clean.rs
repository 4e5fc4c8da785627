//! A sync fails and marks clean what it has not written; the next process reads it all the same.
//!
//! What that process recovers it gives out as durable, so it must be on the disk when it has
//! recovered, whatever the cache says.

use std::collections::BTreeSet;

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, ClusterId, Entry, EntryKind, HardState, Index, META_APPLIED, MemberId, Members,
    Position, Prng, TableId, TableOp, Term, Write, WriteId, Writer,
};
use kvraft_sim::{CrashPolicy, DiskCosts, SimDisk};
use kvraft_store::{Identity, Opened, Options};

fn formatted() -> SimDisk {
    let disk = SimDisk::new("disk", DiskCosts::FREE);
    let members = Members::new([MemberId(1), MemberId(2), MemberId(3)]).expect("three members");
    let identity = Identity { cluster: ClusterId(7), member: MemberId(1), members };
    kvraft_store::format(&disk, &identity).expect("the disk is new");
    disk
}

fn open(disk: &SimDisk) -> Opened {
    kvraft_store::open(disk, &Options::default(), None).expect("the directory can be opened")
}

/// A process ends, and the next one has the machine as it was.
fn next_process(disk: &SimDisk) -> SimDisk {
    disk.sever();
    disk.reboot()
}

fn without_power(disk: &SimDisk) -> SimDisk {
    disk.crash(&mut Prng::new(1), CrashPolicy::KEEP_ALL);
    disk.reboot()
}

/// One entry, in a term of its own with a vote.
fn write(index: u64) -> Write {
    let hard_state =
        HardState { term: Term(index), vote: Some(MemberId(2)), commit: Index(index - 1) };
    let entry = Entry::new(Term(index), Index(index), EntryKind::Command, Bytes::from_static(b"x"));
    Write { id: WriteId(index), hard_state, truncate_from: None, entries: vec![entry] }
}

/// Vote and entries that are found are there for good: with one batch that nothing attests, with
/// several, and with some before them that are attested.
#[test]
fn what_is_recovered_of_the_journal_is_on_the_disk() {
    for (synced, unsynced) in [(0, 1), (0, 3), (3, 1), (3, 3)] {
        let disk = formatted();
        let mut journal = open(&disk).journal;
        for index in 1..=synced {
            journal.append(&write(index)).expect("the disk works");
            journal.sync().expect("the disk works");
        }
        for index in synced + 1..=synced + unsynced {
            journal.append(&write(index)).expect("the disk works");
        }
        disk.arm_sync_failure(1, true);
        journal.sync().expect_err("the sync fails");
        drop(journal);
        let disk = next_process(&disk);
        let found = open(&disk).recovered;
        assert_eq!(found.last.index, Index(synced + unsynced), "the cache shows it");
        let disk = without_power(&disk);
        let after = open(&disk).recovered;
        assert_eq!((after.last, after.hard_state), (found.last, found.hard_state));
    }
}

/// A checkpoint that is found is there for good, whichever of its syncs has failed.
#[test]
fn what_is_recovered_of_the_table_is_on_the_disk() {
    let mut found_positions = BTreeSet::new();
    for sync_count in 1..=2 {
        let disk = formatted();
        let mut opened = open(&disk);
        opened.journal.append(&write(1)).expect("the disk works");
        opened.journal.sync().expect("the disk works");
        disk.arm_sync_failure(sync_count, true);
        opened.table.commit(&checkpoint(1)).expect_err("a sync fails");
        drop(opened);
        let disk = next_process(&disk);
        let found = open(&disk).recovered.applied;
        let disk = without_power(&disk);
        assert_eq!(open(&disk).recovered.applied, found, "sync {sync_count}");
        found_positions.insert(found);
    }
    // The second is that of the header, which shows the checkpoint.
    assert_eq!(found_positions.len(), 2);
}

fn checkpoint(index: u64) -> Checkpoint {
    let applied = Position::new(Term(index), Index(index));
    let mut value = Writer::new();
    value.u64(applied.term.0).u64(applied.index.0);
    let key = Bytes::from_static(META_APPLIED);
    let ops = vec![TableOp::Put { table: TableId::Meta, key, value: value.finish() }];
    Checkpoint { applied, ops }
}
