//! Each rule about members, broken on purpose.

use std::sync::Arc;

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, HardState, Index, MemberId, Members, MembersDraft, Position, Term, Write,
    WriteId,
};
use kvraft_raft::{Body, Membership, Message, RoleName, Status};

use super::Checks;
use crate::cluster::violation::Check;

fn ids(ids: &[u64]) -> impl Iterator<Item = MemberId> {
    ids.iter().copied().map(MemberId)
}

fn members(voters: &[u64], outgoing: &[u64], learners: &[u64]) -> Members {
    let id_max = voters.iter().chain(outgoing).chain(learners).max().copied().unwrap();
    let draft = MembersDraft {
        voters: ids(voters).collect(),
        voters_outgoing: ids(outgoing).collect(),
        learners: ids(learners).map(|id| (id, false)).collect(),
        id_max: MemberId(id_max.max(3)),
        ..MembersDraft::default()
    };
    draft.finish().unwrap()
}

fn plain(voters: &[u64]) -> Members {
    members(voters, &[], &[])
}

/// Three servers and a leader's log, driven by hand. Server 1 leads in term 1.
struct Scene {
    checks: Checks,
    in_force: Members,
}

impl Scene {
    fn new() -> Self {
        let mut checks = Checks::default();
        for id in ids(&[1, 2, 3]) {
            checks.add_server(id, plain(&[1, 2, 3]));
        }
        Self { checks, in_force: plain(&[1, 2, 3]) }
    }

    fn add(&mut self, id: u64) {
        self.checks.add_server(MemberId(id), members(&[1, 2, 3], &[], &[id]));
    }

    /// Server 1 appends one entry in term 1.
    fn append(&mut self, index: u64, members: Option<&Members>) {
        let write = write(index, 1, members);
        if let Some(members) = members {
            self.in_force = members.clone();
        }
        let status = self.status(1, index, 0);
        self.checks.on_turn(&status, None, &[&write]);
    }

    fn status(&self, id: u64, last: u64, commit: u64) -> Status {
        Status {
            id: MemberId(id),
            term: Term(1),
            vote: None,
            role: RoleName::Leader,
            leader: Some(MemberId(id)),
            last: Position::new(Term(1), Index(last)),
            commit: Index(commit),
            durable: Index(commit),
            applied: Index(0),
            released: Position::ZERO,
            hollow: false,
            muted: false,
            membership: Membership {
                index: Index(0),
                members: Arc::new(self.in_force.clone()),
                committed: false,
            },
            transfer: None,
            lease_until: None,
            peers: Vec::new(),
        }
    }

    /// These servers have everything up to `index` on their disks.
    fn sync(&mut self, servers: &[u64], index: u64) {
        for id in ids(servers) {
            for index in 1..=index {
                self.checks.on_synced(id, &write(index, 1, None));
            }
        }
    }

    /// Server 1 takes everything up to here as committed.
    fn commit(&mut self, last: u64, commit: u64) {
        let status = self.status(1, last, commit);
        self.checks.on_turn(&status, Some(Term(1)), &[]);
    }

    /// A group of three that has settled: entry 1 is committed.
    fn settled() -> Self {
        let mut scene = Self::new();
        scene.append(1, None);
        scene.sync(&[1, 2, 3], 1);
        scene.commit(1, 1);
        scene.is_clean();
        scene
    }

    fn is_clean(&mut self) {
        assert_eq!(self.checks.first_violation(), None);
    }

    #[track_caller]
    fn breaks(&mut self, check: Check) {
        let found = self.checks.first_violation().expect("a rule is broken");
        assert_eq!(found.check, check, "{found}");
    }
}

fn write(index: u64, term: u64, members: Option<&Members>) -> Write {
    let (kind, payload) = match members {
        Some(members) => (EntryKind::Config, members.encode()),
        None => (EntryKind::Noop, Bytes::new()),
    };
    Write {
        id: WriteId(1),
        hard_state: HardState { term: Term(term), ..HardState::default() },
        truncate_from: None,
        entries: vec![Entry::new(Term(term), Index(index), kind, payload)],
    }
}

