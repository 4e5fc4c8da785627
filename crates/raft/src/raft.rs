//! One server of the group as a value: what it takes in, what it gives out, and how it changes
//! role.
//!
//! Why one place for transitions: everything that must happen when a role ends (readers are told,
//! timers are drawn) happens once, here.
//!
//! Invariants:
//! - the state is a function of the configuration, the start, the seed and the inputs with their
//!   times;
//! - messages that have arrived are handled before deadlines that have passed;
//! - nothing a peer sends makes an assertion fail.
//!
//! What it lacks: any say in who takes part; that is in `membership`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{EntryKind, Index, Instant, MemberId, Members, Position, Term, Ticket};
use serde::{Deserialize, Serialize};

use crate::{
    Body, Config, Event, IgnoreReason, Input, Message, Output, PeerStatus, Refusal, RoleName,
    Start, StartError, Status, candidate::Campaign, core::Core, follower::Follower, leader::Leader,
    log::Log, reads::Reader,
};

/// One server of a Raft group, without IO.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Raft {
    pub(crate) core: Core,
    pub(crate) role: Role,
}

/// What a server is at the moment, and what only that role knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) enum Role {
    Follower(Follower),
    PreCandidate(Campaign),
    Candidate(Campaign),
    Leader(Leader),
}

impl Raft {
    /// Starts from what recovery found, as a follower of nobody yet. `seed` determines every drawn
    /// delay; give each life of a server its own.
    ///
    /// # Errors
    /// [`StartError`] when the configuration is out of bounds or the parts of the start contradict
    /// each other.
    pub fn new(config: Config, start: Start, seed: u64, now: Instant) -> Result<Self, StartError> {
        config.validate()?;
        start.validate(config.id)?;
        let mut core = Core::new(config, start, seed, now);
        let id = core.id();
        let alone = core.members().is_quorum(|voter| voter == id);
        let timeout = core.draw_timeout();
        let mut follower = Follower::new(None, now, timeout);
        if alone {
            follower.deadline = now;
        }
        Ok(Self { core, role: Role::Follower(follower) })
    }

