//! Messages, events of consensus and entries of the log in the words that people see.

use std::sync::Arc;

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, Instant, Members};
use kvraft_kv::{Command, Request, RequestOp};
use kvraft_raft::{AppendOutcome, Body, Event as Raft, Message};
use kvraft_replica::{Frame, Outcome};
use kvraft_trace::run::{Event, NodeId};

/// Every message of a frame as the event of sending it.
pub(super) fn describe_frame(
    now: Instant,
    node: NodeId,
    to: &Arc<str>,
    frame: &Frame,
) -> Vec<Event> {
    let event = |kind: &'static str| Event::new(now.0, node, kind).with("to", Arc::clone(to));
    vec![match frame {
        Frame::Raft(messages) => {
            let describe = |message: &Message| {
                let event = event(message.body.name()).with("term", message.term.0);
                describe_body(event, &message.body)
            };
            return messages.iter().map(describe).collect();
        }
        Frame::Forward { command, .. } => {
            event("Forward").with("what", kvraft_kv::describe(command))
        }
        Frame::ForwardChange { changes, .. } => {
            event("ForwardChange").with("what", format!("{changes:?}"))
        }
        Frame::ChangeDone { index, members, .. } => {
            event("ChangeDone").with("index", index.0).with("members", members.to_string())
        }
        Frame::ForwardRefused { reason, .. } => {
            event("ForwardRefused").with("reason", format!("{reason:?}"))
        }
        Frame::ForwardLost { .. } => event("ForwardLost"),
        Frame::VersionsWanted { .. } => event("VersionsWanted"),
        Frame::Versions { versions, .. } => {
            event("Versions").with("newest", u64::from(versions.newest))
        }
        Frame::SnapshotChunk(chunk) => event("SnapshotChunk")
            .with("term", chunk.term.0)
            .with("index", chunk.position.index.0)
            .with("number", chunk.seq)
            .with("bytes", chunk.bytes.len() as u64),
        Frame::SnapshotTaken { position, seq } => {
            event("SnapshotTaken").with("index", position.index.0).with("number", *seq)
        }
        Frame::SnapshotUnknown { position } => {
            event("SnapshotUnknown").with("index", position.index.0)
        }
    }]
}

fn describe_body(event: Event, body: &Body) -> Event {
    match body {
        Body::PreVoteRequest { campaign, last } => {
            event.with("campaign", campaign.0).with("last", last.index.0).with("of", last.term.0)
        }
        Body::PreVoteAnswer { campaign, granted } => {
            event.with("campaign", campaign.0).with("granted", yes_no(*granted))
        }
        Body::VoteRequest { last, transfer } => {
            let event = event.with("last", last.index.0).with("of", last.term.0);
            if *transfer { event.with("transfer", "yes") } else { event }
        }
        Body::VoteAnswer { granted } => event.with("granted", yes_no(*granted)),
        Body::Append { prev, commit, entries } => event
            .with("prev", prev.index.0)
            .with("of", prev.term.0)
            .with("entries", entries.len() as u64)
            .with("commit", commit.0),
        Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
            event.with("matched", matched.index.0)
        }
        Body::AppendAnswer { outcome: AppendOutcome::Conflict { rejected, hint, .. } } => {
            event.with("rejected", rejected.index.0).with("hint", hint.index.0)
        }
        Body::Heartbeat { round, commit } => event.with("round", *round).with("commit", commit.0),
        Body::HeartbeatAnswer { round, matched, .. } => {
            event.with("round", *round).with("matched", matched.index.0)
        }
        Body::CommitNotice { commit } => event.with("commit", commit.0),
        // Their contexts are drawn, and name nothing that people know.
        Body::ReadAnswer { index: Some(index), .. } => event.with("index", index.0),
        Body::ReadAnswer { index: None, .. } => event.with("refused", "it does not lead"),
        Body::SnapshotNotice { position } => event.with("index", position.index.0),
        Body::ReadRequest { .. } | Body::SnapshotWanted | Body::TimeoutNow => event,
    }
}

fn yes_no(is_so: bool) -> &'static str {
    if is_so { "yes" } else { "no" }
}

