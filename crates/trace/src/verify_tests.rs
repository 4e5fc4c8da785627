//! Every fault of a clock is named.

use super::*;

/// Each line is a host and its clock.
fn problems(lines: &[&str]) -> Vec<String> {
    let mut text = String::from("(?<host>\\S*) (?<clock>{.*})\\n(?<event>.*)\n\n");
    for line in lines {
        text.push_str(&format!("{line}\n1 Happened {{}}\n"));
    }
    let log = Log::read(text.as_bytes()).unwrap();
    verify(&log).iter().map(ToString::to_string).collect()
}

/// A right trace has no fault, in whatever order it was collected.
#[test]
fn right_clocks_have_no_fault() {
    let lines = [r#"a {"a":1}"#, r#"b {"a":1,"b":1}"#, r#"a {"a":2}"#, r#"a {"a":3,"b":1}"#];
    assert!(problems(&lines).is_empty());
    let lines = [r#"b {"a":1,"b":1}"#, r#"a {"a":1}"#, r#"a {"a":2}"#];
    assert!(problems(&lines).is_empty());
}

#[test]
fn holes_are_found() {
    let lines = [r#"a {"a":1}"#, r#"a {"a":4}"#];
    assert_eq!(
        problems(&lines),
        ["line 5: hole: a counts 4 where 2 comes next; 2 records are missing"]
    );
    let lines = [r#"a {"a":2}"#];
    assert_eq!(
        problems(&lines),
        ["line 3: hole: a counts 2 where 1 comes next; 1 record is missing"]
    );
}

#[test]
fn steps_back_are_found() {
    let lines = [r#"a {"a":1}"#, r#"a {"a":1}"#];
    assert_eq!(problems(&lines), ["line 5: step back: a counts 1 after 1"]);
    let lines = [r#"b {"b":1}"#, r#"a {"a":1,"b":1}"#, r#"a {"a":2}"#];
    assert_eq!(problems(&lines), ["line 7: step back: a knew 1 of b and now knows 0"]);
}

#[test]
fn strangers_are_found() {
    assert_eq!(problems(&[r#"a {"b":1}"#])[0], "line 3: a does not stand in its own clock");
    let lines = [r#"a {"a":1,"b":1}"#];
    assert_eq!(problems(&lines), ["line 3: a knows of b, who has no record"]);
    let lines = [r#"b {"b":1}"#, r#"a {"a":1,"b":2}"#];
    assert_eq!(problems(&lines), ["line 5: a knows record 2 of b, whose last one is 1"]);
}

#[test]
fn cycles_are_found() {
    let lines = [r#"a {"a":1,"b":1}"#, r#"b {"a":1,"b":1}"#];
    assert_eq!(problems(&lines), ["line 3: cycle: this record of a happened before itself"]);
}

/// Who knows a record knows what that record knew.
#[test]
fn knowledge_that_did_not_travel_is_found() {
    let lines = [r#"c {"c":1}"#, r#"b {"b":1,"c":1}"#, r#"a {"a":1,"b":1}"#];
    assert_eq!(
        problems(&lines),
        ["line 7: a knows record 1 of b, but not what that one knew of c"]
    );
}
