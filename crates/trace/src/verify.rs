//! Whether the clocks of a trace can be believed.
//!
//! ShiViz accepts clocks in which components go back, or in which two events happened before each
//! other; what is drawn then is wrong without a word. Here each such thing is named, by its line.

use std::{collections::BTreeMap, fmt};

use crate::{
    clock::VectorClock,
    history::{Cycle, History},
    record::{Log, Record},
};

/// Something wrong with the clock of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where the record begins.
    pub line: u64,
    /// What is wrong.
    pub what: Fault,
}

/// What can be wrong with a clock.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the text of each is its Display")]
pub enum Fault {
    /// The node does not stand in its own clock.
    NotInOwn { host: String },
    /// Records of a node are missing.
    Hole { host: String, expected: u64, found: u64 },
    /// A node's own count does not grow.
    StepBack { host: String, before: u64, found: u64 },
    /// A node has forgotten what it knew of another.
    Forgotten { host: String, of: String, before: u64, found: u64 },
    /// The clock names somebody without records.
    UnknownHost { host: String, of: String },
    /// The clock names a record that does not exist.
    AheadOfEvents { host: String, of: String, found: u64, last: u64 },
    /// The clock knows a record, but not what that record knew.
    NotTransitive { host: String, of: String, count: u64, lacks: String },
    /// It happened before itself.
    Cycle { host: String },
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.what)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotInOwn { host } => write!(f, "{host} does not stand in its own clock"),
            Self::Hole { host, expected, found } => write!(
                f,
                "hole: {host} counts {found} where {expected} comes next; {} missing",
                records(found - expected)
            ),
            Self::StepBack { host, before, found } => {
                write!(f, "step back: {host} counts {found} after {before}")
            }
            Self::Forgotten { host, of, before, found } => {
                write!(f, "step back: {host} knew {before} of {of} and now knows {found}")
            }
            Self::UnknownHost { host, of } => {
                write!(f, "{host} knows of {of}, who has no record")
            }
            Self::AheadOfEvents { host, of, found, last } => {
                write!(f, "{host} knows record {found} of {of}, whose last one is {last}")
            }
            Self::NotTransitive { host, of, count, lacks } => write!(
                f,
                "{host} knows record {count} of {of}, but not what that one knew of {lacks}"
            ),
            Self::Cycle { host } => {
                write!(f, "cycle: this record of {host} happened before itself")
            }
        }
    }
}

fn records(count: u64) -> String {
    if count == 1 { "1 record is".to_owned() } else { format!("{count} records are") }
}

/// Everything that is wrong with the clocks of a log, by line.
#[must_use]
pub fn verify(log: &Log) -> Vec<Problem> {
    let mut problems = Vec::new();
    let mut lasts = BTreeMap::<&str, u64>::new();
    for record in &log.records {
        let last = lasts.entry(&record.identity).or_default();
        *last = record.own().max(*last);
    }
    let mut before = BTreeMap::<&str, &VectorClock>::new();
    for (record, line) in log.records.iter().zip(&log.lines) {
        let mut report = |what| problems.push(Problem { line: *line, what });
        check_own(record, before.get(record.identity.as_ref()).copied(), &mut report);
        check_others(record, &lasts, &mut report);
        before.insert(&record.identity, &record.clock);
    }
    let history = History::new(log);
    if history.out_of_order().is_none() {
        check_together(&history, &mut problems);
    }
    problems.sort_by_key(|problem| problem.line);
    problems
}

/// Looks at a record and the one before it at its host.
fn check_own(record: &Record, before: Option<&VectorClock>, report: &mut impl FnMut(Fault)) {
    let host = || record.identity.to_string();
    let found = record.own();
    let last = before.map_or(0, |clock| clock.get(&record.identity));
    match found {
        0 => report(Fault::NotInOwn { host: host() }),
        _ if found <= last => report(Fault::StepBack { host: host(), before: last, found }),
        _ if found != last + 1 => {
            report(Fault::Hole { host: host(), expected: last + 1, found });
        }
        _ => {}
    }
    for (of, before) in before.into_iter().flat_map(VectorClock::iter) {
        let found = record.clock.get(of);
        if found < before && *of != record.identity {
            report(Fault::Forgotten { host: host(), of: of.to_string(), before, found });
        }
    }
}

fn check_others(record: &Record, lasts: &BTreeMap<&str, u64>, report: &mut impl FnMut(Fault)) {
    let host = || record.identity.to_string();
    for (of, found) in record.clock.iter().filter(|(of, _)| **of != record.identity) {
        match lasts.get(of.as_ref()) {
            None => report(Fault::UnknownHost { host: host(), of: of.to_string() }),
            Some(last) if *last < found => {
                let (of, last) = (of.to_string(), *last);
                report(Fault::AheadOfEvents { host: host(), of, found, last });
            }
            Some(_) => {}
        }
    }
}

/// What needs the clocks of several nodes: cycles, and knowledge that did not travel along.
fn check_together(history: &History<'_>, problems: &mut Vec<Problem>) {
    let log = history.log();
    let mut report = |place: u32, what| {
        problems.push(Problem { line: log.lines[place as usize], what });
    };
    let host_of = |place: u32| history.hosts()[usize::from(history.place(place).0)].to_owned();
    if let Err(Cycle { place }) = history.causal_order() {
        return report(place, Fault::Cycle { host: host_of(place) });
    }
    for place in (0_u32..).take(log.records.len()) {
        let (own, rank) = history.place(place);
        for (host, known) in history.all_known(place).iter().filter(|(host, _)| *host != own) {
            let at = |rank: u64| usize::try_from(rank - 1).expect("ranks are places in a list");
            // Looked at when it was first known.
            let earlier = rank.checked_sub(1).filter(|rank| *rank != 0);
            let earlier = earlier.map(|rank| history.of_host(own)[at(rank)]);
            if earlier.is_some_and(|earlier| *known <= history.known(earlier, *host)) {
                continue;
            }
            let source = history.of_host(*host)[at(*known)];
            let lacks = history.all_known(source).iter();
            let lacks = lacks.filter(|(of, count)| history.known(place, *of) < *count);
            if let Some((of, _)) = lacks.copied().next() {
                report(
                    place,
                    Fault::NotTransitive {
                        host: host_of(place),
                        of: host_of(source),
                        count: log.records[source as usize].own(),
                        lacks: history.hosts()[usize::from(of)].to_owned(),
                    },
                );
            }
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
