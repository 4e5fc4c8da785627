//! Raft's rules, judged over what happened before what in a trace.
//!
//! Why over happens-before and not over the order of lines: records of different nodes are
//! collected in any order, and "before" between them means something only along messages.
//!
//! Each rule is a few lines over what is known of a trace; a rule whose actions do not occur in a
//! trace does not apply to it, which is said. So traces of other programs in this format can be
//! judged too.
//!
//! What it lacks: rules over leases, watches and snapshots.

use std::fmt;

use crate::{
    action::Action,
    history::{Cycle, History, Host},
    record::Log,
};

mod log;
mod operations;
mod terms;
#[cfg(test)]
mod tests;

/// A rule.
#[derive(Clone, Copy, Debug)]
pub struct Rule {
    /// Its name.
    pub name: &'static str,
    /// What it says, in a sentence.
    pub says: &'static str,
    /// It applies to traces that have all of these actions.
    pub needs: &'static [&'static str],
    /// It does not apply to traces that have this action.
    pub unless: Option<&'static str>,
    judge: fn(&Facts<'_>, &mut Vec<Finding>),
}

/// A trace that breaks a rule, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Lines of the records that together break it.
    pub lines: Vec<u64>,
    /// What they say.
    pub what: String,
}

/// How a trace does by a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It keeps it.
    Held,
    /// It lacks what the rule is about, or has what the rule does not understand.
    NotApplicable {
        /// Which action it has or has not.
        why: String,
    },
    /// It breaks it.
    Broken(Vec<Finding>),
}

/// Why a trace cannot be judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum JudgeError {
    /// A node's own count does not grow.
    #[error("line {line}: the clocks of this trace have no order; `kvraft trace verify` says more")]
    Clocks {
        /// A record's line.
        line: u64,
    },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<_> = self.lines.iter().map(u64::to_string).collect();
        let lines = lines.join(", ");
        write!(f, "line{} {lines}: {}", if self.lines.len() == 1 { "" } else { "s" }, self.what)
    }
}

/// All rules.
pub const RULES: [Rule; 10] = [
    terms::ONE_LEADER_PER_TERM,
    terms::TERM_MONOTONIC,
    terms::COMMIT_MONOTONIC,
    log::LOG_MATCHING,
    log::LEADER_COMPLETENESS,
    log::COMMIT_NEEDS_MAJORITY,
    operations::RESULT_AFTER_COMMIT,
    operations::COMMITTED_ONCE,
    operations::READ_OF_A_PUT,
    terms::TOKEN_WAS_SENT,
];

/// Judges a trace by every rule.
///
/// # Errors
/// [`JudgeError`] when nothing in it is before anything else.
pub fn judge(log: &Log) -> Result<Vec<(Rule, Verdict)>, JudgeError> {
    let facts = Facts::new(log)?;
    Ok(RULES.iter().map(|rule| (*rule, rule.verdict(&facts))).collect())
}

impl Rule {
    fn verdict(&self, facts: &Facts<'_>) -> Verdict {
        let has = |tag: &str| facts.log().records.iter().any(|record| *record.tag == *tag);
        if let Some(missing) = self.needs.iter().find(|tag| !has(tag)) {
            return Verdict::NotApplicable { why: format!("no {missing} in this trace") };
        }
        if let Some(found) = self.unless.filter(|tag| has(tag)) {
            return Verdict::NotApplicable { why: format!("{found} in this trace") };
        }
        let mut findings = Vec::new();
        (self.judge)(facts, &mut findings);
        if findings.is_empty() { Verdict::Held } else { Verdict::Broken(findings) }
    }
}

/// A trace with its actions understood, in a causal order.
struct Facts<'a> {
    history: History<'a>,
    actions: Vec<Option<Action>>,
    /// Numbers of the records, so that each comes after what happened before it.
    order: Vec<u32>,
}

impl<'a> Facts<'a> {
    fn new(log: &'a Log) -> Result<Self, JudgeError> {
        let history = History::new(log);
        let failed = |place: u32| JudgeError::Clocks { line: log.lines[place as usize] };
        if let Some(place) = history.out_of_order() {
            return Err(failed(place));
        }
        let order = history.causal_order().map_err(|Cycle { place }| failed(place))?;
        let actions = log.records.iter().map(crate::record::Record::action).collect();
        Ok(Self { history, actions, order })
    }

    fn log(&self) -> &'a Log {
        self.history.log()
    }

    /// Every understood action, in causal order.
    fn each(&self) -> impl Iterator<Item = (u32, &Action)> {
        self.order.iter().filter_map(|place| Some((*place, self.at(*place)?)))
    }

    fn at(&self, place: u32) -> Option<&Action> {
        self.actions[place as usize].as_ref()
    }

    fn host(&self, place: u32) -> Host {
        self.history.place(place).0
    }

    fn name(&self, place: u32) -> &str {
        self.history.hosts()[usize::from(self.host(place))]
    }

    fn before(&self, one: u32, other: u32) -> bool {
        self.history.before(one, other)
    }

    fn finding(&self, places: &[u32], what: String) -> Finding {
        Finding { lines: places.iter().map(|it| self.log().lines[*it as usize]).collect(), what }
    }
}
