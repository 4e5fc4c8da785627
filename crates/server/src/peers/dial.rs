//! The outgoing side: keeps one connection to one peer, and writes the queue to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kvraft_base::{DecodeError, Index, Prng, limits::MEMBER_ADDRESSES_MAX};
use tokio::{net::TcpStream, sync::watch, time};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message},
};

use super::{
    HANDSHAKE_MAX, Net,
    frame::{
        Answer, FEATURES, Hello, Lane, PROTOCOL_LEASE, PROTOCOL_MAX, PROTOCOL_MIN, seal, unseal,
    },
    link::Peer,
    web_socket_config,
};

type Socket = WebSocketStream<TcpStream>;

/// Bytes taken from the queue for one flush: large enough to amortise the system call, small enough
/// that a ping is never far behind.
const BATCH_SIZE_BYTES_MAX: usize = 512 * 1024;

/// Least time that one batch may take, however short the patience.
const WRITE_MIN: Duration = Duration::from_secs(5);

/// Why an outgoing connection did not come about or has ended.
#[derive(Debug, thiserror::Error)]
enum DialError {
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    #[error("{0}")]
    Socket(#[from] tungstenite::Error),
    #[error("refused: {0}")]
    Refused(String),
    #[error("malformed answer to the greeting: {0}")]
    Answer(#[from] DecodeError),
    #[error("no answer within {0:?}")]
    Slow(Duration),
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("closed by the peer")]
    Closed,
    #[error("the peer sent a frame in the wrong direction")]
    WrongWay,
    #[error(
        "it speaks protocol {protocol}, which says nothing of lease-reads; this server has them"
    )]
    Unaware { protocol: u32 },
    #[error("this server was removed from the cluster by the change at {0}")]
    Removed(Index),
    #[error("it is to be found elsewhere")]
    Moved,
    #[error("no address of it is known")]
    Homeless,
    #[error("cut by this server on purpose")]
    Kicked,
    #[error(
        "another process runs as this member and has started later ({incarnation}): only one may"
    )]
    Superseded { incarnation: u64 },
}

impl DialError {
    /// Whether the peer has said no, and not only now.
    fn is_settled(&self) -> bool {
        matches!(
            self,
            Self::Refused(_)
                | Self::Superseded { .. }
                | Self::Removed(_)
                | Self::Homeless
                | Self::Unaware { .. }
        )
    }
}

/// Keeps a connection until the server stops, or the peer is none any more.
pub(super) async fn dial(net: Arc<Net>, peer: Arc<Peer>, lane: Lane) {
    tokio::select! {
        () = net.stopped() => {}
        () = peer.gone() => {}
        () = keep(&net, &peer, lane) => {}
    }
    // Any way no connection is left; the queue must not fill up for nobody.
    peer.outgoing_down(lane);
}

/// Dials, writes until the connection ends, waits, and begins again.
async fn keep(net: &Net, peer: &Peer, lane: Lane) {
    let mut backoff = Backoff::new(net, peer, lane);
    let mut last_problems = BTreeMap::new();
    let mut claims = Claims::default();
    // Which of the addresses is tried.
    let mut turn = 0;
    loop {
        let mut kicked = peer.kick.subscribe();
        let mut moved = peer.moved.subscribe();
        let addresses = peer.addresses();
        let address = addresses.get(turn % addresses.len().max(1)).map_or("", String::as_str);
        let mut more = false;
        let problem = match greet_in_time(net, peer, lane, address).await {
            Ok((mut socket, incarnation)) => {
                tracing::info!(
                    peer = %peer.id, lane = lane.name(), %address, incarnation, "connected to peer"
                );
                backoff.reset();
                last_problems.clear();
                claims = Claims::default();
                peer.outgoing_up(lane);
                let end = tokio::select! {
                    end = pump(net, peer, lane, &mut socket) => end,
                    _ = kicked.changed() => DialError::Kicked,
                    () = elsewhere(peer, &mut moved, address) => DialError::Moved,
                };
                peer.outgoing_down(lane);
                end
            }
            Err(problem) => {
                if problem.is_settled() {
                    // It will not change its mind soon.
                    backoff.slow();
                }
                turn += 1;
                more = !turn.is_multiple_of(addresses.len().max(1));
                problem
            }
        };
        tell(peer, lane, address, &problem, &mut last_problems);
        claims.hear(net, peer, &problem);
        // The next address, or a new one, is tried at once, and all of them again after a while.
        let at_once = more || matches!(problem, DialError::Moved);
        let wait = if at_once { Duration::ZERO } else { backoff.next() };
        tokio::select! {
            () = time::sleep(wait) => {}
            () = peer.nudge.notified(), if !problem.is_settled() => {}
            _ = moved.changed() => backoff.reset(),
        }
    }
}

