//! Giving a data directory to another cluster: another cluster id, and a log with another end.
//!
//! Why: when a majority is lost for good, one surviving server goes on as a cluster of its own. Its
//! journal and its identity both name the cluster, and must change as one.
//!
//! In this order: a segment with the whole new log is written aside; the mark, which holds the new
//! identity, gets its name: from here on the directory is the new one; the segment gets its name;
//! the identity is replaced; the mark goes. [`crate::open`] ends what was cut short.
//!
//! Layout of the mark: magic, number of the segment, the new identity file (length-prefixed),
//! CRC-32C of all that.
//!
//! Invariants:
//! - before the mark has its name nothing that is believed has changed;
//! - the mark has its name only when the segment is durable, and goes only when the identity is.

use bytes::Bytes;
use kvraft_base::{Disk, DiskError, DiskErrorKind, Entry, HardState, Reader, Writer, checksum};

use crate::{
    Identity, OpenError, Opened,
    identity::{IDENTITY_SIZE_BYTES_MAX, encode, parse, write_identity},
    journal::{NewLog, check_log, name_refounded},
};

/// Name of the mark.
pub(crate) const REFOUND_PATH: &str = "refound";
/// Its name while it is being written.
pub(crate) const REFOUND_TEMP_PATH: &str = "refound.new";
const REFOUND_MAGIC: u64 = u64::from_le_bytes(*b"kvraftRF");
/// Magic, segment, length and checksum.
const FIXED_BYTES: usize = 8 + 8 + 4 + 4;

/// Makes an open directory that of `identity`, with a log that begins where the table ends and
/// holds `entries`. A crash leaves the old directory or the new one.
///
/// # Errors
/// [`OpenError::Gap`] when the table ends before the journal begins, and disk failures.
///
/// # Panics
/// When the entries do not follow the table, or the hard state is behind them.
pub fn refound(
    disk: &dyn Disk,
    opened: Opened,
    identity: &Identity,
    hard_state: HardState,
    entries: &[Entry],
) -> Result<(), OpenError> {
    let (prev, released) = (opened.recovered.applied, opened.recovered.released);
    if prev.index < released.index {
        return Err(OpenError::Gap { applied: prev, released });
    }
    check_log(prev, hard_state, entries);
    let (cluster, member) = (identity.cluster, identity.member);
    let log = NewLog { cluster, member, prev, hard_state, entries };
    let segment = opened.journal.write_refounded(log)?;
    drop(opened);
    write_mark(disk, segment, identity)?;
    finish(disk).map(drop)
}

/// Ends what was cut short after its mark had its name; returns whether there was such a mark.
pub(crate) fn finish(disk: &dyn Disk) -> Result<bool, OpenError> {
    let Some((segment, identity)) = read_mark(disk)? else { return Ok(false) };
    // A killed process may have renamed a mark that is not yet durable under its name.
    disk.sync_dir("")?;
    name_refounded(disk, segment)?;
    write_identity(disk, &identity)?;
    disk.remove(REFOUND_PATH)?;
    disk.sync_dir("")?;
    Ok(true)
}

fn write_mark(disk: &dyn Disk, segment: u64, identity: &Identity) -> Result<(), DiskError> {
    let mut writer = Writer::new();
    writer.u64(REFOUND_MAGIC).u64(segment).bytes(&encode(identity));
    let sum = checksum(writer.as_slice());
    writer.u32(sum);
    let file = disk.create(REFOUND_TEMP_PATH)?;
    file.write_at(0, writer.as_slice())?;
    file.sync()?;
    disk.rename(REFOUND_TEMP_PATH, REFOUND_PATH)?;
    disk.sync_dir("")
}

/// The segment and the identity that the mark names, if there is one.
pub(crate) fn read_mark(disk: &dyn Disk) -> Result<Option<(u64, Identity)>, OpenError> {
    let file = match disk.open(REFOUND_PATH) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let damaged = |detail: &str| OpenError::Damaged {
        path: REFOUND_PATH.into(),
        detail: format!("the mark of a recovery under way: {detail}"),
    };
    let bounds = FIXED_BYTES..=FIXED_BYTES + IDENTITY_SIZE_BYTES_MAX;
    let size = usize::try_from(file.size()?).ok().filter(|size| bounds.contains(size));
    let Some(size) = size else { return Err(damaged("has an impossible size")) };
    let mut bytes = vec![0; size];
    file.read_at(0, &mut bytes)?;
    let (body, sum) = bytes.split_at(size - 4);
    if checksum(body).to_le_bytes() != sum {
        return Err(damaged("checksum mismatch"));
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(body));
    let mut fields = || {
        let magic = reader.u64("mark magic").ok()?;
        let segment = reader.u64("mark segment").ok()?;
        let identity = reader.bytes("mark identity").ok()?;
        (magic == REFOUND_MAGIC).then_some((segment, identity))
    };
    let (segment, identity) = fields().ok_or_else(|| damaged("cannot be decoded"))?;
    Ok(Some((segment, parse(&identity, REFOUND_PATH)?)))
}
