//! A play as the viewer shows it.

use std::{collections::BTreeMap, sync::Arc};

use kvraft_base::{Instant, MemberId};
use kvraft_trace::run::{
    Change, Clock, Event, EventId, Fate, NodeId, NodeKind, Operation, Outcome, Power, Run,
    Violation,
};

use super::{Asked, Broken, System};
use crate::network::Endpoint;

/// The event of sending a message, if plays are recorded and there was room for it.
pub(super) type Sent = Option<EventId>;

/// A recording has no more events than this; what comes later is left out.
const EVENT_COUNT_MAX: usize = 200_000;

pub(super) struct Recorder {
    run: Run,
    world: NodeId,
    nodes: BTreeMap<Endpoint, NodeId>,
    names: BTreeMap<Endpoint, Arc<str>>,
    /// Operations of each client so far.
    numbers: BTreeMap<u64, u64>,
    left_out: u64,
}

impl Recorder {
    pub(super) fn new(servers: &[MemberId], clients: impl Iterator<Item = u64>) -> Self {
        let mut run = Run::new("a play", Clock::Virtual);
        let world = run.add_node("world", NodeKind::World);
        let mut nodes = BTreeMap::new();
        let mut names = BTreeMap::new();
        let servers = servers.iter().map(|id| Endpoint::Server(*id));
        for end in servers.chain(clients.map(Endpoint::Client)) {
            let (name, kind) = match end {
                Endpoint::Server(id) => (format!("server{id}"), NodeKind::Server),
                Endpoint::Client(id) => (format!("client{id}"), NodeKind::Client),
            };
            nodes.insert(end, run.add_node(name.clone(), kind));
            names.insert(end, name.into());
        }
        Self { run, world, nodes, names, numbers: BTreeMap::new(), left_out: 0 }
    }

    fn push(&mut self, event: Event) -> Sent {
        if EVENT_COUNT_MAX <= self.run.events.len() {
            self.left_out += 1;
            return None;
        }
        Some(self.run.add_event(event))
    }

    /// Something happens to somebody, or to the world.
    pub(super) fn on_world(
        &mut self,
        now: Instant,
        end: Option<Endpoint>,
        kind: &'static str,
        text: &str,
    ) {
        let node = end.map_or(self.world, |end| self.nodes[&end]);
        let mut event = Event::new(now.0, node, kind);
        if !text.is_empty() {
            event = event.with("what", text);
        }
        if end.is_some() {
            let power = if kind == "Start" { Power::Up } else { Power::Down };
            event.changes.push(Change::Power(power));
        }
        self.push(event);
    }

    pub(super) fn on_sent(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        text: &str,
        is_lost: bool,
    ) -> Sent {
        let kind = text.split(|letter: char| !letter.is_alphanumeric()).next().unwrap_or("Message");
        let to = self.names.get(&to).cloned().unwrap_or_else(|| to.to_string().into());
        let event = Event::new(now.0, self.nodes[&from], kind.to_owned());
        let mut event = event.with("to", to).with("what", text);
        event.fate = Some(if is_lost { Fate::Lost } else { Fate::Pending });
        self.push(event)
    }

    pub(super) fn on_arrived(&mut self, now: Instant, to: Endpoint, sent: EventId, is_heard: bool) {
        let send = &mut self.run.events[sent.0 as usize];
        if !is_heard {
            // A copy may have arrived before.
            if send.fate == Some(Fate::Pending) {
                send.fate = Some(Fate::Lost);
            }
            return;
        }
        send.fate = Some(Fate::Delivered);
        let kind = send.kind.clone();
        let node = self.nodes[&to];
        self.push(Event { cause: Some(sent), ..Event::new(now.0, node, kind) });
    }

    pub(super) fn on_asked(&mut self, now: Instant, client: u64, text: String) {
        let number = self.numbers.entry(client).or_default();
        *number += 1;
        let operation = Operation {
            client: self.nodes[&Endpoint::Client(client)],
            number: *number,
            text: text.into(),
            keys: Vec::new(),
            from: now.0,
            to: None,
            outcome: Outcome::Unknown,
            answer: "".into(),
            point: None,
        };
        self.run.operations.push(operation);
    }

    /// The call with this number, from 0, is answered.
    pub(super) fn on_answered(&mut self, now: Instant, call: usize, text: String) {
        let operation = &mut self.run.operations[call];
        (operation.to, operation.outcome) = (Some(now.0), Outcome::Ok);
        operation.answer = text.into();
    }

    pub(super) fn finish<S: System>(
        mut self,
        now: Instant,
        seed: u64,
        calls: &[Asked<S>],
        broken: Option<&Broken>,
    ) -> Run {
        assert_eq!(self.run.operations.len(), calls.len(), "every call is recorded");
        self.run.title = format!("seed {seed}");
        self.run.seed = Some(seed);
        if let Some(Broken { check, detail }) = broken {
            let (check, text) = (check.as_str().into(), detail.as_str().into());
            let violation = Violation { at: now.0, event: None, nodes: Vec::new(), check, text };
            self.run.violations.push(violation);
        }
        if 0 < self.left_out {
            let left_out = self.left_out;
            self.run.truncated = Some(format!("the last {left_out} events found no room"));
        }
        self.run
    }
}
