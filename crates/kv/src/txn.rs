//! Changing the state: puts, deletes and transactions of one entry, all at one main revision.
//!
//! Invariants:
//! - all comparisons, of nested transactions too, are evaluated before anything changes;
//! - everything that can be refused is refused before anything changes;
//! - the main revision moves once if anything changed, else not at all; each change takes the next
//!   sub-revision.

use kvraft_base::{Damage, Index, Records, Revision, TableId, checksum};

use crate::{
    index::{Change, Generation},
    key_value::KeyValue,
    kv::Kv,
    reading::{ANSWER_SIZE_BYTES_MAX, PAIR_OVERHEAD_BYTES},
    refused::Refused,
    request::{DeleteRangeRequest, PutRequest, RangeRequest, RequestOp, TxnRequest},
    response::{DeleteRangeResponse, PutResponse, ResponseOp, TxnResponse},
    rev_key::RevKey,
    span::Span,
    view::{Stop, View},
};

/// Which branch each transaction takes: the outermost first, then the nested ones of its branch, in
/// order, each followed by its own.
struct Path(std::vec::IntoIter<bool>);

impl Path {
    fn next(&mut self) -> bool {
        self.0.next().expect("a path has a choice for every transaction on it")
    }
}

impl TxnRequest {
    pub(crate) fn branch(&self, succeeded: bool) -> &[RequestOp] {
        if succeeded { &self.success } else { &self.failure }
    }

    /// Recursive, as deep as the decoder allows; so are the walks below.
    fn choose(&self, view: &View<'_>, choices: &mut Vec<bool>) -> Result<(), Damage> {
        let mut succeeded = true;
        for compare in &self.compare {
            if !view.compare(compare)? {
                succeeded = false;
                break;
            }
        }
        choices.push(succeeded);
        for op in self.branch(succeeded) {
            if let RequestOp::Txn(txn) = op {
                txn.choose(view, choices)?;
            }
        }
        Ok(())
    }

    /// Refuses what could not be done, on the branches that are taken.
    fn admit(
        &self,
        view: &View<'_>,
        path: &mut Path,
        gathering: &mut Gathering,
    ) -> Result<(), Refused> {
        for op in self.branch(path.next()) {
            match op {
                RequestOp::Range(range) => {
                    view.check_revision(range.revision)?;
                    gathering.admit_range(view, range)?;
                }
                RequestOp::Put(put) => {
                    put.check_exists(view)?;
                    put.check_lease()?;
                }
                RequestOp::DeleteRange(delete) => gathering.admit_delete(view, delete)?,
                RequestOp::Txn(txn) => txn.admit(view, path, gathering)?,
            }
        }
        Ok(())
    }
}

/// What the answer to one entry may still gather, in bytes of records. Every member gathers it, in
/// one go, so that without a bound one request could end them all for want of memory.
struct Gathering {
    left: usize,
}

impl Default for Gathering {
    fn default() -> Self {
        Self { left: ANSWER_SIZE_BYTES_MAX }
    }
}

impl Gathering {
    fn admit_range(&mut self, view: &View<'_>, range: &RangeRequest) -> Result<(), Refused> {
        let span = Span::new(&range.key, &range.range_end);
        let revision = if range.revision.0 <= 0 { view.revision } else { range.revision.0 };
        self.admit(view, span, revision, range.read_max())
    }

    fn admit_delete(
        &mut self,
        view: &View<'_>,
        delete: &DeleteRangeRequest,
    ) -> Result<(), Refused> {
        let read_max = if delete.prev_kv { usize::MAX } else { 0 };
        self.admit(view, Span::new(&delete.key, &delete.range_end), view.revision, read_max)
    }

    /// Takes the records off that reading a span would gather.
    fn admit(
        &mut self,
        view: &View<'_>,
        span: Span<'_>,
        revision: i64,
        read_max: usize,
    ) -> Result<(), Refused> {
        for (_, change) in view.index.span(span, revision).take(read_max) {
            let size_bytes = usize::try_from(change.size_bytes).unwrap_or(usize::MAX);
            let left = self.left.checked_sub(size_bytes.saturating_add(PAIR_OVERHEAD_BYTES));
            self.left = left.ok_or(Refused::AnswerTooLarge)?;
        }
        Ok(())
    }
}

impl PutRequest {
    fn check_exists(&self, view: &View<'_>) -> Result<(), Refused> {
        let must_exist = self.ignore_value || self.ignore_lease;
        if must_exist && view.index.newest(&self.key).is_none() {
            return Err(Refused::KeyNotFound);
        }
        Ok(())
    }

    /// No lease is ever granted yet, so none can be found.
    fn check_lease(&self) -> Result<(), Refused> {
        if self.lease == 0 { Ok(()) } else { Err(Refused::LeaseNotFound) }
    }
}

impl View<'_> {
    /// Refuses the ranges of a transaction that only reads, if one of its branch cannot be read.
    pub(crate) fn admit_ranges(&self, txn: &TxnRequest, succeeded: bool) -> Result<(), Refused> {
        // What a query gathers is bounded while it is read.
        let mut unbounded = Gathering { left: usize::MAX };
        txn.admit(self, &mut Path(vec![succeeded].into_iter()), &mut unbounded)
    }
}

