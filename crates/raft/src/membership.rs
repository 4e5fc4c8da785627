//! Changing who takes part (Raft §6), as seen by the leader and by whoever it removes.
//!
//! Why a configuration takes effect when it is appended, not when it is committed: then every
//! server decides by the last configuration in its own log, and two neighbouring ones always share
//! a server in any pair of majorities.
//!
//! Invariants:
//! - one change at a time: the next is appended only when the last is committed and not joint;
//! - none is appended before an entry of the leader's own term is committed: else two leaders could
//!   each build on a configuration that the other does not know (Ongaro 2015);
//! - a joint configuration, once committed, is left without being asked, by whoever leads;
//! - a hollow leader changes nothing: of the configuration it may know only who takes part;
//! - a leader that removes itself does not count itself any more, commits its removal, hands over,
//!   and stops;
//! - who is removed may campaign until it knows that its removal is committed: until then its log
//!   may be the only one that is long enough;
//! - so may a learner that a candidate with a shorter log counts as a voter; it does not count
//!   itself, and hands over once it has committed an entry of its term.
//!
//! What it lacks: joint configurations that wait to be left by hand.

use std::sync::Arc;

use kvraft_base::{EntryKind, Index, MemberId, Members, Position, limits};

use crate::{
    Body, Change, Event, Refusal,
    change::{change, leave},
    core::Core,
    leader::Leader,
    progress::{Progress, State},
    raft::{Raft, Role},
};

/// The configuration in force, as a server knows it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Membership {
    /// Its entry. After a restart or a snapshot, the end of what the table held then.
    pub index: Index,
    /// Who takes part. Shared, so that a look at the state copies no names.
    pub members: Arc<Members>,
    /// Whether that entry is known to be committed; one that is not may still be truncated.
    pub committed: bool,
}

impl Membership {
    /// Whether a change is under way: not yet committed, or joint.
    #[must_use]
    pub fn is_pending(&self) -> bool {
        !self.committed || self.members.is_joint()
    }
}

impl Leader {
    /// Appends the configuration that `changes` lead to.
    pub(crate) fn change_members(
        &mut self,
        core: &mut Core,
        changes: &[Change],
    ) -> Result<Position, Refusal> {
        self.refuse_proposal(core)?;
        if core.is_hollow() {
            // It may lack names and addresses, and must not take them from the others.
            return Err(Refusal::Busy);
        }
        if !self.has_committed(core) {
            return Err(Refusal::TermNotCommitted);
        }
        if core.members_index() <= core.commit && !core.members().is_joint() {
            let next = change(core.members(), changes, |id| self.is_in_step(core, id));
            return Ok(self.append_members(core, &next.map_err(Refusal::Change)?));
        }
        Err(Refusal::ChangePending { index: core.members_index() })
    }

    fn append_members(&mut self, core: &mut Core, members: &Members) -> Position {
        let before = core.members().clone();
        let position = self.append(core, EntryKind::Config, members.encode());
        self.follow_members(core, &before);
        // The lease was confirmed by a majority of others.
        self.lease.doubt();
        position
    }

    /// Sends to everyone whom the new configuration names; who has left is still sent to until it
    /// has been told.
    fn follow_members(&mut self, core: &Core, before: &Members) {
        let last = core.log.last();
        let farewell_until = core.now + core.config.election_timeout * 2;
        for (id, progress) in &mut self.progress {
            if !core.members().contains(*id) && progress.farewell_until.is_none() {
                progress.farewell_until = Some(farewell_until);
            }
        }
        for id in core.members().ids() {
            if id != core.id() {
                let progress = self.progress.entry(id);
                let progress = progress.or_insert_with(|| Progress::new(last, core.now));
                // Who has just got its vote has not failed this leader yet.
                if !before.is_voter(id) {
                    progress.heard = core.now;
                }
            }
        }
    }

    /// Whether `id` is sent ahead to, is not known to be cut off, and holds durably all that this
    /// leader's log held at its last regular heartbeat but one, and so can vote without slowing
    /// anyone down.
    pub(crate) fn is_in_step(&self, core: &Core, id: MemberId) -> bool {
        self.progress.get(&id).is_some_and(|progress| {
            matches!(progress.state, State::Replicate { .. })
                && self.first_of_term <= progress.matched.index
                && self.step_mark <= progress.matched.index
                && !core.down.contains(&id)
        })
    }

