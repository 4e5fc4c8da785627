//! The node's clients, its own and those that peers speak for: proposing, passing on, parking.
//!
//! Invariants:
//! - "failed" is said only of what is in no log and on no way to one;
//! - a wish is passed on again only after its last attempt was refused, or never left;
//! - when somebody else leads, or nobody, everyone who relied on the old leader is told at once.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{EntryKind, Index, Instant, MemberId, Ticket, limits};
use kvraft_raft::{CHANGES_MAX, Change, ChangeError, Input, Membership, Refusal};

use super::Node;
use crate::{
    client_io::{Kept, Parked, Passed, Wish, reply},
    forwards::{Kind, REMOTE_TICKET_FIRST, Remote},
    frame::{Attempt, ForwardRefusal, Frame},
    hop::{ClientRequest, Failure, Hop, MachineIn, NotSent, Now, Outcome, PeerLane},
    outgoing::send,
};

/// Parked requests are tried again this often while no leader is known.
const PARKED_RETRY_INTERVAL: Duration = Duration::from_millis(20);

/// The same after a refusal by the server that is thought to lead: it knows better, and will be
/// heard to say so soon.
const REFUSED_RETRY_INTERVAL: Duration = Duration::from_millis(100);

impl Node {
    pub(super) fn on_client(
        &mut self,
        now: Now,
        ticket: Ticket,
        request: ClientRequest,
        out: &mut Vec<Hop>,
    ) {
        assert!(ticket.0 < REMOTE_TICKET_FIRST, "the edge's tickets stay below the remote ones");
        if self.options.waiting_count_max <= self.waiting_count() {
            reply(ticket, Outcome::Failed(Failure::Busy), out);
            return;
        }
        match request {
            ClientRequest::Propose(command) => {
                let kept = Kept { wish: Wish::Command(command), arrived: now.instant };
                self.propose(now, ticket, kept, out);
            }
            ClientRequest::ChangeMembers(changes) => {
                let kept = Kept { wish: Wish::Members(changes), arrived: now.instant };
                self.propose(now, ticket, kept, out);
            }
            ClientRequest::Transfer { to } => {
                self.member_io.on_transfer(ticket);
                self.raft.step(now.instant, Input::Transfer { ticket, to });
            }
            ClientRequest::Query { linearizable: false, .. } if self.raft.is_hollow() => {
                reply(ticket, Outcome::Failed(Failure::Hollow), out);
            }
            ClientRequest::Query { query, linearizable: false } => {
                out.push(Hop::Machine(MachineIn::Query { ticket, at: Index::ZERO, query }));
            }
            ClientRequest::Query { query, linearizable: true } => {
                self.waiting.on_read(ticket, now.instant, query);
                self.raft.step(now.instant, Input::Read { ticket });
            }
        }
    }

    fn propose(&mut self, now: Now, ticket: Ticket, kept: Kept, out: &mut Vec<Hop>) {
        if limits::ENTRY_SIZE_BYTES_MAX < kept.wish.size_bytes() {
            reply(ticket, Outcome::Failed(Failure::TooLarge), out);
            return;
        }
        let input = match &kept.wish {
            // No peer would read it.
            Wish::Members(changes) if CHANGES_MAX < changes.len() => {
                let refusal = Refusal::Change(ChangeError::TooMany(changes.len()));
                reply(ticket, Outcome::Changed(Err(refusal)), out);
                return;
            }
            Wish::Command(_) if self.is_overloaded() => {
                reply(ticket, Outcome::Failed(Failure::Busy), out);
                return;
            }
            Wish::Command(command) => {
                // It may have waited for a leader, and its time is that of whoever appends it. What
                // the own edge has made is a command.
                let stamped = kvraft_kv::stamp(command, now.wall_ms);
                let payload = stamped.unwrap_or_else(|_| command.clone());
                Input::Propose { ticket, kind: EntryKind::Command, payload }
            }
            Wish::Members(changes) => Input::ChangeMembers { ticket, changes: changes.clone() },
        };
        self.waiting.on_propose(ticket, kept);
        self.raft.step(now.instant, input);
    }

    fn is_overloaded(&self) -> bool {
        self.options.unapplied_count_max < self.raft.unapplied_count()
    }

