//! A set of keys given as spans, merged where they meet, so that asking costs a logarithm.

use std::{collections::BTreeMap, ops::Bound};

use crate::span::Span;

/// A union of spans.
#[derive(Clone, Debug, Default)]
pub(crate) struct SpanSet<'a> {
    /// First key → exclusive end (`None`: no end). Invariant: disjoint, not even touching.
    intervals: BTreeMap<&'a [u8], Option<&'a [u8]>>,
    /// Single keys, which have no exclusive end that could be borrowed.
    keys: BTreeMap<&'a [u8], ()>,
}

impl<'a> SpanSet<'a> {
    /// Adds a span.
    pub(crate) fn insert(&mut self, span: Span<'a>) {
        match span.bounds() {
            Some((Bound::Included(first), Bound::Included(_))) => {
                self.keys.insert(first, ());
            }
            Some((Bound::Included(first), Bound::Excluded(end))) => self.merge(first, Some(end)),
            Some((Bound::Included(first), Bound::Unbounded)) => self.merge(first, None),
            Some(_) => unreachable!("a span's first key is included"),
            None => {}
        }
    }

    /// Adds all of another set.
    pub(crate) fn extend(&mut self, other: Self) {
        self.keys.extend(other.keys);
        for (first, end) in other.intervals {
            self.merge(first, end);
        }
    }

    pub(crate) fn contains(&self, key: &[u8]) -> bool {
        self.keys.contains_key(key)
            || self
                .intervals
                .range::<[u8], _>((Bound::Unbounded, Bound::Included(key)))
                .next_back()
                .is_some_and(|(_, end)| end.is_none_or(|end| key < end))
    }

    fn merge(&mut self, mut first: &'a [u8], mut end: Option<&'a [u8]>) {
        // Every interval that begins at or before our end and ends at or after our beginning is
        // absorbed; each is removed once, so the cost over all inserts is linear.
        loop {
            let upto = end.map_or(Bound::Unbounded, Bound::Included);
            let Some((&near_first, &near_end)) =
                self.intervals.range::<[u8], _>((Bound::Unbounded, upto)).next_back()
            else {
                break;
            };
            if near_end.is_some_and(|near_end| near_end < first) {
                break;
            }
            self.intervals.remove(near_first);
            first = first.min(near_first);
            end = end.zip(near_end).map(|(end, near_end)| end.max(near_end));
        }
        self.intervals.insert(first, end);
    }
}
