//! A run's faults as data: drawn from a seed, printed, read, and cut down.
//!
//! A plan is a list of faults with times, one a line: `at 1.250s crash 3`. Shrinking a failing run
//! removes lines from it, a regression test keeps it, a person can write one by hand.
//!
//! Invariants:
//! - a plan prints to text that reads back as the same plan;
//! - faults are sorted by time, and those of one time keep their order;
//! - drawing is a function of configuration and seed, with a stream for each kind of fault, so that
//!   turning one kind off leaves the others where they were.
//!
//! What it lacks: the operations of clients, which a workload draws.

#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Prng};

use crate::network::{Endpoint, Partition};

pub use text::PlanError;

/// Whom a fault meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// This server.
    Server(MemberId),
    /// Whoever leads at that time; nobody when nobody does.
    Leader,
    /// Every server to which it can apply.
    All,
}

/// Something that goes wrong, or is put right again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Power is lost: the process ends and unsynced writes are at risk.
    Crash(Target),
    /// The process ends, the machine goes on: nothing written is lost.
    Kill(Target),
    /// Power is lost in the n-th change of the disk from now.
    Fuse {
        /// Whose disk.
        target: Target,
        /// Which change, from 1.
        change_count: u64,
    },
    /// A server that is down starts again.
    Restart(Target),
    /// A server stops executing, and notices nothing.
    Pause(Target),
    /// A paused server goes on.
    Resume(Target),
    /// Cut off from everything, clients included.
    Disconnect(Target),
    /// Undoes a disconnection.
    Reconnect(Target),
    /// Links among servers stop, in the given shape, on top of what is stopped already.
    Partition(Partition),
    /// One directed link stops.
    Block {
        /// Frames from here are stopped,
        from: Endpoint,
        /// on their way to here.
        to: Endpoint,
    },
    /// One directed link works again.
    Unblock {
        /// Frames from here pass again,
        from: Endpoint,
        /// on their way to here.
        to: Endpoint,
    },
    /// One directed link holds everything back for a while.
    Clog {
        /// Frames from here wait,
        from: Endpoint,
        /// on their way to here,
        to: Endpoint,
        /// for so long.
        lasts: Duration,
    },
    /// All partitions, blocks and clogs end.
    Heal,
}

/// A fault and its time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TimedFault {
    /// When, since the start of the run.
    pub at: Instant,
    /// What.
    pub fault: Fault,
}

/// What a run is made of, as far as faults go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunConfig {
    /// Servers, with ids 1 and upwards.
    pub server_count: u64,
    /// No fault before this time: the cluster may form.
    pub faults_from: Instant,
    /// No new fault from this time on; whatever is broken is then repaired, unless
    /// [`RunConfig::leave_broken`].
    pub faults_until: Instant,
    /// Mean time between two faults of one kind that is on.
    pub fault_interval_mean: Duration,
    /// Longest time until a fault is repaired; the shortest is a hundredth of it.
    pub repair_after_max: Duration,
    /// Which kinds of fault there are.
    pub kinds: FaultKinds,
    /// The end of the plan repairs nothing.
    pub leave_broken: bool,
}

/// Which kinds of fault a run has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultKinds {
    /// Loss of power.
    pub crash: bool,
    /// End of a process.
    pub kill: bool,
    /// Loss of power in the middle of a change of the disk.
    pub fuse: bool,
    /// Processes that stop executing for a while.
    pub pause: bool,
    /// Servers cut off from everything.
    pub disconnect: bool,
    /// Partitions of every shape.
    pub partition: bool,
    /// Single directed links that stop.
    pub block: bool,
    /// Single directed links that hold back.
    pub clog: bool,
}

/// A run's faults, sorted by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    faults: Vec<TimedFault>,
}

impl RunConfig {
    /// A run without faults, half a virtual minute of them possible.
    #[must_use]
    pub fn calm(server_count: u64) -> Self {
        Self {
            server_count,
            faults_from: Instant(2_000_000_000),
            faults_until: Instant(30_000_000_000),
            fault_interval_mean: Duration::from_secs(4),
            repair_after_max: Duration::from_secs(5),
            kinds: FaultKinds::default(),
            leave_broken: false,
        }
    }

