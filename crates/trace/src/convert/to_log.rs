//! A trace out of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::named::Names;
use crate::{
    clock::VectorClock,
    record::{Log, Record},
    run::{Event, EventId, NodeId, Run},
    token::Token,
    tracer::Tracer,
};

/// The trace that tracers would have made of a run: sends and receives with their tokens, clocks
/// that follow from causes.
///
/// Raft's messages and changes of roles are called as in KVRaft (Go). Everything else keeps its
/// kind as its name, and its fields, with capital letters, as its body.
#[must_use]
pub fn log_of_run(run: &Run) -> Log {
    let causes: BTreeSet<_> = run.events.iter().filter_map(|event| event.cause).collect();
    let mut maker = Maker {
        run,
        names: Names::new(run),
        tracers: tracers(run),
        tokens: BTreeMap::new(),
        clocks: BTreeMap::new(),
        records: Vec::new(),
    };
    for (number, event) in (0..).zip(&run.events) {
        maker.add(EventId(number), event, causes.contains(&EventId(number)));
    }
    Log::from_records(maker.records)
}

/// One for each node; names are one word each, and no two are alike.
fn tracers(run: &Run) -> Vec<Tracer> {
    let mut names = BTreeSet::new();
    let mut tracers = Vec::new();
    for (number, node) in run.nodes.iter().enumerate() {
        let mut name: String =
            node.name.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        if name.is_empty() || names.contains(&name) {
            name = format!("{name}_{number}");
        }
        names.insert(name.clone());
        tracers.push(Tracer::new(name));
    }
    tracers
}

struct Maker<'a> {
    run: &'a Run,
    names: Names<'a>,
    tracers: Vec<Tracer>,
    /// What each message carries.
    tokens: BTreeMap<EventId, Token>,
    /// What was known at events that are causes without being messages.
    clocks: BTreeMap<EventId, VectorClock>,
    records: Vec<Record>,
}

impl Maker<'_> {
    fn add(&mut self, id: EventId, event: &Event, is_cause: bool) {
        let trace_id = self.trace_id(event.node);
        let tracer = &mut self.tracers[usize::from(event.node.0)];
        let token = event.cause.and_then(|cause| self.tokens.get(&cause));
        if let Some(token) = token {
            self.records.push(tracer.receive_token(token));
        } else if let Some(clock) = event.cause.and_then(|cause| self.clocks.get(&cause)) {
            tracer.merge(clock);
        }
        let (tag, body) = self.names.name(event, token.map(Token::to_base64));
        let clock = tracer.tick();
        let identity = Arc::clone(tracer.identity());
        self.records.push(Record { identity, trace_id, tag: tag.into(), body: body.into(), clock });
        if event.fate.is_some() {
            let (token, record) = tracer.generate_token(trace_id);
            self.records.push(record);
            self.tokens.insert(id, token);
        } else if is_cause {
            self.clocks.insert(id, tracer.clock().clone());
        }
    }

    /// One trace for each node: below 2^63, never 0, and the same whenever the run is.
    fn trace_id(&self, node: NodeId) -> u64 {
        let seed = self.run.seed.unwrap_or_default();
        let mixed = seed ^ (u64::from(node.0) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mixed = (mixed ^ mixed >> 31).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        ((mixed ^ mixed >> 27) >> 1).max(1)
    }
}
