//! The one adapter between redb and our disk: a checksum for every block, verified on every read.
//!
//! redb checks its own checksums only when it repairs, so a flipped byte would be served as a
//! value. Here every 4 KiB block (redb's page) has a CRC-32C seeded with its number.
//!
//! Layout of the file, in pages of 4096 bytes:
//! - page 0: redb's header in the first sector of 512 bytes: 320 bytes of redb's, then the least
//!   logical length, magic, version and the sector's checksum in its last 24 bytes; the rest of the
//!   page is unused;
//! - then groups of one page of 1024 checksums followed by the 1024 blocks they belong to.
//!
//! Why a crash cannot turn a good block into a damaged one: redb never overwrites a block that its
//! last durable commit refers to, except the header. So a checksum and its block may tear apart
//! only where nothing is referred to; the other checksums in the same sector are rewritten with the
//! value they had, and other sectors are not written. The header is one sector, so that it changes
//! as a whole together with its checksum: a sector of 512 bytes is what every disk writes or does
//! not write. Falling back to an older header instead would be worse than an error: the blocks it
//! refers to may have been used again.
//!
//! The header also carries the logical length that was durable when it was written, which covers
//! all that it refers to: a file that has lost its end is found out when it is opened, before redb
//! looks for what is gone. It is made less before the file is made shorter.
//!
//! What an earlier process has written and failed to sync may be found in the system's cache and
//! not on the disk, for as long as nobody writes it again. Only the header can refer to such
//! blocks, and redb writes it anew, and syncs, whenever it opens a file; a sector of checksums that
//! this process has not written yet is written with the first of its blocks.
//!
//! Invariants: checksum 0 means "never written", and such a block must be all zeroes. Checksums are
//! written before each sync of the file. The first failure is kept: it is what all later ones say.
//!
//! The mutex is here because redb's trait takes `&self`; below `server` this is the only one.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kvraft_base::{Damage, DiskError, DiskFile, checksum_seeded};

/// Size of a block in bytes: redb's page.
pub(super) const BLOCK_SIZE: u64 = 4096;
const BLOCK_BYTES: usize = 4096;
const GROUP_BLOCKS: u64 = 1024;
const SECTOR_BYTES: usize = 512;
/// Checksums in a sector; a group's page of them has eight sectors.
const SECTOR_SUMS: usize = SECTOR_BYTES / 4;
/// Of the header sector, what redb may use.
const HEADER_BYTES_MAX: usize = SECTOR_BYTES - 24;
/// Where in it the least logical length is.
const HEADER_LEN: std::ops::Range<usize> = HEADER_BYTES_MAX..HEADER_BYTES_MAX + 8;
/// Where magic and version are.
const HEADER_MARKS: std::ops::Range<usize> = HEADER_LEN.end..HEADER_LEN.end + 8;
const HEADER_MAGIC: u32 = u32::from_le_bytes(*b"kvTB");
const HEADER_VERSION: u32 = 1;

/// A file of checksummed blocks.
#[derive(Debug)]
pub(super) struct Blocks {
    file: Box<dyn DiskFile>,
    path: String,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    /// Logical length in bytes.
    len: u64,
    /// The same, as of the last sync.
    len_synced: u64,
    /// What the header demands at least.
    len_least: u64,
    groups: BTreeMap<u64, Group>,
    failure: Option<Damage>,
}

#[derive(Debug)]
struct Group {
    sums: Vec<u32>,
    /// A bit for each sector of checksums that the file does not have yet.
    dirty: u8,
    /// A bit for each that this process has written. What it has only read may be clean in the
    /// system's cache and not on the disk, since an earlier process's sync has failed.
    written: u8,
}

impl Group {
    fn set(&mut self, slot: usize, sum: u32) {
        let sector = 1 << (slot / SECTOR_SUMS);
        if self.sums[slot] != sum || self.written & sector == 0 {
            self.sums[slot] = sum;
            self.dirty |= sector;
        }
    }

