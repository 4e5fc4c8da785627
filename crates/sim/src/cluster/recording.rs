//! Records a run as people look at it: the world says what happens, and this makes a
//! [`kvraft_trace::run::Run`] of it.
//!
//! Invariants:
//! - a recording only looks: it draws nothing, schedules nothing and goes into no hash, so that a
//!   run is the same with and without it;
//! - what is shown of a server is what it does and says, and not what checks think of it.
//!
//! What it lacks: contents of snapshots, the lanes behind consensus, what operators are told.

mod bands;
mod messages;
mod operations;
mod shown;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, sync::Arc};

use kvraft_base::{Index, Instant, MemberId, Position};
use kvraft_raft::Status;
use kvraft_replica::{Frame, Hop, Outcome};
use kvraft_trace::run::{
    Change, Clock, Event, EventId, Fate, Node, NodeId, NodeKind, Power, Run, Violation as Broken,
};

use self::{
    bands::Bands,
    messages::{describe_frame, describe_raft},
    shown::Shown,
};
use super::{
    clients::Attempt,
    violation::{Check, Violation},
    world::World,
};
use crate::network::Endpoint;

/// The events of the messages in one frame; none if nothing is recorded.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sent {
    first: u32,
    count: u32,
}

/// A recording that goes on.
#[derive(Clone, Debug)]
pub(crate) struct Recording {
    run: Run,
    world: NodeId,
    /// Once it has said something.
    coordinator: Option<NodeId>,
    nodes: BTreeMap<Endpoint, NodeId>,
    names: Vec<Arc<str>>,
    shown: BTreeMap<MemberId, Shown>,
    entries: BTreeMap<Position, (Arc<str>, Arc<str>)>,
    /// The latest send of each attempt of a client, and of its answer.
    requests: BTreeMap<(u64, u64), EventId>,
    replies: BTreeMap<(u64, u64), EventId>,
    /// When each entry was first taken as committed; index 1 is at slot 0.
    committed_at: Vec<u64>,
    bands: Bands,
    /// Events before this one are of earlier steps of the world.
    step: usize,
    event_count_max: usize,
    /// Events that found no room.
    left_out: u64,
}

/// Events that are kept: what is more is left out, which is said. A page of so many opens.
pub(crate) const EVENT_COUNT_MAX: usize = 1_500_000;

impl Recording {
    /// A recording of a world with these servers and clients in the beginning.
    pub(crate) fn new(servers: &[MemberId], clients: &[u64]) -> Self {
        let mut run = Run::new("", Clock::Virtual);
        let world = run.add_node("world", NodeKind::World);
        let names = vec!["world".into()];
        let mut recording = Self {
            run,
            world,
            nodes: BTreeMap::new(),
            names,
            coordinator: None,
            shown: BTreeMap::new(),
            entries: BTreeMap::new(),
            requests: BTreeMap::new(),
            replies: BTreeMap::new(),
            committed_at: Vec::new(),
            bands: Bands::default(),
            step: 0,
            event_count_max: EVENT_COUNT_MAX,
            left_out: 0,
        };
        for id in servers {
            recording.node(Endpoint::Server(*id));
        }
        for id in clients {
            recording.node(Endpoint::Client(*id));
        }
        recording
    }

    fn node(&mut self, end: Endpoint) -> NodeId {
        if let Some(node) = self.nodes.get(&end) {
            return *node;
        }
        let (name, kind) = match end {
            Endpoint::Server(id) => (format!("server{id}"), NodeKind::Server),
            Endpoint::Client(id) => (format!("client{id}"), NodeKind::Client),
        };
        let node = self.run.add_node(name.clone(), kind);
        self.names.push(name.into());
        self.nodes.insert(end, node);
        node
    }

    fn server(&mut self, id: MemberId) -> NodeId {
        self.node(Endpoint::Server(id))
    }

    fn name(&mut self, end: Endpoint) -> Arc<str> {
        let node = self.node(end);
        Arc::clone(&self.names[usize::from(node.0)])
    }

    fn push(&mut self, event: Event) -> Option<EventId> {
        if self.event_count_max <= self.run.events.len() {
            self.left_out += 1;
            return None;
        }
        Some(self.run.add_event(event))
    }

