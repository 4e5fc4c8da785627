//! The bytes of results as sessions keep them: fixed-width little-endian, in the order of the
//! fields.
//!
//! Invariants: as in `request_codec`.

use bytes::Bytes;
use kvraft_base::{ClientId, DecodeError, Reader, Revision, Writer};

use crate::{
    key_value::KeyValue,
    refused::Refused,
    request_codec::DEPTH_MAX,
    response::{
        CompactResponse, DeleteRangeResponse, PutResponse, RangeResponse, Response, ResponseOp,
        TxnResponse,
    },
};

/// The encoding of a result, with a format version in front.
pub(crate) fn encode_result(result: &Result<Response, Refused>) -> Bytes {
    let mut writer = Writer::new();
    writer.u8(VERSION);
    match result {
        Ok(response) => response.encode(writer.u8(RESULT_OK)),
        Err(refused) => refused.encode(writer.u8(RESULT_REFUSED)),
    }
    writer.finish()
}

/// Reads a result back.
pub(crate) fn decode_result(bytes: Bytes) -> Result<Result<Response, Refused>, DecodeError> {
    let mut reader = Reader::new(bytes);
    let version = reader.u8("result version")?;
    if version != VERSION {
        return Err(unknown("result version", version));
    }
    let result = match reader.u8("result kind")? {
        RESULT_OK => Ok(Response::decode(&mut reader)?),
        RESULT_REFUSED => Err(Refused::decode(&mut reader)?),
        other => return Err(unknown("result kind", other)),
    };
    reader.finish()?;
    Ok(result)
}

impl Response {
    /// Appends the encoding.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Put(response) => response.encode(writer.u8(1)),
            Self::DeleteRange(response) => response.encode(writer.u8(2)),
            Self::Txn(response) => response.encode(writer.u8(3)),
            Self::Compact(response) => {
                writer.u8(4).i64(response.revision.0);
            }
            Self::SessionOpened { revision, client } => {
                writer.u8(5).i64(revision.0).u64(client.0);
            }
            Self::SessionClosed { revision } => {
                writer.u8(6).i64(revision.0);
            }
            Self::VersionRaised { revision, version } => {
                writer.u8(7).i64(revision.0).u32(*version);
            }
        }
    }

    /// Reads an encoding back; byte strings are shared with it.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("response kind")? {
            1 => Self::Put(PutResponse::decode(reader)?),
            2 => Self::DeleteRange(DeleteRangeResponse::decode(reader)?),
            3 => Self::Txn(TxnResponse::decode(reader, 1)?),
            4 => Self::Compact(CompactResponse { revision: revision(reader)? }),
            5 => Self::SessionOpened {
                revision: revision(reader)?,
                client: ClientId(reader.u64("client")?),
            },
            6 => Self::SessionClosed { revision: revision(reader)? },
            7 => Self::VersionRaised {
                revision: revision(reader)?,
                version: reader.u32("cluster version")?,
            },
            other => return Err(unknown("response kind", other)),
        })
    }
}

impl RangeResponse {
    fn encode(&self, writer: &mut Writer) {
        writer.i64(self.revision.0);
        encode_kvs(&self.kvs, writer);
        writer.bool(self.more).i64(self.count);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            revision: revision(reader)?,
            kvs: decode_kvs(reader)?,
            more: reader.bool("more")?,
            count: reader.i64("count")?,
        })
    }
}

impl PutResponse {
    fn encode(&self, writer: &mut Writer) {
        writer.i64(self.revision.0).bool(self.prev_kv.is_some());
        if let Some(kv) = &self.prev_kv {
            writer.bytes(&kv.encode());
        }
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let revision = revision(reader)?;
        let has_prev = reader.bool("prev_kv flag")?;
        let prev_kv = has_prev.then(|| decode_kv(reader)).transpose()?;
        Ok(Self { revision, prev_kv })
    }
}

impl DeleteRangeResponse {
    fn encode(&self, writer: &mut Writer) {
        writer.i64(self.revision.0).i64(self.deleted);
        encode_kvs(&self.prev_kvs, writer);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            revision: revision(reader)?,
            deleted: reader.i64("deleted")?,
            prev_kvs: decode_kvs(reader)?,
        })
    }
}

impl TxnResponse {
    fn encode(&self, writer: &mut Writer) {
        writer.i64(self.revision.0).bool(self.succeeded).count(self.responses.len());
        for response in &self.responses {
            match response {
                ResponseOp::Range(range) => range.encode(writer.u8(0)),
                ResponseOp::Put(put) => put.encode(writer.u8(1)),
                ResponseOp::DeleteRange(delete) => delete.encode(writer.u8(2)),
                ResponseOp::Txn(txn) => txn.encode(writer.u8(3)),
            }
        }
    }

    fn decode(reader: &mut Reader, depth: usize) -> Result<Self, DecodeError> {
        if DEPTH_MAX < depth {
            return Err(DecodeError::TooLarge {
                what: "transaction depth",
                value: depth as u64,
                limit: DEPTH_MAX as u64,
            });
        }
        let revision = revision(reader)?;
        let succeeded = reader.bool("succeeded")?;
        let count = reader.count("response count", 1)?;
        let responses =
            (0..count).map(|_| Self::decode_op(reader, depth)).collect::<Result<_, _>>()?;
        Ok(Self { revision, succeeded, responses })
    }

    fn decode_op(reader: &mut Reader, depth: usize) -> Result<ResponseOp, DecodeError> {
        Ok(match reader.u8("response kind")? {
            0 => ResponseOp::Range(RangeResponse::decode(reader)?),
            1 => ResponseOp::Put(PutResponse::decode(reader)?),
            2 => ResponseOp::DeleteRange(DeleteRangeResponse::decode(reader)?),
            3 => ResponseOp::Txn(Self::decode(reader, depth + 1)?),
            other => return Err(unknown("response kind", other)),
        })
    }
}

fn encode_kvs(kvs: &[KeyValue], writer: &mut Writer) {
    writer.count(kvs.len());
    for kv in kvs {
        writer.bytes(&kv.encode());
    }
}

fn decode_kvs(reader: &mut Reader) -> Result<Vec<KeyValue>, DecodeError> {
    let count = reader.count("pair count", 4)?;
    (0..count).map(|_| decode_kv(reader)).collect()
}

fn decode_kv(reader: &mut Reader) -> Result<KeyValue, DecodeError> {
    KeyValue::decode(reader.bytes("pair")?)
}

fn revision(reader: &mut Reader) -> Result<Revision, DecodeError> {
    reader.i64("revision").map(Revision)
}

fn unknown(what: &'static str, value: u8) -> DecodeError {
    DecodeError::Unknown { what, value: u64::from(value) }
}

const VERSION: u8 = 1;
const RESULT_OK: u8 = 0;
const RESULT_REFUSED: u8 = 1;
