//! Carries the plan's faults out on the world, and mends everything at the end.

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Prng};

use super::{
    config::Draft,
    operator::Errand,
    server::{LaneId, Standing},
    world::{Happening, World},
};
use crate::{
    network::Endpoint,
    plan::{Fault, Plan, RATE_PPM, RunConfig, Target, TimedFault},
};

/// Every lane, in the order in which a resumed process finds work.
const LANES: [LaneId; 4] = [LaneId::Journal, LaneId::Table, LaneId::Machine, LaneId::Node];

/// A fuse that finds nothing to write blows by itself after this long.
const FUSE_PATIENCE: Duration = Duration::from_millis(500);

/// The faults of a seed.
pub(crate) fn draw(seed: u64, draft: &Draft) -> Vec<TimedFault> {
    let mut prng = Prng::new(seed).fork("faults");
    let until = u64::try_from(draft.config.faults_until.as_nanos()).unwrap_or(u64::MAX);
    let run = RunConfig {
        server_count: draft.config.servers,
        newcomer_count: draft.newcomers,
        client_count: draft.clients,
        drift_ppm: draft.drift_ppm,
        faults_from: Instant(0),
        faults_until: Instant(until),
        fault_interval_mean: draft.fault_pause,
        repair_after_max: prng.duration(Duration::from_millis(10), Duration::from_secs(2)),
        kinds: draft.kinds,
        leave_broken: true,
    };
    Plan::draw_faults(&run, &prng)
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
        if let Some(recording) = &mut self.recording {
            recording.on_world(self.now, "Fault", timed.fault.to_string());
        }
        self.inject(item, &timed.fault);
    }

    pub(crate) fn targets(&self, target: Target) -> Vec<MemberId> {
        match target {
            Target::Server(id) => {
                self.servers.get(&id).map(|server| server.id).into_iter().collect()
            }
            Target::Leader => self.leader().into_iter().collect(),
            Target::All => self.server_ids(),
        }
    }

    fn inject(&mut self, item: usize, fault: &Fault) {
        match fault {
            Fault::Crash(target) => {
                self.sometimes.power_losses += u64::from(*target == Target::All);
                self.each(*target, Self::crash);
            }
            Fault::Kill(target) => self.each(*target, Self::kill),
            Fault::Restart(target) => self.each(*target, Self::start),
            Fault::Pause(target) => self.each(*target, Self::pause),
            Fault::Suspend(target) => self.each(*target, Self::suspend),
            Fault::Resume(target) => self.each(*target, Self::resume),
            Fault::Jump { target, by_ms } => self.each(*target, |world, id| {
                world.sometimes.jumps += 1;
                world.server(id).clock.jump(*by_ms);
            }),
            Fault::Drift { target, rate_ppm } => {
                self.each(*target, |world, id| world.set_rate(id, *rate_ppm));
            }
            Fault::Slow { .. }
            | Fault::Stall { .. }
            | Fault::SyncError { .. }
            | Fault::FalseClean { .. }
            | Fault::WriteError { .. }
            | Fault::ReadError { .. }
            | Fault::BadSector { .. }
            | Fault::GoodSectors(_)
            | Fault::Full { .. }
            | Fault::Space(_)
            | Fault::Fuse { .. }
            | Fault::Ambush { .. } => self.inject_disk(fault),
            Fault::Disconnect(_)
            | Fault::Reconnect(_)
            | Fault::Partition(_)
            | Fault::Block { .. }
            | Fault::Unblock { .. }
            | Fault::Clog { .. }
            | Fault::Lag { .. }
            | Fault::Throttle { .. }
            | Fault::Unthrottle { .. }
            | Fault::Heal => self.inject_links(fault),
            Fault::Rot { decay, server, part, draw } => {
                self.rot(*server, *decay, *part, *draw);
            }
            Fault::ClientCrash { client, down } => self.crash_client(*client, *down),
            Fault::ClientPause { client, lasts } => self.pause_client(*client, *lasts),
            Fault::Change(wishes) => self.on_errand(item, Errand::Change(wishes.clone())),
            Fault::Transfer(to) => self.on_errand(item, Errand::Transfer(*to)),
            Fault::Replace(whom) => self.on_errand(item, Errand::Replace(*whom)),
            Fault::Stop(target) => self.each(*target, Self::ask_to_stop),
            Fault::Coordinator(fault) => self.inject_coordinator(*fault),
            Fault::Install { target, build } => {
                self.each(*target, |world, id| world.install(id, *build));
            }
        }
    }

    fn inject_links(&mut self, fault: &Fault) {
        match fault {
            Fault::Disconnect(target) => self.each(*target, Self::disconnect),
            Fault::Reconnect(target) => self.each(*target, Self::reconnect),
            Fault::Partition(partition) => {
                self.sometimes.partitions += 1;
                let servers = self.server_ids();
                self.network.partition(partition, &servers);
                self.on_links_stopped();
            }
            Fault::Block { from, to } => {
                if from.is_server() && to.is_server() {
                    self.sometimes.blocks += 1;
                } else {
                    self.sometimes.client_cuts += 1;
                }
                self.network.block(*from, *to);
                self.on_links_stopped();
            }
            Fault::Unblock { from, to } => {
                self.network.unblock(*from, *to);
                self.connect_all();
            }
            Fault::Clog { from, to, lasts } => {
                self.sometimes.clogs += 1;
                self.network.clog(*from, *to, self.now + *lasts);
            }
            Fault::Lag { from, to, mean } => {
                self.sometimes.lags += u64::from(!mean.is_zero());
                self.network.lag(*from, *to, *mean);
                if mean.is_zero() {
                    self.relieve([(*from, *to)]);
                }
            }
            Fault::Throttle { from, to, rate_bytes, queue_bytes } => {
                self.sometimes.throttles += 1;
                self.network.throttle(*from, *to, *rate_bytes, *queue_bytes);
            }
            Fault::Unthrottle { from, to } => {
                self.network.unthrottle(*from, *to);
                self.relieve([(*from, *to)]);
            }
            Fault::Heal => self.heal_links(),
            _ => unreachable!("only faults of links come here: {fault:?}"),
        }
    }

    fn each(&mut self, target: Target, act: impl Fn(&mut Self, MemberId)) {
        for id in self.targets(target) {
            act(self, id);
        }
    }

    fn inject_disk(&mut self, fault: &Fault) {
        match fault {
            Fault::Slow { target, factor } => self.each(*target, |world, id| {
                world.sometimes.slow_disks += u64::from(1 < *factor);
                world.servers[&id].disk.set_slowness(*factor);
            }),
            Fault::Stall { target, lasts } => self.each(*target, |world, id| {
                world.sometimes.stalls += 1;
                world.servers[&id].disk.stall(*lasts);
            }),
            Fault::SyncError { target, sync_count } => self.each(*target, |world, id| {
                world.servers[&id].disk.arm_sync_failure(*sync_count, false);
            }),
            Fault::FalseClean { target, sync_count } => self.each(*target, |world, id| {
                world.servers[&id].disk.arm_sync_failure(*sync_count, true);
            }),
            Fault::Fuse { target, change_count } => self.each(*target, |world, id| {
                world.servers[&id].disk.arm_fuse((*change_count).max(1));
                world.await_fuse(id);
            }),
            Fault::Ambush { target, point, change_count } => self.each(*target, |world, id| {
                world.servers[&id].disk.arm_fuse_at(*point, (*change_count).max(1));
                world.sometimes.ambushes += 1;
                world.await_fuse(id);
            }),
            Fault::WriteError { target, write_count } => self.each(*target, |world, id| {
                world.servers[&id].disk.arm_write_failure(*write_count);
            }),
            Fault::ReadError { target, read_count } => self.each(*target, |world, id| {
                world.servers[&id].disk.arm_read_failure(*read_count);
            }),
            Fault::BadSector { server, part, draw } => self.break_sector(*server, *part, *draw),
            Fault::GoodSectors(target) => self.each(*target, |world, id| {
                world.servers[&id].disk.mend_sectors();
            }),
            Fault::Full { target, left_bytes } => self.each(*target, |world, id| {
                world.sometimes.full_disks += 1;
                let disk = &world.servers[&id].disk;
                disk.set_capacity(Some(disk.size_bytes() + left_bytes));
            }),
            Fault::Space(target) => self.each(*target, |world, id| {
                world.servers[&id].disk.set_capacity(None);
            }),
            _ => unreachable!("only faults of disks come here: {fault:?}"),
        }
    }

    /// Power will be lost in the middle of a change to come, in recovery too; or without one, when
    /// none has come for long.
    fn await_fuse(&mut self, id: MemberId) {
        let server = self.server(id);
        let boot = server.boot;
        if server.is_up() {
            self.after(FUSE_PATIENCE, Happening::Blow { server: id, boot });
        }
    }

    pub(crate) fn pause(&mut self, id: MemberId) {
        self.sometimes.pauses += 1;
        self.server(id).paused = true;
    }

    /// The machine stops: its clocks show the same time when it goes on.
    fn suspend(&mut self, id: MemberId) {
        self.sometimes.suspends += 1;
        let now = self.now;
        // A lease on a clock that stands still would never end: with leases, servers are given one
        // that goes on.
        let stops = self.config.lease.is_none();
        let server = self.server(id);
        server.paused = true;
        if stops {
            server.clock.set_stopped(now, true);
        }
    }

    /// From now on time passes at another rate for this server; its deadlines move with it.
    pub(crate) fn set_rate(&mut self, id: MemberId, rate_ppm: u64) {
        self.sometimes.drifts += u64::from(rate_ppm != RATE_PPM);
        let now = self.now;
        self.server(id).clock.set_rate(now, rate_ppm);
        self.replan_wakes(id);
    }

    fn replan_wakes(&mut self, id: MemberId) {
        if let Some(lanes) = self.server(id).lanes.as_mut() {
            lanes.wake_at.clear();
        }
        for lane in LANES {
            self.schedule_wake(id, lane);
        }
    }

    pub(crate) fn resume(&mut self, id: MemberId) {
        let now = self.now;
        self.server(id).clock.set_stopped(now, false);
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
        }
        self.replan_wakes(id);
    }

    pub(crate) fn disconnect(&mut self, id: MemberId) {
        self.sometimes.disconnects += 1;
        self.on_links_broken(id);
        self.network.disconnect(Endpoint::Server(id));
        self.on_links_stopped();
    }

    pub(crate) fn reconnect(&mut self, id: MemberId) {
        self.network.reconnect(Endpoint::Server(id));
        self.connect_all();
    }

    fn heal_links(&mut self) {
        let slowed = self.network.slowed();
        self.network.heal();
        self.relieve(slowed);
        self.connect_all();
    }

    /// Frames that wait for a link that is faster now do so no longer.
    fn relieve(&mut self, links: impl IntoIterator<Item = (Endpoint, Endpoint)>) {
        for link in links {
            if let Some(by) = self.network.relieve(self.now, link) {
                self.heap.hasten(by, |happening| happening.frame_link() == Some(link));
            }
        }
    }

    /// No more faults from the plan; links among servers work again.
    pub(crate) fn end_plan(&mut self) {
        self.healed = true;
        self.trace.record(self.now, None, "heal", 0, String::new);
        if let Some(recording) = &mut self.recording {
            recording.on_world(self.now, "Heal", "no more faults from the plan".to_owned());
        }
        self.heal_links();
    }

    /// Whatever is wrong with a server is put right, and it runs.
    pub(crate) fn mend(&mut self, id: MemberId) {
        if self.servers[&id].standing != Standing::InUse {
            return;
        }
        self.network.reconnect(Endpoint::Server(id));
        self.servers[&id].disk.disarm_fuse();
        self.servers[&id].disk.mend();
        self.resume(id);
        self.set_rate(id, RATE_PPM);
        self.start(id);
        self.connect_all();
    }

    /// Ends every process without a trace on its disk.
    pub(crate) fn sever_all(&mut self) {
        for server in self.servers.values_mut() {
            server.disk.sever();
            drop(server.stop());
        }
    }
}
