//! The one adapter between redb and our disk: a checksum for every block, verified on every read.
//!
//! redb checks its own checksums only when it repairs, so a flipped byte would be served as a
//! value. Here every 4 KiB block (redb's page) has a CRC-32C seeded with its number.
//!
//! Layout of the file, in pages of 4096 bytes:
//! - page 0: redb's header in the first sector of 512 bytes: 320 bytes of redb's, then in its last
//!   40 bytes the least logical length, the seal of the checksums, magic, version and the sector's
//!   checksum; the rest of the page is unused;
//! - then groups of two pages of checksums, which are two copies, followed by the 1008 blocks they
//!   belong to. Which copy is in force is told in [`sums`](super::sums).
//!
//! Why a crash cannot turn a good block into a damaged one: redb never overwrites a block that its
//! last durable commit refers to, except the header, and the same is true of the copy of the
//! block's checksum. The header is one sector, so that it changes as a whole together with its
//! checksum and the seal: a sector of 512 bytes is what every disk writes or does not write.
//!
//! Why a write that a disk has lost is found out: the header's seal covers every checksum, so that
//! a block and its checksum cannot both be those of an earlier commit. Of a header that was lost
//! the one before is read, and is believed as long as all that it covers is there: the table is an
//! earlier one then, whose position says so. When something else has taken the place since, the
//! seal does not match.
//!
//! The header also carries the logical length that was durable when it was written, which covers
//! all that it refers to: a file that has lost its end is found out when it is opened, before redb
//! looks for what is gone. It is made less before the file is made shorter.
//!
//! What an earlier process has written and failed to sync may be found in the system's cache and
//! not on the disk, for as long as nobody writes it again. Only the header can refer to such
//! blocks and such copies of checksums, and it refers to what was synced before it was written;
//! the header itself may be such a sector, and is written again, and synced, before anything is
//! written that only it makes free: checksums by this module, blocks by redb, which writes and
//! syncs its header whenever it opens a file.
//!
//! Invariants: checksum 0 means "never written", and such a block must be all zeroes. Checksums are
//! written before each sync of the file. Every commit is in two phases: a header that refers to new
//! blocks comes after the sync of these, so that its seal covers them. After the
//! first failure nothing is done any more, and it is what everything says.
//!
//! The mutex is here because redb's trait takes `&self`; below `server` this is the only one.

use std::{
    io,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

use kvraft_base::{Damage, DiskFile, checksum_seeded};

use super::sums::{
    BLOCK_SIZE, GROUP_BLOCKS, SECTOR_BYTES, Seal, Sums, block_count, logical_len, physical_len,
    physical_offset,
};
use crate::TableError;

const BLOCK_BYTES: usize = 4096;
/// Of the header sector, what redb may use.
const HEADER_BYTES_MAX: usize = SECTOR_BYTES - 40;
/// Where in it the least logical length is.
const HEADER_LEN: Range<usize> = HEADER_BYTES_MAX..HEADER_BYTES_MAX + 8;
/// Where the seal is.
const HEADER_NUMBER: Range<usize> = HEADER_LEN.end..HEADER_LEN.end + 8;
const HEADER_TOTAL: Range<usize> = HEADER_NUMBER.end..HEADER_NUMBER.end + 8;
/// Where magic and version of the format are.
const HEADER_MAGIC_AT: Range<usize> = HEADER_TOTAL.end..HEADER_TOTAL.end + 4;
const HEADER_FORMAT: Range<usize> = HEADER_MAGIC_AT.end..HEADER_MAGIC_AT.end + 4;
const HEADER_MAGIC: [u8; 4] = *b"kvTB";
const FORMAT_VERSION: u32 = 2;

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
    sums: Sums,
    /// The newest header.
    header: [u8; SECTOR_BYTES],
    /// What a header that was written and not synced covers.
    seal_written: Option<Seal>,
    /// What the header on the disk covers; `None` when one was found, which may be in the system's
    /// cache alone.
    seal_durable: Option<Seal>,
    failure: Option<Damage>,
}

impl Blocks {
    /// Wraps an open file.
    pub(super) fn open(file: Box<dyn DiskFile>, path: &str) -> Result<Self, TableError> {
        // A crash may have cut a growth short: what was synced is below, the rest was not referred
        // to.
        let len = logical_len(file.size().map_err(Damage::from)?);
        let state = State {
            len,
            len_synced: len,
            len_least: 0,
            sums: Sums::empty(),
            header: [0; SECTOR_BYTES],
            seal_written: None,
            seal_durable: Some(Seal::default()),
            failure: None,
        };
        let blocks = Self { file, path: path.into(), state: Mutex::new(state) };
        if 0 < len {
            blocks.read_state()?;
        }
        Ok(blocks)
    }

