//! The example of KVRaft (Go), from beginning to end: a tracing server, a coordinator, three
//! servers, a client that puts and gets twenty keys, and the leader killed in the middle.
//!
//! Why: to see the five programs together, and to have their logs and a page to look at.
//!
//! Invariants:
//! - everything listens on free ports of loopback, and nothing outlives the demonstration;
//! - what it leaves behind was checked: the clocks, Raft's rules, and what the client was told.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::ports::free_ports;
use crate::processes::Guard;
use crate::run::{build_debug, line, output, run, target_folder, wait_for};

/// How long a step may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Servers, and operations of each kind.
const SERVER_COUNT: u16 = 3;
const KEY_COUNT: usize = 20;

/// The put in whose neighbourhood the leader dies.
const KILL_AT: usize = 13;

/// Runs the demonstration with `binary`, or with a build of this tree; what it leaves is in
/// `target/seed-demo`.
///
/// # Errors
/// What did not work, or does not hold.
pub fn seed_demo(root: &Path, binary: Option<PathBuf>) -> Result<()> {
    let binary = match binary {
        Some(binary) => binary,
        None => build_debug(root)?,
    };
    let folder = target_folder(root)?.join("seed-demo");
    if folder.exists() {
        fs::remove_dir_all(&folder).context("removing what an earlier run has left")?;
    }
    fs::create_dir_all(&folder)?;
    let demo = Demo { binary, folder };
    let killed = demo.play()?;
    demo.check(&killed)?;
    demo.tell()
}

/// What each of the programs records, among other things.
const TAGS: [&str; 9] = [
    "KvslibStart",
    "KvslibStop",
    "PutResultRecvd",
    "PutCommitted",
    "BecameLeader",
    "NoOpRequest",
    "CoordStart",
    "AllServersJoined",
    "NewClusterView",
];

struct Demo {
    binary: PathBuf,
    folder: PathBuf,
}

