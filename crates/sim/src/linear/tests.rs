//! Tests of the search: what it must reject and accept, and that it agrees with trying every order.

use proptest::prelude::*;

use super::{Call, LinearVerdict, Model, check_linear, check_linear_by_key};
use crate::{
    history::{
        StoreOp,
        sample::{Bug, Shape, sample},
    },
    models::{KeyModel, StoreModel},
};

/// A register: the smallest object that can be stale.
struct Register;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegisterOp {
    Write(u8),
    Read(u8),
    /// Sets the second if the first is there; saw whether.
    Swap(u8, u8, bool),
}

impl Model for Register {
    type State = u8;
    type Op = RegisterOp;

    fn initial(&self) -> u8 {
        0
    }

    fn apply(&self, state: &mut u8, op: &RegisterOp) -> bool {
        match *op {
            RegisterOp::Write(value) => *state = value,
            RegisterOp::Read(value) => return *state == value,
            RegisterOp::Swap(from, to, succeeded) => {
                let fits = (*state == from) == succeeded;
                if *state == from {
                    *state = to;
                }
                return fits;
            }
        }
        true
    }
}

fn call(op: RegisterOp, called: u64, returned: impl Into<Option<u64>>) -> Call<RegisterOp> {
    Call { op, called, returned: returned.into() }
}

fn is_linearizable(calls: &[Call<RegisterOp>]) -> bool {
    match check_linear(&Register, calls, 1_000_000) {
        LinearVerdict::Linearizable { .. } => true,
        LinearVerdict::Violation { .. } => false,
        LinearVerdict::Unknown { .. } => panic!("the budget is ample"),
    }
}

/// A read that misses a write which had returned is stale; one that overlaps it is not.
#[test]
fn stale_read_is_rejected() {
    use RegisterOp::{Read, Write};
    assert!(!is_linearizable(&[call(Write(1), 0, 1), call(Read(0), 2, 3)]));
    assert!(is_linearizable(&[call(Write(1), 0, 2), call(Read(0), 1, 3)]));
    // Once somebody has seen the new value, nobody may see the old one.
    let flicker = [call(Write(1), 0, 9), call(Read(1), 1, 2), call(Read(0), 3, 4)];
    assert!(!is_linearizable(&flicker));
    assert_eq!(
        check_linear(&Register, &flicker, 100),
        LinearVerdict::Violation { longest: vec![0, 1], stuck: 2 }
    );
}

/// Two swaps from one value cannot both succeed.
#[test]
fn lost_update_is_rejected() {
    use RegisterOp::Swap;
    assert!(!is_linearizable(&[call(Swap(0, 1, true), 0, 5), call(Swap(0, 2, true), 1, 4)]));
    assert!(is_linearizable(&[call(Swap(0, 1, true), 0, 5), call(Swap(0, 2, false), 1, 4)]));
}

/// A write of unknown outcome may take effect late, or never, but not before its call.
#[test]
fn unknown_outcome_is_open_for_ever() {
    use RegisterOp::{Read, Write};
    let unknown = || call(Write(1), 2, None);
    assert!(is_linearizable(&[unknown(), call(Read(0), 3, 4), call(Read(1), 8, 9)]));
    assert!(is_linearizable(&[unknown(), call(Read(0), 3, 4), call(Read(0), 8, 9)]));
    assert!(!is_linearizable(&[unknown(), call(Read(1), 3, 4), call(Read(0), 8, 9)]));
    assert!(!is_linearizable(&[unknown(), call(Read(1), 0, 1)]));
    assert!(is_linearizable(&[unknown()]) && is_linearizable(&[]));
}

/// A budget that runs out is no verdict.
#[test]
fn exhausted_budget_is_unknown() {
    let mut calls: Vec<_> =
        (0..20).map(|n| call(RegisterOp::Write(n), u64::from(n), 100)).collect();
    calls.push(call(RegisterOp::Read(99), 50, 101));
    assert_eq!(
        check_linear(&Register, &calls, 1_000),
        LinearVerdict::Unknown { step_count: 1_000 }
    );
}

