//! The shipped binary under a foreign client: `etcdctl` against `kvraft cluster`, as the README
//! starts it, with servers killed under it (`kills`) and
//! the power cut (`power`).
//!
//! Why: only a client that others wrote shows that the API is what it says.
//!
//! Invariant: every check compares with what etcd answers; none is skipped.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{Cluster, SERVER_COUNT, kill_all};
use crate::run::{Step, build_release, need, output, run_steps};
use crate::{grow_and_shrink, kills, members, power, readme, viewer::viewer};

/// Runs every conformance check; those of changes of members also with each program of
/// `more_etcdctls`.
///
/// # Errors
/// The first check that failed, or the program that is missing.
pub fn conformance(root: &Path, more_etcdctls: &[PathBuf]) -> Result<()> {
    need("etcdctl", "etcd-client")?;
    let binary = build_release(root)?;
    viewer(root, false, Some(binary.clone()))?;
    let own = [PathBuf::from("etcdctl")];
    let programs = own.iter().chain(more_etcdctls);
    run_steps(
        programs
            .map(|program| {
                let name = format!("{}: members and leader", program.display());
                Step::new(name, || members::conform(&binary, program))
            })
            .chain([Step::new("grow and shrink", || grow_and_shrink::under_load(&binary))])
            .collect(),
    )?;
    let set_up = readme::set_up(root)?;
    let own = set_up.run.iter().skip_while(|word| *word != "--").skip(1);
    let arguments: Vec<&str> = own.map(String::as_str).collect();
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let data = folder.path().join("data");
    let base_port = Cluster::free_ports()?;
    let start = || Cluster::start(&binary, &arguments, &data, base_port);
    let mut cluster = start()?;
    run_steps(vec![
        Step::new("etcdctl: put, get, del", || put_get_del(&cluster)),
        Step::new("etcdctl: txn", || txn(&cluster)),
        Step::new("etcdctl: compaction", || compaction(&cluster)),
        Step::new("etcdctl: endpoint and member", || endpoints(&cluster)),
        Step::new("etcdctl: refusals", || refusals(&cluster)),
    ])?;
    let mut written = Vec::new();
    run_steps(vec![Step::new("1,000 keys are written while two leaders are killed", || {
        written = kills::write_under_kills(&mut cluster)?;
        read_back(&cluster, &written)?;
        cluster.equal_hashes()
    })])?;
    run_steps(vec![
        Step::new("a clean stop", || cluster.stop()),
        Step::new("the data is there after a start and after SIGKILL of all", || {
            let again = start()?;
            read_back(&again, &written)?;
            kill_all(&again.pids()?)?;
            drop(again);
            let mut last = start()?;
            read_back(&last, &written)?;
            last.equal_hashes()?;
            last.stop()
        }),
        Step::new("acknowledged writes outlive a power loss", || power::survives(&binary, 1)),
    ])
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
    let text = "the Lease service is not served by this version";
    refused(cluster, &["lease", "grant", "60"], text)?;
    refused(cluster, &["user", "list"], "the Auth service is not served by this version")?;
    refused(cluster, &["watch", "a"], "the Watch service is not served by this version")
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
    cluster.equal_hashes()?;
    // Spelled as a URL, an endpoint is an authority that HTTP/2 does not allow.
    for words in ["endpoint status", "endpoint health", "endpoint hashkv", "member list", "get a"] {
        let words: Vec<&str> = words.split(' ').collect();
        output(&mut cluster.command_with("http://", &words))?;
    }
    Ok(())
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
