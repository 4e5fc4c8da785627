//! What the core thread says about itself, for everyone at the edge to read.
//!
//! Invariant: what is read here may be old by the time it is looked at; nothing is decided by it.

use std::sync::{
    Condvar, Mutex, PoisonError,
    atomic::{AtomicBool, AtomicU64, Ordering},
};

use kvraft_base::Index;
use kvraft_raft::Membership;
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
    members: watch::Sender<KnownMembers>,
    /// This server is no member any more, and so cannot do anything for anybody.
    removed: AtomicBool,
}

/// Who takes part, as far as this server knows.
#[derive(Clone, Debug, Default)]
pub(crate) struct KnownMembers {
    /// In force, and perhaps not for long.
    in_force: Option<Membership>,
    /// The newest that is known to be committed: this one stays.
    committed: Option<Membership>,
    /// The newest that was committed and not joint: whoever is not in it and was once is gone.
    settled: Option<Membership>,
}

impl KnownMembers {
    /// The configuration in force; it may yet be undone.
    pub(crate) fn in_force(&self) -> &Membership {
        self.in_force.as_ref().expect(TOLD)
    }

    /// The newest that will not be undone. Until one is known, the one that this server has begun
    /// with.
    pub(crate) fn committed(&self) -> &Membership {
        self.committed.as_ref().expect(TOLD)
    }

    /// The newest by which somebody may be parted with: agreed on, and no change under way. `None`
    /// until one is known.
    pub(crate) fn settled(&self) -> Option<&Membership> {
        self.settled.as_ref()
    }

    fn enter(&mut self, membership: &Membership) {
        if membership.committed || self.committed.is_none() {
            self.committed = Some(membership.clone());
        }
        // The configuration that a server begins with was not agreed on by anybody.
        if !membership.is_pending() && Index::ZERO < membership.index {
            self.settled = Some(membership.clone());
        }
        self.in_force = Some(membership.clone());
    }
}

/// Why the members are always there.
const TOLD: &str = "members are told before anything is served";

impl Board {
    pub(crate) fn new() -> Self {
        Self {
            snapshot: Mutex::new(None),
            first: Condvar::new(),
            term: AtomicU64::new(0),
            led: watch::Sender::new(false),
            members: watch::Sender::default(),
            removed: AtomicBool::new(false),
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

    /// Keeps the newest configuration; `removed` says that this server is not in it for good.
    pub(crate) fn set_members(&self, membership: &Membership, removed: bool) {
        self.removed.fetch_or(removed, Ordering::Relaxed);
        self.members.send_modify(|known| known.enter(membership));
    }

    /// Whether this server is no member any more.
    pub(crate) fn is_removed(&self) -> bool {
        self.removed.load(Ordering::Relaxed)
    }

    /// Returns when this server is no member any more.
    pub(crate) async fn removed(&self) {
        // An error means that the board is gone, and nobody waits then.
        drop(self.members().wait_for(|_| self.is_removed()).await);
    }

    /// Keeps the configuration that a server begins with, unless a newer one has come already.
    pub(crate) fn set_first_members(&self, membership: &Membership) {
        self.members.send_if_modified(|known| {
            let first = known.in_force.is_none();
            if first {
                known.enter(membership);
            }
            first
        });
    }

    /// The configuration in force and the newest committed one, now and whenever they change.
    pub(crate) fn members(&self) -> watch::Receiver<KnownMembers> {
        self.members.subscribe()
    }

    /// Tells when a leader becomes known or unknown.
    pub(crate) fn led(&self) -> watch::Receiver<bool> {
        self.led.subscribe()
    }
}
