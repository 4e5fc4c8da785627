//! The bounds of one server: how much of each kind it keeps, sends ahead, or lets wait.
//!
//! Invariant: the defaults are those of the crates that hold to the bounds; nothing is said twice.

use std::time::Duration;

use kvraft_base::limits::ENTRY_SIZE_BYTES_MAX;
use kvraft_replica::{MachineOptions, NodeOptions};
use kvraft_store::Options;
use serde::{Deserialize, Serialize};

use super::{ConfigError, units};

/// The table `[limits]` of a configuration file. Sizes are bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct Limits {
    /// A segment of the journal is closed before it grows over this. At least 4 KiB.
    #[serde(with = "units::size")]
    pub journal_segment_size: u64,
    /// Entries kept in the journal behind the checkpoint, so that a follower that is a little
    /// behind needs no snapshot.
    pub retained_entries: u64,
    /// Memory for pages of the table.
    #[serde(with = "units::size")]
    pub table_cache_size: u64,
    /// A checkpoint is taken when this much is unsettled.
    #[serde(with = "units::size")]
    pub checkpoint_size: u64,
    /// A smaller checkpoint is taken after this long.
    #[serde(with = "units::time")]
    pub checkpoint_interval: Duration,
    /// With more than this unsettled, nothing is applied until the table has caught up.
    #[serde(with = "units::size")]
    pub overlay_size: u64,
    /// Memory of the requests of clients that wait, 2 KiB each beside their bytes; more are
    /// refused.
    #[serde(with = "units::size")]
    pub waiting_size: u64,
    /// Entries in the log and not applied, beyond which changes are refused.
    pub unapplied_entries: u64,
    /// Changes proposed and not committed, beyond which more are refused.
    #[serde(with = "units::size")]
    pub uncommitted_size: u64,
    /// Entries handed to the state machine and not applied.
    #[serde(with = "units::size")]
    pub applying_size: u64,
    /// Recent log kept in memory.
    #[serde(with = "units::size")]
    pub log_window_size: u64,
    /// Entries in one Append; one entry always fits.
    #[serde(with = "units::size")]
    pub append_size: u64,
    /// Appends on their way to one follower.
    pub inflight_appends: u64,
    /// Bytes of the Appends on their way to one follower.
    #[serde(with = "units::size")]
    pub inflight_size: u64,
    /// Bytes of snapshots that leave a leader in a second, for all followers together. At least 64
    /// KiB: there is no word for "no bound", since a great one is as good.
    #[serde(with = "units::size")]
    pub snapshot_rate: u64,
}

impl Default for Limits {
    fn default() -> Self {
        let (store, node) = (Options::default(), NodeOptions::default());
        let machine = MachineOptions::default();
        let raft = kvraft_raft::Config::new(kvraft_base::MemberId(1));
        Self {
            journal_segment_size: store.segment_size_bytes,
            retained_entries: node.retain_count,
            table_cache_size: store.cache_size_bytes as u64,
            checkpoint_size: machine.checkpoint_size_bytes as u64,
            checkpoint_interval: machine.checkpoint_interval,
            overlay_size: machine.overlay_size_bytes_max as u64,
            waiting_size: WAITING_SIZE_DEFAULT,
            unapplied_entries: node.unapplied_count_max,
            uncommitted_size: raft.uncommitted_bytes_max as u64,
            applying_size: raft.apply_bytes_max as u64,
            log_window_size: raft.window_bytes_max as u64,
            append_size: raft.append_size_bytes_max as u64,
            inflight_appends: raft.inflight_count_max as u64,
            inflight_size: raft.inflight_bytes_max as u64,
            snapshot_rate: node.snapshot_rate,
        }
    }
}

