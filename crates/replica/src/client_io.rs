//! Which clients wait for what: parked requests, forwarded ones, and entries in the log.
//!
//! Invariants: every ticket that is known here gets exactly one reply from here or from the
//! machine; "failed" is said only of what was never appended or was overwritten by a committed
//! entry of another term; all collections are bounded by what the edge lets in.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use kvraft_base::{Entry, Index, Instant, MemberId, Position, Term, Ticket};
use kvraft_kv::{Query, Redaction};
use kvraft_raft::{Change, Membership};
use serde::{Deserialize, Serialize};

use crate::{
    frame::changes_size_bytes,
    hop::{Failure, Hop, Outcome, Reply},
};

/// Requests that wait because no leader is known. More are refused as "busy".
const PARKED_COUNT_MAX: usize = 4096;

/// What only a leader can put into the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Wish {
    /// An encoded command.
    Command(Bytes),
    /// Other members.
    Members(Vec<Change>),
}

impl Wish {
    pub(crate) fn size_bytes(&self) -> usize {
        match self {
            Self::Command(command) => command.len(),
            Self::Members(changes) => changes_size_bytes(changes),
        }
    }

    fn redact(&mut self, redaction: Redaction) {
        match self {
            Self::Command(command) => *command = redaction.command(command),
            Self::Members(_) => {}
        }
    }
}

/// A request that waits for a leader. It is in no log, and nothing of it is on its way to one.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Parked {
    Wish(Wish),
    Query(Query),
}

/// A wish and when its client brought it, for as long as it may have to be parked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Kept {
    pub(crate) wish: Wish,
    pub(crate) arrived: Instant,
}

/// To whom a wish was passed on, and in which term that server was thought to lead.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Passed {
    pub(crate) leader: MemberId,
    pub(crate) term: Term,
    /// The attempt's number.
    pub(crate) number: u64,
}

/// Where a wish went after it left the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Sent {
    /// In this server's raft, not yet accepted or refused.
    Proposed(Kept),
    /// A command in this server's log as leader.
    Appended(Position),
    /// A change of members in this server's log as leader.
    Changing(Position),
    /// To the leader, which answers only if it refuses or loses it, or when a change is over.
    Forwarded(Passed, Kept),
}

/// The waiting clients of one server.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Waiting {
    /// With their arrival. Tickets grow, so this is about the order of arrival.
    parked: BTreeMap<Ticket, (Instant, Parked)>,
    sent: BTreeMap<Ticket, Sent>,
    /// The same as the `Appended` ones in `sent`, by position: an index may be appended to again in
    /// a later term while the fate of the first is still open.
    appended: BTreeMap<(Index, Term), Ticket>,
    /// Linearizable reads whose read index raft is finding out.
    reads: BTreeMap<Ticket, (Instant, Query)>,
}

pub(crate) fn reply(ticket: Ticket, outcome: Outcome, out: &mut Vec<Hop>) {
    out.push(Hop::Reply(Reply { ticket, outcome, index: Index::ZERO }));
}

impl Waiting {
    /// How many requests wait for something.
    pub(crate) fn count(&self) -> usize {
        self.parked.len() + self.sent.len() + self.reads.len()
    }

    /// Takes what clients have written out of everything that waits.
    pub(crate) fn redact(&mut self, redaction: Redaction) {
        let Self { parked, sent, appended: _, reads } = self;
        for (_, request) in parked.values_mut() {
            match request {
                Parked::Wish(wish) => wish.redact(redaction),
                Parked::Query(query) => redaction.query(query),
            }
        }
        for sent in sent.values_mut() {
            match sent {
                Sent::Proposed(kept) | Sent::Forwarded(_, kept) => kept.wish.redact(redaction),
                Sent::Appended(_) | Sent::Changing(_) => {}
            }
        }
        reads.values_mut().for_each(|(_, query)| redaction.query(query));
    }

    pub(crate) fn has_parked(&self) -> bool {
        !self.parked.is_empty()
    }

    /// Keeps a request until a leader is known, or refuses it: definitely without effect.
    pub(crate) fn park(
        &mut self,
        ticket: Ticket,
        arrived: Instant,
        request: Parked,
        out: &mut Vec<Hop>,
    ) {
        if PARKED_COUNT_MAX <= self.parked.len() {
            reply(ticket, Outcome::Failed(Failure::Busy), out);
            return;
        }
        self.parked.insert(ticket, (arrived, request));
    }

    pub(crate) fn take_parked(&mut self) -> BTreeMap<Ticket, (Instant, Parked)> {
        std::mem::take(&mut self.parked)
    }

    /// Refuses what has waited for too long since its client brought it: it had no effect.
    pub(crate) fn expire_parked(&mut self, now: Instant, time_max: Duration, out: &mut Vec<Hop>) {
        for (ticket, _) in self.parked.extract_if(.., |_, (arrived, _)| *arrived + time_max <= now)
        {
            reply(ticket, Outcome::Failed(Failure::NoLeader), out);
        }
    }

