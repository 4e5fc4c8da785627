//! The configuration as it is written: in TOML, with what may be left out left out.
//!
//! Ids may be left out where names stand. An id is then a function of the cluster's token and the
//! member's name alone (see [`derived_id`]), so that every server computes the same ids from the
//! same list, nobody numbers servers by hand, and another cluster's token gives other ids. A
//! member that lost its disk comes back under a new name, since an id is never given again.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use kvraft_base::{ClusterId, MemberId};
use serde::{Deserialize, Serialize};

use super::{ConfigError, Limits, LogFormat, MemberConfig, ServerConfig, units};

/// What a file, or the flags, say. Names have hyphens; unknown keys are refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct ConfigFile {
    /// This server's id among the members; may be left out where `name` stands.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "id")]
    pub member: Option<u64>,
    /// This server's name among the members; may be left out where `member` stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The cluster's id, the same for all of its servers: 1, or what follows from the token.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "id")]
    pub cluster: Option<u64>,
    /// A text that no other cluster has, of which ids are made that are not given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_token: Option<String>,
    /// Where everything is kept. Relative to the file that names it.
    pub data_dir: PathBuf,
    /// Where clients are served.
    pub listen_client: SocketAddr,
    /// Where peers are listened for.
    pub listen_peer: SocketAddr,
    /// How often a leader is heard from.
    #[serde(default = "default_heartbeat", with = "units::time")]
    pub heartbeat_interval: Duration,
    /// How long a silent leader is waited for before a campaign.
    #[serde(default = "default_election", with = "units::time")]
    pub election_timeout: Duration,
    /// Longest wait before a campaign once the connection to the leader has closed.
    /// By default 50 ms, or all of a shorter election timeout.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::time_option")]
    pub fail_over_jitter: Option<Duration>,
    /// How long a request may wait; by default 5 s and two election timeouts, as in etcd.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "units::time_option")]
    pub request_timeout: Option<Duration>,
    /// Answer linearizable reads without asking a majority, by the clock.
    #[serde(default)]
    pub lease_reads: bool,
    /// Greatest difference in rate between any two clocks of the cluster, in parts per million.
    #[serde(default = "default_clock_drift")]
    pub clock_drift_max: u32,
    /// For tests: what is not synced is lost when the process is killed.
    #[serde(default)]
    pub volatile_disk: bool,
    /// How logs look.
    #[serde(default)]
    pub log_format: LogFormat,
    /// Which events are logged.
    #[serde(default = "default_log_level")]
    pub log_level: String,
    /// `host:port` where a coordinator listens for servers, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coord: Option<String>,
    /// `host:port` of the tracing server; nothing is recorded if it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing_server: Option<String>,
    /// This server's name in traces; `server` and its id by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracing_identity: Option<String>,
    /// What the ring of the flight recorder may take; `off`: nothing is recorded.
    #[serde(default = "default_flight_recorder", with = "units::size_or_off")]
    pub flight_recorder: u64,
    /// Bounds.
    #[serde(default)]
    pub limits: Limits,
    /// The servers of the cluster; may be left out where there is a data directory.
    #[serde(default)]
    pub members: Vec<MemberEntry>,
}

/// One member as it is written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct MemberEntry {
    /// Its id; may be left out where a name stands.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "id")]
    pub id: Option<u64>,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// `host:port` where it listens for peers.
    pub peer: String,
    /// `host:port` where it serves clients.
    #[serde(default)]
    pub client: String,
}

