//! The checksums of a table's blocks: which of them are in force, and where they are in the file.
//!
//! A block and its checksum agree with each other when the writes of both were lost, and so does a
//! block that another commit has used again with its new checksum. What tells them from those of
//! the commit in force is the seal: the header says which number the newest sectors of checksums
//! in force have, and what the digests of all of them add up to.
//!
//! Every sector of checksums has two copies, and each copy the number it was written under. In
//! force is the newest copy whose number is not above the seal's. A change goes into the other
//! copy, under a number above the seal's, and is in force when the next seal is on the disk: until
//! then all that the seal covers stays as it is, whatever a crash keeps of what comes after it.
//!
//! Invariants:
//! - a copy that a header covers is not overwritten before a newer header is on the disk;
//! - a seal covers only copies that are on the disk;
//! - no number of a seal is used again: after a crash numbers go on above all that are found.

use std::collections::BTreeSet;

use kvraft_base::{DiskError, DiskFile, checksum_seeded};

/// Size of a block in bytes: redb's page.
pub(super) const BLOCK_SIZE: u64 = 4096;
/// Blocks that two pages of checksums cover, one copy in each.
pub(super) const GROUP_BLOCKS: u64 = (PAGE_SECTORS * SECTOR_SUMS) as u64;
pub(super) const SECTOR_BYTES: usize = 512;
const PAGE_SECTORS: usize = 8;
const COPY_COUNT: usize = 2;
/// Checksums in a sector, which ends with the number of the write; few in unit tests, so that small
/// tables have many groups.
const SECTOR_SUMS: usize = if cfg!(test) { 3 } else { (SECTOR_BYTES - 8) / 4 };

/// What a header says of the checksums.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Seal {
    /// The greatest number of a copy that is in force.
    pub(super) number: u64,
    /// Sum of the digests of all copies in force.
    pub(super) total: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    /// The copy in force has it.
    Unchanged,
    /// The file does not have it.
    Unwritten,
    /// The other copy has it.
    Written,
}

#[derive(Clone, Debug)]
struct Sector {
    sums: [u32; SECTOR_SUMS],
    /// Which copy is in force.
    copy: usize,
    /// Its digest; 0 when none was ever in force.
    digest: u64,
    /// The digest of what was written into the other copy.
    next_digest: u64,
    change: Change,
}

/// All checksums of a table.
#[derive(Debug)]
pub(super) struct Sums {
    /// By group and place in it.
    sectors: Vec<Sector>,
    /// Those that have changed since the seal.
    changed: BTreeSet<usize>,
    seal: Seal,
    /// The number under which is written next.
    number: u64,
    /// Everything that was written is on the disk.
    is_synced: bool,
}

impl Sums {
    /// Of an empty table.
    pub(super) fn empty() -> Self {
        let (sectors, changed, seal) = (Vec::new(), BTreeSet::new(), Seal::default());
        Self { sectors, changed, seal, number: 1, is_synced: true }
    }

