//! Rebuilding the state from the table, after a restart or a snapshot.
//!
//! Reads every record once. What does not fit together is damage: a table is written only by
//! checkpoints, which are atomic.

use std::ops::ControlFlow;

use kvraft_base::{Damage, DecodeError, META_MEMBERS, Members, Records, TableId, checksum};

use crate::{
    damage::{lost, undecodable},
    index::{Change, Generation, Index},
    key_value::Fields,
    kv::Kv,
    meta::Meta,
    overlay::Overlay,
    rev_key::RevKey,
    sessions::Sessions,
    version::{StateError, VERSION_FIRST, Versions},
};

impl Kv {
    /// The state as of the last checkpoint; of an empty table, an empty store.
    ///
    /// # Errors
    /// [`StateError::Damage`] when rows are missing, unreadable or contradict each other;
    /// [`StateError::Unsupported`] when the state is of a cluster version that is not in
    /// `versions`.
    pub fn load(records: &dyn Records, versions: Versions) -> Result<Self, StateError> {
        let Some(meta) = Meta::load(records, versions)? else {
            check_empty(records)?;
            versions.check(VERSION_FIRST)?;
            return Ok(Self::of_versions(versions));
        };
        let members = match records.read(TableId::Meta, META_MEMBERS)? {
            Some(row) => {
                Some(Members::decode(row).map_err(|error| undecodable("configuration", &error))?)
            }
            None => None,
        };
        let mut index = Index::default();
        let mut after = (0, 0);
        scan(records, TableId::Records, &mut |key, value| {
            let rev = RevKey::decode(key)?;
            if (rev.main, rev.sub) <= after {
                return Err(wrong("revision of a record, out of order", rev.main));
            }
            after = (rev.main, rev.sub);
            load_record(&mut index, meta.revision, rev, value)
        })?;
        let mut sessions = Sessions::default();
        scan(records, TableId::Sessions, &mut |key, value| sessions.load(key, value))?;
        Ok(Self { meta, members, index, sessions, overlay: Overlay::default(), versions })
    }
}

/// A table without a state has no rows at all.
fn check_empty(records: &dyn Records) -> Result<(), Damage> {
    for table in TableId::ALL {
        let what = format!("table {table:?}");
        scan(records, table, &mut |_, _| Err(DecodeError::Trailing { count: 1 }))
            .map_err(|_| lost(what, "it has rows without an applied position"))?;
    }
    Ok(())
}

fn load_record(
    index: &mut Index,
    revision: i64,
    rev: RevKey,
    value: &[u8],
) -> Result<(), DecodeError> {
    let fields = Fields::decode(value)?;
    let size_bytes = u32::try_from(value.len()).map_err(|_| DecodeError::TooLarge {
        what: "record",
        value: value.len() as u64,
        limit: u64::from(u32::MAX),
    })?;
    if revision < rev.main {
        return Err(wrong("revision of a record", rev.main));
    }
    if fields.key.is_empty() {
        return Err(wrong("key of a record, empty at revision", rev.main));
    }
    if !rev.tombstone && fields.mod_revision != rev.main {
        return Err(wrong("mod_revision of a record", fields.mod_revision));
    }
    let Fields { create_revision, version, .. } = fields;
    let generation = (!rev.tombstone).then_some(Generation { create_revision, version });
    let change = Change { rev, size_bytes, checksum: checksum(value) };
    index.record(fields.key, change, generation);
    Ok(())
}

fn wrong(what: &'static str, value: i64) -> DecodeError {
    DecodeError::Unknown { what, value: value.cast_unsigned() }
}

type Take<'a> = dyn FnMut(&[u8], &[u8]) -> Result<(), DecodeError> + 'a;

/// Visits all rows of a table until one is wrong.
fn scan(records: &dyn Records, table: TableId, take: &mut Take<'_>) -> Result<(), Damage> {
    let mut outcome = Ok(());
    records.scan(table, &[], None, &mut |key, value| match take(key, value) {
        Ok(()) => ControlFlow::Continue(()),
        Err(error) => {
            outcome =
                Err(undecodable(format!("table {table:?}, row {}", key.escape_ascii()), &error));
            ControlFlow::Break(())
        }
    })?;
    outcome
}
