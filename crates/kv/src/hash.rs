//! etcd's `HashKV`: CRC-32C over `"key"` and then the records in order of revision, row key and
//! value.
//!
//! The rows are etcd's, so the number can be compared with that of a real etcd that was given the
//! same requests. Follows etcd 3.5.16, 3.4.34 and later:
//! - records after the asked revision are left out;
//! - of those up to the compaction, only what a compaction at the asked revision would keep counts
//!   (everything, if that would keep nothing), so a pending physical compaction does not show;
//! - a tombstone exactly at the compaction is left out: older versions drop it from the disk.

use std::ops::ControlFlow;

use kvraft_base::{Damage, DecodeError, Revision, TableId, checksum, checksum_append};

use crate::{
    damage::undecodable, key_value::Fields, reading::Slice, refused::Refused,
    response::HashKvResponse, rev_key::RevKey, view::View,
};

/// A hash of which some records have been read.
#[derive(Clone, Debug)]
pub(crate) struct HashReading {
    /// The row to go on from.
    first: Vec<u8>,
    sum: Sum,
    rule: Rule,
}

/// Which records count.
#[derive(Clone, Copy, Debug)]
enum Rule {
    /// etcd's `HashKV` up to this revision.
    Revision {
        asked: i64,
        /// Whether a compaction at that revision would keep anything.
        keeps_any: bool,
    },
    /// All that were there when the reading began.
    Everything,
}

impl HashReading {
    /// The hash up to `revision`; 0 is the newest. Reads every record.
    pub(crate) fn of_revision(view: &View<'_>, revision: Revision) -> Result<Self, Refused> {
        let asked = match revision.0 {
            0 => view.revision,
            asked if 0 < asked && asked < view.compacted => return Err(Refused::Compacted),
            asked if view.revision < asked => return Err(Refused::FutureRevision),
            asked => asked,
        };
        let rule = Rule::Revision { asked, keeps_any: view.index.any_at(asked) };
        Ok(Self { first: Vec::new(), sum: Sum::default(), rule })
    }

    /// A hash over every record as stored. Reads every record.
    pub(crate) fn of_everything() -> Self {
        Self { first: Vec::new(), sum: Sum::default(), rule: Rule::Everything }
    }

    pub(crate) fn sum(&self) -> u32 {
        self.sum.0
    }

    /// Reads on; true when the last record was read.
    pub(crate) fn advance(&mut self, view: &View<'_>, slice: &mut Slice) -> Result<bool, Damage> {
        let Self { first, sum, rule } = self;
        let from = std::mem::take(first);
        let mut wrong: Option<DecodeError> = None;
        let mut is_done = true;
        view.overlay.scan(view.records, TableId::Records, &from, &mut |row_key, row| {
            slice.spend_record(row.map_or(0, <[u8]>::len));
            let rev = RevKey::decode(row_key);
            let Some(row) = row else {
                return spent(slice, row_key, first, &mut is_done);
            };
            match rev.and_then(|rev| Ok((rev, Fields::decode(row)?))) {
                // Rows ascend by revision: the rest is newer, and may grow while this is read.
                Ok((rev, _)) if rule.last(view) < rev.main => return ControlFlow::Break(()),
                Ok((rev, fields)) => {
                    if rule.counts(view, rev, fields.key) {
                        sum.add(row_key);
                        sum.add(row);
                    }
                }
                Err(error) => {
                    wrong = Some(error);
                    return ControlFlow::Break(());
                }
            }
            spent(slice, row_key, first, &mut is_done)
        })?;
        wrong.map_or(Ok(is_done), |error| Err(undecodable("records", &error)))
    }
}

/// Stops after this row if the slice is spent, and notes where to go on.
fn spent(
    slice: &Slice,
    row_key: &[u8],
    first: &mut Vec<u8>,
    is_done: &mut bool,
) -> ControlFlow<()> {
    if !slice.is_spent() {
        return ControlFlow::Continue(());
    }
    *is_done = false;
    // The least key after this one.
    first.extend_from_slice(row_key);
    first.push(0);
    ControlFlow::Break(())
}

impl Rule {
    /// The last revision that may count.
    fn last(self, view: &View<'_>) -> i64 {
        match self {
            Self::Everything => view.revision,
            Self::Revision { asked, .. } => asked,
        }
    }

    fn counts(self, view: &View<'_>, rev: RevKey, key: &[u8]) -> bool {
        match self {
            Self::Everything => true,
            Self::Revision { asked, keeps_any } => {
                let is_kept = || {
                    let kept = view.index.history(key).and_then(|history| history.at(asked));
                    kept.is_some_and(|change| change.rev == rev)
                };
                let is_dropped = rev.main <= view.compacted && keeps_any && !is_kept();
                let is_boundary = rev.main == view.compacted && rev.tombstone;
                !is_dropped && !is_boundary
            }
        }
    }
}

/// What a finished reading says.
pub(crate) fn hash_kv_response(view: &View<'_>, reading: &HashReading) -> HashKvResponse {
    HashKvResponse {
        revision: Revision(view.revision),
        hash: reading.sum(),
        compact_revision: Revision(view.compacted),
        hash_revision: Revision(reading.rule.last(view)),
    }
}

/// CRC-32C in the making.
#[derive(Clone, Debug)]
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
