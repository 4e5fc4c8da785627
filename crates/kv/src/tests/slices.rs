//! Queries read in slices: the same answers as in one go, whatever happens between the slices.

use bytes::Bytes;
use kvraft_base::{Prng, Revision};

use super::harness::Machine;
use crate::{
    Answer, CompactRequest, Compare, CompareResult, CompareTarget, DeleteRangeRequest, PutRequest,
    Query, RangeRequest, Reading, Refused, Request, RequestOp, Slice, SortOrder, SortTarget,
    TxnRequest,
};

/// The least slice: one step.
fn step() -> Slice {
    Slice::of_bytes(1)
}

fn key(n: u64) -> Bytes {
    Bytes::from(format!("k{n:02}"))
}

fn put(n: u64, value: String) -> Request {
    Request::Put(PutRequest { key: key(n), value: value.into(), ..PutRequest::default() })
}

fn compact(revision: i64) -> Request {
    Request::Compact(CompactRequest { revision: Revision(revision), physical: false })
}

/// 40 keys, half of them settled, some deleted, some written twice.
fn filled() -> Machine {
    let mut machine = Machine::default();
    for n in 0..40 {
        machine.request(put(n, format!("first {n}")));
    }
    while machine.settle(usize::MAX) {}
    for n in (0..40).step_by(3) {
        machine.request(put(n, format!("second {n}")));
    }
    let delete = DeleteRangeRequest { key: key(7), range_end: key(11), prev_kv: false };
    machine.request(Request::DeleteRange(delete));
    machine
}

fn all() -> RangeRequest {
    let zero = Bytes::from_static(b"\0");
    RangeRequest { key: zero.clone(), range_end: zero, ..RangeRequest::default() }
}

fn queries() -> Vec<Query> {
    let range = |change: fn(&mut RangeRequest)| {
        let mut range = all();
        change(&mut range);
        range
    };
    let ranges = vec![
        all(),
        range(|range| range.limit = 5),
        range(|range| range.count_only = true),
        range(|range| range.keys_only = true),
        range(|range| range.revision = Revision(30)),
        range(|range| range.min_mod_revision = Revision(20)),
        range(|range| {
            range.sort_target = SortTarget::Mod;
            range.sort_order = SortOrder::Descend;
            range.limit = 3;
        }),
        RangeRequest { key: key(5), range_end: key(15), ..RangeRequest::default() },
        RangeRequest { key: key(5), ..RangeRequest::default() },
        RangeRequest { key: key(9), range_end: key(2), ..RangeRequest::default() },
    ];
    let txn = |count: usize| {
        let success = ranges.iter().take(count).cloned().map(RequestOp::Range).collect();
        Query::Txn(TxnRequest { success, ..TxnRequest::default() })
    };
    let compare = |target: CompareTarget| Compare {
        result: CompareResult::Greater,
        target,
        key: Bytes::from_static(b"\0"),
        range_end: Bytes::from_static(b"\0"),
    };
    let comparing = |targets: [CompareTarget; 2]| {
        Query::Txn(TxnRequest {
            compare: targets.map(compare).into(),
            success: vec![RequestOp::Range(all())],
            failure: vec![RequestOp::Range(RangeRequest { key: key(1), ..all() })],
        })
    };
    let mut queries = vec![txn(0), txn(1), txn(10), Query::Hash];
    queries.push(comparing([CompareTarget::Version(0), CompareTarget::Create(Revision(0))]));
    queries.push(comparing([CompareTarget::Version(0), CompareTarget::Version(1)]));
    queries.extend([0, 30].map(|revision| Query::HashKv { revision: Revision(revision) }));
    queries.extend(ranges.into_iter().map(Query::Range));
    queries
}

/// Reads to the end in least slices; between them `meanwhile` changes the state.
fn read(
    machine: &mut Machine,
    query: &Query,
    mut meanwhile: impl FnMut(&mut Machine, usize),
) -> (Result<Answer, Refused>, usize) {
    let mut reading = Reading::new(query.clone());
    for count in 1.. {
        let answer = machine.kv.read_on(&machine.memory, &mut reading, &mut step()).unwrap();
        if let Some(answer) = answer {
            return (answer, count);
        }
        assert!(count < 10_000, "a slice makes progress: {query:?}");
        meanwhile(machine, count);
    }
    unreachable!("an endless loop does not end")
}

