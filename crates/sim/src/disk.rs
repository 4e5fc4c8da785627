//! A disk in memory that loses power: the simulated side of [`Disk`].
//!
//! What is synced is safe; what is not may be lost, kept or torn when [`SimDisk::crash`] draws so.
//! Handles are cheap: they share one store behind a mutex that nobody contends for, since a
//! simulated world runs on one thread.
//!
//! Invariants:
//! - content synced under a durable name survives every crash;
//! - after a crash, a byte of a file is the one last synced, the one last written, or zero in a
//!   stretch the file grew by; nothing else;
//! - a handle from before a crash answers [`DiskErrorKind::Severed`] for ever;
//! - the same calls with the same seed give the same bytes.
//!
//! Under these, [`decay`] lets content go wrong without a word, where the world says so.
//!
//! What it lacks: a second sync of a process after a failed one. It panics: no process may try it.
//! That of the next process may lie, see [`SimDisk::arm_sync_failure`].

mod before;
mod costs;
mod decay;
mod film;
mod image;
mod names;
mod pages;
mod policy;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use kvraft_base::{Disk, DiskError, DiskErrorKind, DiskFile, Prng};

pub use costs::{DiskCosts, DiskStats};
use image::Image;
use names::{FileId, Names};
pub use policy::{ContentLoss, CrashPolicy, NameLoss};

/// Unit of what a loss of power keeps or loses.
pub const SECTOR_SIZE_BYTES: usize = 512;

/// A kind of change, where power may be lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangePoint {
    /// A write of content.
    Write,
    /// A sync of content: writes are pending.
    Sync,
    /// A sync of a directory: names are pending.
    SyncDir,
    /// A new file.
    Create,
    /// A file gets another name.
    Rename,
    /// A name is removed.
    Remove,
}

impl ChangePoint {
    /// Every point.
    pub const ALL: [Self; 6] =
        [Self::Write, Self::Sync, Self::SyncDir, Self::Create, Self::Rename, Self::Remove];

    /// Its name in plans.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Write => "write",
            Self::Sync => "sync",
            Self::SyncDir => "sync-dir",
            Self::Create => "create",
            Self::Rename => "rename",
            Self::Remove => "remove",
        }
    }
}

/// What is wrong with a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiskTrouble {
    /// Everything takes so many times as long.
    pub slowness: u64,
    /// It has only so much room.
    pub is_bounded: bool,
    /// A sync or a write to come will fail.
    pub is_armed: bool,
}

#[derive(Clone, Debug, Default)]
struct File {
    /// Shared with copies of the disk until it changes.
    image: Arc<Image>,
    /// Handles of the present power cycle; a file without name lives as long as one is open.
    open_count: u64,
    /// A sync of this file has failed; the process must end.
    sync_failed: bool,
    /// Sectors whose next read is answered with another one.
    misreads: BTreeMap<usize, usize>,
}

/// Everything behind the handles.
#[derive(Clone, Debug)]
struct Platter {
    label: Arc<str>,
    files: BTreeMap<FileId, File>,
    file_count: u64,
    names: Names,
    /// Counts power cycles and ends of processes. Handles of another cycle are severed.
    cycle: u64,
    /// False from the moment a fuse blows until the next cycle.
    powered: bool,
    /// Changes left until power is lost, that one included.
    fuse: Option<u64>,
    /// Syncs left until one fails, that one included.
    sync_failure: Option<u64>,
    /// The sync that fails marks clean what it has not written.
    marks_clean: bool,
    /// The one kind of change that a fuse counts; `None`: every change.
    fuse_point: Option<ChangePoint>,
    /// Writes left until one fails, that one included.
    write_failure: Option<u64>,
    /// Reads left until one fails, that one included.
    read_failure: Option<u64>,
    /// An operation of this cycle was refused by an armed failure or for want of room.
    has_failed: bool,
    /// A read was.
    has_read_failed: bool,
    /// Every cost counts so many times.
    slowness: u64,
    /// What the next operation costs on top.
    stall_ns: u64,
    capacity_bytes: Option<u64>,
    costs: DiskCosts,
    cost_ns: u64,
    stats: DiskStats,
    film: film::Film,
}

/// A simulated disk, or rather a handle on it: of one power cycle where it acts as a [`Disk`], of
/// the machine where the world acts through it.
#[derive(Clone)]
pub struct SimDisk {
    platter: Arc<Mutex<Platter>>,
    cycle: u64,
}

