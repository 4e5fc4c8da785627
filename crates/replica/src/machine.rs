//! The state machine's lane: applies what is committed, answers clients, fills checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use kvraft_base::{Damage, Entry, Index, Instant, MemberId, Position, Ticket};
use kvraft_kv::{ANSWER_SIZE_BYTES_MAX, Applied, Kv, Query, Reading, Slice, StateError, Versions};
use kvraft_store::TableReader;
use serde::{Deserialize, Serialize};

use crate::{
    hop::{Hop, MachineIn, NodeIn, Now, Outcome, Reply, TableIn},
    settled::{Row, Settled},
};

mod image;

pub(crate) use image::MachineImage;

/// Sizes and paces of the machine.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct MachineOptions {
    /// A checkpoint is taken when this much has gathered; also its greatest size, in bytes. Small,
    /// since a large commit stalls the journal's fsync on the same disk.
    pub checkpoint_size_bytes: usize,
    /// A smaller one is taken after this long.
    pub checkpoint_interval: Duration,
    /// With more than this unsettled, in bytes, the machine stops applying until the table catches
    /// up.
    pub overlay_size_bytes_max: usize,
    /// What queries may read in one turn, in bytes: a few milliseconds, so that a huge range delays
    /// no heartbeat.
    pub slice_size_bytes: usize,
    /// Entries applied in one turn, for the same reason.
    pub apply_count_max: usize,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            checkpoint_size_bytes: 8 << 20,
            checkpoint_interval: Duration::from_secs(2),
            overlay_size_bytes_max: 64 << 20,
            slice_size_bytes: 1 << 20,
            apply_count_max: 1024,
        }
    }
}

/// Applies committed entries in order to the key-value state.
///
/// Invariants: `kv.applied()` only grows except when a snapshot is installed; at most one
/// checkpoint is under way; a query is answered only when everything up to its read index is
/// applied; one turn does a bounded piece of work, and the rest of it in the next.
#[derive(Debug)]
pub struct MachineLane {
    me: MemberId,
    incarnation: u64,
    options: MachineOptions,
    kv: Kv,
    settled: Settled,
    /// Committed, not applied yet: the overlay is full, or the turn was.
    backlog: VecDeque<Entry>,
    /// Waiting for their read index.
    queries: BTreeMap<(Index, Ticket), Query>,
    /// Being read, a slice each in turn.
    readings: VecDeque<(Ticket, Reading)>,
    /// The checkpoint that the table is writing.
    settling: Option<Position>,
    /// Everything up to here is in the table.
    settled_upto: Position,
    /// When the pace asks for the next checkpoint; set while something is unsettled.
    checkpoint_due: Option<Instant>,
    failed: bool,
    /// What applying reads from the table is kept for a recording.
    is_recorded: bool,
}

impl MachineLane {
    /// A machine on the state that the table holds, for a build that knows `versions`.
    ///
    /// # Errors
    /// [`StateError`] when the table cannot be believed, or is of a version that is not known.
    pub fn new(
        me: MemberId,
        incarnation: u64,
        options: MachineOptions,
        versions: Versions,
        reader: TableReader,
    ) -> Result<Self, StateError> {
        let kv = Kv::load(&reader, versions)?;
        let settled_upto = kv.applied();
        Ok(Self {
            me,
            incarnation,
            options,
            kv,
            settled: Settled::new(reader),
            backlog: VecDeque::new(),
            queries: BTreeMap::new(),
            readings: VecDeque::new(),
            settling: None,
            settled_upto,
            checkpoint_due: None,
            failed: false,
            is_recorded: false,
        })
    }

    /// The key-value state, for status and checkers.
    #[must_use]
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// Read access to the settled part of the state.
    ///
    /// # Panics
    /// In a replay, which has no table.
    #[must_use]
    pub fn reader(&self) -> &TableReader {
        self.settled.reader().expect("only a replay is without a table")
    }

