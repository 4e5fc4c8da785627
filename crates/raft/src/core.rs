//! What a server knows whatever its role: term, vote, log, disk, commit, configuration.
//!
//! Why apart from the roles: a role's fields cannot be read by another role, and what every role
//! shares is changed only through the methods here, each of which holds its invariant.
//!
//! Invariants: `applied <= handed <= commit <= last`, `durable <= last`, the term never goes back,
//! one vote per term, what is committed is never truncated.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, HardState, Index, Instant, MemberId, MemberRole, Members, Position, Prng,
    Term, Write,
};
use serde::{Deserialize, Serialize};

use crate::{
    Body, Config, Event, IgnoreReason, Membership, Message, Output, Start, log::Log,
    promises::Promises, transfer::Transfer,
};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Core {
    pub(crate) config: Config,
    pub(crate) prng: Prng,
    /// Time of the present call.
    pub(crate) now: Instant,
    pub(crate) term: Term,
    pub(crate) vote: Option<MemberId>,
    pub(crate) log: Log,
    pub(crate) promises: Promises,
    pub(crate) commit: Index,
    /// Last entry given to the machine.
    handed: Index,
    pub(crate) applied: Index,
    /// Bytes of entries between `applied` and `handed`.
    unapplied_size_bytes: usize,
    /// The machine lacks what came before the log; `applied` and `handed` stand at the log's
    /// beginning until a snapshot is there, and nothing is handed over.
    hollow: bool,
    /// Configurations by the index of their entry; the last is in force from the moment it is
    /// appended (Raft §6). Invariant: never empty, the first is at or before `applied`.
    configurations: Vec<(Index, Arc<Members>)>,
    /// The configuration in force, or whether it is committed, has changed since it was last told.
    members_changed: bool,
    /// Until this is durable, a part of the log is missing and this server is muted.
    repair_until: Option<Index>,
    /// A snapshot is being installed: the log must not move.
    pub(crate) installing: Option<Position>,
    /// Members, and the leader, whose connection has closed and who have not been heard since.
    pub(crate) down: BTreeSet<MemberId>,
    /// Until then elections hurry: the connection to the last leader has closed.
    pub(crate) hurried_until: Instant,
    /// Until then this server helps nobody to lead, itself neither, because a leader may answer
    /// reads by lease. Outlives the role, and a restart.
    pub(crate) loyal_until: Instant,
    /// Leadership that is being handed over. Outlives the role, until a leader is known again.
    pub(crate) transfer: Option<Transfer>,
    next_fetch: u64,
    next_context: u64,
    /// Empty between turns.
    #[serde(skip)]
    pub(crate) outbox: Output,
}

impl Core {
    pub(crate) fn new(config: Config, start: Start, seed: u64, now: Instant) -> Self {
        // Servers given the same or related seeds must not draw the same delays.
        let prng = Prng::new(seed).fork(&format!("member {}", config.id));
        // Distinct for every life of a server, so that answers to an earlier one find no reader.
        let next_context = (Prng::new(seed ^ now.0).fork("contexts").next_u64() >> 1) + 1;
        let repair = start.attested.max(start.hard_state.commit);
        let base = start.base();
        let commit = start.hard_state.commit.min(start.last.index).max(base.index);
        // Nobody knows since when: what comes of it must never look like the log's.
        let members_from = if start.members_are_old { Index::ZERO } else { base.index };
        let mut core = Self {
            config,
            prng,
            now,
            term: start.hard_state.term,
            vote: start.hard_state.vote,
            promises: Promises::new(start.last.index),
            commit,
            handed: base.index,
            applied: base.index,
            unapplied_size_bytes: 0,
            hollow: start.applied.index < start.released.index,
            configurations: vec![(members_from, Arc::new(start.members))],
            members_changed: true,
            repair_until: (start.last.index < repair).then_some(repair),
            installing: None,
            down: BTreeSet::new(),
            hurried_until: Instant::ZERO,
            loyal_until: Instant::ZERO,
            transfer: None,
            next_fetch: 1,
            next_context,
            outbox: Output::default(),
            log: Log::new(start.released, base, start.tail),
        };
        if Term::ZERO < core.term {
            core.promise_loyalty();
        }
        let mut index = core.applied.next();
        while let Some(entry) = core.log.entry(index).cloned() {
            core.adopt_members(&entry);
            index = index.next();
        }
        core
    }