/// An open file of a simulated disk.
struct SimFile {
    platter: Arc<Mutex<Platter>>,
    cycle: u64,
    file: FileId,
    path: String,
}

/// Why an operation was refused, before it is dressed with names.
type Refused = (DiskErrorKind, &'static str);

const SEVERED: Refused = (DiskErrorKind::Severed, "the machine has lost power");
const NOT_FOUND: Refused = (DiskErrorKind::NotFound, "no such file or directory");
const BROKEN: Refused = (DiskErrorKind::Failed, "input/output error");
const TOO_SHORT: Refused = (DiskErrorKind::Failed, "fewer bytes are there than asked for");
const FULL: Refused = (DiskErrorKind::Full, "no space left on device");

/// Counts an armed failure down; true when it is this time's.
fn is_due(left: &mut Option<u64>) -> bool {
    *left = left.map(|left| left - 1);
    left.take_if(|left| *left == 0).is_some()
}

/// A panicking run must still be able to sever its disks, so a poisoned lock is taken as it is.
fn lock(platter: &Mutex<Platter>) -> MutexGuard<'_, Platter> {
    platter.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The world's side.
impl SimDisk {
    /// An empty disk; `label` names it in errors.
    #[must_use]
    pub fn new(label: &str, costs: DiskCosts) -> Self {
        let platter = Platter {
            label: label.into(),
            files: BTreeMap::new(),
            file_count: 0,
            names: Names::default(),
            cycle: 0,
            powered: true,
            fuse: None,
            sync_failure: None,
            marks_clean: false,
            fuse_point: None,
            write_failure: None,
            read_failure: None,
            has_failed: false,
            has_read_failed: false,
            slowness: 1,
            stall_ns: 0,
            capacity_bytes: None,
            costs,
            cost_ns: 0,
            stats: DiskStats::default(),
            film: film::Film::default(),
        };
        Self { platter: Arc::new(Mutex::new(platter)), cycle: 0 }
    }

    /// Power is lost: handles are severed and what was not synced meets its fate.
    pub fn crash(&self, prng: &mut Prng, policy: CrashPolicy) {
        lock(&self.platter).crash(prng, policy);
    }

    /// The process ends but the machine does not: handles are severed, nothing is lost, and what
    /// was not synced stays so.
    pub fn sever(&self) {
        lock(&self.platter).end_cycle();
    }

    /// A disk for the process that starts now, on whatever the last crash left.
    #[must_use]
    pub fn reboot(&self) -> Self {
        Self { platter: Arc::clone(&self.platter), cycle: lock(&self.platter).cycle }
    }

    /// Power will be lost in the `change_count`-th change (create, write, rename, sync, …) from
    /// now: that one and everything after it answer [`DiskErrorKind::Severed`]. A write then may
    /// have written a part. Call [`SimDisk::crash`] when the process has noticed.
    ///
    /// # Panics
    /// When `change_count` is 0: the past cannot fail.
    pub fn arm_fuse(&self, change_count: u64) {
        assert!(0 < change_count, "a fuse blows in a change to come");
        let mut platter = lock(&self.platter);
        (platter.fuse, platter.fuse_point) = (Some(change_count), None);
    }

    /// As [`SimDisk::arm_fuse`], but only changes of one kind are counted: power is lost where it
    /// hurts most, in a sync with writes pending or between a rename and the sync of its directory.
    ///
    /// # Panics
    /// When `change_count` is 0: the past cannot fail.
    pub fn arm_fuse_at(&self, point: ChangePoint, change_count: u64) {
        assert!(0 < change_count, "a fuse blows in a change to come");
        let mut platter = lock(&self.platter);
        (platter.fuse, platter.fuse_point) = (Some(change_count), Some(point));
    }

    /// Takes a fuse that has not blown out again.
    pub fn disarm_fuse(&self) {
        lock(&self.platter).fuse = None;
    }

    /// The fuse has blown and no crash has followed yet.
    #[must_use]
    pub fn is_fuse_blown(&self) -> bool {
        !lock(&self.platter).powered
    }

    /// The `sync_count`-th sync from now will fail, once. With `marks_clean`, what it has not
    /// written counts as written from then on, as most file systems have it: reads show it as long
    /// as the machine has power, the next process's sync succeeds, and it is not on the disk.
    ///
    /// # Panics
    /// When `sync_count` is 0: the past cannot fail.
    pub fn arm_sync_failure(&self, sync_count: u64, marks_clean: bool) {
        assert!(0 < sync_count, "a sync to come fails");
        let mut platter = lock(&self.platter);
        (platter.sync_failure, platter.marks_clean) = (Some(sync_count), marks_clean);
    }

    /// What no running server needs: names that only interrupted steps leave, more than one segment
    /// that is kept for use, and open files without a name.
    pub(crate) fn left_over(&self) -> Vec<String> {
        let platter = lock(&self.platter);
        let endings = [".new", ".rebuild", ".refound"];
        let is_left = |path: &&str| endings.iter().any(|ending| path.ends_with(ending));
        let mut left: Vec<String> =
            platter.names.paths().filter(is_left).map(str::to_owned).collect();
        let is_spare = |path: &&str| path.ends_with(".old");
        left.extend(platter.names.paths().filter(is_spare).skip(1).map(str::to_owned));
        let named = platter.names.live_files();
        let nameless = |(id, file): &(&FileId, &File)| 0 < file.open_count && !named.contains(id);
        let count = platter.files.iter().filter(nameless).count();
        left.extend((0 < count).then(|| format!("{count} open files without a name")));
        left
    }

    /// Reads show something that no sync has written or will write.
    #[must_use]
    pub fn is_forsaken(&self) -> bool {
        lock(&self.platter).files.values().any(|file| file.image.is_forsaken())
    }

    /// The `write_count`-th write from now will fail, once, and write nothing.
    ///
    /// # Panics
    /// When `write_count` is 0: the past cannot fail.
    pub fn arm_write_failure(&self, write_count: u64) {
        assert!(0 < write_count, "a write to come fails");
        lock(&self.platter).write_failure = Some(write_count);
    }

    /// Takes armed failures back, makes every sector readable, and gives room again.
    pub fn mend(&self) {
        let mut platter = lock(&self.platter);
        (platter.sync_failure, platter.write_failure, platter.read_failure) = (None, None, None);
        (platter.capacity_bytes, platter.slowness, platter.stall_ns) = (None, 1, 0);
        platter.mend_sectors();
    }

    /// What is wrong with it for longer than one operation.
    #[must_use]
    pub fn trouble(&self) -> DiskTrouble {
        let platter = lock(&self.platter);
        DiskTrouble {
            slowness: platter.slowness.max(1),
            is_bounded: platter.capacity_bytes.is_some(),
            is_armed: platter.sync_failure.is_some() || platter.write_failure.is_some(),
        }
    }

    /// Since the process began, an operation failed because it was told to, or for want of room.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        lock(&self.platter).has_failed
    }

    /// From now on everything takes `factor` times as long; 1 is as before.
    pub fn set_slowness(&self, factor: u64) {
        lock(&self.platter).slowness = factor.max(1);
    }

    /// The next operation takes so much longer.
    pub fn stall(&self, lasts: Duration) {
        lock(&self.platter).stall_ns = u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
    }

    /// Growth beyond this many bytes in all files together is refused as [`DiskErrorKind::Full`].
    pub fn set_capacity(&self, capacity_bytes: Option<u64>) {
        lock(&self.platter).capacity_bytes = capacity_bytes;
    }

    /// Virtual time spent in operations since the last call.
    #[must_use]
    pub fn take_cost(&self) -> Duration {
        let mut platter = lock(&self.platter);
        let cost_ns = std::mem::take(&mut platter.cost_ns);
        Duration::from_nanos(cost_ns)
    }

    /// What was done so far.
    #[must_use]
    pub fn stats(&self) -> DiskStats {
        lock(&self.platter).stats
    }

    /// Bytes in all files that a name or a handle leads to.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        lock(&self.platter).size_bytes()
    }
}

