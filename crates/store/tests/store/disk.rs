//! A disk in memory for tests. What was not synced may be lost, kept, or torn by sectors of 512 bytes
//! at a crash; names that were not synced likewise. A fuse lets the n-th operation and all after it
//! fail; the operation that fails may have happened in part.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard},
};

use kvraft_base::{Disk, DiskError, DiskErrorKind, DiskFile, Prng};

const SECTOR: usize = 512;

#[derive(Clone, Debug)]
enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    SetLen(usize),
}

/// Contents are shared between copies of a disk until they are written to.
#[derive(Clone, Debug, Default)]
struct Inode {
    live: Arc<Vec<u8>>,
    durable: Arc<Vec<u8>>,
    pending: Vec<Change>,
}

#[derive(Clone, Debug)]
enum NameChange {
    Link { name: String, inode: usize },
    Rename { source: String, target: String, inode: usize },
    Unlink { name: String },
}

#[derive(Clone, Debug, Default)]
struct World {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    pending_names: Vec<NameChange>,
    dirs: Vec<String>,
    fuse: Option<u64>,
    /// An operation has failed: from now on nothing has any effect.
    dead: bool,
    /// The operation that fails now may still happen in part.
    partial: bool,
}

/// What happens at a crash to what was not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    All,
    Nothing,
    /// Each sector and each name by a draw from this seed.
    Torn(u64),
}

#[derive(Clone, Debug, Default)]
pub(crate) struct TestDisk {
    world: Arc<Mutex<World>>,
}

