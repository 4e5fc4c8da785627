//! What a run is like, drawn from its seed: sizes, timings, delays, costs.
//!
//! Swarm testing (Groce et al., ISSTA 2012): each seed draws which extremes it goes to, since bugs
//! hide where one setting is far out and the others are not.

use std::time::Duration;

use kvraft_base::{ClusterId, MemberId, Prng};
use kvraft_kv::Versions;
use kvraft_raft::{Config, LeaseReads};
use kvraft_replica::{MachineOptions, NodeOptions, OpenOptions, SNAPSHOT_CHUNK_BYTES};
use kvraft_store::Options;

use super::workload::Workload;
use crate::{
    disk::DiskCosts,
    network::NetworkConfig,
    plan::{DRIFT_PPM_MAX, FaultChoice, FaultKind, FaultKinds, RATE_PPM},
};

/// A turn of the slowest drawn disk takes about this long: two syncs, and what waits before them.
const DISK_TURN_MAX: Duration = Duration::from_millis(100);

/// Always; from some size that simulated tables reach; never.
const QUICK_REPAIR_BYTES: [u64; 4] = [0, 1 << 21, 1 << 40, 1 << 40];

/// One run in so many has its history searched: the search costs more than the pass that every
/// history gets.
const SEARCHED_ONE_IN: u64 = 2;

/// One run in so many goes on for a while after its end: that costs time in which little happens.
const STEADY_ONE_IN: u64 = 4;

/// One run in so many tries losses of power on copies of its disks: it takes twice the time.
const REHEARSED_ONE_IN: u64 = 4;

/// More than all clients of a run can fill: as in production.
const WAITING_COUNT_MAX: usize = 65_536;

/// The same of entries.
const UNAPPLIED_COUNT_MAX: u64 = 5_000;

/// The same of the overlay.
const OVERLAY_SIZE_BYTES_MAX: usize = 64 << 20;

/// Faults may meet so many servers that were not there in the beginning.
const NEWCOMER_COUNT: u64 = 4;

/// What a person may choose; the seed draws the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choices {
    /// Servers, 1 to 7. `None`: drawn.
    pub servers: Option<u64>,
    /// Clients. `None`: drawn.
    pub clients: Option<u64>,
    /// The greatest budget of operations a client may draw.
    pub ops_max: u64,
    /// How long things go wrong. `None`: drawn.
    pub first_phase: Option<Duration>,
    /// Which faults there may be.
    pub faults: FaultChoice,
    /// Events kept as text for the report; 0 keeps none and is fastest.
    pub trace_line_count: usize,
}

impl Default for Choices {
    fn default() -> Self {
        Self {
            servers: None,
            clients: None,
            ops_max: 60,
            first_phase: None,
            faults: FaultChoice::default(),
            trace_line_count: 0,
        }
    }
}

