//! Models that histories are compared with: one key, the whole store, and the store with its past.
//!
//! All know revisions. They prune a search more than values do: a write that was told its revision
//! has at most one place among the other writes.
//!
//! Invariant: a model shares no code with the state machine it judges.
//!
//! What they lack: leases, previous values.

#[cfg(test)]
mod tests;

use std::{cmp::Ordering, collections::BTreeMap};

use bytes::Bytes;

use crate::{
    history::{Action, Answer, Condition, Operand, Operation, Relation, Seen, Shown, StoreOp},
    linear::Model,
    witness::Witnessed,
};

/// The whole store, every number exact.
#[derive(Clone, Copy, Debug, Default)]
pub struct StoreModel;

/// State of [`StoreModel`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreState {
    revision: i64,
    keys: BTreeMap<Bytes, Shown>,
}

impl Model for StoreModel {
    type State = StoreState;
    type Op = StoreOp;

    fn initial(&self) -> StoreState {
        StoreState { revision: 1, keys: BTreeMap::new() }
    }

    fn apply(&self, state: &mut StoreState, op: &StoreOp) -> bool {
        let answered = state.execute(&op.operation);
        op.seen.as_ref().is_none_or(|seen| *seen == answered)
    }
}

impl StoreState {
    /// The revision: 1 in the beginning.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.revision
    }

    /// Every key that is there, in order.
    pub fn shown(&self) -> impl ExactSizeIterator<Item = &Shown> {
        self.keys.values()
    }

    /// Executes an operation and says what its client will see.
    pub fn execute(&mut self, operation: &Operation) -> Seen {
        let (succeeded, actions) = match operation {
            Operation::One(action) | Operation::Serializable(action) => {
                (true, std::slice::from_ref(action))
            }
            // Only [`PastModel`] knows more of these; a search leaves them out.
            Operation::Past { .. } | Operation::Compact { .. } => (true, &[][..]),
            Operation::Txn { conditions, then, otherwise } => {
                let succeeded = conditions.iter().all(|condition| self.holds(condition));
                (succeeded, if succeeded { then.as_slice() } else { otherwise.as_slice() })
            }
        };
        // All writes of one operation share one revision, used up only if there is one.
        let revision = self.revision + 1;
        let answers = actions.iter().map(|action| self.act(action, revision)).collect();
        Seen { revision: self.revision, succeeded, answers }
    }

    fn act(&mut self, action: &Action, revision: i64) -> Answer {
        match action {
            Action::Put { key, value } => {
                let old = self.keys.get(key);
                let shown = Shown {
                    key: key.clone(),
                    value: value.clone(),
                    create: old.map_or(revision, |old| old.create),
                    modified: revision,
                    version: old.map_or(0, |old| old.version) + 1,
                };
                self.keys.insert(key.clone(), shown);
                self.revision = revision;
                Answer::Put
            }
            Action::Range { key, end } => Answer::Range(span(&self.keys, key, end.as_ref())),
            Action::Delete { key, end } => {
                let gone = span(&self.keys, key, end.as_ref());
                for shown in &gone {
                    self.keys.remove(&shown.key);
                    self.revision = revision;
                }
                Answer::Deleted(i64::try_from(gone.len()).expect("a count of keys in memory"))
            }
        }
    }

    fn holds(&self, condition: &Condition) -> bool {
        let shown = self.keys.get(&condition.key);
        let number = |of: fn(&Shown) -> i64| shown.map_or(0, of);
        let order = match &condition.operand {
            Operand::Version(other) => number(|shown| shown.version).cmp(other),
            Operand::Create(other) => number(|shown| shown.create).cmp(other),
            Operand::Mod(other) => number(|shown| shown.modified).cmp(other),
            Operand::Value(other) => match shown {
                Some(shown) => shown.value.cmp(other),
                // An absent key has no value: no comparison with one holds.
                None => return false,
            },
        };
        match condition.relation {
            Relation::Equal => order == Ordering::Equal,
            Relation::NotEqual => order != Ordering::Equal,
            Relation::Greater => order == Ordering::Greater,
            Relation::Less => order == Ordering::Less,
        }
    }
}

/// The store and everything that it was: for the one pass that judges a whole history.
#[derive(Clone, Copy, Debug)]
pub struct PastModel {
    keeps: bool,
}

/// State of [`PastModel`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PastState {
    /// As it is.
    pub store: StoreState,
    /// The oldest revision that can be read.
    compacted: i64,
    /// Every key that was there, by revision.
    past: BTreeMap<i64, BTreeMap<Bytes, Shown>>,
}

impl PastModel {
    /// For these operations: the past is kept only if some of them reads it.
    #[must_use]
    pub fn of(operations: &[Witnessed<StoreOp>]) -> Self {
        let reads_past =
            |it: &Witnessed<StoreOp>| matches!(it.op.operation, Operation::Past { .. });
        Self { keeps: operations.iter().any(reads_past) }
    }
}

impl Model for PastModel {
    type State = PastState;
    type Op = StoreOp;

    fn initial(&self) -> PastState {
        PastState { store: StoreModel.initial(), compacted: 0, past: BTreeMap::new() }
    }