    pub(super) fn on_propose_refused(
        &mut self,
        ticket: Ticket,
        refusal: Refusal,
        out: &mut Vec<Hop>,
    ) {
        if let Some(remote) = self.forwards.take_refused(ticket) {
            refuse_forward(remote, refusal_for_peer(refusal), out);
            return;
        }
        let Some(kept) = self.waiting.take_refused(ticket) else {
            return; // Cancelled in the meantime.
        };
        match refusal {
            Refusal::NotLeader { .. }
            | Refusal::LeaderChanged
            | Refusal::Muted
            | Refusal::Transferring { .. }
            // Over in a moment, if this server stays the leader.
            | Refusal::TermNotCommitted => {
                self.pass_on(ticket, kept, out);
            }
            Refusal::Busy => reply(ticket, Outcome::Failed(Failure::Busy), out),
            Refusal::TooLarge => reply(ticket, Outcome::Failed(Failure::TooLarge), out),
            Refusal::ChangePending { .. } | Refusal::Change(_) => {
                reply(ticket, Outcome::Changed(Err(refusal)), out);
            }
            Refusal::Unsupported | Refusal::Transfer(_) => {
                unreachable!("only commands are proposed, and no transfer is")
            }
        }
    }

    /// This server does not lead: the leader gets the wish, or it stays until there is one.
    fn pass_on(&mut self, ticket: Ticket, kept: Kept, out: &mut Vec<Hop>) {
        // As it is now, at the end of the turn: what raft said before may be out of date.
        let (leader, term) = (self.raft.leader(), self.raft.hard_state().term);
        let leader = leader.filter(|id| !self.is_me(*id) && !self.unreachable.contains(id));
        let Some(leader) = leader else {
            self.waiting.park(ticket, kept.arrived, Parked::Wish(kept.wish), out);
            return;
        };
        self.attempt_count += 1;
        let number = self.attempt_count;
        let attempt = Attempt { incarnation: self.incarnation, ticket, number };
        let frame = match kept.wish.clone() {
            Wish::Command(command) => Frame::Forward { attempt, command },
            Wish::Members(changes) => Frame::ForwardChange { attempt, changes },
        };
        self.waiting.on_forward(ticket, Passed { leader, term, number }, kept);
        send(leader, PeerLane::Control, &frame, out);
    }

    pub(super) fn is_leading(&self) -> bool {
        self.raft.leader() == Some(self.me)
    }

    fn is_me(&self, id: MemberId) -> bool {
        self.me == id
    }

    pub(super) fn retry_parked(&mut self, now: Now, out: &mut Vec<Hop>) {
        if !self.waiting.has_parked() || now.instant < self.parked_retry_at {
            return;
        }
        self.parked_retry_at = now.instant + PARKED_RETRY_INTERVAL;
        self.waiting.expire_parked(now.instant, self.options.parked_time_max, out);
        if !self.raft.knows_leader() {
            return;
        }
        for (ticket, (arrived, parked)) in self.waiting.take_parked() {
            match parked {
                Parked::Wish(wish) => {
                    self.propose(now, ticket, Kept { wish, arrived }, out);
                }
                Parked::Query(query) => {
                    self.waiting.on_read(ticket, arrived, query);
                    self.raft.step(now.instant, Input::Read { ticket });
                }
            }
        }
    }

    /// Tells everybody who relied on the leader that led before.
    pub(super) fn on_leader_changed(&mut self, out: &mut Vec<Hop>) {
        let (leader, term) = self.led_by;
        self.waiting.on_leader_changed(leader, term, out);
        let leading = leader.filter(|id| self.is_me(*id)).map(|_| term);
        for (to, frame) in self.forwards.take_lost(leading) {
            send(to, PeerLane::Control, &frame, out);
        }
        self.parked_retry_at = Instant::ZERO;
    }

    /// A peer's client wants this appended. The leader's clock is stamped, not the peer's.
    pub(super) fn on_forward(
        &mut self,
        now: Now,
        remote: Remote,
        command: &Bytes,
        out: &mut Vec<Hop>,
    ) {
        let leads = self.raft.leader().is_some_and(|leader| self.is_me(leader));
        // A server that does not lead has a better reason to refuse.
        if leads && self.is_overloaded() {
            return refuse_forward(remote, ForwardRefusal::Busy, out);
        }
        if limits::ENTRY_SIZE_BYTES_MAX < command.len() {
            return refuse_forward(remote, ForwardRefusal::TooLarge, out);
        }
        let Ok(payload) = kvraft_kv::stamp(command, now.wall_ms) else {
            return refuse_forward(remote, ForwardRefusal::Malformed, out);
        };
        let ticket = self.forwards.on_propose(Kind::Command, remote);
        let kind = EntryKind::Command;
        self.raft.step(now.instant, Input::Propose { ticket, kind, payload });
    }