    /// Reads those of `blocks` blocks, of which `seal` covers the groups of the first
    /// `sealed_blocks`. None when they are not those that were sealed.
    pub(super) fn read(
        file: &dyn DiskFile,
        blocks: u64,
        seal: Seal,
        sealed_blocks: u64,
    ) -> Result<Option<Self>, DiskError> {
        let mut sums = Self { seal, ..Self::empty() };
        let (mut total, mut newest) = (0_u64, seal.number);
        for group in 0..blocks.div_ceil(GROUP_BLOCKS) {
            let limit = if group * GROUP_BLOCKS < sealed_blocks { seal.number } else { u64::MAX };
            let size = COPY_COUNT * PAGE_SECTORS * SECTOR_BYTES;
            let pages = file.read_vec(group_offset(group), size)?;
            for place in 0..PAGE_SECTORS {
                let copies: [StoredCopy<'_>; COPY_COUNT] =
                    std::array::from_fn(|copy| StoredCopy::of(&pages, copy * PAGE_SECTORS + place));
                let sector = sums.adopt(copies, limit);
                total = total.wrapping_add(sector.digest);
                sums.sectors.push(sector);
                newest = copies.iter().map(|copy| copy.number).fold(newest, u64::max);
            }
        }
        sums.number = newest.saturating_add(1);
        Ok((total == seal.total && newest < u64::MAX).then_some(sums))
    }

    /// The next sector, from its copies; one whose number is above the limit is not in force.
    fn adopt(&mut self, copies: [StoredCopy<'_>; COPY_COUNT], limit: u64) -> Sector {
        let index = self.sectors.len();
        let in_force = |copy: &usize| (1..=limit).contains(&copies[*copy].number);
        let found = (0..COPY_COUNT).filter(in_force).max_by_key(|copy| copies[*copy].number);
        let mut sector = Sector::never_written();
        if let Some(copy) = found {
            sector.copy = copy;
            sector.sums = copies[copy].sums();
            if limit < u64::MAX {
                sector.digest = digest(index, copies[copy].bytes);
            }
        }
        // What a crash has left above the seal must not come into force with a later one, and what
        // lies beyond its end is not covered yet.
        let is_open = copies.iter().any(|copy| self.seal.number < copy.number);
        if is_open || (found.is_some() && limit == u64::MAX) {
            sector.change = Change::Unwritten;
            self.changed.insert(index);
        }
        sector
    }

    /// The checksum of a block; 0 means never written.
    pub(super) fn get(&self, block: u64) -> u32 {
        let (index, slot) = place(block);
        self.sectors[index].sums[slot]
    }

    pub(super) fn set(&mut self, block: u64, sum: u32) {
        let (index, slot) = place(block);
        let sector = &mut self.sectors[index];
        if sector.sums[slot] != sum {
            sector.sums[slot] = sum;
            sector.change = Change::Unwritten;
            self.changed.insert(index);
        }
    }

    /// Blocks from `blocks` on are gone: when they come back they come back never written.
    pub(super) fn cut(&mut self, blocks: u64) {
        let group_end = blocks.next_multiple_of(GROUP_BLOCKS);
        (blocks..group_end).for_each(|block| self.set(block, 0));
        let (end, _) = place(group_end);
        for sector in self.sectors.drain(end.min(self.sectors.len())..) {
            self.seal.total = self.seal.total.wrapping_sub(sector.digest);
        }
        self.changed.split_off(&end);
    }

    /// There are so many blocks now. The checksums of new groups are written, zeroes or not: what
    /// an earlier end has left in their place may come back with a crash, and must not be the
    /// newest.
    pub(super) fn grow(&mut self, blocks: u64) {
        let (sectors, _) = place(blocks.next_multiple_of(GROUP_BLOCKS));
        self.changed.extend(self.sectors.len()..sectors);
        let unwritten = Sector { change: Change::Unwritten, ..Sector::never_written() };
        self.sectors.resize(sectors.max(self.sectors.len()), unwritten);
    }

    /// Whether the file lacks something.
    pub(super) fn is_unwritten(&self) -> bool {
        self.changed.iter().any(|index| self.sectors[*index].change == Change::Unwritten)
    }

    /// Writes what the file lacks. A header that covers the present seal must be on the disk.
    pub(super) fn write(&mut self, file: &dyn DiskFile) -> Result<(), DiskError> {
        for index in &self.changed {
            let sector = &mut self.sectors[*index];
            if sector.change != Change::Unwritten {
                continue;
            }
            let mut bytes = [0; SECTOR_BYTES];
            for (word, sum) in bytes.chunks_exact_mut(4).zip(&sector.sums) {
                word.copy_from_slice(&sum.to_le_bytes());
            }
            bytes[SECTOR_BYTES - 8..].copy_from_slice(&self.number.to_le_bytes());
            self.is_synced = false;
            file.write_at(copy_offset(*index, 1 - sector.copy), &bytes)?;
            sector.next_digest = digest(*index, &bytes);
            sector.change = Change::Written;
        }
        Ok(())
    }

    /// Everything that was written is on the disk.
    pub(super) fn on_synced(&mut self) {
        self.is_synced = true;
    }

    /// Whether all that has changed is on the disk.
    pub(super) fn is_settled(&self) -> bool {
        self.is_synced && !self.is_unwritten()
    }

    /// What the header covers that was written last.
    pub(super) fn sealed(&self) -> Seal {
        self.seal
    }

    /// Covers all that is on the disk, for a header that is written now.
    ///
    /// # Panics
    /// When something is not on the disk.
    pub(super) fn seal(&mut self) {
        assert!(self.is_settled(), "a seal covers what is on the disk");
        if self.changed.is_empty() {
            return;
        }
        for index in std::mem::take(&mut self.changed) {
            let sector = &mut self.sectors[index];
            let total = self.seal.total.wrapping_sub(sector.digest);
            self.seal.total = total.wrapping_add(sector.next_digest);
            sector.copy = 1 - sector.copy;
            sector.digest = sector.next_digest;
            sector.change = Change::Unchanged;
        }
        self.seal.number = self.number;
        self.number += 1;
    }
}

impl Sector {
    const fn never_written() -> Self {
        let sums = [0; SECTOR_SUMS];
        Self { sums, copy: 0, digest: 0, next_digest: 0, change: Change::Unchanged }
    }
}

/// One copy of a sector as it was read.
#[derive(Clone, Copy)]
struct StoredCopy<'a> {
    bytes: &'a [u8],
    number: u64,
}

impl<'a> StoredCopy<'a> {
    fn of(pages: &'a [u8], sector: usize) -> Self {
        let bytes = &pages[sector * SECTOR_BYTES..][..SECTOR_BYTES];
        let number = bytes[SECTOR_BYTES - 8..].try_into().expect("8 bytes are 8 bytes");
        Self { bytes, number: u64::from_le_bytes(number) }
    }

