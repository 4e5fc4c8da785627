//! What is said between the coordinator, servers and clients: JSON, one message a line.
//!
//! Why text: nothing here is often or large, and a person can speak it with `nc`.
//!
//! Invariant: a line has a bound, and whatever stands in it, decoding it is an error or a message.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// Longest line, its end included, in bytes.
pub const LINE_SIZE_BYTES_MAX: usize = 64 << 10;

/// From a server or a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToCoordinator {
    /// A server's first line.
    Join(Hello),
    /// A server's heartbeat.
    Report(Report),
    /// A server's answer to [`ToServer::GetLogState`].
    LogState(Report),
    /// A client's only line: who leads, now and whenever that changes?
    GetLeader {
        /// The client's name.
        client: String,
    },
}

/// Who a server is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Hello {
    /// Its name for people; may be empty.
    pub name: String,
    /// `host:port` where its peers reach it.
    pub peer: String,
    /// `host:port` where clients reach it.
    pub client: String,
    /// Its id, if it has data.
    pub member: Option<u64>,
    /// Its cluster's id, if it has data.
    pub cluster: Option<u64>,
}

/// How a server is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Report {
    /// Its term.
    pub term: u64,
    /// Whether it leads.
    pub leads: bool,
    /// Whom it follows.
    pub leader: Option<u64>,
    /// End of its log.
    pub last: Candidate,
}

/// How much of the log a server has; the greatest wins an election.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Candidate {
    /// Term of its last entry.
    pub term: u64,
    /// Index of its last entry.
    pub index: u64,
}

/// To a server.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToServer {
    /// All have come: this is the cluster.
    Welcome(Membership),
    /// It belongs to the cluster, as its data says: its reports are awaited.
    Joined {},
    /// It is not taken.
    Refused(String),
    /// The leader is dead: how does your log end?
    GetLogState {},
    /// The leader is dead, as far as the coordinator knows: campaign, if your own ears agree.
    LeaderLost {
        /// Who was it.
        leader: u64,
    },
}

/// The first members of a cluster, and who of them is spoken to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Membership {
    /// The receiver's id.
    pub member: u64,
    /// Drawn once for this cluster; its id is made of it and of the members.
    pub token: String,
    /// All of them, by id.
    pub members: Vec<MemberEntry>,
}

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct MemberEntry {
    /// Its id.
    pub id: u64,
    /// Its name; may be empty.
    pub name: String,
    /// `host:port` where its peers reach it.
    pub peer: String,
    /// `host:port` where clients reach it.
    pub client: String,
}

/// To a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ToClient {
    /// This server leads.
    Leader(LeaderInfo),
    /// It is not served.
    Refused(String),
}

/// Who leads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LeaderInfo {
    /// Its id.
    pub server: u64,
    /// `host:port` where it serves clients.
    pub client: String,
    /// Where all servers do that have joined, the leader first.
    pub endpoints: Vec<String>,
    /// Whether as many servers have joined as the coordinator was told to expect.
    #[serde(default)]
    pub all_joined: bool,
}

/// A message as its line, with its end.
///
/// # Panics
/// Never: messages are plain data.
#[must_use]
pub fn encode(message: &impl Serialize) -> String {
    serde_json::to_string(message).expect("a message is plain data") + "\n"
}

/// The message of a line.
///
/// # Errors
/// In words: what is wrong with it, and where.
pub fn decode<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    if LINE_SIZE_BYTES_MAX < line.len() {
        return Err(format!("a line has at most {LINE_SIZE_BYTES_MAX} bytes"));
    }
    serde_json::from_str(line).map_err(|error| error.to_string())
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod tests;
