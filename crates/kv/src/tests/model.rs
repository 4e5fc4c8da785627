//! The same rules once more, as naive as can be: a copy of the whole store for every revision.
//!
//! Random commands go to both; every answer must agree, with checkpoints and crashes in between.

use std::collections::BTreeMap;

use bytes::Bytes;
use kvraft_base::{ClientId, EntryKind, OpId, Revision, checksum, checksum_append};
use proptest::prelude::*;

use super::{harness::Machine, random};
use crate::{
    Answer, CompactResponse, Compare, CompareResult, CompareTarget, DeleteRangeRequest,
    DeleteRangeResponse, HashKvResponse, KeyValue, PutRequest, PutResponse, Query, RangeRequest,
    RangeResponse, Refused, Request, RequestOp, Response, ResponseOp, SESSION_TTL_MS_DEFAULT,
    SESSION_TTL_MS_MAX, SESSION_TTL_MS_MIN, SessionOp, SortOrder, SortTarget, TxnRequest,
    TxnResponse,
};

type Pairs = BTreeMap<Bytes, KeyValue>;
type Outcome = Result<Response, Refused>;

/// One row of etcd's backend: main, sub, tombstone, key, row.
type Row = (i64, i64, bool, Bytes, Bytes);

#[derive(Clone, Debug, Default)]
struct Session {
    ttl_ms: u64,
    expires_ms: u64,
    acked: OpId,
    results: BTreeMap<OpId, Outcome>,
}

#[derive(Clone, Debug)]
struct Model {
    /// The store at every revision, compacted or not.
    stores: BTreeMap<i64, Pairs>,
    rows: Vec<Row>,
    compacted: i64,
    clock_ms: u64,
    version: u32,
    /// Of the command that is being done.
    time_ms: u64,
    /// From version 2 on: the greatest time of the one leader that there is here.
    leader_ms: Option<u64>,
    sessions: BTreeMap<ClientId, Session>,
}

/// A transaction at work: the store as it is within, and the rows it wrote.
struct Work {
    main: i64,
    pairs: Pairs,
    rows: Vec<Row>,
}

impl Work {
    fn revision(&self) -> i64 {
        self.main - i64::from(self.rows.is_empty())
    }

    fn put(&mut self, put: &PutRequest) -> PutResponse {
        let before = self.pairs.get(&put.key).cloned();
        let old = before.clone().unwrap_or_default();
        let is_new = before.is_none();
        let kv = KeyValue {
            key: put.key.clone(),
            create_revision: if is_new { Revision(self.main) } else { old.create_revision },
            mod_revision: Revision(self.main),
            version: old.version + 1,
            value: if put.ignore_value { old.value } else { put.value.clone() },
            lease: 0,
        };
        let sub = self.rows.len() as i64;
        self.rows.push((self.main, sub, false, put.key.clone(), kv.encode()));
        self.pairs.insert(put.key.clone(), kv);
        PutResponse { revision: Revision(self.main), prev_kv: before.filter(|_| put.prev_kv) }
    }

    fn delete(&mut self, delete: &DeleteRangeRequest) -> DeleteRangeResponse {
        let inside = |key: &Bytes| is_inside(key, &delete.key, &delete.range_end);
        let gone: Pairs = self.pairs.clone().into_iter().filter(|(key, _)| inside(key)).collect();
        for key in gone.keys() {
            self.pairs.remove(key);
            let row = KeyValue { key: key.clone(), ..KeyValue::default() }.encode();
            self.rows.push((self.main, self.rows.len() as i64, true, key.clone(), row));
        }
        DeleteRangeResponse {
            revision: Revision(self.revision()),
            deleted: gone.len() as i64,
            prev_kvs: gone.into_values().filter(|_| delete.prev_kv).collect(),
        }
    }
}

fn is_inside(key: &Bytes, first: &Bytes, end: &Bytes) -> bool {
    match end.as_ref() {
        [] => key == first,
        [0] => first <= key,
        _ => first <= key && key < end,
    }
}

