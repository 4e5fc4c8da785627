//! Events and messages as lines of a scenario.

use kvraft_raft::{AppendOutcome, Body, Event, Message};

/// An event on one line, in the notation of messages: `Name field=value`, positions as
/// `index@term`.
pub(crate) fn compact(event: &Event) -> String {
    let mut text = format!("{event:?}");
    for wrapper in ["Term(", "Index(", "MemberId(", "Some("] {
        while let Some((before, after)) = text.split_once(wrapper) {
            let (inner, rest) = after.split_once(')').expect("what is opened is closed");
            text = format!("{before}{inner}{rest}");
        }
    }
    while let Some((before, after)) = text.split_once("Position { term: ") {
        let (position, rest) = after.split_once(" }").expect("what is opened is closed");
        let (term, index) = position.split_once(", index: ").expect("it has two fields");
        text = format!("{before}{index}@{term}{rest}");
    }
    text.replace("None", "-")
        .replace(" { ", " ")
        .replace(" }", "")
        .replace(": ", "=")
        .replace(", ", " ")
        .replace('"', "")
}

/// A message on one line.
pub(crate) fn describe(message: &Message) -> String {
    let Message { from, to, term, body } = message;
    let detail = match body {
        Body::PreVoteRequest { campaign, last } => format!("campaign={campaign} last={last}"),
        Body::PreVoteAnswer { campaign, granted } => {
            format!("campaign={campaign} granted={granted}")
        }
        Body::VoteRequest { last, transfer } => {
            format!("last={last}{}", if *transfer { " transfer" } else { "" })
        }
        Body::VoteAnswer { granted } => format!("granted={granted}"),
        Body::Append { prev, commit, entries } => {
            let entries: Vec<String> = entries.iter().map(|e| e.position().to_string()).collect();
            format!("prev={prev} commit={commit} [{}]", entries.join(" "))
        }
        Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
            format!("matched={matched}")
        }
        Body::AppendAnswer {
            outcome: AppendOutcome::Conflict { rejected, hint, commit, last },
        } => {
            format!("rejected={rejected} hint={hint} commit={commit} last={last}")
        }
        Body::Heartbeat { round, commit } => format!("round={round} commit={commit}"),
        Body::HeartbeatAnswer { round, received, last, matched } => {
            format!("round={round} received={received} last={last} matched={matched}")
        }
        Body::CommitNotice { commit } => format!("commit={commit}"),
        Body::SnapshotWanted => String::new(),
        Body::ReadRequest { .. } => "context".to_owned(),
        Body::ReadAnswer { index, .. } => match index {
            Some(index) => format!("index={index}"),
            None => "not leading".to_owned(),
        },
        Body::SnapshotNotice { position } => format!("position={position}"),
        Body::TimeoutNow => String::new(),
    };
    format!("{from}→{to} t{term} {} {detail}", body.name()).trim_end().to_owned()
}
