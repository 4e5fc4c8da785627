//! Recovery of the journal: which bytes are the log, and what the log once was.
//!
//! Segments are replayed in order. A batch is believed if its checksums match, its sequence
//! follows, and the log ends where it says it did. Where that breaks, either nothing later was
//! durable (a torn tail, cut) or something later attests the missing part (damage): then the log is
//! *frozen* there, while later batches still tell the hard state and up to where the log was
//! durable. A later batch that follows a position the frozen log has makes it whole again. Of a log
//! that stays frozen the end is dropped which the missing part may have cut: else an entry that was
//! replaced long ago could be taken for committed.
//!
//! A cut or frozen log goes on in a new segment, whose header says which of the earlier batches
//! count. So nothing is overwritten, what was cut or damaged can never be believed later, and a
//! crash in the middle of recovery changes nothing.

use std::collections::VecDeque;

use kvraft_base::{ClusterId, Disk, DiskError, Entry, HardState, Index, MemberId, Position, Term};

use super::{
    DIR, Journal, Part, Run, Scan, Segment,
    configurations::Configurations,
    layout::{
        BatchHeader, HeaderFault, SECTOR, SECTOR_BYTES, SegmentHeader, SegmentKind,
        segment_of_name, segment_path,
    },
    scan, truncate_runs,
};
use crate::{Identity, Note, OpenError, Options, identity::FORMAT_VERSION};

/// Opens the journal of a data directory.
pub(crate) fn recover(
    disk: &dyn Disk,
    identity: &Identity,
    options: &Options,
    notes: &mut Vec<Note>,
) -> Result<Journal, OpenError> {
    clear_leftovers(disk)?.into_iter().for_each(|path| notes.push(Note::LeftoverRemoved { path }));
    // What a killed process wrote may be visible and still not durable.
    disk.sync_dir(DIR)?;
    let plan = plan(disk, identity)?;
    let mut replay = Replay::default();
    for (at, planned) in plan.iter().enumerate() {
        if !planned.void {
            let newest = at + 1 == plan.len();
            replay.segment(scan(disk, planned.number)?, planned.bound, newest)?;
        }
    }
    replay.finish();
    let mut journal = replay.journal(disk, identity, options, &plan)?;
    write_again(&journal, replay.unproven)?;
    journal.active().file.sync()?;
    if replay.needs_segment {
        journal.go_on_in_new_segment()?;
    }
    notes.append(&mut replay.notes);
    Ok(journal)
}

/// Writes the batches from `offset` on once more, as they are: those that no later batch attests.
///
/// A sync that failed in an earlier process may have marked them clean in the system's cache, where
/// a read finds them though they are not on the disk; a sync alone would then have nothing to do.
/// Written again they are dirty, whatever came before. All of it lies in whole sectors that get the
/// bytes they have, so that it may be cut short anywhere.
fn write_again(journal: &Journal, offset: Option<u64>) -> Result<(), DiskError> {
    let Some(offset) = offset else { return Ok(()) };
    let size = usize::try_from(journal.end - offset).expect("segments fit in memory");
    let file = &journal.active().file;
    let mut bytes = vec![0; size];
    file.read_at(offset, &mut bytes)?;
    file.write_at(offset, &bytes)
}

/// Removes files that an interrupted step left in the journal's directory; returns their paths.
pub(crate) fn clear_leftovers(disk: &dyn Disk) -> Result<Vec<String>, DiskError> {
    let mut removed = Vec::new();
    for name in disk.list(DIR)? {
        if [".new", ".old", ".refound"].iter().any(|ending| name.ends_with(ending)) {
            let path = format!("{DIR}/{name}");
            disk.remove(&path)?;
            removed.push(path);
        }
    }
    Ok(removed)
}

/// Numbers of the segments, in order.
pub(crate) fn list_segments(disk: &dyn Disk) -> Result<Vec<u64>, DiskError> {
    let names = disk.list(DIR)?;
    let mut numbers: Vec<u64> = names.iter().filter_map(|name| segment_of_name(name)).collect();
    numbers.sort_unstable();
    Ok(numbers)
}

/// What to do with a segment.
struct Planned {
    number: u64,
    /// Nothing in it counts.
    void: bool,
    /// Batches over this sequence do not count, because a later segment says so.
    bound: u64,
}

