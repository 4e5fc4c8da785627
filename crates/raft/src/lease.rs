//! Reads by lease: a leader that a majority has heard a moment ago need not ask it again (Ongaro
//! 2014, §6.4.1).
//!
//! Why it can be right: a voter that has heard a leader helps nobody else to lead for an election
//! timeout. As long as that has not passed at a majority, no other leader can have committed
//! anything. The leader counts from when it sent the heartbeat that the majority answered, which is
//! before any of them heard it, and less than an election timeout by as much as clocks may differ.
//!
//! What it rests on, beside the protocol:
//! - no two clocks of the group differ in rate by more than the configured bound, and all servers
//!   have the same election timeout and use leases, or none does;
//! - a clock goes on while its process, or its machine, is suspended, or its jump is seen.
//!
//! Invariants:
//! - only a round that was sent after the last doubt extends the lease;
//! - once a successor was told to campaign there is no lease for the rest of the term: that
//!   message, or the vote requests that follow from it, may arrive at any later time.

use std::{collections::VecDeque, time::Duration};

use kvraft_base::Instant;
use serde::{Deserialize, Serialize};

/// How a leader may answer reads without asking a majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LeaseReads {
    /// Greatest difference in rate between any two clocks of the group, in parts per million.
    pub drift_ppm_max: u32,
    /// Taken off the lease beside the drift.
    pub margin: Duration,
}

impl LeaseReads {
    /// How long a lease lasts from when its heartbeat was sent; `None` when nothing is left.
    #[must_use]
    pub fn length(&self, election_timeout: Duration) -> Option<Duration> {
        let drift = election_timeout * self.drift_ppm_max / 1_000_000 + Duration::from_nanos(1);
        election_timeout.checked_sub(drift)?.checked_sub(self.margin)
    }
}

/// A leader's lease. Without [`LeaseReads`] no round is ever noted, and it never holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Lease {
    /// Rounds that are not confirmed yet, by number, and when each was sent. Oldest first.
    sent: VecDeque<(u64, Instant)>,
    until: Instant,
    /// Given up until the term ends.
    over: bool,
}

impl Lease {
    /// Heartbeat `round` leaves.
    pub(crate) fn start_round(&mut self, round: u64, now: Instant) {
        if self.over {
            return;
        }
        if self.sent.len() == ROUND_COUNT_MAX {
            self.sent.pop_front();
        }
        self.sent.push_back((round, now));
    }

    /// A majority has answered rounds up to `round`.
    pub(crate) fn confirm(&mut self, round: u64, length: Duration) {
        while let Some((_, sent_at)) = self.sent.pop_front_if(|sent| sent.0 <= round) {
            self.until = self.until.max(sent_at + length);
        }
    }

    /// Until when it holds.
    pub(crate) fn until(&self) -> Instant {
        self.until
    }

    /// What is known may not be so: only rounds sent from now on count.
    pub(crate) fn doubt(&mut self) {
        self.sent.clear();
        self.until = Instant::ZERO;
    }

    /// Somebody may be elected at any time.
    pub(crate) fn give_up(&mut self) {
        self.doubt();
        self.over = true;
    }
}

/// Rounds under way; an older one would extend the lease by little.
const ROUND_COUNT_MAX: usize = 64;
