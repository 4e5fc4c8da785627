//! What a check says when a rule was broken.

use std::{fmt, str::FromStr};

macro_rules! checks {
    ($($(#[$doc:meta])* $check:ident: $name:literal,)*) => {
        /// Names of the checks: stable, since recorded plans and planted bugs refer to them.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Check {
            $($(#[$doc])* $check,)*
        }

        impl Check {
            /// Every check.
            pub const ALL: &[Self] = &[$(Self::$check,)*];

            /// The name in reports, plans and headers of planted bugs.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$check => $name,)*
                }
            }
        }
    };
}

checks! {
    /// At most one leader per term, over all history (Raft §5.2).
    OneLeaderPerTerm: "one-leader-per-term",
    /// A server votes for one candidate per term, crashes included.
    OneVotePerTerm: "one-vote-per-term",
    /// A message promises only what is durable at its sender.
    PromiseIsDurable: "promise-is-durable",
    /// What is committed at an index never differs between servers or over time (Raft §5.4.3).
    CommittedNeverChanges: "committed-never-changes",
    /// What is committed is durable on a quorum of the configuration in force at who counted.
    CommittedIsDurable: "committed-is-durable",
    /// A leader's log contains everything committed (Raft §5.4).
    LeaderCompleteness: "leader-completeness",
    /// A leader commits by counting entries of its own term only (Raft §5.4.2).
    CommitsOwnTerm: "commits-own-term",
    /// Who leads was voted for by a quorum of the configuration in force in its log.
    ElectedByQuorum: "elected-by-quorum",
    /// A configuration is in force from when it is appended until it is cut (Raft §6).
    MembersWhenAppended: "members-when-appended",
    /// The next configuration is appended when the last one is committed, and a joint one is
    /// followed by its new half.
    OneChangeAtATime: "one-change-at-a-time",
    /// A leader changes members after it has committed an entry of its own term (Ongaro 2015).
    ChangeAfterOwnCommit: "change-after-own-commit",
    /// Any quorum of a configuration and any of the next have a server in common.
    ConfigurationsOverlap: "configurations-overlap",
    /// An id that was used is never given to another member.
    IdsNeverReused: "ids-never-reused",
    /// Who knows that it has no vote any more never leads again.
    RemovedNeverLeads: "removed-never-leads",
    /// Members change as somebody asked for, once, and not when that was refused.
    ChangeIsAskedFor: "change-is-asked-for",
    /// What was synced is there after a crash.
    SyncedSurvives: "synced-survives",
    /// A server's data can be opened again after a crash.
    Recovery: "recovery",
    /// A hint of the coordinator moves nobody who hears its leader, and nobody further than to ask
    /// whether it would be elected: no healthy leader is deposed by it.
    HintDeposesNobody: "hint-deposes-nobody",
    /// Connected followers keep up with the leader.
    LogsKeepSyncing: "logs-keep-syncing",
    /// Answers are those of one store that everyone uses one after another.
    Linearizable: "linearizable",
    /// The same, found by a search that believes only what clients saw.
    LinearizableSearch: "linearizable-search",
    /// A server's state is what the log up to there makes of an empty store, at every index that it
    /// has applied, after snapshots and restarts too.
    StateIsReplayed: "state-is-replayed",
    /// Nobody runs on a cluster version that its build does not know; all have the same one at one
    /// index; and it is raised only when every member knows the next one.
    VersionsAreSupported: "versions-are-supported",
    /// What waits in a server is within the bounds that it was given.
    QueuesAreBounded: "queues-are-bounded",
    /// While nothing happens terms hardly grow.
    ElectionsAreRare: "elections-are-rare",
    /// When all is done nothing waits in a server, and nothing lies about on its disk.
    NothingLeaks: "nothing-leaks",
    /// A numbered operation takes effect once.
    ExactlyOnce: "exactly-once",
    /// What was said to have failed has no effect.
    FailedIsHonest: "failed-is-honest",
    /// A damaged frame is seen as such.
    DamageIsCaught: "damage-is-caught",
    /// A majority that can talk makes progress, whatever is wrong with the others.
    Progress: "progress",
    /// A run comes to its end in the events and the time that it is given.
    RunEnds: "run-ends",
    /// After the faults end everybody agrees, and every client is served.
    Convergence: "convergence",
    /// A plan can be carried out: its clients and settings are within their bounds.
    PlanIsSound: "plan-is-sound",
    /// Nothing panics.
    NoPanic: "no-panic",
}

impl FromStr for Check {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|check| check.name() == text);
        found.copied().ok_or_else(|| format!("no such check: {text}"))
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
