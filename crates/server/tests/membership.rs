//! Real servers on loopback and on disk whose cluster changes under them: members are added, catch
//! up, vote, move, are removed and end, while a client writes. What was acknowledged stays.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use kvraft_base::{ClusterId, MemberId};
use kvraft_proto::{
    METADATA_PROMOTE,
    etcdserverpb::{
        Member, MemberAddRequest, MemberAddResponse, MemberListRequest, MemberPromoteRequest,
        MemberRemoveRequest, MemberUpdateRequest, MoveLeaderRequest, PutRequest, RangeRequest,
        StatusRequest, cluster_client::ClusterClient, kv_client::KvClient,
        maintenance_client::MaintenanceClient,
    },
};
use kvraft_replica::Fatal;
use kvraft_server::{JoinInfo, MemberConfig, Server, ServerConfig};
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tonic::{Code, Request, Status, transport::Channel};

/// Longer than anything here takes on a busy machine.
const TEST_TIME_MAX: Duration = Duration::from_secs(120);

/// What passes when members come and go.
const TRANSIENT: [&str; 2] = [
    "etcdserver: unhealthy cluster",
    "etcdserver: re-configuration failed due to not enough started members",
];

/// Servers of one cluster, of whom some run.
struct Fleet {
    directory: TempDir,
    configs: BTreeMap<u64, ServerConfig>,
    servers: BTreeMap<u64, Server>,
    /// Whoever has ended because it was removed.
    removed: Arc<Mutex<Vec<u64>>>,
}

impl Fleet {
    /// A cluster of the members 1 to `count`, each told its own client address only.
    async fn start(count: u64) -> Self {
        Self::start_with(count, |config| config).await
    }

    async fn start_with(count: u64, adapt: impl Fn(ServerConfig) -> ServerConfig) -> Self {
        let mut fleet = Self {
            directory: tempfile::tempdir().unwrap(),
            configs: BTreeMap::new(),
            servers: BTreeMap::new(),
            removed: Arc::default(),
        };
        let addresses = free_addresses(2 * usize::try_from(count).unwrap());
        let (clients, peers) = addresses.split_at(addresses.len() / 2);
        let members: Vec<MemberConfig> = (1..=count)
            .zip(peers)
            .map(|(id, peer)| MemberConfig {
                id: MemberId(id),
                name: format!("m{id}"),
                peer: peer.to_string(),
                client: String::new(),
            })
            .collect();
        for ((id, client), peer) in (1..=count).zip(clients).zip(peers) {
            let config = adapt(fleet.config(id, *client, *peer));
            fleet.configs.insert(id, ServerConfig { members: members.clone(), ..config });
        }
        for id in 1..=count {
            fleet.run(id).await;
        }
        fleet
    }

    fn config(&self, id: u64, client: SocketAddr, peer: SocketAddr) -> ServerConfig {
        ServerConfig {
            member: MemberId(id),
            cluster: ClusterId(77),
            heartbeat_interval: Duration::from_millis(50),
            election_timeout: Duration::from_millis(500),
            ..ServerConfig::alone(self.directory.path().join(format!("m{id}")), client, peer)
        }
    }

    /// Starts a server of which there is a configuration.
    async fn run(&mut self, id: u64) {
        let removed = Arc::clone(&self.removed);
        let on_fatal = Arc::new(move |fatal: &Fatal| match fatal {
            Fatal::Removed { .. } => removed.lock().unwrap().push(id),
            other => panic!("{other}"),
        });
        let server = Server::start_with(self.configs[&id].clone(), on_fatal).await.unwrap();
        self.servers.insert(id, server);
    }

    async fn halt(&mut self, id: u64) {
        self.servers.remove(&id).unwrap().stop().await;
    }

    async fn stop(mut self) {
        while let Some((_, server)) = self.servers.pop_first() {
            server.stop().await;
        }
    }

    fn channel(&self, id: u64) -> Channel {
        let url = format!("http://{}", self.configs[&id].listen_client);
        Channel::from_shared(url).unwrap().connect_lazy()
    }

