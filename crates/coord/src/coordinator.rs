//! The deciding part.
//!
//! Why reports decide who leads, and not the coordinator: it only repeats what servers say, the
//! highest term first.

use std::{collections::BTreeMap, time::Duration};

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
    /// A server has asked to join; its id, or 0 as long as it has none.
    ServerJoining(u64),
    /// A server belongs to the cluster.
    ServerJoined(u64),
    /// All have come.
    AllServersJoined,
    /// A server is taken for dead.
    ServerFailed(u64),
    /// A server that was taken for dead is there again.
    ServerRecovered(u64),
    /// Who lives, in order of id.
    ClusterView(Vec<u64>),
    /// Another server leads.
    NewLeader(u64),
    /// The leader is dead; this server should campaign.
    Hinted {
        /// Who should.
        server: u64,
        /// Who is dead.
        failed: u64,
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
    /// Without data, in order of arrival, until enough have come.
    gathering: Vec<(LinkId, Hello)>,
    /// Who belongs to the cluster, by id.
    servers: BTreeMap<u64, Server>,
    /// The cluster, once a server with data has named it or this coordinator has gathered it.
    cluster: Option<Cluster>,
    clients: BTreeMap<LinkId, String>,
    /// Who leads, and in which term, as the servers say.
    leader: Option<(u64, u64)>,
    is_view_stale: bool,
    hinted_at: Option<Instant>,
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
    /// It was taken for dead, and has not come back since.
    has_failed: bool,
}

