//! A cluster of three servers on this machine, started by `kvraft cluster` and reached by
//! `etcdctl`.
//!
//! Why: conformance and the power losses drive the same program in the same way.
//!
//! Invariant: no server outlives its [`Cluster`], also when a check has failed.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::ports::free_ports;
use crate::processes::{self, Guard};
use crate::run::{line, output, signal, wait_for};

/// Servers of a cluster.
pub(crate) const SERVER_COUNT: u16 = 3;

/// How long a cluster may take to start and to elect.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// How long a cluster may take to stop: longer than it gives its servers before it kills them.
const STOP_PATIENCE: Duration = Duration::from_secs(40);

/// Lines of the servers' logs that are shown when a cluster does not become healthy.
const LOG_LINE_COUNT: usize = 12;

/// What a server says of itself.
pub(crate) struct Status {
    pub(crate) leads: bool,
    /// Of its store, as far as it has applied.
    pub(crate) revision: u64,
    /// Index of the last entry that it has applied.
    pub(crate) applied: u64,
}

/// A server that was killed.
pub(crate) struct Killed {
    pub(crate) server: u16,
    /// Just before.
    pub(crate) at: Instant,
    /// How to start it again.
    pub(crate) recipe: processes::Recipe,
}

/// A running cluster and how to reach it.
pub(crate) struct Cluster {
    launcher: Guard,
    /// Servers that were started again by hand.
    pub(crate) restarted: Vec<Guard>,
    base_port: u16,
}

impl Cluster {
    /// Neighbouring free ports, as many as a cluster needs.
    pub(crate) fn free_ports() -> Result<u16> {
        Ok(free_ports(2 * SERVER_COUNT)?)
    }

    /// Starts `binary` with the arguments of a cluster, from `base_port` on, with its data in
    /// `data` and its log beside, and waits until all servers are healthy.
    pub(crate) fn start(
        binary: &Path,
        arguments: &[&str],
        data: &Path,
        base_port: u16,
    ) -> Result<Self> {
        let mut command = Command::new(binary);
        command.args(arguments).args(["--base-port", &base_port.to_string(), "--data-dir"]);
        command.arg(data);
        println!("$ {}", line(&command));
        let log_path = data.with_extension("log");
        let log = File::create(&log_path).context("a file for the log")?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        // The launcher is the program itself, not cargo: signals must reach it.
        let launcher = Guard::spawn(&mut command)?;
        let cluster = Self { launcher, restarted: Vec::new(), base_port };
        wait_for("a healthy cluster", PATIENCE, || cluster.etcdctl(&["endpoint", "health"]))
            .with_context(|| format!("the log ends with\n{}", log_end(&log_path)))?;
        Ok(cluster)
    }

    fn endpoint(&self, server: u16) -> String {
        format!("127.0.0.1:{}", self.base_port + 2 * server)
    }

    /// `etcdctl` over all endpoints.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        self.command_with("", arguments)
    }

    /// `etcdctl` over all endpoints, each behind `scheme`.
    pub(crate) fn command_with(&self, scheme: &str, arguments: &[&str]) -> Command {
        let endpoint = |n| format!("{scheme}{}", self.endpoint(n));
        let endpoints: Vec<String> = (0..SERVER_COUNT).map(endpoint).collect();
        let mut command = Command::new("etcdctl");
        command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
        command.args(["--dial-timeout=2s", "--command-timeout=10s"]).args(arguments);
        command
    }

    /// Runs `etcdctl` over all endpoints.
    pub(crate) fn etcdctl(&self, arguments: &[&str]) -> Result<String> {
        output(&mut self.command(arguments))
    }

    /// What a server says of itself.
    pub(crate) fn status(&self, server: u16) -> Result<Status> {
        status_of(&self.endpoint(server))
    }

    /// Which server leads, as the members themselves say.
    pub(crate) fn leader(&self) -> Result<u16> {
        let leads = |server: &u16| self.status(*server).is_ok_and(|status| status.leads);
        (0..SERVER_COUNT).find(leads).context("no server says that it leads")
    }

    fn pid(&self, server: u16) -> Result<u32> {
        processes::listener(self.base_port + 2 * server)
    }

    /// Kills a server.
    pub(crate) fn kill(&self, server: u16) -> Result<Killed> {
        let pid = self.pid(server)?;
        let recipe = processes::recipe(pid)?;
        let at = Instant::now();
        signal(pid, "KILL")?;
        println!("killed server {server}, process {pid}");
        Ok(Killed { server, at, recipe })
    }

    /// All servers and their launcher, in the order in which they are to be killed.
    pub(crate) fn pids(&self) -> Result<Vec<u32>> {
        let mut pids = (0..SERVER_COUNT).map(|n| self.pid(n)).collect::<Result<Vec<_>>>()?;
        // The servers first: they stop cleanly when their launcher goes. It starts none again.
        pids.push(self.launcher.pid());
        Ok(pids)
    }

    /// Stops the cluster as a person does.
    pub(crate) fn stop(&mut self) -> Result<()> {
        for server in &mut self.restarted {
            server.stop("TERM", STOP_PATIENCE)?;
        }
        self.launcher.stop("INT", STOP_PATIENCE)
    }

    /// HashKV agrees on every member, once all have applied the same.
    pub(crate) fn equal_hashes(&self) -> Result<()> {
        wait_for("equal hashes on all members", PATIENCE, || {
            let text = self.etcdctl(&["endpoint", "hashkv", "-w", "json"])?;
            let answer: Value = serde_json::from_str(&text)?;
            let list = answer.as_array().context("endpoint hashkv is a list")?;
            let hashes: Vec<_> = list.iter().map(|one| one["HashKV"]["hash"].as_u64()).collect();
            let all = hashes.len() == usize::from(SERVER_COUNT);
            ensure!(all && hashes.iter().all(|hash| *hash == hashes[0]), "hashes differ: {text}");
            ensure!(hashes[0].is_some(), "no hash: {text}");
            Ok(())
        })
    }
}

/// What the server at `endpoint` says of itself.
pub(crate) fn status_of(endpoint: &str) -> Result<Status> {
    let mut command = Command::new("etcdctl");
    command.env("ETCDCTL_API", "3").arg(format!("--endpoints={endpoint}"));
    command.args(["--command-timeout=2s", "endpoint", "status", "--write-out=json"]);
    let answer: Value = serde_json::from_str(&output(&mut command)?)?;
    let status = &answer[0]["Status"];
    let leader = status["leader"].as_u64().unwrap_or_default();
    Ok(Status {
        leads: leader != 0 && Some(leader) == status["header"]["member_id"].as_u64(),
        revision: status["header"]["revision"].as_u64().unwrap_or_default(),
        applied: status["raftAppliedIndex"].as_u64().unwrap_or_default(),
    })
}

/// Kills all at once, and waits until they are gone.
pub(crate) fn kill_all(pids: &[u32]) -> Result<()> {
    let words: Vec<String> = pids.iter().map(ToString::to_string).collect();
    output(Command::new("sh").args(["-c", &format!("kill -KILL {}", words.join(" "))]))?;
    wait_for("the end of what was killed", PATIENCE, || {
        let left = pids.iter().find(|pid| processes::is_running(**pid));
        left.map_or(Ok(()), |pid| bail!("process {pid} still runs"))
    })
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

/// The last lines of a log; nothing when there is none.
pub(crate) fn log_end(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINE_COUNT)..].join("\n")
}
