//! Handing leadership over (Ongaro 2014, §3.10): before a planned stop, or because somebody asks.
//!
//! Why not simply stop: the others would wait for an election timeout. A leader that hands over
//! takes no proposals for a moment, sends its successor what that lacks, and tells it to campaign
//! at once.
//!
//! Invariants:
//! - while a transfer is under way the leader's log does not grow, so that the successor catches
//!   up;
//! - the successor's campaign is an ordinary one but for the pre-vote and for loyalty, which the
//!   present leader has waived; safety does not depend on either;
//! - a transfer ends: by another leader, or after one election timeout, when the leader resumes;
//!   one that has no vote, or is hollow, stops then.
//!
//! What it lacks: cancelling by hand.

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Ticket};
use serde::{Deserialize, Serialize};

use crate::{
    Body, Config, Event, Refusal,
    core::Core,
    leader::Leader,
    progress::State,
    raft::{Raft, Role},
};

/// A transfer that this server began as a leader, and whose end it does not know yet.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Transfer {
    /// Who wants to know how it ends.
    ticket: Option<Ticket>,
    pub(crate) to: MemberId,
    /// When it has failed.
    pub(crate) deadline: Instant,
    /// The successor was told to campaign.
    told: bool,
}

/// Why leadership is not handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TransferError {
    /// The successor must be another server.
    #[error("member {0:x} leads already")]
    AlreadyLeads(MemberId),
    /// Only a voter can lead, and one that stays.
    #[error("member {0:x} has no vote, or is about to lose it")]
    NotAVoter(MemberId),
    /// Its connection is closed.
    #[error("member {0:x} cannot be reached")]
    Unreachable(MemberId),
    /// It has to find its place in the log, or needs a snapshot first.
    #[error("member {0:x} is too far behind")]
    Behind(MemberId),
    /// There is no other voter that could lead.
    #[error("nobody else can lead")]
    Nobody,
    /// One at a time.
    #[error("leadership is being handed over to member {0:x}")]
    Pending(MemberId),
    /// The successor does not lead after an election timeout, or somebody else does.
    #[error("member {0:x} has not taken over")]
    Failed(MemberId),
}

impl Leader {
    /// Who could take over at once, and how well: a voter that stays, is reached, and has most of
    /// the log. The lower id wins a tie.
    fn best_successor(&self, core: &Core) -> Option<MemberId> {
        self.successors(core).max_by_key(|id| {
            let matched = self.progress.get(id).map(|progress| progress.matched.index);
            (matched, std::cmp::Reverse(*id))
        })
    }

    /// Who could take over at once.
    fn successors(&self, core: &Core) -> impl Iterator<Item = MemberId> {
        let others = core.members().voters().iter().copied().filter(|id| *id != core.id());
        others.filter(|id| self.refuse_successor(core, *id).is_none())
    }

    fn refuse_successor(&self, core: &Core, to: MemberId) -> Option<TransferError> {
        if to == core.id() {
            return Some(TransferError::AlreadyLeads(to));
        }
        if core.members().voters().binary_search(&to).is_err() {
            return Some(TransferError::NotAVoter(to));
        }
        if core.down.contains(&to) {
            return Some(TransferError::Unreachable(to));
        }
        let state = self.progress.get(&to).map(|progress| &progress.state);
        let near = matches!(state, Some(State::Replicate { .. }));
        (!near).then_some(TransferError::Behind(to))
    }

    /// Tells the successor to campaign, as soon as it has everything; again with every regular
    /// heartbeat, in case that is lost.
    pub(crate) fn push_transfer(&mut self, core: &mut Core, again: bool) {
        let last = core.log.last();
        let Some(transfer) = &mut core.transfer else { return };
        let to = transfer.to;
        let has_all = self.progress.get(&to).is_some_and(|progress| progress.matched == last);
        if has_all && (again || !transfer.told) {
            transfer.told = true;
            self.lease.give_up();
            core.send(to, Body::TimeoutNow);
        }
    }
}

impl Raft {
    /// Begins to hand over to `to`, or to the most up-to-date voter that is reachable.
    pub(crate) fn on_transfer(&mut self, ticket: Ticket, to: Option<MemberId>) {
        if let Err(refusal) = self.begin_transfer(Some(ticket), to) {
            self.core.outbox.transfers.push((ticket, Err(refusal)));
        }
    }

