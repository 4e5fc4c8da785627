//! Which changes each key has had: the part of the state that answers "which record holds `key` at
//! revision `r`" without reading the table.
//!
//! Invariants:
//! - a history is never empty and ascends by (main, sub); a tombstone ends a generation, and the
//!   next change starts another (etcd's `treeIndex`, with generations read off the tombstones);
//! - every change here has its record in overlay or table, with the size and checksum noted here.
//!
//! Cost: about 24 bytes a change beside the key; [`Index::compact`] walks every key once.

use std::{collections::BTreeMap, ops::Bound};

use serde::{Deserialize, Serialize};

use crate::{rev_key::RevKey, span::Span};

/// One change to one key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Change {
    /// Which.
    pub(crate) rev: RevKey,
    /// Size of the record's value in the table.
    pub(crate) size_bytes: u32,
    /// CRC-32C of the record's value in the table.
    pub(crate) checksum: u32,
}

impl Change {
    /// Sums of these tell states apart whatever the order in which they came about.
    fn digest(&self) -> u64 {
        let place = u64::from(self.rev.sub) << 1 | u64::from(self.rev.tombstone);
        let row = u64::from(self.size_bytes) << 32 | u64::from(self.checksum);
        mix(mix(mix(self.rev.main.cast_unsigned()) ^ place) ^ row)
    }
}

/// Where the newest generation of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Generation {
    /// Main revision at which it was created.
    pub(crate) create_revision: i64,
    /// How often it was written since, 1 or more.
    pub(crate) version: i64,
}

/// All changes of one key that have not been compacted away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct History {
    changes: Vec<Change>,
    /// Of the last change that was not a tombstone.
    newest: Generation,
}

impl History {
    /// The change that made the key what it is at `revision`; `None` if it is not there then.
    pub(crate) fn at(&self, revision: i64) -> Option<&Change> {
        let upto = self.changes.partition_point(|change| change.rev.main <= revision);
        let change = self.changes[..upto].last()?;
        (!change.rev.tombstone).then_some(change)
    }

    fn is_live(&self) -> bool {
        self.changes.last().is_some_and(|change| !change.rev.tombstone)
    }
}

/// The histories of all keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Index {
    keys: BTreeMap<Box<[u8]>, History>,
    live_count: u64,
    change_count: u64,
    size_bytes: u64,
    digest: u64,
}

impl Index {
    /// Adds the newest change of a key; `generation` is that of the key after it, and `None` for a
    /// tombstone.
    pub(crate) fn record(&mut self, key: &[u8], change: Change, generation: Option<Generation>) {
        assert!(change.rev.tombstone == generation.is_none(), "a tombstone ends a generation");
        self.change_count += 1;
        self.size_bytes += u64::from(change.size_bytes);
        self.digest = self.digest.wrapping_add(change.digest());
        let Some(history) = self.keys.get_mut(key) else {
            // A tombstone alone is what compaction leaves when it hits the tombstone's revision.
            let newest = generation.unwrap_or(Generation { create_revision: 0, version: 0 });
            self.live_count += u64::from(!change.rev.tombstone);
            self.keys.insert(key.into(), History { changes: vec![change], newest });
            return;
        };
        let last = history.changes.last().expect("a history is never empty");
        let ascends = (last.rev.main, last.rev.sub) < (change.rev.main, change.rev.sub);
        assert!(ascends, "changes of a key ascend");
        self.live_count -= u64::from(history.is_live());
        self.live_count += u64::from(!change.rev.tombstone);
        history.changes.push(change);
        history.newest = generation.unwrap_or(history.newest);
    }

    /// The newest change and the generation of a key that is there now.
    pub(crate) fn newest(&self, key: &[u8]) -> Option<(&Change, Generation)> {
        let history = self.keys.get(key)?;
        let change = history.changes.last().expect("a history is never empty");
        (!change.rev.tombstone).then_some((change, history.newest))
    }

    /// The history of a key.
    pub(crate) fn history(&self, key: &[u8]) -> Option<&History> {
        self.keys.get(key)
    }

    /// The keys of a span and their histories, in order; only those after `after`, if it is given.
    pub(crate) fn walk<'a>(
        &'a self,
        span: Span<'_>,
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a History)> + use<'a> {
        let bounds = span.bounds().and_then(|(first, end)| match after {
            None => Some((first, end)),
            Some(after) => follows(after, end).then_some((Bound::Excluded(after), end)),
        });
        let histories = bounds.map(|bounds| self.keys.range::<[u8], _>(bounds));
        histories.into_iter().flatten().map(|(key, history)| (key.as_ref(), history))
    }

    /// The keys of a span that are there at `revision`, in order.
    pub(crate) fn span<'a>(
        &'a self,
        span: Span<'_>,
        revision: i64,
    ) -> impl Iterator<Item = (&'a [u8], &'a Change)> + use<'a> {
        self.walk(span, None).filter_map(move |(key, history)| Some((key, history.at(revision)?)))
    }

    /// Whether any key is there at `revision`.
    pub(crate) fn any_at(&self, revision: i64) -> bool {
        self.keys.values().any(|history| history.at(revision).is_some())
    }

    /// Forgets what no read at `revision` or later can see, and returns what was forgotten. Of each
    /// key the newest change up to `revision` stays, unless it is a tombstone from before
    /// `revision` (etcd 3.5.16 and 3.4.34: a tombstone exactly there stays, for watchers).
    pub(crate) fn compact(&mut self, revision: i64) -> Vec<RevKey> {
        let mut removed = Vec::new();
        let Self { keys, change_count, size_bytes, digest, .. } = self;
        keys.retain(|_, history| {
            let upto = history.changes.partition_point(|change| change.rev.main <= revision);
            let stays = history.changes[..upto]
                .last()
                .is_some_and(|change| !change.rev.tombstone || change.rev.main == revision);
            for change in history.changes.drain(..upto - usize::from(stays)) {
                *change_count -= 1;
                *size_bytes -= u64::from(change.size_bytes);
                *digest = digest.wrapping_sub(change.digest());
                removed.push(change.rev);
            }
            !history.changes.is_empty()
        });
        removed
    }

    /// How many keys are there now.
    pub(crate) fn live_count(&self) -> u64 {
        self.live_count
    }

    /// How many changes are kept, tombstones included.
    pub(crate) fn change_count(&self) -> u64 {
        self.change_count
    }

    /// Bytes of all records.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Equal for equal records.
    pub(crate) fn digest(&self) -> u64 {
        self.digest
    }
}

/// Whether anything can lie between `after` and `end`; a sorted map refuses bounds that cross.
fn follows(after: &[u8], end: Bound<&[u8]>) -> bool {
    match end {
        Bound::Included(end) | Bound::Excluded(end) => after < end,
        Bound::Unbounded => true,
    }
}

/// Spreads a number over 64 bits (the finalizer of SplitMix64).
pub(crate) fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}
