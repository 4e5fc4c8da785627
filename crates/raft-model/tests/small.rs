//! Small groups, exhausted, in every run of the tests.

use std::time::Duration;

use kvraft_raft_model::{Bounds, Order, Search, explore};

fn exhaust(search: Search, may_miss: &[&str]) {
    let verdict = explore(search.bounds, Order::Depth, Duration::from_secs(600), drop);
    println!("{}\n{verdict}", search.name);
    assert!(verdict.broken.is_none(), "{verdict}");
    assert!(verdict.exhausted, "{verdict}");
    assert!(verdict.missing.iter().all(|name| may_miss.contains(name)), "{verdict}");
}

/// Every interleaving of two elections: no rule is broken, and both leaders can commit.
#[test]
fn two_elections_break_no_rule() {
    exhaust(Bounds::small()[0], &[]);
}

/// One term with a write and a crash: no rule is broken.
#[test]
fn a_write_and_a_crash_break_no_rule() {
    exhaust(Bounds::small()[1], &["a second leader commits"]);
}

/// A write that may be of either of two terms: no rule is broken.
#[test]
fn a_write_over_two_terms_breaks_no_rule() {
    exhaust(Bounds::small()[2], &[]);
}

/// One leader removes any of the members, itself too: no rule is broken.
#[test]
fn a_change_of_members_breaks_no_rule() {
    exhaust(Bounds::small()[3], &["a second leader commits"]);
}

/// Three leaders, each with an entry of its own, and a crash in between: no rule is broken.
#[test]
fn three_terms_and_a_crash_break_no_rule() {
    exhaust(Bounds::small()[4], &[]);
}
