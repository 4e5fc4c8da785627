//! Server processes on this machine: who listens where, what a process has used, starting again.
//!
//! Why: conformance kills servers and the benchmark weighs them. Both learn what they need from
//! `/proc`, so that neither depends on what a server prints.
//!
//! What it deliberately lacks: any system but Linux.

use std::fs;
use std::io::Read as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

/// Clock ticks per second in `/proc/PID/stat`: fixed at 100 for user space on Linux.
const TICKS_PER_SECOND: u64 = 100;

/// What `kvraft cluster` tells its servers and nobody else: to end with it.
const LAUNCHED: &str = "--stop-on-stdin-close";

/// What a process has used so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Usage {
    /// Processor time in user and kernel mode, in microseconds.
    pub(crate) cpu_us: u64,
    /// Memory resident now, in KiB.
    pub(crate) resident_kib: u64,
}

/// The process that listens on a TCP port of this machine.
pub(crate) fn listener(port: u16) -> Result<u32> {
    let mut inodes = Vec::new();
    for table in ["/proc/net/tcp", "/proc/net/tcp6"] {
        let text = fs::read_to_string(table).unwrap_or_default();
        inodes.extend(text.lines().filter_map(|line| listening_inode(line, port)));
    }
    ensure!(!inodes.is_empty(), "nothing listens on port {port}");
    for pid in pids()? {
        let Ok(files) = fs::read_dir(format!("/proc/{pid}/fd")) else { continue };
        for file in files.flatten() {
            let target = fs::read_link(file.path()).unwrap_or_default();
            if inodes.iter().any(|inode| target.as_os_str() == inode.as_str()) {
                return Ok(pid);
            }
        }
    }
    bail!("no process of ours listens on port {port}")
}

/// `socket:[inode]` when the line of `/proc/net/tcp` is a listener on `port`.
fn listening_inode(line: &str, port: u16) -> Option<String> {
    let fields: Vec<&str> = line.split_whitespace().collect();
    let (_, local_port) = fields.get(1)?.rsplit_once(':')?;
    let listens = *fields.get(3)? == "0A";
    let same = u16::from_str_radix(local_port, 16).ok()? == port;
    (listens && same).then(|| fields.get(9).map(|inode| format!("socket:[{inode}]"))).flatten()
}

fn pids() -> Result<Vec<u32>> {
    let entries = fs::read_dir("/proc").context("reading /proc")?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect())
}

/// Whether the process `pid` still runs; one that waits for its parent only does not.
pub(crate) fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// What the process `pid` has used so far.
pub(crate) fn usage(pid: u32) -> Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .with_context(|| format!("process {pid} is gone"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    parse_usage(&stat, &status).with_context(|| format!("reading /proc/{pid}"))
}

fn parse_usage(stat: &str, status: &str) -> Option<Usage> {
    // The second field, the name, may hold blanks and brackets: count from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let resident_kib = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage { cpu_us: ticks * 1_000_000 / TICKS_PER_SECOND, resident_kib })
}

/// How a process was started, so that it can be started again.
#[derive(Debug)]
pub(crate) struct Recipe {
    arguments: Vec<String>,
    folder: PathBuf,
}

/// Reads how `pid` was started.
pub(crate) fn recipe(pid: u32) -> Result<Recipe> {
    let line = fs::read_to_string(format!("/proc/{pid}/cmdline"))?;
    let mut arguments: Vec<String> =
        line.trim_end_matches('\0').split('\0').map(Into::into).collect();
    arguments.retain(|argument| argument != LAUNCHED);
    let folder = fs::read_link(format!("/proc/{pid}/cwd"))?;
    ensure!(!arguments[0].is_empty(), "process {pid} has no command line");
    Ok(Recipe { arguments, folder })
}

impl Recipe {
    /// Starts the same program with the same arguments, quietly.
    pub(crate) fn start(&self) -> Result<Guard> {
        let mut command = Command::new(&self.arguments[0]);
        command.args(&self.arguments[1..]).current_dir(&self.folder);
        Guard::start(&mut command)
    }
}

/// A process that does not outlive its owner.
#[derive(Debug)]
pub(crate) struct Guard {
    pub(crate) child: Child,
}

impl Guard {
    /// Starts `command` with its output thrown away.
    pub(crate) fn start(command: &mut Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self::spawn(command)
    }

    /// Starts `command` with whatever output it was given.
    pub(crate) fn spawn(command: &mut Command) -> Result<Self> {
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().to_string_lossy()))?;
        Ok(Self { child })
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process has ended, if it has.
    pub(crate) fn ended(&mut self) -> Result<Option<ExitStatus>> {
        self.child.try_wait().context("asking for the end of a process")
    }

    /// Sends `signal` and waits for a clean end.
    pub(crate) fn stop(&mut self, signal: &str, patience: Duration) -> Result<()> {
        crate::run::signal(self.pid(), signal)?;
        let status = crate::run::wait_for("a clean end", patience, || {
            self.ended()?.context("the process still runs")
        })?;
        ensure!(status.success(), "after SIG{signal} the process ended with {status}");
        Ok(())
    }

    /// Interrupts the process, and gives what it has printed when it has ended. Its output is a
    /// pipe.
    pub(crate) fn interrupt(mut self) -> Result<String> {
        crate::run::signal(self.pid(), "INT")?;
        let mut text = String::new();
        let mut stdout = self.child.stdout.take().context("its output is a pipe")?;
        stdout.read_to_string(&mut text).context("reading the output of a process")?;
        Ok(text)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        // Already ended is as good as ended now: the outcome makes no difference.
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[cfg(test)]
mod tests {
    use super::{is_running, listener, listening_inode, parse_usage, usage};

    #[test]
    fn usage_is_read_behind_the_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 0 0 0 0 0 150 50 0 0 20 0 1 0 9 0 0";
        let used = parse_usage(stat, "Name:\ta\nVmRSS:\t  2048 kB\n").unwrap();
        assert_eq!((used.cpu_us, used.resident_kib), (2_000_000, 2048));
        assert!(parse_usage("7 (a", "").is_none());
    }

    #[test]
    fn listener_is_told_from_a_connection() {
        let line = |state| format!("0: 0100007F:094B 00000000:0000 {state} 0:0 0:0 0 0 0 4711 1");
        assert_eq!(listening_inode(&line("0A"), 2379).unwrap(), "socket:[4711]");
        assert_eq!(listening_inode(&line("01"), 2379), None);
        assert_eq!(listening_inode(&line("0A"), 2380), None);
    }

    #[test]
    fn this_process_is_found_by_its_port() {
        let port = crate::ports::free_ports(1).unwrap();
        let _listener = std::net::TcpListener::bind(("127.0.0.1", port)).unwrap();
        assert_eq!(listener(port).unwrap(), std::process::id());
        assert!(0 < usage(std::process::id()).unwrap().resident_kib);
    }

    /// A killed process that nobody has waited for is still in `/proc`.
    #[test]
    fn a_killed_process_does_not_run() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        assert!(is_running(child.id()));
        child.kill().unwrap();
        let patience = std::time::Duration::from_secs(5);
        let ended = || anyhow::Context::context((!is_running(child.id())).then_some(()), "runs");
        crate::run::wait_for("its end", patience, ended).unwrap();
        child.wait().unwrap();
        assert!(!is_running(child.id()));
    }
}
