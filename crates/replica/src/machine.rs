//! The state machine's lane: applies what is committed, answers clients, fills checkpoints.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use kvraft_base::{Damage, Entry, Index, Instant, MemberId, Position, Ticket};
use kvraft_kv::{Applied, Kv, Query};
use kvraft_store::TableReader;

use crate::hop::{Fatal, Hop, MachineIn, NodeIn, Now, Outcome, Reply, TableIn};

/// Sizes and paces of the machine.
#[derive(Clone, Copy, Debug)]
pub struct MachineOptions {
    /// A checkpoint is taken when this much has gathered; also its greatest size, in bytes. Small,
    /// since a large commit stalls the journal's fsync on the same disk.
    pub checkpoint_size_bytes: usize,
    /// A smaller one is taken after this long.
    pub checkpoint_interval: Duration,
    /// With more than this unsettled, in bytes, the machine stops applying until the table catches
    /// up.
    pub overlay_size_bytes_max: usize,
}

impl Default for MachineOptions {
    fn default() -> Self {
        Self {
            checkpoint_size_bytes: 8 << 20,
            checkpoint_interval: Duration::from_secs(2),
            overlay_size_bytes_max: 64 << 20,
        }
    }
}

/// Applies committed entries in order to the key-value state.
///
/// Invariants: `kv.applied()` only grows except when a snapshot is installed; at most one
/// checkpoint is under way; a query is answered only when everything up to its read index is
/// applied.
#[derive(Debug)]
pub struct MachineLane {
    me: MemberId,
    incarnation: u64,
    options: MachineOptions,
    kv: Kv,
    reader: TableReader,
    /// Committed, not applied yet: the overlay is full.
    backlog: VecDeque<Entry>,
    /// Waiting for their read index.
    queries: BTreeMap<(Index, Ticket), Query>,
    /// The checkpoint that the table is writing.
    settling: Option<Position>,
    /// Everything up to here is in the table.
    settled: Position,
    /// When the pace asks for the next checkpoint; set while something is unsettled.
    checkpoint_due: Option<Instant>,
    failed: bool,
}

impl MachineLane {
    /// A machine on the state that the table holds.
    ///
    /// # Errors
    /// [`Damage`] when the table cannot be believed.
    pub fn new(
        me: MemberId,
        incarnation: u64,
        options: MachineOptions,
        reader: TableReader,
    ) -> Result<Self, Damage> {
        let kv = Kv::load(&reader)?;
        let settled = kv.applied();
        Ok(Self {
            me,
            incarnation,
            options,
            kv,
            reader,
            backlog: VecDeque::new(),
            queries: BTreeMap::new(),
            settling: None,
            settled,
            checkpoint_due: None,
            failed: false,
        })
    }

    /// The key-value state, for status and checkers.
    #[must_use]
    pub fn kv(&self) -> &Kv {
        &self.kv
    }

    /// Read access to the settled part of the state.
    #[must_use]
    pub fn reader(&self) -> &TableReader {
        &self.reader
    }

    /// When to step again without input.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        match (self.settling, self.checkpoint_due) {
            (None, Some(due)) if !self.failed => due,
            (None | Some(_), None | Some(_)) => Instant::NEVER,
        }
    }

    /// One turn over everything that has arrived.
    pub fn step(&mut self, now: Now, inbox: &mut Vec<MachineIn>, out: &mut Vec<Hop>) {
        if self.failed {
            inbox.clear();
            return;
        }
        if let Err(damage) = self.turn(now, inbox, out) {
            self.failed = true;
            out.push(Hop::Fatal(Fatal::Damage(damage)));
        }
    }

    fn turn(
        &mut self,
        now: Now,
        inbox: &mut Vec<MachineIn>,
        out: &mut Vec<Hop>,
    ) -> Result<(), Damage> {
        // Those of one turn together: many clients that give up at once cost one look at the rest.
        let mut cancelled = BTreeSet::new();
        for input in inbox.drain(..) {
            self.take(input, &mut cancelled, out)?;
        }
        if !cancelled.is_empty() {
            self.queries.retain(|(_, waiting), _| !cancelled.contains(waiting));
        }
        self.apply_backlog(out)?;
        self.answer_queries(out)?;
        self.checkpoint(now.instant, out);
        Ok(())
    }

    fn take(
        &mut self,
        input: MachineIn,
        cancelled: &mut BTreeSet<Ticket>,
        out: &mut Vec<Hop>,
    ) -> Result<(), Damage> {
        match input {
            MachineIn::Committed(entries) => self.backlog.extend(entries),
            MachineIn::Query { ticket, at, query } => {
                self.queries.insert((at, ticket), query);
            }
            MachineIn::Cancel(ticket) => {
                cancelled.insert(ticket);
            }
            MachineIn::Settled(position) => self.settle(position),
            MachineIn::Reload { reader } => self.reload(reader, out)?,
        }
        Ok(())
    }

    fn settle(&mut self, position: Position) {
        if self.settling != Some(position) {
            return; // Of a table that an installed snapshot has replaced.
        }
        self.settling = None;
        self.settled = position;
        self.kv.settle(position);
    }

    fn reload(&mut self, reader: TableReader, out: &mut Vec<Hop>) -> Result<(), Damage> {
        let kv = Kv::load(&reader)?;
        assert!(
            self.kv.applied().index <= kv.applied().index,
            "a snapshot never takes the state back"
        );
        let position = kv.applied();
        self.kv = kv;
        self.reader = reader;
        self.settling = None;
        self.settled = position;
        self.checkpoint_due = None;
        self.backlog.clear();
        let members = self.kv.members().cloned();
        out.push(Hop::Node(NodeIn::Reloaded { position, members }));
        Ok(())
    }

    fn apply_backlog(&mut self, out: &mut Vec<Hop>) -> Result<(), Damage> {
        let before = self.kv.applied().index;
        let mut answered = Vec::new();
        while self.kv.overlay_size_bytes() < self.options.overlay_size_bytes_max {
            let Some(entry) = self.backlog.pop_front() else {
                break;
            };
            if entry.index <= self.kv.applied().index {
                continue; // Contained in an installed snapshot.
            }
            if let Some(applied) = self.kv.apply(&self.reader, &entry)? {
                self.reply(applied, &mut answered, out);
            }
        }
        let index = self.kv.applied().index;
        if before < index {
            out.push(Hop::Node(NodeIn::Applied { index, answered }));
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

    fn answer_queries(&mut self, out: &mut Vec<Hop>) -> Result<(), Damage> {
        let applied = self.kv.applied().index;
        while let Some(first) = self.queries.first_entry() {
            let (at, ticket) = *first.key();
            if applied < at {
                break;
            }
            let query = first.remove();
            let answer = self.kv.query(&self.reader, &query)?;
            let outcome = Outcome::Answered(answer);
            out.push(Hop::Reply(Reply { ticket, outcome, index: applied }));
        }
        Ok(())
    }

    fn checkpoint(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.settling.is_some() || self.kv.applied() == self.settled {
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
