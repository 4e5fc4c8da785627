//! Makes something that fails smaller, as long as it goes on failing.
//!
//! It knows nothing of what it shrinks: a [`Shrink`] has items that can be left out and says which
//! simpler things it could be instead; a judge says whether a candidate still fails. Items go
//! first, in ever finer pieces (Zeller and Hildebrandt 2002), then one simplification after
//! another, and both again until neither helps.
//!
//! The judge gets candidates in batches, best first, and names the first that fails: it may try
//! several at once, on threads that this crate does not have, and the outcome is the same.
//!
//! Invariants:
//! - what is returned failed when the judge saw it, or is what was begun with;
//! - unless the judge has stopped the search, no single item can be left out of it and none of its
//!   simplifications fails;
//! - candidates are strictly smaller than what they are made of, so that the search ends.
//!
//! What it lacks: leaving out pairs of items that only go together, unless they are neighbours.

#[cfg(test)]
mod tests;

/// What can be made smaller.
pub trait Shrink: Clone {
    /// How many items can be left out, each for itself.
    fn item_count(&self) -> usize;

    /// The same without the items from `first` up to `end`, which is excluded.
    #[must_use]
    fn without(&self, first: usize, end: usize) -> Self;

    /// Simpler things that it could be instead, each after the name of what is simpler, the boldest
    /// first. None must be reachable from itself again by simplifying.
    fn simpler(&self) -> Vec<(String, Self)>;
}

/// What a judge says of a batch of candidates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judged<T> {
    /// None of them fails.
    NoneFails,
    /// The first that fails, by its place in the batch, and as it failed: a judge may have changed
    /// what does not count, such as a seed.
    Fails(usize, T),
    /// Time is over.
    Stop,
}

/// How far a search has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShrinkStep<'a, T> {
    /// The smallest that fails so far.
    pub smallest: &'a T,
    /// What was done to it last.
    pub what: &'a str,
}

/// What came of a search.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shrunk<T> {
    /// The smallest that fails.
    pub smallest: T,
    /// Candidates that were accepted.
    pub step_count: usize,
    /// Nothing more can be taken from it in one step; false if the judge stopped the search.
    pub is_minimal: bool,
}

/// Shrinks `start`, which fails.
///
/// `judge` gets candidates, the most wanted first, and names the first of them that fails. `report`
/// hears of every step.
pub fn shrink<T: Shrink>(
    start: T,
    mut judge: impl FnMut(&[T]) -> Judged<T>,
    mut report: impl FnMut(ShrinkStep<'_, T>),
) -> Shrunk<T> {
    let mut search =
        Search { smallest: start, step_count: 0, judge: &mut judge, report: &mut report };
    let is_minimal = search.run().is_some();
    Shrunk { smallest: search.smallest, step_count: search.step_count, is_minimal }
}

/// No batch is larger: candidates are copies of what is shrunk.
const BATCH_COUNT_MAX: usize = 32;

struct Search<'a, T> {
    smallest: T,
    step_count: usize,
    judge: &'a mut dyn FnMut(&[T]) -> Judged<T>,
    report: &'a mut dyn FnMut(ShrinkStep<'_, T>),
}

impl<T: Shrink> Search<'_, T> {
    /// `None` as soon as the judge stops the search, here and below.
    fn run(&mut self) -> Option<()> {
        loop {
            let before = self.step_count;
            self.leave_out()?;
            self.simplify()?;
            if self.step_count == before {
                return Some(());
            }
        }
    }

    /// Leaves out items, in pieces of half of them and less.
    fn leave_out(&mut self) -> Option<()> {
        let mut piece = self.smallest.item_count();
        while 0 < piece {
            let before = self.step_count;
            self.leave_out_pieces(piece)?;
            // At single items, go on until a whole round removes nothing.
            if 1 < piece || self.step_count == before {
                piece /= 2;
            }
        }
        Some(())
    }

    fn leave_out_pieces(&mut self, piece: usize) -> Option<()> {
        // The last first: what comes late is mostly of no account.
        let mut kept = 0;
        while kept < self.smallest.item_count() {
            let count = self.smallest.item_count();
            let ends = (1..=count - kept).rev().step_by(piece).take(BATCH_COUNT_MAX);
            let pieces: Vec<_> = ends.map(|end| (end.saturating_sub(piece), end)).collect();
            let without = |(first, end): &(usize, usize)| self.smallest.without(*first, *end);
            let candidates: Vec<T> = pieces.iter().map(without).collect();
            kept = match self.judge_all(&candidates)? {
                None => count - pieces.last().expect("some are left to try").0,
                Some((place, smaller)) => {
                    self.accept(smaller, "left out");
                    count - pieces[place].1
                }
            };
        }
        Some(())
    }

    /// Takes the first simplification that fails, then looks at those that came after it.
    fn simplify(&mut self) -> Option<()> {
        let mut from = 0;
        loop {
            let simpler: Vec<_> = self.smallest.simpler().into_iter().skip(from).collect();
            let (names, candidates): (Vec<String>, Vec<T>) = simpler.into_iter().unzip();
            if candidates.is_empty() {
                return Some(());
            }
            match self.judge_all(&candidates)? {
                None => return Some(()),
                Some((place, smaller)) => {
                    self.accept(smaller, &names[place]);
                    from += place;
                }
            }
        }
    }

    fn judge_all(&mut self, candidates: &[T]) -> Option<Option<(usize, T)>> {
        match (self.judge)(candidates) {
            Judged::NoneFails => Some(None),
            Judged::Fails(place, smaller) => Some(Some((place, smaller))),
            Judged::Stop => None,
        }
    }

    fn accept(&mut self, smaller: T, what: &str) {
        self.smallest = smaller;
        self.step_count += 1;
        (self.report)(ShrinkStep { smallest: &self.smallest, what });
    }
}
