//! What the sectors of a file were before they were changed.
//!
//! For each page in which something has changed, the page is kept as it was then; a record says
//! which of its sectors have changed since.
//!
//! Invariants:
//! - records are in the order of their pages, one for a page, and none of them without a sector;
//! - what a record's page has in a sector without a bit is what the file has there.

use super::{
    SECTOR_SIZE_BYTES,
    pages::{PAGE_SIZE_BYTES, Page, content, content_mut},
};

/// Sectors of a page: one bit for each in a record.
pub(super) const PAGE_SECTORS: usize = PAGE_SIZE_BYTES / SECTOR_SIZE_BYTES;

const _: () = assert!(PAGE_SECTORS == u8::BITS as usize, "a byte has a bit for each sector");

/// One page as it was.
#[derive(Clone, Debug)]
pub(super) struct Record {
    pub(super) page: usize,
    /// The sectors that have changed, the first in the lowest bit.
    pub(super) sectors: u8,
    pub(super) old: Option<Page>,
}

impl Record {
    /// The sectors that have changed, in order, counted from the start of the file.
    pub(super) fn sectors(&self) -> impl Iterator<Item = usize> + use<> {
        let Self { page, sectors, .. } = *self;
        let is_set = move |bit: &usize| sectors & (1 << bit) != 0;
        (0..PAGE_SECTORS).filter(is_set).map(move |bit| page * PAGE_SECTORS + bit)
    }

    /// What one of its sectors was.
    pub(super) fn old_sector(&self, sector: usize) -> &[u8] {
        let start = sector % PAGE_SECTORS * SECTOR_SIZE_BYTES;
        &content(self.old.as_ref())[start..start + SECTOR_SIZE_BYTES]
    }

    /// One of its sectors, to be changed.
    pub(super) fn old_sector_mut(&mut self, sector: usize) -> &mut [u8] {
        let start = sector % PAGE_SECTORS * SECTOR_SIZE_BYTES;
        &mut content_mut(&mut self.old)[start..start + SECTOR_SIZE_BYTES]
    }

    /// One of its sectors was all zeroes.
    pub(super) fn clear_old(&mut self, sector: usize) {
        if self.old_sector(sector) != [0; SECTOR_SIZE_BYTES] {
            self.old_sector_mut(sector).fill(0);
        }
    }

    /// Whether a sector of its page has changed.
    pub(super) fn has(&self, sector: usize) -> bool {
        self.sectors & (1 << (sector % PAGE_SECTORS)) != 0
    }
}

/// The records of one file.
#[derive(Clone, Debug, Default)]
pub(super) struct Before {
    records: Vec<Record>,
}

impl Before {
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.records.clear();
    }

    pub(super) fn records(&self) -> &[Record] {
        &self.records
    }

    /// Every sector that has changed, in order.
    pub(super) fn sectors(&self) -> impl Iterator<Item = usize> {
        self.records.iter().flat_map(Record::sectors)
    }

    pub(super) fn sector_count(&self) -> usize {
        self.records.iter().map(|record| record.sectors.count_ones() as usize).sum()
    }

    pub(super) fn last_sector(&self) -> Option<usize> {
        self.records.last().and_then(|record| record.sectors().last())
    }

    /// What a sector was, if it has changed.
    pub(super) fn get(&self, sector: usize) -> Option<&[u8]> {
        let place = self.find(sector / PAGE_SECTORS).ok()?;
        let record = &self.records[place];
        record.has(sector).then(|| record.old_sector(sector))
    }

    /// The record of the page of a sector.
    pub(super) fn record_mut(&mut self, sector: usize) -> Option<&mut Record> {
        let place = self.find(sector / PAGE_SECTORS).ok()?;
        self.records.get_mut(place)
    }

    /// Some sectors of a page change, which is `present` now; returns the record when one of them
    /// had not, and these.
    pub(super) fn add(
        &mut self,
        page: usize,
        sectors: u8,
        present: Option<&Page>,
    ) -> Option<(&mut Record, u8)> {
        let place = self.find(page).unwrap_or_else(|place| {
            self.records.insert(place, Record { page, sectors: 0, old: present.cloned() });
            place
        });
        let record = &mut self.records[place];
        let new = sectors & !record.sectors;
        record.sectors |= sectors;
        (new != 0).then_some((record, new))
    }

    /// Forgets all sectors from this one on: the file is zero there.
    pub(super) fn cut(&mut self, from: usize) {
        let (page, bit) = (from / PAGE_SECTORS, from % PAGE_SECTORS);
        if let Some(record) = self.record_mut(from) {
            record.sectors &= (1 << bit) - 1;
            (from..(page + 1) * PAGE_SECTORS).for_each(|sector| record.clear_old(sector));
        }
        self.records.retain(|record| record.page <= page && record.sectors != 0);
    }

    /// Takes the records of pages in a range out.
    pub(super) fn take(&mut self, first: usize, after: usize) -> Vec<Record> {
        let place = |page| self.find(page).unwrap_or_else(|place| place);
        let range = place(first)..place(after);
        self.records.drain(range).collect()
    }

    /// Puts records in of pages that have none.
    pub(super) fn put(&mut self, records: Vec<Record>) {
        for record in records {
            let place = self.find(record.page).expect_err("a page has one record");
            self.records.insert(place, record);
        }
    }

    fn find(&self, page: usize) -> Result<usize, usize> {
        // Most changes are at the end of a file.
        match self.records.last() {
            Some(last) if last.page == page => Ok(self.records.len() - 1),
            Some(last) if last.page < page => Err(self.records.len()),
            _ => self.records.binary_search_by_key(&page, |record| record.page),
        }
    }
}