    fn cluster(&self, id: u64) -> ClusterClient<Channel> {
        ClusterClient::new(self.channel(id))
    }

    async fn leader(&self) -> u64 {
        soon(async || self.servers.iter().find(|(_, it)| it.is_leader()).map(|(id, _)| *id)).await
    }

    /// The members as one of them lists them.
    async fn list(&self, asked: u64) -> Vec<Member> {
        let request = MemberListRequest { linearizable: true };
        self.cluster(asked).member_list(request).await.unwrap().into_inner().members
    }

    /// Adds a learner, perhaps to vote as soon as it can, and starts it.
    async fn join(&mut self, asked: u64, promote: bool) -> u64 {
        let addresses = free_addresses(2);
        let added = self.add(asked, addresses[1], promote).await.unwrap();
        let id = added.member.unwrap().id;
        let config = ServerConfig {
            name: format!("m{id}"),
            members: Vec::new(),
            join: Some(JoinInfo::from_list(&added.members).unwrap()),
            ..self.config(id, addresses[0], addresses[1])
        };
        self.configs.insert(id, config);
        self.run(id).await;
        id
    }

    async fn add(
        &self,
        asked: u64,
        peer: SocketAddr,
        promote: bool,
    ) -> Result<MemberAddResponse, Status> {
        let peer_ur_ls = vec![format!("http://{peer}")];
        let mut request = Request::new(MemberAddRequest { peer_ur_ls, is_learner: true });
        request.metadata_mut().insert(METADATA_PROMOTE, promote.to_string().parse().unwrap());
        self.cluster(asked).member_add(request).await.map(tonic::Response::into_inner)
    }

    /// Waits until a member votes, as the leader sees it.
    async fn until_voter(&self, id: u64) {
        soon(async || {
            let members = self.list(self.leader().await).await;
            members.iter().any(|member| member.id == id && !member.is_learner).then_some(())
        })
        .await;
    }

    /// Removes a member and waits until its server has ended.
    async fn remove(&mut self, id: u64) {
        soon(async || {
            let asked = self.leader().await;
            match self.cluster(asked).member_remove(MemberRemoveRequest { id }).await {
                Ok(response) => {
                    let members = response.into_inner().members;
                    assert!(members.iter().all(|member| member.id != id));
                    Some(())
                }
                // The one before this may only just have gone, or have told its name to nobody.
                Err(status) if TRANSIENT.contains(&status.message()) => None,
                Err(status) => panic!("{status}"),
            }
        })
        .await;
        self.until_removed(id).await;
        self.halt(id).await;
    }

    async fn until_removed(&self, id: u64) {
        soon(async || self.removed.lock().unwrap().contains(&id).then_some(())).await;
    }
}

/// Asks until there is an answer.
async fn soon<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn free_addresses(count: usize) -> Vec<SocketAddr> {
    let count = u16::try_from(count).unwrap();
    let first = ports::free_ports(count).unwrap();
    (first..first + count).map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))).collect()
}

/// A client that writes one key after the other, each until it is acknowledged by somebody.
struct Writer {
    endpoints: Arc<Mutex<Vec<Channel>>>,
    stop: Arc<AtomicBool>,
    task: JoinHandle<(u64, Duration)>,
}

impl Writer {
    fn start(endpoints: Vec<Channel>) -> Self {
        let endpoints = Arc::new(Mutex::new(endpoints));
        let stop = Arc::new(AtomicBool::new(false));
        let task = tokio::spawn(write(Arc::clone(&endpoints), Arc::clone(&stop)));
        Self { endpoints, stop, task }
    }

    /// How many keys were acknowledged, and the longest time that one took.
    async fn finish(self) -> (u64, Duration) {
        self.stop.store(true, Relaxed);
        self.task.await.unwrap()
    }
}

