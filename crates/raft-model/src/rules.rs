//! What must never happen, by name.
//!
//! Why one list: the same names are the properties of the search, the verdicts of its report and
//! the headers of planted bugs.

/// A rule of the protocol (Raft figure 3), or of ours that it rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// At most one leader in a term, over the whole run.
    OneLeaderPerTerm,
    /// A server never lets a second vote of one term be known, not even after a crash.
    OneVotePerTerm,
    /// Two logs that agree on an entry agree on everything before.
    LogMatching,
    /// A leader has everything that was committed in earlier terms.
    LeaderCompleteness,
    /// No two servers commit different entries at one index.
    CommittedNeverChanges,
    /// A majority of disks holds what is committed.
    CommittedIsDurable,
    /// What a message promises is on the sender's disk when it leaves.
    PromiseIsDurable,
    /// What is given to the machine is on the server's own disk.
    AppliedIsDurable,
    /// A leader commits by counting only entries of its own term (Raft §5.4.2).
    CommitsOwnTerm,
    /// The last configuration in a server's log is in force there (Raft §6).
    MembersWhenAppended,
    /// No assertion of the production code fails.
    Assertion,
}

impl Rule {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::OneLeaderPerTerm,
        Self::OneVotePerTerm,
        Self::LogMatching,
        Self::LeaderCompleteness,
        Self::CommittedNeverChanges,
        Self::CommittedIsDurable,
        Self::PromiseIsDurable,
        Self::AppliedIsDurable,
        Self::CommitsOwnTerm,
        Self::MembersWhenAppended,
        Self::Assertion,
    ];

    /// Its name in reports and in the headers of planted bugs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::OneLeaderPerTerm => "one-leader-per-term",
            Self::OneVotePerTerm => "one-vote-per-term",
            Self::LogMatching => "log-matching",
            Self::LeaderCompleteness => "leader-completeness",
            Self::CommittedNeverChanges => "committed-never-changes",
            Self::CommittedIsDurable => "committed-is-durable",
            Self::PromiseIsDurable => "promise-is-durable",
            Self::AppliedIsDurable => "applied-is-durable",
            Self::CommitsOwnTerm => "commits-own-term",
            Self::MembersWhenAppended => "members-when-appended",
            Self::Assertion => "assertion",
        }
    }
}
