//! The real disk: [`base::Disk`](kvraft_base::Disk) over one directory of the file system.
//!
//! Why: the store speaks to a trait, so that the same recovery runs here and in the simulator; this
//! is the implementation that a server ships with.
//!
//! Invariants:
//! - at most one process has a data directory open for writing: an exclusive lock on the file
//!   `LOCK` is held as long as any handle lives, and the system releases it when the process dies;
//! - every error carries the full path, so that a person can go and look;
//! - names that belong to the edge itself (`LOCK`, the recordings, the hiding place of the volatile
//!   disk) are never listed, so the store sees its own files only.
//!
//! What it lacks: caching, direct IO, and anything asynchronous: the lanes that use it have threads
//! of their own.

use std::{
    fs::{self, DirBuilder, File, OpenOptions, TryLockError},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Component, Path, PathBuf},
    sync::Arc,
};

use kvraft_base::{Disk, DiskError, DiskErrorKind, DiskFile};

use crate::flight::FLIGHT_DIRECTORY;

/// Name of the file whose lock means "this directory is in use". It contains the holder's process
/// id.
pub const LOCK_FILE: &str = "LOCK";

/// Name of the directory in which the volatile disk hides files whose names are not durable yet.
pub(crate) const HIDING_PLACE: &str = ".volatile";

/// A directory of the real file system. Clones share the lock.
#[derive(Clone, Debug)]
pub struct RealDisk {
    root: Arc<Root>,
}

#[derive(Debug)]
struct Root {
    path: PathBuf,
    /// Held, never read: closing the file releases the lock. `None` when only looking.
    lock: Option<File>,
}

impl RealDisk {
    /// Opens a data directory for this process alone, creating it (mode 0700) if it is missing.
    ///
    /// # Errors
    /// [`DiskErrorKind::Locked`] when another process holds it, [`DiskErrorKind::Denied`] when it
    /// cannot be written, and whatever else the system reports.
    pub fn open(directory: &Path) -> Result<Self, DiskError> {
        make_directory(directory)?;
        let lock = take_lock(directory)?;
        forget_hidden(directory)?;
        Ok(Self { root: Arc::new(Root { path: directory.to_path_buf(), lock: Some(lock) }) })
    }

    /// Opens an existing data directory to look at it, without the lock; every change is refused.
    /// What is seen may change meanwhile if a server is running there.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] and whatever else the system reports.
    pub fn inspect(directory: &Path) -> Result<Self, DiskError> {
        fs::read_dir(directory).map_err(|error| failure("open", directory, &error))?;
        Ok(Self { root: Arc::new(Root { path: directory.to_path_buf(), lock: None }) })
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root.path
    }

    /// The full path of one of the store's names.
    pub(crate) fn full(&self, path: &str) -> PathBuf {
        let relative = Path::new(path);
        assert!(
            relative.components().all(|part| matches!(part, Component::Normal(_))),
            "disk paths are relative and do not climb"
        );
        assert!(relative.components().count() <= 2, "disk paths are at most two deep");
        self.root.path.join(relative)
    }

    /// Refuses changes to a directory that was opened to be looked at.
    fn writable(&self, operation: &'static str, path: &Path) -> Result<(), DiskError> {
        if self.root.lock.is_some() {
            return Ok(());
        }
        Err(DiskError {
            kind: DiskErrorKind::Denied,
            operation,
            path: path.display().to_string(),
            detail: "the data directory was opened read-only".to_owned(),
        })
    }
}

impl Disk for RealDisk {
    fn handle(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let full = self.full(path);
        let writable = self.root.lock.is_some();
        let file = OpenOptions::new()
            .read(true)
            .write(writable)
            .open(&full)
            .map_err(|error| failure("open", &full, &error))?;
        Ok(Box::new(RealFile { file, path: full }))
    }

    fn create(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let full = self.full(path);
        self.writable("create", &full)?;
        Ok(Box::new(RealFile::create(full)?))
    }

    fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        let full = self.full(path);
        self.writable("create directory", &full)?;
        match DirBuilder::new().mode(0o700).create(&full) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && full.is_dir() => Ok(()),
            other => other.map_err(|error| failure("create directory", &full, &error)),
        }
    }

    fn rename(&self, source: &str, target: &str) -> Result<(), DiskError> {
        let (source, target) = (self.full(source), self.full(target));
        self.writable("rename", &source)?;
        rename(&source, &target)
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let full = self.full(path);
        self.writable("remove", &full)?;
        fs::remove_file(&full).map_err(|error| failure("remove", &full, &error))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let full = self.full(dir);
        let entries = fs::read_dir(&full).map_err(|error| failure("list", &full, &error))?;
        let mut names = Vec::new();
        for entry in entries {
            let name = entry.map_err(|error| failure("list", &full, &error))?.file_name();
            // Names that are not UTF-8 are not ours: the store only ever asks for names it made.
            if let Ok(name) = name.into_string()
                && !(dir.is_empty()
                    && (name == LOCK_FILE || name == HIDING_PLACE || name == FLIGHT_DIRECTORY))
            {
                names.push(name);
            }
        }
        names.sort();
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        sync_directory(&self.full(dir))
    }
}

