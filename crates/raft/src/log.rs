//! The log as consensus sees it: recent entries in memory, terms for as much as is known, nothing
//! of files.
//!
//! Why a window: a follower that is a little behind is served from memory, one that is further
//! behind from the journal, and memory stays bounded.
//!
//! Invariants:
//! - the window is contiguous and ends at `last`;
//! - terms never decrease along the log;
//! - terms are known at `released` and from the first run up to `last`; between the two they may be
//!   unknown after a restart, and everything there is applied.
//!
//! What it lacks: any notion of commit or durability; its owner says what may be cut or evicted.

use std::collections::VecDeque;

use bytes::Bytes;
use kvraft_base::{Entry, EntryKind, Index, Position, Term, thin};
use serde::{Deserialize, Serialize};

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Log {
    /// Just before the journal's first entry.
    released: Position,
    /// First position of each run of equal terms. Invariant: never empty, both parts increase.
    runs: VecDeque<Position>,
    last: Position,
    window: VecDeque<Entry>,
    window_size_bytes: usize,
}

impl Log {
    /// The log that recovery found. `applied` is a position within it; `tail` ends it and has been
    /// checked.
    pub(crate) fn new(released: Position, applied: Position, tail: Vec<Entry>) -> Self {
        let mut log = Self::at(applied);
        log.released = released;
        if let Some(first) = tail.first()
            && first.index <= applied.index
        {
            log.runs[0] = first.position();
        }
        for entry in tail {
            if log.runs.back().is_some_and(|run| run.term < entry.term) {
                log.runs.push_back(entry.position());
            }
            log.last = entry.position();
            log.window_size_bytes += entry.size_bytes();
            log.window.push_back(entry);
        }
        log.join_runs();
        log
    }

    /// The empty log that starts after `position`.
    pub(crate) fn at(position: Position) -> Self {
        Self {
            released: position,
            runs: VecDeque::from([position]),
            last: position,
            window: VecDeque::new(),
            window_size_bytes: 0,
        }
    }

    /// The same log, with zeroes for the payloads of commands up to `upto`. Their checksums, from
    /// which a short payload could be guessed, go too.
    pub(crate) fn thinned(&self, upto: Index) -> Self {
        let thin = |entry: &Entry| {
            let is_kept = upto < entry.index || entry.kind != EntryKind::Command;
            if is_kept {
                return entry.clone();
            }
            let Entry { term, index, kind, ref payload, checksum: _ } = *entry;
            Entry { term, index, kind, payload: thin::zeroes(payload.len()), checksum: 0 }
        };
        Self {
            released: self.released,
            runs: self.runs.clone(),
            last: self.last,
            window: self.window.iter().map(thin).collect(),
            window_size_bytes: self.window_size_bytes,
        }
    }

    /// Gives the entries up to `upto`, of a log that was thinned, checksums of what is in them now.
    pub(crate) fn thaw(&mut self, upto: Index) {
        for entry in self.window.iter_mut().take_while(|entry| entry.index <= upto) {
            let Entry { term, index, kind, ref payload, checksum: _ } = *entry;
            *entry = Entry::new(term, index, kind, payload.clone());
        }
    }

    /// Replaces the payloads of commands after `after` by others of the same length.
    pub(crate) fn replace_commands(
        &mut self,
        after: Index,
        replace: &mut dyn FnMut(&Bytes) -> Bytes,
    ) {
        let Self { released: _, runs: _, last: _, window, window_size_bytes: _ } = self;
        for entry in window.iter_mut().filter(|entry| after < entry.index) {
            entry.replace_command(replace);
        }
    }

    pub(crate) fn last(&self) -> Position {
        self.last
    }

    pub(crate) fn released(&self) -> Position {
        self.released
    }

    pub(crate) fn window_size_bytes(&self) -> usize {
        self.window_size_bytes
    }

    /// First index in memory; `last + 1` when there is none.
    pub(crate) fn window_first(&self) -> Index {
        self.window.front().map_or_else(|| self.last.index.next(), |entry| entry.index)
    }

    fn known_from(&self) -> Index {
        self.runs[0].index
    }

    /// The term at `index`, if that is in the log and known.
    pub(crate) fn term_at(&self, index: Index) -> Option<Term> {
        if index == self.released.index {
            return Some(self.released.term);
        }
        if index < self.known_from() || self.last.index < index {
            return None;
        }
        let after = self.runs.partition_point(|run| run.index <= index);
        Some(self.runs[after - 1].term)
    }

