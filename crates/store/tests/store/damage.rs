//! Bytes flip where nobody wrote. Nothing that was acknowledged is lost silently.

use kvraft_base::{Entry, HardState, Index, Records, TableId};
use kvraft_store::{Note, OpenError, Opened, Table, open};

use crate::{
    disk::{Loss, TestDisk},
    world::{
        OPTIONS, Rows, applied_row, checkpoint, entry, formatted, hard_state, opened, rows, write,
    },
};

/// Five segments; the second turn truncates, the last has no entries. Every turn commits what was
/// there before it, but for what is truncated.
fn small_journal() -> (TestDisk, Vec<Entry>, Vec<HardState>) {
    let disk = formatted();
    let mut at = opened(&disk);
    let mut log: Vec<Entry> = Vec::new();
    let mut states = Vec::new();
    for turn in 0..10_u64 {
        let truncate = (turn == 1).then_some(2);
        let term = 1 + turn / 3 + u64::from(1 <= turn);
        let first = truncate.unwrap_or(log.len() as u64 + 1);
        log.truncate(usize::try_from(first).unwrap() - 1);
        let count = if turn == 9 { 0 } else { 2 };
        let entries: Vec<Entry> =
            (first..first + count).map(|index| entry(term, index, 600)).collect();
        log.extend(entries.clone());
        let state = hard_state(term, 1 + term % 2, first - 1);
        at.journal.append(&write(state, truncate, entries)).unwrap();
        at.journal.sync().unwrap();
        states.push(state);
    }
    drop(at);
    assert_eq!(disk.segments().len(), 5);
    (disk, log, states)
}

fn log_of(at: &Opened) -> Vec<Entry> {
    assert_eq!(at.recovered.released.index, Index::ZERO);
    at.recovered.tail.clone()
}

