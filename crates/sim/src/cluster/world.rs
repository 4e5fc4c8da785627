//! The seeded world: pop an event, move the clock, step a lane, deliver what it says, check.
//!
//! Invariants: one thread; every event is ordered by (time, number); nothing outside the seed, the
//! configuration and the plan has a say; the servers' code is the shipped one.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{ClusterId, Index, Instant, MemberId, Position, Prng, Term, Ticket};
use kvraft_kv::{Command, Origin, SessionOp};
use kvraft_raft::{Event, Message, RoleName};
use kvraft_replica::{
    ClientRequest, Fatal, Frame, Hop, NodeIn, OpenOptions, Outcome, PeerLane, ReplicaError, Reply,
};
use kvraft_session::Stamp;
use kvraft_store::Identity;

use super::{
    checks::Checks,
    clients::{Attempt, Character, Client, Step, Told, answer_of},
    config::ClusterConfig,
    server::{LaneId, LaneIn, Server, members},
    sometimes::Sometimes,
    syncing::Syncing,
    verdict::{Evidence, Sent},
    violation::{Check, Violation},
    workload::{self, Wish},
};
use crate::{
    disk::{CrashPolicy, SimDisk},
    heap::EventHeap,
    history::OpName,
    judge::Searched,
    network::{Endpoint, Network},
    plan::Plan,
    trace::Trace,
};

/// All simulated servers are of this cluster.
pub(crate) const CLUSTER: ClusterId = ClusterId(0x5eed);

/// A hop between two lanes of a server.
const HOP: Duration = Duration::from_micros(2);

/// How long a closed connection takes to be noticed, at most.
const NOTICE_MAX: Duration = Duration::from_millis(5);

/// Who ended itself because of its disk is started again after this time at least.
const RESTART_MIN: Duration = Duration::from_millis(50);

/// What can happen.
#[derive(Debug)]
pub(crate) enum Happening {
    /// Input arrives at a lane.
    Deliver { server: MemberId, boot: u64, input: LaneIn },
    /// A lane has paid for its last step.
    Free { server: MemberId, boot: u64, lane: LaneId },
    /// A lane's deadline has come, if it still stands.
    Wake { server: MemberId, boot: u64, lane: LaneId },
    /// A frame arrives.
    Frame { from: MemberId, to: MemberId, bytes: Bytes },
    /// A frame arrives that is not what was sent.
    Damaged { from: MemberId, to: MemberId, bytes: Bytes },
    /// A client may act.
    ClientWake { client: u64 },
    /// An attempt arrives at its server.
    Request(Attempt),
    /// A client hears of an attempt.
    Response { client: u64, attempt: u64, told: Told },
    /// A server hears that a client has stopped waiting.
    Cancel { server: MemberId, boot: u64, ticket: Ticket },
    /// A client's patience ends.
    Timeout { client: u64, attempt: u64 },
    /// An item of the plan.
    Fault(usize),
    /// A crashed server comes back.
    Restart { server: MemberId },
    /// A fuse that has not blown: power is lost now.
    Blow { server: MemberId, boot: u64 },
    /// Look at slow things.
    Tick,
}

/// Everything there is.
pub(crate) struct World {
    pub(crate) config: ClusterConfig,
    pub(crate) now: Instant,
    pub(crate) heap: EventHeap<Happening>,
    pub(crate) servers: BTreeMap<MemberId, Server>,
    pub(crate) clients: BTreeMap<u64, Client>,
    pub(crate) evidence: Evidence,
    /// The first answer to each change: a second one must be the same.
    answers: BTreeMap<OpName, Bytes>,
    pub(crate) network: Network,
    pub(crate) checks: Checks,
    pub(crate) searched: Option<Searched>,
    pub(crate) trace: Trace,
    pub(crate) sometimes: Sometimes,
    pub(crate) net_prng: Prng,
    pub(crate) crash_prng: Prng,
    pub(crate) seed_prng: Prng,
    pub(crate) healed: bool,
    /// In the second phase: who must make progress.
    pub(crate) core: BTreeSet<MemberId>,
    pub(crate) core_prng: Prng,
    pub(crate) syncing: Syncing,
    pub(crate) plan: Plan,
    hops: Vec<Hop>,
    pub(crate) event_count: u64,
    /// Servers that had a bit flipped on their disk.
    pub(crate) rotted: BTreeSet<MemberId>,
}

