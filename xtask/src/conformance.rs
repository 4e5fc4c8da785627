//! The shipped binary under a foreign client: `etcdctl` against `kvraft cluster`, as the README
//! starts it, with servers killed under it.
//!
//! Why: only a client that others wrote shows that the API is what it says.
//!
//! Invariant: every check compares with what etcd answers; none is skipped.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::processes::{self, Guard};
use crate::readme;
use crate::run::{Step, build_release, cargo, line, need, output, run_steps, signal, wait_for};

const SERVER_COUNT: u16 = 3;

/// How long a cluster may take to start and to elect.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a cluster may take to stop: longer than it gives its servers before it kills them.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// Writes made while servers are killed.
const WRITE_COUNT: usize = 300;

/// Longest pause between two acknowledged writes, `etcdctl` starting anew for each included.
const PAUSE_MAX: Duration = Duration::from_secs(5);

/// A running cluster and how to reach it.
struct Cluster {
    launcher: Guard,
    /// Servers that were started again by hand.
    restarted: Vec<Guard>,
    base_port: u16,
}

/// Runs every conformance check.
///
/// # Errors
/// The first check that failed, or the program that is missing.
pub fn conformance(root: &Path) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    build_release(root)?;
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let data = folder.path().join("data");
    let base_port = processes::free_ports(2 * SERVER_COUNT)?;
    let mut cluster = Cluster::start(root, &data, base_port)?;
    run_steps(vec![
        Step::new("etcdctl: put, get, del", || put_get_del(&cluster)),
        Step::new("etcdctl: txn", || txn(&cluster)),
        Step::new("etcdctl: compaction", || compaction(&cluster)),
        Step::new("etcdctl: endpoint and member", || endpoints(&cluster)),
        Step::new("etcdctl: refusals", || refusals(&cluster)),
    ])?;
    let mut written = Vec::new();
    run_steps(vec![Step::new("writes while two leaders are killed", || {
        written = writes_under_kills(&mut cluster)?;
        read_back(&cluster, &written)?;
        equal_hashes(&cluster)
    })])?;
    run_steps(vec![
        Step::new("a clean stop", || cluster.stop()),
        Step::new("the data is there after a start and after SIGKILL of all", || {
            let again = Cluster::start(root, &data, base_port)?;
            read_back(&again, &written)?;
            again.kill_all()?;
            drop(again);
            let mut last = Cluster::start(root, &data, base_port)?;
            read_back(&last, &written)?;
            equal_hashes(&last)?;
            last.stop()
        }),
    ])
}

impl Cluster {
    /// Starts the README's cluster from `base_port` on, with its data in `data`.
    fn start(root: &Path, data: &Path, base_port: u16) -> Result<Self> {
        let mut command = cargo(root);
        command.args(readme::set_up(root)?.run);
        command.args(["--base-port", &base_port.to_string(), "--data-dir"]).arg(data);
        println!("$ {}", line(&command));
        // The launcher is the program itself, not cargo: signals must reach it.
        let arguments: Vec<_> =
            command.get_args().skip_while(|part| *part != "--").skip(1).collect();
        let binary = crate::run::target_folder(root)?.join("release/kvraft");
        let launcher = Guard::start(Command::new(binary).args(arguments).current_dir(root))?;
        let cluster = Self { launcher, restarted: Vec::new(), base_port };
        wait_for("a healthy cluster", PATIENCE, || cluster.etcdctl(&["endpoint", "health"]))?;
        Ok(cluster)
    }

    fn endpoint(&self, server: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + 2 * server)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let endpoints: Vec<String> = (0..SERVER_COUNT).map(|n| self.endpoint(n)).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
        command.args(["--dial-timeout=2s", "--command-timeout=10s"]).args(arguments);
        command
    }

    /// Runs `etcdctl` over all endpoints.
    fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    /// Which server leads, as the members themselves say.
    fn leader(&self) -> Result<u16> {
        for server in 0..SERVER_COUNT {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.endpoint(server)));
            command.args(["endpoint", "status", "--write-out=json"]);
            let Ok(text) = output(&mut command) else { continue };
            let answer: Value = serde_json::from_str(&text).context("endpoint status")?;
            let status = &answer[0]["Status"];
            let leader = status["leader"].as_u64().unwrap_or_default();
            if leader != 0 && Some(leader) == status["header"]["member_id"].as_u64() {
                return Ok(server);
            }
        }
        anyhow::bail!("no server says that it leads")
    }

    fn pid(&self, server: u16) -> Result<u32> {
        processes::listener(self.base_port + 2 * server)
    }

    /// Kills a server and gives how to start it again.
    fn kill(&self, server: u16) -> Result<processes::Recipe> {
        let pid = self.pid(server)?;
        let recipe = processes::recipe(pid)?;
        signal(pid, "KILL")?;
        println!("killed server {server}, process {pid}");
        Ok(recipe)
    }

    fn kill_all(&self) -> Result<()> {
        let pids = (0..SERVER_COUNT).map(|n| self.pid(n)).collect::<Result<Vec<_>>>()?;
        // The servers first: they stop cleanly when their launcher goes. It starts none again.
        let pids: Vec<String> = pids.iter().map(ToString::to_string).collect();
        let kill = format!("kill -KILL {}", pids.join(" "));
        output(Command::new("sh").args(["-c", &kill]))?;
        signal(self.launcher.pid(), "KILL")
    }

    fn stop(&mut self) -> Result<()> {
        for server in &mut self.restarted {
            server.stop("TERM", STOP_PATIENCE)?;
        }
        self.launcher.stop("INT", STOP_PATIENCE)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for server in 0..SERVER_COUNT {
            if let Ok(pid) = self.pid(server) {
                drop(signal(pid, "KILL")); // Best effort: a check has failed already.
            }
        }
    }
}

