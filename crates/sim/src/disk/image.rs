//! The bytes of one simulated file: what reads see, and what a loss of power may bring back.
//!
//! Only the live bytes are kept whole. Of each page with sectors changed since the last sync the
//! durable content is kept beside them (an undo record), so a sync costs as much as there is to
//! sync. What nobody has written since is shared with every copy of the file.
//!
//! Invariant: a sector without an undo record has the same durable and live content, both padded
//! with zeroes to a whole sector.
//!
//! What it lacks: contents between two syncs. A sector comes back as it was at the last sync, as it
//! was written last, or as a prefix of the one before a suffix of the other.

use std::collections::BTreeSet;

use kvraft_base::Prng;

use super::{
    CrashPolicy, SECTOR_SIZE_BYTES,
    before::{Before, PAGE_SECTORS, Record},
    pages::{PAGE_SIZE_BYTES, Pages},
    policy::{Fate, FilePlan},
};

/// One file's bytes. Sizes and offsets are in memory, hence `usize`.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What reads see.
    live: Pages,
    /// Size that a loss of power may bring back.
    durable_size: usize,
    /// Durable content of each sector changed since the last sync.
    undo: Before,
    /// What the last sync replaced: what is there if the disk lost that write.
    previous: Before,
    /// Sectors whose content is not what was written, until they are written whole.
    damaged: BTreeSet<usize>,
    /// Sectors that cannot be read until they are written whole.
    unreadable: BTreeSet<usize>,
    /// Durable content of sectors that a failed sync has marked clean: no sync writes them, until
    /// something in their page is written again. No page is here and in `undo`.
    forsaken: Before,
}

impl Image {
    pub(super) fn size(&self) -> usize {
        self.live.size()
    }

    pub(super) fn read_at(&self, offset: usize, buffer: &mut [u8]) -> bool {
        self.live.read_at(offset, buffer)
    }

    pub(super) fn read_vec(&self, offset: usize, size: usize) -> Option<Vec<u8>> {
        self.live.read_vec(offset, size)
    }

    pub(super) fn write_at(&mut self, offset: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = offset + bytes.len();
        let whole = offset.div_ceil(SECTOR_SIZE_BYTES)..end / SECTOR_SIZE_BYTES;
        self.damaged.retain(|sector| !whole.contains(sector));
        self.unreadable.retain(|sector| !whole.contains(sector));
        self.redirty(offset, end);
        self.remember(offset, end);
        self.live.write_at(offset, bytes);
    }

    pub(super) fn set_len(&mut self, size: usize) {
        if size < self.size() {
            self.redirty(size, self.size());
            self.remember(size, self.size().min(self.durable_size));
            // Beyond both sizes the live content is zero again, as the durable one always was.
            let clean = size.max(self.durable_size).div_ceil(SECTOR_SIZE_BYTES);
            self.undo.cut(clean);
            self.forsaken.cut(clean);
            let gone = size.div_ceil(SECTOR_SIZE_BYTES);
            let _cut = (self.damaged.split_off(&gone), self.unreadable.split_off(&gone));
        }
        // The border sector keeps its head: what is cut of it is remembered as well.
        self.live.resize(size);
    }

    /// Makes the live content durable; returns how many sectors that was.
    pub(super) fn sync(&mut self) -> usize {
        let dirty_count = self.undo.sector_count();
        if 0 < dirty_count {
            std::mem::swap(&mut self.previous, &mut self.undo);
            self.undo.clear();
        }
        self.durable_size = self.size();
        dirty_count
    }

    /// A sync fails and marks everything clean all the same: reads go on showing what was written,
    /// the next sync has nothing to do, and a loss of power shows that it never was on the disk.
    pub(super) fn forsake(&mut self) {
        self.forsaken.put(self.undo.take(0, usize::MAX));
    }

    /// There is content that reads show and no sync will make durable.
    pub(super) fn is_forsaken(&self) -> bool {
        !self.forsaken.is_empty()
    }

    /// A write makes its pages dirty as a whole: the next sync writes all of them.
    fn redirty(&mut self, from: usize, end: usize) {
        if !self.forsaken.is_empty() && from < end {
            let (first, after) = (from / PAGE_SIZE_BYTES, end.div_ceil(PAGE_SIZE_BYTES));
            self.undo.put(self.forsaken.take(first, after));
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.undo.is_empty() || self.has_new_size()
    }

    /// Nothing in either waits for a sync, and reads of both show the same.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        let is_settled =
            |image: &Self| !image.is_dirty() && !image.is_forsaken() && !image.has_broken_sectors();
        is_settled(self) && is_settled(other) && self.live.is_same(&other.live)
    }

    pub(super) fn has_new_size(&self) -> bool {
        self.durable_size != self.size()
    }

    /// Flips the bits of `mask` in the byte at `offset`, live and durable: bit rot.
    pub(super) fn damage(&mut self, offset: usize, mask: u8) -> bool {
        let mut byte = [0];
        if !self.live.read_at(offset, &mut byte) {
            return false;
        }
        self.live.write_at(offset, &[byte[0] ^ mask]);
        let sector = offset / SECTOR_SIZE_BYTES;
        self.change_durable(sector, |old| old[offset % SECTOR_SIZE_BYTES] ^= mask);
        self.damaged.insert(sector);
        true
    }

    /// Puts the content of sector `from` where sector `to` is, live and durable, as if it had been
    /// written there instead: `from` is what it was before the last sync, if that wrote it. False
    /// when nothing changed.
    pub(super) fn misdirect(&mut self, from: usize, to: usize) -> bool {
        let mut bytes = [0; SECTOR_SIZE_BYTES];
        if !self.live.read_at(from * SECTOR_SIZE_BYTES, &mut bytes) {
            return false;
        }
        let has_landed = self.replace(to, &bytes);
        self.lose_write(from) || has_landed
    }