impl Platter {
    fn crash(&mut self, prng: &mut Prng, policy: CrashPolicy) {
        self.end_cycle();
        self.stats.crash_count += 1;
        self.names.crash(prng, policy);
        self.reap();
        for file in self.files.values_mut() {
            if file.image.is_dirty() || file.image.is_forsaken() {
                Arc::make_mut(&mut file.image).crash(prng, policy);
            }
        }
    }

    fn end_cycle(&mut self) {
        self.cycle += 1;
        self.powered = true;
        (self.fuse, self.fuse_point) = (None, None);
        (self.sync_failure, self.write_failure, self.read_failure) = (None, None, None);
        self.has_failed = false;
        for file in self.files.values_mut() {
            file.open_count = 0;
            file.sync_failed = false;
        }
        self.reap();
    }

    /// Forgets files that no name, no change of names and no handle leads to.
    fn reap(&mut self) {
        let reachable = self.names.reachable();
        self.files.retain(|id, file| 0 < file.open_count || reachable.contains(id));
    }

    fn size_bytes(&self) -> u64 {
        self.files.values().map(|file| file.image.size() as u64).sum()
    }

    fn error(&self, operation: &'static str, path: &str, refused: Refused) -> DiskError {
        let (kind, detail) = refused;
        DiskError { kind, operation, path: format!("{}/{path}", self.label), detail: detail.into() }
    }

