//! The peer network on loopback.

use std::{
    collections::BTreeMap,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    time::Duration,
};

use kvraft_base::{ClusterId, Index, MemberId};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

use super::{Lane, PeerConfig, PeerEvent, PeerNet, Peers};

mod chaos;
mod lease;
mod members;
mod proxy;
mod refusals;
mod traffic;
mod twins;

const CLUSTER: ClusterId = ClusterId(0xc1);
const A: MemberId = MemberId(1);
const B: MemberId = MemberId(2);
const C: MemberId = MemberId(3);

/// Longest wait for anything that must happen.
const SOON: Duration = Duration::from_secs(10);

/// A server's peer network and what it reported.
struct Server {
    net: Arc<PeerNet>,
    events: UnboundedReceiver<PeerEvent>,
}

impl Server {
    /// The next event, which must come soon.
    async fn event(&mut self) -> PeerEvent {
        tokio::time::timeout(SOON, self.events.recv()).await.expect("an event is due").unwrap()
    }

    /// Skips events until this one.
    async fn wait_for(&mut self, wanted: &PeerEvent) {
        while self.event().await != *wanted {}
    }
}

/// A port that listens already, so that its address can be told to others first.
fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn config(me: MemberId, peers: &[(MemberId, SocketAddr)]) -> PeerConfig {
    let peers = peers_at(peers);
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut config = PeerConfig::new(CLUSTER, me, 7, listen, peers, Duration::from_millis(100));
    config.backoff_min = Duration::from_millis(5);
    config
}

/// These, in a configuration that is committed, and nobody else ever.
fn peers_at(peers: &[(MemberId, SocketAddr)]) -> Peers {
    let addresses: BTreeMap<_, _> =
        peers.iter().map(|(id, at)| (*id, vec![at.to_string()])).collect();
    let id_max = addresses.keys().max().copied().unwrap_or_default();
    Peers { addresses, id_max, settled: Some(Index(1)) }
}

fn start(listener: TcpListener, config: PeerConfig) -> Server {
    let (sender, events) = unbounded_channel();
    let net = PeerNet::start_on(listener, config, move |event| sender.send(event).is_ok());
    Server { net: Arc::new(net.unwrap()), events }
}

/// Two servers that know each other.
fn pair() -> (Server, Server) {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    (start(a, config(A, &[(B, b_at)])), start(b, config(B, &[(A, a_at)])))
}