    /// Writes the sectors that changed into the page at `offset`.
    fn write(&mut self, file: &dyn DiskFile, offset: u64) -> Result<(), DiskError> {
        for (index, sums) in self.sums.chunks_exact(SECTOR_SUMS).enumerate() {
            if self.dirty & (1 << index) == 0 {
                continue;
            }
            let mut sector = [0; SECTOR_BYTES];
            for (word, sum) in sector.chunks_exact_mut(4).zip(sums) {
                word.copy_from_slice(&sum.to_le_bytes());
            }
            file.write_at(offset + (index * SECTOR_BYTES) as u64, &sector)?;
        }
        self.written |= self.dirty;
        self.dirty = 0;
        Ok(())
    }
}

impl Blocks {
    /// Wraps an open file.
    pub(super) fn open(file: Box<dyn DiskFile>, path: &str) -> Result<Self, Damage> {
        // A crash may have cut a growth short: what was synced is below, the rest was not referred
        // to.
        let len = logical_len(file.size()?);
        let groups = BTreeMap::new();
        let state = State { len, len_synced: len, len_least: 0, groups, failure: None };
        let blocks = Self { file, path: path.into(), state: Mutex::new(state) };
        if 0 < len {
            let least = blocks.read_sector()?[HEADER_LEN].try_into().expect("8 bytes are 8 bytes");
            let least = u64::from_le_bytes(least);
            if len < least {
                let detail = format!("the file is shorter than the {least} bytes it had");
                return Err(blocks.lost(physical_len(len), &detail));
            }
            blocks.lock().len_least = least;
        }
        Ok(blocks)
    }

    /// The first failure, if there was one.
    pub(super) fn failure(&self) -> Option<Damage> {
        self.lock().failure.clone()
    }

    /// Logical length in bytes.
    pub(super) fn len(&self) -> u64 {
        self.lock().len
    }

