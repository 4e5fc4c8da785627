//! Everything that a turn asks of the world around it.
//!
//! Why plain data: whoever drives the protocol, a server or a simulator, carries these out in its
//! own way and reports back with inputs.
//!
//! Invariant: messages may leave before the write of the same turn is durable; those that may not
//! are not here yet.

use kvraft_base::{Entry, Index, MemberId, Position, Term, Ticket, Write};

use crate::{ChangeError, Membership, TransferError, message::Message};

/// What a turn asks for. [`Raft::finish`](crate::Raft::finish) adds to the lists and sets the
/// write.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Output {
    /// To send at once, beside the write.
    pub messages: Vec<Message>,
    /// To make durable, in order of ids; then `Durable` is told.
    pub write: Option<Write>,
    /// To apply: each entry once, contiguous, committed and durable here.
    pub committed: Vec<Entry>,
    /// Where proposals and changes of members went in the log, or why not. A position is no promise
    /// that it commits.
    pub proposed: Vec<(Ticket, Result<Position, Refusal>)>,
    /// Up to where the machine must have applied before each read is served.
    pub reads: Vec<(Ticket, Result<Index, Refusal>)>,
    /// Who leads now, as was asked for, or why not.
    pub transfers: Vec<(Ticket, Result<MemberId, Refusal>)>,
    /// Entries to read back from the journal.
    pub fetches: Vec<Fetch>,
    /// Followers who need a snapshot.
    pub snapshots: Vec<SnapshotRequest>,
    /// The configuration in force, when it has changed, is known to be committed now, or has not
    /// been told since the start.
    pub members: Option<Membership>,
    /// What happened, for logs and traces.
    pub events: Vec<Event>,
}

/// Entries that a follower lacks and that are no longer in memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fetch {
    /// Names the fetch in its answer.
    pub id: u64,
    /// Who the entries are for.
    pub peer: MemberId,
    /// The entry before `first`, as this leader knows it.
    pub prev: Position,
    /// First wanted entry.
    pub first: Index,
    /// Last wanted entry; fewer may be returned.
    pub last: Index,
    /// Encoded size of the entries to return; one entry may exceed it.
    pub size_bytes_max: usize,
}

/// A follower that is behind the journal, or has lost its table.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SnapshotRequest {
    /// Who needs it.
    pub to: MemberId,
    /// The leader's term, for the notices beside the stream.
    pub term: Term,
    /// It has the log and lacks only the state before it: what it matches says nothing of when it
    /// has the snapshot. Asked for again and again until then.
    pub state_only: bool,
}

/// Why a proposal or a read was not taken up. Nothing was appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Refusal {
    /// This server does not lead.
    #[error("not the leader")]
    NotLeader {
        /// Who does, as far as this server knows.
        leader: Option<MemberId>,
    },
    /// Too much is waiting already.
    #[error("too much is waiting already")]
    Busy,
    /// The payload does not fit into an entry.
    #[error("the request is too large for an entry")]
    TooLarge,
    /// This server has lost a part of its log, and knows no leader to ask.
    #[error("this server is being repaired")]
    Muted,
    /// The leader changed while the read was waiting; it may be asked again.
    #[error("the leader changed")]
    LeaderChanged,
    /// Only commands and no-ops are proposed; members are changed by their own input.
    #[error("a configuration is not proposed as a plain entry")]
    Unsupported,
    /// Another change of members is under way: not yet committed, or joint.
    #[error("the change of members at {index} is not finished")]
    ChangePending {
        /// Its entry.
        index: Index,
    },
    /// This leader has not yet committed an entry of its own term, and so does not know whether its
    /// configuration will stay.
    #[error("the leader has only just been elected")]
    TermNotCommitted,
    /// The wanted configuration cannot be.
    #[error(transparent)]
    Change(ChangeError),
    /// Leadership is being handed over; whoever leads in a moment can be asked.
    #[error("leadership is being handed over to member {to:x}")]
    Transferring {
        /// To whom.
        to: MemberId,
    },
    /// Leadership is not handed over.
    #[error(transparent)]
    Transfer(TransferError),
}

