//! The table's lane: checkpoints, outgoing snapshots, incoming snapshots.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kvraft_base::{Disk, MemberId, Position, TableId, Term};
use kvraft_kv::{Kv, META_STATE, Versions, check_state_row};
use kvraft_store::{Export, Import, ImportError, Options, Table};

use crate::{
    frame::SnapshotChunk,
    hop::{Fatal, Hop, MachineIn, NodeIn, Now, TableIn},
};

/// Bytes of rows in one snapshot chunk, unless somebody wants it otherwise: large enough for few
/// round trips, small enough that a heartbeat behind one on the same wire waits for about a
/// millisecond at 1 Gb/s.
pub const SNAPSHOT_CHUNK_BYTES: usize = 128 * 1024;

/// Chunks sent and not taken yet, per follower, held in memory: some go out while the answer to the
/// first is on its way.
const CHUNKS_IN_FLIGHT_MAX: usize = 4;

/// A snapshot on its way to a follower. Its view of the table never changes.
#[derive(Debug)]
struct Outgoing {
    term: Term,
    position: Position,
    export: Export,
    /// Sent, not taken yet; in order. When all was taken, the last.
    in_flight: VecDeque<SnapshotChunk>,
    /// What was sent last. A follower that has taken everything and then lost it, or whose word on
    /// the installed snapshot was lost, is only heard of when it is sent something.
    last: Option<SnapshotChunk>,
    next_seq: u64,
    /// What was sent again last because the follower lacks it. Once for each chunk: answers may
    /// come twice, too.
    repeated: Option<u64>,
    exhausted: bool,
}

impl Outgoing {
    /// The chunk after `taken` if it was overtaken by one behind it, or lost, when `taken` is said
    /// once more. Alone in flight it is not missed: nothing has come after it.
    fn missed(&mut self, taken: u64) -> Option<SnapshotChunk> {
        let first = self.in_flight.front().filter(|_| 1 < self.in_flight.len())?;
        let is_missed = taken.checked_add(1) == Some(first.seq);
        if !is_missed || self.repeated == Some(first.seq) {
            return None;
        }
        self.repeated = Some(first.seq);
        Some(first.clone())
    }
}

/// A snapshot on its way here.
#[derive(Debug)]
struct Incoming {
    from: MemberId,
    term: Term,
    position: Position,
    import: Import,
    next_seq: u64,
    /// Came before the next one, by number. Invariant: fewer than [`CHUNKS_IN_FLIGHT_MAX`], all of
    /// them after `next_seq`; none once it is complete.
    early: BTreeMap<u64, Bytes>,
    complete: bool,
}

impl Incoming {
    /// Takes a chunk if it is the next one, and all that came early and follow it; one that comes
    /// early is kept. Returns the number to answer with.
    fn take(&mut self, seq: u64, bytes: Bytes) -> Result<Option<u64>, ImportError> {
        if seq < self.next_seq {
            // With its own number: the newest one, said twice, would tell of a gap, and what that
            // has repeated would be answered like this again, and so on.
            return Ok(Some(seq));
        }
        if !self.complete && seq - self.next_seq < CHUNKS_IN_FLIGHT_MAX as u64 {
            self.early.insert(seq, bytes);
        }
        while !self.complete
            && let Some(bytes) = self.early.remove(&self.next_seq)
        {
            self.import.push(bytes)?;
            self.next_seq += 1;
            self.complete = self.import.is_complete();
        }
        if self.complete {
            self.early.clear(); // There is nothing after the last one.
        }
        assert!(self.early.len() < CHUNKS_IN_FLIGHT_MAX, "more was kept than may be in flight");
        Ok(self.next_seq.checked_sub(1))
    }
}

/// Settles the machine's state in the table and moves whole tables between servers.
///
/// Invariants:
/// - one incoming snapshot at a time, a newer one supersedes;
/// - chunks are taken strictly in order; of those that come early no more are kept than a sender
///   has in flight;
/// - a chunk that comes early is answered with what was taken last, one that comes again with its
///   own number;
/// - a received table replaces the old one only on [`TableIn::Install`], durably.
#[derive(Debug)]
pub struct TableLane {
    disk: Box<dyn Disk>,
    options: Options,
    chunk_size_bytes: usize,
    versions: Versions,
    table: Table,
    outgoing: BTreeMap<MemberId, Outgoing>,
    incoming: Option<Incoming>,
    failed: bool,
}