    /// The last sync did not write this sector, and nobody knows. False when nothing changed.
    pub(super) fn lose_write(&mut self, sector: usize) -> bool {
        let Some(previous) = self.previous.get(sector) else { return false };
        let bytes = previous.try_into().expect("a whole sector");
        self.replace(sector, &bytes)
    }

    /// Sectors that the last sync has written.
    pub(super) fn written_last(&self) -> impl Iterator<Item = usize> {
        self.previous.sectors()
    }

    fn replace(&mut self, sector: usize, bytes: &[u8; SECTOR_SIZE_BYTES]) -> bool {
        let mut present = [0; SECTOR_SIZE_BYTES];
        let start = sector * SECTOR_SIZE_BYTES;
        if !self.live.read_at(start, &mut present) || present == *bytes {
            return false;
        }
        self.live.write_at(start, bytes);
        self.change_durable(sector, |old| old.copy_from_slice(bytes));
        self.damaged.insert(sector);
        true
    }

    /// What the disk has in a sector is no more what it was, written or not.
    fn change_durable(&mut self, sector: usize, change: impl FnOnce(&mut [u8])) {
        let forsaken = self.forsaken.record_mut(sector).filter(|record| !record.has(sector));
        if let Some(record) = self.undo.record_mut(sector).or(forsaken) {
            change(record.old_sector_mut(sector));
        }
    }

    /// Content that is not what was written.
    pub(super) fn has_damage(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// From now on the sector cannot be read.
    pub(super) fn break_sector(&mut self, sector: usize) {
        self.unreadable.insert(sector);
    }

    /// Some sectors cannot be read.
    pub(super) fn has_broken_sectors(&self) -> bool {
        !self.unreadable.is_empty()
    }

    /// Every sector can be read again.
    pub(super) fn mend_sectors(&mut self) {
        self.unreadable.clear();
    }

    /// Every sector of these bytes can be read.
    pub(super) fn is_readable(&self, offset: usize, size: usize) -> bool {
        let end = offset.saturating_add(size).div_ceil(SECTOR_SIZE_BYTES);
        self.unreadable.range(offset / SECTOR_SIZE_BYTES..end).next().is_none()
    }

    /// Power is lost: every changed sector meets its fate, and so does the size.
    pub(super) fn crash(&mut self, prng: &mut Prng, policy: CrashPolicy) {
        self.show_forsaken();
        if !self.is_dirty() {
            return;
        }
        let undo = std::mem::take(&mut self.undo);
        let mut plan = policy.for_file(prng, undo.last_sector());
        let size = plan.size(prng, self.durable_size, self.size());
        self.live.resize(self.size().max(self.durable_size));
        for record in undo.records() {
            self.decide(prng, &mut plan, record);
        }
        self.live.resize(size);
        self.durable_size = size;
        assert!(!self.is_dirty(), "after a crash, live and durable content are one");
    }

    /// What becomes of the changed sectors of one page.
    fn decide(&mut self, prng: &mut Prng, plan: &mut FilePlan, record: &Record) {
        let mut is_lost = true;
        let mut lost: [Option<usize>; PAGE_SECTORS] = [None; PAGE_SECTORS];
        for sector in record.sectors() {
            let from = match plan.fate(prng, sector) {
                Fate::Kept => None,
                Fate::Lost => Some(0),
                Fate::Split { kept } => Some(kept),
            };
            is_lost &= from == Some(0);
            lost[sector % PAGE_SECTORS] = from;
        }
        if is_lost {
            self.live.set_page(record.page, record.old.clone());
            return;
        }
        for sector in record.sectors() {
            if let Some(from) = lost[sector % PAGE_SECTORS] {
                self.bring_back(record, sector, from);
            }
        }
    }

    /// Reads show what a sector was, from a byte of it on, as far as the file goes.
    fn bring_back(&mut self, record: &Record, sector: usize, from: usize) {
        let start = sector * SECTOR_SIZE_BYTES;
        let end = self.size().saturating_sub(start).min(SECTOR_SIZE_BYTES);
        if from < end {
            self.live.write_at(start + from, &record.old_sector(sector)[from..end]);
        }
    }

    /// What was never on the disk is not there.
    fn show_forsaken(&mut self) {
        for record in self.forsaken.take(0, usize::MAX) {
            record.sectors().for_each(|sector| self.bring_back(&record, sector, 0));
        }
    }

    /// Records the durable content of the sectors that `from..end` touches, where not yet done.
    fn remember(&mut self, from: usize, end: usize) {
        let (mut sector, after) = (from / SECTOR_SIZE_BYTES, end.div_ceil(SECTOR_SIZE_BYTES));
        let durable_count = self.durable_size.div_ceil(SECTOR_SIZE_BYTES);
        while sector < after {
            let page = sector / PAGE_SECTORS;
            let next = after.min((page + 1) * PAGE_SECTORS);
            let bits = u8::MAX >> (PAGE_SECTORS - (next - sector)) << (sector % PAGE_SECTORS);
            let added = self.undo.add(page, bits, self.live.page(page));
            if let Some((record, new)) = added.filter(|(record, _)| record.old.is_some()) {
                // What no sync has made part of the file is zero, whatever reads show there.
                let beyond = durable_count.clamp(sector, next)..next;
                let is_new = |sector: &usize| new & (1 << (sector % PAGE_SECTORS)) != 0;
                beyond.filter(is_new).for_each(|sector| record.clear_old(sector));
            }
            sector = next;
        }
    }
}
