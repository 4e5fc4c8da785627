//! Rules about the log (Raft §5.3 and §5.4).

use std::collections::{BTreeMap, BTreeSet};

use super::{Facts, Finding, Rule};
use crate::{
    action::{Action, AppendRequest, Command},
    history::Host,
};

/// Raft's log matching.
pub(super) const LOG_MATCHING: Rule = Rule {
    name: "log-matching",
    says: "entries of one index and term are the same everywhere, and so is what comes before them",
    needs: &["AppendEntriesRequestSent"],
    unless: None,
    judge: |facts, findings| {
        let mut known = BTreeMap::<(u64, u64), (u32, &Command, u64)>::new();
        let mut told = BTreeSet::new();
        for (place, request) in requests(facts) {
            let mut before = request.prev_log_term;
            for entry in &request.entries {
                let at = (entry.index, entry.term);
                let (first, command, prev) =
                    *known.entry(at).or_insert((place, &entry.command, before));
                let differs = if *command != entry.command {
                    Some("is not the same command everywhere")
                } else {
                    (prev != before).then_some("follows entries of different terms")
                };
                if let Some(differs) = differs.filter(|_| told.insert(at)) {
                    let what = format!("entry {} of term {} {differs}", entry.index, entry.term);
                    findings.push(facts.finding(&[first, place], what));
                }
                before = entry.term;
            }
        }
    },
};

/// Every Append that was sent or received, in causal order.
fn requests<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (u32, &'a AppendRequest)> {
    facts.each().filter_map(|(place, action)| match action {
        Action::AppendEntriesRequestSent(request) | Action::AppendEntriesRequestRecvd(request) => {
            Some((place, request))
        }
        _ => None,
    })
}

/// Every Append that was sent, in causal order.
fn sent<'a>(facts: &'a Facts<'_>) -> impl Iterator<Item = (u32, &'a AppendRequest)> {
    facts.each().filter_map(|(place, action)| match action {
        Action::AppendEntriesRequestSent(request) => Some((place, request)),
        _ => None,
    })
}

/// What a leader shows of its log with a request: terms by index.
fn shown(request: &AppendRequest) -> impl Iterator<Item = (u64, u64)> {
    let prev = (request.prev_log_index, request.prev_log_term);
    let entries = request.entries.iter().map(|entry| (entry.index, entry.term));
    std::iter::once(prev).chain(entries).filter(|(index, _)| *index != 0)
}

/// Raft's leader completeness.
pub(super) const LEADER_COMPLETENESS: Rule = Rule {
    name: "leader-completeness",
    says: "what was committed in one term is in the logs of the leaders of all later terms",
    needs: &["AppendEntriesRequestSent"],
    unless: None,
    judge: |facts, findings| {
        // What is known of the log of each term's leader; of what it committed; and since when.
        let mut logs = BTreeMap::<u64, BTreeMap<u64, u64>>::new();
        let mut until = BTreeMap::<u64, u64>::new();
        let mut committed = BTreeMap::<u64, (u64, u64, u32)>::new();
        for (place, request) in sent(facts) {
            let log = logs.entry(request.term).or_default();
            log.extend(shown(request));
            let done = until.entry(request.term).or_default();
            if *done < request.leader_commit {
                let new = log.range(*done + 1..=request.leader_commit);
                for (index, term) in new {
                    committed.entry(*index).or_insert((*term, request.term, place));
                }
                *done = request.leader_commit;
            }
        }
        for (place, request) in sent(facts) {
            let lost = shown(request).find_map(|(index, term)| {
                let (was, by, since) = *committed.get(&index)?;
                (by < request.term && was != term).then_some((index, was, by, since, term))
            });
            if let Some((index, was, by, since, term)) = lost {
                let what = format!(
                    "entry {index} of term {was} was committed in term {by}, but the leader of \
                     term {} has one of term {term} there",
                    request.term
                );
                findings.push(facts.finding(&[since, place], what));
            }
        }
    },
};

