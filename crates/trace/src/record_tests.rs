//! Traces are read as others have written them, and errors say where they are.

use super::*;
use crate::tracer::Tracer;

/// As in `trace_output.log` of KVRaft (Go).
const LINE: &str = r#"{"TracerIdentity":"server1","TraceID":8421746193027290841,"Tag":"ServerStart","Body":{"ServerId":1},"VectorClock":{"server1":2}}"#;

/// A line comes back byte for byte, its id beyond what JavaScript could hold too.
#[test]
fn lines_come_back() {
    let record = Record::from_json(LINE, 1).unwrap();
    assert_eq!(record.trace_id, 8_421_746_193_027_290_841);
    assert_eq!(record.action(), Some(Action::ServerStart { server_id: 1 }));
    assert_eq!(record.own(), 2);
    assert_eq!(record.to_json(), LINE);
    let most = LINE.replace("8421746193027290841", &(1_u64 << 63).to_string());
    assert_eq!(Record::from_json(&most, 1).unwrap().to_json(), most);
}

/// Errors name the line and the column, and the file's last line may end anywhere.
#[test]
fn errors_say_where() {
    let text = format!("{LINE}\n{{\"TracerIdentity\":7}}\n");
    let error = Log::read(text.as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 19));
    assert!(error.to_string().starts_with("line 2, column 19: invalid type: integer"), "{error}");
    let error = Log::read(format!("{LINE}\nab\u{ff}\n").as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (2, 1));
    let error = Log::read(&[LINE.as_bytes(), b"\nab\xff"].concat()).unwrap_err();
    assert_eq!(error.to_string(), "line 2, column 3: not text in UTF-8");

    let cut = format!("{LINE}\r\n\n{}", &LINE[..40]);
    let log = Log::read(cut.as_bytes()).unwrap();
    assert_eq!((log.records.len(), log.cut_short), (1, true));
    assert!(!Log::read(LINE.as_bytes()).unwrap().cut_short, "the last line end may be missing");
    assert_eq!(Log::read(b"").unwrap(), Log::default());
}

/// Both logs of the same records are read to the same records.
#[test]
fn both_formats_say_the_same() {
    let (mut coord, mut server) = (Tracer::new("coord"), Tracer::new("server1"));
    let mut records = vec![coord.create_trace(7)];
    let (token, sent) = coord.generate_token(7);
    records.extend([sent, server.receive_token(&token)]);
    let log = Log::from_records(records);
    let text = log.to_json_lines();
    let read = Log::read(text.as_bytes()).unwrap();
    assert_eq!(read, log);
    let shiviz = crate::shiviz::write_log(&log);
    let read = Log::read(shiviz.as_bytes()).unwrap();
    assert_eq!((read.records, read.lines), (log.records, vec![3, 5, 7]));
}

/// Deep, twice named, or of too many nodes: an error each.
#[test]
fn rubbish_is_refused() {
    let with = |clock: &str| LINE.replace("{\"server1\":2}", clock);
    let failed = |text: &str| Log::read(text.as_bytes()).unwrap_err().what;
    assert!(failed(&with(r#"{"a":1,"a":2}"#)).contains("\"a\" stands twice"));
    assert!(failed(&with(r#"{"a":-1}"#)).contains("invalid value: integer `-1`"));
    let many: Vec<_> = (0..2_000).map(|n| format!("\"n{n}\":1")).collect();
    assert!(failed(&with(&format!("{{{}}}", many.join(",")))).contains("at most 1024 nodes"));
    let deep = LINE.replace("{\"ServerId\":1}", &"[".repeat(200_000));
    assert!(Log::read(format!("{deep}\n").as_bytes()).is_err());
}
