//! Changes to the table that are not in it yet: queued per entry, and readable by key.
//!
//! Invariants:
//! - batches ascend by position, one per applied entry, so that a checkpoint is a whole prefix;
//! - the view holds, of every key that a queued batch touches, the newest value (or that it was
//!   deleted), so a reader looks here first and then into the table.
//!
//! Bounded by the caller: it stops handing entries over while [`Overlay::size_bytes`] is too high.

use std::{
    collections::{BTreeMap, VecDeque},
    ops::{Bound, ControlFlow},
};

use bytes::Bytes;
use kvraft_base::{Damage, Index, Position, Records, TableId, TableOp};
use serde::{Deserialize, Serialize};

use crate::meta::Meta;

/// What one entry changed.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Batch {
    pub(crate) meta: Meta,
    /// Set when the entry was a configuration: its encoding.
    pub(crate) members: Option<Bytes>,
    pub(crate) ops: Vec<TableOp>,
    size_bytes: usize,
}

/// A row as the newest batch that touches it leaves it.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Slot {
    /// The entry that touched it last.
    index: Index,
    /// `None`: deleted.
    value: Option<Bytes>,
}

/// Called with each row and its value; breaks to stop.
type VisitSlot<'a> = dyn FnMut(&[u8], Option<&[u8]>) -> ControlFlow<()> + 'a;

/// The queue and its view.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Overlay {
    batches: VecDeque<Batch>,
    view: BTreeMap<TableId, BTreeMap<Bytes, Slot>>,
    /// Ops of the entry that is being applied.
    open: Vec<TableOp>,
    size_bytes: usize,
}

impl Overlay {
    /// Sets a row, as part of the entry at `index` that is being applied.
    pub(crate) fn put(&mut self, index: Index, table: TableId, key: Bytes, value: Bytes) {
        let slot = Slot { index, value: Some(value.clone()) };
        self.view.entry(table).or_default().insert(key.clone(), slot);
        self.open.push(TableOp::Put { table, key, value });
    }

    /// Removes a row, as part of the entry at `index` that is being applied.
    pub(crate) fn delete(&mut self, index: Index, table: TableId, key: Bytes) {
        self.view.entry(table).or_default().insert(key.clone(), Slot { index, value: None });
        self.open.push(TableOp::Delete { table, key });
    }

    /// Ends the entry that is being applied: `meta` is the state after it.
    pub(crate) fn seal(&mut self, meta: Meta, members: Option<Bytes>) {
        if let Some(last) = self.batches.back() {
            assert!(last.meta.applied.index < meta.applied.index, "batches ascend");
        }
        let ops = std::mem::take(&mut self.open);
        let ops_size: usize = ops.iter().map(|op| op.size_bytes() + OP_OVERHEAD_BYTES).sum();
        let size_bytes = BATCH_OVERHEAD_BYTES + members.as_ref().map_or(0, Bytes::len) + ops_size;
        self.size_bytes += size_bytes;
        self.batches.push_back(Batch { meta, members, ops, size_bytes });
    }

    /// The oldest batches that together are not over `size_bytes_max`, at least one if there is
    /// one.
    pub(crate) fn prefix(&self, size_bytes_max: usize) -> impl Iterator<Item = &Batch> {
        let mut size_bytes = 0_usize;
        self.batches.iter().enumerate().map_while(move |(place, batch)| {
            size_bytes = size_bytes.saturating_add(batch.size_bytes);
            (place == 0 || size_bytes <= size_bytes_max).then_some(batch)
        })
    }

    /// Drops the batches up to and with `applied`, which are in the table now.
    pub(crate) fn settle(&mut self, applied: Position) {
        while let Some(batch) = self.batches.pop_front_if(|b| b.meta.applied.index <= applied.index)
        {
            self.size_bytes -= batch.size_bytes;
            for op in batch.ops {
                let (TableOp::Put { table, key, .. } | TableOp::Delete { table, key }) = op;
                let rows = self.view.get_mut(&table).expect("a queued row is in the view");
                if rows.get(&key).is_some_and(|slot| slot.index <= applied.index) {
                    rows.remove(&key);
                }
            }
        }
    }

    /// The row as of now: from here, else from the table.
    pub(crate) fn read(
        &self,
        records: &dyn Records,
        table: TableId,
        key: &[u8],
    ) -> Result<Option<Bytes>, Damage> {
        match self.view.get(&table).and_then(|rows| rows.get(key)) {
            Some(slot) => Ok(slot.value.clone()),
            None => records.read(table, key),
        }
    }

    /// Visits the rows of a table as of now from `first` on, in key order: table and queue merged.
    /// A row that is in the table and deleted here is shown without a value, so that the visitor
    /// can count the work. The visitor breaks to stop.
    pub(crate) fn scan(
        &self,
        records: &dyn Records,
        table: TableId,
        first: &[u8],
        visit: &mut VisitSlot<'_>,
    ) -> Result<(), Damage> {
        let empty = BTreeMap::new();
        let rows = self.view.get(&table).unwrap_or(&empty);
        let bounds = (Bound::Included(first), Bound::Unbounded);
        let mut queued = rows.range::<[u8], _>(bounds).peekable();
        let mut flow = ControlFlow::Continue(());
        records.scan(table, first, None, &mut |key, value| {
            while let Some((row, slot)) = queued.next_if(|(row, _)| row.as_ref() < key) {
                flow = visit(row, slot.value.as_deref());
                flow?;
            }
            flow = match queued.next_if(|(row, _)| row.as_ref() == key) {
                Some((row, slot)) => visit(row, slot.value.as_deref()),
                None => visit(key, Some(value)),
            };
            flow
        })?;
        for (row, slot) in queued {
            if flow.is_break() {
                break;
            }
            flow = visit(row, slot.value.as_deref());
        }
        Ok(())
    }

    /// Bytes queued, with an allowance for what holds them.
    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes
    }
}

/// What a batch takes beside its ops.
const BATCH_OVERHEAD_BYTES: usize = 128;
/// What an op takes beside its bytes: itself and its place in the view.
const OP_OVERHEAD_BYTES: usize = 160;
