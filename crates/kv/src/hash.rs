//! etcd's `HashKV`: CRC-32C over `"key"` and then the records in order of revision, row key and
//! value.
//!
//! The rows are etcd's, so the number can be compared with that of a real etcd that was given the
//! same requests. Follows etcd 3.5.16, 3.4.34 and later:
//! - records after the asked revision are left out;
//! - of those up to the compaction, only what a compaction at the asked revision would keep counts
//!   (everything, if that would keep nothing), so a pending physical compaction does not show;
//! - a tombstone exactly at the compaction is left out: older versions drop it from the disk.

use kvraft_base::{Damage, DecodeError, Revision, TableId, checksum, checksum_append};

use crate::{
    damage::undecodable,
    key_value::Fields,
    refused::Refused,
    response::HashKvResponse,
    rev_key::RevKey,
    view::{Stop, View},
};

/// The hash up to `revision`; 0 is the newest. Reads every record.
pub(crate) fn hash_kv(view: &View<'_>, revision: Revision) -> Result<HashKvResponse, Stop> {
    let asked = match revision.0 {
        0 => view.revision,
        asked if 0 < asked && asked < view.compacted => return Err(Refused::Compacted.into()),
        asked if view.revision < asked => return Err(Refused::FutureRevision.into()),
        asked => asked,
    };
    let keeps_any = view.index.any_at(asked);
    let mut sum = Sum::default();
    scan(view, &mut |row_key, rev, row, key| {
        let is_kept = || {
            let kept = view.index.history(key).and_then(|history| history.at(asked));
            kept.is_some_and(|change| change.rev == rev)
        };
        let is_dropped = rev.main <= view.compacted && keeps_any && !is_kept();
        let is_boundary = rev.main == view.compacted && rev.tombstone;
        if rev.main <= asked && !is_dropped && !is_boundary {
            sum.add(row_key);
            sum.add(row);
        }
    })?;
    Ok(HashKvResponse {
        revision: Revision(view.revision),
        hash: sum.0,
        compact_revision: Revision(view.compacted),
        hash_revision: Revision(asked),
    })
}

/// A hash over every record as stored, without any rule. Reads every record.
pub(crate) fn hash_all(view: &View<'_>) -> Result<u32, Damage> {
    let mut sum = Sum::default();
    scan(view, &mut |row_key, _, row, _| {
        sum.add(row_key);
        sum.add(row);
    })?;
    Ok(sum.0)
}

type Visit<'a> = dyn FnMut(&[u8], RevKey, &[u8], &[u8]) + 'a;

/// Visits all records: row key, the same decoded, row, and the key in it.
fn scan(view: &View<'_>, visit: &mut Visit<'_>) -> Result<(), Damage> {
    let mut wrong: Option<DecodeError> = None;
    view.overlay.scan(view.records, TableId::Records, &mut |row_key, row| {
        let rev = RevKey::decode(row_key);
        match rev.and_then(|rev| Ok((rev, Fields::decode(row)?))) {
            Ok((rev, fields)) => visit(row_key, rev, row, fields.key),
            Err(error) => wrong = Some(error),
        }
    })?;
    wrong.map_or(Ok(()), |error| Err(undecodable("records", &error)))
}

/// CRC-32C in the making.
struct Sum(u32);

impl Default for Sum {
    fn default() -> Self {
        Self(checksum(BUCKET))
    }
}

impl Sum {
    fn add(&mut self, bytes: &[u8]) {
        self.0 = checksum_append(self.0, bytes);
    }
}

/// The name of etcd's bucket of records, which its hash begins with.
const BUCKET: &[u8] = b"key";
