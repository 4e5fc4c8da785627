//! The deciding lane: consensus, clients' tickets, peers, and what the journal may let go of.
//!
//! One call of [`Node::step`] is one turn over everything that has arrived, so batching and group
//! commit are the default. It cannot fail and never blocks.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use kvraft_base::{Entry, Index, Instant, MemberId, Members, Position, Term};
use kvraft_kv::{Kv, Versions};
use kvraft_raft::{Input, Membership, Output, Raft, Status};
use kvraft_store::TableReader;

use crate::{
    client_io::{Parked, Waiting},
    forwards::{Forwards, Remote},
    frame::{Frame, SEQ_INSTALLED},
    hop::{Hop, JournalIn, MachineIn, NodeIn, Now, PeerLane, TableIn},
    outgoing::{send, send_messages},
    snapshots::{OutgoingSnapshots, Pace},
};

use members::MemberIo;
use serde::{Deserialize, Serialize};
use version::{VERSION_TICKET, VersionIo};

mod clients;
mod image;
mod members;
mod snapshots;
mod version;

/// Bounds of the node.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NodeOptions {
    /// Requests of this server's clients that may wait at once. More are refused as "busy".
    pub waiting_count_max: usize,
    /// Entries that may be in the log and not applied. Beyond, new commands are refused as "busy".
    pub unapplied_count_max: u64,
    /// Entries kept in the journal behind the checkpoint, so that a follower that is a little
    /// behind needs no snapshot.
    pub retain_count: u64,
    /// A request that waits for a leader longer than this, since its client brought it, is refused:
    /// it had no effect, which is known here only. Less than the client's own patience.
    pub parked_time_max: Duration,
    /// Bytes of snapshots that leave this server in a second, for all followers together; at least
    /// 1.
    pub snapshot_rate: u64,
    /// A leader that knows a newer cluster version than the cluster has asks the members this often
    /// what they know.
    pub version_interval: Duration,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self {
            waiting_count_max: 65_536,
            unapplied_count_max: 5_000,
            retain_count: 10_000,
            parked_time_max: Duration::from_secs(5),
            snapshot_rate: 64 << 20,
            version_interval: Duration::from_secs(2),
        }
    }
}

/// Agrees with the peers.
///
/// Invariants: a frame to a peer leaves only through raft's own rules for promises; raft is told
/// before a snapshot begins to replace this server's state, and its log does not move until the
/// snapshot is in table, journal and machine.
#[derive(Debug, Serialize, Deserialize)]
pub struct Node {
    options: NodeOptions,
    me: MemberId,
    /// This life of the server.
    incarnation: u64,
    raft: Raft,
    bootstrap: Members,
    /// Empty between turns.
    #[serde(skip)]
    output: Output,
    waiting: Waiting,
    /// What peers have passed on to this server.
    forwards: Forwards,
    /// Wishes passed on by this server, ever.
    attempt_count: u64,
    /// Who led, and in which term, at the end of the last turn.
    led_by: (Option<MemberId>, Term),
    /// Members, and the leader, whose connection has closed and is not back. Nothing is forwarded
    /// to them: it would be lost, and its client would wait in vain.
    unreachable: BTreeSet<MemberId>,
    parked_retry_at: Instant,
    member_io: MemberIo,
    version_io: VersionIo,
    outgoing_snapshots: OutgoingSnapshots,
    pace: Pace,
    /// The snapshot that the table may be receiving: its sender's term, and what it contains.
    importing: Option<(Term, Position)>,
    /// The snapshot that is replacing this server's state right now.
    installing: Option<Position>,
    /// The new table, between its install and the machine's reload.
    #[serde(skip)]
    installed: Option<(TableReader, Box<Kv>)>,
    /// What the newest checkpoint contains, and the one before it.
    checkpoint: Position,
    checkpoint_previous: Position,
    released_upto: Index,
    /// Frames that could not be decoded, per server life. Shown in metrics.
    frames_refused: u64,
}

