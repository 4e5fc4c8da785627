//! Servers that are started one by one with `kvraft server`, so that they can come and go.
//!
//! Why: `kvraft cluster` starts servers that stay; changes of members need others.
//!
//! Invariants:
//! - no server outlives its [`Fleet`];
//! - each has a log of its own, whose end is shown when something was waited for in vain.

use std::fs::OpenOptions;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::cluster::{PATIENCE, Status, log_end, status_of};
use crate::processes::Guard;
use crate::run::{output, wait_for};

/// A server, running or not.
pub(crate) struct Node {
    /// As the cluster calls it.
    pub(crate) name: String,
    /// `host:port` for clients.
    pub(crate) client: String,
    /// `host:port` for peers.
    pub(crate) peer: String,
    data: PathBuf,
    log: PathBuf,
    running: Option<Guard>,
}

/// What the cluster says of one member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// In hexadecimal, as etcdctl takes it.
    pub(crate) id: String,
    pub(crate) name: String,
    pub(crate) is_learner: bool,
}

/// The servers of one cluster, past, present and future.
pub(crate) struct Fleet {
    binary: PathBuf,
    /// More arguments for every server.
    arguments: Vec<String>,
    pub(crate) nodes: Vec<Node>,
    /// Founders are the first so many.
    founder_count: usize,
}

impl Fleet {
    /// `count` servers named `s1`, `s2` and so on, on neighbouring ports from `base_port` on, of
    /// which none runs; the first `founder_count` will found the cluster.
    pub(crate) fn new(
        binary: &Path,
        folder: &Path,
        base_port: u16,
        count: u16,
        founder_count: usize,
        arguments: &[&str],
    ) -> Self {
        let node = |number: u16| {
            let name = format!("s{}", number + 1);
            Node {
                client: format!("127.0.0.1:{}", base_port + 2 * number),
                peer: format!("127.0.0.1:{}", base_port + 2 * number + 1),
                data: folder.join(&name),
                log: folder.join(format!("{name}.log")),
                name,
                running: None,
            }
        };
        Self {
            binary: binary.to_path_buf(),
            arguments: arguments.iter().map(|text| (*text).to_owned()).collect(),
            nodes: (0..count).map(node).collect(),
            founder_count,
        }
    }

    /// Starts the founders, and waits until they serve.
    pub(crate) fn found(&mut self) -> Result<()> {
        for at in 0..self.founder_count {
            self.start_founder(at)?;
        }
        let all: Vec<usize> = (0..self.founder_count).collect();
        self.healthy(&all)
    }

    /// Starts a founder, for the first time or again.
    pub(crate) fn start_founder(&mut self, at: usize) -> Result<()> {
        let member = |node: &Node| format!("{}={}", node.name, node.peer);
        let members: Vec<String> = self.nodes[..self.founder_count].iter().map(member).collect();
        let more = ["--initial-cluster-token", "fleet", "--initial-cluster", &members.join(",")];
        self.start(at, &more)
    }

    /// Starts a server that joins through `through`.
    pub(crate) fn join(&mut self, at: usize, through: &[usize], more: &[&str]) -> Result<()> {
        let endpoints = self.endpoints(through);
        let mut arguments = vec!["--join", endpoints.as_str()];
        arguments.extend(more);
        self.start(at, &arguments)
    }

    fn start(&mut self, at: usize, more: &[&str]) -> Result<()> {
        let node = &mut self.nodes[at];
        let log = OpenOptions::new().create(true).append(true).open(&node.log)?;
        let mut command = Command::new(&self.binary);
        command.args(["server", "--name", &node.name, "--data-dir"]).arg(&node.data);
        command.args(["--listen-client", &node.client, "--listen-peer", &node.peer]);
        command.args(&self.arguments).args(more);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        node.running = Some(Guard::spawn(&mut command)?);
        Ok(())
    }

    /// Kills a server.
    pub(crate) fn kill(&mut self, at: usize) {
        self.nodes[at].running = None;
    }

    /// Waits until a server has ended by itself.
    pub(crate) fn wait_for_end(&mut self, at: usize) -> Result<()> {
        let node = &mut self.nodes[at];
        let running = node.running.as_mut().context("the server does not run")?;
        let ended = wait_for("the end of a removed server", PATIENCE, || {
            running.ended()?.context("the process still runs")
        });
        ended.with_context(|| format!("{}'s log ends with\n{}", node.name, log_end(&node.log)))?;
        node.running = None;
        Ok(())
    }