impl TableLane {
    /// A lane on an opened table in `disk`. A snapshot's chunks have about `chunk_size_bytes`, and
    /// a row at least; what comes must be of one of `versions`.
    #[must_use]
    pub fn new(
        disk: Box<dyn Disk>,
        options: Options,
        chunk_size_bytes: usize,
        versions: Versions,
        table: Table,
    ) -> Self {
        let (outgoing, incoming, failed) = (BTreeMap::new(), None, false);
        Self { disk, options, chunk_size_bytes, versions, table, outgoing, incoming, failed }
    }

    /// One turn over everything that has arrived.
    pub fn step(&mut self, _now: Now, inbox: &mut Vec<TableIn>, out: &mut Vec<Hop>) {
        for input in inbox.drain(..) {
            if self.failed {
                return;
            }
            if let Err(fatal) = self.handle(input, out) {
                self.failed = true;
                out.push(Hop::Fatal(fatal));
            }
        }
    }

    fn handle(&mut self, input: TableIn, out: &mut Vec<Hop>) -> Result<(), Fatal> {
        match input {
            TableIn::Commit(checkpoint) => {
                // An older one is of the table that an install has replaced: nothing is said of it,
                // and the reload clears it at the machine.
                if self.table.applied().index < checkpoint.applied.index {
                    self.table.commit(&checkpoint)?;
                    out.push(Hop::Machine(MachineIn::Settled(checkpoint.applied)));
                    out.push(Hop::Node(NodeIn::Settled(checkpoint.applied)));
                }
            }
            TableIn::Export { to, term } => self.open_export(to, term, out)?,
            TableIn::ExportTaken { to, position, seq } => {
                self.on_export_taken(to, position, seq, out)?;
            }
            TableIn::ExportResend { to } => self.resend(to, out),
            TableIn::ExportClose { to } => {
                self.outgoing.remove(&to);
            }
            TableIn::Import { from, chunk } => self.on_chunk(from, chunk, out)?,
            TableIn::Install { position, log_kept } => self.install(position, log_kept, out)?,
            TableIn::ImportDrop => self.abandon_incoming()?,
        }
        Ok(())
    }

    fn open_export(&mut self, to: MemberId, term: Term, out: &mut Vec<Hop>) -> Result<(), Fatal> {
        let export = self.table.export()?;
        let position = export.position();
        out.push(Hop::Node(NodeIn::ExportOpened { to, position }));
        let outgoing = Outgoing {
            term,
            position,
            export,
            in_flight: VecDeque::new(),
            last: None,
            next_seq: 0,
            repeated: None,
            exhausted: false,
        };
        self.outgoing.insert(to, outgoing);
        self.fill_window(to, out)
    }

    fn fill_window(&mut self, to: MemberId, out: &mut Vec<Hop>) -> Result<(), Fatal> {
        let Some(outgoing) = self.outgoing.get_mut(&to) else {
            return Ok(());
        };
        while !outgoing.exhausted && outgoing.in_flight.len() < CHUNKS_IN_FLIGHT_MAX {
            let Some(bytes) = outgoing.export.next_chunk(self.chunk_size_bytes)? else {
                outgoing.exhausted = true;
                break;
            };
            let chunk = SnapshotChunk {
                term: outgoing.term,
                position: outgoing.position,
                seq: outgoing.next_seq,
                bytes,
            };
            outgoing.next_seq += 1;
            outgoing.in_flight.push_back(chunk.clone());
            outgoing.last = Some(chunk.clone());
            out.push(Hop::Node(NodeIn::SnapshotChunk { to, chunk }));
        }
        Ok(())
    }

    fn on_export_taken(
        &mut self,
        to: MemberId,
        position: Position,
        seq: u64,
        out: &mut Vec<Hop>,
    ) -> Result<(), Fatal> {
        let Some(outgoing) = self.outgoing.get_mut(&to) else {
            return Ok(());
        };
        if outgoing.position != position {
            return Ok(()); // Of an earlier attempt.
        }
        let mut taken = None;
        while outgoing.in_flight.front().is_some_and(|chunk| chunk.seq <= seq) {
            taken = outgoing.in_flight.pop_front();
        }
        if taken.is_none()
            && let Some(chunk) = outgoing.missed(seq)
        {
            out.push(Hop::Node(NodeIn::SnapshotChunk { to, chunk }));
        }
        self.fill_window(to, out)?;
        if let Some(outgoing) = self.outgoing.get_mut(&to)
            && outgoing.in_flight.is_empty()
        {
            // The last one is repeated to a receiver that is silent while it installs.
            outgoing.in_flight.extend(taken);
        }
        Ok(())
    }

