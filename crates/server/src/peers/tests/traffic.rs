//! Frames, connections and deaths in good weather.

use std::time::{Duration, Instant};

use bytes::Bytes;
use kvraft_base::limits::{
    FRAME_SIZE_BYTES_MAX, PEER_FRAME_OVERHEAD_BYTES, PEER_QUEUE_SIZE_BYTES_MAX,
    PEER_RESERVE_SIZE_BYTES,
};

use super::{A, B, C, Lane, PeerEvent, Server, config, listener, pair, start};
use crate::peers::SendError;

/// Sends until the lane's connection is up, since there is no event for the bulk lane.
async fn send_until_sent(from: &Server, to: kvraft_base::MemberId, lane: Lane, payload: &Bytes) {
    while from.net.send(to, lane, payload.clone()).is_err() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Both lanes carry frames both ways, the greatest one included, and they are counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_arrive_on_their_lanes() {
    let (mut a, mut b) = pair();
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    b.wait_for(&PeerEvent::Connected { peer: A }).await;
    let largest = Bytes::from(vec![7; FRAME_SIZE_BYTES_MAX]);
    for (lane, payload) in [(Lane::Control, Bytes::from_static(b"x")), (Lane::Bulk, largest)] {
        send_until_sent(&a, B, lane, &payload).await;
        b.wait_for(&PeerEvent::Frame { peer: A, lane, payload: payload.clone() }).await;
        send_until_sent(&b, A, lane, &payload).await;
        a.wait_for(&PeerEvent::Frame { peer: B, lane, payload }).await;
    }
    let counts = b.net.counts()[&A];
    assert!(counts.connected);
    assert_eq!((counts.frames_received, counts.connects), (2, 2));
    assert_eq!(counts.bytes_received, 1 + FRAME_SIZE_BYTES_MAX as u64);
}

/// A stranger as addressee, a frame over the limit and a frame without a connection are dropped.
#[tokio::test]
async fn undeliverable_frames_are_dropped_and_counted() {
    let ((a, _), (_unused, nobody)) = (listener(), listener());
    let a = start(a, config(A, &[(B, nobody)]));
    let oversized = Bytes::from(vec![0; FRAME_SIZE_BYTES_MAX + 1]);
    assert_eq!(a.net.send(C, Lane::Control, Bytes::new()), Err(SendError::Stranger));
    assert_eq!(a.net.send(B, Lane::Control, oversized), Err(SendError::TooLarge));
    assert_eq!(a.net.send(B, Lane::Control, Bytes::new()), Err(SendError::Closed));
    assert_eq!(a.net.counts()[&B].frames_dropped, 2);
}

/// The end of a process is noticed at once, and its return soon after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn death_is_noticed_at_once() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let mut a = start(a, config(A, &[(B, b_at)]));
    let first = start(b, config(B, &[(A, a_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let died = Instant::now();
    drop(first);
    a.wait_for(&PeerEvent::Disconnected { peer: B }).await;
    assert!(died.elapsed() < Duration::from_millis(250), "took {:?}", died.elapsed());
    let again = loop {
        // The port is free once the dropped tasks are gone.
        match std::net::TcpListener::bind(b_at) {
            Ok(listener) => break listener,
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    };
    let _second = start(again, config(B, &[(A, a_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
}

/// A peer that accepts and then says nothing more is given up after the configured silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_is_death() {
    use crate::peers::tests::proxy::Proxy;
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let proxy = Proxy::start(b_at).await;
    let mut quick = config(A, &[(B, proxy.address)]);
    quick.ping_interval = Duration::from_millis(20);
    quick.silence_max = Duration::from_millis(200);
    let mut a = start(a, quick);
    let mut slow = config(B, &[(A, a_at)]);
    slow.silence_max = Duration::from_secs(60);
    let _b = start(b, slow);
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    proxy.freeze();
    a.wait_for(&PeerEvent::Disconnected { peer: B }).await;
}

/// A peer that reads nothing fills its own queue, which is bounded, and delays nobody else.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn slow_peer_does_not_block_another() {
    use crate::peers::tests::proxy::Proxy;
    let ((a, a_at), (b, b_at), (c, c_at)) = (listener(), listener(), listener());
    let proxy = Proxy::start(b_at).await;
    let mut patient = config(A, &[(B, proxy.address), (C, c_at)]);
    patient.silence_max = Duration::from_secs(60);
    let mut a = start(a, patient);
    let mut patient = config(B, &[(A, a_at)]);
    patient.silence_max = Duration::from_secs(60);
    let _b = start(b, patient);
    let mut c = start(c, config(C, &[(A, a_at)]));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    c.wait_for(&PeerEvent::Connected { peer: A }).await;
    proxy.freeze();
    let payload = Bytes::from(vec![1; 256 * 1024]);
    let begun = Instant::now();
    let mut sent = 0;
    while a.net.send(B, Lane::Control, payload.clone()).is_ok() {
        sent += 1;
        // Lets the connection swallow what it can.
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    assert!(sent * payload.len() < 4 * PEER_QUEUE_SIZE_BYTES_MAX);
    // What is small and urgent still finds room, and that has an end as well.
    let mut tiny = || a.net.send(B, Lane::Control, Bytes::from_static(b"!"));
    let tiny = std::iter::repeat_with(&mut tiny).take_while(Result::is_ok).count();
    let most = (PEER_RESERVE_SIZE_BYTES + payload.len()) / PEER_FRAME_OVERHEAD_BYTES;
    assert!(1000 < tiny && tiny <= most, "{tiny}");
    let waiting = a.net.counts()[&B].control_bytes_waiting;
    assert!(waiting <= (PEER_QUEUE_SIZE_BYTES_MAX + PEER_RESERVE_SIZE_BYTES) as u64);
    for round in 0..100_u8 {
        let payload = Bytes::from(vec![round]);
        send_until_sent(&a, C, Lane::Control, &payload).await;
        c.wait_for(&PeerEvent::Frame { peer: A, lane: Lane::Control, payload }).await;
        let sent = a.net.send(B, Lane::Control, Bytes::from(vec![1; 256 * 1024]));
        assert_eq!(sent, Err(SendError::Full));
    }
    assert!(begun.elapsed() < Duration::from_secs(5), "took {:?}", begun.elapsed());
}

/// A stop closes both ends in time, and frees the port.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shutdown_is_clean() {
    let (a, mut b) = pair();
    b.wait_for(&PeerEvent::Connected { peer: A }).await;
    let begun = Instant::now();
    a.net.shutdown().await;
    assert!(begun.elapsed() < Duration::from_secs(1), "took {:?}", begun.elapsed());
    b.wait_for(&PeerEvent::Disconnected { peer: A }).await;
    std::net::TcpListener::bind(a.net.local_address()).unwrap();
    assert_eq!(a.net.send(B, Lane::Control, Bytes::new()), Err(SendError::Closed));
}
