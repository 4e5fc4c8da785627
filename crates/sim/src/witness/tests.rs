//! Tests of the witness check.

use super::{Place, Role, WitnessViolation, Witnessed, check_witness};
use crate::{
    history::sample::{Bug, Shape, sample},
    linear::Model,
    models::StoreModel,
};

/// A counter: `Add` sees the sum after it, `Look` the sum.
struct Counter;

#[derive(Debug)]
enum CounterOp {
    Add(Option<u64>),
    Look(u64),
}

impl Model for Counter {
    type State = u64;
    type Op = CounterOp;

    fn initial(&self) -> u64 {
        0
    }

    fn apply(&self, state: &mut u64, op: &CounterOp) -> bool {
        match op {
            CounterOp::Add(seen) => {
                *state += 1;
                seen.is_none_or(|seen| seen == *state)
            }
            CounterOp::Look(seen) => seen == state,
        }
    }
}

fn add(order: u64, times: [u64; 2], seen: u64) -> Witnessed<CounterOp> {
    let [called, returned] = times;
    let (op, place) = (CounterOp::Add(Some(seen)), Place { order, role: Role::Executed });
    Witnessed { op, called, returned: Some(returned), place }
}

fn look(order: u64, times: [u64; 2], seen: u64) -> Witnessed<CounterOp> {
    let [called, returned] = times;
    let (op, place) = (CounterOp::Look(seen), Place { order, role: Role::Looked });
    Witnessed { op, called, returned: Some(returned), place }
}

/// Operations may be given in any order; places sort them.
#[test]
fn right_order_is_accepted() {
    let all = [look(2, [7, 8], 2), look(0, [0, 9], 0), add(2, [4, 6], 2), add(1, [1, 5], 1)];
    assert_eq!(check_witness(&Counter, &all), Ok(2));
}

/// A read served from before a write that had returned when the read was called.
#[test]
fn stale_read_is_rejected() {
    let all = [add(1, [0, 1], 1), look(0, [2, 3], 0)];
    let violation = WitnessViolation::OutOfTime { ordered_first: 1, ordered_second: 0 };
    assert_eq!(check_witness(&Counter, &all), Err(violation));
    let overlapping = [add(1, [0, 2], 1), look(0, [1, 3], 0)];
    assert_eq!(check_witness(&Counter, &overlapping), Ok(1));
}

/// A write that was acknowledged with what another one had already made.
#[test]
fn lost_update_is_rejected() {
    let all = [add(1, [0, 1], 1), add(2, [2, 3], 1)];
    assert_eq!(check_witness(&Counter, &all), Err(WitnessViolation::WrongResult { operation: 1 }));
}

/// Two operations cannot be the one entry of an index.
#[test]
fn shared_place_is_rejected() {
    let all = [add(1, [0, 1], 1), add(1, [2, 3], 2), look(1, [4, 5], 2), look(1, [4, 5], 2)];
    assert_eq!(
        check_witness(&Counter, &all),
        Err(WitnessViolation::SharedPlace { first: 0, second: 1 })
    );
}

/// An operation whose client gave up still counts where it took effect, at any later time.
#[test]
fn unseen_write_is_executed_at_its_place() {
    let unseen = |called| Witnessed {
        op: CounterOp::Add(None),
        called,
        returned: None,
        place: Place { order: 1, role: Role::Executed },
    };
    assert_eq!(check_witness(&Counter, &[unseen(0), look(1, [5, 6], 1)]), Ok(1));
    let early = check_witness(&Counter, &[unseen(7), look(1, [5, 6], 1)]);
    assert!(matches!(early, Err(WitnessViolation::OutOfTime { .. })), "seen before it was asked");
}

/// Whole histories: right ones pass at any length, wrong ones do not.
#[test]
fn histories_are_judged() {
    let check = |bug, event_count, seed| {
        let shape = Shape { client_count: 8, event_count, bug, ..Shape::SMALL };
        check_witness(&StoreModel, &sample(shape, seed).witnessed())
    };
    assert!(check(Bug::None, 20_000, 1).is_ok());
    for seed in 0..50 {
        assert!(check(Bug::None, 200, seed).is_ok(), "{seed}");
        assert!(check(Bug::StaleRead, 600, seed).is_err(), "{seed}");
        assert!(check(Bug::LostUpdate, 600, seed).is_err(), "{seed}");
    }
}
