//! The journal: the log and the hard state, in a sequence of checksummed segments.
//!
//! One [`Write`] becomes one batch, written at once; one sync per turn makes all batches so far
//! durable. Each batch carries the hard state, what it follows, and what was durable before it was
//! written, so that recovery can tell a torn tail (nobody was promised anything) from damage to
//! something acknowledged.
//!
//! Invariants:
//! - a segment is synced before a later one exists; a segment appears whole, by rename;
//! - batches begin at a sector, so writing one never touches the bytes of another;
//! - nothing is appended where something unknown lies: recovery then begins a new segment, whose
//!   header says how much of the earlier ones is the log;
//! - after a failure everything but reading is refused.
//!
//! What it lacks: the entries in memory (consensus keeps the recent ones), and any repair of
//! its own; a damaged region stays as it is until its segment is released.

mod configurations;
pub(crate) mod layout;
mod recover;
mod refound;
mod scan;

use std::collections::VecDeque;

use bytes::Bytes;
use kvraft_base::{
    ClusterId, Damage, Disk, DiskError, DiskErrorKind, DiskFile, Entry, HardState, Index, MemberId,
    Members, Position, Term, Write,
};

use self::configurations::Configurations;
use self::layout::{
    BatchHeader, Parsed, SECTOR, SECTOR_BYTES, SegmentHeader, SegmentKind, batch_size,
    encode_batch, parse_batch, segment_path, spare_path, temp_path,
};
pub(crate) use self::{
    layout::DIR,
    recover::{clear_leftovers, list_segments, recover},
    refound::{NewLog, check_log, name_refounded},
    scan::{Part, Scan, scan},
};
use crate::{Identity, OpenError, install::clear_mark};

/// The log and the hard state of one member. One writer; see the module for its invariants.
#[derive(Debug)]
pub struct Journal {
    disk: Box<dyn Disk>,
    cluster: ClusterId,
    member: MemberId,
    segment_size: u64,
    /// In order; the last is written to. Never empty.
    segments: Vec<Segment>,
    /// Where the entries are, in order, without gaps, from `released` to `last`.
    runs: VecDeque<Run>,
    /// Released segments to be used again.
    spares: Vec<String>,
    hard_state: HardState,
    /// Sequence of the last batch.
    sequence: u64,
    /// Batches up to this one are durable. Invariant: `synced <= sequence`.
    synced: u64,
    released: Position,
    /// False: what is before `released` was damaged, and may never have been released.
    is_base_released: bool,
    last: Position,
    /// Segments and batches say that the log was durable up to here once; over `last` as long as
    /// damage is not repaired.
    attested: Index,
    configurations: Configurations,
    /// Where the next batch goes in the last segment.
    end: u64,
    /// Size of the last segment's file.
    filled: u64,
    failure: Option<DiskError>,
}

/// One segment that is kept.
#[derive(Debug)]
struct Segment {
    number: u64,
    file: Box<dyn DiskFile>,
    /// The log's position before it; `None` if its header is not believed or void.
    prev: Option<Position>,
    /// The least index that something in it follows: earlier segments end there at the latest.
    floor: Index,
}

/// Entries `first..=last` of the log, in the batch at `offset`.
#[derive(Clone, Copy, Debug)]
struct Run {
    first: Index,
    last: Index,
    /// Last index in the batch; over `last` where the log was truncated since.
    batch_last: Index,
    /// Term of the entry at `batch_last`.
    batch_last_term: Term,
    segment: u64,
    offset: u64,
    size: u64,
}

impl Journal {
    /// The position just before the first entry.
    #[must_use]
    pub fn released(&self) -> Position {
        self.released
    }

    /// Whether all up to [`Journal::released`] is certainly committed: only that is released, but a
    /// journal whose beginning is damaged begins later.
    pub(crate) fn is_base_committed(&self) -> bool {
        self.is_base_released || self.released.index <= self.hard_state.commit
    }

    /// The last entry, durable or not.
    #[must_use]
    pub fn last(&self) -> Position {
        self.last
    }

    /// The configuration in force at [`Journal::released`], if that is known; names and addresses
    /// may be missing in it.
    #[must_use]
    pub fn base_members(&self) -> Option<&Members> {
        self.configurations.base()
    }

    /// `members` are in force at `index`, as the table says.
    pub(crate) fn learn_members(&mut self, index: Index, members: &Members) {
        if self.released.index <= index {
            self.configurations.learn(index, members);
        }
    }