async fn write(endpoints: Arc<Mutex<Vec<Channel>>>, stop: Arc<AtomicBool>) -> (u64, Duration) {
    let (mut number, mut longest, mut turn) = (0, Duration::ZERO, 0);
    while !stop.load(Relaxed) {
        let begun = Instant::now();
        loop {
            let channel = {
                let endpoints = endpoints.lock().unwrap();
                endpoints[turn % endpoints.len()].clone()
            };
            let put = PutRequest {
                key: format!("k{number}").into(),
                value: format!("v{number}").into(),
                ..PutRequest::default()
            };
            let mut kv = KvClient::new(channel);
            let done = tokio::time::timeout(Duration::from_secs(1), kv.put(put)).await;
            if matches!(done, Ok(Ok(_))) {
                break;
            }
            turn += 1;
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        longest = longest.max(begun.elapsed());
        number += 1;
    }
    (number, longest)
}

/// Every acknowledged key is read from this server.
async fn assert_kept(channel: Channel, count: u64) {
    let mut kv = KvClient::new(channel);
    for number in 0..count {
        let range = RangeRequest { key: format!("k{number}").into(), ..RangeRequest::default() };
        let read = kv.range(range).await.unwrap().into_inner();
        assert_eq!(read.kvs.len(), 1, "k{number} of {count} is lost");
        assert_eq!(read.kvs[0].value, format!("v{number}"));
    }
}

async fn within<T>(test: impl Future<Output = T>) -> T {
    tokio::time::timeout(TEST_TIME_MAX, test).await.expect("the test must end in time")
}

/// Three servers become five, and then three others, while a client writes; the leaders among those
/// who go hand over, those who go end, and nothing that was acknowledged is lost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_moves_to_other_servers_under_load() {
    within(async {
        let mut fleet = Fleet::start(3).await;
        fleet.leader().await;
        let writer = Writer::start(vec![fleet.channel(1), fleet.channel(2), fleet.channel(3)]);
        for expected in [4, 5] {
            // Any member can be asked.
            let asked = fleet.leader().await % 3 + 1;
            let id = fleet.join(asked, true).await;
            assert_eq!(id, expected);
            writer.endpoints.lock().unwrap().push(fleet.channel(id));
            fleet.until_voter(id).await;
        }
        // The leader goes first, and so does the next one.
        for _ in 0..2 {
            let leader = fleet.leader().await;
            fleet.remove(leader).await;
        }
        let id = fleet.join(fleet.leader().await, true).await;
        assert_eq!(id, 6);
        writer.endpoints.lock().unwrap().push(fleet.channel(id));
        fleet.until_voter(id).await;
        while let Some(founder) = fleet.servers.keys().copied().find(|id| *id <= 3) {
            fleet.remove(founder).await;
        }
        while 3 < fleet.servers.len() {
            let leader = fleet.leader().await;
            fleet.remove(leader).await;
        }
        let (count, longest) = writer.finish().await;
        eprintln!("{count} keys, the longest took {longest:?}");
        assert!(100 < count, "{count}");
        assert!(longest < Duration::from_secs(1), "{longest:?}");
        for id in fleet.servers.keys() {
            assert!(3 < *id, "only new servers are left");
            assert_kept(fleet.channel(*id), count).await;
        }
        fleet.stop().await;
    })
    .await;
}

/// A server that is stopped in the middle of joining goes on where it was, without being told again
/// whom to join; and what it is called is known to all in the end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_joiner_is_restarted() {
    within(async {
        let mut fleet = Fleet::start(3).await;
        let leader = fleet.leader().await;
        let id = fleet.join(leader, true).await;
        fleet.halt(id).await;
        fleet.configs.get_mut(&id).unwrap().join = None;
        fleet.run(id).await;
        fleet.until_voter(id).await;
        let mut maintenance = MaintenanceClient::new(fleet.channel(id));
        let status = maintenance.status(StatusRequest {}).await.unwrap().into_inner();
        assert!(!status.is_learner);
        for asked in [1, 2, 3, id] {
            let members = soon(async || {
                let members = fleet.list(asked).await;
                let complete = |member: &Member| !member.client_ur_ls.is_empty();
                members.iter().all(complete).then_some(members)
            })
            .await;
            for member in members {
                let config = &fleet.configs[&member.id];
                assert_eq!(member.name, format!("m{}", member.id));
                assert_eq!(member.client_ur_ls, [format!("http://{}", config.listen_client)]);
                assert_eq!(member.peer_ur_ls, [format!("http://{}", config.listen_peer)]);
            }
        }
        fleet.stop().await;
    })
    .await;
}

