//! The bytes of one simulated file: what reads see, and what a loss of power may bring back.
//!
//! Only the live bytes are kept whole. For each sector changed since the last sync the durable
//! content is kept beside them (an undo record), so a sync costs as much as there is to sync.
//!
//! Invariant: a sector without an undo record has the same durable and live content, both padded
//! with zeroes to a whole sector.
//!
//! What it lacks: contents between two syncs. A sector comes back as it was at the last sync, as it
//! was written last, or as a prefix of the one before a suffix of the other.

use std::collections::{BTreeMap, BTreeSet};

use kvraft_base::Prng;

use super::{CrashPolicy, SECTOR_SIZE_BYTES, policy::Fate};

type Sector = [u8; SECTOR_SIZE_BYTES];

/// Unit of the system's cache: what a write makes dirty and a sync writes.
const PAGE_SIZE_BYTES: usize = 4096;

const PAGE_SECTORS: usize = PAGE_SIZE_BYTES / SECTOR_SIZE_BYTES;

/// What sectors were before they were changed.
#[derive(Clone, Debug, Default)]
struct Before {
    /// Where in `sectors`; `None` is all zeroes.
    places: BTreeMap<usize, Option<usize>>,
    /// One after the other, so that a change costs no allocation.
    sectors: Vec<Sector>,
}

impl Before {
    fn get(&self, sector: usize) -> Option<Option<&Sector>> {
        self.places.get(&sector).map(|place| place.map(|place| &self.sectors[place]))
    }

    /// The record of `sector`, if there is one, says `bytes` from now on.
    fn replace(&mut self, sector: usize, bytes: &Sector) {
        match self.places.get_mut(&sector) {
            Some(Some(place)) => self.sectors[*place] = *bytes,
            Some(none) => {
                *none = Some(self.sectors.len());
                self.sectors.push(*bytes);
            }
            None => {}
        }
    }

    fn add(&mut self, sector: usize, bytes: Option<&Sector>) {
        let place = bytes.map(|bytes| {
            self.sectors.push(*bytes);
            self.sectors.len() - 1
        });
        self.places.insert(sector, place);
    }

    fn clear(&mut self) {
        self.places.clear();
        self.sectors.clear();
    }
}

/// One file's bytes. Sizes and offsets are in memory, hence `usize`.
#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    /// What reads see.
    live: Vec<u8>,
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
    /// something in their page is written again.
    forsaken: BTreeMap<usize, Option<Box<Sector>>>,
}

impl Image {
    pub(super) fn size(&self) -> usize {
        self.live.len()
    }

    pub(super) fn read_at(&self, offset: usize, buffer: &mut [u8]) -> bool {
        let end = offset.checked_add(buffer.len());
        let Some(bytes) = end.and_then(|end| self.live.get(offset..end)) else { return false };
        buffer.copy_from_slice(bytes);
        true
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
        if self.live.len() < end {
            self.live.resize(end, 0);
        }
        self.live[offset..end].copy_from_slice(bytes);
    }

    pub(super) fn set_len(&mut self, size: usize) {
        if size < self.live.len() {
            self.redirty(size, self.live.len());
            self.remember(size, self.live.len().min(self.durable_size));
            // Beyond both sizes the live content is zero again, as the durable one always was.
            let clean = size.max(self.durable_size).div_ceil(SECTOR_SIZE_BYTES);
            let _cut = self.undo.places.split_off(&clean);
            let _cut = self.forsaken.split_off(&clean);
            let gone = size.div_ceil(SECTOR_SIZE_BYTES);
            let _cut = (self.damaged.split_off(&gone), self.unreadable.split_off(&gone));
            // The border sector keeps its head: what is cut of it must be remembered as well.
            self.live.truncate(size);
        } else {
            self.live.resize(size, 0);
        }
    }

    /// Makes the live content durable; returns how many sectors that was.
    pub(super) fn sync(&mut self) -> usize {
        let dirty_count = self.undo.places.len();
        if 0 < dirty_count {
            std::mem::swap(&mut self.previous, &mut self.undo);
            self.undo.clear();
        }
        self.durable_size = self.live.len();
        dirty_count
    }

    /// A sync fails and marks everything clean all the same: reads go on showing what was written,
    /// the next sync has nothing to do, and a loss of power shows that it never was on the disk.
    pub(super) fn forsake(&mut self) {
        let Before { places, sectors } = std::mem::take(&mut self.undo);
        let old = |place: Option<usize>| place.map(|place| Box::new(sectors[place]));
        self.forsaken.extend(places.into_iter().map(|(sector, place)| (sector, old(place))));
    }

    /// There is content that reads show and no sync will make durable.
    pub(super) fn is_forsaken(&self) -> bool {
        !self.forsaken.is_empty()
    }

    /// A write makes its pages dirty as a whole: the next sync writes all of them.
    fn redirty(&mut self, from: usize, end: usize) {
        if self.forsaken.is_empty() || end <= from {
            return;
        }
        let first = from / PAGE_SIZE_BYTES * PAGE_SECTORS;
        let after = end.div_ceil(PAGE_SIZE_BYTES) * PAGE_SECTORS;
        let mut others = self.forsaken.split_off(&first);
        self.forsaken.append(&mut others.split_off(&after));
        for (sector, old) in others {
            self.undo.add(sector, old.as_deref());
        }
    }