    /// The hard state as last appended.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        self.hard_state
    }

    /// The log was durable here up to this index once. Over [`Journal::last`] as long as damage has
    /// not been repaired from peers: then only a log as long lets a truncation lower it again.
    #[must_use]
    pub fn attested(&self) -> Index {
        // What is committed was durable, here or elsewhere: it is owed either way.
        self.attested.max(self.hard_state.commit)
    }

    /// A part of the log that was durable is not there.
    fn is_muted(&self) -> bool {
        self.last.index < self.attested()
    }

    /// Whether what was written at `index` or later is known to be missing: then what came after it
    /// has told the hard state.
    pub(crate) fn misses(&self, index: Index) -> bool {
        self.last.index < self.attested && index <= self.attested
    }

    /// Whether the log has, or begins after, this position.
    pub(crate) fn holds(&self, position: Position) -> Result<bool, Damage> {
        let index = position.index;
        let within = self.released.index <= index && index <= self.last.index;
        Ok(within && self.term_at(index)? == position.term)
    }

    /// The file that is written to.
    pub(crate) fn path(&self) -> String {
        segment_path(self.active().number)
    }

    /// Writes one batch. It is durable after the next [`Journal::sync`].
    ///
    /// # Errors
    /// What the disk reports; then the journal refuses all further use.
    ///
    /// # Panics
    /// When the entries do not follow the log, the truncation reaches what is released, or the hard
    /// state goes back.
    pub fn append(&mut self, write: &Write) -> Result<(), DiskError> {
        self.refuse_if_failed("append")?;
        let result = self.try_append(write);
        self.keep(result)
    }

    fn try_append(&mut self, write: &Write) -> Result<(), DiskError> {
        self.check_hard_state(write.hard_state);
        let size = batch_size(&write.entries);
        if SECTOR < self.end && self.segment_size < self.end + size {
            self.rotate()?;
        }
        let prev = self.follow(write)?;
        // A leader only truncates what was never committed. But as long as part of the log is
        // missing, what is truncated may be something that the missing part had already replaced.
        let truncates = prev.index < self.last.index && !self.is_muted();
        let attested = if truncates { self.attested.min(prev.index) } else { self.attested };
        let entry_count = u32::try_from(write.entries.len()).expect("a batch has few entries");
        let mut header = BatchHeader {
            body_size: 0,
            body_sum: 0,
            sequence: self.sequence + 1,
            synced: self.synced,
            attested,
            hard_state: write.hard_state,
            truncate_from: write.truncate_from,
            prev,
            entry_count,
        };
        let active = self.segments.last_mut().expect("segments are never empty");
        let mut bytes = encode_batch(active.number, self.end, &mut header, &write.entries);
        assert!(bytes.len() as u64 == size, "the size of a batch is known beforehand");
        // Zeroes ahead of the log, in the same write: later turns then change no file size, which
        // makes their syncs cheaper, and what lies behind the last batch is known.
        if self.filled < self.end + size {
            let step = (self.end + size).next_multiple_of(FILL_BYTES).min(self.segment_size);
            self.filled = step.max(self.end + size);
            let room = usize::try_from(self.filled - self.end).expect("segments fit in memory");
            bytes.resize(room, 0);
        }
        active.file.write_at(self.end, &bytes)?;
        active.floor = active.floor.min(prev.index);
        let run = Run {
            first: prev.index.next(),
            last: header.last(),
            batch_last: header.last(),
            batch_last_term: write.entries.last().map_or(prev.term, |entry| entry.term),
            segment: active.number,
            offset: self.end,
            size,
        };
        truncate_runs(&mut self.runs, prev.index);
        if !write.entries.is_empty() {
            self.runs.push_back(run);
        }
        self.configurations.truncate(prev.index);
        self.configurations.append(&write.entries);
        self.last = write.entries.last().map_or(prev, Entry::position);
        (self.attested, self.hard_state) = (attested, write.hard_state);
        self.sequence += 1;
        self.end += size;
        Ok(())
    }

    fn check_hard_state(&self, next: HardState) {
        let now = self.hard_state;
        assert!(now.term <= next.term, "the term never goes back");
        if now.term == next.term && now.vote.is_some() {
            assert!(now.vote == next.vote, "a vote never changes within its term");
        }
    }

    /// What the entries of `write` follow, checked.
    fn follow(&self, write: &Write) -> Result<Position, DiskError> {
        let prev = match write.truncate_from {
            Some(from) if from <= self.last.index => {
                assert!(self.released.index < from, "what is released cannot be truncated");
                let index = from.prev();
                let term = self.term_at(index).map_err(|damage| disk_error(damage, "truncate"))?;
                Position::new(term, index)
            }
            Some(_) | None => self.last,
        };
        let mut before = prev;
        for entry in &write.entries {
            assert!(entry.index == before.index.next(), "entries follow the log without a gap");
            assert!(before.term <= entry.term, "terms in the log only grow");
            before = entry.position();
        }
        Ok(prev)
    }

    /// Makes everything appended so far durable.
    ///
    /// # Errors
    /// What the disk reports; then nothing is known about what is durable, the journal refuses all
    /// further use, and the process must end.
    pub fn sync(&mut self) -> Result<(), DiskError> {
        self.refuse_if_failed("sync")?;
        let result = self.try_sync();
        self.keep(result)
    }

    fn try_sync(&mut self) -> Result<(), DiskError> {
        if self.synced < self.sequence {
            self.active().file.sync()?;
            self.synced = self.sequence;
            self.attested = self.attested.max(self.last.index);
        }
        Ok(())
    }

    fn active(&self) -> &Segment {
        self.segments.last().expect("segments are never empty")
    }

    /// Begins a new segment after the log as it is.
    fn rotate(&mut self) -> Result<(), DiskError> {
        self.try_sync()?;
        self.go_on_in_new_segment()
    }

    fn go_on_in_new_segment(&mut self) -> Result<(), DiskError> {
        let members = self.configurations.newest().cloned();
        let (prev, attested, hard_state) = (self.last, self.attested, self.hard_state);
        self.begin_segment(SegmentKind::Continue, prev, attested, hard_state, members)
    }

    fn begin_segment(
        &mut self,
        kind: SegmentKind,
        prev: Position,
        attested: Index,
        hard_state: HardState,
        members: Option<Members>,
    ) -> Result<(), DiskError> {
        let number = self.active().number + 1;
        let header = SegmentHeader {
            cluster: self.cluster,
            member: self.member,
            segment: number,
            kind,
            prev,
            sequence: self.sequence,
            attested,
            hard_state,
            members,
        };
        let file = match self.spares.pop() {
            Some(spare) => recycle_segment(&*self.disk, &header, &spare)?,
            None => create_segment(&*self.disk, &header, FILL_BYTES.min(self.segment_size))?,
        };
        self.filled = file.size()?;
        self.end = SECTOR;
        self.segments.push(Segment { number, file, prev: Some(prev), floor: prev.index });
        Ok(())
    }

    /// Gives up segments that hold nothing over `upto`, and returns what the log now begins after.
    ///
    /// # Errors
    /// What the disk reports; then the journal refuses all further use.
    pub fn release(&mut self, upto: Index) -> Result<Position, DiskError> {
        self.refuse_if_failed("release")?;
        let Some((count, released)) = self.releasable(upto) else { return Ok(self.released) };
        assert!(self.released.index <= released.index, "what is released stays so");
        let first_kept = self.segments[count].number;
        self.released = released;
        self.configurations.release(released.index);
        self.runs.retain(|run| first_kept <= run.segment);
        for segment in self.segments.drain(..count).collect::<Vec<_>>() {
            let result = self.retire(segment);
            self.keep(result)?;
        }
        Ok(self.released)
    }

    /// How many of the oldest segments hold nothing over `upto`, and where the rest begins. A
    /// border below which a later segment truncated cannot be the log's beginning.
    fn releasable(&self, upto: Index) -> Option<(usize, Position)> {
        let mut floor = Index(u64::MAX);
        for (at, segment) in self.segments.iter().enumerate().skip(1).rev() {
            floor = floor.min(segment.floor);
            match segment.prev {
                Some(prev) if prev.index <= upto && prev.index <= floor => {
                    return Some((at, prev));
                }
                Some(_) | None => {}
            }
        }
        None
    }

    /// Removes a segment or keeps its file for later. Each removal is made durable before the next:
    /// a hole in the middle would look like damage.
    fn retire(&mut self, segment: Segment) -> Result<(), DiskError> {
        let path = segment_path(segment.number);
        if self.spares.len() < SPARES_MAX && segment.file.size()? <= self.segment_size {
            let spare = spare_path(segment.number);
            self.disk.rename(&path, &spare)?;
            self.spares.push(spare);
        } else {
            self.disk.remove(&path)?;
        }
        self.disk.sync_dir(DIR)
    }

    /// Forgets the log and begins a new one after `position`, once a snapshot of it is installed;
    /// `members` are in force there, if that is known. Durable when it returns; a crash leaves the
    /// old log or the new one. Ends an install.
    ///
    /// # Errors
    /// What the disk reports; then the journal refuses all further use.
    pub fn reset(
        &mut self,
        position: Position,
        hard_state: HardState,
        members: Option<Members>,
    ) -> Result<(), DiskError> {
        self.refuse_if_failed("reset")?;
        self.check_hard_state(hard_state);
        let result = self.try_reset(position, hard_state, members);
        self.keep(result)
    }

    fn try_reset(
        &mut self,
        position: Position,
        hard_state: HardState,
        members: Option<Members>,
    ) -> Result<(), DiskError> {
        let attested = self.attested_after_reset(position);
        let known = members.clone();
        self.begin_segment(SegmentKind::Reset, position, attested, hard_state, known)?;
        self.configurations = Configurations::at(members);
        self.synced = self.sequence;
        (self.released, self.last) = (position, position);
        self.is_base_released = true;
        (self.attested, self.hard_state) = (attested, hard_state);
        self.runs.clear();
        let old = self.segments.len() - 1;
        for segment in self.segments.drain(..old) {
            self.disk.remove(&segment_path(segment.number))?;
        }
        self.disk.sync_dir(DIR)?;
        clear_mark(&*self.disk)
    }

    /// What the new log owes. Where the old log had another entry at `position`, all after it was
    /// never committed (Raft §5.3, log matching). Else entries over it may have been acknowledged
    /// and counted: the server must not vote before it has them again.
    fn attested_after_reset(&self, position: Position) -> Index {
        let held = self.released.index < position.index && position.index <= self.last.index;
        let conflicts = held
            && !self.is_muted()
            && self.term_at(position.index).is_ok_and(|term| term != position.term);
        if conflicts {
            return position.index;
        }
        // Of a log that is given up as a whole the end was durable, whether attested or not.
        let given_up =
            if position.index < self.released.index { self.last.index } else { Index::ZERO };
        self.attested.max(position.index).max(given_up)
    }

    /// Entries `first..=last` as long as they follow `prev`, at least one, and no more than
    /// `size_bytes_max` beyond it. `None` when they are released, not there, or follow another.
    ///
    /// # Errors
    /// [`Damage`] when they cannot be read or believed.
    pub fn read(
        &self,
        prev: Position,
        first: Index,
        last: Index,
        size_bytes_max: usize,
    ) -> Result<Option<Vec<Entry>>, Damage> {
        let known = self.released.index <= prev.index && last <= self.last.index;
        if !known || last < first || first != prev.index.next() {
            return Ok(None);
        }
        if self.term_at(prev.index)? != prev.term {
            return Ok(None);
        }
        let mut found: Vec<Entry> = Vec::new();
        let mut size = 0;
        let at = self.runs.partition_point(|run| run.last < first);
        for run in self.runs.range(at..).take_while(|run| run.first <= last) {
            for entry in self.read_run(run)? {
                if entry.index < first || last < entry.index {
                    continue;
                }
                size += entry.size_bytes();
                if !found.is_empty() && size_bytes_max < size {
                    return Ok(Some(found));
                }
                found.push(entry);
            }
        }
        Ok(Some(found))
    }

    /// Term of the entry at `index`, which is at or over `released` and at or below `last`.
    pub(crate) fn term_at(&self, index: Index) -> Result<Term, Damage> {
        if index == self.released.index {
            return Ok(self.released.term);
        }
        if index == self.last.index {
            return Ok(self.last.term);
        }
        let at = self.runs.partition_point(|run| run.last < index);
        let run = self.runs.get(at).filter(|run| run.first <= index);
        let run = run.expect("runs cover the log without gaps");
        if index == run.batch_last {
            return Ok(run.batch_last_term);
        }
        let mut entries = self.read_run(run)?.into_iter();
        let entry = entries.find(|entry| entry.index == index);
        Ok(entry.expect("a run's entries were checked").term)
    }

    /// The live entries of a run, checked.
    fn read_run(&self, run: &Run) -> Result<Vec<Entry>, Damage> {
        let at = self.segments.partition_point(|segment| segment.number < run.segment);
        let segment = &self.segments[at];
        let mut buffer = vec![0; usize::try_from(run.size).expect("batches fit in memory")];
        segment.file.read_at(run.offset, &mut buffer)?;
        let lost = |detail: &str| Damage::Lost {
            what: format!("{} at offset {}", segment_path(run.segment), run.offset),
            detail: detail.into(),
        };
        match parse_batch(run.segment, run.offset, &Bytes::from(buffer)) {
            Parsed::Batch(header, mut entries) if header.last() == run.batch_last => {
                entries.retain(|entry| entry.index <= run.last);
                if entries.first().map(|entry| entry.index) != Some(run.first) {
                    return Err(lost("another batch is in its place"));
                }
                Ok(entries)
            }
            Parsed::Batch(..) => Err(lost("another batch is in its place")),
            Parsed::Broken(_, detail) => Err(lost(detail)),
            Parsed::Nothing => Err(lost("batch header checksum mismatch")),
        }
    }

    fn refuse_if_failed(&self, operation: &'static str) -> Result<(), DiskError> {
        match &self.failure {
            None => Ok(()),
            Some(first) => Err(DiskError {
                kind: DiskErrorKind::Failed,
                operation,
                path: first.path.clone(),
                detail: format!("refused after an earlier failure: {first}"),
            }),
        }
    }

    fn keep<T>(&mut self, result: Result<T, DiskError>) -> Result<T, DiskError> {
        if let Err(error) = &result {
            self.failure = Some(error.clone());
        }
        result
    }
}

