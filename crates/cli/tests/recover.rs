//! Three real servers, of which two are lost for good: the third goes on alone with all that it
//! has, and grows to three again. And as which member a server with an empty directory starts.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod nodes;

use std::{fs, time::Duration};

use kvraft_client::{Client, NewMember};
use kvraft_proto::etcdserverpb::{HashKvRequest, maintenance_client::MaintenanceClient};
use serde_json::Value;

use nodes::{Node, found, nodes, run, text};

/// A store's hash at a revision.
fn hash(node: &Node, revision: i64) -> u32 {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let asked = async {
        let url = format!("http://{}", node.client);
        let mut maintenance = MaintenanceClient::connect(url).await.ok()?;
        let answer = maintenance.hash_kv(HashKvRequest { revision }).await.ok()?;
        Some(answer.into_inner().hash)
    };
    runtime.block_on(asked).unwrap()
}

/// Revision and number of keys, as a linearizable read tells.
fn count(node: &Node) -> (i64, i64) {
    let arguments = ["get", "", "--prefix", "--count-only", "-w", "json"];
    let said = node.wait(&arguments, |_| true);
    let answer: Value = serde_json::from_str(&said).unwrap();
    (answer["header"]["revision"].as_i64().unwrap(), answer["count"].as_i64().unwrap())
}

fn recover(node: &Node, more: &[&str]) -> (bool, String) {
    let arguments = ["recover", "--force-new-cluster", "--data-dir", text(&node.data)];
    let output = run(&[&arguments, more].concat());
    let mut said = String::from_utf8(output.stdout).unwrap();
    said.push_str(std::str::from_utf8(&output.stderr).unwrap());
    (output.status.success(), said)
}

/// The survivor keeps every key and revision, is refused as long as a quorum answers, asks before
/// it does anything, shuts the old servers out, and grows to three again.
#[test]
fn one_of_three_goes_on_alone() {
    let mut nodes = nodes("recover", 5);
    found(&mut nodes[..3], &[]);
    for at in 0..20 {
        nodes[0].wait(&["put", &format!("k{at}"), &format!("v{at}")], |said| said == "OK\n");
    }
    nodes[0].wait(&["del", "k3"], |said| said == "1\n");
    let before = count(&nodes[0]);
    assert_eq!(before.1, 19);
    // What is read linearizably there is applied there.
    let state = hash(&nodes[0], before.0);

    let (done, said) = recover(&nodes[0], &["--yes"]);
    assert!(!done && said.contains("another process"), "{said}");
    nodes[0].kill();
    let (done, said) = recover(&nodes[0], &["--yes"]);
    assert!(!done && said.contains("refused") && said.contains("quorum"), "{said}");
    nodes[1].kill();
    let (done, said) = recover(&nodes[0], &["--yes"]);
    assert!(!done && said.contains("(s2) answers"), "one other and this one are a quorum: {said}");
    nodes[2].kill();
    fs::remove_dir_all(&nodes[1].data).unwrap();
    let (done, said) = recover(&nodes[0], &[]);
    assert!(!done && said.contains("the cluster was not changed"), "{said}");
    let (done, said) = recover(&nodes[0], &["--yes", "--cluster-id", "4711"]);
    assert!(done && said.contains("is lost, even if it was acknowledged"), "{said}");
    let (done, said) = recover(&nodes[0], &["--yes"]);
    assert!(done && said.contains("cluster of its own already"), "{said}");

    nodes[0].start(&[]);
    assert_eq!(count(&nodes[0]), before);
    assert_eq!(hash(&nodes[0], before.0), state);
    grow_again(&mut nodes, before, state);
}

fn grow_again(nodes: &mut [Node], before: (i64, i64), state: u32) {
    // The one whose directory is still there cannot come back.
    nodes[2].start(&[]);
    let through = nodes[0].client.clone();
    for at in [3, 4] {
        nodes[at].start(&["--join", &through]);
        let voter = format!(", started, s{at}, ");
        let is_voter = |line: &str| line.contains(&voter) && line.ends_with("false");
        nodes[0].wait(&["member", "list"], |said| said.lines().any(is_voter));
    }
    nodes[4].wait(&["put", "after", "all"], |said| said == "OK\n");
    let now = (before.0 + 1, before.1 + 1);
    for at in [0, 3, 4] {
        assert_eq!(count(&nodes[at]), now);
        assert_eq!(hash(&nodes[at], before.0), state);
    }
    let status = nodes[2].ask(&["get", "after"]);
    assert!(!status.status.success(), "a server of the old cluster serves nothing");
    nodes[0].kill();
    nodes[3].wait(&["get", "after", "--print-value-only"], |said| said == "all\n");
    // A new server that has lost its data must not come back as the same member.
    nodes[4].kill();
    fs::remove_dir_all(&nodes[4].data).unwrap();
    nodes[0].start(&[]);
    nodes[3].wait(&["member", "list"], |_| true);
    let listen = [nodes[4].client.as_str(), &nodes[4].peer];
    let arguments = ["server", "--name", "s4", "--data-dir", text(&nodes[4].data), "--join"];
    let own = [nodes[3].client.as_str(), "--listen-client", listen[0], "--listen-peer", listen[1]];
    let refused = run(&[&arguments[..], &own].concat());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("has lost its data"), "{said}");
}

/// As `etcdctl member add` does without `--learner`; `kvraft member add` adds no such voter.
fn add_voter(endpoint: &str, peer: &str) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = Client::builder().endpoints([endpoint]);
    runtime.block_on(async {
        let client = client.build().unwrap();
        for attempt in 0.. {
            match client.member_add([peer], NewMember::Voter).await {
                Ok(_) => break,
                Err(error) if attempt == 50 => panic!("{error}"),
                // Not every voter is connected yet.
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    });
}

/// A voter that was added and has no name yet may have run and voted all the same: an empty
/// directory never becomes that member, but a new one in its place.
#[test]
fn a_voter_without_a_name_is_replaced() {
    let mut nodes = nodes("join", 3);
    found(&mut nodes[..2], &[]);
    let started = ", started, s1, ";
    nodes[0].wait(&["member", "list"], |said| said.contains(started));
    let peer = nodes[2].peer.clone();
    add_voter(&nodes[0].client, &peer);
    let list = nodes[0].wait(&["member", "list"], |_| true);
    let unstarted = list.lines().find(|line| line.contains(", unstarted, , ")).unwrap();
    let voter = unstarted.split(',').next().unwrap();
    assert!(unstarted.contains(&peer) && unstarted.ends_with("false"), "{list}");
    let through = nodes[0].client.clone();
    nodes[2].start(&["--join", &through]);
    let is_voter = |line: &str| line.contains(", started, s2, ") && line.ends_with("false");
    let list = nodes[0].wait(&["member", "list"], |said| said.lines().any(is_voter));
    assert_eq!(list.lines().count(), 3, "{list}");
    assert!(list.lines().all(|line| !line.starts_with(&format!("{voter},"))), "{list}");
    nodes[2].wait(&["put", "k", "v"], |said| said == "OK\n");
}
