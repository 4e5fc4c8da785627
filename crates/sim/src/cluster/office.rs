//! A coordinator in the seeded world: it watches the servers and hints who should lead, and what
//! can go wrong with it does. It crashes, stands still, is cut off, is late, and lies.
//!
//! Invariants:
//! - nothing that a server does waits for it;
//! - it stays as broken as the plan has left it, for all of the run: progress and agreement must
//!   not need it. Its lies are what every hint may be.
//!
//! What it lacks: clients who ask it for the leader, and the first gathering of a cluster: servers
//! come with their data.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{Instant, MemberId, Prng, Term};
use kvraft_coord::{
    Candidate, Coordinator, Event, Hello, Input, LinkId, Output, Report, Settings, ToCoordinator,
    ToServer,
};
use kvraft_raft::{Body, RoleName};
use kvraft_replica::{Frame, NodeIn};

use super::{
    config::ClusterConfig,
    server::{LaneId, LaneIn},
    violation::Check,
    world::{CLUSTER, Happening, World},
};
use crate::{network::Endpoint, plan::CoordinatorFault};

/// What happens between the coordinator and the servers.
#[derive(Debug)]
pub(crate) enum OfficeNews {
    /// Servers report.
    Reports,
    /// The coordinator looks at its clock.
    Tick,
    /// Something reaches the coordinator, if it still lives this life.
    Hears { boot: u64, input: Input },
    /// Something reaches a server, if it still lives that life.
    Says { server: MemberId, boot: u64, message: ToServer },
}

/// The coordinator, and what is wrong with it.
pub(crate) struct Office {
    coordinator: Coordinator,
    settings: Settings,
    /// Counts its lives.
    boot: u64,
    is_up: bool,
    is_paused: bool,
    is_lying: bool,
    /// From whom it is cut off.
    cut: BTreeSet<MemberId>,
    /// How much longer everything takes.
    late: Duration,
    /// Connections, each with the server's life.
    links: BTreeMap<MemberId, (LinkId, u64)>,
    link_next: u64,
    /// From which leader a server has heard last, in which term, and when on its own clock: as
    /// frames arrived, whatever the server made of them.
    heard: BTreeMap<MemberId, (MemberId, Term, Instant)>,
    /// What has come while it stood still: of each connection the last report only.
    waiting: Vec<Input>,
    /// When the last of what was sent so far arrives: connections keep the order.
    arrived: Instant,
    prng: Prng,
}

/// Heartbeats that a leader may miss before anybody believes that it is gone.
const HEARTBEATS_MISSED_MAX: u32 = 3;

/// News of a connection are with consensus after this time.
const NEWS_SETTLED: Duration = Duration::from_millis(1);

/// How a server stands towards its leader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stance {
    role: RoleName,
    term: Term,
    deadline: Instant,
}

impl Office {
    pub(crate) fn new(config: &ClusterConfig, root: &Prng) -> Self {
        let settings = Settings {
            num_servers: usize::try_from(config.servers).expect("at most seven"),
            lost_msgs_thresh: 3,
            report_interval: config.heartbeat_interval,
            token: String::new(),
        };
        Self {
            coordinator: Coordinator::new(settings.clone()),
            settings,
            boot: 1,
            is_up: true,
            is_paused: false,
            is_lying: false,
            cut: BTreeSet::new(),
            late: Duration::ZERO,
            links: BTreeMap::new(),
            link_next: 1,
            heard: BTreeMap::new(),
            waiting: Vec::new(),
            arrived: Instant::ZERO,
            prng: root.fork("coordinator"),
        }
    }

    /// A server makes a connection, and says who it is.
    fn connect(&mut self, id: MemberId, boot: u64) -> (LinkId, Hello) {
        let link = LinkId(self.link_next);
        self.link_next += 1;
        self.links.insert(id, (link, boot));
        let (member, cluster) = (Some(id.0), Some(CLUSTER.0));
        (link, Hello { member, cluster, ..Hello::default() })
    }

    fn crash(&mut self) {
        self.is_up = false;
        self.is_paused = false;
        self.waiting.clear();
        self.links.clear();
    }

