//! The etcd v3 key-value state machine, deterministic.
//!
//! Log entries go in, one after the other; results come out, and changes to the table are queued
//! in an overlay until a checkpoint carries them there. A put waits for no disk; only reading an
//! old value that is in the table does.
//!
//! Invariants:
//! - the state is a function of the entries: no clock, no randomness, no order but that of keys;
//!   time arrives inside commands;
//! - a refusal is a value, the same on every member; damage is an error; bad input never panics;
//! - records have etcd's bytes, so that `HashKV` can be compared with a real etcd;
//! - what an entry does is chosen by the cluster version in the state, never by the build;
//! - nothing grows without bound but the keys themselves: the overlay is bounded by who applies,
//!   the sessions by the numbers here.
//!
//! What it lacks: leases (a put with one is refused), watches, auth, alarms and quotas.

mod check;
mod command;
mod damage;
mod describe;
mod hash;
mod index;
mod key_value;
mod kv;
mod load;
mod meta;
mod overlay;
mod reading;
mod redact;
mod refused;
mod request;
mod request_codec;
mod response;
mod response_codec;
mod rev_key;
mod sessions;
mod span;
mod span_set;
mod txn;
mod version;
mod view;

#[cfg(test)]
mod tests;

pub use command::{Command, Origin, SessionOp, stamp};
pub use describe::describe;
pub use key_value::KeyValue;
pub use kv::{Applied, Kv, Stats};
pub use meta::{META_STATE, check_state_row};
pub use reading::{ANSWER_SIZE_BYTES_MAX, Reading, Slice};
pub use redact::Redaction;
pub use refused::{Code, Refused};
pub use request::{
    CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest, Query,
    RangeRequest, Request, RequestOp, SortOrder, SortTarget, TxnRequest,
};
pub use response::{
    Answer, CompactResponse, DeleteRangeResponse, HashKvResponse, PutResponse, RangeResponse,
    Response, ResponseOp, TxnResponse,
};
pub use sessions::{
    RESULT_SIZE_BYTES_MAX, RESULTS_SIZE_BYTES_MAX, SESSION_COUNT_MAX,
    SESSION_RESULTS_SIZE_BYTES_MAX, SESSION_TTL_MS_DEFAULT, SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN,
};
pub use version::{StateError, Unsupported, Versions};
