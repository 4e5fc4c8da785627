//! The rules of consensus, checked on every event against what really is on the disks.
//!
//! Quorums are counted by the configuration in force, which `members` finds in the entries
//! themselves.

mod members;
mod steps;
#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, Index, MemberId, Members, Position, Term, Write};
use kvraft_kv::{Command, Request};
use kvraft_raft::{AppendOutcome, Body, Message};
use kvraft_store::Note;

use super::{
    mirror::Mirror,
    server::Found,
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

impl Agreed {
    pub(crate) fn new(entry: &Entry, committed_in: Term) -> Self {
        let Entry { term, kind, payload, checksum, .. } = entry.clone();
        Self { term, kind, payload, checksum, committed_in }
    }
}

/// The log of one server, as the simulator knows it.
#[derive(Debug)]
struct Held {
    /// What was synced.
    durable: Mirror,
    /// What was, before the disk was hit: it has been answered for, and losing a minority is what a
    /// quorum is for. Until the server has everything again.
    durable_once: Option<Mirror>,
    /// What consensus has asked to be written: the log that it decides by.
    written: Mirror,
    /// The configuration of a log that has none.
    bootstrap: Arc<Members>,
    /// Nobody will ever read it again.
    is_lost: bool,
}

/// How often checks have compared something: one that never does finds nothing either.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Looks {
    pub(crate) acknowledgements: u64,
    pub(crate) votes: u64,
    pub(crate) elections: u64,
    pub(crate) quorums: u64,
    pub(crate) commits: u64,
    pub(crate) recoveries: u64,
    pub(crate) configurations: u64,
}

/// An entry that raised the cluster version.
#[derive(Debug)]
pub(crate) struct Raise {
    pub(crate) index: Index,
    pub(crate) version: u32,
    /// The configuration in force there.
    pub(crate) members: Arc<Members>,
}

/// What has been seen of the whole cluster since the run began.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    leaders: BTreeMap<Term, MemberId>,
    votes: BTreeMap<(MemberId, Term), MemberId>,
    /// Index 1 is at slot 0.
    agreed: Vec<Agreed>,
    held: BTreeMap<MemberId, Held>,
    /// Every configuration entry that was ever appended. A position names an entry: what two logs
    /// have at one position is the same.
    configurations: BTreeMap<(Index, Term), Arc<Members>>,
    /// Commit index of each leader when last looked at, with its term.
    commits: BTreeMap<MemberId, (Term, Index)>,
    /// Up to here a quorum was found on the disks when somebody counted.
    counted: Index,
    /// Terms whose leader has committed an entry of its own.
    settled_terms: BTreeSet<Term>,
    /// How often a configuration was taken back.
    pub(crate) cut_count: u64,
    pub(crate) looks: Looks,
    /// The version that the agreed log has raised the cluster to.
    raised_to: u32,
    /// Entries that did, and that nobody has looked at yet.
    raises: Vec<Raise>,
    violations: Vec<Violation>,
}

impl Checks {
    /// A server with an empty log.
    pub(crate) fn add_server(&mut self, id: MemberId, bootstrap: Members) {
        let (durable, written) = (Mirror::default(), Mirror::default());
        let (bootstrap, is_lost) = (Arc::new(bootstrap), false);
        let held = Held { durable, durable_once: None, written, bootstrap, is_lost };
        let before = self.held.insert(id, held);
        assert!(before.is_none(), "the simulator gives no id out twice");
    }

    /// Everything on a server's disk is gone for ever. What it had still counts for what is being
    /// committed: losing a minority is what a quorum is for.
    pub(crate) fn on_destroyed(&mut self, id: MemberId) {
        self.held_mut(id).is_lost = true;
    }

    pub(crate) fn agreed(&self) -> &[Agreed] {
        &self.agreed
    }

    pub(crate) fn leader_count(&self) -> usize {
        self.leaders.len()
    }

    fn held(&self, server: MemberId) -> &Held {
        self.held.get(&server).expect("every server is added before it starts")
    }

    fn held_mut(&mut self, server: MemberId) -> &mut Held {
        self.held.get_mut(&server).expect("every server is added before it starts")
    }

    /// What was synced.
    pub(crate) fn durable(&self, server: MemberId) -> &Mirror {
        self.mirror(server)
    }

    fn mirror(&self, server: MemberId) -> &Mirror {
        &self.held(server).durable
    }

