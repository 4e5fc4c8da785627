//! Leading a term: proposals, replication, commitment, heartbeats, reads.
//!
//! Why all sending happens at the end of a turn: what a turn brings is sent in one Append per
//! follower, however many proposals it was.
//!
//! Invariants:
//! - the leader's log only grows (Raft §5.3);
//! - an entry is committed by counting only if it is of this leader's own term (§5.4.2), and this
//!   leader counts itself only for what is durable here;
//! - a follower is told of a commit index no higher than what is known to match;
//! - a hollow leader sends its log and no snapshot, and hands over or steps down.
//!
//! What it lacks: who takes part; that is in `membership`.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, Index, Instant, MemberId, Position, limits};
use serde::{Deserialize, Serialize};

use crate::{
    AppendOutcome, Body, Event, Fetch, IgnoreReason, PeerStatus, Refusal, SnapshotRequest,
    core::Core,
    follower::entries_are_sound,
    lease::Lease,
    progress::{Inflight, Next, Progress, Search, State},
    quorum,
    reads::{LeaderReads, Reader},
};

/// What only a leader knows.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Leader {
    /// The other members, and for a while those who have left.
    pub(crate) progress: BTreeMap<MemberId, Progress>,
    heartbeat_at: Instant,
    /// The last heartbeat broadcast; the next has the next number.
    round: u64,
    pub(crate) reads: LeaderReads,
    pub(crate) lease: Lease,
    /// The first entry of this term.
    pub(crate) first_of_term: Index,
    /// End of the log at the last regular heartbeat but one: who holds it is in step.
    pub(crate) step_mark: Index,
    /// End of the log at the last regular heartbeat.
    step_mark_next: Index,
    /// It has been dismissed, and has begun to hand over once: it does not try again.
    pub(crate) handover_tried: bool,
    /// Bytes of entries after the commit index.
    uncommitted_size_bytes: usize,
}

impl Leader {
    pub(crate) fn new(core: &Core) -> Self {
        let last = core.log.last();
        let progress = |peer| (peer, Progress::new(last, core.now));
        let others = core.members().ids().into_iter().filter(|id| *id != core.id());
        let mut index = core.commit.next();
        let mut uncommitted_size_bytes = 0;
        while let Some(entry) = core.log.entry(index) {
            uncommitted_size_bytes += entry.size_bytes();
            index = index.next();
        }
        Self {
            progress: others.map(progress).collect(),
            heartbeat_at: core.now + core.config.heartbeat_interval,
            round: 0,
            reads: LeaderReads::default(),
            lease: Lease::default(),
            handover_tried: false,
            first_of_term: last.index.next(),
            step_mark: last.index.next(),
            step_mark_next: last.index.next(),
            uncommitted_size_bytes,
        }
    }

    /// A leader cannot commit what came before it until it commits something of its own (Raft §8).
    pub(crate) fn begin(&mut self, core: &mut Core) {
        self.append(core, EntryKind::Noop, Bytes::new());
    }

    pub(crate) fn append(&mut self, core: &mut Core, kind: EntryKind, payload: Bytes) -> Position {
        let entry = Entry::new(core.term, core.log.last().index.next(), kind, payload);
        let position = entry.position();
        self.uncommitted_size_bytes += entry.size_bytes();
        core.append(entry);
        position
    }

    pub(crate) fn propose(
        &mut self,
        core: &mut Core,
        kind: EntryKind,
        payload: Bytes,
    ) -> Result<Position, Refusal> {
        if kind == EntryKind::Config {
            return Err(Refusal::Unsupported);
        }
        if limits::ENTRY_SIZE_BYTES_MAX < payload.len() {
            return Err(Refusal::TooLarge);
        }
        self.refuse_proposal(core)?;
        Ok(self.append(core, kind, payload))
    }

