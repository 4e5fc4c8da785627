//! A run in columns, compressed: a few bytes an event.
//!
//! The layout is drawn in `docs/internals/viewer.md`. Why columns: what stands below each other is
//! alike, so a general compressor finds it, and a browser reads each into one typed array without
//! making an object of every event.

use std::{collections::BTreeMap, io::Write, sync::Arc};

use flate2::{Compression, write::GzEncoder};
use serde_json::{Value as Json, json};

use super::{
    Band, BandKind, Change, Clock, Event, Fate, NodeKind, Operation, Outcome, Power, Role, Run,
    Value, Violation,
    columns::{Column, NUMBER_MAX},
};

/// What the bytes begin with, once they are decompressed: the format and its version.
pub(super) const MAGIC: &[u8; 13] = b"kvraft-run 1\n";

impl Run {
    /// The run as bytes for [`Run::decode`] and the viewer.
    ///
    /// Numbers of more than 52 bits come back as text if they are values of fields, and as the
    /// greatest number of 52 bits elsewhere: differences must be exact in a browser.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(Compression::best())
    }

    /// As [`Run::encode`], for somebody who waits for it: larger, and made in less time.
    #[must_use]
    pub fn encode_quickly(&self) -> Vec<u8> {
        self.encode_with(Compression::fast())
    }

    fn encode_with(&self, compression: Compression) -> Vec<u8> {
        let mut encoder = Encoder::default();
        for event in &self.events {
            encoder.event(event);
        }
        self.bands.iter().for_each(|band| encoder.band(band));
        self.operations.iter().for_each(|operation| encoder.operation(operation));
        let header = self.header(&mut encoder);
        compress(&header, &encoder.columns, compression)
    }

    fn header(&self, encoder: &mut Encoder) -> Vec<u8> {
        encoder.write_strings();
        let nodes = self
            .nodes
            .iter()
            .map(|node| json!({ "name": node.name, "kind": node_kind_name(node.kind) }));
        let shapes = encoder.shapes_in_order();
        let columns = encoder.columns.iter().map(|(name, column)| {
            json!({ "name": name, "bytes": column.bytes.len(), "count": column.count })
        });
        let header = json!({
            "title": self.title,
            "command": self.command,
            "version": self.version,
            "seed": self.seed.map(|seed| seed.to_string()),
            "clock": clock_name(self.clock),
            "nodes": nodes.collect::<Json>(),
            "truncated": self.truncated,
            "shapes": shapes,
            "violations": self.violations.iter().map(violation).collect::<Json>(),
            "columns": columns.collect::<Json>(),
        });
        header.to_string().into_bytes()
    }
}

fn compress(
    header: &[u8],
    columns: &BTreeMap<String, Column>,
    compression: Compression,
) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), compression);
    let header_size = u32::try_from(header.len()).expect("a header of a few kilobytes");
    let written = gzip
        .write_all(MAGIC)
        .and_then(|()| gzip.write_all(&header_size.to_le_bytes()))
        .and_then(|()| gzip.write_all(header))
        .and_then(|()| columns.values().try_for_each(|column| gzip.write_all(&column.bytes)));
    written.and_then(|()| gzip.finish()).expect("writing to memory does not fail")
}

pub(super) fn clock_name(clock: Clock) -> &'static str {
    match clock {
        Clock::Virtual => "virtual",
        Clock::Wall => "wall",
        Clock::Logical => "logical",
    }
}

pub(super) fn node_kind_name(kind: NodeKind) -> &'static str {
    match kind {
        NodeKind::Server => "server",
        NodeKind::Client => "client",
        NodeKind::Coordinator => "coordinator",
        NodeKind::World => "world",
    }
}

fn violation(violation: &Violation) -> Json {
    let nodes: Vec<u16> = violation.nodes.iter().map(|node| node.0).collect();
    json!({
        "at": violation.at.min(NUMBER_MAX),
        "event": violation.event.map(|event| event.0),
        "nodes": nodes,
        "check": &*violation.check,
        "text": &*violation.text,
    })
}

