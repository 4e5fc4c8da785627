//! Lines as people write them, and lines that are none.

use super::*;

/// What a person types is understood.
#[test]
fn lines_are_json() {
    let line = "{\"get-leader\":{\"client\":\"me\"}}\n";
    let message: ToCoordinator = decode(line).unwrap();
    assert_eq!(message, ToCoordinator::GetLeader { client: "me".into() });
    assert_eq!(encode(&message), line);
}

/// Rubbish is an error in words.
#[test]
fn rubbish_is_refused() {
    for line in ["", "{}", "null", "{\"join\":7}", "[[[[", "{\"report\":{\"term\":-1}}", "\u{0}"] {
        assert!(decode::<ToCoordinator>(line).is_err(), "{line:?}");
    }
    let long = " ".repeat(LINE_SIZE_BYTES_MAX + 1);
    assert!(decode::<ToCoordinator>(&long).unwrap_err().contains("at most"));
}
