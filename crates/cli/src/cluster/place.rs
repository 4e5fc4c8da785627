//! Where a local cluster keeps its files, and how abandoned places are found and removed.
//!
//! ```text
//! DIR/cluster.toml           what this is: size, cluster id, whether it is temporary
//! DIR/cluster.lock           locked as long as a `kvraft cluster` runs here
//! DIR/server-1/server.toml   configuration, written at each start
//! DIR/server-1/data/         the data directory
//! ```
//! Invariant: nothing is removed but a directory that says in its marker that it is temporary, and
//! that nobody holds a lock in.

use std::{
    fs::{self, File, OpenOptions},
    io::ErrorKind,
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};

/// Beginning of the name of every temporary place.
const TEMPORARY_PREFIX: &str = "kvraft-cluster-";
const MARKER_FILE: &str = "cluster.toml";
const LOCK_FILE: &str = "cluster.lock";

/// What the marker says.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Marker {
    /// Number of servers.
    size: u64,
    /// Tells this cluster from every other.
    cluster_id: u64,
    /// Whether it is removed at a clean stop.
    temporary: bool,
}

/// A directory for one cluster, locked for this process.
#[derive(Debug)]
pub(crate) struct Place {
    root: PathBuf,
    marker: Marker,
    /// Whether servers have been here before.
    pub(crate) used: bool,
    /// Held, never read: closing it releases the lock.
    _lock: File,
}

/// The files of one server.
#[derive(Clone, Debug)]
pub(crate) struct ServerPlace {
    pub(crate) config: PathBuf,
    pub(crate) data: PathBuf,
}

impl Place {
    /// A new directory below the system's temporary one.
    pub(crate) fn temporary(size: u64) -> Result<Self> {
        let root = std::env::temp_dir().join(format!("{TEMPORARY_PREFIX}{}", std::process::id()));
        fs::create_dir(&root).with_context(|| format!("cannot create {}", root.display()))?;
        let lock = lock(&root)?;
        let marker = Marker { size, cluster_id: new_cluster_id(), temporary: true };
        write_marker(&root, &marker)?;
        Ok(Self { root, marker, used: false, _lock: lock })
    }

    /// A directory that stays; continues what is there.
    pub(crate) fn kept(root: &Path, size: u64) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
        let root = root
            .canonicalize()
            .with_context(|| format!("cannot find the way to {}", root.display()))?;
        let before = read_marker(&root)?;
        if before.is_none() && has_files(&root)? {
            bail!("{} is not empty and was not made by `kvraft cluster`", root.display());
        }
        let lock = lock(&root)?;
        let used = before.is_some();
        let marker = before.unwrap_or_else(|| Marker {
            size,
            cluster_id: new_cluster_id(),
            temporary: false,
        });
        if marker.size != size {
            bail!(
                "{} holds a cluster of {} servers, not of {size}: start it with -n {}",
                root.display(),
                marker.size,
                marker.size
            );
        }
        write_marker(&root, &marker)?;
        Ok(Self { root, marker, used, _lock: lock })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn cluster_id(&self) -> u64 {
        self.marker.cluster_id
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.marker.temporary
    }

    /// The files of server `number`; its directory exists from here on.
    pub(crate) fn server(&self, number: u64) -> Result<ServerPlace> {
        let directory = self.root.join(format!("server-{number}"));
        fs::create_dir_all(&directory)
            .with_context(|| format!("cannot create {}", directory.display()))?;
        Ok(ServerPlace { config: directory.join("server.toml"), data: directory.join("data") })
    }

    /// At a clean stop: removes it if it is temporary. False: something still runs in it.
    pub(crate) fn leave(self) -> Result<bool> {
        if !self.marker.temporary {
            return Ok(true);
        }
        if is_served(&self.root) {
            return Ok(false);
        }
        fs::remove_dir_all(&self.root)
            .with_context(|| format!("cannot remove {}", self.root.display()))?;
        Ok(true)
    }
}

/// Removes temporary places whose owner was killed; returns them.
pub(crate) fn remove_abandoned() -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(std::env::temp_dir()) else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(TEMPORARY_PREFIX))
        // Not through a symbolic link.
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .filter(|path| is_abandoned(path))
        // Someone else's, or still busy: the next start tries again.
        .filter(|path| fs::remove_dir_all(path).is_ok())
        .collect()
}

fn is_abandoned(root: &Path) -> bool {
    let temporary = matches!(read_marker(root), Ok(Some(Marker { temporary: true, .. })));
    temporary && !is_locked(&root.join(LOCK_FILE)) && !is_served(root)
}

/// Whether a server runs in it, be it one that was started by hand.
fn is_served(root: &Path) -> bool {
    let Ok(entries) = fs::read_dir(root) else {
        return false;
    };
    entries
        .flatten()
        .any(|entry| is_locked(&entry.path().join("data").join(kvraft_server::LOCK_FILE)))
}

fn is_locked(path: &Path) -> bool {
    // A file that is not there is locked by nobody; one that cannot be opened is not ours.
    match File::open(path) {
        Ok(file) => file.try_lock_shared().is_err(),
        Err(error) => !matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory),
    }
}

fn lock(root: &Path) -> Result<File> {
    let path = root.join(LOCK_FILE);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.with_context(|| format!("cannot create {}", path.display()))?;
    if file.try_lock().is_err() {
        bail!("another `kvraft cluster` is running in {}", root.display());
    }
    Ok(file)
}

fn has_files(root: &Path) -> Result<bool> {
    let mut entries =
        fs::read_dir(root).with_context(|| format!("cannot list {}", root.display()))?;
    Ok(entries.next().is_some())
}

fn read_marker(root: &Path) -> Result<Option<Marker>> {
    let path = root.join(MARKER_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => {
            return Err(error).with_context(|| format!("cannot read {}", path.display()));
        }
    };
    let marker = toml::from_str(&text)
        .with_context(|| format!("{} is not of this version of kvraft", path.display()))?;
    Ok(Some(marker))
}

fn write_marker(root: &Path, marker: &Marker) -> Result<()> {
    let path = root.join(MARKER_FILE);
    let text = toml::to_string(marker).context("a marker is plain numbers")?;
    let text = format!("# Made by `kvraft cluster`.\n{text}");
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Not zero, not negative when read as TOML's signed integer, and another one each time.
pub(crate) fn new_cluster_id() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(now.as_nanos()).unwrap_or_default();
    let mut prng = kvraft_base::Prng::new(nanos ^ u64::from(std::process::id()) << 40);
    prng.between(1, i64::MAX.cast_unsigned())
}

#[cfg(test)]
mod tests;