/// While joint, a majority of the new voters alone commits nothing.
#[test]
fn both_halves_of_a_joint_configuration_count() {
    for (holders, is_quorum) in [(&[1, 4, 5][..], false), (&[1, 2, 4, 5], true)] {
        let mut scene = Scene::settled();
        (4..=5).for_each(|id| scene.add(id));
        scene.append(2, Some(&members(&[1, 4, 5], &[1, 2, 3], &[])));
        scene.sync(holders, 2);
        scene.commit(2, 2);
        if is_quorum {
            scene.is_clean();
        } else {
            scene.breaks(Check::CommittedIsDurable);
        }
    }
}

/// Of four voters two are no quorum, though of the three before they were.
#[test]
fn quorum_grows_with_the_configuration() {
    let mut scene = Scene::settled();
    scene.add(4);
    scene.append(2, Some(&plain(&[1, 2, 3, 4])));
    scene.append(3, None);
    scene.sync(&[1, 2], 3);
    scene.commit(3, 3);
    scene.breaks(Check::CommittedIsDurable);
}

/// A learner's disk is worth nothing for a quorum.
#[test]
fn learners_do_not_count() {
    let mut scene = Scene::settled();
    scene.add(4);
    scene.append(2, Some(&members(&[1, 2, 3], &[], &[4])));
    scene.sync(&[1, 4], 2);
    scene.commit(2, 2);
    scene.breaks(Check::CommittedIsDurable);
}

/// A configuration is in force when it is appended, and not any more when it is cut.
#[test]
fn configurations_come_and_go_with_their_entries() {
    let mut scene = Scene::settled();
    scene.add(4);
    scene.append(2, Some(&plain(&[1, 2, 3, 4])));
    assert_eq!(scene.checks.members_of(MemberId(1)).0, Index(2));
    assert_eq!(scene.checks.possible_members().len(), 2);
    let cut = Write { truncate_from: Some(Index(2)), ..write(2, 2, None) };
    scene.in_force = plain(&[1, 2, 3]);
    let last = Position::new(Term(2), Index(2));
    let status = Status { role: RoleName::Follower, last, ..scene.status(1, 2, 1) };
    scene.checks.on_turn(&status, Some(Term(1)), &[&cut]);
    scene.is_clean();
    assert_eq!(*scene.checks.members_of(MemberId(1)).1, plain(&[1, 2, 3]));
    assert_eq!(scene.checks.possible_members().len(), 1);
}

/// A server that goes on with the configuration before is seen.
#[test]
fn server_that_counts_by_another_configuration_is_seen() {
    let mut scene = Scene::settled();
    let next = members(&[1, 2, 3], &[], &[4]);
    scene.checks.on_turn(&scene.status(1, 2, 1), Some(Term(1)), &[&write(2, 1, Some(&next))]);
    scene.breaks(Check::MembersWhenAppended);
}

/// The next change waits until the last one is committed.
#[test]
fn second_change_waits_for_the_first() {
    let mut scene = Scene::settled();
    scene.append(2, Some(&plain(&[1, 2, 3, 4])));
    scene.append(3, Some(&plain(&[1, 2, 3, 4, 5])));
    scene.breaks(Check::OneChangeAtATime);
}

/// A joint configuration is left for its own new half.
#[test]
fn joint_configuration_is_left_for_its_new_half() {
    let mut scene = Scene::settled();
    scene.append(2, Some(&members(&[1, 4, 5], &[1, 2, 3], &[])));
    scene.sync(&[1, 2, 3, 4, 5][..3], 2);
    scene.checks.counted = Index(2);
    scene.append(3, Some(&plain(&[1, 2, 4])));
    scene.breaks(Check::OneChangeAtATime);
}

/// A leader that has committed nothing of its term changes nobody.
#[test]
fn change_waits_for_an_own_commit() {
    let mut scene = Scene::new();
    scene.append(1, Some(&plain(&[1, 2, 3, 4])));
    scene.breaks(Check::ChangeAfterOwnCommit);
}

/// In one turn a leader may commit in its term, change the members, and step down.
#[test]
fn change_may_be_the_last_act_of_a_leader() {
    let mut scene = Scene::new();
    scene.append(1, None);
    scene.sync(&[1, 2, 3], 1);
    scene.in_force = plain(&[1, 2, 3, 4]);
    let status = Status { role: RoleName::Follower, ..scene.status(1, 2, 1) };
    let change = write(2, 1, Some(&scene.in_force));
    scene.checks.on_turn(&status, Some(Term(1)), &[&change]);
    scene.is_clean();
}

