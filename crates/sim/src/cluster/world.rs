//! The seeded world: pop an event, move the clock, step a lane, deliver what it says, check.
//!
//! Invariants: one thread; every event is ordered by (time, number); nothing outside the seed, the
//! configuration and the plan has a say; the servers' code is the shipped one.

mod lanes;
mod peers;
mod processes;
mod requests;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{ClusterId, Instant, MemberId, Prng, Ticket};
use kvraft_raft::RoleName;
use kvraft_replica::Hop;

use peers::Links;

use super::{
    asks::Asks,
    checks::Checks,
    clients::{Attempt, Client, Told},
    config::ClusterConfig,
    office::{Office, OfficeNews},
    operator::{Operator, OperatorRequest, Wanted},
    recording::{Recording, Sent},
    rehearsal::Rehearsals,
    scenario::Scenario,
    server::{LaneId, LaneIn, Server, members},
    sometimes::Sometimes,
    states::States,
    syncing::Syncing,
    verdict::Evidence,
    violation::{Check, Violation},
};
use crate::{
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
pub(crate) const HOP: Duration = Duration::from_micros(2);

/// How long a closed connection takes to be noticed, at most.
pub(crate) const NOTICE_MAX: Duration = Duration::from_millis(5);

/// Who ended itself because of its disk is started again after this time at least.
pub(crate) const RESTART_MIN: Duration = Duration::from_millis(50);

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
    Frame { from: MemberId, to: MemberId, bytes: Bytes, sent: Sent },
    /// A frame arrives that is not what was sent.
    Damaged { from: MemberId, to: MemberId, bytes: Bytes, sent: Sent },
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
    /// A process that was asked to stop does.
    Stop { server: MemberId, boot: u64 },
    /// An operator may act.
    OperatorWake { operator: usize },
    /// An operator's request arrives at a server.
    OperatorAsks { request: OperatorRequest, server: MemberId, wanted: Wanted },
    /// An operator hears of a request.
    OperatorTold { request: OperatorRequest, told: Told },
    /// A new server is set up.
    SetUp { server: MemberId },
    /// An operator switches off a server that has left.
    Retire { server: MemberId },
    /// Between the coordinator and the servers.
    Office(OfficeNews),
    /// A server that comes and goes for ever does one or the other.
    Flap { server: MemberId },
    /// Who hears nothing from a peer notices.
    Silence,
    /// Look at slow things.
    Tick,
}

impl Happening {
    /// The link that it comes by, if it is a frame between servers.
    pub(crate) fn frame_link(&self) -> Option<(Endpoint, Endpoint)> {
        match self {
            Self::Frame { from, to, .. } | Self::Damaged { from, to, .. } => {
                Some((Endpoint::Server(*from), Endpoint::Server(*to)))
            }
            _ => None,
        }
    }

    /// It may change more than the state of one server and what is on its way.
    fn is_rare(&self) -> bool {
        match self {
            Self::Deliver { .. }
            | Self::Free { .. }
            | Self::Wake { .. }
            | Self::Frame { .. }
            | Self::ClientWake { .. }
            | Self::Request(_)
            | Self::Response { .. }
            | Self::Timeout { .. }
            | Self::Office(_)
            | Self::Cancel { .. } => false,
            Self::Damaged { .. }
            | Self::Fault(_)
            | Self::Restart { .. }
            | Self::Blow { .. }
            | Self::Stop { .. }
            | Self::OperatorWake { .. }
            | Self::OperatorAsks { .. }
            | Self::OperatorTold { .. }
            | Self::SetUp { .. }
            | Self::Retire { .. }
            | Self::Flap { .. }
            | Self::Silence
            | Self::Tick => true,
        }
    }
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
    links: Links,
    pub(crate) checks: Checks,
    states: States,
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
    /// Some server outside the core is reached by a part of the others.
    pub(crate) is_partial: bool,
    pub(crate) syncing: Syncing,
    pub(crate) plan: Plan,
    hops: Vec<Hop>,
    pub(crate) event_count: u64,
    /// The coordinator, if there is one.
    pub(crate) office: Option<Office>,
    pub(crate) operators: Vec<Operator>,
    pub(crate) asks: Asks,
    /// The greatest id that an operator has given out.
    pub(crate) id_given: MemberId,
    pub(crate) member_prng: Prng,
    pub(crate) disk_prng: Prng,
    /// Servers whose disk was hit.
    pub(crate) rotted: BTreeSet<MemberId>,
    /// Losses of power that are only tried.
    pub(crate) rehearsals: Rehearsals,
    /// What people will look at, if anybody does.
    pub(crate) recording: Option<Box<Recording>>,
    /// Those of them that are not known to be whole again.
    pub(crate) hurt: BTreeSet<MemberId>,
}

