//! Raft's rules, judged over what happened before what in a trace.
//!
//! Why over happens-before and not over the order of lines: records of different nodes are
//! collected in any order, and "before" between them means something only along messages.
//!
//! Each rule is a few lines over what is known of a trace; a rule whose actions do not occur in a
//! trace does not apply to it, which is said. So traces of other programs in this format can be
//! judged too.
//!
//! A process that is killed takes its last records with it, and what others heard of it shows that
//! they are missing. A rule that asks for a record which may be among those is neither kept nor
//! broken: that is unknown, and said.
//!
//! What it lacks: rules over leases, watches and snapshots.

use std::{collections::BTreeSet, fmt};

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
    /// Who has records that are missing in the trace and may hold what the rule asks for, and how
    /// many.
    pub missing: Vec<(String, u64)>,
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
    /// Whatever is found could be made good by records that are known to be missing.
    Unknown(Vec<Finding>),
    /// It breaks it, and no record that is known to be missing could make that good.
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
        write!(f, "line{} {lines}: {}", if self.lines.len() == 1 { "" } else { "s" }, self.what)?;
        for (who, count) in &self.missing {
            let plural = if *count == 1 { " is" } else { "s are" };
            write!(f, "; {count} record{plural} missing of {who}")?;
        }
        Ok(())
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
        let (broken, unknown): (Vec<_>, Vec<_>) =
            findings.into_iter().partition(|finding| finding.missing.is_empty());
        match (broken.is_empty(), unknown.is_empty()) {
            (false, _) => Verdict::Broken(broken),
            (true, false) => Verdict::Unknown(unknown),
            (true, true) => Verdict::Held,
        }
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
        self.host_name(self.host(place))
    }

    fn host_name(&self, host: Host) -> &str {
        self.history.hosts()[usize::from(host)]
    }

    fn before(&self, one: u32, other: u32) -> bool {
        self.history.before(one, other)
    }

    fn finding(&self, places: &[u32], what: String) -> Finding {
        let lines = places.iter().map(|it| self.log().lines[*it as usize]).collect();
        Finding { lines, what, missing: Vec::new() }
    }

    /// Whose records are missing of those that one event knows of and an earlier one did not, and
    /// how many. Only nodes that `may` hold what is asked for are looked at.
    fn missing(
        &self,
        since: Option<u32>,
        until: u32,
        may: impl Fn(&str) -> bool,
    ) -> Vec<(String, u64)> {
        let clock = |place: u32| &self.log().records[place as usize].clock;
        let nodes = clock(until).iter().filter(|(who, _)| may(who));
        let missing = nodes.map(|(who, last)| {
            let known = since.map_or(0, |since| clock(since).get(who));
            (who.to_string(), self.history.missing_count(who, known, last))
        });
        missing.filter(|(_, count)| *count != 0).collect()
    }

    /// Those that do what only servers do. Their start may have been recorded before the trace
    /// begins, or lost.
    fn servers(&self) -> BTreeSet<Host> {
        let is_servers = |action: &Action| {
            matches!(
                action,
                Action::ServerStart { .. }
                    | Action::AppendEntriesRequestSent(_)
                    | Action::AppendEntriesRequestRecvd(_)
                    | Action::AppendEntriesResponseSent(_)
                    | Action::AppendEntriesResponseRecvd(_)
            )
        };
        let done = self.each().filter(|(_, action)| is_servers(action));
        done.map(|(place, _)| self.host(place)).collect()
    }
}
