//! What a check says when a rule was broken.

use std::fmt;

/// Names of the checks: stable, since recorded plans and planted bugs refer to them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Check {
    /// At most one leader per term, over all history (Raft §5.2).
    OneLeaderPerTerm,
    /// A server votes for one candidate per term, crashes included.
    OneVotePerTerm,
    /// A message promises only what is durable at its sender.
    PromiseIsDurable,
    /// What is committed at an index never differs between servers or over time (Raft §5.4.3).
    CommittedNeverChanges,
    /// What is committed is durable on a quorum of the configuration in force at who counted.
    CommittedIsDurable,
    /// A leader's log contains everything committed (Raft §5.4).
    LeaderCompleteness,
    /// A leader commits by counting entries of its own term only (Raft §5.4.2).
    CommitsOwnTerm,
    /// Who leads was voted for by a quorum of the configuration in force in its log.
    ElectedByQuorum,
    /// A configuration is in force from when it is appended until it is cut (Raft §6).
    MembersWhenAppended,
    /// The next configuration is appended when the last one is committed, and a joint one is
    /// followed by its new half.
    OneChangeAtATime,
    /// A leader changes members after it has committed an entry of its own term (Ongaro 2015).
    ChangeAfterOwnCommit,
    /// Any quorum of a configuration and any of the next have a server in common.
    ConfigurationsOverlap,
    /// An id that was used is never given to another member.
    IdsNeverReused,
    /// Who knows that it has no vote any more never leads again.
    RemovedNeverLeads,
    /// Members change as somebody asked for, once, and not when that was refused.
    ChangeIsAskedFor,
    /// What was synced is there after a crash.
    SyncedSurvives,
    /// A server's data can be opened again after a crash.
    Recovery,
    /// Connected followers keep up with the leader.
    LogsKeepSyncing,
    /// Answers are those of one store that everyone uses one after another.
    Linearizable,
    /// The same, found by a search that believes only what clients saw.
    LinearizableSearch,
    /// A numbered operation takes effect once.
    ExactlyOnce,
    /// What was said to have failed has no effect.
    FailedIsHonest,
    /// A damaged frame is seen as such.
    DamageIsCaught,
    /// A majority that can talk makes progress, whatever is wrong with the others.
    Progress,
    /// A run comes to its end in the events and the time that it is given.
    RunEnds,
    /// After the faults end everybody agrees, and every client is served.
    Convergence,
    /// Nothing panics.
    NoPanic,
}

impl Check {
    /// The name in reports, plans and headers of planted bugs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneLeaderPerTerm => "one-leader-per-term",
            Self::OneVotePerTerm => "one-vote-per-term",
            Self::PromiseIsDurable => "promise-is-durable",
            Self::CommittedNeverChanges => "committed-never-changes",
            Self::CommittedIsDurable => "committed-is-durable",
            Self::LeaderCompleteness => "leader-completeness",
            Self::CommitsOwnTerm => "commits-own-term",
            Self::ElectedByQuorum => "elected-by-quorum",
            Self::MembersWhenAppended => "members-when-appended",
            Self::OneChangeAtATime => "one-change-at-a-time",
            Self::ChangeAfterOwnCommit => "change-after-own-commit",
            Self::ConfigurationsOverlap => "configurations-overlap",
            Self::IdsNeverReused => "ids-never-reused",
            Self::RemovedNeverLeads => "removed-never-leads",
            Self::ChangeIsAskedFor => "change-is-asked-for",
            Self::SyncedSurvives => "synced-survives",
            Self::Recovery => "recovery",
            Self::LogsKeepSyncing => "logs-keep-syncing",
            Self::Linearizable => "linearizable",
            Self::LinearizableSearch => "linearizable-search",
            Self::ExactlyOnce => "exactly-once",
            Self::FailedIsHonest => "failed-is-honest",
            Self::DamageIsCaught => "damage-is-caught",
            Self::Progress => "progress",
            Self::RunEnds => "run-ends",
            Self::Convergence => "convergence",
            Self::NoPanic => "no-panic",
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which.
    pub check: Check,
    /// Who did what.
    pub detail: String,
}

impl Violation {
    /// Names the rule and what broke it.
    #[must_use]
    pub fn new(check: Check, detail: impl Into<String>) -> Self {
        Self { check, detail: detail.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.detail)
    }
}