/// Runs `etcdctl` and compares what it prints, blanks at the ends aside.
fn expect(cluster: &Cluster, arguments: &[&str], expected: &str) -> Result<()> {
    let printed = cluster.etcdctl(arguments)?;
    ensure!(
        printed.trim() == expected.trim(),
        "etcdctl {}: expected {expected:?}, got {printed:?}",
        arguments.join(" ")
    );
    Ok(())
}

fn put_get_del(cluster: &Cluster) -> Result<()> {
    expect(cluster, &["get", "missing"], "")?;
    for (key, value) in [("a", "1"), ("ab", "2"), ("b", "3")] {
        expect(cluster, &["put", key, value], "OK")?;
    }
    expect(cluster, &["get", "a"], "a\n1")?;
    expect(cluster, &["get", "--prefix", "a"], "a\n1\nab\n2")?;
    expect(cluster, &["get", "a", "c", "--order=DESCEND", "--limit=2"], "b\n3\nab\n2")?;
    expect(cluster, &["get", "--prefix", "", "--keys-only"], "a\n\nab\n\nb")?;
    expect(cluster, &["put", "--prev-kv", "a", "4"], "OK\na\n1")?;
    expect(cluster, &["del", "--prev-kv", "ab"], "1\nab\n2")?;
    expect(cluster, &["del", "ab"], "0")?;
    let answer: Value = serde_json::from_str(&cluster.etcdctl(&["get", "a", "-w", "json"])?)?;
    let pair = &answer["kvs"][0];
    ensure!(
        (&pair["create_revision"], &pair["mod_revision"], &pair["version"])
            == (&Value::from(2), &Value::from(5), &Value::from(2)),
        "a fresh store is at revision 1 and each write adds one: {answer}"
    );
    expect(cluster, &["get", "a", "--rev=2"], "a\n1")
}

fn txn(cluster: &Cluster) -> Result<()> {
    let script = "value(\"a\") = \"4\"\n\nput a 5\nget b\n\nput a 6\n\n";
    let folder = tempfile::tempdir()?;
    let path: PathBuf = folder.path().join("txn");
    for (want, line) in [("SUCCESS", "b\n3"), ("FAILURE", "OK")] {
        std::fs::write(&path, script)?;
        let mut command = cluster.command(&["txn"]);
        let printed = output(command.stdin(std::fs::File::open(&path)?))?;
        ensure!(printed.starts_with(want) && printed.contains(line), "txn: {printed:?}");
    }
    expect(cluster, &["get", "a"], "a\n6")
}

fn compaction(cluster: &Cluster) -> Result<()> {
    let answer: Value = serde_json::from_str(&cluster.etcdctl(&["get", "a", "-w", "json"])?)?;
    let revision = answer["header"]["revision"].as_u64().context("header.revision")?;
    let text = revision.to_string();
    expect(cluster, &["compaction", &text], &format!("compacted revision {text}"))?;
    expect(cluster, &["get", "a"], "a\n6")?;
    refused(cluster, &["get", "a", "--rev=2"], "mvcc: required revision has been compacted")?;
    refused(cluster, &["get", "a", "--rev=999999"], "mvcc: required revision is a future revision")
}

fn refusals(cluster: &Cluster) -> Result<()> {
    refused(cluster, &["put", "", "x"], "key is not provided")?;
    let large = "x".repeat(100_000);
    let script: String = (0..16).map(|n| format!("put k{n} {large}\n")).collect();
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("large");
    std::fs::write(&path, format!("\n{script}\n\n"))?;
    let result = output(cluster.command(&["txn"]).stdin(std::fs::File::open(&path)?));
    let error = result.err().context("a request of 1.6 MB was accepted")?.to_string();
    ensure!(error.contains("request is too large"), "refused with another text: {error}");
    Ok(())
}

