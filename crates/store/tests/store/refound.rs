//! A directory becomes that of another cluster as one step, wherever the power is cut.

use kvraft_base::{
    ClusterId, Entry, EntryKind, HardState, Index, MemberId, Members, Position, Term,
};
use kvraft_store::{Identity, Note, OpenError, Opened, open, read_identity, refound};

use crate::{
    disk::{Loss, TestDisk},
    world::{OPTIONS, checkpoint, entry, formatted, hard_state, identity, opened, rows, write},
};

const OLD: ClusterId = ClusterId(77);
const NEW: ClusterId = ClusterId(78);

/// A log of 40 in many small segments, and a table up to 20.
fn used() -> TestDisk {
    let disk = formatted();
    let mut at = opened(&disk);
    let log: Vec<Entry> = (1..=40).map(|index| entry(3, index, 300)).collect();
    for entries in log.chunks(3) {
        at.journal.append(&write(hard_state(5, 2, 20), None, entries.to_vec())).unwrap();
        at.journal.sync().unwrap();
    }
    at.table.commit(&checkpoint(&log[..20])).unwrap();
    at.journal.release(Index(5)).unwrap();
    drop(at);
    disk.crash(Loss::All)
}

fn alone() -> Identity {
    Identity { cluster: NEW, members: Members::new([MemberId(1)]).unwrap(), ..identity() }
}

/// What follows the table, and a configuration at the end.
fn new_log(opened: &Opened) -> (HardState, Vec<Entry>) {
    let term = opened.recovered.hard_state.term.next();
    let mut entries = opened.recovered.tail.clone();
    let payload = alone().members.encode();
    let index = opened.recovered.last.index.next();
    entries.push(Entry::new(term, index, EntryKind::Config, payload));
    let commit = opened.recovered.hard_state.commit;
    (HardState { term, vote: Some(MemberId(1)), commit }, entries)
}

fn refounded(disk: &TestDisk) -> Result<(), OpenError> {
    let at = open(disk, &OPTIONS, Some((OLD, MemberId(1))))?;
    let (hard_state, entries) = new_log(&at);
    refound(disk, at, &alone(), hard_state, &entries)
}

/// Demands the old directory or the new one, whole; returns whether it is the new one.
fn check(disk: &TestDisk, whole: &TestDisk, context: &str) -> bool {
    let expected = opened(&whole.fork());
    // As whose it is opened is what a look at it says.
    let whose = read_identity(disk).unwrap_or_else(|error| panic!("{context}: {error}"));
    let at = open(disk, &OPTIONS, Some((whose.cluster, whose.member)));
    let at = at.unwrap_or_else(|error| panic!("{context}: {error}"));
    assert_eq!(at.identity, whose, "{context}");
    let is_new = at.identity == alone();
    let (hard_state, entries) = if is_new {
        new_log(&expected)
    } else {
        assert_eq!(at.identity, identity(), "{context}");
        (expected.recovered.hard_state, expected.recovered.tail.clone())
    };
    assert_eq!(at.recovered.hard_state, hard_state, "{context}");
    assert_eq!(at.recovered.tail, entries, "{context}");
    assert!(!is_new || at.recovered.attested == at.recovered.last.index, "{context}");
    assert_eq!(rows(&at.table.reader()), rows(&expected.table.reader()), "{context}");
    assert!(!disk.paths().iter().any(|path| path.contains("refound")), "{context}");
    is_new
}

/// The new directory has the new identity, the old table and the old log with its new end; the old
/// cluster's servers and this one refuse each other from the first.
#[test]
fn a_directory_becomes_another_clusters() {
    let whole = used();
    let disk = whole.fork();
    refounded(&disk).unwrap();
    let disk = disk.crash(Loss::All);
    let error = open(&disk, &OPTIONS, Some((OLD, MemberId(1)))).unwrap_err();
    assert!(matches!(error, OpenError::Foreign { cluster: NEW, .. }), "{error}");
    assert!(check(&disk, &whole, "refounded"));
    // It goes on like any other.
    let mut at = opened(&disk);
    let next = entry(6, 42, 10);
    at.journal.append(&write(at.recovered.hard_state, None, vec![next.clone()])).unwrap();
    at.journal.sync().unwrap();
    drop(at);
    let at = opened(&disk.crash(Loss::All));
    assert_eq!(at.recovered.tail.last(), Some(&next));
    assert_eq!(at.recovered.last, Position::new(Term(6), Index(42)));
}

