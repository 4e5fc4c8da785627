//! The incoming side: listens, checks greetings, reads frames.

use std::{
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kvraft_base::{DecodeError, Index, MemberId};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    task::JoinSet,
    time,
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{self, Message, error::CapacityError},
};

use super::{
    FAREWELL_MAX, HANDSHAKE_MAX, Net,
    frame::{
        Answer, FEATURES, Hello, Lane, LeaseTerms, PROTOCOL_LEASE, PROTOCOL_MAX, PROTOCOL_MEMBERS,
        seal, unseal,
    },
    link::Peer,
    roster::Admission,
    web_socket_config,
};

type Socket = WebSocketStream<TcpStream>;

/// Most connections that have not introduced themselves yet. Members need two each; the rest are
/// strangers, and strangers may not use up our memory.
const STRANGER_COUNT_MAX: usize = 64;

/// Wait after a failed accept: usually too many open files, which takes time to pass.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Wait for room in this server before a bulk frame is offered again.
const ROOM_RETRY: Duration = Duration::from_millis(2);

/// Why an incoming connection was refused or has ended.
#[derive(Debug, thiserror::Error)]
enum AcceptError {
    #[error("{0}")]
    Socket(tungstenite::Error),
    #[error("refused: {0}")]
    Refused(String),
    #[error("no greeting within {0:?}")]
    Slow(Duration),
    #[error("no greeting")]
    Speechless,
    #[error("bad frame {number}: {error}")]
    BadFrame { number: u64, error: DecodeError },
    #[error("bad frame {number}: {error}")]
    BadMessage { number: u64, error: tungstenite::Error },
    #[error("nothing heard for {0:?}")]
    Silent(Duration),
    #[error("closed by the peer")]
    Closed,
    #[error("replaced by a newer connection")]
    Replaced,
    #[error("no peer any more")]
    Gone,
    #[error("member {member:x} was removed from the cluster by the change at {index}")]
    Removed { member: MemberId, index: Index },
    #[error("cut by this server on purpose")]
    Kicked,
    #[error(
        "two processes run as member {member:x}: this one is earlier than {incarnation}, and refused"
    )]
    Superseded { member: MemberId, incarnation: u64 },
}

/// Takes connections until the server stops.
pub(super) async fn accept(net: Arc<Net>, listener: TcpListener) {
    let strangers = Arc::new(Semaphore::new(STRANGER_COUNT_MAX));
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = net.stopped() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, address)) => {
                    let Ok(permit) = Arc::clone(&strangers).try_acquire_owned() else {
                        tracing::debug!(%address, "too many connections without a greeting");
                        continue;
                    };
                    let net = Arc::clone(&net);
                    connections.spawn(async move {
                        let greeted = time::timeout(HANDSHAKE_MAX, greet(&net, stream)).await;
                        drop(permit);
                        match greeted.unwrap_or(Err(AcceptError::Slow(HANDSHAKE_MAX))) {
                            Ok(greeted) => serve(&net, greeted).await,
                            Err(error) => refuse(address, &error),
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a peer connection");
                    time::sleep(ACCEPT_RETRY).await;
                }
            },
        }
    }
    // Closes the port before the connections, so that nobody comes back in between.
    drop(listener);
    while connections.join_next().await.is_some() {}
}

fn refuse(address: SocketAddr, error: &AcceptError) {
    tracing::warn!(%address, "connection on the peer port: {error}");
}

/// A connection whose greeting was welcomed.
struct Greeted {
    socket: Socket,
    peer: Arc<Peer>,
    lane: Lane,
    incarnation: u64,
}

