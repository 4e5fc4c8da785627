//! A whole history, judged twice: by the order that the servers say, and by a search that believes
//! only what clients saw.
//!
//! The two fail in different ways. The first is one pass over any history but trusts the places in
//! it: a place that is wrong in the same way as an answer hides a stale read. The second trusts
//! nothing but is exponential in what overlaps, so it has a budget and may not know.

use std::{collections::BTreeSet, fmt};

use bytes::Bytes;

use crate::{
    history::{History, HistoryEvent, OpName, Operation, StoreOp},
    linear::{Call, LinearVerdict, check_linear, check_linear_by_key},
    models::{KeyModel, PastModel, StoreModel},
    witness::check_witness,
};

/// What the search says of a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Searched {
    /// Some order explains everything that clients saw.
    Linearizable,
    /// No order does; told for a person.
    Violation(String),
    /// The budget ran out before either was clear.
    Unknown,
}

/// What came of judging a history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Operations that a client asked for.
    pub operation_count: usize,
    /// Those of which a client, or the world, knows that they took effect.
    pub known_count: usize,
    /// Whether the history says where operations took effect.
    pub is_placed: bool,
    /// What contradicts the places; empty if nothing does, or there are none.
    pub witness: Vec<String>,
    /// What the search says.
    pub searched: Searched,
    /// Looks at the past and compactions, which the search leaves to the places.
    pub unsearched_count: usize,
}

impl Judgement {
    /// Something contradicts something.
    #[must_use]
    pub fn is_violated(&self) -> bool {
        !self.witness.is_empty() || matches!(self.searched, Searched::Violation(_))
    }
}

impl fmt::Display for Searched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Linearizable => f.write_str("linearizable"),
            Self::Violation(detail) => write!(f, "not linearizable: {detail}"),
            Self::Unknown => f.write_str("unknown: the budget of the search ran out"),
        }
    }
}

/// Judges a history of any origin. The search may take `step_count_max` tries of an operation.
#[must_use]
pub fn judge(history: &History, step_count_max: u64) -> Judgement {
    let events = history.events();
    let is_placed = events.iter().any(|event| matches!(event, HistoryEvent::Placed { .. }));
    let witness = if is_placed { contradictions(history) } else { Vec::new() };
    let episodes = history.episodes();
    let known = episodes.iter().filter(|e| e.place.is_some() || e.is_seen()).count();
    Judgement {
        operation_count: episodes.len(),
        known_count: known,
        is_placed,
        witness,
        searched: search(history, step_count_max),
        unsearched_count: history.calls().iter().filter(|call| !is_searched(&call.op)).count(),
    }
}

fn contradictions(history: &History) -> Vec<String> {
    let dishonest = history.dishonest();
    let mut all: Vec<String> = dishonest
        .iter()
        .map(|OpName { client, op }| {
            format!("operation {op} of client {client} contradicts its own outcome")
        })
        .collect();
    let witnessed = history.witnessed();
    if let Err(violation) = check_witness(&PastModel::of(&witnessed), &witnessed) {
        all.push(violation.to_string());
    }
    all
}

fn is_searched(op: &StoreOp) -> bool {
    !matches!(op.operation, Operation::Past { .. } | Operation::Compact { .. })
}

/// Searches for an order that explains what clients saw: key by key where every operation is on one
/// key, else over the whole store. Looks at the past and compactions are left to the other judge.
#[must_use]
pub fn search(history: &History, step_count_max: u64) -> Searched {
    let mut calls = history.calls();
    calls.retain(|call| is_searched(&call.op));
    let is_by_key = calls.iter().all(|call| KeyModel::key_of(&call.op.operation).is_some());
    if !is_by_key {
        return told(&calls, "the store", check_linear(&StoreModel, &calls, step_count_max));
    }
    let key_of = |op: &StoreOp| {
        KeyModel::key_of(&op.operation).cloned().expect("every operation is on one key")
    };
    match check_linear_by_key(&KeyModel, &calls, step_count_max, key_of) {
        Ok(()) => Searched::Linearizable,
        Err((key, verdict)) => told(&calls, &format!("key {}", text_of(&key)), verdict),
    }
}

fn told(calls: &[Call<StoreOp>], of: &str, verdict: LinearVerdict) -> Searched {
    match verdict {
        LinearVerdict::Linearizable { .. } => Searched::Linearizable,
        LinearVerdict::Unknown { .. } => Searched::Unknown,
        LinearVerdict::Violation { longest, stuck } => {
            let op = &calls[stuck].op;
            let explained: BTreeSet<_> = longest.iter().collect();
            Searched::Violation(format!(
                "{of}: after {} operations in order, operation {} of client {} fits nowhere: {:?} \
                 saw {:?}",
                explained.len(),
                op.name.op,
                op.name.client,
                op.operation,
                op.seen,
            ))
        }
    }
}

fn text_of(bytes: &Bytes) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::{Searched, judge, search};
    use crate::history::{
        History,
        sample::{Bug, Shape, sample},
    };

    const BUDGET: u64 = 200_000;

    /// Right histories pass both judges; each wrong kind is seen by at least one of them.
    #[test]
    fn judges_see_what_is_wrong() {
        let caught = |bug: Bug| {
            let shape = Shape { event_count: 150, bug, ..Shape::SMALL };
            (0..40).filter(|seed| judge(&sample(shape, *seed), BUDGET).is_violated()).count()
        };
        assert_eq!(caught(Bug::None), 0);
        for bug in [Bug::StaleRead, Bug::LostUpdate, Bug::FalseFailure] {
            assert!(30 < caught(bug), "{bug:?}");
        }
    }

    /// A history without places is judged by the search alone.
    #[test]
    fn places_are_not_needed() {
        let text: String = sample(Shape { bug: Bug::LostUpdate, ..Shape::SMALL }, 4)
            .to_jsonl()
            .lines()
            .filter(|line| !line.contains("executed") && !line.contains("looked"))
            .flat_map(|line| [line, "\n"])
            .collect();
        let judgement = judge(&History::from_jsonl(&text).unwrap(), BUDGET);
        assert!(!judgement.is_placed && judgement.witness.is_empty());
        assert!(matches!(judgement.searched, Searched::Violation(_)), "{judgement:?}");
    }

    /// Not to know is not to pass.
    #[test]
    fn small_budget_is_unknown() {
        let shape = Shape { client_count: 6, event_count: 400, ..Shape::SMALL };
        assert_eq!(search(&sample(shape, 1), 3), Searched::Unknown);
    }
}
