//! The numbers of a session's mutations, by which a server recognises one that it has seen.

use std::collections::BTreeSet;

use kvraft_base::{ClientId, OpId};

/// What a numbered request carries beside itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Stamp {
    /// The session.
    pub client: ClientId,
    /// The operation, from 1 upwards; the same on every attempt.
    pub op: OpId,
    /// Every operation up to this one has ended here: the server may forget its result.
    pub acked: OpId,
}

/// One session's counter and what is still in flight.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Numbering {
    pub(crate) client: ClientId,
    /// Highest number given out; 0 before the first.
    last: OpId,
    /// Numbers given out whose operations have not ended. Invariant: each is in `1..=last`.
    pending: BTreeSet<OpId>,
}

impl Numbering {
    pub(crate) fn new(client: ClientId) -> Self {
        Self { client, last: OpId::ZERO, pending: BTreeSet::new() }
    }

    pub(crate) fn issue(&mut self) -> OpId {
        self.last = self.last.next();
        self.pending.insert(self.last);
        self.last
    }

    pub(crate) fn end(&mut self, op: OpId) {
        assert!(op <= self.last, "only a number that was given out can end");
        self.pending.remove(&op);
    }

    pub(crate) fn stamp(&self, op: OpId) -> Stamp {
        assert!(self.pending.contains(&op), "an ended operation is never sent again");
        let acked = self.pending.first().map_or(self.last, |oldest| oldest.prev());
        assert!(acked < op, "an operation is not acknowledged while it is in flight");
        Stamp { client: self.client, op, acked }
    }

    /// The highest number given out; 0 before the first.
    pub(crate) fn last(&self) -> OpId {
        self.last
    }

    /// How many operations are in flight.
    pub(crate) fn pending_count(&self) -> usize {
        self.pending.len()
    }
}
