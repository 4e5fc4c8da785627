//! What a coordinator prints and traces.

use std::sync::Arc;

use base64::Engine as _;
use kvraft_coord::{Event, MemberEntry, ToServer};
use kvraft_trace::action::Action;

use crate::recorder::Recorder;

/// Who tells people and the tracing server.
pub(super) struct Teller {
    pub(super) recorder: Option<Arc<Recorder>>,
    pub(super) tell: fn(&str),
}

impl Teller {
    pub(super) fn on_event(&self, event: &Event) {
        if let Some(line) = line_of(event) {
            (self.tell)(&line);
        }
        if let (Some(recorder), Some(action)) = (&self.recorder, action_of(event)) {
            recorder.on_action(&action);
        }
    }

    /// What goes with a message that others are to know of.
    pub(super) fn token_of(&self, message: &ToServer) -> Option<String> {
        match message {
            ToServer::Joined {} | ToServer::GetLogState {} | ToServer::LeaderLost { .. } => {
                self.token()
            }
            // Whoever is not in the cluster does not trace yet.
            ToServer::Welcome(_) | ToServer::Refused(_) => None,
        }
    }

    pub(super) fn token(&self) -> Option<String> {
        self.recorder.as_ref()?.give_token()
    }

    /// A message has brought this.
    pub(super) fn take_token(&self, token: &str) {
        if let Some(recorder) = &self.recorder {
            recorder.take_token(token);
        }
    }
}

/// What people see.
fn line_of(event: &Event) -> Option<String> {
    Some(match event {
        Event::ServerWaiting(id) | Event::ServerJoining(id) => {
            format!("Received join request of server {id}")
        }
        Event::ServerJoined(id) => format!("Server {id} joined"),
        Event::AllServersJoined => "Join process completed".to_owned(),
        Event::ServerFailed(id) => format!("server failure detected: {id}"),
        Event::ServerRecovered(id) => {
            format!("Server {id} that was initially unreachable is now responding!!")
        }
        Event::ClusterView(view) => {
            let ids: String = view.iter().map(|id| format!("{id}, ")).collect();
            format!("ServerClusterView: {ids}").trim_end().to_owned()
        }
        Event::NewLeader(id) => format!("New leader: {id}"),
        Event::Hinted { server, failed, .. } => {
            format!("Leader {failed} failed: server {server} is told")
        }
        Event::QuorumUnavailable => "quorum unavailable".to_owned(),
        Event::Refused(why) => why.clone(),
        Event::LogStateAsked(_) | Event::LeaderAsked(_) | Event::LeaderTold { .. } => return None,
    })
}

fn action_of(event: &Event) -> Option<Action> {
    Some(match event {
        Event::ServerJoining(id) => Action::ServerJoiningRecvd { server_id: *id },
        Event::ServerJoined(id) => Action::ServerJoinedRecvd { server_id: *id },
        Event::AllServersJoined => Action::AllServersJoined {},
        Event::ServerFailed(id) => Action::ServerFail { server_id: *id },
        Event::ClusterView(view) => {
            let bytes: Vec<u8> = view.iter().filter_map(|id| u8::try_from(*id).ok()).collect();
            let view = base64::engine::general_purpose::STANDARD.encode(bytes);
            Action::NewClusterView { view }
        }
        Event::NewLeader(id) => Action::LeaderReconfigDone { server_id: *id },
        // A token that is made after its record stands there empty, as in requests to append.
        Event::LogStateAsked(id) => {
            Action::ServerLogStateRequest { server_id: *id, token: Some(String::new()) }
        }
        Event::Hinted { server, failed, term, peers } => Action::LeaderFailOver {
            server_id: *server,
            failed_leader_id: *failed,
            peers: peers.iter().map(peer).collect(),
            term: *term,
            token: Some(String::new()),
        },
        Event::QuorumUnavailable => {
            Action::LeaderSelectionFailed { msg: "quorum unavailable".to_owned() }
        }
        Event::LeaderAsked(client) => Action::LeaderReqRecvd { client_id: client.clone() },
        Event::LeaderTold { client, server } => {
            Action::LeaderRes { client_id: client.clone(), server_id: *server }
        }
        Event::ServerWaiting(_) | Event::ServerRecovered(_) | Event::Refused(_) => return None,
    })
}

/// A server, with the names that KVRaft (Go) has for what it is told of one.
fn peer(entry: &MemberEntry) -> serde_json::Value {
    serde_json::json!({
        "ServerId": entry.id,
        "ServerListenAddr": entry.peer,
        "ClientListenAddr": entry.client,
    })
}
