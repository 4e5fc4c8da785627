//! A damaged table is never served from: it is set aside, and journal and hard state stay.

use kvraft_base::{Damage, Disk, Entry, Index, MemberId, Members, Position};
use kvraft_store::{Identity, Note, OpenError, format, open, rebuild};

use crate::{
    disk::{Loss, TestDisk},
    world::{
        OPTIONS, checkpoint, configuration, entry, formatted, hard_state, identity, opened, rows,
        write,
    },
};

/// A log of 30 and a table up to 20, in a directory of these members.
fn used(members: &[u64], released: u64) -> (TestDisk, Vec<Entry>) {
    used_by(members, None, released)
}

/// The same, by a cluster whose members became others with the entry 20, if it names them.
fn used_by(members: &[u64], later: Option<&[u64]>, released: u64) -> (TestDisk, Vec<Entry>) {
    let disk = TestDisk::new();
    let of = |ids: &[u64]| Members::new(ids.iter().copied().map(MemberId)).unwrap();
    format(&disk, &Identity { members: of(members), ..identity() }).unwrap();
    let mut at = opened(&disk);
    let mut log: Vec<Entry> = (1..=30).map(|index| entry(1, index, 300)).collect();
    if let Some(ids) = later {
        log[19] = configuration(1, 20, &of(ids));
    }
    for entries in log.chunks(3) {
        at.journal.append(&write(hard_state(4, 2, 20), None, entries.to_vec())).unwrap();
        at.journal.sync().unwrap();
    }
    at.table.commit(&checkpoint(&log[..10])).unwrap();
    at.table.commit(&checkpoint(&log[10..20])).unwrap();
    at.journal.release(Index(released)).unwrap();
    drop(at);
    (disk.crash(Loss::All), log)
}

/// Opens and reads everything, as a server does when it starts.
fn open_and_read(disk: &TestDisk) -> Result<kvraft_store::Opened, Damage> {
    let lost = |error: OpenError| error.table_damage().cloned().expect("only the table is damaged");
    let at = open(disk, &OPTIONS, None).map_err(lost)?;
    let visit = &mut |_: &[u8], _: &[u8]| std::ops::ControlFlow::Continue(());
    let table = kvraft_base::TableId::Records;
    kvraft_base::Records::scan(&at.table.reader(), table, &[], None, visit)?;
    Ok(at)
}

/// Any byte of the table may flip: what is read is right, or the table is given up and the journal
/// holds everything that is needed to fill it again.
#[test]
fn a_damaged_table_is_set_aside() {
    let (whole, log) = used(&[1, 2, 3], 0);
    let expected = rows(&opened(&whole.fork()).table.reader());
    let size = whole.contents("table").len();
    let (mut same, mut rebuilt) = (0, 0);
    for offset in (0..512).step_by(3).chain((512..size).step_by(509)) {
        let disk = whole.fork();
        disk.flip("table", offset, 1 << (offset % 8));
        let damage = match open_and_read(&disk) {
            Ok(at) => {
                assert_eq!(rows(&at.table.reader()), expected, "offset {offset}");
                same += 1;
                continue;
            }
            Err(damage) => damage,
        };
        let notes = rebuild(&disk, &OPTIONS, &damage).unwrap();
        assert!(matches!(&notes[..], [Note::TableSetAside { .. }]), "offset {offset}: {notes:?}");
        let at = opened(&disk.crash(Loss::All));
        assert_eq!(at.recovered.hard_state, hard_state(4, 2, 20), "offset {offset}");
        assert_eq!(at.recovered.applied, Position::ZERO, "offset {offset}");
        assert_eq!(at.recovered.tail, log, "offset {offset}");
        assert!(at.recovered.attested <= Index(30), "offset {offset}: muted");
        rebuilt += 1;
    }
    assert!(50 < rebuilt && 0 < same, "{rebuilt} rebuilt, {same} without effect");
}

/// Damage that is met in use is remembered: the next start does not believe the table, even where it
/// would not meet the damage again.
#[test]
fn what_is_found_in_use_is_remembered() {
    let (disk, _) = used(&[1, 2, 3], 0);
    let at = opened(&disk);
    let gone = Damage::Lost { what: "revision 7".into(), detail: "not in the table".into() };
    at.table.reader().condemn(&gone);
    drop(at);
    let disk = disk.crash(Loss::All);
    let error = open(&disk, &OPTIONS, None).map(drop).unwrap_err();
    assert!(error.to_string().contains("revision 7"), "{error}");
    rebuild(&disk, &OPTIONS, error.table_damage().unwrap()).unwrap();
    let at = opened(&disk.crash(Loss::All));
    assert_eq!(at.recovered.applied, Position::ZERO);
    assert_eq!(at.recovered.notes, []);
}

