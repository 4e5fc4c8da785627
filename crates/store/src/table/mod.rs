//! The table: what the state machine has settled, in a redb database over our disk.
//!
//! Why redb: copy-on-write views for snapshots and backups, no background threads, and a storage
//! trait. Each commit is durable and two-phase: without that one damaged byte makes redb reopen
//! silently at an older commit. Commits of a large table are quick to repair as well.
//!
//! Invariants:
//! - a file becomes the table only by rename, whole and synced, so creation and snapshot
//!   installation have no half-done state;
//! - a commit carries the applied position it leads to, which only grows;
//! - after the first failure everything is refused; dropping a table whose disk is gone writes
//!   nothing and does not panic.

mod blocks;
#[cfg(test)]
mod crashes;
mod snapshot;
mod sums;
mod view;

use std::{fmt, sync::Arc};

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, Damage, Disk, DiskError, DiskErrorKind, META_APPLIED, META_MEMBERS, Members,
    Position, Reader, Records, RowVisitor, TableId, TableOp, Writer,
};
use redb::{Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction};

use self::blocks::{Backend, Blocks};
pub use self::{
    snapshot::{Export, Import},
    view::TableView,
};
use crate::{Options, TableError, rebuild::condemn};

/// Name of the table's file.
pub(crate) const TABLE_PATH: &str = "table";
/// Its name while it is being written.
pub(crate) const TABLE_TEMP_PATH: &str = "table.new";

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;

fn definition(table: TableId) -> Definition {
    TableDefinition::new(match table {
        TableId::Records => "records",
        TableId::Sessions => "sessions",
        TableId::Meta => "meta",
        TableId::Leases => "leases",
    })
}

/// A redb database and the blocks it stands on.
struct Store {
    disk: Box<dyn Disk>,
    database: Database,
    blocks: Arc<Blocks>,
    /// From this size on, in bytes, a commit records which pages are free.
    quick_repair_from_bytes: u64,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("path", &self.blocks.path()).finish_non_exhaustive()
    }
}

impl Store {
    /// Opens the file at `path`, or makes a new one.
    fn open(disk: &dyn Disk, path: &str, options: &Options, new: bool) -> Result<Self, TableError> {
        let file = if new { disk.create(path)? } else { disk.open(path)? };
        let blocks = Arc::new(Blocks::open(file, path)?);
        if blocks.is_empty() && !new {
            // redb would make a new database of it.
            let detail = "the file is empty".into();
            return Err(Damage::Lost { what: path.into(), detail }.into());
        }
        let backend = Backend(Arc::clone(&blocks));
        let opened = Database::builder()
            .set_cache_size(options.cache_size_bytes)
            .create_with_backend(backend);
        let quick_repair_from_bytes = options.quick_repair_from_bytes;
        match opened {
            Ok(database) => {
                Ok(Self { disk: disk.handle(), database, blocks, quick_repair_from_bytes })
            }
            Err(error) => Err(fault(&blocks, &error).into()),
        }
    }

    fn fault(&self, error: &dyn fmt::Display) -> Damage {
        let damage = fault(&self.blocks, error);
        self.condemn(&damage);
        damage
    }

    /// Damage of the table is written down, so that the next start rebuilds it even if it does not
    /// meet it. The process ends either way, so a failure to do so changes nothing now.
    fn condemn(&self, damage: &Damage) {
        if matches!(damage, Damage::Lost { .. }) && self.blocks.path() == TABLE_PATH {
            drop(condemn(&*self.disk, damage));
        }
    }

    /// Runs `change` in one durable transaction.
    fn write(
        &self,
        change: impl FnOnce(&WriteTransaction) -> Result<(), redb::Error>,
    ) -> Result<(), Damage> {
        let run = || -> Result<(), redb::Error> {
            let mut transaction = self.database.begin_write()?;
            transaction.set_durability(Durability::Immediate)?;
            transaction.set_two_phase_commit(true);
            transaction.set_quick_repair(self.quick_repair_from_bytes <= self.blocks.len());
            change(&transaction)?;
            transaction.commit()?;
            Ok(())
        };
        run().map_err(|error| self.fault(&error))
    }