    /// Whether there is nothing in the file.
    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Name of the file.
    pub(super) fn path(&self) -> &str {
        &self.path
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn keep<T>(&self, result: Result<T, Damage>) -> io::Result<T> {
        result.map_err(|damage| {
            let mut state = self.lock();
            let error = io::Error::other(damage.to_string());
            state.failure.get_or_insert(damage);
            error
        })
    }

    fn lost(&self, offset: u64, detail: &str) -> Damage {
        Damage::Lost { what: format!("{} at offset {offset}", self.path), detail: detail.into() }
    }

    fn read_header(&self, offset: u64, out: &mut [u8]) -> Result<(), Damage> {
        let first = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = first.saturating_add(out.len());
        if HEADER_BYTES_MAX < end {
            return Err(self.lost(offset, "a read beyond the header"));
        }
        out.copy_from_slice(&self.read_sector()?[first..end]);
        Ok(())
    }

    fn read_sector(&self) -> Result<[u8; SECTOR_BYTES], Damage> {
        let mut sector = [0; SECTOR_BYTES];
        self.file.read_at(0, &mut sector)?;
        let sum = header_sum(&sector).to_le_bytes();
        if sector.iter().any(|byte| *byte != 0) && sector[SECTOR_BYTES - 4..] != sum {
            return Err(self.lost(0, "header checksum mismatch"));
        }
        Ok(sector)
    }

    fn write_header(&self, offset: u64, bytes: &[u8]) -> Result<(), Damage> {
        if offset != 0 || HEADER_BYTES_MAX < bytes.len() {
            return Err(self.lost(offset, "a write beyond the header"));
        }
        let mut sector = [0; SECTOR_BYTES];
        sector[..bytes.len()].copy_from_slice(bytes);
        let mut state = self.lock();
        let len_least = state.len_synced.min(state.len);
        self.write_sector(&mut state, sector, len_least)
    }

    fn write_sector(
        &self,
        state: &mut State,
        mut sector: [u8; SECTOR_BYTES],
        len_least: u64,
    ) -> Result<(), Damage> {
        sector[HEADER_LEN].copy_from_slice(&len_least.to_le_bytes());
        sector[HEADER_MARKS][..4].copy_from_slice(&HEADER_MAGIC.to_le_bytes());
        sector[HEADER_MARKS][4..].copy_from_slice(&HEADER_VERSION.to_le_bytes());
        let sum = header_sum(&sector);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        self.file.write_at(0, &sector)?;
        state.len_least = len_least;
        Ok(())
    }

    /// Calls `run` with each stretch of blocks that lies in one group: physical offset, first
    /// block, and the range of the caller's buffer.
    fn each_run(
        &self,
        offset: u64,
        size: usize,
        mut run: impl FnMut(u64, u64, std::ops::Range<usize>) -> Result<(), Damage>,
    ) -> Result<(), Damage> {
        let aligned = offset.is_multiple_of(BLOCK_SIZE) && size.is_multiple_of(BLOCK_BYTES);
        if !aligned || self.lock().len < offset + size as u64 {
            return Err(self.lost(offset, "an access outside of the blocks"));
        }
        let mut at = 0;
        while at < size {
            let block = offset / BLOCK_SIZE - 1 + (at / BLOCK_BYTES) as u64;
            let left = (size - at) / BLOCK_BYTES;
            let room = GROUP_BLOCKS - block % GROUP_BLOCKS;
            let count = usize::try_from(room).unwrap_or(usize::MAX).min(left);
            let end = at + count * BLOCK_BYTES;
            run(physical_offset(block), block, at..end)?;
            at = end;
        }
        Ok(())
    }

    fn read_blocks(&self, offset: u64, out: &mut [u8]) -> Result<(), Damage> {
        self.each_run(offset, out.len(), |physical, first, range| {
            let out = &mut out[range];
            self.file.read_at(physical, out)?;
            let mut state = self.lock();
            let group = self.group(&mut state, first / GROUP_BLOCKS)?;
            for (block, bytes) in (first..).zip(out.chunks_exact(BLOCK_BYTES)) {
                let sum = group.sums[slot(block)];
                let matches = match sum {
                    0 => bytes.iter().all(|byte| *byte == 0),
                    _ => sum == block_sum(block, bytes),
                };
                if !matches {
                    return Err(self.lost(physical_offset(block), "block checksum mismatch"));
                }
            }
            Ok(())
        })
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> Result<(), Damage> {
        self.each_run(offset, bytes.len(), |physical, first, range| {
            let bytes = &bytes[range];
            let mut state = self.lock();
            let group = self.group(&mut state, first / GROUP_BLOCKS)?;
            self.file.write_at(physical, bytes)?;
            for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
                group.set(slot(block), block_sum(block, bytes));
            }
            Ok(())
        })
    }

    /// The checksums of a group, read from the file the first time.
    fn group<'a>(&self, state: &'a mut State, number: u64) -> Result<&'a mut Group, DiskError> {
        match state.groups.entry(number) {
            Entry::Occupied(found) => Ok(found.into_mut()),
            Entry::Vacant(missing) => {
                let mut page = vec![0; BLOCK_BYTES];
                self.file.read_at(group_offset(number), &mut page)?;
                let words = page.chunks_exact(4);
                let sums = words.map(|w| u32::from_le_bytes([w[0], w[1], w[2], w[3]])).collect();
                Ok(missing.insert(Group { sums, dirty: 0, written: 0 }))
            }
        }
    }

    fn resize(&self, len: u64) -> Result<(), Damage> {
        if !len.is_multiple_of(BLOCK_SIZE) {
            return Err(self.lost(len, "a length that is not a number of blocks"));
        }
        let mut state = self.lock();
        let kept = block_count(len.min(state.len));
        // Blocks that come back later come back never written.
        if !kept.is_multiple_of(GROUP_BLOCKS) && len != state.len {
            let group = self.group(&mut state, kept / GROUP_BLOCKS)?;
            for slot in slot(kept)..group.sums.len() {
                group.set(slot, 0);
            }
        }
        if len < state.len_least {
            let sector = self.read_sector()?;
            self.write_sector(&mut state, sector, len)?;
            self.file.sync()?;
        }
        state.len_synced = state.len_synced.min(len);
        state.groups.retain(|number, _| number * GROUP_BLOCKS < kept);
        self.file.set_len(physical_len(len))?;
        state.len = len;
        Ok(())
    }

    fn sync(&self) -> Result<(), Damage> {
        let mut state = self.lock();
        for (number, group) in state.groups.iter_mut().filter(|(_, group)| group.dirty != 0) {
            group.write(&*self.file, group_offset(*number))?;
        }
        // Under the lock, so that no growth comes in between.
        self.file.sync()?;
        state.len_synced = state.len;
        Ok(())
    }
}

