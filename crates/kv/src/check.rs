//! The checks of a request that need no state: done before it is proposed, and again when applied,
//! so that nothing malformed in the log can hurt.
//!
//! Deviation from etcd, on purpose: a delete "from this key on" (`range_end` of `"\0"`) counts as
//! the interval it is when puts are checked against deletes; etcd takes it as an empty interval
//! and lets the transaction through.

use std::collections::BTreeSet;

use bytes::Bytes;
use kvraft_base::limits;

use crate::{
    refused::Refused,
    request::{DeleteRangeRequest, PutRequest, RangeRequest, Request, RequestOp, TxnRequest},
    span::Span,
    span_set::SpanSet,
};

impl Request {
    /// Checks what can be checked without the state.
    ///
    /// # Errors
    /// The refusal that etcd gives for it.
    pub fn check(&self) -> Result<(), Refused> {
        match self {
            Self::Put(put) => put.check(),
            Self::DeleteRange(delete) => delete.check(),
            Self::Txn(txn) => txn.check(),
            Self::Compact(_)
            | Self::OpenSession { .. }
            | Self::CloseSession { .. }
            | Self::RaiseVersion { .. } => Ok(()),
        }
    }
}

impl RangeRequest {
    /// Checks what can be checked without the state.
    ///
    /// # Errors
    /// [`Refused::EmptyKey`].
    pub fn check(&self) -> Result<(), Refused> {
        if self.key.is_empty() { Err(Refused::EmptyKey) } else { Ok(()) }
    }
}

impl PutRequest {
    fn check(&self) -> Result<(), Refused> {
        if self.key.is_empty() {
            return Err(Refused::EmptyKey);
        }
        if self.ignore_value && !self.value.is_empty() {
            return Err(Refused::ValueProvided);
        }
        if self.ignore_lease && self.lease != 0 {
            return Err(Refused::LeaseProvided);
        }
        Ok(())
    }
}

impl DeleteRangeRequest {
    fn check(&self) -> Result<(), Refused> {
        if self.key.is_empty() { Err(Refused::EmptyKey) } else { Ok(()) }
    }
}

impl TxnRequest {
    /// Checks what can be checked without the state.
    ///
    /// # Errors
    /// The refusal that etcd gives for it: empty keys, too many operations, keys written twice.
    pub fn check(&self) -> Result<(), Refused> {
        self.check_ops(limits::TXN_OPS_MAX)?;
        for branch in [&self.success, &self.failure] {
            Changes::of(branch)?;
        }
        Ok(())
    }

    /// Recursive; each level has at least one operation less to give, so the depth is bounded.
    fn check_ops(&self, ops_max: usize) -> Result<(), Refused> {
        let count = self.compare.len().max(self.success.len()).max(self.failure.len());
        if ops_max < count {
            return Err(Refused::TooManyOps);
        }
        if self.compare.iter().any(|compare| compare.key.is_empty()) {
            return Err(Refused::EmptyKey);
        }
        for op in self.success.iter().chain(&self.failure) {
            match op {
                RequestOp::Range(range) => range.check()?,
                RequestOp::Put(put) => put.check()?,
                RequestOp::DeleteRange(delete) => delete.check()?,
                RequestOp::Txn(txn) => txn.check_ops(ops_max - count)?,
            }
        }
        Ok(())
    }
}

/// What a branch may change: used to refuse a key that is written twice in one revision.
struct Changes<'a> {
    puts: BTreeSet<&'a Bytes>,
    deletes: SpanSet<'a>,
}

impl<'a> Changes<'a> {
    /// Collects them, innermost first. A put of an inner transaction is checked against the deletes
    /// of this level and of the inner transactions before it, as etcd does.
    fn of(ops: &'a [RequestOp]) -> Result<Self, Refused> {
        let mut changes = Self { puts: BTreeSet::new(), deletes: SpanSet::default() };
        for op in ops {
            if let RequestOp::DeleteRange(delete) = op {
                changes.deletes.insert(Span::new(&delete.key, &delete.range_end));
            }
        }
        for op in ops {
            if let RequestOp::Txn(txn) = op {
                changes.add_inner(Self::of(&txn.success)?, Self::of(&txn.failure)?)?;
            }
        }
        for op in ops {
            if let RequestOp::Put(put) = op {
                changes.add_put(&put.key)?;
            }
        }
        Ok(changes)
    }

    /// Only one of the two branches is taken, so they may write the same keys.
    fn add_inner(&mut self, success: Self, failure: Self) -> Result<(), Refused> {
        for key in &success.puts {
            self.add_put(key)?;
        }
        for key in failure.puts.difference(&success.puts) {
            self.add_put(key)?;
        }
        self.deletes.extend(success.deletes);
        self.deletes.extend(failure.deletes);
        Ok(())
    }

    fn add_put(&mut self, key: &'a Bytes) -> Result<(), Refused> {
        if self.deletes.contains(key) || !self.puts.insert(key) {
            return Err(Refused::DuplicateKey);
        }
        Ok(())
    }
}