impl ConfigFile {
    /// Reads a file.
    ///
    /// # Errors
    /// [`ConfigError`], which names the file, the line and the key.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::Read { path: path.to_path_buf(), error })?;
        let mut file = Self::parse(&text).map_err(|error| ConfigError::Parse {
            path: path.to_path_buf(),
            hint: hint(error.message()),
            error: Box::new(error),
        })?;
        if let Some(parent) = path.parent() {
            file.data_dir = parent.join(&file.data_dir);
        }
        Ok(file)
    }

    /// Reads the text of a file.
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

    /// Sets one key, written as in `limits.retained-entries=1000`: text needs no quotes.
    ///
    /// # Errors
    /// [`ConfigError::Set`], which names key and value.
    pub fn set(&mut self, key_and_value: &str) -> Result<(), ConfigError> {
        let failed = |why: &str| {
            let hint = hint(why);
            let why = why.trim_end().to_owned();
            ConfigError::Set { given: key_and_value.to_owned(), why, hint }
        };
        let (key, value) =
            key_and_value.split_once('=').ok_or_else(|| failed("write KEY=VALUE"))?;
        let (key, value) = (key.trim(), value.trim());
        let document = toml::from_str::<toml::Table>(&format!("value = {value}"));
        let value = document.ok().and_then(|mut table| table.remove("value"));
        let text =
            || toml::Value::String(key_and_value.split_once('=').map_or("", |(_, v)| v).into());
        let value = value.unwrap_or_else(text);
        let mut table =
            toml::Table::try_from(&*self).map_err(|error| failed(&error.to_string()))?;
        let mut place = &mut table;
        let mut parts = key.split('.').peekable();
        while let Some(part) = parts.next() {
            if parts.peek().is_none() {
                place.insert(part.to_owned(), value);
                break;
            }
            let inner = place.entry(part).or_insert_with(|| toml::Table::new().into());
            place =
                inner.as_table_mut().ok_or_else(|| failed("there is nothing below this key"))?;
        }
        *self = table.try_into().map_err(|error: toml::de::Error| failed(error.message()))?;
        Ok(())
    }

    /// Fills in what was left out, and checks all of it.
    ///
    /// # Errors
    /// [`ConfigError`], which names the key.
    pub fn resolve(self) -> Result<ServerConfig, ConfigError> {
        let token = self.cluster_token.as_deref();
        let members: Result<Vec<_>, _> =
            self.members.into_iter().map(|entry| entry.resolve(token)).collect();
        let members = members?;
        let member = own_id(self.member, self.name.as_deref(), &members)?;
        let derived = token.map_or(DEFAULT_CLUSTER, |token| derived_id(token, ""));
        let listed = members.iter().any(|entry| entry.id == member);
        let config = ServerConfig {
            member,
            name: self.name.filter(|_| !listed).unwrap_or_default(),
            cluster: ClusterId(self.cluster.unwrap_or(derived)),
            data_dir: self.data_dir,
            listen_client: self.listen_client,
            listen_peer: self.listen_peer,
            heartbeat_interval: self.heartbeat_interval,
            election_timeout: self.election_timeout,
            fail_over_jitter: self
                .fail_over_jitter
                .unwrap_or_else(|| default_jitter().min(self.election_timeout)),
            request_timeout: self.request_timeout,
            lease_reads: self.lease_reads,
            clock_drift_max: self.clock_drift_max,
            volatile_disk: self.volatile_disk,
            log_format: self.log_format,
            log_level: self.log_level,
            coord: self.coord,
            tracing_server: self.tracing_server,
            tracing_identity: self.tracing_identity,
            flight_recorder: self.flight_recorder,
            limits: self.limits,
            members,
            join: None,
        };
        config.validate()?;
        Ok(config)
    }
}

impl From<&ServerConfig> for ConfigFile {
    fn from(config: &ServerConfig) -> Self {
        let entry = |member: &MemberConfig| MemberEntry {
            id: Some(member.id.0),
            name: member.name.clone(),
            peer: member.peer.clone(),
            client: member.client.clone(),
        };
        Self {
            member: Some(config.member.0),
            name: Some(config.name.clone()).filter(|name| !name.is_empty()),
            cluster: Some(config.cluster.0),
            cluster_token: None,
            data_dir: config.data_dir.clone(),
            listen_client: config.listen_client,
            listen_peer: config.listen_peer,
            heartbeat_interval: config.heartbeat_interval,
            election_timeout: config.election_timeout,
            fail_over_jitter: Some(config.fail_over_jitter),
            request_timeout: config.request_timeout,
            lease_reads: config.lease_reads,
            clock_drift_max: config.clock_drift_max,
            volatile_disk: config.volatile_disk,
            log_format: config.log_format,
            log_level: config.log_level.clone(),
            coord: config.coord.clone(),
            tracing_server: config.tracing_server.clone(),
            tracing_identity: config.tracing_identity.clone(),
            flight_recorder: config.flight_recorder,
            limits: config.limits.clone(),
            members: config.members.iter().map(entry).collect(),
        }
    }
}