    fn resend(&self, to: MemberId, out: &mut Vec<Hop>) {
        let Some(outgoing) = self.outgoing.get(&to) else {
            return;
        };
        let all_taken = outgoing.last.iter().filter(|_| outgoing.in_flight.is_empty());
        for chunk in outgoing.in_flight.iter().chain(all_taken) {
            out.push(Hop::Node(NodeIn::SnapshotChunk { to, chunk: chunk.clone() }));
        }
    }

    fn on_chunk(
        &mut self,
        from: MemberId,
        chunk: SnapshotChunk,
        out: &mut Vec<Hop>,
    ) -> Result<(), Fatal> {
        let position = chunk.position;
        if chunk.seq == 0 && !self.receives(from, chunk.term, position) {
            self.abandon_incoming()?;
            let import = Import::begin(self.disk.as_ref(), chunk.position)?;
            self.incoming = Some(Incoming {
                from,
                term: chunk.term,
                position: chunk.position,
                import,
                next_seq: 0,
                early: BTreeMap::new(),
                complete: false,
            });
        }
        if self.incoming.is_none() {
            out.push(Hop::Node(NodeIn::ImportUnknown { from, position }));
            return Ok(());
        }
        if !self.receives(from, chunk.term, position) {
            return Ok(()); // Of a snapshot that was superseded.
        }
        let Some(incoming) = self.incoming.as_mut() else {
            return Ok(());
        };
        let answer = match incoming.take(chunk.seq, chunk.bytes) {
            Ok(answer) => answer,
            Err(error @ ImportError::Table(_)) => return Err(error.into()), // Our disk.
            Err(_) => {
                self.abandon_incoming()?; // The sender's, or damaged on the way: it starts over.
                return Ok(());
            }
        };
        if let Some(seq) = answer {
            out.push(Hop::Node(NodeIn::ImportTaken { from, position, seq }));
        }
        if incoming.complete {
            let term = incoming.term;
            out.push(Hop::Node(NodeIn::ImportReady { from, term, position }));
        }
        Ok(())
    }

    fn abandon_incoming(&mut self) -> Result<(), Fatal> {
        let Some(incoming) = self.incoming.take() else { return Ok(()) };
        Ok(incoming.import.abandon()?)
    }

    fn receives(&self, from: MemberId, term: Term, position: Position) -> bool {
        self.incoming.as_ref().is_some_and(|incoming| {
            incoming.from == from && incoming.term == term && incoming.position == position
        })
    }

    fn install(
        &mut self,
        position: Position,
        log_kept: bool,
        out: &mut Vec<Hop>,
    ) -> Result<(), Fatal> {
        let complete = |incoming: &Incoming| incoming.position == position && incoming.complete;
        if !self.incoming.as_ref().is_some_and(complete) {
            // A newer snapshot has begun to arrive between the question and the answer.
            out.push(Hop::Node(NodeIn::InstallRefused(position)));
            return Ok(());
        }
        let incoming = self.incoming.take().expect("looked at above");
        assert!(
            self.table.applied().index < position.index,
            "an older snapshot never replaces newer state"
        );
        let mut import = incoming.import;
        // Before anything is replaced: a build that knows the version shall find all as it was.
        if let Some(row) = import.row(TableId::Meta, META_STATE)? {
            check_state_row(&row, self.versions)?;
        }
        self.outgoing.clear(); // Their views are of the table that goes away.
        let installed = if log_kept { import.install_below_log() } else { import.install() };
        match installed {
            Ok(()) => {}
            Err(error @ ImportError::Table(_)) => return Err(error.into()),
            Err(_) => {
                // The sender's fault, found before anything was replaced.
                out.push(Hop::Node(NodeIn::InstallRefused(position)));
                return Ok(());
            }
        }
        self.table = Table::open(self.disk.as_ref(), &self.options)?;
        assert_eq!(self.table.applied(), position, "the installed table is the announced one");
        let reader = self.table.reader();
        // Here, and not at the machine: reading every record back takes long.
        let kv = Box::new(Kv::load(&reader, self.versions)?);
        out.push(Hop::Node(NodeIn::Installed { position, reader, kv }));
        Ok(())
    }
}
