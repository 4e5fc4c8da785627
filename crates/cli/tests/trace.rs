//! What `kvraft trace` says of files, with the real binary.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

const KVRAFT: &str = env!("CARGO_BIN_EXE_kvraft");

/// A folder of the test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("trace-{name}"));
    drop(fs::remove_dir_all(&path));
    fs::create_dir_all(&path).unwrap();
    path
}

fn trace(arguments: &[&str]) -> Output {
    Command::new(KVRAFT).arg("trace").args(arguments).output().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// Two nodes, and so many events at each.
fn log(count: u64) -> String {
    let mut text = String::new();
    for own in 1..=count {
        for name in ["server1", "server2"] {
            text.push_str(&format!(
                "{{\"TracerIdentity\":\"{name}\",\"TraceID\":9223372036854775808,\"Tag\":\
                 \"NoOpRequest\",\"Body\":{{}},\"VectorClock\":{{\"{name}\":{own}}}}}\n"
            ));
        }
    }
    text
}

/// Every format, and back.
#[test]
fn traces_are_converted() {
    let dir = folder("convert");
    let file = dir.join("trace_output.log");
    fs::write(&file, log(4)).unwrap();
    let file = file.to_str().unwrap();
    let shiviz = trace(&["convert", "--to", "shiviz", file]);
    assert!(shiviz.status.success());
    assert!(
        out(&shiviz).ends_with("server2 {\"server2\":4}\n9223372036854775808 NoOpRequest {}\n")
    );
    let other = dir.join("shiviz_output.log");
    fs::write(&other, &shiviz.stdout).unwrap();
    let back = trace(&["convert", "--to", "json", other.to_str().unwrap()]);
    assert_eq!(out(&back), log(4));
    let windows = dir.join("run.log");
    let windows = windows.to_str().unwrap();
    let written = trace(&["convert", "--to", "shiviz", "--window", "3", file, "-o", windows]);
    assert_eq!(out(&written).lines().count(), 3);
    let window = fs::read_to_string(dir.join("run.2.log")).unwrap();
    assert!(window.contains("server1 {\"server1\":1}"), "{window}");
    assert!(!trace(&["convert", "--to", "shiviz", "--window", "3", file]).status.success());
    let text = out(&trace(&["convert", "--to", "text", file]));
    assert!(text.contains("server2 NoOpRequest trace=9223372036854775808"), "{text}");
    let html = out(&trace(&["convert", "--to", "html", file]));
    assert!(html.starts_with("<!doctype html>"));
    let perfetto = out(&trace(&["convert", "--to", "perfetto", file]));
    let json: serde_json::Value = serde_json::from_str(&perfetto).unwrap();
    assert!(10 < json["traceEvents"].as_array().unwrap().len());
}

/// Errors name the file, the line and the column; findings end with 100.
#[test]
fn errors_say_where() {
    let dir = folder("errors");
    let file = dir.join("bad.log");
    fs::write(&file, format!("{}{{\"TracerIdentity\":7}}\n", log(1))).unwrap();
    let failed = trace(&["verify", file.to_str().unwrap()]);
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(failed.status.code(), Some(1));
    assert!(said.contains("bad.log is no trace: line 3, column 19: invalid type"), "{said}");

    fs::write(&file, log(3).replace("\"server1\":2}", "\"server1\":1}")).unwrap();
    let verified = trace(&["verify", file.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(100));
    assert!(out(&verified).contains("line 3: step back: server1 counts 1 after 1"));
    let checked = trace(&["check", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(1));

    fs::write(&file, log(3)).unwrap();
    assert_eq!(trace(&["verify", file.to_str().unwrap()]).status.code(), Some(0));
    let checked = trace(&["check", file.to_str().unwrap()]);
    assert_eq!(checked.status.code(), Some(0));
    assert!(out(&checked).contains("not applicable  one-leader-per-term"));
}

/// What a simulated run has recorded keeps Raft's rules, and its clocks are right.
#[test]
fn simulated_runs_write_traces() {
    let dir = folder("sim");
    let folder = dir.to_str().unwrap();
    let arguments = ["sim", "--seed", "7", "--trace-dir", folder];
    let run = Command::new(KVRAFT).args(arguments).output().unwrap();
    assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    let file = dir.join("trace_output.log");
    let verified = trace(&["verify", file.to_str().unwrap()]);
    assert_eq!(verified.status.code(), Some(0), "{}", out(&verified));
    let checked = trace(&["check", file.to_str().unwrap()]);
    let said = out(&checked);
    assert_eq!(checked.status.code(), Some(0), "{said}");
    for rule in ["one-leader-per-term", "log-matching", "leader-completeness"] {
        assert!(said.contains(&format!("kept            {rule}")), "{said}");
    }
    let shiviz = dir.join("shiviz_output.log");
    let back = trace(&["convert", "--to", "json", shiviz.to_str().unwrap()]);
    assert_eq!(out(&back), fs::read_to_string(&file).unwrap());
}
