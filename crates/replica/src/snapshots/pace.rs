//! How fast snapshots leave this server, all of them together.
//!
//! Why a bound: a snapshot is read from the table and sent as fast as its receiver takes it, and on
//! one machine's disk and wire it would otherwise compete with all that clients wait for.
//!
//! Invariants: chunks leave in the order in which they came; over any second and a moment, no more
//! bytes leave than the rate allows and one chunk; what waits is bounded by the table lane, which
//! reads on only when chunks are taken.

use std::{collections::VecDeque, time::Duration};

use kvraft_base::{Instant, MemberId, thin};
use serde::{Deserialize, Serialize};

use crate::frame::SnapshotChunk;

/// What a late turn may catch up on. Timers are late by less.
const SLACK: Duration = Duration::from_millis(10);

/// See the module.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Pace {
    /// Bytes per second, at least 1.
    rate: u64,
    /// When the next chunk may leave.
    free_at: Instant,
    waiting: VecDeque<(MemberId, SnapshotChunk)>,
}

impl Pace {
    pub(crate) fn new(rate: u64) -> Self {
        Self { rate: rate.max(1), free_at: Instant::ZERO, waiting: VecDeque::new() }
    }

    /// A copy with zeroes for what is in the chunks.
    pub(crate) fn thinned(&self) -> Self {
        let mut copy = self.clone();
        for (_, chunk) in &mut copy.waiting {
            chunk.bytes = thin::zeroes(chunk.bytes.len());
        }
        copy
    }

    pub(crate) fn push(&mut self, to: MemberId, chunk: SnapshotChunk) {
        self.waiting.push_back((to, chunk));
    }

    /// The next chunk, if it may leave now.
    pub(crate) fn pop(&mut self, now: Instant) -> Option<(MemberId, SnapshotChunk)> {
        if now < self.free_at {
            return None;
        }
        let (to, chunk) = self.waiting.pop_front()?;
        let idle_since = Instant(now.0.saturating_sub(nanoseconds(SLACK)));
        let cost = (chunk.bytes.len() as u64).saturating_mul(NANOSECONDS) / self.rate;
        self.free_at = self.free_at.max(idle_since) + Duration::from_nanos(cost);
        Some((to, chunk))
    }

    /// When the next chunk may leave.
    pub(crate) fn deadline(&self) -> Instant {
        if self.waiting.is_empty() { Instant::NEVER } else { self.free_at }
    }

    /// Whether chunks for this follower wait.
    pub(crate) fn is_waiting(&self, to: MemberId) -> bool {
        self.waiting.iter().any(|(waiting, _)| *waiting == to)
    }

    /// Forgets what waits for this follower.
    pub(crate) fn forget(&mut self, to: MemberId) {
        self.waiting.retain(|(waiting, _)| *waiting != to);
    }
}

const NANOSECONDS: u64 = 1_000_000_000;

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