    fn sums(&self) -> [u32; SECTOR_SUMS] {
        let word = |slot: usize| self.bytes[4 * slot..][..4].try_into().expect("4 bytes");
        std::array::from_fn(|slot| u32::from_le_bytes(word(slot)))
    }
}

fn digest(index: usize, bytes: &[u8]) -> u64 {
    checksum_seeded(index as u64, bytes).into()
}

/// The sector that has the checksum of a block, and which of its checksums it is.
fn place(block: u64) -> (usize, usize) {
    let block = usize::try_from(block).expect("a block's number fits");
    (block / SECTOR_SUMS, block % SECTOR_SUMS)
}

/// Where a group begins in the file: a page for each copy of its checksums, then its blocks.
pub(super) fn group_offset(group: u64) -> u64 {
    BLOCK_SIZE * (1 + group * (GROUP_BLOCKS + COPY_COUNT as u64))
}

fn copy_offset(index: usize, copy: usize) -> u64 {
    let in_group = copy * PAGE_SECTORS + index % PAGE_SECTORS;
    group_offset((index / PAGE_SECTORS) as u64) + (in_group * SECTOR_BYTES) as u64
}

pub(super) fn physical_offset(block: u64) -> u64 {
    let in_group = COPY_COUNT as u64 + block % GROUP_BLOCKS;
    group_offset(block / GROUP_BLOCKS) + BLOCK_SIZE * in_group
}

/// Blocks beside the header in a file of `len` logical bytes.
pub(super) fn block_count(len: u64) -> u64 {
    (len / BLOCK_SIZE).saturating_sub(1)
}

pub(super) fn physical_len(len: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let blocks = block_count(len);
    BLOCK_SIZE * (1 + blocks + COPY_COUNT as u64 * blocks.div_ceil(GROUP_BLOCKS))
}

/// The greatest logical length whose blocks and checksums fit into `size` bytes.
pub(super) fn logical_len(size: u64) -> u64 {
    let Some(pages) = (size / BLOCK_SIZE).checked_sub(1) else { return 0 };
    let group_pages = GROUP_BLOCKS + COPY_COUNT as u64;
    let last = (pages % group_pages).saturating_sub(COPY_COUNT as u64);
    BLOCK_SIZE * (1 + pages / group_pages * GROUP_BLOCKS + last)
}
