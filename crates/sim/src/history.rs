//! What clients asked for and what they were told: the evidence that checks judge.
//!
//! Invariants:
//! - events stand in the order in which they happened; a client's operations are named once each;
//! - an outcome is honest: [`Outcome::Failed`] means it never took and never will take effect,
//!   anything less certain is [`Outcome::Unknown`];
//! - a history is text, one JSON object a line, and reads back as the same history.
//!
//! What it lacks: watches, leases, previous values of writes.

mod json;
#[cfg(test)]
pub(crate) mod sample;
#[cfg(test)]
mod tests;
mod text;

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::Instant;

use crate::{
    linear::Call,
    witness::{Place, Role, Witnessed},
};

pub use text::HistoryError;

/// Names one operation of one client of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct OpName {
    /// Number of the client.
    pub client: u64,
    /// Number of its operation.
    pub op: u64,
}

/// One step on the store.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Sets a key.
    Put {
        /// Which.
        key: Bytes,
        /// To what.
        value: Bytes,
    },
    /// Reads a key, or those in `key..end`.
    Range {
        /// The first.
        key: Bytes,
        /// Just after the last; `None` for one key.
        end: Option<Bytes>,
    },
    /// Removes a key, or those in `key..end`.
    Delete {
        /// The first.
        key: Bytes,
        /// Just after the last; `None` for one key.
        end: Option<Bytes>,
    },
}

/// How a comparison compares.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// The key's is greater.
    Greater,
    /// The key's is less.
    Less,
}

/// What of a key is compared, and with what. An absent key has zeroes and no value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operand {
    /// How often it was written since it was created.
    Version(i64),
    /// The revision that created it.
    Create(i64),
    /// The revision that wrote it last.
    Mod(i64),
    /// Its value.
    Value(Bytes),
}

/// One condition of a transaction.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Condition {
    /// Of which key.
    pub key: Bytes,
    /// How.
    pub relation: Relation,
    /// What, with what.
    pub operand: Operand,
}

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// One step.
    One(Action),
    /// A read that may be stale: it is in no order with the others.
    Serializable(Action),
    /// Several steps at once, depending on conditions.
    Txn {
        /// All must hold,
        conditions: Vec<Condition>,
        /// for these steps;
        then: Vec<Action>,
        /// otherwise these.
        otherwise: Vec<Action>,
    },
    /// Reads what was there at a revision.
    Past {
        /// The first key.
        key: Bytes,
        /// Just after the last; `None` for one key.
        end: Option<Bytes>,
        /// When.
        revision: i64,
    },
    /// Forgets what was there before a revision.
    Compact {
        /// The oldest that can still be read.
        revision: i64,
    },
}

/// A key as a read shows it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Shown {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The revision that created it.
    pub create: i64,
    /// The revision that wrote it last.
    pub modified: i64,
    /// How often it was written since it was created.
    pub version: i64,
}

/// What one step answered.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// A key was set.
    Put,
    /// These keys are there, in order.
    Range(Vec<Shown>),
    /// So many keys were removed.
    Deleted(i64),
    /// What was there before is forgotten.
    Compacted,
    /// Refused: the revision is forgotten.
    TooOld,
    /// Refused: the revision is still to come.
    TooNew,
}

/// What a client saw of a successful operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Seen {
    /// The store's revision, from the header; 0 with a refusal, which has none.
    pub revision: i64,
    /// Whether a transaction's conditions held; true for single steps.
    pub succeeded: bool,
    /// One for each step.
    pub answers: Vec<Answer>,
}

/// How an operation ended, for its client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It took effect.
    Ok(Seen),
    /// It did not and never will; in the server's words.
    Failed(String),
    /// Nobody told; in whose words ever.
    Unknown(String),
}

/// Something that happened at the border between clients and servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HistoryEvent {
    /// A client asks.
    Invoked {
        /// When.
        at: Instant,
        /// Which operation.
        name: OpName,
        /// For what.
        operation: Operation,
    },
    /// A client is told, or gives up.
    Completed {
        /// When.
        at: Instant,
        /// Which operation.
        name: OpName,
        /// What.
        outcome: Outcome,
    },
    /// The world saw where an operation took effect; its client need not know.
    Placed {
        /// When.
        at: Instant,
        /// Which operation.
        name: OpName,
        /// Where.
        place: Place,
    },
}

/// Everything that clients asked for and were told.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    events: Vec<HistoryEvent>,
}

/// An operation with what is known of it, for a model: `seen` is `None` when its client saw
/// nothing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StoreOp {
    /// Which.
    pub name: OpName,
    /// What was asked for.
    pub operation: Operation,
    /// What was seen.
    pub seen: Option<Seen>,
}

/// One operation, gathered from its events. Times are places among all events of the history.
#[derive(Clone, Debug)]
pub struct Episode<'a> {
    /// Which.
    pub name: OpName,
    /// What was asked for.
    pub operation: &'a Operation,
    /// Place of the question.
    pub called: u64,
    /// Place of the answer and the answer; `None` when the history ends before it.
    pub completed: Option<(u64, &'a Outcome)>,
    /// Where it took effect.
    pub place: Option<Place>,
}

impl History {
    /// Nothing yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A client asks.
    pub fn invoke(&mut self, at: Instant, name: OpName, operation: Operation) {
        self.events.push(HistoryEvent::Invoked { at, name, operation });
    }

    /// A client is told, or gives up.
    pub fn complete(&mut self, at: Instant, name: OpName, outcome: Outcome) {
        self.events.push(HistoryEvent::Completed { at, name, outcome });
    }

