//! Exactly once: the window of results, its bounds, and time.

use bytes::Bytes;
use expect_test::expect;
use kvraft_base::{ClientId, OpId};

use super::{harness::Machine, script::check};
use crate::{
    DeleteRangeRequest, PutRequest, Refused, Request, SESSION_RESULTS_SIZE_BYTES_MAX, SessionOp,
};

/// A retried operation gets the first result; an acknowledged one is refused, not done again.
#[test]
fn retry_gets_the_first_result() {
    check(
        "open 0
         @1/1/0 put a 1
         @1/1/0 put a 1
         settle
         crash
         @1/1/0 put a 1
         @1/2/1 put a 2
         @1/1/1 put a 1
         @1/4/1 put b 4
         @1/3/1 put b 3
         @1/4/1 put b 4
         get a z",
        expect![[r#"
            open 0
                client=1
            @1/1/0 put a 1
                rev=2
            @1/1/0 put a 1
                rev=2 (duplicate)
            settle
                done
            crash
                done
            @1/1/0 put a 1
                rev=2 (duplicate)
            @1/2/1 put a 2
                rev=3
            @1/1/1 put a 1
                FailedPrecondition: kvraft: operation 1 of session 1 was already acknowledged
            @1/4/1 put b 4
                rev=4
            @1/3/1 put b 3
                rev=5
            @1/4/1 put b 4
                rev=4 (duplicate)
            get a z
                rev=5 count=2 a=2[2,3,2] b=3[4,5,2]
        "#]],
    );
}

/// A refusal is a result too: the retry gets it even if the operation would succeed by now.
#[test]
fn refusals_are_kept() {
    check(
        "open 0
         @1/1/0 put a '' ignore_value
         put a 1
         @1/1/0 put a '' ignore_value
         @1/2/0 put '' 1
         @1/2/0 put '' 1",
        expect![[r#"
            open 0
                client=1
            @1/1/0 put a '' ignore_value
                InvalidArgument: etcdserver: key not found
            put a 1
                rev=2
            @1/1/0 put a '' ignore_value
                InvalidArgument: etcdserver: key not found (duplicate)
            @1/2/0 put '' 1
                InvalidArgument: etcdserver: key is not provided
            @1/2/0 put '' 1
                InvalidArgument: etcdserver: key is not provided (duplicate)
        "#]],
    );
}

/// A session that is unknown, closed or expired is refused and does not come back.
#[test]
fn sessions_do_not_come_back() {
    check(
        "@9/1/0 put a 1
         time 1000
         open 5000
         @2/1/0 put a 1
         time 5999
         @2/2/1 put a 2
         time 10998
         put other 1
         @2/3/2 put a 3
         time 15998
         stats
         @2/4/3 put a 4
         stats
         time 1
         @2/4/3 put a 4
         open 0
         @9/1/0 close 9
         @9/1/0 close 9
         close 9",
        expect![[r#"
            @9/1/0 put a 1
                FailedPrecondition: kvraft: session unknown or expired
            time 1000
                done
            open 5000
                client=2
            @2/1/0 put a 1
                rev=2
            time 5999
                done
            @2/2/1 put a 2
                rev=3
            time 10998
                done
            put other 1
                rev=4
            @2/3/2 put a 3
                rev=5
            time 15998
                done
            stats
                keys=2 changes=4 records=52B clock=10998 sessions=1 results=76B
            @2/4/3 put a 4
                FailedPrecondition: kvraft: session unknown or expired
            stats
                keys=2 changes=4 records=52B clock=15998 sessions=0 results=0B
            time 1
                done
            @2/4/3 put a 4
                FailedPrecondition: kvraft: session unknown or expired
            open 0
                client=9
            @9/1/0 close 9
                closed rev=5
            @9/1/0 close 9
                FailedPrecondition: kvraft: session unknown or expired
            close 9
                FailedPrecondition: kvraft: session unknown or expired
        "#]],
    );
}

/// When many sessions expire at once they are removed over several entries, but all refused at
/// once.
#[test]
fn many_sessions_expire_at_once() {
    let mut machine = Machine::default();
    for _ in 0..40 {
        machine.request(Request::OpenSession { ttl_ms: 2000 });
    }
    machine.time_ms = 2000;
    let mut counts = Vec::new();
    for client in [40, 39, 38, 1] {
        let session = SessionOp { client: ClientId(client), op: OpId(1), acked: OpId(0) };
        let applied = machine.request_as(Some(session), put("k", false));
        assert_eq!(applied.result, Err(Refused::SessionUnknown));
        counts.push(machine.kv.stats().session_count);
    }
    assert_eq!(counts, [24, 8, 0, 0]);
    machine.crash();
}

fn put(key: &str, prev_kv: bool) -> Request {
    let (key, value) = (Bytes::copy_from_slice(key.as_bytes()), Bytes::from(vec![7; 400_000]));
    Request::Put(PutRequest { key, value, prev_kv, ..PutRequest::default() })
}

/// A full window refuses new operations without doing them, answers old ones, and empties when
/// they are acknowledged.
#[test]
fn full_window_refuses() {
    let mut machine = Machine::default();
    machine.request(put("k", false));
    machine.request(Request::OpenSession { ttl_ms: 0 });
    let client = ClientId(2);
    let session = |op, acked| Some(SessionOp { client, op: OpId(op), acked: OpId(acked) });
    for op in 1..=3 {
        machine.request_as(session(op, 0), put("k", true)).result.unwrap();
    }
    assert!(SESSION_RESULTS_SIZE_BYTES_MAX <= machine.kv.stats().results_size_bytes);
    let revision = machine.kv.revision();
    let full = machine.request_as(session(4, 0), put("k", true));
    assert_eq!(full.result, Err(Refused::WindowFull { client }));
    assert_eq!(machine.kv.revision(), revision);
    assert!(machine.request_as(session(1, 0), put("k", true)).duplicate);
    assert!(machine.request_as(session(4, 2), put("k", true)).result.is_ok());
    while machine.settle(1) {}
    machine.crash();
    machine.request(Request::CloseSession { client }).result.unwrap();
    assert_eq!(machine.kv.stats().results_size_bytes, 0);
    while machine.settle(1) {}
    let left =
        machine.memory.0.keys().filter(|(table, _)| *table == kvraft_base::TableId::Sessions);
    assert_eq!(left.count(), 0);
}

/// A result that is too large to keep is not done again, and its retry says so.
#[test]
fn large_result_is_not_kept() {
    let mut machine = Machine::default();
    for key in ["a", "b", "c"] {
        machine.request(put(key, false));
    }
    machine.request(Request::OpenSession { ttl_ms: 0 });
    let (client, op) = (ClientId(4), OpId(1));
    let session = Some(SessionOp { client, op, acked: OpId(0) });
    let delete = Request::DeleteRange(DeleteRangeRequest {
        key: Bytes::from_static(b"a"),
        range_end: Bytes::from_static(b"z"),
        prev_kv: true,
    });
    let first = machine.request_as(session, delete.clone());
    assert!(first.result.is_ok());
    let again = machine.request_as(session, delete);
    assert_eq!(again.result, Err(Refused::ResultDropped { client, op }));
    assert!(again.duplicate);
}
