//! What the events of a run are called in a trace.

use std::collections::BTreeMap;

use crate::{
    action::{
        Action, AppendRequest, AppendResponse, ClientInfo, Command, Entry, VoteRequest,
        VoteResponse,
    },
    run::{Change, Event, LogEntry, NodeId, Run, Value},
};

/// Names events, and knows what stands in the logs of servers meanwhile.
pub(super) struct Names<'a> {
    run: &'a Run,
    logs: BTreeMap<NodeId, BTreeMap<u64, &'a LogEntry>>,
    /// Changes of the events before this one are in the logs.
    taken: usize,
}

impl<'a> Names<'a> {
    pub(super) fn new(run: &'a Run) -> Self {
        Self { run, logs: BTreeMap::new(), taken: 0 }
    }

    /// Name and body of an event. Events are named in order.
    ///
    /// `token` has brought it.
    pub(super) fn name(&mut self, event: &Event, token: Option<String>) -> (String, String) {
        self.take_changes(event.at);
        let sent = event.cause.map(|cause| &self.run.events[cause.0 as usize]);
        // A receive says nothing by itself: what it is stands in its send.
        let shown = match sent {
            Some(sent) if event.fields.is_empty() && sent.kind == event.kind => sent,
            _ => event,
        };
        let is_sent = event.fate.is_some();
        let is_message = is_sent || sent.is_some_and(|sent| sent.fate.is_some());
        let action = match is_message {
            true => self.message(event, shown, token),
            false => self.own(event),
        };
        match action {
            Some(action) => action.to_parts(),
            None => (tag_of(event, is_message, is_sent), body_of(shown)),
        }
    }

    /// Everything that has changed until then: a message leaves in the turn that makes its entries.
    fn take_changes(&mut self, at: u64) {
        let events = &self.run.events[self.taken..];
        for event in events.iter().take_while(|event| event.at <= at) {
            self.taken += 1;
            let log = self.logs.entry(event.node).or_default();
            for change in &event.changes {
                match change {
                    Change::LogAppend(entry) => drop(log.insert(entry.index, entry)),
                    Change::LogCut { from } => drop(log.split_off(from)),
                    _ => {}
                }
            }
        }
    }

    /// The number of a server called `server7`.
    fn id_of(&self, node: NodeId) -> Option<u64> {
        id_in(&self.run.nodes[usize::from(node.0)].name)
    }

    fn own(&self, event: &Event) -> Option<Action> {
        let server_id = self.id_of(event.node)?;
        let term = number(event, "term");
        Some(match event.kind.as_ref() {
            "Start" => Action::ServerStart { server_id },
            "BecameLeader" => Action::BecameLeader { server_id, term },
            "BecameFollower" => {
                let leader_id = text(event, "leader").and_then(id_in);
                Action::BecameFollower { server_id, term, leader_id }
            }
            "BecamePreCandidate" => Action::BecamePreCandidate { server_id, term: term? },
            "BecameCandidate" => Action::BecameCandidate { server_id, term: term? },
            "QuorumLost" => Action::QuorumLost { server_id, term: term? },
            "LogTruncated" => {
                Action::LogTruncated { server_id, first_index: number(event, "first")? }
            }
            _ => return None,
        })
    }

    /// `shown` holds the fields of a message that is sent or received at `event`.
    fn message(&self, event: &Event, shown: &Event, token: Option<String>) -> Option<Action> {
        let is_sent = event.fate.is_some();
        let sender = self.id_of(shown.node)?;
        let receiver = text(shown, "to").and_then(id_in)?;
        let both = |sent: Action, received: Action| if is_sent { sent } else { received };
        let term = number(shown, "term")?;
        let vote = |pre_vote| {
            Some(VoteRequest {
                term: number(shown, "campaign").unwrap_or(term),
                candidate_id: sender,
                last_log_index: number(shown, "last")?,
                last_log_term: number(shown, "of")?,
                pre_vote,
                to: receiver,
            })
        };
        let answer = |pre_vote| VoteResponse {
            term: number(shown, "campaign").unwrap_or(term),
            voter_id: sender,
            granted: text(shown, "granted") == Some("yes"),
            pre_vote,
        };
        Some(match event.kind.as_ref() {
            "Append" => {
                let request = self.append(shown, term, (sender, receiver), token)?;
                let sent = AppendRequest { token: Some(String::new()), ..request.clone() };
                both(
                    Action::AppendEntriesRequestSent(sent),
                    Action::AppendEntriesRequestRecvd(request),
                )
            }
            "AppendAnswer" => {
                let match_index = number(shown, "matched");
                let success = match_index.is_some();
                let follower_id = Some(sender);
                let response = AppendResponse { term, success, token, match_index, follower_id };
                both(
                    Action::AppendEntriesResponseSent(response.clone()),
                    Action::AppendEntriesResponseRecvd(response),
                )
            }
            "VoteRequest" | "PreVoteRequest" => {
                let vote = vote(event.kind == "PreVoteRequest")?;
                both(Action::VoteRequestSent(vote.clone()), Action::VoteRequestRecvd(vote))
            }
            "VoteAnswer" | "PreVoteAnswer" => {
                let answer = answer(event.kind == "PreVoteAnswer");
                both(Action::VoteResponseSent(answer.clone()), Action::VoteResponseRecvd(answer))
            }
            "TimeoutNow" => both(
                Action::TimeoutNowSent { server_id: sender, to: receiver, term },
                Action::TimeoutNowRecvd { server_id: receiver, from: sender, term },
            ),
            _ => return None,
        })
    }

