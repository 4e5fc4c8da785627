//! The coordinator's edge: listeners, connections and a clock around [`kvraft_coord::Coordinator`],
//! and the two who speak with it.
//!
//! Invariants:
//! - one task decides; connections only carry lines to it and from it;
//! - whoever sends rubbish, or does not read what it is sent, loses its connection, and nobody else
//!   notices.
//!
//! What it lacks: TLS and any check of who somebody is; it listens on loopback unless told
//! otherwise. A first server believes it about the first members as it would believe its own
//! configuration.

mod member;
mod said;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant as StdInstant},
};

use kvraft_base::Instant;
use kvraft_coord::{
    Coordinator, Input, LINE_SIZE_BYTES_MAX, LinkId, Output, Settings, ToCoordinator, decode,
    encode,
};
use kvraft_recorder::lines::{LineReader, with_token, write_line};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::MissedTickBehavior,
};

pub use self::member::{CoordError, Joined, join_coordinator};
pub(crate) use self::member::{Following, follow_coordinator};
use self::said::Teller;
use crate::recorder::{self, Recorder};

/// What a coordinator is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CoordConfig {
    /// Servers that make the cluster: 1 to 7.
    #[serde(default = "default_num_servers")]
    pub num_servers: usize,
    /// Reports of a server that may be missing in a row before it is taken for dead; at least 1.
    #[serde(default = "default_lost_msgs_thresh")]
    pub lost_msgs_thresh: u32,
    /// How often a report is expected, in milliseconds: the servers' `heartbeat-interval`.
    #[serde(default = "default_report_interval_ms")]
    pub report_interval_ms: u64,
    /// Where servers are listened for.
    #[serde(default = "default_listen_servers")]
    pub listen_servers: SocketAddr,
    /// Where clients are listened for.
    #[serde(default = "default_listen_clients")]
    pub listen_clients: SocketAddr,
    /// `host:port` of the tracing server; left out, nothing is recorded.
    #[serde(default)]
    pub tracing_server: Option<String>,
    /// Its name in traces.
    #[serde(default = "default_identity")]
    pub tracing_identity: String,
    /// For tests: every so many milliseconds each server is told that its leader is dead, whether
    /// that is so or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lie_interval_ms: Option<u64>,
}

fn default_num_servers() -> usize {
    3
}

fn default_lost_msgs_thresh() -> u32 {
    3
}

fn default_report_interval_ms() -> u64 {
    100
}

fn default_listen_servers() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 23_002))
}

fn default_listen_clients() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 23_009))
}

fn default_identity() -> String {
    "coord".to_owned()
}

impl Default for CoordConfig {
    fn default() -> Self {
        Self {
            num_servers: default_num_servers(),
            lost_msgs_thresh: default_lost_msgs_thresh(),
            report_interval_ms: default_report_interval_ms(),
            listen_servers: default_listen_servers(),
            listen_clients: default_listen_clients(),
            tracing_server: None,
            tracing_identity: default_identity(),
            lie_interval_ms: None,
        }
    }
}

impl CoordConfig {
    /// Looks for what cannot be.
    ///
    /// # Errors
    /// In words, with the key.
    pub fn validate(&self) -> Result<(), String> {
        let most = kvraft_base::limits::VOTERS_MAX;
        if self.num_servers == 0 || most < self.num_servers {
            return Err(format!("num-servers = {}: from 1 to {most}", self.num_servers));
        }
        if self.lost_msgs_thresh == 0 {
            return Err("lost-msgs-thresh = 0: at least 1".to_owned());
        }
        if !(1..=60_000).contains(&self.report_interval_ms) {
            let given = self.report_interval_ms;
            return Err(format!("report-interval-ms = {given}: from 1 to 60000"));
        }
        if self.lie_interval_ms == Some(0) {
            return Err("lie-interval-ms = 0: at least 1".to_owned());
        }
        Ok(())
    }
}

/// A running coordinator.
#[derive(Debug)]
pub struct CoordServer {
    servers: SocketAddr,
    clients: SocketAddr,
    stopping: watch::Sender<bool>,
    tasks: JoinSet<()>,
    recording: Option<JoinHandle<()>>,
    recording_stopping: watch::Sender<bool>,
}

/// Connections at once, of servers and clients each.
const CONNECTIONS_MAX: usize = 4096;

