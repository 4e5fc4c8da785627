//! Changes of members and of the leader, under `etcdctl`: what it prints for each, and what it is
//! told when there is nothing to be done.
//!
//! Invariant: every answer is compared with what etcd answers.

use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::fleet::Fleet;
use crate::ports::free_ports;

/// The founders, and a fourth that comes and goes.
const FOUNDERS: [usize; 3] = [0, 1, 2];
const NEW: usize = 3;

/// Runs them all with this `etcdctl`.
pub(crate) fn conform(binary: &Path, program: &Path) -> Result<()> {
    let folder = tempfile::tempdir().context("a temporary folder")?;
    let mut fleet = Fleet::new(binary, folder.path(), free_ports(8)?, 4, 3, &[]);
    fleet.found()?;
    let founders = fleet.members(&FOUNDERS)?;
    ensure!(founders.len() == 3 && !founders.iter().any(|one| one.is_learner), "{founders:?}");
    let id = added(&fleet, program)?;
    fleet.join(NEW, &FOUNDERS, &[])?;
    fleet.member(&FOUNDERS, NEW, true)?;
    promoted(&fleet, program, &id)?;
    let voter = fleet.member(&FOUNDERS, NEW, false)?;
    ensure!(voter.id == id, "{voter:?} has another id than {id}");
    updated(&fleet, program, &id)?;
    moved(&fleet, program)?;
    removed(&mut fleet, program, &id)?;
    fleet.equal_hashes(&FOUNDERS)
}

/// Adds the fourth as a learner, and gives its id.
fn added(fleet: &Fleet, program: &Path) -> Result<String> {
    let url = format!("--peer-urls=http://{}", fleet.nodes[NEW].peer);
    let name = fleet.nodes[NEW].name.as_str();
    let add = ["member", "add", name, "--learner", url.as_str()];
    let printed = fleet.etcdctl_of(program, &FOUNDERS, &add)?;
    let first = printed.lines().next().unwrap_or_default();
    let id = first.split_whitespace().nth(1).unwrap_or_default().to_owned();
    ensure!(first.contains("added to cluster") && !id.is_empty(), "member add: {printed:?}");
    let expected = format!("ETCD_NAME=\"{name}\"");
    ensure!(printed.contains(&expected), "{expected} is missing: {printed:?}");
    let list = fleet.etcdctl_of(program, &FOUNDERS, &["member", "list"])?;
    let unstarted = format!("{id}, unstarted, , http://{}, , true", fleet.nodes[NEW].peer);
    ensure!(list.lines().any(|line| line == unstarted), "{unstarted:?} is missing: {list}");
    refused(fleet, program, &add, "etcdserver: Peer URLs already exists")?;
    let promote = ["member", "promote", &id];
    let text = "etcdserver: can only promote a learner member which is in sync with leader";
    refused(fleet, program, &promote, text)?;
    Ok(id)
}

fn promoted(fleet: &Fleet, program: &Path, id: &str) -> Result<()> {
    let promote = ["member", "promote", id];
    // It has the log a moment after it has said its name.
    let printed = crate::run::wait_for("a promotion", crate::cluster::PATIENCE, || {
        fleet.etcdctl_of(program, &FOUNDERS, &promote)
    })?;
    ensure!(printed.contains(&format!("{id} promoted in cluster")), "promote: {printed:?}");
    let text = "etcdserver: can only promote a learner member";
    refused(fleet, program, &promote, text)
}

fn updated(fleet: &Fleet, program: &Path, id: &str) -> Result<()> {
    let new = format!("--peer-urls=http://localhost:{}", port(&fleet.nodes[NEW].peer)?);
    let printed = fleet.etcdctl_of(program, &FOUNDERS, &["member", "update", id, &new])?;
    ensure!(printed.contains(&format!("{id} updated in cluster")), "update: {printed:?}");
    let list = fleet.etcdctl_of(program, &FOUNDERS, &["member", "list"])?;
    ensure!(list.contains("http://localhost:"), "member list: {list}");
    let nobody = ["member", "update", "abcdef", "--peer-urls=http://127.0.0.1:1"];
    refused(fleet, program, &nobody, "etcdserver: member not found")
}

/// Leadership goes to the fourth and back.
fn moved(fleet: &Fleet, program: &Path) -> Result<()> {
    let all = [0, 1, 2, NEW];
    let members = fleet.members(&FOUNDERS)?;
    let id_of = |at: usize| {
        let name = &fleet.nodes[at].name;
        let member = members.iter().find(|member| member.name == *name);
        member.map(|member| member.id.clone()).with_context(|| format!("{name} is no member"))
    };
    let first = fleet.leader(&all)?;
    for (from, to) in [(first, NEW), (NEW, first)] {
        let (from_id, to_id) = (id_of(from)?, id_of(to)?);
        let printed = fleet.etcdctl_of(program, &all, &["move-leader", &to_id])?;
        let expected = format!("Leadership transferred from {from_id} to {to_id}");
        ensure!(printed.trim() == expected, "move-leader: {printed:?}, not {expected:?}");
        let leader = fleet.leader(&all)?;
        ensure!(leader == to, "{} leads", fleet.nodes[leader].name);
    }
    let nobody = ["move-leader", "abcdef"];
    refused_by(fleet, program, &all, &nobody, "etcdserver: bad leader transferee")
}

fn removed(fleet: &mut Fleet, program: &Path, id: &str) -> Result<()> {
    let remove = ["member", "remove", id];
    let printed = fleet.etcdctl_of(program, &FOUNDERS, &remove)?;
    ensure!(printed.contains(&format!("{id} removed from cluster")), "remove: {printed:?}");
    fleet.wait_for_end(NEW)?;
    refused(fleet, program, &remove, "etcdserver: member not found")?;
    let left = fleet.members(&FOUNDERS)?;
    ensure!(left.len() == 3, "{left:?}");
    Ok(())
}

fn refused(fleet: &Fleet, program: &Path, arguments: &[&str], text: &str) -> Result<()> {
    refused_by(fleet, program, &FOUNDERS, arguments, text)
}

fn refused_by(
    fleet: &Fleet,
    program: &Path,
    nodes: &[usize],
    arguments: &[&str],
    text: &str,
) -> Result<()> {
    let name = arguments.join(" ");
    let answer = fleet.etcdctl_of(program, nodes, arguments);
    let error = answer.err().with_context(|| format!("{name} was accepted"))?.to_string();
    ensure!(error.contains(text), "{name}: expected {text:?}, got: {error}");
    Ok(())
}

fn port(address: &str) -> Result<&str> {
    Ok(address.rsplit_once(':').context("an address has a port")?.1)
}