    /// Keeps what comes while it stands still.
    fn keep(&mut self, input: Input) {
        if let Input::Message(link, ToCoordinator::Report(_)) = &input {
            let is_older = |it: &Input| matches!(it, Input::Message(of, ToCoordinator::Report(_)) if of == link);
            self.waiting.retain(|it| !is_older(it));
        }
        if input != Input::Tick {
            self.waiting.push(input);
        }
    }

    /// It knows nobody then: servers come again.
    fn restart(&mut self) {
        if !std::mem::replace(&mut self.is_up, true) {
            self.boot += 1;
            self.coordinator = Coordinator::new(self.settings.clone());
        }
    }
}

impl World {
    /// The coordinator begins its work, if there is one.
    pub(crate) fn open_office(&mut self) {
        if self.office.is_some() {
            self.after(Duration::ZERO, Happening::Office(OfficeNews::Reports));
            self.after(Duration::ZERO, Happening::Office(OfficeNews::Tick));
        }
    }

    pub(crate) fn on_office(&mut self, news: OfficeNews) {
        match news {
            OfficeNews::Reports => {
                self.report_all();
                let again = self.config.heartbeat_interval;
                self.after(again, Happening::Office(OfficeNews::Reports));
            }
            OfficeNews::Tick => {
                self.on_office_input(Input::Tick);
                self.lie();
                let again = (self.config.heartbeat_interval / 4).max(Duration::from_millis(1));
                self.after(again, Happening::Office(OfficeNews::Tick));
            }
            OfficeNews::Hears { boot, input } => {
                if self.office.as_ref().is_some_and(|office| office.boot == boot) {
                    self.on_office_input(input);
                }
            }
            OfficeNews::Says { server, boot, message } => {
                self.on_said(server, boot, &message);
            }
        }
    }

    /// Every server that can says how it is; connections that have ended are noticed.
    fn report_all(&mut self) {
        let Some(mut office) = self.office.take() else { return };
        let mut said = Vec::new();
        for server in self.servers.values() {
            let id = server.id;
            if let Some((link, boot)) = office.links.get(&id).copied()
                && (!server.is_up() || server.boot != boot)
            {
                office.links.remove(&id);
                said.push(Input::Closed(link));
            }
            let is_silent = server.paused || !office.is_up || !self.is_in_touch(&office, id);
            let Some(report) = self.report_of(id).filter(|_| !is_silent) else { continue };
            let link = office.links.get(&id).map(|(link, _)| *link).unwrap_or_else(|| {
                let (link, hello) = office.connect(id, server.boot);
                said.push(Input::Message(link, ToCoordinator::Join(hello)));
                link
            });
            said.push(Input::Message(link, ToCoordinator::Report(report)));
        }
        self.send_to_office(&mut office, said);
        self.office = Some(office);
    }

    /// Nothing arrives before what was said earlier.
    fn send_to_office(&mut self, office: &mut Office, said: Vec<Input>) {
        let arrives = (self.now + self.office_delay(office)).max(office.arrived);
        office.arrived = arrives;
        let (boot, delay) = (office.boot, arrives.since(self.now));
        for input in said {
            self.after(delay, Happening::Office(OfficeNews::Hears { boot, input }));
        }
    }

    fn is_in_touch(&self, office: &Office, id: MemberId) -> bool {
        !office.cut.contains(&id) && !self.network.is_offline(Endpoint::Server(id))
    }

    /// As long as a frame on a link that carries little, and what the plan adds.
    fn office_delay(&self, office: &mut Office) -> Duration {
        let network = &self.config.network;
        let extra = office.prng.duration(Duration::ZERO, network.delay_extra_mean * 2);
        network.delay_min + extra + office.late
    }

    fn report_of(&self, id: MemberId) -> Option<Report> {
        let status = self.servers[&id].lanes.as_ref()?.node.status();
        Some(Report {
            term: status.term.0,
            leads: status.role == RoleName::Leader,
            leader: status.leader.map(|leader| leader.0),
            last: Candidate { term: status.last.term.0, index: status.last.index.0 },
        })
    }