    /// The entries are those that the sender's log holds there.
    fn append(
        &self,
        shown: &Event,
        term: u64,
        (leader_id, to): (u64, u64),
        token: Option<String>,
    ) -> Option<AppendRequest> {
        let (prev_log_index, prev_log_term) = (number(shown, "prev")?, number(shown, "of")?);
        let (count, leader_commit) = (number(shown, "entries")?, number(shown, "commit")?);
        let log = self.logs.get(&shown.node);
        let last = prev_log_index.saturating_add(count);
        let entries = log
            .into_iter()
            .flat_map(|log| log.range(prev_log_index.saturating_add(1)..))
            .take_while(|(index, _)| **index <= last)
            .map(|(_, entry)| entry_of(entry))
            .collect();
        let to = Some(to);
        Some(AppendRequest {
            term,
            leader_id,
            prev_log_index,
            prev_log_term,
            entries,
            leader_commit,
            token,
            to,
        })
    }
}

/// An entry from the line that people see: `Put(k,v) session=3 op=4`.
fn entry_of(entry: &LogEntry) -> Entry {
    let (line, client_info) = match entry.text.rsplit_once(" session=") {
        Some((line, session)) => (line, client_in(session)),
        None => (entry.text.as_ref(), ClientInfo::default()),
    };
    let call = |name: &str| line.strip_prefix(name)?.strip_suffix(')');
    let (kind, val) = if let Some(put) = call("Put(") {
        let value = put.strip_prefix(entry.key.as_ref()).and_then(|it| it.strip_prefix(','));
        (1, value.unwrap_or_default())
    } else if call("Get(").is_some() {
        (2, "")
    } else if call("DeleteRange(").is_some() {
        (3, "")
    } else if line.eq_ignore_ascii_case("no-op") {
        (0, "")
    } else if line.starts_with("members") {
        (5, line)
    } else {
        (4, line)
    };
    let command = Command { kind, key: entry.key.to_string(), val: val.to_owned(), client_info };
    Entry { term: entry.term, command, index: entry.index }
}

/// `3 op=4`
fn client_in(session: &str) -> ClientInfo {
    let (client, op) = session.split_once(" op=").unwrap_or((session, ""));
    ClientInfo { client_id: client.to_owned(), op_id: op.parse().unwrap_or_default() }
}

fn number(event: &Event, name: &str) -> Option<u64> {
    event.fields.iter().find(|field| field.name == name).and_then(|field| match &field.value {
        Value::Number(number) => Some(*number),
        Value::Text(_) => None,
    })
}

fn text<'e>(event: &'e Event, name: &str) -> Option<&'e str> {
    event.fields.iter().find(|field| field.name == name).and_then(|field| match &field.value {
        Value::Number(_) => None,
        Value::Text(text) => Some(text.as_ref()),
    })
}

fn id_in(name: &str) -> Option<u64> {
    name.strip_prefix("server")?.parse().ok()
}

fn tag_of(event: &Event, is_message: bool, is_sent: bool) -> String {
    let name = word(&event.kind);
    match (is_message, is_sent) {
        (true, true) => format!("{name}Sent"),
        (true, false) => format!("{name}Recvd"),
        (false, _) => name,
    }
}

/// Fields as a JSON object.
fn body_of(event: &Event) -> String {
    let field = |field: &crate::run::Field| {
        let value = match &field.value {
            Value::Number(number) => serde_json::Value::from(*number),
            Value::Text(text) => serde_json::Value::from(text.as_ref()),
        };
        format!("{}:{value}", serde_json::Value::from(word(&field.name)))
    };
    let fields: Vec<_> = event.fields.iter().map(field).collect();
    format!("{{{}}}", fields.join(","))
}

/// `leader commit` and `leader_commit` become `LeaderCommit`.
fn word(name: &str) -> String {
    let capital = |part: &str| {
        let mut letters = part.chars();
        let first = letters.next().map(|first| first.to_uppercase().to_string());
        first.unwrap_or_default() + letters.as_str()
    };
    name.split(|letter: char| !letter.is_alphanumeric()).map(capital).collect()
}
