//! What a process does with a simulated disk: each operation is admitted, paid for, and may fail.
//!
//! Invariants:
//! - a handle of another cycle is answered before anything is looked at or changed;
//! - a fuse blows in a change, never between two: what the process sees of that one is the loss of
//!   power.

use std::{
    fmt,
    sync::{Arc, Mutex},
};

use kvraft_base::{Disk, DiskError, DiskErrorKind, DiskFile, Prng};

use super::{ChangePoint, File, Platter, SECTOR_SIZE_BYTES, SimDisk, lock, names::FileId};

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

impl Platter {
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
        self.expose_name();
        Ok(id)
    }

    fn rename(&mut self, cycle: u64, source: &str, target: &str) -> Result<(), Refused> {
        self.admit_change(cycle, Some(ChangePoint::Rename))?;
        let id = self.names.lookup(source).ok_or(NOT_FOUND)?;
        if !self.names.has_dir_of(target) {
            return Err(NOT_FOUND);
        }
        self.names.rename(source, target, id);
        self.expose_name();
        Ok(())
    }

    fn remove(&mut self, cycle: u64, path: &str) -> Result<(), Refused> {
        self.admit_change(cycle, Some(ChangePoint::Remove))?;
        let id = self.names.lookup(path).ok_or(NOT_FOUND)?;
        self.names.unbind(path, id);
        self.expose_name();
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
            self.expose_size();
        }
        Ok(())
    }

    fn sync(&mut self, handle: &SimFile) -> Result<(), Refused> {
        let admitted = self.admit_sync(handle.cycle, ChangePoint::Sync);
        if handle.cycle != self.cycle {
            return admitted;
        }
        let (powered, marks_clean) = (self.powered, self.marks_clean);
        if admitted.is_ok() && self.file(handle.file).image.has_new_size() {
            self.expose_size();
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

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SimFile({}, cycle {})", self.path, self.cycle)
    }
}
