//! Bytes: round trips, damage, and text.

use bytes::Bytes;
use expect_test::expect;
use kvraft_base::{ClientId, EntryKind, MemberId, Members, OpId, Reader, Revision, Ticket, Writer};
use proptest::prelude::*;

use super::{harness::Machine, random};
use crate::{
    Command, CompactRequest, Compare, CompareTarget, DeleteRangeRequest, KeyValue, Origin,
    PutRequest, Query, Redaction, Refused, Request, RequestOp, SessionOp, TxnRequest, describe,
    response_codec::decode_result, rev_key::RevKey, stamp,
};

fn command(request: Request) -> Command {
    let origin = Origin { member: MemberId(3), incarnation: 4, ticket: Ticket(5) };
    let session = Some(SessionOp { client: ClientId(6), op: OpId(7), acked: OpId(5) });
    Command { origin, time_ms: 8, session, user: "root".into(), auth_revision: 9, request }
}

fn put(key: &'static [u8], value: &'static [u8]) -> PutRequest {
    PutRequest { key: key.into(), value: value.into(), ..PutRequest::default() }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    /// Commands survive their encoding, and no prefix of one is another.
    #[test]
    fn commands_round_trip(request in random::request()) {
        let command = command(request);
        let payload = command.encode();
        prop_assert_eq!(&Command::decode(payload.clone()).unwrap(), &command);
        if matches!(command.request, Request::RaiseVersion { .. }) {
            prop_assert!(stamp(&payload, 99).is_err(), "no client may give it");
        } else {
            let stamped = Command::decode(stamp(&payload, 99).unwrap()).unwrap();
            prop_assert_eq!(stamped, Command { time_ms: 99, ..command });
        }
        for size in 0..payload.len() {
            prop_assert!(Command::decode(payload.slice(..size)).is_err());
        }
    }

    /// Bytes of any kind are refused or decoded, never a panic.
    #[test]
    fn any_bytes_decode_or_fail(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let bytes = Bytes::from(bytes);
        drop((Command::decode(bytes.clone()), stamp(&bytes, 1), decode_result(bytes.clone())));
        drop((RevKey::decode(&bytes), describe(&bytes)));
        if let Ok(kv) = KeyValue::decode(bytes) {
            prop_assert_eq!(KeyValue::decode(kv.encode()).unwrap(), kv);
        }
    }

    /// Whatever is in an entry keeps its length when it is redacted, is a command afterwards if it
    /// was one, and is stamped the same before and after.
    #[test]
    fn redaction_keeps_what_consensus_sees(
        request in random::request(), bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        for payload in [command(request).encode(), bytes.into()] {
            for redaction in [Redaction::Values, Redaction::KeysAndValues] {
                let redacted = redaction.command(&payload);
                prop_assert_eq!(redacted.len(), payload.len());
                let is_command = Command::decode(payload.clone()).is_ok();
                prop_assert_eq!(Command::decode(redacted.clone()).is_ok(), is_command);
                let stamped = stamp(&payload, 7).map(|stamped| redaction.command(&stamped));
                prop_assert_eq!(stamped.ok(), stamp(&redacted, 7).ok());
            }
        }
    }

    /// A damaged command in the log is answered with a refusal, by every member alike.
    #[test]
    fn damaged_commands_are_refused(
        request in random::request(), at in any::<u16>(), bit in 0..8_u8,
    ) {
        let mut payload = command(request).encode().to_vec();
        let at = usize::from(at) % payload.len();
        payload[at] ^= 1_u8 << bit;
        // A version that nobody knows ends a server: `versions` has that.
        let is_raise = Command::decode(payload.clone().into())
            .is_ok_and(|command| matches!(command.request, Request::RaiseVersion { .. }));
        prop_assume!(!is_raise);
        let mut machine = Machine::default();
        let applied = machine.entry(EntryKind::Command, payload.into());
        prop_assert!(applied.is_some());
        machine.crash();
    }
}

