//! The bytes of requests in the log: fixed-width little-endian, in the order of the fields.
//!
//! Invariants: decoding is bounded in memory by the input and in depth by [`DEPTH_MAX`]; it never
//! panics.

use bytes::Bytes;
use kvraft_base::{ClientId, DecodeError, Reader, Revision, Writer, limits};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use crate::request::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, Query,
    RangeRequest, Request, RequestOp, SortOrder, SortTarget, TxnRequest,
};

impl Request {
    /// The number of the variant in the envelope.
    pub(crate) fn kind(&self) -> u8 {
        match self {
            Self::Put(_) => KIND_PUT,
            Self::DeleteRange(_) => KIND_DELETE_RANGE,
            Self::Txn(_) => KIND_TXN,
            Self::Compact(_) => KIND_COMPACT,
            Self::OpenSession { .. } => KIND_OPEN_SESSION,
            Self::CloseSession { .. } => KIND_CLOSE_SESSION,
            Self::RaiseVersion { .. } => KIND_RAISE_VERSION,
        }
    }

    pub(crate) fn encode_body(&self, writer: &mut Writer) {
        match self {
            Self::Put(put) => put.encode(writer),
            Self::DeleteRange(delete) => delete.encode(writer),
            Self::Txn(txn) => txn.encode(writer),
            Self::Compact(compact) => {
                writer.i64(compact.revision.0).bool(compact.physical);
            }
            Self::OpenSession { ttl_ms } => {
                writer.u64(*ttl_ms);
            }
            Self::CloseSession { client } => {
                writer.u64(client.0);
            }
            Self::RaiseVersion { version } => {
                writer.u32(*version);
            }
        }
    }

    pub(crate) fn decode_body(kind: u8, reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match kind {
            KIND_PUT => Self::Put(PutRequest::decode(reader)?),
            KIND_DELETE_RANGE => Self::DeleteRange(DeleteRangeRequest::decode(reader)?),
            KIND_TXN => Self::Txn(TxnRequest::decode(reader, 1)?),
            KIND_COMPACT => Self::Compact(CompactRequest {
                revision: Revision(reader.i64("compaction revision")?),
                physical: reader.bool("physical")?,
            }),
            KIND_OPEN_SESSION => Self::OpenSession { ttl_ms: reader.u64("session ttl")? },
            KIND_CLOSE_SESSION => Self::CloseSession { client: ClientId(reader.u64("client")?) },
            KIND_RAISE_VERSION => Self::RaiseVersion { version: reader.u32("cluster version")? },
            other => return Err(unknown("command kind", other)),
        })
    }
}

impl Query {
    /// Appends the encoding: for what is recorded, never for the log.
    pub fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Range(range) => range.encode(writer.u8(1)),
            Self::Txn(txn) => txn.encode(writer.u8(2)),
            Self::HashKv { revision } => {
                writer.u8(3).i64(revision.0);
            }
            Self::Hash => {
                writer.u8(4);
            }
        }
    }

    /// Reads a query back.
    ///
    /// # Errors
    /// Any [`DecodeError`].
    pub fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(match reader.u8("query kind")? {
            1 => Self::Range(RangeRequest::decode(reader)?),
            2 => Self::Txn(TxnRequest::decode(reader, 1)?),
            3 => Self::HashKv { revision: Revision(reader.i64("hash revision")?) },
            4 => Self::Hash,
            other => return Err(unknown("query kind", other)),
        })
    }
}

/// As its own encoding, which is bounded in depth.
impl Serialize for Query {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut writer = Writer::new();
        self.encode(&mut writer);
        writer.finish().serialize(to)
    }
}

impl<'de> Deserialize<'de> for Query {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let mut reader = Reader::new(Bytes::deserialize(from)?);
        let query = Self::decode(&mut reader).map_err(D::Error::custom)?;
        reader.finish().map_err(D::Error::custom)?;
        Ok(query)
    }
}

impl PutRequest {
    fn encode(&self, writer: &mut Writer) {
        writer
            .bytes(&self.key)
            .bytes(&self.value)
            .i64(self.lease)
            .bool(self.prev_kv)
            .bool(self.ignore_value)
            .bool(self.ignore_lease);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.bytes("put key")?,
            value: reader.bytes("put value")?,
            lease: reader.i64("put lease")?,
            prev_kv: reader.bool("put prev_kv")?,
            ignore_value: reader.bool("put ignore_value")?,
            ignore_lease: reader.bool("put ignore_lease")?,
        })
    }
}

impl DeleteRangeRequest {
    fn encode(&self, writer: &mut Writer) {
        writer.bytes(&self.key).bytes(&self.range_end).bool(self.prev_kv);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.bytes("delete key")?,
            range_end: reader.bytes("delete range_end")?,
            prev_kv: reader.bool("delete prev_kv")?,
        })
    }
}

impl RangeRequest {
    fn encode(&self, writer: &mut Writer) {
        writer
            .bytes(&self.key)
            .bytes(&self.range_end)
            .i64(self.limit)
            .i64(self.revision.0)
            .u8(number(&SortOrder::ALL, &self.sort_order))
            .u8(number(&SortTarget::ALL, &self.sort_target))
            .bool(self.serializable)
            .bool(self.keys_only)
            .bool(self.count_only)
            .i64(self.min_mod_revision.0)
            .i64(self.max_mod_revision.0)
            .i64(self.min_create_revision.0)
            .i64(self.max_create_revision.0);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        Ok(Self {
            key: reader.bytes("range key")?,
            range_end: reader.bytes("range range_end")?,
            limit: reader.i64("range limit")?,
            revision: Revision(reader.i64("range revision")?),
            sort_order: choice(&SortOrder::ALL, "sort order", reader)?,
            sort_target: choice(&SortTarget::ALL, "sort target", reader)?,
            serializable: reader.bool("serializable")?,
            keys_only: reader.bool("keys_only")?,
            count_only: reader.bool("count_only")?,
            min_mod_revision: Revision(reader.i64("min_mod_revision")?),
            max_mod_revision: Revision(reader.i64("max_mod_revision")?),
            min_create_revision: Revision(reader.i64("min_create_revision")?),
            max_create_revision: Revision(reader.i64("max_create_revision")?),
        })
    }
}

