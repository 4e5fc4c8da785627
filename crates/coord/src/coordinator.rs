//! The deciding part.
//!
//! Why reports decide who leads, and not the coordinator: it only repeats what servers say, the
//! highest term first.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use kvraft_base::Instant;

use crate::message::{
    Hello, LeaderInfo, MemberEntry, Membership, Report, ToClient, ToCoordinator, ToServer,
};

/// A connection, as whoever holds it numbers it; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// What a coordinator is told once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Servers of the cluster: 1 to 7.
    pub num_servers: usize,
    /// Reports that may be missing in a row before a server is taken for dead.
    pub lost_msgs_thresh: u32,
    /// How often servers report.
    pub report_interval: Duration,
    /// Drawn at random by whoever makes the coordinator.
    pub token: String,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// A message has come over a connection.
    Message(LinkId, ToCoordinator),
    /// A connection has ended.
    Closed(LinkId),
    /// Time has passed.
    Tick,
}

/// What follows from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// To a server.
    Server(LinkId, ToServer),
    /// To a client.
    Client(LinkId, ToClient),
    /// Nothing more is said there.
    Close(LinkId),
    /// For people and for traces.
    Event(Event),
}

/// What people are told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A server without data has come and waits for the others; the id that it will have if it
    /// stays.
    ServerWaiting(u64),
    /// A server that has data has come.
    ServerJoining(u64),
    /// It has reported for the first time since.
    ServerJoined(u64),
    /// As many have joined as were expected; told once.
    AllServersJoined,
    /// A server is taken for dead.
    ServerFailed(u64),
    /// A server that was taken for dead is there again.
    ServerRecovered(u64),
    /// Who lives, in order of id.
    ClusterView(Vec<u64>),
    /// Another server leads.
    NewLeader(u64),
    /// A server is asked how its log ends, since the leader is dead.
    LogStateAsked(u64),
    /// The leader is dead; this server should campaign.
    Hinted {
        /// Who should.
        server: u64,
        /// Who is dead.
        failed: u64,
        /// In which term the dead one led.
        term: u64,
        /// Who lives.
        peers: Vec<MemberEntry>,
    },
    /// Too few live to elect anybody.
    QuorumUnavailable,
    /// A server or client was refused.
    Refused(String),
    /// A client has asked who leads.
    LeaderAsked(String),
    /// A client was told who leads.
    LeaderTold {
        /// The client.
        client: String,
        /// The leader.
        server: u64,
    },
}

/// Clients that are told of changes, at most.
const CLIENTS_MAX: usize = 4096;

/// A coordinator.
#[derive(Clone, Debug)]
pub struct Coordinator {
    settings: Settings,
    /// Without data, each under the lowest id that was free, until enough have come.
    gathering: BTreeMap<u64, (LinkId, Hello)>,
    /// Who belongs to the cluster, by id.
    servers: BTreeMap<u64, Server>,
    /// The cluster, once a server with data has named it or this coordinator has gathered it.
    cluster: Option<Cluster>,
    clients: BTreeMap<LinkId, String>,
    /// Who leads, and in which term, as the servers say.
    leader: Option<(u64, u64)>,
    is_view_stale: bool,
    /// Whether [`Event::AllServersJoined`] has been told.
    have_all_joined: bool,
    /// Since the leader's death.
    inquiry: Option<Inquiry>,
    hinted_at: Option<Instant>,
}