    pub(crate) fn on_propose(&mut self, ticket: Ticket, kept: Kept) {
        self.sent.insert(ticket, Sent::Proposed(kept));
    }

    pub(crate) fn on_forward(&mut self, ticket: Ticket, passed: Passed, kept: Kept) {
        self.sent.insert(ticket, Sent::Forwarded(passed, kept));
    }

    /// Raft has appended it here.
    pub(crate) fn on_appended(&mut self, ticket: Ticket, position: Position) {
        // A cancelled one is not tracked: nobody waits for its outcome.
        let Some(sent) = self.sent.get_mut(&ticket) else { return };
        if matches!(sent, Sent::Proposed(Kept { wish: Wish::Members(_), .. })) {
            *sent = Sent::Changing(position);
        } else {
            *sent = Sent::Appended(position);
            self.appended.insert((position.index, position.term), ticket);
        }
    }

    /// This configuration is committed and not joint, and `is_kept` says what is still in the log:
    /// changes that lie behind it are over.
    pub(crate) fn on_members(
        &mut self,
        membership: &Membership,
        is_kept: impl Fn(Position) -> bool,
        out: &mut Vec<Hop>,
    ) {
        let over = |sent: &Sent| match sent {
            Sent::Changing(position) => position.index <= membership.index && is_kept(*position),
            Sent::Proposed(_) | Sent::Appended(_) | Sent::Forwarded(..) => false,
        };
        for (ticket, _) in self.sent.extract_if(.., |_, sent| over(sent)) {
            reply(ticket, Outcome::Changed(Ok(membership.clone())), out);
        }
    }

    /// Raft has not appended it: gives the command back, if its client still waits.
    pub(crate) fn take_refused(&mut self, ticket: Ticket) -> Option<Kept> {
        match self.sent.remove(&ticket)? {
            Sent::Proposed(kept) => Some(kept),
            Sent::Appended(_) | Sent::Changing(_) | Sent::Forwarded(..) => {
                unreachable!("raft refuses only what was proposed and not yet answered")
            }
        }
    }

    /// This attempt at this leader has not led to anything and will not: gives the command back.
    /// `None` if it is not the present one, or its client has gone.
    pub(crate) fn take_forwarded(
        &mut self,
        ticket: Ticket,
        leader: MemberId,
        number: u64,
    ) -> Option<Kept> {
        let Some(Sent::Forwarded(passed, _)) = self.sent.get(&ticket) else { return None };
        if passed.leader != leader || passed.number != number {
            return None;
        }
        match self.sent.remove(&ticket) {
            Some(Sent::Forwarded(_, kept)) => Some(kept),
            Some(Sent::Proposed(_) | Sent::Appended(_) | Sent::Changing(_)) | None => None,
        }
    }

    pub(crate) fn on_read(&mut self, ticket: Ticket, arrived: Instant, query: Query) {
        self.reads.insert(ticket, (arrived, query));
    }

    pub(crate) fn take_read(&mut self, ticket: Ticket) -> Option<(Instant, Query)> {
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
            Sent::Appended(position) | Sent::Changing(position) => position.index <= index,
            Sent::Forwarded(..) => true,
            Sent::Proposed(_) => false,
        });
    }

    /// The connection to a peer closed: what was forwarded to it may or may not have arrived.
    pub(crate) fn on_disconnected(&mut self, peer: MemberId, out: &mut Vec<Hop>) {
        self.give_up(out, |sent| match sent {
            Sent::Forwarded(passed, _) => passed.leader == peer,
            Sent::Proposed(_) | Sent::Appended(_) | Sent::Changing(_) => false,
        });
    }

    /// Somebody else leads, or nobody, or in another term: what was forwarded before may be in a
    /// log that is about to be overwritten, and nobody is left who would say so. So it is with a
    /// change of members that this server has appended and not seen the end of; of a command, the
    /// log will tell.
    pub(crate) fn on_leader_changed(
        &mut self,
        leader: Option<MemberId>,
        term: Term,
        out: &mut Vec<Hop>,
    ) {
        self.give_up(out, |sent| match sent {
            Sent::Forwarded(passed, _) => Some(passed.leader) != leader || passed.term != term,
            // Its own leadership of that term is over, or nothing has changed.
            Sent::Changing(position) => position.term != term || leader.is_none(),
            Sent::Proposed(_) | Sent::Appended(_) => false,
        });
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

    /// A leader that had appended it leads no more: nobody knows what becomes of it.
    pub(crate) fn on_forward_lost(
        &mut self,
        ticket: Ticket,
        from: MemberId,
        number: u64,
        out: &mut Vec<Hop>,
    ) {
        if self.take_forwarded(ticket, from, number).is_some() {
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
        self.parked.remove(&ticket).is_some()
    }
}