/// A learner answers what any server answers, where etcd's refuse.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_serves_writes_and_reads() {
    within(async {
        let mut fleet = Fleet::start(1).await;
        fleet.leader().await;
        let learner = fleet.join(1, false).await;
        let mut kv = KvClient::new(fleet.channel(learner));
        let put = PutRequest { key: "k0".into(), value: "v0".into(), ..PutRequest::default() };
        kv.put(put).await.unwrap();
        assert_kept(fleet.channel(learner), 1).await;
        let is_learner = |member: &Member| member.id == learner && member.is_learner;
        assert!(fleet.list(learner).await.iter().any(is_learner));
        fleet.stop().await;
    })
    .await;
}

/// A server that was down when it was removed is told when it comes back, and every time after.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_server_is_told_when_it_comes_back() {
    within(async {
        let mut fleet = Fleet::start(3).await;
        let gone = fleet.leader().await;
        fleet.halt(gone).await;
        let leader = fleet.leader().await;
        soon(async || {
            let removed =
                fleet.cluster(leader).member_remove(MemberRemoveRequest { id: gone }).await;
            removed.ok()
        })
        .await;
        for _ in 0..2 {
            fleet.run(gone).await;
            fleet.until_removed(gone).await;
            fleet.halt(gone).await;
            fleet.removed.lock().unwrap().clear();
        }
        let refused = fleet.cluster(leader).member_remove(MemberRemoveRequest { id: gone }).await;
        assert_eq!(refused.unwrap_err().message(), "etcdserver: member not found");
        fleet.stop().await;
    })
    .await;
}

/// A server that was down while all others were replaced is found by those who replaced them,
/// although nobody of whom it knows runs any more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_knows_nobody_any_more_is_found() {
    within(async {
        let mut fleet = Fleet::start(1).await;
        fleet.leader().await;
        let sleeper = fleet.join(1, false).await;
        // So that it has something to be out of date with.
        fleet.list(sleeper).await;
        fleet.halt(sleeper).await;
        let successor = fleet.join(1, true).await;
        fleet.until_voter(successor).await;
        fleet.remove(1).await;
        fleet.run(sleeper).await;
        let ids = soon(async || {
            let request = MemberListRequest { linearizable: true };
            let list = fleet.cluster(sleeper).member_list(request).await.ok()?;
            Some(list.into_inner().members.iter().map(|member| member.id).collect::<Vec<_>>())
        })
        .await;
        assert_eq!(ids, [sleeper, successor]);
        fleet.stop().await;
    })
    .await;
}

/// A stopped leader hands over: writes go on long before an election timeout has passed, which is
/// what they would wait for, since with leases nobody else is elected any sooner.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_leader_hands_over() {
    within(async {
        let election_timeout = Duration::from_secs(4);
        let mut fleet = Fleet::start_with(3, |config| ServerConfig {
            election_timeout,
            lease_reads: true,
            ..config
        })
        .await;
        let leader = fleet.leader().await;
        let others = (1..=3).filter(|id| *id != leader).map(|id| fleet.channel(id)).collect();
        let writer = Writer::start(others);
        tokio::time::sleep(Duration::from_millis(500)).await;
        fleet.halt(leader).await;
        let next = fleet.leader().await;
        assert_ne!(next, leader);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (count, longest) = writer.finish().await;
        eprintln!("{count} keys, the longest took {longest:?}");
        assert!(longest < election_timeout / 4, "{longest:?}");
        assert_kept(fleet.channel(next), count).await;
        fleet.stop().await;
    })
    .await;
}

