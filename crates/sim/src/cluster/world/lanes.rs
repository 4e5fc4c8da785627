//! Lanes as actors: input arrives, a step runs over all that has gathered, costs time, and its hops
//! go out.
//!
//! Invariant: a lane that still pays for its last step takes no new one; what arrives meanwhile
//! gathers, which is group commit.

use std::time::Duration;

use kvraft_base::{Index, Instant, MemberId, Term};
use kvraft_raft::{Event, RoleName};
use kvraft_replica::{Fatal, Hop, JournalIn, MachineIn, Now};

use super::{HOP, Happening, RESTART_MIN, World};
use crate::{
    cluster::{
        server::{LaneId, LaneIn},
        violation::Check,
    },
    network::Endpoint,
};

impl World {
    pub(crate) fn on_deliver(&mut self, id: MemberId, boot: u64, input: LaneIn) {
        let server = self.server(id);
        if server.boot != boot {
            return;
        }
        let Some(lanes) = server.lanes.as_mut() else {
            return;
        };
        let lane = input.lane();
        lanes.push(input);
        if server.paused {
            return;
        }
        if !lanes.busy.contains_key(&lane) {
            self.run_lane(id, lane);
        }
    }

    pub(super) fn on_free(&mut self, id: MemberId, boot: u64, lane: LaneId) {
        let server = self.server(id);
        if server.boot != boot {
            return;
        }
        let Some(lanes) = server.lanes.as_mut() else {
            return;
        };
        lanes.busy.remove(&lane);
        if lanes.has_input(lane) && !server.paused {
            self.run_lane(id, lane);
        }
    }

    pub(super) fn on_wake(&mut self, id: MemberId, boot: u64, lane: LaneId) {
        let now = self.now;
        let server = self.server(id);
        if server.boot != boot {
            return;
        }
        let Some(lanes) = server.lanes.as_mut() else {
            return;
        };
        if lanes.wake_at.get(&lane).is_some_and(|at| *at <= now) {
            lanes.wake_at.remove(&lane);
        }
        if server.paused {
            return; // Looked at again when it resumes.
        }
        if lanes.deadline(lane) <= server.clock.monotonic(now) && !lanes.busy.contains_key(&lane) {
            self.run_lane(id, lane);
        } else {
            self.schedule_wake(id, lane);
        }
    }

    /// Steps a lane, pays for it, and sends its hops on their way.
    pub(crate) fn run_lane(&mut self, id: MemberId, lane: LaneId) {
        let now = self.now;
        self.load_film(id, lane);
        let mut hops = std::mem::take(&mut self.hops);
        let server = self.server(id);
        let clock = server.now(now);
        let lanes = server.lanes.as_mut().expect("only running servers step");
        let synced = lanes.step(lane, clock, &mut hops);
        let cost = server.disk.take_cost();
        let blown = server.disk.is_fuse_blown();
        self.develop_film(id, lane, synced.reset);
        for write in &synced.writes {
            self.checks.on_synced(id, write);
        }
        if let Some(position) = synced.reset {
            self.checks.on_reset(id, position);
        }
        if blown {
            hops.clear();
            self.hops = hops;
            self.sometimes.fuse_blown += 1;
            self.end_inside_write(id);
            return;
        }
        self.check_turn(id, lane, clock, &hops);
        self.check_bounds(id, lane);
        if lane == LaneId::Machine {
            self.check_state(id);
        }
        let boot = self.servers[&id].boot;
        for hop in hops.drain(..) {
            // A process that has ended itself says nothing more.
            if self.servers[&id].boot == boot && self.servers[&id].is_up() {
                self.on_hop(id, cost, hop);
            }
        }
        self.hops = hops;
        if cost != Duration::ZERO && self.servers[&id].is_up() {
            let boot = self.servers[&id].boot;
            if let Some(lanes) = self.server(id).lanes.as_mut() {
                lanes.busy.insert(lane, ());
            }
            self.after(cost, Happening::Free { server: id, boot, lane });
        }
        self.schedule_wake(id, lane);
    }

