//! What frames and events of a server are called in a trace.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{Entry as LogEntry, EntryKind, Index, MemberId, Position, Term};
use kvraft_kv::{Command as KvCommand, Request, SessionOp};
use kvraft_raft::{AppendOutcome, Body, Event, Message};
use kvraft_recorder::text;
use kvraft_replica::Frame;
use kvraft_trace::{
    action::{
        Action, AppendRequest, AppendResponse, ClientInfo, Command, Entry, VoteRequest,
        VoteResponse,
    },
    token::Token,
};

/// How far each peer's log, or this server's towards each peer, is known to match by the answers
/// that stand in the trace.
///
/// Why: leaders count what answers to heartbeats say like what answers to Appends say, and the
/// trace would not show why an entry is committed. Such an answer is worth a record when it says
/// more than all before it.
#[derive(Debug, Default)]
pub(super) struct Matched(BTreeMap<MemberId, (Term, Index)>);

impl Matched {
    fn is_news(&mut self, peer: MemberId, term: Term, matched: Position) -> bool {
        let known = self.0.entry(peer).or_default();
        let is_more = Index::ZERO < matched.index && *known < (term, matched.index);
        if is_more {
            *known = (term, matched.index);
        }
        is_more
    }

    /// What was said last has not reached this peer's trace.
    pub(super) fn forget(&mut self, peer: MemberId) {
        self.0.remove(&peer);
    }
}

/// The actions of a frame that leaves; none if it is not worth a record.
pub(super) fn sent(me: MemberId, to: MemberId, frame: &Bytes, told: &mut Matched) -> Vec<Action> {
    match super::decode(frame) {
        Some(Frame::Raft(messages)) => {
            messages.iter().filter_map(|message| sent_message(me, to, message, told)).collect()
        }
        Some(Frame::Forward { .. } | Frame::ForwardChange { .. }) => {
            vec![Action::ForwardSent { server_id: me.0, to: to.0 }]
        }
        _ => Vec::new(),
    }
}

/// The actions of a frame that has come.
pub(super) fn received(
    me: MemberId,
    from: MemberId,
    frame: &Bytes,
    token: &Token,
    heard: &mut Matched,
) -> Vec<Action> {
    let token = token.to_base64();
    match super::decode(frame) {
        Some(Frame::Raft(messages)) => {
            let actions = messages
                .iter()
                .filter_map(|message| received_message(me, from, message, &token, heard));
            actions.collect()
        }
        Some(Frame::Forward { .. } | Frame::ForwardChange { .. }) => {
            vec![Action::ForwardRecvd { server_id: me.0, from: from.0 }]
        }
        _ => Vec::new(),
    }
}

fn sent_message(
    me: MemberId,
    to: MemberId,
    message: &Message,
    told: &mut Matched,
) -> Option<Action> {
    Some(match &message.body {
        Body::Append { .. } => {
            // Recorded before the token exists.
            let token = Some(String::new());
            Action::AppendEntriesRequestSent(append_request(message, token)?)
        }
        Body::AppendAnswer { .. } | Body::HeartbeatAnswer { .. } => {
            Action::AppendEntriesResponseSent(append_response(message, to, None, told)?)
        }
        Body::TimeoutNow => {
            Action::TimeoutNowSent { server_id: me.0, to: to.0, term: message.term.0 }
        }
        _ => match vote_request(message) {
            Some(request) => Action::VoteRequestSent(request),
            None => Action::VoteResponseSent(vote_response(message)?),
        },
    })
}

fn received_message(
    me: MemberId,
    from: MemberId,
    message: &Message,
    token: &str,
    heard: &mut Matched,
) -> Option<Action> {
    let token = || Some(token.to_owned());
    Some(match &message.body {
        Body::Append { .. } => Action::AppendEntriesRequestRecvd(append_request(message, token())?),
        Body::AppendAnswer { .. } | Body::HeartbeatAnswer { .. } => {
            Action::AppendEntriesResponseRecvd(append_response(message, from, token(), heard)?)
        }
        Body::TimeoutNow => {
            let (from, term) = (message.from.0, message.term.0);
            Action::TimeoutNowRecvd { server_id: me.0, from, term }
        }
        _ => match vote_request(message) {
            Some(request) => Action::VoteRequestRecvd(request),
            None => Action::VoteResponseRecvd(vote_response(message)?),
        },
    })
}

/// A request to a follower that is far behind shows its first entries only: whatever clients have
/// written, a record fits into a frame, even if every byte of a key becomes six.
const ENTRIES_MAX: usize = 512;

fn append_request(message: &Message, token: Option<String>) -> Option<AppendRequest> {
    let Body::Append { prev, commit, entries } = &message.body else { return None };
    Some(AppendRequest {
        term: message.term.0,
        leader_id: message.from.0,
        prev_log_index: prev.index.0,
        prev_log_term: prev.term.0,
        entries: entries.iter().take(ENTRIES_MAX).map(entry).collect(),
        leader_commit: commit.0,
        token,
        to: Some(message.to.0),
    })
}

/// An answer to an Append, or to a heartbeat if it says more than is known.
fn append_response(
    message: &Message,
    peer: MemberId,
    token: Option<String>,
    known: &mut Matched,
) -> Option<AppendResponse> {
    let match_index = match &message.body {
        Body::AppendAnswer { outcome: AppendOutcome::Accepted { matched } } => {
            known.is_news(peer, message.term, *matched);
            Some(matched.index.0)
        }
        Body::HeartbeatAnswer { matched, .. } if known.is_news(peer, message.term, *matched) => {
            Some(matched.index.0)
        }
        Body::AppendAnswer { outcome: AppendOutcome::Conflict { .. } } => None,
        _ => return None,
    };
    Some(AppendResponse {
        term: message.term.0,
        success: match_index.is_some(),
        token,
        match_index,
        follower_id: Some(message.from.0),
    })
}