    /// See [`crate::Raft::replace_commands`]. Every field is named: a new one is thought of.
    pub(crate) fn replace_commands(&mut self, replace: &mut dyn FnMut(&Bytes) -> Bytes) {
        let Self {
            config: _,
            prng: _,
            now: _,
            term: _,
            vote: _,
            log,
            promises,
            commit: _,
            handed: _,
            applied,
            unapplied_size_bytes: _,
            hollow: _,
            configurations: _,
            members_changed: _,
            repair_until: _,
            installing: _,
            down: _,
            hurried_until: _,
            loyal_until: _,
            transfer: _,
            next_fetch: _,
            next_context: _,
            outbox: _,
        } = self;
        log.replace_commands(*applied, replace);
        promises.replace_commands(replace);
    }

    pub(crate) fn id(&self) -> MemberId {
        self.config.id
    }

    /// The configuration in force.
    pub(crate) fn members(&self) -> &Members {
        &self.last_configuration().1
    }

    /// The index of its entry.
    pub(crate) fn members_index(&self) -> Index {
        self.last_configuration().0
    }

    pub(crate) fn membership(&self) -> Membership {
        let (index, members) = self.last_configuration();
        let committed = *index <= self.commit;
        Membership { index: *index, members: Arc::clone(members), committed }
    }

    fn last_configuration(&self) -> &(Index, Arc<Members>) {
        self.configurations.last().expect("the first configuration is never removed")
    }

    /// The other voters, in order of id.
    pub(crate) fn other_voters(&self) -> Vec<MemberId> {
        let members = self.members();
        let is_voter = |id: &MemberId| *id != self.id() && members.is_voter(*id);
        members.ids().into_iter().filter(is_voter).collect()
    }

    pub(crate) fn is_muted(&self) -> bool {
        self.repair_until.is_some()
    }

    /// A leader was heard, or may have been just before this server started.
    pub(crate) fn promise_loyalty(&mut self) {
        if self.config.lease.is_some() {
            self.loyal_until = self.now + self.config.election_timeout;
        }
    }

    /// Whether a leader may hold a lease that this server has confirmed.
    pub(crate) fn is_bound(&self) -> bool {
        self.now < self.loyal_until
    }

    pub(crate) fn can_campaign(&self) -> bool {
        self.may_campaign() && !self.hollow
    }

    /// Whether this server, though hollow, may campaign because nobody else does with success: its
    /// log may be the only one that is long enough, and then it leads to hand that log on. Only
    /// by a configuration that its journal names: any other went with the table.
    pub(crate) fn can_bridge(&self) -> bool {
        let knows_members = Index::ZERO < self.members_index();
        self.may_campaign() && self.hollow && knows_members && !self.other_voters().is_empty()
    }

    fn may_campaign(&self) -> bool {
        self.may_be_needed() && self.has_whole_log()
    }

    /// Nothing is known to be missing in the log, and no snapshot is taking its place.
    fn has_whole_log(&self) -> bool {
        !self.is_muted() && self.installing.is_none()
    }

    /// Whether this server, though a learner, may campaign because a candidate that counts its vote
    /// has a shorter log: nobody else may have the longer one. Only by a configuration of the log:
    /// what a new server is started with names it as a learner, whatever it is to become.
    pub(crate) fn can_help(&self) -> bool {
        let is_started = Index::ZERO < self.members_index();
        let is_learner = self.members().role(self.id()) == Some(MemberRole::Learner);
        is_started && is_learner && self.has_whole_log() && !self.may_be_needed()
    }

    /// Whether this server votes in a configuration that may still decide: the last committed one
    /// or a later one. Who is removed by an entry that is not yet committed may have the only log
    /// that is long enough; it does not count itself, but it must lead until the removal is
    /// committed (Ongaro 2014, §4.2.2).
    fn may_be_needed(&self) -> bool {
        let committed = self.configurations.partition_point(|(at, _)| *at <= self.commit);
        let open = &self.configurations[committed.saturating_sub(1)..];
        open.iter().any(|(_, members)| members.is_voter(self.id()))
    }

    /// Whether the machine waits for a snapshot. The log is whole, so votes and answers stand; but
    /// such a server cannot serve what it leads.
    pub(crate) fn is_hollow(&self) -> bool {
        self.hollow
    }

    /// Whether a snapshot of `position` fills the machine of a hollow server, and the log, which
    /// goes on after it, stays.
    pub(crate) fn fills(&self, position: Position) -> bool {
        self.hollow && position.index <= self.promises.durable() && self.log.contains(position)
    }

    /// One to two election timeouts (Raft §5.2), to the nanosecond.
    pub(crate) fn draw_timeout(&mut self) -> Duration {
        let timeout = self.config.election_timeout;
        self.prng.duration(timeout, timeout * 2)
    }

