//! Real servers of one cluster, which do not outlive their test.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, Instant},
};

#[path = "../../../../xtask/src/ports.rs"]
mod ports;

pub(crate) const KVRAFT: &str = env!("CARGO_BIN_EXE_kvraft");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// A server's place, and its process while it runs.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) data: PathBuf,
    pub(crate) client: String,
    pub(crate) peer: String,
    running: Option<Child>,
}

impl Node {
    pub(crate) fn start(&mut self, more: &[&str]) {
        let log = fs::File::create(self.data.with_extension("log")).unwrap();
        let mut command = Command::new(KVRAFT);
        command.args(["server", "--name", &self.name, "--data-dir", text(&self.data)]);
        command.args(["--listen-client", &self.client, "--listen-peer", &self.peer]).args(more);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        self.running = Some(command.spawn().unwrap());
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.kill().unwrap();
            running.wait().unwrap();
        }
    }

    /// What `kvraft` says at this server.
    pub(crate) fn ask(&self, arguments: &[&str]) -> Output {
        run(&[arguments, &["--endpoints", &self.client]].concat())
    }

    /// Asks until it works.
    pub(crate) fn wait(&self, arguments: &[&str], until: impl Fn(&str) -> bool) -> String {
        self.wait_for(|| {
            let output = self.ask(arguments);
            let said = String::from_utf8(output.stdout).unwrap();
            if output.status.success() && until(&said) {
                return Ok(said);
            }
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("{arguments:?}: {said} {errors}"))
        })
    }

    /// Tries until there is a result.
    pub(crate) fn wait_for<T>(&self, mut attempt: impl FnMut() -> Result<T, String>) -> T {
        let start = Instant::now();
        loop {
            match attempt() {
                Ok(found) => return found,
                Err(error) => {
                    let log = || fs::read_to_string(self.data.with_extension("log")).unwrap();
                    assert!(start.elapsed() < PATIENCE, "{error}\nits log:\n{}", log());
                }
            }
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.kill();
    }
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

pub(crate) fn run(arguments: &[&str]) -> Output {
    Command::new(KVRAFT).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// `count` places in an empty folder; no port is given twice.
pub(crate) fn nodes(folder: &str, count: usize) -> Vec<Node> {
    let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder);
    drop(fs::remove_dir_all(&root));
    fs::create_dir_all(&root).unwrap();
    let first = usize::from(ports::free_ports(u16::try_from(2 * count).unwrap()).unwrap());
    let address = |at: usize| format!("127.0.0.1:{}", first + at);
    let node = |at: usize| {
        let name = format!("s{at}");
        let data = root.join(&name);
        Node { name, data, client: address(2 * at), peer: address(2 * at + 1), running: None }
    };
    (0..count).map(node).collect()
}

/// Starts all of them as one new cluster.
pub(crate) fn found(nodes: &mut [Node], more: &[&str]) {
    let member = |node: &Node| format!("{}={}", node.name, node.peer);
    let members: Vec<String> = nodes.iter().map(member).collect();
    let members = members.join(",");
    let first = ["--initial-cluster-token", "t", "--initial-cluster", &members];
    for node in nodes {
        node.start(&[&first, more].concat());
    }
}