impl Coordinator {
    /// A coordinator that knows nobody yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self {
            settings,
            gathering: Vec::new(),
            servers: BTreeMap::new(),
            cluster: None,
            clients: BTreeMap::new(),
            leader: None,
            is_view_stale: false,
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
        out.push(Output::Event(Event::ServerJoining(hello.member.unwrap_or_default())));
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
        match self.cluster {
            Some(Cluster::Known(known)) if known != cluster => {
                return refuse(link, "it belongs to another cluster than the others", out);
            }
            _ => self.cluster = Some(Cluster::Known(cluster)),
        }
        for (gathered, _) in std::mem::take(&mut self.gathering) {
            refuse(gathered, "it has no data, and a cluster that has data is known here", out);
        }
        let most = self.settings.num_servers.max(SERVERS_KNOWN_MAX);
        if most <= self.servers.len() && !self.servers.contains_key(&id) {
            return refuse(link, "too many servers have come", out);
        }
        let before = self.servers.get(&id);
        match before {
            None => out.push(Output::Event(Event::ServerJoined(id))),
            Some(server) if server.has_failed => {
                out.push(Output::Event(Event::ServerRecovered(id)));
            }
            Some(_) => {}
        }
        let report = before.map(|server| server.report).unwrap_or_default();
        self.is_view_stale |= before.is_none_or(|server| !server.is_alive);
        let link = Some(link);
        let (is_alive, has_failed) = (true, false);
        let server = Server { link, hello, report, heard: now, is_alive, has_failed };
        self.servers.insert(id, server);
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
        self.gathering.retain(|(_, known)| known.peer != hello.peer);
        self.gathering.push((link, hello));
        if self.gathering.len() == self.settings.num_servers {
            self.found(now, out);
        }
    }

    /// All have come.
    fn found(&mut self, now: Instant, out: &mut Vec<Output>) {
        let gathered = std::mem::take(&mut self.gathering);
        self.cluster = Some(Cluster::Gathered);
        let members: Vec<MemberEntry> = (1..)
            .zip(&gathered)
            .map(|(id, (_, hello))| MemberEntry {
                id,
                name: hello.name.clone(),
                peer: hello.peer.clone(),
                client: hello.client.clone(),
            })
            .collect();
        for (id, (link, hello)) in (1..).zip(gathered) {
            let (token, members) = (self.settings.token.clone(), members.clone());
            let welcome = Membership { member: id, token, members };
            out.push(Output::Server(link, ToServer::Welcome(welcome)));
            out.push(Output::Event(Event::ServerJoined(id)));
            // It lives from its first report on: now it makes its data directory.
            let report = Report::default();
            let link = Some(link);
            let (is_alive, has_failed) = (false, false);
            let server = Server { link, hello, report, heard: now, is_alive, has_failed };
            self.servers.insert(id, server);
        }
        out.push(Output::Event(Event::AllServersJoined));
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
        let is_newer = self.leader.is_none_or(|(term, _)| term < report.term);
        if report.leads && is_newer {
            self.on_leader(report.term, id, out);
        }
    }

    fn on_leader(&mut self, term: u64, id: u64, out: &mut Vec<Output>) {
        let before = self.leader.replace((term, id));
        if before.is_some_and(|(_, before)| before == id) {
            return;
        }
        out.push(Output::Event(Event::NewLeader(id)));
        for (link, client) in &self.clients {
            out.push(self.tell(*link, id));
            let client = client.clone();
            out.push(Output::Event(Event::LeaderTold { client, server: id }));
        }
    }

    /// A client asks who leads, and hears of it from now on. Before all servers have joined nobody
    /// leads, so that it waits.
    fn on_client(&mut self, link: LinkId, client: String, out: &mut Vec<Output>) {
        if CLIENTS_MAX <= self.clients.len() && !self.clients.contains_key(&link) {
            let why = "too many clients have asked already";
            out.push(Output::Client(link, ToClient::Refused(why.to_owned())));
            return out.push(Output::Close(link));
        }
        out.push(Output::Event(Event::LeaderAsked(client.clone())));
        self.clients.insert(link, client.clone());
        if let Some((_, id)) = self.leader {
            out.push(self.tell(link, id));
            out.push(Output::Event(Event::LeaderTold { client, server: id }));
        }
    }

    fn tell(&self, link: LinkId, leader: u64) -> Output {
        let address = |id| self.servers.get(&id).map(|server: &Server| server.hello.client.clone());
        let client = address(leader).unwrap_or_default();
        let others = self.servers.keys().filter(|id| **id != leader);
        let endpoints =
            std::iter::once(client.clone()).chain(others.filter_map(|id| address(*id))).collect();
        Output::Client(link, ToClient::Leader(LeaderInfo { server: leader, client, endpoints }))
    }

    /// A closed connection says that a process has died, or that a network has; in both cases
    /// nothing more will be heard over it.
    fn on_closed(&mut self, now: Instant, link: LinkId) {
        self.clients.remove(&link);
        self.gathering.retain(|(gathering, _)| *gathering != link);
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

    /// Tells the best of the living that the leader is dead, again and again until somebody leads.
    fn hint(&mut self, now: Instant, out: &mut Vec<Output>) {
        let Some((term, failed)) = self.leader else { return };
        let is_alive = self.servers.get(&failed).is_some_and(|server| server.is_alive);
        let pause = self.settings.report_interval / 2;
        if is_alive || self.hinted_at.is_some_and(|at| now.since(at) < pause) {
            return;
        }
        let quorum = self.servers.len() / 2 + 1;
        let living = self.servers.iter().filter(|(_, server)| server.is_alive);
        let best = living.filter(|(_, server)| server.link.is_some());
        // The lowest id of equals.
        let best = best.max_by_key(|(id, server)| (server.report.last, std::cmp::Reverse(**id)));
        let Some((id, server)) = best.filter(|_| quorum <= self.view().len()) else { return };
        if term < server.report.term && server.report.leader.is_some_and(|leader| leader != failed)
        {
            // It follows somebody else already, who has not reported yet.
            return;
        }
        let link = server.link.expect("only those with a connection are looked at");
        let server = *id;
        self.hinted_at = Some(now);
        out.push(Output::Server(link, ToServer::LeaderLost { leader: failed }));
        out.push(Output::Event(Event::Hinted { server, failed }));
    }
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
