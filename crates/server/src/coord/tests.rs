//! Strangers at the door, and a client who waits.

use std::net::Ipv4Addr;

use kvraft_coord::{Candidate, Hello, Report, ToServer, decode};
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
    let mut watch = LeaderWatch::open(&clients, "client1").await.unwrap();
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