impl World {
    /// A cluster that has just been set up, with nobody started yet.
    pub(crate) fn new(config: ClusterConfig, seed: u64, plan: Plan) -> Result<Self, Violation> {
        let root = Prng::new(seed);
        let mut servers = BTreeMap::new();
        let mut disk_prng = root.fork("disk costs");
        let membership = members(config.servers);
        for id in membership.voters().iter().copied() {
            let costs = config.disk_costs(&mut disk_prng);
            let server = Server::new(id, SimDisk::new(&format!("s{id}"), costs));
            let identity = Identity { cluster: CLUSTER, member: id, members: membership.clone() };
            server.format(&identity).map_err(|e| Violation::new(Check::Recovery, e))?;
            servers.insert(id, server);
        }
        let client_prng = root.fork("clients");
        let mut budget_prng = root.fork("budgets");
        let clients = (1..=config.clients).map(|id| {
            let server = MemberId((id - 1) % config.servers + 1);
            let budget = budget_prng.between(1, config.ops_max);
            let (servers, workload) = (config.servers, config.workload);
            let patience_min = config.election_timeout;
            let character = Character { id, home: server, servers, budget, workload, patience_min };
            (id, Client::new(character, &client_prng))
        });
        Ok(Self {
            now: Instant::ZERO,
            heap: EventHeap::new(),
            clients: clients.collect(),
            evidence: Evidence::default(),
            answers: BTreeMap::new(),
            network: Network::new(config.network),
            checks: Checks::new(servers.keys().copied()),
            servers,
            searched: None,
            trace: Trace::new(config.trace_line_count),
            sometimes: Sometimes::default(),
            net_prng: root.fork("network"),
            crash_prng: root.fork("crashes"),
            seed_prng: root.fork("timeouts"),
            healed: false,
            core: BTreeSet::new(),
            core_prng: root.fork("core"),
            syncing: Syncing::default(),
            plan,
            hops: Vec::new(),
            event_count: 0,
            rotted: BTreeSet::new(),
            config,
        })
    }

    pub(crate) fn after(&mut self, delay: Duration, happening: Happening) {
        self.heap.push(self.now + delay, happening);
    }

