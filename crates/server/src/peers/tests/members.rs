//! Peers that come, go and move while the others work.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use kvraft_base::{Index, MemberId};

use super::{
    A, B, C, Lane, PeerConfig, PeerEvent, Peers, SOON, Server, config, listener, peers_at,
    refusals::{assert_closed, greet, hello},
    start,
};
use crate::peers::{
    SendError,
    frame::{Answer, Hello, seal},
};

/// Nobody for long, after it has left.
const LINGER: Duration = Duration::from_millis(300);

fn hasty(config: PeerConfig) -> PeerConfig {
    PeerConfig { linger: LINGER, backoff_max: Duration::from_millis(50), ..config }
}

/// Sends until there is a connection.
async fn send(from: &Server, to: MemberId, payload: &'static [u8]) {
    let sent = async {
        while from.net.send(to, Lane::Control, Bytes::from_static(payload)).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(SOON, sent).await.expect("there must be a connection soon");
}

fn frame(peer: MemberId, payload: &'static [u8]) -> PeerEvent {
    PeerEvent::Frame { peer, lane: Lane::Control, payload: Bytes::from_static(payload) }
}

/// A third server joins two that are busy with each other: it is heard and spoken to, and not one
/// of their frames is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_added_while_others_are_busy() {
    let ((a, a_at), (b, b_at), (c, c_at)) = (listener(), listener(), listener());
    let mut a = start(a, config(A, &[(B, b_at)]));
    let mut b = start(b, config(B, &[(A, a_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    let stop = Arc::new(AtomicBool::new(false));
    let (net, stopped) = (Arc::clone(&a.net), Arc::clone(&stop));
    let load = std::thread::spawn(move || {
        let mut number = 0_u64;
        while !stopped.load(Ordering::Relaxed) {
            let payload = Bytes::copy_from_slice(&number.to_le_bytes());
            net.send(B, Lane::Control, payload).expect("the connection stays");
            number += 1;
            std::thread::sleep(Duration::from_micros(200));
        }
        number
    });
    let all = peers_at(&[(A, a_at), (B, b_at), (C, c_at)]);
    a.net.set_peers(all.clone());
    b.net.set_peers(all.clone());
    let mut c = start(c, PeerConfig { peers: all, ..config(C, &[]) });
    a.wait_for(&PeerEvent::Connected { peer: C }).await;
    send(&a, C, b"welcome").await;
    c.wait_for(&frame(A, b"welcome")).await;
    send(&c, B, b"here I am").await;
    stop.store(true, Ordering::Relaxed);
    let sent = load.join().unwrap();
    let (mut expected, mut greeted) = (0, false);
    while expected < sent || !greeted {
        match b.event().await {
            PeerEvent::Frame { peer: A, payload, .. } => {
                assert_eq!(payload, Bytes::copy_from_slice(&expected.to_le_bytes()));
                expected += 1;
            }
            PeerEvent::Frame { .. } => greeted = true,
            PeerEvent::Connected { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(a.net.counts()[&B].connects, 2);
}

/// Who is removed is spoken to for a moment, then cut, told why, and not sent to any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_removed_is_told() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let mut a = start(a, hasty(config(A, &[(A, a_at), (B, b_at)])));
    let mut b = start(b, hasty(config(B, &[(A, a_at), (B, b_at)])));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    b.wait_for(&PeerEvent::Connected { peer: A }).await;
    a.net.set_peers(Peers { settled: Some(Index(5)), id_max: B, ..peers_at(&[(A, a_at)]) });
    send(&a, B, b"farewell").await;
    b.wait_for(&frame(A, b"farewell")).await;
    b.wait_for(&PeerEvent::Disconnected { peer: A }).await;
    b.wait_for(&PeerEvent::Removed { peer: A, index: Index(5) }).await;
    a.wait_for(&PeerEvent::Disconnected { peer: B }).await;
    let sent = a.net.send(B, Lane::Control, Bytes::new());
    assert_eq!(sent, Err(SendError::Stranger));
    assert!(a.net.counts().is_empty());
}

/// What is said once may be out of date: a server that is told that it was removed, and soon after
/// that it was not, goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_told_of_its_removal_waits_for_more() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let mut a = start(a, hasty(config(A, &[(A, a_at)])));
    a.net.set_peers(Peers { settled: Some(Index(5)), id_max: B, ..peers_at(&[(A, a_at)]) });
    let patient = PeerConfig { linger: SOON, ..hasty(config(B, &[(A, a_at), (B, b_at)])) };
    let mut b = start(b, patient);
    tokio::time::sleep(LINGER).await;
    a.net.set_peers(peers_at(&[(A, a_at), (B, b_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    assert_eq!(b.event().await, PeerEvent::Connected { peer: A });
}

/// A dialer of the first protocol is told in words; and nobody is told by a configuration that may
/// yet be undone.
#[tokio::test]
async fn removal_is_said_as_it_is_understood_and_when_it_is_certain() {
    let (a, at) = listener();
    let a = start(a, config(A, &[(A, at)]));
    let peers = Peers { settled: Some(Index(5)), id_max: B, ..peers_at(&[(A, at)]) };
    a.net.set_peers(peers.clone());
    let newer = Hello { protocol_max: 2, ..hello() };
    let (mut socket, answer) = greet(at, seal(0, &newer.encode())).await;
    assert_eq!(answer, Some(Answer::Removed { index: Index(5) }));
    assert_closed(&mut socket).await;
    let (_, answer) = greet(at, seal(0, &hello().encode())).await;
    let Some(Answer::Refused { reason }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("member 2 was removed from the cluster"), "{reason}");
    a.net.set_peers(Peers { settled: None, ..peers });
    let (_, answer) = greet(at, seal(0, &newer.encode())).await;
    let Some(Answer::Refused { reason }) = answer else { panic!("{answer:?}") };
    assert!(reason.contains("is unknown here"), "{reason}");
    // It may be the one that leads, and has to say that this server's configuration is undone.
    let reachable = Hello { addresses: vec!["127.0.0.1:1".to_owned()], ..newer };
    let (_, answer) = greet(at, seal(0, &reachable.encode())).await;
    assert!(matches!(answer, Some(Answer::Welcome { .. })), "{answer:?}");
}

/// A removal that may yet be undone leaves the connections as they were, for as long as it takes.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_comes_back_was_never_gone() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let mut a = start(a, hasty(config(A, &[(B, b_at)])));
    let mut b = start(b, config(B, &[(A, a_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    a.net.set_peers(Peers { settled: None, id_max: B, ..Peers::default() });
    tokio::time::sleep(LINGER * 2).await;
    a.net.set_peers(peers_at(&[(B, b_at)]));
    tokio::time::sleep(LINGER * 2).await;
    send(&a, B, b"still").await;
    b.wait_for(&frame(A, b"still")).await;
    assert_eq!(a.net.counts()[&B].connects, 2);
}

/// All addresses of a peer are tried, and a new one is dialled as soon as it is known.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_is_found_where_it_is() {
    let ((a, a_at), (b, b_at), (elsewhere, new_at)) = (listener(), listener(), listener());
    let (nobody, nobody_at) = listener();
    drop(nobody);
    let mut peers = peers_at(&[(B, nobody_at)]);
    peers.addresses.get_mut(&B).unwrap().push(b_at.to_string());
    let patient = Duration::from_secs(60);
    let mut a = start(a, PeerConfig { peers, backoff_min: patient, ..config(A, &[]) });
    let first = start(b, config(B, &[(A, a_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    a.net.set_peers(peers_at(&[(B, new_at)]));
    a.wait_for(&PeerEvent::Disconnected { peer: B }).await;
    first.net.shutdown().await;
    let mut second = start(elsewhere, PeerConfig { incarnation: 8, ..config(B, &[(A, a_at)]) });
    send(&a, B, b"found").await;
    second.wait_for(&frame(A, b"found")).await;
}

/// A server that this one has never heard of, because it was down when that one was added, is let
/// in and answered; when it has gone it is forgotten, and an earlier id is no excuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_later_member_is_heard_before_it_is_known() {
    let ((a, a_at), (c, c_at)) = (listener(), listener());
    let mut a = start(a, hasty(config(A, &[(A, a_at)])));
    let mut c = start(c, config(C, &[(A, a_at), (C, c_at)]));
    send(&c, A, b"news").await;
    a.wait_for(&frame(C, b"news")).await;
    send(&a, C, b"thanks").await;
    c.wait_for(&frame(A, b"thanks")).await;
    tokio::time::sleep(LINGER * 2).await;
    send(&a, C, b"thanks again").await;
    c.net.shutdown().await;
    a.wait_for(&PeerEvent::Disconnected { peer: C }).await;
    while !a.net.counts().is_empty() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    a.net.set_peers(Peers { id_max: C, settled: Some(Index(9)), ..peers_at(&[(A, a_at)]) });
    let late = Hello { from: C, protocol_max: 2, addresses: vec![c_at.to_string()], ..hello() };
    let (_, answer) = greet(a_at, seal(0, &late.encode())).await;
    assert_eq!(answer, Some(Answer::Removed { index: Index(9) }));
}