impl Model {
    fn new() -> Self {
        Self {
            stores: BTreeMap::from([(1, Pairs::new())]),
            rows: Vec::new(),
            compacted: -1,
            clock_ms: 0,
            version: 1,
            time_ms: 0,
            leader_ms: None,
            sessions: BTreeMap::new(),
        }
    }

    fn revision(&self) -> i64 {
        *self.stores.last_key_value().unwrap().0
    }

    fn newest(&self) -> &Pairs {
        &self.stores[&self.revision()]
    }

    fn request(
        &mut self,
        index: u64,
        time_ms: u64,
        session: Option<SessionOp>,
        request: &Request,
    ) -> (Outcome, bool) {
        match &mut self.leader_ms {
            None => self.clock_ms = self.clock_ms.max(time_ms),
            Some(before) => {
                self.clock_ms += time_ms.saturating_sub(*before);
                *before = time_ms.max(*before);
            }
        }
        self.time_ms = time_ms;
        let clock_ms = self.clock_ms;
        self.sessions.retain(|_, session| clock_ms < session.expires_ms);
        let Some(SessionOp { client, op, acked }) = session else {
            return (self.execute(index, request), false);
        };
        let Some(session) = self.sessions.get_mut(&client) else {
            return (Err(Refused::SessionUnknown), false);
        };
        session.expires_ms = clock_ms + session.ttl_ms;
        session.acked = session.acked.max(acked);
        let acked = session.acked;
        session.results.retain(|op, _| acked < *op);
        if op <= acked {
            return (Err(Refused::OpAcknowledged { client, op }), false);
        }
        if let Some(result) = session.results.get(&op) {
            return (result.clone(), true);
        }
        let result = self.execute(index, request);
        if let Some(session) = self.sessions.get_mut(&client) {
            session.results.insert(op, result.clone());
        }
        (result, false)
    }

    fn execute(&mut self, index: u64, request: &Request) -> Outcome {
        request.check()?;
        let revision = Revision(self.revision());
        match request {
            Request::Put(put) if put.lease != 0 => Err(Refused::LeaseNotFound),
            Request::Put(put) => {
                self.check_put(put)?;
                Ok(Response::Put(self.change(|work| work.put(put))))
            }
            Request::DeleteRange(delete) => {
                Ok(Response::DeleteRange(self.change(|work| work.delete(delete))))
            }
            Request::Txn(txn) => {
                let before = self.clone();
                before.check_txn(txn)?;
                let response = self.change(|work| before.txn(txn, work));
                let revision = Revision(self.revision());
                Ok(Response::Txn(TxnResponse { revision, ..response }))
            }
            Request::Compact(compact) if compact.revision.0 <= self.compacted => {
                Err(Refused::Compacted)
            }
            Request::Compact(compact) if revision < compact.revision => {
                Err(Refused::FutureRevision)
            }
            Request::Compact(compact) => {
                self.compacted = compact.revision.0;
                self.rows = self.rows_after(self.compacted, true);
                Ok(Response::Compact(CompactResponse { revision }))
            }
            Request::OpenSession { ttl_ms } => {
                let ttl_ms = if *ttl_ms == 0 { SESSION_TTL_MS_DEFAULT } else { *ttl_ms };
                let ttl_ms = ttl_ms.clamp(SESSION_TTL_MS_MIN, SESSION_TTL_MS_MAX);
                let expires_ms = self.clock_ms + ttl_ms;
                let session = Session { ttl_ms, expires_ms, ..Session::default() };
                self.sessions.insert(ClientId(index), session);
                Ok(Response::SessionOpened { revision, client: ClientId(index) })
            }
            Request::CloseSession { client } => match self.sessions.remove(client) {
                Some(_) => Ok(Response::SessionClosed { revision }),
                None => Err(Refused::SessionUnknown),
            },
            Request::RaiseVersion { version } => {
                if self.version < 2 && *version == 2 {
                    self.leader_ms = Some(self.time_ms);
                }
                self.version = self.version.max(*version);
                Ok(Response::VersionRaised { revision, version: self.version })
            }
        }
    }

