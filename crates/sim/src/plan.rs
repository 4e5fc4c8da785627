//! What clients do and what goes wrong in a run, as data: drawn from a seed, printed, read, and cut
//! down.
//!
//! A plan is a list of operations and of faults with times, one a line: `client 1 after 0.010s put
//! k0 v1`, `at 1.250s crash 3`. Shrinking a failing run removes lines from it, a regression test
//! keeps it, a person can write one by hand.
//!
//! Invariants:
//! - a plan prints to text that reads back as the same plan;
//! - faults are sorted by time, and those of one time keep their order;
//! - drawing is a function of configuration and seed, with a stream for each kind of fault, so that
//!   turning one kind off leaves the others where they were.

mod client_text;
mod clients;
mod draw;
mod fault_text;
mod kinds;
mod members;
mod simpler;
#[cfg(test)]
mod tests;
mod text;

use std::time::Duration;

use kvraft_base::{Instant, MemberId, Prng};

use crate::{
    disk::ChangePoint,
    network::{Endpoint, Partition},
};

pub use clients::{CLIENT_MAX, ClientPlan, Intent, PAUSE_MIN, PlannedOperation};
pub use kinds::{FaultChoice, FaultKind, FaultKinds, Profile};
pub use members::{Whom, Wish};
pub(crate) use simpler::{GRAINS, rounded};
pub use text::PlanError;
pub(crate) use text::{PlanLine, PlanReader, parse_seconds, read_lines, seconds};

/// The rate of a clock that does not drift.
pub const RATE_PPM: u64 = 1_000_000;

/// Slowest and fastest rate that is ever drawn: from a machine that hardly gets time to one that
/// runs wild.
pub const DRIFT_PPM_MAX: (u64, u64) = (250_000, 4_000_000);

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
    /// Power is lost in the n-th change of one kind from now.
    Ambush {
        /// Whose disk.
        target: Target,
        /// Which kind of change.
        point: ChangePoint,
        /// Which of them, from 1.
        change_count: u64,
    },
    /// A server that is down starts again.
    Restart(Target),
    /// A server stops executing, and notices nothing.
    Pause(Target),
    /// A server stops executing, and its clocks stop too.
    Suspend(Target),
    /// A paused or suspended server goes on.
    Resume(Target),
    /// The wall clock jumps.
    Jump {
        /// Whose.
        target: Target,
        /// By how much, in milliseconds; back if negative.
        by_ms: i64,
    },
    /// The clocks run at another rate.
    Drift {
        /// Whose.
        target: Target,
        /// Of the world's time, in parts per million. Greater than 0.
        rate_ppm: u64,
    },
    /// Everything that the disk does takes longer.
    Slow {
        /// Whose disk.
        target: Target,
        /// So many times as long; 1 is as before.
        factor: u64,
    },
    /// The next operation of the disk takes longer.
    Stall {
        /// Whose disk.
        target: Target,
        /// By so much.
        lasts: Duration,
    },
    /// The n-th sync of the disk from now fails, once.
    SyncError {
        /// Whose disk.
        target: Target,
        /// Which sync, from 1.
        sync_count: u64,
    },
    /// The n-th sync of the disk from now fails, once, and what it has not written counts as
    /// written: only a loss of power will show that it is not.
    FalseClean {
        /// Whose disk.
        target: Target,
        /// Which sync, from 1.
        sync_count: u64,
    },
    /// The n-th write of the disk from now fails, once.
    WriteError {
        /// Whose disk.
        target: Target,
        /// Which write, from 1.
        write_count: u64,
    },
    /// The disk has only so much room left.
    Full {
        /// Whose disk.
        target: Target,
        /// In bytes.
        left_bytes: u64,
    },
    /// The disk has room again.
    Space(Target),
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
    /// One directed link is slower than others.
    Lag {
        /// Frames from here take longer,
        from: Endpoint,
        /// on their way to here,
        to: Endpoint,
        /// by so much in the mean; 0 is as before.
        mean: Duration,
    },
    /// One directed link carries only so much.
    Throttle {
        /// Frames from here are throttled,
        from: Endpoint,
        /// on their way to here,
        to: Endpoint,
        /// to so many bytes a second. Greater than 0.
        rate_bytes: u64,
        /// So many bytes may wait; a frame that finds no room is lost.
        queue_bytes: u64,
    },
    /// One directed link carries as much as others again.
    Unthrottle {
        /// Frames from here,
        from: Endpoint,
        /// on their way to here.
        to: Endpoint,
    },
    /// A client's process ends; another one goes on with what is left to do.
    ClientCrash {
        /// Number of the client.
        client: u64,
        /// After so long.
        down: Duration,
    },
    /// A client's process stands still.
    ClientPause {
        /// Number of the client.
        client: u64,
        /// For so long.
        lasts: Duration,
    },
    /// All partitions, blocks and clogs end, and all links are as fast and as wide as they were.
    Heal,
    /// Power is lost, and what was durable is not what it was.
    Rot {
        /// In which way.
        decay: Decay,
        /// Whose disk.
        server: MemberId,
        /// Where on it.
        part: Part,
        /// Which file, byte and bit are drawn from this.
        draw: u64,
    },
    /// The n-th read of the disk from now fails, once.
    ReadError {
        /// Whose disk.
        target: Target,
        /// Which read, from 1.
        read_count: u64,
    },
    /// A sector cannot be read any more.
    BadSector {
        /// Whose disk.
        server: MemberId,
        /// Where on it.
        part: Part,
        /// Which file and sector are drawn from this.
        draw: u64,
    },
    /// Every sector can be read again.
    GoodSectors(Target),
    /// The operator wants other members: all of it or nothing.
    Change(Vec<Wish>),
    /// The operator wants another leader; whoever is nearest if it is not said who.
    Transfer(Option<Whom>),
    /// A disk is lost with everything on it, and the operator wants a new server in its place.
    Replace(Whom),
    /// The process is asked to stop: a leader hands over before it does.
    Stop(Target),
    /// Something is wrong with the coordinator, or is put right.
    Coordinator(CoordinatorFault),
    /// The process ends, and the next one is of another build.
    Install {
        /// Whose.
        target: Target,
        /// Which.
        build: Build,
    },
}

