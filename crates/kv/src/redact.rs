//! Requests without what clients have written, for recordings that are given away.
//!
//! Every byte of a value becomes an `x`; every byte of a key, too, where that is wanted. What kind
//! of request it is, its numbers and all lengths stay.
//!
//! Invariants:
//! - nothing becomes longer or shorter;
//! - the fixed part of a command's envelope stays, and what is no command stays none: whoever
//!   looks at the envelope alone does the same with it;
//! - equal bytes become equal bytes, wherever they stand.
//!
//! What it lacks: anything that would let the state machine do the same as before. A comparison of
//! values comes out otherwise.

use bytes::{Bytes, BytesMut};
use kvraft_base::Reader;

use crate::{
    command::{Command, ENVELOPE_SIZE_BYTES, Header},
    request::{Compare, CompareTarget, Query, RangeRequest, Request, RequestOp, TxnRequest},
};

/// What stands in for every byte that was replaced.
const BLANK: u8 = b'x';

/// What stands in for every byte of what is no command: it is none then either.
const GARBAGE: u8 = 0xff;

/// What is replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Redaction {
    /// Values, also those that are compared with; and who asks.
    Values,
    /// And keys.
    KeysAndValues,
}

impl Redaction {
    /// The command in an entry's payload, without what is to be replaced.
    #[must_use]
    pub fn command(self, payload: &Bytes) -> Bytes {
        let Ok(mut command) = Command::decode(payload.clone()) else {
            return without_body(payload);
        };
        blank(&mut command.user);
        match &mut command.request {
            Request::Put(put) => {
                self.key(&mut put.key);
                blank(&mut put.value);
            }
            Request::DeleteRange(delete) => self.span(&mut delete.key, &mut delete.range_end),
            Request::Txn(txn) => self.txn(txn),
            Request::Compact(_)
            | Request::OpenSession { .. }
            | Request::CloseSession { .. }
            | Request::RaiseVersion { .. } => {}
        }
        let redacted = command.encode();
        // What somebody has encoded otherwise than this build would has no body either.
        if redacted.len() == payload.len() { redacted } else { without_body(payload) }
    }

    /// The same of a query.
    pub fn query(self, query: &mut Query) {
        match query {
            Query::Range(range) => self.range(range),
            Query::Txn(txn) => self.txn(txn),
            Query::HashKv { .. } | Query::Hash => {}
        }
    }

    /// Recursive, as deep as the decoder allows.
    fn txn(self, txn: &mut TxnRequest) {
        let TxnRequest { compare, success, failure } = txn;
        compare.iter_mut().for_each(|compare| self.compare(compare));
        for op in success.iter_mut().chain(failure) {
            match op {
                RequestOp::Range(range) => self.range(range),
                RequestOp::Put(put) => {
                    self.key(&mut put.key);
                    blank(&mut put.value);
                }
                RequestOp::DeleteRange(delete) => self.span(&mut delete.key, &mut delete.range_end),
                RequestOp::Txn(inner) => self.txn(inner),
            }
        }
    }

    fn compare(self, compare: &mut Compare) {
        self.span(&mut compare.key, &mut compare.range_end);
        match &mut compare.target {
            CompareTarget::Value(value) => blank(value),
            CompareTarget::Version(_)
            | CompareTarget::Create(_)
            | CompareTarget::Mod(_)
            | CompareTarget::Lease(_) => {}
        }
    }

    fn range(self, range: &mut RangeRequest) {
        self.span(&mut range.key, &mut range.range_end);
    }

    /// An end that means "everything from the key on" is nobody's key, and stays.
    fn span(self, key: &mut Bytes, range_end: &mut Bytes) {
        self.key(key);
        if range_end.as_ref() != [0] {
            self.key(range_end);
        }
    }

    fn key(self, key: &mut Bytes) {
        match self {
            Self::Values => {}
            Self::KeysAndValues => blank(key),
        }
    }
}

fn blank(bytes: &mut Bytes) {
    *bytes = vec![BLANK; bytes.len()].into();
}

/// What cannot be decoded may hold anything.
fn without_body(payload: &Bytes) -> Bytes {
    let has_envelope = Header::decode(&mut Reader::new(payload.clone())).is_ok();
    let kept = if has_envelope { ENVELOPE_SIZE_BYTES } else { 0 };
    let mut bytes = BytesMut::from(payload.as_ref());
    bytes[kept..].fill(GARBAGE);
    bytes.freeze()
}
