//! Leases at their border: the leader's clock is slow, the voters' are fast, and the answers that
//! renew the lease are late.

use std::time::Duration;

use kvraft_base::{Instant, MemberId};
use kvraft_raft::{Input, LeaseReads};

use crate::world::World;

const LEADER: MemberId = MemberId(1);
const VOTERS: [MemberId; 2] = [MemberId(2), MemberId(3)];

/// However late its last confirmation comes, a leader that nobody hears any more answers no read by
/// lease once another has committed something.
#[test]
fn lease_ends_before_another_leader_commits() {
    let mut read_by_lease = 0;
    let mut succeeded = 0;
    for seed in 1..=5 {
        for delay_ms in [0, 300, 600, 900] {
            let (reads, successor) = run(seed, delay_ms);
            read_by_lease += reads;
            succeeded += usize::from(successor);
        }
    }
    assert!(1000 < read_by_lease, "leases are used");
    assert_eq!(succeeded, 20, "the others go on without the leader");
}

/// Returns how many reads the cut off leader answered, and whether another has committed.
fn run(seed: u64, delay_ms: u64) -> (usize, bool) {
    let mut world = World::new(3, seed, |config| {
        config.lease = Some(LeaseReads { drift_ppm_max: 100_000, margin: Duration::ZERO });
    });
    world.node(LEADER).drift_ppm = -49_000;
    for id in world.ids() {
        world.node(id).drift_ppm += if id == LEADER { 0 } else { 49_000 };
        world.start(id, 0).unwrap();
    }
    world.now = world.due(LEADER).unwrap();
    world.turn(LEADER, Vec::new());
    world.settle_network();
    world.run(world.now + Duration::from_millis(500));
    assert_eq!(world.leader(), Some(LEADER));
    // One more heartbeat is heard; its answers are on their way, and nothing else gets through.
    world.now = world.due(LEADER).unwrap();
    world.turn(LEADER, Vec::new());
    for heartbeat in std::mem::take(&mut world.network) {
        world.deliver(heartbeat);
    }
    let answers = std::mem::take(&mut world.network);
    for voter in VOTERS {
        world.blocked.extend([(LEADER, voter), (voter, LEADER)]);
        world.turn(voter, vec![Input::Disconnected { peer: LEADER }]);
    }
    let answered_at = world.now + Duration::from_millis(delay_ms);
    let end = world.now + Duration::from_millis(1700);
    let before = world.reads.len();
    let commit = world.commit_max();
    let mut answers = Some(answers);
    while world.now < end {
        if answered_at <= world.now {
            for answer in answers.take().unwrap_or_default() {
                world.turn(LEADER, vec![Input::Receive(answer)]);
            }
        }
        pass_a_millisecond(&mut world);
    }
    let answered = world.reads.values().skip(before).filter(|read| read.is_ok()).count();
    (answered, commit < world.commit_max())
}

/// Everyone who is due acts, whoever leads writes, and the old leader is asked.
fn pass_a_millisecond(world: &mut World) {
    let next: Instant = world.now + Duration::from_millis(1);
    world.run(next);
    for voter in VOTERS {
        if world.leader() == Some(voter) {
            world.propose(voter, b"new");
            world.settle_network();
        }
    }
    world.read(LEADER);
    world.trace.clear();
}
