//! Faults that stay for ever: a majority that can talk goes on, whatever the others hear and say.

use std::{collections::BTreeSet, time::Duration};

use kvraft_base::{MemberId, Prng};
use kvraft_raft::{Input, RoleName};
use proptest::prelude::*;

use crate::{random::Climate, world::World};

/// What is wrong with one server that is not of the majority.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// Hears nothing, and is heard.
    Deaf,
    /// Hears everything, and is not heard.
    Mute,
    /// Some links work in one direction, some in both, some in none.
    OneWay,
    /// Comes and goes, links and connections, for ever.
    Flapping,
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![Just(Fault::Deaf), Just(Fault::Mute), Just(Fault::OneWay), Just(Fault::Flapping)]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happened before, and whatever is wrong with a minority for ever: within ten seconds
    /// there is a leader that commits, and as long as nobody flaps it stays.
    #[test]
    fn majority_that_can_talk_goes_on(
        servers in 3u64..=5,
        seed in any::<u64>(),
        steps in 0u64..600,
        lease in any::<bool>(),
        faults in proptest::collection::vec(fault(), 2),
    ) {
        run(servers, seed, steps, lease, &faults);
    }
}

fn run(servers: u64, seed: u64, steps: u64, lease: bool, faults: &[Fault]) {
    let mut prng = Prng::new(seed).fork("liveness");
    let climate = Climate::rough(servers, seed, steps, lease);
    let mut world = climate.play();
    crate::random::mend_servers(&mut world);
    world.blocked.clear();
    let mut ids = world.ids();
    let minority = usize::try_from((servers - 1) / 2).unwrap();
    for at in 0..minority {
        let other = usize::try_from(prng.below(ids.len() as u64 - at as u64)).unwrap();
        ids.swap(at, at + other);
    }
    let broken: Vec<(MemberId, Fault)> =
        ids[..minority].iter().copied().zip(faults.iter().copied()).collect();
    let majority: BTreeSet<MemberId> = ids[minority..].iter().copied().collect();
    for (id, fault) in &broken {
        break_links(&mut world, *id, *fault, &mut prng);
    }
    live(&mut world, &broken, 100, &mut prng);
    let before = (world.commit_max(), terms(&world, &majority));
    live(&mut world, &broken, 100, &mut prng);
    let after = (world.commit_max(), terms(&world, &majority));
    assert!(before.0 < after.0, "a majority that can talk commits: {broken:?}");
    if broken.iter().all(|(_, fault)| *fault != Fault::Flapping) {
        assert_eq!(before.1, after.1, "a leader that works is not deposed: {broken:?}");
    }
    world.check_log_matching();
}

fn break_links(world: &mut World, id: MemberId, fault: Fault, prng: &mut Prng) {
    for peer in world.ids().into_iter().filter(|peer| *peer != id) {
        let (hears, is_heard) = match fault {
            Fault::Deaf => (false, true),
            Fault::Mute => (true, false),
            Fault::OneWay => (prng.chance(1, 2), prng.chance(1, 2)),
            Fault::Flapping => (true, true),
        };
        for (link, works) in [((peer, id), hears), ((id, peer), is_heard)] {
            if !works {
                world.blocked.insert(link);
            }
        }
    }
}

/// Lets time pass in tenths of a second, in which whoever leads writes.
fn live(world: &mut World, broken: &[(MemberId, Fault)], count: u64, prng: &mut Prng) {
    for _ in 0..count {
        for (id, fault) in broken {
            if *fault == Fault::Flapping {
                flap(world, *id, prng);
            }
        }
        for id in world.ids() {
            if world.node(id).status().is_some_and(|status| status.role == RoleName::Leader) {
                world.propose(id, b"life");
            }
        }
        world.run(world.now + Duration::from_millis(100));
        for shipment in std::mem::take(&mut world.shipments) {
            world.ship(&shipment);
        }
        world.trace.clear();
    }
}

/// Each link of the server may break or come back, and both ends may notice.
fn flap(world: &mut World, id: MemberId, prng: &mut Prng) {
    for peer in world.ids().into_iter().filter(|peer| *peer != id) {
        if !prng.chance(1, 4) {
            continue;
        }
        let up = prng.chance(1, 2);
        for (near, far) in [(id, peer), (peer, id)] {
            if up {
                world.blocked.remove(&(near, far));
            } else {
                world.blocked.insert((near, far));
            }
            let notice =
                if up { Input::Connected { peer: far } } else { Input::Disconnected { peer: far } };
            world.turn(near, vec![notice]);
        }
    }
}

fn terms(world: &World, majority: &BTreeSet<MemberId>) -> u64 {
    let term = |id| world.nodes[id].status().map_or(0, |status| status.term.0);
    majority.iter().map(term).max().unwrap_or(0)
}
