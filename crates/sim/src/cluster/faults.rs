//! Carries the plan's faults out on the world, and mends everything at the end.

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Prng};

use super::{
    config::ClusterConfig,
    server::LaneId,
    world::{Happening, World},
};
use crate::{
    network::Endpoint,
    plan::{Fault, FaultKinds, Plan, RunConfig, Target},
};

/// Every lane, in the order in which a resumed process finds work.
const LANES: [LaneId; 4] = [LaneId::Journal, LaneId::Table, LaneId::Machine, LaneId::Node];

/// A fuse that finds nothing to write blows by itself after this long.
const FUSE_PATIENCE: Duration = Duration::from_millis(500);

/// The faults of a seed.
pub(crate) fn draw(seed: u64, config: &ClusterConfig) -> Plan {
    let mut prng = Prng::new(seed).fork("faults");
    let kinds = FaultKinds::draw(&mut prng, 2, 3);
    let until = u64::try_from(config.faults_until.as_nanos()).unwrap_or(u64::MAX);
    let run = RunConfig {
        server_count: config.servers,
        faults_from: Instant(0),
        faults_until: Instant(until),
        fault_interval_mean: config.fault_pause,
        repair_after_max: prng.duration(Duration::from_millis(10), Duration::from_secs(2)),
        kinds,
        leave_broken: true,
    };
    Plan::draw(&run, &prng)
}

impl World {
    pub(crate) fn schedule_plan(&mut self) {
        for (item, timed) in self.plan.faults().iter().enumerate() {
            self.heap.push(timed.at, Happening::Fault(item));
        }
    }

    pub(crate) fn on_fault(&mut self, item: usize) {
        if self.healed {
            return;
        }
        let Some(timed) = self.plan.faults().get(item).cloned() else {
            return;
        };
        self.trace.record(self.now, None, "fault", item as u64, || format!("{:?}", timed.fault));
        self.inject(&timed.fault);
    }

    fn targets(&self, target: Target) -> Vec<MemberId> {
        match target {
            Target::Server(id) => vec![id],
            Target::Leader => self.leader().into_iter().collect(),
            Target::All => self.server_ids(),
        }
    }

    fn inject(&mut self, fault: &Fault) {
        match fault {
            Fault::Crash(target) => self.each(*target, Self::crash),
            Fault::Kill(target) => self.each(*target, Self::kill),
            Fault::Restart(target) => self.each(*target, Self::start),
            Fault::Pause(target) => self.each(*target, Self::pause),
            Fault::Resume(target) => self.each(*target, Self::resume),
            Fault::Disconnect(target) => self.each(*target, Self::disconnect),
            Fault::Reconnect(target) => self.each(*target, Self::reconnect),
            Fault::Fuse { target, change_count } => {
                for id in self.targets(*target) {
                    self.arm_fuse(id, *change_count);
                }
            }
            Fault::Partition(partition) => {
                self.sometimes.partitions += 1;
                let servers = self.server_ids();
                self.network.partition(partition, &servers);
            }
            Fault::Block { from, to } => self.network.block(*from, *to),
            Fault::Unblock { from, to } => self.network.unblock(*from, *to),
            Fault::Clog { from, to, lasts } => self.network.clog(*from, *to, self.now + *lasts),
            Fault::Heal => self.network.heal(),
        }
    }

    fn each(&mut self, target: Target, act: impl Fn(&mut Self, MemberId)) {
        for id in self.targets(target) {
            act(self, id);
        }
    }

    /// Power will be lost in the middle of a write to come, in recovery too.
    fn arm_fuse(&mut self, id: MemberId, change_count: u64) {
        let server = self.server(id);
        server.disk.arm_fuse(change_count.max(1));
        let boot = server.boot;
        if server.is_up() {
            self.after(FUSE_PATIENCE, Happening::Blow { server: id, boot });
        }
    }

    fn pause(&mut self, id: MemberId) {
        self.sometimes.pauses += 1;
        self.server(id).paused = true;
    }

    pub(crate) fn resume(&mut self, id: MemberId) {
        if !std::mem::replace(&mut self.server(id).paused, false) {
            return;
        }
        for lane in LANES {
            let ready = self.servers[&id]
                .lanes
                .as_ref()
                .is_some_and(|lanes| lanes.has_input(lane) && !lanes.busy.contains_key(&lane));
            if ready {
                self.run_lane(id, lane);
            }
            self.schedule_wake(id, lane);
        }
    }

    fn disconnect(&mut self, id: MemberId) {
        self.sometimes.disconnects += 1;
        self.notify_peers(id, false);
        self.network.disconnect(Endpoint::Server(id));
    }

    fn reconnect(&mut self, id: MemberId) {
        self.network.reconnect(Endpoint::Server(id));
        if self.servers[&id].is_up() {
            self.notify_peers(id, true);
        }
    }

    /// The second phase: no more faults, everybody comes back.
    pub(crate) fn heal_all(&mut self) {
        self.healed = true;
        self.trace.record(self.now, None, "heal", 0, String::new);
        self.network.heal();
        for id in self.server_ids() {
            self.network.reconnect(Endpoint::Server(id));
            self.servers[&id].disk.disarm_fuse();
            self.resume(id);
            self.start(id);
            self.notify_peers(id, true);
        }
    }

    /// Ends every process without a trace on its disk.
    pub(crate) fn sever_all(&mut self) {
        for server in self.servers.values_mut() {
            server.disk.sever();
            drop(server.stop());
        }
    }
}
