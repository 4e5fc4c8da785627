//! How servers reach each other: WebSocket connections that come back by themselves.
//!
//! Each server dials every other with two connections, control and bulk; frames travel from dialer
//! to acceptor only, so a pair of servers has two connections in each direction and both can be
//! busy at once without a lock between reading and writing.
//!
//! Invariants:
//! - [`PeerNet::send`] never blocks and never awaits; what finds no room or no connection is
//!   dropped, counted, and said to be. Raft tolerates loss;
//! - a slow or dead peer has its own tasks and queues, so it delays nobody else;
//! - a frame is delivered whole, checked and in order, or not at all; a connection that delivers
//!   anything else is closed, and the peer named in a warning;
//! - a peer that ends is noticed at once (its sockets close), one that falls silent after
//!   [`PeerConfig::silence_max`];
//! - peers come and go while frames flow, see `roster`; the connections of those who stay are not
//!   touched.
//!
//! What it lacks: TLS.

use std::{
    collections::BTreeMap,
    fmt, io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError, RwLock, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{ClusterId, Index, MemberId, limits::FRAME_SIZE_BYTES_MAX};
use tokio::{runtime::Handle, sync::watch, task::JoinSet};
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

mod accept;
mod dial;
mod frame;
mod link;
mod probe;
mod queue;
mod roster;

pub use frame::{Lane, LeaseTerms};
pub use probe::probe_peer;
pub use roster::Peers;
use roster::Roster;

/// Who is where, and how patient to be.
#[derive(Clone, Debug)]
pub struct PeerConfig {
    /// Peers of another cluster are refused.
    pub cluster: ClusterId,
    /// This server.
    pub me: MemberId,
    /// Names this run of this server; a later run has a greater one. Of two processes that run as
    /// one member, peers keep the later.
    pub incarnation: u64,
    /// Where peers are listened for. Port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Who is dialled from the start.
    pub peers: Peers,
    /// Time between pings on each connection.
    pub ping_interval: Duration,
    /// A control connection whose peer has said nothing for this long is dead. Bulk connections get
    /// ten times as long, because a ping waits behind the frame before it.
    pub silence_max: Duration,
    /// How long a peer that has left the configuration keeps its connections; and how long a peer
    /// must say that this server has left before it counts.
    pub linger: Duration,
    /// First wait before dialling again; doubles with every failure.
    pub backoff_min: Duration,
    /// Longest wait before dialling again.
    pub backoff_max: Duration,
    /// On what terms this server's reads are answered by lease, if they are. A peer with other
    /// terms is refused: its vote may make a leader while this server's lease lasts.
    pub lease: Option<LeaseTerms>,
}

impl PeerConfig {
    /// A configuration with the usual timings: pings every `heartbeat_interval`, silence after ten.
    #[must_use]
    pub fn new(
        cluster: ClusterId,
        me: MemberId,
        incarnation: u64,
        listen: SocketAddr,
        peers: Peers,
        heartbeat_interval: Duration,
    ) -> Self {
        let silence_max = (heartbeat_interval * 10).max(Duration::from_millis(500));
        Self {
            cluster,
            me,
            incarnation,
            listen,
            peers,
            ping_interval: heartbeat_interval,
            silence_max,
            linger: silence_max * 4,
            backoff_min: Duration::from_millis(20),
            backoff_max: Duration::from_secs(1),
            lease: None,
        }
    }

    /// How long a connection may be silent.
    fn patience(&self, lane: Lane) -> Duration {
        match lane {
            Lane::Control => self.silence_max,
            Lane::Bulk => self.silence_max * 10,
        }
    }
}

/// What happens at the border to the peers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PeerEvent {
    /// The outgoing control connection to this peer is up.
    Connected {
        /// The peer.
        peer: MemberId,
    },
    /// A control connection to or from this peer has ended. This is the evidence of a death.
    Disconnected {
        /// The peer.
        peer: MemberId,
    },
    /// Another process runs as this member, has started later, and is the one that counts: this
    /// one must end.
    Superseded {
        /// Who said so.
        peer: MemberId,
        /// The other process.
        incarnation: u64,
    },
    /// This server is no member any more, and never will be again: so this peer has said for
    /// [`PeerConfig::linger`], and says it again and again. If nothing speaks against it, this
    /// server must end.
    Removed {
        /// Who said so.
        peer: MemberId,
        /// The configuration without it.
        index: Index,
    },
    /// A checked frame.
    Frame {
        /// Who sent it.
        peer: MemberId,
        /// On which connection.
        lane: Lane,
        /// Its bytes.
        payload: Bytes,
    },
}

