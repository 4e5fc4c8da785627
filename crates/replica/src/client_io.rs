//! Which clients wait for what: parked requests, forwarded ones, and entries in the log.
//!
//! Invariants: every ticket that is known here gets exactly one reply from here or from the
//! machine; "failed" is said only of what was never appended or was overwritten by a committed
//! entry of another term; all collections are bounded by what the edge lets in.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kvraft_base::{Entry, Index, MemberId, Position, Term, Ticket};
use kvraft_kv::Query;

use crate::hop::{Failure, Hop, Outcome, Reply};

/// Requests that wait because no leader is known. More are refused as "busy".
const PARKED_COUNT_MAX: usize = 4096;

/// A request that waits for a leader. Nothing of it has left this server.
#[derive(Clone, Debug)]
pub(crate) enum Parked {
    Command(Bytes),
    Query(Query),
}

/// Where a command went after it left the client.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Sent {
    /// In this server's raft, not yet accepted or refused.
    Proposed(Bytes),
    /// In this server's log as leader.
    Appended(Position),
    /// To the leader, which answers only if it refuses.
    Forwarded(MemberId),
}

/// The waiting clients of one server.
#[derive(Debug, Default)]
pub(crate) struct Waiting {
    parked: VecDeque<(Ticket, Parked)>,
    sent: BTreeMap<Ticket, Sent>,
    /// The same as the `Appended` ones in `sent`, by position: an index may be appended to again in
    /// a later term while the fate of the first is still open.
    appended: BTreeMap<(Index, Term), Ticket>,
    /// Linearizable reads whose read index raft is finding out.
    reads: BTreeMap<Ticket, Query>,
}

pub(crate) fn reply(ticket: Ticket, outcome: Outcome, out: &mut Vec<Hop>) {
    out.push(Hop::Reply(Reply { ticket, outcome, index: Index::ZERO }));
}

impl Waiting {
    /// How many requests wait for something.
    pub(crate) fn count(&self) -> usize {
        self.parked.len() + self.sent.len() + self.reads.len()
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Keeps a request until a leader is known, or refuses it: definitely without effect.
    pub(crate) fn park(&mut self, ticket: Ticket, request: Parked, out: &mut Vec<Hop>) {
        if PARKED_COUNT_MAX <= self.parked.len() {
            reply(ticket, Outcome::Failed(Failure::Busy), out);
            return;
        }
        self.parked.push_back((ticket, request));
    }

    pub(crate) fn take_parked(&mut self) -> VecDeque<(Ticket, Parked)> {
        std::mem::take(&mut self.parked)
    }

    pub(crate) fn on_propose(&mut self, ticket: Ticket, command: Bytes) {
        self.sent.insert(ticket, Sent::Proposed(command));
    }

    pub(crate) fn on_forward(&mut self, ticket: Ticket, leader: MemberId) {
        self.sent.insert(ticket, Sent::Forwarded(leader));
    }

    /// Raft has appended it here.
    pub(crate) fn on_appended(&mut self, ticket: Ticket, position: Position) {
        // A cancelled one is not tracked: nobody waits for its outcome.
        if let Some(sent) = self.sent.get_mut(&ticket) {
            *sent = Sent::Appended(position);
            self.appended.insert((position.index, position.term), ticket);
        }
    }

    /// Raft has not appended it: gives the command back, if its client still waits.
    pub(crate) fn take_refused(&mut self, ticket: Ticket) -> Option<Bytes> {
        match self.sent.remove(&ticket)? {
            Sent::Proposed(command) => Some(command),
            Sent::Appended(_) | Sent::Forwarded(_) => {
                unreachable!("raft refuses only what was proposed and not yet answered")
            }
        }
    }

    /// The leader has not appended what was forwarded to it.
    pub(crate) fn on_forward_refused(
        &mut self,
        ticket: Ticket,
        from: MemberId,
        out: &mut Vec<Hop>,
    ) {
        if self.sent.get(&ticket) == Some(&Sent::Forwarded(from)) {
            self.sent.remove(&ticket);
            reply(ticket, Outcome::Failed(Failure::LeaderChanged), out);
        }
    }

    pub(crate) fn on_read(&mut self, ticket: Ticket, query: Query) {
        self.reads.insert(ticket, query);
    }

    pub(crate) fn take_read(&mut self, ticket: Ticket) -> Option<Query> {
        self.reads.remove(&ticket)
    }

    /// The machine has answered these.
    pub(crate) fn on_answered(&mut self, tickets: &[Ticket]) {
        for ticket in tickets {
            if let Some(Sent::Appended(position)) = self.sent.remove(ticket) {
                self.appended.remove(&(position.index, position.term));
            }
        }
    }

    /// These entries are committed: what was appended here at the same index in another term has
    /// been overwritten for ever.
    pub(crate) fn on_committed(&mut self, entries: &[Entry], out: &mut Vec<Hop>) {
        if self.appended.is_empty() {
            return;
        }
        for entry in entries {
            let (first, last) = ((entry.index, Term::ZERO), (entry.index, Term(u64::MAX)));
            let here: Vec<_> = self.appended.range(first..=last).map(|(k, v)| (*k, *v)).collect();
            for (key, ticket) in here {
                self.appended.remove(&key);
                if key.1 != entry.term {
                    self.sent.remove(&ticket);
                    reply(ticket, Outcome::Failed(Failure::LeaderChanged), out);
                }
            }
        }
    }

    /// The log up to here was replaced by a snapshot: what became of entries in it is not known,
    /// and a forwarded command may be one of them.
    pub(crate) fn on_snapshot(&mut self, index: Index, out: &mut Vec<Hop>) {
        self.give_up(out, |sent| match sent {
            Sent::Appended(position) => position.index <= index,
            Sent::Forwarded(_) => true,
            Sent::Proposed(_) => false,
        });
    }

    /// The connection to a peer closed: what was forwarded to it may or may not have arrived.
    pub(crate) fn on_disconnected(&mut self, peer: MemberId, out: &mut Vec<Hop>) {
        self.give_up(out, |sent| *sent == Sent::Forwarded(peer));
    }

    /// Answers "unknown" to all that are `lost`.
    fn give_up(&mut self, out: &mut Vec<Hop>, lost: impl Fn(&Sent) -> bool) {
        for (ticket, sent) in self.sent.extract_if(.., |_, sent| lost(sent)) {
            if let Sent::Appended(position) = sent {
                self.appended.remove(&(position.index, position.term));
            }
            reply(ticket, Outcome::Unknown(Failure::LeaderChanged), out);
        }
    }

    /// The client has stopped waiting; whether it waited here.
    pub(crate) fn cancel(&mut self, ticket: Ticket) -> bool {
        let sent = self.sent.remove(&ticket);
        if let Some(Sent::Appended(position)) = &sent {
            self.appended.remove(&(position.index, position.term));
        }
        if sent.is_some() || self.reads.remove(&ticket).is_some() {
            return true;
        }
        let count = self.parked.len();
        self.parked.retain(|(parked, _)| *parked != ticket);
        self.parked.len() < count
    }
}