/// Raft's commitment: a majority has it.
pub(super) const COMMIT_NEEDS_MAJORITY: Rule = Rule {
    name: "commit-needs-majority",
    says: "a leader commits entries only after a majority has answered that it holds them",
    needs: &["AppendEntriesRequestSent", "AppendEntriesResponseSent", "ServerStart"],
    // Whose answer counts is then not what the trace says.
    unless: Some("MembersChanged"),
    judge: |facts, findings| {
        let servers = facts.servers();
        let holds = acknowledged(facts);
        let mut terms = BTreeMap::<u64, Led>::new();
        for (place, request) in sent(facts) {
            let led = terms.entry(request.term).or_insert_with(|| Led::since(place));
            led.log.extend(shown(request));
            if request.leader_commit <= led.commit {
                continue;
            }
            led.commit = request.leader_commit;
            let hold = servers.iter().copied().filter(|server| {
                let own = *server == facts.host(place);
                own || holds.get(server).is_some_and(|answers| {
                    let knows = facts.history.known(place, *server);
                    answers.range(..=knows).any(|(_, index)| request.leader_commit <= *index)
                })
            });
            let hold: BTreeSet<Host> = hold.collect();
            if hold.len() * 2 <= servers.len() {
                let what = format!(
                    "{} says in term {} that {} is committed, but knows of {} of {} servers that \
                     hold it",
                    facts.name(place),
                    request.term,
                    request.leader_commit,
                    hold.len(),
                    servers.len()
                );
                let missing = led.missing_answers(facts, place, request, &servers, &hold);
                findings.push(Finding { missing, ..facts.finding(&[place], what) });
            }
        }
    },
};

/// What is known of a term in which somebody leads.
struct Led {
    /// The first request of its leader.
    since: u32,
    /// The greatest commit index of its requests.
    commit: u64,
    /// What they show of its log: terms by index.
    log: BTreeMap<u64, u64>,
}

impl Led {
    fn since(place: u32) -> Self {
        Self { since: place, commit: 0, log: BTreeMap::new() }
    }

    /// Whose missing records may hold the answers that a commit lacks; nobody's, if they would be
    /// too few.
    fn missing_answers(
        &self,
        facts: &Facts<'_>,
        place: u32,
        request: &AppendRequest,
        servers: &BTreeSet<Host>,
        hold: &BTreeSet<Host>,
    ) -> Vec<(String, u64)> {
        let leader = facts.host(place);
        // Nobody held an entry of this term before its leader sent something in it.
        let is_own = self.log.get(&request.leader_commit) == Some(&request.term);
        let since = is_own.then_some(self.since);
        let missing = facts.missing(since, place, |who| match facts.history.host(who) {
            Some(host) => host == leader || (servers.contains(&host) && !hold.contains(&host)),
            // One that nothing is left of may have been a server.
            None => true,
        });
        let hosts = missing.iter().map(|(who, _)| facts.history.host(who));
        // What the leader has lost may have brought it any answer.
        let has_lost = hosts.clone().any(|host| host == Some(leader));
        let strangers = hosts.clone().filter(Option::is_none).count();
        let is_enough = servers.len() + strangers < (hold.len() + hosts.count()) * 2;
        if has_lost || is_enough { missing } else { Vec::new() }
    }
}

/// By host: the rank of each answer that says yes, and up to which index it speaks. Who sends
/// entries has them, too: a leader that was told by the last one what is committed may know of
/// nobody else's answer.
fn acknowledged(facts: &Facts<'_>) -> BTreeMap<u16, BTreeMap<u64, u64>> {
    let mut received = BTreeMap::<u16, u64>::new();
    let mut holds = BTreeMap::<u16, BTreeMap<u64, u64>>::new();
    for (place, action) in facts.each() {
        let (host, rank) = facts.history.place(place);
        match action {
            Action::AppendEntriesRequestRecvd(request) => {
                let last = request.prev_log_index + request.entries.len() as u64;
                let most = received.entry(host).or_default();
                *most = last.max(*most);
            }
            Action::AppendEntriesRequestSent(request) => {
                let last = request.prev_log_index + request.entries.len() as u64;
                holds.entry(host).or_default().insert(rank, last);
            }
            Action::AppendEntriesResponseSent(response) if response.success => {
                let index = response.match_index.or_else(|| received.get(&host).copied());
                holds.entry(host).or_default().insert(rank, index.unwrap_or_default());
            }
            _ => {}
        }
    }
    holds
}
