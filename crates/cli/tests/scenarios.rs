//! The scenarios of KVRaft (Go), with real processes: servers, a tracing server, clients.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    fs,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kvraft_client::{Builder, Client, EndpointId, Outcome, RetryPolicy};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::{sleep, timeout},
};

const KVRAFT: &str = env!("CARGO_BIN_EXE_kvraft");

/// Longer than anything here takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// How long nothing is looked at when nothing must happen.
const LULL: Duration = Duration::from_millis(1500);

/// A process that does not outlive its test.
struct Running(Child);

impl Running {
    fn start(command: &mut Command, log: &Path) -> Self {
        let log = fs::File::create(log).unwrap();
        let command = command.stdin(Stdio::null()).stdout(log.try_clone().unwrap()).stderr(log);
        Self(command.spawn().unwrap())
    }

    fn signal(&self, name: &str) {
        let pid = self.0.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    /// Cleanly.
    fn stop(mut self) {
        self.signal("TERM");
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Servers of one cluster, by their place in the list; server 1 is at 0.
struct Cluster {
    root: PathBuf,
    first_port: u16,
    servers: Vec<Option<Running>>,
    tracing: Option<String>,
}

impl Cluster {
    fn new(folder: &str, count: usize, tracing: Option<String>) -> Self {
        let root = Path::new(env!("CARGO_TARGET_TMPDIR")).join("scenarios").join(folder);
        drop(fs::remove_dir_all(&root));
        fs::create_dir_all(&root).unwrap();
        let first_port = ports::free_ports(u16::try_from(2 * count).unwrap()).unwrap();
        Self { root, first_port, servers: (0..count).map(|_| None).collect(), tracing }
    }

    fn all(folder: &str, count: usize, tracing: Option<String>) -> Self {
        let mut cluster = Self::new(folder, count, tracing);
        (0..count).for_each(|at| cluster.start(at));
        cluster
    }

    fn client_address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", usize::from(self.first_port) + 2 * at)
    }

    fn peer_address(&self, at: usize) -> String {
        format!("127.0.0.1:{}", usize::from(self.first_port) + 2 * at + 1)
    }

    fn endpoints(&self) -> Vec<String> {
        (0..self.servers.len()).map(|at| self.client_address(at)).collect()
    }

    fn data(&self, at: usize) -> PathBuf {
        self.root.join(format!("s{}", at + 1))
    }

    fn start(&mut self, at: usize) {
        let member = |at: usize| format!("{}={}", at + 1, self.peer_address(at));
        let members: Vec<String> = (0..self.servers.len()).map(member).collect();
        let mut command = Command::new(KVRAFT);
        command.args(["server", "--member", &(at + 1).to_string()]);
        command
            .args(["--initial-cluster", &members.join(",")])
            .arg("--data-dir")
            .arg(self.data(at));
        command.args(["--listen-client", &self.client_address(at)]);
        command.args(["--listen-peer", &self.peer_address(at)]);
        if let Some(tracing) = &self.tracing {
            command.args(["--set", &format!("tracing-server={tracing}")]);
        }
        let log = self.root.join(format!("s{}.log", at + 1));
        self.servers[at] = Some(Running::start(&mut command, &log));
    }

    fn kill(&mut self, at: usize) {
        self.servers[at] = None;
    }

    fn signal(&self, at: usize, name: &str) {
        self.servers[at].as_ref().unwrap().signal(name);
    }

    fn builder(&self) -> Builder {
        let retry =
            RetryPolicy { attempt_timeout: Duration::from_secs(1), ..RetryPolicy::default() };
        let builder = Client::builder().endpoints(self.endpoints()).exactly_once();
        builder.retry(retry).request_timeout(PATIENCE)
    }

    async fn client(&self) -> Client {
        self.builder().wait_for_all().connect().await.unwrap()
    }

    /// Who leads, by place.
    async fn leader(&self, client: &Client) -> usize {
        loop {
            if let Some(endpoint) = client.find_leader().await {
                return endpoint.0;
            }
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// Stops all that run, and prints the log of one: `INDEX. Term=…, Index=…, Entry=…`.
    fn log_of(&mut self, at: usize) -> Vec<String> {
        self.servers.iter_mut().filter_map(Option::take).for_each(Running::stop);
        let output = run(&["log", self.data(at).to_str().unwrap()]);
        output.lines().map(str::to_owned).collect()
    }
}

/// The clocks of a trace fit. Who was killed may have given others its word on records that it had
/// not sent yet, and that have gone with it: nothing else is granted.
fn assert_clocks(trace: &str, killed: &str) {
    let said = String::from_utf8(try_run(&["trace", "verify", trace]).stdout).unwrap();
    let is_granted = |line: &&str| line.contains(&format!(" of {killed}, whose last one is "));
    let problems = said.lines().filter(|line| line.trim_start().starts_with("line "));
    let wrong: Vec<&str> = problems.filter(|line| !is_granted(line)).collect();
    assert!(wrong.is_empty() && said.contains(" records, "), "{said}");
}

/// No rule is broken, and those of clients are kept, or left open for what the killed server took
/// along: nobody else's records are missing.
fn assert_rules(trace: &str, killed: &str) {
    let checked = run(&["trace", "check", trace]);
    for rule in ["result-after-commit", "committed-once", "read-of-a-put"] {
        let is_judged = ["kept", "unknown"].map(|how| format!("{how:<16}{rule}: "));
        assert!(is_judged.iter().any(|line| checked.contains(line)), "{rule} in {checked}");
    }
    let open = checked.lines().filter(|line| line.starts_with("  "));
    let mut missing = open.flat_map(|line| line.split("; ").skip(1));
    assert!(missing.all(|who| who.ends_with(&format!(" missing of {killed}"))), "{checked}");
    assert!(!checked.contains("… and"), "too much is left open to be looked at: {checked}");
}

fn run(arguments: &[&str]) -> String {
    let output = try_run(arguments);
    let errors = String::from_utf8_lossy(&output.stderr);
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{arguments:?}: {said} {errors}");
    said
}

fn try_run(arguments: &[&str]) -> Output {
    Command::new(KVRAFT).args(arguments).stdin(Stdio::null()).output().unwrap()
}

fn key(number: usize) -> String {
    format!("k{number}")
}

fn value(number: usize) -> String {
    format!("val{number}")
}

async fn put_and_get(client: &Client, number: usize) {
    client.put(key(number), value(number)).await.unwrap();
    let found = client.get(key(number)).await.unwrap().unwrap();
    assert_eq!((&found.value[..], found.version), (value(number).as_bytes(), 1));
}

async fn bounded(test: impl Future<Output = ()>) {
    timeout(PATIENCE, test).await.unwrap();
}

/// A client that asks for it waits until the last of three servers has joined.
#[tokio::test(flavor = "multi_thread")]
async fn a_client_waits_until_all_have_joined() {
    bounded(async {
        let mut cluster = Cluster::new("join", 3, None);
        cluster.start(0);
        cluster.start(1);
        let mut waiting = Box::pin(cluster.builder().wait_for_all().connect());
        assert!(timeout(LULL, &mut waiting).await.is_err(), "server 3 is not there");
        cluster.start(2);
        let client = waiting.await.unwrap();
        put_and_get(&client, 0).await;
    })
    .await;
}

/// 20 puts and gets, and the leader is killed in the middle: a survivor leads in a later term with
/// a no-op of its own, logs agree, every put is in them in order, and the trace breaks no rule.
#[tokio::test(flavor = "multi_thread")]
async fn the_leader_dies_in_the_middle() {
    bounded(async {
        let tracing = format!("127.0.0.1:{}", ports::free_ports(1).unwrap());
        let mut cluster = Cluster::new("leader", 3, Some(tracing.clone()));
        let trace = cluster.root.join("trace_output.log");
        let mut command = Command::new(KVRAFT);
        command.args(["tracing-server", "--listen", &tracing, "--output-file"]).arg(&trace);
        command.arg("--shiviz-output-file").arg(cluster.root.join("shiviz_output.log"));
        let tracing_server = Running::start(&mut command, &cluster.root.join("tracing.log"));
        (0..3).for_each(|at| cluster.start(at));
        let builder = cluster.builder().trace_to(tracing, "client1").wait_for_all();
        let client = builder.connect().await.unwrap();
        let leader = cluster.leader(&client).await;
        for number in 0..13 {
            put_and_get(&client, number).await;
        }
        let late = client.clone();
        let put = tokio::spawn(async move { put_and_get(&late, 13).await });
        cluster.kill(leader);
        put.await.unwrap();
        for number in 14..20 {
            put_and_get(&client, number).await;
        }
        let next = cluster.leader(&client).await;
        assert_ne!(next, leader);
        client.close().await.unwrap();
        let survivors: Vec<usize> = (0..3).filter(|at| *at != leader).collect();
        let logs: Vec<_> = survivors.iter().map(|at| cluster.log_of(*at)).collect();
        let common = logs[0].len().min(logs[1].len());
        assert_eq!(logs[0][..common - 1], logs[1][..common - 1], "logs agree");
        let puts: Vec<&String> =
            logs[0].iter().filter(|line| line.contains("Entry=Put(")).collect();
        for number in 0..20 {
            let name = format!("Entry=Put({},{})", key(number), value(number));
            assert!(puts.iter().any(|line| line.contains(&name)), "{name} in {puts:#?}");
        }
        let noops = logs[0].iter().filter(|line| line.contains("Entry=No-Op")).count();
        assert!(2 <= noops, "{:#?}", logs[0]);
        tracing_server.stop();
        let trace = trace.to_str().unwrap();
        assert_clocks(trace, &format!("server{}", leader + 1));
        assert_rules(trace, &format!("server{}", leader + 1));
        let text = fs::read_to_string(trace).unwrap();
        let of_client = |tag: &str| {
            let tag = format!("\"Tag\":\"{tag}\"");
            text.lines().filter(|it| it.contains("\"client1\",") && it.contains(&tag)).count()
        };
        for (tag, count) in [("KvslibStart", 1), ("KvslibStop", 1), ("LeaderReq", 2)] {
            assert!(count <= of_client(tag), "{tag}");
        }
        for tag in ["Put", "PutResultRecvd", "Get", "GetResultRecvd"] {
            assert_eq!(of_client(tag), 20, "{tag}: a retry is not recorded again");
        }
        assert!(1 <= of_client("LeaderResRecvd") && 1 <= of_client("ReceiveTokenTrace"));
    })
    .await;
}

/// A follower dies: nobody notices, the leader goes on leading.
#[tokio::test(flavor = "multi_thread")]
async fn a_follower_dies() {
    bounded(async {
        let mut cluster = Cluster::all("follower", 3, None);
        let client = cluster.client().await;
        let leader = cluster.leader(&client).await;
        put_and_get(&client, 0).await;
        let follower = (leader + 1) % 3;
        cluster.kill(follower);
        for number in 1..10 {
            put_and_get(&client, number).await;
        }
        assert_eq!(cluster.leader(&client).await, leader);
        cluster.start(follower);
        client.wait_for_all().await.unwrap();
    })
    .await;
}

/// Two of three are down: operations stay open, and complete when one is back.
#[tokio::test(flavor = "multi_thread")]
async fn without_a_quorum_operations_stay_open() {
    bounded(async {
        let mut cluster = Cluster::all("quorum", 3, None);
        let client = cluster.client().await;
        put_and_get(&client, 0).await;
        let leader = cluster.leader(&client).await;
        let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);
        cluster.kill(one);
        cluster.kill(other);
        let capacity = NonZeroUsize::new(4).unwrap();
        let (pipeline, mut results) = client.pipeline(capacity).await.unwrap();
        let put = pipeline.put(key(1), value(1)).await.unwrap();
        let get = pipeline.get(key(0)).await.unwrap();
        assert!(timeout(LULL, results.recv()).await.is_err(), "nobody can know");
        cluster.start(one);
        for _ in [put, get] {
            let completed = results.recv().await.unwrap();
            match completed.result.unwrap() {
                Outcome::Put(_) => assert_eq!(completed.op, put),
                Outcome::Get(found) => {
                    assert_eq!((completed.op, &found.unwrap().value[..]), (get, &b"val0"[..]));
                }
                other => panic!("{other:?}"),
            }
        }
        let found = client.get(key(1)).await.unwrap().unwrap();
        assert_eq!(found.version, 1, "done once");
    })
    .await;
}

/// The leader and a follower of five fall silent: one of the other three leads, and knows all that
/// was acknowledged; when the two come back they follow, and have all of it.
#[tokio::test(flavor = "multi_thread")]
async fn two_of_five_fall_silent() {
    bounded(async {
        let cluster = Cluster::all("partition", 5, None);
        let client = cluster.client().await;
        for number in 0..10 {
            put_and_get(&client, number).await;
        }
        let leader = cluster.leader(&client).await;
        let silent = [leader, (leader + 1) % 5];
        silent.iter().for_each(|at| cluster.signal(*at, "STOP"));
        let others: Vec<_> =
            (0..5).filter(|at| !silent.contains(at)).map(|at| cluster.client_address(at)).collect();
        let beside = cluster.builder().endpoints(others.clone()).connect().await.unwrap();
        for number in 10..20 {
            put_and_get(&beside, number).await;
        }
        let next = beside.find_leader().await.unwrap();
        assert_ne!(others[next.0], cluster.client_address(leader));
        silent.iter().for_each(|at| cluster.signal(*at, "CONT"));
        let old = cluster.builder().endpoints([cluster.client_address(leader)]);
        let old = old.connect().await.unwrap();
        for number in 0..20 {
            let found = old.get(key(number)).await.unwrap().unwrap();
            assert_eq!(&found.value[..], value(number).as_bytes());
        }
    })
    .await;
}

/// The coordinator cannot hear the leader any more, and takes it for dead; everybody else can: it
/// keeps its quorum and goes on leading.
#[tokio::test(flavor = "multi_thread")]
async fn a_leader_cut_off_from_its_coordinator_goes_on() {
    bounded(async {
        let first = ports::free_ports(5).unwrap();
        let address = |offset: u16| format!("127.0.0.1:{}", first + offset);
        let mut cluster = Cluster::new("coordinator", 3, None);
        let mut command = Command::new(KVRAFT);
        command.args(["coord", "--num-servers", "3", "--listen-servers", &address(0)]);
        command.args(["--listen-clients", &address(1)]);
        let said = cluster.root.join("coord.log");
        let _coordinator = Running::start(&mut command, &said);
        let cuts: Vec<Arc<AtomicBool>> = (0..3).map(|_| Arc::default()).collect();
        for (at, cut) in (2..).zip(&cuts) {
            let listener = TcpListener::bind(address(at)).await.unwrap();
            tokio::spawn(relay(listener, address(0), Arc::clone(cut), Arc::clone(cut)));
        }
        for at in 0..3_u16 {
            let mut command = Command::new(KVRAFT);
            let own = usize::from(at);
            command.args(["server", "--coord", &address(2 + at)]).arg("--data-dir");
            command.arg(cluster.data(own)).args(["--listen-client", &cluster.client_address(own)]);
            command.args(["--listen-peer", &cluster.peer_address(own)]);
            let log = cluster.root.join(format!("s{}.log", at + 1));
            cluster.servers[own] = Some(Running::start(&mut command, &log));
        }
        let client = cluster.client().await;
        put_and_get(&client, 0).await;
        let leader = cluster.leader(&client).await;
        let term = client.status(EndpointId(leader)).await.unwrap().raft_term;
        cuts[leader].store(true, Ordering::SeqCst);
        while !fs::read_to_string(&said).unwrap().contains("server failure detected") {
            sleep(Duration::from_millis(50)).await;
        }
        for number in 1..20 {
            put_and_get(&client, number).await;
        }
        assert_eq!(cluster.leader(&client).await, leader);
        let now = client.status(EndpointId(leader)).await.unwrap().raft_term;
        assert_eq!(now, term, "nobody was elected meanwhile");
    })
    .await;
}

/// Carries bytes to a server as long as it is not deaf, and back as long as it is not mute.
async fn relay(
    listener: TcpListener,
    to: String,
    is_deaf: Arc<AtomicBool>,
    is_mute: Arc<AtomicBool>,
) {
    while let Ok((client, _)) = listener.accept().await {
        let Ok(server) = TcpStream::connect(&to).await else { continue };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::spawn(carry(from_server, to_client, Arc::clone(&is_mute)));
        tokio::spawn(carry(from_client, to_server, Arc::clone(&is_deaf)));
    }
}

/// Carries bytes one way; what comes while it must not is lost.
async fn carry(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, is_cut: Arc<AtomicBool>) {
    let mut bytes = vec![0; 1 << 16];
    while let Ok(count) = from.read(&mut bytes).await {
        let is_lost = is_cut.load(Ordering::SeqCst);
        if count == 0 || !is_lost && to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// The leader commits a put and dies before its answer arrives: the put is asked for again, has the
/// same answer, and took effect once.
#[tokio::test(flavor = "multi_thread")]
async fn the_same_put_twice() {
    bounded(async {
        let mut cluster = Cluster::all("duplicate", 3, None);
        let outside = cluster.client().await;
        let leader = cluster.leader(&outside).await;
        let is_mute = Arc::new(AtomicBool::new(false));
        let port = ports::free_ports(1).unwrap();
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let is_deaf = Arc::default();
        let to = cluster.client_address(leader);
        tokio::spawn(relay(listener, to, is_deaf, Arc::clone(&is_mute)));
        let mut endpoints = cluster.endpoints();
        endpoints[leader] = format!("127.0.0.1:{port}");
        endpoints.rotate_left(leader);
        let client = cluster.builder().endpoints(endpoints).connect().await.unwrap();
        client.put("other", "x").await.unwrap();
        is_mute.store(true, Ordering::SeqCst);
        let asked = client.clone();
        let put = tokio::spawn(async move { asked.put("k", "v").await });
        let committed = loop {
            if let Some(record) = outside.get("k").await.unwrap() {
                break record.mod_revision;
            }
            sleep(Duration::from_millis(10)).await;
        };
        cluster.kill(leader);
        let answer = put.await.unwrap().unwrap();
        assert_eq!(answer.header.unwrap().revision, committed, "the same answer");
        let found = client.get("k").await.unwrap().unwrap();
        assert_eq!((found.version, found.mod_revision), (1, committed));
    })
    .await;
}

/// The command prints what the test there printed.
#[tokio::test(flavor = "multi_thread")]
async fn logs_are_replicated() {
    bounded(async {
        let cluster = Cluster::all("replication", 3, None);
        let endpoints = cluster.endpoints().join(",");
        // Twice: what the first left behind is no obstacle.
        for _ in 0..2 {
            let said = run(&["replication-test", "--endpoints", &endpoints]);
            let lines: Vec<&str> = said.lines().collect();
            assert_eq!(lines.len(), 23, "{said}");
            assert_eq!(lines[0], "Test 1 Put Passed with key=1, val=10 ");
            assert_eq!(lines[10], "Test 1 Get Passed: expected value: 10, got 10 ");
            assert_eq!(lines[20], "Test 1 Get Passed: expected value: , got  ");
            assert_eq!(lines[22], "Test 1 Get Passed: expected value: 10000, got 10000 ");
        }
    })
    .await;
}