    fn change<T>(&mut self, act: impl FnOnce(&mut Work) -> T) -> T {
        let main = self.revision() + 1;
        let mut work = Work { main, pairs: self.newest().clone(), rows: Vec::new() };
        let result = act(&mut work);
        if !work.rows.is_empty() {
            self.rows.extend(work.rows);
            self.stores.insert(main, work.pairs);
        }
        result
    }

    /// The rows that a compaction leaves, or with `tombstones` off, what a hash assumes it leaves.
    fn rows_after(&self, revision: i64, tombstones: bool) -> Vec<Row> {
        let is_last = |row: &Row| {
            let later = |other: &&Row| other.3 == row.3 && (row.0, row.1) < (other.0, other.1);
            !self.rows.iter().filter(later).any(|other| other.0 <= revision)
        };
        let stays = |row: &&Row| {
            let kept_tombstone = row.0 == revision && tombstones;
            revision < row.0 || (is_last(row) && (!row.2 || kept_tombstone))
        };
        self.rows.iter().filter(stays).cloned().collect()
    }

    fn check_put(&self, put: &PutRequest) -> Result<(), Refused> {
        let must_exist = put.ignore_value || put.ignore_lease;
        match self.newest().contains_key(&put.key) {
            false if must_exist => Err(Refused::KeyNotFound),
            _ => Ok(()),
        }
    }

    fn branch<'a>(&self, txn: &'a TxnRequest) -> (bool, &'a [RequestOp]) {
        let succeeded = txn.compare.iter().all(|compare| self.compare(compare));
        (succeeded, if succeeded { &txn.success } else { &txn.failure })
    }

    fn check_txn(&self, txn: &TxnRequest) -> Result<(), Refused> {
        for op in self.branch(txn).1 {
            match op {
                RequestOp::Range(range) => match range.revision.0 {
                    0 => {}
                    revision if self.revision() < revision => return Err(Refused::FutureRevision),
                    revision if revision < self.compacted => return Err(Refused::Compacted),
                    _ => {}
                },
                RequestOp::Put(put) => {
                    self.check_put(put)?;
                    if put.lease != 0 {
                        return Err(Refused::LeaseNotFound);
                    }
                }
                RequestOp::DeleteRange(_) => {}
                RequestOp::Txn(txn) => self.check_txn(txn)?,
            }
        }
        Ok(())
    }

    /// `self` is the store before the outermost transaction.
    fn txn(&self, txn: &TxnRequest, work: &mut Work) -> TxnResponse {
        let (succeeded, ops) = self.branch(txn);
        let mut responses = Vec::new();
        for op in ops {
            responses.push(match op {
                RequestOp::Range(range) => {
                    let pairs = match range.revision.0 {
                        revision if 0 < revision => &self.stores[&revision],
                        _ => &work.pairs,
                    };
                    ResponseOp::Range(range_of(pairs, range, work.revision()))
                }
                RequestOp::Put(put) => ResponseOp::Put(work.put(put)),
                RequestOp::DeleteRange(delete) => ResponseOp::DeleteRange(work.delete(delete)),
                RequestOp::Txn(inner) => ResponseOp::Txn(self.txn(inner, work)),
            });
        }
        TxnResponse { revision: Revision(0), succeeded, responses }
    }

    fn compare(&self, compare: &Compare) -> bool {
        let inside = |kv: &&KeyValue| is_inside(&kv.key, &compare.key, &compare.range_end);
        let mut kvs: Vec<KeyValue> = self.newest().values().filter(inside).cloned().collect();
        if kvs.is_empty() {
            if matches!(compare.target, CompareTarget::Value(_)) {
                return false;
            }
            kvs.push(KeyValue::default());
        }
        kvs.iter().all(|kv| {
            let (equal, less) = match &compare.target {
                CompareTarget::Version(v) => (kv.version == *v, kv.version < *v),
                CompareTarget::Create(r) => (kv.create_revision == *r, kv.create_revision < *r),
                CompareTarget::Mod(r) => (kv.mod_revision == *r, kv.mod_revision < *r),
                CompareTarget::Value(v) => (kv.value == v, kv.value < v),
                CompareTarget::Lease(l) => (kv.lease == *l, kv.lease < *l),
            };
            match compare.result {
                CompareResult::Equal => equal,
                CompareResult::NotEqual => !equal,
                CompareResult::Less => less,
                CompareResult::Greater => !equal && !less,
            }
        })
    }

    fn range(&self, range: &RangeRequest) -> Result<RangeResponse, Refused> {
        if range.key.is_empty() {
            return Err(Refused::EmptyKey);
        }
        let wanted = range.revision.0;
        if self.revision() < wanted {
            return Err(Refused::FutureRevision);
        }
        let revision = if wanted <= 0 { self.revision() } else { wanted };
        if revision < self.compacted {
            return Err(Refused::Compacted);
        }
        Ok(range_of(&self.stores[&revision], range, self.revision()))
    }

    fn hash_kv(&self, wanted: i64) -> Result<HashKvResponse, Refused> {
        if 0 < wanted && wanted < self.compacted {
            return Err(Refused::Compacted);
        }
        if self.revision() < wanted {
            return Err(Refused::FutureRevision);
        }
        let revision = if wanted == 0 { self.revision() } else { wanted };
        let kept: Vec<Row> = self.rows_after(revision, false);
        let kept: Vec<&Row> = kept.iter().filter(|row| row.0 <= revision).collect();
        let mut hash = checksum(b"key");
        for row in &self.rows {
            let (main, sub, tombstone, _, value) = row;
            let dropped = *main <= self.compacted && !kept.is_empty() && !kept.contains(&row);
            if revision < *main || dropped || (*main == self.compacted && *tombstone) {
                continue;
            }
            hash = checksum_append(hash, &main.to_be_bytes());
            hash = checksum_append(hash, b"_");
            hash = checksum_append(hash, &sub.to_be_bytes());
            hash = checksum_append(hash, if *tombstone { b"t" } else { b"" });
            hash = checksum_append(hash, value);
        }
        Ok(HashKvResponse {
            revision: Revision(self.revision()),
            hash,
            compact_revision: Revision(self.compacted),
            hash_revision: Revision(revision),
        })
    }
}

