//! Real servers that are told nothing but their coordinator's address: they join, elect, follow its
//! hints as far as their own ears agree, and work without it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use kvraft_client::{Client, ask_leader};
use kvraft_proto::etcdserverpb::{PutRequest, kv_client::KvClient};
use kvraft_server::{
    Collector, CollectorConfig, CoordConfig, CoordServer, Server, ServerConfig, join_coordinator,
    read_identity,
};
use kvraft_trace::{record::Log, verify::verify};

/// Longer than anything here takes on a busy machine.
const TEST_TIME_MAX: Duration = Duration::from_secs(60);

static TOLD: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_ports(1).unwrap()))
}

fn coord_config(lie_interval_ms: Option<u64>) -> CoordConfig {
    CoordConfig {
        num_servers: 3,
        listen_servers: free_address(),
        listen_clients: free_address(),
        lie_interval_ms,
        ..CoordConfig::default()
    }
}

/// As `kvraft server --coord` does.
async fn start(directory: &Path, coord: SocketAddr, addresses: [SocketAddr; 2]) -> Server {
    start_tracing(directory, coord, addresses, None).await
}

async fn start_tracing(
    directory: &Path,
    coord: SocketAddr,
    addresses: [SocketAddr; 2],
    tracing_server: Option<SocketAddr>,
) -> Server {
    let [client, peer] = addresses;
    let mut config = ServerConfig::alone(directory.to_owned(), client, peer);
    config.tracing_server = tracing_server.map(|address| address.to_string());
    config.coord = Some(coord.to_string());
    config.heartbeat_interval = Duration::from_millis(100);
    config.election_timeout = Duration::from_secs(1);
    match read_identity(directory).unwrap() {
        Some(identity) => {
            (config.member, config.cluster) = (identity.member, identity.cluster);
            config.members.clear();
        }
        None => {
            let (peer, client) = (peer.to_string(), client.to_string());
            let joined = join_coordinator(&coord.to_string(), "", &peer, &client).await.unwrap();
            (config.member, config.cluster) = (joined.member, joined.cluster);
            config.members = joined.members;
        }
    }
    let on_fatal = Arc::new(|fatal: &kvraft_replica::Fatal| panic!("{fatal}"));
    Server::start_with(config, on_fatal).await.unwrap()
}

async fn leader_of(servers: &[Server]) -> usize {
    loop {
        if let Some(at) = servers.iter().position(Server::is_leader) {
            return at;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn put(server: &Server, key: &str) {
    let url = format!("http://{}", server.local_addr());
    let mut kv = KvClient::connect(url).await.unwrap();
    let put = PutRequest { key: key.to_owned().into(), ..PutRequest::default() };
    kv.put(put).await.unwrap();
}

/// Three servers join by one address, a fourth is refused; the coordinator says who leads; without
/// it everything goes on; a new one knows them by their data.
#[tokio::test(flavor = "multi_thread")]
async fn servers_join_and_go_on_without_their_coordinator() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let config = coord_config(None);
        let tell = |line: &str| TOLD.lock().unwrap().push(line.to_owned());
        let coordinator = CoordServer::start(config.clone(), "t".into(), tell).await.unwrap();
        let coord = config.listen_servers;
        let folder = |number: u64| directory.path().join(number.to_string());
        let addresses: Vec<_> = (0..3).map(|_| [free_address(), free_address()]).collect();
        let (one, two, three) = (folder(0), folder(1), folder(2));
        let (a, b, c) = tokio::join!(
            start(&one, coord, addresses[0]),
            start(&two, coord, addresses[1]),
            start(&three, coord, addresses[2]),
        );
        let servers = vec![a, b, c];
        let leader = leader_of(&servers).await;
        put(&servers[leader], "with").await;
        let asked = ask_leader(&config.listen_clients.to_string(), "client1").await.unwrap();
        assert_eq!(asked.client, servers[leader].local_addr().to_string());
        assert_eq!(asked.endpoints.len(), 3);
        let refused = join_coordinator(&coord.to_string(), "", "127.0.0.1:1", "127.0.0.1:2").await;
        assert!(refused.unwrap_err().to_string().contains("all 3 servers have joined"));

        coordinator.stop().await;
        put(&servers[leader], "without").await;
        let mut again = config.clone();
        again.listen_clients = free_address();
        let coordinator = CoordServer::start(again.clone(), "u".into(), tell).await.unwrap();
        let asked = ask_leader(&again.listen_clients.to_string(), "client1").await.unwrap();
        assert_eq!(asked.client, servers[leader].local_addr().to_string());
        for server in servers {
            server.stop().await;
        }
        coordinator.stop().await;
        let told = TOLD.lock().unwrap();
        let said = |text: &str| told.iter().any(|line| line == text);
        assert!(said("Join process completed"), "{told:?}");
        assert!(said("ServerClusterView: 1, 2, 3,"), "{told:?}");
        assert!(told.iter().any(|line| line.starts_with("New leader: ")), "{told:?}");
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.unwrap();
}

/// A coordinator that says all the time that the leader is dead moves nobody who hears it.
#[tokio::test(flavor = "multi_thread")]
async fn lies_depose_no_healthy_leader() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let config = coord_config(Some(5));
        let coordinator = CoordServer::start(config.clone(), "t".into(), |_| {}).await.unwrap();
        let folder = |number: u64| directory.path().join(number.to_string());
        let coord = config.listen_servers;
        let (one, two, three) = (folder(0), folder(1), folder(2));
        let (a, b, c) = tokio::join!(
            start(&one, coord, [free_address(), free_address()]),
            start(&two, coord, [free_address(), free_address()]),
            start(&three, coord, [free_address(), free_address()]),
        );
        let servers = vec![a, b, c];
        let leader = leader_of(&servers).await;
        put(&servers[leader], "k").await;
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            put(&servers[leader], "k").await;
        }
        for server in servers {
            server.stop().await;
        }
        coordinator.stop().await;
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.unwrap();
}

