//! Scenarios of a client's life, each told from its first attempt to its end.

use std::time::Duration;

use kvraft_base::{ClientId, Instant, OpId};

use crate::*;

const START: Instant = Instant(1_000);

fn config(mode: Mode) -> Config {
    Config {
        endpoint_count: 3,
        mode,
        retry: RetryPolicy::default(),
        operation_timeout: Duration::from_secs(5),
    }
}

fn roaming() -> Session {
    Session::new(config(Mode::Roaming), 42).unwrap()
}

fn with_session() -> Session {
    let mut session = roaming();
    session.attach(ClientId(7));
    session
}

fn attempt(session: &Session, operation: &Operation) -> Attempt {
    session.attempt(START, operation).unwrap()
}

/// Without a session nobody can tell a resent put from a second one, so the first doubt ends it.
#[test]
fn unnumbered_mutation_is_not_resent_after_unknown_fate() {
    let mut session = roaming();
    let mut put = session.begin(START, Kind::Mutation);
    let first = attempt(&session, &put);
    assert_eq!(first.stamp, None);
    let next = session.fail(START, &mut put, first.endpoint, Failure::Unknown);
    assert_eq!(next, Next::End(Ending::Unknown));
    assert_eq!(session.preferred(), EndpointId(1), "the next operation asks someone else");
}

/// What sessions do not cover has no number, even with a session, and ends with the first doubt.
#[test]
fn what_sessions_do_not_cover_is_not_resent() {
    let mut session = with_session();
    let mut change = session.begin(START, Kind::Once);
    assert_eq!((change.op(), session.pending_count()), (None, 0));
    let first = attempt(&session, &change);
    assert_eq!(first.stamp, None);
    let next = session.fail(START, &mut change, first.endpoint, Failure::NotSent);
    assert!(matches!(next, Next::Retry { .. }), "{next:?}");
    let second = attempt(&session, &change);
    let next = session.fail(START, &mut change, second.endpoint, Failure::Unknown);
    assert_eq!(next, Next::End(Ending::Unknown));
}

/// What was certainly not sent may be sent elsewhere, even without a session.
#[test]
fn unnumbered_mutation_moves_on_when_it_was_not_sent() {
    let mut session = roaming();
    let mut put = session.begin(START, Kind::Mutation);
    for expected in [0, 1, 2] {
        let tried = attempt(&session, &put);
        assert_eq!(tried.endpoint, EndpointId(expected));
        let next = session.fail(START, &mut put, tried.endpoint, Failure::NotSent);
        let Next::Retry { at } = next else { panic!("{next:?}") };
        assert_eq!(at == START, expected < 2, "only a whole failed round costs a pause");
    }
    assert_eq!(attempt(&session, &put).endpoint, EndpointId(0));
    session.succeed(put);
}

/// With a session the number makes the doubt harmless: same number, other server.
#[test]
fn numbered_mutation_is_resent_under_the_same_number() {
    let mut session = with_session();
    let mut put = session.begin(START, Kind::Mutation);
    let first = attempt(&session, &put);
    let next = session.fail(START, &mut put, first.endpoint, Failure::Unknown);
    assert_eq!(next, Next::Retry { at: START });
    let second = attempt(&session, &put);
    assert_ne!(second.endpoint, first.endpoint);
    assert_eq!(second.stamp, first.stamp);
    assert_eq!(second.stamp, Some(Stamp { client: ClientId(7), op: OpId(1), acked: OpId::ZERO }));
    session.succeed(put);
    let put = session.begin(START, Kind::Mutation);
    let stamp = attempt(&session, &put).stamp.unwrap();
    assert_eq!((stamp.op, stamp.acked), (OpId(2), OpId(1)));
    session.succeed(put);
}

/// The floor stays below the oldest operation in flight, in whatever order they end.
#[test]
fn acknowledged_floor_waits_for_the_oldest() {
    let mut session = with_session();
    let [a, b, c] = std::array::from_fn(|_| session.begin(START, Kind::Mutation));
    session.succeed(b);
    assert_eq!(attempt(&session, &c).stamp.unwrap().acked, OpId::ZERO);
    session.abandon(&a);
    assert_eq!(attempt(&session, &c).stamp.unwrap().acked, OpId(2));
    session.succeed(c);
    assert_eq!(session.pending_count(), 0);
}

