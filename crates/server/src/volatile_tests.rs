//! What survives a power loss, and what does not. The loss is simulated by dropping the disk
//! without another sync and opening the directory again.

use std::{collections::BTreeMap, path::Path};

use kvraft_base::{Disk, DiskErrorKind, DiskFile, Prng};

use super::VolatileDisk;

fn open(dir: &Path) -> VolatileDisk {
    VolatileDisk::open(dir).unwrap()
}

fn read(disk: &dyn Disk, path: &str) -> Vec<u8> {
    let file = disk.open(path).unwrap();
    let mut bytes = vec![0; usize::try_from(file.size().unwrap()).unwrap()];
    file.read_at(0, &mut bytes).unwrap();
    bytes
}

/// A durable file with durable content.
fn settle(disk: &dyn Disk, path: &str, bytes: &[u8]) -> Box<dyn DiskFile> {
    let file = disk.create(path).unwrap();
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    file
}

/// Bytes written after the last sync are seen by readers and lost with the process.
#[test]
fn unsynced_bytes_are_lost() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let file = settle(&disk, "a", b"first");
    file.write_at(0, b"FI").unwrap();
    file.write_at(9000, b"far").unwrap();
    assert_eq!(file.size().unwrap(), 9003);
    assert_eq!(read(&disk, "a")[..5], *b"FIrst");
    drop((disk, file));
    assert_eq!(read(&open(dir.path()), "a"), b"first");
}

/// A synced file whose name was never synced is gone; the same file is there once the directory was
/// synced, whichever came first.
#[test]
fn content_and_name_are_synced_apart() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let file = disk.create("nameless").unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    drop((disk, file));
    let disk = open(dir.path());
    assert_eq!(disk.open("nameless").unwrap_err().kind, DiskErrorKind::NotFound);
    let file = disk.create("empty").unwrap();
    disk.sync_dir("").unwrap();
    file.write_at(0, b"x").unwrap();
    drop((disk, file));
    let disk = open(dir.path());
    assert_eq!(read(&disk, "empty"), b"");
    let file = disk.open("empty").unwrap();
    file.write_at(0, b"later").unwrap();
    file.sync().unwrap();
    drop((disk, file));
    assert_eq!(read(&open(dir.path()), "empty"), b"later");
}

/// A rename that was not synced leaves the old content under the old names; synced, the new under
/// the new; never a mixture.
#[test]
fn rename_is_lost_or_whole() {
    let dir = tempfile::tempdir().unwrap();
    for synced in [false, true] {
        let disk = open(dir.path());
        settle(&disk, "table", b"old");
        settle(&disk, "table.new", b"new");
        disk.rename("table.new", "table").unwrap();
        assert_eq!(read(&disk, "table"), b"new");
        if synced {
            disk.sync_dir("").unwrap();
        }
        drop(disk);
        let disk = open(dir.path());
        let expected: (&[u8], usize) = if synced { (b"new", 1) } else { (b"old", 2) };
        assert_eq!(read(&disk, "table"), expected.0);
        assert_eq!(disk.list("").unwrap().len(), expected.1);
    }
}

/// The usual pattern without the content's sync: the new name is durable, its bytes are not.
#[test]
fn rename_without_content_sync_yields_an_empty_file() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    settle(&disk, "a", b"old");
    disk.create("b").unwrap().write_at(0, b"new").unwrap();
    disk.rename("b", "a").unwrap();
    disk.sync_dir("").unwrap();
    drop(disk);
    let disk = open(dir.path());
    assert_eq!(read(&disk, "a"), b"");
    assert_eq!(disk.list("").unwrap(), ["a"]);
}

/// A removal that was not synced is undone by the loss.
#[test]
fn removal_waits_for_its_directory() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    settle(&disk, "a", b"x");
    disk.remove("a").unwrap();
    assert!(disk.list("").unwrap().is_empty());
    drop(disk);
    let disk = open(dir.path());
    assert_eq!(read(&disk, "a"), b"x");
    disk.remove("a").unwrap();
    disk.sync_dir("").unwrap();
    drop(disk);
    assert!(open(dir.path()).list("").unwrap().is_empty());
}

/// A directory is a name of its parent: what was synced inside is there only if it is.
#[test]
fn directory_waits_for_its_parent() {
    let dir = tempfile::tempdir().unwrap();
    for synced in [false, true] {
        let disk = open(dir.path());
        disk.create_dir("sub").unwrap();
        let file = disk.create("sub/x").unwrap();
        file.write_at(0, b"x").unwrap();
        file.sync().unwrap();
        disk.sync_dir("sub").unwrap();
        assert_eq!(disk.list("").unwrap(), ["sub"]);
        if synced {
            disk.sync_dir("").unwrap();
        }
        drop((disk, file));
        let disk = open(dir.path());
        assert_eq!(disk.list("").unwrap().len(), usize::from(synced));
        if synced {
            assert_eq!(read(&disk, "sub/x"), b"x");
        }
    }
}

