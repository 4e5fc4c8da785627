//! A running server: disk, lanes, peers and gRPC, started and stopped as one.
//!
//! Invariants:
//! - when [`Server::start`] returns an error, nothing of the server is left: no lock, no port, no
//!   thread;
//! - when [`Server::stop`] returns, everything accepted is on the disk and the lock is free.
//!
//! What it lacks: TLS, metrics, settings that change while it runs.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    io,
    net::SocketAddr,
    path::Path,
    sync::Arc,
    time::{Duration, Instant as StdInstant, SystemTime, UNIX_EPOCH},
};

use futures::StreamExt as _;
use kvraft_base::{Disk, DiskError, DiskErrorKind, Instant};
use kvraft_coord::Hello;
use kvraft_kv::Versions;
use kvraft_replica::{
    ClientRequest, Fatal, Frame, NodeOptions, Now, OpenOptions, Outcome, PeerLane, Replica,
    ReplicaError, SNAPSHOT_CHUNK_BYTES,
};
use kvraft_store::{Identity, OpenError};
use tokio::{net::TcpListener, sync::watch, task::JoinHandle};
use tonic::transport::server::TcpIncoming;
use tonic_health::{ServingStatus, server::HealthReporter};

use crate::{
    authority::Lenient,
    board::Board,
    config::{ConfigError, ServerConfig},
    coord::{Following, follow_coordinator},
    disk::RealDisk,
    driver::{Driver, Edge},
    edge::{FatalHandler, ServerEdge},
    flight::{FLIGHT_DIRECTORY, Flight, FlightConfig},
    grpc,
    peers::{Lane, LeaseTerms, PeerConfig, PeerError, PeerEvent, PeerNet},
    publish::publish,
    recorder::{self, Recorder},
    volatile::VolatileDisk,
};

/// Requests that may be under way on one client connection. Not the usual hundreds: one connection
/// of a proxy carries the requests of many, and what is too much is refused further inside.
pub const CLIENT_STREAMS_MAX: u32 = 65_536;

/// How long a stopping server waits for the requests that are under way.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(3);

/// How long a removed server's clients wait for answers that are on their way.
const REMOVED_GRACE: Duration = Duration::from_millis(100);

