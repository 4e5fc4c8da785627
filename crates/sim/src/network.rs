//! The simulated network: directed links that delay, lose, duplicate, reorder and stop.
//!
//! It promises nothing: a frame arrives never, once or twice, late, and after a younger one. The
//! world asks twice, once when a frame leaves and again when it arrives, so a partition also
//! catches what is under way.
//!
//! Invariants:
//! - a frame never arrives before the least delay has passed;
//! - blocking is directed: `a` may be deaf to `b` while `b` hears `a`;
//! - with FIFO links, frames of one connection arrive in the order they left, copies apart.
//!
//! What it lacks: connections (who notices that a peer has gone is the world's to say), the damage
//! itself (it says which frames are damaged, the world has their bytes), and bandwidth that links
//! share.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
    time::Duration,
};

use kvraft_base::{Instant, MemberId, Prng};

use crate::plan::{FaultKind, FaultKinds};

/// One end of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Endpoint {
    /// A server, by its member id.
    Server(MemberId),
    /// A client of the workload, by its number.
    Client(u64),
}

/// How links behave in one run. Chances are in parts per million of frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NetworkConfig {
    /// No frame is faster.
    pub delay_min: Duration,
    /// Mean of what is added to that; roughly exponential.
    pub delay_extra_mean: Duration,
    /// Nanoseconds for each KiB of a frame.
    pub kib_ns: u64,
    /// Chance that a frame between servers is lost.
    pub loss_ppm: u64,
    /// Chance that a frame between servers arrives twice, each copy with its own delay.
    pub duplicate_ppm: u64,
    /// Chance that a frame between servers is damaged, or its connection ends inside it.
    pub corrupt_ppm: u64,
    /// Links keep the order of frames, as one TCP connection does.
    pub fifo: bool,
}

impl NetworkConfig {
    /// A good local network: a quarter of a millisecond, nothing lost, order kept.
    pub const CALM: Self = Self {
        delay_min: Duration::from_micros(100),
        delay_extra_mean: Duration::from_micros(150),
        kib_ns: 1_000,
        loss_ppm: 0,
        duplicate_ppm: 0,
        corrupt_ppm: 0,
        fifo: true,
    };

    /// The behaviour of one run: how strong each trouble is that is among `kinds`.
    #[must_use]
    pub fn draw(prng: &mut Prng, kinds: FaultKinds) -> Self {
        let (min_us_max, extra_us_max) = match prng.below(3) {
            0 => (300, 500),
            1 => (3_000, 10_000),
            _ => (30_000, 60_000),
        };
        let mut trouble = |kind, ppm_max| {
            let drawn = prng.between(1, ppm_max);
            if kinds.has(kind) { drawn } else { 0 }
        };
        let loss_ppm = trouble(FaultKind::Loss, 200_000);
        let duplicate_ppm = trouble(FaultKind::Duplicate, 300_000);
        let corrupt_ppm = trouble(FaultKind::Corrupt, 10_000);
        Self {
            delay_min: Duration::from_micros(prng.between(20, min_us_max)),
            delay_extra_mean: Duration::from_micros(prng.between(10, extra_us_max)),
            kib_ns: prng.between(100, 50_000),
            loss_ppm,
            duplicate_ppm,
            corrupt_ppm,
            fifo: !kinds.has(FaultKind::Reorder),
        }
    }
}

/// A shape of who cannot hear whom, among servers. Clients are not touched: a server cut off from
/// its peers that still answers clients is the dangerous case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Partition {
    /// One server and all others, neither way.
    Isolate(MemberId),
    /// One server hears no other, but is heard.
    Deaf(MemberId),
    /// One server is heard by no other, but hears.
    Mute(MemberId),
    /// These servers and the others, neither way.
    Split(Vec<MemberId>),
    /// Frames from these servers to the others are stopped; the other way is open.
    OneWay(Vec<MemberId>),
    /// Each server reaches only its two neighbours in the order of ids.
    Ring,
    /// Two halves that only this server reaches both of.
    Bridge(MemberId),
}

/// All links of a world.
#[derive(Clone, Debug)]
pub struct Network {
    config: NetworkConfig,
    /// Directed links that carry nothing.
    blocked: BTreeSet<(Endpoint, Endpoint)>,
    /// Endpoints whose every link is dead.
    offline: BTreeSet<Endpoint>,
    /// Links on which everything waits until the given time.
    clogged: BTreeMap<(Endpoint, Endpoint), Instant>,
    /// What links add to the delay of all, in the mean.
    lags: BTreeMap<(Endpoint, Endpoint), Duration>,
    /// Links that carry only so much.
    throttles: BTreeMap<(Endpoint, Endpoint), Throttle>,
    /// With FIFO links: when the last frame of each arrives.
    last_arrival: BTreeMap<(Endpoint, Endpoint, u8), Instant>,
    stats: NetworkStats,
}