impl Node {
    /// A node around an opened raft. `bootstrap` is the configuration of a log that has none;
    /// `settled` what the newest checkpoint contains; `incarnation` tells this life of the server
    /// from others; `version` is the cluster version of the settled state.
    #[must_use]
    pub fn new(
        options: NodeOptions,
        incarnation: u64,
        raft: Raft,
        bootstrap: Members,
        settled: Position,
        (versions, version): (Versions, u32),
    ) -> Self {
        Self {
            options,
            me: raft.status().id,
            incarnation,
            led_by: (raft.leader(), raft.hard_state().term),
            raft,
            bootstrap,
            output: Output::default(),
            waiting: Waiting::default(),
            forwards: Forwards::new(),
            attempt_count: 0,
            unreachable: BTreeSet::new(),
            parked_retry_at: Instant::ZERO,
            member_io: MemberIo::default(),
            version_io: VersionIo::new(versions, options.version_interval, version),
            outgoing_snapshots: OutgoingSnapshots::default(),
            pace: Pace::new(options.snapshot_rate),
            importing: None,
            installing: None,
            installed: None,
            checkpoint: settled,
            checkpoint_previous: Position::ZERO,
            released_upto: Index::ZERO,
            frames_refused: 0,
        }
    }

    /// Role, term, leader, positions and progress of peers.
    #[must_use]
    pub fn status(&self) -> Status {
        self.raft.status()
    }

    /// The consensus core, for checkers.
    #[must_use]
    pub fn raft(&self) -> &Raft {
        &self.raft
    }

    /// Members whose connection is closed, as the transport has said; for checkers.
    #[must_use]
    pub fn unreachable(&self) -> &BTreeSet<MemberId> {
        &self.unreachable
    }