/// Why the peer network could not start.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    /// The port is in use, or may not be used.
    #[error("cannot listen for peers on {address}: {source}")]
    Listen {
        /// The address that was asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Started outside a tokio runtime.
    #[error("the peer network needs a tokio runtime")]
    NoRuntime,
}

/// Why a frame was dropped before it left.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// There is no connection.
    #[error("no connection")]
    Closed,
    /// Too much is waiting for the connection already.
    #[error("too much is waiting")]
    Full,
    /// The frame is over [`FRAME_SIZE_BYTES_MAX`].
    #[error("too large for a frame")]
    TooLarge,
    /// The addressee is no peer.
    #[error("no such peer")]
    Stranger,
}

/// What went to and came from one peer since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Whether the last event was [`PeerEvent::Connected`].
    pub connected: bool,
    /// Frames written to a connection.
    pub frames_sent: u64,
    /// Payload bytes written to a connection.
    pub bytes_sent: u64,
    /// Frames delivered.
    pub frames_received: u64,
    /// Payload bytes delivered.
    pub bytes_received: u64,
    /// Frames that found no connection or no room, or waited when their connection ended.
    pub frames_dropped: u64,
    /// Outgoing connections established, of both lanes.
    pub connects: u64,
    /// Incoming frames that were not believed; each has cost its connection.
    pub bad_frames: u64,
    /// Incoming frames that found no room in this server.
    pub frames_refused: u64,
    /// Bytes that wait for the control connection now.
    pub control_bytes_waiting: u64,
    /// Bytes that wait for the bulk connection now.
    pub bulk_bytes_waiting: u64,
}

type Events = Arc<dyn Fn(PeerEvent) -> bool + Send + Sync>;

/// What all tasks share.
struct Net {
    config: PeerConfig,
    events: Events,
    roster: RwLock<Roster>,
    /// Turns true when the server stops.
    stop: watch::Sender<bool>,
    runtime: Handle,
    /// `None` once the server stops.
    tasks: Mutex<Option<JoinSet<()>>>,
}

impl Net {
    /// Ends when the server stops.
    async fn stopped(&self) {
        // An error means that the sender is gone, which is a stop too.
        self.stop.subscribe().wait_for(|stop| *stop).await.ok();
    }

    /// Runs a task until it ends or the server stops.
    fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tasks) = &mut *tasks {
            while tasks.try_join_next().is_some() {}
            tasks.spawn_on(task, &self.runtime);
        }
    }

    /// The tasks that run; from now on there are no others.
    fn take_tasks(&self) -> Option<JoinSet<()>> {
        self.tasks.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The connections to all peers. Dropping it closes them.
pub struct PeerNet {
    net: Arc<Net>,
    local_address: SocketAddr,
}

impl Drop for PeerNet {
    fn drop(&mut self) {
        // The tasks share what owns them.
        drop(self.net.take_tasks());
    }
}

impl fmt::Debug for PeerNet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PeerNet")
            .field("me", &self.net.config.me)
            .field("local_address", &self.local_address)
            .finish_non_exhaustive()
    }
}

impl PeerNet {
    /// Listens on the configured address and begins to dial. Must be called within a tokio runtime.
    /// `events` is called from the tasks of the connections, sometimes with a lock held: it must
    /// return at once. False of a frame says that there was no room for it.
    ///
    /// # Errors
    /// [`PeerError`] when the address cannot be listened on.
    pub fn start(
        config: PeerConfig,
        events: impl Fn(PeerEvent) -> bool + Send + Sync + 'static,
    ) -> Result<Self, PeerError> {
        let address = config.listen;
        let listener =
            TcpListener::bind(address).map_err(|source| PeerError::Listen { address, source })?;
        Self::start_on(listener, config, events)
    }