/// The empty table may be damaged, too, before its first checkpoint: then it is not taken for what an
/// earlier attempt has left, and used again and again.
#[test]
fn an_empty_table_is_not_trusted_twice() {
    let (disk, log) = used(&[1, 2, 3], 0);
    let gone = Damage::Lost { what: "revision 7".into(), detail: "not in the table".into() };
    rebuild(&disk, &OPTIONS, &gone).unwrap();
    for offset in (0..disk.contents("table").len()).step_by(1024) {
        let Ok(at) = open(&disk, &OPTIONS, None) else { continue };
        at.table.reader().condemn(&gone);
        drop(at);
        disk.flip("table", offset, 1);
        rebuild(&disk, &OPTIONS, &gone).unwrap();
        let mut at = opened(&disk.fork());
        at.table.commit(&checkpoint(&log[..10])).unwrap();
    }
}

/// A disk that fails or is full says nothing about the table.
#[test]
fn a_failing_disk_is_no_damage() {
    let (disk, _) = used(&[1, 2, 3], 0);
    let mut at = opened(&disk);
    disk.set_fuse(Some(0));
    at.table.commit(&checkpoint(&[entry(1, 21, 5)])).unwrap_err();
    disk.revive();
    drop(at);
    assert!(!disk.paths().contains(&"table.rebuild".into()));
    assert_eq!(opened(&disk.crash(Loss::All)).recovered.applied.index, Index(20));
}

/// A missing table is a damaged one: to remove it is how a person asks for a rebuild.
#[test]
fn a_missing_table_is_rebuilt() {
    let (disk, log) = used(&[1], 0);
    disk.remove("table").unwrap();
    let damage = open_and_read(&disk).map(drop).unwrap_err();
    rebuild(&disk, &OPTIONS, &damage).unwrap();
    assert_eq!(opened(&disk).recovered.tail, log);
}

/// One damaged table is kept, the newest.
#[test]
fn one_damaged_table_is_kept() {
    let (disk, _) = used(&[1, 2, 3], 0);
    for mask in [1, 2] {
        disk.flip("table", 40, mask);
        let bytes = disk.contents("table");
        let damage = open_and_read(&disk).map(drop).unwrap_err();
        rebuild(&disk, &OPTIONS, &damage).unwrap();
        assert_eq!(disk.contents("table.damaged"), bytes);
    }
    let kept = disk.paths().into_iter().filter(|path| path.starts_with("table")).count();
    assert_eq!(kept, 2, "{:?}", disk.paths());
}

/// Where the journal has let go of its beginning, a server opens hollow.
#[test]
fn a_peer_must_help_where_the_journal_is_short() {
    let (disk, log) = used(&[1, 2, 3], 15);
    disk.flip("table", 40, 1);
    let damage = open_and_read(&disk).map(drop).unwrap_err();
    rebuild(&disk, &OPTIONS, &damage).unwrap();
    for _ in 0..2 {
        let at = opened(&disk);
        let released = at.recovered.released;
        assert!(Index::ZERO < released.index);
        assert_eq!(at.recovered.applied, Position::ZERO);
        assert!(at.recovered.attested <= Index(30), "muted");
        assert_eq!(at.recovered.tail, log[usize::try_from(released.index.0).unwrap()..]);
        assert_eq!(at.recovered.hard_state, hard_state(4, 2, 20));
        let hollow = Note::Hollow { applied: Position::ZERO, released };
        assert!(at.recovered.notes.contains(&hollow), "{:?}", at.recovered.notes);
    }

    // Who began alone may have got company, and who cannot tell goes hollow too.
    for later in [Some(&[1, 2, 3][..]), None] {
        let (disk, _) = used_by(&[1], later, 15);
        disk.flip("table", 40, 1);
        let damage = open_and_read(&disk).map(drop).unwrap_err();
        rebuild(&disk, &OPTIONS, &damage).unwrap();
        assert_eq!(opened(&disk).recovered.applied, Position::ZERO, "{later:?}");
    }
}

