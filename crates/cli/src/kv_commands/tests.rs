//! Text in, requests out; responses in, text out.

use kvraft_client::proto::{
    etcdserverpb::{compare::TargetUnion, request_op::Request, response_op::Response, *},
    mvccpb::KeyValue,
};

use super::{Reply, Sections, options::Show, words};
use crate::connection::{WriteOut, parse_duration};

fn parse(text: &str) -> anyhow::Result<TxnRequest> {
    let mut sections = Sections::default();
    for line in text.lines() {
        if sections.push(line)? {
            break;
        }
    }
    sections.finish()
}

fn refusal(text: &str) -> String {
    format!("{:#}", parse(text).unwrap_err())
}

fn record(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
        create_revision: 2,
        mod_revision: 3,
        version: 2,
        lease: 0,
    }
}

fn range_of(records: Vec<KeyValue>) -> RangeResponse {
    let count = i64::try_from(records.len()).unwrap();
    RangeResponse { kvs: records, count, ..RangeResponse::default() }
}

fn render(reply: &Reply, write_out: WriteOut) -> String {
    String::from_utf8(reply.render(write_out).unwrap()).unwrap()
}

/// Quotes keep blanks; double ones know Go's escapes, single ones know none.
#[test]
fn words_are_split_as_etcdctl_does() {
    let line = r#"put "a b\n\x41\u00e9" 'c\n d'  plain"#;
    let expected: [&[u8]; 4] = [b"put", "a b\nAé".as_bytes(), br"c\n d", b"plain"];
    assert_eq!(words(line).unwrap(), expected);
    for bad in [r#""open"#, "'open", r#""\q""#, r#""\x4""#, r#""\"#] {
        assert!(words(bad).is_err(), "{bad}");
    }
    assert!(words("  ").unwrap().is_empty());
}

/// The three sections of a transaction, with every kind of comparison.
#[test]
fn transaction_is_read() {
    let request = parse(
        "mod(\"k\") > \"7\"\nvalue(\"a b\") = \"x\"\nc(\"k\")!=\"0\"\nver(\"k\") < \"2\"\nlease(\"k\") = \"1f\"\n\n\
         put k \"v w\" --prev-kv\nget k --prefix --limit 5\n\n\
         del k l\n\nthis is no longer read",
    )
    .unwrap();
    let unions: Vec<_> =
        request.compare.iter().map(|compare| compare.target_union.clone().unwrap()).collect();
    let expected = [
        TargetUnion::ModRevision(7),
        TargetUnion::Value("x".into()),
        TargetUnion::CreateRevision(0),
        TargetUnion::Version(2),
        TargetUnion::Lease(31),
    ];
    assert_eq!(unions, expected);
    assert_eq!(request.compare[1].key, "a b");
    let Some(Request::RequestPut(put)) = &request.success[0].request else { panic!() };
    assert_eq!((&put.value[..], put.prev_kv), (&b"v w"[..], true));
    let Some(Request::RequestRange(range)) = &request.success[1].request else { panic!() };
    assert_eq!((&range.range_end[..], range.limit), (&b"l"[..], 5));
    let Some(Request::RequestDeleteRange(del)) = &request.failure[0].request else { panic!() };
    assert_eq!(del.range_end, "l");
}

/// What is wrong in a transaction is quoted back with the reason.
#[test]
fn bad_transactions_are_named() {
    assert_eq!(refusal("\n\n\n"), "the transaction is empty");
    let text = refusal("mood(\"k\") = \"1\"");
    assert_eq!(text, "malformed comparison: mood(\"k\") = \"1\" (unknown target mood)");
    assert!(refusal("mod(\"k\") = \"x\"").contains("\"x\" is not a number"));
    assert!(refusal("mod(\"k\") ~ \"1\"").contains("unknown operator ~"));
    assert!(refusal("mod(k) = 1").starts_with("malformed comparison: mod(k) = 1"));
    assert!(refusal("mod(\"k\") = \"1\" x").contains("what is \"x\"?"));
    assert!(refusal("\nfetch k").contains("unrecognized subcommand 'fetch'"));
    assert_eq!(refusal("\nput k"), "bad operation: put k: put needs a key and a value");
    assert!(refusal("\nget k --prefix --from-key").contains("at the same time"));
}