    /// Takes in one thing that happened. What follows from it comes out at the end of the turn.
    ///
    /// # Panics
    /// When an input other than a message contradicts what this server knows of itself: its own
    /// parts do not lie.
    pub fn step(&mut self, now: Instant, input: Input) {
        self.pass_time(now);
        match input {
            Input::Receive(message) => self.on_message(message),
            Input::Propose { ticket, kind, payload } => {
                let result = self.propose(kind, payload);
                self.core.outbox.proposed.push((ticket, result));
            }
            Input::Read { ticket } => self.on_read(ticket),
            Input::Durable { write } => {
                self.core.promises.complete(write);
                self.core.check_repair();
                self.on_durable();
            }
            Input::Applied { index } => self.core.on_applied(index),
            Input::Released { position } => self.core.on_released(position),
            Input::Fetched { id, entries } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_fetched(&mut self.core, id, entries);
                }
            }
            Input::SnapshotInstalling { position } => {
                assert!(
                    self.core.commit < position.index || self.core.fills(position),
                    "only an expected snapshot is installed"
                );
                self.core.installing = Some(position);
                self.core.promises.stop_at_written();
            }
            Input::SnapshotInstalled { position, members } => self.on_installed(position, members),
            Input::SnapshotAbandoned => self.core.installing = None,
            Input::SnapshotReport { to, position } => {
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_snapshot_report(&mut self.core, to, position);
                }
            }
            Input::Connected { peer } => {
                self.core.down.remove(&peer);
                if let Role::Leader(leader) = &mut self.role {
                    leader.on_connected(&self.core, peer);
                }
            }
            Input::Disconnected { peer } => self.on_disconnected(peer),
            Input::ChangeMembers { ticket, changes } => {
                let result = self.change_members(&changes);
                self.core.outbox.proposed.push((ticket, result));
            }
            Input::Transfer { ticket, to } => self.on_transfer(ticket, to),
            Input::LeaderSuspected => self.on_leader_suspected(),
        }
    }

    /// Ends the turn: fires deadlines that have passed, gathers Appends and the one write, and
    /// moves everything that is asked for to `out`.
    ///
    /// # Panics
    /// When an invariant does not hold: a bug.
    pub fn finish(&mut self, now: Instant, out: &mut Output) {
        self.pass_time(now);
        self.fire_deadlines();
        match &mut self.role {
            Role::Leader(leader) => leader.finish(&mut self.core),
            Role::Follower(follower) => follower.forward_reads(&mut self.core),
            Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
        self.stop_if_dismissed();
        self.hand_over_if_hollow();
        assert!(out.write.is_none(), "a turn's write is taken before the next turn ends");
        out.write = self.core.issue_write();
        let promises = self.core.promises.release();
        self.core.outbox.messages.extend(promises);
        let core = &mut self.core;
        out.messages.append(&mut core.outbox.messages);
        out.proposed.append(&mut core.outbox.proposed);
        out.reads.append(&mut core.outbox.reads);
        out.transfers.append(&mut core.outbox.transfers);
        out.fetches.append(&mut core.outbox.fetches);
        out.snapshots.append(&mut core.outbox.snapshots);
        out.events.append(&mut core.outbox.events);
        core.hand_over(&mut out.committed);
        if let Some(membership) = core.take_membership() {
            out.members = Some(membership);
            self.forget_strangers();
        }
        self.check();
    }

    /// A leader is called at least at every heartbeat. If it was not, it stood still, and its clock
    /// may have, too; a clock that goes back is no better.
    fn pass_time(&mut self, now: Instant) {
        let pause = now.since(self.core.now);
        let jumps = now < self.core.now || self.core.config.heartbeat_interval * 2 < pause;
        if let Role::Leader(leader) = &mut self.role
            && jumps
        {
            leader.lease.doubt();
        }
        self.core.now = self.core.now.max(now);
    }

    /// The same server for a recording: zeroes stand for the payloads of commands that the machine
    /// has applied, which are as long, and which nothing here looks into.
    #[must_use]
    pub fn thinned(&mut self) -> Self {
        // Taken out meanwhile, so that payloads are not shared only to be dropped.
        let log = std::mem::replace(&mut self.core.log, Log::at(Position::ZERO));
        let mut copy = self.clone();
        copy.core.log = log.thinned(self.core.applied);
        self.core.log = log;
        copy
    }

    /// A server that was thinned is about to run: what it sends of its log gets checksums again.
    pub fn thaw(&mut self) {
        self.core.log.thaw(self.core.applied);
    }

    /// Replaces the payloads of commands that are not applied yet by others of the same length.
    /// Of a server that was thinned no other payload is left then.
    pub fn replace_commands(&mut self, replace: &mut dyn FnMut(&Bytes) -> Bytes) {
        // No role keeps an entry.
        let Self { core, role: _ } = self;
        core.replace_commands(replace);
    }

    /// What tells one state from another at the price of a few numbers: not all of it.
    #[must_use]
    pub fn digest_parts(&self) -> [u64; 9] {
        let core = &self.core;
        [
            core.term.0,
            core.vote.map_or(0, |vote| vote.0),
            self.role.name() as u64,
            self.leader().map_or(0, |leader| leader.0),
            core.log.last().index.0,
            core.commit.0,
            core.promises.durable().0,
            core.applied.0,
            self.deadline().0,
        ]
    }

    /// When to call [`Raft::finish`] if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        let role = match &self.role {
            Role::Follower(follower) => follower.deadline(&self.core),
            Role::PreCandidate(campaign) | Role::Candidate(campaign) => campaign.deadline,
            Role::Leader(leader) => leader.deadline(&self.core),
        };
        self.core.transfer.as_ref().map_or(role, |transfer| role.min(transfer.deadline))
    }

    /// A look at the state.
    #[must_use]
    pub fn status(&self) -> Status {
        let core = &self.core;
        let lease_until = match &self.role {
            Role::Leader(leader) if leader.may_read_by_lease(core) => Some(leader.lease.until()),
            Role::Leader(_) | Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                None
            }
        };
        let peers = match &self.role {
            Role::Leader(leader) => leader.peer_statuses(core),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Vec::<PeerStatus>::new()
            }
        };
        Status {
            id: core.id(),
            term: core.term,
            vote: core.vote,
            role: self.role.name(),
            leader: self.leader(),
            last: core.log.last(),
            commit: core.commit,
            durable: core.promises.durable(),
            applied: core.applied,
            released: core.log.released(),
            muted: core.is_muted(),
            hollow: core.is_hollow(),
            membership: core.membership(),
            transfer: core.transfer.as_ref().map(|transfer| transfer.to),
            lease_until,
            peers,
        }
    }

    /// The configuration in force: the last one in the log, committed or not.
    #[must_use]
    pub fn members(&self) -> &Members {
        self.core.members()
    }

    /// Whether a snapshot from this leader, of this term, is wanted: only what cannot be had from
    /// the log, or what a hollow server's machine lacks. Ask before every chunk and, last, before
    /// [`Input::SnapshotInstalling`].
    #[must_use]
    pub fn expects_snapshot(&self, from: MemberId, term: Term, position: Position) -> bool {
        let Role::Follower(follower) = &self.role else { return false };
        follower.leader == Some(from) && self.wants_snapshot(term, position)
    }

    /// Whether a snapshot that a leader of `term` has begun to send may still be expected: that
    /// leader may be heard again, and what it sends is not here yet.
    #[must_use]
    pub fn wants_snapshot(&self, term: Term, position: Position) -> bool {
        let core = &self.core;
        // A log that contains the snapshot's end may hold entries after it that were acknowledged;
        // the snapshot would take them away, and is not needed.
        let replaces = position.term <= core.term
            && core.commit < position.index
            && !core.log.contains(position);
        core.term == term
            && (replaces || core.fills(position))
            && position.index <= INDEX_MAX
            && core.installing.is_none_or(|installing| installing == position)
    }

    /// Whether the log stays when the expected snapshot of `position` is installed: the table alone
    /// is replaced then. Else the journal is to begin anew.
    #[must_use]
    pub fn keeps_log(&self, position: Position) -> bool {
        self.core.fills(position)
    }

    /// Who leads, as far as this server knows; it may be this server.
    #[must_use]
    pub fn leader(&self) -> Option<MemberId> {
        match &self.role {
            Role::Follower(follower) => follower.leader,
            Role::PreCandidate(_) | Role::Candidate(_) => None,
            Role::Leader(_) => Some(self.core.id()),
        }
    }

    fn propose(&mut self, kind: EntryKind, payload: Bytes) -> Result<Position, Refusal> {
        match &mut self.role {
            Role::Leader(leader) => leader.propose(&mut self.core, kind, payload),
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                Err(self.not_leader())
            }
        }
    }

    /// What to say to who wants something that only a leader can do.
    pub(crate) fn not_leader(&self) -> Refusal {
        match self.leader() {
            Some(leader) => Refusal::NotLeader { leader: Some(leader) },
            None => self.leaderless(),
        }
    }

    fn leaderless(&self) -> Refusal {
        if self.core.is_muted() { Refusal::Muted } else { Refusal::NotLeader { leader: None } }
    }

    fn on_read(&mut self, ticket: Ticket) {
        let refusal = match &mut self.role {
            Role::Leader(leader) if leader.reads.has_room() => {
                leader.reads.push(Reader::Local(ticket));
                return;
            }
            Role::Follower(follower) if follower.leader.is_some() && follower.reads.has_room() => {
                follower.reads.push(ticket);
                return;
            }
            Role::Leader(_) | Role::Follower(Follower { leader: Some(_), .. }) => Refusal::Busy,
            Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => self.leaderless(),
        };
        self.core.outbox.reads.push((ticket, Err(refusal)));
    }

    fn on_durable(&mut self) {
        match &mut self.role {
            Role::Leader(leader) => leader.advance_commit(&mut self.core),
            Role::Candidate(_) => self.count_own_vote(),
            Role::Follower(_) | Role::PreCandidate(_) => {}
        }
    }

    /// Judges a message by sender and term, then gives it to the role (Raft §5.1).
    fn on_message(&mut self, message: Message) {
        let Message { from, to, term, body } = message;
        if to != self.core.id() {
            return self.core.ignore(from, body.name(), IgnoreReason::WrongReceiver);
        }
        if !self.listens_to(from, &body, self.core.term < term) {
            return self.core.ignore(from, body.name(), IgnoreReason::UnknownMember);
        }
        if TERM_MAX < term {
            return self.core.ignore(from, body.name(), IgnoreReason::Absurd);
        }
        self.core.down.remove(&from);
        if self.core.term < term && !self.follow_term(from, term, &body) {
            return;
        }
        if term < self.core.term && !self.answer_stale(from, &body) {
            return;
        }
        self.dispatch(from, body);
    }

    /// A later term has begun. Returns whether the message is still to be handled.
    fn follow_term(&mut self, from: MemberId, term: Term, body: &Body) -> bool {
        match body {
            // Changes nothing at the receiver, or a partitioned server would depose leaders.
            Body::PreVoteRequest { .. } | Body::PreVoteAnswer { granted: true, .. } => {}
            Body::VoteRequest { transfer: false, .. } if self.is_loyal(from) => {
                self.core.ignore(from, body.name(), IgnoreReason::Loyal);
                return false;
            }
            Body::Append { .. }
            | Body::Heartbeat { .. }
            | Body::CommitNotice { .. }
            | Body::SnapshotNotice { .. }
            | Body::TimeoutNow => self.become_follower(term, Some(from)),
            Body::PreVoteAnswer { .. }
            | Body::VoteRequest { .. }
            | Body::VoteAnswer { .. }
            | Body::AppendAnswer { .. }
            | Body::HeartbeatAnswer { .. }
            | Body::SnapshotWanted
            | Body::ReadRequest { .. }
            | Body::ReadAnswer { .. } => self.become_follower(term, None),
        }
        true
    }

    /// The sender is behind in terms. Returns whether the message is still to be handled.
    fn answer_stale(&mut self, from: MemberId, body: &Body) -> bool {
        match body {
            // Judged by the campaign's term, not the sender's: a voter that is behind in terms must
            // be able to say yes, or a majority of such voters never has a leader again.
            Body::PreVoteRequest { .. } | Body::PreVoteAnswer { .. } => return true,
            // Any answer tells the sender of the later term, so that it can stop.
            Body::VoteRequest { .. } => {
                self.core.promise(from, Body::VoteAnswer { granted: false }, Index::ZERO);
            }
            Body::Append { .. } | Body::Heartbeat { .. } | Body::SnapshotNotice { .. } => {
                self.answer_heartbeat(from, 0);
            }
            Body::VoteAnswer { .. }
            | Body::AppendAnswer { .. }
            | Body::HeartbeatAnswer { .. }
            | Body::SnapshotWanted
            | Body::CommitNotice { .. }
            | Body::TimeoutNow
            | Body::ReadRequest { .. }
            | Body::ReadAnswer { .. } => {}
        }
        self.core.ignore(from, body.name(), IgnoreReason::StaleTerm);
        false
    }

    fn dispatch(&mut self, from: MemberId, body: Body) {
        let name = body.name();
        match body {
            Body::PreVoteRequest { campaign, last } => {
                self.on_pre_vote_request(from, campaign, last);
            }
            Body::PreVoteAnswer { campaign, granted } => {
                self.on_pre_vote_answer(from, campaign, granted);
            }
            Body::VoteRequest { last, transfer } => self.on_vote_request(from, last, transfer),
            Body::VoteAnswer { granted } => self.on_vote_answer(from, granted),
            Body::Append { prev, commit, entries } => {
                if self.hear_leader(from, name) {
                    self.on_append(from, prev, commit, entries);
                }
            }
            Body::Heartbeat { round, commit } => {
                if self.hear_leader(from, name) {
                    self.on_commit_told(commit);
                    self.answer_heartbeat(from, round);
                    self.want_snapshot(from);
                }
            }
            Body::CommitNotice { commit } => {
                if self.hear_leader(from, name) {
                    self.on_commit_told(commit);
                }
            }
            Body::SnapshotNotice { position } => {
                if self.hear_leader(from, name) {
                    self.on_snapshot_notice(from, position);
                }
            }
            Body::TimeoutNow => {
                if self.hear_leader(from, name) {
                    self.on_timeout_now();
                }
            }
            Body::ReadAnswer { context, index } => self.on_read_answer(from, context, index),
            Body::SnapshotWanted => match &mut self.role {
                Role::Leader(leader) => leader.on_snapshot_wanted(&mut self.core, from),
                Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                    self.core.ignore(from, name, IgnoreReason::WrongRole);
                }
            },
            Body::ReadRequest { context } => match &mut self.role {
                Role::Leader(leader) => leader.on_read_request(&mut self.core, from, context),
                Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                    self.core.send(from, Body::ReadAnswer { context, index: None });
                }
            },
            Body::AppendAnswer { .. } | Body::HeartbeatAnswer { .. } => match &mut self.role {
                Role::Leader(leader) => leader.on_answer(&mut self.core, from, body),
                Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {
                    self.core.ignore(from, name, IgnoreReason::WrongRole);
                }
            },
        }
    }

    /// A leader's message of the present term has come: follows it. False if it cannot be one.
    fn hear_leader(&mut self, from: MemberId, name: &'static str) -> bool {
        if self.leader().is_some_and(|leader| leader != from) {
            self.core.ignore(from, name, IgnoreReason::SecondLeader);
            return false;
        }
        if self.leader().is_none() {
            self.become_follower(self.core.term, Some(from));
        }
        self.core.hurried_until = Instant::ZERO;
        let Role::Follower(follower) = &mut self.role else {
            unreachable!("a leader's message from itself was refused as from an unknown member")
        };
        follower.hear(self.core.now);
        self.core.promise_loyalty();
        true
    }

    fn fire_deadlines(&mut self) {
        let now = self.core.now;
        if self.core.transfer.as_ref().is_some_and(|transfer| transfer.deadline <= now) {
            self.fail_transfer();
        }
        match &self.role {
            Role::Leader(leader) if leader.quorum_deadline(&self.core) <= now => {
                self.core.event(Event::QuorumLost { term: self.core.term });
                self.become_follower(self.core.term, None);
            }
            Role::Leader(leader) if leader.is_heartbeat_due(&self.core) => {
                if self.draws_retreat() {
                    self.become_follower(self.core.term, None);
                }
            }
            Role::Follower(follower) if follower.deadline <= now && self.core.is_bound() => {
                let deadline = self.core.loyal_until + self.core.draw_jitter();
                if let Role::Follower(follower) = &mut self.role {
                    follower.deadline = deadline;
                }
            }
            Role::Follower(follower) if follower.deadline <= now => {
                let is_leaderless = follower.leader.is_none();
                let is_needed = follower.is_ahead && self.core.can_help();
                let may_campaign = is_needed || self.core.can_campaign();
                if may_campaign || (is_leaderless && self.draws_bridge()) {
                    return self.become_pre_candidate();
                }
                if !is_leaderless {
                    self.become_follower(self.core.term, None);
                }
                self.restart_timer();
            }
            Role::PreCandidate(campaign) | Role::Candidate(campaign)
                if campaign.deadline <= now =>
            {
                if self.core.can_campaign() {
                    return self.become_pre_candidate();
                }
                // A hollow server draws before every campaign, and a learner waits to be asked.
                self.become_follower(self.core.term, None);
                self.restart_timer();
            }
            Role::Leader(_) | Role::Follower(_) | Role::PreCandidate(_) | Role::Candidate(_) => {}
        }
    }

    /// Follows `leader` in `term`, or waits there for one.
    pub(crate) fn become_follower(&mut self, term: Term, leader: Option<MemberId>) {
        let same = term == self.core.term && leader.is_some() && self.leader() == leader;
        assert!(!same, "following anew would forget what this leader has matched");
        if self.core.term < term {
            self.core.set_term(term);
        }
        let timeout = self.core.draw_timeout();
        let mut follower = Follower::new(leader, self.core.now, timeout);
        if leader.is_none()
            && let Some(deadline) = self.election_deadline()
        {
            // A term that begins without a leader does not push the own campaign away.
            follower.deadline = follower.deadline.min(deadline.max(self.core.now));
        }
        self.transition(Role::Follower(follower));
        self.core.event(Event::BecameFollower { term, leader });
        if leader.is_some() {
            self.end_transfer(leader);
        }
    }

    /// Whether a hollow server campaigns this time: not often, so that it comes after all others
    /// that can.
    fn draws_bridge(&mut self) -> bool {
        self.core.can_bridge() && self.core.prng.chance(1, BRIDGE_ODDS)
    }

    fn election_deadline(&self) -> Option<Instant> {
        match &self.role {
            Role::Follower(follower) => Some(follower.deadline),
            Role::PreCandidate(campaign) | Role::Candidate(campaign) => Some(campaign.deadline),
            Role::Leader(_) => None,
        }
    }

    /// Asks whether a campaign has a chance. Changes neither term nor vote.
    pub(crate) fn become_pre_candidate(&mut self) {
        assert!(self.may_lead(), "a server without a whole log asks for no votes");
        let campaign = self.new_campaign();
        self.transition(Role::PreCandidate(campaign));
        self.core.event(Event::BecamePreCandidate { term: self.core.term });
        self.ask_pre_votes();
    }

    /// Campaigns in the next term, because a majority would vote for it or because the leader hands
    /// over.
    pub(crate) fn become_candidate(&mut self, transfer: bool) {
        assert!(self.may_lead(), "a server without a whole log does not campaign");
        assert!(!transfer || self.core.can_campaign(), "a hollow server does not take over");
        assert!(transfer || !self.core.is_bound(), "nobody is elected during a lease");
        let campaign = self.new_campaign();
        self.core.set_term(self.core.term.next());
        self.core.set_vote(self.core.id());
        self.transition(Role::Candidate(campaign));
        self.core.event(Event::BecameCandidate { term: self.core.term });
        self.ask_votes(transfer);
    }

    /// Whether this server may campaign, if only to hand its log on.
    fn may_lead(&self) -> bool {
        self.core.can_campaign() || self.core.can_bridge() || self.core.can_help()
    }

    fn new_campaign(&mut self) -> Campaign {
        let timeout = self.core.draw_campaign();
        Campaign { answers: BTreeMap::new(), deadline: self.core.now + timeout }
    }

    /// Leads the present term.
    pub(crate) fn become_leader(&mut self) {
        assert!(matches!(self.role, Role::Candidate(_)), "only a candidate wins an election");
        assert!(self.core.vote == Some(self.core.id()), "a leader has voted for itself");
        assert!(self.core.promises.hard_state_is_durable(), "a leader's own vote is durable");
        let leader = Leader::new(&self.core);
        self.transition(Role::Leader(leader));
        self.core.hurried_until = Instant::ZERO;
        self.core.event(Event::BecameLeader { term: self.core.term });
        self.end_transfer(Some(self.core.id()));
        if let Role::Leader(leader) = &mut self.role {
            leader.begin(&mut self.core);
        }
    }

    /// The one place where the role changes. Whoever waits for the old role is told.
    fn transition(&mut self, role: Role) {
        let tickets: Vec<Ticket> = match std::mem::replace(&mut self.role, role) {
            Role::Follower(mut follower) => follower.reads.take_all(),
            Role::PreCandidate(_) | Role::Candidate(_) => Vec::new(),
            Role::Leader(leader) => {
                let local = |reader| match reader {
                    Reader::Local(ticket) => Some(ticket),
                    Reader::Remote { .. } => None,
                };
                leader.reads.into_readers().filter_map(local).collect()
            }
        };
        let refused = tickets.into_iter().map(|ticket| (ticket, Err(Refusal::LeaderChanged)));
        self.core.outbox.reads.extend(refused);
    }

    fn check(&self) {
        self.core.check();
        if let Role::Leader(leader) = &self.role {
            leader.check(&self.core);
        }
    }
}

impl Role {
    fn name(&self) -> RoleName {
        match self {
            Self::Follower(_) => RoleName::Follower,
            Self::PreCandidate(_) => RoleName::PreCandidate,
            Self::Candidate(_) => RoleName::Candidate,
            Self::Leader(_) => RoleName::Leader,
        }
    }
}

/// A hollow server that hears no leader campaigns once in so many of its election timeouts.
const BRIDGE_ODDS: u64 = 8;

/// Terms beyond this are a peer's damage: at a million elections a second it takes 100,000 years.
/// Keeps arithmetic on terms that peers sent far from overflow.
pub(crate) const TERM_MAX: Term = Term(1 << 62);

/// The same for indexes.
pub(crate) const INDEX_MAX: Index = Index(1 << 62);
