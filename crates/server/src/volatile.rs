//! A disk for tests that forgets: what was not synced lives in this process only, so that killing
//! the real binary is a power loss.
//!
//! Why: the kernel keeps unsynced writes of a killed process, so SIGKILL alone never shows a
//! missing fsync. Behind `--volatile-disk` it does.
//!
//! Invariants:
//! - written bytes and sizes reach the real file only in [`DiskFile::sync`] of that file;
//! - created, renamed and removed names reach the real directory only in [`Disk::sync_dir`] of that
//!   directory, in the order in which they were made, and a rename atomically;
//! - the two are independent. A file that was synced but whose name was not is really there, under
//!   a name in a hiding place that the next opening removes; a name that was synced before its
//!   content is an empty file. A directory itself is a name of its parent: what was synced in it is
//!   lost as long as the parent was not;
//! - reads see everything, synced or not.
//!
//! A rename between directories belongs to the target's `sync_dir`, which then carries out the
//! pending changes of the source directory first, as a journaling file system would. A process that
//! is killed in the middle of a sync leaves a part of it behind: that is a torn write.
//!
//! What it lacks: a bound. All that is not yet synced is held in memory; it is for tests.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use kvraft_base::{Disk, DiskError, DiskErrorKind, DiskFile};

use crate::disk::{HIDING_PLACE, RealDisk, RealFile, failure, rename, sync_directory};

mod content;

use content::Content;

/// A directory that survives the end of the process only as far as it was synced. Clones share it.
#[derive(Clone, Debug)]
pub struct VolatileDisk {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    real: RealDisk,
    names: Mutex<Names>,
}

impl VolatileDisk {
    /// Opens a directory as [`RealDisk::open`] does, which removes what an earlier process had
    /// hidden.
    ///
    /// # Errors
    /// As [`RealDisk::open`].
    pub fn open(directory: &Path) -> Result<Self, DiskError> {
        let real = RealDisk::open(directory)?;
        let hiding_place = directory.join(HIDING_PLACE);
        fs::create_dir(&hiding_place)
            .map_err(|error| failure("create directory", &hiding_place, &error))?;
        let names = Names::read(&real, hiding_place)?;
        Ok(Self { shared: Arc::new(Shared { real, names: Mutex::new(names) }) })
    }

    fn names(&self) -> MutexGuard<'_, Names> {
        self.shared.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn missing(&self, operation: &'static str, path: &str) -> DiskError {
        DiskError {
            kind: DiskErrorKind::NotFound,
            operation,
            path: self.shared.real.full(path).display().to_string(),
            detail: "no such file or directory".to_owned(),
        }
    }
}

impl Disk for VolatileDisk {
    fn handle(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let names = self.names();
        let node = names.visible.get(path).ok_or_else(|| self.missing("open", path))?;
        node.content().load(&node.place())?;
        Ok(Box::new(VolatileFile { node: Arc::clone(node) }))
    }

    fn create(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut names = self.names();
        if !names.places.contains_key(parent(path)) {
            return Err(self.missing("create", path));
        }
        if let Some(node) = names.visible.get(path) {
            node.content().load(&node.place())?;
            node.content().set_len(0)?;
            return Ok(Box::new(VolatileFile { node: Arc::clone(node) }));
        }
        let place = names.hide();
        let content = Content::new(RealFile::create(place.clone())?);
        let node = Arc::new(Node { content: Mutex::new(content), place: Mutex::new(place) });
        names.visible.insert(path.to_owned(), Arc::clone(&node));
        names.pending.push(Change::Link { path: path.to_owned(), node: Arc::clone(&node) });
        Ok(Box::new(VolatileFile { node }))
    }

    fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        let mut names = self.names();
        if names.places.contains_key(path) {
            return Ok(());
        }
        let place = names.hide();
        fs::create_dir(&place).map_err(|error| failure("create directory", &place, &error))?;
        names.places.insert(path.to_owned(), place);
        names.pending.push(Change::MakeDir { path: path.to_owned() });
        Ok(())
    }

    fn rename(&self, source: &str, target: &str) -> Result<(), DiskError> {
        let mut names = self.names();
        if !names.visible.contains_key(source) || !names.places.contains_key(parent(target)) {
            return Err(self.missing("rename", source));
        }
        if source == target {
            return Ok(());
        }
        let node = names.visible.remove(source).expect("looked up above");
        names.visible.insert(target.to_owned(), Arc::clone(&node));
        let (source, target) = (source.to_owned(), target.to_owned());
        names.pending.push(Change::Rename { source, target, node });
        Ok(())
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut names = self.names();
        names.visible.remove(path).ok_or_else(|| self.missing("remove", path))?;
        names.pending.push(Change::Remove { path: path.to_owned() });
        Ok(())
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let names = self.names();
        if !names.places.contains_key(dir) {
            return Err(self.missing("list", dir));
        }
        let paths = names.visible.keys().chain(names.places.keys());
        let inside = paths.filter(|path| !path.is_empty() && parent(path) == dir);
        let listed: BTreeSet<String> = inside.map(|path| last_name(path).to_owned()).collect();
        Ok(listed.into_iter().collect())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let mut names = self.names();
        if !names.places.contains_key(dir) {
            return Err(self.missing("sync directory", dir));
        }
        names.publish(dir)
    }
}

/// A file: its content, and where the synced part of it really is. It outlives its names.
#[derive(Debug)]
struct Node {
    content: Mutex<Content>,
    place: Mutex<PathBuf>,
}

impl Node {
    fn content(&self) -> MutexGuard<'_, Content> {
        self.content.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> PathBuf {
        self.place.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn move_to(&self, place: PathBuf) {
        *self.place.lock().unwrap_or_else(PoisonError::into_inner) = place;
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let place = self.place();
        if place.iter().any(|part| part == HIDING_PLACE) {
            // Nobody can name it any more. If this fails, the next opening removes it.
            fs::remove_file(&place).ok();
        }
    }
}

#[derive(Debug)]
struct VolatileFile {
    node: Arc<Node>,
}

impl DiskFile for VolatileFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.node.content().read_at(offset, buffer)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.node.content().write_at(offset, bytes)
    }

    fn size(&self) -> Result<u64, DiskError> {
        Ok(self.node.content().size())
    }

    fn set_len(&self, size: u64) -> Result<(), DiskError> {
        self.node.content().set_len(size)
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.node.content().sync()
    }
}

/// A change of names that a directory has not been synced since.
#[derive(Debug)]
enum Change {
    Link { path: String, node: Arc<Node> },
    Rename { source: String, target: String, node: Arc<Node> },
    Remove { path: String },
    MakeDir { path: String },
}

impl Change {
    /// The directory whose sync makes the change durable.
    fn directory(&self) -> &str {
        match self {
            Self::Link { path, .. } | Self::Remove { path } | Self::MakeDir { path } => {
                parent(path)
            }
            Self::Rename { target, .. } => parent(target),
        }
    }
}

/// The names as the process sees them, as they really are, and the changes in between.
#[derive(Debug)]
struct Names {
    visible: BTreeMap<String, Arc<Node>>,
    /// What would be there after a power loss, given that the directory is.
    durable: BTreeMap<String, Arc<Node>>,
    /// Every visible directory, "" included, and where it really is.
    places: BTreeMap<String, PathBuf>,
    pending: Vec<Change>,
    hiding_place: PathBuf,
    hidden_count: u64,
}

impl Names {
    /// What an earlier process left durable.
    fn read(real: &RealDisk, hiding_place: PathBuf) -> Result<Self, DiskError> {
        let root = real.path().to_path_buf();
        let mut names = Self {
            visible: BTreeMap::new(),
            durable: BTreeMap::new(),
            places: BTreeMap::from([(String::new(), root)]),
            pending: Vec::new(),
            hiding_place,
            hidden_count: 0,
        };
        for name in real.list("")? {
            let full = real.full(&name);
            if full.is_dir() {
                for inner in real.list(&name)? {
                    names.found(format!("{name}/{inner}"), full.join(inner));
                }
                names.places.insert(name, full);
            } else {
                names.found(name, full);
            }
        }
        Ok(names)
    }

    fn found(&mut self, path: String, place: PathBuf) {
        let content = Mutex::new(Content::default());
        let node = Arc::new(Node { content, place: Mutex::new(place) });
        self.visible.insert(path.clone(), Arc::clone(&node));
        self.durable.insert(path, node);
    }