/// redb's view of [`Blocks`]; shared, so that failures can be asked for afterwards.
#[derive(Debug)]
pub(super) struct Backend(pub(super) std::sync::Arc<Blocks>);

impl redb::StorageBackend for Backend {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.len())
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let blocks = &self.0;
        blocks.keep(match offset < BLOCK_SIZE {
            true => blocks.read_header(offset, out),
            false => blocks.read_blocks(offset, out),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.keep(self.0.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.keep(self.0.sync())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let blocks = &self.0;
        blocks.keep(match offset < BLOCK_SIZE {
            true => blocks.write_header(offset, data),
            false => blocks.write_blocks(offset, data),
        })
    }
}

fn header_sum(sector: &[u8; SECTOR_BYTES]) -> u32 {
    checksum_seeded(0, &sector[..SECTOR_BYTES - 4])
}

/// Never 0, which stands for "never written".
fn block_sum(block: u64, bytes: &[u8]) -> u32 {
    checksum_seeded(block + 1, bytes).max(1)
}

/// Blocks beside the header in a file of `len` logical bytes.
fn block_count(len: u64) -> u64 {
    (len / BLOCK_SIZE).saturating_sub(1)
}

fn slot(block: u64) -> usize {
    usize::try_from(block % GROUP_BLOCKS).expect("a group has 1024 blocks")
}

fn group_offset(group: u64) -> u64 {
    BLOCK_SIZE * (1 + group * (GROUP_BLOCKS + 1))
}

fn physical_offset(block: u64) -> u64 {
    group_offset(block / GROUP_BLOCKS) + BLOCK_SIZE * (1 + block % GROUP_BLOCKS)
}

fn physical_len(len: u64) -> u64 {
    if len == 0 {
        return 0;
    }
    let blocks = block_count(len);
    BLOCK_SIZE * (1 + blocks + blocks.div_ceil(GROUP_BLOCKS))
}

/// The greatest logical length whose blocks and checksums fit into `size` bytes.
fn logical_len(size: u64) -> u64 {
    let pages = size / BLOCK_SIZE;
    let groups = pages.saturating_sub(1).div_ceil(GROUP_BLOCKS + 1);
    BLOCK_SIZE * (pages - groups.min(pages))
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kvraft_base::{DiskError, DiskFile};
    use redb::StorageBackend;

    use super::{BLOCK_SIZE, Backend, Blocks, GROUP_BLOCKS, logical_len, physical_len};

    #[derive(Debug, Default)]
    struct Memory(Mutex<Vec<u8>>);

    impl DiskFile for Memory {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&self.0.lock().unwrap()[start..start + buffer.len()]);
            Ok(())
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
            let start = usize::try_from(offset).unwrap();
            self.0.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
            Ok(())
        }

        fn size(&self) -> Result<u64, DiskError> {
            Ok(self.0.lock().unwrap().len() as u64)
        }

        fn set_len(&self, size: u64) -> Result<(), DiskError> {
            self.0.lock().unwrap().resize(usize::try_from(size).unwrap(), 0);
            Ok(())
        }

        fn sync(&self) -> Result<(), DiskError> {
            Ok(())
        }
    }

    #[derive(Debug)]
    struct Shared(Arc<Memory>);

    impl DiskFile for Shared {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
            self.0.read_at(offset, buffer)
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
            self.0.write_at(offset, bytes)
        }

        fn size(&self) -> Result<u64, DiskError> {
            self.0.size()
        }

        fn set_len(&self, size: u64) -> Result<(), DiskError> {
            self.0.set_len(size)
        }

        fn sync(&self) -> Result<(), DiskError> {
            self.0.sync()
        }
    }

    /// Blocks that were cut off come back as never written: zeroes, without a complaint.
    #[test]
    fn blocks_cut_off_come_back_empty() {
        let blocks = Blocks::open(Box::new(Memory::default()), "table").unwrap();
        let backend = Backend(Arc::new(blocks));
        let mut block = [7; 4096];
        backend.set_len(8 * BLOCK_SIZE).unwrap();
        backend.write(2 * BLOCK_SIZE, &[5; 4096]).unwrap();
        backend.write(6 * BLOCK_SIZE, &[6; 4096]).unwrap();
        backend.set_len(4 * BLOCK_SIZE).unwrap();
        assert!(backend.read(6 * BLOCK_SIZE, &mut block).is_err(), "beyond the end");
        backend.set_len(8 * BLOCK_SIZE).unwrap();
        backend.read(6 * BLOCK_SIZE, &mut block).unwrap();
        assert_eq!(block, [0; 4096]);
        backend.read(2 * BLOCK_SIZE, &mut block).unwrap();
        assert_eq!(block, [5; 4096]);
    }

    /// A file that lost its end is refused; one that was made shorter on purpose is not.
    #[test]
    fn a_lost_end_is_found_out() {
        let memory = Arc::new(Memory::default());
        let backend = || {
            let file: Box<dyn DiskFile> = Box::new(Shared(Arc::clone(&memory)));
            Blocks::open(file, "table").map(|blocks| Backend(Arc::new(blocks)))
        };
        let table = backend().unwrap();
        table.set_len(8 * BLOCK_SIZE).unwrap();
        table.write(0, &[1; 320]).unwrap();
        assert!(backend().is_ok());
        table.sync_data().unwrap();
        table.write(0, &[2; 320]).unwrap();
        let whole = memory.size().unwrap();
        memory.set_len(whole - 1).unwrap();
        let text = backend().unwrap_err().to_string();
        assert!(text.contains("shorter than the 32768 bytes it had"), "{text}");
        memory.set_len(whole).unwrap();
        table.set_len(4 * BLOCK_SIZE).unwrap();
        assert_eq!(backend().unwrap().len().unwrap(), 4 * BLOCK_SIZE);
    }

    /// What is not durable yet is not demanded: a crash may lose a growth and keep the header.
    #[test]
    fn a_growth_that_was_not_synced_is_not_demanded() {
        let memory = Arc::new(Memory::default());
        let open = || Blocks::open(Box::new(Shared(Arc::clone(&memory))), "table");
        let table = Backend(Arc::new(open().unwrap()));
        table.set_len(4 * BLOCK_SIZE).unwrap();
        table.sync_data().unwrap();
        let before = memory.size().unwrap();
        table.set_len(8 * BLOCK_SIZE).unwrap();
        table.write(0, &[1; 320]).unwrap();
        memory.set_len(before).unwrap();
        assert!(open().is_ok());
    }

    /// The length is recovered from the file's size, at group borders too; a growth that a crash
    /// cut short is rounded down.
    #[test]
    fn lengths_round_trip() {
        for blocks in [0, 1, 2, 3, GROUP_BLOCKS, GROUP_BLOCKS + 1, GROUP_BLOCKS + 2, 5000] {
            let len = blocks * BLOCK_SIZE;
            assert_eq!(logical_len(physical_len(len)), len, "{blocks} blocks");
        }
        assert_eq!(logical_len(BLOCK_SIZE - 1), 0);
        assert_eq!(logical_len(2 * BLOCK_SIZE + 1), BLOCK_SIZE);
        assert_eq!(logical_len(physical_len(9 * BLOCK_SIZE) + 100), 9 * BLOCK_SIZE);
    }
}