/// Tries every order of every subset that contains all returned calls.
fn is_linearizable_by_force(
    calls: &[Call<RegisterOp>],
    placed: &mut Vec<usize>,
    state: u8,
) -> bool {
    let is_open = |at: usize, placed: &[usize]| !placed.contains(&at);
    if (0..calls.len()).all(|at| calls[at].returned.is_none() || !is_open(at, placed)) {
        return true;
    }
    for at in 0..calls.len() {
        let is_late = (0..calls.len()).any(|other| {
            is_open(other, placed) && calls[other].returned.is_some_and(|r| r < calls[at].called)
        });
        let mut next = state;
        if !is_open(at, placed) || is_late || !Register.apply(&mut next, &calls[at].op) {
            continue;
        }
        placed.push(at);
        let found = is_linearizable_by_force(calls, placed, next);
        placed.pop();
        if found {
            return true;
        }
    }
    false
}

fn register_call() -> impl Strategy<Value = Call<RegisterOp>> {
    let op = prop_oneof![
        (0..3_u8).prop_map(RegisterOp::Write),
        (0..3_u8).prop_map(RegisterOp::Read),
        (0..3_u8, 0..3_u8, any::<bool>()).prop_map(|(f, t, ok)| RegisterOp::Swap(f, t, ok)),
    ];
    (op, 0..12_u64, prop::option::weighted(0.8, 0..6_u64)).prop_map(|(op, called, lasts)| Call {
        op,
        called,
        returned: lasts.map(|lasts| called + lasts),
    })
}

fn store_verdict(shape: Shape, seed: u64) -> LinearVerdict {
    check_linear(&StoreModel, &sample(shape, seed).calls(), 200_000)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(2_000) })]

    /// The search says what trying everything says; and the order it finds is one.
    #[test]
    fn search_agrees_with_brute_force(calls in prop::collection::vec(register_call(), 0..7)) {
        let by_force = is_linearizable_by_force(&calls, &mut Vec::new(), 0);
        prop_assert_eq!(is_linearizable(&calls), by_force);
        if let LinearVerdict::Linearizable { order } = check_linear(&Register, &calls, 1_000_000) {
            let mut state = 0;
            for (place, at) in order.iter().enumerate() {
                prop_assert!(Register.apply(&mut state, &calls[*at].op));
                let fits = |next: &usize| {
                    calls[*next].returned.is_none_or(|returned| calls[*at].called <= returned)
                };
                prop_assert!(order[place..].iter().all(fits));
            }
        }
    }
}

/// What a right store did is accepted, whatever clients lost sight of.
#[test]
fn right_histories_are_accepted() {
    for seed in 0..200 {
        let verdict = store_verdict(Shape::SMALL, seed);
        assert!(matches!(verdict, LinearVerdict::Linearizable { .. }), "seed {seed}: {verdict:?}");
    }
    let long = Shape { client_count: 8, event_count: 3_000, key_count: 5, ..Shape::SMALL };
    let verdict = store_verdict(Shape { is_rich: false, ..long }, 1);
    assert!(!matches!(verdict, LinearVerdict::Violation { .. }), "{verdict:?}");
}

/// Each planted bug is seen in most short histories, and none of them is taken for another.
#[test]
fn wrong_histories_are_rejected() {
    for bug in [Bug::StaleRead, Bug::LostUpdate, Bug::FalseFailure] {
        let shape = Shape { event_count: 120, bug, ..Shape::SMALL };
        let verdicts = (0..60).map(|seed| store_verdict(shape, seed));
        let caught = verdicts.filter(|v| matches!(v, LinearVerdict::Violation { .. })).count();
        assert!(40 < caught, "{bug:?} was seen in {caught} of 60");
    }
}

fn key_of(op: &StoreOp) -> bytes::Bytes {
    KeyModel::key_of(&op.operation).cloned().unwrap_or_default()
}

/// Key by key, longer histories can be searched, and a violation is told with its key.
#[test]
fn keys_are_searched_by_themselves() {
    let shape = Shape { client_count: 6, event_count: 900, is_rich: false, ..Shape::SMALL };
    let check = |bug, seed| {
        let calls = sample(Shape { bug, ..shape }, seed).calls();
        check_linear_by_key(&KeyModel, &calls, 200_000, key_of).map_err(|(key, verdict)| {
            if let LinearVerdict::Violation { stuck, .. } = verdict {
                assert_eq!(key_of(&calls[stuck].op), key, "numbers are those of the whole history");
            }
            verdict
        })
    };
    for seed in 0..20 {
        assert!(!matches!(check(Bug::None, seed), Err(LinearVerdict::Violation { .. })), "{seed}");
        let verdict = check(Bug::StaleRead, seed);
        assert!(matches!(verdict, Err(LinearVerdict::Violation { .. })), "{seed}: {verdict:?}");
    }
    assert!(19 <= (0..20).filter(|seed| check(Bug::None, *seed).is_ok()).count());
}
