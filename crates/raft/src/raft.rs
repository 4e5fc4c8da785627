//! One server of the group as a value. So far only the shape: it follows nobody and does nothing.

use kvraft_base::{Instant, MemberId, Position, Term};

use crate::{Config, Input, Output, RoleName, Start, StartError, Status};

/// One server of a Raft group, without IO.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Raft {
    config: Config,
    start: Start,
    seed: u64,
    now: Instant,
}

impl Raft {
    /// Starts from what recovery found.
    ///
    /// # Errors
    /// [`StartError`] when the parts of the start contradict each other.
    pub fn new(config: Config, start: Start, seed: u64, now: Instant) -> Result<Self, StartError> {
        config.validate()?;
        start.validate()?;
        Ok(Self { config, start, seed, now })
    }

    /// Takes in one thing that happened.
    pub fn step(&mut self, now: Instant, input: Input) {
        self.now = now;
        drop(input);
    }

    /// Ends the turn.
    pub fn finish(&mut self, now: Instant, out: &mut Output) {
        self.now = now;
        out.write = None;
    }

    /// When to call [`Raft::finish`] again if nothing happens.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        Instant::NEVER
    }

    /// A look at the state.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            id: self.config.id,
            term: self.start.hard_state.term,
            vote: self.start.hard_state.vote,
            role: RoleName::Follower,
            leader: None,
            last: self.start.last,
            commit: self.start.hard_state.commit,
            durable: self.start.last.index,
            applied: self.start.applied.index,
            released: self.start.released,
            muted: false,
            peers: Vec::new(),
        }
    }

    /// Whether a snapshot from this leader is wanted.
    #[must_use]
    pub fn expects_snapshot(&self, _from: MemberId, _term: Term, _position: Position) -> bool {
        false
    }
}