/// Reads take no number and are asked again for as long as there is time.
#[test]
fn read_is_repeated_until_its_deadline() {
    let mut session = with_session();
    let mut read = session.begin(START, Kind::Repeatable);
    assert_eq!(read.op(), None);
    let mut now = START;
    loop {
        let tried = session.attempt(now, &read).unwrap();
        assert!(tried.deadline <= read.deadline());
        match session.fail(now, &mut read, tried.endpoint, Failure::Unknown) {
            Next::Retry { at } => {
                assert!(now <= at && at < read.deadline());
                now = at;
            }
            Next::End(ending) => break assert_eq!(ending, Ending::Unknown),
        }
    }
    assert!(10 < read.failure_count());
}

/// A deadline says "not done" only if no attempt ever came into doubt.
#[test]
fn one_doubtful_attempt_keeps_the_outcome_unknown() {
    for (first, expected) in
        [(Failure::NotSent, Ending::NotDone), (Failure::Unknown, Ending::Unknown)]
    {
        let mut session = with_session();
        let mut put = session.begin(START, Kind::Mutation);
        let _ = session.fail(START, &mut put, EndpointId(0), first);
        let late = put.deadline();
        let next = session.fail(late, &mut put, EndpointId(1), Failure::NotSent);
        assert_eq!(next, Next::End(expected));
    }
}

/// A lost session ends a doubtful operation as unknown, and a clean one as "begin anew".
#[test]
fn lost_session_is_honest() {
    let mut session = with_session();
    let mut doubtful = session.begin(START, Kind::Mutation);
    let mut clean = session.begin(START, Kind::Mutation);
    let _ = session.fail(START, &mut doubtful, EndpointId(0), Failure::Unknown);
    let next = session.fail(START, &mut doubtful, EndpointId(1), Failure::SessionLost);
    assert_eq!(next, Next::End(Ending::Unknown));
    assert_eq!(session.client(), None);
    assert_eq!(session.attempt(START, &clean), None, "its session is gone");
    session.attach(ClientId(8));
    let next = session.fail(START, &mut clean, EndpointId(1), Failure::SessionLost);
    assert_eq!(next, Next::End(Ending::SessionLost));
    assert_eq!(session.client(), Some(ClientId(8)), "the new session is untouched");
    let again = session.begin(START, Kind::Mutation);
    assert_eq!(again.op(), Some(OpId(1)), "numbers begin anew");
    session.succeed(again);
}

/// A pinned client waits for its server, with growing pauses, and takes no hints.
#[test]
fn pinned_client_stays_with_its_server() {
    let mut session = Session::new(config(Mode::Pinned(EndpointId(2))), 1).unwrap();
    session.attach(ClientId(7));
    session.prefer(EndpointId(0));
    let policy = RetryPolicy::default();
    let mut put = session.begin(START, Kind::Mutation);
    let mut greatest = policy.pause_min;
    for _ in 0..8 {
        let tried = attempt(&session, &put);
        assert_eq!(tried.endpoint, EndpointId(2));
        let next = session.fail(START, &mut put, tried.endpoint, Failure::Unknown);
        let Next::Retry { at } = next else { panic!("{next:?}") };
        assert!(greatest / 2 <= at - START && at - START <= greatest, "{at} of {greatest:?}");
        greatest = (greatest * 2).min(policy.pause_max);
    }
    session.succeed(put);
}

/// A hint moves a roaming client; a hint from outside the list moves nobody.
#[test]
fn roaming_client_takes_hints() {
    let mut session = roaming();
    session.prefer(EndpointId(2));
    assert_eq!(session.preferred(), EndpointId(2));
    session.prefer(EndpointId(3));
    assert_eq!(session.preferred(), EndpointId(2));
}