    /// As [`PeerNet::start`], on a socket that listens already.
    ///
    /// # Errors
    /// As [`PeerNet::start`].
    pub fn start_on(
        listener: TcpListener,
        config: PeerConfig,
        events: impl Fn(PeerEvent) -> bool + Send + Sync + 'static,
    ) -> Result<Self, PeerError> {
        let runtime = Handle::try_current().map_err(|_| PeerError::NoRuntime)?;
        let address = config.listen;
        let refused = |source| PeerError::Listen { address, source };
        listener.set_nonblocking(true).map_err(refused)?;
        let local_address = listener.local_addr().map_err(refused)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(refused)?;

        let peers = config.peers.clone();
        let net = Arc::new(Net {
            config,
            events: Arc::new(events),
            roster: RwLock::default(),
            stop: watch::Sender::new(false),
            runtime,
            tasks: Mutex::new(Some(JoinSet::new())),
        });
        net.set_peers(peers);
        net.spawn(accept::accept(Arc::clone(&net), listener));
        Ok(Self { net, local_address })
    }

    /// Has other peers from now on: new ones are dialled, those whose addresses have changed are
    /// dialled elsewhere, and those who are none any more are parted with after a while. May be
    /// called from any thread, and returns at once.
    pub fn set_peers(&self, peers: Peers) {
        self.net.set_peers(peers);
    }

    /// Where peers are listened for.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Queues a frame for a peer.
    ///
    /// # Errors
    /// [`SendError`] if it was dropped instead; nothing of it has left. A frame that was queued may
    /// get lost as well, together with its connection.
    pub fn send(&self, to: MemberId, lane: Lane, payload: Bytes) -> Result<(), SendError> {
        let roster = self.net.roster();
        let peer = roster.peers.get(&to).ok_or(SendError::Stranger)?;
        let size = payload.len();
        let sent = if size <= FRAME_SIZE_BYTES_MAX {
            peer.queue(lane).push(payload)
        } else {
            tracing::error!(peer = %to, size, "a frame is too large for the peer protocol: dropped");
            Err(SendError::TooLarge)
        };
        if sent.is_err() {
            peer.counters.frames_dropped.fetch_add(1, Ordering::Relaxed);
        }
        sent
    }

    /// Cuts every connection to and from a peer, without a word; they come back by themselves.
    pub fn kick(&self, peer: MemberId) {
        if let Some(peer) = self.net.peer(peer) {
            peer.kick.send_modify(|count| *count += 1);
        }
    }

    /// Counters by peer.
    #[must_use]
    pub fn counts(&self) -> BTreeMap<MemberId, PeerCounts> {
        // Not with the roster locked: who holds a peer's state may look at the roster.
        let peers = self.net.roster().peers.clone();
        peers.iter().map(|(id, peer)| (*id, peer.counts())).collect()
    }

    /// Closes the listener and every connection, and waits until that is done.
    pub async fn shutdown(&self) {
        self.net.stop.send_replace(true);
        let Some(mut tasks) = self.net.take_tasks() else { return };
        let ended = async { while tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(SHUTDOWN_MAX, ended).await.is_err() {
            tracing::warn!("peer connections did not close in time and were cut");
        }
    }
}

/// Longest wait for connections to close at the end.
const SHUTDOWN_MAX: Duration = Duration::from_secs(2);

/// Longest wait for a connection, its handshake and its greeting.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// Longest wait for the other side of a farewell.
const FAREWELL_MAX: Duration = Duration::from_millis(200);

/// Limits of the WebSocket layer: whatever is larger than a frame is refused before it is read.
fn web_socket_config() -> WebSocketConfig {
    WebSocketConfig::default()
        .max_message_size(Some(frame::MESSAGE_SIZE_BYTES_MAX))
        .max_frame_size(Some(frame::MESSAGE_SIZE_BYTES_MAX))
}

#[cfg(test)]
mod tests;
