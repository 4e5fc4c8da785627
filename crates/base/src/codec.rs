//! Reading and writing our own fixed-width little-endian formats.
//!
//! Decoding never panics and never allocates more than the input holds.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Why bytes could not be decoded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The input ended early.
    #[error("{what}: {missing} more bytes were expected")]
    Short {
        /// The field that was being read.
        what: &'static str,
        /// How many bytes were missing.
        missing: usize,
    },
    /// A field has a value that the format does not define.
    #[error("{what}: {value} is not a known value")]
    Unknown {
        /// The field that was being read.
        what: &'static str,
        /// Its value.
        value: u64,
    },
    /// A length or count is over its bound.
    #[error("{what}: {value} is over the limit of {limit}")]
    TooLarge {
        /// The field that was being read.
        what: &'static str,
        /// Its value.
        value: u64,
        /// The greatest allowed value.
        limit: u64,
    },
    /// Bytes were left over after the last field.
    #[error("{count} bytes after the end")]
    Trailing {
        /// How many.
        count: usize,
    },
    /// A checksum did not match.
    #[error("{what}: checksum mismatch")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
    },
}

/// Reads fields from the front of `Bytes`; byte strings are shared, not copied.
#[derive(Clone, Debug)]
pub struct Reader {
    bytes: Bytes,
}

impl Reader {
    /// Starts at the first byte.
    #[must_use]
    pub fn new(bytes: Bytes) -> Self {
        Self { bytes }
    }

    /// How many bytes are left.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn need(&self, what: &'static str, size: usize) -> Result<(), DecodeError> {
        if self.bytes.len() < size {
            return Err(DecodeError::Short { what, missing: size - self.bytes.len() });
        }
        Ok(())
    }

    /// One byte.
    ///
    /// # Errors
    /// [`DecodeError::Short`] at the end of input; so for all methods below.
    pub fn u8(&mut self, what: &'static str) -> Result<u8, DecodeError> {
        self.need(what, 1)?;
        Ok(self.bytes.get_u8())
    }

    /// A byte that is 0 or 1.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] of any other byte.
    pub fn bool(&mut self, what: &'static str) -> Result<bool, DecodeError> {
        match self.u8(what)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::Unknown { what, value: u64::from(other) }),
        }
    }

    /// Four bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u32(&mut self, what: &'static str) -> Result<u32, DecodeError> {
        self.need(what, 4)?;
        Ok(self.bytes.get_u32_le())
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn u64(&mut self, what: &'static str) -> Result<u64, DecodeError> {
        self.need(what, 8)?;
        Ok(self.bytes.get_u64_le())
    }

    /// Eight bytes, signed.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn i64(&mut self, what: &'static str) -> Result<i64, DecodeError> {
        self.need(what, 8)?;
        Ok(self.bytes.get_i64_le())
    }

    /// A count of things that each take at least `size_min` bytes, so that a lying count is refused
    /// before anything is allocated for it.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when the rest of the input cannot hold that many.
    pub fn count(&mut self, what: &'static str, size_min: usize) -> Result<usize, DecodeError> {
        let count = self.u32(what)?;
        let limit = self.bytes.len() / size_min.max(1);
        match usize::try_from(count) {
            Ok(count) if count <= limit => Ok(count),
            _ => Err(DecodeError::TooLarge { what, value: u64::from(count), limit: limit as u64 }),
        }
    }

    /// A length-prefixed byte string, shared with the input.
    ///
    /// # Errors
    /// [`DecodeError::TooLarge`] when the length runs past the end.
    pub fn bytes(&mut self, what: &'static str) -> Result<Bytes, DecodeError> {
        let size = self.count(what, 1)?;
        Ok(self.bytes.split_to(size))
    }

    /// Exactly `size` bytes without a length prefix.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn take(&mut self, what: &'static str, size: usize) -> Result<Bytes, DecodeError> {
        self.need(what, size)?;
        Ok(self.bytes.split_to(size))
    }

    /// All that is left.
    #[must_use]
    pub fn rest(self) -> Bytes {
        self.bytes
    }

    /// Checks that nothing is left over.
    ///
    /// # Errors
    /// [`DecodeError::Trailing`].
    pub fn finish(self) -> Result<(), DecodeError> {
        if self.bytes.is_empty() {
            return Ok(());
        }
        Err(DecodeError::Trailing { count: self.bytes.len() })
    }
}

/// Writes fields to the end of a buffer.
#[derive(Clone, Debug, Default)]
pub struct Writer {
    bytes: BytesMut,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty buffer with room for `size` bytes.
    #[must_use]
    pub fn with_capacity(size: usize) -> Self {
        Self { bytes: BytesMut::with_capacity(size) }
    }

    /// How many bytes have been written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.bytes.put_u8(value);
        self
    }

    /// One byte, 0 or 1.
    pub fn bool(&mut self, value: bool) -> &mut Self {
        self.u8(u8::from(value))
    }

    /// Four bytes.
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes.put_u32_le(value);
        self
    }

    /// Eight bytes.
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes.put_u64_le(value);
        self
    }

    /// Eight bytes, signed.
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.bytes.put_i64_le(value);
        self
    }

    /// A count, as four bytes.
    ///
    /// # Panics
    /// When it is over `u32::MAX`: counts are bounded long before.
    pub fn count(&mut self, value: usize) -> &mut Self {
        self.u32(u32::try_from(value).expect("counts and lengths are bounded below 4 GiB"))
    }

    /// A length-prefixed byte string.
    pub fn bytes(&mut self, value: &[u8]) -> &mut Self {
        self.count(value.len());
        self.raw(value)
    }

    /// Bytes without a length prefix.
    pub fn raw(&mut self, value: &[u8]) -> &mut Self {
        self.bytes.put_slice(value);
        self
    }

    /// Begins anew, in the same memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
    }

    /// What has been written so far.
    #[must_use]
    pub fn as_slice(&self) -> &[u8] {
        &self.bytes
    }

    /// Gives up the buffer.
    #[must_use]
    pub fn finish(self) -> Bytes {
        self.bytes.freeze()
    }
}
