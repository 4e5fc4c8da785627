//! What the peer port does with strangers, liars and noise.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use kvraft_base::{ClusterId, MemberId, limits::FRAME_SIZE_BYTES_MAX};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use super::{A, B, C, CLUSTER, Lane, PeerEvent, SOON, config, listener, pair, start};
use crate::peers::frame::{Answer, Hello, HelloError, seal, unseal};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) fn hello() -> Hello {
    Hello {
        protocol_min: 1,
        protocol_max: 1,
        cluster: CLUSTER,
        from: B,
        to: A,
        incarnation: 9,
        lane: Lane::Control,
        features: 0,
        addresses: Vec::new(),
        lease: None,
    }
}

/// Connects as a foreign program would and says this first.
pub(super) async fn greet(at: SocketAddr, first: Bytes) -> (Socket, Option<Answer>) {
    let (mut socket, _) = tokio_tungstenite::connect_async(format!("ws://{at}/")).await.unwrap();
    socket.send(Message::Binary(first)).await.unwrap();
    let answer = match socket.next().await {
        Some(Ok(Message::Binary(frame))) => {
            Some(Answer::decode(unseal(0, frame).unwrap()).unwrap())
        }
        _ => None,
    };
    (socket, answer)
}

pub(super) async fn assert_closed(socket: &mut Socket) {
    let ended = async { while let Some(Ok(_)) = socket.next().await {} };
    tokio::time::timeout(SOON, ended).await.expect("the connection must be closed");
}

/// Each wrong greeting is answered with what is wrong, and closed.
#[tokio::test]
async fn wrong_greetings_are_refused_with_the_reason() {
    let ((a, at), (_b, b_at)) = (listener(), listener());
    let _a = start(a, config(A, &[(B, b_at)]));
    let cases = [
        (Hello { cluster: ClusterId(0xbad), ..hello() }, "is of cluster bad"),
        (Hello { to: C, ..hello() }, "member 3 was asked for"),
        (Hello { from: MemberId(99), ..hello() }, "member 63 is unknown here"),
        (Hello { from: A, ..hello() }, "is this server itself"),
        (Hello { protocol_min: 7, protocol_max: 9, ..hello() }, "versions 7 to 9 are offered"),
    ];
    for (hello, expected) in cases {
        let (mut socket, answer) = greet(at, seal(0, &hello.encode())).await;
        let Some(Answer::Refused { reason }) = answer else {
            panic!("{hello:?} was answered {answer:?}");
        };
        assert!(reason.contains(expected), "{reason}");
        assert_closed(&mut socket).await;
    }
    for first in [Bytes::new(), Bytes::from_static(b"noise"), seal(1, &hello().encode())] {
        let (mut socket, answer) = greet(at, first).await;
        assert!(matches!(answer, Some(Answer::Refused { .. })), "{answer:?}");
        assert_closed(&mut socket).await;
    }
}

/// A server of another cluster never connects, and the refusal does not stop it from asking again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn foreign_cluster_never_connects() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let mut a = start(a, config(A, &[(B, b_at)]));
    let foreign = super::PeerConfig { cluster: ClusterId(0xbad), ..config(B, &[(A, a_at)]) };
    let mut b = start(b, foreign);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(a.events.try_recv().is_err() && b.events.try_recv().is_err());
    assert_eq!(a.net.counts()[&B].connects, 0);
}

/// Bytes that are no WebSocket, or none at all, disturb nobody.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_the_port_is_harmless() {
    let (mut a, b) = pair();
    for noise in [&b"\0\0\0\0\0\0\0\0"[..], b"GET / HTTP/1.1\r\n\r\n", &[0xff; 70_000], b""] {
        let mut stream = TcpStream::connect(a.net.local_address()).await.unwrap();
        stream.write_all(noise).await.ok();
        stream.shutdown().await.ok();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "the connection must be closed");
    }
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    let payload = Bytes::from_static(b"still here");
    while b.net.send(A, Lane::Control, payload.clone()).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    a.wait_for(&PeerEvent::Frame { peer: B, lane: Lane::Control, payload }).await;
}

/// A peer's flipped, repeated, oversized or wordy frame is not delivered and ends the connection.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_frames_end_the_connection() {
    let ((a, at), (b, b_at)) = (listener(), listener());
    drop(b);
    let mut a = start(a, config(A, &[(B, b_at)]));
    let good = seal(1, b"good");
    let mut flipped = seal(2, b"bad").to_vec();
    flipped[5] ^= 1;
    let bad = [
        Message::Binary(Bytes::from(flipped)),
        Message::Binary(good.clone()),
        Message::Binary(Bytes::from_static(b"abc")),
        Message::Binary(Bytes::from(vec![0; FRAME_SIZE_BYTES_MAX + 5])),
        Message::text("hello"),
    ];
    let count = bad.len() as u64;
    for message in bad {
        let (mut socket, answer) = greet(at, seal(0, &hello().encode())).await;
        assert!(matches!(answer, Some(Answer::Welcome { protocol: 1, .. })), "{answer:?}");
        socket.send(Message::Binary(good.clone())).await.unwrap();
        // The other side may close before everything is written.
        socket.send(message).await.ok();
        assert_closed(&mut socket).await;
        let payload = Bytes::from_static(b"good");
        assert_eq!(a.event().await, PeerEvent::Frame { peer: B, lane: Lane::Control, payload });
    }
    while a.net.counts()[&B].bad_frames < count {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert!(a.events.try_recv().is_err(), "nothing else was delivered");
}

/// A greeting survives its encoding, with what later versions may append.
#[test]
fn greeting_round_trips() {
    let mut bytes = hello().encode().to_vec();
    bytes.extend_from_slice(b"later");
    assert_eq!(Hello::decode(Bytes::from(bytes)).unwrap(), hello());
    let addresses = vec!["one:1".to_owned(), "two:2".to_owned()];
    let newer = Hello { protocol_max: 2, addresses, ..hello() };
    assert_eq!(Hello::decode(newer.encode()).unwrap(), newer);
    for hello in [hello(), newer] {
        for size in 0..hello.encode().len() {
            let cut = Hello::decode(hello.encode().slice(..size));
            assert!(matches!(cut, Err(HelloError::Malformed(_))), "{size}");
        }
    }
    for addresses in [vec!["x".repeat(262)], vec![String::new(); 9]] {
        let large = Hello { protocol_max: 2, addresses, ..hello() };
        assert!(matches!(Hello::decode(large.encode()), Err(HelloError::Malformed(_))));
    }
}