    fn check_turn(&mut self, id: MemberId, lane: LaneId, clock: Now, hops: &[Hop]) {
        if lane != LaneId::Node {
            return;
        }
        let Some(lanes) = self.servers.get(&id).and_then(|server| server.lanes.as_ref()) else {
            return;
        };
        let raft = lanes.node.raft();
        let status = raft.status();
        let term_at_commit = raft.term_at(status.commit);
        let write = |hop| match hop {
            &Hop::Journal(JournalIn::Write(ref write)) => Some(write),
            _ => None,
        };
        let writes: Vec<_> = hops.iter().filter_map(write).collect();
        let by_lease = status.role == RoleName::Leader
            && status.lease_until.is_some_and(|until| clock.instant < until);
        let is_read = |hop: &&Hop| matches!(hop, Hop::Machine(MachineIn::Query { at, .. }) if *at != Index::ZERO);
        let read_count = hops.iter().filter(is_read).count();
        self.sometimes.lease_reads += if by_lease { read_count as u64 } else { 0 };
        if let Some(recording) = &mut self.recording {
            recording.on_turn(self.now, id, &status, hops);
        }
        let steps = self.checks.on_turn(&status, term_at_commit, &writes);
        for step in &steps {
            self.on_config_step(step);
        }
    }

    /// What has been applied is what the log makes of an empty store.
    pub(super) fn check_state(&mut self, id: MemberId) {
        self.check_version(id);
        let Some(lanes) = self.servers.get(&id).and_then(|server| server.lanes.as_ref()) else {
            return;
        };
        let checked = self.states.check(id, lanes.machine.kv(), self.checks.agreed());
        if let Err(violation) = checked {
            self.checks.fail(violation.check, violation.detail);
        }
    }

    /// What waits is within its bounds.
    fn check_bounds(&mut self, id: MemberId, lane: LaneId) {
        let Some(lanes) = self.servers.get(&id).and_then(|server| server.lanes.as_ref()) else {
            return;
        };
        let checked = match lane {
            LaneId::Node => bounded(
                "requests that wait",
                lanes.node.waiting_count(),
                self.config.waiting_count_max,
            ),
            LaneId::Machine => {
                let size = lanes.machine.kv().overlay_size_bytes();
                let most = self.config.overlay_size_bytes_max();
                self.sometimes.overlay_full += u64::from(most <= size);
                // A compaction is one entry, too, and may remove every record that there was.
                let revision = lanes.machine.kv().revision().0.unsigned_abs();
                let records = usize::try_from(revision).unwrap_or(usize::MAX);
                let effect =
                    ENTRY_EFFECT_SIZE_BYTES_MAX.max(records.saturating_mul(REMOVAL_SIZE_BYTES_MAX));
                bounded("bytes that are not settled", size, most + effect)
            }
            LaneId::Journal | LaneId::Table => Ok(()),
        };
        if let Err(detail) = checked {
            self.checks.fail(Check::QueuesAreBounded, format!("server {id}: {detail}"));
        }
    }

    pub(crate) fn schedule_wake(&mut self, id: MemberId, lane: LaneId) {
        let now = self.now;
        let server = self.server(id);
        let boot = server.boot;
        let Some(lanes) = server.lanes.as_mut() else {
            return;
        };
        let deadline = server.clock.world_at(lanes.deadline(lane));
        if deadline == Instant::NEVER {
            return;
        }
        let at = deadline.max(now + Duration::from_nanos(1));
        if lanes.wake_at.get(&lane).is_some_and(|planned| *planned <= at) {
            return;
        }
        lanes.wake_at.insert(lane, at);
        self.heap.push(at, Happening::Wake { server: id, boot, lane });
    }