    fn on_office_input(&mut self, input: Input) {
        let now = self.now;
        let Some(office) = self.office.as_mut().filter(|office| office.is_up) else { return };
        if office.is_paused {
            return office.keep(input);
        }
        let mut out = Vec::new();
        office.coordinator.step(now, input, &mut out);
        for output in out {
            match output {
                Output::Server(link, message) => self.office_says(link, message),
                Output::Client(..) => {}
                Output::Close(link) => {
                    let office = self.office.as_mut().expect("it has just spoken");
                    office.links.retain(|_, (known, _)| *known != link);
                }
                Output::Event(event) => self.on_office_event(&event),
            }
        }
    }

    fn office_says(&mut self, link: LinkId, message: ToServer) {
        let Some(mut office) = self.office.take() else { return };
        let to = office.links.iter().find(|(_, (known, _))| *known == link);
        let to = to.map(|(id, (_, boot))| (*id, *boot));
        if let Some((server, boot)) = to.filter(|(id, _)| self.is_in_touch(&office, *id)) {
            let delay = self.office_delay(&mut office);
            self.after(delay, Happening::Office(OfficeNews::Says { server, boot, message }));
        }
        self.office = Some(office);
    }

    fn on_office_event(&mut self, event: &Event) {
        let text = match event {
            Event::ServerFailed(id) => format!("server {id} has failed"),
            Event::ClusterView(view) => format!("alive are {view:?}"),
            Event::NewLeader(id) => format!("server {id} leads"),
            Event::Hinted { server, failed, .. } => {
                self.sometimes.hints += 1;
                format!("server {server} is told that {failed} is dead")
            }
            _ => return,
        };
        let mut digest = crate::trace::TraceHash::EMPTY;
        digest.mix_bytes(text.as_bytes());
        if let Some(recording) = &mut self.recording {
            recording.on_coordinator(self.now, office_kind(event), text.clone());
        }
        self.trace.record(self.now, None, "coordinator", digest.value(), || text);
    }

    fn on_said(&mut self, id: MemberId, boot: u64, message: &ToServer) {
        if self.servers[&id].boot != boot || !self.servers[&id].is_up() {
            return;
        }
        match message {
            ToServer::LeaderLost { .. } => self.on_hint(id, boot),
            ToServer::GetLogState {} if !self.servers[&id].paused => self.tell_log_state(id),
            _ => {}
        }
    }

    fn tell_log_state(&mut self, id: MemberId) {
        let Some(report) = self.report_of(id) else { return };
        let Some(mut office) = self.office.take() else { return };
        let link = office.links.get(&id).map(|(link, _)| *link);
        if let Some(link) = link.filter(|_| self.is_in_touch(&office, id)) {
            let input = Input::Message(link, ToCoordinator::LogState(report));
            self.send_to_office(&mut office, vec![input]);
        }
        self.office = Some(office);
    }

    /// Somebody says that the leader is dead. Whoever hears it must not move, and nobody may move
    /// further than to ask whether it would be elected.
    fn on_hint(&mut self, id: MemberId, boot: u64) {
        let before = self.stance(id);
        let hears = self.hears_leader(id);
        self.on_deliver(id, boot, LaneIn::Node(NodeIn::LeaderSuspected));
        let (Some(before), Some(after)) = (before, self.stance(id)) else { return };
        let is_alone = self.checks.agreed_members().1.voters().len() == 1;
        if self.servers[&id].boot != boot || is_alone {
            return;
        }
        self.sometimes.hints_ignored += u64::from(hears);
        self.sometimes.hints_followed += u64::from(before != after);
        let is_elected = matches!(after.role, RoleName::Candidate | RoleName::Leader);
        let has_campaigned = after.term != before.term || (is_elected && after.role != before.role);
        let has_moved = hears && before != after;
        if has_campaigned || has_moved {
            let detail = format!("a hint moved server {id} from {before:?} to {after:?}");
            self.checks.fail(Check::HintDeposesNobody, detail);
        }
    }

    /// `None` where something else may happen together with a hint.
    fn stance(&self, id: MemberId) -> Option<Stance> {
        let server = &self.servers[&id];
        let lanes = server.lanes.as_ref()?;
        let is_free = !server.paused
            && !lanes.busy.contains_key(&LaneId::Node)
            && !lanes.has_input(LaneId::Node)
            && server.clock.monotonic(self.now) < lanes.node.deadline();
        let status = lanes.node.status();
        let deadline = lanes.node.raft().deadline();
        is_free.then_some(Stance { role: status.role, term: status.term, deadline })
    }