impl TestDisk {
    pub(crate) fn new() -> Self {
        Self::default()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    /// An independent copy.
    pub(crate) fn fork(&self) -> Self {
        Self { world: Arc::new(Mutex::new(self.lock().clone())) }
    }

    /// The operation after the next `count` and all later ones fail.
    pub(crate) fn set_fuse(&self, count: Option<u64>) {
        self.lock().fuse = count;
    }

    /// Whether the fuse has made an operation fail.
    pub(crate) fn is_dead(&self) -> bool {
        self.lock().dead
    }

    /// Works again for a new process on the same kernel: nothing is lost, nothing more is durable.
    pub(crate) fn revive(&self) {
        let mut world = self.lock();
        (world.fuse, world.dead, world.partial) = (None, false, false);
    }

    /// The disk as the next start finds it.
    pub(crate) fn crash(&self, loss: Loss) -> Self {
        let mut world = self.lock().clone();
        let mut prng = Prng::new(match loss {
            Loss::Torn(seed) => seed,
            Loss::All | Loss::Nothing => 0,
        });
        let mut keep = || match loss {
            Loss::All => false,
            Loss::Nothing => true,
            Loss::Torn(_) => prng.chance(1, 2),
        };
        for inode in &mut world.inodes {
            for change in std::mem::take(&mut inode.pending) {
                settle(Arc::make_mut(&mut inode.durable), &change, &mut keep);
            }
            inode.live = Arc::clone(&inode.durable);
        }
        for change in std::mem::take(&mut world.pending_names) {
            if keep() {
                rename(&mut world.durable_names, change);
            }
        }
        world.names = world.durable_names.clone();
        (world.fuse, world.dead, world.partial) = (None, false, false);
        Self { world: Arc::new(Mutex::new(world)) }
    }

    /// Flips bits of a byte, as a bad medium does.
    pub(crate) fn flip(&self, path: &str, offset: usize, mask: u8) {
        let mut bytes = self.contents(path);
        bytes[offset] ^= mask;
        self.set_contents(path, bytes);
    }

    pub(crate) fn set_contents(&self, path: &str, bytes: Vec<u8>) {
        let mut world = self.lock();
        let inode = world.names[path];
        let bytes = Arc::new(bytes);
        world.inodes[inode] =
            Inode { live: Arc::clone(&bytes), durable: bytes, pending: Vec::new() };
    }

    pub(crate) fn contents(&self, path: &str) -> Vec<u8> {
        let world = self.lock();
        world.inodes[world.names[path]].live.to_vec()
    }

    pub(crate) fn paths(&self) -> Vec<String> {
        self.lock().names.keys().cloned().collect()
    }

    /// Paths of the journal's segments, oldest first.
    pub(crate) fn segments(&self) -> Vec<String> {
        self.paths().into_iter().filter(|path| path.ends_with(".seg")).collect()
    }
}

fn settle(bytes: &mut Vec<u8>, change: &Change, keep: &mut impl FnMut() -> bool) {
    match change {
        Change::SetLen(len) => {
            if keep() {
                bytes.resize(*len, 0);
            }
        }
        Change::Write { offset, bytes: written } => {
            let mut at = 0;
            while at < written.len() {
                let start = offset + at;
                let end = ((start / SECTOR + 1) * SECTOR).min(offset + written.len());
                if keep() {
                    put(bytes, start, &written[at..end - offset]);
                }
                at = end - offset;
            }
        }
    }
}

fn put(bytes: &mut Vec<u8>, offset: usize, written: &[u8]) {
    let end = offset + written.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(written);
}

fn rename(names: &mut BTreeMap<String, usize>, change: NameChange) {
    match change {
        NameChange::Link { name, inode } => {
            names.insert(name, inode);
        }
        NameChange::Rename { source, target, inode } => {
            names.remove(&source);
            names.insert(target, inode);
        }
        NameChange::Unlink { name } => {
            names.remove(&name);
        }
    }
}

fn error(kind: DiskErrorKind, operation: &'static str, path: &str) -> DiskError {
    DiskError { kind, operation, path: path.into(), detail: format!("{kind:?}") }
}

impl World {
    /// Whether this operation works.
    fn spend(&mut self, operation: &'static str, path: &str) -> Result<(), DiskError> {
        match &mut self.fuse {
            Some(0) => {
                let first = !std::mem::replace(&mut self.dead, true);
                self.partial = first;
                Err(error(DiskErrorKind::Severed, operation, path))
            }
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn find(&self, operation: &'static str, path: &str) -> Result<usize, DiskError> {
        let found = self.names.get(path).copied();
        found.ok_or_else(|| error(DiskErrorKind::NotFound, operation, path))
    }

    fn change_name(&mut self, change: NameChange) {
        rename(&mut self.names, change.clone());
        self.pending_names.push(change);
    }
}

impl Disk for TestDisk {
    fn handle(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut world = self.lock();
        world.spend("open", path)?;
        let inode = world.find("open", path)?;
        Ok(Box::new(TestFile { disk: self.clone(), path: path.into(), inode }))
    }

    fn create(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut world = self.lock();
        let spent = world.spend("create", path);
        if spent.is_err() && !world.partial {
            return Err(error(DiskErrorKind::Severed, "create", path));
        }
        let inode = match world.names.get(path) {
            Some(inode) => *inode,
            None => {
                world.inodes.push(Inode::default());
                let inode = world.inodes.len() - 1;
                world.change_name(NameChange::Link { name: path.into(), inode });
                inode
            }
        };
        let file = &mut world.inodes[inode];
        file.live = Arc::default();
        file.pending.push(Change::SetLen(0));
        spent?;
        Ok(Box::new(TestFile { disk: self.clone(), path: path.into(), inode }))
    }

    fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        let mut world = self.lock();
        world.spend("create_dir", path)?;
        if !world.dirs.iter().any(|dir| dir == path) {
            world.dirs.push(path.into());
        }
        Ok(())
    }

    fn rename(&self, source: &str, target: &str) -> Result<(), DiskError> {
        let mut world = self.lock();
        let inode = world.find("rename", source)?;
        let spent = world.spend("rename", source);
        if spent.is_ok() || world.partial {
            let (source, target) = (source.into(), target.into());
            world.change_name(NameChange::Rename { source, target, inode });
        }
        spent
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        let mut world = self.lock();
        world.find("remove", path)?;
        let spent = world.spend("remove", path);
        if spent.is_ok() || world.partial {
            world.change_name(NameChange::Unlink { name: path.into() });
        }
        spent
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        let mut world = self.lock();
        world.spend("list", dir)?;
        let prefix = if dir.is_empty() { String::new() } else { format!("{dir}/") };
        let names = world.names.keys().filter_map(|name| name.strip_prefix(&prefix));
        Ok(names.filter(|name| !name.contains('/')).map(String::from).collect())
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        let mut world = self.lock();
        world.spend("sync_dir", dir)?;
        let here = |name: &str| match name.rsplit_once('/') {
            Some((parent, _)) => parent == dir,
            None => dir.is_empty(),
        };
        let (settled, left): (Vec<_>, Vec<_>) =
            std::mem::take(&mut world.pending_names).into_iter().partition(|change| match change {
                NameChange::Link { name, .. } | NameChange::Unlink { name } => here(name),
                NameChange::Rename { target, .. } => here(target),
            });
        world.pending_names = left;
        for change in settled {
            rename(&mut world.durable_names, change);
        }
        Ok(())
    }
}

#[derive(Debug)]
struct TestFile {
    disk: TestDisk,
    path: String,
    inode: usize,
}

impl DiskFile for TestFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let mut world = self.disk.lock();
        world.spend("read", &self.path)?;
        let start = usize::try_from(offset).unwrap();
        let found = world.inodes[self.inode].live.get(start..start + buffer.len());
        let found = found.ok_or_else(|| error(DiskErrorKind::Failed, "read", &self.path))?;
        buffer.copy_from_slice(found);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        let mut world = self.disk.lock();
        let spent = world.spend("write", &self.path);
        if spent.is_ok() || world.partial {
            let offset = usize::try_from(offset).unwrap();
            let file = &mut world.inodes[self.inode];
            put(Arc::make_mut(&mut file.live), offset, bytes);
            file.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
        }
        spent
    }

    fn size(&self) -> Result<u64, DiskError> {
        let mut world = self.disk.lock();
        world.spend("size", &self.path)?;
        Ok(world.inodes[self.inode].live.len() as u64)
    }

    fn set_len(&self, size: u64) -> Result<(), DiskError> {
        let mut world = self.disk.lock();
        world.spend("set_len", &self.path)?;
        let size = usize::try_from(size).unwrap();
        let file = &mut world.inodes[self.inode];
        Arc::make_mut(&mut file.live).resize(size, 0);
        file.pending.push(Change::SetLen(size));
        Ok(())
    }

    fn sync(&self) -> Result<(), DiskError> {
        let mut world = self.disk.lock();
        world.spend("sync", &self.path)?;
        let file = &mut world.inodes[self.inode];
        file.pending.clear();
        file.durable = Arc::clone(&file.live);
        Ok(())
    }
}