    /// Requests of this server's clients that are waiting for an outcome here.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting.count() + self.member_io.count()
    }

    /// Frames from peers that could not be decoded.
    #[must_use]
    pub fn frames_refused(&self) -> u64 {
        self.frames_refused
    }

    /// When to step again without input.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let parked = if self.waiting.has_parked() { self.parked_retry_at } else { Instant::NEVER };
        let removed = self.member_io.removal_deadline(self.is_leading());
        let snapshots = self.outgoing_snapshots.deadline().min(self.pace.deadline());
        let version = self.version_io.deadline();
        self.raft.deadline().min(parked).min(snapshots).min(removed).min(version)
    }

    /// One turn over everything that has arrived; queued messages go before deadlines.
    pub fn step(&mut self, now: Now, inbox: &mut Vec<NodeIn>, out: &mut Vec<Hop>) {
        for input in inbox.drain(..) {
            self.take(now, input, out);
        }
        self.retry_parked(now, out);
        self.tend_snapshots(now.instant, out);
        self.tend_version(now, out);
        let mut output = std::mem::take(&mut self.output);
        self.raft.finish(now.instant, &mut output);
        self.emit(now, &mut output, out);
        self.output = output;
        self.drop_unwanted_import(out);
        self.release(now.instant, out);
        self.stop_if_removed(now.instant, out);
    }

    fn take(&mut self, now: Now, input: NodeIn, out: &mut Vec<Hop>) {
        let instant = now.instant;
        match input {
            NodeIn::Client { ticket, request } => self.on_client(now, ticket, request, out),
            NodeIn::Cancel(ticket) => {
                if !self.waiting.cancel(ticket) && !self.member_io.cancel(ticket) {
                    out.push(Hop::Machine(MachineIn::Cancel(ticket)));
                }
            }
            NodeIn::Frame { from, frame } => self.on_frame(now, from, frame, out),
            NodeIn::Undelivered { to, frame, reason } => {
                self.on_undelivered(to, frame, reason, out);
            }
            NodeIn::Connected(peer) => {
                self.unreachable.remove(&peer);
                self.outgoing_snapshots.on_connected(peer, instant);
                self.raft.step(instant, Input::Connected { peer });
            }
            NodeIn::Disconnected(peer) => self.on_disconnected(instant, peer, out),
            NodeIn::LeaderSuspected => self.raft.step(instant, Input::LeaderSuspected),
            NodeIn::Durable(write) => self.raft.step(instant, Input::Durable { write }),
            NodeIn::Fetched { id, entries } => {
                self.raft.step(instant, Input::Fetched { id, entries });
            }
            NodeIn::Released(position) => {
                // During an install the journal may already have been reset beyond raft's log.
                if self.installing.is_none() {
                    self.raft.step(instant, Input::Released { position });
                }
            }
            NodeIn::Applied { index, answered } => {
                self.waiting.on_answered(&answered);
                self.raft.step(instant, Input::Applied { index });
            }
            NodeIn::Version(version) => self.version_io.on_version(version),
            NodeIn::Settled(position) => self.on_settled(position),
            NodeIn::SnapshotChunk { to, chunk } => self.pace.push(to, chunk),
            NodeIn::ExportOpened { to, position } => {
                self.outgoing_snapshots.on_opened(to, position)
            }
            NodeIn::ImportTaken { from, position, seq } => {
                send(from, PeerLane::Bulk, &Frame::SnapshotTaken { position, seq }, out);
            }
            NodeIn::ImportUnknown { from, position } => {
                send(from, PeerLane::Bulk, &Frame::SnapshotUnknown { position }, out);
            }
            NodeIn::ImportReady { from, term, position } => {
                self.on_import_ready(instant, from, term, position, out);
            }
            NodeIn::InstallRefused(position) => {
                assert_eq!(self.installing, Some(position), "the table answers what was asked");
                self.installing = None;
                self.raft.step(instant, Input::SnapshotAbandoned);
            }
            NodeIn::Installed { position, reader, kv } => {
                assert_eq!(self.installing, Some(position), "the table installs only on request");
                if self.raft.keeps_log(position) {
                    out.push(Hop::Machine(MachineIn::Reload { reader, kv }));
                } else {
                    let members = kv.members().or_else(|| self.founding_members()).cloned();
                    self.installed = Some((reader, kv));
                    out.push(Hop::Journal(JournalIn::Reset { position, members }));
                }
            }
            NodeIn::ResetDone(position) => {
                assert_eq!(self.installing, Some(position), "the journal resets only on request");
                let installed = self.installed.take();
                let (reader, kv) = installed.expect("the table was installed before");
                out.push(Hop::Machine(MachineIn::Reload { reader, kv }));
            }
            NodeIn::Reloaded { position, members } => self.on_reloaded(now, position, members, out),
        }
    }

    /// See [`kvraft_store::Identity::founding_members`].
    fn founding_members(&self) -> Option<&Members> {
        Some(&self.bootstrap).filter(|members| members.is_voter(self.me))
    }

    // Peers.

    fn on_frame(&mut self, now: Now, from: MemberId, frame: Bytes, out: &mut Vec<Hop>) {
        let Ok(frame) = Frame::decode(frame) else {
            self.frames_refused += 1;
            return;
        };
        match frame {
            Frame::Raft(messages) => {
                for message in messages {
                    if message.from == from {
                        self.raft.step(now.instant, Input::Receive(message));
                    } else {
                        self.frames_refused += 1;
                    }
                }
            }
            Frame::Forward { attempt, command } => {
                self.on_forward(now, Remote { from, attempt }, &command, out);
            }
            Frame::ForwardChange { attempt, changes } => {
                self.on_forward_change(now, Remote { from, attempt }, changes);
            }
            Frame::ChangeDone { attempt, index, members } => {
                if attempt.incarnation == self.incarnation {
                    let members = Arc::new(members);
                    let membership = Membership { index, members, committed: true };
                    self.on_change_done(from, attempt, membership, out);
                }
            }
            Frame::ForwardRefused { attempt, reason } => {
                if attempt.incarnation == self.incarnation {
                    self.on_forward_refused(now, from, attempt, reason, out);
                }
            }
            Frame::ForwardLost { attempt } => {
                if attempt.incarnation == self.incarnation {
                    self.waiting.on_forward_lost(attempt.ticket, from, attempt.number, out);
                }
            }
            Frame::VersionsWanted { round } => self.on_versions_wanted(from, round, out),
            Frame::Versions { round, versions } => self.on_versions(from, round, versions),
            Frame::SnapshotChunk(chunk) => self.on_chunk(now, from, chunk, out),
            Frame::SnapshotTaken { position, seq: SEQ_INSTALLED } => {
                self.outgoing_snapshots.on_installed(from, position);
            }
            Frame::SnapshotTaken { position, seq } => {
                self.outgoing_snapshots.on_taken(from, position, seq, now.instant);
                out.push(Hop::Table(TableIn::ExportTaken { to: from, position, seq }));
            }
            Frame::SnapshotUnknown { position } => {
                if self.outgoing_snapshots.restart(from, position, now.instant) {
                    let term = self.raft.hard_state().term;
                    self.pace.forget(from);
                    out.push(Hop::Table(TableIn::ExportClose { to: from }));
                    out.push(Hop::Table(TableIn::Export { to: from, term }));
                }
            }
        }
    }

    // What raft wants done.

    fn emit(&mut self, now: Now, output: &mut Output, out: &mut Vec<Hop>) {
        // The write goes first: nothing that waits for it can overtake it.
        if let Some(write) = output.write.take() {
            let size_bytes = write.entries.iter().map(Entry::size_bytes).sum::<usize>();
            self.outgoing_snapshots.on_written(size_bytes as u64);
            out.push(Hop::Journal(JournalIn::Write(write)));
        }
        send_messages(std::mem::take(&mut output.messages), &self.raft, out);
        for (ticket, result) in output.proposed.drain(..) {
            match result {
                Err(_) if ticket == VERSION_TICKET => self.version_io.on_refused(),
                Ok(position) => {
                    if !self.forwards.on_appended(ticket, position) {
                        self.waiting.on_appended(ticket, position);
                    }
                }
                Err(refusal) => self.on_propose_refused(ticket, refusal, out),
            }
        }
        if let Some(last) = output.committed.last() {
            self.forwards.on_committed(last.index);
            self.waiting.on_committed(&output.committed, out);
            let entries = std::mem::take(&mut output.committed);
            out.push(Hop::Machine(MachineIn::Committed(entries)));
        }
        for (ticket, result) in output.reads.drain(..) {
            let Some((arrived, query)) = self.waiting.take_read(ticket) else {
                continue; // Cancelled in the meantime.
            };
            match result {
                Ok(at) => out.push(Hop::Machine(MachineIn::Query { ticket, at, query })),
                // Reads have no effect: asking again is always safe.
                Err(_) => self.waiting.park(ticket, arrived, Parked::Query(query), out),
            }
        }
        for (ticket, result) in output.transfers.drain(..) {
            self.member_io.on_transferred(ticket, result, out);
        }
        if let Some(membership) = output.members.take() {
            self.on_members(now.instant, membership, out);
        }
        for fetch in output.fetches.drain(..) {
            out.push(Hop::Journal(JournalIn::Fetch(fetch)));
        }
        for request in output.snapshots.drain(..) {
            if self.unreachable.contains(&request.to) {
                self.outgoing_snapshots.refuse(request.to, now.instant);
            } else if self.outgoing_snapshots.begin(request.to, request.state_only, now.instant) {
                out.push(Hop::Table(TableIn::Export { to: request.to, term: request.term }));
            }
        }
        out.extend(output.events.drain(..).map(Hop::Event));
        let led_by = (self.raft.leader(), self.raft.hard_state().term);
        if self.led_by != led_by {
            self.led_by = led_by;
            self.on_leader_changed(out);
        }
    }

    // Checkpoints and the journal.

    fn on_settled(&mut self, position: Position) {
        if self.checkpoint.index < position.index {
            self.checkpoint_previous = self.checkpoint;
            self.checkpoint = position;
        }
    }

    /// Lets the journal go behind the checkpoint before the newest, as far as nobody needs it.
    fn release(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.installing.is_some() {
            return;
        }
        self.tend_tails(now);
        let retained = self.checkpoint.index.0.saturating_sub(self.options.retain_count);
        let mut upto = self.checkpoint_previous.index.min(Index(retained));
        if let Some(pin) = self.outgoing_snapshots.pin() {
            upto = upto.min(pin);
        }
        if self.released_upto < upto {
            self.released_upto = upto;
            out.push(Hop::Journal(JournalIn::Release(upto)));
        }
    }
}
