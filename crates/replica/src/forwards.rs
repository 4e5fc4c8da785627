//! The leader's side of commands that peers pass on: who is to be told when one is not appended, or
//! when this server stops to lead before it is committed.
//!
//! Why the asking server is not simply left to its time limit: it cannot see that a leader to which
//! it is still connected has stepped down, and its client would wait for nothing.
//!
//! Invariant: an attempt gets at most one answer from here, and "refused" is said only of what was
//! never appended.

use std::collections::{BTreeMap, VecDeque};

use kvraft_base::{Index, MemberId, Position, Term, Ticket};

use crate::frame::{Attempt, Frame};

/// Tickets from here on name commands that a peer passed on; the edge's own count from 1.
pub(crate) const REMOTE_TICKET_FIRST: u64 = 1 << 63;

/// Where a command came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Remote {
    pub(crate) from: MemberId,
    pub(crate) attempt: Attempt,
}

/// Commands of peers' clients.
#[derive(Debug)]
pub(crate) struct Forwards {
    /// In raft, not yet accepted or refused.
    proposed: BTreeMap<Ticket, Remote>,
    ticket_next: Ticket,
    /// In this leader's log, not yet committed; in order. Bounded by what raft lets in uncommitted.
    appended: VecDeque<(Position, Remote)>,
}

impl Forwards {
    pub(crate) fn new() -> Self {
        Self {
            proposed: BTreeMap::new(),
            ticket_next: Ticket(REMOTE_TICKET_FIRST),
            appended: VecDeque::new(),
        }
    }

    /// A command is about to be proposed, under the ticket returned.
    pub(crate) fn on_propose(&mut self, remote: Remote) -> Ticket {
        let ticket = self.ticket_next;
        self.ticket_next = ticket.next();
        self.proposed.insert(ticket, remote);
        ticket
    }

    /// Raft has appended it. False if the ticket is not one of these.
    pub(crate) fn on_appended(&mut self, ticket: Ticket, position: Position) -> bool {
        let Some(remote) = self.proposed.remove(&ticket) else { return false };
        self.appended.push_back((position, remote));
        true
    }

    /// Raft has not appended it.
    pub(crate) fn take_refused(&mut self, ticket: Ticket) -> Option<Remote> {
        self.proposed.remove(&ticket)
    }

    /// Everything up to here is committed: the asking servers see it when they apply it.
    pub(crate) fn on_committed(&mut self, index: Index) {
        while self.appended.pop_front_if(|(position, _)| position.index <= index).is_some() {}
    }

    /// This server leads in `term`, or does not lead. What it appended as leader of an earlier term
    /// may be overwritten, or not: the servers that asked are to be told.
    pub(crate) fn take_lost(&mut self, term: Option<Term>) -> Vec<(MemberId, Frame)> {
        let lost = self.appended.iter().take_while(|(position, _)| Some(position.term) != term);
        let count = lost.count();
        let lost = self.appended.drain(..count);
        let frame = |remote: Remote| Frame::ForwardLost { attempt: remote.attempt };
        lost.map(|(_, remote)| (remote.from, frame(remote))).collect()
    }
}