    /// Events that are kept so far.
    pub(crate) fn event_count(&self) -> usize {
        self.run.events.len()
    }

    fn event(&mut self, id: EventId) -> &mut Event {
        &mut self.run.events[id.0 as usize]
    }

    /// A step of the world begins.
    pub(crate) fn begin_step(&mut self) {
        self.step = self.run.events.len();
    }

    /// What the world itself does.
    pub(crate) fn on_world(&mut self, now: Instant, kind: &'static str, text: String) {
        let event = Event::new(now.0, self.world, kind).with("what", text);
        self.push(event);
    }

    /// The coordinator does or learns something.
    pub(crate) fn on_coordinator(&mut self, now: Instant, kind: &'static str, text: String) {
        if self.coordinator.is_none() {
            self.coordinator = Some(self.run.add_node("coord", NodeKind::Coordinator));
            self.names.push("coord".into());
        }
        let node = self.coordinator.expect("it has just been added, or before");
        let event = Event::new(now.0, node, kind).with("what", text);
        self.push(event);
    }

    /// A frame leaves. `is_lost`: it will arrive nowhere.
    pub(crate) fn on_frame_sent(
        &mut self,
        now: Instant,
        ends: (MemberId, MemberId),
        frame: &Frame,
        is_lost: bool,
    ) -> Sent {
        let node = self.server(ends.0);
        let to = self.name(Endpoint::Server(ends.1));
        let first = u32::try_from(self.run.events.len()).expect("bounded by the greatest count");
        for mut event in describe_frame(now, node, &to, frame) {
            event.fate = Some(if is_lost { Fate::Lost } else { Fate::Pending });
            self.push(event);
        }
        let end = u32::try_from(self.run.events.len()).expect("bounded by the greatest count");
        Sent { first, count: end - first }
    }

    /// A frame arrives, or is lost just before it does.
    pub(crate) fn on_frame_arrived(
        &mut self,
        now: Instant,
        to: MemberId,
        sent: Sent,
        is_lost: bool,
    ) {
        let node = self.server(to);
        for number in sent.first..sent.first + sent.count {
            self.arrive(now, node, EventId(number), is_lost);
        }
    }

    fn arrive(&mut self, now: Instant, node: NodeId, cause: EventId, is_lost: bool) {
        let send = self.event(cause);
        if is_lost {
            // A copy may have arrived before.
            if send.fate == Some(Fate::Pending) {
                send.fate = Some(Fate::Lost);
            }
            return;
        }
        send.fate = Some(Fate::Delivered);
        let kind = send.kind.clone();
        self.push(Event { cause: Some(cause), ..Event::new(now.0, node, kind) });
    }

    /// A frame arrives from a server that is not shown, or of which nobody knows when it was sent.
    pub(crate) fn on_frame_of_stranger(
        &mut self,
        now: Instant,
        to: MemberId,
        from: MemberId,
        frame: &Frame,
    ) {
        let node = self.server(to);
        let from: Arc<str> = format!("server{from}").into();
        let name = self.name(Endpoint::Server(to));
        for mut event in describe_frame(now, node, &name, frame) {
            event.fields.retain(|field| field.name != "to");
            self.push(event.with("from", Arc::clone(&from)));
        }
    }

    /// A client sends an attempt.
    pub(crate) fn on_request_sent(&mut self, now: Instant, attempt: &Attempt, is_lost: bool) {
        let client = self.node(Endpoint::Client(attempt.client));
        let to = self.name(Endpoint::Server(attempt.server));
        let mut event = Event::new(now.0, client, "Request")
            .with("to", to)
            .with("operation", attempt.name.op)
            .with("attempt", attempt.number)
            .with("what", operations::describe_wish(&attempt.wish));
        event.fate = Some(if is_lost { Fate::Lost } else { Fate::Pending });
        if let Some(id) = self.push(event) {
            self.requests.insert((attempt.client, attempt.number), id);
        }
    }

    /// An attempt arrives at its server, which may be down or cut off.
    pub(crate) fn on_request_arrived(&mut self, now: Instant, attempt: &Attempt, is_lost: bool) {
        let node = self.server(attempt.server);
        if let Some(cause) = self.requests.get(&(attempt.client, attempt.number)) {
            self.arrive(now, node, *cause, is_lost);
        }
    }

