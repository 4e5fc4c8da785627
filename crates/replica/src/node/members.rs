//! Who asks for other members or another leader, and this server's own removal.
//!
//! Invariants:
//! - a change is answered as done only when a configuration is committed, and not joint, at or
//!   after the change's own entry, and that entry is still in the log;
//! - a leader that leads no more answers "unknown" for what it has appended and not finished;
//! - a removed server lingers for a moment before it stops, so that what it knows gets out.

use std::{collections::BTreeSet, time::Duration};

use kvraft_base::{Index, Instant, MemberId, Position, Term, Ticket};
use kvraft_raft::{Membership, Raft, Refusal};

use super::Node;
use crate::{
    client_io::reply,
    hop::{Failure, Fatal, Hop, Outcome},
};

/// A removed server stops so long after it has learnt of that: its answers and last messages are
/// still on their way.
const REMOVED_LINGER: Duration = Duration::from_secs(1);

/// See the module.
#[derive(Debug, Default)]
pub(super) struct MemberIo {
    /// In raft, neither accepted nor refused.
    asked: BTreeSet<Ticket>,
    /// In this leader's log, not over.
    appended: Vec<(Position, Ticket)>,
    /// Who waits for a transfer's end.
    transfers: BTreeSet<Ticket>,
    /// This server's removal, and when it has to stop because of it.
    removed: Option<(Index, Instant)>,
}

impl MemberIo {
    /// How many requests wait for something.
    pub(super) fn count(&self) -> usize {
        self.asked.len() + self.appended.len() + self.transfers.len()
    }

    pub(super) fn on_asked(&mut self, ticket: Ticket) {
        self.asked.insert(ticket);
    }

    pub(super) fn on_transfer(&mut self, ticket: Ticket) {
        self.transfers.insert(ticket);
    }

    /// Raft has appended it. False if the ticket is not one of these.
    pub(super) fn on_appended(&mut self, ticket: Ticket, position: Position) -> bool {
        let known = self.asked.remove(&ticket);
        if known {
            self.appended.push((position, ticket));
        }
        known
    }

    /// Raft has not appended it. False if the ticket is not one of these.
    pub(super) fn on_refused(
        &mut self,
        ticket: Ticket,
        refusal: Refusal,
        out: &mut Vec<Hop>,
    ) -> bool {
        let known = self.asked.remove(&ticket);
        if known {
            reply(ticket, Outcome::Changed(Err(refusal)), out);
        }
        known
    }

    pub(super) fn on_transferred(
        &mut self,
        ticket: Ticket,
        result: Result<MemberId, Refusal>,
        out: &mut Vec<Hop>,
    ) {
        if self.transfers.remove(&ticket) {
            reply(ticket, Outcome::Transferred(result), out);
        }
    }

    /// Answers the changes that are over.
    fn finish(&mut self, raft: &Raft, membership: &Membership, out: &mut Vec<Hop>) {
        if membership.is_pending() {
            return;
        }
        let over = |(position, _): &mut (Position, Ticket)| {
            position.index <= membership.index
                && raft.term_at(position.index) == Some(position.term)
        };
        for (_, ticket) in self.appended.extract_if(.., over) {
            reply(ticket, Outcome::Changed(Ok(membership.clone())), out);
        }
    }

    /// This server leads in `term`, or does not lead.
    pub(super) fn on_leader_changed(&mut self, term: Option<Term>, out: &mut Vec<Hop>) {
        let lost = |(position, _): &mut (Position, Ticket)| Some(position.term) != term;
        for (_, ticket) in self.appended.extract_if(.., lost) {
            reply(ticket, Outcome::Unknown(Failure::LeaderChanged), out);
        }
    }

    /// The client has stopped waiting; whether it waited here.
    pub(super) fn cancel(&mut self, ticket: Ticket) -> bool {
        let count = self.appended.len();
        self.appended.retain(|(_, appended)| *appended != ticket);
        self.appended.len() < count || self.asked.remove(&ticket) || self.transfers.remove(&ticket)
    }

    /// When to step again because of a removal. A leader hands over first; what ends its leadership
    /// steps it.
    pub(super) fn removal_deadline(&self, leads: bool) -> Instant {
        self.removed.filter(|_| !leads).map_or(Instant::NEVER, |(_, at)| at)
    }
}

impl Node {
    pub(super) fn on_members(&mut self, now: Instant, membership: Membership, out: &mut Vec<Hop>) {
        self.members.finish(&self.raft, &membership, out);
        if is_removed(self.me, &membership) && self.members.removed.is_none() {
            self.members.removed = Some((membership.index, now + REMOVED_LINGER));
        }
        out.push(Hop::Members(membership));
    }

    /// Said once; whoever hears it stops this server.
    pub(super) fn stop_if_removed(&mut self, now: Instant, out: &mut Vec<Hop>) {
        if self.is_leading() {
            return;
        }
        if let Some((index, _)) = self.members.removed.take_if(|(_, at)| *at <= now) {
            out.push(Hop::Fatal(Fatal::Removed { index }));
        }
    }
}

/// Whether `me` is no member for good: not by a configuration of before it was added, which a
/// joining server comes across when it receives the log. An id is taken when its member is added,
/// and never again.
fn is_removed(me: MemberId, membership: &Membership) -> bool {
    let members = &membership.members;
    !membership.is_pending() && !members.contains(me) && me <= members.id_max()
}