/// Wherever the power is cut, however much is lost: the directory is the old one or the new one,
/// and doing it again ends it.
#[test]
fn every_operation_may_be_the_last() {
    let whole = used();
    let (mut old_count, mut new_count) = (0, 0);
    for at in 0.. {
        let disk = whole.fork();
        disk.set_fuse(Some(at));
        let done = refounded(&disk).is_ok();
        let losses = [Loss::All, Loss::Nothing, Loss::Torn(2 * at), Loss::Torn(2 * at + 1)];
        for loss in losses {
            let context = format!("operation {at}, {loss:?}");
            let crashed = disk.crash(loss);
            let is_new = check(&crashed, &whole, &context);
            assert!(is_new || !done, "{context}: what was done is there");
            *if is_new { &mut new_count } else { &mut old_count } += 1;
            if !is_new {
                refounded(&crashed).unwrap();
                assert!(check(&crashed.crash(Loss::All), &whole, &context));
            }
        }
        if done && !disk.is_dead() {
            break;
        }
    }
    assert!(40 < old_count && 20 < new_count, "{old_count} stayed old, {new_count} became new");
}

/// Ending what was cut short may itself be cut short anywhere.
#[test]
fn ending_it_may_be_cut_short() {
    let whole = used();
    let marked = (0..).find_map(|at| {
        let disk = whole.fork();
        disk.set_fuse(Some(at));
        let _cut = refounded(&disk).is_err();
        let crashed = disk.crash(Loss::All);
        crashed.paths().iter().any(|path| path == "refound").then_some(crashed)
    });
    let marked = marked.unwrap();
    for at in 0.. {
        let disk = marked.fork();
        disk.set_fuse(Some(at));
        let done = open(&disk, &OPTIONS, None).is_ok();
        for loss in [Loss::All, Loss::Nothing, Loss::Torn(at)] {
            let context = format!("operation {at}, {loss:?}");
            assert!(check(&disk.crash(loss), &whole, &context), "{context}");
        }
        if done && !disk.is_dead() {
            break;
        }
    }
    let at = opened(&marked);
    let completed = Note::Refounded { cluster: NEW };
    assert!(at.recovered.notes.contains(&completed), "{:?}", at.recovered.notes);
}

/// A damaged entry of the new log, the last one too, is damage and no torn tail.
#[test]
fn the_new_log_attests_itself() {
    let whole = used();
    refounded(&whole).unwrap();
    drop(opened(&whole));
    let segments = whole.segments();
    let [segment] = &segments[..] else { panic!("{segments:?}") };
    let size = whole.contents(segment).len();
    for offset in (512..size - 512).step_by(509) {
        let disk = whole.fork();
        disk.flip(segment, offset, 1);
        let at = opened(&disk);
        let recovered = &at.recovered;
        let whole = recovered.last.index == Index(41);
        assert!(whole || recovered.last.index < recovered.attested, "offset {offset}");
    }
}

/// A directory whose table is behind its journal's beginning lacks what is between.
#[test]
fn a_hollow_directory_is_refused() {
    let disk = formatted();
    let mut at = opened(&disk);
    for index in 1..=40 {
        let entries = vec![entry(3, index, 300)];
        at.journal.append(&write(hard_state(5, 2, 20), None, entries)).unwrap();
        at.journal.sync().unwrap();
    }
    at.journal.release(Index(20)).unwrap();
    drop(at);
    let error = refounded(&disk).unwrap_err();
    assert!(matches!(error, OpenError::Gap { .. }), "{error}");
    assert_eq!(opened(&disk).identity, identity());
}
