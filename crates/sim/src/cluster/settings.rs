//! The settings of a run as words: `set network-loss 20000`.
//!
//! Invariant: a configuration is its plain one with what its lines set; a setting that no line
//! names is plain, so that a plan stays valid when settings are added.

use std::time::Duration;

use kvraft_raft::LeaseReads;

use super::config::ClusterConfig;
use crate::settings::{Setting, is_delay, settings};

/// The drift that leases stand, in parts per million, or `none`. Simulated leases have no margin
/// beside it.
impl Setting for Option<LeaseReads> {
    fn word(&self) -> String {
        self.map_or_else(|| "none".to_owned(), |lease| lease.drift_ppm_max.to_string())
    }

    fn parse(word: &str) -> Option<Self> {
        if word == "none" {
            return Some(None);
        }
        let drift_ppm_max = word.parse().ok()?;
        Some(Some(LeaseReads { drift_ppm_max, margin: Duration::ZERO }))
    }
}

fn is_size(size_bytes: &usize) -> bool {
    (1..=1 << 30).contains(size_bytes)
}

settings! {
    ClusterConfig, SETTINGS, and its network;
    "servers": (servers), "1 to 7", |count| (1..=7).contains(count);
    "first-phase": (faults_until), "a time such as 4.000s, up to 600s",
        |time: &Duration| *time <= Duration::from_secs(600);
    "leave-broken": (leave_broken), "yes or no", |_| true;
    "search": (searched), "yes or no", |_| true;
    "operators": (operators), "1 to 8", |count| (1..=8).contains(count);
    "coordinator": (coordinator), "yes or no", |_| true;
    "election-timeout": (election_timeout), "a time such as 0.300s, up to 60s", is_delay;
    "heartbeat": (heartbeat_interval), "a time such as 0.030s, up to 60s", is_delay;
    "lease-drift": (lease), "none or parts per million", |_| true;
    "free-disks": (free_disks), "yes or no", |_| true;
    "window-bytes": (window_size_bytes), "1 to 2^30", is_size;
    "segment-bytes": (segment_size_bytes), "4096 to 2^30",
        |size| (4_096..=1 << 30).contains(size);
    "retain-entries": (retain_count), "up to a million", |count| *count <= 1_000_000;
    "checkpoint-bytes": (checkpoint_size_bytes), "1 to 2^30", is_size;
    "checkpoint-interval": (checkpoint_interval), "a time such as 0.200s, from 1 ms to 60s",
        |time: &Duration| (Duration::from_millis(1)..=Duration::from_secs(60)).contains(time);
    "quick-repair-bytes": (quick_repair_bytes), "up to 2^40", |size| *size <= 1 << 40;
    "waiting-requests": (waiting_count_max), "1 to 2^30", is_size;
    "unapplied-entries": (unapplied_count_max), "1 to a million",
        |count| (1..=1_000_000).contains(count);
    "overlay-bytes": (overlay_size_bytes_max), "1 to 2^30", is_size;
    "old-servers": (old_servers), "0 to 7", |count| *count <= 7;
    "old-newcomers": (old_newcomers), "yes or no", |_| true;
    "steady": (is_steady), "yes or no", |_| true;
    "rehearsals": (is_rehearsed), "yes or no", |_| true;
    "catch-up-bytes": (catch_up_size_bytes), "1 to 2^30", is_size;
    "chunk-bytes": (chunk_size_bytes), "1 to 2^30", is_size;
}
