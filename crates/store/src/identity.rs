//! The identity file: which member of which cluster a data directory belongs to.
//!
//! It is written last when a directory is formatted, so it also says that the rest is complete.
//! Layout: magic, format version, minimum reader version, group, cluster, member, bootstrap members
//! (length-prefixed), CRC-32C of all that.

use bytes::Bytes;
use kvraft_base::{
    ClusterId, DecodeError, Disk, DiskError, DiskErrorKind, HardState, MemberId, Members, Position,
    Reader, Writer, checksum,
};

use crate::{OpenError, journal, refound, table};

/// Version of the on-disk formats that this build writes, and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;
/// Least format version a reader must know to read what this build writes.
pub(crate) const READER_VERSION_MIN: u32 = 1;
/// Name of the identity file.
pub(crate) const IDENTITY_PATH: &str = "identity";
/// Its name while it is being written.
pub(crate) const IDENTITY_TEMP_PATH: &str = "identity.new";
const IDENTITY_MAGIC: u64 = u64::from_le_bytes(*b"kvraftID");

/// Which member of which cluster a data directory belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The cluster.
    pub cluster: ClusterId,
    /// This member.
    pub member: MemberId,
    /// The configuration the cluster was started with.
    pub members: Members,
}

impl Identity {
    /// The configuration that the log begins with, if it is certain: a founder knows it, and has a
    /// vote in it. Who joins later is a learner in what it was told.
    #[must_use]
    pub fn founding_members(&self) -> Option<&Members> {
        Some(&self.members).filter(|members| members.is_voter(self.member))
    }
}

/// Makes a new data directory: an empty journal, an empty table, and last the identity.
///
/// # Errors
/// [`OpenError::InUse`] when the directory already holds a member's data, and disk failures. A
/// format that was cut short is done again from the start.
pub fn format(disk: &dyn Disk, identity: &Identity) -> Result<(), OpenError> {
    if is_formatted(disk)? {
        return Err(OpenError::InUse { path: IDENTITY_PATH.into() });
    }
    disk.create_dir(journal::DIR)?;
    disk.sync_dir("")?;
    journal::clear_unused(disk)?;
    if table::is_used(disk)? {
        return Err(OpenError::InUse { path: table::TABLE_PATH.into() });
    }
    journal::create_first(disk, identity, Position::ZERO, HardState::default())?;
    table::create(disk)?;
    write_identity(disk, identity)?;
    Ok(())
}

/// Whether the directory holds a complete identity.
///
/// # Errors
/// Disk failures.
pub fn is_formatted(disk: &dyn Disk) -> Result<bool, DiskError> {
    match disk.open(IDENTITY_PATH) {
        Ok(_) => Ok(true),
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Replaces the identity file, durably.
pub(crate) fn write_identity(disk: &dyn Disk, identity: &Identity) -> Result<(), DiskError> {
    let file = disk.create(IDENTITY_TEMP_PATH)?;
    file.write_at(0, &encode(identity))?;
    file.sync()?;
    disk.rename(IDENTITY_TEMP_PATH, IDENTITY_PATH)?;
    disk.sync_dir("")
}

/// The bytes of the identity file.
pub(crate) fn encode(identity: &Identity) -> Bytes {
    let mut writer = Writer::new();
    writer.u64(IDENTITY_MAGIC).u32(FORMAT_VERSION).u32(READER_VERSION_MIN);
    writer.u64(0).u64(identity.cluster.0).u64(identity.member.0).bytes(&identity.members.encode());
    let sum = checksum(writer.as_slice());
    writer.u32(sum);
    writer.finish()
}

/// Whose the directory is. One that was being given to another cluster when that was cut short is
/// the other cluster's already, since [`crate::open`] would end it.
///
/// # Errors
/// [`OpenError`]: not formatted, damaged, of a later version, or not readable.
pub fn read_identity(disk: &dyn Disk) -> Result<Identity, OpenError> {
    if let Some((_, identity)) = refound::read_mark(disk)? {
        return Ok(identity);
    }
    let file = match disk.open(IDENTITY_PATH) {
        Ok(file) => file,
        Err(error) if error.kind == DiskErrorKind::NotFound => {
            return Err(OpenError::NotFormatted { path: error.path });
        }
        Err(error) => return Err(error.into()),
    };
    let size = usize::try_from(file.size()?).ok().filter(|size| *size <= IDENTITY_SIZE_BYTES_MAX);
    let Some(size) = size else {
        let detail = "has an impossible size".into();
        return Err(OpenError::Damaged { path: IDENTITY_PATH.into(), detail });
    };
    let mut buffer = vec![0; size];
    file.read_at(0, &mut buffer)?;
    parse(&buffer, IDENTITY_PATH)
}

/// Checks the bytes of an identity file; errors name `path`.
pub(crate) fn parse(bytes: &[u8], path: &str) -> Result<Identity, OpenError> {
    let damaged = |detail: String| OpenError::Damaged { path: path.into(), detail };
    let Some((body, sum)) = bytes.split_last_chunk::<4>() else {
        return Err(damaged("has an impossible size".into()));
    };
    if !body.starts_with(&IDENTITY_MAGIC.to_le_bytes()) {
        return Err(damaged("not a kvraft identity file".into()));
    }
    if checksum(body).to_le_bytes() != *sum {
        return Err(damaged("checksum mismatch".into()));
    }
    let mut reader = Reader::new(Bytes::copy_from_slice(body));
    let (needed, identity) = decode(&mut reader).map_err(|error| damaged(error.to_string()))?;
    if FORMAT_VERSION < needed {
        let supported = FORMAT_VERSION;
        return Err(OpenError::Newer { path: path.into(), needed, supported });
    }
    identity.ok_or_else(|| damaged("members cannot be decoded".into()))
}

/// The minimum reader version, and the identity if this build can read that version.
fn decode(reader: &mut Reader) -> Result<(u32, Option<Identity>), DecodeError> {
    reader.u64("identity magic")?;
    reader.u32("identity format version")?;
    let needed = reader.u32("identity reader version")?;
    if FORMAT_VERSION < needed {
        return Ok((needed, None));
    }
    reader.u64("identity group")?;
    let cluster = ClusterId(reader.u64("identity cluster")?);
    let member = MemberId(reader.u64("identity member")?);
    let members = Members::decode(reader.bytes("identity members")?)?;
    Ok((needed, Some(Identity { cluster, member, members })))
}

/// Far above what seven members need; bounds what is read of a foreign file.
pub(crate) const IDENTITY_SIZE_BYTES_MAX: usize = 64 * 1024;