/// Performs the handshake and answers the greeting.
async fn greet(net: &Arc<Net>, stream: TcpStream) -> Result<Greeted, AcceptError> {
    stream.set_nodelay(true).map_err(|error| AcceptError::Socket(error.into()))?;
    let config = Some(web_socket_config());
    let mut socket = tokio_tungstenite::accept_async_with_config(stream, config)
        .await
        .map_err(AcceptError::Socket)?;
    let frame = match socket.next().await {
        Some(Ok(Message::Binary(frame))) => frame,
        Some(Ok(_)) | None => return Err(AcceptError::Speechless),
        Some(Err(error)) => return Err(AcceptError::Socket(error)),
    };
    let checked = unseal(0, frame)
        .map_err(|error| format!("malformed greeting: {error}"))
        .and_then(|bytes| Hello::decode(bytes).map_err(|error| error.to_string()))
        .and_then(|hello| check(net, &hello).map(|()| hello));
    let hello = match checked {
        Ok(hello) => hello,
        Err(reason) => {
            let answer = Answer::Refused { reason: reason.clone() };
            return part(socket, &answer, AcceptError::Refused(reason)).await;
        }
    };
    if let Err(reason) = check_terms(net, &hello) {
        let answer = match hello.protocol_max {
            PROTOCOL_LEASE.. => Answer::OtherTerms { reason: reason.clone() },
            _ => Answer::Refused { reason: reason.clone() },
        };
        return part(socket, &answer, AcceptError::Refused(reason)).await;
    }
    let peer = match net.admit(&hello) {
        Admission::Welcome(peer) => peer,
        Admission::Removed(index) => {
            let removed = AcceptError::Removed { member: hello.from, index };
            let answer = match hello.protocol_max {
                PROTOCOL_MEMBERS.. => Answer::Removed { index },
                _ => Answer::Refused { reason: removed.to_string() },
            };
            return part(socket, &answer, removed).await;
        }
        Admission::Refused(reason) => {
            let answer = Answer::Refused { reason: reason.clone() };
            return part(socket, &answer, AcceptError::Refused(reason)).await;
        }
    };
    if let Some(incarnation) = peer.successor_of(hello.incarnation) {
        let error = AcceptError::Superseded { member: peer.id, incarnation };
        return part(socket, &Answer::Superseded { incarnation }, error).await;
    }
    let protocol = hello.protocol_max.min(PROTOCOL_MAX);
    let incarnation = net.config.incarnation;
    say(&mut socket, &Answer::Welcome { protocol, incarnation, features: FEATURES }).await?;
    Ok(Greeted { socket, peer, lane: hello.lane, incarnation: hello.incarnation })
}

/// Says why a connection ends, and ends it.
async fn part(
    mut socket: Socket,
    answer: &Answer,
    error: AcceptError,
) -> Result<Greeted, AcceptError> {
    say(&mut socket, answer).await?;
    // Best effort: the reason has been said.
    time::timeout(FAREWELL_MAX, socket.close(None)).await.ok();
    Err(error)
}

async fn say(socket: &mut Socket, answer: &Answer) -> Result<(), AcceptError> {
    let sent = socket.send(Message::Binary(seal(0, &answer.encode()))).await;
    sent.map_err(AcceptError::Socket)
}

/// Whether a greeting is for this server, and if not, what is wrong with it.
fn check(net: &Net, hello: &Hello) -> Result<(), String> {
    let config = &net.config;
    if hello.cluster != config.cluster {
        return Err(format!(
            "member {:x} is of cluster {:x}, this is cluster {:x}",
            hello.from, hello.cluster, config.cluster
        ));
    }
    if hello.to != config.me {
        return Err(format!("member {:x} was asked for, this is member {:x}", hello.to, config.me));
    }
    Ok(())
}

/// Whether a peer's terms for reads by lease are this server's, and if not, both.
fn check_terms(net: &Net, hello: &Hello) -> Result<(), String> {
    if hello.lease == net.config.lease {
        return Ok(());
    }
    let theirs = match hello.protocol_max {
        PROTOCOL_LEASE.. => LeaseTerms::describe(hello.lease),
        older => format!("protocol {older}, which says nothing of lease-reads"),
    };
    let own = LeaseTerms::describe(net.config.lease);
    let from = hello.from;
    Err(format!("member {from:x} has {theirs}; this server has {own}: they must be the same"))
}

