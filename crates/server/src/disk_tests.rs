//! What the real disk promises, on a real directory.

use std::{fs, os::unix::fs::PermissionsExt, path::Path};

use kvraft_base::{Disk, DiskErrorKind};

use super::{LOCK_FILE, RealDisk};

/// Bytes and sizes come back as written, at their offsets.
#[test]
fn what_was_written_is_read_back() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    let file = disk.create("a").unwrap();
    file.write_at(4, b"late").unwrap();
    file.write_at(0, b"soon").unwrap();
    file.sync().unwrap();
    disk.sync_dir("").unwrap();
    let mut bytes = [0; 8];
    disk.handle().open("a").unwrap().read_at(0, &mut bytes).unwrap();
    assert_eq!(&bytes, b"soonlate");
    file.set_len(6).unwrap();
    assert_eq!(file.size().unwrap(), 6);
    let error = file.read_at(0, &mut bytes).unwrap_err();
    assert_eq!(error.detail, "the file ends before offset 0 + 8 bytes");
}

/// Creating again empties; a rename replaces; names are listed sorted, without the edge's own.
#[test]
fn names_behave_as_posix_says() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    disk.create("b").unwrap().write_at(0, b"old").unwrap();
    disk.create("a").unwrap().write_at(0, b"new!").unwrap();
    disk.create_dir("sub").unwrap();
    disk.create_dir("sub").unwrap();
    disk.create("sub/x").unwrap();
    assert_eq!(disk.list("").unwrap(), ["a", "b", "sub"]);
    disk.rename("a", "b").unwrap();
    assert_eq!(disk.open("b").unwrap().size().unwrap(), 4);
    assert_eq!(disk.create("b").unwrap().size().unwrap(), 0);
    disk.remove("b").unwrap();
    assert_eq!(disk.list("").unwrap(), ["sub"]);
    assert_eq!(disk.list("sub").unwrap(), ["x"]);
    assert_eq!(disk.open("b").unwrap_err().kind, DiskErrorKind::NotFound);
    assert_eq!(disk.remove("b").unwrap_err().kind, DiskErrorKind::NotFound);
}

/// The directory is made for its owner alone, with its parents.
#[test]
fn missing_directory_is_created_private() {
    let dir = tempfile::tempdir().unwrap();
    let nested = dir.path().join("x/y");
    let disk = RealDisk::open(&nested).unwrap();
    assert_eq!(fs::metadata(disk.path()).unwrap().permissions().mode() & 0o777, 0o700);
}

/// A second opening is refused with the directory and the holder; closing frees it; a stale file
/// without a holder is no obstacle.
#[test]
fn directory_has_one_user() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    let handle = disk.handle();
    drop(disk);
    let error = RealDisk::open(dir.path()).unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Locked);
    let text = error.to_string();
    assert!(text.contains(&dir.path().display().to_string()), "{text}");
    assert!(text.contains(&format!("(pid {})", std::process::id())), "{text}");
    drop(handle);
    assert!(dir.path().join(LOCK_FILE).exists());
    RealDisk::open(dir.path()).unwrap();
}

/// Looking needs no lock and may not change anything.
#[test]
fn inspection_is_read_only() {
    let dir = tempfile::tempdir().unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    disk.create("a").unwrap().write_at(0, b"x").unwrap();
    let view = RealDisk::inspect(dir.path()).unwrap();
    assert_eq!(view.list("").unwrap(), ["a"]);
    let mut byte = [0];
    view.open("a").unwrap().read_at(0, &mut byte).unwrap();
    assert_eq!(&byte, b"x");
    assert_eq!(view.create("b").unwrap_err().kind, DiskErrorKind::Denied);
    assert_eq!(view.remove("a").unwrap_err().kind, DiskErrorKind::Denied);
    assert!(view.open("a").unwrap().write_at(0, b"y").is_err());
}

/// A file in the place of the directory, or a place that nobody may write to, is named.
#[test]
fn impossible_directory_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, b"").unwrap();
    let error = RealDisk::open(&file).unwrap_err();
    assert!(error.to_string().contains(&file.display().to_string()), "{error}");
    let error = RealDisk::open(Path::new("/proc/kvraft-cannot-be-here")).unwrap_err();
    assert!(error.to_string().contains("/proc/kvraft-cannot-be-here"), "{error}");
}

/// A full disk is told apart from other failures: `/dev/full` answers every write with ENOSPC.
#[test]
fn full_disk_is_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("full")).unwrap();
    let disk = RealDisk::open(dir.path()).unwrap();
    let error = disk.open("full").unwrap().write_at(0, b"x").unwrap_err();
    assert_eq!(error.kind, DiskErrorKind::Full);
    assert!(error.path.ends_with("/full"), "{error}");
}