/// A link with a bound on what it carries.
#[derive(Clone, Copy, Debug)]
struct Throttle {
    /// Bytes a second, at least 1.
    rate_bytes: u64,
    /// Bytes that may wait.
    queue_bytes: u64,
    /// When all that waits has left.
    free_at: Instant,
}

impl Throttle {
    /// When a frame has left that begins to wait at `now`. `None`: there is no room for it. A frame
    /// that finds an idle link always has room.
    fn admit(&mut self, now: Instant, size_bytes: usize) -> Option<Instant> {
        let waiting_ns = u128::from(self.free_at.max(now).0 - now.0);
        let waiting_bytes = waiting_ns * u128::from(self.rate_bytes) / 1_000_000_000;
        let wanted_bytes = waiting_bytes + size_bytes as u128;
        if 0 < waiting_ns && u128::from(self.queue_bytes) < wanted_bytes {
            return None;
        }
        let takes_ns = (size_bytes as u64).saturating_mul(1_000_000_000) / self.rate_bytes;
        self.free_at = self.free_at.max(now) + Duration::from_nanos(takes_ns);
        Some(self.free_at)
    }
}

/// What became of frames. Those lost on arrival, to a partition, are the world's to count.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NetworkStats {
    /// Frames handed in.
    pub sent_count: u64,
    /// Their bytes.
    pub sent_bytes: u64,
    /// Frames lost by chance.
    pub lost_count: u64,
    /// Frames stopped when they left, on a blocked link.
    pub blocked_count: u64,
    /// Frames that will arrive twice.
    pub duplicated_count: u64,
    /// Frames that found no room on a throttled link.
    pub overflowed_count: u64,
}

impl Network {
    /// Links that all work.
    #[must_use]
    pub fn new(config: NetworkConfig) -> Self {
        Self {
            config,
            blocked: BTreeSet::new(),
            offline: BTreeSet::new(),
            clogged: BTreeMap::new(),
            lags: BTreeMap::new(),
            throttles: BTreeMap::new(),
            last_arrival: BTreeMap::new(),
            stats: NetworkStats::default(),
        }
    }

    /// A frame leaves; returns when its copies arrive, none if it is lost. Ask
    /// [`Network::is_open`] again on each arrival.
    pub fn send(
        &mut self,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        size_bytes: usize,
        prng: &mut Prng,
    ) -> Vec<Instant> {
        self.send_on(0, now, from, to, size_bytes, prng)
    }

    /// As [`Network::send`], on one of several connections between the two: with FIFO links, each
    /// keeps its own order, and frames of one overtake those of another.
    pub fn send_on(
        &mut self,
        connection: u8,
        now: Instant,
        from: Endpoint,
        to: Endpoint,
        size_bytes: usize,
        prng: &mut Prng,
    ) -> Vec<Instant> {
        self.stats.sent_count += 1;
        self.stats.sent_bytes += size_bytes as u64;
        if !self.is_open(from, to) {
            self.stats.blocked_count += 1;
            return Vec::new();
        }
        let between_servers = from.is_server() && to.is_server();
        if between_servers && self.is_hit(self.config.loss_ppm, prng) {
            self.stats.lost_count += 1;
            return Vec::new();
        }
        let mut leaves = now;
        if let Some(throttle) = self.throttles.get_mut(&(from, to)) {
            let Some(left) = throttle.admit(now, size_bytes) else {
                self.stats.overflowed_count += 1;
                return Vec::new();
            };
            leaves = left;
        }
        let first = self.arrival(leaves, (from, to, connection), size_bytes, prng);
        if between_servers && self.is_hit(self.config.duplicate_ppm, prng) {
            self.stats.duplicated_count += 1;
            let again = leaves + self.delay((from, to), size_bytes, prng);
            return vec![first, first.max(again)];
        }
        vec![first]
    }

    /// Whether a frame between servers is damaged on its way.
    pub fn draw_damage(&mut self, prng: &mut Prng) -> bool {
        self.is_hit(self.config.corrupt_ppm, prng)
    }

    /// Frames from `from` may reach `to` now.
    #[must_use]
    pub fn is_open(&self, from: Endpoint, to: Endpoint) -> bool {
        !self.blocked.contains(&(from, to))
            && !self.offline.contains(&from)
            && !self.offline.contains(&to)
    }

