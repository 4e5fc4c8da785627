//! The event queue of a simulated world.
//!
//! Invariant: events come out by time, and those of one time in the order they went in. The order
//! is total, so it never depends on how the heap is built.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
};

use kvraft_base::Instant;

/// A queue of things that happen at times.
#[derive(Clone, Debug)]
pub struct EventHeap<T> {
    heap: BinaryHeap<Reverse<Slot<T>>>,
    pushed_count: u64,
}

#[derive(Clone, Debug)]
struct Slot<T> {
    at: Instant,
    seq: u64,
    event: T,
}

impl<T> Slot<T> {
    fn key(&self) -> (Instant, u64) {
        (self.at, self.seq)
    }
}

impl<T> PartialEq for Slot<T> {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl<T> Eq for Slot<T> {}

impl<T> PartialOrd for Slot<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Slot<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.key().cmp(&other.key())
    }
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
        Self { heap: BinaryHeap::new(), pushed_count: 0 }
    }

    /// Lets `event` happen at `at`, after everything already put there.
    pub fn push(&mut self, at: Instant, event: T) {
        self.heap.push(Reverse(Slot { at, seq: self.pushed_count, event }));
        self.pushed_count += 1;
    }

    /// Takes the next event and its time.
    pub fn pop(&mut self) -> Option<(Instant, T)> {
        self.heap.pop().map(|Reverse(slot)| (slot.at, slot.event))
    }

    /// Time of the next event.
    #[must_use]
    pub fn next_at(&self) -> Option<Instant> {
        self.heap.peek().map(|Reverse(slot)| slot.at)
    }

    /// Forgets the events that `keep` does not want; the others stay in their order.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        self.heap.retain(|Reverse(slot)| keep(&slot.event));
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