/// What servers and clients say to their coordinator, and it to them, is in the trace, under clocks
/// that fit.
#[tokio::test(flavor = "multi_thread")]
async fn joins_and_hints_are_in_the_trace() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let output_file = directory.path().join("trace_output.log");
        let collector = CollectorConfig {
            listen: free_address(),
            output_file: output_file.clone(),
            shiviz_output_file: directory.path().join("shiviz_output.log"),
        };
        let collector = Collector::start(collector).await.unwrap();
        let tracing = Some(collector.local_address());
        // It lies, so that there are hints.
        let mut config = coord_config(Some(50));
        config.tracing_server = Some(collector.local_address().to_string());
        let coordinator = CoordServer::start(config.clone(), "t".into(), |_| {}).await.unwrap();
        let coord = config.listen_servers;
        let folder = |number: u64| directory.path().join(number.to_string());
        let (one, two, three) = (folder(0), folder(1), folder(2));
        let (a, b, c) = tokio::join!(
            start_tracing(&one, coord, [free_address(), free_address()], tracing),
            start_tracing(&two, coord, [free_address(), free_address()], tracing),
            start_tracing(&three, coord, [free_address(), free_address()], tracing),
        );
        let mut servers = vec![a, b, c];
        let client = Client::builder()
            .coordinator(config.listen_clients.to_string())
            .wait_for_all()
            .trace_to(collector.local_address().to_string(), "client1")
            .request_timeout(TEST_TIME_MAX);
        let client = client.connect().await.unwrap();
        client.put("k", "v").await.unwrap();
        tokio::time::sleep(Duration::from_millis(1500)).await;
        let leader = leader_of(&servers).await;
        servers.remove(leader).stop().await;
        leader_of(&servers).await;
        client.put("k", "w").await.unwrap();
        client.close().await.unwrap();
        for server in servers {
            server.stop().await;
        }
        coordinator.stop().await;
        collector.stop().await.unwrap();
        let log = Log::read(std::fs::read(output_file).unwrap().as_slice()).unwrap();
        assert_eq!(verify(&log), []);
        let count = |tag: &str| log.records.iter().filter(|it| it.tag.as_ref() == tag).count();
        for tag in ["ServerJoining", "ServerJoiningRecvd", "ServerJoined", "ServerJoinedRecvd"] {
            assert_eq!(count(tag), 3, "{tag}");
        }
        for tag in ["AllServersJoined", "LeaderReconfigDone", "LeaderReqRecvd", "LeaderRes"] {
            assert!(0 < count(tag), "{tag}");
        }
        assert!(0 < count("ServerFailRecvd") && 0 < count("NewClusterView"));
        assert!(0 < count("LeaderNodeUpdateRecvd"), "the client heard of the new leader");
        let knows = |tag: &str, whom: &str| {
            let mut told = log.records.iter().filter(|it| it.tag.as_ref() == tag);
            told.any(|it| 0 < it.clock.get(whom))
        };
        assert!(knows("LeaderReqRecvd", "client1") && knows("LeaderResRecvd", "coord"));
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.unwrap();
}