/// Reads all headers: who they belong to, where the newest reset is, and how much of each counts.
fn plan(disk: &dyn Disk, identity: &Identity) -> Result<Vec<Planned>, OpenError> {
    let mut planned = Vec::new();
    let mut bound = u64::MAX;
    let mut reset = false;
    for number in list_segments(disk)?.into_iter().rev() {
        if reset {
            disk.remove(&segment_path(number))?;
            continue;
        }
        let header = read_header(disk, number, identity)?;
        let void = header.as_ref().is_some_and(|header| bound < header.sequence);
        planned.push(Planned { number, void, bound });
        if let Some(header) = header.filter(|_| !void) {
            bound = bound.min(header.sequence);
            reset = header.kind == SegmentKind::Reset;
        }
    }
    planned.reverse();
    if planned.is_empty() {
        let detail = "there is no segment".into();
        return Err(OpenError::HardStateLost { path: DIR.into(), detail });
    }
    Ok(planned)
}

/// The header of a segment, if it is believed; checks whose it is.
fn read_header(
    disk: &dyn Disk,
    number: u64,
    identity: &Identity,
) -> Result<Option<SegmentHeader>, OpenError> {
    let path = segment_path(number);
    let mut sector = vec![0; SECTOR_BYTES];
    let file = disk.open(&path)?;
    if file.size()? < SECTOR {
        return Ok(None);
    }
    file.read_at(0, &mut sector)?;
    let header = match SegmentHeader::decode(number, &sector.into()) {
        Ok(header) => header,
        Err(HeaderFault::Damaged(_)) => return Ok(None),
        Err(HeaderFault::Newer { needed }) => {
            return Err(OpenError::Newer { path, needed, supported: FORMAT_VERSION });
        }
    };
    check_owner(&path, identity, header.cluster, header.member)?;
    Ok(Some(header))
}

fn check_owner(
    path: &str,
    identity: &Identity,
    cluster: ClusterId,
    member: MemberId,
) -> Result<(), OpenError> {
    if (cluster, member) == (identity.cluster, identity.member) {
        return Ok(());
    }
    Err(OpenError::Foreign {
        path: path.into(),
        cluster,
        member,
        expected_cluster: identity.cluster,
        expected_member: identity.member,
    })
}

/// Why a log stops before what is attested.
struct Frozen {
    path: String,
    offset: u64,
    detail: String,
    /// What was known to be committed before the first batch that is missing.
    commit: Index,
    /// Up to here the log is what it was before the last batch that is missing. What comes after
    /// may have been cut by those, and something else agreed on in its place.
    trusted: Index,
}

/// The log as it comes out of replaying segments.
#[derive(Default)]
struct Replay {
    begun: bool,
    /// What is before the log has been released, as far as can be told: segments that are gone were
    /// removed. It is not certain where one is there and its beginning cannot be read.
    is_base_released: bool,
    released: Position,
    /// Terms of the entries after `released`.
    terms: Vec<Term>,
    configurations: Configurations,
    runs: VecDeque<Run>,
    /// Border and floor of each replayed segment.
    segments: Vec<(u64, Option<Position>, Index)>,
    hard_state: HardState,
    attested: Index,
    /// The last batch that is part of the log.
    sequence: u64,
    /// The last batch whose hard state was taken.
    seen: u64,
    /// Where the log ended after the last batch seen, whether or not all of it is here.
    logical_last: Index,
    /// Why the log stops before what is attested.
    frozen: Option<Frozen>,
    /// Where the log ends in the newest segment.
    end: u64,
    /// Where its first batch begins of which no later one says that it was durable.
    unproven: Option<u64>,
    needs_segment: bool,
    notes: Vec<Note>,
}

impl Replay {
    fn segment(&mut self, found: Scan, bound: u64, newest: bool) -> Result<(), OpenError> {
        self.end = SECTOR;
        match &found.header {
            Ok(header) => {
                self.header(&found.path, header);
                self.segments.push((found.segment, Some(header.prev), header.prev.index));
            }
            Err(HeaderFault::Damaged(detail)) => {
                let header_detail = (*detail).to_owned();
                self.damaged_header(&found, bound, newest, header_detail)?;
                self.segments.push((found.segment, None, Index(u64::MAX)));
            }
            Err(HeaderFault::Newer { .. }) => unreachable!("newer segments were refused"),
        }
        self.batches(found, bound, newest);
        Ok(())
    }

    fn last(&self) -> Position {
        let index = Index(self.released.index.0 + self.terms.len() as u64);
        Position::new(self.terms.last().copied().unwrap_or(self.released.term), index)
    }

    fn header(&mut self, path: &str, header: &SegmentHeader) {
        if !self.begun || header.kind == SegmentKind::Reset {
            self.begun = true;
            self.is_base_released = header.kind == SegmentKind::Reset || self.segments.is_empty();
            self.released = header.prev;
            self.terms.clear();
            self.configurations = Configurations::at(header.members.clone());
            self.runs.clear();
            self.sequence = header.sequence;
            self.frozen = None;
        } else {
            if self.seen < header.sequence {
                let detail = format!("{} earlier batches are gone", header.sequence - self.seen);
                self.on_gap(path, 0, detail);
            }
            if self.follow(path, 0, header.prev) {
                self.sequence = header.sequence;
                if let Some(members) = &header.members {
                    self.configurations.learn(header.prev.index, members);
                }
            }
        }
        self.seen = header.sequence;
        self.hard_state = header.hard_state;
        self.attested = header.attested;
        self.logical_last = header.prev.index;
    }

