//! Following a leader: appending what it sends, answering for it, forwarding reads to it.
//!
//! Why a follower trusts so little: everything here comes from a peer, so it is checked before it
//! moves the log, and what contradicts a commitment is left alone.
//!
//! Invariants:
//! - an answer says "matched" only of what is durable here, or waits until it is;
//! - what is committed here is neither truncated nor compared away by any message.

use std::time::Duration;

use kvraft_base::{Entry, EntryKind, Index, Instant, MemberId, Members, Position, Term, limits};
use serde::{Deserialize, Serialize};

use crate::{
    AppendOutcome, Body, Event, IgnoreReason, Refusal,
    core::Core,
    raft::{INDEX_MAX, Raft, Role},
    reads::ForwardedReads,
};

/// What only a follower knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Follower {
    pub(crate) leader: Option<MemberId>,
    /// When the leader was last heard.
    heard: Instant,
    /// This follower's wait for a leader, drawn when it began to follow.
    timeout: Duration,
    /// When it campaigns.
    pub(crate) deadline: Instant,
    /// It has given way to another's campaign once since it last heard a leader.
    gave_way: bool,
    /// In this wait for a leader a server with a shorter log has asked for its vote. If this is a
    /// learner, that server takes it for a voter, and may not be able to win without its log.
    pub(crate) is_ahead: bool,
    /// Highest index seen to match this leader's log, durable or not.
    pub(crate) received: Index,
    pub(crate) reads: ForwardedReads,
}

impl Follower {
    pub(crate) fn new(leader: Option<MemberId>, now: Instant, timeout: Duration) -> Self {
        Self {
            leader,
            heard: now,
            timeout,
            deadline: now + timeout,
            gave_way: false,
            is_ahead: false,
            received: Index::ZERO,
            reads: ForwardedReads::default(),
        }
    }

    pub(crate) fn hear(&mut self, now: Instant) {
        self.heard = now;
        self.deadline = now + self.timeout;
        self.gave_way = false;
    }

    pub(crate) fn deadline(&self, core: &Core) -> Instant {
        self.deadline.min(self.reads.resend_at(core.config.heartbeat_interval))
    }

    /// Asks the leader about the reads of this turn, and again about those left without an answer.
    pub(crate) fn forward_reads(&mut self, core: &mut Core) {
        let Some(leader) = self.leader else {
            assert!(self.reads.is_empty(), "without a leader no read waits");
            return;
        };
        if self.reads.is_due(core.now, core.config.heartbeat_interval) {
            let context = core.next_context();
            self.reads.ask(core.now, context);
            core.send(leader, Body::ReadRequest { context });
        }
    }
}

impl Raft {
    /// A candidate's log is shorter than the log here. Where a leader is known, the candidate may
    /// hear it too, and get its log.
    pub(crate) fn note_shorter_log(&mut self) {
        if let Role::Follower(follower) = &mut self.role {
            follower.is_ahead |= follower.leader.is_none();
        }
    }

    /// Waits a full timeout again.
    pub(crate) fn restart_timer(&mut self) {
        let timeout = self.core.draw_timeout();
        if let Role::Follower(follower) = &mut self.role {
            follower.timeout = timeout;
            follower.deadline = self.core.now + timeout;
        }
    }

    /// The connection to a peer has closed. If that peer leads, its death is likely.
    pub(crate) fn on_disconnected(&mut self, peer: MemberId) {
        self.core.down.insert(peer);
        self.forget_strangers();
        let jitter = self.core.draw_jitter();
        if let Role::Follower(follower) = &self.role
            && follower.leader == Some(peer)
        {
            self.hurry(jitter, self.core.config.election_timeout * 2);
        }
    }

    /// Somebody outside says that the leader is dead. Worth nothing to a server that hears it; to
    /// one that has missed its heartbeats it shortens the wait for the ordinary campaign, and no
    /// voter is asked more than once in an election timeout because of hints alone.
    pub(crate) fn on_leader_suspected(&mut self) {
        if self.core.is_hurried() || self.is_loyal(self.core.id()) {
            return;
        }
        let jitter = self.core.draw_jitter();
        self.hurry(jitter, self.core.config.election_timeout);
    }

    /// A follower waits no longer than `jitter`. A campaign that fails within `hurried_for` is soon
    /// repeated.
    fn hurry(&mut self, jitter: Duration, hurried_for: Duration) {
        if let Role::Follower(follower) = &mut self.role {
            self.core.hurried_until = self.core.now + hurried_for;
            follower.deadline = follower.deadline.min(self.core.now + jitter);
        }
    }