impl Demo {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(&self.folder).args(arguments);
        command
    }

    /// Starts a program that writes its output to a file.
    fn start(&self, arguments: &[&str], log: &str) -> Result<Guard> {
        let log = File::create(self.folder.join(log))?;
        let mut command = self.command(arguments);
        println!("$ {}", line(&command));
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        Guard::spawn(&mut command)
    }

    /// Plays it; gives the name, in traces, of the server that was killed.
    fn play(&self) -> Result<String> {
        let first = free_ports(3 + 2 * SERVER_COUNT)?;
        let address = |offset: u16| format!("127.0.0.1:{}", first + offset);
        let (tracing, of_servers, of_clients) = (address(0), address(1), address(2));
        let mut tracing_server =
            self.start(&["tracing-server", "--listen", &tracing], "tracing.txt")?;
        let count = SERVER_COUNT.to_string();
        let arguments = ["coord", "--num-servers", &count, "--tracing-server", &tracing];
        let listen = ["--listen-servers", &of_servers, "--listen-clients", &of_clients];
        let mut coordinator = self.start(&[&arguments[..], &listen].concat(), "coord.txt")?;
        let mut servers = Vec::new();
        for server in 0..SERVER_COUNT {
            let (client, peer) = (address(3 + 2 * server), address(4 + 2 * server));
            servers.push(self.server(server, &of_servers, &tracing, [&client, &peer])?);
        }
        let addresses = (0..SERVER_COUNT).map(|server| address(3 + 2 * server));
        let endpoints = addresses.collect::<Vec<_>>().join(",");
        let (port, name) = wait_for("a leader", PATIENCE, || self.leader(&endpoints))?;
        let leader = usize::from((port - first - 3) / 2);
        self.talk(&of_clients, &tracing, || {
            let killed = servers.remove(leader);
            println!("kills the leader, process {}", killed.pid());
            drop(killed);
        })?;
        // The tracing server last: it has everybody's last records then.
        for server in &mut servers {
            server.stop("INT", PATIENCE)?;
        }
        coordinator.stop("INT", PATIENCE)?;
        tracing_server.stop("INT", PATIENCE)?;
        Ok(name)
    }

    /// Starts a server that knows its coordinator, and where to listen.
    fn server(
        &self,
        server: u16,
        coordinator: &str,
        tracing: &str,
        [client, peer]: [&str; 2],
    ) -> Result<Guard> {
        let (data, traced) = (format!("data-{}", server + 1), format!("tracing-server={tracing}"));
        let arguments = ["server", "--coord", coordinator, "--set", &traced, "--data-dir", &data];
        let listen = ["--listen-client", client, "--listen-peer", peer];
        let log = format!("server-{}.txt", server + 1);
        self.start(&[&arguments[..], &listen].concat(), &log)
    }

    /// The port at which the leader serves clients, and what traces call it.
    fn leader(&self, endpoints: &str) -> Result<(u16, String)> {
        let status = output(&mut self.command(&["status", "--endpoints", endpoints]))?;
        let leads = |line: &&str| line.split(", ").nth(4) == Some("true");
        let line = status.lines().find(leads).context("nobody leads")?;
        let mut fields = line.split(", ");
        let address = fields.next().context("a line begins with an address")?;
        let (_, port) = address.rsplit_once(':').context("an address has a port")?;
        let id = fields.next().context("an id follows the address")?;
        Ok((port.parse()?, format!("server{}", u64::from_str_radix(id, 16)?)))
    }

    /// A client that waits for all servers, puts and gets; `kill` kills its leader in the middle.
    fn talk(&self, coordinator: &str, tracing: &str, kill: impl FnOnce()) -> Result<()> {
        let mut command = self.command(&["client", "--coord", coordinator, "--wait-for-all"]);
        command.args(["--tracing-server", tracing, "--ch-capacity", "1"]);
        println!("$ {}", line(&command));
        let results = File::create(self.folder.join("client.txt"))?;
        command.stdin(Stdio::piped()).stdout(results.try_clone()?).stderr(results);
        let mut client = Guard::spawn(&mut command)?;
        let mut stdin = client.child.stdin.take().context("its input is a pipe")?;
        let mut kill = Some(kill);
        for number in 0..KEY_COUNT {
            writeln!(stdin, "put k{number} val{number}\nget k{number}")?;
            if number == KILL_AT {
                let results = self.folder.join("client.txt");
                let enough = 2 * KILL_AT - 2;
                wait_for("half of the results", PATIENCE, || {
                    let count = fs::read_to_string(&results)?.lines().count();
                    ensure!(enough <= count, "{count} results");
                    Ok(())
                })?;
                if let Some(kill) = kill.take() {
                    kill();
                }
            }
        }
        drop(stdin);
        wait_for("the end of the client", PATIENCE, || {
            let status = client.child.try_wait()?.context("it still runs")?;
            ensure!(status.success(), "the client ended with {status}");
            Ok(())
        })
    }

    fn check(&self, killed: &str) -> Result<()> {
        let results = fs::read_to_string(self.folder.join("client.txt"))?;
        for number in 0..KEY_COUNT {
            let (put, get) = (2 * number + 1, 2 * number + 2);
            for line in [format!("Result: {{{put} OK}}"), format!("Result: {{{get} val{number}}}")]
            {
                ensure!(results.lines().any(|it| it == line), "{line} is missing: {results}");
            }
        }
        self.verify(killed)?;
        print!("{}", output(&mut self.command(&["trace", "check", "trace_output.log"]))?);
        let html = ["trace", "convert", "--to", "html", "trace_output.log", "-o", "run.html"];
        run(&mut self.command(&html))?;
        let text = fs::read_to_string(self.folder.join("trace_output.log"))?;
        for tag in TAGS {
            ensure!(text.contains(&format!("\"Tag\":\"{tag}\"")), "no {tag} in the trace");
        }
        Ok(())
    }

    /// Verifies the clocks. The server that was killed may have told others of records that it had
    /// not handed over yet: they are lost with it, and nothing else may be missing.
    fn verify(&self, killed: &str) -> Result<()> {
        let done = self.command(&["trace", "verify", "--all", "trace_output.log"]).output()?;
        let said = String::from_utf8_lossy(&done.stdout);
        let problems: Vec<_> = said.lines().filter(|line| line.starts_with(' ')).collect();
        let is_lost = |line: &&str| lost_end(line) == Some(killed);
        let is_explained = !problems.is_empty() && problems.iter().all(is_lost);
        ensure!(done.status.success() || is_explained, "clocks are wrong: {said}");
        println!("{}", said.lines().last().unwrap_or_default());
        if !problems.is_empty() {
            println!("the last records of {killed} were lost when it was killed");
        }
        Ok(())
    }

    fn tell(&self) -> Result<()> {
        println!("\nleft in {}:", self.folder.display());
        for (file, what) in [
            ("trace_output.log", "the trace, as JSON lines"),
            ("shiviz_output.log", "the same for ShiViz"),
            ("run.html", "the same as a page, to be opened from disk"),
            ("client.txt", "what the client was told"),
            ("coord.txt", "what the coordinator said"),
            ("server-1.txt", "what a server said"),
        ] {
            let size = fs::metadata(self.folder.join(file))?.len();
            println!("  {file:<18} {what} ({size} bytes)");
        }
        Ok(())
    }
}

/// Of `line 7: client1 knows record 9 of server2, whose last one is 8`: `server2`.
fn lost_end(line: &str) -> Option<&str> {
    let (_, end) = line.split_once(" knows record ")?;
    let (_, whose) = end.split_once(" of ")?;
    whose.split_once(", whose last one is ").map(|(server, _)| server)
}

#[cfg(test)]
mod tests {
    use super::lost_end;

    #[test]
    fn only_records_lost_at_the_end_are_granted() {
        let lost = "  line 601: client1 knows record 277 of server2, whose last one is 275";
        assert_eq!(lost_end(lost), Some("server2"));
        assert_eq!(lost_end("  line 7: hole: server1 counts 4 where 3 comes next"), None);
    }
}
