//! What nodes record: the actions of KVRaft (Go) under their names there, and those of our own.
//!
//! An action's name is its variant's, and its body is the variant's fields as a JSON object, in
//! declared order: readers of the older traces find what they know. Fields that are new stand at
//! the end of a body and only where they are known, so that the older shapes are read as well.
//!
//! Quirks that are kept: `Token` is `""` in a request that is sent (it is recorded before its token
//! exists), `null` in a response that is sent, and base64 elsewhere; a cluster's view is base64 of
//! one byte a server.

use serde::{Deserialize, Serialize};

/// Something that a node did. Fields are named as in the JSON of their bodies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all_fields = "PascalCase")]
#[expect(missing_docs, reason = "the fields are those of a format, described in its page")]
pub enum Action {
    // The tracing library's own.
    /// A trace begins.
    CreateTrace {},
    /// A token was made, to go out with a message.
    GenerateTokenTrace { token: String },
    /// A message's token has come in.
    ReceiveTokenTrace { token: String },

    // The client library's.
    /// A client starts.
    KvslibStart { client_id: String },
    /// A client stops.
    KvslibStop { client_id: String },
    /// A client asks who leads.
    LeaderReq { client_id: String },
    /// A client has been told who leads, as it had asked.
    LeaderResRecvd { client_id: String, server_id: u64 },
    /// A client has been told of another leader.
    LeaderNodeUpdateRecvd { client_id: String, server_id: u64 },
    /// A client asks for a put; not recorded again when it is retried.
    Put { client_id: String, op_id: u64, key: String, value: String },
    /// A put's result has come.
    PutResultRecvd {
        op_id: u64,
        key: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
    },
    /// A client asks for a get.
    Get { client_id: String, op_id: u64, key: String },
    /// A get's result has come.
    GetResultRecvd {
        op_id: u64,
        key: String,
        value: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        client_id: Option<String>,
    },

    // The coordinator's.
    /// The coordinator starts.
    CoordStart {},
    /// A server asks to join.
    ServerJoiningRecvd { server_id: u64 },
    /// A server has joined.
    ServerJoinedRecvd { server_id: u64 },
    /// All have joined.
    AllServersJoined {},
    /// A client asks who leads.
    LeaderReqRecvd { client_id: String },
    /// The answer.
    LeaderRes { client_id: String, server_id: u64 },
    /// A server has failed.
    ServerFail { server_id: u64 },
    /// Who is alive: base64 of a byte a server.
    NewClusterView { view: String },
    /// A server is asked for the end of its log.
    ServerLogStateRequest { server_id: u64, token: Option<String> },
    /// A server is told to lead; `Peers` as in its log.
    LeaderFailOver {
        server_id: u64,
        failed_leader_id: u64,
        peers: serde_json::Value,
        term: u64,
        token: Option<String>,
    },
    /// The new leader leads.
    LeaderReconfigDone { server_id: u64 },
    /// Nobody can lead.
    LeaderSelectionFailed { msg: String },

    // A server's.
    /// A server starts.
    ServerStart { server_id: u64 },
    /// It asks to join.
    ServerJoining { server_id: u64 },
    /// It has joined.
    ServerJoined { server_id: u64 },
    /// It leads.
    BecameLeader {
        server_id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<u64>,
    },
    /// It follows.
    BecameFollower {
        server_id: u64,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        term: Option<u64>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        leader_id: Option<u64>,
    },
    /// It has been told that a leader failed.
    ServerFailRecvd { failed_server_id: u64 },
    /// It has dealt with that.
    ServerFailHandled { failed_server_id: u64 },
    /// A new leader's first entry.
    NoOpRequest {},
    /// A client's put has come.
    PutRecvd { client_id: String, op_id: u64, key: String, value: String },
    /// It is committed and applied.
    PutCommitted {
        client_id: String,
        op_id: u64,
        key: String,
        value: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        revision: Option<i64>,
    },
    /// A client's get has come.
    GetRecvd { client_id: String, op_id: u64, key: String },
    /// It is answered.
    GetCommitted { client_id: String, op_id: u64, key: String, value: String },
    /// A leader sends entries, or none.
    AppendEntriesRequestSent(AppendRequest),
    /// A follower has them.
    AppendEntriesRequestRecvd(AppendRequest),
    /// A follower's answer.
    AppendEntriesResponseSent(AppendResponse),
    /// The leader has it.
    AppendEntriesResponseRecvd(AppendResponse),
    /// A leader brings a follower's log in line.
    ForceFollowerLog { server_index: u64, next_index: u64, match_index: u64 },
    /// The end of a server's log.
    ServerLogState { server_id: u64, term: u64, log_idx: u64, token: Option<String> },