    /// Somebody who is no member wants to campaign. If it once was one, it has missed its removal,
    /// and is sent the log until it knows.
    pub(crate) fn tell_removed(&mut self, core: &Core, id: MemberId) {
        let farewells = self.progress.values().filter(|progress| progress.farewell_until.is_some());
        if core.members().has_removed(id) && farewells.count() < limits::VOTERS_MAX {
            let mut progress = Progress::new(core.log.last(), core.now);
            progress.farewell_until = Some(core.now + core.config.election_timeout * 2);
            self.progress.entry(id).or_insert(progress);
        }
    }

    /// What this leader changes without being asked.
    pub(crate) fn tend_members(&mut self, core: &mut Core) {
        self.progress
            .retain(|_, progress| progress.farewell_until.is_none_or(|until| core.now < until));
        let settled = core.members_index() <= core.commit && core.transfer.is_none();
        if core.is_hollow() || !settled || !self.has_committed(core) {
            return;
        }
        if core.members().is_joint() {
            let members = leave(core.members());
            self.append_members(core, &members);
            return;
        }
        // Promotions are for whoever it hands over to.
        if self.is_dismissed(core) {
            return;
        }
        let ready = |id: &MemberId| self.is_in_step(core, *id);
        let promoted = core.members().learners().iter().filter(|learner| learner.promote);
        let promoted: Vec<MemberId> = promoted.map(|learner| learner.id).filter(ready).collect();
        // One at a time: each is a simple change, and nothing waits for it.
        if let Some(id) = promoted.first()
            && let Ok(members) = change(core.members(), &[Change::Promote { id: *id }], |_| true)
        {
            core.event(Event::LearnerPromoted { id: *id });
            self.append_members(core, &members);
        }
    }

    /// Who has left, knows its last configuration, and has been told twice that it is committed,
    /// need not be told more.
    pub(crate) fn end_farewells(&mut self, core: &Core) {
        let index = core.members_index();
        self.progress.retain(|_, progress| {
            progress.farewell_until.is_none() || progress.told_commit < index
        });
    }

    /// Whether this leader has committed a configuration in which it does not vote, and an entry of
    /// its term: a learner's configuration mostly is committed before it leads.
    pub(crate) fn is_dismissed(&self, core: &Core) -> bool {
        let has_no_vote =
            !core.members().is_voter(core.id()) && core.members_index() <= core.commit;
        has_no_vote && self.has_committed(core)
    }
}

impl Raft {
    pub(crate) fn change_members(&mut self, changes: &[Change]) -> Result<Position, Refusal> {
        match &mut self.role {
            Role::Leader(leader) => leader.change_members(&mut self.core, changes),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(self.not_leader())
            }
        }
    }

    /// Whether a message from this sender is looked at. Leaders and candidates are heard whether
    /// this server's configuration names them or not: it may be out of date (Raft §6). Whoever is
    /// not a member cannot answer, and so cannot depose anyone with a later term.
    pub(crate) fn listens_to(&self, from: MemberId, body: &Body, is_later: bool) -> bool {
        if from == self.core.id() || from == MemberId::ZERO {
            return false;
        }
        if self.core.members().contains(from) {
            return true;
        }
        match body {
            Body::PreVoteRequest { .. }
            | Body::VoteRequest { .. }
            | Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::CommitNotice { .. }
            | Body::SnapshotNotice { .. }
            | Body::TimeoutNow => true,
            Body::AppendAnswer { .. } | Body::HeartbeatAnswer { .. } | Body::SnapshotWanted => {
                let leader = |leader: &Leader| leader.progress.contains_key(&from);
                !is_later && matches!(&self.role, Role::Leader(it) if leader(it))
            }
            Body::ReadAnswer { .. } => !is_later && self.leader() == Some(from),
            Body::PreVoteAnswer { .. } | Body::VoteAnswer { .. } | Body::ReadRequest { .. } => {
                false
            }
        }
    }
}
