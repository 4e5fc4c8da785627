//! What a server or a client may do in a step.

use std::{fmt, time::Duration};

use kvraft_base::{Instant, MemberId, Prng};

use super::System;
use crate::{disk::SimDisk, network::Endpoint};

/// One step of one server or client: what it knows, and what it wants done.
pub struct Step<'a, S: System> {
    pub(super) me: Endpoint,
    pub(super) now: Instant,
    pub(super) wall_ms: u64,
    pub(super) servers: &'a [MemberId],
    pub(super) prng: &'a mut Prng,
    pub(super) disk: Option<&'a SimDisk>,
    pub(super) wants: Wants<S>,
}

/// What a step wants done when it is over.
pub(super) struct Wants<S: System> {
    pub(super) sends: Vec<(Endpoint, S::Message)>,
    pub(super) wake_after: Option<Duration>,
    pub(super) answer: Option<S::Answer>,
}

impl<S: System> Wants<S> {
    pub(super) fn nothing() -> Self {
        Self { sends: Vec::new(), wake_after: None, answer: None }
    }
}

impl<S: System> Step<'_, S> {
    /// Whose step it is.
    #[must_use]
    pub fn me(&self) -> Endpoint {
        self.me
    }

    /// Its monotonic clock, which may run at another rate than anybody else's.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Its wall clock, in milliseconds since 1970, which may jump either way.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.wall_ms
    }

    /// All servers, up or down.
    #[must_use]
    pub fn servers(&self) -> &[MemberId] {
        self.servers
    }

    /// The only randomness there is.
    pub fn prng(&mut self) -> &mut Prng {
        self.prng
    }

    /// The disk of a server; it implements [`kvraft_base::Disk`].
    ///
    /// # Panics
    /// In a step of a client: clients have no disk.
    #[must_use]
    pub fn disk(&self) -> &SimDisk {
        self.disk.expect("clients have no disk")
    }

    /// Sends a message when the step is over and its disk is done. Nothing is promised: it may
    /// arrive never, twice, late, after younger ones.
    pub fn send(&mut self, to: Endpoint, message: S::Message) {
        self.wants.sends.push((to, message));
    }

    /// Sends a message to every server, this one among them if it is one.
    pub fn send_to_all(&mut self, message: &S::Message) {
        for id in self.servers {
            self.send(Endpoint::Server(*id), message.clone());
        }
    }

    /// Wants to be woken after this time of its own clock, and at no other time asked for before.
    pub fn wake_after(&mut self, after: Duration) {
        self.wants.wake_after = Some(after);
    }

    /// A client alone: the answer to what it was asked for last. It is not woken any more until it
    /// asks for that again.
    pub fn answer(&mut self, answer: S::Answer) {
        self.wants.answer = Some(answer);
    }
}

impl<S: System> fmt::Debug for Step<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Step({:?} at {:?})", self.me, self.now)
    }
}
