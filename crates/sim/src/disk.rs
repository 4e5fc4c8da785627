//! A disk in memory that loses power: the simulated side of [`kvraft_base::Disk`].
//!
//! What is synced is safe; what is not may be lost, kept or torn when [`SimDisk::crash`] draws so.
//! Handles are cheap: they share one store behind a mutex that nobody contends for, since a
//! simulated world runs on one thread.
//!
//! Invariants:
//! - content synced under a durable name survives every crash;
//! - after a crash, a byte of a file is the one last synced, the one last written, or zero in a
//!   stretch the file grew by; nothing else;
//! - a handle from before a crash answers [`kvraft_base::DiskErrorKind::Severed`] for ever;
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
mod operations;
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

use kvraft_base::Prng;

pub use costs::{DiskCosts, DiskStats};
pub(crate) use film::Exposures;
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

/// A simulated disk, or rather a handle on it: of one power cycle where it acts as a
/// [`kvraft_base::Disk`], of the machine where the world acts through it.
#[derive(Clone)]
pub struct SimDisk {
    platter: Arc<Mutex<Platter>>,
    cycle: u64,
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
    /// now: that one and everything after it answer [`kvraft_base::DiskErrorKind::Severed`]. A
    /// write then may have written a part. Call [`SimDisk::crash`] when the process has noticed.
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

    /// Growth beyond this many bytes in all files together is refused as
    /// [`kvraft_base::DiskErrorKind::Full`].
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

    fn file(&mut self, id: FileId) -> &mut File {
        self.files.get_mut(&id).expect("a named or open file is kept: see reap")
    }

    /// The content of a file, for changes.
    fn image_mut(&mut self, id: FileId) -> &mut Image {
        Arc::make_mut(&mut self.file(id).image)
    }
}

impl fmt::Debug for SimDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimDisk({}, cycle {})", lock(&self.platter).label, self.cycle)
    }
}