/// Where certainly nobody else votes there is nobody to ask, so nothing is touched; who founded the
/// cluster does not matter.
#[test]
fn a_table_is_lost_where_nobody_else_votes() {
    // The journal names no members; the table can be opened, and neither does it.
    let (disk, _) = used(&[1], 15);
    let found = Damage::Lost { what: "revision 7".into(), detail: "not in the table".into() };
    let error = rebuild(&disk, &OPTIONS, &found).unwrap_err();
    assert!(matches!(error, OpenError::TableLost { .. }), "{error}");

    let (disk, _) = used_by(&[1, 2, 3], Some(&[1]), 15);
    disk.flip("table", 40, 1);
    let before = disk.contents("table");
    let damage = open_and_read(&disk).map(drop).unwrap_err();
    let error = rebuild(&disk, &OPTIONS, &damage).unwrap_err();
    assert!(matches!(error, OpenError::TableLost { .. }), "{error}");
    assert!(error.to_string().contains("table at offset 0"), "{error}");
    assert_eq!(disk.contents("table"), before);
    let again = open_and_read(&disk).map(drop).unwrap_err();
    assert_eq!(again, damage);
}

/// The power is cut in every operation of a rebuild: it is done again, and the damaged file is kept.
#[test]
fn a_rebuild_may_be_cut_anywhere() {
    let (whole, log) = used(&[1, 2, 3], 0);
    whole.flip("table", 40, 1);
    let damaged = whole.contents("table");
    let damage = open_and_read(&whole.fork()).map(drop).unwrap_err();
    for at in 0.. {
        let disk = whole.fork();
        disk.set_fuse(Some(at));
        let done = rebuild(&disk, &OPTIONS, &damage).is_ok();
        for loss in [Loss::All, Loss::Nothing, Loss::Torn(2 * at), Loss::Torn(2 * at + 1)] {
            let context = format!("operation {at}, {loss:?}");
            let disk = disk.crash(loss);
            let mut rebuilds = 0;
            let opened = loop {
                match open_and_read(&disk) {
                    Ok(opened) => break opened,
                    Err(damage) => {
                        rebuilds += 1;
                        assert!(rebuilds <= 2, "{context}: {damage}");
                        rebuild(&disk, &OPTIONS, &damage).unwrap();
                    }
                }
            };
            assert!(!done || rebuilds == 0, "{context}: a finished rebuild is done again");
            assert_eq!(opened.recovered.tail, log, "{context}");
            assert_eq!(opened.recovered.hard_state, hard_state(4, 2, 20), "{context}");
            assert_eq!(disk.contents("table.damaged"), damaged, "{context}");
            assert!(!disk.paths().contains(&"table.rebuild".into()), "{context}");
        }
        if done {
            break;
        }
    }
}

/// A snapshot fills a hollow server's table below its log, in one step.
#[test]
fn a_snapshot_below_the_log_needs_no_reset() {
    let (source, log) = used(&[1, 2, 3], 0);
    let mut export = opened(&source).table.export().unwrap();
    let at = export.position();
    let chunks: Vec<_> = std::iter::from_fn(|| export.next_chunk(2000).unwrap()).collect();
    let (disk, _) = used(&[1, 2, 3], 15);
    disk.flip("table", 40, 1);
    let damage = open_and_read(&disk).map(drop).unwrap_err();
    rebuild(&disk, &OPTIONS, &damage).unwrap();
    let hollow = disk.crash(Loss::All);
    for cut in 0.. {
        let disk = hollow.fork();
        disk.set_fuse(Some(cut));
        let install = || -> Result<(), Box<dyn std::error::Error>> {
            let opened = open(&disk, &OPTIONS, None)?;
            let mut import = kvraft_store::Import::begin(&disk, at)?;
            for chunk in &chunks {
                import.push(chunk.clone())?;
            }
            drop(opened);
            Ok(import.install_below_log()?)
        };
        let done = install().is_ok();
        for loss in [Loss::All, Loss::Nothing, Loss::Torn(cut)] {
            let opened = opened(&disk.crash(loss));
            let applied = opened.recovered.applied;
            assert!(applied == at || (applied == Position::ZERO && !done), "cut at {cut}");
            assert_eq!(opened.recovered.last, log[29].position(), "cut at {cut}");
        }
        if done {
            break;
        }
    }
}

/// A directory that was never used says so by what it opens to.
#[test]
fn a_fresh_table_is_rebuilt_like_any_other() {
    let disk = formatted();
    disk.flip("table", 40, 1);
    let damage = open_and_read(&disk).map(drop).unwrap_err();
    rebuild(&disk, &OPTIONS, &damage).unwrap();
    assert_eq!(opened(&disk).recovered.applied, Position::ZERO);
}
