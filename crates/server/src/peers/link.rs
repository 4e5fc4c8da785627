//! What is known of one peer: its addresses, its connections, its queues, its counters.
//!
//! Invariants:
//! - `Connected` and `Disconnected` alternate, beginning with `Connected`;
//! - frames of a lane are delivered in the order in which they were sent, with gaps: a newer
//!   incoming connection of a lane silences the older one before its own first frame.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use kvraft_base::{Index, MemberId};
use tokio::{
    sync::{Notify, watch},
    time,
};

use super::{Events, PeerCounts, PeerEvent, frame::Lane, queue::Queue};

/// One peer, shared by the tasks of its connections.
pub(super) struct Peer {
    pub(super) id: MemberId,
    /// What it is to this server.
    pub(super) standing: watch::Sender<Standing>,
    /// Where it may be.
    addresses: Mutex<Arc<[String]>>,
    /// Changes when they do: what is dialled may be out of date.
    pub(super) moved: watch::Sender<u64>,
    events: Events,
    queues: [Queue; 2],
    state: Mutex<State>,
    /// Ends every connection when it changes.
    pub(super) kick: watch::Sender<u64>,
    /// The number of the incoming connection in force, by lane; older ones end.
    incoming: [watch::Sender<u64>; 2],
    /// The peer has shown that it lives: dial it now.
    pub(super) nudge: Notify,
    pub(super) counters: Counters,
}

/// What a peer is to this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// It is in the configuration.
    Member,
    /// It is not, and has come all the same; looked at again then.
    Guest {
        /// When.
        until: time::Instant,
    },
    /// It was in the configuration, and is told the last of it.
    Leaving {
        /// When its connections end.
        until: time::Instant,
    },
    /// Nobody.
    Gone,
}

#[derive(Debug, Default)]
struct State {
    /// The outgoing control connection is up.
    outgoing: bool,
    /// Number of the incoming connection in force, by lane.
    incoming: [Option<u64>; 2],
    /// The process that they are from.
    incarnation: u64,
    incoming_count: u64,
    /// What was last reported.
    connected: bool,
    disconnected_at: Option<Instant>,
}

#[derive(Debug, Default)]
pub(super) struct Counters {
    pub(super) frames_sent: AtomicU64,
    pub(super) bytes_sent: AtomicU64,
    pub(super) frames_received: AtomicU64,
    pub(super) bytes_received: AtomicU64,
    pub(super) frames_dropped: AtomicU64,
    pub(super) connects: AtomicU64,
    pub(super) bad_frames: AtomicU64,
    pub(super) frames_refused: AtomicU64,
}

impl Peer {
    pub(super) fn new(
        id: MemberId,
        addresses: Vec<String>,
        standing: Standing,
        events: Events,
    ) -> Self {
        Self {
            id,
            standing: watch::Sender::new(standing),
            addresses: Mutex::new(addresses.into()),
            moved: watch::Sender::new(0),
            events,
            queues: Default::default(),
            state: Mutex::default(),
            kick: watch::Sender::new(0),
            incoming: [watch::Sender::new(0), watch::Sender::new(0)],
            nudge: Notify::new(),
            counters: Counters::default(),
        }
    }

