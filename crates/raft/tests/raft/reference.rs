//! A reference model of the replicated log, simple enough to be believed: a position holds one
//! entry, everywhere and for ever; what is committed is one growing list.
//!
//! Why: the servers' own assertions speak of one server at a time, this speaks of all of them.

use std::collections::BTreeMap;

use kvraft_base::{Entry, EntryKind, MemberId, Position, Term};
use kvraft_raft::{RoleName, Status};

use crate::{disk::Disk, world::World};

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
        self.check_durability(world);
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

    /// What is committed is durable on a quorum, whoever is down.
    fn check_durability(&self, world: &World) {
        for entry in &self.committed {
            let holder = |id| world.nodes[&id].disk.contains(entry.position());
            assert!(world.members.is_quorum(holder), "{} is on a quorum", entry.position());
        }
    }
}