/// One run's configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterConfig {
    /// Servers in the beginning.
    pub servers: u64,
    /// The black-box search takes this run's history too.
    pub searched: bool,
    /// Links.
    pub network: NetworkConfig,
    /// Faults happen up to here; then a quorum is mended.
    pub faults_until: Duration,
    /// In the second phase some servers stay broken for ever; if not, all members are mended.
    pub leave_broken: bool,
    /// Disks take no time.
    pub free_disks: bool,
    /// Consensus timings.
    pub election_timeout: Duration,
    /// Consensus timings.
    pub heartbeat_interval: Duration,
    /// In-memory log of a server, in bytes.
    pub window_size_bytes: usize,
    /// Segments of the journal, in bytes.
    pub segment_size_bytes: u64,
    /// Entries kept behind the checkpoint.
    pub retain_count: u64,
    /// Checkpoint size, in bytes.
    pub checkpoint_size_bytes: usize,
    /// Checkpoint pace.
    pub checkpoint_interval: Duration,
    /// From this size of the table on, in bytes, a checkpoint records which pages are free.
    pub quick_repair_bytes: u64,
    /// A follower that lacks more than this, in bytes, catches up on the bulk lane.
    pub catch_up_size_bytes: usize,
    /// Requests that may wait in a server.
    pub waiting_count_max: usize,
    /// Entries that a log may have and the machine has not applied, before commands are refused.
    pub unapplied_count_max: u64,
    /// What may be applied and not settled, in bytes, before the machine waits for its table.
    pub overlay_size_bytes_max: usize,
    /// So many servers, the first ones, begin with an older build, which does not know the newest
    /// cluster version.
    pub old_servers: u64,
    /// So do servers that are added.
    pub old_newcomers: bool,
    /// The run goes on for a while when nothing happens any more.
    pub is_steady: bool,
    /// Losses of power are tried on copies of disks.
    pub is_rehearsed: bool,
    /// Size of a snapshot's chunks, in bytes.
    pub chunk_size_bytes: usize,
    /// Operators who share the plan's changes of members.
    pub operators: u64,
    /// A coordinator watches the servers and hints who should lead.
    pub coordinator: bool,
    /// Reads by lease, within a bound that the clocks keep.
    pub lease: Option<LeaseReads>,
    /// Events kept as text for the report. It has no part in what happens.
    pub trace_line_count: usize,
}

/// A configuration, and what the plan is drawn from.
#[derive(Clone, Debug)]
pub(crate) struct Draft {
    pub(crate) config: ClusterConfig,
    /// Clients; each has one server for its home.
    pub(crate) clients: u64,
    /// Greatest budget of a client.
    pub(crate) ops_max: u64,
    /// What clients do.
    pub(crate) workload: Workload,
    /// Which faults there are.
    pub(crate) kinds: FaultKinds,
    /// Mean time between faults.
    pub(crate) fault_pause: Duration,
    /// Servers added in the run that faults may meet, beside those of the beginning.
    pub(crate) newcomers: u64,
    /// Slowest and fastest clock.
    pub(crate) drift_ppm: (u64, u64),
}