impl World {
    /// A cluster that has just been set up, with nobody started yet.
    ///
    /// # Errors
    /// When the scenario cannot be run.
    pub(crate) fn new(scenario: &Scenario) -> Result<Self, Violation> {
        let Scenario { seed, config, plan, .. } = scenario.clone();
        let root = Prng::new(seed);
        let client_prng = root.fork("sessions");
        let mut clients = BTreeMap::new();
        for client in plan.clients() {
            let seed = client_prng.fork(&format!("client {}", client.id)).next_u64();
            let made = Client::new(client, config.servers, seed);
            let made = made.map_err(|error| Violation::new(Check::PlanIsSound, error))?;
            clients.insert(client.id, made);
        }
        let mut world = Self {
            now: Instant::ZERO,
            heap: EventHeap::new(),
            clients,
            evidence: Evidence::default(),
            answers: BTreeMap::new(),
            network: Network::new(config.network),
            links: Links::default(),
            checks: Checks::default(),
            states: States::default(),
            servers: BTreeMap::new(),
            searched: None,
            trace: Trace::new(config.trace_line_count),
            sometimes: Sometimes::default(),
            net_prng: root.fork("network"),
            crash_prng: root.fork("crashes"),
            seed_prng: root.fork("timeouts"),
            healed: false,
            core: BTreeSet::new(),
            core_prng: root.fork("core"),
            is_partial: false,
            syncing: Syncing::default(),
            plan,
            hops: Vec::new(),
            event_count: 0,
            office: config.coordinator.then(|| Office::new(&config, &root)),
            operators: (0..config.operators).map(|id| Operator::new(id, &root)).collect(),
            asks: Asks::default(),
            id_given: MemberId::ZERO,
            member_prng: root.fork("members"),
            disk_prng: root.fork("disk costs"),
            rotted: BTreeSet::new(),
            rehearsals: Rehearsals::new(root.fork("rehearsals")),
            recording: None,
            hurt: BTreeSet::new(),
            config,
        };
        let membership = members(world.config.servers);
        for id in membership.voters() {
            world.format_server(*id, membership.clone())?;
        }
        Ok(world)
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
        if let Some(until) = self.idle_until(&happening) {
            self.heap.push(until, happening);
            return true;
        }
        let is_rare = happening.is_rare();
        self.record_step();
        match happening {
            Happening::Deliver { server, boot, input } => self.on_deliver(server, boot, input),
            Happening::Free { server, boot, lane } => self.on_free(server, boot, lane),
            Happening::Wake { server, boot, lane } => self.on_wake(server, boot, lane),
            Happening::Frame { from, to, bytes, sent } => self.on_frame(from, to, bytes, sent),
            Happening::Damaged { from, to, bytes, sent } => {
                self.on_damaged(from, to, &bytes, sent);
            }
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
            Happening::Stop { server, boot } => self.on_stop(server, boot),
            Happening::OperatorWake { operator } => self.on_operator_wake(operator),
            Happening::OperatorAsks { request, server, wanted } => {
                self.on_operator_asks(request, server, wanted);
            }
            Happening::OperatorTold { request, told } => self.on_operator_told(request, &told),
            Happening::SetUp { server } => self.on_set_up(server),
            Happening::Retire { server } => self.on_retire(server),
            Happening::Office(news) => self.on_office(news),
            Happening::Flap { server } => self.on_flap(server),
            Happening::Silence => self.on_silence(),
            Happening::Tick => self.on_tick(),
        }
        self.record_state(is_rare);
        true
    }

    pub(crate) fn server(&mut self, id: MemberId) -> &mut Server {
        self.servers.get_mut(&id).expect("only ids of this cluster are used")
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
