//! What a server is told: by a TOML file, by flags, or by the program that embeds it.
//!
//! Invariant: in a [`ServerConfig`] that came from [`ConfigFile::resolve`] or was checked by
//! [`ServerConfig::validate`] the members have different ids and addresses to dial, and the timings
//! fit together. Whether the members make a cluster, this server among them, matters to a new data
//! directory only, see [`ServerConfig::first_members`].

mod bounds;
mod file;
mod join;
mod units;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use kvraft_base::{ClusterId, MemberId, MemberInfo, Members, MembersDraft, MembersError};
use kvraft_raft::LeaseReads;
use kvraft_trace::clock::{IDENTITY_SIZE_BYTES_MAX, is_identity};
use serde::{Deserialize, Serialize};

pub use self::{
    bounds::Limits,
    file::{ConfigFile, MemberEntry, derived_id},
    join::JoinInfo,
    units::{UnitError, parse_size, parse_size_or_off, parse_time},
};

/// Everything that a server can be told, nothing left out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerConfig {
    /// This server's id among the members.
    pub member: MemberId,
    /// This server's name, where it does not stand in the list of members.
    pub name: String,
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
    /// Answer linearizable reads without asking a majority, by the clock. The same on every server.
    pub lease_reads: bool,
    /// Greatest difference in rate between any two clocks of the cluster, in parts per million.
    pub clock_drift_max: u32,
    /// For tests: what is not synced is lost when the process is killed.
    pub volatile_disk: bool,
    /// How logs look.
    pub log_format: LogFormat,
    /// Which events are logged: a level, or a filter as `tracing` has them.
    pub log_level: String,
    /// `host:port` where a coordinator listens for servers; none: this server works without.
    pub coord: Option<String>,
    /// `host:port` of the tracing server; none: nothing is recorded.
    pub tracing_server: Option<String>,
    /// This server's name in traces; see [`ServerConfig::tracing_identity`].
    pub tracing_identity: Option<String>,
    /// What the ring of the flight recorder may take, in bytes; 0: nothing is recorded.
    pub flight_recorder: u64,
    /// Bounds.
    pub limits: Limits,
    /// The servers of the cluster. Only a new data directory takes them as the membership, and then
    /// this server must be one of them; later they say where those are whose addresses the cluster
    /// does not know or that have moved.
    pub members: Vec<MemberConfig>,
    /// For a server that is added to a running cluster: what a new data directory takes as the
    /// membership instead. Without meaning when there is a data directory.
    pub join: Option<JoinInfo>,
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
    /// This server is not among them, and its data directory is new.
    #[error("members: {0} is not one of them, but this server's own id")]
    NotMember(MemberId),
    /// What the cluster to be joined has listed is no configuration.
    #[error("the cluster to be joined: {0}")]
    Join(MembersError),
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
    /// Nothing is left of a lease.
    #[error(
        "clock-drift-max = {drift_ppm_max}: with it a lease of an election-timeout = {election:?} \
         does not last for two heartbeats; set it lower, or lease-reads = false"
    )]
    Lease {
        /// The bound, in parts per million.
        drift_ppm_max: u32,
        /// The timeout.
        election: Duration,
    },
    /// A request could not wait at all.
    #[error("request-timeout = 0ms leaves no time for any request")]
    NoRequestTime,
    /// The coordinator cannot be found.
    #[error("coord: it is written as host:port")]
    Coord,
    /// The tracing server cannot be found.
    #[error("tracing-server: it is written as host:port")]
    TracingServer,
    /// The ring holds nothing of use.
    #[error("flight-recorder: write off, or a size of at least {}MiB", FLIGHT_RECORDER_MIN >> 20)]
    FlightRecorder,
    /// This server cannot be called that in traces.
    #[error("tracing-identity: it is one word of at most {IDENTITY_SIZE_BYTES_MAX} bytes")]
    TracingIdentity,
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
            name: String::new(),
            cluster: ClusterId(1),
            data_dir,
            listen_client,
            listen_peer,
            heartbeat_interval: raft.heartbeat_interval,
            election_timeout: raft.election_timeout,
            fail_over_jitter: raft.fail_over_jitter_max,
            request_timeout: None,
            lease_reads: false,
            clock_drift_max: CLOCK_DRIFT_PPM_DEFAULT,
            volatile_disk: false,
            log_format: LogFormat::Text,
            log_level: "info".to_owned(),
            coord: None,
            tracing_server: None,
            tracing_identity: None,
            flight_recorder: FLIGHT_RECORDER_DEFAULT,
            limits: Limits::default(),
            members: vec![MemberConfig {
                id: MemberId(1),
                name: String::new(),
                peer: listen_peer.to_string(),
                client: String::new(),
            }],
            join: None,
        }
    }

    /// Checks what belongs together.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn validate(&self) -> Result<(), ConfigError> {
        let mut ids: Vec<_> = self.members.iter().map(|member| member.id).collect();
        ids.sort_unstable();
        if ids.first() == Some(&MemberId::ZERO) || ids.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(ConfigError::Members("they need different ids from 1 up"));
        }
        if self.members.iter().any(|member| !member.peer.contains(':')) {
            return Err(ConfigError::Members("each needs its peer address as host:port"));
        }
        if self.request_timeout.is_some_and(|time| time.is_zero()) {
            return Err(ConfigError::NoRequestTime);
        }
        if self.coord.as_ref().is_some_and(|address| !address.contains(':')) {
            return Err(ConfigError::Coord);
        }
        if self.tracing_server.as_ref().is_some_and(|address| !address.contains(':')) {
            return Err(ConfigError::TracingServer);
        }
        if !is_identity(&self.tracing_identity()) {
            return Err(ConfigError::TracingIdentity);
        }
        if self.flight_recorder != 0 && self.flight_recorder < FLIGHT_RECORDER_MIN {
            return Err(ConfigError::FlightRecorder);
        }
        self.limits.validate()?;
        self.raft().validate().map_err(|error| match error {
            kvraft_raft::ConfigError::Timing(heartbeat, election) => {
                ConfigError::Timing { heartbeat, election }
            }
            kvraft_raft::ConfigError::Jitter(jitter, election) => {
                ConfigError::Jitter { jitter, election }
            }
            kvraft_raft::ConfigError::Lease(LeaseReads { drift_ppm_max, .. }, election) => {
                ConfigError::Lease { drift_ppm_max, election }
            }
            other => ConfigError::Raft(other),
        })
    }

    /// The membership of a new data directory: that of the cluster to be joined, or the configured
    /// one, in which every member stands with its name and addresses.
    ///
    /// # Errors
    /// [`ConfigError`] when there is nobody to be a cluster with, or this server is not among them.
    pub fn first_members(&self) -> Result<Members, ConfigError> {
        if let Some(join) = &self.join {
            return join.first_members(self.member);
        }
        if self.own().is_none() {
            return Err(ConfigError::NotMember(self.member));
        }
        let mut draft = MembersDraft::default();
        for member in &self.members {
            draft.voters.insert(member.id);
            draft.id_max = draft.id_max.max(member.id);
            draft.infos.insert(member.id, member.info());
        }
        draft.finish().map_err(|error| match error {
            MembersError::InfoTooLarge(_) => {
                ConfigError::Members("names and addresses have at most 261 bytes")
            }
            _ => ConfigError::Members("1 to 7 are needed, with different ids from 1 up"),
        })
    }

    fn own(&self) -> Option<&MemberConfig> {
        self.members.iter().find(|member| member.id == self.member)
    }

    /// How this server wants to be called and reached: as it is configured, else where it listens,
    /// if that says where. Without a name when none is configured.
    #[must_use]
    pub fn own_info(&self) -> MemberInfo {
        let mut info = self.own().map(MemberConfig::info).unwrap_or_default();
        let named = self.own().is_some_and(|own| !own.name.is_empty());
        if !named {
            info.name.clone_from(&self.name);
        }
        let listening = [
            (&mut info.peer_addresses, self.listen_peer),
            (&mut info.client_addresses, self.listen_client),
        ];
        for (addresses, listen) in listening {
            if addresses.is_empty() && !listen.ip().is_unspecified() && listen.port() != 0 {
                addresses.push(listen.to_string());
            }
        }
        info
    }

    /// What consensus is told.
    #[must_use]
    pub fn raft(&self) -> kvraft_raft::Config {
        let mut raft = kvraft_raft::Config::new(self.member);
        raft.heartbeat_interval = self.heartbeat_interval;
        raft.election_timeout = self.election_timeout;
        raft.fail_over_jitter_max = self.fail_over_jitter;
        raft.lease = self
            .lease_reads
            .then_some(LeaseReads { drift_ppm_max: self.clock_drift_max, margin: LEASE_MARGIN });
        self.limits.set_raft(&mut raft);
        raft
    }

    /// Where every configured member listens for peers.
    #[must_use]
    pub fn peer_addresses(&self) -> BTreeMap<MemberId, String> {
        self.members.iter().map(|member| (member.id, member.peer.clone())).collect()
    }

    /// This server's name in traces: `server` and its id, if nothing else is configured.
    #[must_use]
    pub fn tracing_identity(&self) -> String {
        self.tracing_identity.clone().unwrap_or_else(|| format!("server{}", self.member))
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

    /// As the cluster's configuration carries it.
    #[must_use]
    pub fn info(&self) -> MemberInfo {
        let list = |address: &String| match address.as_str() {
            "" => Vec::new(),
            address => vec![address.to_owned()],
        };
        MemberInfo {
            name: self.display_name(),
            peer_addresses: list(&self.peer),
            client_addresses: list(&self.client),
        }
    }
}

/// What the ring of the flight recorder takes if nothing else is said: some 130,000 puts.
pub(crate) const FLIGHT_RECORDER_DEFAULT: u64 = 64 << 20;

/// A ring of less has no room for the state that a segment begins with, in bytes.
const FLIGHT_RECORDER_MIN: u64 = 1 << 20;

/// A hundred times what the oscillators of two machines differ by, and twenty times as fast as NTP
/// corrects a clock.
const CLOCK_DRIFT_PPM_DEFAULT: u32 = 10_000;

/// For what a system's clock is read as late or early, whatever its rate.
const LEASE_MARGIN: Duration = Duration::from_millis(1);

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
