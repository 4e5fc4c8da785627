//! The deciding lane: consensus, clients' tickets, peers, and what the journal may let go of.
//!
//! One call of [`Node::step`] is one turn over everything that has arrived, so batching and group
//! commit are the default. It cannot fail and never blocks.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{EntryKind, Index, Instant, MemberId, Members, Position, Term, Ticket, limits};
use kvraft_raft::{Body, Input, Message, Output, Raft, Refusal, Status};
use kvraft_store::TableReader;

use crate::{
    client_io::{Parked, Waiting, reply},
    frame::{Frame, SnapshotChunk},
    hop::{
        ClientRequest, Failure, Hop, JournalIn, MachineIn, NodeIn, Now, Outcome, PeerLane, TableIn,
    },
    snapshots::{Due, Transfers},
};

/// Tickets from here on name requests that a peer forwarded; the edge's own count from 1.
const REMOTE_TICKET_FIRST: u64 = 1 << 63;

/// Parked requests are tried again this often while no leader is known.
const PARKED_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// Bounds of the node.
#[derive(Clone, Copy, Debug)]
pub struct NodeOptions {
    /// Requests of this server's clients that may wait at once. More are refused as "busy".
    pub waiting_count_max: usize,
    /// Entries that may be in the log and not applied. Beyond, new commands are refused as "busy".
    pub unapplied_count_max: u64,
    /// Entries kept in the journal behind the checkpoint, so that a follower that is a little
    /// behind needs no snapshot.
    pub retain_count: u64,
}

impl Default for NodeOptions {
    fn default() -> Self {
        Self { waiting_count_max: 65_536, unapplied_count_max: 5_000, retain_count: 10_000 }
    }
}

/// Where a forwarded command came from.
#[derive(Clone, Copy, Debug)]
struct Remote {
    from: MemberId,
    ticket: Ticket,
}

/// Agrees with the peers.
///
/// Invariants: a frame to a peer leaves only through raft's own rules for promises; raft is told
/// before a snapshot begins to replace this server's state, and its log does not move until the
/// snapshot is in table, journal and machine.
#[derive(Debug)]
pub struct Node {
    options: NodeOptions,
    raft: Raft,
    bootstrap: Members,
    output: Output,
    waiting: Waiting,
    /// Commands that peers forwarded and raft has not yet accepted or refused.
    remote: BTreeMap<Ticket, Remote>,
    remote_next: Ticket,
    /// Peers whose connection has closed and is not back. Nothing is forwarded to them: it would be
    /// lost, and its client would wait in vain.
    unreachable: BTreeSet<MemberId>,
    parked_retry_at: Instant,
    transfers: Transfers,
    /// The snapshot that is replacing this server's state right now.
    installing: Option<Position>,
    /// The new table, between its install and the machine's reload.
    installed: Option<TableReader>,
    /// What the newest checkpoint contains, and the one before it.
    checkpoint: Position,
    checkpoint_previous: Position,
    released_upto: Index,
    /// Frames that could not be decoded, per server life. Shown in metrics.
    frames_refused: u64,
}

