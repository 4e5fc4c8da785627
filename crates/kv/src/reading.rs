//! A query on its way: read in bounded slices, so that a huge one stalls nobody else.
//!
//! A slice ends when its [`Slice`] of work is spent; between slices the state may move on.
//!
//! Invariants:
//! - a query sees one revision, the store's when its first slice began. Records never change, and
//!   what is newer than that revision is left out, so later slices see the same state;
//! - only a compaction beyond that revision can take away what is still to be read. Then the query
//!   begins again, with the revision of that moment, or is refused as it would be had it come then;
//!   a hash, whose rule depends on the compaction, begins again after any;
//! - what one query gathers is bounded: [`ANSWER_SIZE_BYTES_MAX`].
//!

use bytes::Bytes;
use kvraft_base::{Damage, Index, Records, Revision};

use crate::{
    hash::{HashReading, hash_kv_response},
    kv::Kv,
    refused::Refused,
    request::{Compare, CompareTarget, Query, RangeRequest, RequestOp, SortTarget, TxnRequest},
    response::{Answer, RangeResponse, ResponseOp, TxnResponse},
    span::Span,
    view::{Stop, View},
};

/// The greatest answer to a query or a change, in bytes of its pairs. etcd has no bound and a
/// single request can end it for want of memory; clients read more with a limit, page by page.
pub const ANSWER_SIZE_BYTES_MAX: usize = 256 << 20;

/// How much may be read at a time, in bytes; walking a key and reading a record cost a flat rate.
#[derive(Clone, Copy, Debug)]
pub struct Slice {
    left: usize,
}

impl Slice {
    /// Work worth reading this many bytes.
    #[must_use]
    pub fn of_bytes(size_bytes: usize) -> Self {
        Self { left: size_bytes }
    }

    /// No bound.
    pub(crate) const WHOLE: Self = Self { left: usize::MAX };

    /// Whether nothing is left.
    #[must_use]
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }

    /// A quarter of what is left, so that one reader leaves something to the next.
    #[must_use]
    pub fn take_part(&mut self) -> Self {
        let part = self.left.div_ceil(4);
        self.left -= part;
        Self { left: part }
    }

    /// What is left of a part goes back.
    pub fn give_back(&mut self, part: Self) {
        self.left += part.left;
    }

    pub(crate) fn spend_key(&mut self) {
        self.left = self.left.saturating_sub(KEY_WORK_BYTES);
    }

    pub(crate) fn spend_record(&mut self, size_bytes: usize) {
        self.left = self.left.saturating_sub(RECORD_WORK_BYTES + size_bytes);
    }
}

/// What walking one key of the index costs, as bytes.
const KEY_WORK_BYTES: usize = 64;
/// What finding one record costs beside its bytes: a descent in overlay and table, which may have
/// to read a page from the disk.
const RECORD_WORK_BYTES: usize = 4096;

/// A query and how far it has been read.
#[derive(Clone, Debug)]
pub struct Reading {
    query: Query,
    /// The last entry applied when it began.
    index: Index,
    progress: Option<Progress>,
}

/// What a query has found so far.
#[derive(Clone, Debug)]
struct Progress {
    /// The store's revision and compaction when it began.
    revision: i64,
    compacted: i64,
    /// Which branch a transaction took; a plain range has none.
    succeeded: Option<bool>,
    /// Answers to the ranges that are done, and their bytes.
    done: Vec<RangeResponse>,
    done_size_bytes: usize,
    current: Current,
}

#[derive(Clone, Debug)]
enum Current {
    /// The comparisons of a transaction, before its branch is known.
    Compare(CompareReading),
    Range(RangeReading),
    Hash(HashReading),
    /// All ranges are done.
    Nothing,
}

impl Reading {
    /// A query of which nothing has been read.
    #[must_use]
    pub fn new(query: Query) -> Self {
        Self { query, index: Index::ZERO, progress: None }
    }

    /// The last entry applied when it began: the state that its answer is of.
    #[must_use]
    pub fn index(&self) -> Index {
        self.index
    }

