//! Hundreds of reconnects under load with both directions busy.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvraft_base::{MemberId, Prng};

use super::{A, B, Lane, SOON, config, listener, proxy::Proxy};
use crate::peers::{PeerConfig, PeerEvent, PeerNet};

const CUT_COUNT: u64 = 320;

/// What one side has received and reported.
#[derive(Default)]
struct Seen {
    /// Last number received, by lane.
    last: [AtomicU64; 2],
    connected: AtomicBool,
    /// Breaches of the promises; must stay 0.
    misordered: AtomicU64,
    corrupted: AtomicU64,
    unpaired: AtomicU64,
}

impl Seen {
    fn on_event(&self, event: PeerEvent) {
        match event {
            PeerEvent::Connected { .. } => self.on_change(true),
            PeerEvent::Disconnected { .. } => self.on_change(false),
            PeerEvent::Superseded { .. } => panic!("there is one process for each member"),
            PeerEvent::Removed { .. } => panic!("nobody is removed"),
            PeerEvent::Frame { lane, payload, .. } => {
                let (number, intact) = check(&payload);
                if !intact {
                    self.corrupted.fetch_add(1, Ordering::Relaxed);
                }
                let last = &self.last[usize::from(lane.number())];
                if number <= last.swap(number, Ordering::Relaxed) {
                    self.misordered.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    }

    fn on_change(&self, connected: bool) {
        if self.connected.swap(connected, Ordering::Relaxed) == connected {
            self.unpaired.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn assert_kept(&self) {
        assert_eq!(self.misordered.load(Ordering::Relaxed), 0, "frames out of order");
        assert_eq!(self.corrupted.load(Ordering::Relaxed), 0, "corrupted frames");
        assert_eq!(self.unpaired.load(Ordering::Relaxed), 0, "events must alternate");
    }
}

/// A frame that says its number, of a size and filling that follow from it.
fn payload(number: u64) -> Bytes {
    let size = if number.is_multiple_of(50) { 200_000 } else { 16 + number % 3000 };
    let mut bytes = vec![number.to_le_bytes()[0]; usize::try_from(size).unwrap()];
    bytes[..8].copy_from_slice(&number.to_le_bytes());
    Bytes::from(bytes)
}

fn check(bytes: &Bytes) -> (u64, bool) {
    let number = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    (number, *bytes == payload(number))
}

/// Keeps both lanes to a peer busy from a thread of its own, as the lanes of a server do.
fn load(net: Arc<PeerNet>, to: MemberId, stop: Arc<AtomicBool>) -> std::thread::JoinHandle<()> {
    std::thread::spawn(move || {
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            number += 1;
            // Between two connections there is no way.
            let _ = net.send(to, Lane::Control, payload(number));
            let _ = net.send(to, Lane::Bulk, payload(number));
            if number.is_multiple_of(8) {
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    })
}

fn begin(listener: std::net::TcpListener, config: PeerConfig) -> (Arc<PeerNet>, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let heard = Arc::clone(&seen);
    let net = PeerNet::start_on(listener, config, move |event| {
        heard.on_event(event);
        true
    })
    .unwrap();
    (Arc::new(net), seen)
}

/// Waits until every lane has delivered something newer than `before`.
async fn wait_for_traffic(seen: [&Seen; 2], before: [[u64; 2]; 2]) {
    let begun = Instant::now();
    while (0..4).any(|at| last(seen[at / 2])[at % 2] <= before[at / 2][at % 2]) {
        assert!(begun.elapsed() < SOON, "traffic has stopped: {:?} {before:?}", seen.map(last));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn last(seen: &Seen) -> [u64; 2] {
    [0, 1].map(|lane: usize| seen.last[lane].load(Ordering::Relaxed))
}

/// Connections are cut in the middle of frames, from one side, the other, or by a server itself.
/// Every time all four streams flow again, and no frame is ever damaged or out of order.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn traffic_survives_hundreds_of_cuts() {
    let ((a, a_at), (b, b_at)) = (listener(), listener());
    let (to_a, to_b) = (Proxy::start(a_at).await, Proxy::start(b_at).await);
    let (a, a_seen) = begin(a, config(A, &[(B, to_b.address)]));
    let (b, b_seen) = begin(b, config(B, &[(A, to_a.address)]));
    let stop = Arc::new(AtomicBool::new(false));
    let loads =
        [load(Arc::clone(&a), B, Arc::clone(&stop)), load(Arc::clone(&b), A, Arc::clone(&stop))];
    let mut prng = Prng::new(5);
    let begun = Instant::now();
    wait_for_traffic([&a_seen, &b_seen], [[0; 2]; 2]).await;
    for _ in 0..CUT_COUNT {
        match prng.below(5) {
            0 => to_a.cut(),
            1 => to_b.cut(),
            2 => a.kick(B),
            3 => b.kick(A),
            _ => {
                to_a.cut();
                to_b.cut();
            }
        }
        // Lets the cut be noticed first, sometimes in the middle of the reconnect.
        tokio::time::sleep(prng.duration(Duration::ZERO, Duration::from_millis(8))).await;
        let before = [last(&a_seen), last(&b_seen)];
        wait_for_traffic([&a_seen, &b_seen], before).await;
    }
    let took = begun.elapsed();
    stop.store(true, Ordering::Relaxed);
    for load in loads {
        load.join().unwrap();
    }
    a_seen.assert_kept();
    b_seen.assert_kept();
    let connects = a.counts()[&B].connects + b.counts()[&A].connects;
    assert!(CUT_COUNT * 2 < connects, "only {connects} connections were made");
    assert!(took < Duration::from_secs(20), "took {took:?}");
    assert_eq!(a.counts()[&B].bad_frames + b.counts()[&A].bad_frames, 0);
    a.shutdown().await;
    b.shutdown().await;
}
