//! A snapshot install that is cut short is completed or has not happened; a journal that lost its
//! end is never taken for one.

use bytes::Bytes;
use kvraft_base::{Entry, HardState, Index, Position};
use kvraft_store::{Import, Note, OpenError, Opened, Table, open};

use crate::{
    disk::{Loss, TestDisk},
    world::{
        OPTIONS, SNAPSHOT, checkpoint, entry, formatted, hard_state, identity, opened, snapshot,
        write,
    },
};

/// What was voted before the install, and must be known after it.
fn voted() -> HardState {
    hard_state(9, 3, 10)
}

/// A log up to 20, a table up to 10, and a vote.
fn before_install() -> TestDisk {
    let disk = formatted();
    let mut at = opened(&disk);
    let log: Vec<Entry> = (1..=20).map(|index| entry(1, index, 300)).collect();
    for entries in log.chunks(2) {
        at.journal.append(&write(hard_state(1, 1, 10), None, entries.to_vec())).unwrap();
    }
    at.journal.append(&write(voted(), None, Vec::new())).unwrap();
    at.journal.sync().unwrap();
    at.table.commit(&checkpoint(&log[..10])).unwrap();
    drop(at);
    disk.crash(Loss::All)
}

type Failed = Box<dyn std::error::Error>;

fn install(disk: &TestDisk, chunks: &[Bytes]) -> Result<(), Failed> {
    let mut at = open(disk, &OPTIONS, None)?;
    let mut import = Import::begin(disk, SNAPSHOT)?;
    for chunk in chunks {
        import.push(chunk.clone())?;
    }
    import.install()?;
    at.table = Table::open(disk, &OPTIONS)?;
    at.journal.reset(SNAPSHOT, voted(), None)?;
    assert!(!disk.is_dead(), "what fails is told");
    Ok(())
}

fn losses(at: u64) -> Vec<Loss> {
    let torn = (0..12).map(|draw| Loss::Torn(12 * at + draw));
    [Loss::All, Loss::Nothing].into_iter().chain(torn).collect()
}

/// Before or after, never between. Returns whether the snapshot is installed.
fn check(disk: &TestDisk, context: &str) -> bool {
    let at = open(disk, &OPTIONS, None).unwrap_or_else(|error| panic!("{context}: {error}"));
    let found = &at.recovered;
    let installed = found.applied == SNAPSHOT;
    assert_eq!(found.hard_state.term, voted().term, "{context}");
    assert_eq!(found.hard_state.vote, voted().vote, "{context}: a vote is forgotten");
    if installed {
        assert_eq!((found.released, found.last), (SNAPSHOT, SNAPSHOT), "{context}");
    } else {
        let ends = (found.applied, found.last);
        let expected = (entry(1, 10, 0).position(), entry(1, 20, 0).position());
        assert_eq!(ends, expected, "{context}");
    }
    assert!(found.attested <= found.last.index, "{context}: muted");
    // Of a snapshot that names nobody, who took part is what it was at first.
    assert_eq!(found.members_at_base, Some(identity().members), "{context}");
    assert!(!disk.paths().contains(&"install".into()), "{context}: the mark is left");
    installed
}

/// The power is cut in every operation of an install; what was not synced is lost, kept, or torn.
#[test]
fn an_install_may_be_cut_anywhere() {
    let (before, chunks) = (before_install(), snapshot());
    let (mut old, mut new, mut forward) = (0, 0, 0);
    for at in 0.. {
        let disk = before.fork();
        disk.set_fuse(Some(at));
        let done = install(&disk, &chunks).is_ok();
        for loss in losses(at) {
            let context = format!("operation {at}, {loss:?}");
            let crashed = disk.crash(loss);
            let rolled = open(&crashed.fork(), &OPTIONS, None).unwrap().recovered.notes;
            forward += u64::from(
                rolled.iter().any(|note| matches!(note, Note::InstallRolledForward { .. })),
            );
            let installed = check(&crashed, &context);
            assert!(installed || !done, "{context}: a finished install is gone");
            assert_eq!(check(&crashed.crash(loss), &context), installed, "{context}, once more");
            *(if installed { &mut new } else { &mut old }) += 1;
        }
        if done {
            break;
        }
    }
    assert!(100 < old && 50 < new && 20 < forward, "{old} old, {new} new, {forward} completed");
}

/// The power is cut in every operation of the recovery that completes an install.
#[test]
fn completing_an_install_may_be_cut_anywhere() {
    let (before, chunks) = (before_install(), snapshot());
    let total = (0..)
        .find(|at| {
            let disk = before.fork();
            disk.set_fuse(Some(*at));
            install(&disk, &chunks).is_ok()
        })
        .expect("an install ends");
    // Somewhere in here lie the names, the reset and the end of the mark.
    for at in total - 30..total {
        let disk = before.fork();
        disk.set_fuse(Some(at));
        install(&disk, &chunks).unwrap_err();
        for loss in [Loss::All, Loss::Nothing, Loss::Torn(at)] {
            let crashed = disk.crash(loss);
            let expected = check(&crashed.fork(), "whole");
            for cut in 0.. {
                let again = crashed.fork();
                again.set_fuse(Some(cut));
                let done = open(&again, &OPTIONS, None).is_ok() && !again.is_dead();
                for loss in [Loss::All, Loss::Nothing, Loss::Torn(cut)] {
                    let context = format!("operation {at}, recovery cut at {cut}, {loss:?}");
                    assert_eq!(check(&again.crash(loss), &context), expected, "{context}");
                }
                if done {
                    break;
                }
            }
        }
    }
}