    /// Without its header a segment still has batches, the first of which may be gone; without any,
    /// if it is the newest, the hard state is lost.
    fn damaged_header(
        &mut self,
        found: &Scan,
        bound: u64,
        newest: bool,
        detail: String,
    ) -> Result<(), OpenError> {
        let first = found.parts.iter().find_map(|part| match part {
            Part::Batch { header, .. } if header.sequence <= bound => Some(header),
            Part::Batch { .. } | Part::Broken { .. } | Part::Unknown { .. } => None,
        });
        match first {
            None if newest => {
                return Err(OpenError::HardStateLost { path: found.path.clone(), detail });
            }
            Some(first) if !self.begun => {
                self.begun = true;
                self.released = first.prev;
                (self.sequence, self.seen) = (first.sequence - 1, first.sequence - 1);
            }
            Some(_) | None => {}
        }
        self.needs_segment |= newest;
        self.notes.push(Note::Damaged { path: found.path.clone(), offset: 0, detail });
        Ok(())
    }

    fn batches(&mut self, found: Scan, bound: u64, newest: bool) {
        let Scan { segment, path, parts, .. } = found;
        // What the batches after a gap say was durable; in an older segment everything was.
        let synced = if newest { last_synced(&parts) } else { u64::MAX };
        let mut strange: Option<(u64, String)> = None;
        for part in parts {
            match part {
                Part::Batch { offset, header, entries } => {
                    if header.sequence <= self.seen || bound < header.sequence {
                        continue;
                    }
                    if self.seen + 1 < header.sequence {
                        if synced <= self.seen {
                            strange.get_or_insert_with(|| {
                                (offset, "what came before it is gone".into())
                            });
                            break;
                        }
                        let (at, detail) = strange
                            .take()
                            .unwrap_or_else(|| (self.end, "batches are missing".to_owned()));
                        self.on_gap(&path, at, detail);
                    }
                    strange = None;
                    if synced < header.sequence {
                        self.unproven.get_or_insert(offset);
                    }
                    self.batch(segment, &path, offset, header, &entries);
                }
                Part::Broken { offset, header, detail } if self.seen < header.sequence => {
                    strange.get_or_insert_with(|| (offset, detail.into()));
                }
                Part::Broken { .. } => {}
                Part::Unknown { offset, size } => {
                    strange.get_or_insert_with(|| (offset, format!("{size} bytes are unknown")));
                }
            }
        }
        if bound != u64::MAX || !newest {
            return;
        }
        if let Some((offset, detail)) = strange {
            self.notes.push(Note::TornTail { path, offset, detail });
            self.needs_segment = true;
        }
    }

    fn batch(
        &mut self,
        segment: u64,
        path: &str,
        offset: u64,
        header: BatchHeader,
        entries: &[Entry],
    ) {
        if self.follow(path, offset, header.prev) {
            self.sequence = header.sequence;
            self.terms.extend(entries.iter().map(|entry| entry.term));
            self.configurations.append(entries);
            if let Some(last) = entries.last() {
                self.runs.push_back(Run {
                    first: header.prev.index.next(),
                    last: last.index,
                    batch_last: last.index,
                    batch_last_term: last.term,
                    segment,
                    offset,
                    size: header.padded_size(),
                });
            }
        }
        if let Some((_, _, floor)) = self.segments.last_mut() {
            *floor = (*floor).min(header.prev.index);
        }
        self.seen = header.sequence;
        self.hard_state = header.hard_state;
        self.attested = header.attested;
        self.logical_last = header.last();
        self.end = offset + header.padded_size();
    }

    /// Makes the log end at `prev`, if it has that; a frozen log that has it is whole again. If it
    /// does not, the log is frozen, and what is known not to be part of it any more is dropped.
    fn follow(&mut self, path: &str, offset: u64, prev: Position) -> bool {
        let last = self.last();
        if prev.index < self.released.index {
            self.rebase(prev);
            return true;
        }
        if last.index < prev.index {
            self.freeze(path, offset, format!("follows {prev}, but the log ends at {last}"));
            self.trust_term(prev.term);
            return false;
        }
        if self.term_at(prev.index) != prev.term {
            self.freeze(path, offset, format!("follows {prev}, which is not in the log"));
            self.truncate(prev.index.prev().max(self.released.index));
            self.trust_term(prev.term);
            return false;
        }
        self.truncate(prev.index);
        self.thaw();
        true
    }

