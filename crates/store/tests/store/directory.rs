//! Whose directory it is, and directories that cannot be.

use kvraft_base::{ClusterId, Index, MemberId, Members, checksum, checksum_seeded};
use kvraft_store::{Identity, Note, OpenError, format, is_formatted, open};

use crate::{
    disk::TestDisk,
    world::{
        OPTIONS, checkpoint, configuration, entry, formatted, hard_state, identity, opened, write,
    },
};

/// Another cluster's or member's directory is refused, naming both.
#[test]
fn a_foreign_directory_is_refused() {
    let disk = formatted();
    let right = (ClusterId(77), MemberId(1));
    assert!(open(&disk, &OPTIONS, Some(right)).is_ok());
    for wrong in [(ClusterId(78), MemberId(1)), (ClusterId(77), MemberId(2))] {
        let error = open(&disk, &OPTIONS, Some(wrong)).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
        assert!(error.to_string().contains("member 1 of cluster 4d"), "{error}");
    }
}

/// A segment of another member among ours is refused by name.
#[test]
fn a_foreign_segment_is_refused() {
    let other = TestDisk::new();
    format(&other, &Identity { member: MemberId(2), ..identity() }).unwrap();
    let disk = formatted();
    let path = "journal/0000000000000001.seg";
    disk.set_contents(path, other.contents(path));
    let error = open(&disk, &OPTIONS, None).unwrap_err();
    assert!(matches!(&error, OpenError::Foreign { path: named, .. } if named == path), "{error}");
}

/// Files of a newer format are refused with the version they need.
#[test]
fn newer_formats_are_refused() {
    let disk = formatted();
    let mut bytes = disk.contents("identity");
    bytes[12] = 9;
    let body = bytes.len() - 4;
    let sum = checksum(&bytes[..body]).to_le_bytes();
    bytes[body..].copy_from_slice(&sum);
    disk.set_contents("identity", bytes);
    let error = open(&disk, &OPTIONS, None).unwrap_err();
    let newer = OpenError::Newer { path: "identity".into(), needed: 9, supported: 1 };
    assert_eq!(error, newer);

    let disk = formatted();
    let path = "journal/0000000000000001.seg";
    let mut bytes = disk.contents(path);
    bytes[12] = 9;
    let sum = checksum_seeded(1, &bytes[..508]).to_le_bytes();
    bytes[508..512].copy_from_slice(&sum);
    disk.set_contents(path, bytes);
    let error = open(&disk, &OPTIONS, None).unwrap_err();
    assert_eq!(error, OpenError::Newer { path: path.into(), needed: 9, supported: 1 });
}

/// Every flipped or missing byte of the identity is an error that names the file.
#[test]
fn a_damaged_identity_is_named() {
    let whole = formatted();
    let size = whole.contents("identity").len();
    for at in 0..size {
        let disk = whole.fork();
        disk.flip("identity", at, 16);
        let error = open(&disk, &OPTIONS, None).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "byte {at}: {error}");
        let disk = whole.fork();
        disk.set_contents("identity", whole.contents("identity")[..at].to_vec());
        let error = open(&disk, &OPTIONS, None).unwrap_err();
        assert!(error.to_string().contains("identity"), "cut at {at}: {error}");
    }
}

/// An empty directory is not ours; a used one is not formatted again, even without its identity.
#[test]
fn formatting_refuses_what_is_used() {
    let empty = TestDisk::new();
    assert!(!is_formatted(&empty).unwrap());
    let error = open(&empty, &OPTIONS, None).unwrap_err();
    assert!(matches!(error, OpenError::NotFormatted { .. }), "{error}");

    let disk = formatted();
    assert!(matches!(format(&disk, &identity()), Err(OpenError::InUse { .. })));
    let mut at = opened(&disk);
    at.journal.append(&write(hard_state(1, 1, 0), None, Vec::new())).unwrap();
    drop(at);
    kvraft_base::Disk::remove(&disk, "identity").unwrap();
    let error = format(&disk, &identity()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path.ends_with(".seg")), "{error}");

    let disk = formatted();
    opened(&disk).table.commit(&checkpoint(&[entry(1, 1, 1)])).unwrap();
    kvraft_base::Disk::remove(&disk, "identity").unwrap();
    let error = format(&disk, &identity()).unwrap_err();
    assert!(matches!(&error, OpenError::InUse { path } if path == "table"), "{error}");
}

/// A journal that begins after the end of the table, and names these members at its entry 19.
fn with_a_gap(founders: &[u64], members: Option<&[u64]>, commit: u64) -> TestDisk {
    let disk = TestDisk::new();
    let of = |ids: &[u64]| Members::new(ids.iter().copied().map(MemberId)).unwrap();
    format(&disk, &Identity { members: of(founders), ..identity() }).unwrap();
    let mut at = opened(&disk);
    for index in 1..=20 {
        let entry = match members.filter(|_| index == 19) {
            Some(ids) => configuration(1, index, &of(ids)),
            None => entry(1, index, 300),
        };
        at.journal.append(&write(hard_state(1, 1, commit), None, vec![entry])).unwrap();
    }
    at.journal.sync().unwrap();
    let released = at.journal.release(Index(15)).unwrap();
    assert!(Index(0) < released.index);
    disk
}

/// A journal that begins after the end of the table is refused where certainly nobody else has the
/// state: what counts is who votes now, not who founded the cluster.
#[test]
fn a_gap_between_table_and_journal_is_refused() {
    for founders in [&[1][..], &[1, 2, 3]] {
        let error = open(&with_a_gap(founders, Some(&[1]), 20), &OPTIONS, None).unwrap_err();
        assert!(matches!(error, OpenError::Gap { .. }), "{founders:?}: {error}");
        let cases = [(Some(&[1, 2, 3][..]), 20), (Some(&[1]), 18), (None, 20)];
        for (members, commit) in cases {
            let at = open(&with_a_gap(founders, members, commit), &OPTIONS, None).unwrap();
            let hollow = |note: &Note| matches!(note, Note::Hollow { .. });
            assert!(at.recovered.notes.iter().any(hollow), "{founders:?}, {members:?}, {commit}");
        }
    }
}

/// Files that an interrupted step left are removed and named; unknown ones are left alone.
#[test]
fn leftovers_are_removed() {
    let disk = formatted();
    let leftovers = ["table.new", "identity.new", "journal/0000000000000002.new"];
    for path in leftovers.iter().chain(&["lock", "journal/notes.txt"]) {
        kvraft_base::Disk::create(&disk, path).unwrap();
    }
    let at = opened(&disk);
    for path in leftovers {
        let note = Note::LeftoverRemoved { path: path.into() };
        assert!(at.recovered.notes.contains(&note), "{path}");
    }
    let paths = disk.paths();
    assert!(paths.contains(&"lock".into()) && paths.contains(&"journal/notes.txt".into()));
    assert!(!paths.iter().any(|path| path.ends_with(".new")));
}
