//! Tests of histories: text both ways, and what each check is given.

use bytes::Bytes;
use kvraft_base::Instant;
use proptest::prelude::*;

use super::{
    Action, Answer, Condition, History, OpName, Operand, Operation, Outcome, Relation, Seen, Shown,
    json::Json,
    sample::{Bug, Shape, sample},
};
use crate::witness::{Place, Role};

fn name(client: u64, op: u64) -> OpName {
    OpName { client, op }
}

fn put(key: &'static str, value: &'static str) -> Action {
    Action::Put { key: Bytes::from(key), value: Bytes::from(value) }
}

fn get(key: &'static str) -> Action {
    Action::Range { key: Bytes::from(key), end: None }
}

fn seen(revision: i64, answers: Vec<Answer>) -> Outcome {
    Outcome::Ok(Seen { revision, succeeded: true, answers })
}

/// The text is an interface: other programs read it.
#[test]
fn history_prints_as_documented() {
    let mut history = History::new();
    history.invoke(Instant(1_000), name(1, 1), Operation::One(put("a", "1")));
    history.place(Instant(1_500), name(1, 1), Place { order: 5, role: Role::Executed });
    history.complete(Instant(2_000), name(1, 1), seen(2, vec![Answer::Put]));
    history.invoke(Instant(2_100), name(2, 1), Operation::Serializable(get("a")));
    let shown = Shown {
        key: Bytes::from("a"),
        value: Bytes::from_static(b"\xff\"\n"),
        create: 2,
        modified: 2,
        version: 1,
    };
    history.complete(Instant(2_200), name(2, 1), seen(2, vec![Answer::Range(vec![shown])]));
    let condition = Condition {
        key: Bytes::from("a"),
        relation: Relation::NotEqual,
        operand: Operand::Value(Bytes::from("\u{1}")),
    };
    let txn =
        Operation::Txn { conditions: vec![condition], then: vec![put("b", "")], otherwise: vec![] };
    history.invoke(Instant(2_300), name(1, 2), txn);
    history.complete(Instant(2_400), name(1, 2), Outcome::Unknown("timed out".to_owned()));
    let expected = r#"{"at":1000,"client":1,"op":1,"invoke":{"put":{"key":"a","value":"1"}}}
{"at":1500,"client":1,"op":1,"executed":5}
{"at":2000,"client":1,"op":1,"ok":{"revision":2,"succeeded":true,"answers":["put"]}}
{"at":2100,"client":2,"op":1,"invoke":{"serializable":{"range":{"key":"a"}}}}
{"at":2200,"client":2,"op":1,"ok":{"revision":2,"succeeded":true,"answers":[{"range":[{"key":"a","value":{"hex":"ff220a"},"create":2,"mod":2,"version":1}]}]}}
{"at":2300,"client":1,"op":2,"invoke":{"txn":{"if":[{"key":"a","is":"!=","value":"\u0001"}],"then":[{"put":{"key":"b","value":""}}],"else":[]}}}
{"at":2400,"client":1,"op":2,"unknown":"timed out"}
"#;
    assert_eq!(history.to_jsonl(), expected);
    assert_eq!(History::from_jsonl(expected).unwrap(), history);
}