impl Draft {
    /// Draws a configuration, and what its plan is to be like.
    pub(crate) fn draw(seed: u64, choices: Choices) -> Self {
        let mut prng = Prng::new(seed).fork("configuration");
        let mut workload_prng = prng.fork("workload");
        let servers = prng.between(1, 7);
        let clients = prng.between(1, 8);
        let millis = Duration::from_millis;
        let election_timeout = *prng.pick(&[millis(100), millis(300), millis(1000)]).expect("any");
        let kinds = choices.faults.draw(&mut prng.fork("kinds"));
        let network = NetworkConfig::draw(&mut prng.fork("network"), kinds);
        let free_disks = prng.chance(1, 4);
        // Raft §5.6: the broadcast time, with the disks' share in it, must be well below the
        // election timeout, or nobody leads for long and a run says nothing.
        let broadcast = (network.delay_min + network.delay_extra_mean * 3) * 2;
        let slow = broadcast + if free_disks { Duration::ZERO } else { DISK_TURN_MAX };
        let election_timeout = election_timeout.max(slow * 4);
        let mut member_prng = prng.fork("members");
        let mut repair_prng = prng.fork("repair");
        let mut bound_prng = prng.fork("bounds");
        let has_changes = kinds.iter().any(|kind| {
            matches!(kind, FaultKind::Members | FaultKind::Regrow | FaultKind::Replace)
        });
        let (lease, drift_ppm) = draw_lease(&mut prng.fork("lease"));
        let is_usurped = lease.is_some() && prng.fork("usurp").chance(1, 2);
        let kinds = if is_usurped { choices.faults.admit(kinds, FaultKind::Usurp) } else { kinds };
        // A change of members takes a while, and the next one waits for it.
        let faults_until =
            prng.duration(millis(1_000), millis(8_000)) * if has_changes { 2 } else { 1 };
        let fault_pause = *prng.pick(&[millis(50), millis(200), millis(800)]).expect("any");
        let servers = choices.servers.unwrap_or(servers);
        let (old_servers, old_newcomers) = draw_old(seed, kinds, servers);
        let config = ClusterConfig {
            servers,
            searched: Prng::new(seed).fork("search").chance(1, SEARCHED_ONE_IN),
            network,
            faults_until: choices.first_phase.unwrap_or(faults_until),
            leave_broken: true,
            free_disks,
            election_timeout,
            heartbeat_interval: election_timeout / 10,
            window_size_bytes: *prng.pick(&[1 << 10, 16 << 10, 1 << 20]).expect("any"),
            segment_size_bytes: *prng.pick(&[8 << 10, 64 << 10, 1 << 20]).expect("any"),
            retain_count: *prng.pick(&[0, 10, 1_000]).expect("any"),
            checkpoint_size_bytes: *prng.pick(&[256, 4 << 10, 1 << 20]).expect("any"),
            checkpoint_interval: *prng
                .pick(&[millis(20), millis(200), millis(2_000)])
                .expect("any"),
            quick_repair_bytes: *repair_prng.pick(&QUICK_REPAIR_BYTES).expect("any"),
            catch_up_size_bytes: *prng.pick(&[1, 2 << 10, 4 << 20]).expect("any"),
            waiting_count_max: *bound_prng.pick(&[2, 16, WAITING_COUNT_MAX]).expect("any"),
            unapplied_count_max: *bound_prng.pick(&[4, 64, UNAPPLIED_COUNT_MAX]).expect("any"),
            overlay_size_bytes_max: *bound_prng
                .pick(&[4 << 10, 64 << 10, OVERLAY_SIZE_BYTES_MAX])
                .expect("any"),
            old_servers,
            old_newcomers,
            is_steady: prng.fork("steady").chance(1, STEADY_ONE_IN),
            is_rehearsed: prng.fork("rehearsed").chance(1, REHEARSED_ONE_IN),
            chunk_size_bytes: draw_chunk_size(seed),
            operators: member_prng.between(1, 2),
            coordinator: kinds.has(FaultKind::Coordinator),
            lease,
            trace_line_count: choices.trace_line_count,
        };
        Self {
            config,
            clients: choices.clients.unwrap_or(clients),
            ops_max: choices.ops_max.max(1),
            workload: Workload::draw(&mut workload_prng),
            kinds,
            fault_pause,
            newcomers: if has_changes { NEWCOMER_COUNT } else { 0 },
            drift_ppm,
        }
    }
}

impl ClusterConfig {
    /// Draws a configuration.
    #[must_use]
    pub fn draw(seed: u64, choices: Choices) -> Self {
        Draft::draw(seed, choices).config
    }

    /// Three servers on a good day with nothing small or late: what is not said of a run is so.
    #[must_use]
    pub fn plain() -> Self {
        let millis = Duration::from_millis;
        Self {
            servers: 3,
            searched: false,
            network: NetworkConfig::CALM,
            faults_until: millis(8_000),
            leave_broken: false,
            free_disks: true,
            election_timeout: millis(300),
            heartbeat_interval: millis(30),
            window_size_bytes: 1 << 20,
            segment_size_bytes: 1 << 20,
            retain_count: 1_000,
            checkpoint_size_bytes: 1 << 20,
            checkpoint_interval: millis(2_000),
            quick_repair_bytes: Options::default().quick_repair_from_bytes,
            catch_up_size_bytes: 4 << 20,
            waiting_count_max: WAITING_COUNT_MAX,
            unapplied_count_max: UNAPPLIED_COUNT_MAX,
            overlay_size_bytes_max: OVERLAY_SIZE_BYTES_MAX,
            old_servers: 0,
            old_newcomers: false,
            is_steady: false,
            is_rehearsed: false,
            chunk_size_bytes: SNAPSHOT_CHUNK_BYTES,
            operators: 1,
            coordinator: false,
            lease: None,
            trace_line_count: 0,
        }
    }

