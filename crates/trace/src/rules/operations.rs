//! Rules about what clients ask for and are told.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Finding, Rule};
use crate::action::Action;

/// An operation by its client's name and number.
type Id = (String, u64);

/// A client hears of a result only after it is one.
pub(super) const RESULT_AFTER_COMMIT: Rule = Rule {
    name: "result-after-commit",
    says: "a client has the result of an operation only after it was committed",
    needs: &["PutResultRecvd", "PutCommitted"],
    unless: None,
    judge: |facts, findings| {
        let mut committed = BTreeMap::<Id, Vec<u32>>::new();
        for (place, action) in facts.each() {
            match action {
                Action::PutCommitted { client_id, op_id, .. }
                | Action::GetCommitted { client_id, op_id, .. } => {
                    committed.entry((client_id.clone(), *op_id)).or_default().push(place);
                }
                _ => {}
            }
        }
        let asked = asked(facts);
        let clients: BTreeSet<_> = asked.keys().map(|(host, _)| facts.host_name(*host)).collect();
        for (place, action) in facts.each() {
            let (Action::PutResultRecvd { op_id, .. } | Action::GetResultRecvd { op_id, .. }) =
                action
            else {
                continue;
            };
            // The older format does not say whose result it is: the client's who records it.
            let Some((question, id)) = asked.get(&(facts.host(place), *op_id)) else { continue };
            let commits = committed.get(id).map_or(&[][..], Vec::as_slice);
            if !commits.iter().any(|commit| facts.before(*commit, place)) {
                let what = format!(
                    "client {} has the result of its operation {op_id}, which no server had \
                     committed before",
                    id.0
                );
                // What was known before the question is not its commit, and clients commit nothing.
                let missing = facts.missing(Some(*question), place, |who| !clients.contains(who));
                findings.push(Finding { missing, ..facts.finding(&[*question, place], what) });
            }
        }
    },
};

/// Each operation by the host that asks for it and its number, with whose it is.
fn asked(facts: &Facts<'_>) -> BTreeMap<(u16, u64), (u32, Id)> {
    let questions = facts.each().filter_map(|(place, action)| match action {
        Action::Put { client_id, op_id, .. } | Action::Get { client_id, op_id, .. } => {
            let id = (client_id.clone(), *op_id);
            Some(((facts.host(place), *op_id), (place, id)))
        }
        _ => None,
    });
    questions.collect()
}

/// Exactly once. A retry that is answered with the first one's result has its revision.
pub(super) const COMMITTED_ONCE: Rule = Rule {
    name: "committed-once",
    says: "a put takes effect once, however often it is tried",
    needs: &["PutCommitted"],
    unless: None,
    judge: |facts, findings| {
        let mut known = BTreeMap::<Id, (u32, Option<i64>)>::new();
        for (place, action) in facts.each() {
            let Action::PutCommitted { client_id, op_id, revision, .. } = action else { continue };
            // Without a session nothing names the operation.
            if client_id.is_empty() {
                continue;
            }
            let id = (client_id.clone(), *op_id);
            let (first, known) = *known.entry(id).or_insert((place, *revision));
            if first != place && (revision.is_none() || known != *revision) {
                let what = format!("operation {op_id} of client {client_id} is committed twice");
                findings.push(facts.finding(&[first, place], what));
            }
        }
    },
};

/// Nothing comes from nowhere.
pub(super) const READ_OF_A_PUT: Rule = Rule {
    name: "read-of-a-put",
    says: "a value that is read was put before, and no missing key has one",
    needs: &["Put", "GetResultRecvd"],
    unless: None,
    judge: |facts, findings| {
        let mut puts = BTreeMap::<(&str, &str), Vec<u32>>::new();
        for (place, action) in facts.each() {
            if let Action::Put { key, value, .. } = action {
                puts.entry((key, value)).or_default().push(place);
            }
        }
        let servers = facts.servers();
        let servers: BTreeSet<_> = servers.into_iter().map(|it| facts.host_name(it)).collect();
        for (place, action) in facts.each() {
            let Action::GetResultRecvd { key, value, .. } = action else { continue };
            let puts = puts.get(&(key.as_str(), value.as_str()));
            let found = puts.is_some_and(|puts| puts.iter().any(|put| facts.before(*put, place)));
            if !value.is_empty() && !found {
                let what = format!("{value:?} is read from {key:?}, and nobody had put it there");
                // Servers put nothing. But one that was killed has forgotten what its lost records
                // had brought it of a put that is there.
                let may = |who: &str| puts.is_some() || !servers.contains(who);
                let missing = facts.missing(None, place, may);
                findings.push(Finding { missing, ..facts.finding(&[place], what) });
            }
        }
    },
};
