//! ShiViz's own format: a regular expression, an empty line, then two lines a record.
//!
//! ShiViz is strict and slow: it wants clocks that begin at 1 and have no holes, names nobody who
//! has no event, takes LF only, and parses in the square of the number of events. So what it is
//! given are windows: consecutive stretches of a causal order of the events, of at most
//! [`WINDOW_EVENTS_MAX`], each with its clocks counted anew.

use std::{collections::BTreeMap, fmt::Write as _, sync::Arc};

use crate::{
    clock::{Identity, VectorClock},
    history::{Cycle, History},
    record::{Log, LogError, Record},
};

/// The first line of a log whose records name the host first: KVRaft's (Go), and ours.
pub const HEADER: &str = r"(?<host>\S*) (?<clock>{.*})\n(?<event>.*)";

/// ShiViz's own default: the event first.
const HEADER_EVENT_FIRST: &str = r"(?<event>.*)\n(?<host>\S*) (?<clock>{.*})";

/// Events of a window at most: ShiViz needs half a second for so many, and minutes for ten times
/// more.
pub const WINDOW_EVENTS_MAX: usize = 5_000;

/// One record as ShiViz reads it, with both line ends.
pub fn write_record(text: &mut String, host: &str, clock: &VectorClock, record: &Record) {
    let Record { trace_id, tag, body, .. } = record;
    // Writing to a string cannot fail.
    let _ = match tag.as_ref() {
        FOREIGN => writeln!(text, "{host} {clock}\n{}", foreign_text(body)),
        tag => writeln!(text, "{host} {clock}\n{trace_id} {tag} {body}"),
    };
}

/// The whole log, with the clocks as they are: what `shiviz_output.log` is.
#[must_use]
pub fn write_log(log: &Log) -> String {
    let mut text = format!("{HEADER}\n\n");
    for record in &log.records {
        write_record(&mut text, &record.identity, &record.clock, record);
    }
    text
}

/// The log in windows that ShiViz takes.
///
/// # Errors
/// [`WindowError`] when its clocks say that something happened before itself, or have no order.
pub fn windows(log: &Log, events_max: usize) -> Result<Vec<String>, WindowError> {
    assert!(0 < events_max, "a window has room for an event");
    let history = History::new(log);
    if let Some(place) = history.out_of_order() {
        return Err(WindowError::Clocks { line: log.lines[place as usize] });
    }
    let order = history
        .causal_order()
        .map_err(|Cycle { place }| WindowError::Cycle { line: log.lines[place as usize] })?;
    let hosts = host_names(&history)?;
    Ok(order.chunks(events_max).map(|window| write_window(&history, &hosts, window)).collect())
}

/// Why a log cannot be shown by ShiViz.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A node's own count does not grow from record to record.
    #[error("line {line}: this node's own clock does not grow; `kvraft trace verify` says more")]
    Clocks {
        /// The record's line.
        line: u64,
    },
    /// Two records happened before each other.
    #[error("line {line}: this happened before itself; `kvraft trace verify` says more")]
    Cycle {
        /// The record's line.
        line: u64,
    },
    /// ShiViz ends names at a space.
    #[error("two nodes are called {0:?} once spaces are taken out of their names")]
    Names(String),
}

/// Names without spaces, in the history's order of hosts.
fn host_names(history: &History<'_>) -> Result<Vec<Identity>, WindowError> {
    let mut seen = BTreeMap::new();
    let mut names = Vec::new();
    for host in history.hosts() {
        let name: String = host.chars().map(|c| if c.is_whitespace() { '_' } else { c }).collect();
        if seen.insert(name.clone(), ()).is_some() {
            return Err(WindowError::Names(name));
        }
        names.push(Identity::from(name));
    }
    Ok(names)
}