/// Leadership moves to whom it is asked to, and only from where it is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leadership_is_moved() {
    within(async {
        let fleet = Fleet::start(3).await;
        let leader = fleet.leader().await;
        let other = leader % 3 + 1;
        let ask = async |asked, target_id| {
            let mut maintenance = MaintenanceClient::new(fleet.channel(asked));
            let moved = maintenance.move_leader(MoveLeaderRequest { target_id }).await;
            moved.map(drop).map_err(|status| (status.code(), status.message().to_owned()))
        };
        let error = |text: &str| Err((Code::FailedPrecondition, format!("etcdserver: {text}")));
        assert_eq!(ask(other, other).await, error("not leader"));
        assert_eq!(ask(leader, 99).await, error("bad leader transferee"));
        assert_eq!(ask(leader, leader).await, Ok(()));
        assert_eq!(ask(leader, other).await, Ok(()));
        assert_eq!(fleet.leader().await, other);
        fleet.stop().await;
    })
    .await;
}

/// What etcd refuses is refused with its codes and texts, and a server that has moved is found at
/// its new address as soon as the cluster knows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_are_refused_and_moved_as_in_etcd() {
    within(async {
        let mut fleet = Fleet::start(3).await;
        let leader = fleet.leader().await;
        let moving = leader % 3 + 1;
        let mut cluster = fleet.cluster(leader);
        let told = |status: Status| (status.code(), status.message().to_owned());
        let error = |code, text: &str| (code, format!("etcdserver: {text}"));
        let taken = fleet.add(leader, fleet.configs[&moving].listen_peer, true).await.unwrap_err();
        assert_eq!(told(taken), error(Code::FailedPrecondition, "Peer URLs already exists"));
        let peer_ur_ls = vec!["10.0.0.1:2380".to_owned()];
        let bad = MemberAddRequest { peer_ur_ls, is_learner: false };
        let bad = cluster.member_add(bad).await.unwrap_err();
        assert_eq!(told(bad), error(Code::InvalidArgument, "given member URLs are invalid"));
        let unknown = cluster.member_remove(MemberRemoveRequest { id: 99 }).await.unwrap_err();
        assert_eq!(told(unknown), error(Code::NotFound, "member not found"));
        let voter = cluster.member_promote(MemberPromoteRequest { id: moving }).await.unwrap_err();
        let text = "can only promote a learner member";
        assert_eq!(told(voter), error(Code::FailedPrecondition, text));

        let address = free_addresses(1)[0];
        let peer_ur_ls = vec![format!("http://{address}")];
        let added = MemberAddRequest { peer_ur_ls, is_learner: true };
        let added = cluster.member_add(added).await.unwrap().into_inner();
        let learner = added.member.unwrap();
        assert!(learner.is_learner && learner.name.is_empty() && added.members.len() == 4);
        assert_eq!(learner.peer_ur_ls, [format!("http://{address}")]);
        let behind = MemberPromoteRequest { id: learner.id };
        let behind = cluster.member_promote(behind).await.unwrap_err();
        let text = "can only promote a learner member which is in sync with leader";
        assert_eq!(told(behind), error(Code::FailedPrecondition, text));
        let remove = MemberRemoveRequest { id: learner.id };
        assert_eq!(cluster.member_remove(remove).await.unwrap().into_inner().members.len(), 3);

        fleet.halt(moving).await;
        let unhealthy = soon(async || {
            // Until the leader has noticed that a connection has closed.
            let add = fleet.add(leader, free_addresses(1)[0], true).await;
            add.err()
        })
        .await;
        assert_eq!(told(unhealthy), error(Code::Unavailable, "unhealthy cluster"));
        let unhealthy = cluster.member_remove(MemberRemoveRequest { id: leader }).await;
        assert_eq!(told(unhealthy.unwrap_err()), error(Code::Unavailable, "unhealthy cluster"));

        let elsewhere = free_addresses(1)[0];
        fleet.configs.get_mut(&moving).unwrap().listen_peer = elsewhere;
        let peer_ur_ls = vec![format!("http://{elsewhere}")];
        let update = MemberUpdateRequest { id: moving, peer_ur_ls };
        cluster.member_update(update).await.unwrap();
        fleet.run(moving).await;
        let put = PutRequest { key: "k".into(), value: "v".into(), ..PutRequest::default() };
        KvClient::new(fleet.channel(moving)).put(put).await.unwrap();
        fleet.stop().await;
    })
    .await;
}
