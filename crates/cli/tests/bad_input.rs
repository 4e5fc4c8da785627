//! What the real binary says of bad input: a non-zero exit, one message that names the culprit, no
//! panic, and what was acknowledged is still there.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use serde_json::Value;

const KVRAFT: &str = env!("CARGO_BIN_EXE_kvraft");

/// A folder of the test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-input-{name}"));
    drop(fs::remove_dir_all(&path));
    fs::create_dir_all(&path).unwrap();
    path
}

/// A server on ports that the system chose, killed in the end.
struct Server {
    child: Child,
    clients: String,
}

impl Server {
    fn start(data: &Path) -> Self {
        Self::start_through(&mut command(data))
    }

    fn start_through(command: &mut Command) -> Self {
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap()).lines();
        let clients = log.find_map(|line| {
            let line: Value = serde_json::from_str(&line.unwrap()).unwrap();
            (line["message"] == "serving").then(|| line["clients"].as_str().unwrap().to_owned())
        });
        // Read on, or the server's log blocks.
        std::thread::spawn(move || log.for_each(drop));
        Self { child, clients: clients.unwrap() }
    }

    fn run(&self, arguments: &[&str]) -> Output {
        run(&[arguments, &["--endpoints", &self.clients]].concat())
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// `kvraft server`, alone, on ports that the system chooses.
fn command(data: &Path) -> Command {
    let mut command = Command::new(KVRAFT);
    command.args(["server", "--log-format", "json", "--data-dir", data.to_str().unwrap()]);
    command.args(["--listen-client", "127.0.0.1:0", "--listen-peer", "127.0.0.1:0"]);
    command.stdin(Stdio::null());
    command
}

fn run(arguments: &[&str]) -> Output {
    Command::new(KVRAFT).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// Demands a failure with a message that holds all of `texts`, and no panic.
#[track_caller]
fn refused(output: &Output, texts: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "it was accepted: {said}");
    assert!(output.status.code().is_some(), "ended by a signal: {said}");
    assert!(!said.contains("panicked"), "{said}");
    let message = said.lines().filter(|line| !line.starts_with('{')).collect::<Vec<_>>().join("\n");
    for text in texts {
        assert!(message.contains(text), "{message:?} does not say {text:?}");
    }
}

/// A data directory in which `key-0` to `key-9` are written, and whose server was killed.
fn used(name: &str) -> PathBuf {
    let data = folder(name).join("data");
    let mut server = Server::start(&data);
    for number in 0..10 {
        let put = server.run(&["put", &format!("key-{number}"), "value"]);
        assert_eq!(String::from_utf8_lossy(&put.stdout), "OK\n", "{put:?}");
    }
    server.kill();
    data
}

fn segment(data: &Path) -> PathBuf {
    let mut files: Vec<PathBuf> =
        fs::read_dir(data.join("journal")).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files.remove(0)
}

fn flip(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn requests_are_refused_in_etcds_words() {
    let server = Server::start(&folder("requests").join("data"));
    refused(&server.run(&["put", "", "v"]), &["etcdserver: key is not provided"]);
    refused(&server.run(&["get", ""]), &["etcdserver: key is not provided"]);
    let future = "etcdserver: mvcc: required revision is a future revision";
    refused(&server.run(&["get", "k", "--rev", "99"]), &[future]);
    for value in ["1", "2", "3"] {
        assert!(server.run(&["put", "k", value]).status.success());
    }
    assert!(server.run(&["compact", "3"]).status.success());
    let compacted = "etcdserver: mvcc: required revision has been compacted";
    refused(&server.run(&["get", "k", "--rev", "2"]), &[compacted]);
    refused(&server.run(&["compact", "3"]), &[compacted]);
    refused(&server.run(&["get", "k", "--order", "SIDEWAYS"]), &["SIDEWAYS", "--order"]);

    let mut put = Command::new(KVRAFT);
    put.args(["put", "large", "--endpoints", &server.clients]);
    let mut put = put.stdin(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    put.stdin.take().unwrap().write_all(&vec![b'x'; 1_600_000]).unwrap();
    refused(&put.wait_with_output().unwrap(), &["etcdserver: request is too large"]);
}

#[test]
fn what_cannot_be_reached_is_named() {
    // Nobody is given this port.
    let nobody = "127.0.0.1:1";
    for command in [&["get", "k"][..], &["status"]] {
        let asked =
            run(&[command, &["--endpoints", nobody, "--command-timeout", "300ms"]].concat());
        refused(&asked, &[nobody]);
    }
    refused(&run(&["get", "k", "--endpoints", "no colon"]), &["no colon"]);
    refused(&run(&["get", "k", "--command-timeout", "5"]), &["--command-timeout", "5s"]);
}

#[test]
fn port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let data = folder("port").join("data");
    let server = command(&data).args(["--set", &format!("listen-client={address}")]).output();
    refused(&server.unwrap(), &["cannot listen for clients", &address]);
    let server = command(&data).args(["--set", &format!("listen-peer={address}")]).output();
    refused(&server.unwrap(), &["cannot listen for peers", &address]);
    let port = address.rsplit(':').next().unwrap();
    refused(&run(&["cluster", "--base-port", port]), &[port, "--base-port"]);
}

#[test]
fn unusable_directory_is_named() {
    let root = folder("directory");
    let file = root.join("file");
    fs::write(&file, "x").unwrap();
    let below = file.join("data");
    let name = below.to_str().unwrap();
    refused(&command(&below).output().unwrap(), &[name]);
    refused(&run(&["cluster", "--data-dir", name]), &[name]);
    refused(&run(&["log", name]), &[name]);
    // Not even the administrator makes a folder there.
    refused(&command(Path::new("/proc/kvraft")).output().unwrap(), &["/proc/kvraft"]);
    // Somebody else's files are not taken for a cluster's.
    let name = root.to_str().unwrap();
    refused(&run(&["cluster", "--data-dir", name]), &[name, "was not made by `kvraft cluster`"]);
    refused(&run(&["log", name]), &[name]);
}

#[test]
fn foreign_and_newer_directories_are_named() {
    let data = used("foreign");
    let name = data.to_str().unwrap();
    let other = command(&data).args(["--cluster-id", "7"]).output().unwrap();
    refused(&other, &[name, "cluster 1", "cluster 7"]);
    let other = command(&data).args(["--member", "2"]).output().unwrap();
    refused(&other, &[name, "member 1", "member 2"]);

    let identity = data.join("identity");
    let bytes = fs::read(&identity).unwrap();
    flip(&identity, 30);
    refused(&command(&data).output().unwrap(), &[name, "identity", "checksum"]);
    fs::write(&identity, &bytes[..10]).unwrap();
    refused(&command(&data).output().unwrap(), &[name, "identity"]);
    // Format version and least reader follow the magic; the checksum ends it.
    let mut newer = bytes[..bytes.len() - 4].to_vec();
    newer[8..16].copy_from_slice(&[9, 0, 0, 0, 9, 0, 0, 0]);
    let sum = kvraft_base::checksum(&newer);
    newer.extend(sum.to_le_bytes());
    fs::write(&identity, newer).unwrap();
    refused(&command(&data).output().unwrap(), &[name, "identity", "format 9"]);

    fs::write(&identity, bytes).unwrap();
    let server = Server::start(&data);
    assert_eq!(server.run(&["get", "key-9"]).stdout, b"key-9\nvalue\n");
    let second = command(&data).output().unwrap();
    refused(&second, &[name, "another process"]);
}

/// `kvraft log` names the damaged part, and the server does not serve what is left.
#[test]
fn damaged_journal_is_named() {
    let data = used("damage");
    let path = segment(&data);
    let at = fs::read(&path).unwrap().windows(5).position(|bytes| bytes == b"key-3").unwrap();
    flip(&path, at);
    let log = run(&["log", data.to_str().unwrap()]);
    assert_eq!(log.status.code(), Some(1));
    let printed = String::from_utf8_lossy(&log.stdout);
    let file = path.file_name().unwrap().to_str().unwrap();
    assert!(printed.contains("DAMAGED") && printed.contains(file), "{printed}");
    assert!(printed.contains("Put(key-9,value)"), "what follows is printed: {printed}");

    // A server alone has no peer that could repair it: it serves nothing rather than less.
    let server = Server::start(&data);
    let get = server.run(&["get", "key-9", "--command-timeout", "1s"]);
    assert!(!get.status.success(), "{get:?}");
}

/// A table that has lost its end is kept aside, and filled again from the journal.
#[test]
fn table_cut_short_is_set_aside() {
    let data = used("table");
    let table = data.join("table");
    let bytes = fs::read(&table).unwrap();
    for length in [1000, bytes.len() / 2, bytes.len() - 1] {
        fs::write(&table, &bytes[..length]).unwrap();
        let mut server = Server::start(&data);
        assert_eq!(server.run(&["get", "key-9"]).stdout, b"key-9\nvalue\n");
        server.kill();
        assert!(fs::read(data.join("table.damaged")).unwrap() == bytes[..length], "{length}");
    }
}

/// A disk that takes no more bytes, here by a limit on the size of files: the server ends and says
/// which file; with room again, everything acknowledged is there.
#[test]
fn full_disk_ends_the_server_and_loses_nothing() {
    let data = used("full");
    let limit = fs::metadata(segment(&data)).unwrap().len().div_ceil(512).max(4096);
    let script = format!("trap '' XFSZ; ulimit -f {limit}; exec \"$@\"");
    let plain = command(&data);
    let mut limited = Command::new("sh");
    limited.args(["-c", &script, "sh"]).arg(plain.get_program()).args(plain.get_args());
    limited.args(["--set", "limits.journal-segment-size=1GiB"]).stdin(Stdio::null());
    let mut server = Server::start_through(&mut limited);
    let value = "v".repeat(100_000);
    let mut acknowledged = 0;
    let failure = loop {
        let put = server.run(&["put", &format!("more-{acknowledged}"), &value]);
        if !put.status.success() {
            break put;
        }
        acknowledged += 1;
        assert!(acknowledged < 5_000, "the limit is never met");
    };
    refused(&failure, &["error:"]);
    let ended = server.child.wait().unwrap();
    assert_eq!(ended.code(), Some(1), "a server that cannot write ends");

    let server = Server::start(&data);
    let count = server.run(&["get", "more-", "--prefix", "--count-only"]).stdout;
    let count: u64 = String::from_utf8_lossy(&count).trim().parse().unwrap();
    // The last one may have been written without an answer.
    assert!((acknowledged..=acknowledged + 1).contains(&count), "{count} of {acknowledged}");
    assert_eq!(server.run(&["get", "key-9"]).stdout, b"key-9\nvalue\n");
}

#[test]
fn configuration_errors_name_file_and_key() {
    let root = folder("configuration");
    let path = root.join("server.toml");
    let good = run(&["server", "--print-config", "--data-dir", "data"]);
    assert!(good.status.success(), "{good:?}");
    let good = String::from_utf8(good.stdout).unwrap();
    let name = path.to_str().unwrap();
    let cases = [
        (good.replace("heartbeat-interval", "heartbeat"), "did you mean `heartbeat-interval`?"),
        (good.replace("\"100ms\"", "\"3 parsecs\""), "\"3 parsecs\" is no time"),
        (good.replace("\"64MiB\"", "\"64MB\""), "\"64MB\" is no size"),
        (good.replace("\"100ms\"", "\"900ms\""), "heartbeat-interval = 900ms"),
        (good.replace("127.0.0.1:2379", "localhost"), "listen-client"),
        ("=".to_owned(), "line 1"),
    ];
    for (text, expected) in cases {
        fs::write(&path, text).unwrap();
        refused(&run(&["server", "--config", name]), &[name, expected]);
    }
    refused(&run(&["server", "--config", "/nowhere.toml"]), &["/nowhere.toml"]);
    refused(&run(&["server", "--set", "limits.x=1"]), &["--set", "limits.x=1"]);
    refused(&run(&["server", "--heartbeat-interval", "3x"]), &["--heartbeat-interval", "3x"]);
    refused(&run(&["server", "--log-level", "a=b=c", "--data-dir", name]), &["log level", "a=b=c"]);
    refused(&run(&["cluster", "-n", "8"]), &["8", "1..=7"]);
    assert_eq!(run(&["fly"]).status.code(), Some(2));
}

/// A plan that cannot be read is refused with the line and the word; one that can is run again to
/// the same end.
#[test]
fn plans_are_read_or_refused() {
    let root = folder("plan");
    let path = root.join("run.plan");
    let name = path.to_str().unwrap();
    let hash = |output: &Output| {
        let text = String::from_utf8(output.stdout.clone()).unwrap();
        text.lines().find(|line| line.starts_with("trace hash")).unwrap().to_owned()
    };
    let drawn = run(&["sim", "--seed", "7", "--ops-max", "5", "--write-plan", name]);
    assert_eq!(hash(&drawn), hash(&run(&["sim", "--plan", name])));
    let good = fs::read_to_string(&path).unwrap();
    for (text, expected) in [
        (good.replace("home", "hone"), "not home, after or reserve: hone"),
        (format!("{good}at 1s explode 1\n"), "no such fault: explode"),
        (format!("{good}set sail\n"), "set NAME VALUE"),
    ] {
        fs::write(&path, text).unwrap();
        let output = run(&["sim", "--plan", name]);
        refused(&output, &[name, "line ", expected]);
        assert_eq!(output.status.code(), Some(2));
    }
    refused(&run(&["sim", "--plan", "/nowhere.plan"]), &["/nowhere.plan"]);
}
