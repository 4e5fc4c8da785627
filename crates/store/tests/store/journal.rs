//! The journal without faults: reading back, truncation, rotation, release, reset, poison.

use kvraft_base::{Entry, HardState, Index, MemberId, Position, Term};
use kvraft_store::{DumpItem, Note, dump, open};

use crate::{
    disk::{Loss, TestDisk},
    world::{OPTIONS, checkpoint, entry, formatted, hard_state, opened, write},
};

fn position(term: u64, index: u64) -> Position {
    Position::new(Term(term), Index(index))
}

/// A journal with entries 1..=count of term 1, one batch and one sync each.
fn filled(disk: &TestDisk, count: u64) -> kvraft_store::Opened {
    let mut at = opened(disk);
    for index in 1..=count {
        let write = write(hard_state(1, 1, index - 1), None, vec![entry(1, index, 300)]);
        at.journal.append(&write).unwrap();
        at.journal.sync().unwrap();
    }
    at
}

fn indexes(entries: Option<Vec<Entry>>) -> Option<Vec<u64>> {
    entries.map(|entries| entries.iter().map(|entry| entry.index.0).collect())
}

/// Entries are read back across segments, bounded by bytes, and only after what they follow.
#[test]
fn reads_are_checked_against_what_they_follow() {
    let disk = formatted();
    let at = filled(&disk, 20);
    assert!(2 < disk.segments().len(), "the log spans segments");
    let read = |prev, first, last, size| {
        indexes(at.journal.read(prev, Index(first), Index(last), size).unwrap())
    };
    assert_eq!(read(position(1, 4), 5, 14, usize::MAX), Some((5..=14).collect()));
    assert_eq!(read(position(0, 0), 1, 2, usize::MAX), Some(vec![1, 2]));
    assert_eq!(read(position(1, 4), 5, 14, 700), Some(vec![5, 6]), "bounded by bytes");
    assert_eq!(read(position(1, 4), 5, 14, 1), Some(vec![5]), "at least one");
    assert_eq!(read(position(2, 4), 5, 14, 700), None, "another term");
    assert_eq!(read(position(1, 4), 5, 21, 700), None, "over the end");
    assert_eq!(read(position(1, 4), 6, 14, 700), None, "a hole");
}

/// A truncation in the middle of a batch takes effect, before and after reopening.
#[test]
fn truncation_cuts_within_a_batch() {
    let disk = formatted();
    let mut at = opened(&disk);
    let first: Vec<Entry> = (1..=6).map(|index| entry(1, index, 10)).collect();
    at.journal.append(&write(hard_state(1, 1, 0), None, first)).unwrap();
    let second = vec![entry(2, 4, 10), entry(2, 5, 10)];
    at.journal.append(&write(hard_state(2, 2, 0), Some(4), second.clone())).unwrap();
    at.journal.sync().unwrap();
    drop(at);
    let at = opened(&disk.crash(Loss::All));
    assert_eq!(at.recovered.last, position(2, 5));
    assert_eq!(at.recovered.tail[3..], second);
    assert_eq!(at.recovered.hard_state.vote, Some(MemberId(2)));
    let read = at.journal.read(position(1, 3), Index(4), Index(5), usize::MAX).unwrap();
    assert_eq!(read, Some(second));
}

/// After a loss of power a file may end anywhere: a batch counts only with its padding.
#[test]
fn a_segment_may_end_anywhere() {
    let disk = formatted();
    let mut at = opened(&disk);
    let first = vec![entry(1, 1, 10)];
    at.journal.append(&write(hard_state(1, 1, 0), None, first)).unwrap();
    drop(at);
    let path = "journal/0000000000000001.seg";
    let whole = disk.contents(path);
    for size in 512..1100 {
        let disk = disk.fork();
        disk.set_contents(path, whole[..size].to_vec());
        let mut at = opened(&disk);
        let last = if size < 1024 { Position::ZERO } else { position(1, 1) };
        assert_eq!(at.recovered.last, last, "{size} bytes");
        let next = vec![entry(1, last.index.0 + 1, 10)];
        at.journal.append(&write(hard_state(1, 1, 0), None, next)).unwrap();
    }
}

/// Release gives up whole segments, keeps the rest readable, and the file is used again without its
/// old batches being believed.
#[test]
fn released_segments_are_used_again() {
    let disk = formatted();
    let mut at = filled(&disk, 20);
    let before = disk.segments().len();
    let released = at.journal.release(Index(12)).unwrap();
    assert!(position(1, 1) < released && released <= position(1, 12));
    assert!(disk.segments().len() < before);
    assert!(disk.paths().iter().any(|path| path.ends_with(".old")), "one is kept");
    let first = released.index.next();
    let left = at.journal.read(released, first, Index(20), usize::MAX).unwrap().unwrap();
    assert_eq!(left.first().unwrap().index, first);
    assert_eq!(at.journal.read(position(1, 1), Index(2), Index(3), 9).unwrap(), None, "released");
    at.table.commit(&checkpoint(&[entry(1, 12, 5)])).unwrap();
    for index in 21..=30 {
        let write = write(hard_state(1, 1, 0), None, vec![entry(1, index, 300)]);
        at.journal.append(&write).unwrap();
        at.journal.sync().unwrap();
    }
    assert!(!disk.paths().iter().any(|path| path.ends_with(".old")), "and used again");
    drop(at);
    let at = opened(&disk.crash(Loss::All));
    assert_eq!(at.recovered.last, position(1, 30));
    assert_eq!(at.recovered.released, released);
    assert_eq!(at.recovered.tail.len(), 18);
}

