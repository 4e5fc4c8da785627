//! Counters of what should happen in a sweep at least once: a fault that never fires and a path
//! that is never taken test nothing.

use std::ops::AddAssign;

use kvraft_raft::Event;

use super::clients::{Ended, Record};

macro_rules! sometimes {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// How often each thing happened.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
        pub struct Sometimes {
            $($(#[$doc])* pub $field: u64,)*
        }

        impl Sometimes {
            /// Name and count of each, in a fixed order.
            #[must_use]
            pub fn rows(&self) -> Vec<(&'static str, u64)> {
                vec![$(($name, self.$field),)*]
            }
        }

        impl AddAssign for Sometimes {
            fn add_assign(&mut self, other: Self) {
                $(self.$field += other.$field;)*
            }
        }
    };
}

sometimes! {
    /// A server became leader.
    leader_elected: "leader elected",
    /// A leader stepped down because it heard from no majority.
    quorum_lost: "quorum lost",
    /// A follower's log did not contain what the leader expected.
    conflict_found: "conflict found",
    /// The end of a log was overwritten.
    log_truncated: "log truncated",
    /// Appends to a follower were lost and sent again.
    append_lost: "append lost",
    /// A follower needed a snapshot.
    snapshot_needed: "snapshot needed",
    /// A snapshot was installed.
    snapshot_installed: "snapshot installed",
    /// A server lost power.
    crashes: "crash",
    /// A server lost power in the middle of a write.
    fuse_blown: "crash inside a write",
    /// A server lost power during its recovery.
    crash_in_recovery: "crash during recovery",
    /// A server's process was killed.
    kills: "kill",
    /// A server stood still for a while.
    pauses: "pause",
    /// A server was cut off.
    disconnects: "server disconnected",
    /// The network was divided.
    partitions: "partition",
    /// An operation was answered.
    answered: "operation answered",
    /// An operation failed without effect.
    failed: "operation failed",
    /// An operation's outcome stayed unknown.
    unknown: "operation unknown",
    /// An operation was sent more than once.
    repeated: "operation repeated",
}

impl Sometimes {
    pub(crate) fn on_event(&mut self, event: &Event) {
        match event {
            Event::BecameLeader { .. } => self.leader_elected += 1,
            Event::QuorumLost { .. } => self.quorum_lost += 1,
            Event::ConflictFound { .. } => self.conflict_found += 1,
            Event::LogTruncated { .. } => self.log_truncated += 1,
            Event::AppendLost { .. } => self.append_lost += 1,
            Event::SnapshotNeeded { .. } => self.snapshot_needed += 1,
            Event::SnapshotInstalled { .. } => self.snapshot_installed += 1,
            Event::BecameFollower { .. }
            | Event::BecamePreCandidate { .. }
            | Event::BecameCandidate { .. }
            | Event::VoteGranted { .. }
            | Event::CommitAdvanced { .. }
            | Event::MembersChanged { .. }
            | Event::MembersCommitted { .. }
            | Event::LearnerPromoted { .. }
            | Event::Dismissed { .. }
            | Event::FollowerRegressed { .. }
            | Event::Unmuted { .. }
            | Event::Ignored { .. } => {}
        }
    }

    pub(crate) fn on_record(&mut self, record: &Record) {
        match record.ended {
            Some((_, Ended::Answered { .. })) => self.answered += 1,
            Some((_, Ended::Failed)) => self.failed += 1,
            Some((_, Ended::Unknown)) | None => self.unknown += 1,
        }
        if 1 < record.attempts.len() {
            self.repeated += 1;
        }
    }
}