    /// The link from `from` to `to` is blocked, whether or not the two are cut off from everything.
    #[must_use]
    pub fn is_blocked(&self, from: Endpoint, to: Endpoint) -> bool {
        self.blocked.contains(&(from, to))
    }

    /// Whom frames from `from` do not reach for a while, though nothing is lost.
    pub fn clogged_from(&self, from: Endpoint, now: Instant) -> impl Iterator<Item = Endpoint> {
        let clogged = self.clogged.iter().filter(move |(_, until)| now < **until);
        clogged.filter(move |((end, _), _)| *end == from).map(|((_, to), _)| *to)
    }

    /// Stops frames from `from` to `to`, those under way too.
    pub fn block(&mut self, from: Endpoint, to: Endpoint) {
        self.blocked.insert((from, to));
    }

    /// Lets frames from `from` to `to` pass again.
    pub fn unblock(&mut self, from: Endpoint, to: Endpoint) {
        self.blocked.remove(&(from, to));
    }

    /// Cuts an endpoint off from everything, clients included.
    pub fn disconnect(&mut self, endpoint: Endpoint) {
        self.offline.insert(endpoint);
    }

    /// Undoes [`Network::disconnect`].
    pub fn reconnect(&mut self, endpoint: Endpoint) {
        self.offline.remove(&endpoint);
    }

    /// An endpoint is cut off from everything.
    #[must_use]
    pub fn is_offline(&self, endpoint: Endpoint) -> bool {
        self.offline.contains(&endpoint)
    }

    /// Holds frames that leave on a link until `until`; they arrive after that.
    pub fn clog(&mut self, from: Endpoint, to: Endpoint, until: Instant) {
        self.clogged.insert((from, to), until);
    }

    /// Adds so much in the mean, with an exponential tail, to the delay of one link; nothing if it
    /// is 0.
    pub fn lag(&mut self, from: Endpoint, to: Endpoint, mean: Duration) {
        if mean.is_zero() {
            self.lags.remove(&(from, to));
        } else {
            self.lags.insert((from, to), mean);
        }
    }

    /// From now on a link carries `rate_bytes` a second, and `queue_bytes` may wait for it; beyond
    /// that, frames are lost.
    pub fn throttle(&mut self, from: Endpoint, to: Endpoint, rate_bytes: u64, queue_bytes: u64) {
        let rate_bytes = rate_bytes.max(1);
        let throttle = Throttle { rate_bytes, queue_bytes, free_at: Instant::ZERO };
        self.throttles.insert((from, to), throttle);
    }

    /// Undoes [`Network::throttle`].
    pub fn unthrottle(&mut self, from: Endpoint, to: Endpoint) {
        self.throttles.remove(&(from, to));
    }

    /// Blocks the links that `partition` names among `servers`, on top of what is blocked already.
    pub fn partition(&mut self, partition: &Partition, servers: &[MemberId]) {
        for &from in servers {
            for &to in servers {
                if from != to && partition.blocks(from, to, servers) {
                    self.block(Endpoint::Server(from), Endpoint::Server(to));
                }
            }
        }
    }

    /// Opens every blocked link, and clears every clog, lag and throttle. Disconnected endpoints
    /// stay so.
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.clogged.clear();
        self.lags.clear();
        self.throttles.clear();
    }

    /// Links that are clogged, lag or are throttled.
    #[must_use]
    pub fn slowed(&self) -> BTreeSet<(Endpoint, Endpoint)> {
        let links = self.clogged.keys().chain(self.lags.keys()).chain(self.throttles.keys());
        links.copied().collect()
    }

    /// By when all arrives that is under way on a link that was made faster at `now`; what leaves
    /// from now on comes after it, if order is kept. `None`: the link is throttled still, and
    /// nothing changes.
    ///
    /// What [`Network::send`] answered for a slow link may lie far ahead: a frame of ten thousand
    /// bytes takes ten seconds at a thousand bytes a second. Nobody may wait for that once the link
    /// is mended.
    pub fn relieve(&mut self, now: Instant, link: (Endpoint, Endpoint)) -> Option<Instant> {
        if self.throttles.contains_key(&link) {
            return None;
        }
        let leaves = self.clogged.get(&link).map_or(now, |until| now.max(*until));
        let lag = self.lags.get(&link).copied().unwrap_or_default();
        let by = leaves + self.config.delay_min + self.config.delay_extra_mean + lag;
        let connections = (link.0, link.1, u8::MIN)..=(link.0, link.1, u8::MAX);
        for (_, last) in self.last_arrival.range_mut(connections) {
            *last = by.min(*last);
        }
        Some(by)
    }

    /// What became of frames so far.
    #[must_use]
    pub fn stats(&self) -> NetworkStats {
        self.stats
    }

    fn is_hit(&self, ppm: u64, prng: &mut Prng) -> bool {
        0 < ppm && prng.chance(ppm, 1_000_000)
    }

    fn arrival(
        &mut self,
        now: Instant,
        connection: (Endpoint, Endpoint, u8),
        size_bytes: usize,
        prng: &mut Prng,
    ) -> Instant {
        let link = (connection.0, connection.1);
        let leaves = self.clogged.get(&link).map_or(now, |until| now.max(*until));
        let arrives = leaves + self.delay(link, size_bytes, prng);
        if !self.config.fifo {
            return arrives;
        }
        let last = self.last_arrival.entry(connection).or_default();
        *last = arrives.max(*last + Duration::from_nanos(1));
        *last
    }

    fn delay(&self, link: (Endpoint, Endpoint), size_bytes: usize, prng: &mut Prng) -> Duration {
        let lag = self.lags.get(&link).map_or(Duration::ZERO, |mean| exponential(*mean, prng));
        let transfer_ns = (size_bytes as u64).saturating_mul(self.config.kib_ns) / 1024;
        self.config.delay_min
            + exponential(self.config.delay_extra_mean, prng)
            + Duration::from_nanos(transfer_ns)
            + lag
    }
}

