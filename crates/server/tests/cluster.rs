//! Three real servers in one process, on loopback and on disk: what is acknowledged on one is read
//! on another, survives the loss of the leader, and reaches it again when it is back.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use kvraft_base::{ClusterId, MemberId};
use kvraft_proto::etcdserverpb::{
    HashKvRequest, LeaseGrantRequest, MemberListRequest, PutRequest, RangeRequest, RangeResponse,
    StatusRequest, cluster_client::ClusterClient, kv_client::KvClient, lease_client::LeaseClient,
    maintenance_client::MaintenanceClient, watch_client::WatchClient,
};
use kvraft_server::{MemberConfig, Server, ServerConfig};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};
use tonic::{Code, Status};

/// Longer than anything here takes on a busy machine.
const TEST_TIME_MAX: Duration = Duration::from_secs(60);

struct Cluster {
    configs: Vec<ServerConfig>,
    servers: Vec<Option<Server>>,
    _directory: TempDir,
}

impl Cluster {
    async fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (clients, peers) = (free_addresses(), free_addresses());
        let members: Vec<MemberConfig> = (0..3)
            .map(|at| MemberConfig {
                id: MemberId(at as u64 + 1),
                name: String::new(),
                peer: peers[at].to_string(),
                client: clients[at].to_string(),
            })
            .collect();
        let configs: Vec<ServerConfig> = (0..3)
            .map(|at| ServerConfig {
                member: members[at].id,
                cluster: ClusterId(77),
                heartbeat_interval: Duration::from_millis(50),
                election_timeout: Duration::from_millis(500),
                members: members.clone(),
                ..ServerConfig::alone(
                    directory.path().join(format!("server-{at}")),
                    clients[at],
                    peers[at],
                )
            })
            .collect();
        let mut cluster = Self { configs, servers: vec![None, None, None], _directory: directory };
        for at in 0..3 {
            cluster.start_server(at).await;
        }
        cluster
    }

    async fn start_server(&mut self, at: usize) {
        let on_fatal = Arc::new(|fatal: &kvraft_replica::Fatal| panic!("{fatal}"));
        let server = Server::start_with(self.configs[at].clone(), on_fatal).await.unwrap();
        assert_eq!(server.local_addr(), self.configs[at].listen_client);
        self.servers[at] = Some(server);
    }

    fn url(&self, at: usize) -> String {
        format!("http://{}", self.configs[at].listen_client)
    }

    async fn leader(&self) -> usize {
        loop {
            let leads = |server: &Option<Server>| server.as_ref().is_some_and(Server::is_leader);
            if let Some(at) = self.servers.iter().position(leads) {
                return at;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    async fn put(&self, at: usize, key: &str, value: &str) -> Result<i64, Status> {
        let mut kv = KvClient::connect(self.url(at)).await.unwrap();
        let put = PutRequest {
            key: key.to_owned().into(),
            value: value.to_owned().into(),
            ..PutRequest::default()
        };
        let response = kv.put(put).await?.into_inner();
        let header = response.header.unwrap();
        assert_eq!(header.cluster_id, 77);
        assert_eq!(header.member_id, self.configs[at].member.0);
        assert!(0 < header.raft_term);
        Ok(header.revision)
    }

    async fn range(&self, at: usize, key: &str) -> Result<RangeResponse, Status> {
        let mut kv = KvClient::connect(self.url(at)).await.unwrap();
        let range = RangeRequest { key: key.to_owned().into(), ..RangeRequest::default() };
        Ok(kv.range(range).await?.into_inner())
    }

    /// Hash at a revision, once the server has reached it.
    async fn hash(&self, at: usize, revision: i64) -> u32 {
        let mut maintenance = MaintenanceClient::connect(self.url(at)).await.unwrap();
        loop {
            let answer = maintenance.hash_kv(HashKvRequest { revision }).await;
            match answer {
                Ok(answer) => return answer.into_inner().hash,
                Err(status) if status.code() == Code::OutOfRange => {
                    tokio::time::sleep(Duration::from_millis(10)).await;
                }
                Err(status) => panic!("{status}"),
            }
        }
    }

    async fn stop(&mut self) {
        for server in &mut self.servers {
            if let Some(server) = server.take() {
                server.stop().await;
            }
        }
    }
}

fn free_addresses() -> [SocketAddr; 3] {
    let first = ports::free_ports(3).unwrap();
    [first, first + 1, first + 2].map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
}

/// A put on a follower is read on another; the leader stops, and puts go on within three seconds;
/// it comes back, catches up, and all agree on every byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cluster_survives_its_leader() {
    tokio::time::timeout(TEST_TIME_MAX, survive_leader()).await.unwrap();
}

async fn survive_leader() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let (one, other) = ((leader + 1) % 3, (leader + 2) % 3);

    assert_eq!(cluster.put(one, "k", "v1").await.unwrap(), 2, "the first write is revision 2");
    let read = cluster.range(other, "k").await.unwrap();
    assert_eq!(read.kvs[0].value, "v1");

    cluster.servers[leader].take().unwrap().stop().await;
    let stopped_at = Instant::now();
    while cluster.put(other, "k", "v2").await.is_err() {
        assert!(stopped_at.elapsed() < Duration::from_secs(3), "no put in three seconds");
    }
    assert!(stopped_at.elapsed() < Duration::from_secs(3));
    let revision = cluster.put(one, "l", "w").await.unwrap();

    cluster.start_server(leader).await;
    assert_eq!(cluster.range(leader, "k").await.unwrap().kvs[0].value, "v2");
    let hashes = [
        cluster.hash(0, revision).await,
        cluster.hash(1, revision).await,
        cluster.hash(2, revision).await,
    ];
    assert!(hashes.iter().all(|hash| *hash == hashes[0]), "{hashes:?}");
    cluster.stop().await;
}

