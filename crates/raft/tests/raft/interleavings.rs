//! Interleavings as data: a list of steps, drawn by proptest and shrunk by it to the few that
//! matter. The rules of Raft and a reference model of the log are checked after every step, and at
//! the end the group heals and must make progress.
//!
//! Why beside `random.rs`: runs there are long and rough, and reproduced by a seed; these are
//! short, and one that fails is read as a script.

use std::{collections::BTreeSet, time::Duration};

use kvraft_base::{Index, MemberId, MemberInfo};
use kvraft_raft::{Change, Config, Input, LeaseReads};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};

use crate::{random::heal, reference::Reference, world::World};

/// One thing that happens. Numbers are taken modulo what there is.
#[derive(Clone, Debug)]
enum Step {
    /// Time moves to this server's deadline, which fires.
    Timeout(u8),
    /// Time passes; who is asked for something next sees it.
    Pause(u16),
    /// The next messages arrive, in order.
    Deliver(u8),
    /// The message at this place overtakes those before it.
    Overtake(u8),
    Drop(u8),
    Repeat(u8),
    Propose(u8),
    Read(u8),
    Sync(u8, u8),
    Apply(u8, u8),
    /// The table is written; the journal keeps that many entries of what is applied.
    Settle(u8, u8),
    Crash(u8),
    Start(u8, u8),
    Cut(u8),
    Heal(u8),
    Close(u8, u8),
    Open(u8, u8),
    /// A server is asked for other members: whom it is about, and what is wished.
    Change(u8, u8, u8),
    /// A server is asked to hand over to another; to whoever is nearest if that is itself.
    Transfer(u8, u8),
    /// A waiting snapshot arrives and begins to be installed, or gets lost.
    Ship(bool),
    Installed(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let id = || 0u8..5;
    prop_oneof![
        6 => id().prop_map(Step::Timeout),
        1 => (0u16..1500).prop_map(Step::Pause),
        20 => (1u8..6).prop_map(Step::Deliver),
        3 => (0u8..20).prop_map(Step::Overtake),
        3 => (0u8..8).prop_map(Step::Drop),
        2 => (0u8..8).prop_map(Step::Repeat),
        8 => id().prop_map(Step::Propose),
        2 => id().prop_map(Step::Read),
        10 => (id(), 1u8..4).prop_map(|(id, count)| Step::Sync(id, count)),
        5 => (id(), 1u8..4).prop_map(|(id, count)| Step::Apply(id, count)),
        5 => (id(), 0u8..3).prop_map(|(id, kept)| Step::Settle(id, kept)),
        1 => id().prop_map(Step::Crash),
        3 => (id(), 0u8..3).prop_map(|(id, extra)| Step::Start(id, extra)),
        2 => id().prop_map(Step::Cut),
        2 => id().prop_map(Step::Heal),
        1 => (id(), id()).prop_map(|(id, peer)| Step::Close(id, peer)),
        1 => (id(), id()).prop_map(|(id, peer)| Step::Open(id, peer)),
        3 => (id(), id(), 0u8..8).prop_map(|(id, whom, wish)| Step::Change(id, whom, wish)),
        2 => (id(), id()).prop_map(|(id, to)| Step::Transfer(id, to)),
        5 => prop::bool::weighted(0.8).prop_map(Step::Ship),
        5 => id().prop_map(Step::Installed),
    ]
}

/// What a run starts from.
#[derive(Clone, Debug)]
struct Shape {
    servers: u64,
    /// Servers that may become members.
    spares: u64,
    /// Reads by lease.
    lease: bool,
    /// Disks and machines wait for their steps; else they answer at once.
    slow: bool,
    /// Memory for a few entries only.
    small: bool,
}

fn shape() -> impl Strategy<Value = Shape> {
    let shape = |(servers, spares, lease, slow, small)| Shape {
        servers,
        spares: if servers < 5 { spares } else { 0 },
        lease,
        slow,
        small,
    };
    let spares = prop_oneof![Just(0u64), Just(1), Just(2)];
    (1u64..=5, spares, any::<bool>(), any::<bool>(), any::<bool>()).prop_map(shape)
}

/// No interleaving breaks a rule, all heal, and together they reach what there is to be reached.
#[test]
fn no_interleaving_breaks_a_rule() {
    let config = ProptestConfig {
        cases: 1000,
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let rng = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let seen = std::cell::RefCell::new(BTreeSet::new());
    let steps = (shape(), proptest::collection::vec(step(), 1..400));
    let run = |(shape, steps): (Shape, Vec<Step>)| {
        seen.borrow_mut().extend(run(&shape, &steps));
        Ok(())
    };
    if let Err(error) = runner.run(&steps, run) {
        panic!("{error}");
    }
    let seen = seen.into_inner();
    let wanted = [
        "AppendLost",
        "BecameCandidate",
        "BecameLeader",
        "CommitAdvanced",
        "ConflictFound",
        "LearnerPromoted",
        "LogTruncated",
        "MembersChanged",
        "MembersCommitted",
        "QuorumLost",
        "SnapshotInstalled",
        "SnapshotNeeded",
        "TransferDone",
        "TransferFailed",
        "applied",
        "fetch",
        "read",
    ];
    let missed: Vec<&str> = wanted.into_iter().filter(|name| !seen.contains(*name)).collect();
    assert!(missed.is_empty(), "no interleaving has come to: {}", missed.join(", "));
}

/// Carries out the steps; returns the names of what happened.
fn run(shape: &Shape, steps: &[Step]) -> BTreeSet<String> {
    let Shape { small, lease, .. } = *shape;
    let configure = move |config: &mut Config| {
        let leases = LeaseReads { drift_ppm_max: 1000, margin: Duration::ZERO };
        config.lease = lease.then_some(leases);
        if small {
            config.window_bytes_max = 100;
            config.append_size_bytes_max = 80;
            config.inflight_count_max = 2;
            config.inflight_bytes_max = 150;
            config.apply_bytes_max = 60;
        }
    };
    let mut world = World::with_spares(shape.servers, shape.spares, 1, configure);
    let mut reference = Reference::default();
    let mut seen = BTreeSet::new();
    for id in world.ids() {
        world.node(id).manual_disk = shape.slow;
        world.node(id).manual_machine = shape.slow;
        world.start(id, 0).unwrap();
    }
    reference.check(&world);
    for (number, step) in steps.iter().enumerate() {
        take(&mut world, number as u64, step);
        reference.check(&world);
        let name = |line: &String| line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        seen.extend(world.trace.drain(..).map(|line| name(&line)));
    }
    heal(&mut world);
    reference.check(&world);
    for id in world.ids() {
        let status = world.node(id).status().expect("everyone is up");
        assert_eq!(status.transfer, None, "a transfer ends");
    }
    seen
}

fn take(world: &mut World, number: u64, step: &Step) {
    let count = u8::try_from(world.ids().len()).unwrap();
    let id = |number: u8| MemberId(u64::from(number % count) + 1);
    match *step {
        Step::Timeout(who) => {
            let Some(raft) = &world.node(id(who)).raft else { return };
            let deadline = raft.deadline();
            world.now = world.now.max(deadline);
            world.turn(id(who), Vec::new());
        }
        Step::Pause(span) => world.now = world.now + Duration::from_millis(span.into()),
        Step::Deliver(count) => {
            for _ in 0..count {
                move_message(world, 0, true, false);
            }
        }
        Step::Overtake(at) => move_message(world, at, true, false),
        Step::Drop(at) => move_message(world, at, false, false),
        Step::Repeat(at) => move_message(world, at, true, true),
        Step::Propose(who) => drop(world.propose(id(who), &number.to_le_bytes())),
        Step::Read(who) => drop(world.read(id(who))),
        Step::Sync(who, count) => {
            if world.node(id(who)).installing.is_none() {
                let durable = world.complete_writes(id(who), count.into());
                world.turn(id(who), durable.into_iter().collect());
            }
        }
        Step::Apply(who, count) => {
            let applied = world.apply(id(who), count.into());
            world.turn(id(who), applied.into_iter().collect());
        }
        Step::Settle(who, kept) => settle(world, id(who), kept.into()),
        Step::Crash(who) => world.crash(id(who)),
        Step::Start(who, extra) => {
            if world.node(id(who)).raft.is_none() {
                world.start(id(who), extra.into()).unwrap();
            }
        }
        Step::Cut(who) => world.node(id(who)).cut = true,
        Step::Heal(who) => world.node(id(who)).cut = false,
        Step::Close(who, peer) if id(who) != id(peer) => {
            world.turn(id(who), vec![Input::Disconnected { peer: id(peer) }]);
        }
        Step::Open(who, peer) if id(who) != id(peer) => {
            world.turn(id(who), vec![Input::Connected { peer: id(peer) }]);
        }
        Step::Close(..) | Step::Open(..) => {}
        Step::Change(who, whom, wish) => change(world, id(who), id(whom), wish),
        Step::Transfer(who, to) => {
            world.transfer(id(who), (who % count != to % count).then(|| id(to)));
        }
        Step::Ship(arrives) => ship(world, arrives),
        Step::Installed(who) => world.finish_shipment(id(who)),
    }
}

fn move_message(world: &mut World, at: u8, arrives: bool, stays: bool) {
    if world.network.is_empty() {
        return;
    }
    let at = usize::from(at) % world.network.len();
    let message = if stays { world.network[at].clone() } else { world.network.remove(at) };
    if arrives {
        world.deliver(message);
    }
}

/// One or two wishes at once, sensible or not.
fn change(world: &mut World, leader: MemberId, id: MemberId, wish: u8) {
    let info = || MemberInfo { name: format!("server {id}"), ..MemberInfo::default() };
    let next = MemberId(id.0 % world.ids().len() as u64 + 1);
    let changes = match wish {
        0 => vec![Change::AddVoter { id, info: info() }],
        1 => vec![Change::AddLearner { id, info: info(), promote: true }],
        2 => vec![Change::AddLearner { id, info: info(), promote: false }],
        3 => vec![Change::Remove { id }],
        4 => vec![Change::Promote { id }],
        5 => vec![Change::Demote { id }],
        6 => vec![Change::AddVoter { id, info: info() }, Change::Remove { id: next }],
        _ => vec![Change::Remove { id }, Change::Demote { id: next }],
    };
    world.change(leader, changes);
}

fn settle(world: &mut World, id: MemberId, kept: u64) {
    let applied = world.node(id).applied.index;
    if world.node(id).installing.is_none() {
        world.settle(id, Some(Index(applied.0.saturating_sub(kept))));
    }
}

fn ship(world: &mut World, arrives: bool) {
    if world.shipments.is_empty() {
        return;
    }
    let shipment = world.shipments.remove(0);
    let idle = world.node(shipment.to).installing.is_none();
    if !(arrives && idle && world.begin_install(&shipment)) {
        world.report(&shipment, None);
    }
}
