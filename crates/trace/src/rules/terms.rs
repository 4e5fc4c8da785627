//! Rules about who leads, and about numbers that only grow.

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Finding, Rule};
use crate::{action::Action, token::Token};

/// Raft's election safety.
pub(super) const ONE_LEADER_PER_TERM: Rule = Rule {
    name: "one-leader-per-term",
    says: "in a term at most one server leads",
    needs: &["AppendEntriesRequestSent"],
    unless: None,
    judge: |facts, findings| {
        let mut leaders = BTreeMap::new();
        for (place, action) in facts.each() {
            let Some((term, leader)) = leadership(action) else { continue };
            let (first, known) = *leaders.entry(term).or_insert((place, leader));
            if known != leader {
                let what = format!("servers {known} and {leader} both lead in term {term}");
                findings.push(facts.finding(&[first, place], what));
            }
        }
    },
};

/// Who leads in which term, as somebody says of himself.
fn leadership(action: &Action) -> Option<(u64, u64)> {
    match action {
        Action::AppendEntriesRequestSent(request) => Some((request.term, request.leader_id)),
        Action::BecameLeader { server_id, term } => Some(((*term)?, *server_id)),
        _ => None,
    }
}

/// The term that somebody says he is in.
fn own_term(action: &Action) -> Option<u64> {
    match action {
        Action::AppendEntriesRequestSent(request) => Some(request.term),
        Action::AppendEntriesResponseSent(response) => Some(response.term),
        Action::BecameLeader { term, .. } | Action::BecameFollower { term, .. } => *term,
        Action::BecameCandidate { term, .. } => Some(*term),
        _ => None,
    }
}

/// Terms only grow (Raft §5.1), across restarts too.
pub(super) const TERM_MONOTONIC: Rule = Rule {
    name: "term-monotonic",
    says: "a server's term never goes back",
    needs: &["AppendEntriesRequestSent"],
    unless: None,
    judge: |facts, findings| {
        let mut terms = BTreeMap::new();
        for (place, action) in facts.each() {
            let Some(term) = own_term(action) else { continue };
            let (last, known) = *terms.entry(facts.host(place)).or_insert((place, term));
            if term < known {
                let what = format!("{} goes from term {known} back to {term}", facts.name(place));
                findings.push(facts.finding(&[last, place], what));
            }
            terms.insert(facts.host(place), (place, term));
        }
    },
};

/// What is committed stays so.
pub(super) const COMMIT_MONOTONIC: Rule = Rule {
    name: "commit-monotonic",
    says: "a leader's commit index never goes back within its term",
    needs: &["AppendEntriesRequestSent"],
    unless: None,
    judge: |facts, findings| {
        let mut commits = BTreeMap::new();
        for (place, action) in facts.each() {
            let Action::AppendEntriesRequestSent(sent) = action else { continue };
            // What a follower is told may be less than what the leader knows.
            let of = (facts.host(place), sent.term, sent.to);
            let (last, known) = *commits.entry(of).or_insert((place, sent.leader_commit));
            if sent.leader_commit < known {
                let what = format!(
                    "the leader of term {} goes from commit index {known} back to {}",
                    sent.term, sent.leader_commit
                );
                findings.push(facts.finding(&[last, place], what));
            }
            commits.insert(of, (place, sent.leader_commit));
        }
    },
};

/// A message is received after it was sent.
pub(super) const TOKEN_WAS_SENT: Rule = Rule {
    name: "token-was-sent",
    says: "a token that is received was made before, by its sender",
    needs: &["ReceiveTokenTrace"],
    unless: None,
    judge: |facts, findings| {
        let mut made = BTreeMap::new();
        let mut strangers = BTreeSet::new();
        for (place, action) in facts.each() {
            match action {
                Action::GenerateTokenTrace { token } => {
                    made.insert(token.as_str(), place);
                }
                Action::ReceiveTokenTrace { token } => {
                    let sent = made.get(token.as_str());
                    if sent.is_none_or(|sent| !facts.before(*sent, place))
                        && !is_from_outside(facts, token)
                        && strangers.insert(token)
                    {
                        findings.push(stranger(facts, place, token));
                    }
                }
                _ => {}
            }
        }
    },
};

fn stranger(facts: &Facts<'_>, place: u32, token: &str) -> Finding {
    let token = Token::from_base64(token);
    let sender = match &token {
        Ok(token) => &token.sender,
        Err(_) => "nobody, since it is damaged",
    };
    let what = format!("{} receives a token that was never made by {sender}", facts.name(place));
    let mut finding = facts.finding(&[place], what);
    if let Ok(token) = &token {
        // The record that made it is the last one that it knows of its sender.
        let number = token.clock.get(&token.sender);
        let before = number.saturating_sub(1);
        let is_missing = facts.history.missing_count(&token.sender, before, number) != 0;
        finding.missing.extend(is_missing.then(|| (token.sender.to_string(), 1)));
    }
    finding
}

/// A sender without any record is not part of the trace, which may be a part of a larger one.
fn is_from_outside(facts: &Facts<'_>, token: &str) -> bool {
    Token::from_base64(token)
        .is_ok_and(|token| !facts.history.hosts().contains(&token.sender.as_ref()))
}
