//! A run out of a trace.

use std::{collections::BTreeMap, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, de};
use serde_json::Value as Json;

use super::states::States;
use crate::{
    action::Action,
    history::{Cycle, History, Host},
    record::{Log, Record},
    rules::{self, Verdict},
    run::{
        Clock, Event, EventId, Fate, Name, NodeId, NodeKind, Operation, Outcome, Point, Run, Value,
        Violation,
    },
    shiviz::WindowError,
};

/// The run that a trace tells of. It has no times: its events stand in a causal order, and their
/// time is their causal depth. Broken rules are its violations.
///
/// # Errors
/// [`WindowError`] when the trace's clocks have no order.
pub fn run_of_log(log: &Log, title: &str) -> Result<Run, WindowError> {
    let history = History::new(log);
    let line = |place: u32| log.lines[place as usize];
    if let Some(place) = history.out_of_order() {
        return Err(WindowError::Clocks { line: line(place) });
    }
    let order = history
        .causal_order()
        .map_err(|Cycle { place }| WindowError::Cycle { line: line(place) })?;
    let mut run = Run::new(title, Clock::Logical);
    let nodes = add_nodes(&mut run, &history);
    let mut maker = Maker::new(&history, nodes, &run);
    for place in order {
        maker.add(place, &mut run);
    }
    maker.finish(&mut run);
    if log.cut_short {
        run.truncated = Some("the last line of the trace ends in the middle".to_owned());
    }
    Ok(run)
}

/// Coordinator, servers, clients, each by name; returns the node of each host.
fn add_nodes(run: &mut Run, history: &History<'_>) -> Vec<NodeId> {
    let mut hosts: Vec<_> = (0..).zip(history.hosts()).collect();
    let kind = |host: Host| kind_of(history, host);
    let rank = |kind| match kind {
        NodeKind::Coordinator => 0,
        NodeKind::Server => 1,
        NodeKind::Client => 2,
        NodeKind::World => 3,
    };
    // By length first, so that server10 comes after server9.
    hosts.sort_by_key(|(host, name)| (rank(kind(*host)), name.len(), **name));
    let mut nodes = vec![NodeId(0); hosts.len()];
    for (host, name) in hosts {
        nodes[usize::from(host)] = run.add_node(*name, kind(host));
    }
    nodes
}

/// By its name, else by what it does; who is neither is shown as a server.
fn kind_of(history: &History<'_>, host: Host) -> NodeKind {
    let name = history.hosts()[usize::from(host)];
    let does = |tag: &str| {
        let records = &history.log().records;
        history.of_host(host).iter().any(|place| *records[*place as usize].tag == *tag)
    };
    if name.starts_with("coord") || does("CoordStart") {
        NodeKind::Coordinator
    } else if name.starts_with("client") || does("KvslibStart") {
        NodeKind::Client
    } else if name == "world" {
        NodeKind::World
    } else {
        NodeKind::Server
    }
}

/// Turns records into events, in a causal order.
struct Maker<'h, 'a> {
    history: &'h History<'a>,
    nodes: Vec<NodeId>,
    states: States,
    /// The event of each record.
    events: BTreeMap<u32, EventId>,
    /// Which record made each token.
    tokens: BTreeMap<String, u32>,
    /// By client's node and number: its place among the run's operations.
    operations: BTreeMap<(NodeId, u64), usize>,
    /// By client's name and number: the same.
    asked: BTreeMap<(String, u64), usize>,
}

impl<'h, 'a> Maker<'h, 'a> {
    fn new(history: &'h History<'a>, nodes: Vec<NodeId>, run: &Run) -> Self {
        let mut states = States::default();
        for (number, node) in (0..).zip(&run.nodes) {
            if let Some(id) = node.name.strip_prefix("server").and_then(|id| id.parse().ok()) {
                states.learn(id, NodeId(number));
            }
        }
        for (place, record) in (0_u32..).zip(&history.log().records) {
            if let Some(Action::ServerStart { server_id }) = record.action() {
                states.learn(server_id, nodes[usize::from(history.place(place).0)]);
            }
        }
        let (events, tokens) = (BTreeMap::new(), BTreeMap::new());
        let (operations, asked) = (BTreeMap::new(), BTreeMap::new());
        Self { history, nodes, states, events, tokens, operations, asked }
    }

    fn add(&mut self, place: u32, run: &mut Run) {
        let record = &self.history.log().records[place as usize];
        let (host, rank) = self.history.place(place);
        let node = self.nodes[usize::from(host)];
        let action = record.action();
        let cause = self.cause(place, action.as_ref());
        let previous = rank.checked_sub(2).map(|above| {
            self.history.of_host(host)[usize::try_from(above).expect("ranks are places in a list")]
        });
        let depth = |of: &u32| run.events[self.events[of].0 as usize].at;
        let at = 1 + previous.iter().chain(&cause).map(depth).max().unwrap_or_default();
        let mut event = Event::new(at, node, tag(record));
        event.fields = fields(record);
        if let Some(cause) = cause {
            let cause = self.events[&cause];
            event.cause = Some(cause);
            let sent = &mut run.events[cause.0 as usize];
            sent.fate = Some(Fate::Delivered);
            let (from, to) = (sent.node, run.nodes[usize::from(node.0)].name.as_str());
            if !sent.fields.iter().any(|field| field.name == "to") {
                *sent = sent.clone().with("to", to);
            }
            event = event.with("from", run.nodes[usize::from(from.0)].name.as_str());
        }
        if let Some(action) = &action {
            if let Action::GenerateTokenTrace { token } = action {
                self.tokens.insert(token.clone(), place);
                event.fate = Some(Fate::Lost);
            }
            event.changes = self.states.changes(node, action);
            self.operate(run, node, at, action);
        }
        self.events.insert(place, run.add_event(event));
    }