/// Why a server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The address is in use, or not of this machine.
    #[error("cannot listen for {role} on {address}: {error}")]
    Listen {
        /// Clients or peers.
        role: &'static str,
        /// The configured address.
        address: SocketAddr,
        /// The system's own words.
        error: io::Error,
    },
    /// The configuration contradicts itself.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// The data directory cannot be made into one.
    #[error(transparent)]
    Format(#[from] OpenError),
    /// What is in the data directory cannot be believed, or is not for this server.
    #[error(transparent)]
    Replica(#[from] ReplicaError),
    /// The connections to peers cannot be made.
    #[error(transparent)]
    Peers(#[from] PeerError),
    /// The system refused a thread.
    #[error("cannot start a thread: {0}")]
    Thread(io::Error),
}

/// A running server.
pub struct Server {
    client_address: SocketAddr,
    driver: Arc<Driver>,
    edge: Arc<ServerEdge>,
    /// One election timeout: without a successor nobody would lead any sooner.
    hand_over_time_max: Duration,
    stopping: watch::Sender<bool>,
    serving: JoinHandle<Result<(), tonic::transport::Error>>,
    /// There when this server traces.
    recording: Option<Recording>,
}

/// The task that carries records to the tracing server. Goes on when all else has stopped.
struct Recording {
    stopping: watch::Sender<bool>,
    task: JoinHandle<()>,
}

impl Server {
    /// Starts a server that ends the process when its disk or its state cannot be believed any
    /// more.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: ServerConfig) -> Result<Self, StartError> {
        Self::start_with(config, Arc::new(|fatal: &Fatal| std::process::exit(exit_code(fatal))))
            .await
    }

    /// Starts a server with another way to go when it cannot go on: for tests. The handler is
    /// called from a lane's thread.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start_with(
        config: ServerConfig,
        on_fatal: FatalHandler,
    ) -> Result<Self, StartError> {
        config.validate()?;
        let clients = listen("clients", config.listen_client)?;
        let peers = listen("peers", config.listen_peer)?;
        let incarnation = draw_incarnation();
        let opening = config.clone();
        let replica = tokio::task::spawn_blocking(move || open(&opening, incarnation));
        let replica = replica.await.expect("opening does not panic: damage is an error")?;
        for note in &replica.notes {
            tracing::warn!("recovery: {note}");
        }
        let recorder = config.tracing_server.is_some().then(|| {
            let trace_id = draw() >> 1;
            Recorder::new(&config.tracing_identity(), config.member, trace_id)
        });
        let edge = Arc::new(ServerEdge::new(&config, recorder, on_fatal));
        let driver = start_driver(replica, &config, incarnation, &edge)?;
        if let Err(error) = start_peers(&config, incarnation, peers, &driver, &edge) {
            driver.stop();
            return Err(error);
        }
        let served = serve(&config, incarnation, clients, &driver, &edge);
        let (client_address, stopping, serving) = match served {
            Ok(served) => served,
            Err(error) => {
                if let Some(peers) = edge.peers.get() {
                    peers.shutdown().await;
                }
                driver.stop();
                return Err(error);
            }
        };
        tracing::info!(
            member = %config.member,
            cluster = %config.cluster,
            clients = %client_address,
            peers = %config.listen_peer,
            data = %config.data_dir.display(),
            "serving"
        );
        tokio::spawn(publish(
            Arc::clone(&driver),
            Arc::clone(&edge.board),
            config.member,
            config.own_info(),
            stopping.subscribe(),
        ));
        tokio::spawn(abandon_when_removed(
            Arc::clone(&driver),
            Arc::clone(&edge.board),
            stopping.subscribe(),
        ));
        if let Some(address) = &config.coord {
            let following = following(&config, address, &driver, &edge);
            tokio::spawn(follow_coordinator(following, stopping.subscribe()));
        }
        let recording = start_recording(&config, &edge);
        let hand_over_time_max = config.election_timeout;
        Ok(Self { client_address, driver, edge, hand_over_time_max, stopping, serving, recording })
    }

    /// Where clients are served.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        self.client_address
    }

    /// Whether this server leads, as it knows itself.
    #[must_use]
    pub fn is_leader(&self) -> bool {
        self.edge.board.snapshot().raft.role == kvraft_raft::RoleName::Leader
    }

    /// Stops: another leader if this one leads, no new requests, a moment for those under way, then
    /// the peers, then the lanes.
    pub async fn stop(self) {
        tracing::info!("stopping");
        self.hand_over().await;
        self.stopping.send_replace(true);
        let abort = self.serving.abort_handle();
        if tokio::time::timeout(DRAIN_TIME_MAX, self.serving).await.is_err() {
            tracing::warn!("requests were still under way and are cut off");
            abort.abort();
        }
        if let Some(peers) = self.edge.peers.get() {
            peers.shutdown().await;
        }
        let driver = Arc::clone(&self.driver);
        let stopped = tokio::task::spawn_blocking(move || driver.stop()).await;
        stopped.expect("stopping joins threads and does nothing else");
        if let Some(recording) = self.recording {
            recording.stopping.send_replace(true);
            // It gives up by itself; one that panicked has ended the process.
            drop(recording.task.await);
        }
        tracing::info!("stopped");
    }
}

/// What this server is to its coordinator.
fn following(
    config: &ServerConfig,
    address: &str,
    driver: &Arc<Driver>,
    edge: &ServerEdge,
) -> Following {
    let own = config.members.iter().find(|member| member.id == config.member);
    let or = |told: Option<&String>, listen: SocketAddr| {
        told.filter(|told| !told.is_empty()).cloned().unwrap_or_else(|| listen.to_string())
    };
    Following {
        address: address.to_owned(),
        hello: Hello {
            name: config.name.clone(),
            peer: or(own.map(|own| &own.peer), config.listen_peer),
            client: or(own.map(|own| &own.client), config.listen_client),
            member: Some(config.member.0),
            cluster: Some(config.cluster.0),
        },
        report_interval: config.heartbeat_interval,
        driver: Arc::clone(driver),
        board: Arc::clone(&edge.board),
        recorder: edge.recorder.clone(),
    }
}

