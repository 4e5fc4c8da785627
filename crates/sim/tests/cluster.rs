//! Seeds of the simulated cluster that every test run executes.

use kvraft_sim::{Choices, run};

fn assert_clean(seed: u64, choices: Choices) {
    let choices = Choices { trace_line_count: 40, ..choices };
    run(seed, choices).assert_clean();
}

/// Every size from one to seven, each with its own faults, stays right.
#[test]
fn seeds_of_every_size_are_clean() {
    for servers in 1..=7 {
        for seed in 0..20 {
            assert_clean(seed, Choices { servers: Some(servers), ..Choices::default() });
        }
    }
}

/// Seeds that once failed, and what they failed by.
#[test]
fn seeds_that_failed_stay_clean() {
    // A server that was left standing still, or with a slow disk, was expected to keep up.
    for seed in [1_101, 1_482, 1_767] {
        assert_clean(seed, Choices::default());
    }
    // A server that had answered for entries lost them to its disk before they were counted.
    for seed in [779, 832, 1_225] {
        assert_clean(seed, Choices::default());
    }
    // A damaged journal brought back an entry that its missing part had replaced, as committed.
    assert_clean(1_491, Choices::default());
    // A follower took a whole snapshot and lost it in a crash: it got it again after half a minute.
    for (seed, servers) in [(10, 5), (1_935, 7)] {
        assert_clean(seed, Choices { servers: Some(servers), ..Choices::default() });
    }
}

/// A seed is the whole of a run: the same seed gives the same events, to the last one.
#[test]
fn one_seed_gives_one_run() {
    for seed in 100..106 {
        let first = run(seed, Choices::default());
        let second = run(seed, Choices { trace_line_count: 10, ..Choices::default() });
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.event_count, second.event_count, "seed {seed}");
        let other = run(seed + 1000, Choices::default());
        assert_ne!(first.trace_hash, other.trace_hash, "seed {seed}");
    }
}

/// Threads beside it change nothing in a run.
#[test]
fn a_run_is_the_same_on_every_thread() {
    let seeds = 200..206;
    let alone: Vec<u64> =
        seeds.clone().map(|seed| run(seed, Choices::default()).trace_hash).collect();
    std::thread::scope(|scope| {
        let start = |seed| scope.spawn(move || run(seed, Choices::default()).trace_hash);
        let threads: Vec<_> = seeds.clone().map(start).collect();
        let beside: Vec<u64> =
            threads.into_iter().map(|thread| thread.join().expect("it runs")).collect();
        assert_eq!(alone, beside);
    });
}
