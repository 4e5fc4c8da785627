//! What a server is told: by a TOML file, by flags, or by the program that embeds it.
//!
//! Invariant: a [`ServerConfig`] that came from [`ServerConfig::from_toml`] or was checked by
//! [`ServerConfig::validate`] names this server among the members, and its timings fit together.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use kvraft_base::{ClusterId, MemberId, Members};
use serde::{Deserialize, Serialize};

/// Everything that a server can be told. In TOML, names have hyphens and times are milliseconds;
/// unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ServerConfig {
    /// This server's id among the members.
    #[serde(with = "member_id")]
    pub member: MemberId,
    /// The same for every server of a cluster, and different from every other cluster's.
    #[serde(default = "default_cluster", with = "cluster_id")]
    pub cluster: ClusterId,
    /// Where everything is kept. Relative to the file that names it.
    pub data_dir: PathBuf,
    /// Where clients are served. Port 0 lets the system choose.
    pub listen_client: SocketAddr,
    /// Where peers are listened for.
    pub listen_peer: SocketAddr,
    /// How often a leader is heard from.
    #[serde(default = "default_heartbeat", with = "millis")]
    pub heartbeat_interval: Duration,
    /// How long a silent leader is waited for before a campaign.
    #[serde(default = "default_election", with = "millis")]
    pub election_timeout: Duration,
    /// How long a request may wait; by default 5 s and two election timeouts, as in etcd.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "millis_option")]
    pub request_timeout: Option<Duration>,
    /// For tests: what is not synced is lost when the process is killed.
    #[serde(default)]
    pub volatile_disk: bool,
    /// How logs look.
    #[serde(default)]
    pub log_format: LogFormat,
    /// Which events are logged: a level, or a filter as `tracing` has them.
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// Every server of the cluster, this one included. Only a new data directory takes it as the
    /// membership; later it says where they are.
    pub members: Vec<MemberConfig>,
}

/// Where one member is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemberConfig {
    /// Its id, from 1; never reused for another server.
    #[serde(with = "member_id")]
    pub id: MemberId,
    /// Its name for people; `server-ID` if empty.
    #[serde(default)]
    pub name: String,
    /// `host:port` where it listens for peers.
    pub peer: String,
    /// `host:port` where it serves clients, as told to them; may be left out.
    #[serde(default)]
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

/// Why a configuration cannot be used.
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
    #[error("{path}: {error}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and what.
        error: Box<toml::de::Error>,
    },
    /// The members do not make a cluster.
    #[error("members: {0}")]
    Members(&'static str),
    /// This server is not among them.
    #[error("members: {0} is not one of them, but this server's own id")]
    NotMember(MemberId),
    /// Timings do not fit together.
    #[error(transparent)]
    Raft(#[from] kvraft_raft::ConfigError),
}

impl ServerConfig {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file and the line.
    pub fn from_toml(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_path_buf(), error })?;
        let parsed = toml::from_str(&text);
        let mut config: Self = parsed.map_err(|error| ConfigError::Parse {
            path: path.to_path_buf(),
            error: Box::new(error),
        })?;
        if let Some(parent) = path.parent() {
            config.data_dir = parent.join(&config.data_dir);
        }
        config.validate()?;
        Ok(config)
    }

    /// Reads the text of a file, without the checks of [`ServerConfig::validate`].
    ///
    /// # Errors
    /// The parser's own, with line and column.
    pub fn parse(text: &str) -> Result<Self, toml::de::Error> {
        toml::from_str(text)
    }

    /// The file that says the same.
    ///
    /// # Panics
    /// Never: every value has a form in TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("ids are below 2^63 and paths are UTF-8: both are checked")
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
        Ok(self.raft().validate()?)
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
        raft.fail_over_jitter_max = raft.fail_over_jitter_max.min(self.election_timeout);
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

fn default_cluster() -> ClusterId {
    ClusterId(1)
}

fn default_heartbeat() -> Duration {
    kvraft_raft::Config::new(MemberId(1)).heartbeat_interval
}

fn default_election() -> Duration {
    kvraft_raft::Config::new(MemberId(1)).election_timeout
}

fn default_log_level() -> String {
    "info".to_owned()
}

mod member_id {
    use kvraft_base::MemberId;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &MemberId, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(id.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<MemberId, D::Error> {
        super::positive(from).map(MemberId)
    }
}

mod cluster_id {
    use kvraft_base::ClusterId;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &ClusterId, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(id.0)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<ClusterId, D::Error> {
        super::positive(from).map(ClusterId)
    }
}

/// Ids are plain numbers. TOML's are signed, so they are below 2^63.
fn positive<'de, D: serde::Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let id = i64::deserialize(from)?;
    let id = u64::try_from(id).ok().filter(|id| *id != 0);
    id.ok_or_else(|| serde::de::Error::custom("an id is a number from 1 up"))
}

mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(time: &Duration, out: S) -> Result<S::Ok, S::Error> {
        out.serialize_u64(u64::try_from(time.as_millis()).unwrap_or(u64::MAX))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

mod millis_option {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(
        time: &Option<Duration>,
        out: S,
    ) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => super::millis::serialize(time, out),
            None => out.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        let time = Option::<u64>::deserialize(from)?;
        Ok(time.map(Duration::from_millis))
    }
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
