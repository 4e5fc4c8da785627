//! Three real servers that trace, a tracing server, and a client that traces: what is recorded
//! keeps every rule, also when servers restart in the middle.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    collections::BTreeSet,
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use kvraft_base::MemberId;
use kvraft_proto::{
    METADATA_ACKED, METADATA_CLIENT, METADATA_OP, METADATA_TRACE,
    etcdserverpb::{PutRequest, RangeRequest, kv_client::KvClient},
    kvraft::v1::{OpenRequest, session_client::SessionClient},
};
use kvraft_server::{Collector, CollectorConfig, MemberConfig, Server, ServerConfig};
use kvraft_trace::{
    action::Action,
    record::Log,
    rules::{self, Verdict},
    shiviz,
    token::Token,
    tracer::Tracer,
    verify::verify,
};
use tempfile::TempDir;

/// Longer than anything here takes on a busy machine.
const TEST_TIME_MAX: Duration = Duration::from_secs(60);

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_ports(1).unwrap()))
}

struct Cluster {
    configs: Vec<ServerConfig>,
    servers: Vec<Server>,
    _directory: TempDir,
}

async fn start(config: &ServerConfig) -> Server {
    let on_fatal = Arc::new(|fatal: &kvraft_replica::Fatal| panic!("{fatal}"));
    Server::start_with(config.clone(), on_fatal).await.unwrap()
}

impl Cluster {
    async fn start(tracing_server: SocketAddr) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let addresses: Vec<_> = (0..6).map(|_| free_address()).collect();
        let member = |id: u64, at: usize| MemberConfig {
            id: MemberId(id),
            name: String::new(),
            peer: addresses[at].to_string(),
            client: String::new(),
        };
        let members: Vec<_> = (1..=3).zip(0..3).map(|(id, at)| member(id, at)).collect();
        let config = |at: usize| ServerConfig {
            member: members[at].id,
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: Duration::from_millis(500),
            members: members.clone(),
            tracing_server: Some(tracing_server.to_string()),
            ..ServerConfig::alone(
                directory.path().join(format!("server-{at}")),
                addresses[at + 3],
                addresses[at],
            )
        };
        let configs: Vec<_> = (0..3).map(config).collect();
        let mut servers = Vec::new();
        for config in &configs {
            servers.push(start(config).await);
        }
        Self { configs, servers, _directory: directory }
    }

    async fn leader(&self) -> usize {
        loop {
            if let Some(at) = self.servers.iter().position(Server::is_leader) {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn url(&self, at: usize) -> String {
        format!("http://{}", self.configs[at].listen_client)
    }

    async fn restart(&mut self, at: usize) {
        self.servers.remove(at).stop().await;
        self.servers.insert(at, start(&self.configs[at]).await);
    }
}

/// A client as the library will be: it records what it asks and hears.
struct Client {
    tracer: Tracer,
    lines: Vec<String>,
    id: u64,
    op: u64,
}

impl Client {
    fn record(&mut self, action: &Action) {
        self.lines.push(self.tracer.record(99, action).to_json());
    }

    /// Puts through one server, by its URL.
    async fn put(&mut self, url: &str, key: &str, value: &str) {
        self.op += 1;
        let (client_id, op_id) = (self.id.to_string(), self.op);
        let (key, value) = (key.to_owned(), value.to_owned());
        let action = Action::Put { client_id, op_id, key: key.clone(), value: value.clone() };
        self.record(&action);
        let (token, record) = self.tracer.generate_token(99);
        self.lines.push(record.to_json());
        let put =
            PutRequest { key: key.clone().into(), value: value.into(), ..PutRequest::default() };
        let mut request = tonic::Request::new(put);
        let metadata = request.metadata_mut();
        metadata.insert(METADATA_CLIENT, self.id.into());
        metadata.insert(METADATA_OP, self.op.into());
        metadata.insert(METADATA_ACKED, (self.op - 1).into());
        metadata.insert(METADATA_TRACE, token.to_base64().parse().unwrap());
        let mut kv = KvClient::connect(url.to_owned()).await.unwrap();
        let answer = kv.put(request).await.unwrap();
        let token = answer.metadata().get(METADATA_TRACE).unwrap().to_str().unwrap();
        let token = Token::from_base64(token).unwrap();
        self.lines.push(self.tracer.receive_token(&token).to_json());
        self.record(&Action::PutResultRecvd { op_id, key, client_id: None });
    }
}

fn read(path: &Path) -> Log {
    Log::read(&std::fs::read(path).unwrap()).unwrap()
}

/// What three servers do in any run.
const TAGS: [&str; 15] = [
    "ServerStart",
    "BecameLeader",
    "BecameFollower",
    "NoOpRequest",
    "PutRecvd",
    "PutCommitted",
    "GetRecvd",
    "GetCommitted",
    "AppendEntriesRequestSent",
    "AppendEntriesRequestRecvd",
    "AppendEntriesResponseSent",
    "AppendEntriesResponseRecvd",
    "VoteRequestSent",
    "VoteResponseRecvd",
    "ForwardSent",
];

/// Every rule that applies is kept, and those that must apply do.
fn rules_are_kept(log: &Log) {
    let judged = rules::judge(log).unwrap();
    let broken: Vec<_> =
        judged.iter().filter(|(_, verdict)| matches!(verdict, Verdict::Broken(_))).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    let held = judged.iter().filter(|(_, verdict)| *verdict == Verdict::Held);
    let held: BTreeSet<_> = held.map(|(rule, _)| rule.name).collect();
    let must = [
        "commit-needs-majority",
        "committed-once",
        "leader-completeness",
        "log-matching",
        "one-leader-per-term",
        "result-after-commit",
        "term-monotonic",
        "token-was-sent",
    ];
    assert!(must.iter().all(|rule| held.contains(rule)), "{judged:?}");
}

/// The whole way: puts through every server, a leader that stops, and the rules over all of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_servers_record_keeps_every_rule() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let config = CollectorConfig {
            listen: free_address(),
            output_file: directory.path().join("trace_output.log"),
            shiviz_output_file: directory.path().join("shiviz_output.log"),
        };
        let collector = Collector::start(config.clone()).await.unwrap();
        let mut cluster = Cluster::start(collector.local_address()).await;
        let leader = cluster.leader().await;
        let mut sessions = SessionClient::connect(cluster.url(leader)).await.unwrap();
        let id = sessions.open(OpenRequest { ttl_ms: 0 }).await.unwrap().into_inner().client_id;
        let mut client = Client { tracer: Tracer::new("client1"), lines: Vec::new(), id, op: 0 };
        for number in 0..9 {
            // Also through followers, who pass it on.
            client.put(&cluster.url(number % 3), &format!("k{number}"), "v").await;
        }
        cluster.restart(leader).await;
        cluster.leader().await;
        for number in 0..3 {
            client.put(&cluster.url(number), "again", "w").await;
        }
        let mut kv = KvClient::connect(cluster.url(0)).await.unwrap();
        kv.range(RangeRequest { key: "again".into(), ..RangeRequest::default() }).await.unwrap();
        for server in cluster.servers.drain(..) {
            server.stop().await;
        }
        let count = collector.stop().await.unwrap();

        let log = read(&config.output_file);
        assert_eq!(log.records.len() as u64, count);
        assert_eq!(log.records, read(&config.shiviz_output_file).records);
        // What the client recorded is in a file of its own.
        let text = log.to_json_lines() + &client.lines.join("\n") + "\n";
        let log = Log::read(text.as_bytes()).unwrap();
        assert_eq!(verify(&log), [], "clocks go on over the restart");
        rules_are_kept(&log);
        for tag in TAGS {
            assert!(log.records.iter().any(|record| record.tag.as_ref() == tag), "{tag}");
        }
        shiviz::windows(&log, 500).unwrap();
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.unwrap();
}

