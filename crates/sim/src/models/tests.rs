//! Tests of the models: etcd's numbers, and what each must refuse.

use bytes::Bytes;

use super::{KeyModel, PastModel, StoreModel, StoreState};
use crate::{
    history::{
        Action, Answer, Condition, OpName, Operand, Operation, Relation, Seen, Shown, StoreOp,
    },
    linear::Model,
};

fn put(key: &'static str, value: &'static str) -> Action {
    Action::Put { key: Bytes::from(key), value: Bytes::from(value) }
}

fn range(key: &'static str, end: Option<&'static str>) -> Action {
    Action::Range { key: Bytes::from(key), end: end.map(Bytes::from) }
}

fn delete(key: &'static str) -> Action {
    Action::Delete { key: Bytes::from(key), end: None }
}

fn shown(key: &'static str, value: &'static str, numbers: [i64; 3]) -> Shown {
    let [create, modified, version] = numbers;
    Shown { key: Bytes::from(key), value: Bytes::from(value), create, modified, version }
}

fn one(state: &mut StoreState, action: Action) -> (i64, Answer) {
    let seen = state.execute(&Operation::One(action));
    (seen.revision, seen.answers.into_iter().next().unwrap())
}

/// Revisions, versions and creation revisions are etcd's.
#[test]
fn store_numbers_are_those_of_etcd() {
    let mut state = StoreModel.initial();
    assert_eq!(one(&mut state, range("a", None)), (1, Answer::Range(vec![])));
    assert_eq!(one(&mut state, put("a", "1")), (2, Answer::Put));
    assert_eq!(one(&mut state, put("b", "1")), (3, Answer::Put));
    assert_eq!(one(&mut state, put("a", "2")), (4, Answer::Put));
    let both = vec![shown("a", "2", [2, 4, 2]), shown("b", "1", [3, 3, 1])];
    assert_eq!(one(&mut state, range("a", Some("c"))), (4, Answer::Range(both)));
    assert_eq!(one(&mut state, range("c", Some("a"))), (4, Answer::Range(vec![])));
    assert_eq!(one(&mut state, delete("x")), (4, Answer::Deleted(0)));
    assert_eq!(one(&mut state, delete("a")), (5, Answer::Deleted(1)));
    one(&mut state, put("a", "3"));
    let again = vec![shown("a", "3", [6, 6, 1])];
    assert_eq!(one(&mut state, range("a", None)), (6, Answer::Range(again)));
}

/// The past is what it was, until it is compacted; what is to come is refused.
#[test]
fn the_past_is_what_it_was() {
    let model = PastModel { keeps: true };
    let mut state = model.initial();
    let name = OpName { client: 1, op: 1 };
    let mut is_so = |operation: Operation, seen: Seen| {
        model.apply(&mut state, &StoreOp { name, operation, seen: Some(seen) })
    };
    let told = |revision, answer| Seen { revision, succeeded: true, answers: vec![answer] };
    let past = |revision| Operation::Past { key: Bytes::from("a"), end: None, revision };
    assert!(is_so(Operation::One(put("a", "1")), told(2, Answer::Put)));
    assert!(is_so(Operation::One(delete("a")), told(3, Answer::Deleted(1))));
    let one = || Answer::Range(vec![shown("a", "1", [2, 2, 1])]);
    assert!(is_so(past(2), told(3, one())));
    assert!(!is_so(past(3), told(3, one())), "it was gone by then");
    assert!(is_so(past(1), told(3, Answer::Range(vec![]))));
    assert!(is_so(past(4), Seen::refused(Answer::TooNew)));
    assert!(is_so(Operation::Compact { revision: 3 }, told(3, Answer::Compacted)));
    assert!(is_so(Operation::Compact { revision: 3 }, Seen::refused(Answer::TooOld)));
    assert!(is_so(past(2), Seen::refused(Answer::TooOld)));
    assert!(!is_so(past(2), told(3, one())), "it is compacted");
    assert!(is_so(past(3), told(3, Answer::Range(vec![]))));
}

