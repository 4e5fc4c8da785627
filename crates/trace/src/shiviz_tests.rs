//! What ShiViz is given keeps its rules.

use super::*;
use crate::tracer::Tracer;

const GOLDEN: &str = "(?<host>\\S*) (?<clock>{.*})\\n(?<event>.*)

coord {\"coord\":1}
6661782135458136814 CreateTrace {}
server1 {\"server1\":4}
8421746193027290841 GenerateTokenTrace {\"Token\":\"p3NlcnZlcjHPdOANis/j1tmBp3NlcnZlcjEE\"}
coord {\"coord\":3, \"server1\":4}
8421746193027290841 ReceiveTokenTrace {\"Token\":\"p3NlcnZlcjHPdOANis/j1tmBp3NlcnZlcjEE\"}
";

/// A log of KVRaft (Go) comes back byte for byte.
#[test]
fn logs_come_back() {
    let log = Log::read(GOLDEN.as_bytes()).unwrap();
    assert_eq!(log.records.len(), 3);
    assert_eq!(log.records[2].trace_id, 8_421_746_193_027_290_841);
    assert_eq!(write_log(&log), GOLDEN);
    let windows_line_ends = GOLDEN.replace('\n', "\r\n");
    assert_eq!(write_log(&Log::read(windows_line_ends.as_bytes()).unwrap()), GOLDEN);
}

/// Events of other programs are kept as text, and written as they were.
#[test]
fn other_programs_events_are_kept() {
    let text = format!("{HEADER_EVENT_FIRST}\n\nsent \"x\"\na {{\"a\":1}}\n");
    let log = Log::read(text.as_bytes()).unwrap();
    assert_eq!(log.lines, [3]);
    assert_eq!(write_log(&log), format!("{HEADER}\n\na {{\"a\":1}}\nsent \"x\"\n"));
}

/// Errors say where.
#[test]
fn errors_say_where() {
    let error = Log::read(GOLDEN.replace("\"coord\":3", "coord:3").as_bytes()).unwrap_err();
    assert_eq!((error.line, error.column), (7, 8));
    let error = Log::read(b"(?<event>.*)\n\nx\n").unwrap_err();
    assert_eq!((error.line, error.column), (1, 1));
    assert!(Log::read(b"nonsense\nmore\n").unwrap_err().what.contains("its host"));
}

/// Two nodes that pass tokens to and fro, `count` times each.
fn talk(count: usize) -> Log {
    let (mut a, mut b) = (Tracer::new("a"), Tracer::new("b"));
    let mut records = Vec::new();
    for _ in 0..count {
        let (token, sent) = a.generate_token(1);
        records.extend([sent, b.receive_token(&token)]);
        std::mem::swap(&mut a, &mut b);
    }
    Log::from_records(records)
}

/// ShiViz's own rules: what it says when they are broken is in its parser.
fn shiviz_accepts(text: &str) {
    assert!(text.starts_with(&format!("{HEADER}\n\n")) && !text.contains('\r'));
    let log = Log::read(text.as_bytes()).unwrap();
    assert_eq!(crate::verify::verify(&log), []);
    for record in &log.records {
        assert!(!record.identity.contains(char::is_whitespace));
    }
}

/// Windows hold everything once, each by itself as ShiViz wants it: no holes, clocks from 1,
/// nobody who is not there.
#[test]
fn windows_keep_shivizs_rules() {
    let log = talk(50);
    for size in [1, 2, 3, 7, 99, 100, 101] {
        let windows = windows(&log, size).unwrap();
        assert_eq!(windows.len(), 100_usize.div_ceil(size));
        windows.iter().for_each(|window| shiviz_accepts(window));
        let events: usize = windows.iter().map(|it| it.matches("TokenTrace").count()).sum();
        assert_eq!(events, 100);
    }
    assert_eq!(windows(&log, 5_000).unwrap(), [write_log(&log)]);
    // A log that begins in the middle and has lost a record.
    let mut holes = talk(50);
    holes.records.drain(..7);
    holes.records.remove(20);
    holes.lines.truncate(holes.records.len());
    windows(&holes, 30).unwrap().iter().for_each(|window| shiviz_accepts(window));
}

/// Records are collected in any order; a window never shows an effect before its cause.
#[test]
fn windows_are_in_causal_order() {
    let mut log = talk(4);
    // All of b's records are collected before any of a's.
    log.records.sort_by(|one, other| other.identity.cmp(&one.identity));
    windows(&log, 3).unwrap().iter().for_each(|window| shiviz_accepts(window));
}

/// Names with spaces are one word for ShiViz.
#[test]
fn names_become_words() {
    let mut tracer = Tracer::new("server one");
    let log = Log::from_records(vec![tracer.create_trace(1)]);
    let window = windows(&log, 10).unwrap().remove(0);
    shiviz_accepts(&window);
    assert!(window.contains("server_one {\"server_one\":1}"));
    let mut other = Tracer::new("server_one");
    let log = Log::from_records(vec![tracer.create_trace(1), other.create_trace(1)]);
    // The first tracer is at 2 by now, which is only a hole.
    assert_eq!(windows(&log, 10), Err(WindowError::Names("server_one".into())));
}

/// A trace without an order is refused.
#[test]
fn cycles_are_refused() {
    let text = format!("{HEADER}\n\na {{\"a\":1, \"b\":1}}\nx\nb {{\"a\":1, \"b\":1}}\ny\n");
    let log = Log::read(text.as_bytes()).unwrap();
    assert_eq!(windows(&log, 10), Err(WindowError::Cycle { line: 3 }));
    let text = format!("{HEADER}\n\na {{\"a\":1}}\nx\na {{\"a\":1}}\ny\n");
    let log = Log::read(text.as_bytes()).unwrap();
    assert_eq!(windows(&log, 10), Err(WindowError::Clocks { line: 5 }));
}