    /// The world saw where an operation took effect.
    pub fn place(&mut self, at: Instant, name: OpName, place: Place) {
        self.events.push(HistoryEvent::Placed { at, name, place });
    }

    /// Operations asked for.
    #[must_use]
    pub fn operation_count(&self) -> u64 {
        let is_invoked = |event: &&HistoryEvent| matches!(event, HistoryEvent::Invoked { .. });
        self.events.iter().filter(is_invoked).count() as u64
    }

    /// The events, in order.
    #[must_use]
    pub fn events(&self) -> &[HistoryEvent] {
        &self.events
    }

    /// The first `event_count` events: a prefix of a linearizable history is one itself.
    #[must_use]
    pub fn prefix(&self, event_count: usize) -> Self {
        Self { events: self.events.iter().take(event_count).cloned().collect() }
    }

    /// The operations, in the order in which they were called. Events of an operation that was
    /// never invoked, and all but its first answer and place, are passed over.
    #[must_use]
    pub fn episodes(&self) -> Vec<Episode<'_>> {
        let mut episodes: Vec<Episode<'_>> = Vec::new();
        let mut numbers: BTreeMap<OpName, usize> = BTreeMap::new();
        for (at, event) in self.events.iter().enumerate() {
            let moment = at as u64;
            match event {
                HistoryEvent::Invoked { name, operation, .. } => {
                    numbers.entry(*name).or_insert(episodes.len());
                    let (called, completed, place) = (moment, None, None);
                    episodes.push(Episode { name: *name, operation, called, completed, place });
                }
                HistoryEvent::Completed { name, outcome, .. } => {
                    if let Some(number) = numbers.get(name) {
                        episodes[*number].completed.get_or_insert((moment, outcome));
                    }
                }
                HistoryEvent::Placed { name, place, .. } => {
                    if let Some(number) = numbers.get(name) {
                        episodes[*number].place.get_or_insert(*place);
                    }
                }
            }
        }
        episodes
    }

    /// What the search can judge: failed operations, stale reads and reads that nobody saw are left
    /// out, as they can contradict nothing.
    #[must_use]
    pub fn calls(&self) -> Vec<Call<StoreOp>> {
        let episodes = self.episodes();
        episodes.iter().filter_map(Episode::to_call).collect()
    }

    /// What the witness check can judge: every operation with a place. A stale read saw the store
    /// as it was at its place, whenever that was: it is given no times.
    #[must_use]
    pub fn witnessed(&self) -> Vec<Witnessed<StoreOp>> {
        let mut all = Vec::new();
        for episode in self.episodes() {
            let Some(place) = episode.place else { continue };
            let is_stale = matches!(episode.operation, Operation::Serializable(_));
            let (called, returned) =
                if is_stale { (0, None) } else { (episode.called, episode.returned()) };
            all.push(Witnessed { op: episode.op(), called, returned, place });
        }
        all
    }

    /// Operations that contradict their own outcome: said to have failed and yet executed, or said
    /// to have succeeded and yet executed nowhere. Both can be told only if the world has placed
    /// everything.
    #[must_use]
    pub fn dishonest(&self) -> Vec<OpName> {
        let is_dishonest = |episode: &Episode<'_>| match episode.completed {
            Some((_, Outcome::Failed(_))) => {
                episode.place.is_some_and(|place| place.role == Role::Executed)
            }
            Some((_, Outcome::Ok(_))) => episode.place.is_none(),
            Some((_, Outcome::Unknown(_))) | None => false,
        };
        self.episodes().iter().filter(|e| is_dishonest(e)).map(|episode| episode.name).collect()
    }
}

impl Seen {
    /// A refusal that depends on the state: the operation had no effect, but it had its place.
    #[must_use]
    pub fn refused(why: Answer) -> Self {
        Self { revision: 0, succeeded: false, answers: vec![why] }
    }
}

impl Episode<'_> {
    /// Its client saw a result.
    #[must_use]
    pub fn is_seen(&self) -> bool {
        self.seen().is_some()
    }

    fn seen(&self) -> Option<&Seen> {
        match self.completed {
            Some((_, Outcome::Ok(seen))) => Some(seen),
            Some((_, Outcome::Failed(_) | Outcome::Unknown(_))) | None => None,
        }
    }

    /// When it was known to have taken effect.
    fn returned(&self) -> Option<u64> {
        self.completed.filter(|_| self.seen().is_some()).map(|(moment, _)| moment)
    }

    fn op(&self) -> StoreOp {
        let (operation, seen) = (self.operation.clone(), self.seen().cloned());
        StoreOp { name: self.name, operation, seen }
    }

    fn to_call(&self) -> Option<Call<StoreOp>> {
        let is_failed = matches!(self.completed, Some((_, Outcome::Failed(_))));
        let is_stale = matches!(self.operation, Operation::Serializable(_));
        let is_unseen_read = self.seen().is_none() && !self.operation.may_write();
        if is_failed || is_stale || is_unseen_read {
            return None;
        }
        Some(Call { op: self.op(), called: self.called, returned: self.returned() })
    }
}

impl Action {
    /// It may change the store.
    #[must_use]
    pub fn may_write(&self) -> bool {
        matches!(self, Self::Put { .. } | Self::Delete { .. })
    }
}

impl Operation {
    /// It may change the store.
    #[must_use]
    pub fn may_write(&self) -> bool {
        match self {
            Self::One(action) => action.may_write(),
            Self::Serializable(_) | Self::Past { .. } => false,
            Self::Compact { .. } => true,
            Self::Txn { then, otherwise, .. } => {
                then.iter().chain(otherwise).any(Action::may_write)
            }
        }
    }
}