/// An open file and where it is.
#[derive(Debug)]
pub(crate) struct RealFile {
    file: File,
    path: PathBuf,
}

impl RealFile {
    /// Opens an existing file for reading and writing.
    pub(crate) fn open(path: PathBuf) -> Result<Self, DiskError> {
        let opened = OpenOptions::new().read(true).write(true).open(&path);
        let file = opened.map_err(|error| failure("open", &path, &error))?;
        Ok(Self { file, path })
    }

    /// Creates an empty file, readable by its owner only.
    pub(crate) fn create(path: PathBuf) -> Result<Self, DiskError> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).truncate(true).mode(0o600);
        let file = options.open(&path).map_err(|error| failure("create", &path, &error))?;
        Ok(Self { file, path })
    }

    /// Where it was when it was opened.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl DiskFile for RealFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.file.read_exact_at(buffer, offset).map_err(|error| {
            let mut failed = failure("read", &self.path, &error);
            if error.kind() == io::ErrorKind::UnexpectedEof {
                failed.detail =
                    format!("the file ends before offset {offset} + {} bytes", buffer.len());
            }
            failed
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let written = self.file.write_all_at(bytes, offset);
        written.map_err(|error| failure("write", &self.path, &error))
    }

    fn size(&self) -> Result<u64, DiskError> {
        let metadata = self.file.metadata();
        Ok(metadata.map_err(|error| failure("size", &self.path, &error))?.len())
    }

    fn set_len(&self, size: u64) -> Result<(), DiskError> {
        self.file.set_len(size).map_err(|error| failure("resize", &self.path, &error))
    }

    fn sync(&self) -> Result<(), DiskError> {
        // fdatasync suffices. POSIX asks of it "synchronized I/O data integrity completion": the
        // data, and all of the metadata that is needed to read them back, which the size and the
        // block allocation are; ext4, XFS and btrfs journal a changed size on fdatasync. What it
        // leaves out, the times of access and change, is never read here, and leaving it out
        // saves a journal commit of the file system when a preallocated file is overwritten.
        self.file.sync_data().map_err(|error| failure("sync", &self.path, &error))
    }
}

/// Describes a failure of the system to people and to the store.
pub(crate) fn failure(operation: &'static str, path: &Path, error: &io::Error) -> DiskError {
    let kind = match error.kind() {
        io::ErrorKind::NotFound => DiskErrorKind::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => DiskErrorKind::Full,
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            DiskErrorKind::Denied
        }
        _ => DiskErrorKind::Failed,
    };
    DiskError { kind, operation, path: path.display().to_string(), detail: error.to_string() }
}

/// Renames within the file system.
pub(crate) fn rename(source: &Path, target: &Path) -> Result<(), DiskError> {
    fs::rename(source, target).map_err(|error| {
        let mut failed = failure("rename", source, &error);
        failed.detail = format!("to {}: {}", target.display(), failed.detail);
        failed
    })
}

/// Makes the names in a directory durable.
pub(crate) fn sync_directory(directory: &Path) -> Result<(), DiskError> {
    let synced = File::open(directory).and_then(|handle| handle.sync_all());
    synced.map_err(|error| failure("sync directory", directory, &error))
}

/// Creates a directory and its missing ancestors, and makes their names durable.
fn make_directory(directory: &Path) -> Result<(), DiskError> {
    let missing: Vec<&Path> = directory
        .ancestors()
        .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
        .collect();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|error| failure("create directory", directory, &error))?;
    for path in missing.into_iter().rev() {
        let parent = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        sync_directory(parent)?;
    }
    Ok(())
}

/// Takes the lock of a data directory, or says who holds it.
fn take_lock(directory: &Path) -> Result<File, DiskError> {
    let path = directory.join(LOCK_FILE);
    let mut options = OpenOptions::new();
    // Not truncated on opening: the file names its holder until the lock is ours.
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let mut lock = options.open(&path).map_err(|error| failure("lock", &path, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Err(held_by_another(directory, &mut lock)),
        Err(TryLockError::Error(error)) => return Err(failure("lock", &path, &error)),
    }
    let named = lock.set_len(0).and_then(|()| writeln!(lock, "{}", std::process::id()));
    named.map_err(|error| failure("lock", &path, &error))?;
    Ok(lock)
}

/// The error for a directory that is in use, with the process that uses it if that is known.
fn held_by_another(directory: &Path, lock: &mut File) -> DiskError {
    let mut holder = String::new();
    let known = lock.take(32).read_to_string(&mut holder).is_ok();
    let holder = match holder.trim().parse::<u32>() {
        Ok(pid) if known => format!(" (pid {pid})"),
        _ => String::new(),
    };
    DiskError {
        kind: DiskErrorKind::Locked,
        operation: "lock",
        path: directory.display().to_string(),
        detail: format!("another process{holder} is using this data directory"),
    }
}

/// Removes what a killed process with a volatile disk had hidden: its names were never durable.
fn forget_hidden(directory: &Path) -> Result<(), DiskError> {
    let hidden = directory.join(HIDING_PLACE);
    match fs::remove_dir_all(&hidden) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failure("remove", &hidden, &error))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
#[path = "disk_tests.rs"]
mod tests;
