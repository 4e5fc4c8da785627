//! What this server's disk holds, and what may not be said until it holds more.
//!
//! Why: a vote that is forgotten is given twice, and an entry that is acknowledged and forgotten
//! breaks the majority that committed it (Raft §5, figure 2: "updated on stable storage before
//! responding"). The disk answers like a peer, any time later; until then a promise waits here.
//!
//! Invariants:
//! - write ids only grow; a completion stands for all writes up to it;
//! - truncation clamps what outstanding writes vouch for, so that a late completion never vouches
//!   for a newer entry at the same index;
//! - a promise keeps its term, and is dropped when the term changes or its range is truncated;
//! - `durable < unwritten_from`.
//!
//! What it lacks: the log itself; its owner cuts the writes.

use std::collections::VecDeque;

use bytes::Bytes;
use kvraft_base::{Index, WriteId};
use serde::{Deserialize, Serialize};

use crate::message::Message;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Promises {
    issued: WriteId,
    done: WriteId,
    outstanding: VecDeque<Outstanding>,
    durable: Index,
    /// First index that no write has carried yet.
    unwritten_from: Index,
    /// What the next write must cut first.
    truncate_from: Option<Index>,
    /// Term or vote have changed since the last write.
    hard_changed: bool,
    /// The write that carries the present term and vote. At most `issued + 1`.
    hard_write: WriteId,
    held: Vec<Promise>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Outstanding {
    id: WriteId,
    /// Last index that its completion vouches for.
    last: Index,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Promise {
    needs: WriteId,
    /// Last index that it vouches for; 0 for votes.
    last: Index,
    message: Message,
}

/// What the next write must carry.
pub(crate) struct Due {
    pub(crate) id: WriteId,
    pub(crate) truncate_from: Option<Index>,
    pub(crate) first: Index,
}

impl Promises {
    /// Everything up to `last` is on disk.
    pub(crate) fn new(last: Index) -> Self {
        Self {
            issued: WriteId::ZERO,
            done: WriteId::ZERO,
            outstanding: VecDeque::new(),
            durable: last,
            unwritten_from: last.next(),
            truncate_from: None,
            hard_changed: false,
            hard_write: WriteId::ZERO,
            held: Vec::new(),
        }
    }

    /// Replaces the payloads of commands in what is held back.
    pub(crate) fn replace_commands(&mut self, replace: &mut dyn FnMut(&Bytes) -> Bytes) {
        for promise in &mut self.held {
            promise.message.replace_commands(replace);
        }
    }

    pub(crate) fn durable(&self) -> Index {
        self.durable
    }

    /// Whether the present term and vote are on disk.
    pub(crate) fn hard_state_is_durable(&self) -> bool {
        self.hard_write <= self.done
    }

    /// The term or the vote has changed. A new term voids what was promised in the old one.
    pub(crate) fn hard_state_changed(&mut self, term_changed: bool) {
        self.hard_changed = true;
        self.hard_write = self.issued.next();
        if term_changed {
            self.held.clear();
        }
    }

    /// Holds a message back until term, vote and everything up to `last` are durable.
    pub(crate) fn hold(&mut self, message: Message, last: Index) {
        let needs = self.hard_write.max(self.write_covering(last));
        // A later answer to the same follower speaks for an earlier one that still waits.
        if let Some(promise) = self.held.last_mut()
            && promise.needs == needs
            && promise.message.to == message.to
            && Index::ZERO < promise.last
            && promise.last <= last
        {
            *promise = Promise { needs, last, message };
            return;
        }
        self.held.push(Promise { needs, last, message });
    }

    fn write_covering(&self, index: Index) -> WriteId {
        if index <= self.durable {
            return WriteId::ZERO;
        }
        if self.unwritten_from <= index {
            return self.issued.next();
        }
        let covering = self.outstanding.iter().find(|write| index <= write.last);
        covering.expect("what is written and not durable is in an outstanding write").id
    }

    /// Promises that may leave now, in the order they were made.
    pub(crate) fn release(&mut self) -> Vec<Message> {
        let done = self.done;
        self.held.extract_if(.., |promise| promise.needs <= done).map(|p| p.message).collect()
    }

    /// The log now ends before `first`. Returns how many promises that voids.
    pub(crate) fn truncate(&mut self, first: Index) -> usize {
        if first < self.unwritten_from {
            self.truncate_from = Some(self.truncate_from.map_or(first, |from| from.min(first)));
            self.unwritten_from = first;
        }
        self.durable = self.durable.min(first.prev());
        for write in &mut self.outstanding {
            write.last = write.last.min(first.prev());
        }
        let count = self.held.len();
        self.held.retain(|promise| promise.last < first);
        count - self.held.len()
    }

    /// A snapshot replaced the log, durably; it ends at `last`. The hard state is written again, so
    /// that it is certain to be in the new journal.
    pub(crate) fn restart(&mut self, last: Index) {
        self.held.retain(|promise| promise.last == Index::ZERO);
        for write in &mut self.outstanding {
            write.last = Index::ZERO;
        }
        self.durable = last;
        self.unwritten_from = last.next();
        self.truncate_from = None;
        self.hard_changed = true;
        self.hard_write = self.issued.next();
    }

    /// The journal is about to be replaced: what no write has carried yet never will be, unless
    /// that fails, and is promised to nobody.
    pub(crate) fn stop_at_written(&mut self) {
        let first = self.unwritten_from;
        self.held.retain(|promise| promise.last < first);
    }

    /// Last index that a write has carried.
    pub(crate) fn written(&self) -> Index {
        self.unwritten_from.prev()
    }

    /// A write of nothing but the hard state, if that has changed.
    pub(crate) fn issue_hard_state(&mut self) -> Option<Due> {
        let truncate_from = self.truncate_from.take();
        let due = if self.hard_changed { self.issue(self.written()) } else { None };
        self.truncate_from = truncate_from;
        due
    }

    /// The next write, if one is due for a log that ends at `last`.
    pub(crate) fn issue(&mut self, last: Index) -> Option<Due> {
        let entries_due = self.unwritten_from <= last;
        if !entries_due && !self.hard_changed && self.truncate_from.is_none() {
            return None;
        }
        self.issued = self.issued.next();
        let due = Due {
            id: self.issued,
            truncate_from: self.truncate_from.take(),
            first: self.unwritten_from,
        };
        self.hard_changed = false;
        self.unwritten_from = last.next();
        self.outstanding.push_back(Outstanding { id: due.id, last });
        Some(due)
    }

    /// The write and all before it are durable.
    pub(crate) fn complete(&mut self, write: WriteId) {
        assert!(write <= self.issued, "only what was asked for completes");
        self.done = self.done.max(write);
        while let Some(done) = self.outstanding.pop_front_if(|first| first.id <= write) {
            self.durable = self.durable.max(done.last);
        }
        assert!(self.durable < self.unwritten_from, "only what was written is durable");
        for promise in &self.held {
            assert!(promise.needs <= self.issued.next(), "promises wait for a write that comes");
        }
    }

    /// Asserts, at the end of a turn, what must hold when the log ends at `last`.
    pub(crate) fn check(&self, last: Index) {
        assert!(self.durable <= last, "durable ran past the log");
        assert!(self.unwritten_from <= last.next(), "writes ran past the log");
        assert!(
            self.hard_write <= self.issued,
            "term and vote are written in the turn they change"
        );
        if let Some(last_held) = self.held.last() {
            assert!(last_held.needs <= self.issued, "promises wait for a write that was issued");
        }
    }
}
