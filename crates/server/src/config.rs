//! What a server is told: by a TOML file, by flags, or by the program that embeds it.
//!
//! Invariant: a [`ServerConfig`] that came from [`ConfigFile::resolve`] or was checked by
//! [`ServerConfig::validate`] names this server among the members, and its timings fit together.

mod bounds;
mod file;
mod units;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use kvraft_base::{ClusterId, MemberId, Members};
use serde::{Deserialize, Serialize};

pub use self::{
    bounds::Limits,
    file::{ConfigFile, MemberEntry, derived_id},
    units::{UnitError, parse_size, parse_time},
};

/// Everything that a server can be told, nothing left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// This server's id among the members.
    pub member: MemberId,
    /// The same for every server of a cluster, and different from every other cluster's.
    pub cluster: ClusterId,
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// Where clients are served. Port 0 lets the system choose.
    pub listen_client: SocketAddr,
    /// Where peers are listened for.
    pub listen_peer: SocketAddr,
    /// How often a leader is heard from.
    pub heartbeat_interval: Duration,
    /// How long a silent leader is waited for before a campaign.
    pub election_timeout: Duration,
    /// Longest wait before a campaign once the connection to the leader has closed.
    pub fail_over_jitter: Duration,
    /// How long a request may wait; by default 5 s and two election timeouts, as in etcd.
    pub request_timeout: Option<Duration>,
    /// For tests: what is not synced is lost when the process is killed.
    pub volatile_disk: bool,
    /// How logs look.
    pub log_format: LogFormat,
    /// Which events are logged: a level, or a filter as `tracing` has them.
    pub log_level: String,
    /// Bounds.
    pub limits: Limits,
    /// Every server of the cluster, this one included. Only a new data directory takes it as the
    /// membership; later it says where they are.
    pub members: Vec<MemberConfig>,
}

/// Where one member is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberConfig {
    /// Its id, from 1; never reused for another server.
    pub id: MemberId,
    /// Its name for people; `server-ID` if empty.
    pub name: String,
    /// `host:port` where it listens for peers.
    pub peer: String,
    /// `host:port` where it serves clients, as told to them; may be left out.
    pub client: String,
}

/// How logs look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// Lines for people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Why a configuration cannot be used. Each names the key, and the value where there is one.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read {path}: {error}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        error: std::io::Error,
    },
    /// The file is not TOML of this shape.
    #[error("{path}: {error}{hint}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
        /// A key that may have been meant.
        hint: String,
    },
    /// A key cannot be set to this.
    #[error("{given}: {why}{hint}")]
    Set {
        /// `KEY=VALUE` as given.
        given: String,
        /// What is wrong with it.
        why: String,
        /// A key that may have been meant.
        hint: String,
    },
    /// The members do not make a cluster.
    #[error("members: {0}")]
    Members(&'static str),
    /// A member has neither id nor name.
    #[error("members: {peer} needs an id or a name")]
    NoId {
        /// Its peer address.
        peer: String,
    },
    /// A member has a name, but nothing that an id could be made of.
    #[error("members: {name} has no id, and there is no cluster-token of which to make one")]
    NoToken {
        /// Its name.
        name: String,
    },
    /// Neither `member` nor `name` is there.
    #[error("member: neither this server's id (member) nor its name (name) is given")]
    WhoAmI,
    /// This server's name is not among the members'.
    #[error("name: {name:?} is none of the members' names")]
    NoSuchName {
        /// The name.
        name: String,
    },
    /// Name and id are not the same member's.
    #[error("member: {name} has the id {found}, not {id}")]
    OtherId {
        /// The name.
        name: String,
        /// The id that was given beside it.
        id: u64,
        /// The id in the list of members.
        found: MemberId,
    },
    /// This server is not among them.
    #[error("members: {0} is not one of them, but this server's own id")]
    NotMember(MemberId),
    /// Timings do not fit together.
    #[error(
        "heartbeat-interval = {heartbeat:?} and election-timeout = {election:?}: the first must \
         not be zero, at most a third of the second, and the second at most an hour"
    )]
    Timing {
        /// The interval.
        heartbeat: Duration,
        /// The timeout.
        election: Duration,
    },
    /// The short cut would be longer than what it shortens.
    #[error(
        "fail-over-jitter = {jitter:?} is longer than election-timeout = {election:?}: it shortens \
         the wait for a campaign, and must not be longer than that"
    )]
    Jitter {
        /// The jitter.
        jitter: Duration,
        /// The timeout.
        election: Duration,
    },
    /// A bound is out of bounds.
    #[error("limits.{key} = {number} {why}")]
    Limit {
        /// Its key.
        key: &'static str,
        /// Its value.
        number: u64,
        /// Why not.
        why: &'static str,
    },
    /// A request could not wait at all.
    #[error("request-timeout = 0ms leaves no time for any request")]
    NoRequestTime,
    /// Consensus refuses it.
    #[error(transparent)]
    Raft(kvraft_raft::ConfigError),
}