    /// `host:port,host:port` of these servers.
    pub(crate) fn endpoints(&self, nodes: &[usize]) -> String {
        let clients: Vec<&str> = nodes.iter().map(|at| self.nodes[*at].client.as_str()).collect();
        clients.join(",")
    }

    /// `etcdctl` over these servers.
    pub(crate) fn etcdctl(&self, nodes: &[usize], arguments: &[&str]) -> Result<String> {
        self.etcdctl_of("etcdctl".as_ref(), nodes, arguments)
    }

    /// The same with another program.
    pub(crate) fn etcdctl_of(
        &self,
        program: &Path,
        nodes: &[usize],
        arguments: &[&str],
    ) -> Result<String> {
        let mut command = Command::new(program);
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", self.endpoints(nodes)));
        command.args(["--dial-timeout=2s", "--command-timeout=10s"]).args(arguments);
        output(&mut command)
    }

    /// `kvraft` over these servers.
    pub(crate) fn kvraft(&self, nodes: &[usize], arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.binary);
        command.args(arguments).args(["--endpoints", &self.endpoints(nodes)]);
        output(&mut command)
    }

    /// Waits until all of these serve.
    pub(crate) fn healthy(&self, nodes: &[usize]) -> Result<()> {
        let healthy =
            wait_for("healthy servers", PATIENCE, || self.etcdctl(nodes, &["endpoint", "health"]));
        healthy.map(drop).with_context(|| {
            let ends = nodes.iter().map(|at| &self.nodes[*at]);
            let ends =
                ends.map(|node| format!("{}'s log ends with\n{}", node.name, log_end(&node.log)));
            ends.collect::<Vec<_>>().join("\n")
        })
    }

    /// What a server says of itself.
    pub(crate) fn status(&self, at: usize) -> Result<Status> {
        status_of(&self.nodes[at].client)
    }

    /// Which of these leads.
    pub(crate) fn leader(&self, nodes: &[usize]) -> Result<usize> {
        let leads = |at: &&usize| self.status(**at).is_ok_and(|status| status.leads);
        wait_for("a leader", PATIENCE, || {
            nodes.iter().find(leads).copied().context("no server says that it leads")
        })
    }

    /// Who belongs to the cluster, as one of these servers tells.
    pub(crate) fn members(&self, nodes: &[usize]) -> Result<Vec<Member>> {
        let text = self.etcdctl(nodes, &["member", "list", "-w", "json"])?;
        let answer: Value = serde_json::from_str(&text)?;
        let list = answer["members"].as_array().context("a list of members")?;
        let member = |one: &Value| {
            Some(Member {
                id: format!("{:x}", one["ID"].as_u64()?),
                name: one["name"].as_str().unwrap_or_default().to_owned(),
                is_learner: one["isLearner"].as_bool().unwrap_or(false),
            })
        };
        list.iter().map(|one| member(one).context("a member without an id")).collect()
    }

    /// The member that a server is, once it has said so, as a voter or not.
    pub(crate) fn member(&self, nodes: &[usize], at: usize, is_learner: bool) -> Result<Member> {
        let node = &self.nodes[at];
        let found = wait_for("a member", PATIENCE, || {
            let members = self.members(nodes)?;
            let found = members.iter().find(|member| member.name == node.name).cloned();
            let found = found.with_context(|| format!("{} is not among {members:?}", node.name))?;
            ensure!(found.is_learner == is_learner, "{found:?}");
            Ok(found)
        });
        found.with_context(|| format!("{}'s log ends with\n{}", node.name, log_end(&node.log)))
    }

    /// A server's log so far.
    pub(crate) fn log(&self, at: usize) -> String {
        let text = std::fs::read(&self.nodes[at].log).unwrap_or_default();
        String::from_utf8_lossy(&text).into_owned()
    }

    /// HashKV agrees on these servers, once all have applied the same.
    pub(crate) fn equal_hashes(&self, nodes: &[usize]) -> Result<()> {
        wait_for("equal hashes", PATIENCE, || {
            let text = self.etcdctl(nodes, &["endpoint", "hashkv", "-w", "json"])?;
            let answer: Value = serde_json::from_str(&text)?;
            let list = answer.as_array().context("endpoint hashkv is a list")?;
            let hashes: Vec<_> = list.iter().map(|one| one["HashKV"]["hash"].as_u64()).collect();
            let same = hashes.iter().all(|hash| hash.is_some() && *hash == hashes[0]);
            ensure!(same && hashes.len() == nodes.len(), "hashes differ: {text}");
            Ok(())
        })
    }
}
