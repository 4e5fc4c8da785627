//! The content of a volatile file: blocks in memory over the part of the real file that was synced.
//!
//! Invariants:
//! - a dirty block is complete: 4096 bytes, zeroes where nothing was written;
//! - of the real file, only the bytes before `valid` count, and only in blocks that are not dirty;
//!   everything else up to `size` is zero.

use std::{collections::BTreeMap, path::Path};

use kvraft_base::{DiskError, DiskErrorKind, DiskFile};

use crate::disk::RealFile;

const BLOCK_SIZE: usize = 4096;

type Block = Box<[u8; BLOCK_SIZE]>;

#[derive(Debug, Default)]
pub(super) struct Content {
    /// `None` until the file is opened for the first time.
    file: Option<RealFile>,
    size: u64,
    /// Smallest size since the last sync: the real bytes before it still count.
    valid: u64,
    dirty: BTreeMap<u64, Block>,
}

impl Content {
    /// The content of a file that was just created.
    pub(super) fn new(file: RealFile) -> Self {
        Self { file: Some(file), ..Self::default() }
    }

    /// Opens the real file, if this was not done yet.
    pub(super) fn load(&mut self, place: &Path) -> Result<(), DiskError> {
        if self.file.is_none() {
            let file = RealFile::open(place.to_path_buf())?;
            self.size = file.size()?;
            self.valid = self.size;
            self.file = Some(file);
        }
        Ok(())
    }

    pub(super) fn size(&self) -> u64 {
        self.size
    }

    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        if offset.checked_add(buffer.len() as u64).is_none_or(|end| self.size < end) {
            return Err(DiskError {
                kind: DiskErrorKind::Failed,
                operation: "read",
                path: self.file().path().display().to_string(),
                detail: format!("the file ends before offset {offset} + {} bytes", buffer.len()),
            });
        }
        for part in parts(offset, buffer.len()) {
            let target = &mut buffer[part.start..part.start + part.size];
            match self.dirty.get(&part.block) {
                Some(block) => target.copy_from_slice(&block[part.at..part.at + part.size]),
                None => {
                    self.read_synced(part.block * BLOCK_SIZE as u64 + part.at as u64, target)?
                }
            }
        }
        Ok(())
    }

    pub(super) fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<(), DiskError> {
        for part in parts(offset, bytes.len()) {
            let block = self.dirty_block(part.block)?;
            block[part.at..part.at + part.size]
                .copy_from_slice(&bytes[part.start..part.start + part.size]);
        }
        if !bytes.is_empty() {
            self.size = self.size.max(offset + bytes.len() as u64);
        }
        Ok(())
    }

    pub(super) fn set_len(&mut self, size: u64) -> Result<(), DiskError> {
        if size < self.size {
            let (block, at) = locate(size);
            if 0 < at && self.dirty.contains_key(&block) {
                self.dirty_block(block)?[at..].fill(0);
            }
            let kept = if at == 0 { block } else { block + 1 };
            self.dirty.split_off(&kept);
            self.valid = self.valid.min(size);
        }
        self.size = size;
        Ok(())
    }

    /// Makes the real file equal to this one.
    pub(super) fn sync(&mut self) -> Result<(), DiskError> {
        let file = self.file();
        if file.size()? != self.valid {
            file.set_len(self.valid)?;
        }
        for (block, bytes) in &self.dirty {
            let offset = block * BLOCK_SIZE as u64;
            let left = self.size.saturating_sub(offset).min(BLOCK_SIZE as u64);
            let left = usize::try_from(left).expect("at most a block");
            file.write_at(offset, &bytes[..left])?;
        }
        if file.size()? != self.size {
            file.set_len(self.size)?;
        }
        file.sync()?;
        self.valid = self.size;
        self.dirty.clear();
        Ok(())
    }

    fn file(&self) -> &RealFile {
        self.file.as_ref().expect("a file is loaded before anyone gets a handle on it")
    }

    /// Reads what the real file has, zeroes beyond.
    fn read_synced(&self, offset: u64, buffer: &mut [u8]) -> Result<(), DiskError> {
        let there = self.valid.saturating_sub(offset).min(buffer.len() as u64);
        let there = usize::try_from(there).expect("at most the buffer");
        self.file().read_at(offset, &mut buffer[..there])?;
        buffer[there..].fill(0);
        Ok(())
    }

    fn dirty_block(&mut self, block: u64) -> Result<&mut Block, DiskError> {
        if !self.dirty.contains_key(&block) {
            let mut bytes = Box::new([0; BLOCK_SIZE]);
            self.read_synced(block * BLOCK_SIZE as u64, &mut bytes[..])?;
            self.dirty.insert(block, bytes);
        }
        Ok(self.dirty.get_mut(&block).expect("inserted above"))
    }
}

/// One block's share of a range.
struct Part {
    block: u64,
    /// First byte within the block.
    at: usize,
    /// First byte within the caller's buffer.
    start: usize,
    size: usize,
}

/// The block of an offset and the place in it.
fn locate(offset: u64) -> (u64, usize) {
    let at = usize::try_from(offset % BLOCK_SIZE as u64).expect("less than a block");
    (offset / BLOCK_SIZE as u64, at)
}

/// Splits a range at the borders of blocks.
fn parts(offset: u64, size: usize) -> impl Iterator<Item = Part> {
    let mut start = 0;
    std::iter::from_fn(move || {
        if start == size {
            return None;
        }
        let (block, at) = locate(offset + start as u64);
        let part = Part { block, at, start, size: (BLOCK_SIZE - at).min(size - start) };
        start += part.size;
        Some(part)
    })
}
