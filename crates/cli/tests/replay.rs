//! Three real servers under load, killed without a word: what their flight recorders have kept
//! runs again to the same digests, a copy without values does, too, and what was damaged is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod nodes;

use std::{
    collections::BTreeSet,
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use kvraft_replica::{
    MachineIn, NodeIn,
    flight::{Segment, Step},
};
use serde_json::Value;

use nodes::{KVRAFT, Node, found, nodes, run, text};

/// The load fills more than a segment, which is a quarter of it, and less than the whole.
const RECORDER: [&str; 2] = ["--flight-recorder", "16MiB"];

/// In every value and key of this test that is looked for.
const SECRET: &str = "nobody-else-may-read-this";
const KEY: &str = "not-everybody-may-read-this";

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

/// Every turn that the server's recorder has written down so far.
fn steps(node: &Node) -> impl Iterator<Item = Step> {
    // One that is just being begun is no segment yet, and the oldest may have gone.
    let read = |path: PathBuf| Segment::read(&fs::read(path).ok()?.into()).ok();
    let segments = files(&node.data.join("flight")).into_iter().filter_map(read);
    segments.flat_map(|segment| segment.steps().filter_map(Result::ok))
}

/// Waits until it has a turn in which this is so.
fn wait_recorded(node: &Node, what: &str, is_so: impl Fn(&Step) -> bool) {
    node.wait_for(|| match steps(node).any(|step| is_so(&step)) {
        true => Ok(()),
        false => Err(format!("{what} is not recorded")),
    });
}

/// Waits until the server has taken everything up to here to its table.
fn wait_settled(node: &Node, index: u64) {
    let settles = |input: &MachineIn| matches!(input, MachineIn::Settled(position) if index <= position.index.0);
    wait_recorded(node, "a checkpoint", |step| step.turn.machine.iter().any(settles));
}

/// Waits until the recording holds what the server has applied up to here.
fn wait_applied(node: &Node, index: u64) {
    let applies =
        |input: &NodeIn| matches!(input, NodeIn::Applied { index: at, .. } if index <= at.0);
    wait_recorded(node, "the last entry", |step| step.turn.node.iter().any(applies));
}

/// The last entry that the server has applied.
fn applied(node: &Node) -> u64 {
    let said = node.wait(&["status", "-w", "json"], |_| true);
    let status: Value = serde_json::from_str(&said).unwrap();
    status[0]["Status"]["raftAppliedIndex"].as_u64().unwrap()
}

fn put(node: &Node, key: &str, value: &str) {
    node.wait(&["put", key, value], |said| said == "OK\n");
}

/// A value that is returned, and so is read from the table, and one that is compared with.
fn swap(node: &Node, key: &str, value: &str) {
    node.wait(&["put", key, &format!("{value}-2"), "--prev-kv"], |said| said.contains(value));
    let mut txn = Command::new(KVRAFT);
    txn.args(["txn", "--endpoints", &node.client]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut txn = txn.spawn().unwrap();
    let script = format!("value(\"{key}\") = \"{value}-2\"\n\nput {key} {value}-3\n\n\n");
    txn.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    let said = txn.wait_with_output().unwrap().stdout;
    assert!(String::from_utf8_lossy(&said).starts_with("SUCCESS"));
}

/// Puts through every server, while one is killed under load and comes back, and while old values
/// go to the table and are read from there. Then all are killed.
fn incident(nodes: &mut [Node]) {
    found(nodes, &RECORDER);
    let endpoints: Vec<_> = nodes.iter().map(|node| node.client.clone()).collect();
    let endpoints = endpoints.join(",");
    for (at, node) in nodes.iter().enumerate() {
        put(node, &format!("{KEY}-{at}"), &format!("{SECRET}-{at}"));
    }
    let first = applied(&nodes[2]);
    let mut load = Command::new(KVRAFT);
    load.args(["bench", "put", "--duration", "4s", "--rate", "1500", "--value-size", "1024"]);
    load.args(["--endpoints", &endpoints]).stdout(Stdio::null());
    let mut load = load.spawn().unwrap();
    let is_under_way = |line: &str| line.parse().is_ok_and(|count: u32| 200 < count);
    let count = ["get", "", "--prefix", "--count-only"];
    nodes[1].wait(&count, |said| said.lines().any(is_under_way));
    nodes[0].kill();
    // Without the one that was killed some of the load has failed, as it has to.
    let _ = load.wait().unwrap();
    nodes[0].start(&RECORDER);
    nodes.iter().for_each(|node| wait_settled(node, first));
    for (at, node) in nodes.iter().enumerate() {
        swap(node, &format!("{KEY}-{at}"), &format!("{SECRET}-{at}"));
    }
    let last = applied(&nodes[2]);
    nodes.iter().for_each(|node| wait_applied(node, last));
    nodes.iter_mut().for_each(Node::kill);
}

#[test]
fn a_killed_cluster_runs_again_to_the_same_digests() {
    let mut nodes = nodes("replay", 3);
    incident(&mut nodes);
    let root = nodes[0].data.parent().unwrap().to_owned();
    let has_rows = |step: Step| format!("{:?}", step.end).contains("rows: [Some(");
    assert!(nodes.iter().all(|node| steps(node).any(has_rows)), "the table was read");

    let page = root.join("run.html");
    let data: Vec<&str> = nodes.iter().map(|node| text(&node.data)).collect();
    let replayed = run(&[&["replay", "--html", text(&page), "--to", "text"], &data[..]].concat());
    let said = equal(&replayed);
    assert!(said.contains("the server was killed"), "{said}");
    assert!(!said.contains(" 0 digests"), "{said}");
    let shown = String::from_utf8_lossy(&replayed.stdout);
    for what in ["BecameLeader", "AppendAnswer", "Start", SECRET, KEY] {
        assert!(shown.contains(what), "{what} is not shown: {said}");
    }
    assert!(fs::read_to_string(&page).unwrap().contains("application/x-kvraft-run"));
    states_are_alike(&said);
    values_are_redacted(&root, &data);
    damage_is_told(&nodes[1].data);
}

/// All three servers did what this program does.
fn equal(replayed: &Output) -> String {
    let said = String::from_utf8(replayed.stderr.clone()).unwrap();
    assert!(replayed.status.success(), "{said}");
    assert_eq!(said.matches(": equal").count(), 3, "{said}");
    said
}

/// Servers that have applied the same have the same state.
fn states_are_alike(said: &str) {
    let states = said.lines().filter_map(|line| line.split_once(": at index "));
    let mut states: Vec<&str> = states.map(|(_, state)| state).collect();
    assert!(!states.is_empty(), "{said}");
    states.sort_unstable();
    let indexes: BTreeSet<_> = states.iter().filter_map(|state| state.split(' ').next()).collect();
    states.dedup();
    assert_eq!(states.len(), indexes.len(), "{said}");
}

/// How many files of a tree hold this.
fn count(folder: &Path, what: &str) -> usize {
    let holds = |path: PathBuf| {
        if path.is_dir() {
            return count(&path, what);
        }
        let bytes = fs::read(path).unwrap();
        usize::from(bytes.windows(what.len()).any(|part| part == what.as_bytes()))
    };
    files(folder).into_iter().map(holds).sum()
}

fn values_are_redacted(root: &Path, data: &[&str]) {
    for folder in data {
        let flight = Path::new(folder).join("flight");
        assert!(0 < count(&flight, SECRET) && 0 < count(&flight, KEY), "{folder}");
    }
    for (name, more, keys_stay) in [("copy", None, true), ("bare", Some("--redact-keys"), false)] {
        let folder = root.join(name);
        let (copy, page) = (folder.join("flights"), folder.join("run.html"));
        fs::create_dir(&folder).unwrap();
        let mut arguments = vec!["replay", "--redact", text(&copy), "--html", text(&page)];
        arguments.extend(more);
        let redacted = run(&[&arguments, data].concat());
        let said = equal(&redacted);
        assert!(said.contains("it is redacted"), "{said}");
        assert_eq!(count(&folder, SECRET), 0, "{said}");
        assert_eq!(0 < count(&folder, KEY), keys_stay, "{said}");
        let refused = run(&[&arguments, data].concat());
        assert_eq!(refused.status.code(), Some(2), "a copy is not written over another");

        // Whoever is given it can run it, and sees what happened.
        let copies = files(&copy);
        let copies: Vec<&str> = copies.iter().map(|copy| text(copy)).collect();
        let replayed = run(&[&["replay", "--to", "text"], &copies[..]].concat());
        equal(&replayed);
        let shown = String::from_utf8_lossy(&replayed.stdout);
        for what in ["BecameLeader", "AppendAnswer", "Start", "Put("] {
            assert!(shown.contains(what), "{what} is not shown: {said}");
        }
        assert!(!shown.contains(SECRET) && shown.contains(KEY) == keys_stay);
    }
}

fn damage_is_told(data: &Path) {
    let last = files(&data.join("flight")).pop().unwrap();
    let mut bytes = fs::read(&last).unwrap();
    let at = bytes.len() - 5;
    bytes[at] ^= 1;
    fs::write(last, bytes).unwrap();
    let replayed = run(&["replay", text(data)]);
    let said = String::from_utf8_lossy(&replayed.stderr);
    assert!(replayed.status.success(), "{said}");
    assert!(said.contains("at offset") && said.contains("does not match"), "{said}");

    let nothing = run(&["replay", text(&data.join("journal"))]);
    let said = String::from_utf8_lossy(&nothing.stderr);
    assert_eq!(nothing.status.code(), Some(2), "{said}");
    assert!(said.contains("no recording"), "{said}");
}