    /// Forgets what was read: the state has been replaced.
    pub fn begin_again(&mut self) {
        self.progress = None;
    }

    /// Bytes that are gathered, about.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let Some(progress) = &self.progress else { return 0 };
        let current = match &progress.current {
            Current::Range(range) => range.size_bytes,
            Current::Compare(_) | Current::Hash(_) | Current::Nothing => 0,
        };
        current + progress.done_size_bytes
    }

    /// The ranges of the branch that was taken.
    fn ranges(&self, succeeded: Option<bool>) -> impl Iterator<Item = &RangeRequest> {
        let (alone, branch) = match (&self.query, succeeded) {
            (Query::Range(range), _) => (Some(range), [].as_slice()),
            (Query::Txn(txn), Some(succeeded)) => (None, txn.branch(succeeded)),
            (Query::Txn(_) | Query::HashKv { .. } | Query::Hash, _) => (None, [].as_slice()),
        };
        alone.into_iter().chain(branch.iter().filter_map(|op| match op {
            RequestOp::Range(range) => Some(range),
            RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_) => None,
        }))
    }
}

impl Query {
    /// Bytes that it takes while it waits, about.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        let range_size = |range: &RangeRequest| range.key.len() + range.range_end.len();
        match self {
            Self::Range(range) => range_size(range),
            Self::Txn(txn) => {
                let compares = txn.compare.iter().map(|compare| {
                    let value = match &compare.target {
                        CompareTarget::Value(value) => value.len(),
                        _ => 0,
                    };
                    size_of::<Compare>() + compare.key.len() + compare.range_end.len() + value
                });
                let ops = txn.success.iter().chain(&txn.failure).map(|op| {
                    let bytes =
                        if let RequestOp::Range(range) = op { range_size(range) } else { 0 };
                    size_of::<RequestOp>() + bytes
                });
                compares.chain(ops).sum()
            }
            Self::HashKv { .. } | Self::Hash => 0,
        }
    }
}

impl Kv {
    /// Answers from the state as it is, in one go.
    ///
    /// # Errors
    /// [`Damage`] when a record that is needed is missing or wrong in the table.
    pub fn query(
        &self,
        records: &dyn Records,
        query: &Query,
    ) -> Result<Result<Answer, Refused>, Damage> {
        let mut reading = Reading::new(query.clone());
        let answer = self.read_on(records, &mut reading, &mut Slice::WHOLE.clone())?;
        Ok(answer.expect("a slice without bound reads everything"))
    }

    /// Reads on until the query is answered or the slice is spent (`None`); at least a step.
    ///
    /// # Errors
    /// [`Damage`] when a record that is needed is missing or wrong in the table.
    pub fn read_on(
        &self,
        records: &dyn Records,
        reading: &mut Reading,
        slice: &mut Slice,
    ) -> Result<Option<Result<Answer, Refused>>, Damage> {
        let answer = Stop::split(self.advance(records, reading, slice))?;
        Ok(answer.transpose())
    }

    fn advance(
        &self,
        records: &dyn Records,
        reading: &mut Reading,
        slice: &mut Slice,
    ) -> Result<Option<Answer>, Stop> {
        let mut progress = match reading.progress.take() {
            Some(progress) if progress.outlives(self.meta.compacted) => progress,
            Some(_) | None => {
                reading.index = self.meta.applied.index;
                self.begin(records, &reading.query)?
            }
        };
        let view = self.view_at(records, progress.revision);
        loop {
            match &mut progress.current {
                Current::Compare(comparing) => {
                    let Query::Txn(txn) = &reading.query else {
                        unreachable!("only transactions compare");
                    };
                    if let Some(succeeded) = comparing.advance(&view, txn, slice)? {
                        view.admit_ranges(txn, succeeded)?;
                        progress.succeeded = Some(succeeded);
                        progress.current = current(&view, first_range(txn, succeeded))?;
                        continue;
                    }
                }
                Current::Range(range) => {
                    let request = reading.ranges(progress.succeeded).nth(progress.done.len());
                    let request = request.expect("the current range is one of the branch's");
                    let is_done = range.advance(&view, request, slice)?;
                    if is_done {
                        let range = std::mem::take(range);
                        progress.done_size_bytes += range.size_bytes;
                        progress.done.push(range.finish(&view, request));
                        let next = reading.ranges(progress.succeeded).nth(progress.done.len());
                        progress.current = current(&view, next)?;
                        continue;
                    }
                }
                Current::Hash(hash) => {
                    if hash.advance(&view, slice)? {
                        return Ok(Some(hash.finish(&view, &reading.query)));
                    }
                }
                Current::Nothing => return Ok(Some(progress.finish())),
            }
            reading.progress = Some(progress);
            if ANSWER_SIZE_BYTES_MAX < reading.size_bytes() {
                return Err(Refused::AnswerTooLarge.into());
            }
            return Ok(None);
        }
    }

