//! What a leader knows of one follower, and how it sends to it.
//!
//! Why three states: while the common prefix is unknown, one cheap Append at a time looks for it
//! (probe); once it is known, entries are sent ahead of the answers (replicate); when what the
//! follower needs is no longer in the journal, a snapshot is under way (snapshot).
//!
//! Invariants:
//! - `matched` is durable at the follower and never past the leader's log;
//! - `matched <= sent` outside of a search;
//! - what is in flight is bounded in count and in bytes;
//! - what is in flight is either all fresh or all to catch up on: the two have connections of their
//!   own, and are not to overtake each other.
//!
//! What it lacks: sending itself; that is the leader's.

use std::{collections::VecDeque, time::Duration};

use kvraft_base::{Index, Instant, Position};
use serde::{Deserialize, Serialize};

use crate::{Config, PeerState};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Progress {
    /// Greatest position known to match and to be durable at the follower.
    pub(crate) matched: Position,
    /// What the next Append follows.
    pub(crate) sent: Position,
    /// Highest commit index that the follower was told.
    pub(crate) told_commit: Index,
    /// When it last answered in this term.
    pub(crate) heard: Instant,
    /// Highest heartbeat round that it answered.
    pub(crate) answered_round: u64,
    /// The last heartbeat round when `matched` moved: answers to later ones cannot show less.
    pub(crate) matched_round: u64,
    /// It has left, and is sent to until it knows, no longer than this.
    pub(crate) farewell_until: Option<Instant>,
    pub(crate) state: State,
}

/// How a follower is sent to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum State {
    Probe(Search),
    Replicate { inflight: Inflight, fetch: Option<u64> },
    Snapshot { retry_at: Option<Instant> },
}

impl Progress {
    /// At the start of a term: the follower is assumed to have everything before the first entry of
    /// the term, until it says otherwise.
    pub(crate) fn new(last: Position, now: Instant) -> Self {
        Self {
            matched: Position::ZERO,
            sent: last,
            told_commit: Index::ZERO,
            heard: now,
            answered_round: 0,
            matched_round: 0,
            farewell_until: None,
            state: State::Probe(Search::new(Index::ZERO, last.index.next())),
        }
    }

    pub(crate) fn peer_state(&self) -> PeerState {
        match self.state {
            State::Probe(_) => PeerState::Probe,
            State::Replicate { .. } => PeerState::Replicate,
            State::Snapshot { .. } => PeerState::Snapshot,
        }
    }

    /// The follower holds everything up to `matched`, known after heartbeat `round` had left.
    pub(crate) fn note_match(&mut self, matched: Position, round: u64) {
        if self.matched.index < matched.index {
            self.matched = matched;
            self.matched_round = round;
        }
    }

    /// Sends ahead from `from`, which is known to match.
    pub(crate) fn become_replicating(&mut self, from: Position) {
        self.sent = from;
        self.state = State::Replicate { inflight: Inflight::default(), fetch: None };
    }

    /// Looks for the match again, starting where it is known to be.
    pub(crate) fn become_probing(&mut self) {
        self.sent = self.matched;
        let low = self.matched.index;
        self.state = State::Probe(Search::new(low, low.next()));
    }

    /// Asks whether the follower's log contains `position`, the first that can be sent from.
    pub(crate) fn become_probing_at(&mut self, position: Position) {
        let low = self.matched.index.min(position.index);
        self.sent = position;
        self.state = State::Probe(Search::new(low, position.index.next()));
    }

    /// The follower has lost what it had; nothing is known of it.
    pub(crate) fn forget(&mut self, last: Position) {
        *self = Self {
            heard: self.heard,
            answered_round: self.answered_round,
            farewell_until: self.farewell_until,
            ..Self::new(last, self.heard)
        };
    }
}

/// A search for the end of the common prefix, in O(log n) round trips whatever the terms are.
///
/// The follower's hint skips whole terms where that is possible. Where terms alternate it skips
/// little, so successive conflicts step back by 1, 2, 4, … from the hint; once something matches,
/// the gap is halved until it is small enough to be sent.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Search {
    /// Known to match.
    low: Index,
    /// Known not to match, here and after. Invariant: `low < high`.
    high: Index,
    conflict_count: u32,
    /// A probe of this search has matched, so the end is bracketed.
    bracketed: bool,
    /// The heartbeat round in which the probe under way was sent.
    waiting_since: Option<u64>,
    /// A probe was lost: later ones carry no entries, to be cheap.
    lossy: bool,
}

/// How a search goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Probe here.
    Probe(Index),
    /// The known match is near enough to the end: send from there.
    Found,
}

impl Search {
    pub(crate) fn new(low: Index, high: Index) -> Self {
        assert!(low < high, "a search has somewhere to look");
        Self { low, high, conflict_count: 0, bracketed: false, waiting_since: None, lossy: false }
    }

    /// Whether the probe at `index` should carry entries: when it probably, or surely, matches.
    pub(crate) fn is_hopeful(&self, index: Index) -> bool {
        !self.lossy && (self.conflict_count == 0 || index <= self.low)
    }

    pub(crate) fn is_waiting(&self) -> bool {
        self.waiting_since.is_some()
    }

