//! Counters of what should happen in a sweep at least once: a fault that never fires and a path
//! that is never taken test nothing.

use std::ops::AddAssign;

use kvraft_raft::Event;

use super::checks::Looks;
use crate::history::{History, HistoryEvent, Outcome};

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
    /// Power was lost on a copy of a disk.
    rehearsals: "loss of power tried on a copy",
    /// A process was killed in the middle of a write.
    killed_inside_write: "kill inside a write",
    /// A server lost power during its recovery.
    crash_in_recovery: "crash during recovery",
    /// A bit of a table flipped.
    table_rotted: "table rotted",
    /// A bit of a journal flipped.
    journal_rotted: "journal rotted",
    /// What was hit of a journal was in its newest segment.
    newest_rotted: "newest segment rotted",
    /// A write went elsewhere.
    misdirected: "write misdirected",
    /// A write that was synced was not there.
    writes_lost: "synced write lost",
    /// A read was to be answered from elsewhere.
    misreads: "read to be answered from elsewhere",
    /// A server whose disk was hit was whole again.
    healed: "damage healed",
    /// A sector could not be read any more.
    bad_sectors: "sector unreadable",
    /// A read failed, and its process ended.
    read_failures: "stop after a failed read",
    /// A damaged table was given up.
    table_set_aside: "table set aside",
    /// A server ended because it met damage while it ran.
    damage_met: "damage met in use",
    /// A server started with a log but not the state before it.
    hollow_start: "hollow start",
    /// A server started with a part of its log missing.
    muted_start: "muted start",
    /// A damaged journal began anew after the table.
    journal_cut: "journal cut",
    /// Recovery completed an install.
    install_completed: "install completed",
    /// A server's process was killed.
    kills: "kill",
    /// All servers lost power at once.
    power_losses: "power lost everywhere",
    /// A server stood still for a while.
    pauses: "pause",
    /// A machine stood still for a while, its clocks too.
    suspends: "suspend",
    /// A wall clock jumped.
    jumps: "wall clock jumped",
    /// A server's clocks ran at another rate.
    drifts: "clock drifted",
    /// A disk became slower.
    slow_disks: "disk slowed",
    /// An operation of a disk took very long.
    stalls: "disk stalled",
    /// A disk had no room left.
    full_disks: "disk filled",
    /// A server ended itself because its disk had failed.
    disk_failures: "stop after a disk failure",
    /// A frame was damaged on its way.
    damaged_frames: "frame damaged",
    /// A directed link was stopped.
    blocks: "link blocked",
    /// A directed link held everything back.
    clogs: "link clogged",
    /// A directed link became slower.
    lags: "link slowed",
    /// A directed link became narrow.
    throttles: "link throttled",
    /// A frame found no room on such a link.
    overflows: "frame found no room",
    /// A client and a server lost each other, one way.
    client_cuts: "client cut off from a server",
    /// A client's process ended.
    client_crashes: "client crashed",
    /// It was waiting for an answer.
    client_crashes_waiting: "client crashed waiting",
    /// A client's process stood still.
    client_pauses: "client paused",
    /// A fuse was set to blow at a named point.
    ambushes: "ambush laid",
    /// A server started on what reads show and no disk has.
    forsaken_starts: "start on falsely clean pages",
    /// A request was refused since too much waited.
    busy: "request refused as busy",
    /// A machine had to wait for its table.
    overlay_full: "overlay full",
    /// A run went on while nothing happened.
    steady: "steady time watched",
    /// Everybody agreed on other members.
    members_changed: "members changed",
    /// Everybody agreed on a joint configuration.
    joint_entered: "joint configuration",
    /// A configuration was cut from a log again.
    members_cut: "configuration cut",
    /// A learner was promoted on its own.
    learner_promoted: "learner promoted",
    /// A leader committed its own removal or demotion.
    leader_removed: "leader removed",
    /// A removed server ended itself.
    removed_stopped: "removed server ended",
    /// A removed server asked for votes.
    removed_disturbed: "removed server disturbed",
    /// A new server was set up.
    servers_set_up: "server set up",
    /// A disk was lost with everything on it.
    disks_lost: "disk lost for ever",
    /// An operator heard that a change was done.
    change_done: "change done",
    /// An operator heard that a change was refused.
    change_refused: "change refused",
    /// An operator heard nothing.
    change_unknown: "change unknown",
    /// A change was not asked for, since too few servers would have been sound.
    change_forbidden: "change not dared",
    /// Leadership was handed over.
    transfer_done: "transfer done",
    /// A transfer ended without the wanted leader.
    transfer_failed: "transfer failed",
    /// A process was asked to stop.
    stops: "stop",
    /// It led, and handed over before.
    stops_of_leaders: "stop of a leader",
    /// A leader answered a read without asking a majority.
    lease_reads: "read by lease",
    /// A server stayed broken while the others had to make progress.
    left_behind: "server left broken",
    /// A server was cut off.
    disconnects: "server disconnected",
    /// A server noticed that a peer had fallen silent.
    silences: "silent peer noticed",
    /// Something went wrong with the coordinator, or was put right.
    coordinator_faults: "coordinator hit",
    /// The coordinator hinted that the leader is dead.
    hints: "hint given",
    /// It said so without reason.
    lies: "hint without reason",
    /// A server that heard its leader was told that it is dead.
    hints_ignored: "hint to one who hears",
    /// A server began to hurry because it was told that its leader is dead.
    hints_followed: "hint followed",
    /// The network was divided.
    partitions: "partition",
    /// Everybody agreed on a newer cluster version.
    versions_raised: "cluster version raised",
    /// So did servers that had begun with an older build.
    raised_by_upgrade: "cluster version raised by an upgrade",
    /// A server got a newer build.
    upgrades: "server upgraded",
    /// A server got an older build.
    downgrades: "server downgraded",
    /// A server did not know the cluster's version, and ended.
    builds_refused: "build turned away",
    /// An operation was answered.
    answered: "operation answered",
    /// An operation failed without effect.
    failed: "operation failed",
    /// An operation's outcome stayed unknown.
    unknown: "operation unknown",
    /// An operation was sent once more.
    repeated: "operation repeated",
    /// A client stopped waiting, and its server heard of it.
    cancelled: "request cancelled",
    /// A numbered operation reached the log again after it had been done.
    duplicates: "duplicate in the log",
    /// An operation came after its session had expired.
    expired: "session expired",
    /// The black-box search took the history.
    searched: "history searched",
    /// An acknowledgement was compared with the disk of whoever gave it.
    acknowledgements_checked: "acknowledgement checked",
    /// A vote was.
    votes_checked: "vote checked",
    /// A leader's votes were counted.
    elections_checked: "election checked",
    /// The disks that hold what is taken as committed were counted.
    quorums_checked: "quorum checked",
    /// A commit was compared with what was committed before.
    commits_checked: "commit checked",
    /// What recovery found was compared with what had been synced.
    recoveries_checked: "recovery checked",
    /// The configuration that a server decides by was compared with its log.
    configurations_checked: "configuration checked",
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
            Event::LearnerPromoted { .. } => self.learner_promoted += 1,
            Event::TransferDone { .. } => self.transfer_done += 1,
            Event::TransferFailed { .. } => self.transfer_failed += 1,
            Event::BecameFollower { .. }
            | Event::BecamePreCandidate { .. }
            | Event::BecameCandidate { .. }
            | Event::VoteGranted { .. }
            | Event::CommitAdvanced { .. }
            | Event::MembersChanged { .. }
            | Event::MembersCommitted { .. }
            | Event::Dismissed { .. }
            | Event::TransferBegun { .. }
            | Event::FollowerRegressed { .. }
            | Event::Unmuted { .. }
            | Event::Ignored { .. } => {}
        }
    }

    /// Counts what the checks of a finished run have looked at.
    pub(crate) fn on_looks(&mut self, looks: Looks) {
        self.acknowledgements_checked += looks.acknowledgements;
        self.votes_checked += looks.votes;
        self.elections_checked += looks.elections;
        self.quorums_checked += looks.quorums;
        self.commits_checked += looks.commits;
        self.recoveries_checked += looks.recoveries;
        self.configurations_checked += looks.configurations;
    }

    /// Counts how the operations of a finished run ended.
    pub(crate) fn on_history(&mut self, history: &History) {
        for event in history.events() {
            match event {
                HistoryEvent::Completed { outcome: Outcome::Ok(_), .. } => self.answered += 1,
                HistoryEvent::Completed { outcome: Outcome::Failed(_), .. } => self.failed += 1,
                HistoryEvent::Completed { outcome: Outcome::Unknown(_), .. } => self.unknown += 1,
                HistoryEvent::Invoked { .. } | HistoryEvent::Placed { .. } => {}
            }
        }
    }
}