    /// Entry of every operation of a handle: is there power, and what does it cost?
    fn admit(&mut self, cycle: u64, bytes: usize) -> Result<(), Refused> {
        if cycle != self.cycle || !self.powered {
            return Err(SEVERED);
        }
        let kib_cost = (bytes as u64).saturating_mul(self.costs.kib_ns) / 1024;
        self.charge(self.costs.operation_ns + kib_cost);
        self.cost_ns += std::mem::take(&mut self.stall_ns);
        Ok(())
    }

    fn charge(&mut self, cost_ns: u64) {
        self.cost_ns += cost_ns.saturating_mul(self.slowness);
    }

    /// Entry of every operation that changes something: the fuse counts it and may blow in it.
    fn admit_change(&mut self, cycle: u64, point: Option<ChangePoint>) -> Result<(), Refused> {
        self.admit(cycle, 0)?;
        if self.burn_fuse(point) { Err(SEVERED) } else { Ok(()) }
    }

    /// Counts a change; true when power is lost in the middle of it.
    fn burn_fuse(&mut self, point: Option<ChangePoint>) -> bool {
        self.stats.change_count += 1;
        if self.fuse_point.is_some() && self.fuse_point != point {
            return !self.powered;
        }
        self.fuse = self.fuse.map(|left| left - 1);
        if self.fuse == Some(0) {
            self.fuse = None;
            self.powered = false;
        }
        !self.powered
    }

    fn admit_sync(&mut self, cycle: u64, point: ChangePoint) -> Result<(), Refused> {
        self.admit_change(cycle, Some(point))?;
        self.charge(self.costs.sync_ns);
        self.stats.sync_count += 1;
        if is_due(&mut self.sync_failure) {
            self.has_failed = true;
            return Err(BROKEN);
        }
        Ok(())
    }

    /// Refuses growth of a file from `size` to `end` beyond the capacity.
    fn admit_growth(&mut self, size: usize, end: usize) -> Result<(), Refused> {
        let growth = end.saturating_sub(size) as u64;
        match self.capacity_bytes {
            Some(capacity) if 0 < growth && capacity < self.size_bytes() + growth => {
                self.has_failed = true;
                Err(FULL)
            }
            _ => Ok(()),
        }
    }

    fn open(&mut self, cycle: u64, path: &str) -> Result<FileId, Refused> {
        self.admit(cycle, 0)?;
        let id = self.names.lookup(path).ok_or(NOT_FOUND)?;
        self.file(id).open_count += 1;
        Ok(id)
    }

    fn create(&mut self, cycle: u64, path: &str) -> Result<FileId, Refused> {
        self.admit_change(cycle, Some(ChangePoint::Create))?;
        if !self.names.has_dir_of(path) {
            return Err(NOT_FOUND);
        }
        let id = if let Some(id) = self.names.lookup(path) {
            self.image_mut(id).set_len(0);
            id
        } else {
            self.file_count += 1;
            let id = FileId(self.file_count);
            self.files.insert(id, File::default());
            self.names.bind(path, id);
            id
        };
        self.file(id).open_count += 1;
        self.expose();
        Ok(id)
    }

    fn rename(&mut self, cycle: u64, source: &str, target: &str) -> Result<(), Refused> {
        self.admit_change(cycle, Some(ChangePoint::Rename))?;
        let id = self.names.lookup(source).ok_or(NOT_FOUND)?;
        if !self.names.has_dir_of(target) {
            return Err(NOT_FOUND);
        }
        self.names.rename(source, target, id);
        self.expose();
        Ok(())
    }

    fn remove(&mut self, cycle: u64, path: &str) -> Result<(), Refused> {
        self.admit_change(cycle, Some(ChangePoint::Remove))?;
        let id = self.names.lookup(path).ok_or(NOT_FOUND)?;
        self.names.unbind(path, id);
        self.expose();
        Ok(())
    }