    /// A peer's client wants other members.
    pub(super) fn on_forward_change(&mut self, now: Now, remote: Remote, changes: Vec<Change>) {
        let ticket = self.forwards.on_propose(Kind::Change, remote);
        self.raft.step(now.instant, Input::ChangeMembers { ticket, changes });
    }

    /// The leader has not appended it, nor will: it may be passed on again, or refused for good.
    pub(super) fn on_forward_refused(
        &mut self,
        now: Now,
        from: MemberId,
        attempt: Attempt,
        reason: ForwardRefusal,
        out: &mut Vec<Hop>,
    ) {
        let ticket = attempt.ticket;
        let Some(kept) = self.waiting.take_forwarded(ticket, from, attempt.number) else {
            return; // Cancelled or given up in the meantime.
        };
        let outcome = match (reason, &kept.wish) {
            (
                ForwardRefusal::NotLeader { .. }
                | ForwardRefusal::Muted
                | ForwardRefusal::TermNotCommitted,
                _,
            ) => {
                if self.raft.leader() == Some(from) {
                    self.parked_retry_at = now.instant + REFUSED_RETRY_INTERVAL;
                }
                self.waiting.park(ticket, kept.arrived, Parked::Wish(kept.wish), out);
                return;
            }
            (ForwardRefusal::Busy, _) => Outcome::Failed(Failure::Busy),
            (ForwardRefusal::TooLarge, _) => Outcome::Failed(Failure::TooLarge),
            (ForwardRefusal::ChangePending { index }, Wish::Members(_)) => {
                Outcome::Changed(Err(Refusal::ChangePending { index }))
            }
            (ForwardRefusal::Change(error), Wish::Members(_)) => {
                Outcome::Changed(Err(Refusal::Change(error)))
            }
            // Damaged on the way, beneath all checksums: it has had no effect.
            (
                ForwardRefusal::Malformed
                | ForwardRefusal::ChangePending { .. }
                | ForwardRefusal::Change(_),
                _,
            ) => Outcome::Failed(Failure::LeaderChanged),
        };
        reply(ticket, outcome, out);
    }

    /// The leader says that a change that was passed on to it is over.
    pub(super) fn on_change_done(
        &mut self,
        from: MemberId,
        attempt: Attempt,
        membership: Membership,
        out: &mut Vec<Hop>,
    ) {
        let Some(kept) = self.waiting.take_forwarded(attempt.ticket, from, attempt.number) else {
            return; // Cancelled or given up in the meantime.
        };
        let outcome = match kept.wish {
            Wish::Members(_) => Outcome::Changed(Ok(membership)),
            // No leader says that of a command.
            Wish::Command(_) => Outcome::Unknown(Failure::LeaderChanged),
        };
        reply(attempt.ticket, outcome, out);
    }

    /// What was to be passed on has not left: it can have had no effect.
    pub(super) fn on_undelivered(
        &mut self,
        to: MemberId,
        frame: Bytes,
        why: NotSent,
        out: &mut Vec<Hop>,
    ) {
        let Some(attempt) = Frame::decode(frame).ok().and_then(|frame| frame.attempt()) else {
            return;
        };
        let ticket = attempt.ticket;
        let Some(kept) = self.waiting.take_forwarded(ticket, to, attempt.number) else {
            return;
        };
        match why {
            NotSent::Full => reply(ticket, Outcome::Failed(Failure::Busy), out),
            NotSent::Closed => {
                self.waiting.park(ticket, kept.arrived, Parked::Wish(kept.wish), out);
            }
        }
    }
}

/// What the server that passed something on is told.
fn refusal_for_peer(refusal: Refusal) -> ForwardRefusal {
    match refusal {
        Refusal::NotLeader { leader } => ForwardRefusal::NotLeader { leader },
        Refusal::LeaderChanged | Refusal::Transferring { .. } => {
            ForwardRefusal::NotLeader { leader: None }
        }
        Refusal::Busy => ForwardRefusal::Busy,
        Refusal::TooLarge => ForwardRefusal::TooLarge,
        Refusal::Muted => ForwardRefusal::Muted,
        Refusal::ChangePending { index } => ForwardRefusal::ChangePending { index },
        Refusal::TermNotCommitted => ForwardRefusal::TermNotCommitted,
        Refusal::Change(error) => ForwardRefusal::Change(error),
        Refusal::Unsupported | Refusal::Transfer(_) => {
            unreachable!("only commands and changes are passed on")
        }
    }
}

fn refuse_forward(remote: Remote, reason: ForwardRefusal, out: &mut Vec<Hop>) {
    let refused = Frame::ForwardRefused { attempt: remote.attempt, reason };
    send(remote.from, PeerLane::Control, &refused, out);
}
