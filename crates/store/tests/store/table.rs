//! The table and its snapshots without crashes, and with a disk that goes away.

use std::ops::ControlFlow;

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, Damage, Entry, Index, META_MEMBERS, MemberId, Members, Position, Records, TableId,
    TableOp, Term,
};
use kvraft_store::{Import, ImportError, Table, TableError};

use crate::{
    disk::{Loss, TestDisk},
    world::{OPTIONS, applied_row, checkpoint, entry, formatted, opened, rows},
};

fn position(term: u64, index: u64) -> Position {
    Position::new(Term(term), Index(index))
}

/// Rows in every table, deletions, and the configuration.
fn filled(disk: &TestDisk) -> Table {
    let mut table = Table::open(disk, &OPTIONS).unwrap();
    let entries: Vec<Entry> = (1..=50).map(|index| entry(1, index, 100)).collect();
    table.commit(&checkpoint(&entries)).unwrap();
    let members = Members::new([MemberId(1), MemberId(2)]).unwrap();
    let put = |table, key: &'static [u8], value: &'static [u8]| TableOp::Put {
        table,
        key: Bytes::from_static(key),
        value: Bytes::from_static(value),
    };
    let key = Bytes::copy_from_slice(&7_u64.to_be_bytes());
    let ops = vec![
        put(TableId::Sessions, b"s", b"window"),
        put(TableId::Leases, b"l", b""),
        put(TableId::Leases, b"l", b"lease"),
        TableOp::Delete { table: TableId::Records, key },
        TableOp::Put {
            table: TableId::Meta,
            key: Bytes::from_static(META_MEMBERS),
            value: members.encode(),
        },
        applied_row(position(2, 60)),
    ];
    table.commit(&Checkpoint { applied: position(2, 60), ops }).unwrap();
    table
}

/// Ops take effect in order, in their tables, and are there after a power loss.
#[test]
fn a_commit_is_durable_and_whole() {
    let disk = formatted();
    let table = filled(&disk);
    let reader = table.reader();
    let again = Table::open(&disk.crash(Loss::All), &OPTIONS).unwrap();
    for (table, reader) in [(&table, &reader), (&again, &again.reader())] {
        assert_eq!(table.applied(), position(2, 60));
        assert_eq!(table.members().unwrap(), Members::new([MemberId(1), MemberId(2)]));
        let read = |table, key: &[u8]| reader.read(table, key).unwrap();
        assert_eq!(read(TableId::Sessions, b"s"), Some(Bytes::from_static(b"window")));
        assert_eq!(read(TableId::Leases, b"l"), Some(Bytes::from_static(b"lease")));
        assert_eq!(read(TableId::Leases, b"s"), None);
        assert_eq!(read(TableId::Records, &7_u64.to_be_bytes()), None);
        assert_eq!(rows(reader).len(), 49);
    }
}

