//! The record of one change to one key: etcd's `mvccpb.KeyValue`, and its protobuf bytes.
//!
//! Why by hand: the record is what the table stores and what `HashKV` is computed over, so its
//! bytes must be exactly etcd's: fields in order of number, zero and empty fields left out.
//!
//! Invariants: decoding is bounded by the input and never panics; fields with unknown numbers are
//! skipped, as protobuf asks.

use bytes::Bytes;
use kvraft_base::{DecodeError, Revision, Writer};

/// One key at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct KeyValue {
    /// The key.
    pub key: Bytes,
    /// Revision at which it was created, since it was last deleted.
    pub create_revision: Revision,
    /// Revision at which it was last written.
    pub mod_revision: Revision,
    /// How often it was written since it was created.
    pub version: i64,
    /// The value.
    pub value: Bytes,
    /// The lease it is attached to; 0 is none.
    pub lease: i64,
}

/// A decoded record that borrows from the bytes.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) key: &'a [u8],
    pub(crate) create_revision: i64,
    pub(crate) mod_revision: i64,
    pub(crate) version: i64,
    pub(crate) value: &'a [u8],
    pub(crate) lease: i64,
}

impl KeyValue {
    /// The protobuf encoding.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::with_capacity(self.key.len() + self.value.len() + OVERHEAD_BYTES);
        put_bytes(&mut writer, FIELD_KEY, &self.key);
        put_number(&mut writer, FIELD_CREATE_REVISION, self.create_revision.0);
        put_number(&mut writer, FIELD_MOD_REVISION, self.mod_revision.0);
        put_number(&mut writer, FIELD_VERSION, self.version);
        put_bytes(&mut writer, FIELD_VALUE, &self.value);
        put_number(&mut writer, FIELD_LEASE, self.lease);
        writer.finish()
    }

    /// Reads the encoding back; byte strings are shared with it.
    ///
    /// # Errors
    /// [`DecodeError`] when the bytes are not a protobuf message of this shape.
    pub fn decode(bytes: Bytes) -> Result<Self, DecodeError> {
        let fields = Fields::decode(&bytes)?;
        Ok(Self {
            key: share(&bytes, fields.key),
            create_revision: Revision(fields.create_revision),
            mod_revision: Revision(fields.mod_revision),
            version: fields.version,
            value: share(&bytes, fields.value),
            lease: fields.lease,
        })
    }
}

impl<'a> Fields<'a> {
    pub(crate) fn decode(mut bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let mut fields = Self::default();
        while !bytes.is_empty() {
            let tag = take_varint(&mut bytes)?;
            match (tag >> 3, tag & 7) {
                (FIELD_KEY, WIRE_BYTES) => fields.key = take_bytes(&mut bytes)?,
                (FIELD_CREATE_REVISION, WIRE_VARINT) => {
                    fields.create_revision = take_number(&mut bytes)?;
                }
                (FIELD_MOD_REVISION, WIRE_VARINT) => {
                    fields.mod_revision = take_number(&mut bytes)?;
                }
                (FIELD_VERSION, WIRE_VARINT) => fields.version = take_number(&mut bytes)?,
                (FIELD_VALUE, WIRE_BYTES) => fields.value = take_bytes(&mut bytes)?,
                (FIELD_LEASE, WIRE_VARINT) => fields.lease = take_number(&mut bytes)?,
                (number, wire) => skip(&mut bytes, number, wire)?,
            }
        }
        Ok(fields)
    }
}

fn share(bytes: &Bytes, part: &[u8]) -> Bytes {
    if part.is_empty() { Bytes::new() } else { bytes.slice_ref(part) }
}

fn put_bytes(writer: &mut Writer, field: u64, value: &[u8]) {
    if value.is_empty() {
        return;
    }
    put_varint(writer, field << 3 | WIRE_BYTES);
    put_varint(writer, value.len() as u64);
    writer.raw(value);
}

fn put_number(writer: &mut Writer, field: u64, value: i64) {
    if value == 0 {
        return;
    }
    put_varint(writer, field << 3 | WIRE_VARINT);
    put_varint(writer, value.cast_unsigned());
}

fn put_varint(writer: &mut Writer, mut value: u64) {
    for _ in 0..VARINT_BYTES_MAX {
        let low = u8::try_from(value & 0x7f).expect("seven bits fit in a byte");
        value >>= 7;
        if value == 0 {
            writer.u8(low);
            return;
        }
        writer.u8(low | 0x80);
    }
}

fn take_varint(bytes: &mut &[u8]) -> Result<u64, DecodeError> {
    let mut value = 0_u64;
    for place in 0..VARINT_BYTES_MAX {
        let Some((byte, rest)) = bytes.split_first() else {
            return Err(DecodeError::Short { what: "varint", missing: 1 });
        };
        *bytes = rest;
        let low = u64::from(byte & 0x7f);
        if place == VARINT_BYTES_MAX - 1 && 1 < *byte {
            break;
        }
        value |= low << (7 * place);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(DecodeError::Unknown { what: "varint", value })
}

fn take_number(bytes: &mut &[u8]) -> Result<i64, DecodeError> {
    take_varint(bytes).map(u64::cast_signed)
}

fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], DecodeError> {
    let size = take_varint(bytes)?;
    let limit = bytes.len() as u64;
    match usize::try_from(size) {
        Ok(size) if size <= bytes.len() => {
            let (part, rest) = bytes.split_at(size);
            *bytes = rest;
            Ok(part)
        }
        _ => Err(DecodeError::TooLarge { what: "record field", value: size, limit }),
    }
}

/// Passes over a field that this version does not know.
fn skip(bytes: &mut &[u8], number: u64, wire: u64) -> Result<(), DecodeError> {
    if number <= FIELD_LEASE {
        return Err(DecodeError::Unknown { what: "record field", value: number << 3 | wire });
    }
    let size = match wire {
        WIRE_VARINT => return take_varint(bytes).map(drop),
        WIRE_BYTES => return take_bytes(bytes).map(drop),
        1 => 8,
        5 => 4,
        other => return Err(DecodeError::Unknown { what: "wire type", value: other }),
    };
    let Some(rest) = bytes.get(size..) else {
        return Err(DecodeError::Short { what: "record field", missing: size - bytes.len() });
    };
    *bytes = rest;
    Ok(())
}

const FIELD_KEY: u64 = 1;
const FIELD_CREATE_REVISION: u64 = 2;
const FIELD_MOD_REVISION: u64 = 3;
const FIELD_VERSION: u64 = 4;
const FIELD_VALUE: u64 = 5;
const FIELD_LEASE: u64 = 6;
const WIRE_VARINT: u64 = 0;
const WIRE_BYTES: u64 = 2;
const VARINT_BYTES_MAX: u32 = 10;
/// Tags, lengths and numbers beside key and value.
const OVERHEAD_BYTES: usize = 64;