/// Forgets what lies over `index`.
fn truncate_runs(runs: &mut VecDeque<Run>, index: Index) {
    while runs.back().is_some_and(|run| index < run.first) {
        runs.pop_back();
    }
    if let Some(run) = runs.back_mut() {
        run.last = run.last.min(index);
    }
}

fn disk_error(damage: Damage, operation: &'static str) -> DiskError {
    match damage {
        Damage::Disk(error) => error,
        Damage::Lost { what, detail } => {
            DiskError { kind: DiskErrorKind::Failed, operation, path: what, detail }
        }
    }
}

/// Makes the first segment of a new data directory.
pub(crate) fn create_first(
    disk: &dyn Disk,
    identity: &Identity,
    position: Position,
    hard_state: HardState,
) -> Result<(), DiskError> {
    let header = SegmentHeader {
        cluster: identity.cluster,
        member: identity.member,
        segment: 1,
        kind: SegmentKind::Reset,
        prev: position,
        sequence: 0,
        attested: position.index,
        hard_state,
        members: identity.founding_members().cloned(),
    };
    create_segment(disk, &header, SECTOR)?;
    Ok(())
}

/// Removes what a format that was cut short may have left; refuses when something was written
/// since.
pub(crate) fn clear_unused(disk: &dyn Disk) -> Result<(), OpenError> {
    clear_leftovers(disk)?;
    for number in list_segments(disk)? {
        let found = scan(disk, number)?;
        let untouched = number == 1 && found.header.is_ok() && found.parts.is_empty();
        if !untouched {
            return Err(OpenError::InUse { path: found.path });
        }
        disk.remove(&found.path)?;
    }
    Ok(disk.sync_dir(DIR)?)
}