    /// Why nothing can be added to the log at the moment.
    pub(crate) fn refuse_proposal(&self, core: &Core) -> Result<(), Refusal> {
        if let Some(transfer) = &core.transfer {
            return Err(Refusal::Transferring { to: transfer.to });
        }
        let waiting = core.config.uncommitted_bytes_max <= self.uncommitted_size_bytes;
        if waiting || core.window_is_full() {
            return Err(Refusal::Busy);
        }
        Ok(())
    }

    /// When this leader gives up unless more followers answer (Ongaro 2014, §6.2).
    pub(crate) fn quorum_deadline(&self, core: &Core) -> Instant {
        let own = Instant::NEVER;
        let heard = self.reached(core, own, |progress| progress.heard);
        heard + core.config.election_timeout
    }

    pub(crate) fn deadline(&self, core: &Core) -> Instant {
        self.heartbeat_at.min(self.quorum_deadline(core))
    }

    /// What a quorum has reached, this server itself `own`.
    fn reached<T: Copy + Default + Ord>(
        &self,
        core: &Core,
        own: T,
        of: impl Fn(&Progress) -> T,
    ) -> T {
        let id = core.id();
        quorum::reached(core.members(), |voter| {
            if voter == id { own } else { self.progress.get(&voter).map_or_else(T::default, &of) }
        })
    }

    pub(crate) fn peer_statuses(&self, core: &Core) -> Vec<PeerStatus> {
        let status = |(id, progress): (&MemberId, &Progress)| PeerStatus {
            id: *id,
            role: core.members().role(*id),
            matched: progress.matched.index,
            next: progress.sent.index.next(),
            state: progress.peer_state(),
        };
        self.progress.iter().map(status).collect()
    }

    /// Whether what this follower is sent is what it has missed, rather than what is new.
    pub(crate) fn is_catching_up(&self, peer: MemberId) -> bool {
        let state = self.progress.get(&peer).map(|progress| &progress.state);
        matches!(state, Some(State::Replicate { inflight, .. }) if inflight.is_catching_up())
    }

    /// Commits what a majority holds durably, if it is of this term (Raft §5.4.2).
    pub(crate) fn advance_commit(&mut self, core: &mut Core) {
        let durable = core.promises.durable();
        let reached = self.reached(core, durable, |progress| progress.matched.index);
        if reached <= core.commit || core.log.term_at(reached) != Some(core.term) {
            return;
        }
        let mut index = core.commit;
        while index < reached {
            index = index.next();
            let entry = core.log.entry(index).expect("what is not applied is in memory");
            self.uncommitted_size_bytes -= entry.size_bytes();
        }
        core.advance_commit(reached);
    }

    /// Whether the next regular heartbeat is to leave.
    pub(crate) fn is_heartbeat_due(&self, core: &Core) -> bool {
        self.heartbeat_at <= core.now
    }

    /// The end of a turn: everything that is due leaves.
    pub(crate) fn finish(&mut self, core: &mut Core) {
        let heartbeat_due = self.is_heartbeat_due(core);
        if heartbeat_due {
            // Not put off by what reads send: work hangs on it that no round of reads does.
            self.heartbeat_at = core.now + core.config.heartbeat_interval;
            self.retry_snapshots(core);
            self.step_mark = std::mem::replace(&mut self.step_mark_next, core.log.last().index);
        }
        self.tend_members(core);
        for (peer, progress) in &mut self.progress {
            send_appends(core, *peer, progress, self.round);
        }
        if self.may_read_by_lease(core) {
            let index = core.commit;
            for reader in self.reads.take_waiting() {
                serve(core, reader, index);
            }
        }
        if heartbeat_due || (self.has_committed(core) && self.reads.wants_round()) {
            self.broadcast_heartbeat(core);
        }
        self.tell_commit(core);
        self.push_transfer(core, heartbeat_due);
        if heartbeat_due {
            self.end_farewells(core);
        }
    }