    fn read(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Damage> {
        let read = || -> Result<_, redb::Error> {
            let rows = self.database.begin_read()?.open_table(definition(table))?;
            Ok(rows.get(key)?.map(|value| Bytes::copy_from_slice(value.value())))
        };
        read().map_err(|error| self.fault(&error))
    }

    /// Closes it, which commits once more and which redb cannot report the failure of.
    fn close(self) -> Result<(), Damage> {
        let blocks = Arc::clone(&self.blocks);
        drop(self);
        blocks.failure().map_or(Ok(()), Err)
    }

    fn applied(&self) -> Result<Position, Damage> {
        let value = self.read(TableId::Meta, META_APPLIED)?;
        value.map_or(Ok(Position::ZERO), |value| decode_position(self.blocks.path(), value))
    }

    fn members(&self) -> Result<Option<Members>, Damage> {
        let Some(value) = self.read(TableId::Meta, META_MEMBERS)? else { return Ok(None) };
        Members::decode(value).map(Some).map_err(|error| Damage::Lost {
            what: format!("{}, members", self.blocks.path()),
            detail: error.to_string(),
        })
    }
}

/// What the blocks say went wrong first, or else what redb says.
fn fault(blocks: &Blocks, error: &dyn fmt::Display) -> Damage {
    blocks
        .failure()
        .unwrap_or_else(|| Damage::Lost { what: blocks.path().into(), detail: error.to_string() })
}

fn decode_position(path: &str, value: Bytes) -> Result<Position, Damage> {
    let mut reader = Reader::new(value);
    Position::decode(&mut reader).map_err(|error| Damage::Lost {
        what: format!("{path}, applied position"),
        detail: error.to_string(),
    })
}

/// The value of [`META_APPLIED`].
fn encode_position(position: Position) -> Bytes {
    let mut writer = Writer::new();
    position.encode(&mut writer);
    writer.finish()
}

/// Whether there is a table that something was committed to.
pub(crate) fn is_used(disk: &dyn Disk) -> Result<bool, TableError> {
    match disk.open(TABLE_PATH) {
        Ok(_) => {}
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error.into()),
    }
    let store = Store::open(disk, TABLE_PATH, &TEMP_OPTIONS, false)?;
    Ok(store.applied()? != Position::ZERO)
}

/// Makes an empty table.
pub(crate) fn create(disk: &dyn Disk) -> Result<(), TableError> {
    let store = create_temp(disk)?;
    close_temp(disk, store)?;
    name_temp(disk)
}

/// Makes an empty table in the place of one that is kept under another name.
pub(crate) fn create_over(disk: &dyn Disk, aside: &str) -> Result<(), TableError> {
    let store = create_temp(disk)?;
    close_temp(disk, store)?;
    match disk.rename(TABLE_PATH, aside) {
        // Of two renames the later one alone may survive a crash, and take what is set aside.
        Ok(()) => disk.sync_dir("")?,
        Err(error) if error.kind == DiskErrorKind::NotFound => {}
        Err(error) => return Err(error.into()),
    }
    name_temp(disk)
}

/// Makes an empty database under the temporary name.
fn create_temp(disk: &dyn Disk) -> Result<Store, TableError> {
    let store = Store::open(disk, TABLE_TEMP_PATH, &TEMP_OPTIONS, true)?;
    store.write(|transaction| {
        for table in TableId::ALL {
            transaction.open_table(definition(table))?;
        }
        Ok(())
    })?;
    Ok(store)
}

/// Closes a database under the temporary name; it is durable there.
fn close_temp(disk: &dyn Disk, store: Store) -> Result<(), TableError> {
    store.close()?;
    Ok(disk.open(TABLE_TEMP_PATH)?.sync()?)
}

/// Makes a closed database under the temporary name the table.
fn name_temp(disk: &dyn Disk) -> Result<(), TableError> {
    disk.rename(TABLE_TEMP_PATH, TABLE_PATH)?;
    Ok(disk.sync_dir("")?)
}

/// The settled state. One writer; readers are made by [`Table::reader`].
#[derive(Debug)]
pub struct Table {
    store: Arc<Store>,
    applied: Position,
    failure: Option<String>,
}

impl Table {
    /// Opens the table of a data directory; also after an install.
    ///
    /// # Errors
    /// [`TableError::Damage`] when it cannot be read or believed.
    pub fn open(disk: &dyn Disk, options: &Options) -> Result<Self, TableError> {
        let store = Store::open(disk, TABLE_PATH, options, false)?;
        let applied = store.applied();
        let table = Self { store: Arc::new(store), applied: Position::ZERO, failure: None };
        match applied {
            Ok(applied) => Ok(Self { applied, ..table }),
            Err(damage) => {
                table.close()?;
                Err(damage.into())
            }
        }
    }

    /// Closes it, for who goes on without: only when that has not failed may it be opened again.
    /// Its readers must have been dropped.
    ///
    /// # Errors
    /// When the disk has failed, now or before.
    ///
    /// # Panics
    /// When a reader is left.
    pub fn close(self) -> Result<(), DiskError> {
        let store = Arc::into_inner(self.store).expect("a table is closed after its readers");
        match store.close() {
            Err(Damage::Disk(error)) => Err(error),
            Err(Damage::Lost { .. }) | Ok(()) => Ok(()),
        }
    }

