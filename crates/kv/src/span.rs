//! What a pair of `key` and `range_end` covers.

use std::ops::Bound;

/// A key or an interval of keys.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Span<'a> {
    first: &'a [u8],
    end: End<'a>,
}

/// Where an interval begins and ends.
pub(crate) type Bounds<'a> = (Bound<&'a [u8]>, Bound<&'a [u8]>);

#[derive(Clone, Copy, Debug)]
enum End<'a> {
    /// Only the first key.
    Single,
    /// Up to and without this key.
    Before(&'a [u8]),
    /// Everything from the first key on.
    Open,
}

impl<'a> Span<'a> {
    /// Reads the pair as etcd does: an empty end is the single key, `"\0"` is no end.
    pub(crate) fn new(key: &'a [u8], range_end: &'a [u8]) -> Self {
        let end = match range_end {
            [] => End::Single,
            [0] => End::Open,
            end => End::Before(end),
        };
        Self { first: key, end }
    }

    /// Bounds for a sorted map; `None` if the interval is empty.
    pub(crate) fn bounds(&self) -> Option<Bounds<'a>> {
        let first = Bound::Included(self.first);
        match self.end {
            End::Single => Some((first, Bound::Included(self.first))),
            End::Before(end) => (self.first < end).then_some((first, Bound::Excluded(end))),
            End::Open => Some((first, Bound::Unbounded)),
        }
    }
}