/// An event of consensus; `None` of one that a change of the shown state says as well.
pub(super) fn describe_raft(now: Instant, node: NodeId, event: &Raft) -> Option<Event> {
    let of = |kind: &'static str| Event::new(now.0, node, kind);
    Some(match event {
        Raft::CommitAdvanced { .. } => return None,
        Raft::BecameFollower { term, leader } => {
            let event = of("BecameFollower").with("term", term.0);
            match leader {
                Some(leader) => event.with("leader", format!("server{leader}")),
                None => event,
            }
        }
        Raft::BecamePreCandidate { term } => of("BecamePreCandidate").with("term", term.0),
        Raft::BecameCandidate { term } => of("BecameCandidate").with("term", term.0),
        Raft::BecameLeader { term } => of("BecameLeader").with("term", term.0),
        Raft::VoteGranted { term, candidate } => {
            of("VoteGranted").with("term", term.0).with("candidate", format!("server{candidate}"))
        }
        Raft::QuorumLost { term } => of("QuorumLost").with("term", term.0),
        Raft::ConflictFound { rejected, hint } => {
            of("ConflictFound").with("rejected", rejected.index.0).with("hint", hint.index.0)
        }
        Raft::LogTruncated { first, promises_dropped } => {
            of("LogTruncated").with("first", first.0).with("dropped", *promises_dropped as u64)
        }
        Raft::MembersChanged { index } => of("MembersChanged").with("index", index.0),
        Raft::MembersCommitted { index } => of("MembersCommitted").with("index", index.0),
        Raft::LearnerPromoted { id } => of("LearnerPromoted").with("who", format!("server{id}")),
        Raft::Dismissed { term } => of("Dismissed").with("term", term.0),
        Raft::TransferBegun { to } => of("TransferBegun").with("whom", format!("server{to}")),
        Raft::TransferDone { to } => of("TransferDone").with("whom", format!("server{to}")),
        Raft::TransferFailed { to } => of("TransferFailed").with("whom", format!("server{to}")),
        Raft::SnapshotNeeded { peer, next } => {
            of("SnapshotNeeded").with("who", format!("server{peer}")).with("next", next.0)
        }
        Raft::SnapshotInstalled { position } => {
            of("SnapshotInstalled").with("index", position.index.0)
        }
        Raft::FollowerRegressed { peer, matched, last } => of("FollowerRegressed")
            .with("who", format!("server{peer}"))
            .with("matched", matched.0)
            .with("last", last.0),
        Raft::AppendLost { peer, matched } => {
            of("AppendLost").with("who", format!("server{peer}")).with("matched", matched.0)
        }
        Raft::Unmuted { durable } => of("Unmuted").with("durable", durable.0),
        Raft::Ignored { from, message, reason } => of("Ignored")
            .with("sender", format!("server{from}"))
            .with("message", *message)
            .with("reason", format!("{reason:?}")),
    })
}

/// What an entry says, and the one key that it is about.
pub(super) fn describe_entry(entry: &Entry) -> (Arc<str>, Arc<str>) {
    let (text, key) = match entry.kind {
        EntryKind::Noop => ("no-op".to_owned(), String::new()),
        EntryKind::Config => {
            let members = Members::decode(entry.payload.clone());
            let text = members.map_or_else(|error| error.to_string(), |m| m.to_string());
            (format!("members {text}"), String::new())
        }
        EntryKind::Command => {
            let command = Command::decode(entry.payload.clone());
            let key = command.ok().and_then(|command| key_of(&command.request));
            (kvraft_kv::describe(&entry.payload), key.unwrap_or_default())
        }
    };
    (text.into(), key.into())
}

/// What a server answers, in a line.
pub(super) fn describe_outcome(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Done(Ok(_)) | Outcome::Answered(Ok(_)) => "done".to_owned(),
        Outcome::Done(Err(refused)) | Outcome::Answered(Err(refused)) => {
            format!("refused: {refused}")
        }
        Outcome::Failed(why) => format!("failed: {why}"),
        Outcome::Unknown(why) => format!("unknown: {why}"),
        Outcome::Changed(_) => "members changed".to_owned(),
        Outcome::Transferred(_) => "leadership moved".to_owned(),
    }
}

fn key_of(request: &Request) -> Option<String> {
    match request {
        Request::Put(put) => Some(shown(&put.key)),
        Request::DeleteRange(delete) if delete.range_end.is_empty() => Some(shown(&delete.key)),
        Request::Txn(txn) => {
            let ops = txn.success.iter().chain(&txn.failure);
            let mut keys = ops.filter_map(|op| match op {
                RequestOp::Put(put) => Some(shown(&put.key)),
                RequestOp::DeleteRange(delete) => Some(shown(&delete.key)),
                RequestOp::Range(_) | RequestOp::Txn(_) => None,
            });
            let first = keys.next()?;
            keys.all(|key| key == first).then_some(first)
        }
        Request::DeleteRange(_)
        | Request::Compact(_)
        | Request::OpenSession { .. }
        | Request::CloseSession { .. }
        | Request::RaiseVersion { .. } => None,
    }
}

fn shown(key: &Bytes) -> String {
    key.escape_ascii().to_string()
}