    /// A run drawn whole: each kind of fault is on or off, then how often it comes.
    #[must_use]
    pub fn draw(prng: &mut Prng) -> Self {
        let server_count = *prng.pick(&[1, 2, 3, 3, 3, 3, 4, 5, 5, 7]).unwrap_or(&3);
        let kinds = FaultKinds::draw(prng, 1, 2);
        Self {
            fault_interval_mean: prng.duration(Duration::from_millis(500), Duration::from_secs(10)),
            repair_after_max: prng.duration(Duration::from_millis(100), Duration::from_secs(10)),
            kinds,
            ..Self::calm(server_count)
        }
    }

    /// The servers' ids.
    #[must_use]
    pub fn servers(&self) -> Vec<MemberId> {
        (1..=self.server_count).map(MemberId).collect()
    }
}

impl FaultKinds {
    /// Each kind for itself, on with a chance of `num` in `den`.
    #[must_use]
    pub fn draw(prng: &mut Prng, num: u64, den: u64) -> Self {
        let mut on = || prng.chance(num, den);
        Self {
            crash: on(),
            kill: on(),
            fuse: on(),
            pause: on(),
            disconnect: on(),
            partition: on(),
            block: on(),
            clog: on(),
        }
    }
}

impl Plan {
    /// A plan of these faults, sorted by time.
    #[must_use]
    pub fn new(mut faults: Vec<TimedFault>) -> Self {
        faults.sort_by_key(|timed| timed.at);
        Self { faults }
    }

    /// The faults of a run: a function of `config` and the state of `prng`, which is not drawn
    /// from.
    #[must_use]
    pub fn draw(config: &RunConfig, prng: &Prng) -> Self {
        let mut faults = Vec::new();
        let kinds = config.kinds;
        let table: [(&str, bool, Breaker); 8] = [
            ("crash", kinds.crash, break_crash),
            ("kill", kinds.kill, break_kill),
            ("fuse", kinds.fuse, break_fuse),
            ("pause", kinds.pause, break_pause),
            ("disconnect", kinds.disconnect, break_disconnect),
            ("partition", kinds.partition, break_partition),
            ("block", kinds.block, break_block),
            ("clog", kinds.clog, break_clog),
        ];
        for (label, is_on, breaker) in table {
            if is_on && 0 < config.server_count {
                draw_kind(config, &mut prng.fork(label), breaker, &mut faults);
            }
        }
        if !config.leave_broken {
            let repairs = [
                Fault::Heal,
                Fault::Reconnect(Target::All),
                Fault::Resume(Target::All),
                Fault::Restart(Target::All),
            ];
            let at = config.faults_until;
            faults.extend(repairs.map(|fault| TimedFault { at, fault }));
        }
        Self::new(faults)
    }

    /// The faults, sorted by time.
    #[must_use]
    pub fn faults(&self) -> &[TimedFault] {
        &self.faults
    }

    /// Number of faults and repairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.faults.len()
    }

    /// Nothing goes wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.faults.is_empty()
    }

    /// This plan without the lines in `cut`: one step of shrinking.
    #[must_use]
    pub fn without(&self, cut: std::ops::Range<usize>) -> Self {
        let kept = self.faults.iter().enumerate().filter(|(at, _)| !cut.contains(at));
        Self { faults: kept.map(|(_, timed)| timed.clone()).collect() }
    }

    /// A smallest plan that still fails, by cutting ever finer pieces (Zeller and Hildebrandt 2002,
    /// without the complements): no single line can be taken from it. `fails` is called at most
    /// `run_count_max` times, so it may be less than smallest when that is few.
    #[must_use]
    pub fn shrink(&self, run_count_max: usize, mut fails: impl FnMut(&Self) -> bool) -> Self {
        let mut plan = self.clone();
        let mut runs_left = run_count_max;
        let mut piece = plan.len().div_ceil(2);
        while 0 < piece && 0 < runs_left {
            let before = plan.len();
            let mut start = 0;
            while start < plan.len() && 0 < runs_left {
                let smaller = plan.without(start..start + piece);
                runs_left -= 1;
                if fails(&smaller) {
                    plan = smaller;
                } else {
                    start += piece;
                }
            }
            // At single lines, go on until a whole round removes nothing.
            if 1 < piece || plan.len() == before {
                piece /= 2;
            }
        }
        plan
    }
}