    fn sync_dir(&mut self, cycle: u64, dir: &str) -> Result<(), Refused> {
        self.admit_sync(cycle, ChangePoint::SyncDir)?;
        if !self.names.has_dir(dir) {
            return Err(NOT_FOUND);
        }
        self.names.sync(dir);
        self.reap();
        Ok(())
    }

    fn read(&mut self, handle: &SimFile, offset: u64, buffer: &mut [u8]) -> Result<(), Refused> {
        let (file, offset) = self.admit_read(handle, offset, buffer.len())?;
        file.image.read_at(offset, buffer).then_some(()).ok_or(TOO_SHORT)?;
        file.misread(offset, buffer);
        Ok(())
    }

    fn read_vec(&mut self, handle: &SimFile, offset: u64, size: usize) -> Result<Vec<u8>, Refused> {
        let (file, offset) = self.admit_read(handle, offset, size)?;
        let mut bytes = file.image.read_vec(offset, size).ok_or(TOO_SHORT)?;
        file.misread(offset, &mut bytes);
        Ok(bytes)
    }

    /// Entry of every read of content: what to read of, and where.
    fn admit_read(
        &mut self,
        handle: &SimFile,
        offset: u64,
        size: usize,
    ) -> Result<(&mut File, usize), Refused> {
        self.admit(handle.cycle, size)?;
        self.stats.read_count += 1;
        self.stats.read_bytes += size as u64;
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        let fails_once = is_due(&mut self.read_failure);
        if fails_once || !self.file(handle.file).image.is_readable(offset, size) {
            self.has_failed = true;
            self.has_read_failed = true;
            return Err(BROKEN);
        }
        Ok((self.file(handle.file), offset))
    }

    fn write(&mut self, handle: &SimFile, offset: u64, bytes: &[u8]) -> Result<(), Refused> {
        let too_far = (DiskErrorKind::Failed, "offset out of range");
        let offset = usize::try_from(offset).map_err(|_| too_far)?;
        let end = offset.checked_add(bytes.len()).ok_or(too_far)?;
        self.admit(handle.cycle, bytes.len())?;
        let size = self.file(handle.file).image.size();
        self.admit_growth(size, end)?;
        if is_due(&mut self.write_failure) {
            self.has_failed = true;
            return Err(BROKEN);
        }
        let blown = self.burn_fuse(Some(ChangePoint::Write));
        let count = if blown { self.torn_size(offset, bytes.len()) } else { bytes.len() };
        self.stats.write_count += 1;
        self.stats.written_bytes += count as u64;
        self.image_mut(handle.file).write_at(offset, &bytes[..count]);
        drop(self.file(handle.file).take_misreads(offset, count));
        if blown { Err(SEVERED) } else { Ok(()) }
    }

    /// How much of a write of `size` bytes is done when power is lost in the middle of it: whole
    /// sectors.
    fn torn_size(&self, offset: usize, size: usize) -> usize {
        let first = offset / SECTOR_SIZE_BYTES;
        let sector_count = (offset + size).div_ceil(SECTOR_SIZE_BYTES) - first;
        let drawn = Prng::new(self.stats.change_count).below(sector_count as u64 + 1);
        let done = usize::try_from(drawn).expect("a part of a count is a count");
        ((first + done) * SECTOR_SIZE_BYTES).clamp(offset, offset + size) - offset
    }

    fn set_len(&mut self, handle: &SimFile, size: u64) -> Result<(), Refused> {
        self.admit_change(handle.cycle, None)?;
        let size = usize::try_from(size).map_err(|_| FULL)?;
        let present = self.file(handle.file).image.size();
        self.admit_growth(present, size)?;
        self.image_mut(handle.file).set_len(size);
        drop(self.file(handle.file).take_misreads(size, usize::MAX));
        if size < present {
            self.expose();
        }
        Ok(())
    }

    fn sync(&mut self, handle: &SimFile) -> Result<(), Refused> {
        let admitted = self.admit_sync(handle.cycle, ChangePoint::Sync);
        if handle.cycle != self.cycle {
            return admitted;
        }
        let (powered, marks_clean) = (self.powered, self.marks_clean);
        if admitted.is_ok() {
            let has_new_size = self.file(handle.file).image.has_new_size();
            self.expose_size(has_new_size);
        }
        let file = self.file(handle.file);
        assert!(!file.sync_failed, "a sync is never tried again after one has failed");
        if admitted.is_ok() {
            let sectors = self.image_mut(handle.file).sync() as u64;
            self.stats.synced_sectors += sectors;
        } else {
            file.sync_failed = powered;
            if powered && marks_clean {
                Arc::make_mut(&mut file.image).forsake();
            }
        }
        admitted
    }