/// Returns when the peer is not expected at this address any more.
async fn elsewhere(peer: &Peer, moved: &mut watch::Receiver<u64>, address: &str) {
    while peer.addresses().iter().any(|known| known == address) {
        if moved.changed().await.is_err() {
            return;
        }
    }
}

/// Since when a peer says what this server would have to end for. Said once it may be out of date:
/// the peer is behind, or has not noticed yet who is gone. A welcome takes it back.
#[derive(Default)]
struct Claims {
    superseded: Option<Instant>,
    removed: Option<Instant>,
}

impl Claims {
    /// Tells the server of what was said for long enough. That nobody answers at one address says
    /// nothing about what was heard of a removal at another.
    fn hear(&mut self, net: &Net, peer: &Peer, problem: &DialError) {
        match problem {
            DialError::Superseded { incarnation } => {
                let since = *self.superseded.get_or_insert_with(Instant::now);
                if net.config.patience(Lane::Bulk) * 2 <= since.elapsed() {
                    peer.superseded(*incarnation);
                }
            }
            DialError::Removed(index) => {
                self.superseded = None;
                let since = *self.removed.get_or_insert_with(Instant::now);
                if net.config.linger <= since.elapsed() {
                    peer.told_removed(*index);
                }
            }
            _ => self.superseded = None,
        }
    }
}

/// Logs a problem with an address, loudly the first time only: a dead peer is dialled every second.
fn tell(
    peer: &Peer,
    lane: Lane,
    address: &str,
    problem: &DialError,
    last_problems: &mut BTreeMap<String, String>,
) {
    let text = problem.to_string();
    let (peer, lane) = (peer.id, lane.name());
    if last_problems.get(address) == Some(&text) {
        tracing::debug!(%peer, lane, %address, "peer connection: {text}");
    } else {
        tracing::warn!(%peer, lane, %address, "peer connection: {text}");
        if MEMBER_ADDRESSES_MAX < last_problems.len() {
            last_problems.clear();
        }
        last_problems.insert(address.to_owned(), text);
    }
}

async fn greet_in_time(
    net: &Net,
    peer: &Peer,
    lane: Lane,
    address: &str,
) -> Result<(Socket, u64), DialError> {
    if address.is_empty() {
        return Err(DialError::Homeless);
    }
    let greeted = time::timeout(HANDSHAKE_MAX, greet(net, peer, lane, address)).await;
    greeted.unwrap_or(Err(DialError::Slow(HANDSHAKE_MAX)))
}

/// Connects and introduces this server. Yields the peer's incarnation, too.
async fn greet(
    net: &Net,
    peer: &Peer,
    lane: Lane,
    address: &str,
) -> Result<(Socket, u64), DialError> {
    let stream = TcpStream::connect(address).await.map_err(DialError::Connect)?;
    stream.set_nodelay(true).map_err(DialError::Connect)?;
    let url = format!("ws://{address}/kvraft/peer");
    let config = Some(web_socket_config());
    let (mut socket, _) = tokio_tungstenite::client_async_with_config(url, stream, config).await?;
    let hello = Hello {
        protocol_min: PROTOCOL_MIN,
        protocol_max: PROTOCOL_MAX,
        cluster: net.config.cluster,
        from: net.config.me,
        to: peer.id,
        incarnation: net.config.incarnation,
        lane,
        features: FEATURES,
        addresses: net.own_addresses(),
        lease: net.config.lease,
    };
    socket.send(Message::Binary(seal(0, &hello.encode()))).await?;
    let answer = match socket.next().await {
        Some(Ok(Message::Binary(frame))) => Answer::decode(unseal(0, frame)?)?,
        Some(Ok(_)) | None => return Err(DialError::Closed),
        Some(Err(error)) => return Err(error.into()),
    };
    match answer {
        Answer::Welcome { protocol, .. }
            if protocol < PROTOCOL_LEASE && net.config.lease.is_some() =>
        {
            Err(DialError::Unaware { protocol })
        }
        Answer::Welcome { incarnation, .. } => Ok((socket, incarnation)),
        Answer::Refused { reason } | Answer::OtherTerms { reason } => {
            Err(DialError::Refused(reason))
        }
        Answer::Superseded { incarnation } => Err(DialError::Superseded { incarnation }),
        Answer::Removed { index } => Err(DialError::Removed(index)),
    }
}