/// Counts the clocks of these events from 1, by their rank among the events of their hosts.
fn write_window(history: &History<'_>, hosts: &[Identity], window: &[u32]) -> String {
    // The rank of the first event of each host that is here.
    let mut first = BTreeMap::new();
    for place in window {
        let (host, rank) = history.place(*place);
        first.entry(host).or_insert(rank);
    }
    let mut text = format!("{HEADER}\n\n");
    for place in window {
        let (own, _) = history.place(*place);
        let clock = first.iter().filter_map(|(host, first)| {
            let rank = history.known(*place, *host);
            // Ranks count from 1 as well.
            let count = (rank + 1).saturating_sub(*first);
            (count != 0).then(|| (Arc::clone(&hosts[usize::from(*host)]), count))
        });
        let record = &history.log().records[*place as usize];
        write_record(&mut text, &hosts[usize::from(own)], &clock.collect(), record);
    }
    text
}

/// Reads a log in ShiViz's format, with the host's line first or last.
pub(crate) fn read(text: &str) -> Result<Log, LogError> {
    let mut lines = (1..)
        .zip(text.split('\n'))
        .map(|(number, line)| Line { number, text: line.strip_suffix('\r').unwrap_or(line) });
    let mut lines: Vec<_> = lines.by_ref().collect();
    let mut event_first = false;
    if let Some(header) = lines.first().filter(|line| line.text.starts_with("(?<")) {
        event_first = match header.text {
            HEADER => false,
            HEADER_EVENT_FIRST => true,
            _ => {
                let what = format!("only logs that begin with {HEADER} are read");
                return Err(LogError { line: header.number, column: 1, what });
            }
        };
        lines.remove(0);
    }
    lines.retain(|line| !line.text.trim().is_empty());
    let mut log = Log::default();
    for pair in lines.chunks(2) {
        match *pair {
            [event, host] if event_first => log.push(read_record(host, event)?, event.number),
            [host, event] => log.push(read_record(host, event)?, host.number),
            _ => log.cut_short = true,
        }
    }
    Ok(log)
}

#[derive(Clone, Copy)]
struct Line<'a> {
    number: u64,
    text: &'a str,
}

fn read_record(host: Line<'_>, event: Line<'_>) -> Result<Record, LogError> {
    let failed = |column: usize, what: &str| LogError {
        line: host.number,
        column: column as u64,
        what: what.to_owned(),
    };
    let (identity, clock) = host.text.split_once(' ').ok_or_else(|| {
        failed(1, "a record begins with a line of its host and its clock, as in: a {\"a\":1}")
    })?;
    let clock: VectorClock = serde_json::from_str(clock).map_err(|error| {
        let text = error.to_string();
        let what = text.split(" at line ").next().unwrap_or(&text);
        failed(identity.len() + 1 + error.column().max(1), what)
    })?;
    let (trace_id, tag, body) = read_event(event.text);
    Ok(Record { identity: identity.into(), trace_id, tag, body, clock })
}

/// `id Tag {…}` as KVRaft writes events; any other text is kept as it is.
fn read_event(text: &str) -> (u64, Arc<str>, Box<str>) {
    let mut parts = text.splitn(3, ' ');
    let parts = (parts.next(), parts.next(), parts.next());
    if let (Some(id), Some(tag), Some(body)) = parts
        && let Ok(id) = id.parse()
        && serde_json::from_str::<&serde_json::value::RawValue>(body).is_ok()
    {
        return (id, tag.into(), body.into());
    }
    let body = serde_json::json!({ "Text": text }).to_string();
    (0, FOREIGN.into(), body.into())
}

/// The action of an event whose text is not ours: its body holds the text.
const FOREIGN: &str = "Event";

fn foreign_text(body: &str) -> String {
    let read: Option<serde_json::Value> = serde_json::from_str(body).ok();
    let text = read.as_ref().and_then(|body| body.get("Text")?.as_str());
    text.unwrap_or(body).to_owned()
}

#[cfg(test)]
#[path = "shiviz_tests.rs"]
mod tests;
