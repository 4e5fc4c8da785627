//! Log entries, positions and hard state.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    Index, MemberId, Term, WriteId,
    checksum::checksum_seeded,
    codec::{DecodeError, Reader, Writer},
};

/// An index together with the term of the entry there: names a whole log prefix (log matching,
/// Raft §5.3).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Position {
    /// Term of the entry. Ordered first, as in Raft's up-to-date comparison (§5.4.1).
    pub term: Term,
    /// Index of the entry.
    pub index: Index,
}

impl Position {
    /// Before the first entry.
    pub const ZERO: Self = Self { term: Term::ZERO, index: Index::ZERO };

    /// Makes a position.
    #[must_use]
    pub fn new(term: Term, index: Index) -> Self {
        Self { term, index }
    }

    /// Appends the encoding: term, then index.
    pub fn encode(self, writer: &mut Writer) {
        writer.u64(self.term.0).u64(self.index.0);
    }

    /// Reads one position.
    ///
    /// # Errors
    /// [`DecodeError::Short`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let term = Term(reader.u64("position term")?);
        Ok(Self { term, index: Index(reader.u64("position index")?) })
    }
}

impl std::fmt::Display for Position {
    /// `index@term`, as in golden scripts.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.index, self.term)
    }
}

/// What an entry's payload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EntryKind {
    /// Nothing: a new leader's first entry of its term (Raft §8).
    Noop,
    /// A command of the state machine.
    Command,
    /// A configuration: [`Members`](crate::Members) encoded.
    Config,
}

impl EntryKind {
    /// Its number in every format.
    #[must_use]
    pub fn to_u8(self) -> u8 {
        match self {
            Self::Noop => 0,
            Self::Command => 1,
            Self::Config => 2,
        }
    }

    /// The kind with this number.
    ///
    /// # Errors
    /// [`DecodeError::Unknown`] of any other number.
    pub fn from_u8(byte: u8) -> Result<Self, DecodeError> {
        match byte {
            0 => Ok(Self::Noop),
            1 => Ok(Self::Command),
            2 => Ok(Self::Config),
            other => Err(DecodeError::Unknown { what: "entry kind", value: u64::from(other) }),
        }
    }
}

/// One entry of the replicated log.
///
/// Its checksum is made where it enters the log and carried through journal, wire and read-back, so
/// that damage anywhere on the way is seen.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Entry {
    /// Term of the leader that appended it.
    pub term: Term,
    /// Where it is in the log.
    pub index: Index,
    /// What the payload is.
    pub kind: EntryKind,
    /// Opaque to consensus.
    #[serde(with = "crate::thin::field")]
    pub payload: Bytes,
    /// CRC-32C over all the above.
    pub checksum: u32,
}

impl Entry {
    /// Encoded bytes of an entry beside its payload.
    pub const OVERHEAD_BYTES: usize = 8 + 8 + 1 + 4 + 4;

    /// Makes an entry and its checksum.
    #[must_use]
    pub fn new(term: Term, index: Index, kind: EntryKind, payload: Bytes) -> Self {
        let checksum = Self::checksum_of(term, index, kind, &payload);
        Self { term, index, kind, payload, checksum }
    }

    fn checksum_of(term: Term, index: Index, kind: EntryKind, payload: &[u8]) -> u32 {
        let place = checksum_seeded(index.0, &term.0.to_le_bytes());
        checksum_seeded(u64::from(place) << 8 | u64::from(kind.to_u8()), payload)
    }

    /// Its index and term.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::new(self.term, self.index)
    }

    /// Encoded size.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        Self::OVERHEAD_BYTES + self.payload.len()
    }

    /// Whether the checksum still matches.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.checksum == Self::checksum_of(self.term, self.index, self.kind, &self.payload)
    }

    /// Of a command: another payload of the same length, with its checksum.
    pub fn replace_command(&mut self, replace: &mut dyn FnMut(&Bytes) -> Bytes) {
        if self.kind == EntryKind::Command {
            let payload = replace(&self.payload);
            assert!(payload.len() == self.payload.len(), "what stands in is as long");
            *self = Self::new(self.term, self.index, self.kind, payload);
        }
    }

    /// Appends the encoding: term, index, kind, checksum, payload with length.
    pub fn encode(&self, writer: &mut Writer) {
        writer
            .u64(self.term.0)
            .u64(self.index.0)
            .u8(self.kind.to_u8())
            .u32(self.checksum)
            .bytes(&self.payload);
    }

    /// Reads one entry and checks its checksum.
    ///
    /// # Errors
    /// Any [`DecodeError`]; [`DecodeError::Checksum`] when the entry is damaged.
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let term = Term(reader.u64("entry term")?);
        let index = Index(reader.u64("entry index")?);
        let kind = EntryKind::from_u8(reader.u8("entry kind")?)?;
        let checksum = reader.u32("entry checksum")?;
        let payload = reader.bytes("entry payload")?;
        let entry = Self { term, index, kind, payload, checksum };
        if !entry.is_intact() {
            return Err(DecodeError::Checksum { what: "entry" });
        }
        Ok(entry)
    }
}

/// What a server must not forget (Raft figure 2, "persistent state"), beside the log.
///
/// `commit` is a hint that speeds recovery up and lets it refuse to cut what was committed; it may
/// lag behind the truth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct HardState {
    /// Latest term seen. Never goes back.
    pub term: Term,
    /// Who got this server's vote in `term`. Never changes within a term once set.
    pub vote: Option<MemberId>,
    /// Highest index known committed when this was written.
    pub commit: Index,
}

/// One turn's worth of things to remember: consensus asks, the journal makes it durable, and
/// answers with the id. Handled strictly in order of `id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Write {
    /// Names this write in its completion. Strictly grows.
    pub id: WriteId,
    /// The hard state as of this write; replaces the previous one.
    pub hard_state: HardState,
    /// First index to forget before the entries are appended, if the log conflicts with the
    /// leader's.
    pub truncate_from: Option<Index>,
    /// Contiguous; the first follows what is left of the log.
    pub entries: Vec<Entry>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A flipped bit anywhere in an encoded entry is seen.
    #[test]
    fn damaged_entry_is_refused() {
        let entry = Entry::new(Term(3), Index(7), EntryKind::Command, Bytes::from_static(b"put"));
        let mut writer = Writer::new();
        entry.encode(&mut writer);
        let bytes = writer.finish();
        assert_eq!(Entry::decode(&mut Reader::new(bytes.clone())), Ok(entry));
        for at in 0..bytes.len() {
            let mut damaged = bytes.to_vec();
            damaged[at] ^= 0x10;
            let result = Entry::decode(&mut Reader::new(damaged.into()));
            assert!(result.is_err(), "a flip at byte {at} went unseen");
        }
    }
}
