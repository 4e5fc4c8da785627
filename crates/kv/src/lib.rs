//! The etcd v3 key-value state machine, deterministic.
//!
//! Log entries go in, results come out, and the changes to the table are queued as checkpoints.
mod check;
mod command;
mod key_value;
mod refused;
mod request;
mod request_codec;
mod response;
mod response_codec;
mod rev_key;
mod span;
mod span_set;

pub use command::{Command, Origin, SessionOp, stamp};
pub use key_value::KeyValue;
pub use refused::{Code, Refused};
pub use request::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, Query,
    RangeRequest, Request, RequestOp, SortOrder, SortTarget, TxnRequest,
};
pub use response::{
    Answer, CompactResponse, DeleteRangeResponse, HashKvResponse, PutResponse, RangeResponse,
    Response, ResponseOp, TxnResponse,
};
/// Longest time to live of a session, in milliseconds: a day. Longer ones are shortened to it.
pub const SESSION_TTL_MS_MAX: u64 = 24 * 60 * 60 * 1000;