/// Two voters at once need the joint step; so does a swap of one for another.
#[test]
fn larger_steps_are_joint() {
    for next in [plain(&[1, 2, 3, 4, 5]), plain(&[1, 2, 4]), plain(&[1])] {
        let mut scene = Scene::settled();
        scene.append(2, Some(&next));
        scene.breaks(Check::ConfigurationsOverlap);
    }
    let mut scene = Scene::settled();
    scene.append(2, Some(&members(&[4, 5, 6], &[1, 2], &[])));
    scene.breaks(Check::ConfigurationsOverlap);
}

/// Who was removed never comes back, and the greatest id never shrinks.
#[test]
fn ids_are_used_once() {
    let mut scene = Scene::settled();
    scene.append(2, Some(&plain(&[1, 2])));
    scene.checks.counted = Index(2);
    scene.append(3, Some(&plain(&[1, 2, 3])));
    scene.breaks(Check::IdsNeverReused);

    let mut scene = Scene::settled();
    scene.append(2, Some(&members(&[1, 2, 3], &[], &[7])));
    scene.checks.counted = Index(2);
    scene.append(3, Some(&plain(&[1, 2, 3])));
    scene.breaks(Check::IdsNeverReused);
}

fn vote(scene: &mut Scene, voter: u64, candidate: u64, term: u64) {
    let (from, to) = (MemberId(voter), MemberId(candidate));
    let body = Body::VoteAnswer { granted: true };
    let hard_state = HardState { term: Term(term), vote: Some(to), commit: Index::ZERO };
    let kept = Write { hard_state, entries: Vec::new(), ..write(1, term, None) };
    scene.checks.on_synced(from, &kept);
    scene.checks.on_message(&Message { from, to, term: Term(term), body });
}

/// A leader needs the votes of a quorum of both halves.
#[test]
fn election_needs_both_halves() {
    for (voters, is_elected) in [(&[4, 5][..], false), (&[2, 4], true)] {
        let mut scene = Scene::settled();
        (4..=5).for_each(|id| scene.add(id));
        scene.append(2, Some(&members(&[1, 4, 5], &[1, 2, 3], &[])));
        for voter in voters {
            vote(&mut scene, *voter, 1, 3);
        }
        let last = Position::new(Term(1), Index(2));
        scene.checks.on_leader(MemberId(1), Term(3), Some(last));
        if is_elected {
            scene.is_clean();
        } else {
            scene.breaks(Check::ElectedByQuorum);
        }
    }
}

/// Who was removed does not lead, whoever votes for it; a learner may, to hand its log on.
#[test]
fn leader_that_was_removed_is_seen() {
    for (learners, may_lead) in [(&[4][..], true), (&[][..], false)] {
        let mut scene = Scene::settled();
        scene.add(4);
        let next = members(&[1, 2, 3], &[], learners);
        scene.append(2, Some(&next));
        let hard_state = HardState { commit: Index(2), ..write(1, 1, None).hard_state };
        let log = Write {
            entries: [write(1, 1, None).entries, write(2, 1, Some(&next)).entries].concat(),
            hard_state,
            ..write(1, 1, None)
        };
        let status = Status { role: RoleName::Follower, ..scene.status(4, 2, 0) };
        scene.checks.on_turn(&status, None, &[&log]);
        scene.checks.on_synced(MemberId(4), &log);
        for voter in [1, 2, 3] {
            vote(&mut scene, voter, 4, 3);
        }
        let last = Position::new(Term(1), Index(2));
        scene.checks.on_leader(MemberId(4), Term(3), Some(last));
        if may_lead {
            scene.is_clean();
        } else {
            scene.breaks(Check::RemovedNeverLeads);
        }
    }
}

/// What nobody has counted is not handed to a machine.
#[test]
fn machine_gets_what_was_counted() {
    let mut scene = Scene::new();
    scene.append(1, None);
    scene.sync(&[1, 2, 3], 1);
    scene.checks.on_committed(MemberId(2), Term(1), &write(1, 1, None).entries);
    scene.breaks(Check::CommittedIsDurable);
}