/// The changes of one entry in the making.
pub(crate) struct Changes<'a> {
    kv: &'a mut Kv,
    records: &'a dyn Records,
    /// The entry.
    at: Index,
    /// The revision before.
    begin: i64,
    /// How many changes so far: the next sub-revision.
    count: u32,
}

impl<'a> Changes<'a> {
    pub(crate) fn begin(kv: &'a mut Kv, records: &'a dyn Records, at: Index) -> Self {
        let begin = kv.meta.revision;
        Self { kv, records, at, begin, count: 0 }
    }

    /// The revision as the next operation sees it.
    fn revision(&self) -> i64 {
        self.begin + i64::from(0 < self.count)
    }

    fn view(&self) -> View<'_> {
        self.kv.view_at(self.records, self.revision())
    }

    /// Moves the store's revision if anything changed.
    fn commit(self) -> Revision {
        let revision = self.revision();
        self.kv.meta.revision = revision;
        Revision(revision)
    }

    /// A put by itself. etcd looks for the lease first here, and for the key first in transactions.
    pub(crate) fn put_alone(mut self, put: &PutRequest) -> Result<PutResponse, Stop> {
        put.check_lease()?;
        put.check_exists(&self.view())?;
        let response = self.put(put)?;
        self.commit();
        Ok(response)
    }

    /// A delete by itself.
    pub(crate) fn delete_alone(
        mut self,
        delete: &DeleteRangeRequest,
    ) -> Result<DeleteRangeResponse, Stop> {
        Gathering::default().admit_delete(&self.view(), delete)?;
        let response = self.delete(delete)?;
        self.commit();
        Ok(response)
    }

    /// A transaction.
    pub(crate) fn txn_alone(mut self, txn: &TxnRequest) -> Result<TxnResponse, Stop> {
        let mut choices = Vec::new();
        txn.choose(&self.view(), &mut choices)?;
        let mut path = Path(choices.clone().into_iter());
        txn.admit(&self.view(), &mut path, &mut Gathering::default())?;
        let mut path = Path(choices.into_iter());
        let mut response = self.txn(txn, &mut path)?;
        assert!(path.0.next().is_none(), "every choice of a path is taken");
        response.revision = self.commit();
        Ok(response)
    }

    fn txn(&mut self, txn: &TxnRequest, path: &mut Path) -> Result<TxnResponse, Damage> {
        let succeeded = path.next();
        let mut responses = Vec::new();
        for op in txn.branch(succeeded) {
            responses.push(match op {
                RequestOp::Range(range) => {
                    let response = Stop::split(self.view().range(range))?;
                    let response = response.expect("revisions were checked before any change");
                    ResponseOp::Range(response)
                }
                RequestOp::Put(put) => ResponseOp::Put(self.put(put)?),
                RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(self.delete(delete)?),
                RequestOp::Txn(inner) => ResponseOp::Txn(self.txn(inner, path)?),
            });
        }
        Ok(TxnResponse { revision: Revision(0), succeeded, responses })
    }

    fn put(&mut self, put: &PutRequest) -> Result<PutResponse, Damage> {
        let newest = self.kv.index.newest(&put.key).map(|(change, newest)| (*change, newest));
        let needs_before = put.prev_kv || put.ignore_value || put.ignore_lease;
        let before = match newest {
            Some((change, _)) if needs_before => Some(self.view().record(&change)?),
            _ => None,
        };
        let kept = || before.as_ref().expect("a put that keeps something was checked to find it");
        let value = if put.ignore_value { kept().value.clone() } else { put.value.clone() };
        let lease = if put.ignore_lease { kept().lease } else { put.lease };
        let main = self.begin + 1;
        let generation = match newest {
            Some((_, newest)) => Generation { version: newest.version + 1, ..newest },
            None => Generation { create_revision: main, version: 1 },
        };
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: Revision(generation.create_revision),
            mod_revision: Revision(main),
            version: generation.version,
            value,
            lease,
        };
        self.record(&kv, Some(generation));
        let prev_kv = before.filter(|_| put.prev_kv);
        Ok(PutResponse { revision: Revision(main), prev_kv })
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> Result<DeleteRangeResponse, Damage> {
        let span = Span::new(&delete.key, &delete.range_end);
        let view = self.view();
        let mut keys = Vec::new();
        let mut prev_kvs = Vec::new();
        for (key, change) in view.index.span(span, view.revision) {
            keys.push(bytes::Bytes::copy_from_slice(key));
            if delete.prev_kv {
                prev_kvs.push(view.record(change)?);
            }
        }
        let deleted = i64::try_from(keys.len()).expect("a count fits");
        for key in keys {
            self.record(&KeyValue { key, ..KeyValue::default() }, None);
        }
        Ok(DeleteRangeResponse { revision: Revision(self.revision()), deleted, prev_kvs })
    }

    /// Writes one change to index and overlay; a tombstone's record has only the key, as etcd's.
    fn record(&mut self, kv: &KeyValue, generation: Option<Generation>) {
        let tombstone = generation.is_none();
        let rev = RevKey { main: self.begin + 1, sub: self.count, tombstone };
        let row = kv.encode();
        let size_bytes = u32::try_from(row.len()).expect("requests are bounded below 4 GiB");
        let change = Change { rev, size_bytes, checksum: checksum(&row) };
        self.kv.index.record(&kv.key, change, generation);
        self.kv.overlay.put(self.at, TableId::Records, rev.encode(), row);
        self.count += 1;
    }
}
