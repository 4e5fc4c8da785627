//! Snapshots: a table as a stream of checksummed, numbered chunks, and back into a table.
//!
//! A chunk: magic, number, flags (1 first, 2 last); in the first position and configuration; count
//! of rows, each with table, key and value; in the last the count of all rows and the checksum over
//! all rows of all chunks; CRC-32C of the chunk seeded with its number. Rows come by table and key,
//! so the stream is the same on every server with the same state.
//!
//! Invariants: an import is invisible until [`Import::install`]; one cut short leaves a file that
//! recovery removes.

use std::{fmt, ops::Bound, sync::Arc};

use bytes::Bytes;
use kvraft_base::{
    DecodeError, Disk, DiskErrorKind, META_APPLIED, Members, Position, Reader, TableId, TableOp,
    Writer, checksum_seeded,
};
use redb::{ReadTransaction, ReadableDatabase};

use super::{Store, TABLE_TEMP_PATH, apply, close_temp, create_temp, definition, name_temp};
use crate::{ImportError, TableError, install::write_mark};

/// A consistent view of a table being sent.
pub struct Export {
    store: Arc<Store>,
    transaction: ReadTransaction,
    position: Position,
    members: Option<Members>,
    next: Option<Cursor>,
    number: u32,
    row_count: u64,
    rows_sum: u32,
}

/// Where the next row is: in this table, after this key.
#[derive(Clone)]
struct Cursor {
    table: usize,
    after: Option<Vec<u8>>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export")
            .field("position", &self.position)
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl Export {
    pub(super) fn begin(store: Arc<Store>) -> Result<Self, TableError> {
        // Commits need `&mut Table`, so all of this is of one state.
        let transaction = store.database.begin_read().map_err(|error| store.fault(&error))?;
        let position = store.applied()?;
        let members = store.members()?;
        let next = Some(Cursor { table: 0, after: None });
        let (number, row_count, rows_sum) = (0, 0, 0);
        Ok(Self { store, transaction, position, members, next, number, row_count, rows_sum })
    }

    /// The last entry whose effects are in the snapshot.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The configuration at that position; `None` as long as it is the bootstrap one.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// The next chunk, of about `size_bytes` but at least one row; `None` after the last.
    ///
    /// # Errors
    /// [`TableError::Damage`].
    pub fn next_chunk(&mut self, size_bytes: usize) -> Result<Option<Bytes>, TableError> {
        let Some(cursor) = self.next.clone() else { return Ok(None) };
        let (rows, count, next) = self.collect(cursor, size_bytes)?;
        self.row_count += u64::from(count);
        self.rows_sum = checksum_seeded(self.rows_sum.into(), rows.as_slice());
        let mut writer = Writer::with_capacity(rows.len() + CHUNK_OVERHEAD_BYTES);
        let first = self.number == 0;
        let last = next.is_none();
        writer.u32(CHUNK_MAGIC).u32(self.number).bool(first).bool(last);
        if first {
            let members = self.members.as_ref().map(Members::encode).unwrap_or_default();
            self.position.encode(&mut writer);
            writer.bytes(&members);
        }
        writer.u32(count).raw(rows.as_slice());
        if last {
            writer.u64(self.row_count).u32(self.rows_sum);
        }
        let sum = checksum_seeded(self.number.into(), writer.as_slice());
        writer.u32(sum);
        self.number += 1;
        self.next = next;
        Ok(Some(writer.finish()))
    }

    /// Rows from `cursor` on: their encoding, how many, and where to go on.
    fn collect(
        &self,
        mut cursor: Cursor,
        size_bytes: usize,
    ) -> Result<(Writer, u32, Option<Cursor>), TableError> {
        let mut rows = Writer::new();
        let mut count = 0;
        while let Some(&table) = TableId::ALL.get(cursor.table) {
            let open = self.transaction.open_table(definition(table));
            let open = open.map_err(|error| self.store.fault(&error))?;
            let after = cursor.after.clone();
            let start = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let range = open.range::<&[u8]>((start, Bound::Unbounded));
            for row in range.map_err(|error| self.store.fault(&error))? {
                let (key, value) = row.map_err(|error| self.store.fault(&error))?;
                if 0 < count && size_bytes < rows.len() + key.value().len() + value.value().len() {
                    return Ok((rows, count, Some(cursor)));
                }
                rows.u8(table_to_u8(table)).bytes(key.value()).bytes(value.value());
                count += 1;
                cursor.after = Some(key.value().to_vec());
            }
            cursor = Cursor { table: cursor.table + 1, after: None };
        }
        Ok((rows, count, None))
    }
}

/// A table being received.
#[derive(Debug)]
pub struct Import {
    disk: Box<dyn Disk>,
    store: Store,
    position: Position,
    members: Option<Members>,
    number: u32,
    complete: bool,
    row_count: u64,
    rows_sum: u32,
    pending: Vec<TableOp>,
    pending_bytes: usize,
}

/// What a chunk holds.
struct Chunk {
    number: u32,
    last: bool,
    head: Option<(Position, Option<Members>)>,
    ops: Vec<TableOp>,
    rows: Bytes,
    totals: Option<(u64, u32)>,
}

impl Import {
    /// Starts to receive the snapshot of `position`, in a file beside the table. An earlier import
    /// that was not finished is removed.
    ///
    /// # Errors
    /// [`TableError::Damage`] when the disk fails.
    pub fn begin(disk: &dyn Disk, position: Position) -> Result<Self, TableError> {
        // Not overwritten but removed: an import just given up may still hold the old file.
        match disk.remove(TABLE_TEMP_PATH) {
            Ok(()) => {}
            Err(error) if error.kind == DiskErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        Ok(Self {
            disk: disk.handle(),
            store: create_temp(disk)?,
            position,
            members: None,
            number: 0,
            complete: false,
            row_count: 0,
            rows_sum: 0,
            pending: Vec::new(),
            pending_bytes: 0,
        })
    }

    /// The position it was begun for.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The configuration at that position, once the first chunk is here; `None` if it is the
    /// bootstrap one.
    #[must_use]
    pub fn members(&self) -> Option<&Members> {
        self.members.as_ref()
    }

    /// Whether the last chunk has come.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.complete
    }

