//! The session itself: operations from their beginning to their end.

use std::time::Duration;

use kvraft_base::{ClientId, Instant, OpId, Prng};
use thiserror::Error;

use crate::{
    failure::Failure,
    numbering::{Numbering, Stamp},
    retry::{RetryPolicy, RetryPolicyError},
    route::{EndpointId, Mode, Route},
};

/// What a client is told about itself.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Config {
    /// How many servers the client knows. At least one.
    pub endpoint_count: usize,
    /// How it chooses among them.
    pub mode: Mode,
    /// How it tries again.
    pub retry: RetryPolicy,
    /// How long an operation may take with all its attempts. Greater than zero.
    pub operation_timeout: Duration,
}

/// A configuration that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// There is nobody to ask.
    #[error("no endpoint is given")]
    NoEndpoint,
    /// The pinned server is not in the list.
    #[error("pinned to endpoint {pinned}, but there are only {count}")]
    PinnedOutside {
        /// The one asked for, from 0.
        pinned: EndpointId,
        /// How many there are.
        count: usize,
    },
    /// No operation could ever succeed.
    #[error("the operation timeout must be greater than zero")]
    OperationTimeoutZero,
    /// See there.
    #[error(transparent)]
    Retry(#[from] RetryPolicyError),
}

impl Config {
    fn validate(&self) -> Result<(), ConfigError> {
        if self.endpoint_count == 0 {
            return Err(ConfigError::NoEndpoint);
        }
        if let Mode::Pinned(pinned) = self.mode
            && self.endpoint_count <= pinned.0
        {
            return Err(ConfigError::PinnedOutside { pinned, count: self.endpoint_count });
        }
        if self.operation_timeout.is_zero() {
            return Err(ConfigError::OperationTimeoutZero);
        }
        Ok(self.retry.validate()?)
    }
}

/// What doing an operation twice would mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// No harm: reads, and opening a session (one that nobody uses expires).
    Repeatable,
    /// It changes the store.
    Mutation,
    /// It changes something else, which sessions do not cover: it has no number, and is not sent
    /// again when in doubt.
    Once,
}

/// One request on its way to an outcome. Held by whoever carries it out; must be ended with
/// [`Session::succeed`], [`Session::fail`] answering [`Next::End`], or [`Session::abandon`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[must_use = "an operation that is not ended keeps its number in flight"]
pub struct Operation {
    kind: Kind,
    number: Option<(ClientId, OpId)>,
    deadline: Instant,
    failure_count: u32,
    /// Set once an attempt may have taken effect without our knowing; never reset.
    maybe_done: bool,
}

impl Operation {
    /// Its number, if it has one.
    #[must_use]
    pub fn op(&self) -> Option<OpId> {
        self.number.map(|(_, op)| op)
    }

    /// The session that it belongs to and its number there, if it has one.
    #[must_use]
    pub fn number(&self) -> Option<(ClientId, OpId)> {
        self.number
    }

    /// When it ends at the latest.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How many of its attempts have failed.
    #[must_use]
    pub fn failure_count(&self) -> u32 {
        self.failure_count
    }

    /// True if sending it again could do no harm.
    fn is_repeatable(&self) -> bool {
        self.kind == Kind::Repeatable || self.number.is_some()
    }
}

/// One try: whom to ask, until when, and what to send along.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Attempt {
    /// Whom.
    pub endpoint: EndpointId,
    /// When to give this try up (as [`Failure::Unknown`], if it was sent).
    pub deadline: Instant,
    /// The number to send along, of a numbered operation.
    pub stamp: Option<Stamp>,
}

/// How an operation without a result ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ending {
    /// Certainly not done: no attempt reached the log in time.
    NotDone,
    /// Refused by the server: not done, and never will be.
    Refused,
    /// It may have been done or not, or may yet be. For a read: no answer, which harms nobody.
    Unknown,
    /// Certainly not done, because the session is gone; open another and begin anew.
    SessionLost,
}

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Make another attempt, not before this time.
    Retry {
        /// When.
        at: Instant,
    },
    /// The operation has ended.
    End(Ending),
}

/// A client's memory: the server it prefers and the numbers it has used.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Session {
    retry: RetryPolicy,
    operation_timeout: Duration,
    route: Route,
    numbering: Option<Numbering>,
    prng: Prng,
}

impl Session {
    /// A client that has spoken to nobody yet; `seed` decides its jitter.
    ///
    /// # Errors
    /// The first thing wrong with the configuration.
    pub fn new(config: Config, seed: u64) -> Result<Self, ConfigError> {
        config.validate()?;
        Ok(Self {
            route: Route::new(config.mode, config.endpoint_count),
            retry: config.retry,
            operation_timeout: config.operation_timeout,
            numbering: None,
            prng: Prng::new(seed).fork("retry"),
        })
    }

    /// A server has opened a session: mutations begun from now on are numbered, from 1.
    pub fn attach(&mut self, client: ClientId) {
        self.numbering = Some(Numbering::new(client));
    }

    /// The session is gone: mutations begun from now on are not numbered.
    pub fn detach(&mut self) {
        self.numbering = None;
    }