    /// Forgets of whom the connection is closed, except where that can matter.
    pub(crate) fn forget_strangers(&mut self) {
        let mut down = std::mem::take(&mut self.core.down);
        down.retain(|peer| self.knows(*peer));
        self.core.down = down;
    }

    /// Whether this server hears from a leader, and so helps nobody to depose it (Ongaro 2014,
    /// §6.2, §9.6). Only what this server itself has seen ends that: a closed connection, missing
    /// heartbeats, or the leader asking for votes; and nothing does while that leader may hold a
    /// lease.
    pub(crate) fn is_loyal(&self, candidate: MemberId) -> bool {
        match &self.role {
            _ if self.core.is_bound() => true,
            Role::Leader(_) => true,
            Role::PreCandidate(_) | Role::Candidate(_) => false,
            Role::Follower(follower) => follower.leader.is_some_and(|leader| {
                let missed = self.core.now.since(follower.heard);
                leader != candidate
                    && !self.core.down.contains(&leader)
                    && missed < self.core.config.heartbeat_interval * HEARTBEATS_MISSED_MAX
            }),
        }
    }

    /// Gives another's campaign time to succeed, once.
    pub(crate) fn give_way(&mut self) {
        let wait = self.core.config.heartbeat_interval + self.core.config.fail_over_jitter_max;
        if let Role::Follower(follower) = &mut self.role
            && !follower.gave_way
        {
            follower.gave_way = true;
            follower.deadline = follower.deadline.max(self.core.now + wait);
        }
    }

    pub(crate) fn on_append(
        &mut self,
        from: MemberId,
        prev: Position,
        commit: Index,
        entries: Vec<Entry>,
    ) {
        if let Some(reason) = self.refuse_append(prev, &entries) {
            return self.core.ignore(from, "Append", reason);
        }
        let matches = prev.index <= self.core.commit || self.core.log.contains(prev);
        if !matches {
            return self.answer_conflict(from, prev);
        }
        let end = entries.last().map_or(prev, Entry::position);
        self.append_entries(entries);
        self.answer_accepted(from, end, commit);
    }

    /// Everything that no honest leader sends, or that cannot be taken in now.
    fn refuse_append(&self, prev: Position, entries: &[Entry]) -> Option<IgnoreReason> {
        let core = &self.core;
        if core.installing.is_some() {
            return Some(IgnoreReason::Installing);
        }
        if INDEX_MAX < prev.index || !entries_are_sound(prev, entries, core.term) {
            return Some(IgnoreReason::Malformed);
        }
        let positions = entries.iter().map(Entry::position);
        let contradicts = std::iter::once(prev).chain(positions).any(|position| {
            let known = core.log.term_at(position.index);
            position.index <= core.commit && known.is_some_and(|term| term != position.term)
        });
        if contradicts {
            return Some(IgnoreReason::ContradictsCommit);
        }
        let grows = entries.last().is_some_and(|entry| core.log.last().index < entry.index);
        (grows && core.window_is_full()).then_some(IgnoreReason::WindowFull)
    }

    /// Takes in what the log does not have yet; cuts it first where it differs.
    fn append_entries(&mut self, entries: Vec<Entry>) {
        let core = &mut self.core;
        for entry in entries {
            let have = entry.index <= core.log.last().index;
            if entry.index <= core.commit || (have && core.log.contains(entry.position())) {
                continue;
            }
            if have {
                core.truncate(entry.index);
                if let Role::Follower(follower) = &mut self.role {
                    follower.received = follower.received.min(entry.index.prev());
                }
            }
            core.append(entry);
        }
    }

    fn answer_accepted(&mut self, from: MemberId, end: Position, commit: Index) {
        let core = &mut self.core;
        // What is committed matches every leader's log, so a late Append is answered with more.
        let matched = match core.log.term_at(core.commit) {
            Some(term) if end.index < core.commit => Position::new(term, core.commit),
            Some(_) | None => end,
        };
        let Role::Follower(follower) = &mut self.role else {
            unreachable!("a server that hears a leader follows it")
        };
        follower.received = follower.received.max(matched.index);
        core.advance_commit(commit.min(matched.index).max(core.commit));
        let outcome = AppendOutcome::Accepted { matched };
        core.promise(from, Body::AppendAnswer { outcome }, matched.index);
    }