    /// Takes the next chunk.
    ///
    /// # Errors
    /// [`ImportError`]; then the import is of no further use.
    pub fn push(&mut self, chunk: Bytes) -> Result<(), ImportError> {
        let number = self.number;
        let order = |detail: String| ImportError::Order { number, detail };
        if self.complete {
            return Err(order("the snapshot is already complete".into()));
        }
        let chunk = decode(chunk).map_err(|error| ImportError::Chunk { number, error })?;
        if chunk.number != number {
            return Err(order(format!("chunk {} came instead", chunk.number)));
        }
        match chunk.head {
            Some((position, _)) if position != self.position => {
                return Err(order(format!("is of {position}, not of {}", self.position)));
            }
            Some((_, members)) => self.members = members,
            None => {}
        }
        self.row_count += chunk.ops.len() as u64;
        self.rows_sum = checksum_seeded(self.rows_sum.into(), &chunk.rows);
        if chunk.totals.is_some_and(|totals| totals != (self.row_count, self.rows_sum)) {
            return Err(order("the totals do not match what came".into()));
        }
        self.number += 1;
        self.complete = chunk.last;
        self.pending_bytes += chunk.rows.len();
        self.pending.extend(chunk.ops);
        if IMPORT_BATCH_BYTES <= self.pending_bytes {
            self.flush()?;
        }
        Ok(())
    }

    /// Throws away what was received.
    ///
    /// # Errors
    /// [`TableError::Damage`] when the disk fails.
    pub fn abandon(self) -> Result<(), TableError> {
        let Self { disk, store, .. } = self;
        drop(store);
        Ok(disk.remove(TABLE_TEMP_PATH)?)
    }

    fn flush(&mut self) -> Result<(), TableError> {
        let ops = std::mem::take(&mut self.pending);
        self.pending_bytes = 0;
        self.store.write(|transaction| apply(transaction, &ops))?;
        Ok(())
    }

    /// A row of what has been received so far.
    ///
    /// # Errors
    /// [`TableError::Damage`] when the disk fails.
    pub fn row(&mut self, table: TableId, key: &[u8]) -> Result<Option<Bytes>, TableError> {
        self.flush()?;
        Ok(self.store.read(table, key)?)
    }