fn vote_request(message: &Message) -> Option<VoteRequest> {
    let (term, last, pre_vote) = match &message.body {
        Body::PreVoteRequest { campaign, last } => (*campaign, last, true),
        Body::VoteRequest { last, .. } => (message.term, last, false),
        _ => return None,
    };
    Some(VoteRequest {
        term: term.0,
        candidate_id: message.from.0,
        last_log_index: last.index.0,
        last_log_term: last.term.0,
        pre_vote,
        to: message.to.0,
    })
}

fn vote_response(message: &Message) -> Option<VoteResponse> {
    let (term, granted, pre_vote) = match &message.body {
        Body::PreVoteAnswer { campaign, granted } => (*campaign, *granted, true),
        Body::VoteAnswer { granted } => (message.term, *granted, false),
        _ => return None,
    };
    Some(VoteResponse { term: term.0, voter_id: message.from.0, granted, pre_vote })
}

/// What an entry does.
fn entry(entry: &LogEntry) -> Entry {
    let command = match entry.kind {
        EntryKind::Noop => Command::default(),
        EntryKind::Config => Command { kind: 5, ..Command::default() },
        EntryKind::Command => command(&entry.payload),
    };
    Entry { term: entry.term.0, command, index: entry.index.0 }
}

fn command(payload: &Bytes) -> Command {
    let Ok(decoded) = KvCommand::decode(payload.clone()) else {
        return Command { kind: 4, ..Command::default() };
    };
    let (kind, key, val) = match &decoded.request {
        Request::Put(put) => (1, text(&put.key), text(&put.value)),
        Request::DeleteRange(delete) => (3, text(&delete.key), String::new()),
        Request::Txn(_)
        | Request::Compact(_)
        | Request::OpenSession { .. }
        | Request::CloseSession { .. }
        | Request::RaiseVersion { .. } => (4, String::new(), kvraft_kv::describe(payload)),
    };
    let client_info = decoded.session.map(client_info).unwrap_or_default();
    Command { kind, key, val, client_info }
}

fn client_info(session: SessionOp) -> ClientInfo {
    ClientInfo { client_id: session.client.0.to_string(), op_id: session.op.0 }
}

/// What an event of consensus is in a trace.
pub(super) fn event(me: MemberId, event: &Event) -> Vec<Action> {
    let server_id = me.0;
    let term = |term: &Term| Some(term.0);
    vec![match event {
        Event::BecameLeader { term: of } => {
            let leads = Action::BecameLeader { server_id, term: term(of) };
            return vec![leads, Action::NoOpRequest {}];
        }
        Event::BecameFollower { term: of, leader } => {
            let leader_id = leader.map(|leader| leader.0);
            Action::BecameFollower { server_id, term: term(of), leader_id }
        }
        Event::BecamePreCandidate { term } => {
            Action::BecamePreCandidate { server_id, term: term.0 }
        }
        Event::BecameCandidate { term } => Action::BecameCandidate { server_id, term: term.0 },
        Event::QuorumLost { term } => Action::QuorumLost { server_id, term: term.0 },
        Event::CommitAdvanced { commit } => Action::CommitAdvanced { server_id, index: commit.0 },
        Event::LogTruncated { first, .. } => {
            Action::LogTruncated { server_id, first_index: first.0 }
        }
        Event::SnapshotInstalled { position } => {
            let (index, term) = (position.index.0, position.term.0);
            Action::SnapshotInstalled { server_id, index, term }
        }
        _ => return Vec::new(),
    }]
}

/// A client's put, as its actions name it.
#[derive(Clone, Debug)]
pub(crate) struct PutSeen {
    info: ClientInfo,
    key: String,
    value: String,
}

impl PutSeen {
    pub(crate) fn new(session: Option<SessionOp>, key: &[u8], value: &[u8]) -> Self {
        let info = session.map(client_info).unwrap_or_default();
        Self { info, key: text(key), value: text(value) }
    }

    pub(crate) fn received(&self) -> Action {
        let Self { info, key, value } = self.clone();
        Action::PutRecvd { client_id: info.client_id, op_id: info.op_id, key, value }
    }

    pub(crate) fn committed(self, revision: i64) -> Action {
        let Self { info, key, value } = self;
        let revision = Some(revision);
        Action::PutCommitted { client_id: info.client_id, op_id: info.op_id, key, value, revision }
    }
}

/// A client's get of one key, as its actions name it.
#[derive(Clone, Debug)]
pub(crate) struct GetSeen {
    /// Of a client that numbers its gets.
    info: ClientInfo,
    key: String,
}

impl GetSeen {
    pub(crate) fn new(session: Option<SessionOp>, key: &[u8]) -> Self {
        Self { info: session.map(client_info).unwrap_or_default(), key: text(key) }
    }

    pub(crate) fn received(&self) -> Action {
        let ClientInfo { client_id, op_id } = self.info.clone();
        Action::GetRecvd { client_id, op_id, key: self.key.clone() }
    }

    /// No value is the empty text.
    pub(crate) fn answered(self, value: Option<&[u8]>) -> Action {
        let ClientInfo { client_id, op_id } = self.info;
        let value = value.map(text).unwrap_or_default();
        Action::GetCommitted { client_id, op_id, key: self.key, value }
    }
}