fn range_of(pairs: &Pairs, range: &RangeRequest, revision: i64) -> RangeResponse {
    let inside = |kv: &&KeyValue| is_inside(&kv.key, &range.key, &range.range_end);
    let all: Vec<KeyValue> = pairs.values().filter(inside).cloned().collect();
    let count = all.len() as i64;
    let revision = Revision(revision);
    if range.count_only {
        return RangeResponse { revision, count, ..RangeResponse::default() };
    }
    let within = |value: Revision, min: Revision, max: Revision| {
        (min.0 == 0 || min <= value) && (max.0 == 0 || value <= max)
    };
    let mut kvs = all;
    kvs.retain(|kv| within(kv.mod_revision, range.min_mod_revision, range.max_mod_revision));
    kvs.retain(|kv| {
        within(kv.create_revision, range.min_create_revision, range.max_create_revision)
    });
    let limit = usize::try_from(range.limit).ok().filter(|limit| 0 < *limit).unwrap_or(usize::MAX);
    let more = limit < kvs.len();
    // What is not asked to be sorted is limited in key order, and one pair more than asked for is
    // there when it is sorted after all.
    let filters = [
        range.min_mod_revision,
        range.max_mod_revision,
        range.min_create_revision,
        range.max_create_revision,
    ];
    if range.sort_order == SortOrder::None && filters == [Revision(0); 4] {
        kvs.truncate(limit.saturating_add(1));
    }
    match range.sort_target {
        SortTarget::Key => {}
        SortTarget::Version => kvs.sort_by_key(|kv| sign(kv.version, range)),
        SortTarget::Create => kvs.sort_by_key(|kv| sign(kv.create_revision.0, range)),
        SortTarget::Mod => kvs.sort_by_key(|kv| sign(kv.mod_revision.0, range)),
        SortTarget::Value if range.sort_order == SortOrder::Descend => {
            kvs.sort_by(|one, other| other.value.cmp(&one.value));
        }
        SortTarget::Value => kvs.sort_by(|one, other| one.value.cmp(&other.value)),
    }
    if range.sort_target == SortTarget::Key && range.sort_order == SortOrder::Descend {
        kvs.reverse();
    }
    kvs.truncate(limit);
    if range.keys_only {
        kvs.iter_mut().for_each(|kv| kv.value = Bytes::new());
    }
    RangeResponse { revision, kvs, more, count }
}