    /// Makes what was received the table: synced, marked as an install under way, renamed, the
    /// directory synced. The old table and its readers must have been dropped; open the new one
    /// with [`super::Table::open`], then let [`crate::Journal::reset`] follow, which ends the
    /// install.
    ///
    /// # Errors
    /// [`ImportError::Incomplete`] when chunks are missing, and disk failures.
    pub fn install(self) -> Result<(), ImportError> {
        self.replace(true)
    }

    /// The same where the journal holds the snapshot's position durably and goes on after it: the
    /// table alone is replaced, so nothing is under way afterwards.
    ///
    /// # Errors
    /// As of [`Import::install`].
    pub fn install_below_log(self) -> Result<(), ImportError> {
        self.replace(false)
    }

    fn replace(mut self, marked: bool) -> Result<(), ImportError> {
        if !self.complete {
            let detail = format!("ended before chunk {}", self.number);
            return Err(ImportError::Incomplete { detail });
        }
        self.flush()?;
        let applied = self.store.applied().map_err(TableError::from)?;
        if applied != self.position {
            let detail = format!("its rows are of {applied}, not of {}", self.position);
            return Err(ImportError::Incomplete { detail });
        }
        close_temp(&*self.disk, self.store)?;
        if marked {
            write_mark(&*self.disk, self.position)?;
        }
        name_temp(&*self.disk)?;
        Ok(())
    }
}

fn decode(chunk: Bytes) -> Result<Chunk, DecodeError> {
    let mut reader = Reader::new(chunk.clone());
    let size = reader.remaining();
    if reader.u32("chunk magic")? != CHUNK_MAGIC {
        return Err(DecodeError::Unknown { what: "chunk magic", value: 0 });
    }
    let number = reader.u32("chunk number")?;
    let sum = Reader::new(chunk.slice(size.saturating_sub(4)..)).u32("chunk checksum")?;
    if sum != checksum_seeded(number.into(), &chunk[..size - 4]) {
        return Err(DecodeError::Checksum { what: "chunk" });
    }
    let first = reader.bool("chunk is first")?;
    let last = reader.bool("chunk is last")?;
    let head = if first { Some(decode_head(&mut reader)?) } else { None };
    let count = reader.count("chunk rows", ROW_OVERHEAD_BYTES)?;
    let rows_at = size - reader.remaining();
    let mut ops = Vec::with_capacity(count);
    for _ in 0..count {
        let table = table_from_u8(reader.u8("row table")?)?;
        let (key, value) = (reader.bytes("row key")?, reader.bytes("row value")?);
        ops.push(TableOp::Put { table, key, value });
    }
    let rows = chunk.slice(rows_at..size - reader.remaining());
    let totals =
        if last { Some((reader.u64("total rows")?, reader.u32("total checksum")?)) } else { None };
    reader.u32("chunk checksum")?;
    reader.finish()?;
    Ok(Chunk { number, last, head, ops, rows, totals })
}

fn decode_head(reader: &mut Reader) -> Result<(Position, Option<Members>), DecodeError> {
    let position = Position::decode(reader)?;
    let members = reader.bytes("snapshot members")?;
    let members = if members.is_empty() { None } else { Some(Members::decode(members)?) };
    Ok((position, members))
}

fn table_to_u8(table: TableId) -> u8 {
    match table {
        TableId::Records => 0,
        TableId::Sessions => 1,
        TableId::Meta => 2,
        TableId::Leases => 3,
    }
}

fn table_from_u8(byte: u8) -> Result<TableId, DecodeError> {
    let found = TableId::ALL.into_iter().find(|table| table_to_u8(*table) == byte);
    found.ok_or_else(|| DecodeError::Unknown { what: "row table", value: byte.into() })
}

const CHUNK_MAGIC: u32 = u32::from_le_bytes(*b"kvSN");
/// Everything in a chunk beside rows, at most: seven members are far below this.
const CHUNK_OVERHEAD_BYTES: usize = 512;
/// Table, and the lengths of key and value.
const ROW_OVERHEAD_BYTES: usize = 1 + 4 + 4;
/// Rows written in one transaction of an import: bounds memory, and the stall one commit causes.
const IMPORT_BATCH_BYTES: usize = 8 * 1024 * 1024;
const _: () = assert!(META_APPLIED.len() == 7, "the key is part of the format");
