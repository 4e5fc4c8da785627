//! Two processes that run as one member, and a server without room.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;

use super::{A, B, Lane, PeerConfig, PeerEvent, config, listener, start};
use crate::peers::PeerNet;

/// The later of two processes with one id keeps its connections in peace; the earlier is refused,
/// and told to end when that lasts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_later_of_two_processes_wins() {
    let ((a, a_at), (b, b_at), (other, _)) = (listener(), listener(), listener());
    let mut a = start(a, config(A, &[(B, b_at)]));
    let hasty = |incarnation| PeerConfig {
        incarnation,
        silence_max: Duration::from_millis(100),
        backoff_max: Duration::from_millis(50),
        ..config(B, &[(A, a_at)])
    };
    let mut earlier = start(b, hasty(7));
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    earlier.wait_for(&PeerEvent::Connected { peer: A }).await;
    let later = start(other, hasty(8));
    earlier.wait_for(&PeerEvent::Superseded { peer: A, incarnation: 8 }).await;
    // The loop in which both replace each other would show here.
    let before = later.net.counts()[&A].connects;
    assert!((1..=2).contains(&before), "{before}");
    let connects = earlier.net.counts()[&A].connects;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(later.net.counts()[&A].connects, before);
    assert_eq!(earlier.net.counts()[&A].connects, connects);
    let payload = Bytes::from_static(b"from the later one");
    later.net.send(A, Lane::Control, payload.clone()).unwrap();
    a.wait_for(&PeerEvent::Frame { peer: B, lane: Lane::Control, payload }).await;
}

/// A server that comes back is let in, whatever its clock says, once the connections of its earlier
/// life are gone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clock_that_was_set_back_keeps_nobody_out() {
    let ((a, a_at), (b, b_at), (other, _)) = (listener(), listener(), listener());
    let mut a = start(a, config(A, &[(B, b_at)]));
    let first = start(b, PeerConfig { incarnation: 9, ..config(B, &[(A, a_at)]) });
    a.wait_for(&PeerEvent::Connected { peer: B }).await;
    first.net.shutdown().await;
    let mut second = start(other, PeerConfig { incarnation: 3, ..config(B, &[(A, a_at)]) });
    second.wait_for(&PeerEvent::Connected { peer: A }).await;
}

/// Without room in the receiver, a bulk frame waits and a control frame is dropped and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_room_bulk_waits_and_control_is_dropped() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let room = Arc::new(AtomicBool::new(false));
    let (sender, mut taken) = tokio::sync::mpsc::unbounded_channel();
    let has_room = Arc::clone(&room);
    let a = PeerNet::start_on(a, config(A, &[(B, b_at)]), move |event| match event {
        PeerEvent::Frame { payload, .. } => {
            has_room.load(Ordering::SeqCst) && sender.send(payload).is_ok()
        }
        _ => true,
    });
    let a = a.unwrap();
    let b = start(b, config(B, &[(A, a_at)]));
    for (lane, text) in [(Lane::Control, "lost"), (Lane::Bulk, "kept")] {
        while b.net.send(A, lane, Bytes::from(text)).is_err() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    while a.counts()[&B].frames_refused < 5 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(taken.try_recv().is_err());
    room.store(true, Ordering::SeqCst);
    assert_eq!(taken.recv().await.unwrap(), Bytes::from("kept"));
    assert!(taken.try_recv().is_err());
    a.shutdown().await;
}
