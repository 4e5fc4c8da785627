//! What the core thread says about itself, for everyone at the edge to read.
//!
//! Invariant: what is read here may be old by the time it is looked at; nothing is decided by it.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};

use tokio::sync::watch;

use crate::driver::Snapshot;

/// The newest published state.
pub(crate) struct Board {
    snapshot: Mutex<Option<Snapshot>>,
    first: Condvar,
    /// Apart from the rest, since every response's header carries it.
    term: AtomicU64,
    /// Whether a leader is known: what health is about.
    led: watch::Sender<bool>,
}

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            snapshot: Mutex::new(None),
            first: Condvar::new(),
            term: AtomicU64::new(0),
            led: watch::Sender::new(false),
        }
    }

    /// Replaces what was there.
    pub(crate) fn publish(&self, snapshot: &Snapshot) {
        self.term.store(snapshot.raft.term.0, Ordering::Relaxed);
        let led = snapshot.raft.leader.is_some();
        self.led.send_if_modified(|known| std::mem::replace(known, led) != led);
        *self.snapshot.lock().unwrap_or_else(PoisonError::into_inner) = Some(snapshot.clone());
        self.first.notify_all();
    }

    /// The newest published state.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let snapshot = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        snapshot.clone().expect("the core publishes before anything is served")
    }

    /// Returns when the core has published for the first time, which is the first thing it does.
    pub(crate) fn wait_for_first(&self) {
        let guard = self.snapshot.lock().unwrap_or_else(PoisonError::into_inner);
        let published = self.first.wait_while(guard, |snapshot| snapshot.is_none());
        drop(published.unwrap_or_else(PoisonError::into_inner));
    }

    pub(crate) fn term(&self) -> u64 {
        self.term.load(Ordering::Relaxed)
    }

    /// Tells when a leader becomes known or unknown.
    pub(crate) fn led(&self) -> watch::Receiver<bool> {
        self.led.subscribe()
    }
}
