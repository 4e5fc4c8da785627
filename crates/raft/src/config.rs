//! What a server of the group is told about itself, and what it finds when it starts.
//!
//! Why separate: both are checked once, before the protocol runs, so the protocol may rely on them.
//!
//! Invariant: a [`Raft`](crate::Raft) exists only for a valid configuration and a consistent start.

use std::time::Duration;

use kvraft_base::{Entry, EntryKind, HardState, Index, MemberId, Members, Position, Term, limits};
use serde::{Deserialize, Serialize};

use crate::LeaseReads;

/// Timings and bounds of one server.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Config {
    /// This server. Never 0, never reused.
    pub id: MemberId,
    /// Least time without a leader before a campaign; each wait is drawn from one to two of these
    /// (Raft §5.2). Also how long a leader lives without hearing from a majority.
    pub election_timeout: Duration,
    /// How often a leader is heard from. At most a third of `election_timeout`.
    pub heartbeat_interval: Duration,
    /// Longest wait before a campaign once the connection to the leader has closed.
    pub fail_over_jitter_max: Duration,
    /// Entries in one Append, in encoded bytes; one entry always fits.
    pub append_size_bytes_max: usize,
    /// Unanswered Appends to one follower.
    pub inflight_count_max: usize,
    /// Bytes of entries in unanswered Appends to one follower.
    pub inflight_bytes_max: usize,
    /// A follower that lacks more than this, or what is no longer in memory, catches up beside the
    /// fresh traffic, until one Append holds the rest.
    pub catch_up_bytes_min: usize,
    /// Recent log kept in memory. What is not yet durable and applied stays beyond it, up to twice
    /// this; then proposals are refused and Appends are dropped.
    pub window_bytes_max: usize,
    /// Entries handed to the state machine that it has not yet applied.
    pub apply_bytes_max: usize,
    /// Proposals that are not yet committed; further ones are refused as busy.
    pub uncommitted_bytes_max: usize,
    /// Answer reads by lease where that is possible. The same on every server of the group, as the
    /// election timeout is; no voter helps to elect another leader meanwhile, even if it sees the
    /// connection to the leader close.
    pub lease: Option<LeaseReads>,
}

impl Config {
    /// Defaults for a local network: 1 s election timeout, 100 ms heartbeats.
    #[must_use]
    pub fn new(id: MemberId) -> Self {
        Self {
            id,
            election_timeout: Duration::from_millis(1000),
            heartbeat_interval: Duration::from_millis(100),
            fail_over_jitter_max: Duration::from_millis(50),
            append_size_bytes_max: 512 * 1024,
            inflight_count_max: 128,
            inflight_bytes_max: 8 * 1024 * 1024,
            catch_up_bytes_min: 4 * 1024 * 1024,
            window_bytes_max: 64 * 1024 * 1024,
            apply_bytes_max: 16 * 1024 * 1024,
            uncommitted_bytes_max: 32 * 1024 * 1024,
            lease: None,
        }
    }

    /// How long a lease lasts; `None` when reads are not answered by lease.
    #[must_use]
    pub fn lease_length(&self) -> Option<Duration> {
        self.lease.and_then(|lease| lease.length(self.election_timeout))
    }

    /// Checks what the protocol relies on.
    ///
    /// # Errors
    /// The first setting that is out of bounds.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.id == MemberId::ZERO {
            return Err(ConfigError::NoId);
        }
        if self.heartbeat_interval.is_zero() || TIMEOUT_MAX < self.election_timeout {
            return Err(ConfigError::Timing(self.heartbeat_interval, self.election_timeout));
        }
        if self.election_timeout < self.heartbeat_interval * 3 {
            return Err(ConfigError::Timing(self.heartbeat_interval, self.election_timeout));
        }
        if self.election_timeout < self.fail_over_jitter_max {
            return Err(ConfigError::Jitter(self.fail_over_jitter_max, self.election_timeout));
        }
        if limits::ENTRY_SIZE_BYTES_MAX < self.append_size_bytes_max {
            return Err(ConfigError::AppendTooLarge(self.append_size_bytes_max));
        }
        if let Some(lease) = self.lease
            && self.lease_length().is_none_or(|length| length < self.heartbeat_interval * 2)
        {
            return Err(ConfigError::Lease(lease, self.election_timeout));
        }
        let bounds = [
            ("append_size_bytes_max", self.append_size_bytes_max),
            ("inflight_count_max", self.inflight_count_max),
            ("inflight_bytes_max", self.inflight_bytes_max),
            ("catch_up_bytes_min", self.catch_up_bytes_min),
            ("window_bytes_max", self.window_bytes_max),
            ("apply_bytes_max", self.apply_bytes_max),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max),
        ];
        match bounds.iter().find(|(_, value)| *value == 0) {
            Some((name, _)) => Err(ConfigError::Zero(name)),
            None => Ok(()),
        }
    }
}

/// A setting out of bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// Member ids start at 1.
    #[error("member id 0 names nobody")]
    NoId,
    /// Three heartbeats must fit into an election timeout, or one lost message deposes a leader.
    #[error(
        "heartbeat interval {0:?} and election timeout {1:?}: the first must not be zero, \
         at most a third of the second, and the second at most an hour"
    )]
    Timing(Duration, Duration),
    /// The jitter is a short cut, so it must be short.
    #[error("fail-over jitter {0:?} is longer than the election timeout {1:?}")]
    Jitter(Duration, Duration),
    /// An Append with one more entry must still fit into a frame.
    #[error("append_size_bytes_max {0} is over the size of the greatest entry")]
    AppendTooLarge(usize),
    /// A lease must last longer than it takes to renew it.
    #[error("of the election timeout {1:?} too little is left for a lease with {0:?}")]
    Lease(LeaseReads, Duration),
    /// A bound of zero lets nothing through.
    #[error("{0} must not be 0")]
    Zero(&'static str),
}

