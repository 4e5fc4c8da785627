//! Bytes that were left out of a recording: as many zeroes, of which only the count is kept.
//!
//! Why: what a lane does may depend on how long a payload is and never on what is in it. A
//! recording of the lane then keeps its length alone.

use bytes::Bytes;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::codec::{DecodeError, Reader, Writer};

static ZEROES: [u8; 64 * 1024] = [0; 64 * 1024];

/// The longest that is believed, in bytes: longer than any entry or part of a snapshot.
const SIZE_BYTES_MAX: usize = 16 << 20;

/// So many zeroes. Short ones share their memory.
#[must_use]
pub fn zeroes(size_bytes: usize) -> Bytes {
    if size_bytes <= ZEROES.len() {
        Bytes::from_static(&ZEROES[..size_bytes])
    } else {
        vec![0; size_bytes].into()
    }
}

/// Whether nothing but zeroes is in it. Looks at the first bytes only, as a rule.
#[must_use]
pub fn is_zeroes(bytes: &[u8]) -> bool {
    // Compared in long pieces, which is several times as fast as byte by byte.
    bytes.chunks(ZEROES.len()).all(|part| *part == ZEROES[..part.len()])
}

/// Appends bytes, or of zeroes their count.
pub fn encode(bytes: &[u8], writer: &mut Writer) {
    let zeroes = is_zeroes(bytes);
    writer.bool(zeroes);
    if zeroes {
        writer.count(bytes.len());
    } else {
        writer.bytes(bytes);
    }
}

/// Reads what [`encode`] has written.
///
/// # Errors
/// Any [`DecodeError`].
pub fn decode(what: &'static str, reader: &mut Reader) -> Result<Bytes, DecodeError> {
    if !reader.bool(what)? {
        return reader.bytes(what);
    }
    let size = reader.u32(what)?;
    match usize::try_from(size) {
        Ok(size) if size <= SIZE_BYTES_MAX => Ok(zeroes(size)),
        _ => {
            let (value, limit) = (u64::from(size), SIZE_BYTES_MAX as u64);
            Err(DecodeError::TooLarge { what, value, limit })
        }
    }
}

/// For `#[serde(with)]`: a count of zeroes, and the bytes if they are not that.
pub mod field {
    use super::{Bytes, Deserialize, Deserializer, SIZE_BYTES_MAX, Serialize, Serializer};

    /// Writes it.
    ///
    /// # Errors
    /// The serializer's own.
    pub fn serialize<S: Serializer>(bytes: &Bytes, to: S) -> Result<S::Ok, S::Error> {
        let size = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        if super::is_zeroes(bytes) {
            (size, Bytes::new()).serialize(to)
        } else {
            (0_u32, bytes).serialize(to)
        }
    }

    /// Reads it.
    ///
    /// # Errors
    /// The deserializer's own, and a count that nothing has.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Bytes, D::Error> {
        let (size, bytes) = <(u32, Bytes)>::deserialize(from)?;
        match usize::try_from(size) {
            Ok(0) => Ok(bytes),
            Ok(size) if size <= SIZE_BYTES_MAX => Ok(super::zeroes(size)),
            _ => Err(serde::de::Error::custom("a payload of more bytes than any")),
        }
    }
}
