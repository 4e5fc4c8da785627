//! One node's recorder: its name, its clock, and what it makes of both.
//!
//! Invariants:
//! - every record is one tick of the node's own component, so that its records are numbered 1, 2,
//!   3 … without a hole, whatever traces they belong to;
//! - a token's clock is that of the record that tells of it.

use std::sync::Arc;

use crate::{
    action::Action,
    clock::{Identity, VectorClock},
    record::Record,
    token::Token,
};

/// A node that records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tracer {
    identity: Identity,
    clock: VectorClock,
}

impl Tracer {
    /// A node that has recorded nothing yet.
    #[must_use]
    pub fn new(identity: impl Into<Identity>) -> Self {
        Self { identity: identity.into(), clock: VectorClock::new() }
    }

    /// A node that has recorded before, up to this clock.
    #[must_use]
    pub fn resume(identity: impl Into<Identity>, clock: VectorClock) -> Self {
        Self { identity: identity.into(), clock }
    }

    /// Its name.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// What it knows.
    #[must_use]
    pub fn clock(&self) -> &VectorClock {
        &self.clock
    }

    /// Records that something happened, as a part of a trace.
    pub fn record(&mut self, trace_id: u64, action: &Action) -> Record {
        self.clock.tick(&self.identity);
        self.stamp(trace_id, action)
    }

    /// Begins a trace; ids are drawn by the caller, at random.
    pub fn create_trace(&mut self, trace_id: u64) -> Record {
        self.record(trace_id, &Action::CreateTrace {})
    }

    /// Makes what a message carries to whoever goes on with the trace.
    pub fn generate_token(&mut self, trace_id: u64) -> (Token, Record) {
        self.clock.tick(&self.identity);
        let sender = Arc::clone(&self.identity);
        let token = Token { sender, trace_id, clock: self.clock.clone() };
        let record = self.stamp(trace_id, &Action::GenerateTokenTrace { token: token.to_base64() });
        (token, record)
    }

    /// Goes on with a trace that a message has brought.
    pub fn receive_token(&mut self, token: &Token) -> Record {
        self.clock.tick(&self.identity);
        self.merge(&token.clock);
        let action = Action::ReceiveTokenTrace { token: token.to_base64() };
        self.stamp(token.trace_id, &action)
    }

    /// Knows from now on what the other knows, without a record. Of itself nobody knows better than
    /// this node: what others say of it is of an earlier life, or wrong.
    pub fn merge(&mut self, clock: &VectorClock) {
        let own = self.clock.get(&self.identity);
        self.clock.merge(clock);
        self.clock.set(&self.identity, own);
    }

    /// One more record, which the caller makes by itself; its clock.
    pub(crate) fn tick(&mut self) -> VectorClock {
        self.clock.tick(&self.identity);
        self.clock.clone()
    }

    fn stamp(&self, trace_id: u64, action: &Action) -> Record {
        let (tag, body) = action.to_parts();
        Record {
            identity: Arc::clone(&self.identity),
            trace_id,
            tag: tag.into(),
            body: body.into(),
            clock: self.clock.clone(),
        }
    }
}