    /// The record of another host that made this one happen.
    fn cause(&self, place: u32, action: Option<&Action>) -> Option<u32> {
        let history = self.history;
        if let Some(Action::ReceiveTokenTrace { token }) = action
            && let Some(sent) = self.tokens.get(token)
            && history.before(*sent, place)
        {
            return Some(*sent);
        }
        // Of what is newly known, something that nothing else of it knows.
        let (own, rank) = history.place(place);
        let number = |rank: u64| usize::try_from(rank - 1).expect("ranks are places in a list");
        let before = (rank != 1).then(|| history.of_host(own)[number(rank - 1)]);
        let news = history.all_known(place).iter().filter(|(host, known)| {
            *host != own && before.is_none_or(|before| history.known(before, *host) < *known)
        });
        let news: Vec<_> =
            news.map(|(host, known)| history.of_host(*host)[number(*known)]).collect();
        let is_last = |one: &&u32| !news.iter().any(|other| history.before(**one, *other));
        news.iter().find(is_last).copied()
    }

    /// What clients ask for and are told.
    fn operate(&mut self, run: &mut Run, client: NodeId, at: u64, action: &Action) {
        match action {
            Action::Put { client_id, op_id, key, value } => {
                self.ask(run, (client, *op_id), client_id, at, (key, format!("put {key} {value}")));
            }
            Action::Get { client_id, op_id, key } => {
                self.ask(run, (client, *op_id), client_id, at, (key, format!("get {key}")));
            }
            Action::PutResultRecvd { op_id, .. } => {
                self.answer(run, (client, *op_id), at, "");
            }
            Action::GetResultRecvd { op_id, value, .. } => {
                self.answer(run, (client, *op_id), at, value);
            }
            Action::PutCommitted { client_id, op_id, .. }
            | Action::GetCommitted { client_id, op_id, .. } => {
                let index = self.states.index_of(client_id, *op_id);
                if let Some(number) = self.asked.get(&(client_id.clone(), *op_id))
                    && let Some(index) = index
                {
                    let point = &mut run.operations[*number].point;
                    *point = point.or(Some(Point { at, index }));
                }
            }
            _ => {}
        }
    }

    fn ask(
        &mut self,
        run: &mut Run,
        id: (NodeId, u64),
        client_id: &str,
        at: u64,
        (key, text): (&str, String),
    ) {
        self.operations.insert(id, run.operations.len());
        self.asked.insert((client_id.to_owned(), id.1), run.operations.len());
        run.operations.push(Operation {
            client: id.0,
            number: id.1,
            text: text.into(),
            keys: vec![key.into()],
            from: at,
            to: None,
            outcome: Outcome::Unknown,
            answer: "".into(),
            point: None,
        });
    }

    fn answer(&self, run: &mut Run, id: (NodeId, u64), at: u64, answer: &str) {
        if let Some(number) = self.operations.get(&id) {
            let operation = &mut run.operations[*number];
            (operation.to, operation.outcome) = (Some(at), Outcome::Ok);
            operation.answer = answer.into();
        }
    }

    /// Adds what the rules say.
    fn finish(self, run: &mut Run) {
        let log = self.history.log();
        let judged = rules::judge(log).unwrap_or_default();
        let places: BTreeMap<_, _> = log.lines.iter().zip(0_u32..).collect();
        for (rule, verdict) in judged {
            // What is unknown is no violation.
            let Verdict::Broken(findings) = verdict else { continue };
            for finding in findings {
                let events = finding.lines.iter().map(|line| self.events[&places[line]]);
                let events: Vec<_> = events.collect();
                let shows = events.iter().max().copied();
                let nodes = events.iter().map(|event| run.events[event.0 as usize].node);
                run.violations.push(Violation {
                    at: shows.map_or(0, |event| run.events[event.0 as usize].at),
                    event: shows,
                    nodes: nodes.collect(),
                    check: rule.name.into(),
                    text: finding.what.into(),
                });
            }
        }
    }
}

fn tag(record: &Record) -> Name {
    Name::Owned(record.tag.to_string())
}

/// The body's fields, the two that the viewer knows under its names. Tokens are left out: what they
/// mean is the cause.
fn fields(record: &Record) -> Vec<crate::run::Field> {
    let body: Option<Fields> = serde_json::from_str(&record.body).ok();
    let mut event = Event::new(0, NodeId(0), "").with("trace", record.trace_id.to_string());
    for (name, value) in body.into_iter().flat_map(|it| it.0).filter(|(name, _)| name != "Token") {
        let name = match name.as_str() {
            "Term" => Name::Borrowed("term"),
            "Key" => Name::Borrowed("key"),
            _ => Name::Owned(name),
        };
        event = event.with(name, value_of(value));
    }
    event.fields
}

/// The fields of an object, in the order in which they were written.
struct Fields(Vec<(String, Json)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(FieldsVisitor)
    }
}

struct FieldsVisitor;

impl<'de> de::Visitor<'de> for FieldsVisitor {
    type Value = Fields;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: de::MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
        let mut fields = Vec::new();
        while let Some(field) = map.next_entry()? {
            fields.push(field);
        }
        Ok(Fields(fields))
    }
}

fn value_of(value: Json) -> Value {
    match value {
        Json::Number(number) if number.is_u64() => {
            Value::Number(number.as_u64().unwrap_or_default())
        }
        Json::String(text) => Value::Text(cut(&text)),
        other => Value::Text(cut(&other.to_string())),
    }
}

/// Values of many kilobytes are for nobody to look at.
fn cut(text: &str) -> Arc<str> {
    match text.char_indices().nth(VALUE_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]).into(),
        None => text.into(),
    }
}

const VALUE_CHARS_MAX: usize = 400;