/// Any byte of any segment may flip: the whole log is there, or the server knows that it is not. Only
/// the very last batch, which nothing attests yet, may be taken for torn.
#[test]
fn every_flipped_byte_of_the_journal_is_seen() {
    let (disk, log, states) = small_journal();
    let (mut whole, mut torn, mut muted, mut refused) = (0, 0, 0, 0);
    for path in disk.segments() {
        let size = disk.contents(&path).len();
        // Headers byte by byte; the rest, which one checksum covers, at a stride.
        let offsets = (0..size).filter(|offset| offset % 512 < 100 || offset % 7 == 0);
        for offset in offsets {
            let disk = disk.fork();
            disk.flip(&path, offset, 1 << (offset % 8));
            let context = format!("{path} at {offset}");
            let at = match open(&disk, &OPTIONS, None) {
                Ok(at) => at,
                Err(OpenError::HardStateLost { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{context}: {error}"),
            };
            let found = log_of(&at);
            let last = at.recovered.last.index;
            if at.recovered.attested <= last {
                assert_eq!(found, log, "{context}: lost without a word");
                let state = at.recovered.hard_state;
                assert!(states[8..].contains(&state), "{context}: {state:?}");
                whole += 1;
                torn += u64::from(state != states[9]);
            } else {
                // Nor may an entry be there again that a lost batch had replaced: what was replaced
                // is not committed, and the hard state says that something at its index is.
                assert!(log.starts_with(&found), "{context}: something else was there");
                assert_eq!(at.recovered.hard_state, states[9], "{context}");
                assert_eq!(at.recovered.attested, Index(log.len() as u64), "{context}");
                muted += 1;
            }
        }
    }
    assert!(0 < whole && 0 < torn && 0 < muted, "{whole} whole, {torn} torn, {muted} muted");
    assert_eq!(refused, 0, "the newest segment has batches");
}

/// A muted log goes on, stays muted over restarts until it is as long as it was, and what is damaged
/// is never believed again.
#[test]
fn a_damaged_log_is_repaired_by_appending() {
    let (disk, log, states) = small_journal();
    disk.flip(&disk.segments()[1], 700, 1);
    let mut disk = disk;
    let first = opened(&disk);
    let kept = log_of(&first).len();
    assert!(0 < kept && kept < log.len());
    assert!(first.recovered.notes.iter().any(|note| matches!(note, Note::Damaged { .. })));
    drop(first);
    for entry in &log[kept..] {
        let mut at = opened(&disk);
        assert_eq!(at.recovered.attested, Index(log.len() as u64), "still owed");
        assert_eq!(at.recovered.last.index, entry.index.prev());
        at.journal.append(&write(states[9], None, vec![entry.clone()])).unwrap();
        at.journal.sync().unwrap();
        drop(at);
        disk = disk.crash(Loss::All);
    }
    let at = opened(&disk);
    assert_eq!(log_of(&at), log);
    assert_eq!(at.recovered.attested, at.recovered.last.index);
    assert_eq!(at.recovered.notes, []);
}

/// The end of a damaged log may have been replaced long ago by what is missing: it is not there
/// again, and the missing part stays owed until all of it is back.
#[test]
fn what_a_missing_batch_may_have_replaced_is_dropped() {
    let (disk, log, _) = small_journal();
    disk.flip(&disk.segments()[0], 512 + 1536 + 100, 1);
    let mut at = opened(&disk);
    assert_eq!(at.recovered.tail, [], "not even 2@1, which the damaged batch has replaced");
    let state = at.recovered.hard_state;
    at.journal.append(&write(state, None, log[..3].to_vec())).unwrap();
    at.journal.sync().unwrap();
    drop(at);
    let at = opened(&disk.crash(Loss::All));
    assert_eq!(at.recovered.last, log[2].position());
    assert_eq!(at.recovered.attested, Index(log.len() as u64));
}

/// Where the term has not changed meanwhile nothing can have been replaced: all that is before the
/// missing batch stays.
#[test]
fn what_a_missing_batch_cannot_have_replaced_stays() {
    let disk = formatted();
    let mut at = opened(&disk);
    let log: Vec<Entry> = (1..=6).map(|index| entry(1, index, 600)).collect();
    for two in log.chunks(2) {
        at.journal.append(&write(hard_state(1, 1, 0), None, two.to_vec())).unwrap();
        at.journal.sync().unwrap();
    }
    drop(at);
    disk.flip(&disk.segments()[0], 512 + 1536 + 100, 1);
    let at = opened(&disk);
    assert_eq!(log_of(&at), log[..2]);
    assert_eq!(at.recovered.attested, Index(6));
}

/// As long as a part of the log is missing, what is truncated may be what that part had replaced
/// before: it stays owed.
#[test]
fn a_truncation_forgives_nothing_while_a_part_is_missing() {
    let disk = formatted();
    let mut at = opened(&disk);
    for index in 1..=4 {
        let entries = vec![entry(1, index, 600)];
        at.journal.append(&write(hard_state(1, 1, 0), None, entries)).unwrap();
        at.journal.sync().unwrap();
    }
    drop(at);
    disk.flip(&disk.segments()[0], 512 + 2048 + 100, 1);
    let mut at = opened(&disk);
    assert_eq!((at.recovered.last.index, at.recovered.attested), (Index(2), Index(4)));
    let entries = vec![entry(2, 2, 600)];
    at.journal.append(&write(hard_state(2, 1, 0), Some(2), entries)).unwrap();
    at.journal.sync().unwrap();
    assert_eq!(at.journal.attested(), Index(4));
    drop(at);
    let at = opened(&disk.crash(Loss::All));
    assert_eq!((at.recovered.last.index, at.recovered.attested), (Index(2), Index(4)));
}

/// A vote that was written at the end of a segment, and nothing else, is damaged: the next segment
/// knows it, and the damage is told all the same.
#[test]
fn a_damaged_vote_between_segments_is_told() {
    let disk = formatted();
    let mut at = opened(&disk);
    let mut path = None;
    // Each term has one entry; the vote for the next term is written by itself.
    for term in 1..=20 {
        let before = disk.segments();
        let state = hard_state(term, 2, term - 1);
        at.journal.append(&write(state, None, vec![entry(term, term, 600)])).unwrap();
        at.journal.sync().unwrap();
        if disk.segments() != before {
            path = before.last().cloned();
            break;
        }
        at.journal.append(&write(hard_state(term + 1, 2, term), None, Vec::new())).unwrap();
        at.journal.sync().unwrap();
    }
    let (last, voted) = (at.journal.last(), at.journal.hard_state());
    let path = path.expect("a vote came last in a segment");
    drop(at);
    let contents = disk.contents(&path);
    let end = contents.iter().rposition(|byte| *byte != 0).expect("a batch is there");
    disk.flip(&path, end, 1);
    let at = opened(&disk);
    assert_eq!((at.recovered.last, at.recovered.hard_state), (last, voted));
    assert!(matches!(&at.recovered.notes[..], [Note::Damaged { .. }]), "{:?}", at.recovered.notes);
}

/// When nothing says what was voted for, only a new member id helps.
#[test]
fn lost_hard_state_is_refused() {
    let disk = formatted();
    let path = "journal/0000000000000001.seg";
    disk.flip(path, 100, 4);
    let error = open(&disk, &OPTIONS, None).unwrap_err();
    assert!(matches!(error, OpenError::HardStateLost { .. }));
    assert!(error.to_string().contains("new member id"), "{error}");
}

/// What a recorded commit covers is owed even if nothing else attests it.
#[test]
fn a_recorded_commit_is_owed() {
    let disk = formatted();
    let mut at = opened(&disk);
    at.journal.append(&write(hard_state(1, 1, 2), None, vec![entry(1, 1, 5)])).unwrap();
    at.journal.sync().unwrap();
    drop(at);
    let at = opened(&disk);
    assert_eq!(at.recovered.last.index, Index(1));
    assert_eq!(at.recovered.attested, Index(2));
}

/// A flipped byte of the table is an error or has no effect; never another value, never "not found".
#[test]
fn flipped_bytes_of_the_table_are_seen() {
    let disk = formatted();
    let mut at = opened(&disk);
    for round in 0..3_u64 {
        let entries: Vec<Entry> = (1..=40).map(|n| entry(1, round * 40 + n, 200)).collect();
        at.table.commit(&checkpoint(&entries)).unwrap();
    }
    let expected = rows(&at.table.reader());
    drop(at);
    let size = disk.contents("table").len();
    let header = 0..512;
    let (mut same, mut seen) = (0, 0);
    for offset in header.chain((512..size).step_by(509)) {
        let disk = disk.fork();
        disk.flip("table", offset, 1 << (offset % 8));
        match read_all(&disk) {
            Ok(found) => {
                assert_eq!(found, expected, "offset {offset}");
                same += 1;
            }
            Err(_) => seen += 1,
        }
    }
    assert!(300 < seen && 0 < same, "{seen} seen, {same} without effect");
}

fn read_all(disk: &TestDisk) -> Result<Rows, Box<dyn std::error::Error>> {
    let table = Table::open(disk, &OPTIONS)?;
    if table.applied().index != Index(120) {
        return Ok(Vec::new());
    }
    let mut rows = Rows::new();
    table.reader().scan(TableId::Records, &[], None, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        std::ops::ControlFlow::Continue(())
    })?;
    Ok(rows)
}

/// A table that is truncated, emptied or missing is named.
#[test]
fn a_mangled_table_file_is_named() {
    let disk = formatted();
    let whole = disk.contents("table");
    for size in [0, 100, 4096, whole.len() - 1, whole.len() - 4096] {
        let disk = disk.fork();
        disk.set_contents("table", whole[..size].to_vec());
        let error = open(&disk, &OPTIONS, None).unwrap_err();
        assert!(error.to_string().contains("table"), "{size}: {error}");
    }
    kvraft_base::Disk::remove(&disk, "table").unwrap();
    let error = open(&disk, &OPTIONS, None).unwrap_err();
    assert!(error.to_string().contains("table: the file is missing"), "{error}");
}

/// The row that records the position is part of every checkpoint.
#[test]
fn positions_are_recorded() {
    let disk = formatted();
    let mut at = opened(&disk);
    let checkpoint = checkpoint(&[entry(3, 7, 1)]);
    assert!(checkpoint.ops.contains(&applied_row(checkpoint.applied)));
    at.table.commit(&checkpoint).unwrap();
    assert_eq!(at.table.applied(), checkpoint.applied);
}