impl MemberEntry {
    fn resolve(self, token: Option<&str>) -> Result<MemberConfig, ConfigError> {
        let id = match (self.id, token, self.name.as_str()) {
            (Some(id), _, _) => id,
            (None, _, "") => return Err(ConfigError::NoId { peer: self.peer }),
            (None, None, name) => return Err(ConfigError::NoToken { name: name.to_owned() }),
            (None, Some(token), name) => derived_id(token, name),
        };
        let id = MemberId(id);
        Ok(MemberConfig { id, name: self.name, peer: self.peer, client: self.client })
    }
}

/// Which member this server is, by its id, its name, or both.
fn own_id(
    id: Option<u64>,
    name: Option<&str>,
    members: &[MemberConfig],
) -> Result<MemberId, ConfigError> {
    let Some(name) = name else {
        return id.map(MemberId).ok_or(ConfigError::WhoAmI);
    };
    let mut named = members.iter().filter(|member| member.name == name);
    let found = match (named.next(), id) {
        (Some(found), _) => found,
        // It has been added to the cluster since the list was written, or is called otherwise now.
        (None, Some(id)) => return Ok(MemberId(id)),
        (None, None) => return Err(ConfigError::NoSuchName { name: name.to_owned() }),
    };
    if named.next().is_some() {
        return Err(ConfigError::Members("two of them have the name of this server"));
    }
    match id {
        Some(id) if id != found.id.0 => {
            Err(ConfigError::OtherId { name: name.to_owned(), id, found: found.id })
        }
        _ => Ok(found.id),
    }
}

/// The id of the member `name` of the cluster `token`; with an empty name the cluster's own.
///
/// FNV-1a of 64 bits over the token, a zero byte and the name, without its highest bit, since
/// numbers in TOML are signed, and never 0. Ids must differ within a cluster, which is checked; it
/// need not be hard to find two names with one id. This is a format: data directories carry it.
#[must_use]
pub fn derived_id(token: &str, name: &str) -> u64 {
    let bytes = token.bytes().chain([0]).chain(name.bytes());
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = bytes.fold(0xcbf2_9ce4_8422_2325, mix);
    (hash & (u64::MAX >> 1)).max(1)
}

/// "did you mean", when the parser met a key that does not exist and one is near.
fn hint(message: &str) -> String {
    let quoted: Vec<&str> = message.split('`').skip(1).step_by(2).collect();
    let Some((unknown, known)) = quoted.split_first().filter(|_| message.contains("unknown field"))
    else {
        return String::new();
    };
    // What was only cut short is as near as one wrong letter.
    let distance = |key: &str| if key.starts_with(unknown) { 1 } else { distance(unknown, key) };
    let near = known.iter().map(|key| (distance(key), key)).min();
    match near {
        Some((distance, key)) if distance <= unknown.len() / 2 => {
            format!("\ndid you mean `{key}`?")
        }
        _ => String::new(),
    }
}

/// How many letters must be put in, taken out or changed.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (above, letter) in from.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], above + 1);
        for (at, other) in to.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *other);
            diagonal = row[at + 1];
            row[at + 1] = changed.min(diagonal + 1).min(row[at] + 1);
        }
    }
    row[to.len()]
}

/// Ids are plain numbers. TOML's are signed, so they are below 2^63.
fn id<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<u64>, D::Error> {
    let id = i64::deserialize(from)?;
    let id = u64::try_from(id).ok().filter(|id| *id != 0);
    id.map(Some).ok_or_else(|| serde::de::Error::custom("an id is a number from 1 up"))
}

/// For those who need no second cluster.
const DEFAULT_CLUSTER: u64 = 1;

fn default_heartbeat() -> Duration {
    kvraft_raft::Config::new(MemberId(1)).heartbeat_interval
}

fn default_election() -> Duration {
    kvraft_raft::Config::new(MemberId(1)).election_timeout
}

fn default_jitter() -> Duration {
    kvraft_raft::Config::new(MemberId(1)).fail_over_jitter_max
}

fn default_flight_recorder() -> u64 {
    super::FLIGHT_RECORDER_DEFAULT
}

fn default_clock_drift() -> u32 {
    super::CLOCK_DRIFT_PPM_DEFAULT
}

fn default_log_level() -> String {
    "info".to_owned()
}