    /// A probe leaves after heartbeat `round`.
    pub(crate) fn wait(&mut self, round: u64) {
        self.waiting_since = Some(round);
    }

    /// The follower answers heartbeat `round`. If the probe was sent before, it may be lost.
    pub(crate) fn on_heartbeat_answer(&mut self, round: u64) {
        if self.waiting_since.is_some_and(|since| since < round) {
            self.on_probe_lost();
        }
    }

    /// The probe that was waited for, if any, is not answered any more: the next may leave.
    pub(crate) fn on_probe_lost(&mut self) {
        if self.waiting_since.take().is_some() {
            self.lossy = true;
        }
    }

    pub(crate) fn high(&self) -> Index {
        self.high
    }

    /// Nothing matches at `rejected`, nor between `bound` and it; all up to `matched` does, and up
    /// to the follower's `commit`, unless it crashes: that need not be durable there yet.
    pub(crate) fn on_conflict(
        &mut self,
        rejected: Index,
        bound: Index,
        commit: Index,
        matched: Index,
    ) -> Index {
        assert!(matched < rejected, "what is matched is not rejected");
        self.waiting_since = None;
        self.conflict_count += 1;
        self.high = self.high.min(rejected).min(bound.next()).max(matched.next());
        if self.high <= self.low {
            self.low = matched;
        }
        self.low = self.low.max(commit.min(self.high.prev()));
        assert!(self.low < self.high, "a search has somewhere to look");
        let step = 1u64.checked_shl(self.conflict_count - 1).unwrap_or(u64::MAX) - 1;
        let target = Index(self.high.prev().0.saturating_sub(step));
        // Stepping back past all that is known to match brackets the end, too.
        self.bracketed |= target <= self.low;
        match self.bracketed {
            true if self.is_narrow() => self.low,
            true => self.middle(),
            false => target,
        }
    }

    /// The follower's log matches at `index`.
    pub(crate) fn on_match(&mut self, index: Index) -> Next {
        self.waiting_since = None;
        self.bracketed = true;
        self.low = self.low.max(index);
        if self.is_narrow() { Next::Found } else { Next::Probe(self.middle()) }
    }

    fn is_narrow(&self) -> bool {
        self.high.0.saturating_sub(self.low.0) <= GAP_COUNT_MAX
    }

    fn middle(&self) -> Index {
        Index(self.low.0 + (self.high.0 - self.low.0) / 2)
    }
}

/// Appends under way to one follower, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Inflight {
    appends: VecDeque<Flight>,
    size_bytes: usize,
    /// Set while the follower catches up on a connection of its own: how far it was last seen to
    /// have received the log, and when that moved.
    catch_up: Option<(Index, Instant)>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Flight {
    last: Index,
    size_bytes: usize,
    /// The last heartbeat round when it was sent.
    round: u64,
}

impl Inflight {
    pub(crate) fn has_room(&self, config: &Config) -> bool {
        self.appends.len() < config.inflight_count_max
            && self.size_bytes < config.inflight_bytes_max
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.appends.is_empty()
    }

    pub(crate) fn is_catching_up(&self) -> bool {
        self.catch_up.is_some()
    }

    /// Says how what comes next is sent. False: not yet, since Appends on two connections would
    /// overtake each other, and a follower refuses what it cannot join.
    pub(crate) fn turn_to(&mut self, catch_up: bool, now: Instant) -> bool {
        if self.catch_up.is_some() == catch_up {
            return true;
        }
        if self.appends.is_empty() {
            self.catch_up = catch_up.then_some((Index::ZERO, now));
        }
        self.appends.is_empty()
    }

    pub(crate) fn add(&mut self, last: Index, size_bytes: usize, round: u64, now: Instant) {
        if let Some((_, moved_at)) = &mut self.catch_up
            && self.appends.is_empty()
        {
            *moved_at = now;
        }
        self.size_bytes += size_bytes;
        self.appends.push_back(Flight { last, size_bytes, round });
    }

    /// Everything up to `matched` has been answered.
    pub(crate) fn free(&mut self, matched: Index) {
        while let Some(flight) = self.appends.pop_front_if(|flight| flight.last <= matched) {
            self.size_bytes -= flight.size_bytes;
        }
    }

    /// Whether the oldest was sent before heartbeat `round`, yet the follower, when it answered
    /// that round, had received the log only up to `received`. (A lost answer needs no such guess:
    /// the heartbeat's answer carries what is durable.)
    ///
    /// Heartbeats overtake what a follower catches up on, so that the order proves nothing then; it
    /// is lost when nothing has arrived for `patience`.
    pub(crate) fn is_lost(
        &mut self,
        round: u64,
        received: Index,
        now: Instant,
        patience: Duration,
    ) -> bool {
        let Some(oldest) = self.appends.front() else { return false };
        let missing = oldest.round < round && received < oldest.last;
        let Some((seen, moved_at)) = &mut self.catch_up else { return missing };
        if *seen < received {
            (*seen, *moved_at) = (received, now);
        }
        missing && patience <= now.since(*moved_at)
    }
}

/// Entries that are sent again rather than searched any further.
const GAP_COUNT_MAX: u64 = 64;
