//! Giving a damaged table up: it is set aside, and an empty one takes its place, to be filled again
//! from the journal or from a peer.
//!
//! Why a mark: damage that is met while serving may not be met again when the table is opened (a
//! row that is gone is not missed by who no longer knows of it), so it is written down at once.
//!
//! Invariants:
//! - journal and hard state are not touched: votes given and entries acknowledged stand;
//! - the old file is renamed, never removed; one is kept;
//! - it may be cut short anywhere and is done again.

use kvraft_base::{Damage, Disk, DiskError, DiskErrorKind, Index};

use crate::{
    Note, OpenError, Options, Table, TableError,
    alone::is_alone,
    identity::read_identity,
    journal,
    table::{TABLE_PATH, create, create_over},
};

/// Name of the mark; the file holds what was found.
pub(crate) const REBUILD_PATH: &str = "table.rebuild";
/// Where the damaged file is kept.
pub(crate) const ASIDE_PATH: &str = "table.damaged";
/// Bounds what is read of a mark that is damaged itself.
const TEXT_BYTES_MAX: u64 = 1024;

/// What the mark says, if there is one.
pub(crate) fn condemned(disk: &dyn Disk) -> Result<Option<Damage>, DiskError> {
    let file = match disk.open(REBUILD_PATH) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let size = usize::try_from(file.size()?.min(TEXT_BYTES_MAX)).expect("a small number");
    let mut text = vec![0; size];
    file.read_at(0, &mut text)?;
    let text = String::from_utf8_lossy(&text);
    let detail = format!("found while it was in use: {}", text.trim_end());
    Ok(Some(Damage::Lost { what: TABLE_PATH.into(), detail }))
}

/// Writes the mark.
pub(crate) fn condemn(disk: &dyn Disk, damage: &Damage) -> Result<(), DiskError> {
    match disk.open(REBUILD_PATH) {
        Ok(_) => return Ok(()), // The first finding is the one to know.
        Err(error) if error.kind == DiskErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let file = disk.create(REBUILD_PATH)?;
    file.write_at(0, format!("{damage}\n").as_bytes())?;
    file.sync()?;
    disk.sync_dir("")
}

fn forget(disk: &dyn Disk) -> Result<(), DiskError> {
    disk.remove(REBUILD_PATH)?;
    disk.sync_dir("")
}

/// Sets the table aside and begins an empty one; then the directory can be opened again. The table,
/// its readers and the journal must have been dropped.
///
/// If the journal holds the log from its first entry, replaying that fills the table again; else a
/// peer must send a snapshot.
///
/// # Errors
/// [`OpenError::TableLost`] when neither is possible, and everything is as it was; disk failures.
pub fn rebuild(
    disk: &dyn Disk,
    options: &Options,
    damage: &Damage,
) -> Result<Vec<Note>, OpenError> {
    let identity = read_identity(disk)?;
    let mut notes = Vec::new();
    let journal = journal::recover(disk, &identity, options, &mut notes)?;
    let released = journal.released();
    if Index::ZERO < released.index
        // What is damaged elsewhere may still tell the members.
        && look(disk, options, |table| is_alone(&identity, &journal, table))?
    {
        let detail = damage.to_string();
        return Err(OpenError::TableLost { path: TABLE_PATH.into(), detail, released });
    }
    drop(journal);
    let begun = condemned(disk)?.is_some();
    if begun && is_empty(disk, options)? {
        // An earlier attempt has come so far, or the damage is in this very table. Nobody knows, so
        // it is made anew; what is kept stays.
        create(disk)?;
        forget(disk)?;
        return Ok(notes);
    }
    condemn(disk, damage)?;
    create_over(disk, ASIDE_PATH)?;
    forget(disk)?;
    let detail = damage.to_string();
    notes.push(Note::TableSetAside { path: ASIDE_PATH.into(), detail, released });
    Ok(notes)
}

/// Whether an earlier attempt has come as far as the empty table.
fn is_empty(disk: &dyn Disk, options: &Options) -> Result<bool, OpenError> {
    let is_empty =
        |table: Option<&Table>| table.is_some_and(|it| it.applied().index == Index::ZERO);
    Ok(look(disk, options, is_empty)? && disk.open(ASIDE_PATH).is_ok())
}

/// Looks at the table, if it can be believed. When the disk fails all ends: a process whose sync
/// has failed must not try another.
fn look<T>(
    disk: &dyn Disk,
    options: &Options,
    look: impl FnOnce(Option<&Table>) -> T,
) -> Result<T, OpenError> {
    let table = match Table::open(disk, options) {
        Ok(table) => Some(table),
        Err(TableError::Damage(Damage::Lost { .. })) => None,
        Err(TableError::Damage(Damage::Disk(error))) if error.kind == DiskErrorKind::NotFound => {
            None
        }
        Err(error) => return Err(error.into()),
    };
    let seen = look(table.as_ref());
    table.map_or(Ok(()), Table::close)?;
    Ok(seen)
}