/// Lines that may wait for a connection; who reads slower than that loses it.
const LINES_MAX: usize = 64;

/// Inputs that may wait; connections wait then.
const INPUTS_MAX: usize = 1024;

/// Something for the task that decides.
enum In {
    Opened(LinkId, mpsc::Sender<String>),
    /// A message, and the token that it has brought.
    Message(LinkId, ToCoordinator, Option<String>),
    Closed(LinkId),
    Tick,
}

/// Which half of the protocol a listener speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    Servers,
    Clients,
}

impl CoordServer {
    /// Starts on the runtime that it is called in. `tell` prints what people want to see.
    ///
    /// # Errors
    /// An address is in use, or not of this machine: which one, and the system's own words.
    pub async fn start(config: CoordConfig, token: String, tell: fn(&str)) -> io::Result<Self> {
        let servers = listen(config.listen_servers).await?;
        let clients = listen(config.listen_clients).await?;
        let (servers_at, clients_at) = (servers.local_addr()?, clients.local_addr()?);
        let stopping = watch::Sender::new(false);
        let recording_stopping = watch::Sender::new(false);
        let recorder = config.tracing_server.as_ref().map(|_| {
            Recorder::of_coordinator(&config.tracing_identity, crate::server::draw() >> 1)
        });
        let recording =
            recorder.as_ref().zip(config.tracing_server.clone()).map(|(recorder, address)| {
                let stop = recording_stopping.subscribe();
                tokio::spawn(recorder::send_records(recorder.outbox(), address, stop))
            });
        let settings = Settings {
            num_servers: config.num_servers,
            lost_msgs_thresh: config.lost_msgs_thresh,
            report_interval: Duration::from_millis(config.report_interval_ms),
            token,
        };
        let (to_decide, inputs) = mpsc::channel(INPUTS_MAX);
        let mut tasks = JoinSet::new();
        for (listener, role) in [(servers, Role::Servers), (clients, Role::Clients)] {
            tasks.spawn(accept(listener, role, to_decide.clone(), stopping.subscribe()));
        }
        let lie_interval = config.lie_interval_ms.map(Duration::from_millis);
        let office = Office {
            coordinator: Coordinator::new(settings.clone()),
            links: BTreeMap::new(),
            tracing_clients: BTreeSet::new(),
            teller: Teller { recorder, tell },
            lie_interval,
        };
        tasks.spawn(office.decide(inputs, settings.report_interval / 4, stopping.subscribe()));
        let (servers, clients) = (servers_at, clients_at);
        Ok(Self { servers, clients, stopping, tasks, recording, recording_stopping })
    }

    /// Where servers are listened for.
    #[must_use]
    pub fn servers_address(&self) -> SocketAddr {
        self.servers
    }

    /// Where clients are listened for.
    #[must_use]
    pub fn clients_address(&self) -> SocketAddr {
        self.clients
    }

    /// Ends every connection; what was recorded goes to the tracing server if that is there.
    pub async fn stop(mut self) {
        self.stopping.send_replace(true);
        while self.tasks.join_next().await.is_some() {}
        self.recording_stopping.send_replace(true);
        if let Some(recording) = self.recording {
            // It gives up by itself; one that panicked has ended the process.
            drop(recording.await);
        }
    }
}

async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("cannot listen on {address}: {error}"))
    };
    TcpListener::bind(address).await.map_err(failed)
}

/// The task that decides, and what it needs for that.
struct Office {
    coordinator: Coordinator,
    links: BTreeMap<LinkId, mpsc::Sender<String>>,
    /// Who has sent a token: others do not want one.
    tracing_clients: BTreeSet<LinkId>,
    teller: Teller,
    lie_interval: Option<Duration>,
}

