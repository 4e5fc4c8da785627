//! Which crate may know which.
//!
//! Why: `raft`, `store` and `kv` can each be read, tested and replaced alone only as long as they
//! never meet; what is simulated is what ships only as long as no core can reach a clock, a socket
//! or a thread, not even through a library.
//!
//! Only what is compiled into a crate counts: dependencies of its tests are free.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Finding;
use super::source::CORES;

/// Package name to the names of the packages compiled into it directly.
pub(super) type Graph = BTreeMap<String, BTreeSet<String>>;

/// What a core may know of this workspace. `client`, `server` and `kvraft` are the edge: they may
/// know any of these. `raft-model` and `hunt` are tests that nobody ships.
const KNOWS: [(&str, &[&str]); 11] = [
    ("base", &[]),
    ("raft", &["base"]),
    ("raft-model", &["base", "raft"]),
    ("kv", &["base"]),
    ("store", &["base"]),
    ("session", &["base"]),
    ("replica", &["base", "raft", "kv", "store"]),
    ("trace", &["base"]),
    ("coord", &["base"]),
    ("sim", &["base", "raft", "kv", "store", "replica", "session", "trace", "coord"]),
    ("hunt", &["base", "raft", "kv", "store", "replica", "session", "trace", "coord", "sim"]),
];

/// Libraries that bring a clock, a socket, a thread or randomness of their own.
const EDGE_ONLY: [&str; 14] = [
    "async-std",
    "fastrand",
    "futures-timer",
    "getrandom",
    "hyper",
    "mio",
    "prost",
    "rand",
    "rand_core",
    "smol",
    "socket2",
    "tokio",
    "tonic",
    "tracing",
];

/// Reads the graph of what is compiled into what.
///
/// # Errors
/// When cargo cannot resolve the workspace with its lock file.
pub(super) fn load(root: &Path) -> Result<Graph> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("running cargo metadata --locked")?;
    let resolve = metadata.resolve.as_ref().context("cargo metadata gave no graph")?;
    let name_of = |id| metadata[id].name.to_string();
    let mut graph = Graph::new();
    for node in &resolve.nodes {
        let compiled_in = node
            .deps
            .iter()
            .filter(|dep| dep.dep_kinds.iter().any(|info| info.kind == DependencyKind::Normal))
            .map(|dep| name_of(&dep.pkg));
        graph.entry(name_of(&node.id)).or_default().extend(compiled_in);
    }
    Ok(graph)
}

/// Every arrow that must not be.
pub(super) fn check(graph: &Graph) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, known) in KNOWS {
        let package = format!("kvraft-{name}");
        let manifest = format!("crates/{name}/Cargo.toml");
        let Some(direct) = graph.get(&package) else {
            findings.push(Finding::new(&manifest, 0, format!("package {package} is missing")));
            continue;
        };
        let ours = direct.iter().filter_map(|dependency| dependency.strip_prefix("kvraft-"));
        for other in ours.filter(|other| !known.contains(other)) {
            let message = format!("{name} must not know {other}; it may know {known:?}");
            findings.push(Finding::new(&manifest, 0, message));
        }
    }
    for name in CORES {
        let reached = reach(graph, &format!("kvraft-{name}"));
        for (library, through) in reached.iter().filter(|(to, _)| EDGE_ONLY.contains(&to.as_str()))
        {
            let message = format!("{name} must not reach {library}, but does through {through}");
            findings.push(Finding::new(&format!("crates/{name}/Cargo.toml"), 0, message));
        }
    }
    findings
}

/// Every package compiled into `start`, each with the package that brings it in.
fn reach(graph: &Graph, start: &str) -> BTreeMap<String, String> {
    let mut reached = BTreeMap::new();
    let mut pending = vec![start.to_owned()];
    while let Some(package) = pending.pop() {
        for dependency in graph.get(&package).into_iter().flatten() {
            if !reached.contains_key(dependency) {
                reached.insert(dependency.clone(), package.clone());
                pending.push(dependency.clone());
            }
        }
    }
    reached
}
