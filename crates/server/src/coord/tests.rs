//! Strangers at the door, and a client who waits.

use std::net::Ipv4Addr;

use kvraft_client::LeaderWatch;
use kvraft_coord::{Candidate, Hello, Report, ToServer};
use kvraft_trace::{record::Log, verify::verify};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};

use super::*;

async fn coordinator() -> CoordServer {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let config = CoordConfig {
        num_servers: 1,
        listen_servers: any,
        listen_clients: any,
        ..CoordConfig::default()
    };
    CoordServer::start(config, "token".into(), |_| {}).await.unwrap()
}

/// Rubbish, endless lines and the wrong door end one connection only; the next server joins.
#[tokio::test]
async fn rubbish_ends_one_connection_only() {
    let coordinator = coordinator().await;
    let endless = vec![b'x'; 100_000];
    let wrong_door = b"{\"get-leader\":{\"client\":\"c\"}}\n";
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], &endless, wrong_door, b"\xff\n", b"@ \n"] {
        let mut stream = TcpStream::connect(coordinator.servers_address()).await.unwrap();
        // It may hang up in the middle.
        stream.write_all(bytes).await.ok();
        let mut line = String::new();
        let read = BufReader::new(stream).read_line(&mut line).await;
        assert!(!matches!(read, Ok(size) if 0 < size), "{line}");
    }
    let address = coordinator.servers_address().to_string();
    let joined = join_coordinator(&address, "", "127.0.0.1:1", "127.0.0.1:2").await.unwrap();
    assert_eq!((joined.member.0, joined.members.len()), (1, 1));
    let refused = join_coordinator(&address, "", "127.0.0.1:3", "127.0.0.1:4").await.unwrap_err();
    assert!(refused.to_string().contains("all 1 servers have joined"), "{refused}");
    coordinator.stop().await;
}

/// A client that asks early is told when there is a leader, and whenever it is another.
#[tokio::test]
async fn clients_wait_for_the_leader() {
    let coordinator = coordinator().await;
    let clients = coordinator.clients_address().to_string();
    let mut watch = LeaderWatch::open(&clients, "client1", None).await.unwrap();
    let stream = TcpStream::connect(coordinator.servers_address()).await.unwrap();
    let (reader, mut writer) = stream.into_split();
    let hello = Hello { peer: "p:1".into(), client: "c:1".into(), ..Hello::default() };
    write_line(&mut writer, &encode(&ToCoordinator::Join(hello))).await.unwrap();
    let mut line = String::new();
    BufReader::new(reader).read_line(&mut line).await.unwrap();
    assert!(matches!(decode(&line), Ok(ToServer::Welcome(_))), "{line}");
    let report = Report { term: 1, leads: true, leader: Some(1), last: Candidate::default() };
    write_line(&mut writer, &encode(&ToCoordinator::Report(report))).await.unwrap();
    let info = watch.news().await.unwrap();
    assert_eq!((info.server, info.client.as_str()), (1, "c:1"));
    coordinator.stop().await;
    assert!(watch.news().await.is_err(), "it has gone");
}

/// A server in name only.
struct Pretender {
    reader: LineReader,
    writer: tokio::net::tcp::OwnedWriteHalf,
}

impl Pretender {
    async fn join(to: SocketAddr, id: u64) -> Self {
        let stream = TcpStream::connect(to).await.unwrap();
        let (reader, mut writer) = stream.into_split();
        let hello = Hello { member: Some(id), cluster: Some(7), ..Hello::default() };
        write_line(&mut writer, &encode(&ToCoordinator::Join(hello))).await.unwrap();
        let mut reader = LineReader::new(reader, LINE_SIZE_BYTES_MAX);
        let answer = reader.read(decode::<ToServer>).await.unwrap().unwrap();
        assert_eq!(answer.content, ToServer::Joined {});
        Self { reader, writer }
    }

    async fn report(&mut self, leads: bool, index: u64) {
        let report = Self::how(leads, index);
        write_line(&mut self.writer, &encode(&ToCoordinator::Report(report))).await.unwrap();
    }

    fn how(leads: bool, index: u64) -> Report {
        Report { term: 1, leads, leader: Some(1), last: Candidate { term: 1, index } }
    }

    /// What it is told next, and whether a token came along.
    async fn told(&mut self) -> (ToServer, bool) {
        let line = self.reader.read(decode::<ToServer>).await.unwrap().unwrap();
        (line.content, line.token.is_some())
    }
}

/// The whole way from the first join to the hint that a leader is dead, as a trace has it: the
/// actions of KVRaft (Go) in their order, with tokens, and clocks without holes.
#[tokio::test]
async fn a_leaders_death_is_in_the_trace() {
    let directory = tempfile::tempdir().unwrap();
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let output_file = directory.path().join("trace_output.log");
    let collector = crate::Collector::start(crate::CollectorConfig {
        listen: any,
        output_file: output_file.clone(),
        shiviz_output_file: directory.path().join("shiviz_output.log"),
    });
    let collector = collector.await.unwrap();
    let config = CoordConfig {
        listen_servers: any,
        listen_clients: any,
        tracing_server: Some(collector.local_address().to_string()),
        ..CoordConfig::default()
    };
    let coordinator = CoordServer::start(config, "token".into(), |_| {}).await.unwrap();
    // Until the tracing server has answered, nobody gets a token.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let mut servers = Vec::new();
    for id in 1..=3 {
        servers.push(Pretender::join(coordinator.servers_address(), id).await);
        servers[usize::try_from(id - 1).unwrap()].report(id == 1, 5).await;
    }
    drop(servers.remove(0));
    for (server, index) in servers.iter_mut().zip([6, 7]) {
        assert_eq!(server.told().await, (ToServer::GetLogState {}, true));
        let state = ToCoordinator::LogState(Pretender::how(false, index));
        write_line(&mut server.writer, &encode(&state)).await.unwrap();
    }
    assert_eq!(servers[1].told().await, (ToServer::LeaderLost { leader: 1 }, true));
    coordinator.stop().await;
    collector.stop().await.unwrap();

    let log = Log::read(std::fs::read(output_file).unwrap().as_slice()).unwrap();
    assert_eq!(verify(&log), []);
    let is_said = |tag: &str| !tag.ends_with("Trace") && tag != "ServerJoiningRecvd";
    let tags: Vec<&str> = log.records.iter().map(|it| it.tag.as_ref()).collect();
    let tags: Vec<&str> = tags.into_iter().filter(|tag| is_said(tag)).collect();
    let until_all = tags.iter().position(|tag| *tag == "AllServersJoined").unwrap();
    assert!(tags[..until_all].contains(&"CoordStart"), "{tags:?}");
    let joined = tags[..until_all].iter().filter(|tag| **tag == "ServerJoinedRecvd").count();
    assert_eq!(joined, 3, "{tags:?}");
    let failed = tags.iter().position(|tag| *tag == "ServerFail").unwrap();
    let wanted = [
        "ServerFail",
        "NewClusterView",
        "ServerLogStateRequest",
        "ServerLogStateRequest",
        "LeaderFailOver",
    ];
    assert_eq!(tags[failed..failed + 5], wanted, "{tags:?}");
}
