//! Random interleavings: everything that can be lost, repeated, delayed or crashed is, and the rules
//! of Raft are checked at every step; then the world heals and must make progress.

use std::{collections::BTreeSet, time::Duration};

use kvraft_base::{Index, MemberId, MemberInfo, Prng};
use kvraft_raft::{Change, Config, Input, LeaseReads};
use proptest::prelude::*;

use crate::world::World;

/// How rough a run is, in percent of its steps.
#[derive(Clone, Debug)]
pub(crate) struct Climate {
    servers: u64,
    /// Servers that may become members.
    spares: u64,
    seed: u64,
    steps: u64,
    loss: u64,
    duplication: u64,
    crashes: u64,
    small_window: bool,
    /// Reads by lease, and clocks that differ by nearly as much as is allowed.
    lease: bool,
    /// Longest time between two steps.
    pace_ms: u64,
}

fn climate() -> impl Strategy<Value = Climate> {
    let shape = (1u64..=5, any::<u64>(), 100u64..3000);
    let weather = (0u64..20, 0u64..20, 0u64..5, any::<bool>(), 5u64..80);
    (shape, weather).prop_map(|((servers, seed, steps), weather)| {
        let (loss, duplication, crashes, small_window, pace_ms) = weather;
        Climate {
            servers,
            spares: 0,
            seed,
            steps,
            loss,
            duplication,
            crashes,
            small_window,
            lease: false,
            pace_ms,
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Election safety, log matching, leader completeness, state machine safety, durability of what
    /// is committed and linearizable read indexes hold whatever happens, and a healed group works.
    #[test]
    fn rules_hold_in_any_weather(climate in climate()) {
        run(&climate);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 120, failure_persistence: None, ..ProptestConfig::default() })]

    /// The same while servers come, go, are promoted and demoted, any number at once.
    #[test]
    fn rules_hold_while_members_change(climate in climate(), spares in 1u64..=4) {
        run(&Climate { spares, ..climate });
    }

    /// Reads by lease miss nothing, whatever the clocks do within their bound.
    #[test]
    fn rules_hold_with_leases(climate in climate(), spares in 0u64..=2) {
        run(&Climate { spares, lease: true, ..climate });
    }
}

impl Climate {
    /// Short and rough.
    pub(crate) fn rough(servers: u64, seed: u64, steps: u64, lease: bool) -> Self {
        Self {
            servers,
            spares: 0,
            seed,
            steps,
            loss: 10,
            duplication: 5,
            crashes: 3,
            small_window: false,
            lease,
            pace_ms: 40,
        }
    }

    /// A world that has been through it.
    pub(crate) fn play(&self) -> World {
        self.play_with(|world, prng| step(world, self, prng))
    }

    /// A world that has been through it, with more happening in each step.
    pub(crate) fn play_with(&self, mut step: impl FnMut(&mut World, &mut Prng)) -> World {
        let (small, lease) = (self.small_window, self.lease);
        let configure = move |config: &mut Config| {
            let leases = LeaseReads { drift_ppm_max: 20_000, margin: Duration::ZERO };
            config.lease = lease.then_some(leases);
            if small {
                config.window_bytes_max = 200;
                config.append_size_bytes_max = 100;
                config.inflight_count_max = 3;
                config.inflight_bytes_max = 300;
                config.apply_bytes_max = 100;
            }
        };
        let Self { servers, spares, seed, .. } = *self;
        let mut world = World::with_spares(servers, spares, seed, configure);
        let mut prng = Prng::new(self.seed).fork("weather");
        for id in world.ids() {
            world.node(id).manual_disk = true;
            if lease {
                world.node(id).drift_ppm = *prng.pick(&[-9_900, 0, 9_900]).unwrap();
            }
            world.start(id, 0).unwrap();
        }
        for _ in 0..self.steps {
            step(&mut world, &mut prng);
            world.trace.clear();
        }
        world.check_log_matching();
        world
    }
}

fn run(climate: &Climate) {
    heal(&mut climate.play());
}

pub(crate) fn step(world: &mut World, climate: &Climate, prng: &mut Prng) {
    let ids = world.ids();
    world.now = world.now + prng.duration(Duration::ZERO, Duration::from_millis(climate.pace_ms));
    for id in &ids {
        let deadline = world.due(*id);
        if deadline.is_some_and(|at| at <= world.now) && prng.chance(3, 4) {
            world.turn(*id, Vec::new());
        }
        if prng.chance(1, 3) {
            sync_some(world, *id, prng);
        }
    }
    for _ in 0..prng.below(2 * climate.servers) {
        deliver_any(world, climate, prng);
    }
    let id = *prng.pick(&ids).unwrap();
    let leader = world.leader().unwrap_or(id);
    match prng.below(100) {
        0..30 => drop(world.propose(leader, &prng.next_u64().to_le_bytes())),
        30..32 => drop(world.propose(id, &prng.next_u64().to_le_bytes())),
        32..42 => drop(world.read(id)),
        42..52 => settle_any(world, id, prng),
        52..60 => ship_any(world, prng),
        60..62 => toggle_connection(world, id, prng),
        62..64 => {
            let node = world.node(id);
            node.cut = !node.cut && prng.chance(climate.crashes, 5);
        }
        64..70 => crash_or_start(world, climate, id, prng),
        70..71 => {
            // The process stands still for a while, and so does its view of time.
            world.now = world.now + prng.duration(Duration::ZERO, Duration::from_millis(1500));
        }
        71..76 if 0 < climate.spares => change_members(world, leader, prng),
        76..79 if 0 < climate.spares => {
            let to = prng.pick(&ids).copied().filter(|_| prng.chance(3, 4));
            world.transfer(leader, to);
        }
        // Whoever watches from outside errs, or lies.
        79..84 => world.turn(id, vec![Input::LeaderSuspected]),
        _ => {}
    }
}

/// Wishes for one to four servers whatever comes to mind.
fn change_members(world: &mut World, leader: MemberId, prng: &mut Prng) {
    let all = world.ids();
    let count = prng.between(1, 4);
    let ids: BTreeSet<MemberId> = (0..count).map(|_| *prng.pick(&all).unwrap()).collect();
    let Some(status) = world.node(leader).status() else { return };
    let members = status.membership.members;
    let wish = |id: MemberId, prng: &mut Prng| {
        let info = MemberInfo { name: format!("server {id}"), ..MemberInfo::default() };
        if members.contains(id) {
            return match prng.below(4) {
                0 => Change::Remove { id },
                1 if members.is_voter(id) => Change::Demote { id },
                1 | 2 => Change::Promote { id },
                _ => Change::Update { id, info: info.into() },
            };
        }
        match prng.below(3) {
            0 => Change::AddVoter { id, info },
            promote => Change::AddLearner { id, info, promote: promote == 1 },
        }
    };
    let changes = ids.into_iter().map(|id| wish(id, prng)).collect();
    world.change(leader, changes);
}

fn sync_some(world: &mut World, id: MemberId, prng: &mut Prng) {
    let durable = world.complete_writes(id, usize::try_from(prng.between(1, 3)).unwrap());
    if world.node(id).raft.is_some() {
        world.turn(id, durable.into_iter().collect());
    }
}

fn toggle_connection(world: &mut World, id: MemberId, prng: &mut Prng) {
    let peer = *prng.pick(&world.ids()).unwrap();
    if peer != id {
        let up = prng.chance(1, 2);
        let input = if up { Input::Connected { peer } } else { Input::Disconnected { peer } };
        world.turn(id, vec![input]);
    }
}

fn deliver_any(world: &mut World, climate: &Climate, prng: &mut Prng) {
    if world.network.is_empty() {
        return;
    }
    // Mostly in order, sometimes any.
    let count = world.network.len() as u64;
    let at = if prng.chance(9, 10) { 0 } else { prng.below(count.min(50)) };
    let at = usize::try_from(at).unwrap();
    if prng.chance(climate.loss, 100) {
        world.network.remove(at);
    } else if prng.chance(climate.duplication, 100) {
        let message = world.network[at].clone();
        world.deliver(message);
    } else {
        let message = world.network.remove(at);
        world.deliver(message);
    }
}

fn settle_any(world: &mut World, id: MemberId, prng: &mut Prng) {
    let applied = world.node(id).applied.index;
    let release = prng.chance(1, 2).then(|| Index(applied.0.saturating_sub(prng.below(4))));
    if world.node(id).installing.is_none() {
        world.settle(id, release);
    }
}

/// Begins an installation, or ends one that was begun. Whatever happens, the sender hears of it.
fn ship_any(world: &mut World, prng: &mut Prng) {
    let installing = world.ids().into_iter().find(|id| world.nodes[id].installing.is_some());
    if let Some(id) = installing {
        return world.finish_shipment(id);
    }
    let Some(shipment) = world.shipments.pop() else { return };
    if prng.chance(1, 4) || !world.begin_install_after(&shipment) {
        world.report(&shipment, None);
    } else if prng.chance(1, 2) {
        world.finish_shipment(shipment.to);
    }
}

fn crash_or_start(world: &mut World, climate: &Climate, id: MemberId, prng: &mut Prng) {
    if world.node(id).raft.is_none() {
        world.start(id, prng.below(3)).unwrap();
    } else if prng.chance(climate.crashes, 10) {
        world.crash(id);
    }
}

/// Every server runs, with a disk and a machine that work; links are as they were.
pub(crate) fn mend_servers(world: &mut World) {
    for id in world.ids() {
        world.node(id).manual_disk = false;
        world.node(id).manual_machine = false;
        world.node(id).cut = false;
        if world.node(id).installing.is_some() {
            world.finish_shipment(id);
        }
        if world.node(id).raft.is_none() {
            world.start(id, 0).unwrap();
        }
        let durable = world.complete_writes(id, usize::MAX);
        world.turn(id, durable.into_iter().collect());
        let applied = world.apply(id, usize::MAX);
        world.turn(id, applied.into_iter().collect());
        for peer in world.ids() {
            if peer != id {
                world.turn(id, vec![Input::Connected { peer }]);
            }
        }
    }
}

/// Everything works again, so within a few seconds everyone has everything.
pub(crate) fn heal(world: &mut World) {
    mend_servers(world);
    for _ in 0..40 {
        world.run(world.now + Duration::from_millis(500));
        for shipment in std::mem::take(&mut world.shipments) {
            world.ship(&shipment);
        }
    }
    let leader = world.leader().expect("a healed group has a leader");
    let ticket = world.propose(leader, b"healed");
    let read = world.read(leader);
    world.run(world.now + Duration::from_millis(500));
    let position = world.proposed[&ticket].expect("a healed leader takes proposals");
    assert!(position.index <= world.commit_max(), "a healed group commits");
    assert!(world.reads[&read].is_ok(), "a healed group reads");
    let members = world.node(leader).status().expect("it leads").membership.members;
    assert!(!members.is_joint(), "a healed group leaves a joint configuration");
    for id in world.ids().into_iter().filter(|id| members.contains(*id)) {
        assert!(position.index <= world.node(id).applied.index, "everyone catches up: {id}");
    }
    world.check_log_matching();
}