/// What cannot be done is refused with etcd's codes and texts, and what is asked is answered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_and_answers_are_those_of_etcd() {
    tokio::time::timeout(TEST_TIME_MAX, refuse_and_answer()).await.unwrap();
}

async fn refuse_and_answer() {
    let mut cluster = Cluster::start().await;
    let leader = cluster.leader().await;
    let follower = (leader + 1) % 3;
    let refused = cluster.put(follower, "", "v").await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: key is not provided");
    let large = "x".repeat(kvraft_base::limits::REQUEST_SIZE_BYTES_MAX);
    let refused = cluster.put(follower, "k", &large).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert_eq!(refused.message(), "etcdserver: request is too large");

    let mut kv = KvClient::connect(cluster.url(follower)).await.unwrap();
    let key: bytes::Bytes = "k".into();
    let future = RangeRequest { key: key.clone(), revision: 99, ..RangeRequest::default() };
    let refused = kv.range(future).await.unwrap_err();
    assert_eq!(refused.code(), Code::OutOfRange);
    assert_eq!(refused.message(), "etcdserver: mvcc: required revision is a future revision");
    let unsorted = RangeRequest { key, sort_order: 9, ..RangeRequest::default() };
    let refused = kv.range(unsorted).await.unwrap_err();
    assert_eq!(refused.message(), "etcdserver: invalid sort option");

    let mut maintenance = MaintenanceClient::connect(cluster.url(follower)).await.unwrap();
    let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
    assert_eq!(status.leader, cluster.configs[leader].member.0);
    assert!(0 < status.db_size);
    let mut members = ClusterClient::connect(cluster.url(follower)).await.unwrap();
    let list = members.member_list(MemberListRequest { linearizable: true }).await.unwrap();
    assert_eq!(list.into_inner().members.len(), 3);

    let mut leases = LeaseClient::connect(cluster.url(follower)).await.unwrap();
    let refused = leases.lease_grant(LeaseGrantRequest::default()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unimplemented);
    assert_eq!(
        refused.message(),
        "kvraft: the Lease service is not served by this version (LeaseGrant)"
    );
    let mut watches = WatchClient::connect(cluster.url(follower)).await.unwrap();
    let refused = watches.watch(futures::stream::pending()).await.unwrap_err();
    assert!(refused.message().contains("the Watch service is not served"), "{refused}");
    assert_eq!(url_as_authority(cluster.configs[follower].listen_client).await, HEADERS);
    cluster.stop().await;
}

/// A frame of HTTP/2 that begins an answer, and not RST_STREAM, which refuses it.
const HEADERS: u8 = 1;

/// Asks as `etcdctl` 3.4 does, which sends what it dialled as the authority, here
/// `http://127.0.0.1:1`. Gives the type of the first frame of the answer.
async fn url_as_authority(address: SocketAddr) -> u8 {
    let path = "/etcdserverpb.Maintenance/Status";
    let mut block = vec![0x83, 0x86];
    for (name, value) in [(0x44, path), (0x41, "http://127.0.0.1:1")] {
        block.extend([name, u8::try_from(value.len()).unwrap()]);
        block.extend(value.as_bytes());
    }
    block.extend(b"\x5f\x10application/grpc\x40\x02te\x08trailers");
    let mut sent = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
    sent.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 4, 0, 0, 0, 1]);
    sent.extend(block);
    sent.extend(b"\0\0\x05\0\x01\0\0\0\x01\0\0\0\0\0");
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&sent).await.unwrap();
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.unwrap();
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        if head[5..] == [0, 0, 0, 1] && head[3] != 8 {
            return head[3];
        }
    }
}

/// Errors at the start name the culprit, and leave nothing behind that stops the next start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn start_errors_name_the_culprit() {
    tokio::time::timeout(TEST_TIME_MAX, fail_to_start()).await.unwrap();
}

async fn fail_to_start() {
    let mut cluster = Cluster::start().await;
    let start = |config| Server::start_with(config, Arc::new(|_: &kvraft_replica::Fatal| ()));
    let taken = start(cluster.configs[0].clone()).await.err().unwrap().to_string();
    assert!(taken.contains(&cluster.configs[0].listen_client.to_string()), "{taken}");
    let [free, other, _] = free_addresses();
    let second =
        ServerConfig { listen_client: free, listen_peer: other, ..cluster.configs[0].clone() };
    let locked = start(second.clone()).await.err().unwrap().to_string();
    assert!(locked.contains("another process"), "{locked}");
    cluster.stop().await;
    let foreign = ServerConfig { cluster: ClusterId(78), ..second };
    let refused = start(foreign).await.err().unwrap().to_string();
    assert!(refused.contains("cluster 4d"), "{refused}");
}
