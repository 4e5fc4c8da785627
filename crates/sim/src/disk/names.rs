//! The names of a simulated disk: what lookups see, what is durable, and the changes between.
//!
//! Invariants:
//! - applying every pending change to the durable names, in order, gives the live names;
//! - a rename is one change: it is durable as a whole or not at all.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use kvraft_base::Prng;

use super::{CrashPolicy, policy::NameLoss};

/// Names one file for ever, whatever it is called; as an inode number does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// A change of names that no sync of its directory has made durable yet.
#[derive(Clone, Debug)]
enum Change {
    Bind { path: Arc<str>, file: FileId },
    Move { source: Arc<str>, target: Arc<str>, file: FileId },
    Unbind { path: Arc<str>, file: FileId },
    MakeDir { path: Arc<str> },
}

/// One side: the names as they are now, or as they are on the platter.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Side {
    files: BTreeMap<Arc<str>, FileId>,
    dirs: BTreeSet<Arc<str>>,
}

/// All names of a disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    live: Side,
    durable: Side,
    pending: Vec<Change>,
}

/// The directory part of a path; "" is the root.
fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

impl Change {
    fn apply(&self, side: &mut Side) {
        match self {
            Self::Bind { path, file } => {
                side.files.insert(path.clone(), *file);
            }
            Self::Move { source, target, file } => {
                if side.files.get(source) == Some(file) {
                    side.files.remove(source);
                }
                side.files.insert(target.clone(), *file);
            }
            Self::Unbind { path, file } => {
                if side.files.get(path) == Some(file) {
                    side.files.remove(path);
                }
            }
            Self::MakeDir { path } => {
                side.dirs.insert(path.clone());
            }
        }
    }

    /// The directory whose sync makes this durable. A rename is durable with its target.
    fn dir(&self) -> &str {
        match self {
            Self::Bind { path, .. } | Self::Unbind { path, .. } | Self::MakeDir { path } => {
                dir_of(path)
            }
            Self::Move { target, .. } => dir_of(target),
        }
    }

    fn file(&self) -> Option<FileId> {
        match self {
            Self::Bind { file, .. } | Self::Move { file, .. } | Self::Unbind { file, .. } => {
                Some(*file)
            }
            Self::MakeDir { .. } => None,
        }
    }
}

impl Names {
    pub(super) fn lookup(&self, path: &str) -> Option<FileId> {
        self.live.files.get(path).copied()
    }

    pub(super) fn has_dir(&self, dir: &str) -> bool {
        dir.is_empty() || self.live.dirs.contains(dir)
    }

    pub(super) fn has_dir_of(&self, path: &str) -> bool {
        self.has_dir(dir_of(path))
    }

    pub(super) fn bind(&mut self, path: &str, file: FileId) {
        self.change(Change::Bind { path: path.into(), file });
    }

    pub(super) fn rename(&mut self, source: &str, target: &str, file: FileId) {
        if source != target {
            let (source, target) = (source.into(), target.into());
            self.change(Change::Move { source, target, file });
        }
    }

    pub(super) fn unbind(&mut self, path: &str, file: FileId) {
        self.change(Change::Unbind { path: path.into(), file });
    }

    pub(super) fn make_dir(&mut self, path: &str) {
        if !self.has_dir(path) {
            self.change(Change::MakeDir { path: path.into() });
        }
    }

    fn change(&mut self, change: Change) {
        change.apply(&mut self.live);
        self.pending.push(change);
    }

    /// Names in `dir`, files and directories, sorted.
    pub(super) fn list(&self, dir: &str) -> Vec<String> {
        let paths = self.live.files.keys().chain(&self.live.dirs);
        let mut names: Vec<String> = paths
            .filter(|path| dir_of(path) == dir)
            .map(|path| path.rsplit_once('/').map_or(&**path, |(_, name)| name).to_owned())
            .collect();
        names.sort();
        names
    }

    /// No change waits for a sync, and lookups find the same files.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.pending.is_empty() && other.pending.is_empty() && self.live == other.live
    }

    /// Every path of a file.
    pub(super) fn paths(&self) -> impl Iterator<Item = &str> {
        self.live.files.keys().map(|path| &**path)
    }

    /// Every file that has a name now.
    pub(super) fn live_files(&self) -> BTreeSet<FileId> {
        self.live.files.values().copied().collect()
    }

    /// Makes the names in `dir` durable.
    pub(super) fn sync(&mut self, dir: &str) {
        for change in &self.pending {
            if change.dir() == dir {
                change.apply(&mut self.durable);
            }
        }
        self.pending.retain(|change| change.dir() != dir);
    }

    /// Power is lost: every pending change meets its fate.
    pub(super) fn crash(&mut self, prng: &mut Prng, policy: CrashPolicy) {
        let pending = std::mem::take(&mut self.pending);
        let count = pending.len();
        let kept = match policy.names {
            NameLoss::All => 0..0,
            NameLoss::None | NameLoss::Each => 0..count,
            NameLoss::Tail => 0..usize::try_from(prng.below(count as u64 + 1)).unwrap_or(count),
            NameLoss::AllButLast => count.saturating_sub(1)..count,
        };
        for change in &pending[kept] {
            if policy.names != NameLoss::Each || prng.chance(1, 2) {
                change.apply(&mut self.durable);
            }
        }
        let Side { files, dirs } = &mut self.durable;
        files.retain(|path, _| dir_of(path).is_empty() || dirs.contains(dir_of(path)));
        self.live = self.durable.clone();
    }

    /// Every file that is reachable now or may be after a crash.
    pub(super) fn reachable(&self) -> BTreeSet<FileId> {
        let sides = self.live.files.values().chain(self.durable.files.values()).copied();
        sides.chain(self.pending.iter().filter_map(Change::file)).collect()
    }
}