/// The bytes that etcd writes for a record.
#[test]
fn record_has_etcds_bytes() {
    let kv = KeyValue {
        key: "foo".into(),
        create_revision: Revision(2),
        mod_revision: Revision(300),
        version: 2,
        value: "bar".into(),
        lease: -1,
    };
    let bytes = kv.encode();
    expect![[
        r#"\n\x03foo\x10\x02\x18\xac\x02 \x02*\x03bar0\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"#
    ]]
    .assert_eq(&bytes.escape_ascii().to_string());
    assert_eq!(KeyValue::decode(bytes).unwrap(), kv);
    let rev = RevKey { main: 258, sub: 3, tombstone: true };
    expect![[r#"\x00\x00\x00\x00\x00\x00\x01\x02_\x00\x00\x00\x00\x00\x00\x00\x03t"#]]
        .assert_eq(&rev.encode().escape_ascii().to_string());
    assert_eq!(RevKey::decode(&rev.encode()).unwrap(), rev);
}

/// Fields of a later version are passed over; known fields of another type are not.
#[test]
fn unknown_fields_are_skipped() {
    let later = Bytes::from_static(b"\n\x01k\x38\x05\x42\x02xy\x4d1234\x51123456788");
    assert!(KeyValue::decode(later).is_err(), "the last field runs past its eight bytes");
    let later = Bytes::from_static(b"\n\x01k\x38\x05\x42\x02xy\x4d1234\x5112345678");
    assert_eq!(KeyValue::decode(later).unwrap().key, "k");
    assert!(KeyValue::decode(Bytes::from_static(b"\x08\x01")).is_err());
}

/// Every refusal survives its encoding, and says what etcd says.
#[test]
fn refusals_round_trip() {
    let (client, op) = (ClientId(1), OpId(2));
    let mut with_fields = vec![
        Refused::OpAcknowledged { client, op },
        Refused::WindowFull { client },
        Refused::ResultDropped { client, op },
    ];
    let plain = (0..=u8::MAX)
        .filter_map(|tag| Refused::decode(&mut Reader::new(Bytes::copy_from_slice(&[tag]))).ok());
    with_fields.extend(plain);
    assert_eq!(with_fields.len(), 21);
    let mut text = String::new();
    for refused in with_fields {
        let mut writer = Writer::new();
        refused.encode(&mut writer);
        assert_eq!(Refused::decode(&mut Reader::new(writer.finish())).unwrap(), refused);
        text += &format!("{} {refused}\n", refused.code() as u8);
    }
    expect![[r#"
        9 kvraft: operation 2 of session 1 was already acknowledged
        8 kvraft: session 1 has too many unacknowledged results
        9 kvraft: operation 2 of session 1 was done, its result was too large to keep
        3 etcdserver: key is not provided
        3 etcdserver: key not found
        3 etcdserver: value is provided
        3 etcdserver: lease is provided
        3 etcdserver: too many operations in txn request
        3 etcdserver: duplicate key given in txn request
        3 etcdserver: invalid sort option
        3 etcdserver: request is too large
        3 kvraft: invalid compare option
        11 etcdserver: mvcc: required revision has been compacted
        11 etcdserver: mvcc: required revision is a future revision
        5 etcdserver: requested lease not found
        9 kvraft: session unknown or expired
        8 kvraft: too many unacknowledged results in all sessions
        8 kvraft: too many sessions
        12 kvraft: transaction writes and needs a log entry
        13 kvraft: command cannot be decoded
        8 kvraft: the answer is too large; read it in parts, with a limit
    "#]]
    .assert_eq(&text);
}

/// Transactions are decoded to a bounded depth.
#[test]
fn deep_transactions_are_refused() {
    let mut txn = TxnRequest::default();
    for _ in 0..200 {
        txn = TxnRequest { success: vec![RequestOp::Txn(txn)], ..TxnRequest::default() };
    }
    assert_eq!(txn.check(), Err(Refused::TooManyOps));
    assert!(Command::decode(command(Request::Txn(txn)).encode()).is_err());
}

/// A level of nesting has what its parent leaves of the 128 operations.
#[test]
fn nested_transactions_share_the_limit() {
    let puts = |count| TxnRequest {
        success: (0..count)
            .map(|n: u32| {
                let key = n.to_string().into();
                RequestOp::Put(PutRequest { key, ..PutRequest::default() })
            })
            .collect(),
        ..TxnRequest::default()
    };
    let nest = |txn| TxnRequest { success: vec![RequestOp::Txn(txn)], ..TxnRequest::default() };
    assert_eq!(puts(128).check(), Ok(()));
    assert_eq!(puts(129).check(), Err(Refused::TooManyOps));
    assert_eq!(nest(puts(127)).check(), Ok(()));
    assert_eq!(nest(puts(128)).check(), Err(Refused::TooManyOps));
}

/// What cannot be decoded is refused, and who waits is told if that much can be read.
#[test]
fn undecodable_command_is_answered() {
    let mut machine = Machine::default();
    let mut payload = command(Request::Put(put(b"k", b"v"))).encode().to_vec();
    payload[1] = 99;
    let applied = machine.entry(EntryKind::Command, payload.into()).unwrap();
    assert_eq!(applied.result, Err(Refused::Undecodable));
    assert_eq!(applied.origin.ticket, Ticket(5));
    let applied = machine.entry(EntryKind::Command, Bytes::new()).unwrap();
    assert_eq!(applied.origin, Origin::default());
}

/// Configurations are remembered, also across a restart; no-ops only move the position.
#[test]
fn members_are_remembered() {
    let mut machine = Machine::default();
    assert_eq!(machine.entry(EntryKind::Noop, Bytes::new()), None);
    assert_eq!(machine.kv.members(), None);
    let members = Members::new([MemberId(1), MemberId(2), MemberId(3)]).unwrap();
    assert_eq!(machine.entry(EntryKind::Config, members.encode()), None);
    assert_eq!(machine.kv.members(), Some(&members));
    while machine.settle(usize::MAX) {}
    machine.crash();
    assert_eq!(machine.kv.members(), Some(&members));
}

/// Lines for people.
#[test]
fn descriptions() {
    let long: &'static [u8] = &[b'x'; 100];
    let txn = TxnRequest {
        compare: vec![Compare {
            target: CompareTarget::Mod(Revision(3)),
            key: "k".into(),
            ..Compare::default()
        }],
        success: vec![RequestOp::Put(put(b"k", b"v")), RequestOp::Txn(TxnRequest::default())],
        failure: vec![RequestOp::Range(crate::RangeRequest {
            key: "k".into(),
            ..Default::default()
        })],
    };
    let requests = [
        Request::Put(put(b"k12", b"val12")),
        Request::Put(put(b"\0\xff\n", long)),
        Request::DeleteRange(DeleteRangeRequest {
            key: "a".into(),
            range_end: Bytes::from_static(b"\0"),
            prev_kv: false,
        }),
        Request::Txn(txn),
        Request::Compact(CompactRequest { revision: Revision(5), physical: true }),
        Request::OpenSession { ttl_ms: 5000 },
        Request::CloseSession { client: ClientId(7) },
        Request::RaiseVersion { version: 2 },
    ];
    let origin = Origin::default();
    let mut text = String::new();
    for request in requests {
        text += &(describe(&Command::new(origin, 0, request).encode()) + "\n");
    }
    text += &(describe(&command(Request::Put(put(b"k", b"v"))).encode()) + "\n");
    text += &(describe(&Bytes::from_static(b"\x02")) + "\n");
    expect![[r#"
        Put(k12,val12)
        Put(\x00\xff\n,xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx… 100 bytes)
        DeleteRange(a..)
        Txn(if mod(k)=3 then Put(k,v); Txn(…) else Get(k))
        Compact(5)
        OpenSession(5000ms)
        CloseSession(7)
        RaiseVersion(2)
        Put(k,v) session=6 op=7
        Undecodable(command version: 2 is not a known value)
    "#]]
    .assert_eq(&text);
}

/// Values go wherever they stand, keys where that is wanted, and all else stays.
#[test]
fn redacted_commands_say_what_was_done() {
    let compare = Compare {
        target: CompareTarget::Value("secret1".into()),
        key: "k1".into(),
        ..Compare::default()
    };
    let delete = DeleteRangeRequest {
        key: "k2".into(),
        range_end: Bytes::from_static(b"\0"),
        ..DeleteRangeRequest::default()
    };
    let inner = TxnRequest {
        failure: vec![RequestOp::Put(put(b"k3", b"secret2"))],
        ..TxnRequest::default()
    };
    let txn = TxnRequest {
        compare: vec![compare],
        success: vec![RequestOp::Put(put(b"k4", b"secret3")), RequestOp::Txn(inner)],
        failure: vec![RequestOp::DeleteRange(delete)],
    };
    let payload = command(Request::Txn(txn.clone())).encode();
    let values = Redaction::Values.command(&payload);
    let both = Redaction::KeysAndValues.command(&payload);
    let mut query = Query::Txn(txn);
    Redaction::KeysAndValues.query(&mut query);
    let mut asked = Writer::new();
    query.encode(&mut asked);
    let holds = |bytes: &[u8], what: &[u8]| bytes.windows(what.len()).any(|part| part == what);
    for redacted in [&values[..], &both, asked.as_slice()] {
        assert!(!holds(redacted, b"secret") && !holds(redacted, b"root"));
    }
    for key in [b"k1", b"k2", b"k3", b"k4"] {
        assert!(holds(&values, key) && !holds(&both, key) && !holds(asked.as_slice(), key));
    }
    expect!["Txn(if value(k1)=xxxxxxx then Put(k4,xxxxxxx); Txn(…) else DeleteRange(k2..)) session=6 op=7"]
        .assert_eq(&describe(&values));
    expect!["Txn(if value(xx)=xxxxxxx then Put(xx,xxxxxxx); Txn(…) else DeleteRange(xx..)) session=6 op=7"]
        .assert_eq(&describe(&both));
}