/// What recovery found on this server's disk.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Start {
    /// Term, vote and commit as last written.
    pub hard_state: HardState,
    /// The configuration in force at `applied`; of a hollow server, at `released`, if it is known.
    pub members: Members,
    /// A hollow server knows nothing but a configuration that was in force some time. It decides
    /// nothing by that one.
    pub members_are_old: bool,
    /// Last entry whose effects are in the table. Before `released` the entries in between are
    /// gone, and this server is hollow: it has a log, but waits for a snapshot to apply and to
    /// serve, and campaigns only to hand its log on.
    pub applied: Position,
    /// Just before the journal's first entry.
    pub released: Position,
    /// The journal's last entry, or `released` if it has none.
    pub last: Position,
    /// The end of the journal: contiguous, ends at `last`, begins at or before the entry after
    /// `applied`, or after `released` if that is later.
    pub tail: Vec<Entry>,
    /// The journal attests that it once held everything up to here. If it no longer does, this
    /// server neither votes nor campaigns until a leader has given it the log up to here again.
    pub attested: Index,
}

impl Start {
    /// A server that has never run.
    #[must_use]
    pub fn fresh(members: Members) -> Self {
        Self {
            hard_state: HardState::default(),
            members,
            members_are_old: false,
            applied: Position::ZERO,
            released: Position::ZERO,
            last: Position::ZERO,
            tail: Vec::new(),
            attested: Index::ZERO,
        }
    }

    /// Where the log that is of use begins.
    pub(crate) fn base(&self) -> Position {
        if self.applied.index < self.released.index { self.released } else { self.applied }
    }

    /// Checks that the parts agree with each other; `id` is who starts.
    pub(crate) fn validate(&self, id: MemberId) -> Result<(), StartError> {
        if self.last.index < self.applied.index {
            return Err(StartError::AppliedPastLog { applied: self.applied, last: self.last });
        }
        if self.applied.index < self.released.index && self.is_certainly_alone(id) {
            return Err(StartError::Gap { released: self.released, applied: self.applied });
        }
        if self.hard_state.term < self.last.term {
            let term = self.hard_state.term;
            return Err(StartError::TermBehindLog { term, last: self.last });
        }
        self.validate_tail()
    }

    /// Whether the newest configuration in the log is committed and has no other voter. What was in
    /// force where the table ends says nothing when entries after it are gone.
    fn is_certainly_alone(&self, id: MemberId) -> bool {
        let newest = self.tail.iter().rfind(|entry| entry.kind == EntryKind::Config);
        let whole = self.attested <= self.last.index;
        let newest = newest.filter(|entry| whole && entry.index <= self.hard_state.commit);
        let members = newest.and_then(|entry| Members::decode(entry.payload.clone()).ok());
        members.is_some_and(|members| members.is_quorum(|voter| voter == id))
    }

    fn validate_tail(&self) -> Result<(), StartError> {
        let base = self.base();
        let end = self.tail.last().map_or(base, Entry::position);
        let first = self.tail.first().map_or_else(|| base.index.next(), |entry| entry.index);
        if end != self.last || base.index.next() < first || first <= self.released.index {
            return Err(StartError::TailElsewhere { first, last: end });
        }
        let mut term = self.released.term;
        for (entry, index) in self.tail.iter().zip(first.0..) {
            let ordered = entry.index == Index(index) && term <= entry.term;
            let members_fine =
                entry.kind != EntryKind::Config || Members::decode(entry.payload.clone()).is_ok();
            let applied_fine = entry.index != self.applied.index || entry.term == self.applied.term;
            if !ordered || !entry.is_intact() || !members_fine || !applied_fine {
                return Err(StartError::BadEntry { at: entry.position() });
            }
            term = entry.term;
        }
        Ok(())
    }
}

/// Why a server cannot start from what is on its disk.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The configuration is out of bounds.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The table is ahead of the journal, so entries that were applied could be overwritten.
    #[error("the table holds entries up to {applied}, the journal only up to {last}")]
    AppliedPastLog {
        /// End of the table.
        applied: Position,
        /// End of the journal.
        last: Position,
    },
    /// Entries between table and journal are gone, and there is nobody to send a snapshot.
    #[error(
        "the journal starts after {released}, the table ends at {applied}, and no other member \
         has the state"
    )]
    Gap {
        /// Just before the journal's first entry.
        released: Position,
        /// End of the table.
        applied: Position,
    },
    /// The hard state is older than the log that was written with it.
    #[error("the hard state is at term {term}, the log ends at {last}")]
    TermBehindLog {
        /// Term of the hard state.
        term: Term,
        /// End of the journal.
        last: Position,
    },
    /// The tail does not connect the applied position with the last one.
    #[error("the log's tail runs from {first} to {last} and does not fit")]
    TailElsewhere {
        /// First index of the tail.
        first: Index,
        /// Its end.
        last: Position,
    },
    /// An entry of the tail is damaged or out of order.
    #[error("entry {at} is damaged or out of order")]
    BadEntry {
        /// Which.
        at: Position,
    },
}

/// Longest election timeout; sums of timeouts and drawn delays stay far from overflow.
const TIMEOUT_MAX: Duration = Duration::from_secs(3600);