/// Carries what is recorded to the tracing server from now on.
fn start_recording(config: &ServerConfig, edge: &ServerEdge) -> Option<Recording> {
    let (recorder, address) = (edge.recorder.as_ref()?, config.tracing_server.as_ref()?);
    let stopping = watch::Sender::new(false);
    let (outbox, address) = (recorder.outbox(), address.clone());
    let task = tokio::spawn(recorder::send_records(outbox, address, stopping.subscribe()));
    Some(Recording { stopping, task })
}

/// A removed server receives no log any more: what its clients wait for happens elsewhere, or not
/// at all. They are told soon, so that they can ask somebody else.
async fn abandon_when_removed(
    driver: Arc<Driver>,
    board: Arc<Board>,
    mut stopping: watch::Receiver<bool>,
) {
    tokio::select! {
        _ = stopping.wait_for(|stop| *stop) => return,
        () = board.removed() => {}
    }
    // What came before the removal is still applied.
    tokio::time::sleep(REMOVED_GRACE).await;
    driver.abandon();
}

/// How the process ends. Who was removed has done what was asked, and whoever starts it again when
/// it fails is to leave it alone: that is 0, as with etcd.
fn exit_code(fatal: &Fatal) -> i32 {
    match fatal {
        Fatal::Removed { .. } => 0,
        _ => 1,
    }
}

impl Server {
    /// Has another server lead, so that nobody waits for an election timeout. Best effort.
    async fn hand_over(&self) {
        if !self.is_leader() {
            return;
        }
        let Ok(pending) = self.driver.request(0, |_| ClientRequest::Transfer { to: None }) else {
            return;
        };
        let ended = tokio::time::timeout(self.hand_over_time_max, pending.outcome()).await;
        match ended.map(|reply| reply.map(|reply| reply.outcome)) {
            Ok(Some(Outcome::Transferred(Ok(leader)))) => tracing::info!(%leader, "leads now"),
            Ok(Some(Outcome::Transferred(Err(refusal)))) => {
                tracing::info!("stops as leader: {refusal}");
            }
            Ok(_) | Err(_) => tracing::info!("stops as leader: nobody has taken over in time"),
        }
    }
}

