//! Linearizable reads without log entries (ReadIndex; Ongaro 2014, §6.4).
//!
//! Why rounds: a read may be served at the commit index of its arrival once a majority has said,
//! after the arrival, that this leader still leads. All reads that wait when a heartbeat leaves
//! share it.
//!
//! Invariants:
//! - a round's number is used once by a leader, and a term has one leader, so an answer confirms
//!   exactly the rounds up to its own, and no later one, however often it is repeated or delayed;
//! - a round starts only after an entry of the leader's own term is committed: before that its
//!   commit index may be behind that of its predecessor (§6.4);
//! - a follower's contexts only grow, and an answer serves only reads that had arrived before the
//!   context was made.
//!
//! What it lacks: knowing whether a round is needed at all; see `lease`.

use std::collections::VecDeque;

use kvraft_base::{Index, Instant, MemberId, Ticket};
use serde::{Deserialize, Serialize};

/// Who waits for a read index at a leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Reader {
    Local(Ticket),
    Remote { member: MemberId, context: u64 },
}

/// Reads at a leader.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct LeaderReads {
    /// Not yet part of a round.
    waiting: Vec<Reader>,
    /// Oldest first; numbers and indexes increase.
    rounds: VecDeque<Round>,
    count: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Round {
    number: u64,
    index: Index,
    readers: Vec<Reader>,
}

impl LeaderReads {
    pub(crate) fn has_room(&self) -> bool {
        self.count < WAITING_COUNT_MAX
    }

    pub(crate) fn push(&mut self, reader: Reader) {
        self.count += 1;
        self.waiting.push(reader);
    }

    /// What waits is served without a round.
    pub(crate) fn take_waiting(&mut self) -> Vec<Reader> {
        self.count -= self.waiting.len();
        std::mem::take(&mut self.waiting)
    }

    /// Whether a heartbeat should leave now for the sake of reads. With many rounds under way,
    /// they wait for the next regular one.
    pub(crate) fn wants_round(&self) -> bool {
        !self.waiting.is_empty() && self.rounds.len() < ROUND_COUNT_MAX
    }

    /// The heartbeat `number` leaves: what waits joins it, at this commit index.
    pub(crate) fn start_round(&mut self, number: u64, index: Index) {
        if self.waiting.is_empty() {
            return;
        }
        if let Some(newest) = self.rounds.back() {
            assert!(newest.number < number, "a round's number is never used twice");
            assert!(newest.index <= index, "the commit index never goes back");
        }
        let readers = std::mem::take(&mut self.waiting);
        self.rounds.push_back(Round { number, index, readers });
    }

    /// A majority has answered rounds up to `number`.
    pub(crate) fn confirm(&mut self, number: u64) -> Vec<(Reader, Index)> {
        let mut served = Vec::new();
        while let Some(round) = self.rounds.pop_front_if(|round| round.number <= number) {
            served.extend(round.readers.into_iter().map(|reader| (reader, round.index)));
        }
        self.count -= served.len();
        served
    }

    /// Everyone who still waits, in order of arrival.
    pub(crate) fn into_readers(self) -> impl Iterator<Item = Reader> {
        self.rounds.into_iter().flat_map(|round| round.readers).chain(self.waiting)
    }
}

/// Reads that a follower has asked its leader about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct ForwardedReads {
    waiting: Vec<Ticket>,
    /// Oldest first; contexts increase. A later answer serves earlier ones too.
    asked: VecDeque<(u64, Vec<Ticket>)>,
    asked_at: Instant,
    last_context: u64,
    count: usize,
}

impl ForwardedReads {
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn has_room(&self) -> bool {
        self.count < WAITING_COUNT_MAX
    }

    pub(crate) fn push(&mut self, ticket: Ticket) {
        self.count += 1;
        self.waiting.push(ticket);
    }

    /// When an unanswered request is repeated, under a new context.
    pub(crate) fn resend_at(&self, interval: std::time::Duration) -> Instant {
        if self.asked.is_empty() { Instant::NEVER } else { self.asked_at + interval }
    }

    /// Whether a request should leave now.
    pub(crate) fn is_due(&self, now: Instant, interval: std::time::Duration) -> bool {
        let may_ask = !self.waiting.is_empty() && self.asked.len() < ROUND_COUNT_MAX;
        may_ask || self.resend_at(interval) <= now
    }

    /// A request leaves under `context`, for all that wait.
    pub(crate) fn ask(&mut self, now: Instant, context: u64) {
        assert!(self.last_context < context, "a context is never used twice");
        self.last_context = context;
        self.asked_at = now;
        if !self.waiting.is_empty() {
            self.asked.push_back((context, std::mem::take(&mut self.waiting)));
        }
    }

    /// The leader has answered `context`: serves what was asked up to then.
    pub(crate) fn answer(&mut self, context: u64) -> Vec<Ticket> {
        if self.last_context < context {
            return Vec::new();
        }
        let mut served = Vec::new();
        while let Some((_, tickets)) = self.asked.pop_front_if(|asked| asked.0 <= context) {
            served.extend(tickets);
        }
        self.count -= served.len();
        served
    }

    /// Everyone who still waits, in order of arrival.
    pub(crate) fn take_all(&mut self) -> Vec<Ticket> {
        self.count = 0;
        let asked = std::mem::take(&mut self.asked);
        let mut tickets: Vec<Ticket> = asked.into_iter().flat_map(|(_, t)| t).collect();
        tickets.append(&mut self.waiting);
        tickets
    }
}

/// Rounds under way; later reads wait for the next regular heartbeat, or for an answer.
const ROUND_COUNT_MAX: usize = 16;

/// Reads that may wait at one server; further ones are refused as busy.
const WAITING_COUNT_MAX: usize = 65_536;