    fn begin_transfer(
        &mut self,
        ticket: Option<Ticket>,
        to: Option<MemberId>,
    ) -> Result<(), Refusal> {
        let Role::Leader(leader) = &self.role else { return Err(self.not_leader()) };
        if let Some(transfer) = &self.core.transfer {
            return Err(TransferError::Pending(transfer.to).into());
        }
        let best = || leader.best_successor(&self.core).ok_or(TransferError::Nobody);
        let to = to.map_or_else(best, Ok)?;
        if let Some(error) = leader.refuse_successor(&self.core, to) {
            return Err(error.into());
        }
        let deadline = self.core.now + self.core.config.election_timeout;
        self.core.transfer = Some(Transfer { ticket, to, deadline, told: false });
        self.core.event(Event::TransferBegun { to });
        Ok(())
    }

    /// `leader` leads now, or, if `None`, nobody in time: whoever waits for a transfer is told.
    pub(crate) fn end_transfer(&mut self, leader: Option<MemberId>) {
        let Some(transfer) = self.core.transfer.take() else { return };
        let to = transfer.to;
        let done = leader == Some(to);
        let event = if done { Event::TransferDone { to } } else { Event::TransferFailed { to } };
        self.core.event(event);
        if let Some(ticket) = transfer.ticket {
            let result = if done { Ok(to) } else { Err(TransferError::Failed(to).into()) };
            self.core.outbox.transfers.push((ticket, result));
        }
    }

    /// A leader without a vote hands over as soon as that is committed and told, and stops at once
    /// if nobody can take over, or nobody has.
    pub(crate) fn stop_if_dismissed(&mut self) {
        let Role::Leader(leader) = &mut self.role else { return };
        if !leader.is_dismissed(&self.core) || self.core.transfer.is_some() {
            return;
        }
        let first = !std::mem::replace(&mut leader.handover_tried, true);
        if first && self.begin_transfer(None, None).is_ok() {
            self.push_transfer(false);
            return;
        }
        self.core.event(Event::Dismissed { term: self.core.term });
        self.become_follower(self.core.term, None);
    }

    /// Nobody leads in time.
    pub(crate) fn fail_transfer(&mut self) {
        self.end_transfer(None);
        let leads = matches!(self.role, Role::Leader(_));
        if leads && self.core.is_hollow() {
            // Mostly its log is on a majority by now, so that whoever is whole and has it can win
            // alone; and where it is not, another's attempt may fare better.
            self.become_follower(self.core.term, None);
        }
    }

    /// A hollow leader hands over to anybody as soon as its log is committed. It draws to whom: who
    /// is hollow, too, does not take over, and does not say so.
    pub(crate) fn hand_over_if_hollow(&mut self) {
        let Role::Leader(leader) = &self.role else { return };
        let due = self.core.is_hollow() && leader.has_committed(&self.core);
        if !due || self.core.transfer.is_some() {
            return;
        }
        let able: Vec<MemberId> = leader.successors(&self.core).collect();
        let to = self.core.prng.pick(&able).copied();
        if to.is_some() && self.begin_transfer(None, to).is_ok() {
            self.push_transfer(false);
        }
    }

    /// Whether a hollow leader steps down at this heartbeat: it has nobody to hand over to, or
    /// commits nothing, and another might fare better.
    pub(crate) fn draws_retreat(&mut self) -> bool {
        let Config { election_timeout, heartbeat_interval, .. } = self.core.config;
        let patience = election_timeout * RETREAT_TIMEOUTS;
        let stuck = self.core.is_hollow() && self.core.transfer.is_none();
        stuck && self.core.prng.duration(Duration::ZERO, patience) < heartbeat_interval
    }

    fn push_transfer(&mut self, again: bool) {
        if let Role::Leader(leader) = &mut self.role {
            leader.push_transfer(&mut self.core, again);
        }
    }

    /// The leader wants this server to lead. No pre-vote: nobody would answer it while the leader
    /// lives.
    pub(crate) fn on_timeout_now(&mut self) {
        if self.core.can_campaign() {
            self.become_candidate(true);
        }
    }
}

impl From<TransferError> for Refusal {
    fn from(error: TransferError) -> Self {
        Self::Transfer(error)
    }
}

/// A hollow leader that hands over to nobody leads for so many election timeouts on average: in
/// that time a log that can be committed is, and a successor that comes back is found.
const RETREAT_TIMEOUTS: u32 = 8;