fn listen(role: &'static str, address: SocketAddr) -> Result<std::net::TcpListener, StartError> {
    let failed = |error| StartError::Listen { role, address, error };
    let listener = std::net::TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Whose data a directory holds; `None` when it is none yet. Looks without taking the lock.
///
/// # Errors
/// [`StartError::Disk`] and [`StartError::Format`]: it cannot be read, is damaged, or of a later
/// version.
pub fn read_identity(data_dir: &Path) -> Result<Option<Identity>, StartError> {
    let disk = match RealDisk::inspect(data_dir) {
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        opened => opened?,
    };
    match kvraft_store::is_formatted(&disk)? {
        true => Ok(Some(kvraft_store::read_identity(&disk)?)),
        false => Ok(None),
    }
}

/// Opens the disk, makes it a data directory if it is none yet, and recovers what is there.
fn open(config: &ServerConfig, incarnation: u64) -> Result<Replica, StartError> {
    let disk: Box<dyn Disk> = if config.volatile_disk {
        tracing::warn!("VOLATILE DISK: what is not synced is lost when this process is killed");
        Box::new(VolatileDisk::open(&config.data_dir)?)
    } else {
        Box::new(RealDisk::open(&config.data_dir)?)
    };
    if !kvraft_store::is_formatted(disk.as_ref())? {
        tracing::info!(data = %config.data_dir.display(), "a new data directory");
        let identity = Identity {
            cluster: config.cluster,
            member: config.member,
            members: config.first_members()?,
        };
        kvraft_store::format(disk.as_ref(), &identity)?;
    }
    let options = OpenOptions {
        raft: config.raft(),
        store: config.limits.store(),
        node: NodeOptions {
            // While it is parked a request has had no effect. The answer that says so must come
            // before the client's time is up, since that one could only say that nobody knows.
            parked_time_max: config.request_time_max() * 7 / 8,
            ..config.limits.node()
        },
        machine: config.limits.machine(),
        snapshot_chunk_bytes: SNAPSHOT_CHUNK_BYTES,
        versions: Versions::OF_BUILD,
        cluster: config.cluster,
        incarnation,
        seed: draw(),
    };
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let wall_ms = u64::try_from(wall.as_millis()).unwrap_or(u64::MAX);
    // The lanes' clock starts when the driver does.
    Ok(kvraft_replica::open(disk.as_ref(), options, Now { instant: Instant::ZERO, wall_ms })?)
}

/// Runs the lanes; returns when they have said something about themselves.
fn start_driver(
    replica: Replica,
    config: &ServerConfig,
    incarnation: u64,
    edge: &Arc<ServerEdge>,
) -> Result<Arc<Driver>, StartError> {
    let board = Arc::clone(&edge.board);
    let first_ticket = 1 + (incarnation >> 3);
    let edge = Arc::clone(edge) as _;
    let waiting = config.limits.waiting_size_max();
    let flight = start_flight(config, incarnation);
    let driver = Driver::start(replica, StdInstant::now(), waiting, first_ticket, flight, edge)
        .map_err(StartError::Thread)?;
    board.wait_for_first();
    // Told anew in the first turn, which may be a while off.
    let first = board.snapshot().raft.membership;
    board.set_first_members(&first);
    Ok(Arc::new(driver))
}

/// A server that cannot record runs all the same.
fn start_flight(config: &ServerConfig, incarnation: u64) -> Option<Flight> {
    if config.flight_recorder == 0 {
        return None;
    }
    let directory = config.data_dir.join(FLIGHT_DIRECTORY);
    let (size_bytes, cluster) = (config.flight_recorder, config.cluster);
    let member = config.member;
    let started =
        Flight::start(FlightConfig { directory, size_bytes, cluster, member, incarnation });
    match started {
        Ok(flight) => Some(flight),
        Err(error) => {
            tracing::warn!("flight recorder: {error}; nothing is recorded");
            None
        }
    }
}

fn start_peers(
    config: &ServerConfig,
    incarnation: u64,
    listener: std::net::TcpListener,
    driver: &Arc<Driver>,
    edge: &Arc<ServerEdge>,
) -> Result<(), StartError> {
    let mut peers = PeerConfig::new(
        config.cluster,
        config.member,
        incarnation,
        config.listen_peer,
        edge.peers_of(&edge.board.members().borrow()),
        config.heartbeat_interval,
    );
    // As long as consensus tells who has left of its removal, and some more.
    peers.linger = peers.linger.max(config.election_timeout * 3);
    peers.lease = config.lease_reads.then_some(LeaseTerms {
        election_timeout: config.election_timeout,
        drift_ppm_max: config.clock_drift_max,
    });
    let driver = Arc::clone(driver);
    // The edge owns the transport, which owns this.
    let answers = Arc::downgrade(edge);
    let net = PeerNet::start_on(listener, peers, move |event| {
        match event {
            PeerEvent::Connected { peer } => driver.on_connection(peer, true),
            PeerEvent::Disconnected { peer } => driver.on_connection(peer, false),
            PeerEvent::Superseded { peer, .. } => {
                if let Some(edge) = answers.upgrade() {
                    edge.on_fatal(Fatal::Superseded { peer });
                }
            }
            PeerEvent::Removed { peer, index } => {
                if let Some(edge) = answers.upgrade() {
                    edge.on_told_removed(peer, index);
                }
            }
            PeerEvent::Frame { peer, lane, payload } => {
                let (token, payload) = recorder::unwrap(payload);
                if let Some(edge) = answers.upgrade()
                    && let Some(recorder) = &edge.recorder
                {
                    recorder.on_frame_received(peer, token, &payload);
                }
                // A bulk frame without room is offered again: it is not refused yet.
                let refusable = lane == Lane::Control && Frame::is_forward(&payload);
                let forward = refusable.then(|| payload.clone());
                let taken = driver.on_frame(peer, payload);
                if !taken
                    && let Some(answer) = forward.and_then(|f| Frame::answer_to_dropped(&f))
                    && let Some(edge) = answers.upgrade()
                {
                    // Without room for this either, the peer waits for its time limit.
                    let _ = edge.send_to_peer(peer, PeerLane::Control, answer);
                }
                return taken;
            }
        }
        true
    })?;
    edge.peers.set(net).expect("the transport is started once");
    // What has come in between was told to nobody.
    edge.tell_peers();
    Ok(())
}

type Serving = JoinHandle<Result<(), tonic::transport::Error>>;

/// Serves clients until told to stop.
fn serve(
    config: &ServerConfig,
    incarnation: u64,
    listener: std::net::TcpListener,
    driver: &Arc<Driver>,
    edge: &Arc<ServerEdge>,
) -> Result<(SocketAddr, watch::Sender<bool>, Serving), StartError> {
    let failed =
        |error| StartError::Listen { role: "clients", address: config.listen_client, error };
    let address = listener.local_addr().map_err(failed)?;
    let listener = TcpListener::from_std(listener).map_err(failed)?;
    let (reporter, health) = tonic_health::server::health_reporter();
    let stopping = watch::Sender::new(false);
    tokio::spawn(report_health(reporter, edge.board.led(), stopping.subscribe()));
    let routes = grpc::routes(grpc::Inner {
        driver: Arc::clone(driver),
        edge: Arc::clone(edge),
        cluster: config.cluster,
        member: config.member,
        incarnation,
        request_timeout: config.request_time_max(),
        members: config.members.clone(),
        table_path: config.data_dir.join("table"),
    });
    let mut stop = stopping.subscribe();
    let stopped = async move { drop(stop.wait_for(|stop| *stop).await) };
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let incoming = incoming.map(|accepted| accepted.map(Lenient::new));
    let serving = tonic::transport::Server::builder()
        .max_concurrent_streams(CLIENT_STREAMS_MAX)
        .add_routes(routes.add_service(health))
        .serve_with_incoming_shutdown(incoming, stopped);
    Ok((address, stopping, tokio::spawn(serving)))
}

/// A server is healthy while it knows a leader.
async fn report_health(
    reporter: HealthReporter,
    mut led: watch::Receiver<bool>,
    mut stopping: watch::Receiver<bool>,
) {
    loop {
        let healthy = *led.borrow_and_update();
        let status = if healthy { ServingStatus::Serving } else { ServingStatus::NotServing };
        // The empty name is the server as a whole.
        reporter.set_service_status("", status).await;
        reporter.set_service_status("etcdserverpb.KV", status).await;
        tokio::select! {
            changed = led.changed() => if changed.is_err() { return },
            _ = stopping.wait_for(|stop| *stop) => return,
        }
    }
}

/// Names this life of a server: later than all before it, as far as the clock is right, and not the
/// same as any other, whatever the clock says.
fn draw_incarnation() -> u64 {
    const DRAWN_BITS: u64 = (1 << 10) - 1;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
    now & !DRAWN_BITS | draw() & DRAWN_BITS
}

/// A number that no one has drawn before: the keys of the standard library's maps are random.
pub(crate) fn draw() -> u64 {
    let mut hasher = RandomState::new().build_hasher();
    hasher.write_u32(std::process::id());
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    hasher.write_u128(now.as_nanos());
    hasher.finish()
}
