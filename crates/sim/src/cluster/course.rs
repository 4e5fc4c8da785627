//! The phases of a run, one event at a time: faults, a core that must make progress, convergence,
//! in some runs steady times after both, the verdict.
//!
//! Why a value: a run from its seed to its verdict and a run that somebody steps through go the
//! same way.

use std::time::Duration;

use kvraft_base::Instant;

use super::{
    clients::Client,
    steady::{Steady, TERM_COUNT_MAX_BROKEN, TERM_COUNT_MAX_WELL},
    violation::{Check, Violation},
    world::{Happening, World},
};

/// Slow checks look this often.
pub(crate) const TICK: Duration = Duration::from_millis(100);

/// After healing, everybody must agree and every client be served within this time. Generous: the
/// slowest drawn disks and links need tens of election timeouts for a backlog.
const CONVERGENCE_MAX: Duration = Duration::from_secs(120);

/// Beyond that, a client that has more to do gets so long for each operation: in long runs some
/// find out that they cannot reach their server only when it is over, with most of their work left.
const OPERATION_TIME_MAX: Duration = Duration::from_secs(2);

/// And so many heartbeats: where a fifth of all frames is lost and no member of the quorum can be
/// done without, one operation needs many of them.
const HEARTBEATS_PER_OPERATION: u32 = 20;

/// And where frames are lost, so many attempts that are waited for in vain: a forwarded request or
/// its answer is lost one time in three at worst, and where few may wait those keep others out.
const LOST_ATTEMPTS_PER_OPERATION: u32 = 4;

/// Where appends carry less than this, a follower far behind gets few entries in each.
const CATCH_UP_BYTES_FEW: usize = 1024;

/// An append that is lost is noticed by a heartbeat's answer, which may be lost, too.
const HEARTBEATS_PER_ENTRY: u32 = 6;

/// A run that takes more events than this does not end by itself.
const EVENT_COUNT_MAX: u64 = 5_000_000;

/// How far a run has come.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Course {
    /// The plan is carried out.
    Faults,
    /// Some stay broken: the others must make progress within a time.
    Core(Limit),
    /// They have, and go on for a while.
    Broken(Steady),
    /// Everybody is mended: all must agree within a time.
    Convergence(Limit),
    /// They do, and go on for a while.
    Well(Steady),
    /// Up to here requests that nobody waits for are given up.
    Rest(Instant),
    /// The history was judged, and is clean.
    Over,
}

/// A time that something must not exceed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limit {
    time: Duration,
    end: Instant,
}

impl Limit {
    /// Clients work side by side, so the one that needs longest tells how long it may take until
    /// everybody is served.
    fn begin(world: &World) -> Self {
        let for_clients = world.clients.values().map(|client| Self::for_client(world, client));
        let for_all = for_clients.max().unwrap_or_default();
        let time = CONVERGENCE_MAX.max(for_all) + Self::for_backlog(world);
        Self { time, end: world.now + time }
    }

    /// It does one operation after another.
    fn for_client(world: &World, client: &Client) -> Duration {
        let heartbeats = world.config.heartbeat_interval * HEARTBEATS_PER_OPERATION;
        let is_lossy = 0 < world.config.network.loss_ppm;
        let lost = if is_lossy { LOST_ATTEMPTS_PER_OPERATION } else { 0 };
        let for_one = OPERATION_TIME_MAX + heartbeats + client.patience() * lost;
        for_one.saturating_mul(u32::try_from(client.left()).unwrap_or(u32::MAX))
    }

    /// Where appends are tiny, a server without a log gets the longest one entry by entry.
    fn for_backlog(world: &World) -> Duration {
        let config = &world.config;
        if CATCH_UP_BYTES_FEW <= config.catch_up_size_bytes {
            return Duration::ZERO;
        }
        let entries = u32::try_from(world.log_length_max()).unwrap_or(u32::MAX);
        (config.heartbeat_interval * HEARTBEATS_PER_ENTRY).saturating_mul(entries)
    }
}

impl Course {
    /// Starts everybody in a world that was just set up.
    pub(crate) fn begin(world: &mut World) -> Self {
        for id in world.server_ids() {
            world.start(id);
        }
        for (id, client) in &world.clients {
            let wake = Happening::ClientWake { client: *id };
            world.heap.push(world.now + client.pause(), wake);
        }
        world.schedule_plan();
        world.open_office();
        world.after(TICK, Happening::Tick);
        Self::Faults
    }

    /// Handles one event, after the passage to another phase if it is time for that. False: the
    /// run is over.
    ///
    /// # Errors
    /// The first rule that is broken.
    pub(crate) fn step(&mut self, world: &mut World) -> Result<bool, Violation> {
        while let Some(next) = self.next(world)? {
            *self = next;
        }
        if matches!(self, Self::Over) {
            return Ok(false);
        }
        if !world.step() {
            return Err(Violation::new(Check::RunEnds, "nothing is left to happen"));
        }
        if let Some(violation) = world.checks.first_violation() {
            return Err(violation);
        }
        if EVENT_COUNT_MAX < world.event_count {
            return Err(Violation::new(Check::RunEnds, "too many events"));
        }
        Ok(true)
    }

    /// The phase that begins now, if one does.
    fn next(self, world: &mut World) -> Result<Option<Self>, Violation> {
        let now = world.now;
        match self {
            Self::Faults if Instant::ZERO + world.config.faults_until <= now => {
                let mut core_prng = world.core_prng.clone();
                world.begin_core(&mut core_prng);
                Ok(Some(Self::Core(Limit::begin(world))))
            }
            Self::Core(limit) if limit.end <= now || world.has_core_progressed() => {
                if !world.has_core_progressed() {
                    return Err(world.no_progress(limit.time));
                }
                let broken = Steady::begin(world).map(Self::Broken);
                Ok(Some(broken.unwrap_or_else(|| Self::mend(world))))
            }
            Self::Broken(steady) if steady.until() <= now => {
                steady.end(world, TERM_COUNT_MAX_BROKEN)?;
                Ok(Some(Self::mend(world)))
            }
            Self::Convergence(limit) if limit.end <= now || world.has_converged() => {
                if !world.has_converged() {
                    let state = world.describe_state(limit.time);
                    return Err(Violation::new(Check::Convergence, state));
                }
                Steady::begin(world).map_or_else(|| Self::judge(world), |s| Ok(Some(Self::Well(s))))
            }
            Self::Well(steady) if steady.until() <= now => {
                let is_well = world.has_votes_to_spare();
                let most = if is_well { TERM_COUNT_MAX_WELL } else { TERM_COUNT_MAX_BROKEN };
                steady.end(world, most)?;
                // What nobody waits for any more is given up by then.
                Ok(Some(Self::Rest(now + world.config.request_time_max())))
            }
            Self::Rest(end) if end <= now => {
                world.check_left_over()?;
                Self::judge(world)
            }
            _ => Ok(None),
        }
    }

    /// Everybody is mended.
    fn mend(world: &mut World) -> Self {
        world.end_plan();
        world.core.clear();
        for id in world.server_ids() {
            world.mend(id);
        }
        Self::Convergence(Limit::begin(world))
    }

    fn judge(world: &mut World) -> Result<Option<Self>, Violation> {
        world.judge()?;
        Ok(Some(Self::Over))
    }
}