    /// Checks a query against the state as it is and finds its first range.
    fn begin(&self, records: &dyn Records, query: &Query) -> Result<Progress, Stop> {
        let view = self.view_at(records, self.meta.revision);
        let (succeeded, current) = match query {
            Query::Range(range) => {
                range.check()?;
                (None, current(&view, Some(range))?)
            }
            Query::Txn(txn) => {
                txn.check()?;
                if !txn.is_readonly() {
                    return Err(Refused::NotReadonly.into());
                }
                (None, Current::Compare(CompareReading::default()))
            }
            Query::HashKv { revision } => {
                (None, Current::Hash(HashReading::of_revision(&view, *revision)?))
            }
            Query::Hash => (None, Current::Hash(HashReading::of_everything())),
        };
        let (revision, compacted) = (self.meta.revision, self.meta.compacted);
        let (done, done_size_bytes) = (Vec::new(), 0);
        Ok(Progress { revision, compacted, succeeded, done, done_size_bytes, current })
    }
}

fn first_range(txn: &TxnRequest, succeeded: bool) -> Option<&RangeRequest> {
    txn.branch(succeeded).iter().find_map(|op| match op {
        RequestOp::Range(range) => Some(range),
        RequestOp::Put(_) | RequestOp::DeleteRange(_) | RequestOp::Txn(_) => None,
    })
}

fn current(view: &View<'_>, request: Option<&RangeRequest>) -> Result<Current, Refused> {
    Ok(match request {
        Some(request) => Current::Range(RangeReading::begin(view, request)?),
        None => Current::Nothing,
    })
}

impl Progress {
    /// Whether what is still to be read has survived a compaction there.
    fn outlives(&self, compacted: i64) -> bool {
        match &self.current {
            Current::Range(range) => compacted <= range.at,
            Current::Compare(_) => compacted <= self.revision,
            Current::Hash(_) => compacted == self.compacted,
            Current::Nothing => true,
        }
    }

    fn finish(mut self) -> Answer {
        match self.succeeded {
            None => Answer::Range(self.done.pop().expect("a plain range is done")),
            Some(succeeded) => Answer::Txn(TxnResponse {
                revision: Revision(self.revision),
                succeeded,
                responses: self.done.into_iter().map(ResponseOp::Range).collect(),
            }),
        }
    }
}

impl HashReading {
    fn finish(&self, view: &View<'_>, query: &Query) -> Answer {
        match query {
            Query::HashKv { .. } => Answer::HashKv(hash_kv_response(view, self)),
            Query::Range(_) | Query::Txn(_) | Query::Hash => {
                Answer::Hash { revision: Revision(view.revision), hash: self.sum() }
            }
        }
    }
}

/// The comparisons of a transaction, of which some have been done.
#[derive(Clone, Debug, Default)]
struct CompareReading {
    /// How many hold.
    done: usize,
    /// The last key that the next one has held for, and whether there was any.
    after: Option<Box<[u8]>>,
    found: bool,
}