/// The kind of an event and the names and types of its fields: events of one shape share columns.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Shape {
    kind: String,
    fields: Vec<(String, bool)>,
}

#[derive(Default)]
struct Encoder {
    columns: BTreeMap<String, Column>,
    shapes: BTreeMap<Shape, u64>,
    strings: BTreeMap<Arc<str>, u64>,
    texts: Vec<Arc<str>>,
    event_count: u64,
}

impl Encoder {
    fn column(&mut self, name: &str) -> &mut Column {
        if !self.columns.contains_key(name) {
            self.columns.insert(name.to_owned(), Column::default());
        }
        self.columns.get_mut(name).expect("it was inserted if it was not there")
    }

    fn string(&mut self, text: &Arc<str>) -> u64 {
        if let Some(number) = self.strings.get(text) {
            return *number;
        }
        let number = self.texts.len() as u64;
        self.texts.push(Arc::clone(text));
        self.strings.insert(Arc::clone(text), number);
        number
    }

    fn event(&mut self, event: &Event) {
        let number = self.event_count;
        self.event_count += 1;
        let shape = self.shape(event);
        self.column("event.at").difference(0, event.at);
        self.column("event.node").plain(u64::from(event.node.0));
        self.column("event.shape").plain(shape);
        let back = event.cause.map_or(0, |cause| number - u64::from(cause.0));
        self.column("event.cause").plain(back);
        self.column("event.fate").byte(fate_byte(event.fate));
        for (place, field) in event.fields.iter().enumerate() {
            let name = format!("field.{shape}.{place}");
            match shown(&field.value) {
                Value::Number(number) => self.column(&name).difference(event.node.0, number),
                Value::Text(text) => {
                    let string = self.string(&text);
                    self.column(&name).plain(string);
                }
            }
        }
        for change in &event.changes {
            self.column("change.event").difference(0, number);
            self.change(event.node.0, change);
        }
    }

    fn shape(&mut self, event: &Event) -> u64 {
        let is_text = |value: &Value| matches!(shown(value), Value::Text(_));
        let fields = event.fields.iter();
        let fields = fields.map(|field| (field.name.to_string(), is_text(&field.value))).collect();
        let shape = Shape { kind: event.kind.to_string(), fields };
        let next = self.shapes.len() as u64;
        *self.shapes.entry(shape).or_insert(next)
    }

    fn shapes_in_order(&self) -> Json {
        let mut shapes: Vec<_> = self.shapes.iter().collect();
        shapes.sort_by_key(|(_, number)| **number);
        let field = |(name, is_text): &(String, bool)| json!({ "name": name, "text": is_text });
        let shape = |shape: &Shape| {
            let fields: Json = shape.fields.iter().map(field).collect();
            json!({ "kind": shape.kind, "fields": fields })
        };
        shapes.into_iter().map(|(one, _)| shape(one)).collect()
    }

    fn change(&mut self, node: u16, change: &Change) {
        let (kind, numbers) = change_numbers(change);
        self.column("change.kind").byte(kind);
        for (name, number) in numbers.into_iter().flatten() {
            self.column(name).difference(node, number);
        }
        if let Change::LogAppend(entry) = change {
            let (text, key) = (self.string(&entry.text), self.string(&entry.key));
            self.column("append.text").difference(node, text);
            self.column("append.key").plain(key);
        }
    }

    fn band(&mut self, band: &Band) {
        let text = self.string(&band.text);
        self.column("band.kind").byte(band_byte(band.kind));
        self.column("band.from").difference(0, band.from);
        self.column("band.length").plain(band.to.saturating_sub(band.from));
        self.column("band.text").plain(text);
        self.column("band.node-count").plain(band.nodes.len() as u64);
        for node in &band.nodes {
            self.column("band.node").plain(u64::from(node.0));
        }
    }