impl Office {
    async fn decide(
        mut self,
        mut inputs: mpsc::Receiver<In>,
        tick: Duration,
        mut stop: watch::Receiver<bool>,
    ) {
        let began = StdInstant::now();
        let mut ticks = tokio::time::interval(tick.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut lies =
            tokio::time::interval(self.lie_interval.unwrap_or(Duration::from_secs(3600)));
        let mut out = Vec::new();
        loop {
            let input = tokio::select! {
                input = inputs.recv() => input,
                _ = ticks.tick() => Some(In::Tick),
                _ = lies.tick(), if self.lie_interval.is_some() => {
                    self.lie();
                    continue;
                }
                _ = stop.wait_for(|stop| *stop) => return,
            };
            let input = match input {
                None => return,
                Some(In::Opened(link, lines)) => {
                    self.links.insert(link, lines);
                    continue;
                }
                Some(In::Message(link, message, token)) => {
                    self.take_token(link, &message, token);
                    Input::Message(link, message)
                }
                Some(In::Closed(link)) => {
                    self.links.remove(&link);
                    self.tracing_clients.remove(&link);
                    Input::Closed(link)
                }
                Some(In::Tick) => Input::Tick,
            };
            let elapsed = u64::try_from(began.elapsed().as_nanos()).unwrap_or(u64::MAX);
            self.coordinator.step(Instant(elapsed), input, &mut out);
            out.drain(..).for_each(|output| self.carry_out(output));
        }
    }

    fn take_token(&mut self, link: LinkId, message: &ToCoordinator, token: Option<String>) {
        let Some(token) = token else { return };
        self.teller.take_token(&token);
        if let ToCoordinator::GetLeader { .. } = message {
            self.tracing_clients.insert(link);
        }
    }

    fn carry_out(&mut self, output: Output) {
        match output {
            Output::Server(link, message) => {
                let token = self.teller.token_of(&message);
                self.send(link, with_token(token, &encode(&message)));
            }
            Output::Client(link, message) => {
                let wants_token = self.tracing_clients.contains(&link);
                let token = if wants_token { self.teller.token() } else { None };
                self.send(link, with_token(token, &encode(&message)));
            }
            Output::Close(link) => drop(self.links.remove(&link)),
            Output::Event(event) => self.teller.on_event(&event),
        }
    }

    fn send(&mut self, link: LinkId, line: String) {
        let Some(lines) = self.links.get(&link) else { return };
        if lines.try_send(line).is_err() {
            self.links.remove(&link);
        }
    }

    /// Says to every connection that server 1 is dead, and that it leads.
    fn lie(&mut self) {
        let hint = encode(&kvraft_coord::ToServer::LeaderLost { leader: 1 });
        let links: Vec<LinkId> =
            self.links.keys().copied().filter(|link| link.0.is_multiple_of(2)).collect();
        links.into_iter().for_each(|link| self.send(link, hint.clone()));
    }
}

async fn accept(
    listener: TcpListener,
    role: Role,
    inputs: mpsc::Sender<In>,
    mut stop: watch::Receiver<bool>,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let mut connections = JoinSet::new();
    // Even for servers, odd for clients: never the same.
    let mut number = u64::from(role == Role::Clients);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => return,
        };
        while connections.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Such as too many open files: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&room).try_acquire_owned() else {
            tracing::warn!(%from, "too many connections: refused");
            continue;
        };
        number += 2;
        let (link, inputs) = (LinkId(number), inputs.clone());
        connections.spawn(async move {
            if let Err(error) = converse(stream, role, link, &inputs).await {
                tracing::info!(%from, "a connection ended: {error}");
            }
            // The task that decides goes last, unless the coordinator stops.
            drop(inputs.send(In::Closed(link)).await);
            drop(permit);
        });
    }
}

/// Carries lines of one connection, both ways, until either side has enough.
async fn converse(
    stream: TcpStream,
    role: Role,
    link: LinkId,
    inputs: &mpsc::Sender<In>,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    let (to_write, mut lines) = mpsc::channel(LINES_MAX);
    let closed = |_| io::Error::other("the coordinator stops");
    inputs.send(In::Opened(link, to_write)).await.map_err(closed)?;
    let write = async {
        while let Some(line) = lines.recv().await {
            write_line(&mut writer, &line).await?;
        }
        Ok(())
    };
    let read = async {
        let mut reader = LineReader::new(reader, LINE_SIZE_BYTES_MAX);
        while let Some(message) = reader.read(decode::<ToCoordinator>).await? {
            let fits = match &message.content {
                ToCoordinator::GetLeader { .. } => role == Role::Clients,
                _ => role == Role::Servers,
            };
            if !fits {
                return Err(io::Error::other("not what is spoken at this address"));
            }
            let input = In::Message(link, message.content, message.token);
            inputs.send(input).await.map_err(closed)?;
        }
        Ok(())
    };
    tokio::select! {
        ended = write => ended,
        ended = read => ended,
    }
}

#[cfg(test)]
#[path = "coord/tests.rs"]
mod tests;
