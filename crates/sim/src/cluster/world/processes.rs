//! Processes of servers: how they start, and the ways in which they end.
//!
//! Invariant: a process that has ended never acts again; its disk is handed to the next one as the
//! end left it.

use std::time::Duration;

use kvraft_base::MemberId;
use kvraft_replica::{OpenOptions, ReplicaError};

use super::{CLUSTER, Happening, NOTICE_MAX, RESTART_MIN, World};
use crate::{
    cluster::{
        clients::Told,
        server::{LaneId, Standing, Waiter},
        violation::Check,
    },
    disk::CrashPolicy,
    network::Endpoint,
};

impl World {
    fn open_options(&mut self, id: MemberId, incarnation: u64) -> OpenOptions {
        let seed = self.seed_prng.next_u64();
        let versions = self.servers[&id].versions();
        self.config.open_options(id, CLUSTER, incarnation, versions, seed)
    }

    /// Starts a server that is down.
    pub(crate) fn start(&mut self, id: MemberId) {
        if self.servers[&id].is_up() || self.servers[&id].standing != Standing::InUse {
            return;
        }
        self.sometimes.forsaken_starts += u64::from(self.servers[&id].disk.is_forsaken());
        let incarnation = self.servers[&id].boot + 1;
        let options = self.open_options(id, incarnation);
        let now = self.now;
        let server = self.server(id);
        let started = server.start(options, server.now(now));
        let cost = self.server(id).disk.take_cost();
        let node = Some(Endpoint::Server(id));
        self.trace
            .record(self.now, node, "start", incarnation, || format!("{:?}", started.is_ok()));
        self.record_start(id);
        let rotted = self.rotted.contains(&id);
        match started {
            Ok(found) => {
                self.checks.on_recovered(id, &found, found.muted && rotted);
                if !rotted {
                    self.checks.on_notes(id, &found.notes);
                }
                self.sometimes.on_notes(&found.notes);
                self.check_state(id);
                self.rehearse_start(id);
                self.connect_all();
                self.schedule_wake(id, LaneId::Node);
                self.schedule_wake(id, LaneId::Machine);
            }
            Err(error) => self.on_start_failed(id, cost, &error),
        }
    }

    fn on_start_failed(&mut self, id: MemberId, cost: Duration, error: &ReplicaError) {
        if self.servers[&id].disk.is_fuse_blown() {
            // Power was lost in the middle of recovery: once more.
            self.sometimes.crash_in_recovery += 1;
            self.lose_power(id);
            self.after(cost + Duration::from_millis(50), Happening::Restart { server: id });
            return;
        }
        if self.servers[&id].disk.has_failed() {
            self.stop_on_failure(id);
            return;
        }
        if let ReplicaError::Unsupported(said) = error {
            self.on_unsupported(id, *said);
            return;
        }
        self.checks.fail(Check::Recovery, format!("server {id} cannot start: {error}"));
    }

    /// A disk has failed as it was told to, and the process has ended itself as it must. What was
    /// not synced may be lost now: nobody knows what a failed sync leaves in the page cache.
    pub(super) fn stop_on_failure(&mut self, id: MemberId) {
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "stop", id.0, || "its disk has failed".to_owned());
        self.sometimes.disk_failures += 1;
        let has_failed_to_read = self.servers[&id].disk.take_read_failure();
        self.sometimes.read_failures += u64::from(has_failed_to_read);
        let was_up = self.servers[&id].is_up();
        if self.crash_prng.chance(1, 2) {
            self.lose_power(id);
        } else {
            self.servers[&id].disk.sever();
            self.end_process(id);
        }
        if was_up {
            self.record_down(id, "DiskFailed");
            self.checks.on_crash(id);
            self.on_links_broken(id);
        }
        let pause = self.crash_prng.duration(RESTART_MIN, RESTART_MIN * 20);
        self.after(pause, Happening::Restart { server: id });
    }

    /// Ends a server's process with a loss of power: what was not synced may be lost or torn.
    pub(crate) fn crash(&mut self, id: MemberId) {
        if !self.servers[&id].is_up() {
            return;
        }
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "crash", id.0, String::new);
        self.sometimes.crashes += 1;
        self.record_down(id, "PowerLost");
        self.lose_power(id);
        self.checks.on_crash(id);
        self.on_links_broken(id);
    }

    /// A fuse has blown. At times it ends the process alone: what that had written and not synced
    /// is there when the next one starts, and goes if the power does soon after.
    pub(super) fn end_inside_write(&mut self, id: MemberId) {
        if !self.crash_prng.chance(1, 3) {
            return self.crash(id);
        }
        self.sometimes.killed_inside_write += 1;
        self.kill(id);
        let pause = self.crash_prng.duration(RESTART_MIN, RESTART_MIN * 5);
        self.after(pause, Happening::Restart { server: id });
        let life = self.crash_prng.duration(Duration::from_nanos(1), RESTART_MIN * 2);
        let boot = self.servers[&id].boot + 1;
        self.after(pause + life, Happening::Blow { server: id, boot });
    }

    /// Ends a server's process; the machine keeps its power, so nothing written is lost.
    pub(crate) fn kill(&mut self, id: MemberId) {
        if !self.servers[&id].is_up() {
            return;
        }
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "kill", id.0, String::new);
        self.sometimes.kills += 1;
        self.record_down(id, "Killed");
        self.servers[&id].disk.sever();
        self.end_process(id);
        self.checks.on_crash(id);
        self.on_links_broken(id);
    }

    fn lose_power(&mut self, id: MemberId) {
        let policy = CrashPolicy::draw(&mut self.crash_prng);
        let mut prng = self.crash_prng.fork("loss");
        self.crash_prng.next_u64();
        self.server(id).disk.crash(&mut prng, policy);
        self.end_process(id);
    }

    fn end_process(&mut self, id: MemberId) {
        let server = self.server(id);
        let broken = server.stop();
        self.links.forget(id);
        let server = self.server(id);
        server.disk = server.disk.reboot();
        // What a dead process spent is nobody's.
        let _: Duration = server.disk.take_cost();
        for waiter in broken {
            let delay = self.net_prng.duration(Duration::ZERO, NOTICE_MAX);
            let told = Told::Nothing;
            match waiter {
                Waiter::Client(client, attempt, _) => {
                    self.after(delay, Happening::Response { client, attempt, told });
                }
                Waiter::Operator(request) => {
                    self.after(delay, Happening::OperatorTold { request, told });
                }
                Waiter::Stop => {}
            }
        }
    }
}