    // Ours.
    /// A server asks whether it would be elected.
    BecamePreCandidate { server_id: u64, term: u64 },
    /// A server campaigns.
    BecameCandidate { server_id: u64, term: u64 },
    /// A leader has not heard from a majority.
    QuorumLost { server_id: u64, term: u64 },
    /// A vote, or a pre-vote, is asked for.
    VoteRequestSent(VoteRequest),
    /// The one who is asked has heard.
    VoteRequestRecvd(VoteRequest),
    /// The answer.
    VoteResponseSent(VoteResponse),
    /// The candidate has it.
    VoteResponseRecvd(VoteResponse),
    /// A leader hands over.
    TimeoutNowSent { server_id: u64, to: u64, term: u64 },
    /// Somebody is to take over.
    TimeoutNowRecvd { server_id: u64, from: u64, term: u64 },
    /// A client's wish is passed on to the leader.
    ForwardSent { server_id: u64, to: u64 },
    /// A wish has been passed on to this server.
    ForwardRecvd { server_id: u64, from: u64 },
    /// A server knows more to be committed.
    CommitAdvanced { server_id: u64, index: u64 },
    /// The end of a server's log was overwritten.
    LogTruncated { server_id: u64, first_index: u64 },
    /// Other members are in force.
    MembersChanged { server_id: u64, index: u64, members: Vec<u64> },
    /// A snapshot has replaced a server's state.
    SnapshotInstalled { server_id: u64, index: u64, term: u64 },
    /// So many things were not recorded here, since the tracing server did not take them in time.
    RecordsLost { count: u64 },
}

/// `AppendEntries` as a leader sends it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AppendRequest {
    /// The leader's term.
    pub term: u64,
    /// The leader.
    pub leader_id: u64,
    /// What the entries follow.
    pub prev_log_index: u64,
    /// Its term.
    pub prev_log_term: u64,
    /// The entries. Go writes an empty list as `null`.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub entries: Vec<Entry>,
    /// Up to where the leader has committed.
    pub leader_commit: u64,
    /// See the module.
    #[serde(default)]
    pub token: Option<String>,
    /// Whom it goes to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<u64>,
}

/// One entry of a log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Entry {
    /// Of which term.
    pub term: u64,
    /// What it does.
    pub command: Command,
    /// Where it is.
    pub index: u64,
}

/// What an entry does.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Command {
    /// 0: nothing, 1: put, 2: get; ours are 3: delete, 4: another command, 5: members.
    pub kind: u64,
    /// The key.
    pub key: String,
    /// The value.
    pub val: String,
    /// Who asked for it.
    pub client_info: ClientInfo,
}

/// Who asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ClientInfo {
    /// The client; empty for nobody.
    pub client_id: String,
    /// Its operation.
    pub op_id: u64,
}

/// A follower's answer to `AppendEntries`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct AppendResponse {
    /// The follower's term.
    pub term: u64,
    /// Whether its log matches.
    pub success: bool,
    /// See the module.
    #[serde(default)]
    pub token: Option<String>,
    /// Up to where it matches and is durable, if that is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_index: Option<u64>,
    /// The follower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub follower_id: Option<u64>,
}

/// A question for a vote.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VoteRequest {
    /// The term of the campaign.
    pub term: u64,
    /// Who wants to lead.
    pub candidate_id: u64,
    /// The end of its log.
    pub last_log_index: u64,
    /// The term there.
    pub last_log_term: u64,
    /// Whether it only asks whether it had a chance.
    pub pre_vote: bool,
    /// Whom it asks.
    pub to: u64,
}

/// A vote, or none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct VoteResponse {
    /// The term of the campaign.
    pub term: u64,
    /// Who votes.
    pub voter_id: u64,
    /// Whether it is given.
    pub granted: bool,
    /// Whether it was only asked whether it would be.
    pub pre_vote: bool,
}

impl Action {
    /// Name and body, as they stand in a log.
    #[must_use]
    pub fn to_parts(&self) -> (String, String) {
        // A variant is written as {"Name":body}.
        let text = serde_json::to_string(self).expect("an action is plain data");
        let (tag, body) = text[2..text.len() - 1].split_once("\":").expect("a variant has a name");
        (tag.to_owned(), body.to_owned())
    }

    /// Reads what stands in a log; `None` if nothing here is called that, or has such a body.
    #[must_use]
    pub fn from_parts(tag: &str, body: &str) -> Option<Self> {
        if tag.is_empty() || !tag.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        serde_json::from_str(&format!("{{\"{tag}\":{body}}}")).ok()
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<Entry>, D::Error> {
    Ok(Option::<Vec<Entry>>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
#[path = "action_tests.rs"]
mod tests;
