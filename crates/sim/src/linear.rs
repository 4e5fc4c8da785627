//! Is a history linearizable? A black-box search that believes nothing but what clients saw.
//!
//! Wing and Gong's search ("Testing and verifying concurrent objects", 1993) over a doubly linked
//! list of calls and returns, with Lowe's memory of what was tried ("Testing for linearizability",
//! 2017). Linear in the length of a history, exponential in how many operations overlap.
//!
//! Invariants:
//! - an operation without a return may take effect at any time after its call, or never;
//! - a budget of steps bounds time and memory; running out is [`LinearVerdict::Unknown`], which is
//!   not a pass;
//! - the answer is a function of the arguments.
//!
//! What it lacks: any use of what servers know; see `witness` for the check that has it.

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

/// What a history is compared with: one object, one operation at a time.
pub trait Model {
    /// The object's state. Its order is used only to remember what was tried.
    type State: Clone + Ord + fmt::Debug;
    /// An operation with whatever its client saw of the result.
    type Op: fmt::Debug;

    /// The state before the first operation.
    fn initial(&self) -> Self::State;

    /// Executes `op`. False when what its client saw is not what it would have seen in `state`; the
    /// state is then of no further use.
    fn apply(&self, state: &mut Self::State, op: &Self::Op) -> bool;
}

/// One operation of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call<Op> {
    /// What was asked for and seen.
    pub op: Op,
    /// When it was called: a place in the order of all calls and returns.
    pub called: u64,
    /// When it returned; `None` if its outcome is unknown.
    pub returned: Option<u64>,
}

/// What the search found. Numbers are places in the slice of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinearVerdict {
    /// The operations can have taken effect in this order.
    Linearizable {
        /// Every returned operation, and those unknown ones that were needed.
        order: Vec<usize>,
    },
    /// No order explains what clients saw.
    Violation {
        /// The longest order that explains its own operations.
        longest: Vec<usize>,
        /// The operation that returned before it could be placed after those.
        stuck: usize,
    },
    /// The budget ran out.
    Unknown {
        /// Steps taken.
        step_count: u64,
    },
}

/// Searches for an order of `calls` that `model` explains, in at most `step_count_max` tries of an
/// operation.
///
/// # Panics
/// When a call returns before it was made.
pub fn check_linear<M: Model>(
    model: &M,
    calls: &[Call<M::Op>],
    step_count_max: u64,
) -> LinearVerdict {
    let mut search = Search::new(model, calls);
    let mut step_count = 0;
    let mut at = search.list.first();
    while 0 < search.returns_left {
        match search.list.events[at] {
            Event::Call(call) => {
                step_count += 1;
                if step_count_max < step_count {
                    return LinearVerdict::Unknown { step_count: step_count_max };
                }
                at = if search.place(call) { search.list.first() } else { search.list.next[at] };
            }
            Event::Return(call) => {
                search.note_stuck(call);
                let Some(unplaced) = search.unplace() else {
                    let Search { longest, stuck, .. } = search;
                    return LinearVerdict::Violation { longest, stuck };
                };
                at = search.list.next[search.list.call_at[unplaced]];
            }
            Event::End => unreachable!("a return left to place is met before the end"),
        }
    }
    LinearVerdict::Linearizable { order: search.placed.into_iter().map(|(call, _)| call).collect() }
}

/// Checks the operations on each key by themselves: linearizable objects compose, so the whole is
/// linearizable when every part is (Herlihy and Wing 1990). The budget holds for each key.
///
/// Returns the first key that is violated or unknown, with a verdict in numbers of `calls`.
pub fn check_linear_by_key<M: Model, K: Ord + Clone>(
    model: &M,
    calls: &[Call<M::Op>],
    step_count_max: u64,
    key_of: impl Fn(&M::Op) -> K,
) -> Result<(), (K, LinearVerdict)>
where
    M::Op: Clone,
{
    let mut parts: BTreeMap<K, Vec<usize>> = BTreeMap::new();
    for (number, call) in calls.iter().enumerate() {
        parts.entry(key_of(&call.op)).or_default().push(number);
    }
    let mut unknown = None;
    for (key, numbers) in parts {
        let part: Vec<_> = numbers.iter().map(|number| calls[*number].clone()).collect();
        match check_linear(model, &part, step_count_max) {
            LinearVerdict::Linearizable { .. } => {}
            LinearVerdict::Violation { longest, stuck } => {
                let longest = longest.into_iter().map(|at| numbers[at]).collect();
                return Err((key, LinearVerdict::Violation { longest, stuck: numbers[stuck] }));
            }
            verdict @ LinearVerdict::Unknown { .. } => {
                unknown.get_or_insert((key, verdict));
            }
        }
    }
    unknown.map_or(Ok(()), Err)
}