    /// How long to wait after an election that nobody won: not long when the leader is known to be
    /// gone.
    pub(crate) fn draw_retry(&mut self) -> Duration {
        if !self.is_hurried() {
            return self.draw_timeout();
        }
        let least = self.config.fail_over_jitter_max.max(self.config.heartbeat_interval / 4);
        self.prng.duration(least, least * 4)
    }

    /// How long to wait for the answers of an election.
    pub(crate) fn draw_campaign(&mut self) -> Duration {
        if !self.is_hurried() {
            return self.draw_timeout();
        }
        self.config.election_timeout / 2 + self.draw_retry()
    }

    pub(crate) fn is_hurried(&self) -> bool {
        self.now < self.hurried_until
    }

    pub(crate) fn draw_jitter(&mut self) -> Duration {
        self.prng.duration(Duration::ZERO, self.config.fail_over_jitter_max)
    }

    pub(crate) fn next_fetch(&mut self) -> u64 {
        self.next_fetch += 1;
        self.next_fetch
    }

    pub(crate) fn next_context(&mut self) -> u64 {
        self.next_context += 1;
        self.next_context
    }

    /// Sends at once.
    pub(crate) fn send(&mut self, to: MemberId, body: Body) {
        assert!(to != self.id(), "a server does not write to itself");
        self.outbox.messages.push(Message { from: self.id(), to, term: self.term, body });
    }

    /// Sends once term, vote and the log up to `last` are durable.
    pub(crate) fn promise(&mut self, to: MemberId, body: Body, last: Index) {
        assert!(to != self.id(), "a server does not write to itself");
        assert!(last <= self.log.last().index, "a promise is about what is in the log");
        self.promises.hold(Message { from: self.id(), to, term: self.term, body }, last);
    }

    pub(crate) fn event(&mut self, event: Event) {
        self.outbox.events.push(event);
    }

    pub(crate) fn ignore(&mut self, from: MemberId, message: &'static str, reason: IgnoreReason) {
        self.event(Event::Ignored { from, message, reason });
    }

    /// Enters a later term, without a vote; promises of the earlier one are void.
    pub(crate) fn set_term(&mut self, term: Term) {
        assert!(self.term < term, "the term never goes back");
        self.term = term;
        self.vote = None;
        self.promises.hard_state_changed(true);
    }

    /// Gives this term's vote.
    pub(crate) fn set_vote(&mut self, candidate: MemberId) {
        if self.vote == Some(candidate) {
            return;
        }
        assert!(self.vote.is_none(), "one vote per term");
        assert!(!self.is_muted(), "a muted server does not vote");
        self.vote = Some(candidate);
        self.promises.hard_state_changed(false);
        self.event(Event::VoteGranted { term: self.term, candidate });
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(entry.term <= self.term, "no entry is of a later term than its server");
        assert!(self.installing.is_none(), "the log does not move during an installation");
        self.adopt_members(&entry);
        self.log.append(entry);
    }

    fn adopt_members(&mut self, entry: &Entry) {
        if entry.kind == EntryKind::Config {
            let members = Members::decode(entry.payload.clone())
                .expect("configurations are decoded before they are appended");
            self.configurations.push((entry.index, Arc::new(members)));
            self.note_members();
        }
    }

    /// Another configuration is in force.
    fn note_members(&mut self) {
        self.members_changed = true;
        self.event(Event::MembersChanged { index: self.members_index() });
    }

    /// Forgets the log from `first` on; a leader's log says otherwise.
    pub(crate) fn truncate(&mut self, first: Index) {
        assert!(self.commit < first, "what is committed is never truncated");
        assert!(self.installing.is_none(), "the log does not move during an installation");
        self.log.truncate(first);
        let promises_dropped = self.promises.truncate(first);
        self.event(Event::LogTruncated { first, promises_dropped });
        let count = self.configurations.len();
        self.configurations.retain(|(index, _)| *index < first);
        if self.configurations.len() < count {
            self.note_members();
        }
    }

    pub(crate) fn advance_commit(&mut self, commit: Index) {
        assert!(commit <= self.log.last().index, "commit ran past the log");
        if commit <= self.commit {
            return;
        }
        let index = self.members_index();
        let members_committed = self.commit < index && index <= commit;
        self.commit = commit;
        self.event(Event::CommitAdvanced { commit });
        if members_committed {
            self.members_changed = true;
            self.event(Event::MembersCommitted { index });
        }
    }

    /// The machine has applied up to `index`.
    pub(crate) fn on_applied(&mut self, index: Index) {
        assert!(self.applied <= index, "the machine never goes back");
        assert!(index <= self.handed, "the machine applies only what it was given");
        while self.applied < index {
            self.applied = self.applied.next();
            let entry = self.log.entry(self.applied).expect("what is not applied is in memory");
            self.unapplied_size_bytes -= entry.size_bytes();
        }
        let base = self.configurations.partition_point(|(at, _)| *at <= index).saturating_sub(1);
        self.configurations.drain(..base);
    }