/// How do the logs of the living end?
#[derive(Clone, Debug)]
struct Inquiry {
    /// The term and the leader that it is about.
    about: (u64, u64),
    asked_at: Instant,
    /// Who has not answered.
    awaited: BTreeSet<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cluster {
    /// Gathered here; its id is its members' own matter.
    Gathered,
    /// Of this id, as its servers say.
    Known(u64),
}

#[derive(Clone, Debug)]
struct Server {
    /// Its connection, while there is one.
    link: Option<LinkId>,
    hello: Hello,
    report: Report,
    heard: Instant,
    is_alive: bool,
    /// Its first report since it came is still to come.
    is_new: bool,
    /// It has reported at some time.
    has_joined: bool,
    /// It was taken for dead, and has not come back since.
    has_failed: bool,
}

impl Coordinator {
    /// A coordinator that knows nobody yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            gathering: BTreeMap::new(),
            servers: BTreeMap::new(),
            cluster: None,
            clients: BTreeMap::new(),
            leader: None,
            is_view_stale: false,
            have_all_joined: false,
            inquiry: None,
            hinted_at: None,
        }
    }

    /// Takes in one thing that happened; what follows from it is added to `out`.
    pub fn step(&mut self, now: Instant, input: Input, out: &mut Vec<Output>) {
        match input {
            Input::Message(link, ToCoordinator::Join(hello)) => self.on_join(now, link, hello, out),
            Input::Message(link, ToCoordinator::Report(report)) => {
                self.on_report(now, link, report, out);
            }
            Input::Message(link, ToCoordinator::LogState(report)) => {
                self.on_log_state(link);
                self.on_report(now, link, report, out);
            }
            Input::Message(link, ToCoordinator::GetLeader { client }) => {
                self.on_client(link, client, out);
            }
            Input::Closed(link) => self.on_closed(now, link),
            Input::Tick => {}
        }
        self.look_at_health(now, out);
    }

    /// Who lives, in order of id.
    #[must_use]
    pub fn view(&self) -> Vec<u64> {
        self.servers.iter().filter(|(_, server)| server.is_alive).map(|(id, _)| *id).collect()
    }

    /// Who leads, as the servers say.
    #[must_use]
    pub fn leader(&self) -> Option<u64> {
        self.leader.map(|(_, id)| id)
    }

    fn on_join(&mut self, now: Instant, link: LinkId, hello: Hello, out: &mut Vec<Output>) {
        match (hello.member, hello.cluster) {
            (Some(id), Some(cluster)) => self.on_return(now, link, id, cluster, hello, out),
            _ => self.on_new(now, link, hello, out),
        }
    }

    /// A server with data comes: its data says who it is, and this coordinator believes it.
    fn on_return(
        &mut self,
        now: Instant,
        link: LinkId,
        id: u64,
        cluster: u64,
        hello: Hello,
        out: &mut Vec<Output>,
    ) {
        out.push(Output::Event(Event::ServerJoining(id)));
        match self.cluster {
            Some(Cluster::Known(known)) if known != cluster => {
                return refuse(link, "it belongs to another cluster than the others", out);
            }
            _ => self.cluster = Some(Cluster::Known(cluster)),
        }
        for (gathered, _) in std::mem::take(&mut self.gathering).into_values() {
            refuse(gathered, "it has no data, and a cluster that has data is known here", out);
        }
        let most = self.settings.num_servers.max(SERVERS_KNOWN_MAX);
        if most <= self.servers.len() && !self.servers.contains_key(&id) {
            return refuse(link, "too many servers have come", out);
        }
        let before = self.servers.get(&id);
        if before.is_some_and(|server| server.has_failed) {
            out.push(Output::Event(Event::ServerRecovered(id)));
        }
        self.is_view_stale |= before.is_none_or(|server| !server.is_alive);
        let mut server = Server::new(link, hello, now);
        server.is_alive = true;
        server.report = before.map(|server| server.report).unwrap_or_default();
        server.has_joined = before.is_some_and(|server| server.has_joined);
        self.servers.insert(id, server);
        out.push(Output::Server(link, ToServer::Joined {}));
    }

    /// A server without data comes. Whoever has lost its data must not come back as who it was: it
    /// may have voted.
    fn on_new(&mut self, now: Instant, link: LinkId, hello: Hello, out: &mut Vec<Output>) {
        if self.cluster.is_some() {
            let count = self.settings.num_servers;
            let why = format!(
                "coordinator cannot accept this server: all {count} servers have joined; a server \
                 is added to the running cluster with kvraft server --join ENDPOINTS"
            );
            return refuse(link, &why, out);
        }
        // Nobody has been told anything yet: a server that died meanwhile may come again.
        let same = self.gathering.iter().find(|(_, (_, known))| known.peer == hello.peer);
        let same = same.map(|(id, _)| *id);
        let mut ids = (1..).filter(|id| same == Some(*id) || !self.gathering.contains_key(id));
        let id = same.or_else(|| ids.next()).expect("ids never run out");
        self.gathering.insert(id, (link, hello));
        out.push(Output::Event(Event::ServerWaiting(id)));
        if self.gathering.len() == self.settings.num_servers {
            self.found(now, out);
        }
    }

    /// All have come.
    fn found(&mut self, now: Instant, out: &mut Vec<Output>) {
        let gathered = std::mem::take(&mut self.gathering);
        self.cluster = Some(Cluster::Gathered);
        let members: Vec<MemberEntry> =
            gathered.iter().map(|(id, (_, hello))| entry(*id, hello)).collect();
        for (id, (link, hello)) in gathered {
            let (token, members) = (self.settings.token.clone(), members.clone());
            let welcome = Membership { member: id, token, members };
            out.push(Output::Server(link, ToServer::Welcome(welcome)));
            // It lives from its first report on: now it makes its data directory.
            self.servers.insert(id, Server::new(link, hello, now));
        }
    }

    fn on_report(&mut self, now: Instant, link: LinkId, report: Report, out: &mut Vec<Output>) {
        let found = self.servers.iter_mut().find(|(_, server)| server.link == Some(link));
        let Some((id, server)) = found else {
            return out.push(Output::Close(link));
        };
        let id = *id;
        (server.report, server.heard) = (report, now);
        if std::mem::take(&mut server.has_failed) {
            out.push(Output::Event(Event::ServerRecovered(id)));
        }
        self.is_view_stale |= !std::mem::replace(&mut server.is_alive, true);
        let is_new = std::mem::take(&mut server.is_new);
        server.has_joined = true;
        if is_new {
            out.push(Output::Event(Event::ServerJoined(id)));
            self.look_whether_all_have_joined(out);
        }
        let is_newer = self.leader.is_none_or(|(term, _)| term < report.term);
        if report.leads && is_newer {
            self.on_leader(report.term, id, out);
        }
    }

    fn look_whether_all_have_joined(&mut self, out: &mut Vec<Output>) {
        let joined = self.servers.values().filter(|server| server.has_joined).count();
        if self.have_all_joined || joined < self.settings.num_servers {
            return;
        }
        self.have_all_joined = true;
        out.push(Output::Event(Event::AllServersJoined));
        if let Some((_, leader)) = self.leader {
            self.tell_all(leader, out);
        }
    }

    /// A server has answered.
    fn on_log_state(&mut self, link: LinkId) {
        let Some(inquiry) = &mut self.inquiry else { return };
        let from = self.servers.iter().find(|(_, server)| server.link == Some(link));
        if let Some((id, _)) = from {
            inquiry.awaited.remove(id);
        }
    }

    fn on_leader(&mut self, term: u64, id: u64, out: &mut Vec<Output>) {
        let before = self.leader.replace((term, id));
        if before.is_some_and(|(_, before)| before == id) {
            return;
        }
        out.push(Output::Event(Event::NewLeader(id)));
        self.tell_all(id, out);
    }

    fn tell_all(&self, leader: u64, out: &mut Vec<Output>) {
        for (link, client) in &self.clients {
            let client = client.clone();
            out.push(Output::Event(Event::LeaderTold { client, server: leader }));
            out.push(self.tell(*link, leader));
        }
    }

    /// A client asks who leads, and hears of it from now on: of every other leader, and when all
    /// servers have joined. Until somebody leads it waits.
    fn on_client(&mut self, link: LinkId, client: String, out: &mut Vec<Output>) {
        if CLIENTS_MAX <= self.clients.len() && !self.clients.contains_key(&link) {
            let why = "too many clients have asked already";
            out.push(Output::Client(link, ToClient::Refused(why.to_owned())));
            return out.push(Output::Close(link));
        }
        out.push(Output::Event(Event::LeaderAsked(client.clone())));
        self.clients.insert(link, client.clone());
        if let Some((_, id)) = self.leader {
            out.push(Output::Event(Event::LeaderTold { client, server: id }));
            out.push(self.tell(link, id));
        }
    }

    fn tell(&self, link: LinkId, leader: u64) -> Output {
        let address = |id| self.servers.get(&id).map(|server: &Server| server.hello.client.clone());
        let client = address(leader).unwrap_or_default();
        let others = self.servers.keys().filter(|id| **id != leader);
        let endpoints =
            std::iter::once(client.clone()).chain(others.filter_map(|id| address(*id))).collect();
        let all_joined = self.have_all_joined;
        let info = LeaderInfo { server: leader, client, endpoints, all_joined };
        Output::Client(link, ToClient::Leader(info))
    }

    /// A closed connection says that a process has died, or that a network has; in both cases
    /// nothing more will be heard over it.
    fn on_closed(&mut self, now: Instant, link: LinkId) {
        self.clients.remove(&link);
        self.gathering.retain(|_, (gathering, _)| *gathering != link);
        for server in self.servers.values_mut().filter(|server| server.link == Some(link)) {
            server.link = None;
            // It may come back at once, over another connection.
            server.heard = server.heard.max(now);
        }
    }

    fn look_at_health(&mut self, now: Instant, out: &mut Vec<Output>) {
        let patience = self.settings.report_interval * self.settings.lost_msgs_thresh;
        let mut has_one_failed = false;
        for (id, server) in &mut self.servers {
            let wait = if server.link.is_some() { patience } else { CLOSED_PATIENCE.min(patience) };
            if server.is_alive && wait < now.since(server.heard) {
                (server.is_alive, server.has_failed) = (false, true);
                self.is_view_stale = true;
                has_one_failed = true;
                out.push(Output::Event(Event::ServerFailed(*id)));
            }
        }
        if std::mem::take(&mut self.is_view_stale) {
            out.push(Output::Event(Event::ClusterView(self.view())));
            let quorum = self.servers.len() / 2 + 1;
            if has_one_failed && self.view().len() < quorum {
                out.push(Output::Event(Event::QuorumUnavailable));
            }
        }
        self.hint(now, out);
    }

    /// Asks the living how their logs end, and tells the best of them that the leader is dead, over
    /// and over until somebody leads.
    fn hint(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some((term, failed)) = self.leader else { return };
        if self.servers.get(&failed).is_some_and(|server| server.is_alive) {
            self.inquiry = None;
            return;
        }
        let quorum = self.servers.len() / 2 + 1;
        if self.view().len() < quorum || self.is_inquiring(now, (term, failed), out) {
            return;
        }
        let pause = self.settings.report_interval / 2;
        if self.hinted_at.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        // The lowest id of equals.
        let best =
            self.within_reach().max_by_key(|(id, _, report)| (report.last, std::cmp::Reverse(*id)));
        let Some((server, link, report)) = best else { return };
        if term < report.term && report.leader.is_some_and(|leader| leader != failed) {
            // It follows somebody else already, who has not reported yet.
            return;
        }
        self.hinted_at = Some(now);
        let living = self.servers.iter().filter(|(_, server)| server.is_alive);
        let peers = living.map(|(id, server)| entry(*id, &server.hello)).collect();
        out.push(Output::Event(Event::Hinted { server, failed, term, peers }));
        out.push(Output::Server(link, ToServer::LeaderLost { leader: failed }));
    }

    /// Whether answers are waited for. Nobody is waited for who takes longer than a quarter of the
    /// time between two reports: its last report has to do then.
    fn is_inquiring(&mut self, now: Instant, about: (u64, u64), out: &mut Vec<Output>) -> bool {
        if self.inquiry.as_ref().is_none_or(|inquiry| inquiry.about != about) {
            let mut awaited = BTreeSet::new();
            for (id, link, _) in self.within_reach() {
                awaited.insert(id);
                out.push(Output::Event(Event::LogStateAsked(id)));
                out.push(Output::Server(link, ToServer::GetLogState {}));
            }
            self.inquiry = Some(Inquiry { about, asked_at: now, awaited });
        }
        let inquiry = self.inquiry.as_ref().expect("it has just begun, or before");
        let patience = self.settings.report_interval / 4;
        !inquiry.awaited.is_empty() && now.since(inquiry.asked_at) < patience
    }

    /// The living to whom there is a connection, with what they have said last.
    fn within_reach(&self) -> impl Iterator<Item = (u64, LinkId, Report)> {
        let living = self.servers.iter().filter(|(_, server)| server.is_alive);
        living.filter_map(|(id, server)| Some((*id, server.link?, server.report)))
    }
}

impl Server {
    /// One that has not reported yet.
    fn new(link: LinkId, hello: Hello, now: Instant) -> Self {
        let (link, report) = (Some(link), Report::default());
        let (is_alive, is_new, has_joined, has_failed) = (false, true, false, false);
        Self { link, hello, report, heard: now, is_alive, is_new, has_joined, has_failed }
    }
}

fn entry(id: u64, hello: &Hello) -> MemberEntry {
    let Hello { name, peer, client, .. } = hello.clone();
    MemberEntry { id, name, peer, client }
}

/// How long a server without a connection may take to come back before it is taken for dead.
const CLOSED_PATIENCE: Duration = Duration::from_millis(20);

/// Servers that are known at once: a full cluster, and the learners of one.
const SERVERS_KNOWN_MAX: usize = 64;

fn refuse(link: LinkId, why: &str, out: &mut Vec<Output>) {
    out.push(Output::Event(Event::Refused(why.to_owned())));
    out.push(Output::Server(link, ToServer::Refused(why.to_owned())));
    out.push(Output::Close(link));
}

#[cfg(test)]
mod tests;