/// Scans respect both bounds and stop when told to.
#[test]
fn scans_are_bounded() {
    let disk = formatted();
    let reader = filled(&disk).reader();
    let scan = |first: u64, end: Option<u64>, most: usize| {
        let mut found = Vec::new();
        let end = end.map(u64::to_be_bytes);
        let end = end.as_ref().map(|end| &end[..]);
        let visit = &mut |key: &[u8], _: &[u8]| {
            found.push(u64::from_be_bytes(key.try_into().unwrap()));
            if found.len() < most { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
        };
        reader.scan(TableId::Records, &first.to_be_bytes(), end, visit).unwrap();
        found
    };
    assert_eq!(scan(5, Some(9), 100), [5, 6, 8]);
    assert_eq!(scan(48, None, 100), [48, 49, 50]);
    assert_eq!(scan(1, None, 2), [1, 2]);
    assert_eq!(scan(9, Some(9), 100), [0_u64; 0]);
    assert_eq!(scan(9, Some(2), 100), [0_u64; 0]);
}

fn chunks(table: &Table, size: usize) -> Vec<Bytes> {
    let mut export = table.export().unwrap();
    std::iter::from_fn(|| export.next_chunk(size).unwrap()).collect()
}

/// A snapshot carries every table, whatever the chunk size, and later commits do not disturb it.
#[test]
fn snapshots_carry_everything() {
    let source = formatted();
    let mut table = filled(&source);
    let expected = rows(&table.reader());
    for size in [1, 1000, 1_000_000] {
        let mut export = table.export().unwrap();
        let at = export.position();
        table.commit(&checkpoint(&[entry(2, at.index.0 + 1, 5)])).unwrap();
        let disk = formatted();
        let mut import = Import::begin(&disk, at).unwrap();
        while let Some(chunk) = export.next_chunk(size).unwrap() {
            import.push(chunk).unwrap();
        }
        assert_eq!(import.members(), export.members());
        import.install().unwrap();
        let installed = opened(&disk.crash(Loss::All));
        assert_eq!(installed.recovered.applied, at);
        assert_eq!(installed.recovered.members, *export.members().unwrap());
        let found = rows(&installed.table.reader());
        assert_eq!(found[..expected.len()], expected[..]);
        let session = installed.table.reader().read(TableId::Sessions, b"s").unwrap();
        assert_eq!(session, Some(Bytes::from_static(b"window")));
    }
}

/// The same state gives the same bytes.
#[test]
fn snapshots_are_deterministic() {
    let (left, right) = (formatted(), formatted());
    assert_eq!(chunks(&filled(&left), 500), chunks(&filled(&right), 500));
}

/// Chunks that are missing, repeated, of another position, or flipped are refused.
#[test]
fn wrong_chunks_are_refused() {
    let source = formatted();
    let chunks = chunks(&filled(&source), 700);
    assert!(3 < chunks.len());
    let disk = formatted();
    let begin = || Import::begin(&disk, position(2, 60)).unwrap();

    let mut import = begin();
    import.push(chunks[0].clone()).unwrap();
    for wrong in [0, 2] {
        let error = import.push(chunks[wrong].clone()).unwrap_err();
        assert!(matches!(error, ImportError::Order { number: 1, .. }), "{error}");
    }
    let error = import.install().unwrap_err();
    assert!(matches!(error, ImportError::Incomplete { .. }), "{error}");

    let mut import = Import::begin(&disk, position(2, 61)).unwrap();
    let error = import.push(chunks[0].clone()).unwrap_err();
    assert!(matches!(error, ImportError::Order { .. }), "{error}");

    let chunk = &chunks[0];
    let mut import = begin();
    for at in 0..chunk.len() {
        let mut bytes = chunk.to_vec();
        bytes[at] ^= 1 << (at % 8);
        let error = import.push(bytes.into()).unwrap_err();
        assert!(matches!(error, ImportError::Chunk { .. }), "byte {at}: {error}");
        assert!(import.push(chunk.slice(..at)).is_err(), "cut at {at}");
    }
}

/// When the disk goes away a commit fails, later ones are refused, readers report it, and dropping
/// everything neither panics nor writes.
#[test]
fn a_severed_disk_is_survived() {
    let disk = formatted();
    let mut table = filled(&disk);
    let reader = table.reader();
    let export = table.export().unwrap();
    disk.set_fuse(Some(0));
    let error = table.commit(&checkpoint(&[entry(3, 70, 5)])).unwrap_err();
    assert!(matches!(error, TableError::Damage(Damage::Disk(_))), "{error}");
    let error = table.commit(&checkpoint(&[entry(3, 70, 5)])).unwrap_err();
    assert!(matches!(error, TableError::Poisoned { .. }), "{error}");
    assert!(table.export().is_err());
    drop((table, export));
    drop(reader);
    let again = Table::open(&disk.crash(Loss::Nothing), &OPTIONS).unwrap();
    assert_eq!(again.applied(), position(2, 60));
}

/// Large values and growth of the file over several groups of checksums.
#[test]
fn large_values_are_kept() {
    let disk = formatted();
    let mut table = Table::open(&disk, &OPTIONS).unwrap();
    for round in 1..=4_u64 {
        let entries: Vec<Entry> = (1..=3).map(|n| entry(1, round * 10 + n, 1_500_000)).collect();
        table.commit(&checkpoint(&entries)).unwrap();
    }
    drop(table);
    let table = Table::open(&disk.crash(Loss::All), &OPTIONS).unwrap();
    let rows = rows(&table.reader());
    assert_eq!(rows.len(), 12);
    assert!(rows.iter().all(|(_, value)| value.len() == 1_500_000));
    assert!(4096 * 1025 < disk.contents("table").len(), "more than one group");
}