/// A draw with roughly the given mean and an exponential tail, in integers only.
///
/// Minus the binary logarithm of a uniform number: the leading zeroes are its whole part, and what
/// follows the first one is taken linearly. That is within 9 % of the curve, and 4 % above its
/// mean.
fn exponential(mean: Duration, prng: &mut Prng) -> Duration {
    const HALVINGS_MAX: u64 = 16;
    const LN_2_PPM: u64 = 693_147;
    let bits = prng.next_u64() | (1 << 20);
    let whole = u64::from(bits.leading_zeros());
    let after_first_one = (bits << whole << 1) >> 44;
    let fraction_ppm = 1_000_000 - ((after_first_one * 1_000_000) >> 20);
    let halvings_ppm = whole.min(HALVINGS_MAX) * 1_000_000 + fraction_ppm;
    let mean_ns = mean.as_nanos();
    let drawn = mean_ns * u128::from(halvings_ppm) * u128::from(LN_2_PPM) / 1_000_000_000_000;
    Duration::from_nanos(u64::try_from(drawn).unwrap_or(u64::MAX))
}

impl Partition {
    /// Frames from `from` to `to`, two different ones of `servers`, are stopped.
    #[must_use]
    pub fn blocks(&self, from: MemberId, to: MemberId, servers: &[MemberId]) -> bool {
        match self {
            Self::Isolate(server) => from == *server || to == *server,
            Self::Deaf(server) => to == *server,
            Self::Mute(server) => from == *server,
            Self::Split(side) => side.contains(&from) != side.contains(&to),
            Self::OneWay(side) => side.contains(&from) && !side.contains(&to),
            Self::Ring => !are_neighbours(from, to, servers),
            Self::Bridge(bridge) => {
                from != *bridge
                    && to != *bridge
                    && is_lower_half(from, *bridge, servers) != is_lower_half(to, *bridge, servers)
            }
        }
    }
}

fn are_neighbours(left: MemberId, right: MemberId, servers: &[MemberId]) -> bool {
    let place = |server| servers.iter().position(|other| *other == server);
    let (Some(left), Some(right)) = (place(left), place(right)) else { return false };
    let distance = left.abs_diff(right);
    distance == 1 || distance + 1 == servers.len()
}

/// The server is in the first half of those that are not the bridge.
fn is_lower_half(server: MemberId, bridge: MemberId, servers: &[MemberId]) -> bool {
    let mut others = servers.iter().filter(|other| **other != bridge);
    let place = others.position(|other| *other == server).unwrap_or(0);
    place < (servers.len() - 1) / 2
}

impl Endpoint {
    /// This end is a server.
    #[must_use]
    pub fn is_server(self) -> bool {
        matches!(self, Self::Server(_))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(member) => write!(f, "s{member}"),
            Self::Client(number) => write!(f, "c{number}"),
        }
    }
}

/// A text that names no endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EndpointError(String);

impl fmt::Display for EndpointError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not an endpoint (s1, c1, …): {}", self.0)
    }
}

impl std::error::Error for EndpointError {}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        let number = |digits: &str| digits.parse::<u64>().map_err(|_| wrong());
        if let Some(digits) = text.strip_prefix('s') {
            Ok(Self::Server(MemberId(number(digits)?)))
        } else if let Some(digits) = text.strip_prefix('c') {
            Ok(Self::Client(number(digits)?))
        } else {
            Err(wrong())
        }
    }
}