#[test]
fn a_sliced_query_answers_as_a_whole_one() {
    let mut machine = filled();
    for query in queries() {
        let whole = machine.query(&query);
        let (sliced, slices) = read(&mut machine, &query, |_, _| ());
        assert_eq!(sliced, whole, "{query:?}");
        if query == Query::Range(all()) {
            assert!(40 <= slices, "a slice is a step: {slices}");
        }
    }
}

/// What is written and settled while a query is being read does not show in it.
#[test]
fn a_sliced_query_sees_one_revision() {
    for (seed, query) in queries().into_iter().enumerate() {
        let mut machine = filled();
        let mut prng = Prng::new(seed as u64);
        let before = machine.query(&query);
        let (sliced, _) = read(&mut machine, &query, |machine, _| {
            machine.request(put(prng.below(60), "meanwhile".into()));
            let (first, end) = (prng.below(60), prng.below(60));
            let delete =
                DeleteRangeRequest { key: key(first), range_end: key(end), prev_kv: false };
            machine.request(Request::DeleteRange(delete));
            machine.settle(1 + usize::try_from(prng.below(2000)).unwrap());
        });
        assert_eq!(sliced, before, "{query:?}");
    }
}

/// A compaction on the way makes a query begin again: it then answers with what is there now.
#[test]
fn a_compaction_makes_a_query_begin_again() {
    for query in queries() {
        let mut machine = filled();
        let (sliced, slices) = read(&mut machine, &query, |machine, count| {
            if count == 2 {
                machine.request(put(50, "newer".into()));
                let revision = machine.kv.revision().0;
                machine.request(compact(revision));
                while machine.settle(usize::MAX) {}
            }
        });
        let after = machine.query(&query);
        // What reads at the newest revision of then, and was not done by then, begins again.
        let began_again = match &query {
            Query::Range(range) => range.revision == Revision(0),
            Query::Txn(txn) => txn.success.len() < 5,
            Query::HashKv { .. } | Query::Hash => true,
        };
        if 3 <= slices && began_again {
            assert_eq!(sliced, after, "{query:?}");
        }
        if query == (Query::HashKv { revision: Revision(30) }) {
            assert_eq!(sliced, Err(Refused::Compacted));
        }
    }
}

/// What a query may gather is bounded.
#[test]
fn a_huge_answer_is_refused() {
    let mut machine = Machine::default();
    let value = "x".repeat(1 << 20);
    let count = crate::ANSWER_SIZE_BYTES_MAX as u64 / (1 << 20) + 1;
    for n in 0..count {
        machine.request(put(n, value.clone()));
    }
    let (answer, _) = read(&mut machine, &Query::Range(all()), |_, _| ());
    assert_eq!(answer, Err(Refused::AnswerTooLarge));
    let before = machine.kv.revision();
    let ops = vec![RequestOp::Put(PutRequest { key: key(1), ..PutRequest::default() })];
    let success = ops.into_iter().chain([RequestOp::Range(all())]).collect();
    let txn = Request::Txn(TxnRequest { success, ..TxnRequest::default() });
    assert_eq!(machine.request(txn).result, Err(Refused::AnswerTooLarge));
    let zero = Bytes::from_static(b"\0");
    let delete = DeleteRangeRequest { key: zero.clone(), range_end: zero, prev_kv: true };
    let applied = machine.request(Request::DeleteRange(delete));
    assert_eq!(applied.result, Err(Refused::AnswerTooLarge));
    assert_eq!(machine.kv.revision(), before, "nothing was changed");
    let part = RangeRequest { limit: 100, ..all() };
    let (answer, _) = read(&mut machine, &Query::Range(part), |_, _| ());
    assert!(answer.is_ok());
}