    /// Reads header and checksums of a file that is not empty.
    fn read_state(&self) -> Result<(), TableError> {
        let mut state = self.lock();
        state.header = self.read_sector()?;
        let word = |at: Range<usize>| {
            u64::from_le_bytes(state.header[at].try_into().expect("8 bytes are 8 bytes"))
        };
        let seal = Seal { number: word(HEADER_NUMBER), total: word(HEADER_TOTAL) };
        let least = word(HEADER_LEN);
        if state.len < least {
            let detail = format!("the file is shorter than the {least} bytes it had");
            return Err(self.lost(physical_len(state.len), &detail).into());
        }
        let (blocks, sealed) = (block_count(state.len), block_count(least));
        let sums = Sums::read(&*self.file, blocks, seal, sealed).map_err(Damage::from)?;
        state.sums = sums.ok_or_else(|| {
            self.lost(0, "the checksums are not those that the header names: a write was lost")
        })?;
        state.len_least = least;
        state.seal_durable = None;
        Ok(())
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

    /// Does something unless something has failed before: after a failed sync nothing is tried.
    fn attempt<T>(&self, run: impl FnOnce(&Self) -> Result<T, Damage>) -> io::Result<T> {
        let result = self.failure().map_or_else(|| run(self), Err);
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
        out.copy_from_slice(&self.lock().header[first..end]);
        Ok(())
    }

    fn read_sector(&self) -> Result<[u8; SECTOR_BYTES], TableError> {
        let mut sector = [0; SECTOR_BYTES];
        self.file.read_at(0, &mut sector).map_err(Damage::from)?;
        // A file that was never begun.
        if sector.iter().all(|byte| *byte == 0) {
            return Ok(sector);
        }
        if sector[SECTOR_BYTES - 4..] != header_sum(&sector).to_le_bytes() {
            return Err(self.lost(0, "header checksum mismatch").into());
        }
        if sector[HEADER_MAGIC_AT] != HEADER_MAGIC {
            return Err(self.lost(0, "the header is not that of a table").into());
        }
        let format = u32::from_le_bytes(sector[HEADER_FORMAT].try_into().expect("4 bytes"));
        if format != FORMAT_VERSION {
            let (path, supported) = (self.path.clone(), FORMAT_VERSION);
            return Err(TableError::Format { path, format, supported });
        }
        Ok(sector)
    }

    fn write_header(&self, offset: u64, bytes: &[u8]) -> Result<(), Damage> {
        if offset != 0 || HEADER_BYTES_MAX < bytes.len() {
            return Err(self.lost(offset, "a write beyond the header"));
        }
        let mut state = self.lock();
        state.header[..bytes.len()].copy_from_slice(bytes);
        if state.sums.is_settled() {
            state.sums.seal();
            state.len_least = state.len_synced.min(state.len);
        }
        self.write_sector(&mut state)
    }

    /// Writes a header that covers what the seal covers.
    fn write_sector(&self, state: &mut State) -> Result<(), Damage> {
        let Seal { number, total } = state.sums.sealed();
        let sector = &mut state.header;
        sector[HEADER_LEN].copy_from_slice(&state.len_least.to_le_bytes());
        sector[HEADER_NUMBER].copy_from_slice(&number.to_le_bytes());
        sector[HEADER_TOTAL].copy_from_slice(&total.to_le_bytes());
        sector[HEADER_MAGIC_AT].copy_from_slice(&HEADER_MAGIC);
        sector[HEADER_FORMAT].copy_from_slice(&FORMAT_VERSION.to_le_bytes());
        let sum = header_sum(sector);
        sector[SECTOR_BYTES - 4..].copy_from_slice(&sum.to_le_bytes());
        state.seal_written = Some(state.sums.sealed());
        self.file.write_at(0, &state.header)?;
        Ok(())
    }

    /// Calls `run` with each stretch of blocks that lies in one group: physical offset, first
    /// block, and the range of the caller's buffer.
    fn each_run(
        &self,
        offset: u64,
        size: usize,
        mut run: impl FnMut(u64, u64, Range<usize>) -> Result<(), Damage>,
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
            let state = self.lock();
            for (block, bytes) in (first..).zip(out.chunks_exact(BLOCK_BYTES)) {
                let sum = state.sums.get(block);
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
            self.file.write_at(physical, bytes)?;
            for (block, bytes) in (first..).zip(bytes.chunks_exact(BLOCK_BYTES)) {
                state.sums.set(block, block_sum(block, bytes));
            }
            Ok(())
        })
    }