/// A border below which a later segment truncated is no beginning: release keeps both sides.
#[test]
fn release_respects_truncation_across_segments() {
    let disk = formatted();
    let mut at = filled(&disk, 8);
    let first: Vec<Entry> = (5..=8).map(|index| entry(2, index, 300)).collect();
    at.journal.append(&write(hard_state(2, 2, 0), Some(5), first)).unwrap();
    at.journal.sync().unwrap();
    let released = at.journal.release(Index(8)).unwrap();
    assert!(released.index <= Index(4), "{released}");
    let released = at.journal.released();
    let left = at.journal.read(released, released.index.next(), Index(8), usize::MAX).unwrap();
    assert_eq!(left.unwrap().last().unwrap().position(), position(2, 8));
}

/// After a reset the log begins anew; entries that had another term there are not owed, others are.
#[test]
fn reset_remembers_what_was_acknowledged() {
    for (snapshot, attested) in
        [(position(2, 10), 10), (position(1, 10), 20), (position(3, 30), 30)]
    {
        let disk = formatted();
        let mut at = filled(&disk, 20);
        at.table.commit(&checkpoint(&[entry(snapshot.term.0, snapshot.index.0, 1)])).unwrap();
        at.journal.reset(snapshot, hard_state(3, 0, 0), None).unwrap();
        drop(at);
        let at = opened(&disk.crash(Loss::All));
        assert_eq!((at.recovered.released, at.recovered.last), (snapshot, snapshot));
        assert_eq!(at.recovered.attested, Index(attested), "{snapshot}");
        assert_eq!(at.recovered.hard_state, hard_state(3, 0, 0));
    }
}

/// After a failed write or sync everything but reading is refused, naming the first failure.
#[test]
fn failure_poisons_the_journal() {
    let disk = formatted();
    let mut at = filled(&disk, 3);
    at.journal.append(&write(hard_state(1, 1, 0), None, vec![entry(1, 4, 1)])).unwrap();
    disk.set_fuse(Some(0));
    let first = at.journal.sync().unwrap_err();
    disk.revive();
    assert!(first.path.ends_with(".seg"), "{first}");
    let later = at.journal.sync().unwrap_err();
    assert!(later.to_string().contains("refused after an earlier failure"), "{later}");
    assert!(at.journal.append(&write(hard_state(1, 1, 0), None, Vec::new())).is_err());
    assert!(at.journal.release(Index(1)).is_err());
    assert!(at.journal.reset(position(1, 9), HardState::default(), None).is_err());
    let read = at.journal.read(position(1, 1), Index(2), Index(3), 9).unwrap();
    assert_eq!(indexes(read), Some(vec![2]));
}

/// A dump shows every entry and names what is damaged, and changes nothing.
#[test]
fn dump_names_damage() {
    let disk = formatted();
    drop(filled(&disk, 3));
    disk.flip("journal/0000000000000001.seg", 512 + 1024 + 200, 1);
    let before = disk.contents("journal/0000000000000001.seg");
    let mut found = Vec::new();
    dump(&disk, &mut |item| found.push(item)).unwrap();
    let kinds: Vec<String> = found
        .iter()
        .map(|item| match item {
            DumpItem::Segment { path, .. } => format!("segment {path}"),
            DumpItem::Batch { offset, sequence, .. } => format!("batch {sequence} at {offset}"),
            DumpItem::Entry { entry, .. } => format!("entry {}", entry.position()),
            DumpItem::Unreadable { offset, detail, .. } => format!("bad at {offset}: {detail}"),
        })
        .collect();
    let expected = [
        "segment journal/0000000000000001.seg",
        "batch 1 at 512",
        "entry 1@1",
        "batch 2 at 1024",
        "entry 2@1",
        "bad at 1536: batch 3: batch checksum mismatch",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(disk.contents("journal/0000000000000001.seg"), before);
}

/// What was torn and cut is never believed later, not even when new batches end just before it.
#[test]
fn cut_batches_stay_cut() {
    let disk = formatted();
    let mut at = filled(&disk, 1);
    let batch = |index| write(hard_state(1, 1, 0), None, vec![entry(1, index, 300)]);
    at.journal.append(&batch(2)).unwrap();
    at.journal.append(&batch(3)).unwrap();
    // Of two batches that were not synced, only the second reached the medium.
    let path = "journal/0000000000000001.seg";
    let mut bytes = disk.contents(path);
    bytes[1024..1536].fill(0);
    disk.set_contents(path, bytes);
    let mut again = opened(&disk);
    assert_eq!(again.recovered.last, position(1, 1));
    assert!(matches!(again.recovered.notes[..], [Note::TornTail { offset: 1536, .. }]));
    let other = write(hard_state(2, 2, 0), None, vec![entry(2, 2, 300)]);
    again.journal.append(&other).unwrap();
    again.journal.sync().unwrap();
    let third = open(&disk.crash(Loss::All), &OPTIONS, None).unwrap();
    assert_eq!(third.recovered.last, position(2, 2));
    assert_eq!(third.recovered.notes, []);
}