fn refused(cluster: &Cluster, arguments: &[&str], text: &str) -> Result<()> {
    let name = arguments.join(" ");
    let error = cluster.etcdctl(arguments).err().with_context(|| format!("{name} was accepted"))?;
    ensure!(error.to_string().contains(text), "{name}: expected {text:?}, got: {error}");
    Ok(())
}

fn endpoints(cluster: &Cluster) -> Result<()> {
    cluster.etcdctl(&["endpoint", "health"])?;
    let status: Value =
        serde_json::from_str(&cluster.etcdctl(&["endpoint", "status", "-w", "json"])?)?;
    let list = status.as_array().context("endpoint status is a list")?;
    let leaders: Vec<_> = list.iter().map(|one| one["Status"]["leader"].as_u64()).collect();
    ensure!(leaders.len() == usize::from(SERVER_COUNT), "a server is missing: {status}");
    ensure!(leaders.iter().all(|leader| *leader == leaders[0]), "two leaders: {status}");
    let members: Value =
        serde_json::from_str(&cluster.etcdctl(&["member", "list", "-w", "json"])?)?;
    let count = members["members"].as_array().map(Vec::len);
    ensure!(count == Some(usize::from(SERVER_COUNT)), "member list: {members}");
    equal_hashes(cluster)
}

/// HashKV agrees on every member, once all have applied the same.
fn equal_hashes(cluster: &Cluster) -> Result<()> {
    wait_for("equal hashes on all members", PATIENCE, || {
        let text = cluster.etcdctl(&["endpoint", "hashkv", "-w", "json"])?;
        let answer: Value = serde_json::from_str(&text)?;
        let list = answer.as_array().context("endpoint hashkv is a list")?;
        let hashes: Vec<_> = list.iter().map(|one| one["HashKV"]["hash"].as_u64()).collect();
        let all = hashes.len() == usize::from(SERVER_COUNT);
        ensure!(all && hashes.iter().all(|hash| *hash == hashes[0]), "hashes differ: {text}");
        ensure!(hashes[0].is_some(), "no hash: {text}");
        Ok(())
    })
}

/// Writes, kills the leader, starts it again, kills the next leader. Gives what was acknowledged.
fn writes_under_kills(cluster: &mut Cluster) -> Result<Vec<(String, String)>> {
    let mut written = Vec::new();
    let mut pause_max = Duration::ZERO;
    let mut recipe = None;
    for number in 0..WRITE_COUNT {
        if number == WRITE_COUNT / 3 {
            recipe = Some(cluster.kill(cluster.leader()?)?);
        }
        if number == WRITE_COUNT / 2 {
            let recipe = recipe.take().context("a server was killed before")?;
            cluster.restarted.push(recipe.start()?);
            wait_for("the restarted server", PATIENCE, || equal_hashes(cluster))?;
            kill_second(cluster, &mut written, number)?;
            continue;
        }
        let (key, value) = (format!("kill/{number:04}"), format!("value {number}"));
        pause_max = pause_max.max(put_until_acknowledged(cluster, &key, &value)?);
        written.push((key, value));
    }
    println!("{} writes acknowledged, longest {:.2} s", written.len(), pause_max.as_secs_f64());
    ensure!(pause_max < PAUSE_MAX, "a write took {:.1} s", pause_max.as_secs_f64());
    Ok(written)
}

/// Kills the leader of now, writes without it, and starts it again.
fn kill_second(
    cluster: &mut Cluster,
    written: &mut Vec<(String, String)>,
    number: usize,
) -> Result<()> {
    let recipe = cluster.kill(cluster.leader()?)?;
    let (key, value) = (format!("kill/{number:04}"), "without the second leader".to_owned());
    let took = put_until_acknowledged(cluster, &key, &value)?;
    println!("first write without the second leader after {:.2} s", took.as_secs_f64());
    written.push((key, value));
    cluster.restarted.push(recipe.start()?);
    Ok(())
}

/// Time from the first attempt to the acknowledgement.
fn put_until_acknowledged(cluster: &Cluster, key: &str, value: &str) -> Result<Duration> {
    let start = Instant::now();
    wait_for("an acknowledged write", PATIENCE, || expect(cluster, &["put", key, value], "OK"))?;
    Ok(start.elapsed())
}

fn read_back(cluster: &Cluster, written: &[(String, String)]) -> Result<()> {
    let printed = cluster.etcdctl(&["get", "--prefix", "kill/"])?;
    let mut lines = printed.lines();
    for (key, value) in written {
        let found = (lines.next(), lines.next());
        ensure!(
            found == (Some(key.as_str()), Some(value.as_str())),
            "{key} was acknowledged with {value:?}, and is now {found:?}"
        );
    }
    println!("{} acknowledged writes are there", written.len());
    Ok(())
}