    /// What a person waits for longer than a program.
    pub(crate) fn patience_extra(&self) -> Duration {
        Duration::from_millis(500)
    }

    /// A server's edge gives a request up after this, as that of a real server does.
    pub(crate) fn request_time_max(&self) -> Duration {
        Duration::from_secs(5) + self.election_timeout * 2
    }

    /// What may be applied and not settled: at least a whole checkpoint, as servers demand it of
    /// their settings, or the table would only be written at the checkpoints' pace.
    pub(crate) fn overlay_size_bytes_max(&self) -> usize {
        self.overlay_size_bytes_max.max(self.checkpoint_size_bytes)
    }

    pub(crate) fn disk_costs(&self, prng: &mut Prng) -> DiskCosts {
        if self.free_disks { DiskCosts::FREE } else { DiskCosts::draw(prng) }
    }

    pub(crate) fn open_options(
        &self,
        id: MemberId,
        cluster: ClusterId,
        incarnation: u64,
        versions: Versions,
        seed: u64,
    ) -> OpenOptions {
        let mut raft = Config::new(id);
        raft.election_timeout = self.election_timeout;
        raft.heartbeat_interval = self.heartbeat_interval;
        raft.catch_up_bytes_min = self.catch_up_size_bytes;
        raft.window_bytes_max = self.window_size_bytes;
        raft.lease = self.lease;
        let store = Options {
            segment_size_bytes: self.segment_size_bytes,
            quick_repair_from_bytes: self.quick_repair_bytes,
            ..Options::default()
        };
        OpenOptions {
            raft,
            store,
            node: NodeOptions {
                retain_count: self.retain_count,
                waiting_count_max: self.waiting_count_max,
                unapplied_count_max: self.unapplied_count_max,
                // Before the least patient client gives its attempt up.
                parked_time_max: self.election_timeout.max(Duration::from_millis(500)) * 7 / 8,
                version_interval: self.election_timeout,
                ..NodeOptions::default()
            },
            machine: MachineOptions {
                checkpoint_size_bytes: self.checkpoint_size_bytes,
                checkpoint_interval: self.checkpoint_interval,
                overlay_size_bytes_max: self.overlay_size_bytes_max(),
                // A few records and entries a turn, so that most work takes several.
                slice_size_bytes: 16 * 1024,
                apply_count_max: 16,
            },
            snapshot_chunk_bytes: self.chunk_size_bytes,
            versions,
            cluster,
            incarnation,
            seed,
        }
    }
}

/// A snapshot has a few chunks, or many, or one.
fn draw_chunk_size(seed: u64) -> usize {
    let sizes = [256, 4 << 10, SNAPSHOT_CHUNK_BYTES];
    *Prng::new(seed).fork("chunks").pick(&sizes).expect("any")
}

/// Where servers change their build, mostly all begin with the old one, at times only some.
fn draw_old(seed: u64, kinds: FaultKinds, servers: u64) -> (u64, bool) {
    if !kinds.has(FaultKind::Upgrade) {
        return (0, false);
    }
    let mut prng = Prng::new(seed).fork("builds");
    let count = if prng.chance(1, 2) { servers } else { prng.below(servers + 1) };
    (count, prng.chance(1, 2))
}

/// One run in four answers reads by lease; then no clock leaves the bound that the lease rests on.
fn draw_lease(prng: &mut Prng) -> (Option<LeaseReads>, (u64, u64)) {
    let (slowest, fastest) =
        *prng.pick(&[(999_500, 1_000_500), (800_000, 1_200_000)]).expect("any");
    if !prng.chance(1, 4) {
        return (None, DRIFT_PPM_MAX);
    }
    // While the fastest clock shows an election timeout, the slowest shows so much less.
    let drift = ((fastest - slowest) * RATE_PPM).div_ceil(fastest);
    let drift_ppm_max = u32::try_from(drift).expect("less than a whole");
    (Some(LeaseReads { drift_ppm_max, margin: Duration::ZERO }), (slowest, fastest))
}
