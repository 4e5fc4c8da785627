//! Reading the state at one revision: ranges and comparisons.

use std::cmp::Ordering;

use bytes::Bytes;
use kvraft_base::{Damage, Records, Revision, TableId, checksum};

use crate::{
    damage::{lost, undecodable},
    index::{Change, Index},
    key_value::KeyValue,
    overlay::Overlay,
    reading::{RangeReading, Slice},
    refused::Refused,
    request::{Compare, CompareResult, CompareTarget, RangeRequest, SortOrder, SortTarget},
    response::RangeResponse,
    span::Span,
};

/// Why reading stopped.
#[derive(Debug)]
pub(crate) enum Stop {
    Refused(Refused),
    Damage(Damage),
}

impl From<Refused> for Stop {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<Damage> for Stop {
    fn from(damage: Damage) -> Self {
        Self::Damage(damage)
    }
}

impl Stop {
    /// Takes the two kinds apart: a refusal is a result, damage is an error.
    pub(crate) fn split<T>(result: Result<T, Self>) -> Result<Result<T, Refused>, Damage> {
        match result {
            Ok(value) => Ok(Ok(value)),
            Err(Self::Refused(refused)) => Ok(Err(refused)),
            Err(Self::Damage(damage)) => Err(damage),
        }
    }
}

/// The state as one reader sees it.
#[derive(Clone, Copy)]
pub(crate) struct View<'a> {
    pub(crate) index: &'a Index,
    pub(crate) overlay: &'a Overlay,
    pub(crate) records: &'a dyn Records,
    /// The store's revision for this reader; within a transaction that has changed something, the
    /// one that it is about to make.
    pub(crate) revision: i64,
    pub(crate) compacted: i64,
}

impl View<'_> {
    /// The record of a change.
    pub(crate) fn record(&self, change: &Change) -> Result<KeyValue, Damage> {
        let what = || format!("record {}_{}", change.rev.main, change.rev.sub);
        let row = self.overlay.read(self.records, TableId::Records, &change.rev.encode())?;
        let row: Bytes = row.ok_or_else(|| lost(what(), "missing"))?;
        if row.len() as u64 != u64::from(change.size_bytes) || checksum(&row) != change.checksum {
            return Err(lost(what(), "checksum mismatch"));
        }
        KeyValue::decode(row).map_err(|error| undecodable(what(), &error))
    }

    /// Which revision a request means.
    pub(crate) fn resolve(&self, wanted: Revision) -> Result<i64, Refused> {
        match wanted.0 {
            revision if self.revision < revision => Err(Refused::FutureRevision),
            revision if revision <= 0 => Ok(self.revision),
            revision if revision < self.compacted => Err(Refused::Compacted),
            revision => Ok(revision),
        }
    }

    /// Whether a range within a transaction may be read: unlike in a plain range, a negative
    /// revision is looked at too.
    pub(crate) fn check_revision(&self, wanted: Revision) -> Result<(), Refused> {
        match wanted.0 {
            0 => Ok(()),
            revision if self.revision < revision => Err(Refused::FutureRevision),
            revision if revision < self.compacted => Err(Refused::Compacted),
            _ => Ok(()),
        }
    }

    /// Reads a range in one go.
    pub(crate) fn range(&self, request: &RangeRequest) -> Result<RangeResponse, Stop> {
        let mut reading = RangeReading::begin(self, request)?;
        let is_done = reading.advance(self, request, &mut Slice::WHOLE.clone())?;
        assert!(is_done, "a slice without bound reads everything");
        Ok(reading.finish(self, request))
    }

    /// Whether a comparison holds for every key it covers; a missing key counts as all zeros.
    pub(crate) fn compare(&self, compare: &Compare) -> Result<bool, Damage> {
        let span = Span::new(&compare.key, &compare.range_end);
        let mut found = false;
        for (_, change) in self.index.span(span, self.revision) {
            found = true;
            if !compare.holds(&self.record(change)?) {
                return Ok(false);
            }
        }
        Ok(found || compare.holds_for_nothing())
    }
}

impl RangeRequest {
    /// Whether the pairs come as they are stored, so that a limit can be applied while reading.
    pub(crate) fn is_natural(&self) -> bool {
        let ascends_by_key =
            self.sort_target == SortTarget::Key && self.sort_order == SortOrder::Ascend;
        let is_filtered = [
            self.min_mod_revision,
            self.max_mod_revision,
            self.min_create_revision,
            self.max_create_revision,
        ]
        .iter()
        .any(|filter| filter.0 != 0);
        (ascends_by_key || self.sort_order == SortOrder::None) && !is_filtered
    }

    /// Whether a pair passes the filters.
    pub(crate) fn admits(&self, kv: &KeyValue) -> bool {
        let at_least = |min: Revision, value: Revision| min.0 == 0 || min <= value;
        let at_most = |max: Revision, value: Revision| max.0 == 0 || value <= max;
        at_least(self.min_mod_revision, kv.mod_revision)
            && at_most(self.max_mod_revision, kv.mod_revision)
            && at_least(self.min_create_revision, kv.create_revision)
            && at_most(self.max_create_revision, kv.create_revision)
    }

    /// Sorts pairs that are in key order; equals stay in key order.
    pub(crate) fn sort(&self, kvs: &mut [KeyValue]) {
        let descends = self.sort_order == SortOrder::Descend;
        if self.sort_target == SortTarget::Key {
            if descends {
                kvs.reverse();
            }
            return;
        }
        kvs.sort_by(|one, other| {
            let (one, other) = if descends { (other, one) } else { (one, other) };
            match self.sort_target {
                SortTarget::Key => one.key.cmp(&other.key),
                SortTarget::Version => one.version.cmp(&other.version),
                SortTarget::Create => one.create_revision.cmp(&other.create_revision),
                SortTarget::Mod => one.mod_revision.cmp(&other.mod_revision),
                SortTarget::Value => one.value.cmp(&other.value),
            }
        });
    }
}

impl Compare {
    /// Whether it holds where no key is: a missing value is not an empty value, and nothing can be
    /// said of it; all else counts as zero.
    pub(crate) fn holds_for_nothing(&self) -> bool {
        let is_value = matches!(self.target, CompareTarget::Value(_));
        !is_value && self.holds(&KeyValue::default())
    }

    pub(crate) fn holds(&self, kv: &KeyValue) -> bool {
        let ordering = match &self.target {
            CompareTarget::Version(version) => kv.version.cmp(version),
            CompareTarget::Create(revision) => kv.create_revision.cmp(revision),
            CompareTarget::Mod(revision) => kv.mod_revision.cmp(revision),
            CompareTarget::Value(value) => kv.value.cmp(value),
            CompareTarget::Lease(lease) => kv.lease.cmp(lease),
        };
        match self.result {
            CompareResult::Equal => ordering == Ordering::Equal,
            CompareResult::Greater => ordering == Ordering::Greater,
            CompareResult::Less => ordering == Ordering::Less,
            CompareResult::NotEqual => ordering != Ordering::Equal,
        }
    }
}
