//! A coordinator beside a group in rough weather: its reports get lost or late, it is cut off, it
//! starts again and knows nobody, and now and then it lies. Raft's rules are checked at every step
//! all the same, and a group that heals makes progress.

use kvraft_base::{MemberId, Prng};
use kvraft_coord::{
    Candidate, Coordinator, Hello, Input as News, LinkId, Output as Says, Report, Settings,
    ToCoordinator, ToServer,
};
use kvraft_raft::{Input, RoleName};
use proptest::prelude::*;
use std::time::Duration;

use crate::{
    random::{Climate, heal, step},
    world::World,
};

/// How the coordinator is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Does what it can with what it hears.
    Honest,
    /// Tells anybody anything, too.
    Lying,
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 100, failure_persistence: None, ..ProptestConfig::default() })]

    /// Loss, delay, partition, forgetting and lies of the coordinator break no rule of Raft, with
    /// leases and without.
    #[test]
    fn no_coordinator_breaks_raft(
        servers in 1u64..=5,
        seed in any::<u64>(),
        steps in 100u64..1500,
        lease in any::<bool>(),
        lies in any::<bool>(),
    ) {
        let manner = if lies { Manner::Lying } else { Manner::Honest };
        let climate = Climate::rough(servers, seed, steps, lease);
        let mut office = Office::new(servers, seed);
        let mut world = climate.play_with(|world, prng| {
            step(world, &climate, prng);
            office.take_part(world, manner);
        });
        heal(&mut world);
    }
}

/// The coordinator and its lines.
struct Office {
    coordinator: Coordinator,
    servers: u64,
    prng: Prng,
    is_cut_off: bool,
    /// Lines under way to servers.
    hints: Vec<MemberId>,
    /// Reports under way to it.
    reports: Vec<(LinkId, Report)>,
}

impl Office {
    fn new(servers: u64, seed: u64) -> Self {
        let coordinator = Self::fresh(servers);
        let prng = Prng::new(seed).fork("coordinator");
        let (hints, reports) = (Vec::new(), Vec::new());
        Self { coordinator, servers, prng, is_cut_off: false, hints, reports }
    }

    fn fresh(servers: u64) -> Coordinator {
        Coordinator::new(Settings {
            num_servers: usize::try_from(servers).unwrap(),
            lost_msgs_thresh: 3,
            report_interval: Duration::from_millis(100),
            token: "t".into(),
        })
    }

    fn take_part(&mut self, world: &mut World, manner: Manner) {
        match self.prng.below(100) {
            0 => self.is_cut_off = true,
            1..5 => self.is_cut_off = false,
            5 => self.coordinator = Self::fresh(self.servers),
            6..10 => self.forget_a_link(world),
            _ => {}
        }
        for id in world.ids() {
            self.report(world, id);
        }
        while let Some((link, report)) = self.reports.pop() {
            if !self.prng.chance(1, 10) {
                self.hear(world, News::Message(link, ToCoordinator::Report(report)));
            }
            if self.prng.chance(1, 3) {
                break;
            }
        }
        self.hear(world, News::Tick);
        if manner == Manner::Lying && self.prng.chance(1, 2) {
            self.hints.push(*self.prng.pick(&world.ids()).unwrap());
        }
        if self.prng.chance(2, 3) {
            for id in std::mem::take(&mut self.hints) {
                world.turn(id, vec![Input::LeaderSuspected]);
            }
        }
    }

    fn forget_a_link(&mut self, world: &mut World) {
        let id = *self.prng.pick(&world.ids()).unwrap();
        self.hear(world, News::Closed(LinkId(id.0)));
    }

    /// What a server says of itself is on its way, unless it is down or nothing gets through.
    fn report(&mut self, world: &mut World, id: MemberId) {
        let Some(status) = world.node(id).status().filter(|_| !self.is_cut_off) else { return };
        let link = LinkId(id.0);
        if self.prng.chance(1, 10) {
            let (member, cluster) = (Some(id.0), Some(1));
            let hello = Hello { member, cluster, ..Hello::default() };
            self.hear(world, News::Message(link, ToCoordinator::Join(hello)));
        }
        let last = Candidate { term: status.last.term.0, index: status.last.index.0 };
        let leads = status.role == RoleName::Leader;
        let leader = status.leader.map(|leader| leader.0);
        self.reports.push((link, Report { term: status.term.0, leads, leader, last }));
    }

    fn hear(&mut self, world: &World, news: News) {
        let mut out = Vec::new();
        self.coordinator.step(world.now, news, &mut out);
        for says in out {
            if let Says::Server(link, ToServer::LeaderLost { .. }) = says
                && !self.is_cut_off
            {
                self.hints.push(MemberId(link.0));
            }
        }
    }
}
