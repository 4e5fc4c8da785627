//! Three real servers under load, killed without a word: what their flight recorders have kept
//! runs again to the same digests, and what was damaged is told.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

const KVRAFT: &str = env!("CARGO_BIN_EXE_kvraft");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

struct Node {
    name: String,
    data: PathBuf,
    client: String,
    peer: String,
    running: Option<Child>,
}

impl Node {
    fn start(&mut self, members: &str) {
        let log = fs::File::create(self.data.with_extension("log")).unwrap();
        let mut command = Command::new(KVRAFT);
        command.args(["server", "--name", &self.name, "--data-dir", text(&self.data)]);
        command.args(["--listen-client", &self.client, "--listen-peer", &self.peer]);
        command.args(["--initial-cluster-token", "t", "--initial-cluster", members]);
        // Segments are small, so that some follow on others.
        command.args(["--flight-recorder", "64MiB"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(command.spawn().unwrap());
    }

    fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(KVRAFT).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn nodes(root: &Path) -> Vec<Node> {
    drop(fs::remove_dir_all(root));
    fs::create_dir_all(root).unwrap();
    let first = usize::from(ports::free_ports(6).unwrap());
    let address = |at: usize| format!("127.0.0.1:{}", first + at);
    let node = |at: usize| {
        let name = format!("s{at}");
        let data = root.join(&name);
        Node { name, data, client: address(2 * at), peer: address(2 * at + 1), running: None }
    };
    (0..3).map(node).collect()
}

fn put(endpoints: &str, key: &str, value: &str) {
    let start = Instant::now();
    while !run(&["put", key, value, "--endpoints", endpoints]).status.success() {
        assert!(start.elapsed() < PATIENCE, "{key} cannot be put");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Values that are read again by transactions and compared, so that applying reads the table.
fn swap(endpoints: &str, key: &str) {
    let mut command = Command::new(KVRAFT);
    command.args(["put", key, "again", "--prev-kv", "--endpoints", endpoints]);
    assert!(command.stdin(Stdio::null()).output().unwrap().status.success());
}

#[test]
fn a_killed_cluster_runs_again_to_the_same_digests() {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("replay");
    let mut nodes = nodes(&root);
    let members: Vec<_> = nodes.iter().map(|n| format!("{}={}", n.name, n.peer)).collect();
    let members = members.join(",");
    nodes.iter_mut().for_each(|node| node.start(&members));
    let endpoints: Vec<_> = nodes.iter().map(|node| node.client.clone()).collect();
    let endpoints = endpoints.join(",");
    put(&endpoints, "first", "one");
    let load =
        ["bench", "put", "--duration", "4s", "--value-size", "256", "--endpoints", &endpoints];
    let mut load = Command::new(KVRAFT).args(load).stdout(Stdio::null()).spawn().unwrap();
    std::thread::sleep(Duration::from_secs(2));
    nodes[0].kill();
    // Without the one that was killed some of the load has failed, as it has to.
    let _ = load.wait().unwrap();
    nodes[0].start(&members);
    put(&endpoints, "second", "two");
    // By now a checkpoint has taken "first" to the table.
    std::thread::sleep(Duration::from_secs(3));
    swap(&endpoints, "first");
    std::thread::sleep(Duration::from_millis(500));
    nodes.iter_mut().for_each(Node::kill);

    let page = root.join("run.html");
    let mut arguments = vec!["replay", "--html", text(&page), "--to", "text"];
    arguments.extend(nodes.iter().map(|node| text(&node.data)));
    let replayed = run(&arguments);
    let said = String::from_utf8_lossy(&replayed.stderr);
    assert!(replayed.status.success(), "{said}");
    assert_eq!(said.matches(": equal").count(), 3, "{said}");
    assert!(said.contains("the server was killed"), "{said}");
    assert!(!said.contains(" 0 digests"), "{said}");
    let shown = String::from_utf8_lossy(&replayed.stdout);
    for what in ["BecameLeader", "AppendAnswer", "Start"] {
        assert!(shown.contains(what), "{what} is not shown: {said}");
    }
    assert!(fs::read_to_string(&page).unwrap().contains("application/x-kvraft-run"));
    states_are_alike(&said);
    damage_is_told(&nodes[1].data);
}

/// Servers that have applied the same have the same state.
fn states_are_alike(said: &str) {
    let states = said.lines().filter_map(|line| line.split_once(": at index "));
    let mut states: Vec<&str> = states.map(|(_, state)| state).collect();
    assert!(!states.is_empty(), "{said}");
    states.sort_unstable();
    let indexes: std::collections::BTreeSet<_> =
        states.iter().filter_map(|state| state.split(' ').next()).collect();
    states.dedup();
    assert_eq!(states.len(), indexes.len(), "{said}");
}

fn damage_is_told(data: &Path) {
    let files = fs::read_dir(data.join("flight")).unwrap();
    let mut files: Vec<_> = files.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    let last = files.last().unwrap();
    let mut bytes = fs::read(last).unwrap();
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
