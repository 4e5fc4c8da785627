//! A look at a server from outside.
//!
//! Why a copy: nothing outside may hold on to the protocol's state.

use kvraft_base::{HardState, Index, Instant, MemberId, MemberRole, Position, Term};

use crate::Membership;

use crate::raft::Role;

/// What a server is and knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Status {
    /// This server.
    pub id: MemberId,
    /// Its term.
    pub term: Term,
    /// Its vote in that term.
    pub vote: Option<MemberId>,
    /// Its role.
    pub role: RoleName,
    /// Who leads, as far as it knows.
    pub leader: Option<MemberId>,
    /// End of its log.
    pub last: Position,
    /// Highest committed index it knows of.
    pub commit: Index,
    /// Highest index durable here.
    pub durable: Index,
    /// Highest index its machine has applied.
    pub applied: Index,
    /// The entry before its journal's first.
    pub released: Position,
    /// Whether it has a log but not the state before it, and waits for a snapshot.
    pub hollow: bool,
    /// Whether it has lost a part of its log and neither votes nor campaigns.
    pub muted: bool,
    /// The configuration in force, committed or not.
    pub membership: Membership,
    /// Whom it is handing leadership over to.
    pub transfer: Option<MemberId>,
    /// Until when, on its own clock, it may answer reads by lease.
    pub lease_until: Option<Instant>,
    /// Its followers, if it leads, in order of id.
    pub peers: Vec<PeerStatus>,
}

/// The four roles.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RoleName {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether a campaign has a chance.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// What a leader knows of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PeerStatus {
    /// The follower.
    pub id: MemberId,
    /// What it is in the configuration in force; `None` when it has left and is being told so.
    pub role: Option<MemberRole>,
    /// Highest index known to match and to be durable there.
    pub matched: Index,
    /// Next index to send.
    pub next: Index,
    /// How it is being sent to.
    pub state: PeerState,
}

/// How a follower is being sent to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerState {
    /// Looking for the place where the logs match, one Append at a time.
    Probe,
    /// Sending ahead of the answers.
    Replicate,
    /// It needs, or is receiving, a snapshot.
    Snapshot,
}

impl crate::Raft {
    /// Term of the entry at this index, as far as it is still known in memory.
    #[must_use]
    pub fn term_at(&self, index: Index) -> Option<Term> {
        self.core.log.term_at(index)
    }

    /// Whether Appends to this follower carry what it has missed rather than what is new: they may
    /// take a connection of their own, since they are never under way together with fresh ones.
    #[must_use]
    pub fn is_catching_up(&self, peer: MemberId) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.is_catching_up(peer),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Whether this server leads and this follower holds durably what the log held a moment ago: it
    /// needs nothing older any more.
    #[must_use]
    pub fn is_in_step(&self, peer: MemberId) -> bool {
        match &self.role {
            Role::Leader(leader) => leader.is_in_step(&self.core, peer),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => false,
        }
    }

    /// Whether this server has a log but not the state before it: until a snapshot has come,
    /// nothing is applied, and nothing must be served.
    #[must_use]
    pub fn is_hollow(&self) -> bool {
        self.core.is_hollow()
    }

    /// How many entries are in the log and not applied here.
    #[must_use]
    pub fn unapplied_count(&self) -> u64 {
        self.core.log.last().index.0 - self.core.applied.0
    }

    /// Whether a peer is a member, by the configuration in force, or leads.
    #[must_use]
    pub fn knows(&self, peer: MemberId) -> bool {
        self.core.members().contains(peer) || self.leader() == Some(peer)
    }

    /// Whether a leader is known; this server may be it.
    #[must_use]
    pub fn knows_leader(&self) -> bool {
        self.leader().is_some()
    }

    /// Term, vote and commit, as they would be written now.
    #[must_use]
    pub fn hard_state(&self) -> HardState {
        HardState { term: self.core.term, vote: self.core.vote, commit: self.core.commit }
    }
}