    fn answer_conflict(&mut self, from: MemberId, rejected: Position) {
        let core = &mut self.core;
        assert!(core.commit < rejected.index, "what is committed conflicts with no leader");
        let bound = core.log.index_not_above(rejected.index.prev(), rejected.term);
        let index = bound.max(core.commit);
        let term = core.log.term_at(index).expect("terms are known from the commit index on");
        let hint = Position::new(term, index);
        core.event(Event::ConflictFound { rejected, hint });
        let last = core.log.last().index;
        let outcome = AppendOutcome::Conflict { rejected, hint, commit: core.commit, last };
        core.promise(from, Body::AppendAnswer { outcome }, Index::ZERO);
    }

    /// The leader has said what is committed; believed as far as the logs are seen to match.
    pub(crate) fn on_commit_told(&mut self, commit: Index) {
        let Role::Follower(follower) = &self.role else {
            unreachable!("a server that hears a leader follows it")
        };
        let commit = commit.min(follower.received).max(self.core.commit);
        self.core.advance_commit(commit);
    }

    /// Answers at once: what it says of the log is so already, on disk.
    pub(crate) fn answer_heartbeat(&mut self, from: MemberId, round: u64) {
        let core = &mut self.core;
        let received = match &self.role {
            Role::Follower(follower) if follower.leader == Some(from) => follower.received,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) | Role::Leader(_) => {
                Index::ZERO
            }
        };
        let index = received.min(core.promises.durable());
        let matched = match core.log.term_at(index) {
            Some(term) if core.promises.hard_state_is_durable() => Position::new(term, index),
            Some(_) | None => Position::ZERO,
        };
        let last = core.log.last().index;
        core.send(from, Body::HeartbeatAnswer { round, received, last, matched });
    }

    /// A hollow server reminds its leader with every heartbeat.
    pub(crate) fn want_snapshot(&mut self, from: MemberId) {
        if self.core.is_hollow() && self.core.installing.is_none() {
            self.core.send(from, Body::SnapshotWanted);
        }
    }

    /// A snapshot is being sent. If the log has what it contains, the leader is told so instead.
    pub(crate) fn on_snapshot_notice(&mut self, from: MemberId, position: Position) {
        if self.core.installing.is_none() && self.core.log.contains(position) {
            self.answer_accepted(from, position, position.index);
        }
    }

    pub(crate) fn on_installed(&mut self, position: Position, members: Members) {
        let filled = self.core.fills(position);
        if filled {
            self.core.fill(position, members);
        } else {
            self.core.restart_log(position, members);
        }
        match &mut self.role {
            Role::Follower(follower) if filled => {
                follower.received = follower.received.max(position.index);
            }
            Role::Follower(follower) => follower.received = position.index,
            Role::PreCandidate(_) | Role::Candidate(_) => {
                self.become_follower(self.core.term, None);
            }
            Role::Leader(_) => panic!("a leader installs no snapshot"),
        }
        if let Some(leader) = self.leader() {
            let outcome = AppendOutcome::Accepted { matched: position };
            self.core.promise(leader, Body::AppendAnswer { outcome }, position.index);
        }
    }

    pub(crate) fn on_read_answer(&mut self, from: MemberId, context: u64, index: Option<Index>) {
        let Role::Follower(follower) = &mut self.role else {
            return self.core.ignore(from, "ReadAnswer", IgnoreReason::WrongRole);
        };
        if follower.leader != Some(from) {
            return self.core.ignore(from, "ReadAnswer", IgnoreReason::WrongRole);
        }
        if index.is_some_and(|index| INDEX_MAX < index) {
            return self.core.ignore(from, "ReadAnswer", IgnoreReason::Absurd);
        }
        let result = index.ok_or(Refusal::LeaderChanged);
        for ticket in follower.reads.answer(context) {
            self.core.outbox.reads.push((ticket, result));
        }
    }
}

/// Whether entries are whole, follow `prev` without a gap, and are of terms that can be: never
/// decreasing, never above `term`.
pub(crate) fn entries_are_sound(prev: Position, entries: &[Entry], term: Term) -> bool {
    let mut before = prev;
    entries.iter().all(|entry| {
        let follows = entry.index == before.index.next() && before.term <= entry.term;
        before = entry.position();
        let readable = match entry.kind {
            EntryKind::Noop | EntryKind::Command => true,
            EntryKind::Config => Members::decode(entry.payload.clone()).is_ok(),
        };
        let fits = entry.payload.len() <= limits::ENTRY_SIZE_BYTES_MAX;
        follows && readable && fits && entry.is_intact()
    }) && before.term <= term
}

/// Heartbeats that may be missing in a row before a voter doubts its leader.
const HEARTBEATS_MISSED_MAX: u32 = 3;

#[cfg(test)]
mod tests;