    /// Whether an entry of its own term is committed, and with it all that came before.
    pub(crate) fn has_committed(&self, core: &Core) -> bool {
        self.first_of_term <= core.commit
    }

    /// Whether no other leader can have committed anything.
    pub(crate) fn may_read_by_lease(&self, core: &Core) -> bool {
        core.now < self.lease.until() && self.has_committed(core) && core.transfer.is_none()
    }

    fn broadcast_heartbeat(&mut self, core: &mut Core) {
        self.round += 1;
        let round = self.round;
        if self.has_committed(core) {
            self.reads.start_round(round, core.commit);
        }
        if core.config.lease.is_some() {
            self.lease.start_round(round, core.now);
        }
        for (peer, progress) in &mut self.progress {
            let commit = core.commit.min(progress.matched.index);
            progress.told_commit = commit;
            core.send(*peer, Body::Heartbeat { round, commit });
        }
        self.confirm_reads(core);
    }

    /// Followers that match should not wait for a heartbeat to learn what they may apply.
    fn tell_commit(&mut self, core: &mut Core) {
        for (peer, progress) in &mut self.progress {
            let commit = core.commit.min(progress.matched.index);
            if progress.told_commit < commit {
                progress.told_commit = commit;
                core.send(*peer, Body::CommitNotice { commit });
            }
        }
    }

    fn confirm_reads(&mut self, core: &mut Core) {
        let confirmed = self.reached(core, self.round, |progress| progress.answered_round);
        for (reader, index) in self.reads.confirm(confirmed) {
            serve(core, reader, index);
        }
        if let Some(length) = core.config.lease_length() {
            self.lease.confirm(confirmed, length);
        }
    }

    pub(crate) fn on_read_request(&mut self, core: &mut Core, member: MemberId, context: u64) {
        if self.reads.has_room() {
            self.reads.push(Reader::Remote { member, context });
        } else {
            core.ignore(member, "ReadRequest", IgnoreReason::WindowFull);
        }
    }

    /// The journal has answered a fetch; sends what it read if that still follows what was sent.
    pub(crate) fn on_fetched(&mut self, core: &mut Core, id: u64, entries: Option<Vec<Entry>>) {
        let asked = |progress: &Progress| matches!(progress.state, State::Replicate { fetch: Some(fetch), .. } if fetch == id);
        let Some((peer, progress)) = self.progress.iter_mut().find(|(_, p)| asked(p)) else {
            return;
        };
        let State::Replicate { inflight, fetch } = &mut progress.state else { return };
        *fetch = None;
        let prev = progress.sent;
        let entries = entries.unwrap_or_default();
        let follows = entries.first().is_none_or(|first| first.index == prev.index.next());
        if !follows {
            return;
        }
        let known = |entry: &Entry| core.log.term_at(entry.index).is_none_or(|t| t == entry.term);
        let whole = entries_are_sound(prev, &entries, core.term) && entries.iter().all(known);
        let Some(last) = entries.last().map(Entry::position).filter(|_| whole) else {
            return request_snapshot(core, *peer, progress);
        };
        let size_bytes = entries.iter().map(Entry::size_bytes).sum();
        inflight.add(last.index, size_bytes, self.round, core.now);
        progress.sent = last;
        core.send(*peer, Body::Append { prev, commit: core.commit, entries });
    }

    /// A follower has its log but not the state before it. What it is sent of the log goes on. A
    /// leader that lacks the state itself has none to give.
    pub(crate) fn on_snapshot_wanted(&mut self, core: &mut Core, from: MemberId) {
        if self.progress.contains_key(&from) && !core.is_hollow() {
            let request = SnapshotRequest { to: from, term: core.term, state_only: true };
            core.outbox.snapshots.extend([request]);
        }
    }