/// Writes the queue to the connection until that ends.
async fn pump(net: &Net, peer: &Peer, lane: Lane, socket: &mut Socket) -> DialError {
    let patience = net.config.patience(lane);
    let grace = net.config.ping_interval * 2;
    let mut ticks = time::interval(net.config.ping_interval);
    ticks.set_missed_tick_behavior(time::MissedTickBehavior::Delay);
    // The oldest ping without an answer.
    let mut unanswered: Option<Instant> = None;
    let mut number = 0;
    loop {
        // In this order: what has arrived before what is late, pings before a busy queue.
        let written = tokio::select! {
            biased;
            message = socket.next() => match message {
                Some(Ok(Message::Pong(_))) => {
                    unanswered = None;
                    if lane == Lane::Control {
                        peer.outgoing_alive(grace);
                    }
                    Ok(())
                }
                Some(Ok(Message::Ping(_))) => Ok(()),
                Some(Ok(Message::Close(_))) | None => Err(DialError::Closed),
                Some(Ok(_)) => Err(DialError::WrongWay),
                Some(Err(error)) => Err(error.into()),
            },
            _ = ticks.tick() => match unanswered {
                Some(since) if patience <= since.elapsed() => Err(DialError::Silent(patience)),
                _ => {
                    unanswered.get_or_insert_with(Instant::now);
                    in_time(patience, socket.send(Message::Ping(Bytes::new()))).await
                }
            },
            () = peer.queue(lane).arrived() => {
                in_time(patience, drain(peer, lane, socket, &mut number)).await
            }
        };
        if let Err(end) = written {
            return end;
        }
    }
}

/// Gives a write some time, so that a peer that reads nothing is found out.
async fn in_time(
    patience: Duration,
    write: impl Future<Output = Result<(), tungstenite::Error>>,
) -> Result<(), DialError> {
    let limit = (patience * 2).max(WRITE_MIN);
    match time::timeout(limit, write).await {
        Ok(written) => Ok(written?),
        Err(_) => Err(DialError::Silent(limit)),
    }
}

/// Writes one batch with one flush; asks to be called again if more is waiting.
async fn drain(
    peer: &Peer,
    lane: Lane,
    socket: &mut Socket,
    number: &mut u64,
) -> Result<(), tungstenite::Error> {
    let batch = peer.queue(lane).take(BATCH_SIZE_BYTES_MAX);
    let Some(_) = batch.first() else {
        return Ok(());
    };
    let (count, size) = (batch.len() as u64, batch.iter().map(Bytes::len).sum::<usize>() as u64);
    for payload in batch {
        *number += 1;
        socket.feed(Message::Binary(seal(*number, &payload))).await?;
    }
    socket.flush().await?;
    peer.counters.frames_sent.fetch_add(count, Ordering::Relaxed);
    peer.counters.bytes_sent.fetch_add(size, Ordering::Relaxed);
    peer.queue(lane).again();
    Ok(())
}

/// Growing, jittered waits between attempts.
struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    prng: Prng,
}

impl Backoff {
    fn new(net: &Net, peer: &Peer, lane: Lane) -> Self {
        let config = &net.config;
        let seed = config.incarnation ^ config.me.0.rotate_left(21) ^ peer.id.0.rotate_left(42);
        Self {
            min: config.backoff_min,
            max: config.backoff_max,
            next: config.backoff_min,
            prng: Prng::new(seed).fork(lane.name()),
        }
    }

    fn reset(&mut self) {
        self.next = self.min;
    }

    fn slow(&mut self) {
        self.next = self.max;
    }

    /// Between half of the current wait and all of it; then the wait doubles.
    fn next(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.max);
        self.prng.duration(wait / 2, wait)
    }
}