    /// Whether `position` is known to be in the log.
    pub(crate) fn contains(&self, position: Position) -> bool {
        self.term_at(position.index) == Some(position.term)
    }

    /// The greatest position at or before `index` whose term is known; `None` before `released`.
    pub(crate) fn known_at_or_before(&self, index: Index) -> Option<Position> {
        let index = index.min(self.last.index);
        match self.term_at(index) {
            Some(term) => Some(Position::new(term, index)),
            None => (self.released.index <= index).then_some(self.released),
        }
    }

    /// The greatest index at or before `bound` whose term is at most `term`, as far as is known:
    /// where terms are unknown, an upper bound.
    pub(crate) fn index_not_above(&self, bound: Index, term: Term) -> Index {
        let bound = bound.min(self.last.index);
        let mut end = self.last.index;
        for run in self.runs.iter().rev() {
            if run.index <= bound && run.term <= term {
                return bound.min(end);
            }
            end = run.index.prev();
        }
        bound.min(end)
    }

    /// The entry at `index`, if it is in memory.
    pub(crate) fn entry(&self, index: Index) -> Option<&Entry> {
        let first = self.window.front()?.index;
        let offset = usize::try_from(index.0.checked_sub(first.0)?).ok()?;
        self.window.get(offset)
    }

    /// Entries in memory from `first` to `last`, at most `size_bytes_max` but at least one.
    pub(crate) fn slice(&self, first: Index, last: Index, size_bytes_max: usize) -> Vec<Entry> {
        assert!(self.window_first() <= first, "entries before the window are fetched");
        let mut size_bytes = 0;
        let mut entries = Vec::new();
        let mut index = first;
        while let Some(entry) = self.entry(index)
            && index <= last
        {
            size_bytes += entry.size_bytes();
            if !entries.is_empty() && size_bytes_max < size_bytes {
                break;
            }
            entries.push(entry.clone());
            index = index.next();
        }
        entries
    }

    /// Whether the entries in memory from `first` on are more than `size_bytes`.
    pub(crate) fn exceeds(&self, first: Index, size_bytes: usize) -> bool {
        let (mut index, mut sum) = (first, 0);
        while let Some(entry) = self.entry(index) {
            sum += entry.size_bytes();
            if size_bytes < sum {
                return true;
            }
            index = index.next();
        }
        false
    }

    pub(crate) fn append(&mut self, entry: Entry) {
        assert!(entry.index == self.last.index.next(), "the log is contiguous");
        assert!(self.last.term <= entry.term, "terms never decrease along the log");
        if self.last.term < entry.term {
            self.runs.push_back(entry.position());
        }
        self.last = entry.position();
        self.window_size_bytes += entry.size_bytes();
        self.window.push_back(entry);
    }

    /// Forgets `first` and all after it.
    pub(crate) fn truncate(&mut self, first: Index) {
        assert!(self.known_from() < first, "what is applied is never truncated");
        assert!(self.window_first() <= first, "what is not applied is in memory");
        while let Some(entry) = self.window.pop_back_if(|entry| first <= entry.index) {
            self.window_size_bytes -= entry.size_bytes();
        }
        while self.runs.back().is_some_and(|run| first <= run.index) {
            self.runs.pop_back();
        }
        let index = first.prev();
        let term = self.term_at(index).expect("the first run starts before what is truncated");
        self.last = Position::new(term, index);
    }

    /// The journal now starts after `position`.
    pub(crate) fn release(&mut self, position: Position) {
        assert!(self.released.index <= position.index, "the journal's start never goes back");
        assert!(position.index <= self.last.index, "the journal releases only what it has");
        if let Some(term) = self.term_at(position.index) {
            assert!(term == position.term, "the journal holds the log that consensus knows");
        }
        self.released = position;
        while self.runs.get(1).is_some_and(|run| run.index <= position.index) {
            self.runs.pop_front();
        }
        self.runs[0].index = self.runs[0].index.max(position.index);
        self.join_runs();
    }

    /// Terms never decrease, so equal terms at two places are equal between them.
    fn join_runs(&mut self) {
        if self.released.term == self.runs[0].term {
            self.runs[0].index = self.released.index;
        }
    }

    /// Drops entries from memory, oldest first, down to `size_bytes_max`, none after `floor`.
    pub(crate) fn evict(&mut self, size_bytes_max: usize, floor: Index) {
        while size_bytes_max < self.window_size_bytes
            && let Some(entry) = self.window.pop_front_if(|entry| entry.index <= floor)
        {
            self.window_size_bytes -= entry.size_bytes();
        }
    }
}
