//! What the viewer has to show, derived from the model in another way than the viewer does it.

use kvraft_trace::run::{Change, Event, EventId, Fate, NodeKind, Power, Role, Run};
use serde_json::{Value, json};

/// An event as the script of the test lists it.
pub(super) fn event(run: &Run, event: &Event) -> Value {
    let fate = match event.fate {
        None => 0,
        Some(Fate::Delivered) => 1,
        Some(Fate::Lost) => 2,
        Some(Fate::Pending) => 3,
    };
    let fields = event.fields.iter().map(|field| format!("{}={}", field.name, field.value));
    let cause = event.cause.map_or(-1, |cause| i64::from(cause.0));
    let name = &run.nodes[usize::from(event.node.0)].name;
    json!([event.at, name, event.kind, cause, fate, fields.collect::<Vec<_>>()])
}

/// States that are replayed, change by change.
pub(super) struct Replay<'a> {
    run: &'a Run,
    servers: Vec<Option<State>>,
}

struct State {
    role: &'static str,
    power: &'static str,
    term: u64,
    vote: String,
    leader: String,
    first: u64,
    durable: u64,
    commit: u64,
    applied: u64,
    /// Terms, from `first` on.
    log: Vec<u64>,
}

impl<'a> Replay<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        let start = || State {
            role: "follower",
            power: "down",
            term: 0,
            vote: "none".to_owned(),
            leader: "none".to_owned(),
            first: 1,
            durable: 0,
            commit: 0,
            applied: 0,
            log: Vec::new(),
        };
        let nodes = run.nodes.iter();
        let servers = nodes.map(|node| (node.kind == NodeKind::Server).then(start)).collect();
        Self { run, servers }
    }

    pub(super) fn apply(&mut self, event: &Event) {
        let Some(state) = &mut self.servers[usize::from(event.node.0)] else { return };
        let name =
            |node: &kvraft_trace::run::NodeId| self.run.nodes[usize::from(node.0)].name.clone();
        let none = || "none".to_owned();
        for change in &event.changes {
            match change {
                Change::Role(role) => state.role = role_name(*role),
                Change::Term(term) => state.term = *term,
                Change::Vote(node) => state.vote = node.as_ref().map_or_else(none, name),
                Change::Leader(node) => state.leader = node.as_ref().map_or_else(none, name),
                Change::Commit(index) => state.commit = *index,
                Change::Applied(index) => state.applied = *index,
                Change::Durable(index) => state.durable = *index,
                Change::LogFirst(first) => state.release(*first),
                Change::LogCut { from } => {
                    state
                        .log
                        .truncate(usize::try_from(from - state.first).expect("a log's length"));
                }
                Change::LogAppend(entry) => state.log.push(entry.term),
                Change::Power(power) => state.power = power_name(*power),
                Change::Progress { .. } | Change::ProgressEnd => {}
            }
        }
    }

    /// Every server's state, as the viewer gives it.
    pub(super) fn states(&self) -> Value {
        self.servers.iter().flatten().map(State::shown).collect()
    }
}

impl State {
    fn release(&mut self, first: u64) {
        let gone = usize::try_from(first.saturating_sub(self.first)).expect("a log's length");
        self.log.drain(..gone.min(self.log.len()));
        self.first = first;
    }

    fn shown(&self) -> Value {
        let log = (self.first..).zip(&self.log).map(|(index, term)| format!("{index}@{term}"));
        json!({
            "role": self.role, "power": self.power, "term": self.term, "vote": self.vote,
            "leader": self.leader, "first": self.first,
            "last": self.first + self.log.len() as u64 - 1, "durable": self.durable,
            "commit": self.commit, "applied": self.applied, "log": log.collect::<Vec<_>>(),
        })
    }
}

fn role_name(role: Role) -> &'static str {
    match role {
        Role::Follower => "follower",
        Role::PreCandidate => "pre-candidate",
        Role::Candidate => "candidate",
        Role::Leader => "leader",
    }
}

fn power_name(power: Power) -> &'static str {
    match power {
        Power::Up => "up",
        Power::Down => "down",
        Power::Paused => "paused",
    }
}

/// The causal cone of an event: for each node its last event that is before, and its first that is
/// after, -1 if there is none. By vector clocks, one for each event.
pub(super) fn cone(run: &Run, event: usize) -> Value {
    let clocks = clocks(run);
    let mut before = vec![-1_i64; run.nodes.len()];
    let mut after = vec![-1_i64; run.nodes.len()];
    let node = usize::from(run.events[event].node.0);
    for (other, one) in run.events.iter().enumerate() {
        let at = usize::from(one.node.0);
        let number = i64::try_from(other).expect("few events");
        if clocks[other][at] <= clocks[event][at] {
            before[at] = number;
        }
        if after[at] < 0 && clocks[event][node] <= clocks[other][node] {
            after[at] = number;
        }
    }
    json!([before, after])
}

fn clocks(run: &Run) -> Vec<Vec<u32>> {
    let mut newest = vec![vec![0; run.nodes.len()]; run.nodes.len()];
    let mut clocks: Vec<Vec<u32>> = Vec::new();
    for event in &run.events {
        let node = usize::from(event.node.0);
        let mut clock = newest[node].clone();
        clock[node] += 1;
        if let Some(EventId(cause)) = event.cause {
            let sent = &clocks[cause as usize];
            clock.iter_mut().zip(sent).for_each(|(mine, sent)| *mine = (*mine).max(*sent));
        }
        newest[node].clone_from(&clock);
        clocks.push(clock);
    }
    clocks
}