    fn on_hop(&mut self, id: MemberId, cost: Duration, hop: Hop) {
        let delay = cost + HOP;
        match hop {
            Hop::Node(input) => self.deliver_to(id, delay, LaneIn::Node(input)),
            Hop::Journal(input) => self.deliver_to(id, delay, LaneIn::Journal(input)),
            Hop::Machine(input) => {
                if let MachineIn::Committed(entries) = &input {
                    let lanes = self.servers[&id].lanes.as_ref();
                    let term =
                        lanes.map_or(Term::ZERO, |lanes| lanes.node.raft().hard_state().term);
                    let (before, _) = self.checks.agreed_members();
                    self.checks.on_committed(id, term, entries);
                    self.on_members_agreed(before);
                    self.check_raises();
                }
                self.deliver_to(id, delay, LaneIn::Machine(input));
            }
            Hop::Table(input) => self.deliver_to(id, delay, LaneIn::Table(input)),
            Hop::Peer { to, lane, frame } => self.send_frame(id, to, lane, frame),
            Hop::Reply(reply) => self.send_reply(id, reply),
            Hop::Event(event) => self.on_event(id, &event),
            Hop::Members(membership) => self.on_members(id, &membership),
            Hop::Fatal(fatal) => self.on_fatal(id, &fatal),
        }
    }

    pub(crate) fn deliver_to(&mut self, server: MemberId, delay: Duration, input: LaneIn) {
        let boot = self.servers[&server].boot;
        self.after(delay, Happening::Deliver { server, boot, input });
    }

    fn on_fatal(&mut self, id: MemberId, fatal: &Fatal) {
        if let Fatal::Unsupported(said) = fatal {
            self.on_unsupported(id, *said);
            return;
        }
        if let Fatal::Removed { index } = fatal {
            self.on_removed(id, *index);
            return;
        }
        if self.survives(id, fatal) {
            self.sometimes.damage_met += 1;
            self.kill(id);
            self.after(RESTART_MIN, Happening::Restart { server: id });
            return;
        }
        if self.servers[&id].disk.has_failed() {
            self.stop_on_failure(id);
            return;
        }
        self.checks.fail(Check::Recovery, format!("server {id} gave up: {fatal}"));
    }

    fn on_event(&mut self, id: MemberId, event: &Event) {
        let node = Some(Endpoint::Server(id));
        let digest = digest(event);
        self.trace.record(self.now, node, "raft", digest, || format!("{event:?}"));
        self.sometimes.on_event(event);
        if let Event::BecameLeader { term } = event
            && let Some(lanes) = &self.servers[&id].lanes
        {
            let status = lanes.node.status();
            let last = (status.term == *term).then_some(status.last);
            self.checks.on_leader(id, *term, last);
        }
    }
}

/// One entry of the workload leaves no more than this in the overlay: a transaction of a few small
/// puts, what it replaces, and the result that its session keeps.
const ENTRY_EFFECT_SIZE_BYTES_MAX: usize = 16 << 10;

/// The removal of one record takes no more than this there.
const REMOVAL_SIZE_BYTES_MAX: usize = 512;

/// # Errors
/// In words, when there are more than there may be.
fn bounded(what: &str, count: usize, most: usize) -> Result<(), String> {
    if count <= most { Ok(()) } else { Err(format!("{count} {what}, {most} at most")) }
}

fn digest(event: &Event) -> u64 {
    let mut hash = crate::trace::TraceHash::EMPTY;
    hash.mix_bytes(format!("{event:?}").as_bytes());
    hash.value()
}

#[cfg(test)]
mod tests {
    use super::bounded;

    /// A queue may be full and not fuller.
    #[test]
    fn queue_over_its_bound_is_noticed() {
        assert_eq!(bounded("requests", 2, 2), Ok(()));
        assert_eq!(bounded("requests", 3, 2), Err("3 requests, 2 at most".to_owned()));
    }
}