    /// A snapshot failed a while ago. The follower may not have needed it: asks again for the one
    /// place in the log where it could still join.
    fn retry_snapshots(&mut self, core: &mut Core) {
        let released = core.log.released();
        for progress in self.progress.values_mut() {
            if let State::Snapshot { retry_at: Some(at) } = progress.state
                && at <= core.now
            {
                progress.become_probing_at(released);
            }
        }
    }

    pub(crate) fn on_snapshot_report(
        &mut self,
        core: &mut Core,
        to: MemberId,
        position: Option<Position>,
    ) {
        let last = core.log.last().index;
        let Some(progress) = self.progress.get_mut(&to) else { return };
        let State::Snapshot { retry_at } = &mut progress.state else { return };
        match position {
            Some(position) => {
                assert!(position.index <= last, "a leader's log reaches as far as its snapshots");
                progress.note_match(position, self.round);
                progress.become_replicating(progress.matched);
                self.advance_commit(core);
            }
            None => *retry_at = Some(core.now + core.config.election_timeout),
        }
    }

    /// A connection is new, so what was on the way in the old one is not. A snapshot that could not
    /// be sent may be asked for at once.
    pub(crate) fn on_connected(&mut self, core: &Core, peer: MemberId) {
        let Some(progress) = self.progress.get_mut(&peer) else { return };
        match &mut progress.state {
            State::Probe(search) => search.on_probe_lost(),
            State::Replicate { inflight, .. } if !inflight.is_empty() => progress.become_probing(),
            State::Snapshot { retry_at: Some(at) } => *at = (*at).min(core.now),
            State::Replicate { .. } | State::Snapshot { retry_at: None } => {}
        }
    }

    /// A follower has answered an Append or a heartbeat of this term.
    pub(crate) fn on_answer(&mut self, core: &mut Core, from: MemberId, body: Body) {
        let name = body.name();
        let Some(progress) = self.progress.get_mut(&from) else {
            return core.ignore(from, name, IgnoreReason::UnknownMember);
        };
        let claimed = match &body {
            Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } }
            | Body::HeartbeatAnswer { matched, .. } => *matched,
            _ => Position::ZERO,
        };
        let known = core.log.term_at(claimed.index);
        if core.log.last().index < claimed.index || known.is_some_and(|t| t != claimed.term) {
            return core.ignore(from, name, IgnoreReason::Absurd);
        }
        progress.heard = core.now;
        match body {
            Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
                self.on_accepted(core, from, matched);
            }
            Body::AppendAnswer {
                outcome: AppendOutcome::Conflict { rejected, hint, commit, .. },
            } => on_conflict(core, from, progress, rejected, hint, commit),
            Body::HeartbeatAnswer { round, received, last, matched } => {
                if self.round < round {
                    return core.ignore(from, name, IgnoreReason::Absurd);
                }
                self.on_heartbeat_answer(core, from, round, received, last);
                if Index::ZERO < matched.index {
                    self.on_accepted(core, from, matched);
                }
                self.confirm_reads(core);
            }
            _ => unreachable!("only answers are given here"),
        }
    }

    fn on_accepted(&mut self, core: &mut Core, from: MemberId, matched: Position) {
        let round = self.round;
        let progress = self.progress.get_mut(&from).expect("the sender was found before");
        progress.note_match(matched, round);
        match &mut progress.state {
            State::Probe(search) => {
                // An answer to something older than the probe says nothing of the probe.
                if progress.sent.index <= matched.index {
                    match search.on_match(matched.index) {
                        Next::Found => progress.become_replicating(progress.matched),
                        Next::Probe(target) => aim(core, from, progress, target),
                    }
                }
            }
            State::Replicate { inflight, .. } => {
                inflight.free(matched.index);
                if progress.sent.index < matched.index {
                    progress.become_replicating(matched);
                }
            }
            State::Snapshot { .. } => {
                if core.log.released().index <= matched.index {
                    progress.become_replicating(matched);
                }
            }
        }
        self.advance_commit(core);
    }

    /// Beside confirming leadership, shows what got lost on the way.
    fn on_heartbeat_answer(
        &mut self,
        core: &mut Core,
        from: MemberId,
        round: u64,
        received: Index,
        last: Index,
    ) {
        let end = core.log.last();
        let progress = self.progress.get_mut(&from).expect("the sender was found before");
        progress.answered_round = progress.answered_round.max(round);
        let matched = progress.matched.index;
        if progress.matched_round < round && last < matched {
            core.event(Event::FollowerRegressed { peer: from, matched, last });
            return progress.forget(end);
        }
        // A restarted follower has its log, but no longer knows how far it matches this leader's.
        let restarted = progress.matched_round < round && received < matched;
        let lost = match &mut progress.state {
            State::Probe(search) => {
                search.on_heartbeat_answer(round);
                false
            }
            State::Replicate { inflight, .. } => {
                let patience = core.config.election_timeout;
                restarted || inflight.is_lost(round, received, core.now, patience)
            }
            State::Snapshot { .. } => false,
        };
        if lost {
            core.event(Event::AppendLost { peer: from, matched });
            progress.become_probing();
        }
    }

    pub(crate) fn check(&self, core: &Core) {
        let last = core.log.last().index;
        assert!(core.log.term_at(last) == Some(core.term), "a leader's log ends in its own term");
        let members = core.members();
        for voter in members.voters().iter().chain(members.voters_outgoing()) {
            let known = *voter == core.id() || self.progress.contains_key(voter);
            assert!(known, "a leader follows the progress of every voter");
        }
        assert!(!self.progress.contains_key(&core.id()), "a leader does not follow itself");
        for progress in self.progress.values() {
            assert!(progress.matched.index <= last, "match ran past the log");
            assert!(progress.sent.index <= last, "nothing is sent that is not in the log");
        }
    }
}