    fn file(&mut self, id: FileId) -> &mut File {
        self.files.get_mut(&id).expect("a named or open file is kept: see reap")
    }

    /// The content of a file, for changes.
    fn image_mut(&mut self, id: FileId) -> &mut Image {
        Arc::make_mut(&mut self.file(id).image)
    }
}

impl Disk for SimDisk {
    fn handle(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    fn open(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut platter = lock(&self.platter);
        let opened = platter.open(self.cycle, path);
        let file = opened.map_err(|refused| platter.error("open", path, refused))?;
        Ok(Box::new(self.file_handle(file, path)))
    }

    fn create(&self, path: &str) -> Result<Box<dyn DiskFile>, DiskError> {
        let mut platter = lock(&self.platter);
        let created = platter.create(self.cycle, path);
        let file = created.map_err(|refused| platter.error("create", path, refused))?;
        Ok(Box::new(self.file_handle(file, path)))
    }

    fn create_dir(&self, path: &str) -> Result<(), DiskError> {
        self.act("create_dir", path, |platter| {
            platter.admit_change(self.cycle, None)?;
            platter.names.make_dir(path);
            Ok(())
        })
    }

    fn rename(&self, source: &str, target: &str) -> Result<(), DiskError> {
        self.act("rename", source, |platter| platter.rename(self.cycle, source, target))
    }

    fn remove(&self, path: &str) -> Result<(), DiskError> {
        self.act("remove", path, |platter| platter.remove(self.cycle, path))
    }

    fn list(&self, dir: &str) -> Result<Vec<String>, DiskError> {
        self.act("list", dir, |platter| {
            platter.admit(self.cycle, 0)?;
            if platter.names.has_dir(dir) { Ok(platter.names.list(dir)) } else { Err(NOT_FOUND) }
        })
    }

    fn sync_dir(&self, dir: &str) -> Result<(), DiskError> {
        self.act("sync_dir", dir, |platter| platter.sync_dir(self.cycle, dir))
    }
}

impl SimDisk {
    fn act<T>(
        &self,
        operation: &'static str,
        path: &str,
        action: impl FnOnce(&mut Platter) -> Result<T, Refused>,
    ) -> Result<T, DiskError> {
        let mut platter = lock(&self.platter);
        action(&mut platter).map_err(|refused| platter.error(operation, path, refused))
    }

    fn file_handle(&self, file: FileId, path: &str) -> SimFile {
        SimFile {
            platter: Arc::clone(&self.platter),
            cycle: self.cycle,
            file,
            path: path.to_owned(),
        }
    }
}

impl SimFile {
    fn act<T>(
        &self,
        operation: &'static str,
        action: impl FnOnce(&mut Platter) -> Result<T, Refused>,
    ) -> Result<T, DiskError> {
        let mut platter = lock(&self.platter);
        action(&mut platter).map_err(|refused| platter.error(operation, &self.path, refused))
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        self.act("read", |platter| platter.read(self, offset, buffer))
    }

    fn read_vec(&self, offset: u64, size: usize) -> Result<Vec<u8>, DiskError> {
        self.act("read", |platter| platter.read_vec(self, offset, size))
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        self.act("write", |platter| platter.write(self, offset, bytes))
    }

    fn size(&self) -> Result<u64, DiskError> {
        self.act("size", |platter| {
            platter.admit(self.cycle, 0)?;
            Ok(platter.file(self.file).image.size() as u64)
        })
    }

    fn set_len(&self, size: u64) -> Result<(), DiskError> {
        self.act("set_len", |platter| platter.set_len(self, size))
    }

    fn sync(&self) -> Result<(), DiskError> {
        self.act("sync", |platter| platter.sync(self))
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        let mut platter = lock(&self.platter);
        if self.cycle != platter.cycle {
            return;
        }
        let file = platter.file(self.file);
        file.open_count -= 1;
        if file.open_count == 0 && platter.names.lookup(&self.path) != Some(self.file) {
            platter.reap();
        }
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({}, cycle {})", lock(&self.platter).label, self.cycle)
    }
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({}, cycle {})", self.path, self.cycle)
    }
}