impl CompareReading {
    /// Compares on; whether all hold, once that is known.
    fn advance(
        &mut self,
        view: &View<'_>,
        txn: &TxnRequest,
        slice: &mut Slice,
    ) -> Result<Option<bool>, Damage> {
        while let Some(compare) = txn.compare.get(self.done) {
            let span = Span::new(&compare.key, &compare.range_end);
            for (key, history) in view.index.walk(span, self.after.as_deref()) {
                slice.spend_key();
                if let Some(change) = history.at(view.revision) {
                    self.found = true;
                    let kv = view.record(change)?;
                    slice.spend_record(pair_size(&kv));
                    if !compare.holds(&kv) {
                        return Ok(Some(false));
                    }
                }
                if slice.is_spent() {
                    self.after = Some(key.into());
                    return Ok(None);
                }
            }
            if !self.found && !compare.holds_for_nothing() {
                return Ok(Some(false));
            }
            *self = Self { done: self.done + 1, ..Self::default() };
        }
        Ok(Some(true))
    }
}

/// A range of which some keys have been read.
///
/// As in etcd, the limit is applied while reading if the natural order is asked for and nothing is
/// filtered; else everything is read first, so such a range costs memory for all of its pairs.
#[derive(Clone, Debug, Default)]
pub(crate) struct RangeReading {
    /// The revision it reads at.
    at: i64,
    /// The last key that was walked.
    after: Option<Box<[u8]>>,
    read_max: usize,
    count: i64,
    kvs: Vec<crate::KeyValue>,
    size_bytes: usize,
}

impl RangeReading {
    pub(crate) fn begin(view: &View<'_>, request: &RangeRequest) -> Result<Self, Refused> {
        let (at, read_max) = (view.resolve(request.revision)?, request.read_max());
        Ok(Self { at, read_max, ..Self::default() })
    }

    /// Walks on; true when the end is reached.
    pub(crate) fn advance(
        &mut self,
        view: &View<'_>,
        request: &RangeRequest,
        slice: &mut Slice,
    ) -> Result<bool, Damage> {
        let span = Span::new(&request.key, &request.range_end);
        for (key, history) in view.index.walk(span, self.after.as_deref()) {
            slice.spend_key();
            if let Some(change) = history.at(self.at) {
                self.count += 1;
                if self.kvs.len() < self.read_max {
                    let mut kv = view.record(change)?;
                    slice.spend_record(pair_size(&kv));
                    if request.admits(&kv) {
                        if request.keys_only && request.sort_target != SortTarget::Value {
                            // The key is a part of the row: alone, it must not keep the value.
                            kv.key = Bytes::copy_from_slice(key);
                            kv.value = Bytes::new();
                        }
                        self.size_bytes += pair_size(&kv);
                        self.kvs.push(kv);
                    }
                }
            }
            if slice.is_spent() {
                self.after = Some(key.into());
                return Ok(false);
            }
        }
        Ok(true)
    }

    pub(crate) fn finish(self, view: &View<'_>, request: &RangeRequest) -> RangeResponse {
        let Self { count, mut kvs, .. } = self;
        request.sort(&mut kvs);
        let limit = limit_of(request);
        let more = limit.is_some_and(|limit| limit < kvs.len());
        kvs.truncate(limit.unwrap_or(usize::MAX));
        if request.keys_only {
            kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
        }
        RangeResponse { revision: Revision(view.revision), kvs, more, count }
    }
}

impl RangeRequest {
    /// How many pairs are read for it at most.
    pub(crate) fn read_max(&self) -> usize {
        match limit_of(self) {
            _ if self.count_only => 0,
            Some(limit) if self.is_natural() => limit.saturating_add(1),
            _ => usize::MAX,
        }
    }
}

fn limit_of(request: &RangeRequest) -> Option<usize> {
    usize::try_from(request.limit).ok().filter(|limit| 0 < *limit)
}

/// What a pair takes beside its bytes.
pub(crate) const PAIR_OVERHEAD_BYTES: usize = 128;

/// Bytes that a pair takes, with an allowance for what holds them.
fn pair_size(kv: &crate::KeyValue) -> usize {
    PAIR_OVERHEAD_BYTES + kv.key.len() + kv.value.len()
}