    fn apply(&self, state: &mut PastState, op: &StoreOp) -> bool {
        let answered = match &op.operation {
            Operation::Past { key, end, revision } => state.look_back(key, end.as_ref(), *revision),
            Operation::Compact { revision } => state.compact(*revision),
            operation => {
                let before = state.store.revision;
                let answered = state.store.execute(operation);
                if self.keeps && before < state.store.revision {
                    state.past.insert(state.store.revision, state.store.keys.clone());
                }
                answered
            }
        };
        op.seen.as_ref().is_none_or(|seen| *seen == answered)
    }
}

impl PastState {
    fn look_back(&self, key: &Bytes, end: Option<&Bytes>, revision: i64) -> Seen {
        let now = self.store.revision;
        if now < revision {
            return Seen::refused(Answer::TooNew);
        }
        if 0 < revision && revision < self.compacted {
            return Seen::refused(Answer::TooOld);
        }
        let wanted = if 0 < revision { revision } else { now };
        let then = self.past.range(..=wanted).next_back();
        let shown = then.map_or_else(Vec::new, |(_, keys)| span(keys, key, end));
        Seen { revision: now, succeeded: true, answers: vec![Answer::Range(shown)] }
    }

    fn compact(&mut self, revision: i64) -> Seen {
        let now = self.store.revision;
        if revision <= self.compacted {
            return Seen::refused(Answer::TooOld);
        }
        if now < revision {
            return Seen::refused(Answer::TooNew);
        }
        self.compacted = revision;
        Seen { revision: now, succeeded: true, answers: vec![Answer::Compacted] }
    }
}

fn span(keys: &BTreeMap<Bytes, Shown>, key: &Bytes, end: Option<&Bytes>) -> Vec<Shown> {
    let Some(end) = end else { return keys.get(key).cloned().into_iter().collect() };
    if end <= key {
        return Vec::new();
    }
    keys.range::<Bytes, _>(key..end).map(|(_, shown)| shown.clone()).collect()
}

/// One key by itself, for histories of single puts, reads and deletes: then each key can be
/// searched alone, see [`KeyModel::key_of`].
#[derive(Clone, Copy, Debug, Default)]
pub struct KeyModel;

/// State of [`KeyModel`].
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeyState {
    /// The value and the revision that wrote it, if a client has seen that.
    held: Option<(Bytes, Option<i64>)>,
    /// The newest revision of the store that an operation on this key has shown.
    floor: i64,
}

impl KeyModel {
    /// The one key of an operation; `None` when it has several or is a transaction, which
    /// [`StoreModel`] must judge.
    #[must_use]
    pub fn key_of(operation: &Operation) -> Option<&Bytes> {
        match operation {
            Operation::One(
                Action::Put { key, .. }
                | Action::Range { key, end: None }
                | Action::Delete { key, end: None },
            ) => Some(key),
            Operation::One(_)
            | Operation::Serializable(_)
            | Operation::Txn { .. }
            | Operation::Past { .. }
            | Operation::Compact { .. } => None,
        }
    }
}

impl Model for KeyModel {
    type State = KeyState;
    type Op = StoreOp;

    fn initial(&self) -> KeyState {
        KeyState { held: None, floor: 1 }
    }

    /// # Panics
    /// When the operation is not of one key.
    fn apply(&self, state: &mut KeyState, op: &StoreOp) -> bool {
        assert!(Self::key_of(&op.operation).is_some(), "the model knows operations on one key");
        let Operation::One(action) = &op.operation else { return false };
        match action {
            Action::Put { value, .. } => state.put(value, op.seen.as_ref()),
            Action::Range { .. } => op.seen.as_ref().is_none_or(|seen| state.show(seen)),
            Action::Delete { .. } => state.delete(op.seen.as_ref()),
        }
    }
}

impl KeyState {
    fn put(&mut self, value: &Bytes, seen: Option<&Seen>) -> bool {
        let modified = seen.map(|seen| seen.revision);
        self.held = Some((value.clone(), modified));
        self.raise(modified, false)
    }

    fn delete(&mut self, seen: Option<&Seen>) -> bool {
        let was_held = self.held.take().is_some();
        let count_fits = seen.is_none_or(|seen| {
            matches!(seen.answers[..], [Answer::Deleted(count)] if count == i64::from(was_held))
        });
        count_fits && self.raise(seen.map(|seen| seen.revision), !was_held)
    }

    fn show(&mut self, seen: &Seen) -> bool {
        let [Answer::Range(shown)] = &seen.answers[..] else { return false };
        let fits = match (&mut self.held, &shown[..]) {
            (None, []) => true,
            (Some((value, modified)), [shown]) => {
                // Written at an unknown revision: a later one than any shown before that.
                let can_be = self.floor < shown.modified && shown.modified <= seen.revision;
                let is_known = *modified == Some(shown.modified);
                let is_found = modified.is_none() && can_be;
                *modified = Some(shown.modified);
                *value == shown.value && (is_known || is_found)
            }
            _ => false,
        };
        fits && self.raise(Some(seen.revision), true)
    }

    /// The store's revision never falls, and a write raises it.
    fn raise(&mut self, revision: Option<i64>, may_stay: bool) -> bool {
        let Some(revision) = revision else { return true };
        let rises = self.floor < revision || (may_stay && self.floor == revision);
        self.floor = revision;
        rises
    }
}