    /// The journal has released up to `position`.
    pub(crate) fn on_released(&mut self, position: Position) {
        assert!(position.index <= self.applied, "what is not applied is never released");
        self.log.release(position);
    }

    /// The disk has caught up: a repaired log is whole again.
    pub(crate) fn check_repair(&mut self) {
        let durable = self.promises.durable();
        if self.repair_until.is_some_and(|until| until <= durable) {
            self.repair_until = None;
            self.event(Event::Unmuted { durable });
        }
    }

    /// The table was replaced, the log stays: the machine goes on after `position`.
    pub(crate) fn fill(&mut self, position: Position, members: Members) {
        assert!(self.fills(position), "only an expected snapshot is installed");
        self.hollow = false;
        self.applied = position.index;
        self.handed = position.index;
        self.commit = self.commit.max(position.index);
        let before = self.members().clone();
        self.configurations.retain(|(index, _)| position.index < *index);
        self.configurations.insert(0, (position.index, Arc::new(members)));
        self.installing = None;
        self.event(Event::SnapshotInstalled { position });
        self.members_changed = true;
        if *self.members() != before {
            self.note_members();
        }
    }

    /// Table and journal were replaced; everything is as after a restart from there.
    pub(crate) fn restart_log(&mut self, position: Position, members: Members) {
        assert!(self.commit < position.index, "a snapshot never takes back what is committed");
        self.log = Log::at(position);
        self.promises.restart(position.index);
        self.commit = position.index;
        self.applied = position.index;
        self.handed = position.index;
        self.unapplied_size_bytes = 0;
        self.hollow = false;
        let same = *self.members() == members;
        self.configurations = vec![(position.index, Arc::new(members))];
        self.installing = None;
        self.event(Event::SnapshotInstalled { position });
        self.members_changed = true;
        if !same {
            self.note_members();
        }
        self.check_repair();
    }

    /// Whether memory for the log is used up by what the own disk or machine has yet to deal with.
    /// What only waits for a majority does not count: refusing more could be what keeps it waiting,
    /// and leaders bound it.
    pub(crate) fn window_is_full(&self) -> bool {
        let catching_up =
            self.applied < self.commit || self.promises.durable() < self.log.last().index;
        let limit = self.config.window_bytes_max.saturating_mul(2);
        catching_up && limit <= self.log.window_size_bytes()
    }

    /// The one write of this turn.
    pub(crate) fn issue_write(&mut self) -> Option<Write> {
        // While the journal is being replaced, its entries are not added to.
        let (last, due) = if self.installing.is_some() {
            (self.promises.written(), self.promises.issue_hard_state()?)
        } else {
            let last = self.log.last().index;
            (last, self.promises.issue(last)?)
        };
        let hard_state = HardState { term: self.term, vote: self.vote, commit: self.commit };
        let entries = if due.first <= last {
            self.log.slice(due.first, last, usize::MAX)
        } else {
            Vec::new()
        };
        Some(Write { id: due.id, hard_state, truncate_from: due.truncate_from, entries })
    }

    /// The configuration in force, if it is not what was told last.
    pub(crate) fn take_membership(&mut self) -> Option<Membership> {
        std::mem::take(&mut self.members_changed).then(|| self.membership())
    }

    /// Gives the machine what is committed and durable here, as far as it keeps up.
    pub(crate) fn hand_over(&mut self, committed: &mut Vec<Entry>) {
        if self.hollow {
            return;
        }
        let end = self.commit.min(self.promises.durable());
        while self.handed < end && self.unapplied_size_bytes < self.config.apply_bytes_max {
            let index = self.handed.next();
            let entry = self.log.entry(index).expect("what is not applied is in memory").clone();
            self.unapplied_size_bytes += entry.size_bytes();
            self.handed = index;
            committed.push(entry);
        }
        let floor = self.applied.min(self.promises.durable());
        self.log.evict(self.config.window_bytes_max, floor);
    }

    pub(crate) fn check(&self) {
        let last = self.log.last();
        self.promises.check(last.index);
        assert!(self.applied <= self.handed, "the machine applies only what it was given");
        assert!(self.handed <= self.commit, "only what is committed is handed over");
        assert!(self.handed <= self.promises.durable(), "only what is durable is handed over");
        assert!(self.commit <= last.index, "commit ran past the log");
        assert!(last.term <= self.term, "no entry is of a later term than its server");
        assert!(self.log.released().index <= self.applied, "only what is applied is released");
    }
}
