//! Reads a whole segment and says what is in it, damaged or not, without judging it.

use bytes::Bytes;
use kvraft_base::{Disk, DiskError, Entry};

use super::layout::{
    BatchHeader, HeaderFault, Parsed, SECTOR, SECTOR_BYTES, SegmentHeader, parse_batch,
    segment_path,
};

/// A part of a segment after its header.
#[derive(Debug)]
pub(crate) enum Part {
    /// A whole batch.
    Batch { offset: u64, header: BatchHeader, entries: Vec<Entry> },
    /// A batch whose header is believed and whose body is not.
    Broken { offset: u64, header: BatchHeader, detail: &'static str },
    /// Neither a batch nor zeroes: torn, damaged, or left from the file's earlier life.
    Unknown { offset: u64, size: u64 },
}

/// What a segment holds.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) segment: u64,
    pub(crate) path: String,
    pub(crate) header: Result<SegmentHeader, HeaderFault>,
    pub(crate) parts: Vec<Part>,
    /// Size of the file in bytes.
    pub(crate) size: u64,
}

/// Scans one segment. The whole file is held in memory meanwhile.
pub(crate) fn scan(disk: &dyn Disk, segment: u64) -> Result<Scan, DiskError> {
    let path = segment_path(segment);
    let file = disk.open(&path)?;
    let size = file.size()?;
    let bytes = file.read_vec(0, usize::try_from(size).expect("segments fit in memory"))?;
    let bytes = Bytes::from(bytes);
    let header = SegmentHeader::decode(segment, &bytes);
    let parts = scan_parts(segment, &bytes);
    Ok(Scan { segment, path, header, parts, size })
}

fn scan_parts(segment: u64, bytes: &Bytes) -> Vec<Part> {
    let mut parts: Vec<Part> = Vec::new();
    let mut at = SECTOR_BYTES;
    while at < bytes.len() {
        let offset = at as u64;
        let sector = &bytes[at..bytes.len().min(at + SECTOR_BYTES)];
        // Most of a segment is not written yet: compared as a whole, it costs next to nothing.
        if *sector == ZEROES[..sector.len()] {
            at += SECTOR_BYTES;
            continue;
        }
        let part = match parse_batch(segment, offset, &bytes.slice(at..)) {
            Parsed::Batch(header, entries) => Some(Part::Batch { offset, header, entries }),
            Parsed::Broken(header, detail) => Some(Part::Broken { offset, header, detail }),
            Parsed::Nothing => None,
        };
        at += match &part {
            Some(Part::Batch { header, .. } | Part::Broken { header, .. }) => {
                usize::try_from(header.padded_size()).unwrap_or(usize::MAX - at)
            }
            Some(Part::Unknown { .. }) | None => SECTOR_BYTES,
        };
        match (part, parts.last_mut()) {
            (Some(part), _) => parts.push(part),
            (None, Some(Part::Unknown { offset: start, size })) if *start + *size == offset => {
                *size += SECTOR;
            }
            (None, _) => parts.push(Part::Unknown { offset, size: SECTOR }),
        }
    }
    parts
}

/// What no batch begins with.
const ZEROES: [u8; SECTOR_BYTES] = [0; SECTOR_BYTES];