    /// What a server has on its disk is no less than what another one has asked to be written.
    pub(crate) fn is_as_complete(&self, server: MemberId, other: MemberId) -> bool {
        let of = |id| self.held.get(&id);
        of(server).zip(of(other)).is_some_and(|(server, other)| {
            other.written.last().max(other.durable.last()) <= server.durable.last()
        })
    }

    /// A write was synced.
    pub(crate) fn on_synced(&mut self, server: MemberId, write: &Write) {
        self.held_mut(server).durable.on_synced(write);
    }

    /// A journal starts over after a snapshot.
    pub(crate) fn on_reset(&mut self, server: MemberId, position: Position) {
        let held = self.held_mut(server);
        held.durable.on_reset(position);
        held.written.on_reset(position);
    }

    /// A server has recovered. `may_miss`: its disk was hit, and it says that something is missing.
    pub(crate) fn on_recovered(&mut self, server: MemberId, found: &Found, may_miss: bool) {
        let held = self.held_mut(server);
        if may_miss && held.durable_once.is_none() {
            held.durable_once = Some(held.durable.clone());
        }
        let recovered = held.durable.on_found(found, may_miss);
        held.written = held.durable.clone();
        self.looks.recoveries += 1;
        if let Err(detail) = recovered {
            self.fail(Check::SyncedSurvives, format!("server {server}: {detail}"));
        }
    }

    /// A server whose disk was never hit has lost nothing, and does not say that it has.
    pub(crate) fn on_notes(&mut self, server: MemberId, notes: &[Note]) {
        if let Some(note) = Self::loss(notes) {
            let detail = format!("server {server}, whose disk is sound, has found: {note}");
            self.fail(Check::SyncedSurvives, detail);
        }
    }

    /// What recovery says of a disk on which something is missing.
    pub(crate) fn loss(notes: &[Note]) -> Option<&Note> {
        let is_loss = |note: &&Note| match note {
            Note::TableSetAside { .. }
            | Note::Hollow { .. }
            | Note::Muted { .. }
            | Note::JournalCut { .. }
            | Note::Damaged { .. } => true,
            Note::TornTail { .. }
            | Note::InstallRolledForward { .. }
            | Note::Refounded { .. }
            | Note::LeftoverRemoved { .. } => false,
        };
        notes.iter().find(is_loss)
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

    /// A server says that it leads. `last` is the end of its log, if it leads still: it may have
    /// lost its leadership again in the same turn, and a part of its log with it.
    pub(crate) fn on_leader(&mut self, server: MemberId, term: Term, last: Option<Position>) {
        let first = *self.leaders.entry(term).or_insert(server);
        if first != server {
            self.fail(
                Check::OneLeaderPerTerm,
                format!("servers {first} and {server} both lead in term {term}"),
            );
        }
        let Some(last) = last else { return };
        self.check_election(server, term);
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
                self.looks.acknowledgements += 1;
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
        self.looks.votes += 1;
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
            let agreed = self.agreed_at(entry.index).map(|agreed| (agreed.term, agreed.checksum));
            if let Some((was, checksum)) = agreed {
                self.looks.commits += 1;
                if was != entry.term || checksum != entry.checksum {
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
        if self.counted < entry.index {
            let (position, counted) = (entry.position(), self.counted);
            self.fail(
                Check::CommittedIsDurable,
                format!("server {server} applies {position}, leaders have counted to {counted}"),
            );
        }
        if entry.kind == EntryKind::Command
            && let Ok(command) = Command::decode(entry.payload.clone())
            && let Request::RaiseVersion { version } = command.request
            && self.raised_to < version
        {
            self.raised_to = version;
            let (_, members) = self.agreed_members();
            self.raises.push(Raise { index: entry.index, version, members });
        }
        self.agreed.push(Agreed::new(entry, term));
    }

    /// The version that the cluster has by the log that was agreed on, or 0 if nothing raised it.
    pub(crate) fn raised_to(&self) -> u32 {
        self.raised_to
    }

    pub(crate) fn take_raises(&mut self) -> Vec<Raise> {
        std::mem::take(&mut self.raises)
    }

    /// A server has restarted: what it leads and has committed starts over.
    pub(crate) fn on_crash(&mut self, server: MemberId) {
        self.commits.remove(&server);
    }
}
