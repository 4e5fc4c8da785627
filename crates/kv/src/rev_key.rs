//! The key of a record in the table: etcd's backend key.
//!
//! ```text
//! offset  size  field
//!      0     8  main revision, big-endian
//!      8     1  '_'
//!      9     8  sub-revision, big-endian
//!     17     1  't' if the record is a tombstone, else absent
//! ```
//! Big-endian, unlike our own formats, so that the table's order is the order of changes.

use bytes::Bytes;
use kvraft_base::{DecodeError, Reader, Writer};
use serde::{Deserialize, Serialize};

/// Names one change: main revision of the transaction and place within it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub(crate) struct RevKey {
    /// Revision of the transaction. At least 2.
    pub(crate) main: i64,
    /// Place within the transaction, from 0.
    pub(crate) sub: u32,
    /// Whether the change deleted the key.
    pub(crate) tombstone: bool,
}

impl RevKey {
    pub(crate) fn encode(self) -> Bytes {
        let mut writer = Writer::with_capacity(SIZE_BYTES + 1);
        writer.raw(&self.main.to_be_bytes()).u8(b'_').raw(&u64::from(self.sub).to_be_bytes());
        if self.tombstone {
            writer.u8(b't');
        }
        writer.finish()
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(Bytes::copy_from_slice(bytes));
        let main = big_endian(&reader.take("main revision", 8)?);
        let separator = reader.u8("revision separator")?;
        if separator != b'_' {
            let value = u64::from(separator);
            return Err(DecodeError::Unknown { what: "revision separator", value });
        }
        let sub = big_endian(&reader.take("sub-revision", 8)?);
        let tombstone = match reader.rest().as_ref() {
            [] => false,
            [b't'] => true,
            other => return Err(DecodeError::Trailing { count: other.len() }),
        };
        let unknown = |what, value| DecodeError::Unknown { what, value };
        let main = i64::try_from(main).map_err(|_| unknown("main revision", main))?;
        let sub = u32::try_from(sub).map_err(|_| unknown("sub-revision", sub))?;
        Ok(Self { main, sub, tombstone })
    }
}

fn big_endian(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0, |value, byte| value << 8 | u64::from(*byte))
}

const SIZE_BYTES: usize = 17;