    /// The log begins after `prev`: all before was being released when the process died, and what
    /// was left of that began above a later truncation.
    fn rebase(&mut self, prev: Position) {
        self.released = prev;
        self.terms.clear();
        self.configurations = Configurations::default();
        self.runs.clear();
        self.thaw();
    }

    /// The log is whole again; the damage is worth a note.
    fn thaw(&mut self) {
        if let Some(Frozen { path, offset, detail, .. }) = self.frozen.take() {
            self.notes.push(Note::Damaged { path, offset, detail });
        }
    }

    fn term_at(&self, index: Index) -> Term {
        match usize::try_from(index.0 - self.released.index.0) {
            Ok(0) | Err(_) => self.released.term,
            Ok(at) => self.terms[at - 1],
        }
    }

    fn truncate(&mut self, index: Index) {
        let kept = usize::try_from(index.0 - self.released.index.0).expect("the log is in memory");
        self.terms.truncate(kept);
        self.configurations.truncate(index);
        truncate_runs(&mut self.runs, index);
    }

    fn freeze(&mut self, path: &str, offset: u64, detail: String) {
        let commit = self.hard_state.commit;
        let (path, trusted) = (path.into(), commit);
        self.frozen.get_or_insert(Frozen { path, offset, detail, commit, trusted });
    }

    /// Batches are missing: they may have cut whatever was not committed.
    fn on_gap(&mut self, path: &str, offset: u64, detail: String) {
        self.freeze(path, offset, detail);
        let commit = self.hard_state.commit;
        let frozen = self.frozen.as_mut().expect("the log has just been frozen");
        frozen.trusted = frozen.trusted.min(commit).max(frozen.commit);
    }

    /// The log went on after an entry of this term, beyond the end of the frozen one. A leader only
    /// appends in its term, so that all it had appended before is there still (Raft §5.3).
    fn trust_term(&mut self, term: Term) {
        let after = self.terms.iter().rev().take_while(|other| term < **other).count();
        let index = Index(self.released.index.0 + (self.terms.len() - after) as u64);
        if self.released.index < index
            && self.term_at(index) == term
            && let Some(frozen) = &mut self.frozen
        {
            frozen.trusted = frozen.trusted.max(index);
        }
    }

    /// Settles what the log owes.
    fn finish(&mut self) {
        if let Some(Frozen { path, offset, detail, trusted, .. }) = self.frozen.take() {
            self.truncate(trusted.clamp(self.released.index, self.last().index));
            // The last batch seen may have been acknowledged as well.
            self.attested = self.attested.max(self.logical_last);
            self.needs_segment = true;
            self.notes.push(Note::Damaged { path, offset, detail });
        }
        let last = self.last();
        let attested = self.attested.max(self.hard_state.commit);
        if last.index < attested {
            self.notes.push(Note::Muted { last, attested });
        }
    }

    /// The journal, open at its end.
    fn journal(
        &mut self,
        disk: &dyn Disk,
        identity: &Identity,
        options: &Options,
        plan: &[Planned],
    ) -> Result<Journal, OpenError> {
        let mut segments = Vec::new();
        for planned in plan {
            let known = self.segments.iter().find(|(number, ..)| *number == planned.number);
            let (prev, floor) =
                known.map_or((None, Index(u64::MAX)), |(_, prev, floor)| (*prev, *floor));
            let file = disk.open(&segment_path(planned.number))?;
            segments.push(Segment { number: planned.number, file, prev, floor });
        }
        let filled = segments.last().map_or(Ok(0), |segment| segment.file.size())?;
        let last = self.last();
        Ok(Journal {
            disk: disk.handle(),
            cluster: identity.cluster,
            member: identity.member,
            segment_size: options.segment_size_bytes,
            segments,
            runs: std::mem::take(&mut self.runs),
            spares: Vec::new(),
            hard_state: self.hard_state,
            sequence: self.sequence,
            synced: self.sequence,
            released: self.released,
            is_base_released: self.is_base_released,
            last,
            attested: self.attested,
            configurations: std::mem::take(&mut self.configurations),
            end: self.end,
            filled,
            failure: None,
        })
    }
}

/// Up to which sequence the batches in `parts` say that everything was durable.
fn last_synced(parts: &[Part]) -> u64 {
    let synced = parts.iter().map(|part| match part {
        Part::Batch { header, .. } | Part::Broken { header, .. } => header.synced,
        Part::Unknown { .. } => 0,
    });
    synced.max().unwrap_or(0)
}