    /// The last entry whose effects are in the table.
    #[must_use]
    pub fn applied(&self) -> Position {
        self.applied
    }

    /// The configuration in force at [`Table::applied`]; `None` as long as it is the bootstrap one.
    ///
    /// # Errors
    /// [`TableError::Damage`].
    pub fn members(&self) -> Result<Option<Members>, TableError> {
        Ok(self.store.members()?)
    }

    /// Makes a checkpoint durable, as a whole or not at all.
    ///
    /// # Errors
    /// [`TableError`]; then nothing is known about what is durable and the process must end.
    ///
    /// # Panics
    /// When the checkpoint would go back, or does not record the position it leads to.
    pub fn commit(&mut self, checkpoint: &Checkpoint) -> Result<(), TableError> {
        self.refuse_if_failed()?;
        assert!(self.applied.index < checkpoint.applied.index, "a checkpoint only goes forward");
        assert!(self.applied.term <= checkpoint.applied.term, "terms in the log only grow");
        assert!(records_its_position(checkpoint), "a checkpoint must record its position");
        let result = self.store.write(|transaction| apply(transaction, &checkpoint.ops));
        if let Err(damage) = &result {
            self.failure = Some(damage.to_string());
        }
        result?;
        self.applied = checkpoint.applied;
        Ok(())
    }

    fn refuse_if_failed(&self) -> Result<(), TableError> {
        match &self.failure {
            None => Ok(()),
            Some(detail) => Err(TableError::Poisoned {
                path: self.store.blocks.path().into(),
                detail: detail.clone(),
            }),
        }
    }

    /// Read access for other lanes.
    #[must_use]
    pub fn reader(&self) -> TableReader {
        TableReader { store: Arc::clone(&self.store) }
    }

    /// Starts a snapshot: a consistent view that later commits do not disturb.
    ///
    /// # Errors
    /// [`TableError::Damage`].
    pub fn export(&self) -> Result<Export, TableError> {
        self.refuse_if_failed()?;
        Export::begin(Arc::clone(&self.store))
    }
}

fn records_its_position(checkpoint: &Checkpoint) -> bool {
    let expected = encode_position(checkpoint.applied);
    let recorded = checkpoint.ops.iter().rev().find_map(|op| match op {
        TableOp::Put { table: TableId::Meta, key, value } if key == META_APPLIED => Some(value),
        TableOp::Put { .. } | TableOp::Delete { .. } => None,
    });
    recorded == Some(&expected)
}

fn apply(transaction: &WriteTransaction, ops: &[TableOp]) -> Result<(), redb::Error> {
    for table in TableId::ALL {
        let mut open = None;
        for op in ops.iter().filter(|op| table_of(op) == table) {
            if open.is_none() {
                open = Some(transaction.open_table(definition(table))?);
            }
            let Some(rows) = &mut open else { continue };
            match op {
                TableOp::Put { key, value, .. } => rows.insert(&key[..], &value[..])?.map(drop),
                TableOp::Delete { key, .. } => rows.remove(&key[..])?.map(drop),
            };
        }
    }
    Ok(())
}

fn table_of(op: &TableOp) -> TableId {
    match op {
        TableOp::Put { table, .. } | TableOp::Delete { table, .. } => *table,
    }
}

/// Read access to the newest committed state; cheap to clone, usable from any lane.
///
/// It keeps the file open: drop all readers before the table is opened again.
#[derive(Clone, Debug)]
pub struct TableReader {
    store: Arc<Store>,
}

impl TableReader {
    /// The newest committed state, for many reads.
    ///
    /// # Errors
    /// [`Damage`].
    pub fn view(&self) -> Result<TableView, Damage> {
        TableView::begin(Arc::clone(&self.store))
    }

    /// The state machine found the table's contents damaged: the next start rebuilds it.
    pub fn condemn(&self, damage: &Damage) {
        self.store.condemn(damage);
    }
}

impl Records for TableReader {
    fn read(&self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, Damage> {
        self.view()?.read(table, key)
    }

    fn scan(
        &self,
        table: TableId,
        first: &[u8],
        end: Option<&[u8]>,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), Damage> {
        self.view()?.scan(table, first, end, visit)
    }
}

/// While a table is created or imported: a cache of twice what one import transaction holds. A file
/// under its temporary name is never repaired, and closing it records what quick repair needs.
const TEMP_OPTIONS: Options = Options {
    segment_size_bytes: 0,
    cache_size_bytes: 16 * 1024 * 1024,
    quick_repair_from_bytes: u64::MAX,
};