/// A log of 20, all of it in the table, in several segments.
fn settled() -> (TestDisk, Vec<Entry>) {
    let disk = formatted();
    let mut at = opened(&disk);
    let log: Vec<Entry> = (1..=20).map(|index| entry(1, index, 600)).collect();
    for entry in &log {
        at.journal.append(&write(hard_state(1, 1, 20), None, vec![entry.clone()])).unwrap();
        at.journal.sync().unwrap();
    }
    at.table.commit(&checkpoint(&log)).unwrap();
    drop(at);
    assert!(3 < disk.segments().len());
    (disk, log)
}

/// The last segments are gone, and with them perhaps a vote: that is no install under way.
#[test]
fn a_journal_that_lost_its_end_is_refused() {
    let (disk, _) = settled();
    let segments = disk.segments();
    for kept in 1..segments.len() {
        let disk = disk.fork();
        for path in &segments[kept..] {
            kvraft_base::Disk::remove(&disk, path).unwrap();
        }
        let error = open(&disk, &OPTIONS, None).map(drop).unwrap_err();
        assert!(matches!(error, OpenError::HardStateLost { .. }), "{error}");
        assert!(error.to_string().contains(&segments[kept - 1]), "{error}");
        assert!(error.to_string().contains("new member id"), "{error}");
    }
}

/// A mark of an earlier install says nothing of a table that has moved on.
#[test]
fn an_old_mark_completes_nothing() {
    let (disk, _) = settled();
    let chunks = snapshot();
    let marked = before_install();
    let total = (0..)
        .find(|at| {
            let disk = marked.fork();
            disk.set_fuse(Some(*at));
            drop(install(&disk, &chunks));
            disk.revive();
            disk.paths().contains(&"install".into())
        })
        .expect("an install writes its mark");
    marked.set_fuse(Some(total));
    drop(install(&marked, &chunks));
    marked.revive();
    kvraft_base::Disk::create(&disk, "install").unwrap();
    disk.set_contents("install", marked.contents("install"));
    let kept = disk.segments()[0].clone();
    for path in disk.segments().into_iter().filter(|path| *path != kept) {
        kvraft_base::Disk::remove(&disk, &path).unwrap();
    }
    let error = open(&disk, &OPTIONS, None).map(drop).unwrap_err();
    assert!(matches!(error, OpenError::HardStateLost { .. }), "{error}");
}

fn debt(at: &Opened) -> (Position, Position, Index) {
    (at.recovered.released, at.recovered.last, at.recovered.attested)
}

/// Any byte of a journal whose entries are all in the table may flip: the hard state is known, and
/// what is missing is in the table or owed; or the directory is refused.
#[test]
fn damage_below_the_table_is_no_install() {
    let (disk, log) = settled();
    let end = log[19].position();
    let (mut whole, mut cut, mut refused) = (0, 0, 0);
    for path in disk.segments() {
        let size = disk.contents(&path).len();
        for offset in (0..size).filter(|offset| offset % 512 < 100 || offset % 31 == 0) {
            let disk = disk.fork();
            disk.flip(&path, offset, 1 << (offset % 8));
            let context = format!("{path} at {offset}");
            let at = match open(&disk, &OPTIONS, None) {
                Ok(at) => at,
                // The last batch: nothing later says that it was durable, but the table does.
                Err(OpenError::HardStateLost { .. }) => {
                    refused += 1;
                    continue;
                }
                Err(error) => panic!("{context}: {error}"),
            };
            let notes = &at.recovered.notes;
            let rolled = notes.iter().any(|n| matches!(n, Note::InstallRolledForward { .. }));
            assert!(!rolled, "{context}: {notes:?}");
            assert_eq!(at.recovered.hard_state, hard_state(1, 1, 20), "{context}");
            assert_eq!((at.recovered.applied, at.recovered.last), (end, end), "{context}");
            assert_eq!(at.recovered.attested, end.index, "{context}");
            if notes.contains(&Note::JournalCut { applied: end }) {
                let expected = debt(&at);
                drop(at);
                assert_eq!(debt(&opened(&disk.crash(Loss::All))), expected, "{context}");
                cut += 1;
            } else {
                whole += 1;
            }
        }
    }
    assert!(0 < whole && 0 < cut && 0 < refused, "{whole} whole, {cut} cut, {refused} refused");
}

/// What came after the table is owed when a journal that is damaged before it begins anew.
#[test]
fn a_cut_journal_owes_what_came_later() {
    let (disk, log) = settled();
    let mut at = opened(&disk);
    for index in 21..=25 {
        let entries = vec![entry(1, index, 600)];
        at.journal.append(&write(hard_state(2, 3, 20), None, entries)).unwrap();
        at.journal.sync().unwrap();
    }
    drop(at);
    disk.flip(&disk.segments()[1], 700, 1);
    let end = log[19].position();
    for disk in [disk.fork(), disk.crash(Loss::All)] {
        let at = opened(&disk);
        assert_eq!(debt(&at), (end, end, Index(25)));
        assert_eq!(at.recovered.hard_state, hard_state(2, 3, 20));
        drop(at);
        assert_eq!(debt(&opened(&disk)), (end, end, Index(25)), "still owed");
    }
}
