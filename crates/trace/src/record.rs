//! One line of a trace, and a whole trace as it was read.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    action::Action,
    clock::{Identity, VectorClock},
};

/// What a node has recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who.
    pub identity: Identity,
    /// As a part of which trace. Uses all 64 bits: beyond what numbers of JavaScript can hold.
    pub trace_id: u64,
    /// The action's name.
    pub tag: Arc<str>,
    /// The action's fields: one JSON value, as it was written.
    pub body: Box<str>,
    /// What was known right after it.
    pub clock: VectorClock,
}

/// Records in the order in which they were collected, which need not be that in which they
/// happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// The records.
    pub records: Vec<Record>,
    /// In which line of its file each begins, from 1.
    pub lines: Vec<u64>,
    /// The last line ends in the middle: whoever wrote it was stopped. It is left out.
    pub cut_short: bool,
}

/// Why a file is no trace, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogError {
    /// From 1.
    pub line: u64,
    /// From 1, in bytes.
    pub column: u64,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for LogError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.what)
    }
}

impl std::error::Error for LogError {}

/// As in `trace_output.log`. The order of the fields is that of KVRaft (Go).
#[derive(Serialize, Deserialize)]
struct JsonRecord<'a> {
    #[serde(rename = "TracerIdentity", borrow)]
    identity: std::borrow::Cow<'a, str>,
    #[serde(rename = "TraceID")]
    trace_id: u64,
    #[serde(rename = "Tag", borrow)]
    tag: std::borrow::Cow<'a, str>,
    #[serde(rename = "Body", borrow)]
    body: &'a RawValue,
    #[serde(rename = "VectorClock")]
    clock: VectorClock,
}

impl Record {
    /// How far its node's own count has come with it.
    #[must_use]
    pub fn own(&self) -> u64 {
        self.clock.get(&self.identity)
    }

    /// What it says, if that is an action known here.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        Action::from_parts(&self.tag, &self.body)
    }

    /// As a line of `trace_output.log`, without its end.
    ///
    /// # Panics
    /// If the body is not a JSON value, which [`Record`] forbids.
    #[must_use]
    pub fn to_json(&self) -> String {
        let body = serde_json::from_str(&self.body).expect("a body is a JSON value");
        let line = JsonRecord {
            identity: self.identity.as_ref().into(),
            trace_id: self.trace_id,
            tag: self.tag.as_ref().into(),
            body,
            clock: self.clock.clone(),
        };
        serde_json::to_string(&line).expect("a record is plain data")
    }

    /// Reads one line of `trace_output.log`.
    ///
    /// # Errors
    /// [`LogError`] in this line.
    pub fn from_json(text: &str, line: u64) -> Result<Self, LogError> {
        let read: Result<JsonRecord<'_>, _> = serde_json::from_str(text);
        let JsonRecord { identity, trace_id, tag, body, clock } = read.map_err(|error| {
            let text = error.to_string();
            let what = text.split(" at line ").next().unwrap_or(&text).to_owned();
            LogError { line, column: error.column().max(1) as u64, what }
        })?;
        let body = one_line(body.get());
        let identity = Identity::from(identity.as_ref());
        Ok(Self { identity, trace_id, tag: tag.as_ref().into(), body, clock })
    }
}

/// Whoever pretty-prints JSON may have put line ends into a body; within texts there are none.
fn one_line(body: &str) -> Box<str> {
    match body.contains(['\n', '\r']) {
        true => body.replace(['\n', '\r'], " ").into(),
        false => body.into(),
    }
}

impl Log {
    /// Reads a trace: `trace_output.log` or `shiviz_output.log`, whichever it is.
    ///
    /// # Errors
    /// [`LogError`], with line and column.
    pub fn read(bytes: &[u8]) -> Result<Self, LogError> {
        let text =
            std::str::from_utf8(bytes).map_err(|error| at_byte(bytes, error.valid_up_to()))?;
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let mut log = match text.trim_start().starts_with('{') || text.trim().is_empty() {
            true => Self::read_json_lines(text)?,
            false => crate::shiviz::read(text)?,
        };
        log.share_names();
        Ok(log)
    }

    fn read_json_lines(text: &str) -> Result<Self, LogError> {
        let mut log = Self::default();
        for (number, line) in (1..).zip(text.split_inclusive('\n')) {
            let whole = line.ends_with('\n');
            let line = line.trim_ascii();
            if line.is_empty() {
                continue;
            }
            match Record::from_json(line, number) {
                Ok(record) => log.push(record, number),
                Err(_) if !whole && !log.records.is_empty() => log.cut_short = true,
                Err(error) => return Err(error),
            }
        }
        Ok(log)
    }

    /// Adds a record that begins in this line.
    pub(crate) fn push(&mut self, record: Record, line: u64) {
        self.records.push(record);
        self.lines.push(line);
    }

    /// A trace that was never in a file: records are numbered instead of lines.
    #[must_use]
    pub fn from_records(records: Vec<Record>) -> Self {
        let lines = (1..=records.len() as u64).collect();
        Self { records, lines, cut_short: false }
    }

    /// As `trace_output.log`.
    #[must_use]
    pub fn to_json_lines(&self) -> String {
        let mut text = String::new();
        for record in &self.records {
            text.push_str(&record.to_json());
            text.push('\n');
        }
        text
    }

    /// A million clocks hold each name a million times, unless they share it.
    fn share_names(&mut self) {
        let mut names = std::collections::BTreeSet::<Arc<str>>::new();
        let mut share = |name: &mut Arc<str>| match names.get(name) {
            Some(known) => *name = Arc::clone(known),
            None => drop(names.insert(Arc::clone(name))),
        };
        for record in &mut self.records {
            share(&mut record.identity);
            share(&mut record.tag);
            record.clock.each_name(&mut share);
        }
    }
}

fn at_byte(bytes: &[u8], place: usize) -> LogError {
    let before = &bytes[..place];
    let line = 1 + before.iter().filter(|byte| **byte == b'\n').count() as u64;
    let column = 1 + before.iter().rev().take_while(|byte| **byte != b'\n').count() as u64;
    LogError { line, column, what: "not text in UTF-8".to_owned() }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
