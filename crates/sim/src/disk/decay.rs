//! What disks do without a word, or too late: flipped bits, writes that were lost or went
//! elsewhere, sectors that cannot be read, or are read from elsewhere.
//!
//! All of it happens between two processes, to what is durable: a running process reads what the
//! system still has in memory, and a disk that is asked later answers something else. Which of it
//! may happen when, so that the data is still there on other servers, is the world's to say.
//!
//! Invariant: damage is remembered, by sector, until the sector is written whole again or its file
//! is gone.

use std::{collections::BTreeMap, sync::Arc};

use super::{File, Platter, SECTOR_SIZE_BYTES, SimDisk, image::Image, lock};

impl SimDisk {
    /// Bit rot: flips the bits of `mask` in one byte, durably. False when there is no such byte.
    pub fn damage(&self, path: &str, offset: u64, mask: u8) -> bool {
        let offset = usize::try_from(offset).unwrap_or(usize::MAX);
        self.change(path, |image| image.damage(offset, mask))
    }

    /// The content of one sector was written where another is. False when nothing changed.
    pub fn misdirect(&self, path: &str, from: u64, to: u64) -> bool {
        self.change(path, |image| image.misdirect(sector_of(from), sector_of(to)))
    }

    /// What the last sync of the file wrote at `offset` was never written. False when nothing
    /// changed.
    pub fn lose_write(&self, path: &str, offset: u64) -> bool {
        self.change(path, |image| image.lose_write(sector_of(offset)))
    }

    /// What is read next at the sector of `at` is what the one of `from` holds then; after that
    /// everything is as it was. Until then it counts as damage. False when both hold the same.
    pub fn misread(&self, path: &str, at: u64, from: u64) -> bool {
        let mut platter = lock(&self.platter);
        let Some(id) = platter.names.lookup(path) else { return false };
        platter
            .files
            .get_mut(&id)
            .is_some_and(|file| file.plan_misread(sector_of(at), sector_of(from)))
    }

    /// The sector at `offset` cannot be read any more, until it is written whole or the disk is
    /// mended. False when there is no such file.
    pub fn break_sector(&self, path: &str, offset: u64) -> bool {
        self.change(path, |image| {
            image.break_sector(sector_of(offset));
            true
        })
    }

    /// Every sector can be read again.
    pub fn mend_sectors(&self) {
        lock(&self.platter).mend_sectors();
    }

    /// The `read_count`-th read from now will fail, once.
    ///
    /// # Panics
    /// When `read_count` is 0: the past cannot fail.
    pub fn arm_read_failure(&self, read_count: u64) {
        assert!(0 < read_count, "a read to come fails");
        lock(&self.platter).read_failure = Some(read_count);
    }

    /// Whether a read has failed since this was asked last.
    pub(crate) fn take_read_failure(&self) -> bool {
        std::mem::take(&mut lock(&self.platter).has_read_failed)
    }

    /// Where the last sync of a file wrote: offsets of whole sectors.
    #[must_use]
    pub fn written_last(&self, path: &str) -> Vec<u64> {
        let platter = lock(&self.platter);
        let image = platter.image(path);
        let sectors = image.into_iter().flat_map(Image::written_last);
        sectors.map(|sector| (sector * SECTOR_SIZE_BYTES) as u64).collect()
    }

    /// Everything in the file is durable: nothing waits for a sync, and no failed one has marked
    /// clean what is not.
    #[must_use]
    pub fn is_synced(&self, path: &str) -> bool {
        let platter = lock(&self.platter);
        platter.image(path).is_some_and(|image| !image.is_dirty() && !image.is_forsaken())
    }

    /// Some content of this file is not what was written.
    #[must_use]
    pub fn has_damage(&self, path: &str) -> bool {
        let platter = lock(&self.platter);
        let file = platter.names.lookup(path).and_then(|id| platter.files.get(&id));
        file.is_some_and(|file| file.image.has_damage() || !file.misreads.is_empty())
    }

    /// Paths of the files in a directory, for the world to look at: it takes no time.
    pub(crate) fn peek_files(&self, dir: &str) -> Vec<String> {
        let names = lock(&self.platter).names.list(dir);
        names.into_iter().map(|name| format!("{dir}/{name}")).collect()
    }

    /// The size of a file, for the world to look at.
    pub(crate) fn peek_size(&self, path: &str) -> Option<u64> {
        lock(&self.platter).image(path).map(|image| image.size() as u64)
    }

    /// A byte of a file, for the world to look at.
    pub(crate) fn peek_byte(&self, path: &str, offset: u64) -> Option<u8> {
        let mut byte = [0];
        let offset = usize::try_from(offset).ok()?;
        let platter = lock(&self.platter);
        platter.image(path)?.read_at(offset, &mut byte).then_some(byte[0])
    }

    fn change(&self, path: &str, change: impl FnOnce(&mut Image) -> bool) -> bool {
        let mut platter = lock(&self.platter);
        let Some(id) = platter.names.lookup(path) else { return false };
        platter.files.get_mut(&id).is_some_and(|file| change(Arc::make_mut(&mut file.image)))
    }
}

impl Platter {
    pub(super) fn mend_sectors(&mut self) {
        let broken = self.files.values_mut().filter(|file| file.image.has_broken_sectors());
        broken.for_each(|file| Arc::make_mut(&mut file.image).mend_sectors());
    }

    fn image(&self, path: &str) -> Option<&Image> {
        let file = self.files.get(&self.names.lookup(path)?)?;
        Some(&*file.image)
    }
}

impl File {
    fn plan_misread(&mut self, at: usize, from: usize) -> bool {
        let (there, elsewhere) = (self.sector(at), self.sector(from));
        let differs = there.is_some() && elsewhere.is_some() && there != elsewhere;
        if differs {
            self.misreads.insert(at, from);
        }
        differs
    }

    fn sector(&self, sector: usize) -> Option<[u8; SECTOR_SIZE_BYTES]> {
        let mut bytes = [0; SECTOR_SIZE_BYTES];
        let offset = sector.checked_mul(SECTOR_SIZE_BYTES)?;
        self.image.read_at(offset, &mut bytes).then_some(bytes)
    }

    /// Puts what other sectors hold into an answer, where that was to happen.
    pub(super) fn misread(&mut self, offset: usize, buffer: &mut [u8]) {
        for (at, from) in self.take_misreads(offset, buffer.len()) {
            let Some(bytes) = self.sector(from) else { continue };
            let start = at * SECTOR_SIZE_BYTES;
            let first = start.max(offset);
            let end = (start + SECTOR_SIZE_BYTES).min(offset + buffer.len());
            buffer[first - offset..end - offset]
                .copy_from_slice(&bytes[first - start..end - start]);
        }
    }

    /// Those of the sectors that these bytes touch; they happen no more.
    pub(super) fn take_misreads(&mut self, offset: usize, size: usize) -> BTreeMap<usize, usize> {
        if self.misreads.is_empty() {
            return BTreeMap::new();
        }
        let end = offset.saturating_add(size).div_ceil(SECTOR_SIZE_BYTES);
        let mut taken = self.misreads.split_off(&(offset / SECTOR_SIZE_BYTES));
        self.misreads.append(&mut taken.split_off(&end));
        taken
    }
}

fn sector_of(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX) / SECTOR_SIZE_BYTES
}
