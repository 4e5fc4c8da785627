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
    /// Bounds of one own search, instead of a list, as in
    /// `terms=3,proposals=1,changes=0,crashes=3,heartbeats=0,writes=1,whole,idle`
    #[arg(long, conflicts_with = "list")]
    bounds: Option<String>,
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
    let own = bounds.map(|text| Bounds::parse(&text));
    let (searches, order) = match (list, own) {
        (_, Some(Ok(bounds))) => (vec![Search { name: "own bounds", bounds }], Order::Depth),
        (_, Some(Err(wrong))) => {
            eprintln!("{wrong}");
            return ExitCode::FAILURE;
        }
        (List::Small, None) => (Bounds::small(), Order::Depth),
        (List::Large, None) => (Bounds::large(), Order::Depth),
        (List::Hunt, None) => (Bounds::hunt(), Order::Breadth),
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

const BROKEN: u8 = 100;
const TOO_LONG: u8 = 101;