impl Limits {
    /// Checks each by its key.
    pub(super) fn validate(&self) -> Result<(), ConfigError> {
        let numbers = [
            ("table-cache-size", self.table_cache_size),
            ("checkpoint-size", self.checkpoint_size),
            ("overlay-size", self.overlay_size),
            ("waiting-size", self.waiting_size),
            ("unapplied-entries", self.unapplied_entries),
            ("uncommitted-size", self.uncommitted_size),
            ("applying-size", self.applying_size),
            ("log-window-size", self.log_window_size),
            ("append-size", self.append_size),
            ("inflight-appends", self.inflight_appends),
            ("inflight-size", self.inflight_size),
        ];
        if let Some((key, _)) = numbers.iter().find(|(_, number)| *number == 0) {
            return Err(limit(key, 0, "is too small: at least 1"));
        }
        if self.journal_segment_size < SEGMENT_SIZE_MIN {
            let number = self.journal_segment_size;
            return Err(limit("journal-segment-size", number, "is too small: at least 4KiB"));
        }
        if SEGMENT_SIZE_MAX < self.journal_segment_size {
            let number = self.journal_segment_size;
            return Err(limit("journal-segment-size", number, "is too large: at most 1GiB"));
        }
        if (ENTRY_SIZE_BYTES_MAX as u64) < self.append_size {
            let text = "is more than the greatest entry, 1638400 bytes";
            return Err(limit("append-size", self.append_size, text));
        }
        if self.overlay_size < self.checkpoint_size {
            let text = "is less than checkpoint-size, so that nothing would ever be settled";
            return Err(limit("overlay-size", self.overlay_size, text));
        }
        if self.snapshot_rate < SNAPSHOT_RATE_MIN {
            return Err(limit("snapshot-rate", self.snapshot_rate, "is too small: at least 64KiB"));
        }
        if self.checkpoint_interval.is_zero() {
            return Err(limit("checkpoint-interval", 0, "is too short: at least 1ms"));
        }
        Ok(())
    }

    /// What the disk is told.
    #[must_use]
    pub fn store(&self) -> Options {
        Options {
            segment_size_bytes: self.journal_segment_size,
            cache_size_bytes: size(self.table_cache_size),
            ..Options::default()
        }
    }

    /// What the node lane is told.
    #[must_use]
    pub fn node(&self) -> NodeOptions {
        NodeOptions {
            // A client that goes away gives its place back to the edge at once, to the lane when
            // its request is done: the lane's bound must not be the first to be met.
            waiting_count_max: size(self.waiting_size / WAITING_REQUEST_SIZE_MIN).saturating_mul(4),
            unapplied_count_max: self.unapplied_entries,
            retain_count: self.retained_entries,
            snapshot_rate: self.snapshot_rate,
            ..NodeOptions::default()
        }
    }

    /// What the machine lane is told.
    #[must_use]
    pub fn machine(&self) -> MachineOptions {
        MachineOptions {
            checkpoint_size_bytes: size(self.checkpoint_size),
            checkpoint_interval: self.checkpoint_interval,
            overlay_size_bytes_max: size(self.overlay_size),
            ..MachineOptions::default()
        }
    }

    /// Memory of the requests that may wait at the edge, in bytes.
    #[must_use]
    pub fn waiting_size_max(&self) -> usize {
        size(self.waiting_size)
    }

    /// What consensus is told.
    pub(super) fn set_raft(&self, raft: &mut kvraft_raft::Config) {
        raft.append_size_bytes_max = size(self.append_size);
        raft.inflight_count_max = size(self.inflight_appends);
        raft.inflight_bytes_max = size(self.inflight_size);
        raft.window_bytes_max = size(self.log_window_size);
        raft.apply_bytes_max = size(self.applying_size);
        raft.uncommitted_bytes_max = size(self.uncommitted_size);
    }
}

fn limit(key: &'static str, number: u64, why: &'static str) -> ConfigError {
    ConfigError::Limit { key, number, why }
}

/// A bound beyond this machine's memory is none.
fn size(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// 32,768 small requests, or 40 of the greatest.
const WAITING_SIZE_DEFAULT: u64 = 64 << 20;

/// What a waiting request takes at least.
const WAITING_REQUEST_SIZE_MIN: u64 = crate::driver::REQUEST_OVERHEAD_BYTES as u64;

/// Two seconds for a chunk: slower, a snapshot would hardly ever end.
const SNAPSHOT_RATE_MIN: u64 = 64 * 1024;

/// What the journal demands.
const SEGMENT_SIZE_MIN: u64 = 4 * 1024;

/// A segment is read whole when a server starts. The checksums would bear a thousand times as much.
const SEGMENT_SIZE_MAX: u64 = 1 << 30;