    /// A server answers an attempt of a client.
    pub(crate) fn on_reply_sent(
        &mut self,
        now: Instant,
        from: MemberId,
        (client, attempt): (u64, u64),
        outcome: &Outcome,
        is_lost: bool,
    ) {
        let node = self.server(from);
        let to = self.name(Endpoint::Client(client));
        let mut event = Event::new(now.0, node, "Reply")
            .with("to", to)
            .with("attempt", attempt)
            .with("what", messages::describe_outcome(outcome));
        event.fate = Some(if is_lost { Fate::Lost } else { Fate::Pending });
        if let Some(id) = self.push(event) {
            self.replies.insert((client, attempt), id);
        }
    }

    /// A client hears an answer.
    pub(crate) fn on_reply_arrived(&mut self, now: Instant, client: u64, attempt: u64) {
        let node = self.node(Endpoint::Client(client));
        if let Some(cause) = self.replies.remove(&(client, attempt)) {
            self.arrive(now, node, cause, false);
        }
    }

    /// A process starts; `status` is that of a server that could recover.
    pub(crate) fn on_start(
        &mut self,
        now: Instant,
        id: MemberId,
        found: Option<(&Status, &Terms)>,
    ) {
        let node = self.server(id);
        let Some((status, terms)) = found else {
            self.push(Event::new(now.0, node, "StartFailed"));
            return;
        };
        let mut changes = vec![Change::Power(Power::Up)];
        let (shown, entries) = (self.shown.entry(id).or_default(), &self.entries);
        shown.recover(status, terms, entries, &mut changes);
        let peers = &self.nodes;
        shown.follow(status, |id| node_in(peers, id), &mut changes);
        self.push(Event { changes, ..Event::new(now.0, node, "Start") });
    }

    /// A process ends.
    pub(crate) fn on_down(&mut self, now: Instant, id: MemberId, kind: &'static str) {
        let node = self.server(id);
        let changes = vec![Change::Power(Power::Down)];
        self.push(Event { changes, ..Event::new(now.0, node, kind) });
    }

    /// The deciding lane of a server has made a turn.
    pub(crate) fn on_turn(&mut self, now: Instant, id: MemberId, status: &Status, hops: &[Hop]) {
        let node = self.server(id);
        for peer in &status.peers {
            self.server(peer.id);
        }
        for hop in hops {
            if let Hop::Event(event) = hop
                && let Some(event) = describe_raft(now, node, event)
            {
                self.push(event);
            }
        }
        self.learn_entries(hops);
        let mut changes = Vec::new();
        let shown = self.shown.entry(id).or_default();
        shown.write(hops, &self.entries, &mut changes);
        let peers = &self.nodes;
        shown.follow(status, |id| node_in(peers, id), &mut changes);
        if changes.is_empty() {
            return;
        }
        // What just happened here in this step is what changed it.
        let here = self.run.events[self.step..].iter_mut().rev();
        if let Some(event) = here.filter(|event| event.node == node).find(|e| e.fate.is_none()) {
            event.changes.append(&mut changes);
            return;
        }
        let kind = shown::name_of(&changes);
        self.push(Event { changes, ..Event::new(now.0, node, kind) });
    }

    /// An entry is taken as committed for the first time.
    fn on_committed(&mut self, now: Instant, count: usize) {
        self.committed_at.resize(count.max(self.committed_at.len()), now.0);
    }

    /// The recorded run, with what clients did and the verdict.
    pub(crate) fn finish(mut self, world: &World, seed: u64, violation: Option<&Violation>) -> Run {
        let now = world.now.0;
        self.run.title = format!("seed {seed}");
        self.run.seed = Some(seed);
        self.bands.close_all(now, &mut self.run.bands);
        self.run.operations = operations::of(world, &self.nodes, &self.committed_at);
        if let Some(violation) = violation {
            let event = (self.step < self.run.events.len() && !is_verdict(violation.check))
                .then(|| EventId(u32::try_from(self.run.events.len() - 1).expect("bounded")));
            let nodes = event.map(|id| self.event(id).node).into_iter().collect();
            let (check, text) = (violation.check.name().into(), violation.detail.as_str().into());
            self.run.violations.push(Broken { at: now, event, nodes, check, text });
        }
        self.say_what_is_left_out();
        sort_nodes(&mut self.run);
        self.run
    }