fn sign(value: i64, range: &RangeRequest) -> i64 {
    if range.sort_order == SortOrder::Descend { -value } else { value }
}

/// One step of a run.
#[derive(Clone, Debug)]
enum Step {
    Request { session: Option<SessionOp>, after_ms: u64, request: Request },
    Range(RangeRequest),
    HashKv(i64),
    Noop,
    Settle(usize),
    Crash,
}

fn step() -> impl Strategy<Value = Step> {
    let session = (1..12_u64, 1..12_u64, 0..6_u64).prop_map(|(client, op, behind)| SessionOp {
        client: ClientId(client),
        op: OpId(op),
        acked: OpId(op.saturating_sub(behind + 1)),
    });
    let request = (prop::option::weighted(0.4, session), 0..800_u64, random::request());
    prop_oneof![
        12 => request.prop_map(|(session, after_ms, request)| {
            Step::Request { session, after_ms, request }
        }),
        4 => random::range().prop_map(Step::Range),
        3 => prop_oneof![Just(0), -1..30_i64].prop_map(Step::HashKv),
        1 => Just(Step::Noop),
        3 => (0..2000_usize).prop_map(Step::Settle),
        2 => Just(Step::Crash),
    ]
}

fn run(steps: Vec<Step>) {
    let mut machine = Machine::default();
    let mut model = Model::new();
    for step in steps {
        match step {
            Step::Request { session, after_ms, request } => {
                machine.time_ms += after_ms;
                let applied = machine.request_as(session, request.clone());
                let index = machine.log.len() as u64;
                let expected = model.request(index, machine.time_ms, session, &request);
                assert_eq!((applied.result, applied.duplicate), expected, "{request:?}");
                assert_eq!(machine.kv.revision().0, model.revision());
                assert_eq!(machine.kv.compacted().0, model.compacted);
                let stats = machine.kv.stats();
                assert_eq!(stats.key_count, model.newest().len() as u64);
                assert_eq!(stats.change_count, model.rows.len() as u64);
                let size: usize = model.rows.iter().map(|row| row.4.len()).sum();
                assert_eq!(stats.records_size_bytes, size as u64);
            }
            Step::Range(range) => {
                let answer = machine.query(&Query::Range(range.clone()));
                assert_eq!(answer, model.range(&range).map(Answer::Range), "{range:?}");
            }
            Step::HashKv(revision) => {
                let answer = machine.query(&Query::HashKv { revision: Revision(revision) });
                assert_eq!(answer, model.hash_kv(revision).map(Answer::HashKv));
            }
            Step::Noop => assert_eq!(machine.entry(EntryKind::Noop, Bytes::new()), None),
            Step::Settle(size_bytes) => {
                machine.settle(size_bytes);
            }
            Step::Crash => machine.crash(),
        }
    }
    settle_all(machine, &model);
}

/// With everything settled, the table holds exactly the model's rows, and loads to the same state.
fn settle_all(mut machine: Machine, model: &Model) {
    while machine.settle(500) {}
    assert_eq!(machine.kv.overlay_size_bytes(), 0);
    let rows = machine.memory.0.iter().filter(|((t, _), _)| *t == kvraft_base::TableId::Records);
    let rows: Vec<&Bytes> = rows.map(|(_, row)| row).collect();
    let expected: Vec<&Bytes> = model.rows.iter().map(|row| &row.4).collect();
    assert_eq!(rows, expected);
    let live = machine.kv.clone();
    machine.crash();
    assert_eq!(machine.kv.applied(), live.applied());
    assert_eq!(machine.kv.sessions, live.sessions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    /// State machine and model agree on everything, whatever is settled or lost in between.
    #[test]
    fn agrees_with_the_model(steps in prop::collection::vec(step(), 1..60)) {
        run(steps);
    }
}
