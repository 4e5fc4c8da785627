//! Runs searches one after another and prints what each came to.
//!
//! Ends with 0 when each was exhausted without a find, with 100 and the name of the rule when one
//! was broken, and with 101 when a search ran out of time.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, ValueEnum};
use kvraft_raft_model::{Bounds, Order, Search, explore};

/// Model checking of the production consensus value, within bounds.
#[derive(Parser)]
#[command(name = "raft-model")]
struct Arguments {
    /// Which list of searches
    #[arg(long, value_enum, default_value_t = List::Small)]
    list: List,
    /// Bounds of one own search, instead of a list: terms, proposals, changes of members, crashes
    /// of all servers, heartbeats, writes under way, and 1 if elections are single steps
    #[arg(long, num_args = 7, conflicts_with = "list")]
    bounds: Vec<u8>,
    /// Longest time for each search, in seconds
    #[arg(long, default_value_t = 3600)]
    seconds: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum List {
    /// What the tests exhaust
    Small,
    /// What takes minutes to an hour each
    Large,
    /// Where planted bugs are looked for, in breadth
    Hunt,
}

fn main() -> ExitCode {
    let Arguments { list, bounds, seconds } = Arguments::parse();
    // Failed assertions of production code are findings, and reported as such.
    std::panic::set_hook(Box::new(|_| {}));
    let (searches, order) = match list {
        _ if !bounds.is_empty() => (vec![own_search(&bounds)], Order::Depth),
        List::Small => (Bounds::small(), Order::Depth),
        List::Large => (Bounds::large(), Order::Depth),
        List::Hunt => (Bounds::hunt(), Order::Breadth),
    };
    let mut code = ExitCode::SUCCESS;
    for search in searches {
        println!("── {}", search.name);
        let patience = Duration::from_secs(seconds);
        let verdict = explore(search.bounds, order, patience, |line| println!("{line}"));
        println!("{verdict}");
        if let Some((rule, _)) = &verdict.broken {
            println!("FAIL {}", rule.name());
            return ExitCode::from(BROKEN);
        }
        if !verdict.exhausted {
            code = ExitCode::from(TOO_LONG);
        }
    }
    code
}

fn own_search(bounds: &[u8]) -> Search {
    let [terms, proposals, changes, crashes, heartbeats, writes, whole] = *bounds else {
        unreachable!("clap demands seven")
    };
    let bounds = Bounds {
        term_max: terms.into(),
        proposal_count_max: proposals,
        change_count_max: changes,
        crash_count_max: 1,
        crash_total_max: crashes,
        idle_crashes: whole == 0,
        whole_elections: whole == 1,
        heartbeat_count_max: heartbeats,
        write_count_max: writes.into(),
        append_size_bytes_max: 4096,
    };
    Search { name: "own bounds", bounds }
}

const BROKEN: u8 = 100;
const TOO_LONG: u8 = 101;