/// A transaction's writes share one revision; its reads see the writes before them.
#[test]
fn transactions_are_one_step() {
    let mut state = StoreModel.initial();
    let condition = |relation, operand| Condition { key: Bytes::from("a"), relation, operand };
    let absent = condition(Relation::Equal, Operand::Create(0));
    let txn = Operation::Txn {
        conditions: vec![absent],
        then: vec![put("a", "1"), range("a", None), put("b", "1"), delete("z")],
        otherwise: vec![range("a", None)],
    };
    let first = state.execute(&txn);
    let a = vec![shown("a", "1", [2, 2, 1])];
    let answers = vec![Answer::Put, Answer::Range(a.clone()), Answer::Put, Answer::Deleted(0)];
    assert_eq!(first, Seen { revision: 2, succeeded: true, answers });
    let second = state.execute(&txn);
    let answers = vec![Answer::Range(a)];
    assert_eq!(second, Seen { revision: 2, succeeded: false, answers });
    for (relation, operand, holds) in [
        (Relation::Less, Operand::Mod(3), true),
        (Relation::Greater, Operand::Version(1), false),
        (Relation::NotEqual, Operand::Value(Bytes::from("2")), true),
        (Relation::Greater, Operand::Value(Bytes::from("0")), true),
    ] {
        assert_eq!(state.holds(&condition(relation, operand)), holds);
    }
    let nobody = Condition {
        key: Bytes::from("nobody"),
        relation: Relation::NotEqual,
        operand: Operand::Value(Bytes::new()),
    };
    assert!(!state.holds(&nobody), "an absent key has no value to compare");
}

/// Runs single-key operations through the key model; says which were explained.
fn explained(steps: Vec<(Action, Option<(i64, Answer)>)>) -> Vec<bool> {
    let mut state = KeyModel.initial();
    let mut all = Vec::new();
    for (action, seen) in steps {
        let seen = seen.map(|(revision, answer)| Seen {
            revision,
            succeeded: true,
            answers: vec![answer],
        });
        let name = OpName { client: 1, op: 1 };
        let mut next = state.clone();
        let op = StoreOp { name, operation: Operation::One(action), seen };
        let fits = KeyModel.apply(&mut next, &op);
        if fits {
            state = next;
        }
        all.push(fits);
    }
    all
}

/// The key model knows that revisions rise, and finds those of writes that nobody saw return.
#[test]
fn key_model_follows_revisions() {
    let get = || range("a", None);
    let saw = |revision, value, modified| {
        Some((revision, Answer::Range(vec![shown("a", value, [modified, modified, 1])])))
    };
    let nothing = |revision| Some((revision, Answer::Range(vec![])));
    let steps = vec![
        (get(), nothing(1), true),
        (put("a", "1"), Some((5, Answer::Put)), true),
        (put("a", "2"), Some((5, Answer::Put)), false),
        (get(), saw(7, "1", 5), true),
        (get(), saw(6, "1", 5), false),
        (get(), saw(8, "1", 6), false),
        (get(), nothing(8), false),
        (put("a", "3"), None, true),
        (get(), saw(9, "3", 7), false),
        (get(), saw(9, "3", 10), false),
        (get(), saw(9, "3", 8), true),
        (get(), saw(9, "3", 9), false),
        (delete("a"), Some((9, Answer::Deleted(1))), false),
        (delete("a"), Some((10, Answer::Deleted(0))), false),
        (delete("a"), Some((10, Answer::Deleted(1))), true),
        (delete("a"), Some((10, Answer::Deleted(0))), true),
        (get(), nothing(10), true),
    ];
    let expected: Vec<bool> = steps.iter().map(|step| step.2).collect();
    let found = explained(steps.into_iter().map(|(action, seen, _)| (action, seen)).collect());
    assert_eq!(found, expected);
}
