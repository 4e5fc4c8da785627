//! Histories for tests: clients and one store on which operations take effect one by one, rightly
//! or with a planted bug.

use bytes::Bytes;
use kvraft_base::{Instant, Prng};

use super::{Action, Condition, History, OpName, Operand, Operation, Outcome, Relation, Seen};
use crate::{
    linear::Model,
    models::{StoreModel, StoreState},
    witness::{Place, Role},
};

/// What is wrong with the sampled store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bug {
    /// Nothing.
    None,
    /// Now and then a read is answered from the state of some operations ago.
    StaleRead,
    /// Now and then a write is acknowledged and forgotten.
    LostUpdate,
    /// Now and then a write that is said to have failed takes effect.
    FalseFailure,
}

/// What a sample is made of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) client_count: u64,
    pub(crate) event_count: u64,
    pub(crate) key_count: u64,
    /// Transactions, ranges and stale reads as well.
    pub(crate) is_rich: bool,
    pub(crate) bug: Bug,
}

impl Shape {
    pub(crate) const SMALL: Self =
        Self { client_count: 3, event_count: 60, key_count: 2, is_rich: true, bug: Bug::None };
}

enum Doing {
    Nothing,
    Called(Operation),
    Done(Operation, Seen),
}

/// A history of that shape: a function of the seed.
pub(crate) fn sample(shape: Shape, seed: u64) -> History {
    let mut prng = Prng::new(seed);
    let mut world = World {
        state: StoreModel.initial(),
        older: Vec::new(),
        index: 0,
        history: History::new(),
        unique: 0,
    };
    let mut clients: Vec<(u64, Doing)> = Vec::new();
    clients.resize_with(usize::try_from(shape.client_count).unwrap(), || (0, Doing::Nothing));
    for number in 0..shape.event_count {
        let at = Instant(number * 1_000);
        let client = prng.below(shape.client_count);
        let (op, doing) = &mut clients[usize::try_from(client).unwrap()];
        *doing = match std::mem::replace(doing, Doing::Nothing) {
            Doing::Nothing => {
                *op += 1;
                let operation = world.draw_operation(shape, &mut prng);
                world.history.invoke(at, OpName { client, op: *op }, operation.clone());
                Doing::Called(operation)
            }
            Doing::Called(operation) => {
                let name = OpName { client, op: *op };
                world.take_effect(at, name, operation, shape.bug, &mut prng)
            }
            Doing::Done(operation, seen) => {
                let name = OpName { client, op: *op };
                let is_failure_false = shape.bug == Bug::FalseFailure && operation.may_write();
                let outcome = if prng.chance(1, 12) {
                    Outcome::Unknown("connection closed".to_owned())
                } else if is_failure_false && prng.chance(1, 3) {
                    Outcome::Failed("not leader".to_owned())
                } else {
                    Outcome::Ok(seen)
                };
                world.history.complete(at, name, outcome);
                Doing::Nothing
            }
        };
    }
    world.history
}

struct World {
    state: StoreState,
    older: Vec<StoreState>,
    index: u64,
    history: History,
    unique: u64,
}

impl World {
    fn draw_operation(&mut self, shape: Shape, prng: &mut Prng) -> Operation {
        let key = Bytes::from(format!("k{}", prng.below(shape.key_count)));
        self.unique += 1;
        let value = Bytes::from(format!("v{}", self.unique));
        let put = Action::Put { key: key.clone(), value };
        let get = Action::Range { key: key.clone(), end: None };
        match prng.below(if shape.is_rich { 13 } else { 9 }) {
            0..4 => Operation::One(put),
            4..8 => Operation::One(get),
            8 => Operation::One(Action::Delete { key, end: None }),
            9 => Operation::One(Action::Range { key, end: Some(Bytes::from_static(b"z")) }),
            10 => Operation::Serializable(get),
            _ => {
                let operand = Operand::Mod(i64::try_from(prng.below(20)).unwrap());
                let condition = Condition { key, relation: Relation::Less, operand };
                Operation::Txn {
                    conditions: vec![condition],
                    then: vec![get, put],
                    otherwise: vec![],
                }
            }
        }
    }

    fn take_effect(
        &mut self,
        at: Instant,
        name: OpName,
        operation: Operation,
        bug: Bug,
        prng: &mut Prng,
    ) -> Doing {
        if prng.chance(1, 10) {
            let is_known = prng.chance(1, 2);
            let words = "timed out".to_owned();
            let outcome = if is_known { Outcome::Failed(words) } else { Outcome::Unknown(words) };
            self.history.complete(at, name, outcome);
            return Doing::Nothing;
        }
        let may_write = operation.may_write();
        if bug == Bug::StaleRead && !may_write && prng.chance(1, 2) {
            let back = usize::try_from(prng.between(1, 4)).unwrap();
            let old = self.older.iter().rev().nth(back).unwrap_or(&self.state);
            let seen = old.clone().execute(&operation);
            let order = self.index.saturating_sub(back as u64);
            self.history.place(at, name, Place { order, role: Role::Looked });
            return Doing::Done(operation, seen);
        }
        let before = self.state.clone();
        let seen = self.state.execute(&operation);
        if may_write {
            self.index += 1;
            self.older.push(before.clone());
            if bug == Bug::LostUpdate && prng.chance(1, 6) {
                self.state = before;
            }
        }
        let role = if may_write { Role::Executed } else { Role::Looked };
        self.history.place(at, name, Place { order: self.index, role });
        Doing::Done(operation, seen)
    }
}