/// The plain format, line by line as etcdctl prints it.
#[test]
fn plain_output_is_etcdctls() {
    let put = PutResponse { prev_kv: Some(record("k", "old")), ..PutResponse::default() };
    assert_eq!(render(&Reply::Put(put), WriteOut::Simple), "OK\nk\nold\n");
    let two = range_of(vec![record("a", "1"), record("b", "2")]);
    let shown = |show| render(&Reply::Range(two.clone(), show), WriteOut::Simple);
    assert_eq!(shown(Show::Pairs), "a\n1\nb\n2\n");
    assert_eq!(shown(Show::Values), "1\n2\n");
    assert_eq!(shown(Show::Count), "2\n");
    let responses = [
        Response::ResponsePut(PutResponse::default()),
        Response::ResponseRange(range_of(vec![record("b", "4")])),
        Response::ResponseDeleteRange(DeleteRangeResponse::default()),
    ];
    let responses = responses.map(|response| ResponseOp { response: Some(response) }).to_vec();
    let txn = TxnResponse { succeeded: true, responses, ..TxnResponse::default() };
    assert_eq!(render(&Reply::Txn(txn), WriteOut::Simple), "SUCCESS\n\nOK\n\nb\n4\n\n0\n");
    let compacted = Reply::Compact(CompactionResponse::default(), 4);
    assert_eq!(render(&compacted, WriteOut::Simple), "compacted revision 4\n");
}

/// JSON with Go's names, without empty fields, in base64.
#[test]
fn json_output_is_etcdctls() {
    let header = Some(ResponseHeader { cluster_id: 9, member_id: 8, revision: 3, raft_term: 2 });
    let range = RangeResponse { header, ..range_of(vec![record("a", "1")]) };
    assert_eq!(
        render(&Reply::Range(range.clone(), Show::Pairs), WriteOut::Json),
        "{\"header\":{\"cluster_id\":9,\"member_id\":8,\"revision\":3,\"raft_term\":2},\"kvs\":[{\
         \"key\":\"YQ==\",\"create_revision\":2,\"mod_revision\":3,\"version\":2,\"value\":\"MQ==\"\
         }],\"count\":1}\n"
    );
    assert!(Reply::Range(range, Show::Values).render(WriteOut::Json).is_err());
    let put = ResponseOp { response: Some(Response::ResponsePut(PutResponse::default())) };
    let txn = TxnResponse { succeeded: true, responses: vec![put], ..TxnResponse::default() };
    assert_eq!(
        render(&Reply::Txn(txn), WriteOut::Json),
        "{\"succeeded\":true,\"responses\":[{\"Response\":{\"ResponsePut\":{}}}]}\n"
    );
}

/// Two digits are enough for people.
#[test]
fn sizes_are_short() {
    let cases = [
        (0, "0 B"),
        (999, "999 B"),
        (1_049, "1.0 kB"),
        (20_480, "20 kB"),
        (53_248, "53 kB"),
        (999_499, "999 kB"),
        (1_540_000, "1.5 MB"),
        (u64::MAX, "18 EB"),
    ];
    for (bytes, expected) in cases {
        assert_eq!(super::simple::size(bytes), expected);
    }
}

/// Times need a unit that is known, and are never zero.
#[test]
fn durations_are_read() {
    let milliseconds = |text| parse_duration(text).map(|duration| duration.as_millis());
    assert_eq!(milliseconds("1500ms"), Ok(1_500));
    assert_eq!(milliseconds("20s"), Ok(20_000));
    assert_eq!(milliseconds("2m"), Ok(120_000));
    assert_eq!(milliseconds("20").unwrap_err(), "\"20\" has no unit: write 20s or 20ms");
    for bad in ["", "s", "0s", "1d", "-1s", "1.5s", "99999999999999999999s"] {
        assert!(milliseconds(bad).is_err(), "{bad}");
    }
}