    /// When to step again without input: at once, while work of the last turn is left over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        if self.failed {
            return Instant::NEVER;
        }
        if self.can_apply() || !self.readings.is_empty() {
            return Instant::ZERO;
        }
        match (self.settling, self.checkpoint_due) {
            (None, Some(due)) => due,
            (None | Some(_), None | Some(_)) => Instant::NEVER,
        }
    }

    /// One turn over everything that has arrived.
    pub fn step(&mut self, now: Now, inbox: &mut Vec<MachineIn>, out: &mut Vec<Hop>) {
        if self.failed {
            inbox.clear();
            return;
        }
        if let Err(error) = self.turn(now, inbox, out) {
            self.failed = true;
            if let (StateError::Damage(damage), Some(reader)) = (&error, self.settled.reader()) {
                reader.condemn(damage);
            }
            out.push(Hop::Fatal(error.into()));
        }
    }

    fn turn(
        &mut self,
        now: Now,
        inbox: &mut Vec<MachineIn>,
        out: &mut Vec<Hop>,
    ) -> Result<(), StateError> {
        // Those of one turn together: many clients that give up at once cost one look at the rest.
        let mut cancelled = BTreeSet::new();
        for input in inbox.drain(..) {
            self.take(input, &mut cancelled, out);
        }
        if !cancelled.is_empty() {
            self.queries.retain(|(_, waiting), _| !cancelled.contains(waiting));
            self.readings.retain(|(reading, _)| !cancelled.contains(reading));
        }
        self.apply_backlog(out)?;
        self.begin_readings();
        self.read_on(out)?;
        self.checkpoint(now.instant, out);
        Ok(())
    }

    fn take(&mut self, input: MachineIn, cancelled: &mut BTreeSet<Ticket>, out: &mut Vec<Hop>) {
        match input {
            MachineIn::Committed(entries) => self.backlog.extend(entries),
            MachineIn::Query { ticket, at, query } => {
                self.queries.insert((at, ticket), query);
            }
            MachineIn::Cancel(ticket) => {
                cancelled.insert(ticket);
            }
            MachineIn::Settled(position) => self.settle(position),
            MachineIn::Reload { reader, kv } => self.reload(reader, *kv, out),
        }
    }

    fn settle(&mut self, position: Position) {
        if self.settling != Some(position) {
            return; // Of a table that an installed snapshot has replaced.
        }
        self.settling = None;
        self.settled_upto = position;
        self.kv.settle(position);
        self.settled.refresh();
    }

    fn reload(&mut self, reader: TableReader, kv: Kv, out: &mut Vec<Hop>) {
        assert!(
            self.kv.applied().index <= kv.applied().index,
            "a snapshot never takes the state back"
        );
        let position = kv.applied();
        self.kv = kv;
        self.settled.replace(reader);
        self.settling = None;
        self.settled_upto = position;
        self.checkpoint_due = None;
        self.backlog.clear();
        // What the queries under way had found is of the old state: their next slice begins anew.
        for (_, reading) in &mut self.readings {
            reading.begin_again();
        }
        let members = self.kv.members().cloned();
        out.push(Hop::Node(NodeIn::Version(self.kv.cluster_version())));
        out.push(Hop::Node(NodeIn::Reloaded { position, members }));
    }

    fn can_apply(&self) -> bool {
        !self.backlog.is_empty()
            && self.kv.overlay_size_bytes() < self.options.overlay_size_bytes_max
    }

    fn apply_backlog(&mut self, out: &mut Vec<Hop>) -> Result<(), StateError> {
        let before = self.kv.applied().index;
        let version = self.kv.cluster_version();
        let mut answered = Vec::new();
        self.settled.listen(self.is_recorded);
        for _ in 0..self.options.apply_count_max {
            if !self.can_apply() {
                break;
            }
            let Some(entry) = self.backlog.pop_front() else {
                break;
            };
            if entry.index <= self.kv.applied().index {
                continue; // Contained in an installed snapshot.
            }
            if let Some(applied) = self.kv.apply(&self.settled, &entry)? {
                self.reply(applied, &mut answered, out);
            }
        }
        self.settled.listen(false);
        let index = self.kv.applied().index;
        if before < index {
            out.push(Hop::Node(NodeIn::Applied { index, answered }));
        }
        if version < self.kv.cluster_version() {
            out.push(Hop::Node(NodeIn::Version(self.kv.cluster_version())));
        }
        Ok(())
    }

    fn reply(&self, applied: Applied, answered: &mut Vec<Ticket>, out: &mut Vec<Hop>) {
        let origin = applied.origin;
        if origin.member != self.me || origin.incarnation != self.incarnation {
            return;
        }
        answered.push(origin.ticket);
        out.push(Hop::Reply(Reply {
            ticket: origin.ticket,
            outcome: Outcome::Done(applied.result),
            index: applied.position.index,
        }));
    }

    /// Takes up the queries whose read index is applied.
    fn begin_readings(&mut self) {
        let applied = self.kv.applied().index;
        while let Some(first) = self.queries.first_entry() {
            let (at, ticket) = *first.key();
            if applied < at {
                break;
            }
            self.readings.push_back((ticket, Reading::new(first.remove())));
        }
    }

    /// Reads a turn's worth, each query a part of it. When what they hold together is over the
    /// bound, the first one goes on alone until it is answered.
    fn read_on(&mut self, out: &mut Vec<Hop>) -> Result<(), Damage> {
        let mut slice = Slice::of_bytes(self.options.slice_size_bytes);
        while !slice.is_spent() {
            let Some((ticket, mut reading)) = self.readings.pop_front() else {
                break;
            };
            let mut part = slice.take_part();
            let answer = self.kv.read_on(&self.settled, &mut reading, &mut part)?;
            slice.give_back(part);
            if let Some(answer) = answer {
                let outcome = Outcome::Answered(answer);
                out.push(Hop::Reply(Reply { ticket, outcome, index: reading.index() }));
            } else if ANSWER_SIZE_BYTES_MAX < self.gathered_size_bytes() {
                self.readings.push_front((ticket, reading));
            } else {
                self.readings.push_back((ticket, reading));
            }
        }
        Ok(())
    }

    /// Bytes that the queries under way hold.
    fn gathered_size_bytes(&self) -> usize {
        self.readings.iter().map(|(_, reading)| reading.size_bytes()).sum()
    }

    fn checkpoint(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.settling.is_some() || self.kv.applied() == self.settled_upto {
            return;
        }
        let due = *self.checkpoint_due.get_or_insert(now + self.options.checkpoint_interval);
        let full = self.options.checkpoint_size_bytes <= self.kv.overlay_size_bytes();
        if now < due && !full {
            return;
        }
        self.checkpoint_due = None;
        if let Some(checkpoint) = self.kv.checkpoint(self.options.checkpoint_size_bytes) {
            self.settling = Some(checkpoint.applied);
            out.push(Hop::Table(TableIn::Commit(checkpoint)));
        }
    }
}
