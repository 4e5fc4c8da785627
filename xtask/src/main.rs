//! `cargo xtask`: what a maintainer runs.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use xtask::{BenchOptions, BugOptions, MutantOptions, RejoinOptions};

/// Maintenance commands of kvraft.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    job: Job,
}

#[derive(Subcommand)]
enum Job {
    /// Every check, cheap ones first: what must hold before a change moves on
    Ci,
    /// The rules of the house that a compiler does not know
    Tidy,
    /// The shipped binary under etcdctl, with servers killed under it, added and removed
    Conformance {
        /// Other etcdctl programs that members are changed with, too
        #[arg(long, value_name = "PROGRAM")]
        etcdctl: Vec<PathBuf>,
    },
    /// Three servers become five and three others, under load: nothing acknowledged is lost, and
    /// writes never pause for more than a second
    GrowAndShrink,
    /// A follower misses many keys and comes back while writes go on: how, how long, and what that
    /// does to the leader's latency, as a markdown table
    Rejoin {
        /// Keys that are written while it is down
        #[arg(long, default_value_t = 500_000)]
        keys: u64,
        /// Offered load, in percent of what the cluster takes at most
        #[arg(long, default_value_t = 40, value_parser = clap::value_parser!(u64).range(1..=90))]
        rate_percent: u64,
        /// Entries kept in the journal for those who are a little behind [default: the server's]
        #[arg(long)]
        retained_entries: Option<u64>,
    },
    /// The shipped binary on a disk that forgets what was not synced: all servers are killed in
    /// mid-load, and every acknowledged write must be there again
    PowerLoss {
        /// Power losses in a row, each on the data that the one before left
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
        rounds: u32,
        /// Bugs of bugs/*.patch, by name: with each in a scratch copy, the same test must fail
        #[arg(long, value_name = "NAME", num_args = 1..)]
        planted: Vec<String>,
    },
    /// Plants a bug of bugs/*.patch in a scratch copy, finds it, makes the run that shows it
    /// smaller and opens the page at the moment in which a rule is broken
    ShowBug {
        /// The patch's name
        name: String,
        /// Do not open the page
        #[arg(long)]
        no_open: bool,
    },
    /// Makes the pictures of docs/images anew, in Debian's Chromium
    Pictures {
        /// This kvraft instead of a released build
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// The page that shows a run, in Debian's Chromium: pictures stay in target/viewer
    Viewer {
        /// Only how fast a run with a million events opens and moves
        #[arg(long)]
        million: bool,
        /// This kvraft instead of a released build
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// KVRaft (Go)'s example from beginning to end: its logs and a page stay in target/seed-demo
    SeedDemo {
        /// This kvraft instead of a build of this tree
        #[arg(long, value_name = "FILE")]
        binary: Option<PathBuf>,
    },
    /// Kills leaders at quiet moments and prints where the time went until the next had committed
    FailOver {
        /// How many leaders
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
        kills: u32,
        /// Instead, only how long it takes: after kills and silent pauses, without a coordinator,
        /// with one, and with one that lies
        #[arg(long)]
        compare: bool,
    },
    /// Every interleaving of small groups of the production consensus value, within bounds
    ModelCheck {
        /// Longest time for each search
        #[arg(long, default_value_t = 3600)]
        seconds: u64,
        /// Instead, each bug of bugs/*.patch that has a line "model:", in a scratch copy, must be
        /// found
        #[arg(long)]
        planted: bool,
    },
    /// Each bug of bugs/*.patch, in a scratch copy, must be found by the check that it names: a
    /// markdown table on stdout
    Bugs {
        /// Only these [default: all]
        names: Vec<String>,
        /// Instead, those of bugs/blind, which name no check: any may find them; a score, no demand
        #[arg(long)]
        blind: bool,
        /// Starting seeds for each bug
        #[arg(long, default_value_t = 5)]
        runs: usize,
        /// Longest time for each starting seed
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Make the first run that was found smaller, for so many seconds at most [default: 30]
        #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "30")]
        shrink: Option<u64>,
        /// What the starting seeds are made of [default: drawn and printed]
        #[arg(long, value_name = "NUMBER")]
        from: Option<u64>,
    },
    /// A sample of the small changes that cargo-mutants makes to raft, replica and store, each in a
    /// scratch copy, must be noticed by simulation or scenarios
    Mutants {
        /// Only those whose name contains one of these, all of them [default: a sample]
        names: Vec<String>,
        /// How many are drawn
        #[arg(long, default_value_t = 200)]
        count: usize,
        /// Only this part of them, as I/N; the first is 0/N
        #[arg(long, value_name = "I/N", value_parser = shard, default_value = "0/1")]
        shard: (usize, usize),
        /// Leave out so many that were judged before, of this number and part
        #[arg(long, default_value_t = 0)]
        skip: usize,
        /// Seconds of simulation for each
        #[arg(long, default_value_t = 15)]
        seconds: u64,
        /// Threads of it
        #[arg(long, default_value_t = 2)]
        jobs: usize,
        /// What the sample and the seeds are made of [default: drawn and printed]
        #[arg(long, value_name = "NUMBER")]
        from: Option<u64>,
    },
    /// The same seeds in a debug build on one thread and in a release build on three: the same runs
    Determinism,
    /// Each rule of crates/raft/testdata/RULES.md, taken out of a scratch copy, must make the
    /// scenario fail that shows it
    Rules {
        /// Only scenarios whose name contains one of these
        names: Vec<String>,
    },
    /// etcd, kvraft and servers that do nothing, side by side: a markdown table on stdout
    BenchEtcd {
        /// Length of one run
        #[arg(long, default_value_t = 20)]
        seconds: u64,
        /// Runs of each system at each load; the median counts
        #[arg(long, default_value_t = 5)]
        rounds: usize,
        /// Numbers of clients, each with one request under way
        #[arg(long, value_delimiter = ',', default_values_t = [1, 16, 64, 256])]
        clients: Vec<u32>,
        /// Size of each value in bytes
        #[arg(long, default_value_t = 256)]
        value_size: usize,
        /// Folder for the data of the servers: must lie on a real disk [default: in target]
        #[arg(long)]
        data_dir: Option<PathBuf>,
    },
}

fn main() -> Result<()> {
    let root = xtask::workspace_root();
    match Arguments::parse().job {
        Job::Ci => xtask::ci(&root),
        Job::Tidy => xtask::check_tidy(&root),
        Job::Conformance { etcdctl } => xtask::conformance(&root, &etcdctl),
        Job::GrowAndShrink => xtask::grow_and_shrink(&root),
        Job::Rejoin { keys, rate_percent, retained_entries } => {
            xtask::rejoin(&root, &RejoinOptions { keys, rate_percent, retained_entries })
        }
        Job::PowerLoss { rounds, planted } => xtask::power_loss(&root, rounds, &planted),
        Job::ShowBug { name, no_open } => xtask::show_bug(&root, &name, !no_open).map(drop),
        Job::Pictures { binary } => xtask::pictures(&root, binary),
        Job::Viewer { million, binary } => xtask::viewer(&root, million, binary),
        Job::SeedDemo { binary } => xtask::seed_demo(&root, binary),
        Job::FailOver { kills, compare: true } => xtask::fail_over_compared(&root, kills as usize),
        Job::FailOver { kills, compare: false } => xtask::fail_over(&root, kills as usize),
        Job::ModelCheck { planted: true, .. } => xtask::model_check_planted(&root),
        Job::ModelCheck { seconds, planted: false } => xtask::model_check(&root, seconds),
        Job::Bugs { names, blind, runs, seconds, shrink, from } => {
            let shrink_seconds = shrink.unwrap_or(0);
            let options = BugOptions { names, blind, runs, seconds, shrink_seconds, from };
            xtask::bugs(&root, &options)
        }
        Job::Mutants { names, count, shard, skip, seconds, jobs, from } => {
            xtask::mutants(&root, &MutantOptions { count, shard, skip, seconds, jobs, from, names })
        }
        Job::Determinism => xtask::determinism(&root),
        Job::Rules { names } => xtask::rules(&root, &names),
        Job::BenchEtcd { seconds, rounds, clients, value_size, data_dir } => {
            let options =
                BenchOptions { seconds, round_count: rounds, clients, value_size, data_dir };
            xtask::bench_etcd(&root, &options)
        }
    }
}

/// Reads `I/N`.
fn shard(text: &str) -> Result<(usize, usize), String> {
    let numbers = text.split_once('/').and_then(|(part, parts)| {
        let (part, parts) = (part.parse().ok()?, parts.parse().ok()?);
        (part < parts).then_some((part, parts))
    });
    numbers.ok_or_else(|| format!("'{text}' is not a part such as 0/4 or 3/4"))
}
