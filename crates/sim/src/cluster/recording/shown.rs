//! What is shown of a server's state, and how it differs from what was shown before.

use std::{collections::BTreeMap, sync::Arc};

use kvraft_base::{Index, MemberId, Position, Term, Write};
use kvraft_raft::{RoleName, Status};
use kvraft_replica::{Hop, JournalIn};
use kvraft_trace::run::{Change, LogEntry, NodeId, Role};

use super::Terms;

/// What every position says, and about which key.
pub(super) type Entries = BTreeMap<Position, (Arc<str>, Arc<str>)>;

/// What was shown last of a server.
#[derive(Clone, Debug)]
pub(super) struct Shown {
    role: RoleName,
    term: Term,
    vote: Option<MemberId>,
    leader: Option<MemberId>,
    commit: Index,
    applied: Index,
    durable: Index,
    first: Index,
    /// Terms of the log, by index.
    log: BTreeMap<Index, Term>,
    peers: BTreeMap<MemberId, (Index, Index)>,
}

impl Default for Shown {
    fn default() -> Self {
        Self {
            role: RoleName::Follower,
            term: Term::ZERO,
            vote: None,
            leader: None,
            commit: Index::ZERO,
            applied: Index::ZERO,
            durable: Index::ZERO,
            first: Index(1),
            log: BTreeMap::new(),
            peers: BTreeMap::new(),
        }
    }
}

impl Shown {
    /// Everything but the log is as `status` says.
    pub(super) fn follow(
        &mut self,
        status: &Status,
        node: impl Fn(MemberId) -> Option<NodeId>,
        changes: &mut Vec<Change>,
    ) {
        if replaced(&mut self.term, status.term) {
            changes.push(Change::Term(status.term.0));
        }
        if replaced(&mut self.role, status.role) {
            changes.push(Change::Role(role(status.role)));
        }
        if replaced(&mut self.vote, status.vote) {
            changes.push(Change::Vote(status.vote.and_then(&node)));
        }
        if replaced(&mut self.leader, status.leader) {
            changes.push(Change::Leader(status.leader.and_then(&node)));
        }
        self.follow_log(status, changes);
        if replaced(&mut self.durable, status.durable) {
            changes.push(Change::Durable(status.durable.0));
        }
        if replaced(&mut self.commit, status.commit) {
            changes.push(Change::Commit(status.commit.0));
        }
        if replaced(&mut self.applied, status.applied) {
            changes.push(Change::Applied(status.applied.0));
        }
        self.follow_peers(status, node, changes);
    }

    /// What writes cannot say: what was released, and what a snapshot has taken the place of.
    fn follow_log(&mut self, status: &Status, changes: &mut Vec<Change>) {
        let first = status.released.index.next();
        if replaced(&mut self.first, first) {
            changes.push(Change::LogFirst(first.0));
            self.log = self.log.split_off(&first);
        }
        let end = status.last.index.next();
        if self.log.last_key_value().is_some_and(|(last, _)| end <= *last) {
            changes.push(Change::LogCut { from: end.0 });
            self.log.split_off(&end);
        }
    }

    fn follow_peers(
        &mut self,
        status: &Status,
        node: impl Fn(MemberId) -> Option<NodeId>,
        changes: &mut Vec<Change>,
    ) {
        if status.role != RoleName::Leader {
            if !self.peers.is_empty() {
                self.peers.clear();
                changes.push(Change::ProgressEnd);
            }
            return;
        }
        for peer in &status.peers {
            let now = (peer.matched, peer.next);
            let is_new = self.peers.insert(peer.id, now) != Some(now);
            if let Some(node) = node(peer.id).filter(|_| is_new) {
                let (matched, next) = (peer.matched.0, peer.next.0);
                changes.push(Change::Progress { peer: node, matched, next });
            }
        }
    }

    /// What the server has asked its journal to write.
    pub(super) fn write(&mut self, hops: &[Hop], entries: &Entries, changes: &mut Vec<Change>) {
        for write in hops.iter().filter_map(write_of) {
            if let Some(from) = write.truncate_from {
                self.cut(from, changes);
            }
            for entry in &write.entries {
                self.append(entry.position(), entries, changes);
            }
        }
    }

    /// The log of a server that has recovered: what was not synced may be gone, and what was cut
    /// without a sync may be back.
    pub(super) fn recover(
        &mut self,
        status: &Status,
        terms: &Terms,
        entries: &Entries,
        changes: &mut Vec<Change>,
    ) {
        self.follow_log(status, changes);
        for (index, term) in terms {
            match self.log.get(index) {
                Some(shown) if shown == term => {}
                Some(_) => {
                    self.cut(*index, changes);
                    self.append(Position::new(*term, *index), entries, changes);
                }
                None => self.append(Position::new(*term, *index), entries, changes),
            }
        }
    }

    fn cut(&mut self, from: Index, changes: &mut Vec<Change>) {
        if !self.log.split_off(&from).is_empty() {
            changes.push(Change::LogCut { from: from.0 });
        }
    }

    fn append(&mut self, position: Position, entries: &Entries, changes: &mut Vec<Change>) {
        let none: (Arc<str>, Arc<str>) = Default::default();
        let (text, key) = entries.get(&position).unwrap_or(&none).clone();
        self.log.insert(position.index, position.term);
        let (index, term) = (position.index.0, position.term.0);
        changes.push(Change::LogAppend(LogEntry { index, term, text, key }));
    }
}

fn replaced<T: PartialEq>(shown: &mut T, now: T) -> bool {
    let is_new = *shown != now;
    *shown = now;
    is_new
}

fn role(role: RoleName) -> Role {
    match role {
        RoleName::Follower => Role::Follower,
        RoleName::PreCandidate => Role::PreCandidate,
        RoleName::Candidate => Role::Candidate,
        RoleName::Leader => Role::Leader,
    }
}

/// The write that a hop carries.
pub(super) fn write_of(hop: &Hop) -> Option<&Write> {
    match hop {
        Hop::Journal(JournalIn::Write(write)) => Some(write),
        Hop::Journal(JournalIn::Release(_) | JournalIn::Reset { .. } | JournalIn::Fetch(_))
        | Hop::Node(_)
        | Hop::Machine(_)
        | Hop::Table(_)
        | Hop::Peer { .. }
        | Hop::Reply(_)
        | Hop::Event(_)
        | Hop::Members(_)
        | Hop::Fatal(_) => None,
    }
}

/// What to call a turn that nothing else has a name for.
pub(super) fn name_of(changes: &[Change]) -> &'static str {
    let is = |wanted: fn(&Change) -> bool| changes.iter().any(wanted);
    if is(|change| matches!(change, Change::LogAppend(_) | Change::LogCut { .. })) {
        "LogChanged"
    } else if is(|change| matches!(change, Change::Durable(_))) {
        "Durable"
    } else if is(|change| matches!(change, Change::Applied(_))) {
        "Applied"
    } else if is(|change| matches!(change, Change::Commit(_))) {
        "Committed"
    } else if is(|change| matches!(change, Change::LogFirst(_))) {
        "Released"
    } else {
        "Turn"
    }
}