impl Compare {
    fn encode(&self, writer: &mut Writer) {
        writer.u8(number(&CompareResult::ALL, &self.result));
        match &self.target {
            CompareTarget::Version(version) => writer.u8(0).i64(*version),
            CompareTarget::Create(revision) => writer.u8(1).i64(revision.0),
            CompareTarget::Mod(revision) => writer.u8(2).i64(revision.0),
            CompareTarget::Value(value) => writer.u8(3).bytes(value),
            CompareTarget::Lease(lease) => writer.u8(4).i64(*lease),
        };
        writer.bytes(&self.key).bytes(&self.range_end);
    }

    fn decode(reader: &mut Reader) -> Result<Self, DecodeError> {
        let result = choice(&CompareResult::ALL, "compare result", reader)?;
        let target = match reader.u8("compare target")? {
            0 => CompareTarget::Version(reader.i64("compare version")?),
            1 => CompareTarget::Create(Revision(reader.i64("compare create revision")?)),
            2 => CompareTarget::Mod(Revision(reader.i64("compare mod revision")?)),
            3 => CompareTarget::Value(reader.bytes("compare value")?),
            4 => CompareTarget::Lease(reader.i64("compare lease")?),
            other => return Err(unknown("compare target", other)),
        };
        let key = reader.bytes("compare key")?;
        let range_end = reader.bytes("compare range_end")?;
        Ok(Self { result, target, key, range_end })
    }
}

impl TxnRequest {
    /// Recursive, and bounded as the decoder is: what is encoded has passed the check of sizes.
    fn encode(&self, writer: &mut Writer) {
        writer.count(self.compare.len());
        for compare in &self.compare {
            compare.encode(writer);
        }
        for branch in [&self.success, &self.failure] {
            writer.count(branch.len());
            for op in branch {
                op.encode(writer);
            }
        }
    }

    /// Recursive to at most [`DEPTH_MAX`].
    fn decode(reader: &mut Reader, depth: usize) -> Result<Self, DecodeError> {
        if DEPTH_MAX < depth {
            return Err(DecodeError::TooLarge {
                what: "transaction depth",
                value: depth as u64,
                limit: DEPTH_MAX as u64,
            });
        }
        let count = reader.count("compare count", 1)?;
        let compare = (0..count).map(|_| Compare::decode(reader)).collect::<Result<_, _>>()?;
        let success = Self::decode_branch(reader, depth)?;
        let failure = Self::decode_branch(reader, depth)?;
        Ok(Self { compare, success, failure })
    }

    fn decode_branch(reader: &mut Reader, depth: usize) -> Result<Vec<RequestOp>, DecodeError> {
        let count = reader.count("operation count", 1)?;
        (0..count).map(|_| RequestOp::decode(reader, depth)).collect()
    }
}

impl RequestOp {
    fn encode(&self, writer: &mut Writer) {
        match self {
            Self::Range(range) => range.encode(writer.u8(KIND_RANGE)),
            Self::Put(put) => put.encode(writer.u8(KIND_PUT)),
            Self::DeleteRange(delete) => delete.encode(writer.u8(KIND_DELETE_RANGE)),
            Self::Txn(txn) => txn.encode(writer.u8(KIND_TXN)),
        }
    }

    fn decode(reader: &mut Reader, depth: usize) -> Result<Self, DecodeError> {
        Ok(match reader.u8("operation kind")? {
            KIND_RANGE => Self::Range(RangeRequest::decode(reader)?),
            KIND_PUT => Self::Put(PutRequest::decode(reader)?),
            KIND_DELETE_RANGE => Self::DeleteRange(DeleteRangeRequest::decode(reader)?),
            KIND_TXN => Self::Txn(TxnRequest::decode(reader, depth + 1)?),
            other => return Err(unknown("operation kind", other)),
        })
    }
}

fn number<T: PartialEq>(all: &[T], one: &T) -> u8 {
    let place = all.iter().position(|other| other == one).expect("ALL lists every variant");
    u8::try_from(place).expect("the lists are short")
}

fn choice<T: Copy>(all: &[T], what: &'static str, reader: &mut Reader) -> Result<T, DecodeError> {
    let number = reader.u8(what)?;
    all.get(usize::from(number)).copied().ok_or_else(|| unknown(what, number))
}

fn unknown(what: &'static str, value: u8) -> DecodeError {
    DecodeError::Unknown { what, value: u64::from(value) }
}

/// Deepest nesting of transactions. A level needs one operation of its parent's allowance, so no
/// request that passes [`Request::check`] is deeper.
pub(crate) const DEPTH_MAX: usize = limits::TXN_OPS_MAX;

const KIND_PUT: u8 = 1;
const KIND_DELETE_RANGE: u8 = 2;
const KIND_TXN: u8 = 3;
const KIND_COMPACT: u8 = 4;
const KIND_OPEN_SESSION: u8 = 5;
const KIND_CLOSE_SESSION: u8 = 6;
const KIND_RANGE: u8 = 7;
pub(crate) const KIND_RAISE_VERSION: u8 = 8;