/// Many operations failing at one server move the route once, not once each.
#[test]
fn concurrent_failures_leave_a_server_once() {
    let mut session = with_session();
    let mut puts: [Operation; 3] = std::array::from_fn(|_| session.begin(START, Kind::Mutation));
    for put in &mut puts {
        let _ = session.fail(START, put, EndpointId(0), Failure::Unknown);
    }
    assert_eq!(session.preferred(), EndpointId(1));
}

/// A refusal is final and costs the server nothing of its standing.
#[test]
fn refusal_ends_at_once() {
    let mut session = with_session();
    let mut put = session.begin(START, Kind::Mutation);
    let next = session.fail(START, &mut put, EndpointId(0), Failure::Refused);
    assert_eq!(next, Next::End(Ending::Refused));
    assert_eq!((session.preferred(), session.pending_count()), (EndpointId(0), 0));
}

/// Reads can have numbers, too, and are still repeated whatever became of them; what sessions do not
/// cover has none.
#[test]
fn reads_can_be_numbered() {
    let mut session = with_session();
    let mut read = session.begin_numbered(START, Kind::Repeatable);
    let put = session.begin(START, Kind::Mutation);
    let once = session.begin_numbered(START, Kind::Once);
    assert_eq!((read.op(), put.op(), once.op()), (Some(OpId(1)), Some(OpId(2)), None));
    let next = session.fail(START, &mut read, EndpointId(0), Failure::Unknown);
    assert!(matches!(next, Next::Retry { .. }));
    let stamp = session.attempt(START, &put).unwrap().stamp.unwrap();
    assert_eq!(stamp.acked, OpId(0), "a read that has not ended is not acknowledged");
    session.succeed(read);
    let stamp = session.attempt(START, &put).unwrap().stamp.unwrap();
    assert_eq!(stamp.acked, OpId(1));
    session.succeed(put);
    session.succeed(once);
}

/// Only what is known to precede the log counts as not sent; the rest is doubt.
#[test]
fn answers_are_classified() {
    let cases = [
        (14, "etcdserver: no leader", Failure::NotSent),
        (14, "etcdserver: leader changed", Failure::Unknown),
        (14, "etcdserver: request timed out", Failure::Unknown),
        (14, "etcdserver: server stopped", Failure::Unknown),
        (14, "something new", Failure::Unknown),
        (2, "etcdserver: too many requests", Failure::NotSent),
        (8, "etcdserver: too many requests", Failure::NotSent),
        (8, "etcdserver: mvcc: database space exceeded", Failure::Refused),
        (3, "etcdserver: key is not provided", Failure::Refused),
        (11, "etcdserver: mvcc: required revision has been compacted", Failure::Refused),
        (9, "kvraft: session unknown or expired", Failure::SessionLost),
        (9, "kvraft: operation 3 of session 7 was already acknowledged", Failure::ResultLost),
        (
            9,
            "kvraft: operation 3 of session 7 was done, its result was too large to keep",
            Failure::ResultLost,
        ),
        (8, "kvraft: session 7 has too many unacknowledged results", Failure::NotSent),
        (12, "unknown service kvraft.v1.Session", Failure::Refused),
        (13, "", Failure::Unknown),
    ];
    for (code, text, expected) in cases {
        assert_eq!(Failure::of_answer(code, text), expected, "{code} {text}");
    }
}

/// A configuration that cannot work is refused by name.
#[test]
fn unworkable_configurations_are_refused() {
    let refused = |change: fn(&mut Config)| {
        let mut config = config(Mode::Roaming);
        change(&mut config);
        Session::new(config, 0).unwrap_err()
    };
    assert_eq!(refused(|c| c.endpoint_count = 0), ConfigError::NoEndpoint);
    assert_eq!(
        refused(|c| c.mode = Mode::Pinned(EndpointId(3))),
        ConfigError::PinnedOutside { pinned: EndpointId(3), count: 3 }
    );
    assert_eq!(
        refused(|c| c.operation_timeout = Duration::ZERO),
        ConfigError::OperationTimeoutZero
    );
    assert_eq!(
        refused(|c| c.retry.pause_min = Duration::ZERO),
        ConfigError::Retry(RetryPolicyError::PauseMinZero)
    );
}