/// Writes a segment beside, syncs it, and gives it its name.
fn create_segment(
    disk: &dyn Disk,
    header: &SegmentHeader,
    fill: u64,
) -> Result<Box<dyn DiskFile>, DiskError> {
    let temp = temp_path(header.segment);
    let mut bytes = header.encode();
    let fill = usize::try_from(fill).expect("segments fit in memory");
    bytes.resize(fill.max(SECTOR_BYTES), 0);
    let file = disk.create(&temp)?;
    file.write_at(0, &bytes)?;
    file.sync()?;
    name_segment(disk, header.segment, &temp)
}

/// Makes a segment of a released one. Its old batches are seeded with another segment's number, so
/// they are never believed.
fn recycle_segment(
    disk: &dyn Disk,
    header: &SegmentHeader,
    spare: &str,
) -> Result<Box<dyn DiskFile>, DiskError> {
    let file = disk.open(spare)?;
    file.write_at(0, &header.encode())?;
    file.sync()?;
    name_segment(disk, header.segment, spare)
}

fn name_segment(disk: &dyn Disk, number: u64, from: &str) -> Result<Box<dyn DiskFile>, DiskError> {
    let path = segment_path(number);
    disk.rename(from, &path)?;
    disk.sync_dir(DIR)?;
    disk.open(&path)
}

/// How far zeroes are written ahead of the log: a sync that changes the file's size or layout costs
/// about twice as much, and now comes once in this many bytes.
const FILL_BYTES: u64 = 1024 * 1024;
/// Released segments kept for use: one is begun at a time.
const SPARES_MAX: usize = 1;