    fn operation(&mut self, operation: &Operation) {
        let Operation { client, number, from, to, outcome, point, .. } = operation;
        let (text, answer) = (self.string(&operation.text), self.string(&operation.answer));
        let after = |at: Option<u64>| at.map_or(0, |at| at.saturating_sub(*from) + 1);
        self.column("operation.client").plain(u64::from(client.0));
        self.column("operation.number").difference(client.0, *number);
        self.column("operation.text").plain(text);
        self.column("operation.answer").plain(answer);
        self.column("operation.from").difference(0, *from);
        self.column("operation.to").plain(after(*to));
        self.column("operation.outcome").byte(outcome_byte(*outcome));
        self.column("operation.point").plain(after(point.map(|point| point.at)));
        self.column("operation.index").difference(0, point.map_or(0, |point| point.index));
        self.column("operation.key-count").plain(operation.keys.len() as u64);
        for key in &operation.keys {
            let key = self.string(key);
            self.column("operation.key").plain(key);
        }
    }

    fn write_strings(&mut self) {
        let texts = std::mem::take(&mut self.texts);
        for text in &texts {
            self.column("string.size").plain(text.len() as u64);
            self.column("string.bytes").bytes.extend_from_slice(text.as_bytes());
        }
    }
}

/// As it is written: a number that is too great for a browser is text.
fn shown(value: &Value) -> Value {
    match value {
        Value::Number(number) if NUMBER_MAX < *number => Value::Text(number.to_string().into()),
        Value::Number(_) | Value::Text(_) => value.clone(),
    }
}

/// A change's number and the columns that it goes to; options are 0 for none, else one more.
fn change_numbers(change: &Change) -> (u8, [Option<(&'static str, u64)>; 3]) {
    let some = |node: &Option<super::NodeId>| node.map_or(0, |node| u64::from(node.0) + 1);
    let one = |name, number| [Some((name, number)), None, None];
    match change {
        Change::Role(role) => (1, one("change.role", u64::from(role_byte(*role)))),
        Change::Term(term) => (2, one("change.term", *term)),
        Change::Vote(node) => (3, one("change.vote", some(node))),
        Change::Leader(node) => (4, one("change.leader", some(node))),
        Change::Commit(index) => (5, one("change.commit", *index)),
        Change::Applied(index) => (6, one("change.applied", *index)),
        Change::Durable(index) => (7, one("change.durable", *index)),
        Change::LogFirst(index) => (8, one("change.first", *index)),
        Change::LogCut { from } => (9, one("change.cut", *from)),
        Change::LogAppend(entry) => {
            (10, [Some(("append.index", entry.index)), Some(("append.term", entry.term)), None])
        }
        Change::Progress { peer, matched, next } => (
            11,
            [
                Some(("progress.peer", u64::from(peer.0))),
                Some(("progress.matched", *matched)),
                Some(("progress.next", *next)),
            ],
        ),
        Change::ProgressEnd => (12, [None; 3]),
        Change::Power(power) => (13, one("change.power", u64::from(power_byte(*power)))),
    }
}

fn fate_byte(fate: Option<Fate>) -> u8 {
    match fate {
        None => 0,
        Some(Fate::Delivered) => 1,
        Some(Fate::Lost) => 2,
        Some(Fate::Pending) => 3,
    }
}

fn role_byte(role: Role) -> u8 {
    match role {
        Role::Follower => 0,
        Role::PreCandidate => 1,
        Role::Candidate => 2,
        Role::Leader => 3,
    }
}

fn power_byte(power: Power) -> u8 {
    match power {
        Power::Up => 0,
        Power::Down => 1,
        Power::Paused => 2,
    }
}

fn band_byte(kind: BandKind) -> u8 {
    match kind {
        BandKind::Crash => 0,
        BandKind::Pause => 1,
        BandKind::Partition => 2,
        BandKind::Link => 3,
        BandKind::Disk => 4,
        BandKind::Clock => 5,
    }
}

fn outcome_byte(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Ok => 0,
        Outcome::Failed => 1,
        Outcome::Unknown => 2,
    }
}