/// Looks at the past and compactions are written and read, refusals too.
#[test]
fn the_past_reads_back() {
    let mut history = History::new();
    let past = Operation::Past { key: Bytes::from("a"), end: Some(Bytes::from("b")), revision: 3 };
    history.invoke(Instant(1), name(1, 1), past);
    let too_old = Outcome::Ok(Seen::refused(Answer::TooOld));
    history.complete(Instant(2), name(1, 1), too_old);
    history.invoke(Instant(3), name(1, 2), Operation::Compact { revision: 4 });
    history.complete(Instant(4), name(1, 2), seen(9, vec![Answer::Compacted]));
    let text = history.to_jsonl();
    assert!(text.contains(r#""invoke":{"past":{"key":"a","end":"b"},"revision":3}"#), "{text}");
    assert!(text.contains(r#""answers":["too old"]"#), "{text}");
    assert_eq!(History::from_jsonl(&text).unwrap(), history);
}

/// What others write may have spaces and escapes.
#[test]
fn foreign_json_is_read() {
    let line = r#" { "op" : 1, "client":2, "at":3, "failed" : "a\u00e9\ud83d\ude00\t\/" } "#;
    let history = History::from_jsonl(&format!("\n{line}\n\n")).unwrap();
    let text = history.to_jsonl();
    assert_eq!(text, "{\"at\":3,\"client\":2,\"op\":1,\"failed\":\"aé😀\\u0009/\"}\n");
}

/// Wrong lines are refused with their number.
#[test]
fn errors_name_the_line() {
    let error = |line: &str| History::from_jsonl(&format!("\n{line}")).unwrap_err().to_string();
    assert_eq!(error("{\"at\":1}"), "line 2: missing number: client");
    assert_eq!(error("{\"at\":-1}"), "line 2: at out of range: -1");
    assert_eq!(error("{\"at\":1"), "line 2: byte 7: expected ,");
    assert_eq!(error("{\"at\":1,\"client\":1,\"op\":1}"), "line 2: no known event");
    let deep = "[".repeat(100_000);
    assert!(error(&deep).contains("expected less depth"));
    for wrong in ["1.5", "\"\\ud800\"", "\"\\u12", "tru", "[1,]", "{\"a\"}", "--1", "1 2", "\""] {
        assert!(Json::parse(wrong).is_err(), "{wrong}");
    }
}

/// Each check gets what can contradict it, with honest times.
#[test]
fn checks_get_what_they_can_judge() {
    let mut history = History::new();
    let mut all = [
        ("ok write", Operation::One(put("a", "1")), Some(seen(2, vec![Answer::Put]))),
        ("failed", Operation::One(put("a", "2")), Some(Outcome::Failed("no".to_owned()))),
        ("unknown write", Operation::One(put("a", "3")), Some(Outcome::Unknown("?".to_owned()))),
        ("unknown read", Operation::One(get("a")), Some(Outcome::Unknown("?".to_owned()))),
        ("stale read", Operation::Serializable(get("a")), Some(seen(1, vec![]))),
        ("pending write", Operation::One(put("a", "4")), None),
    ]
    .into_iter()
    .zip(1..)
    .collect::<Vec<_>>();
    for ((_, operation, _), op) in &all {
        history.invoke(Instant(0), name(1, *op), operation.clone());
    }
    for ((_, _, outcome), op) in &mut all {
        if let Some(outcome) = outcome.take() {
            history.complete(Instant(1), name(1, *op), outcome);
        }
    }
    let calls = history.calls();
    let found: Vec<_> = calls.iter().map(|call| (call.op.name.op, call.returned)).collect();
    assert_eq!(found, [(1, Some(6)), (3, None), (6, None)]);
    history.place(Instant(2), name(1, 3), Place { order: 9, role: Role::Executed });
    history.place(Instant(2), name(1, 5), Place { order: 9, role: Role::Looked });
    let witnessed = history.witnessed();
    let found: Vec<_> = witnessed.iter().map(|w| (w.op.name.op, w.called, w.returned)).collect();
    assert_eq!(found, [(3, 2, None), (5, 0, None)], "a stale read has no times");
    assert_eq!(history.dishonest(), [name(1, 1)], "acknowledged but nowhere executed");
}

/// "Failed" must mean that it never takes effect.
#[test]
fn false_failures_are_dishonest() {
    let caught = (0..50).filter(|seed| {
        let shape = Shape { bug: Bug::FalseFailure, ..Shape::SMALL };
        !sample(shape, *seed).dishonest().is_empty()
    });
    assert!(40 < caught.count());
    assert!((0..50).all(|seed| sample(Shape::SMALL, seed).dishonest().is_empty()));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(64) })]

    /// Every history reads back as it prints.
    #[test]
    fn histories_round_trip(seed: u64) {
        let history = sample(Shape::SMALL, seed);
        prop_assert_eq!(History::from_jsonl(&history.to_jsonl()).unwrap(), history);
    }

    /// Every string does, whatever is in it.
    #[test]
    fn strings_round_trip(text: String) {
        let json = Json::text(&text);
        prop_assert_eq!(Json::parse(&json.to_string()).unwrap(), json);
    }

    /// No text makes the reader panic.
    #[test]
    fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\u0-9a-e -]{0,40}|.*") {
        let _read = Json::parse(&text);
    }
}