/// What goes wrong with the coordinator; nothing where there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoordinatorFault {
    /// Its process ends, and all that it knew is gone.
    Crash,
    /// It starts again and knows nobody.
    Restart,
    /// It stands still; what it is told waits.
    Pause,
    /// It goes on.
    Resume,
    /// It is cut off from these servers.
    Cut(Target),
    /// What it says and is told takes so much longer.
    Late(Duration),
    /// It says again and again, to one server or to all, that the leader is dead.
    Lie,
    /// It tells the truth, in time, and reaches everybody.
    Mend,
}

/// Which build of the software a server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Build {
    /// One that does not know what the new one brings.
    Old,
    /// The one that is simulated.
    New,
}

/// How content goes wrong without a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decay {
    /// A bit flips.
    Flip,
    /// Some sectors were written where others are.
    Misdirect,
    /// Some sectors that were synced were never written.
    Lose,
    /// Some sectors are right, and what is read for them next, once, is what others hold.
    Misread,
}

/// Part of a server's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The settled state.
    Table,
    /// The log, as far as something later attests it.
    Journal,
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
    /// Servers in the beginning, with ids 1 and upwards.
    pub server_count: u64,
    /// How many servers that are added later faults may meet, too.
    pub newcomer_count: u64,
    /// Clients, with numbers from 1 upwards.
    pub client_count: u64,
    /// The widest that clocks differ: slowest and fastest rate, in parts per million.
    pub drift_ppm: (u64, u64),
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

/// What clients do, and a run's faults, sorted by time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    clients: Vec<ClientPlan>,
    faults: Vec<TimedFault>,
}

impl RunConfig {
    /// A run without faults, half a virtual minute of them possible.
    #[must_use]
    pub fn calm(server_count: u64) -> Self {
        Self {
            server_count,
            newcomer_count: 0,
            client_count: 0,
            drift_ppm: DRIFT_PPM_MAX,
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
        let kinds = FaultKinds::all().draw(prng, 1, 2);
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

impl Plan {
    /// A plan of these clients, sorted by number, and these faults, sorted by time.
    #[must_use]
    pub fn new(mut clients: Vec<ClientPlan>, mut faults: Vec<TimedFault>) -> Self {
        clients.sort_by_key(|client| client.id);
        faults.sort_by_key(|timed| timed.at);
        Self { clients, faults }
    }

    /// The faults of a run: a function of `config` and the state of `prng`, which is not drawn
    /// from.
    #[must_use]
    pub fn draw_faults(config: &RunConfig, prng: &Prng) -> Vec<TimedFault> {
        let mut faults = Vec::new();
        for kind in config.kinds.iter().filter(|_| 0 < config.server_count) {
            draw::draw_kind(config, &mut prng.fork(kind.name()), kind, &mut faults);
        }
        if !config.leave_broken {
            let repairs = [
                Fault::Heal,
                Fault::Reconnect(Target::All),
                Fault::Resume(Target::All),
                Fault::Drift { target: Target::All, rate_ppm: RATE_PPM },
                Fault::Slow { target: Target::All, factor: 1 },
                Fault::Space(Target::All),
                Fault::Restart(Target::All),
            ];
            let at = config.faults_until;
            faults.extend(repairs.map(|fault| TimedFault { at, fault }));
        }
        faults.sort_by_key(|timed| timed.at);
        faults
    }

    /// The faults, sorted by time.
    #[must_use]
    pub fn faults(&self) -> &[TimedFault] {
        &self.faults
    }

    /// The clients, sorted by number.
    #[must_use]
    pub fn clients(&self) -> &[ClientPlan] {
        &self.clients
    }

    /// The same clients under other faults.
    #[must_use]
    pub fn with_faults(self, faults: Vec<TimedFault>) -> Self {
        Self::new(self.clients, faults)
    }

    /// Number of operations of all clients.
    #[must_use]
    pub fn operation_count(&self) -> usize {
        self.clients.iter().map(|client| client.operations.len()).sum()
    }

    /// Number of operations, faults and repairs.
    #[must_use]
    pub fn len(&self) -> usize {
        self.operation_count() + self.faults.len()
    }

    /// Nobody does anything, and nothing goes wrong.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