impl Node {
    /// A node around an opened raft. `bootstrap` is the configuration of a log that has none;
    /// `settled` what the newest checkpoint contains.
    #[must_use]
    pub fn new(options: NodeOptions, raft: Raft, bootstrap: Members, settled: Position) -> Self {
        Self {
            options,
            raft,
            bootstrap,
            output: Output::default(),
            waiting: Waiting::default(),
            remote: BTreeMap::new(),
            remote_next: Ticket(REMOTE_TICKET_FIRST),
            unreachable: BTreeSet::new(),
            parked_retry_at: Instant::ZERO,
            transfers: Transfers::default(),
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

    /// Requests of this server's clients that are waiting for an outcome here.
    #[must_use]
    pub fn waiting_count(&self) -> usize {
        self.waiting.count()
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
        self.raft.deadline().min(parked).min(self.transfers.deadline())
    }

    /// One turn over everything that has arrived; queued messages go before deadlines.
    pub fn step(&mut self, now: Now, inbox: &mut Vec<NodeIn>, out: &mut Vec<Hop>) {
        for input in inbox.drain(..) {
            self.take(now, input, out);
        }
        self.retry_parked(now, out);
        self.repeat_snapshots(now.instant, out);
        let mut output = std::mem::take(&mut self.output);
        self.raft.finish(now.instant, &mut output);
        self.emit(now, &mut output, out);
        self.output = output;
        self.release(out);
    }

    fn take(&mut self, now: Now, input: NodeIn, out: &mut Vec<Hop>) {
        let instant = now.instant;
        match input {
            NodeIn::Client { ticket, request } => self.on_client(now, ticket, request, out),
            NodeIn::Cancel(ticket) => {
                if !self.waiting.cancel(ticket) {
                    out.push(Hop::Machine(MachineIn::Cancel(ticket)));
                }
            }
            NodeIn::Frame { from, frame } => self.on_frame(now, from, frame, out),
            NodeIn::Connected(peer) => {
                self.unreachable.remove(&peer);
                self.raft.step(instant, Input::Connected { peer });
            }
            NodeIn::Disconnected(peer) => {
                self.unreachable.insert(peer);
                self.waiting.on_disconnected(peer, out);
                self.raft.step(instant, Input::Disconnected { peer });
            }
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
            NodeIn::Settled(position) => self.on_settled(position),
            NodeIn::SnapshotChunk { to, chunk } => self.send_chunk(to, chunk, out),
            NodeIn::ExportOpened { to, position } => self.transfers.on_opened(to, position),
            NodeIn::ImportTaken { from, position, seq } => {
                send(from, PeerLane::Bulk, &Frame::SnapshotTaken { position, seq }, out);
            }
            NodeIn::ImportReady { from, term, position } => {
                self.on_import_ready(instant, from, term, position, out);
            }
            NodeIn::InstallRefused(position) => {
                assert_eq!(self.installing, Some(position), "the table answers what was asked");
                self.installing = None;
                self.raft.step(instant, Input::SnapshotAbandoned);
            }
            NodeIn::Installed { position, reader } => {
                assert_eq!(self.installing, Some(position), "the table installs only on request");
                self.installed = Some(reader);
                out.push(Hop::Journal(JournalIn::Reset(position)));
            }
            NodeIn::ResetDone(position) => {
                assert_eq!(self.installing, Some(position), "the journal resets only on request");
                let reader = self.installed.take().expect("the table was installed before");
                out.push(Hop::Machine(MachineIn::Reload { reader }));
            }
            NodeIn::Reloaded { position, members } => self.on_reloaded(now, position, members, out),
        }
    }

    // Clients.

    fn on_client(&mut self, now: Now, ticket: Ticket, request: ClientRequest, out: &mut Vec<Hop>) {
        assert!(ticket.0 < REMOTE_TICKET_FIRST, "the edge's tickets stay below the remote ones");
        if self.options.waiting_count_max <= self.waiting.count() {
            reply(ticket, Outcome::Failed(Failure::Busy), out);
            return;
        }
        match request {
            ClientRequest::Propose(command) => self.propose(now, ticket, command, out),
            ClientRequest::Query { query, linearizable: false } => {
                out.push(Hop::Machine(MachineIn::Query { ticket, at: Index::ZERO, query }));
            }
            ClientRequest::Query { query, linearizable: true } => {
                self.waiting.on_read(ticket, query);
                self.raft.step(now.instant, Input::Read { ticket });
            }
        }
    }

    fn propose(&mut self, now: Now, ticket: Ticket, command: Bytes, out: &mut Vec<Hop>) {
        if limits::ENTRY_SIZE_BYTES_MAX < command.len() {
            reply(ticket, Outcome::Failed(Failure::TooLarge), out);
            return;
        }
        if self.is_overloaded() {
            reply(ticket, Outcome::Failed(Failure::Busy), out);
            return;
        }
        self.waiting.on_propose(ticket, command.clone());
        let kind = EntryKind::Command;
        self.raft.step(now.instant, Input::Propose { ticket, kind, payload: command });
    }

    fn is_overloaded(&self) -> bool {
        self.options.unapplied_count_max < self.raft.unapplied_count()
    }

    /// Raft has not appended it: forward it to the leader, or keep it until there is one.
    fn on_propose_refused(&mut self, ticket: Ticket, refusal: Refusal, out: &mut Vec<Hop>) {
        if let Some(remote) = self.remote.remove(&ticket) {
            let refused = Frame::ForwardRefused { ticket: remote.ticket };
            send(remote.from, PeerLane::Control, &refused, out);
            return;
        }
        let Some(command) = self.waiting.take_refused(ticket) else {
            return; // Cancelled in the meantime.
        };
        match refusal {
            Refusal::NotLeader { leader: Some(leader) } if !self.unreachable.contains(&leader) => {
                self.waiting.on_forward(ticket, leader);
                send(leader, PeerLane::Control, &Frame::Forward { ticket, command }, out);
            }
            Refusal::NotLeader { leader: Some(_) | None }
            | Refusal::LeaderChanged
            | Refusal::Muted => {
                self.waiting.park(ticket, Parked::Command(command), out);
            }
            Refusal::Busy => reply(ticket, Outcome::Failed(Failure::Busy), out),
            Refusal::TooLarge => reply(ticket, Outcome::Failed(Failure::TooLarge), out),
            Refusal::Unsupported => unreachable!("only commands are proposed"),
        }
    }

    fn retry_parked(&mut self, now: Now, out: &mut Vec<Hop>) {
        if !self.waiting.has_parked() {
            return;
        }
        if now.instant < self.parked_retry_at {
            return;
        }
        self.parked_retry_at = now.instant + PARKED_RETRY_INTERVAL;
        if !self.raft.knows_leader() {
            return;
        }
        for (ticket, parked) in self.waiting.take_parked() {
            match parked {
                Parked::Command(command) => self.propose(now, ticket, command, out),
                Parked::Query(query) => {
                    self.waiting.on_read(ticket, query);
                    self.raft.step(now.instant, Input::Read { ticket });
                }
            }
        }
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
            Frame::Forward { ticket, command } => {
                self.on_forward(now, Remote { from, ticket }, &command, out);
            }
            Frame::ForwardRefused { ticket } => self.waiting.on_forward_refused(ticket, from, out),
            Frame::SnapshotChunk(chunk) => self.on_chunk(now, from, chunk, out),
            Frame::SnapshotTaken { position, seq } => {
                self.transfers.on_taken(from, position, now.instant);
                out.push(Hop::Table(TableIn::ExportTaken { to: from, position, seq }));
            }
        }
    }

    /// A peer's client wants this appended. The leader's clock is stamped, not the peer's.
    fn on_forward(&mut self, now: Now, remote: Remote, command: &Bytes, out: &mut Vec<Hop>) {
        let stamped = kvraft_kv::stamp(command, now.wall_ms);
        let acceptable = command.len() <= limits::ENTRY_SIZE_BYTES_MAX && !self.is_overloaded();
        let (Ok(payload), true) = (stamped, acceptable) else {
            let refused = Frame::ForwardRefused { ticket: remote.ticket };
            send(remote.from, PeerLane::Control, &refused, out);
            return;
        };
        let ticket = self.remote_next;
        self.remote_next = ticket.next();
        self.remote.insert(ticket, remote);
        let kind = EntryKind::Command;
        self.raft.step(now.instant, Input::Propose { ticket, kind, payload });
    }

    // What raft wants done.

    fn emit(&mut self, now: Now, output: &mut Output, out: &mut Vec<Hop>) {
        // The write goes first: nothing that waits for it can overtake it.
        if let Some(write) = output.write.take() {
            out.push(Hop::Journal(JournalIn::Write(write)));
        }
        send_messages(std::mem::take(&mut output.messages), out);
        for (ticket, result) in output.proposed.drain(..) {
            match result {
                Ok(position) => {
                    self.remote.remove(&ticket);
                    self.waiting.on_appended(ticket, position);
                }
                Err(refusal) => self.on_propose_refused(ticket, refusal, out),
            }
        }
        if !output.committed.is_empty() {
            self.waiting.on_committed(&output.committed, out);
            let entries = std::mem::take(&mut output.committed);
            out.push(Hop::Machine(MachineIn::Committed(entries)));
        }
        for (ticket, result) in output.reads.drain(..) {
            let Some(query) = self.waiting.take_read(ticket) else {
                continue; // Cancelled in the meantime.
            };
            match result {
                Ok(at) => out.push(Hop::Machine(MachineIn::Query { ticket, at, query })),
                // Reads have no effect: asking again is always safe.
                Err(_) => self.waiting.park(ticket, Parked::Query(query), out),
            }
        }
        for fetch in output.fetches.drain(..) {
            out.push(Hop::Journal(JournalIn::Fetch(fetch)));
        }
        for request in output.snapshots.drain(..) {
            if self.transfers.begin(request.to, now.instant) {
                out.push(Hop::Table(TableIn::Export { to: request.to, term: request.term }));
            }
        }
        out.extend(output.events.drain(..).map(Hop::Event));
    }

    // Checkpoints and the journal.

    fn on_settled(&mut self, position: Position) {
        if self.checkpoint.index < position.index {
            self.checkpoint_previous = self.checkpoint;
            self.checkpoint = position;
        }
    }

    /// Lets the journal go behind the checkpoint before the newest, as far as nobody needs it.
    fn release(&mut self, out: &mut Vec<Hop>) {
        if self.installing.is_some() {
            return;
        }
        let retained = self.checkpoint.index.0.saturating_sub(self.options.retain_count);
        let mut upto = self.checkpoint_previous.index.min(Index(retained));
        if let Some(pin) = self.transfers.pin() {
            upto = upto.min(pin);
        }
        if self.released_upto < upto {
            self.released_upto = upto;
            out.push(Hop::Journal(JournalIn::Release(upto)));
        }
    }

    // Snapshots to followers.

    fn send_chunk(&self, to: MemberId, chunk: SnapshotChunk, out: &mut Vec<Hop>) {
        send(to, PeerLane::Bulk, &Frame::SnapshotChunk(chunk), out);
    }

    fn repeat_snapshots(&mut self, now: Instant, out: &mut Vec<Hop>) {
        self.end_finished_transfers(now, out);
        for due in self.transfers.due(now) {
            match due {
                Due::Resend(to) => out.push(Hop::Table(TableIn::ExportResend { to })),
                Due::GiveUp(to) => {
                    out.push(Hop::Table(TableIn::ExportClose { to }));
                    self.raft.step(now, Input::SnapshotReport { to, position: None });
                }
            }
        }
    }

    /// A transfer ends when raft no longer waits for it: the follower has caught up, or this server
    /// is not its leader any more.
    fn end_finished_transfers(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.transfers.deadline() == Instant::NEVER {
            return;
        }
        let status = self.raft.status();
        for (to, position) in self.transfers.peers() {
            let progress = status.peers.iter().find(|peer| peer.id == to);
            let caught_up = position.zip(progress).is_some_and(|(p, peer)| p.index <= peer.matched);
            if caught_up || progress.is_none() {
                self.transfers.end(to);
                out.push(Hop::Table(TableIn::ExportClose { to }));
                let position = position.filter(|_| caught_up);
                self.raft.step(now, Input::SnapshotReport { to, position });
            }
        }
    }

    // Snapshots from the leader.

    fn on_chunk(&mut self, now: Now, from: MemberId, chunk: SnapshotChunk, out: &mut Vec<Hop>) {
        let notice = Message {
            from,
            to: self.raft.status().id,
            term: chunk.term,
            body: Body::SnapshotNotice { position: chunk.position },
        };
        self.raft.step(now.instant, Input::Receive(notice));
        let expected = self.raft.expects_snapshot(from, chunk.term, chunk.position);
        if expected && self.installing.is_none() {
            out.push(Hop::Table(TableIn::Import { from, chunk }));
        }
    }

    fn on_import_ready(
        &mut self,
        now: Instant,
        from: MemberId,
        term: Term,
        position: Position,
        out: &mut Vec<Hop>,
    ) {
        if self.installing.is_some() {
            return; // A repeated last chunk.
        }
        if self.raft.expects_snapshot(from, term, position) {
            self.installing = Some(position);
            self.raft.step(now, Input::SnapshotInstalling { position });
            out.push(Hop::Table(TableIn::Install(position)));
        } else {
            out.push(Hop::Table(TableIn::ImportDrop));
        }
    }

    /// Table, journal and machine now hold the snapshot; a crash on the way here is rolled forward
    /// by recovery. Only now may the leader be answered.
    fn on_reloaded(
        &mut self,
        now: Now,
        position: Position,
        members: Option<Members>,
        out: &mut Vec<Hop>,
    ) {
        assert_eq!(self.installing, Some(position), "the machine reloads only on request");
        self.installing = None;
        let members = members.unwrap_or_else(|| self.bootstrap.clone());
        self.waiting.on_snapshot(position.index, out);
        self.checkpoint = position;
        self.checkpoint_previous = position;
        self.released_upto = position.index;
        self.raft.step(now.instant, Input::SnapshotInstalled { position, members });
    }
}

fn send(to: MemberId, lane: PeerLane, frame: &Frame, out: &mut Vec<Hop>) {
    out.push(Hop::Peer { to, lane, frame: frame.encode() });
}

/// One frame per peer and turn, unless it would be too large.
fn send_messages(messages: Vec<Message>, out: &mut Vec<Hop>) {
    let mut by_peer: BTreeMap<MemberId, (usize, Vec<Message>)> = BTreeMap::new();
    for message in messages {
        let to = message.to;
        let size = size_bytes(&message);
        let (batch_size, batch) = by_peer.entry(to).or_default();
        if limits::FRAME_SIZE_BYTES_MAX / 2 < *batch_size + size && !batch.is_empty() {
            send(to, PeerLane::Control, &Frame::Raft(std::mem::take(batch)), out);
            *batch_size = 0;
        }
        *batch_size += size;
        batch.push(message);
    }
    for (to, (_, batch)) in by_peer {
        send(to, PeerLane::Control, &Frame::Raft(batch), out);
    }
}

/// About the encoded size: exact for what can be large.
fn size_bytes(message: &Message) -> usize {
    const FIXED_BYTES: usize = 96;
    match &message.body {
        Body::Append { entries, .. } => {
            FIXED_BYTES + entries.iter().map(kvraft_base::Entry::size_bytes).sum::<usize>()
        }
        Body::PreVoteRequest { .. }
        | Body::PreVoteAnswer { .. }
        | Body::VoteRequest { .. }
        | Body::VoteAnswer { .. }
        | Body::AppendAnswer { .. }
        | Body::Heartbeat { .. }
        | Body::HeartbeatAnswer { .. }
        | Body::CommitNotice { .. }
        | Body::ReadRequest { .. }
        | Body::ReadAnswer { .. }
        | Body::SnapshotNotice { .. } => FIXED_BYTES,
    }
}