#[derive(Clone, Copy, Debug)]
enum Event {
    Call(usize),
    Return(usize),
    End,
}

/// Calls and returns in order, from which placed operations are lifted.
struct EventList {
    events: Vec<Event>,
    next: Vec<usize>,
    prev: Vec<usize>,
    /// Where each operation's call and return are.
    call_at: Vec<usize>,
    return_at: Vec<Option<usize>>,
}

impl EventList {
    fn new<Op>(calls: &[Call<Op>]) -> Self {
        let mut moments = Vec::with_capacity(calls.len() * 2);
        for (number, call) in calls.iter().enumerate() {
            // At one moment calls come before returns: when in doubt, operations overlap.
            moments.push((call.called, 0, number));
            if let Some(returned) = call.returned {
                assert!(call.called <= returned, "an operation returns after it is called");
                moments.push((returned, 1, number));
            }
        }
        moments.sort_unstable();
        let (mut call_at, mut return_at) = (vec![0; calls.len()], vec![None; calls.len()]);
        let mut events = Vec::with_capacity(moments.len() + 1);
        for (_, kind, number) in moments {
            if kind == 0 {
                call_at[number] = events.len();
                events.push(Event::Call(number));
            } else {
                return_at[number] = Some(events.len());
                events.push(Event::Return(number));
            }
        }
        // The end is also the beginning: the list is a ring.
        let end = events.len();
        events.push(Event::End);
        let next = (0..=end).map(|at| if at == end { 0 } else { at + 1 }).collect();
        let prev = (0..=end).map(|at| if at == 0 { end } else { at - 1 }).collect();
        Self { events, next, prev, call_at, return_at }
    }

    fn first(&self) -> usize {
        self.next[self.events.len() - 1]
    }

    fn lift(&mut self, call: usize) {
        self.unlink(self.call_at[call]);
        if let Some(at) = self.return_at[call] {
            self.unlink(at);
        }
    }

    /// Undoes the last lift not yet undone, which must have been of `call`.
    fn unlift(&mut self, call: usize) {
        if let Some(at) = self.return_at[call] {
            self.relink(at);
        }
        self.relink(self.call_at[call]);
    }

    fn unlink(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        self.next[prev] = next;
        self.prev[next] = prev;
    }

    fn relink(&mut self, at: usize) {
        let (prev, next) = (self.prev[at], self.next[at]);
        self.next[prev] = at;
        self.prev[next] = at;
    }
}

/// The state of a search.
struct Search<'a, M: Model> {
    model: &'a M,
    calls: &'a [Call<M::Op>],
    list: EventList,
    /// State after the operations placed so far.
    state: M::State,
    /// Operations placed so far, each with the state before it.
    placed: Vec<(usize, M::State)>,
    /// One bit for each operation: placed.
    placed_bits: Vec<u64>,
    /// Returned operations not yet placed.
    returns_left: usize,
    /// Every set of placed operations and state that was ever reached.
    tried: BTreeSet<(Vec<u64>, M::State)>,
    longest: Vec<usize>,
    stuck: usize,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(model: &'a M, calls: &'a [Call<M::Op>]) -> Self {
        let list = EventList::new(calls);
        Self {
            model,
            calls,
            returns_left: list.return_at.iter().flatten().count(),
            list,
            state: model.initial(),
            placed: Vec::new(),
            placed_bits: vec![0; calls.len().div_ceil(64)],
            tried: BTreeSet::new(),
            longest: Vec::new(),
            stuck: 0,
        }
    }

    /// Places `call` next, if the model explains it and that has not been tried.
    fn place(&mut self, call: usize) -> bool {
        let mut state = self.state.clone();
        if !self.model.apply(&mut state, &self.calls[call].op) {
            return false;
        }
        self.placed_bits[call / 64] |= 1 << (call % 64);
        if !self.tried.insert((self.placed_bits.clone(), state.clone())) {
            self.placed_bits[call / 64] &= !(1 << (call % 64));
            return false;
        }
        self.placed.push((call, std::mem::replace(&mut self.state, state)));
        self.list.lift(call);
        self.returns_left -= usize::from(self.calls[call].returned.is_some());
        true
    }

    /// Takes back the last placed operation and names it.
    fn unplace(&mut self) -> Option<usize> {
        let (call, state) = self.placed.pop()?;
        self.state = state;
        self.placed_bits[call / 64] &= !(1 << (call % 64));
        self.list.unlift(call);
        self.returns_left += usize::from(self.calls[call].returned.is_some());
        Some(call)
    }

    fn note_stuck(&mut self, call: usize) {
        if self.longest.is_empty() || self.longest.len() < self.placed.len() {
            self.longest = self.placed.iter().map(|(call, _)| *call).collect();
            self.stuck = call;
        }
    }
}
