//! A state machine with a table in memory, to which entries are fed one by one.

use std::{collections::BTreeMap, ops::ControlFlow};

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, Damage, Entry, EntryKind, Index, MemberId, Records, RowVisitor, TableId, TableOp,
    Term, Ticket,
};

use crate::{Answer, Applied, Command, Kv, Origin, Query, Refused, Request, SessionOp, Versions};

/// The tables, in memory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory(pub(super) BTreeMap<(TableId, Bytes), Bytes>);

impl Memory {
    pub(super) fn commit(&mut self, checkpoint: Checkpoint) {
        for op in checkpoint.ops {
            match op {
                TableOp::Put { table, key, value } => self.0.insert((table, key), value),
                TableOp::Delete { table, key } => self.0.remove(&(table, key)),
            };
        }
    }
}

impl Records for Memory {
    fn read(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Damage> {
        Ok(self.0.get(&(table, Bytes::copy_from_slice(key))).cloned())
    }

    fn scan(
        &self,
        table: TableId,
        first: &[u8],
        end: Option<&[u8]>,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), Damage> {
        let rows = self.0.range((table, Bytes::copy_from_slice(first))..);
        for ((_, key), value) in rows.take_while(|((other, key), _)| {
            *other == table && end.is_none_or(|end| key.as_ref() < end)
        }) {
            if let ControlFlow::Break(()) = visit(key, value) {
                break;
            }
        }
        Ok(())
    }
}

/// A state machine, its table, and every entry it was given.
#[derive(Clone, Debug, Default)]
pub(super) struct Machine {
    pub(super) kv: Kv,
    pub(super) memory: Memory,
    pub(super) log: Vec<Entry>,
    pub(super) time_ms: u64,
    pub(super) term: Term,
}

impl Machine {
    pub(super) fn request(&mut self, request: Request) -> Applied {
        self.request_as(None, request)
    }

    pub(super) fn request_as(&mut self, session: Option<SessionOp>, request: Request) -> Applied {
        let ticket = Ticket(self.log.len() as u64);
        let origin = Origin { member: MemberId(1), incarnation: 1, ticket };
        let mut command = Command::new(origin, self.time_ms, request);
        command.session = session;
        let applied = self.entry(EntryKind::Command, command.encode()).unwrap();
        assert_eq!(applied.origin, origin);
        applied
    }

    pub(super) fn entry(&mut self, kind: EntryKind, payload: Bytes) -> Option<Applied> {
        let entry =
            Entry::new(self.term.max(Term(1)), Index(self.log.len() as u64 + 1), kind, payload);
        self.log.push(entry.clone());
        self.kv.apply(&self.memory, &entry).unwrap()
    }

    pub(super) fn query(&self, query: &Query) -> Result<Answer, Refused> {
        self.kv.query(&self.memory, query).unwrap()
    }

    /// Settles one checkpoint; false if there is nothing to settle.
    pub(super) fn settle(&mut self, size_bytes_max: usize) -> bool {
        let Some(checkpoint) = self.kv.checkpoint(size_bytes_max) else {
            return false;
        };
        let applied = checkpoint.applied;
        self.memory.commit(checkpoint);
        self.kv.settle(applied);
        true
    }

    /// Forgets what is not settled, loads the table and applies the rest of the log again. The
    /// state must be what it was.
    pub(super) fn crash(&mut self) {
        let before = (self.kv.state_hash(), self.kv.members().cloned());
        let stats = self.kv.stats();
        self.kv = Kv::load(&self.memory, Versions::OF_BUILD).unwrap();
        let settled = usize::try_from(self.kv.applied().index.0).unwrap();
        for entry in &self.log[settled..] {
            self.kv.apply(&self.memory, entry).unwrap();
        }
        assert_eq!((self.kv.state_hash(), self.kv.members().cloned()), before);
        let overlay_size_bytes = self.kv.overlay_size_bytes();
        assert_eq!(self.kv.stats(), crate::Stats { overlay_size_bytes, ..stats });
    }
}
