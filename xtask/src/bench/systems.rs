//! The three systems that are compared, each of three servers on this machine.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::ports::free_ports;
use crate::processes::{Guard, listener};
use crate::run::{output, wait_for};

const SERVER_COUNT: u16 = 3;

/// How long a system may take to start and elect.
const PATIENCE: Duration = Duration::from_secs(20);

/// Three servers and how to reach them.
pub(super) struct System {
    /// The name in the tables.
    pub(super) name: &'static str,
    /// `host:port` of each server.
    pub(super) endpoints: Vec<String>,
    /// The server processes.
    pub(super) pids: Vec<u32>,
    /// What was started; ends with this value.
    guards: Vec<Guard>,
}

/// Servers that answer every put at once, with the same library and message types.
pub(super) fn no_op(kvraft: &Path) -> Result<System> {
    let ports = client_ports()?;
    let mut guards = Vec::new();
    for port in &ports {
        let address = format!("127.0.0.1:{port}");
        let mut command = Command::new(kvraft);
        guards.push(Guard::start(command.args(["noop-server", "--listen", &address]))?);
    }
    ready("no-op", &ports, guards, false)
}

/// etcd, with its defaults.
pub(super) fn etcd(data: &Path) -> Result<System> {
    let ports = client_ports()?;
    let peers: Vec<String> =
        ports.iter().map(|port| format!("n{port}=http://127.0.0.1:{}", port + 1)).collect();
    let mut guards = Vec::new();
    for port in &ports {
        let client = format!("http://127.0.0.1:{port}");
        let peer = format!("http://127.0.0.1:{}", port + 1);
        let mut command = Command::new("etcd");
        command.args(["--name", &format!("n{port}"), "--data-dir"]);
        command.arg(data.join(port.to_string()));
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &peers.join(",")]);
        command.args(["--logger", "zap", "--log-level", "error"]);
        guards.push(Guard::start(&mut command)?);
    }
    ready("etcd", &ports, guards, true)
}

/// kvraft, with its defaults.
pub(super) fn kvraft(kvraft: &Path, data: &Path) -> Result<System> {
    let ports = client_ports()?;
    let mut command = Command::new(kvraft);
    command.args(["cluster", "-n", &SERVER_COUNT.to_string(), "--base-port"]);
    command.arg(ports[0].to_string()).arg("--data-dir").arg(data);
    let launcher = Guard::start(&mut command)?;
    ready("kvraft", &ports, vec![launcher], true)
}

/// Client ports with a free port behind each, for peers.
fn client_ports() -> Result<Vec<u16>> {
    let base = free_ports(2 * SERVER_COUNT)?;
    Ok((0..SERVER_COUNT).map(|server| base + 2 * server).collect())
}

/// Waits until every server listens and, where there is something to elect, answers.
fn ready(name: &'static str, ports: &[u16], guards: Vec<Guard>, elects: bool) -> Result<System> {
    let endpoints: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    let listeners = || ports.iter().map(|port| listener(*port)).collect::<Result<Vec<u32>>>();
    let pids = wait_for("listening servers", PATIENCE, listeners).context(name)?;
    if elects {
        let health = || {
            let mut command = Command::new("etcdctl");
            command.env("ETCDCTL_API", "3").arg(format!("--endpoints={}", endpoints.join(",")));
            output(command.args(["endpoint", "health"]))
        };
        wait_for("a leader", PATIENCE, health).context(name)?;
    }
    Ok(System { name, endpoints, pids, guards })
}

impl Drop for System {
    fn drop(&mut self) {
        // Servers that a launcher started end with it only when they are asked, not when it is
        // killed. One that has ended already is as good.
        for guard in &mut self.guards {
            drop(guard.stop("INT", PATIENCE * 2));
        }
    }
}