    /// A fresh place that the next opening forgets.
    fn hide(&mut self) -> PathBuf {
        self.hidden_count += 1;
        self.hiding_place.join(self.hidden_count.to_string())
    }

    fn real_path(&self, path: &str) -> PathBuf {
        let place = self.places.get(parent(path));
        place.expect("names are made in visible directories only").join(last_name(path))
    }

    /// Carries out the pending changes of a directory, in order, and makes them durable.
    fn publish(&mut self, dir: &str) -> Result<(), DiskError> {
        let dirs = self.published_together(dir);
        let mut changes = VecDeque::from(std::mem::take(&mut self.pending));
        while let Some(change) = changes.pop_front() {
            if dirs.contains(change.directory()) {
                self.carry_out(change)?;
            } else {
                self.pending.push(change);
            }
        }
        for dir in dirs {
            sync_directory(&self.places[&dir])?;
        }
        Ok(())
    }

    /// The directory and those from which files were renamed into it.
    fn published_together(&self, dir: &str) -> BTreeSet<String> {
        let mut dirs = BTreeSet::from([dir.to_owned()]);
        // Backwards, so that chains of renames are followed; one pass, so that it ends.
        for change in self.pending.iter().rev() {
            if let Change::Rename { source, target, .. } = change
                && dirs.contains(parent(target))
            {
                dirs.insert(parent(source).to_owned());
            }
        }
        dirs
    }

    fn carry_out(&mut self, change: Change) -> Result<(), DiskError> {
        match change {
            Change::Link { path, node } => self.put(path, &node),
            Change::Rename { source, target, node } => {
                let there = self.durable.get(&source).is_some_and(|it| Arc::ptr_eq(it, &node));
                if !there {
                    return self.put(target, &node);
                }
                self.keep_aside(&target)?;
                let place = self.real_path(&target);
                rename(&self.real_path(&source), &place)?;
                self.durable.remove(&source);
                node.move_to(place);
                self.durable.insert(target, node);
                Ok(())
            }
            Change::Remove { path } => {
                self.keep_aside(&path)?;
                if self.durable.remove(&path).is_none() {
                    return Ok(());
                }
                let place = self.real_path(&path);
                fs::remove_file(&place).map_err(|error| failure("remove", &place, &error))
            }
            Change::MakeDir { path } => self.put_directory(&path),
        }
    }

    /// Gives a file its durable name, replacing atomically what was there.
    fn put(&mut self, path: String, node: &Arc<Node>) -> Result<(), DiskError> {
        self.keep_aside(&path)?;
        let place = self.real_path(&path);
        let mut source = node.place();
        if self.durable.values().any(|it| Arc::ptr_eq(it, node)) {
            // It keeps its other name until the change that removes that one.
            let second = self.hide();
            link(&source, &second)?;
            source = second;
        }
        rename(&source, &place)?;
        node.move_to(place);
        self.durable.insert(path, Arc::clone(node));
        Ok(())
    }

    /// Before a durable name is replaced or removed: if someone still uses the file, its bytes are
    /// kept in the hiding place.
    fn keep_aside(&mut self, path: &str) -> Result<(), DiskError> {
        let hidden = self.hide();
        if let Some(node) = self.durable.get(path)
            && 1 < Arc::strong_count(node)
        {
            link(&node.place(), &hidden)?;
            node.move_to(hidden);
        }
        Ok(())
    }

    fn put_directory(&mut self, path: &str) -> Result<(), DiskError> {
        let place = self.real_path(path);
        rename(&self.places[path], &place)?;
        for (inner, node) in &self.durable {
            if parent(inner) == path {
                node.move_to(place.join(last_name(inner)));
            }
        }
        self.places.insert(path.to_owned(), place);
        Ok(())
    }
}

fn link(source: &Path, target: &Path) -> Result<(), DiskError> {
    fs::hard_link(source, target).map_err(|error| failure("link", source, &error))
}

/// The directory of a path; "" is the root.
fn parent(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The name of a path within its directory.
fn last_name(path: &str) -> &str {
    path.rsplit_once('/').map_or(path, |(_, name)| name)
}

#[cfg(test)]
#[path = "volatile_tests.rs"]
mod tests;