    fn resize(&self, len: u64) -> Result<(), Damage> {
        if !len.is_multiple_of(BLOCK_SIZE) {
            return Err(self.lost(len, "a length that is not a number of blocks"));
        }
        let mut state = self.lock();
        if len != state.len {
            let kept = block_count(len.min(state.len));
            state.sums.cut(kept);
            state.sums.grow(block_count(len));
        }
        if len < state.len_least {
            state.len_least = len;
            self.write_sector(&mut state)?;
            self.file.sync()?;
            state.on_synced();
        }
        state.len_synced = state.len_synced.min(len);
        self.file.set_len(physical_len(len))?;
        state.len = len;
        Ok(())
    }

    fn sync(&self) -> Result<(), Damage> {
        // Under the lock, so that no growth comes in between.
        let mut state = self.lock();
        if state.sums.is_unwritten() {
            if state.seal_durable != Some(state.sums.sealed()) {
                // What it covers no more is written over.
                self.write_sector(&mut state)?;
                self.file.sync()?;
                state.on_synced();
            }
            state.sums.write(&*self.file)?;
        }
        self.file.sync()?;
        state.len_synced = state.len;
        state.on_synced();
        Ok(())
    }
}

impl State {
    /// The file's sync has succeeded.
    fn on_synced(&mut self) {
        self.sums.on_synced();
        self.seal_durable = self.seal_written.take().or(self.seal_durable);
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
        self.0.attempt(|blocks| match offset < BLOCK_SIZE {
            true => blocks.read_header(offset, out),
            false => blocks.read_blocks(offset, out),
        })
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.attempt(|blocks| blocks.resize(len))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.attempt(Blocks::sync)
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.attempt(|blocks| match offset < BLOCK_SIZE {
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use kvraft_base::{DiskError, DiskFile};
    use redb::StorageBackend;

    use super::{
        BLOCK_SIZE, Backend, Blocks, GROUP_BLOCKS, HEADER_FORMAT, SECTOR_BYTES, header_sum,
        logical_len, physical_len,
    };

    /// A file, and where it was written and when it was synced.
    #[derive(Debug, Default)]
    struct Memory(Mutex<Vec<u8>>, Mutex<Vec<Change>>);

    #[derive(Debug, Clone, Copy, PartialEq, Eq)]
    enum Change {
        Write(u64),
        Sync,
    }

    impl DiskFile for Memory {
        fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
            let start = usize::try_from(offset).unwrap();
            buffer.copy_from_slice(&self.0.lock().unwrap()[start..start + buffer.len()]);
            Ok(())
        }

        fn write_at(&self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
            let start = usize::try_from(offset).unwrap();
            self.0.lock().unwrap()[start..start + bytes.len()].copy_from_slice(bytes);
            self.1.lock().unwrap().push(Change::Write(offset));
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
            self.1.lock().unwrap().push(Change::Sync);
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
        backend.set_len(8 * BLOCK_SIZE).unwrap();
        backend.read(6 * BLOCK_SIZE, &mut block).unwrap();
        assert_eq!(block, [0; 4096]);
        backend.read(2 * BLOCK_SIZE, &mut block).unwrap();
        assert_eq!(block, [5; 4096]);
        assert!(backend.read(8 * BLOCK_SIZE, &mut block).is_err(), "beyond the end");
        assert!(backend.read(2 * BLOCK_SIZE, &mut block).is_err(), "after a failure");
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

    /// What the file is after each of three commits, with a block of its own each, as redb writes.
    fn three_commits() -> [Vec<u8>; 3] {
        let memory = Arc::new(Memory::default());
        let table = Backend(Arc::new(
            Blocks::open(Box::new(Shared(Arc::clone(&memory))), "table").unwrap(),
        ));
        table.set_len(8 * BLOCK_SIZE).unwrap();
        [1, 2, 3].map(|block: u8| {
            table.write(u64::from(block) * BLOCK_SIZE, &[block; 4096]).unwrap();
            table.sync_data().unwrap();
            table.write(0, &[block; 320]).unwrap();
            table.sync_data().unwrap();
            memory.0.lock().unwrap().clone()
        })
    }

    fn opened(bytes: Vec<u8>) -> Result<Backend, String> {
        let memory = Memory(Mutex::new(bytes), Mutex::default());
        let blocks =
            Blocks::open(Box::new(memory), "table").map_err(|damage| damage.to_string())?;
        Ok(Backend(Arc::new(blocks)))
    }

    fn read(table: &Backend, block: u64) -> Result<u8, String> {
        let mut bytes = [0; 4096];
        let read = table.read(block * BLOCK_SIZE, &mut bytes);
        read.map(|()| bytes[0]).map_err(|error| error.to_string())
    }

    /// A block of an earlier commit agrees with its checksum of that time, and not with the seal.
    #[test]
    fn a_block_that_was_lost_with_its_checksum_is_found_out() {
        let [_, second, third] = three_commits();
        assert_eq!(read(&opened(third.clone()).unwrap(), 3), Ok(3));
        // All but the header, which is what the third commit wrote.
        let lost = [&third[..SECTOR_BYTES], &second[SECTOR_BYTES..]].concat();
        let text = opened(lost).unwrap_err();
        assert!(text.contains("a write was lost"), "{text}");
    }

    /// Without the newest header the commit before it is read, whole; with one that is older still,
    /// whose checksums have been written over, nothing is.
    #[test]
    fn a_lost_header_leaves_the_commit_before_or_none() {
        let [first, second, third] = three_commits();
        let before = [&second[..SECTOR_BYTES], &third[SECTOR_BYTES..]].concat();
        let table = opened(before).unwrap();
        assert_eq!((read(&table, 1), read(&table, 2)), (Ok(1), Ok(2)));
        assert!(read(&table, 3).is_err(), "nothing refers to it");
        let stale = [&first[..SECTOR_BYTES], &third[SECTOR_BYTES..]].concat();
        let text = opened(stale).unwrap_err();
        assert!(text.contains("a write was lost"), "{text}");
    }

    /// What a crash leaves of a commit is written over by the next, and never comes into force.
    #[test]
    fn a_commit_that_was_cut_short_leaves_nothing() {
        let [_, second, third] = three_commits();
        let memory = Arc::new(Memory::default());
        *memory.0.lock().unwrap() = [&second[..SECTOR_BYTES], &third[SECTOR_BYTES..]].concat();
        let open = || {
            let file = Box::new(Shared(Arc::clone(&memory)));
            Backend(Arc::new(Blocks::open(file, "table").unwrap()))
        };
        for round in 5..8_u8 {
            let table = open();
            table.write(u64::from(round) * BLOCK_SIZE, &[round; 4096]).unwrap();
            table.sync_data().unwrap();
            table.write(0, &[round; 320]).unwrap();
            let table = open();
            assert_eq!(read(&table, round.into()), Ok(round));
            assert_eq!((read(&table, 1), read(&table, 2)), (Ok(1), Ok(2)));
        }
    }

    /// A header that was found may be in the system's cache alone. It is made durable before
    /// checksums go where the header before it has its own.
    #[test]
    fn a_header_that_was_found_is_made_durable_first() {
        let [_, _, third] = three_commits();
        let memory = Arc::new(Memory(Mutex::new(third), Mutex::default()));
        let file = Box::new(Shared(Arc::clone(&memory)));
        let table = Backend(Arc::new(Blocks::open(file, "table").unwrap()));
        table.write(5 * BLOCK_SIZE, &[5; 4096]).unwrap();
        table.sync_data().unwrap();
        let changes = memory.1.lock().unwrap().clone();
        let [_, Change::Write(0), Change::Sync, Change::Write(sums), Change::Sync] = changes[..]
        else {
            panic!("the block, the header alone, then the checksums: {changes:?}")
        };
        assert!((BLOCK_SIZE..3 * BLOCK_SIZE).contains(&sums), "two pages of checksums");
    }

    /// A header of another format is named as such.
    #[test]
    fn another_format_is_refused() {
        let [_, _, mut table] = three_commits();
        table[HEADER_FORMAT][0] = 1;
        let sector: &mut [u8; SECTOR_BYTES] = (&mut table[..SECTOR_BYTES]).try_into().unwrap();
        let sum = header_sum(sector).to_le_bytes();
        sector[SECTOR_BYTES - 4..].copy_from_slice(&sum);
        let text = opened(table).unwrap_err();
        assert!(text.contains("table: has format 1, and this build reads 2"), "{text}");
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