/// A rename between directories is durable, whole, with the target's sync.
#[test]
fn rename_between_directories_belongs_to_the_target() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    disk.create_dir("in").unwrap();
    let file = disk.create("in/x").unwrap();
    file.write_at(0, b"x").unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    disk.rename("in/x", "x").unwrap();
    disk.sync_dir("in").unwrap();
    disk.create("in/x").unwrap();
    disk.sync_dir("in").unwrap();
    assert_eq!(read(&disk, "x"), b"x");
    disk.sync_dir("").unwrap();
    drop((disk, file));
    let disk = open(dir.path());
    assert_eq!(read(&disk, "x"), b"x");
    assert_eq!(read(&disk, "in/x"), b"");
}

/// An open file survives the loss of its names, as POSIX has it, and leaves nothing behind.
#[test]
fn open_file_survives_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    let file = settle(&disk, "a", b"still here");
    disk.remove("a").unwrap();
    disk.sync_dir("").unwrap();
    let mut bytes = [0; 10];
    file.read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"still here");
    disk.create("tmp").unwrap();
    disk.remove("tmp").unwrap();
    disk.sync_dir("").unwrap();
    drop(file);
    let hidden = std::fs::read_dir(dir.path().join(super::HIDING_PLACE)).unwrap();
    assert_eq!(hidden.count(), 0);
}

/// Creating again empties the same file; the emptying is durable with the file's sync only.
#[test]
fn recreation_waits_for_sync() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path());
    settle(&disk, "a", b"old");
    let file = disk.create("a").unwrap();
    assert_eq!(file.size().unwrap(), 0);
    drop((disk, file));
    let disk = open(dir.path());
    assert_eq!(read(&disk, "a"), b"old");
    disk.create("a").unwrap().sync().unwrap();
    drop(disk);
    assert_eq!(read(&open(dir.path()), "a"), b"");
}

/// Random writes, resizes, syncs and losses of one file agree with a model of two byte strings.
#[test]
fn content_agrees_with_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut prng = Prng::new(3);
    let mut disk = open(dir.path());
    let mut file = settle(&disk, "a", b"");
    let (mut seen, mut durable) = (Vec::new(), Vec::new());
    for _ in 0..2000 {
        match prng.below(20) {
            0 => {
                drop((file, disk));
                disk = open(dir.path());
                file = disk.open("a").unwrap();
                seen.clone_from(&durable);
            }
            1 | 2 => {
                file.sync().unwrap();
                durable.clone_from(&seen);
            }
            3..6 => {
                let size = prng.below(20_000);
                file.set_len(size).unwrap();
                seen.resize(usize::try_from(size).unwrap(), 0);
            }
            _ => {
                let offset = prng.below(16_000);
                let mut bytes = vec![0; usize::try_from(prng.below(5000)).unwrap()];
                prng.fill(&mut bytes);
                file.write_at(offset, &bytes).unwrap();
                let offset = usize::try_from(offset).unwrap();
                if !bytes.is_empty() && seen.len() < offset + bytes.len() {
                    seen.resize(offset + bytes.len(), 0);
                }
                if !bytes.is_empty() {
                    seen[offset..offset + bytes.len()].copy_from_slice(&bytes);
                }
            }
        }
        assert_eq!(read(&disk, "a"), seen);
    }
}

/// Random names, syncs and losses agree with a model: maps from name to content of what is seen
/// and of what is durable, in one directory.
#[test]
fn names_agree_with_a_model() {
    let dir = tempfile::tempdir().unwrap();
    let mut prng = Prng::new(4);
    let mut disk = open(dir.path());
    let (mut seen, mut durable) = (BTreeMap::new(), BTreeMap::new());
    for step in 0..2000_u32 {
        let name = ["a", "b", "c", "d"][usize::try_from(prng.below(4)).unwrap()].to_owned();
        let other = ["a", "b", "c", "d"][usize::try_from(prng.below(4)).unwrap()].to_owned();
        match prng.below(8) {
            0 => {
                drop(disk);
                disk = open(dir.path());
                seen.clone_from(&durable);
            }
            1 | 2 => {
                disk.sync_dir("").unwrap();
                durable.clone_from(&seen);
            }
            3 | 4 => assert_eq!(disk.remove(&name).is_ok(), seen.remove(&name).is_some()),
            5 => {
                let renamed = disk.rename(&name, &other).is_ok();
                assert_eq!(renamed, seen.contains_key(&name));
                if let Some(content) = seen.remove(&name) {
                    seen.insert(other, content);
                }
            }
            _ if !seen.contains_key(&name) => {
                let file = disk.create(&name).unwrap();
                file.write_at(0, &step.to_le_bytes()).unwrap();
                file.sync().unwrap();
                seen.insert(name, step.to_le_bytes().to_vec());
            }
            _ => {}
        }
        let listed = disk.list("").unwrap();
        assert_eq!(listed, seen.keys().cloned().collect::<Vec<_>>());
        for name in &listed {
            assert_eq!(read(&disk, name), seen[name]);
        }
    }
}
