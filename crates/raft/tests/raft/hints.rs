//! Somebody outside says that the leader is dead: lies move nobody who hears it, and the truth
//! makes the next election come sooner.

use std::time::Duration;

use kvraft_base::{Instant, MemberId};
use kvraft_raft::{Input, LeaseReads, RoleName};

use crate::world::World;

const LEADER: MemberId = MemberId(1);

/// Three servers, of whom the first leads.
fn led(seed: u64, lease: bool) -> World {
    let mut world = World::new(3, seed, |config| {
        let leases = LeaseReads { drift_ppm_max: 10_000, margin: Duration::ZERO };
        config.lease = lease.then_some(leases);
    });
    for id in world.ids() {
        world.start(id, 0).unwrap();
    }
    world.now = world.due(LEADER).unwrap();
    world.turn(LEADER, Vec::new());
    world.settle_network();
    world.run(world.now + Duration::from_millis(500));
    assert_eq!(world.leader(), Some(LEADER));
    world
}

fn term(world: &mut World) -> u64 {
    world.node(LEADER).status().unwrap().term.0
}

/// Lies in every millisecond, to everybody: the leader stays, and nobody even asks.
#[test]
fn lies_move_nobody_who_hears_the_leader() {
    for (seed, lease) in [(1, false), (2, true), (3, false), (4, true)] {
        let mut world = led(seed, lease);
        let before = term(&mut world);
        let end = world.now + Duration::from_secs(10);
        while world.now < end {
            let next = world.now + Duration::from_millis(1);
            world.run(next);
            for id in world.ids() {
                world.turn(id, vec![Input::LeaderSuspected]);
                let role = world.node(id).status().unwrap().role;
                assert!(id == LEADER || role == RoleName::Follower, "whoever hears it stays");
            }
        }
        assert_eq!((world.leader(), term(&mut world)), (Some(LEADER), before));
    }
}

/// How long nobody else leads once the leader hears and says nothing any more. Whoever is told so is
/// told every 50 ms.
fn silent_for(seed: u64, told: Option<MemberId>) -> Duration {
    let mut world = led(seed, false);
    let others: Vec<MemberId> = world.ids().into_iter().filter(|id| *id != LEADER).collect();
    for id in &others {
        world.blocked.extend([(LEADER, *id), (*id, LEADER)]);
    }
    let began = world.now;
    let mut next_hint: Instant = began + Duration::from_millis(300);
    while others.iter().all(|id| world.leader() != Some(*id)) {
        let next = world.now + Duration::from_millis(1);
        assert!(next.since(began) < Duration::from_secs(30), "somebody leads in the end");
        world.run(next);
        if let Some(told) = told.filter(|_| next_hint <= world.now) {
            next_hint = world.now + Duration::from_millis(50);
            world.turn(told, vec![Input::LeaderSuspected]);
        }
    }
    world.now.since(began)
}

/// A server that is told of a silent leader leads within half an election timeout, where it takes
/// more than a whole one otherwise.
#[test]
fn the_truth_makes_an_election_sooner() {
    for seed in 1..=20 {
        let alone = silent_for(seed, None);
        let told = silent_for(seed, Some(MemberId(2)));
        assert!(Duration::from_millis(900) <= alone, "{alone:?}");
        assert!(told < Duration::from_millis(600), "{told:?}");
    }
}
