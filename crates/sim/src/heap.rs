//! The event queue of a simulated world.
//!
//! Events stay where they are, and what the heap moves is small: time, number and place.
//!
//! Invariants:
//! - events come out by time, and those of one time in the order they went in. The order is total,
//!   so it never depends on how the heap is built;
//! - each key names a place with an event, every other place is free.

use std::{cmp::Reverse, collections::BinaryHeap};

use kvraft_base::Instant;

/// A queue of things that happen at times.
#[derive(Clone, Debug)]
pub struct EventHeap<T> {
    heap: BinaryHeap<Reverse<Key>>,
    events: Vec<Option<T>>,
    free: Vec<usize>,
    pushed_count: u64,
}

/// When an event happens, and where it is. No two have the same number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    at: Instant,
    number: u64,
    place: usize,
}

impl<T> Default for EventHeap<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> EventHeap<T> {
    /// An empty queue.
    #[must_use]
    pub fn new() -> Self {
        Self { heap: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), pushed_count: 0 }
    }

    /// Lets `event` happen at `at`, after everything already put there.
    pub fn push(&mut self, at: Instant, event: T) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.heap.push(Reverse(Key { at, number: self.pushed_count, place }));
        self.pushed_count += 1;
    }

    /// Takes the next event and its time.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        let Reverse(Key { at, place, .. }) = self.heap.pop()?;
        self.free.push(place);
        let event = self.events[place].take();
        Some((at, event.expect("a key names a place with an event")))
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(key)| key.at)
    }

    /// Forgets the events that `keep` does not want; the others stay in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let Self { heap, events, free, .. } = self;
        heap.retain(|Reverse(key)| {
            let is_kept = events[key.place].as_ref().is_some_and(&mut keep);
            if !is_kept {
                events[key.place] = None;
                free.push(key.place);
            }
            is_kept
        });
    }

    /// Lets the events that `is_hastened` names happen at `by`, unless they happen before. Among
    /// each other they come in the order in which they were pushed.
    pub fn hasten(&mut self, by: Instant, is_hastened: impl Fn(&T) -> bool) {
        let mut keys = std::mem::take(&mut self.heap).into_vec();
        for Reverse(key) in &mut keys {
            let is_late = by < key.at;
            if is_late && self.events[key.place].as_ref().is_some_and(&is_hastened) {
                key.at = by;
            }
        }
        self.heap = keys.into();
    }

    /// Number of events waiting.
    #[must_use]
    pub fn len(&self) -> usize {
        self.heap.len()
    }

    /// Nothing is waiting.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.heap.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use kvraft_base::{Instant, Prng};

    use super::EventHeap;

    /// Order is by time, then by arrival.
    #[test]
    fn events_come_out_by_time_then_by_arrival() {
        let mut prng = Prng::new(3);
        let mut heap = EventHeap::new();
        let mut expected: Vec<(Instant, u64)> = Vec::new();
        for number in 0..500 {
            let at = Instant(prng.below(20));
            heap.push(at, number);
            expected.push((at, number));
        }
        expected.sort();
        assert_eq!(heap.next_at(), Some(expected[0].0));
        let mut popped = Vec::new();
        while let Some(event) = heap.pop() {
            popped.push(event);
        }
        assert_eq!(popped, expected);
        assert!(heap.is_empty() && heap.next_at().is_none());
    }

    /// Hastened events come at the new time in the order they went in; the others, and what comes
    /// before that time, stay where they were.
    #[test]
    fn hasten_moves_what_is_late() {
        let mut heap = EventHeap::default();
        for (at, number) in [(9, 0), (3, 1), (9, 2), (8, 3), (12, 4)] {
            heap.push(Instant(at), number);
        }
        heap.hasten(Instant(5), |number| *number != 3);
        let rest: Vec<_> = std::iter::from_fn(|| heap.pop()).collect();
        let at = |at, number| (Instant(at), number);
        assert_eq!(rest, [at(3, 1), at(5, 0), at(5, 2), at(5, 4), at(8, 3)]);
    }

    /// What is forgotten leaves no trace in the order of the rest.
    #[test]
    fn retain_keeps_order() {
        let mut heap = EventHeap::default();
        for number in 0..10 {
            heap.push(Instant(5), number);
        }
        heap.retain(|number| number % 2 == 0);
        assert_eq!(heap.len(), 5);
        let rest: Vec<_> = std::iter::from_fn(|| heap.pop()).map(|(_, number)| number).collect();
        assert_eq!(rest, [0, 2, 4, 6, 8]);
    }
}
