//! One committed state of the table, for many reads.
//!
//! Opening a read transaction and a table in it costs more than the read itself; a view pays that
//! once. What is committed after a view was made does not show in it.
//!
//! While a view lives, redb keeps the pages of its state: who holds one lets go of it at every
//! checkpoint, or the file grows.

use std::{cell::OnceCell, fmt, ops::Bound, sync::Arc};

use bytes::Bytes;
use kvraft_base::{Damage, Records, RowVisitor, TableId};
use redb::{ReadOnlyTable, ReadTransaction, ReadableDatabase};

use super::{Store, definition};

type Rows = ReadOnlyTable<&'static [u8], &'static [u8]>;

/// One committed state of the table. It keeps the file open, like [`super::TableReader`].
pub struct TableView {
    transaction: ReadTransaction,
    /// Opened when first asked for; in the order of [`TableId::ALL`].
    tables: [OnceCell<Rows>; TableId::ALL.len()],
    store: Arc<Store>,
}

impl fmt::Debug for TableView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TableView").field("store", &self.store).finish_non_exhaustive()
    }
}

impl TableView {
    pub(super) fn begin(store: Arc<Store>) -> Result<Self, Damage> {
        let transaction = store.database.begin_read().map_err(|error| store.fault(&error))?;
        Ok(Self { transaction, tables: Default::default(), store })
    }

    fn rows(&self, table: TableId) -> Result<&Rows, Damage> {
        let place = TableId::ALL.iter().position(|other| *other == table);
        let cell = &self.tables[place.expect("ALL holds every table")];
        if let Some(rows) = cell.get() {
            return Ok(rows);
        }
        let opened = self.transaction.open_table(definition(table));
        let opened = opened.map_err(|error| self.store.fault(&error))?;
        Ok(cell.get_or_init(|| opened))
    }
}

impl Records for TableView {
    fn read(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Damage> {
        let found = self.rows(table)?.get(key).map_err(|error| self.store.fault(&error))?;
        Ok(found.map(|value| Bytes::copy_from_slice(value.value())))
    }

    fn scan(
        &self,
        table: TableId,
        first: &[u8],
        end: Option<&[u8]>,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), Damage> {
        if end.is_some_and(|end| end <= first) {
            return Ok(());
        }
        let fault = |error: redb::StorageError| self.store.fault(&error);
        let bounds = (Bound::Included(first), end.map_or(Bound::Unbounded, Bound::Excluded));
        for row in self.rows(table)?.range::<&[u8]>(bounds).map_err(fault)? {
            let (key, value) = row.map_err(fault)?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}