/// Draws one fault of a kind, and its repair where it needs one of its own.
type Breaker = fn(&RunConfig, &mut Prng) -> (Fault, Option<Fault>);

fn draw_kind(config: &RunConfig, prng: &mut Prng, breaker: Breaker, faults: &mut Vec<TimedFault>) {
    let mut at = config.faults_from;
    loop {
        at = at + prng.duration(Duration::from_nanos(1), config.fault_interval_mean * 2);
        if config.faults_until <= at {
            return;
        }
        let (fault, repair) = breaker(config, prng);
        faults.push(TimedFault { at, fault });
        let repaired_at =
            at + prng.duration(config.repair_after_max / 100, config.repair_after_max);
        if let (Some(fault), true) = (repair, repaired_at < config.faults_until) {
            faults.push(TimedFault { at: repaired_at, fault });
        }
        at = at.max(repaired_at);
    }
}

/// Mostly some server, often the leader.
fn draw_target(config: &RunConfig, prng: &mut Prng) -> Target {
    if prng.chance(2, 5) { Target::Leader } else { Target::Server(draw_server(config, prng)) }
}

fn draw_server(config: &RunConfig, prng: &mut Prng) -> MemberId {
    MemberId(prng.between(1, config.server_count))
}

/// A repair of whatever the target was then: the leader is not the leader any more.
fn repair_target(target: Target) -> Target {
    match target {
        Target::Server(_) => target,
        Target::Leader | Target::All => Target::All,
    }
}

fn break_crash(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    // Now and then all lose power at once, as a building does.
    let target = if prng.chance(1, 12) { Target::All } else { draw_target(config, prng) };
    (Fault::Crash(target), Some(Fault::Restart(repair_target(target))))
}

fn break_kill(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let target = draw_target(config, prng);
    (Fault::Kill(target), Some(Fault::Restart(repair_target(target))))
}

fn break_fuse(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let target = draw_target(config, prng);
    let most = *prng.pick(&[4, 30, 300]).unwrap_or(&30);
    let change_count = prng.between(1, most);
    (Fault::Fuse { target, change_count }, Some(Fault::Restart(repair_target(target))))
}

fn break_pause(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let target = draw_target(config, prng);
    (Fault::Pause(target), Some(Fault::Resume(repair_target(target))))
}

fn break_disconnect(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let target = draw_target(config, prng);
    (Fault::Disconnect(target), Some(Fault::Reconnect(repair_target(target))))
}

fn break_partition(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let server = draw_server(config, prng);
    let partition = match prng.below(7) {
        0 => Partition::Isolate(server),
        1 => Partition::Deaf(server),
        2 => Partition::Mute(server),
        3 => Partition::Split(draw_side(config, prng)),
        4 => Partition::OneWay(draw_side(config, prng)),
        5 => Partition::Ring,
        _ => Partition::Bridge(server),
    };
    (Fault::Partition(partition), Some(Fault::Heal))
}

/// Some of the servers: at least one, and never all unless there is only one.
fn draw_side(config: &RunConfig, prng: &mut Prng) -> Vec<MemberId> {
    let mut servers = config.servers();
    let side_count = prng.between(1, (config.server_count - 1).max(1));
    while side_count < servers.len() as u64 {
        let out = prng.below(servers.len() as u64);
        servers.remove(usize::try_from(out).expect("below a length"));
    }
    servers
}

fn draw_link(config: &RunConfig, prng: &mut Prng) -> (Endpoint, Endpoint) {
    let from = draw_server(config, prng);
    let distance = prng.between(1, (config.server_count - 1).max(1));
    let to = MemberId(1 + (from.0 - 1 + distance) % config.server_count);
    (Endpoint::Server(from), Endpoint::Server(to))
}

fn break_block(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let (from, to) = draw_link(config, prng);
    (Fault::Block { from, to }, Some(Fault::Unblock { from, to }))
}

fn break_clog(config: &RunConfig, prng: &mut Prng) -> (Fault, Option<Fault>) {
    let (from, to) = draw_link(config, prng);
    let lasts = prng.duration(Duration::from_millis(1), config.repair_after_max);
    (Fault::Clog { from, to, lasts }, None)
}