    /// Handles the next event. False when there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some((at, happening)) = self.heap.pop() else {
            return false;
        };
        assert!(self.now <= at, "time never goes back");
        self.now = at;
        self.event_count += 1;
        match happening {
            Happening::Deliver { server, boot, input } => self.on_deliver(server, boot, input),
            Happening::Free { server, boot, lane } => self.on_free(server, boot, lane),
            Happening::Wake { server, boot, lane } => self.on_wake(server, boot, lane),
            Happening::Frame { from, to, bytes } => self.on_frame(from, to, bytes),
            Happening::Damaged { from, to, bytes } => self.on_damaged(from, to, &bytes),
            Happening::ClientWake { client } => self.on_client_wake(client),
            Happening::Request(attempt) => self.on_request(attempt),
            Happening::Response { client, attempt, told } => {
                self.on_response(client, attempt, &told);
            }
            Happening::Timeout { client, attempt } => self.on_timeout(client, attempt),
            Happening::Cancel { server, boot, ticket } => self.on_cancel(server, boot, ticket),
            Happening::Fault(item) => self.on_fault(item),
            Happening::Restart { server } => self.start(server),
            Happening::Blow { server, boot } => {
                if self.servers[&server].boot == boot && !self.healed {
                    self.crash(server);
                }
            }
            Happening::Tick => self.on_tick(),
        }
        true
    }

    pub(crate) fn server(&mut self, id: MemberId) -> &mut Server {
        self.servers.get_mut(&id).expect("only ids of this cluster are used")
    }

    // Lanes.

    fn on_deliver(&mut self, id: MemberId, boot: u64, input: LaneIn) {
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

    fn on_free(&mut self, id: MemberId, boot: u64, lane: LaneId) {
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

    fn on_wake(&mut self, id: MemberId, boot: u64, lane: LaneId) {
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
        let mut hops = std::mem::take(&mut self.hops);
        let server = self.server(id);
        let clock = server.now(now);
        let lanes = server.lanes.as_mut().expect("only running servers step");
        let synced = lanes.step(lane, clock, &mut hops);
        let cost = server.disk.take_cost();
        let blown = server.disk.is_fuse_blown();
        for write in &synced.writes {
            self.checks.mirror(id).on_synced(write);
        }
        if let Some(position) = synced.reset {
            self.checks.mirror(id).on_reset(position);
        }
        if blown {
            hops.clear();
            self.hops = hops;
            self.sometimes.fuse_blown += 1;
            self.crash(id);
            return;
        }
        self.check_turn(id, lane);
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

    fn check_turn(&mut self, id: MemberId, lane: LaneId) {
        if lane != LaneId::Node {
            return;
        }
        let Some(lanes) = self.servers.get(&id).and_then(|server| server.lanes.as_ref()) else {
            return;
        };
        let raft = lanes.node.raft();
        let status = raft.status();
        let term_at_commit = raft.term_at(status.commit);
        self.checks.on_turn(&status, term_at_commit);
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
                if let kvraft_replica::MachineIn::Committed(entries) = &input {
                    let lanes = self.servers[&id].lanes.as_ref();
                    let term =
                        lanes.map_or(Term::ZERO, |lanes| lanes.node.raft().hard_state().term);
                    self.checks.on_committed(id, term, entries);
                }
                self.deliver_to(id, delay, LaneIn::Machine(input));
            }
            Hop::Table(input) => self.deliver_to(id, delay, LaneIn::Table(input)),
            Hop::Peer { to, lane, frame } => self.send_frame(id, to, lane, frame),
            Hop::Reply(reply) => self.send_reply(id, reply),
            Hop::Event(event) => self.on_event(id, &event),
            // Checkers look at raft itself.
            Hop::Members(_) => {}
            Hop::Fatal(fatal) => self.on_fatal(id, &fatal),
        }
    }

    fn deliver_to(&mut self, server: MemberId, delay: Duration, input: LaneIn) {
        let boot = self.servers[&server].boot;
        self.after(delay, Happening::Deliver { server, boot, input });
    }

    fn on_fatal(&mut self, id: MemberId, fatal: &Fatal) {
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
            // It may have lost its leadership again in the same turn, and a part of its log with
            // it.
            let last = if status.term == *term {
                status.last
            } else {
                Position::new(Term(u64::MAX), Index(u64::MAX))
            };
            self.checks.on_leader(id, *term, last);
        }
    }

    // Peers.

    fn send_frame(&mut self, from: MemberId, to: MemberId, lane: PeerLane, bytes: Bytes) {
        let decoded = Frame::decode(bytes.clone());
        let single = match &decoded {
            Ok(Frame::Raft(messages)) => {
                for message in messages {
                    self.note_message(from, message);
                }
                false
            }
            // One connection delivers a frame once, and these are the kinds that rely on it; the
            // others are repeated all the same, since their rules must hold even then.
            Ok(Frame::Forward { .. } | Frame::ForwardChange { .. }) => true,
            Ok(
                Frame::ForwardRefused { .. }
                | Frame::ChangeDone { .. }
                | Frame::ForwardLost { .. }
                | Frame::SnapshotChunk(_)
                | Frame::SnapshotTaken { .. }
                | Frame::SnapshotUnknown { .. },
            ) => false,
            Err(error) => {
                self.checks.fail(
                    Check::NoPanic,
                    format!("server {from} sent what cannot be decoded: {error}"),
                );
                return;
            }
        };
        let ends = (Endpoint::Server(from), Endpoint::Server(to));
        let prng = &mut self.net_prng;
        let connection = match lane {
            PeerLane::Control => 0,
            PeerLane::Bulk => 1,
        };
        let mut arrivals =
            self.network.send_on(connection, self.now, ends.0, ends.1, bytes.len(), prng);
        if single {
            arrivals.truncate(1);
        }
        for at in arrivals {
            if self.network.draw_damage(&mut self.net_prng) {
                self.heap.push(at, Happening::Damaged { from, to, bytes: bytes.clone() });
            } else {
                self.heap.push(at, Happening::Frame { from, to, bytes: bytes.clone() });
            }
        }
    }

    /// A frame arrives with flipped bits or cut short. The connection's checksum catches it, and
    /// the connection is made anew: what else was on it may be lost, which is drawn apart. What the
    /// checksum would not catch must still not bring a server down.
    fn on_damaged(&mut self, from: MemberId, to: MemberId, bytes: &Bytes) {
        if !self.network.is_open(Endpoint::Server(from), Endpoint::Server(to)) {
            return;
        }
        self.sometimes.damaged_frames += 1;
        let sealed = kvraft_base::checksum_seeded(self.event_count, bytes);
        let mut damaged = bytes.to_vec();
        if self.net_prng.chance(1, 4) {
            let left = self.net_prng.below(damaged.len() as u64);
            damaged.truncate(usize::try_from(left).expect("below a length"));
        } else {
            for _ in 0..self.net_prng.between(1, 3) {
                let bit = usize::try_from(self.net_prng.below(damaged.len() as u64 * 8));
                let bit = bit.expect("below a length");
                damaged[bit / 8] ^= 1 << (bit % 8);
            }
        }
        let _whatever_it_says = Frame::decode(Bytes::from(damaged.clone()));
        let is_whole = damaged == *bytes;
        let is_caught = kvraft_base::checksum_seeded(self.event_count, &damaged) != sealed;
        if !is_whole && !is_caught {
            let detail = format!("a frame from {from} to {to} was damaged, its checksum fits");
            self.checks.fail(Check::DamageIsCaught, detail);
        }
        for (at, peer) in [(from, to), (to, from)] {
            if self.servers[&at].is_up() {
                self.deliver_to(at, HOP, LaneIn::Node(NodeIn::Disconnected(peer)));
                let delay = self.net_prng.duration(HOP * 2, NOTICE_MAX * 10);
                self.deliver_to(at, delay, LaneIn::Node(NodeIn::Connected(peer)));
            }
        }
    }

    fn note_message(&mut self, from: MemberId, message: &Message) {
        self.checks.on_message(message);
        let node = Some(Endpoint::Server(from));
        let digest = message.term.0 ^ (message.to.0 << 48);
        let name = message.body.name();
        self.trace.record(self.now, node, name, digest, || {
            format!("to s{} term {} {:?}", message.to, message.term, message.body)
        });
    }

    fn on_frame(&mut self, from: MemberId, to: MemberId, frame: Bytes) {
        if !self.network.is_open(Endpoint::Server(from), Endpoint::Server(to)) {
            return;
        }
        let boot = self.servers[&to].boot;
        self.on_deliver(to, boot, LaneIn::Node(NodeIn::Frame { from, frame }));
    }

    /// Tells the peers of a server that its connections came up or went down.
    pub(crate) fn notify_peers(&mut self, id: MemberId, up: bool) {
        let peers: Vec<MemberId> = self.servers.keys().copied().filter(|p| *p != id).collect();
        for peer in peers {
            let open = self.network.is_open(Endpoint::Server(id), Endpoint::Server(peer));
            if !open || !self.servers[&peer].is_up() {
                continue;
            }
            let delay = self.net_prng.duration(Duration::ZERO, NOTICE_MAX);
            let notice = if up { NodeIn::Connected(id) } else { NodeIn::Disconnected(id) };
            self.deliver_to(peer, delay, LaneIn::Node(notice));
            if up {
                self.deliver_to(id, delay, LaneIn::Node(NodeIn::Connected(peer)));
            }
        }
    }

    // Processes.

    fn open_options(&mut self, id: MemberId, incarnation: u64) -> OpenOptions {
        let seed = self.seed_prng.next_u64();
        self.config.open_options(id, CLUSTER, incarnation, seed)
    }

    /// Starts a server that is down.
    pub(crate) fn start(&mut self, id: MemberId) {
        if self.servers[&id].is_up() {
            return;
        }
        let incarnation = self.servers[&id].boot + 1;
        let options = self.open_options(id, incarnation);
        let now = self.now;
        let server = self.server(id);
        let started = server.start(options, server.now(now));
        let cost = self.server(id).disk.take_cost();
        let node = Some(Endpoint::Server(id));
        self.trace
            .record(self.now, node, "start", incarnation, || format!("{:?}", started.is_ok()));
        let rotted = self.rotted.contains(&id);
        match started {
            Ok(found) => {
                let recovered = self.checks.mirror(id).on_recovered(
                    found.hard_state,
                    found.applied,
                    &found.tail,
                    found.last,
                    found.muted && rotted,
                );
                self.sometimes.on_notes(&found.notes);
                if let Err(detail) = recovered {
                    self.checks.fail(Check::SyncedSurvives, format!("server {id}: {detail}"));
                }
                self.notify_peers(id, true);
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
        self.checks.fail(Check::Recovery, format!("server {id} cannot start: {error}"));
    }

    /// A disk has failed as it was told to, and the process has ended itself as it must. What was
    /// not synced may be lost now: nobody knows what a failed sync leaves in the page cache.
    fn stop_on_failure(&mut self, id: MemberId) {
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "stop", id.0, || "its disk has failed".to_owned());
        self.sometimes.disk_failures += 1;
        let was_up = self.servers[&id].is_up();
        if self.crash_prng.chance(1, 2) {
            self.lose_power(id);
        } else {
            self.servers[&id].disk.sever();
            self.end_process(id);
        }
        if was_up {
            self.checks.on_crash(id);
            self.notify_peers(id, false);
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
        self.lose_power(id);
        self.checks.on_crash(id);
        self.notify_peers(id, false);
    }

    /// Ends a server's process; the machine keeps its power, so nothing written is lost.
    pub(crate) fn kill(&mut self, id: MemberId) {
        if !self.servers[&id].is_up() {
            return;
        }
        let node = Some(Endpoint::Server(id));
        self.trace.record(self.now, node, "kill", id.0, String::new);
        self.sometimes.kills += 1;
        self.servers[&id].disk.sever();
        self.end_process(id);
        self.checks.on_crash(id);
        self.notify_peers(id, false);
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
        server.disk = server.disk.reboot();
        // What a dead process spent is nobody's.
        let _: Duration = server.disk.take_cost();
        for (client, attempt) in broken {
            let delay = self.net_prng.duration(Duration::ZERO, NOTICE_MAX);
            self.after(delay, Happening::Response { client, attempt, told: Told::Nothing });
        }
    }

    // Clients.

    fn on_client_wake(&mut self, id: u64) {
        let now = self.now;
        let client = self.clients.get_mut(&id).expect("only clients of this run are used");
        let Some(attempt) = client.wake(now, &mut self.evidence.history) else {
            return;
        };
        let happening = Happening::Timeout { client: id, attempt: attempt.number };
        self.heap.push(attempt.deadline, happening);
        let ends = (Endpoint::Client(id), Endpoint::Server(attempt.server));
        let prng = &mut self.net_prng;
        for at in self.network.send(self.now, ends.0, ends.1, 100, prng) {
            self.heap.push(at, Happening::Request(attempt.clone()));
        }
    }

    fn on_request(&mut self, attempt: Attempt) {
        let Attempt { client, number, name, server: id, .. } = attempt;
        if !self.network.is_open(Endpoint::Client(client), Endpoint::Server(id)) {
            return;
        }
        let now = self.now;
        let server = self.server(id);
        let wall_ms = server.clock.wall_ms(now);
        if !server.is_up() {
            let told = Told::NotConnected;
            self.after(NOTICE_MAX, Happening::Response { client, attempt: number, told });
            return;
        }
        let ticket = server.ticket((client, number, name));
        let boot = server.boot;
        let node = Some(Endpoint::Client(client));
        self.trace.record(self.now, node, "request", ticket.0, || {
            format!("to s{id} ticket {ticket} {:?} {:?}", attempt.wish, attempt.stamp)
        });
        let origin = Origin { member: id, incarnation: boot, ticket };
        self.evidence.sent.insert((id, boot, ticket), Sent { name, failed: false });
        let request = request_of(&attempt, origin, wall_ms);
        self.deliver_to(id, HOP, LaneIn::Node(NodeIn::Client { ticket, request }));
    }

    fn send_reply(&mut self, id: MemberId, reply: Reply) {
        let boot = self.servers[&id].boot;
        let Some((client, attempt, name)) = self.server(id).tickets.remove(&reply.ticket) else {
            // Machine and node answer apart: one may give up while the other has the answer on its
            // way. Two answers that both claim to know would be one too many.
            let is_known = !matches!(reply.outcome, Outcome::Unknown(_));
            if is_known && !self.servers[&id].released.contains(&reply.ticket) {
                let detail = format!("server {id} answers ticket {} again", reply.ticket);
                self.checks.fail(Check::ExactlyOnce, detail);
            }
            return;
        };
        let node = Some(Endpoint::Server(id));
        let digest = reply.ticket.0 ^ reply.index.0 << 20;
        self.trace.record(self.now, node, "reply", digest, || {
            format!("to c{client} ticket {} {:?}", reply.ticket, reply.outcome)
        });
        match reply.outcome {
            Outcome::Done(_)
            | Outcome::Answered(_)
            | Outcome::Changed(_)
            | Outcome::Transferred(_) => {}
            // The machine may have the answer on its way while the node gives up.
            Outcome::Unknown(_) => {
                self.server(id).released.insert(reply.ticket);
            }
            Outcome::Failed(_) => {
                let sent = self.evidence.sent.get_mut(&(id, boot, reply.ticket));
                sent.expect("every ticket was sent").failed = true;
            }
        }
        self.check_answer(name, &reply);
        let ends = (Endpoint::Server(id), Endpoint::Client(client));
        let prng = &mut self.net_prng;
        for at in self.network.send(self.now, ends.0, ends.1, 100, prng) {
            let told = Told::Reply(reply.clone());
            self.heap.push(at, Happening::Response { client, attempt, told });
        }
    }

    /// However often a numbered change is sent, and by whom ever it is answered, the answer is one.
    fn check_answer(&mut self, name: OpName, reply: &Reply) {
        let is_opening =
            matches!(reply.outcome, Outcome::Done(Ok(kvraft_kv::Response::SessionOpened { .. })));
        let Some(answer) = answer_of(reply).filter(|_| !is_opening) else {
            return;
        };
        let first = self.answers.entry(name).or_insert_with(|| answer.clone());
        if *first == answer {
            return;
        }
        let detail = format!("{name:?} was answered {first:?} and then {answer:?}");
        self.checks.fail(Check::ExactlyOnce, detail);
    }

    fn on_timeout(&mut self, id: u64, number: u64) {
        let waits = self.clients.get(&id).is_some_and(|client| client.waits_for(number));
        if !waits {
            return;
        }
        let waited = self.servers.values().find_map(|server| {
            let found = server.tickets.iter().find(|(_, (c, n, _))| (*c, *n) == (id, number));
            found.map(|(ticket, _)| (server.id, server.boot, *ticket))
        });
        if let Some((server, boot, ticket)) = waited {
            // The stream is closed; if that gets through, the server drops what it can.
            let ends = (Endpoint::Client(id), Endpoint::Server(server));
            for at in self.network.send(self.now, ends.0, ends.1, 0, &mut self.net_prng) {
                self.heap.push(at, Happening::Cancel { server, boot, ticket });
            }
        }
        self.on_response(id, number, &Told::Nothing);
    }

    fn on_cancel(&mut self, id: MemberId, boot: u64, ticket: Ticket) {
        let server = self.server(id);
        if server.boot == boot && server.tickets.remove(&ticket).is_some() {
            server.released.insert(ticket);
            self.sometimes.cancelled += 1;
            self.on_deliver(id, boot, LaneIn::Node(NodeIn::Cancel(ticket)));
        }
    }

    fn on_response(&mut self, id: u64, attempt: u64, told: &Told) {
        let now = self.now;
        let client = self.clients.get_mut(&id).expect("only clients of this run are used");
        let Evidence { history, opened, .. } = &mut self.evidence;
        match client.on_told(now, attempt, told, history, opened) {
            Step::Stale => {}
            Step::Again(at) => {
                self.sometimes.repeated += 1;
                self.heap.push(at.max(now), Happening::ClientWake { client: id });
            }
            Step::Ended => {
                let pause = client.pause();
                self.after(pause, Happening::ClientWake { client: id });
            }
        }
    }

    /// Who leads, among servers that are up, in the highest term.
    pub(crate) fn leader(&self) -> Option<MemberId> {
        let statuses = self
            .servers
            .values()
            .filter_map(|server| server.lanes.as_ref().map(|lanes| lanes.node.status()));
        let leaders = statuses.filter(|status| status.role == RoleName::Leader);
        leaders.max_by_key(|status| status.term).map(|status| status.id)
    }
}

fn request_of(attempt: &Attempt, origin: Origin, wall_ms: u64) -> ClientRequest {
    if let Wish::Do(operation) = &attempt.wish
        && !operation.may_write()
    {
        let (query, linearizable) = workload::query(operation);
        return ClientRequest::Query { query, linearizable };
    }
    let mut command = Command::new(origin, wall_ms, workload::request(&attempt.wish));
    command.session =
        attempt.stamp.map(|Stamp { client, op, acked }| SessionOp { client, op, acked });
    ClientRequest::Propose(command.encode())
}

fn digest(event: &Event) -> u64 {
    let mut hash = crate::trace::TraceHash::EMPTY;
    hash.mix_bytes(format!("{event:?}").as_bytes());
    hash.value()
}
