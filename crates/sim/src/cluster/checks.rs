//! The rules of consensus, checked on every event against what really is on the disks.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, Index, MemberId, Position, Term};
use kvraft_raft::{AppendOutcome, Body, Message, RoleName, Status};

use super::{
    mirror::Mirror,
    violation::{Check, Violation},
};

/// An entry of the one log that everybody agreed on.
#[derive(Clone, Debug)]
pub(crate) struct Agreed {
    pub(crate) term: Term,
    pub(crate) kind: EntryKind,
    pub(crate) payload: Bytes,
    checksum: u32,
    /// Term of the server that first took it as committed: the commit is of this term or earlier.
    committed_in: Term,
}

/// What has been seen of the whole cluster since the run began.
#[derive(Debug)]
pub(crate) struct Checks {
    quorum: usize,
    leaders: BTreeMap<Term, MemberId>,
    votes: BTreeMap<(MemberId, Term), MemberId>,
    /// Index 1 is at slot 0.
    agreed: Vec<Agreed>,
    mirrors: BTreeMap<MemberId, Mirror>,
    /// Commit index of each leader when last looked at, with its term.
    commits: BTreeMap<MemberId, (Term, Index)>,
    violations: Vec<Violation>,
}

impl Checks {
    pub(crate) fn new(members: impl Iterator<Item = MemberId>) -> Self {
        let mirrors: BTreeMap<_, _> = members.map(|id| (id, Mirror::default())).collect();
        Self {
            quorum: mirrors.len() / 2 + 1,
            leaders: BTreeMap::new(),
            votes: BTreeMap::new(),
            agreed: Vec::new(),
            mirrors,
            commits: BTreeMap::new(),
            violations: Vec::new(),
        }
    }

    pub(crate) fn agreed(&self) -> &[Agreed] {
        &self.agreed
    }

    pub(crate) fn leader_count(&self) -> usize {
        self.leaders.len()
    }

    pub(crate) fn mirror(&mut self, server: MemberId) -> &mut Mirror {
        self.mirrors.get_mut(&server).expect("every server has a mirror from the start")
    }

    pub(crate) fn fail(&mut self, check: Check, detail: String) {
        self.violations.push(Violation::new(check, detail));
    }

    pub(crate) fn first_violation(&mut self) -> Option<Violation> {
        (!self.violations.is_empty()).then(|| self.violations.swap_remove(0))
    }

    fn agreed_at(&self, index: Index) -> Option<&Agreed> {
        let slot = usize::try_from(index.0.checked_sub(1)?).ok()?;
        self.agreed.get(slot)
    }

    /// A server says that it leads.
    pub(crate) fn on_leader(&mut self, server: MemberId, term: Term, last: Position) {
        let first = *self.leaders.entry(term).or_insert(server);
        if first != server {
            self.fail(
                Check::OneLeaderPerTerm,
                format!("servers {first} and {server} both lead in term {term}"),
            );
        }
        // A leader may be elected late, when a later term has already committed more: it must hold
        // what terms before its own committed. Log matching makes the last of those enough.
        let earlier = self.agreed.iter().rposition(|agreed| agreed.committed_in < term);
        let end = Index(earlier.map_or(0, |slot| slot as u64 + 1));
        if last.index < end {
            self.fail(
                Check::LeaderCompleteness,
                format!("server {server} leads term {term}, ends at {last}, {end} is committed"),
            );
        }
    }

    /// A message leaves a server.
    pub(crate) fn on_message(&mut self, message: &Message) {
        let (from, term) = (message.from, message.term);
        match &message.body {
            Body::VoteRequest { .. } => self.on_vote(from, term, from),
            Body::VoteAnswer { granted: true } => self.on_vote(from, term, message.to),
            Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } }
            | Body::HeartbeatAnswer { matched, .. } => {
                let matched = *matched;
                if !self.mirror(from).holds(matched) {
                    let durable = self.mirror(from).last();
                    self.fail(
                        Check::PromiseIsDurable,
                        format!("server {from} answered for {matched}, durable is {durable}"),
                    );
                }
            }
            Body::PreVoteRequest { .. }
            | Body::PreVoteAnswer { .. }
            | Body::VoteAnswer { granted: false }
            | Body::Append { .. }
            | Body::AppendAnswer { outcome: AppendOutcome::Conflict { .. } }
            | Body::Heartbeat { .. }
            | Body::CommitNotice { .. }
            | Body::SnapshotWanted
            | Body::ReadRequest { .. }
            | Body::ReadAnswer { .. }
            | Body::TimeoutNow
            | Body::SnapshotNotice { .. } => {}
        }
    }

    fn on_vote(&mut self, voter: MemberId, term: Term, candidate: MemberId) {
        let first = *self.votes.entry((voter, term)).or_insert(candidate);
        if first != candidate {
            self.fail(
                Check::OneVotePerTerm,
                format!("server {voter} voted for {first} and {candidate} in term {term}"),
            );
        }
        let durable = self.mirror(voter).hard_state();
        let kept = durable.term == term && durable.vote == Some(candidate);
        if durable.term <= term && !kept {
            self.fail(
                Check::PromiseIsDurable,
                format!("server {voter} voted for {candidate} in {term}, durable is {durable:?}"),
            );
        }
    }

    /// A server takes entries as committed.
    pub(crate) fn on_committed(&mut self, server: MemberId, term: Term, entries: &[Entry]) {
        for entry in entries {
            if let Some(agreed) = self.agreed_at(entry.index) {
                if agreed.term != entry.term || agreed.checksum != entry.checksum {
                    let was = agreed.term;
                    self.fail(
                        Check::CommittedNeverChanges,
                        format!(
                            "server {server} commits {}, others committed term {was} there",
                            entry.position()
                        ),
                    );
                }
                continue;
            }
            self.on_first_commit(server, term, entry);
        }
    }

    fn on_first_commit(&mut self, server: MemberId, term: Term, entry: &Entry) {
        let expected = Index(self.agreed.len() as u64 + 1);
        if entry.index != expected {
            self.fail(
                Check::CommittedNeverChanges,
                format!("server {server} commits {} after {expected}", entry.position()),
            );
            return;
        }
        let position = entry.position();
        let holders = self.mirrors.values().filter(|mirror| mirror.holds(position)).count();
        if holders < self.quorum {
            let quorum = self.quorum;
            self.fail(
                Check::CommittedIsDurable,
                format!("server {server} commits {position}, on {holders} disks of {quorum}"),
            );
        }
        self.agreed.push(Agreed {
            term: entry.term,
            kind: entry.kind,
            payload: entry.payload.clone(),
            checksum: entry.checksum,
            committed_in: term,
        });
    }

    /// A server has taken a turn. `committed` are the entries that it handed to its machine in it.
    pub(crate) fn on_turn(&mut self, status: &Status, term_at_commit: Option<Term>) {
        if status.role != RoleName::Leader {
            self.commits.remove(&status.id);
            return;
        }
        let now = (status.term, status.commit);
        let before = self.commits.insert(status.id, now);
        let advanced = before.is_some_and(|(term, commit)| term == now.0 && commit < now.1);
        if advanced
            && let Some(term) = term_at_commit
            && term != status.term
        {
            self.fail(
                Check::CommitsOwnTerm,
                format!(
                    "leader {} of term {} commits {}@{term} by counting",
                    status.id, status.term, status.commit
                ),
            );
        }
    }

    /// A server has restarted: what it leads and has committed starts over.
    pub(crate) fn on_crash(&mut self, server: MemberId) {
        self.commits.remove(&server);
    }
}