fn serve(core: &mut Core, reader: Reader, index: Index) {
    match reader {
        Reader::Local(ticket) => core.outbox.reads.push((ticket, Ok(index))),
        Reader::Remote { member, context } => {
            core.send(member, Body::ReadAnswer { context, index: Some(index) });
        }
    }
}

/// The follower's log does not contain `rejected`: looks further back.
fn on_conflict(
    core: &mut Core,
    from: MemberId,
    progress: &mut Progress,
    rejected: Position,
    hint: Position,
    commit: Index,
) {
    let expected = match &progress.state {
        State::Probe(search) => search.is_waiting() && rejected == progress.sent,
        // Appends overtook each other, or one was lost.
        State::Replicate { .. } => rejected.index <= progress.sent.index,
        State::Snapshot { .. } => false,
    };
    if !expected || rejected.index <= progress.matched.index || rejected.index <= commit {
        return core.ignore(from, "AppendAnswer", IgnoreReason::StaleAnswer);
    }
    if let State::Replicate { .. } = progress.state {
        progress.state = State::Probe(Search::new(progress.matched.index, rejected.index));
    }
    let bound = core.log.index_not_above(hint.index.min(rejected.index.prev()), hint.term);
    let State::Probe(search) = &mut progress.state else { return };
    let matched = progress.matched.index;
    let target = search.on_conflict(rejected.index, bound, commit, matched);
    core.event(Event::ConflictFound { rejected, hint });
    aim(core, from, progress, target);
}

/// Points a search at `target`, as near as terms are known; asks for a snapshot if the journal
/// starts after every place where the logs can match.
fn aim(core: &mut Core, peer: MemberId, progress: &mut Progress, target: Index) {
    let State::Probe(search) = &progress.state else { return };
    let released = core.log.released().index;
    if search.high().prev() < released {
        return request_snapshot(core, peer, progress);
    }
    let aimed = core.log.known_at_or_before(target.max(released));
    let position = aimed.expect("terms are known at the place where the journal starts");
    if position.index <= progress.matched.index && released <= progress.matched.index {
        progress.become_replicating(progress.matched);
    } else {
        progress.sent = position;
    }
}

