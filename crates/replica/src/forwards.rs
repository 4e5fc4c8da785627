//! The leader's side of what peers pass on: who is to be told when a command or a change of
//! members is not appended, when this server stops to lead before it is committed, or when a change
//! is over.
//!
//! Why the asking server is not simply left to its time limit: it cannot see that a leader to which
//! it is still connected has stepped down, and its client would wait for nothing.
//!
//! Invariant: an attempt gets at most one answer from here, and "refused" is said only of what was
//! never appended.

use std::collections::{BTreeMap, VecDeque};

use kvraft_base::{Index, MemberId, Position, Term, Ticket};
use kvraft_raft::Membership;
use serde::{Deserialize, Serialize};

use crate::frame::{Attempt, Frame};

/// Tickets from here on name what a peer passed on; the edge's own count from 1.
pub(crate) const REMOTE_TICKET_FIRST: u64 = 1 << 63;

/// Where a wish came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Remote {
    pub(crate) from: MemberId,
    pub(crate) attempt: Attempt,
}

/// What is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Kind {
    Command,
    Change,
}

/// What peers' clients want.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Forwards {
    /// In raft, not yet accepted or refused.
    proposed: BTreeMap<Ticket, (Kind, Remote)>,
    ticket_next: Ticket,
    /// Commands in this leader's log, not yet committed; in order. Bounded by what raft lets in
    /// uncommitted.
    appended: VecDeque<(Position, Remote)>,
    /// Changes in this leader's log that are not over. Raft lets in one at a time.
    changing: Vec<(Position, Remote)>,
}

impl Forwards {
    pub(crate) fn new() -> Self {
        Self {
            proposed: BTreeMap::new(),
            ticket_next: Ticket(REMOTE_TICKET_FIRST),
            appended: VecDeque::new(),
            changing: Vec::new(),
        }
    }

    /// Something is about to be proposed, under the ticket returned.
    pub(crate) fn on_propose(&mut self, kind: Kind, remote: Remote) -> Ticket {
        let ticket = self.ticket_next;
        self.ticket_next = ticket.next();
        self.proposed.insert(ticket, (kind, remote));
        ticket
    }

    /// Raft has appended it. False if the ticket is not one of these.
    pub(crate) fn on_appended(&mut self, ticket: Ticket, position: Position) -> bool {
        match self.proposed.remove(&ticket) {
            Some((Kind::Command, remote)) => self.appended.push_back((position, remote)),
            Some((Kind::Change, remote)) => self.changing.push((position, remote)),
            None => return false,
        }
        true
    }

    /// Raft has not appended it.
    pub(crate) fn take_refused(&mut self, ticket: Ticket) -> Option<Remote> {
        self.proposed.remove(&ticket).map(|(_, remote)| remote)
    }

    /// Everything up to here is committed: the asking servers see it when they apply it.
    pub(crate) fn on_committed(&mut self, index: Index) {
        while self.appended.pop_front_if(|(position, _)| position.index <= index).is_some() {}
    }

    /// This configuration is committed and not joint, and `is_kept` says what is still in the log:
    /// who asked for the changes that lie behind it.
    pub(crate) fn take_over(
        &mut self,
        membership: &Membership,
        is_kept: impl Fn(Position) -> bool,
    ) -> Vec<(MemberId, Frame)> {
        let over = |(position, _): &mut (Position, Remote)| {
            position.index <= membership.index && is_kept(*position)
        };
        let over = self.changing.extract_if(.., over);
        let frame = |remote: Remote| Frame::ChangeDone {
            attempt: remote.attempt,
            index: membership.index,
            members: (*membership.members).clone(),
        };
        over.map(|(_, remote)| (remote.from, frame(remote))).collect()
    }

    /// This server leads in `term`, or does not lead. What it appended as leader of an earlier term
    /// may be overwritten, or not: the servers that asked are to be told.
    pub(crate) fn take_lost(&mut self, term: Option<Term>) -> Vec<(MemberId, Frame)> {
        let lost = self.appended.iter().take_while(|(position, _)| Some(position.term) != term);
        let count = lost.count();
        let lost = self.appended.drain(..count);
        let changes = self.changing.extract_if(.., |(position, _)| Some(position.term) != term);
        let lost = lost.chain(changes);
        let frame = |remote: Remote| Frame::ForwardLost { attempt: remote.attempt };
        lost.map(|(_, remote)| (remote.from, frame(remote))).collect()
    }
}