    /// Where it may be, the likeliest first.
    pub(super) fn addresses(&self) -> Arc<[String]> {
        Arc::clone(&self.addresses.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// It is to be found there from now on.
    pub(super) fn move_to(&self, addresses: Vec<String>) {
        let mut known = self.addresses.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != *addresses {
            *known = addresses.into();
            self.moved.send_modify(|count| *count += 1);
        }
    }

    pub(super) fn is_guest(&self) -> bool {
        matches!(*self.standing.borrow(), Standing::Guest { .. })
    }

    /// Whether it has a connection to this server.
    pub(super) fn is_heard(&self) -> bool {
        self.state().incoming.iter().any(Option::is_some)
    }

    /// Returns when this is no peer any more.
    pub(super) async fn gone(&self) {
        // An error means that nobody can change it any more, and nothing waits then.
        self.standing.subscribe().wait_for(|standing| *standing == Standing::Gone).await.ok();
    }

    /// Returns when its time may be over.
    pub(super) async fn expired(&self) {
        let mut standing = self.standing.subscribe();
        loop {
            let until = match *standing.borrow_and_update() {
                Standing::Gone => return,
                Standing::Member => None,
                Standing::Guest { until } | Standing::Leaving { until } => Some(until),
            };
            let expiry = async {
                match until {
                    Some(until) => time::sleep_until(until).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => return,
                changed = standing.changed() => if changed.is_err() { return },
            }
        }
    }

    pub(super) fn queue(&self, lane: Lane) -> &Queue {
        &self.queues[usize::from(lane.number())]
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An outgoing connection is up.
    pub(super) fn outgoing_up(&self, lane: Lane) {
        self.counters.connects.fetch_add(1, Ordering::Relaxed);
        self.queue(lane).open();
        if lane == Lane::Control {
            let mut state = self.state();
            state.outgoing = true;
            self.report(&mut state, true);
        }
    }

    /// An outgoing connection is down.
    pub(super) fn outgoing_down(&self, lane: Lane) {
        let dropped = self.queue(lane).close();
        self.counters.frames_dropped.fetch_add(dropped, Ordering::Relaxed);
        if lane == Lane::Control {
            let mut state = self.state();
            state.outgoing = false;
            self.report(&mut state, false);
        }
    }

    /// The later process that is connected as this member, if there is one.
    pub(super) fn successor_of(&self, incarnation: u64) -> Option<u64> {
        let state = self.state();
        let connected = state.incoming.iter().any(Option::is_some);
        (connected && incarnation < state.incarnation).then_some(state.incarnation)
    }

    /// An incoming connection was welcomed. Yields its number, and a signal that changes when a
    /// newer one takes its place. `None`: a later process has come in between.
    pub(super) fn incoming_up(
        &self,
        lane: Lane,
        incarnation: u64,
    ) -> Option<(u64, watch::Receiver<u64>)> {
        let mut state = self.state();
        let connected = state.incoming.iter().any(Option::is_some);
        if connected && incarnation < state.incarnation {
            return None;
        }
        if connected && state.incarnation < incarnation {
            self.end_earlier_process(&mut state);
        }
        state.incarnation = incarnation;
        let at = usize::from(lane.number());
        let replaced = state.incoming[at].is_some();
        state.incoming_count += 1;
        let number = state.incoming_count;
        state.incoming[at] = Some(number);
        self.incoming[at].send_replace(number);
        let replacement = self.incoming[at].subscribe();
        if lane == Lane::Control {
            if replaced {
                // The peer would not dial again if the older one still worked.
                self.report(&mut state, false);
            }
            let outgoing = state.outgoing;
            self.report(&mut state, outgoing);
        }
        drop(state);
        self.nudge.notify_waiters();
        Some((number, replacement))
    }

    /// A later process has greeted: the connections of the one before it end, on both lanes.
    fn end_earlier_process(&self, state: &mut State) {
        for at in 0..state.incoming.len() {
            if state.incoming[at].take().is_some() {
                state.incoming_count += 1;
                self.incoming[at].send_replace(state.incoming_count);
            }
        }
        self.report(state, false);
    }

    /// An incoming connection has ended.
    pub(super) fn incoming_down(&self, lane: Lane, number: u64) {
        let mut state = self.state();
        let at = usize::from(lane.number());
        if state.incoming[at] != Some(number) {
            return;
        }
        state.incoming[at] = None;
        if lane == Lane::Control {
            self.report(&mut state, false);
        }
    }

    /// The peer answered on the outgoing control connection. If only its own connection to us was
    /// lost and has not come back, it counts as connected again after `grace`.
    pub(super) fn outgoing_alive(&self, grace: Duration) {
        let mut state = self.state();
        if state.disconnected_at.is_some_and(|at| grace <= at.elapsed()) {
            let outgoing = state.outgoing;
            self.report(&mut state, outgoing);
        }
    }

    /// Hands a frame on, unless a newer connection has taken over. False: there was no room for it.
    pub(super) fn deliver(&self, lane: Lane, number: u64, payload: Bytes) -> bool {
        let state = self.state();
        if state.incoming[usize::from(lane.number())] != Some(number) {
            return true;
        }
        let size = payload.len() as u64;
        let taken = (self.events)(PeerEvent::Frame { peer: self.id, lane, payload });
        drop(state);
        if taken {
            self.counters.frames_received.fetch_add(1, Ordering::Relaxed);
            self.counters.bytes_received.fetch_add(size, Ordering::Relaxed);
        } else {
            self.counters.frames_refused.fetch_add(1, Ordering::Relaxed);
        }
        taken
    }

    /// This process has been told again and again that a later one runs as the same member.
    pub(super) fn superseded(&self, incarnation: u64) {
        (self.events)(PeerEvent::Superseded { peer: self.id, incarnation });
    }

    /// The peer says that this server was removed from the cluster.
    pub(super) fn told_removed(&self, index: Index) {
        (self.events)(PeerEvent::Removed { peer: self.id, index });
    }

    /// Reports a change, once, while the state is locked, so that reports keep their order.
    fn report(&self, state: &mut State, connected: bool) {
        if state.connected == connected {
            return;
        }
        state.connected = connected;
        state.disconnected_at = (!connected).then(Instant::now);
        let peer = self.id;
        let event = match connected {
            true => PeerEvent::Connected { peer },
            false => PeerEvent::Disconnected { peer },
        };
        (self.events)(event);
    }

    pub(super) fn counts(&self) -> PeerCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PeerCounts {
            connected: self.state().connected,
            frames_sent: read(&self.counters.frames_sent),
            bytes_sent: read(&self.counters.bytes_sent),
            frames_received: read(&self.counters.frames_received),
            bytes_received: read(&self.counters.bytes_received),
            frames_dropped: read(&self.counters.frames_dropped),
            connects: read(&self.counters.connects),
            bad_frames: read(&self.counters.bad_frames),
            frames_refused: read(&self.counters.frames_refused),
            control_bytes_waiting: self.queue(Lane::Control).size_bytes(),
            bulk_bytes_waiting: self.queue(Lane::Bulk).size_bytes(),
        }
    }
}