/// A tracing server that is not there, comes, goes and comes again: servers serve all the while,
/// and nothing that they recorded is missing between.
#[tokio::test(flavor = "multi_thread")]
async fn servers_never_wait_for_the_tracing_server() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let config = |name: &str, listen| CollectorConfig {
            listen,
            output_file: directory.path().join(format!("{name}.log")),
            shiviz_output_file: directory.path().join(format!("{name}-shiviz.log")),
        };
        let address = free_address();
        let cluster = Cluster::start(address).await;
        let leader = cluster.leader().await;
        let mut kv = KvClient::connect(cluster.url(leader)).await.unwrap();
        let put = |value: &str| PutRequest {
            key: "k".into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        kv.put(put("before")).await.unwrap();
        let collector = Collector::start(config("first", address)).await.unwrap();
        let wait_for = async |name: &str, value: &str| loop {
            let path = directory.path().join(format!("{name}.log"));
            let text = std::fs::read_to_string(path).unwrap();
            let committed = |line: &str| {
                line.contains("PutCommitted") && line.contains(&format!("\"Value\":\"{value}\""))
            };
            if text.lines().any(committed) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        wait_for("first", "before").await;
        collector.stop().await.unwrap();
        kv.put(put("meanwhile")).await.unwrap();
        let collector = Collector::start(config("second", address)).await.unwrap();
        kv.put(put("after")).await.unwrap();
        wait_for("second", "after").await;
        for server in cluster.servers {
            server.stop().await;
        }
        collector.stop().await.unwrap();
        let first = std::fs::read_to_string(directory.path().join("first.log")).unwrap();
        let second = std::fs::read_to_string(directory.path().join("second.log")).unwrap();
        // What was under way when the first stopped may have come to both.
        let mut lines: Vec<&str> = first.lines().chain(second.lines()).collect();
        let mut seen = BTreeSet::new();
        lines.retain(|line| seen.insert(*line));
        let text = lines.join("\n") + "\n";
        assert_eq!(verify(&Log::read(text.as_bytes()).unwrap()), []);
        assert!(second.contains("meanwhile"));
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.unwrap();
}
