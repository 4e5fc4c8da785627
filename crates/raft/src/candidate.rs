//! Elections: asking for votes, giving them, counting them.
//!
//! Why two rounds: a server that cannot win must not raise the term, or its return from a partition
//! deposes a leader that works (PreVote; Ongaro 2014, §9.6).
//!
//! Invariants:
//! - at most one vote per term, durable before anyone hears of it, the candidate's own too;
//! - a vote goes only to a log that is at least as up-to-date (Raft §5.4.1).

use std::collections::BTreeMap;

use kvraft_base::{Index, Instant, MemberId, Position, Term};
use serde::{Deserialize, Serialize};

use crate::{
    Body, IgnoreReason,
    quorum::{self, Tally},
    raft::{Raft, Role, TERM_MAX},
};

/// What only a (pre-)candidate knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Campaign {
    /// Answers so far, the own one included once it counts.
    pub(crate) answers: BTreeMap<MemberId, bool>,
    /// When to start over.
    pub(crate) deadline: Instant,
}

impl Raft {
    pub(crate) fn ask_pre_votes(&mut self) {
        let campaign = self.core.term.next();
        let last = self.core.log.last();
        for peer in self.core.other_voters() {
            self.core.send(peer, Body::PreVoteRequest { campaign, last });
        }
        self.count_vote(self.core.id(), true);
    }

    /// Asks for votes once the own one is durable. Voters need not be loyal to a leader that wants
    /// this itself.
    pub(crate) fn ask_votes(&mut self, transfer: bool) {
        let last = self.core.log.last();
        for peer in self.core.other_voters() {
            self.core.promise(peer, Body::VoteRequest { last, transfer }, Index::ZERO);
        }
    }

    pub(crate) fn on_pre_vote_request(&mut self, from: MemberId, campaign: Term, last: Position) {
        if TERM_MAX < campaign {
            return self.core.ignore(from, "PreVoteRequest", IgnoreReason::Absurd);
        }
        if self.core.is_muted() {
            return self.core.ignore(from, "PreVoteRequest", IgnoreReason::Muted);
        }
        if let Role::Leader(leader) = &mut self.role {
            leader.tell_removed(&self.core, from);
        }
        let granted = self.core.term < campaign
            && self.core.log.last() <= last
            && self.core.installing.is_none()
            && !self.is_loyal(from);
        if granted {
            self.give_way();
        }
        self.core.promise(from, Body::PreVoteAnswer { campaign, granted }, Index::ZERO);
        if last < self.core.log.last() {
            self.note_shorter_log();
        }
    }

    pub(crate) fn on_vote_request(&mut self, from: MemberId, last: Position, transfer: bool) {
        if self.core.is_bound() && !transfer {
            return self.core.ignore(from, "VoteRequest", IgnoreReason::Loyal);
        }
        if self.core.is_muted() {
            return self.core.ignore(from, "VoteRequest", IgnoreReason::Muted);
        }
        let free = self.core.vote.is_none() && self.leader().is_none();
        let granted = (free || self.core.vote == Some(from))
            && self.core.log.last() <= last
            && self.core.installing.is_none();
        if granted {
            self.core.set_vote(from);
            self.restart_timer();
        }
        self.core.promise(from, Body::VoteAnswer { granted }, Index::ZERO);
    }

    pub(crate) fn on_pre_vote_answer(&mut self, from: MemberId, campaign: Term, granted: bool) {
        let is_mine = matches!(self.role, Role::PreCandidate(_));
        if !is_mine || campaign != self.core.term.next() {
            return self.core.ignore(from, "PreVoteAnswer", IgnoreReason::StaleAnswer);
        }
        self.count_vote(from, granted);
    }

    pub(crate) fn on_vote_answer(&mut self, from: MemberId, granted: bool) {
        if !matches!(self.role, Role::Candidate(_)) {
            return self.core.ignore(from, "VoteAnswer", IgnoreReason::StaleAnswer);
        }
        self.count_vote(from, granted);
    }

    /// The disk has caught up; a candidate's own vote counts once it is there.
    pub(crate) fn count_own_vote(&mut self) {
        if self.core.promises.hard_state_is_durable() {
            self.count_vote(self.core.id(), true);
        }
    }

    fn count_vote(&mut self, voter: MemberId, granted: bool) {
        let id = self.core.id();
        let (Role::PreCandidate(campaign) | Role::Candidate(campaign)) = &mut self.role else {
            return;
        };
        // A vote once given stands.
        let answer = campaign.answers.entry(voter).or_insert(granted);
        *answer = *answer || granted;
        if matches!(self.role, Role::Candidate(_)) && !self.core.promises.hard_state_is_durable() {
            return;
        }
        let (Role::PreCandidate(campaign) | Role::Candidate(campaign)) = &self.role else {
            return;
        };
        // Who is known to be gone will not answer; waiting for it would only cost time.
        let down = &self.core.down;
        let answers = &campaign.answers;
        let tally = quorum::tally(self.core.members(), |member| {
            let gone = down.contains(&member) && member != id;
            match answers.get(&member) {
                Some(answer) => Some(*answer),
                None => gone.then_some(false),
            }
        });
        match (tally, &self.role) {
            (Tally::Won, Role::PreCandidate(_)) => self.become_candidate(false),
            (Tally::Won, Role::Candidate(_)) => self.become_leader(),
            (Tally::Lost, _) => self.lose_election(),
            (Tally::Open, _) | (Tally::Won, Role::Follower(_) | Role::Leader(_)) => {}
        }
    }

    fn lose_election(&mut self) {
        let retry = self.core.draw_retry();
        self.become_follower(self.core.term, None);
        if let Role::Follower(follower) = &mut self.role {
            follower.deadline = self.core.now + retry;
        }
    }
}
