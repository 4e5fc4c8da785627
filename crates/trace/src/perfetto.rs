//! A run as the Perfetto viewer (ui.perfetto.dev) and Chrome's `about:tracing` read it.
//!
//! Lanes are threads of one process. Events are slices of a microsecond, since arrows need slices
//! at both ends; leaders are slices between their elections; operations are asynchronous slices,
//! which may overlap; bands too.
//!
//! Times are microseconds. A run without times gets ten of them for each step.

use serde_json::{Map, Value as Json, json};

use crate::run::{Change, Clock, Event, EventId, NodeId, Role, Run, Value};

/// The whole file.
#[must_use]
pub fn write(run: &Run) -> String {
    let mut writer = Writer { run, text: String::from("{\"traceEvents\":[\n"), count: 0 };
    writer.names();
    for (number, event) in (0..).zip(&run.events) {
        writer.event(EventId(number), event);
    }
    writer.leaders();
    writer.bands();
    writer.operations();
    writer.violations();
    writer.text.push_str("\n],\"displayTimeUnit\":\"ms\"}\n");
    writer.text
}

struct Writer<'a> {
    run: &'a Run,
    text: String,
    count: u64,
}

impl Writer<'_> {
    fn put(&mut self, line: &Json) {
        if self.count != 0 {
            self.text.push_str(",\n");
        }
        self.count += 1;
        self.text.push_str(&line.to_string());
    }

    /// Microseconds, with three digits of nanoseconds.
    fn time(&self, at: u64) -> Json {
        match self.run.clock {
            Clock::Logical => json!(at.saturating_mul(10)),
            Clock::Virtual | Clock::Wall => {
                let text = format!("{}.{:03}", at / 1000, at % 1000);
                serde_json::from_str(&text).expect("digits and a point are a number")
            }
        }
    }

    fn end(&self) -> u64 {
        let operations = self.run.operations.iter().filter_map(|operation| operation.to);
        let events = self.run.events.iter().map(|event| event.at);
        events.chain(operations).max().unwrap_or_default()
    }

    fn names(&mut self) {
        let name =
            json!({"ph": "M", "pid": 1, "name": "process_name", "args": {"name": self.run.title}});
        self.put(&name);
        for (number, node) in self.run.nodes.iter().enumerate() {
            let args = json!({"name": node.name});
            self.put(
                &json!({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": args}),
            );
            let args = json!({"sort_index": number});
            self.put(&json!({"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": args}));
        }
    }

    fn event(&mut self, id: EventId, event: &Event) {
        let args: Map<_, _> =
            event.fields.iter().map(|it| (it.name.to_string(), json_of(&it.value))).collect();
        let (ts, tid) = (self.time(event.at), event.node.0);
        self.put(&json!({
            "ph": "X", "pid": 1, "tid": tid, "ts": ts, "dur": 1, "name": event.kind, "args": args
        }));
        if let Some(cause) = event.cause {
            let from = &self.run.events[cause.0 as usize];
            let (sent, of) = (self.time(from.at), from.node.0);
            let arrow = |ph: &str, tid: u16, ts: &Json| {
                json!({
                    "ph": ph, "bp": "e", "pid": 1, "tid": tid, "ts": ts, "id": id.0,
                    "cat": "message", "name": "message"
                })
            };
            let (start, end) = (arrow("s", of, &sent), arrow("f", tid, &ts));
            self.put(&start);
            self.put(&end);
        }
        for change in &event.changes {
            if let Change::Commit(index) = change {
                let name = format!("commit of {}", self.run.nodes[usize::from(tid)].name);
                self.put(&json!({
                    "ph": "C", "pid": 1, "ts": ts, "name": name, "args": {"index": index}
                }));
            }
        }
    }

    /// From becoming a leader to becoming anything else.
    fn leaders(&mut self) {
        let mut since = std::collections::BTreeMap::<NodeId, (u64, u64)>::new();
        let mut terms = std::collections::BTreeMap::<NodeId, u64>::new();
        let run = self.run;
        for event in &run.events {
            for change in &event.changes {
                match change {
                    Change::Term(term) => drop(terms.insert(event.node, *term)),
                    Change::Role(Role::Leader) => {
                        let term = terms.get(&event.node).copied().unwrap_or_default();
                        since.entry(event.node).or_insert((event.at, term));
                    }
                    Change::Role(_) | Change::Power(_) => {
                        if let Some((from, term)) = since.remove(&event.node) {
                            self.span(
                                event.node,
                                "leader",
                                (from, event.at),
                                &format!("leads in term {term}"),
                            );
                        }
                    }
                    _ => {}
                }
            }
        }
        let end = self.end();
        for (node, (from, term)) in since {
            self.span(node, "leader", (from, end), &format!("leads in term {term}"));
        }
    }

    fn bands(&mut self) {
        for band in &self.run.bands {
            let all: Vec<_> = (0..self.run.nodes.len())
                .filter_map(|it| u16::try_from(it).ok().map(NodeId))
                .collect();
            let nodes = if band.nodes.is_empty() { &all } else { &band.nodes };
            for node in nodes {
                self.span(*node, "fault", (band.from, band.to), &band.text);
            }
        }
    }

    fn operations(&mut self) {
        let end = self.end();
        for operation in &self.run.operations {
            let until = operation.to.unwrap_or(end);
            let text = match operation.answer.as_ref() {
                "" => operation.text.to_string(),
                answer => format!("{} → {answer}", operation.text),
            };
            self.span(operation.client, "operation", (operation.from, until), &text);
        }
    }

    /// An asynchronous slice, of its own id.
    fn span(&mut self, node: NodeId, category: &str, (from, to): (u64, u64), name: &str) {
        let id = self.count;
        for (ph, at) in [("b", from), ("e", to)] {
            let ts = self.time(at);
            self.put(&json!({
                "ph": ph, "pid": 1, "tid": node.0, "ts": ts, "id": id, "cat": category, "name": name
            }));
        }
    }

    fn violations(&mut self) {
        for violation in &self.run.violations {
            let tid = violation.nodes.first().map_or(0, |node| node.0);
            let (ts, name) = (self.time(violation.at), format!("VIOLATION: {}", violation.check));
            let args = json!({"text": violation.text.as_ref()});
            self.put(&json!({
                "ph": "i", "s": "g", "pid": 1, "tid": tid, "ts": ts, "name": name, "args": args
            }));
        }
    }
}

fn json_of(value: &Value) -> Json {
    match value {
        Value::Number(number) => json!(number),
        Value::Text(text) => json!(text.as_ref()),
    }
}