    /// Whether a server has heard its leader lately, over a connection that stands, or leads.
    fn hears_leader(&self, id: MemberId) -> bool {
        let server = &self.servers[&id];
        let Some(lanes) = &server.lanes else { return false };
        let status = lanes.node.status();
        let heard = self.office.as_ref().and_then(|office| office.heard.get(&id));
        let patience = self.config.heartbeat_interval * HEARTBEATS_MISSED_MAX;
        let is_heard = |leader| {
            heard.is_some_and(|(from, term, at)| {
                let missed = server.clock.monotonic(self.now).since(*at);
                *from == leader && *term == status.term && missed < patience
            })
        };
        match (status.role, status.leader) {
            (RoleName::Leader, _) => true,
            (RoleName::Follower, Some(leader)) => {
                is_heard(leader) && self.is_settled_link(id, leader, NEWS_SETTLED)
            }
            _ => false,
        }
    }

    /// A frame has come; that of a leader is remembered where hints are judged.
    pub(crate) fn note_leader_frame(&mut self, to: MemberId, frame: &Bytes) {
        let Some(office) = &mut self.office else { return };
        let Ok(Frame::Raft(messages)) = Frame::decode(frame.clone()) else { return };
        let is_of_leader =
            |body: &Body| matches!(body, Body::Append { .. } | Body::Heartbeat { .. });
        if let Some(message) = messages.iter().rfind(|message| is_of_leader(&message.body)) {
            let at = self.servers[&to].clock.monotonic(self.now);
            office.heard.insert(to, (message.from, message.term, at));
        }
    }

    /// Tells somebody, or everybody, that its leader is dead, whether that is so or not.
    fn lie(&mut self) {
        let Some(mut office) = self.office.take() else { return };
        if office.is_lying && office.is_up && !office.is_paused && office.prng.chance(1, 2) {
            let only = office.prng.chance(1, 2).then(|| office.prng.next_u64());
            let all: Vec<_> = office.links.iter().map(|(id, (_, boot))| (*id, *boot)).collect();
            let leader = office.prng.between(1, self.config.servers);
            for (at, (server, boot)) in (0..).zip(&all) {
                let is_meant = only.is_none_or(|draw| draw % all.len() as u64 == at);
                if is_meant && self.is_in_touch(&office, *server) {
                    self.sometimes.lies += 1;
                    let delay = self.office_delay(&mut office);
                    let (server, boot) = (*server, *boot);
                    let message = ToServer::LeaderLost { leader };
                    let says = OfficeNews::Says { server, boot, message };
                    self.after(delay, Happening::Office(says));
                }
            }
        }
        self.office = Some(office);
    }

    /// The plan's word on the coordinator; nothing where there is none.
    pub(crate) fn inject_coordinator(&mut self, fault: CoordinatorFault) {
        let cut: Vec<MemberId> = match fault {
            CoordinatorFault::Cut(target) => self.targets(target),
            _ => Vec::new(),
        };
        let Some(office) = &mut self.office else { return };
        self.sometimes.coordinator_faults += 1;
        match fault {
            CoordinatorFault::Crash => office.crash(),
            CoordinatorFault::Restart => office.restart(),
            CoordinatorFault::Pause => office.is_paused = true,
            CoordinatorFault::Resume => {
                office.is_paused = false;
                let waiting = std::mem::take(&mut office.waiting);
                waiting.into_iter().for_each(|input| self.on_office_input(input));
            }
            CoordinatorFault::Cut(_) => office.cut.extend(cut),
            CoordinatorFault::Late(by) => office.late = by,
            CoordinatorFault::Lie => office.is_lying = true,
            CoordinatorFault::Mend => {
                office.is_lying = false;
                office.late = Duration::ZERO;
                office.cut.clear();
            }
        }
    }
}

/// What traces call it.
fn office_kind(event: &Event) -> &'static str {
    match event {
        Event::ServerFailed(_) => "CoordinatorSawFailure",
        Event::ClusterView(_) => "CoordinatorView",
        Event::NewLeader(_) => "CoordinatorSawLeader",
        _ => "CoordinatorHint",
    }
}
