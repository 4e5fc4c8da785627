//! The mark of a snapshot install under way: a small file that names the snapshot's position.
//!
//! Why: between the moment when a received table gets its name and the moment when the journal
//! begins anew behind it, the table is ahead of the journal. So it is, too, when the journal has
//! lost its end. The first must be completed, the second must not, and only this mark tells them
//! apart.
//!
//! Layout: magic, term, index, CRC-32C of all that.
//!
//! Invariants: the mark is durable before the received table has its name, and goes only when the
//! journal has begun anew; a mark of a position that the table is not at says nothing.

use kvraft_base::{Disk, DiskError, DiskErrorKind, Position, Reader, Writer, checksum};

use crate::OpenError;

/// Name of the mark.
pub(crate) const MARK_PATH: &str = "install";
/// Its name while it is being written.
pub(crate) const MARK_TEMP_PATH: &str = "install.new";
const MARK_MAGIC: u64 = u64::from_le_bytes(*b"kvraftIN");
const MARK_BYTES: usize = 8 + 8 + 8 + 4;

/// What a data directory says about an install.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// None was under way.
    Absent,
    /// One of this position was.
    At(Position),
    /// One was; of what cannot be believed.
    Damaged,
}

/// Says durably that a table of `position` is about to replace the table.
pub(crate) fn write_mark(disk: &dyn Disk, position: Position) -> Result<(), DiskError> {
    let mut writer = Writer::with_capacity(MARK_BYTES);
    position.encode(writer.u64(MARK_MAGIC));
    let sum = checksum(writer.as_slice());
    writer.u32(sum);
    let file = disk.create(MARK_TEMP_PATH)?;
    file.write_at(0, writer.as_slice())?;
    file.sync()?;
    disk.rename(MARK_TEMP_PATH, MARK_PATH)?;
    disk.sync_dir("")
}

/// Reads the mark.
pub(crate) fn read_mark(disk: &dyn Disk) -> Result<Mark, OpenError> {
    let file = match disk.open(MARK_PATH) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => return Ok(Mark::Absent),
        Err(error) => return Err(error.into()),
    };
    if file.size()? != MARK_BYTES as u64 {
        return Ok(Mark::Damaged);
    }
    let mut bytes = vec![0; MARK_BYTES];
    file.read_at(0, &mut bytes)?;
    Ok(decode(&bytes).map_or(Mark::Damaged, Mark::At))
}

fn decode(bytes: &[u8]) -> Option<Position> {
    let (body, sum) = bytes.split_at(MARK_BYTES - 4);
    if checksum(body).to_le_bytes() != sum {
        return None;
    }
    let mut reader = Reader::new(bytes::Bytes::copy_from_slice(body));
    if reader.u64("mark magic").ok()? != MARK_MAGIC {
        return None;
    }
    Position::decode(&mut reader).ok()
}

/// Removes the mark, if there is one, durably.
pub(crate) fn clear_mark(disk: &dyn Disk) -> Result<(), DiskError> {
    match disk.remove(MARK_PATH) {
        Ok(()) => disk.sync_dir(""),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}