fn send_appends(core: &mut Core, peer: MemberId, progress: &mut Progress, round: u64) {
    let released = core.log.released().index;
    match &mut progress.state {
        State::Snapshot { .. } => {}
        State::Probe(search) if search.is_waiting() => {}
        State::Probe(search) if progress.sent.index < released => {
            let target = search.high().prev();
            aim(core, peer, progress, target);
            send_probe(core, peer, progress, round);
        }
        State::Probe(_) => send_probe(core, peer, progress, round),
        State::Replicate { .. } if progress.sent.index < released => {
            request_snapshot(core, peer, progress);
        }
        State::Replicate { .. } => send_ahead(core, peer, progress, round),
    }
}

fn send_probe(core: &mut Core, peer: MemberId, progress: &mut Progress, round: u64) {
    let State::Probe(search) = &mut progress.state else { return };
    let prev = progress.sent;
    let first = prev.index.next();
    let last = core.log.last().index;
    let hopeful = search.is_hopeful(prev.index) && core.log.window_first() <= first;
    let entries = if hopeful {
        core.log.slice(first, last, core.config.append_size_bytes_max)
    } else {
        Vec::new()
    };
    search.wait(round);
    core.send(peer, Body::Append { prev, commit: core.commit, entries });
}

/// Sends what the follower lacks, until the window of what is in flight is full. What is no longer
/// in memory is fetched first.
fn send_ahead(core: &mut Core, peer: MemberId, progress: &mut Progress, round: u64) {
    let State::Replicate { inflight, fetch } = &mut progress.state else { return };
    let last = core.log.last().index;
    let size_bytes_max = core.config.append_size_bytes_max;
    while progress.sent.index < last && inflight.has_room(&core.config) && fetch.is_none() {
        let prev = progress.sent;
        let first = prev.index.next();
        if !inflight.turn_to(is_far_behind(core, inflight, first), core.now) {
            return;
        }
        if first < core.log.window_first() {
            let id = core.next_fetch();
            *fetch = Some(id);
            let last = core.log.window_first().prev();
            core.outbox.fetches.push(Fetch { id, peer, prev, first, last, size_bytes_max });
            return;
        }
        let entries = core.log.slice(first, last, size_bytes_max);
        let end = entries.last().map(Entry::position).expect("the window reaches to the end");
        let size_bytes = entries.iter().map(Entry::size_bytes).sum();
        inflight.add(end.index, size_bytes, round, core.now);
        progress.sent = end;
        progress.told_commit = core.commit;
        core.send(peer, Body::Append { prev, commit: core.commit, entries });
    }
}

/// Whether what a follower lacks, from `first` on, is so much that it catches up beside the fresh
/// traffic, or still does.
fn is_far_behind(core: &Core, inflight: &Inflight, first: Index) -> bool {
    let config = &core.config;
    let bound = if inflight.is_catching_up() {
        config.append_size_bytes_max
    } else {
        config.catch_up_bytes_min
    };
    first < core.log.window_first() || core.log.exceeds(first, bound)
}

fn request_snapshot(core: &mut Core, peer: MemberId, progress: &mut Progress) {
    let next = progress.matched.index.next();
    progress.state = State::Snapshot { retry_at: None };
    progress.sent = progress.matched;
    if progress.farewell_until.is_some() {
        // Whoever has left and is that far behind is not worth a snapshot.
        progress.farewell_until = Some(core.now);
        return;
    }
    if core.is_hollow() {
        // Whoever leads next may have a snapshot; this leader has none.
        progress.state =
            State::Snapshot { retry_at: Some(core.now + core.config.election_timeout) };
        return;
    }
    core.outbox.snapshots.push(SnapshotRequest { to: peer, term: core.term, state_only: false });
    core.event(Event::SnapshotNeeded { peer, next });
}