    /// The open session, if there is one.
    #[must_use]
    pub fn client(&self) -> Option<ClientId> {
        self.numbering.as_ref().map(|numbering| numbering.client)
    }

    /// The last number given out in the open session; 0 before the first.
    #[must_use]
    pub fn last_op(&self) -> Option<OpId> {
        self.numbering.as_ref().map(Numbering::last)
    }

    /// How many numbered mutations have not ended.
    #[must_use]
    pub fn pending_count(&self) -> usize {
        self.numbering.as_ref().map_or(0, Numbering::pending_count)
    }

    /// The server that the next attempt will ask.
    #[must_use]
    pub fn preferred(&self) -> EndpointId {
        self.route.current()
    }

    /// Takes a hint, for example that this server leads. A pinned client takes none.
    pub fn prefer(&mut self, endpoint: EndpointId) {
        self.route.prefer(endpoint);
    }

    /// Begins an operation.
    pub fn begin(&mut self, now: Instant, kind: Kind) -> Operation {
        self.begin_with(now, kind, kind == Kind::Mutation)
    }

    /// Begins an operation that is numbered even if it is a read, for clients that call all their
    /// operations by number; without an open session it has none. What sessions do not cover has
    /// none either.
    pub fn begin_numbered(&mut self, now: Instant, kind: Kind) -> Operation {
        self.begin_with(now, kind, kind != Kind::Once)
    }

    fn begin_with(&mut self, now: Instant, kind: Kind, is_numbered: bool) -> Operation {
        let numbering = self.numbering.as_mut().filter(|_| is_numbered);
        let number = numbering.map(|numbering| (numbering.client, numbering.issue()));
        let deadline = now + self.operation_timeout;
        Operation { kind, number, deadline, failure_count: 0, maybe_done: false }
    }

    /// Says how to make the next attempt; `None` if the session of a numbered operation was
    /// replaced meanwhile: then report [`Failure::SessionLost`].
    #[must_use]
    pub fn attempt(&self, now: Instant, operation: &Operation) -> Option<Attempt> {
        assert!(
            !operation.maybe_done || operation.is_repeatable(),
            "a mutation without a number is never sent again after an unknown fate"
        );
        let stamp = match operation.number {
            None => None,
            Some((client, op)) => {
                let numbering = self.numbering.as_ref().filter(|n| n.client == client)?;
                Some(numbering.stamp(op))
            }
        };
        // One that must not be repeated gains nothing from giving up early.
        let deadline = if operation.is_repeatable() {
            operation.deadline.min(now + self.retry.attempt_timeout)
        } else {
            operation.deadline
        };
        Some(Attempt { endpoint: self.route.current(), deadline, stamp })
    }

    /// The attempt brought a result: the operation has ended, and its server is good.
    pub fn succeed(&mut self, operation: Operation) {
        self.end(&operation);
    }

    /// The attempt at `endpoint` brought no result. On [`Next::End`] the operation has ended.
    pub fn fail(
        &mut self,
        now: Instant,
        operation: &mut Operation,
        endpoint: EndpointId,
        failure: Failure,
    ) -> Next {
        operation.failure_count = operation.failure_count.saturating_add(1);
        let next = match failure {
            Failure::NotSent => self.retry(now, operation, endpoint),
            Failure::Unknown if operation.is_repeatable() => {
                operation.maybe_done |= operation.kind != Kind::Repeatable;
                self.retry(now, operation, endpoint)
            }
            Failure::Unknown => {
                self.route.leave(endpoint);
                Next::End(Ending::Unknown)
            }
            // With a number, a refusal is the outcome of this very operation, first try or not.
            Failure::Refused => Next::End(Ending::Refused),
            Failure::ResultLost => Next::End(Ending::Unknown),
            Failure::SessionLost => Next::End(self.lose_session(operation)),
        };
        if let Next::End(_) = next {
            self.end(operation);
        }
        next
    }

    /// The caller has lost interest: nobody will ask for the result any more.
    pub fn abandon(&mut self, operation: &Operation) {
        self.end(operation);
    }

    fn retry(&mut self, now: Instant, operation: &Operation, endpoint: EndpointId) -> Next {
        self.route.leave(endpoint);
        // The other servers are tried at once; a pause comes when all have failed in a row.
        let round_count = operation.failure_count / self.route.choice_count();
        let is_round_over = operation.failure_count.is_multiple_of(self.route.choice_count());
        let at = if is_round_over {
            now + self.retry.pause(round_count.saturating_sub(1), &mut self.prng)
        } else {
            now
        };
        if at < operation.deadline {
            return Next::Retry { at };
        }
        Next::End(if operation.maybe_done || operation.kind == Kind::Repeatable {
            Ending::Unknown
        } else {
            Ending::NotDone
        })
    }

    fn lose_session(&mut self, operation: &Operation) -> Ending {
        if self.client() == operation.number.map(|(client, _)| client) {
            self.detach();
        }
        if operation.maybe_done { Ending::Unknown } else { Ending::SessionLost }
    }

    fn end(&mut self, operation: &Operation) {
        if let (Some((client, op)), Some(numbering)) = (operation.number, &mut self.numbering)
            && numbering.client == client
        {
            numbering.end(op);
        }
    }
}