    pub(super) fn is_dirty(&self) -> bool {
        !self.undo.places.is_empty() || self.has_new_size()
    }

    pub(super) fn has_new_size(&self) -> bool {
        self.durable_size != self.live.len()
    }

    /// Flips the bits of `mask` in the byte at `offset`, live and durable: bit rot.
    pub(super) fn damage(&mut self, offset: usize, mask: u8) -> bool {
        let Some(byte) = self.live.get_mut(offset) else { return false };
        *byte ^= mask;
        let sector = offset / SECTOR_SIZE_BYTES;
        if let Some(Some(old)) = self.undo.get(sector) {
            let mut old = *old;
            old[offset % SECTOR_SIZE_BYTES] ^= mask;
            self.undo.replace(sector, &old);
        }
        self.damaged.insert(sector);
        true
    }

    /// Puts the content of sector `from` where sector `to` is, live and durable, as if it had been
    /// written there instead: `from` is what it was before the last sync, if that wrote it. False
    /// when nothing changed.
    pub(super) fn misdirect(&mut self, from: usize, to: usize) -> bool {
        let bytes = self.live.get(from * SECTOR_SIZE_BYTES..(from + 1) * SECTOR_SIZE_BYTES);
        let Some(bytes) = bytes.map(<[u8]>::to_vec) else { return false };
        let has_landed = self.replace(to, &bytes);
        self.lose_write(from) || has_landed
    }

    /// The last sync did not write this sector, and nobody knows. False when nothing changed.
    pub(super) fn lose_write(&mut self, sector: usize) -> bool {
        let Some(previous) = self.previous.get(sector) else { return false };
        let bytes = previous.copied().unwrap_or([0; SECTOR_SIZE_BYTES]);
        self.replace(sector, &bytes)
    }

    /// Sectors that the last sync has written.
    pub(super) fn written_last(&self) -> impl Iterator<Item = usize> {
        self.previous.places.keys().copied()
    }

    fn replace(&mut self, sector: usize, bytes: &[u8]) -> bool {
        let place = sector * SECTOR_SIZE_BYTES..(sector + 1) * SECTOR_SIZE_BYTES;
        let Some(live) = self.live.get_mut(place) else { return false };
        if live == bytes {
            return false;
        }
        live.copy_from_slice(bytes);
        self.undo.replace(sector, bytes.try_into().expect("a whole sector"));
        self.damaged.insert(sector);
        true
    }

    /// Content that is not what was written.
    pub(super) fn has_damage(&self) -> bool {
        !self.damaged.is_empty()
    }

    /// From now on the sector cannot be read.
    pub(super) fn break_sector(&mut self, sector: usize) {
        self.unreadable.insert(sector);
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
        let (live_size, durable_size) = (self.live.len(), self.durable_size);
        let undo = std::mem::take(&mut self.undo);
        let mut plan = policy.for_file(prng, undo.places.keys().next_back().copied());
        let size = plan.size(prng, durable_size, live_size);
        let whole = live_size.max(durable_size);
        self.live.resize(whole, 0);
        for (sector, place) in &undo.places {
            let start = sector * SECTOR_SIZE_BYTES;
            let lost_from = match plan.fate(prng, *sector) {
                Fate::Kept => continue,
                Fate::Lost => 0,
                Fate::Split { kept } => kept,
            };
            let end = whole.min(start + SECTOR_SIZE_BYTES);
            let from = end.min(start + lost_from);
            match place.map(|place| &undo.sectors[place]) {
                Some(old) => self.live[from..end].copy_from_slice(&old[from - start..end - start]),
                None => self.live[from..end].fill(0),
            }
        }
        self.live.resize(size, 0);
        self.durable_size = size;
        assert!(!self.is_dirty(), "after a crash, live and durable content are one");
    }

    /// What was never on the disk is not there.
    fn show_forsaken(&mut self) {
        for (sector, old) in std::mem::take(&mut self.forsaken) {
            let start = sector * SECTOR_SIZE_BYTES;
            let end = self.live.len().min(start + SECTOR_SIZE_BYTES);
            let Some(live) = self.live.get_mut(start..end) else { continue };
            match old {
                Some(old) => live.copy_from_slice(&old[..live.len()]),
                None => live.fill(0),
            }
        }
    }

    /// Records the durable content of the sectors that `from..end` touches, where not yet done.
    fn remember(&mut self, from: usize, end: usize) {
        for sector in from / SECTOR_SIZE_BYTES..end.div_ceil(SECTOR_SIZE_BYTES) {
            let start = sector * SECTOR_SIZE_BYTES;
            let (live, durable_size) = (&self.live, self.durable_size);
            let sectors = &mut self.undo.sectors;
            self.undo.places.entry(sector).or_insert_with(|| {
                if durable_size <= start || live.len() <= start {
                    return None;
                }
                let known = &live[start..live.len().min(start + SECTOR_SIZE_BYTES)];
                sectors.push([0; SECTOR_SIZE_BYTES]);
                let place = sectors.len() - 1;
                sectors[place][..known.len()].copy_from_slice(known);
                Some(place)
            });
        }
    }
}