/// Reads frames until the connection ends or the server stops.
async fn serve(net: &Net, greeted: Greeted) {
    let Greeted { mut socket, peer, lane, incarnation } = greeted;
    let mut kicked = peer.kick.subscribe();
    let Some((connection, mut replacement)) = peer.incoming_up(lane, incarnation) else {
        return; // Its next greeting is told why.
    };
    tracing::debug!(peer = %peer.id, lane = lane.name(), incarnation, "peer has connected");
    let end = tokio::select! {
        () = net.stopped() => {
            time::timeout(FAREWELL_MAX, socket.close(None)).await.ok();
            AcceptError::Closed
        }
        () = peer.gone() => {
            time::timeout(FAREWELL_MAX, socket.close(None)).await.ok();
            AcceptError::Gone
        }
        _ = kicked.changed() => AcceptError::Kicked,
        _ = replacement.changed() => AcceptError::Replaced,
        end = read(net, &peer, lane, connection, &mut socket) => end,
    };
    drop(socket);
    peer.incoming_down(lane, connection);
    let (id, lane) = (peer.id, lane.name());
    if matches!(end, AcceptError::BadFrame { .. } | AcceptError::BadMessage { .. }) {
        peer.counters.bad_frames.fetch_add(1, Ordering::Relaxed);
        tracing::warn!(peer = %id, lane, "connection from peer closed: {end}");
    } else {
        tracing::debug!(peer = %id, lane, "connection from peer has ended: {end}");
    }
}

/// Hands on checked frames.
async fn read(
    net: &Net,
    peer: &Peer,
    lane: Lane,
    connection: u64,
    socket: &mut Socket,
) -> AcceptError {
    let patience = net.config.patience(lane);
    let mut number = 0;
    loop {
        let Ok(message) = time::timeout(patience, socket.next()).await else {
            return AcceptError::Silent(patience);
        };
        match message {
            Some(Ok(Message::Binary(frame))) => {
                number += 1;
                match unseal(number, frame) {
                    Ok(payload) => hand_on(net, peer, lane, connection, payload).await,
                    Err(error) => return AcceptError::BadFrame { number, error },
                }
            }
            // The answer to a ping is written by the library with the next read.
            Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
            Some(Ok(Message::Close(_))) | None => return AcceptError::Closed,
            Some(Ok(Message::Text(_) | Message::Frame(_))) => {
                let error = DecodeError::Unknown { what: "kind of message", value: 1 };
                return AcceptError::BadFrame { number: number + 1, error };
            }
            Some(Err(error)) => return broken(number + 1, error),
        }
    }
}

/// Gives a frame to the server. On the bulk lane, nothing more is read until there is room: the
/// sender has more, and its turn to wait has come. On the control lane what finds no room is old
/// before there is some, and is dropped.
async fn hand_on(net: &Net, peer: &Peer, lane: Lane, connection: u64, payload: Bytes) {
    let patience = net.config.patience(lane) / 2;
    let deadline = time::Instant::now() + patience;
    while !peer.deliver(lane, connection, payload.clone()) {
        if lane == Lane::Control || deadline <= time::Instant::now() {
            return;
        }
        time::sleep(ROOM_RETRY).await;
    }
}

/// Tells a frame that breaks the rules from a connection that just broke.
fn broken(number: u64, error: tungstenite::Error) -> AcceptError {
    use tungstenite::{Error, error::ProtocolError};
    match error {
        Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => AcceptError::Closed,
        Error::Capacity(CapacityError::MessageTooLong { .. })
        | Error::Protocol(_)
        | Error::Utf8(_)
        | Error::AttackAttempt => AcceptError::BadMessage { number, error },
        other => AcceptError::Socket(other),
    }
}
