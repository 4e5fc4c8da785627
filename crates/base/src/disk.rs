//! What a disk is to the store: one directory of files, with the promises of POSIX and no more.
//!
//! Two implementations: the real file system (in `server`) and the simulated one (in `sim`).
//! Invariants that callers may rely on, and no others:
//! - bytes written are durable only after [`DiskFile::sync`] of that file has returned `Ok`;
//! - a created, renamed or removed name is durable only after [`Disk::sync_dir`] has returned `Ok`;
//! - a rename replaces atomically;
//! - after a failed `sync` nothing is known about that file: the process must end, never retry
//!   (Rebello et al., "Can Applications Recover from fsync Failures?", ATC 2020).

use std::fmt;

/// What kind of failure a disk reported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskErrorKind {
    /// No such file.
    NotFound,
    /// No space left.
    Full,
    /// Not allowed: permissions, or a read-only file system.
    Denied,
    /// Another process holds it.
    Locked,
    /// The (simulated) machine has lost power; nothing works any more.
    Severed,
    /// Anything else.
    Failed,
}

/// A failed disk operation: what was done, to which file, and how it failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{operation} {path}: {detail}")]
pub struct DiskError {
    /// What kind of failure.
    pub kind: DiskErrorKind,
    /// The operation: "write", "sync", …
    pub operation: &'static str,
    /// Path as a person would find it.
    pub path: String,
    /// The system's own words.
    pub detail: String,
}

/// A directory of files. Paths are relative, with `/` between names, at most two deep. Handles are
/// cheap to copy ([`Disk::handle`]) and may be used from different lanes.
pub trait Disk: fmt::Debug + Send + Sync {
    /// Another handle on the same directory.
    fn handle(&self) -> Box<dyn Disk>;

    /// Opens an existing file for reading and writing.
    ///
    /// # Errors
    /// [`DiskErrorKind::NotFound`] and whatever the system reports.
    fn open(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Creates a file, or empties an existing one, and opens it.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn create(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError>;

    /// Creates a directory if it is not there.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn create_dir(&self, path: &str) -> Result<(), DiskError>;

    /// Renames a file, replacing the target atomically.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn rename(&self, source: &str, target: &str) -> Result<(), DiskError>;

    /// Removes a file.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn remove(&self, path: &str) -> Result<(), DiskError>;

    /// Names in a directory ("" is the root), sorted.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError>;

    /// Makes the names in a directory ("" is the root) durable.
    ///
    /// # Errors
    /// Whatever the system reports; then the process must end.
    fn sync_dir(&self, dir: &str) -> Result<(), DiskError>;
}

/// An open file. All methods take `&self`; each file has one writer by construction.
pub trait DiskFile: fmt::Debug + Send + Sync {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// An error when fewer bytes are there, and whatever the system reports.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError>;

    /// Reads `size` bytes from `offset`: one read, as [`DiskFile::read_at`] is.
    ///
    /// # Errors
    /// As [`DiskFile::read_at`].
    fn read_vec(&self, offset: u64, size: usize) -> Result<Vec<u8>, DiskError> {
        let mut buffer = vec![0; size];
        self.read_at(offset, &mut buffer)?;
        Ok(buffer)
    }

    /// Writes all of `bytes` at `offset`, growing the file if needed. Not durable until `sync`.
    ///
    /// # Errors
    /// [`DiskErrorKind::Full`] and whatever the system reports.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError>;

    /// Size in bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn size(&self) -> Result<u64, DiskError>;

    /// Cuts or grows (with zeroes) to `size` bytes.
    ///
    /// # Errors
    /// Whatever the system reports.
    fn set_len(&self, size: u64) -> Result<(), DiskError>;

    /// Makes everything written to this file, and its size, durable.
    ///
    /// # Errors
    /// Whatever the system reports; then the process must end.
    fn sync(&self) -> Result<(), DiskError>;
}
