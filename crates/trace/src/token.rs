//! What a message carries so that its receiver's clock can go on from its sender's.
//!
//! The bytes are those of GoVector: three values of MessagePack one after the other, the sender's
//! name, the id of the trace, and the clock as a map. Go writes maps in any order, so that two
//! encodings of one token can differ: only what they decode to is compared.
//!
//! Decoding takes hostile bytes: it never panics, and allocates no more than they hold.

use std::sync::Arc;

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::clock::{
    CLOCK_NODES_MAX, IDENTITY_SIZE_BYTES_MAX, Identity, VectorClock, from_components,
};

/// A trace that goes on elsewhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    /// Who sends it.
    pub sender: Identity,
    /// Which trace it belongs to.
    pub trace_id: u64,
    /// What the sender knows.
    pub clock: VectorClock,
}

/// Why bytes are no token.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// They end early.
    #[error("the token ends within {0}")]
    Short(&'static str),
    /// Another type of MessagePack stands where this one must.
    #[error("{what}: the byte {byte:#04x} does not begin one")]
    Type {
        /// What was expected.
        what: &'static str,
        /// What stands there.
        byte: u8,
    },
    /// A name is not UTF-8, empty or too long.
    #[error("a name of a node is not text of 1 to {IDENTITY_SIZE_BYTES_MAX} bytes")]
    Name,
    /// A node stands twice in the clock.
    #[error("{0:?} stands twice in the clock")]
    Twice(Identity),
    /// The clock names too many nodes.
    #[error("the clock names {0} nodes; {CLOCK_NODES_MAX} are allowed")]
    Nodes(usize),
    /// Something comes after the end.
    #[error("{0} bytes after the end")]
    Trailing(usize),
    /// The text is not base64.
    #[error("not base64")]
    Base64,
}

impl Token {
    /// As it travels.
    ///
    /// # Panics
    /// If a name is longer than a node's name can be.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(32 + 24 * self.clock.len());
        put_text(&mut bytes, &self.sender);
        bytes.push(0xcf);
        bytes.extend_from_slice(&self.trace_id.to_be_bytes());
        put_map_header(&mut bytes, self.clock.len());
        for (identity, count) in self.clock.iter() {
            put_text(&mut bytes, identity);
            put_number(&mut bytes, count);
        }
        bytes
    }

    /// As it stands in logs.
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(self.encode())
    }

    /// Reads what [`Token::encode`], or GoVector, has written.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn decode(bytes: &[u8]) -> Result<Self, TokenError> {
        let mut input = Input(bytes);
        let sender = input.text("the sender's name")?;
        let trace_id = input.number("the trace's id")?;
        let count = input.map_header("the clock")?;
        if CLOCK_NODES_MAX < count {
            return Err(TokenError::Nodes(count));
        }
        let mut components = Vec::new();
        for _ in 0..count {
            components.push((input.text("a node's name")?, input.number("a count")?));
        }
        if !input.0.is_empty() {
            return Err(TokenError::Trailing(input.0.len()));
        }
        let clock = from_components(components).map_err(TokenError::Twice)?;
        Ok(Self { sender, trace_id, clock })
    }

    /// Reads a token as it stands in logs.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn from_base64(text: &str) -> Result<Self, TokenError> {
        Self::decode(&STANDARD.decode(text).map_err(|_| TokenError::Base64)?)
    }
}

/// The bytes of a base64 text, such as a cluster's view in KVRaft's logs; `None` if it is none.
#[must_use]
pub fn bytes_of_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

fn put_text(bytes: &mut Vec<u8>, text: &str) {
    match u8::try_from(text.len()) {
        Ok(size @ ..=31) => bytes.push(0xa0 | size),
        Ok(size) => bytes.extend_from_slice(&[0xd9, size]),
        Err(_) => panic!("names of nodes are short"),
    }
    bytes.extend_from_slice(text.as_bytes());
}

fn put_map_header(bytes: &mut Vec<u8>, count: usize) {
    match u16::try_from(count).expect("a clock names at most 1,024 nodes") {
        count @ ..=15 => bytes.push(0x80 | count.to_be_bytes()[1]),
        count => {
            bytes.push(0xde);
            bytes.extend_from_slice(&count.to_be_bytes());
        }
    }
}

/// In as few bytes as can be, as GoVector does.
fn put_number(bytes: &mut Vec<u8>, number: u64) {
    let [_, _, _, _, a, b, c, d] = number.to_be_bytes();
    match number {
        0..=0x7f => bytes.push(d),
        0x80..=0xff => bytes.extend_from_slice(&[0xcc, d]),
        0x100..=0xffff => bytes.extend_from_slice(&[0xcd, c, d]),
        0x1_0000..=0xffff_ffff => bytes.extend_from_slice(&[0xce, a, b, c, d]),
        _ => {
            bytes.push(0xcf);
            bytes.extend_from_slice(&number.to_be_bytes());
        }
    }
}

struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take(&mut self, count: usize, what: &'static str) -> Result<&'a [u8], TokenError> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(TokenError::Short(what))?;
        self.0 = rest;
        Ok(taken)
    }

    fn byte(&mut self, what: &'static str) -> Result<u8, TokenError> {
        Ok(self.take(1, what)?[0])
    }

    /// A big-endian number of so many bytes.
    fn big_endian(&mut self, size: usize, what: &'static str) -> Result<u64, TokenError> {
        Ok(self.take(size, what)?.iter().fold(0, |number, byte| number << 8 | u64::from(*byte)))
    }

    fn number(&mut self, what: &'static str) -> Result<u64, TokenError> {
        match self.byte(what)? {
            small @ 0..=0x7f => Ok(u64::from(small)),
            0xcc => self.big_endian(1, what),
            0xcd => self.big_endian(2, what),
            0xce => self.big_endian(4, what),
            0xcf => self.big_endian(8, what),
            byte => Err(TokenError::Type { what, byte }),
        }
    }

    fn size(&mut self, bytes: usize, what: &'static str) -> Result<usize, TokenError> {
        // At most four bytes, which fit.
        Ok(usize::try_from(self.big_endian(bytes, what)?).unwrap_or(usize::MAX))
    }

    fn text(&mut self, what: &'static str) -> Result<Identity, TokenError> {
        let size = match self.byte(what)? {
            short @ 0xa0..=0xbf => usize::from(short & 0x1f),
            0xd9 => self.size(1, what)?,
            0xda => self.size(2, what)?,
            byte => return Err(TokenError::Type { what, byte }),
        };
        if size == 0 || IDENTITY_SIZE_BYTES_MAX < size {
            return Err(TokenError::Name);
        }
        let text = std::str::from_utf8(self.take(size, what)?).map_err(|_| TokenError::Name)?;
        Ok(Arc::from(text))
    }

    fn map_header(&mut self, what: &'static str) -> Result<usize, TokenError> {
        match self.byte(what)? {
            small @ 0x80..=0x8f => Ok(usize::from(small & 0x0f)),
            0xde => self.size(2, what),
            0xdf => self.size(4, what),
            byte => Err(TokenError::Type { what, byte }),
        }
    }
}

#[cfg(test)]
#[path = "token_tests.rs"]
mod tests;