    /// The run of a replay, which knows nothing of clients and faults.
    pub(crate) fn finish_replay(mut self, title: &str) -> Run {
        self.run.title = title.to_owned();
        self.run.clock = Clock::Wall;
        self.say_what_is_left_out();
        sort_nodes(&mut self.run);
        self.run
    }

    fn say_what_is_left_out(&mut self) {
        if 0 < self.left_out {
            let kept = self.run.events.len();
            let left_out = self.left_out;
            self.run.truncated =
                Some(format!("the first {kept} events are shown; {left_out} more found no room"));
        }
    }

    fn learn_entries(&mut self, hops: &[Hop]) {
        for write in hops.iter().filter_map(shown::write_of) {
            for entry in &write.entries {
                let describe = || messages::describe_entry(entry);
                self.entries.entry(entry.position()).or_insert_with(describe);
            }
        }
    }
}

/// Terms of the entries that a recovered server has in memory, by index.
pub(crate) type Terms = BTreeMap<Index, kvraft_base::Term>;

fn node_in(nodes: &BTreeMap<Endpoint, NodeId>, id: MemberId) -> Option<NodeId> {
    nodes.get(&Endpoint::Server(id)).copied()
}

impl World {
    /// What is seen before an event is handled.
    pub(crate) fn record_step(&mut self) {
        if let Some(recording) = &mut self.recording {
            recording.begin_step();
        }
    }

    /// What is seen after an event was handled: who runs, what is wrong with whom, and how far the
    /// cluster has agreed. `is_rare`: more than messages may have changed.
    pub(crate) fn record_state(&mut self, is_rare: bool) {
        let Some(mut recording) = self.recording.take() else {
            return;
        };
        recording.on_committed(self.now, self.checks.agreed().len());
        recording.look_at_processes(self);
        if is_rare {
            recording.look_at_faults(self);
        }
        self.recording = Some(recording);
    }

    /// A process has ended.
    pub(crate) fn record_down(&mut self, id: MemberId, kind: &'static str) {
        if let Some(recording) = &mut self.recording {
            recording.on_down(self.now, id, kind);
        }
    }

    /// A process has started, or could not.
    pub(crate) fn record_start(&mut self, id: MemberId) {
        let Some(mut recording) = self.recording.take() else {
            return;
        };
        let found = self.servers[&id].lanes.as_ref().map(|lanes| {
            let status = lanes.node.status();
            let indexes = (status.released.index.0 + 1..=status.last.index.0).map(Index);
            let term_at = |index| Some((index, lanes.node.raft().term_at(index)?));
            let terms: Terms = indexes.filter_map(term_at).collect();
            (status, terms)
        });
        recording.on_start(self.now, id, found.as_ref().map(|(status, terms)| (status, terms)));
        self.recording = Some(recording);
    }
}

/// It is the judgement of a whole run, and no event's.
fn is_verdict(check: Check) -> bool {
    matches!(
        check,
        Check::Linearizable
            | Check::LinearizableSearch
            | Check::Progress
            | Check::RunEnds
            | Check::Convergence
    )
}

/// Servers come before clients, those that were added later too.
fn sort_nodes(run: &mut Run) {
    let mut order: Vec<usize> = (0..run.nodes.len()).collect();
    let rank = |node: &Node| match node.kind {
        NodeKind::World => 0,
        NodeKind::Coordinator => 1,
        NodeKind::Server => 2,
        NodeKind::Client => 3,
    };
    order.sort_by_key(|at| rank(&run.nodes[*at]));
    let mut place = vec![NodeId(0); order.len()];
    for (new, old) in order.iter().enumerate() {
        place[*old] = NodeId(u16::try_from(new).expect("as many as there were"));
    }
    run.nodes = order.iter().map(|old| run.nodes[*old].clone()).collect();
    run.renumber_nodes(|node| place[usize::from(node.0)]);
}