/// Something worth telling.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Follows, or waits for somebody to follow.
    BecameFollower {
        /// In this term.
        term: Term,
        /// Whom, if known.
        leader: Option<MemberId>,
    },
    /// Asks whether a campaign has a chance.
    BecamePreCandidate {
        /// The present term, which does not change.
        term: Term,
    },
    /// Campaigns.
    BecameCandidate {
        /// The new term.
        term: Term,
    },
    /// Leads.
    BecameLeader {
        /// The term led.
        term: Term,
    },
    /// A vote was given; it leaves when it is durable.
    VoteGranted {
        /// In this term.
        term: Term,
        /// To this candidate.
        candidate: MemberId,
    },
    /// A leader has not heard from a majority for an election timeout (Ongaro 2014, §6.2).
    QuorumLost {
        /// The term that it led.
        term: Term,
    },
    /// More of the log is committed.
    CommitAdvanced {
        /// The new commit index.
        commit: Index,
    },
    /// The log does not contain what the leader's Append follows.
    ConflictFound {
        /// What the leader expected.
        rejected: Position,
        /// What it was told in return.
        hint: Position,
    },
    /// The end of the log was overwritten by a leader.
    LogTruncated {
        /// First index that is gone.
        first: Index,
        /// Held answers that vouched for it and were dropped.
        promises_dropped: usize,
    },
    /// A configuration took effect, or came back because a later one was truncated.
    MembersChanged {
        /// Its entry.
        index: Index,
    },
    /// The configuration in force is committed.
    MembersCommitted {
        /// Its entry.
        index: Index,
    },
    /// A learner is in step and becomes a voter, as was asked for when it was added.
    LearnerPromoted {
        /// Who.
        id: MemberId,
    },
    /// A leader that has no vote, since it was removed or demoted or is a learner, stops.
    Dismissed {
        /// The term that it led.
        term: Term,
    },
    /// A leader takes no more proposals and hands over.
    TransferBegun {
        /// To whom.
        to: MemberId,
    },
    /// The server that leadership was handed over to leads.
    TransferDone {
        /// Who.
        to: MemberId,
    },
    /// It does not, after an election timeout, or somebody else does.
    TransferFailed {
        /// Who does not.
        to: MemberId,
    },
    /// A follower needs a snapshot.
    SnapshotNeeded {
        /// Who.
        peer: MemberId,
        /// Where its next entry would be.
        next: Index,
    },
    /// The log restarted after an installed snapshot.
    SnapshotInstalled {
        /// What the snapshot contains.
        position: Position,
    },
    /// A follower has less than it once answered for: its disk was damaged.
    FollowerRegressed {
        /// Who.
        peer: MemberId,
        /// What it had.
        matched: Index,
        /// What it has.
        last: Index,
    },
    /// Appends to a follower were lost; they are sent again.
    AppendLost {
        /// To whom.
        peer: MemberId,
        /// What is known to have arrived.
        matched: Index,
    },
    /// The lost part of the log is there again: votes and campaigns.
    Unmuted {
        /// What is durable.
        durable: Index,
    },
    /// A message was not acted on.
    Ignored {
        /// Its sender.
        from: MemberId,
        /// Its name.
        message: &'static str,
        /// Why.
        reason: IgnoreReason,
    },
}

/// Why a message was not acted on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoreReason {
    /// It is for another server.
    WrongReceiver,
    /// The sender is not in the configuration.
    UnknownMember,
    /// Its term or an index is beyond anything that can be.
    Absurd,
    /// It is of an earlier term.
    StaleTerm,
    /// It answers something that is no longer asked.
    StaleAnswer,
    /// It is not for the present role.
    WrongRole,
    /// This server hears from a leader and stays loyal to it.
    Loyal,
    /// This server has lost a part of its log and does not vote.
    Muted,
    /// Its entries are damaged, not contiguous, or of impossible terms.
    Malformed,
    /// It contradicts what is committed here.
    ContradictsCommit,
    /// Another server leads in this term.
    SecondLeader,
    /// A snapshot is being installed.
    Installing,
    /// Memory for the log is used up until the disk and the machine catch up.
    WindowFull,
}
