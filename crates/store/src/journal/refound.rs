//! A segment that begins the log anew for another cluster, written aside and whole.
//!
//! Why one segment: it gets its name by one rename, so that the journal is either the old one or
//! the new one. It is a reset, so whatever earlier segments say, of the old cluster, is void.
//!
//! Invariant: its last batch attests all before it, so that damage to any of its entries is seen as
//! damage and never cut as a torn tail.

use kvraft_base::{ClusterId, Disk, DiskError, Entry, HardState, Index, MemberId, Position};

use super::{
    DIR, Journal,
    layout::{
        BatchHeader, SECTOR, SegmentHeader, SegmentKind, encode_batch, refounded_path, segment_path,
    },
};

/// What the log of a refounded directory is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewLog<'a> {
    pub(crate) cluster: ClusterId,
    pub(crate) member: MemberId,
    /// What the first entry follows: where the table ends.
    pub(crate) prev: Position,
    pub(crate) hard_state: HardState,
    /// All that follows `prev`.
    pub(crate) entries: &'a [Entry],
}

impl Journal {
    /// Writes a segment that holds all of `log`, under a name that nobody looks for; returns its
    /// number. It is durable, and does nothing before [`name_refounded`].
    pub(crate) fn write_refounded(&self, log: NewLog<'_>) -> Result<u64, DiskError> {
        let segment = self.active().number + 1;
        let header = SegmentHeader {
            cluster: log.cluster,
            member: log.member,
            segment,
            kind: SegmentKind::Reset,
            prev: log.prev,
            sequence: self.sequence,
            attested: log.prev.index,
            hard_state: log.hard_state,
            // Its last entry names the only one that is to count.
            members: None,
        };
        let file = self.disk.create(&refounded_path(segment))?;
        file.write_at(0, &header.encode())?;
        let mut batches = Batches {
            segment,
            offset: SECTOR,
            sequence: self.sequence,
            prev: log.prev,
            hard_state: log.hard_state,
        };
        let mut rest = log.entries;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(batch_length(rest));
            let offset = batches.offset;
            file.write_at(offset, &batches.next(now))?;
            rest = later;
        }
        let offset = batches.offset;
        file.write_at(offset, &batches.next(&[]))?;
        file.sync()?;
        self.disk.sync_dir(DIR)?;
        Ok(segment)
    }
}

/// Gives the segment its name, durably, unless it has it already.
pub(crate) fn name_refounded(disk: &dyn Disk, segment: u64) -> Result<(), DiskError> {
    let aside = refounded_path(segment);
    let name = aside.rsplit('/').next().expect("a path has a last part");
    if disk.list(DIR)?.iter().any(|found| found == name) {
        disk.rename(&aside, &segment_path(segment))?;
    }
    disk.sync_dir(DIR)
}

/// Where the next batch goes, and what it follows.
struct Batches {
    segment: u64,
    offset: u64,
    sequence: u64,
    prev: Position,
    hard_state: HardState,
}

impl Batches {
    fn next(&mut self, entries: &[Entry]) -> Vec<u8> {
        let mut header = BatchHeader {
            body_size: 0,
            body_sum: 0,
            sequence: self.sequence + 1,
            // The file is synced before it has its name: each batch vouches for those before it.
            synced: self.sequence,
            attested: self.prev.index,
            hard_state: self.hard_state,
            truncate_from: None,
            prev: self.prev,
            entry_count: u32::try_from(entries.len()).expect("a batch has few entries"),
        };
        let bytes = encode_batch(self.segment, self.offset, &mut header, entries);
        self.sequence += 1;
        self.offset += bytes.len() as u64;
        self.prev = entries.last().map_or(self.prev, Entry::position);
        bytes
    }
}

/// How many entries the next batch takes: at least one, and no more than its bound allows.
fn batch_length(entries: &[Entry]) -> usize {
    let mut size = 0;
    let fits = |entry: &&Entry| {
        size += entry.size_bytes();
        size <= BATCH_SIZE_BYTES_MAX
    };
    entries.iter().take_while(fits).count().max(1)
}

/// Checks that `entries` follow `prev` as a log does.
///
/// # Panics
/// When they do not.
pub(crate) fn check_log(prev: Position, hard_state: HardState, entries: &[Entry]) {
    let mut before = prev;
    for entry in entries {
        assert!(entry.index == before.index.next(), "entries follow the log without a gap");
        assert!(before.term <= entry.term, "terms in the log only grow");
        before = entry.position();
    }
    assert!(before.term <= hard_state.term, "no entry is of a later term than its server");
    assert!(hard_state.commit <= before.index, "what is committed is in the log");
    assert!(Index::ZERO < before.index, "a refounded log has at least its configuration");
}

/// Entries of one batch, bounded as a turn of a server is.
const BATCH_SIZE_BYTES_MAX: usize = 1024 * 1024;
