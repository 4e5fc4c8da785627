//! Which configurations the log names, and which was in force where it begins.
//!
//! Why the journal knows: the table has the configuration of what it holds, and goes when it is
//! damaged; the entries that say the same have mostly been released by then. Without a
//! configuration a server that has its log could not help to decide who leads.
//!
//! Invariant: `base` was in force after the last entry before the log, or it is `None`: never one
//! that only may have been.

use kvraft_base::{Entry, EntryKind, Index, Members};

/// See the module.
#[derive(Clone, Debug, Default)]
pub(super) struct Configurations {
    base: Option<Members>,
    /// Those in the log, in order; `None` is one that this build cannot read.
    named: Vec<(Index, Option<Members>)>,
}

impl Configurations {
    /// Of a log without entries.
    pub(super) fn at(base: Option<Members>) -> Self {
        Self { base, named: Vec::new() }
    }

    /// In force where the log begins, if that is known.
    pub(super) fn base(&self) -> Option<&Members> {
        self.base.as_ref()
    }

    /// In force where the log ends, if that is known.
    pub(super) fn newest(&self) -> Option<&Members> {
        self.named.last().map_or_else(|| self.base(), |(_, members)| members.as_ref())
    }

    /// `members` are in force at `index`, which is not before the log. Where no entry up to there
    /// names any, they were where it begins, too.
    pub(super) fn learn(&mut self, index: Index, members: &Members) {
        if self.base.is_none() && self.named.first().is_none_or(|(at, _)| index < *at) {
            self.base = Some(members.clone());
        }
    }

    /// The log goes on with `entries`.
    pub(super) fn append(&mut self, entries: &[Entry]) {
        for entry in entries.iter().filter(|entry| entry.kind == EntryKind::Config) {
            self.named.push((entry.index, Members::decode(entry.payload.clone()).ok()));
        }
    }

    /// The log ends at `index` now.
    pub(super) fn truncate(&mut self, index: Index) {
        self.named.retain(|(at, _)| *at <= index);
    }

    /// The log begins after `index` now.
    pub(super) fn release(&mut self, index: Index) {
        let count = self.named.partition_point(|(at, _)| *at <= index);
        if let Some((_, members)) = self.named.drain(..count).next_back() {
            self.base = members;
        }
    }
}
