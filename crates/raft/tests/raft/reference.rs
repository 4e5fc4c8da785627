//! A reference model of the replicated log, simple enough to be believed: a position holds one
//! entry, everywhere and for ever; what is committed is one growing list; of the configurations in
//! it each follows from the one before; who holds a lease knows of all that is committed.
//!
//! Why: the servers' own assertions speak of one server at a time, this speaks of all of them.

use std::collections::BTreeMap;

use kvraft_base::{Entry, EntryKind, Index, MemberId, Members, Position, Term};
use kvraft_raft::{RoleName, Status};

use crate::{disk::Disk, members::decode_members, world::World};

/// See the module.
#[derive(Default)]
pub(crate) struct Reference {
    /// What has ever been seen at a position in any journal.
    entries: BTreeMap<Position, Entry>,
    /// What is committed, from index 1 on.
    committed: Vec<Entry>,
    /// The last look at each life of each server.
    before: BTreeMap<(MemberId, u64), (Status, Vec<Entry>)>,
    /// Highest term, and its vote, that each server has had, over all its lives.
    votes: BTreeMap<MemberId, (Term, Option<MemberId>)>,
}

impl Reference {
    /// Holds every server against the model.
    pub(crate) fn check(&mut self, world: &World) {
        for (id, node) in &world.nodes {
            let journal = node.journal();
            self.check_journal(world, &journal);
            if let Some(status) = node.status()
                && node.installing.is_none()
            {
                self.check_commit(&journal, &status);
                self.check_own(*id, node.lives, &journal, status);
            }
        }
        self.check_members(world);
        self.check_durability(world);
        self.check_leases(world);
    }

    /// Committed configurations follow each other by one voter, or through a joint one (Raft §6).
    fn check_members(&self, world: &World) {
        let mut before = world.members.clone();
        for entry in self.committed.iter().filter(|entry| entry.kind == EntryKind::Config) {
            let next = decode_members(entry);
            let follows = if before.is_joint() {
                !next.is_joint() && next.voters() == before.voters()
            } else if next.is_joint() {
                next.voters_outgoing() == before.voters()
            } else {
                let lacks = |of: &Members, other: &Members| {
                    of.voters().iter().filter(|id| !other.voters().contains(id)).count()
                };
                lacks(&before, &next) + lacks(&next, &before) <= 1
            };
            assert!(follows, "{next} does not follow {before}");
            before = next;
        }
    }

    /// As long as a server may read by lease, no later leader has committed anything.
    fn check_leases(&self, world: &World) {
        let last = self.committed.last().map_or(Term::ZERO, |entry| entry.term);
        for (id, node) in &world.nodes {
            let Some(status) = node.status() else { continue };
            let holds = status.lease_until.is_some_and(|until| world.clock(*id) < until);
            assert!(!holds || last <= status.term, "{id} holds a lease that another has outrun");
        }
    }

    /// Log matching, and that nothing is in a log but what a leader put there.
    fn check_journal(&mut self, world: &World, journal: &Disk) {
        for entry in &journal.entries {
            let known = self.entries.entry(entry.position()).or_insert_with(|| entry.clone());
            assert_eq!(known, entry, "a position holds one entry");
            let told = world.accepted.get(&entry.position());
            let wanted = (entry.kind == EntryKind::Command).then_some(&entry.payload);
            assert_eq!(told, wanted, "a log holds what was accepted at its position, and no more");
        }
    }

    /// What one server knows as committed is what everyone has.
    fn check_commit(&mut self, journal: &Disk, status: &Status) {
        for entry in journal.entries.iter().filter(|entry| entry.index <= status.commit) {
            let at = usize::try_from(entry.index.0 - 1).unwrap();
            match self.committed.get(at) {
                Some(known) => assert_eq!(known, entry, "what is committed is never replaced"),
                None => {
                    assert_eq!(at, self.committed.len(), "commitment has no gaps");
                    self.committed.push(entry.clone());
                }
            }
        }
    }

    /// The invariants of one server, by what it says of itself now and what it said before.
    fn check_own(&mut self, id: MemberId, life: u64, journal: &Disk, status: Status) {
        assert!(status.applied <= status.commit, "only what is committed is applied");
        assert!(status.applied <= status.durable, "only what is durable is applied");
        assert!(status.commit <= status.last.index, "commit is within the log");
        assert!(status.durable <= status.last.index, "durable is within the log");
        assert!(status.last.term <= status.term, "no entry is of a later term");
        assert_eq!(status.last, journal.last(), "the log is what the journal holds");
        let leads = status.role == RoleName::Leader;
        if leads {
            assert_eq!(status.vote, Some(id), "a leader has voted for itself");
        }
        let (term, vote) = *self.votes.entry(id).or_insert((status.term, status.vote));
        if self.before.contains_key(&(id, life)) {
            assert!(term <= status.term, "the term never goes back");
            let changed = term == status.term && vote.is_some() && vote != status.vote;
            assert!(!changed, "one vote per term");
        }
        self.votes.insert(id, (status.term, status.vote));
        if let Some((before, entries)) = self.before.get(&(id, life)) {
            assert!(before.commit <= status.commit, "the commit index never goes back");
            assert!(before.applied <= status.applied, "the machine never goes back");
            assert!(before.released <= status.released, "the journal's start never goes back");
            if leads && before.role == RoleName::Leader && before.term == status.term {
                let kept = entries.iter().filter(|entry| status.released.index < entry.index);
                let all = kept.clone().all(|entry| journal.contains(entry.position()));
                assert!(all, "a leader's log only grows");
            }
        }
        self.before.insert((id, life), (status, journal.entries.clone()));
    }

    /// What is committed is durable on a quorum, whoever is down: of the last committed
    /// configuration, or of a later one, which is in force from where it is appended.
    fn check_durability(&self, world: &World) {
        let is_config = |entry: &&Entry| entry.kind == EntryKind::Config;
        let last = self.committed.iter().rfind(is_config);
        let from = last.map_or(Index::ZERO, |entry| entry.index);
        let mut open = vec![last.map_or_else(|| world.members.clone(), decode_members)];
        let later = self.entries.values().filter(is_config).filter(|entry| from < entry.index);
        open.extend(later.map(decode_members));
        for entry in &self.committed {
            let holder = |id| world.nodes[&id].disk.contains(entry.position());
            let held = open.iter().any(|members| members.is_quorum(holder));
            assert!(held, "{} is on a quorum", entry.position());
        }
    }
}