impl ServerConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and the line.
    pub fn from_toml(path: &Path) -> Result<Self, ConfigError> {
        ConfigFile::read(path)?.resolve()
    }

    /// The file that says the same, every key and every id in it.
    #[must_use]
    pub fn to_toml(&self) -> String {
        ConfigFile::from(self).to_toml()
    }

    /// One server alone, with every default.
    #[must_use]
    pub fn alone(data_dir: PathBuf, listen_client: SocketAddr, listen_peer: SocketAddr) -> Self {
        let raft = kvraft_raft::Config::new(MemberId(1));
        Self {
            member: MemberId(1),
            cluster: ClusterId(1),
            data_dir,
            listen_client,
            listen_peer,
            heartbeat_interval: raft.heartbeat_interval,
            election_timeout: raft.election_timeout,
            fail_over_jitter: raft.fail_over_jitter_max,
            request_timeout: None,
            volatile_disk: false,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            limits: Limits::default(),
            members: vec![MemberConfig {
                id: MemberId(1),
                name: String::new(),
                peer: listen_peer.to_string(),
                client: String::new(),
            }],
        }
    }

    /// Checks what belongs together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let ids = self.members.iter().map(|member| member.id);
        let Some(members) = Members::new(ids) else {
            return Err(ConfigError::Members("1 to 7 are needed, with different ids from 1 up"));
        };
        if !members.is_voter(self.member) {
            return Err(ConfigError::NotMember(self.member));
        }
        if self.members.iter().any(|member| !member.peer.contains(':')) {
            return Err(ConfigError::Members("each needs its peer address as host:port"));
        }
        if self.request_timeout.is_some_and(|time| time.is_zero()) {
            return Err(ConfigError::NoRequestTime);
        }
        self.limits.validate()?;
        self.raft().validate().map_err(|error| match error {
            kvraft_raft::ConfigError::Timing(heartbeat, election) => {
                ConfigError::Timing { heartbeat, election }
            }
            kvraft_raft::ConfigError::Jitter(jitter, election) => {
                ConfigError::Jitter { jitter, election }
            }
            other => ConfigError::Raft(other),
        })
    }

    /// The membership of a new data directory.
    ///
    /// # Panics
    /// When the configuration was not checked.
    #[must_use]
    pub fn bootstrap_members(&self) -> Members {
        Members::new(self.members.iter().map(|member| member.id))
            .expect("a checked configuration has valid members")
    }

    /// What consensus is told.
    #[must_use]
    pub fn raft(&self) -> kvraft_raft::Config {
        let mut raft = kvraft_raft::Config::new(self.member);
        raft.heartbeat_interval = self.heartbeat_interval;
        raft.election_timeout = self.election_timeout;
        raft.fail_over_jitter_max = self.fail_over_jitter;
        self.limits.set_raft(&mut raft);
        raft
    }

    /// Where every member listens for peers.
    #[must_use]
    pub fn peer_addresses(&self) -> BTreeMap<MemberId, String> {
        self.members.iter().map(|member| (member.id, member.peer.clone())).collect()
    }

    /// How long a request may wait.
    #[must_use]
    pub fn request_time_max(&self) -> Duration {
        self.request_timeout.unwrap_or(Duration::from_secs(5) + 2 * self.election_timeout)
    }
}

impl MemberConfig {
    /// Its name for people.
    #[must_use]
    pub fn display_name(&self) -> String {
        if self.name.is_empty() { format!("server-{}", self.id) } else { self.name.clone() }
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
