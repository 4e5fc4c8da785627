//! Real servers on loopback and on disk: a change of members that was never committed cuts nobody
//! off, least of all the leader that has to undo it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "../../../xtask/src/ports.rs"]
mod ports;

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener as StdListener},
    sync::Arc,
    time::Duration,
};

use kvraft_base::{ClusterId, MemberId};
use kvraft_proto::etcdserverpb::{
    MemberListRequest, MemberRemoveRequest, MoveLeaderRequest, PutRequest,
    cluster_client::ClusterClient, kv_client::KvClient, maintenance_client::MaintenanceClient,
};
use kvraft_replica::Fatal;
use kvraft_server::{MemberConfig, Server, ServerConfig};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
};
use tonic::transport::Channel;

/// Longer than anything here takes on a busy machine.
const TEST_TIME_MAX: Duration = Duration::from_secs(120);

/// Long enough to ask a leader for something before it sees that nobody hears it any more.
const ELECTION_TIMEOUT: Duration = Duration::from_secs(2);

/// Whether the ways between servers are cut.
type Cut = watch::Sender<bool>;

/// Passes connections on until they are cut. A cut one stays open, but what was on its way then
/// never arrives.
async fn pass_on(listener: TcpListener, target: SocketAddr, cut: Cut) {
    loop {
        let (mut source, _) = listener.accept().await.unwrap();
        let mut is_cut = cut.subscribe();
        tokio::spawn(async move {
            let Ok(mut target) = TcpStream::connect(target).await else { return };
            let (mut from_source, mut from_target) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
            loop {
                let moved = tokio::select! {
                    biased;
                    () = until(&mut is_cut, true) => {
                        // Whoever has waited dials anew.
                        until(&mut is_cut, false).await;
                        return;
                    }
                    count = source.read(&mut from_source) => match count {
                        Ok(count) if 0 < count => target.write_all(&from_source[..count]).await,
                        _ => return,
                    },
                    count = target.read(&mut from_target) => match count {
                        Ok(count) if 0 < count => source.write_all(&from_target[..count]).await,
                        _ => return,
                    },
                };
                if moved.is_err() {
                    return;
                }
            }
        });
    }
}

async fn until(is_cut: &mut watch::Receiver<bool>, wanted: bool) {
    drop(is_cut.wait_for(|cut| *cut == wanted).await);
}

fn free_address() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free_ports(1).unwrap()))
}

async fn run(config: &ServerConfig) -> Server {
    let on_fatal = Arc::new(|fatal: &Fatal| panic!("{fatal}"));
    Server::start_with(config.clone(), on_fatal).await.unwrap()
}

fn channel(config: &ServerConfig) -> Channel {
    let url = format!("http://{}", config.listen_client);
    Channel::from_shared(url).unwrap().connect_lazy()
}

async fn soon<T>(mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Has this one lead, of those that run.
async fn have_lead(servers: &[Option<Server>], configs: &[ServerConfig], wanted: usize) {
    soon(async || {
        let leads = |server: &Option<Server>| server.as_ref().is_some_and(Server::is_leader);
        let leader = servers.iter().position(leads)?;
        if leader != wanted {
            let request = MoveLeaderRequest { target_id: configs[wanted].member.0 };
            drop(MaintenanceClient::new(channel(&configs[leader])).move_leader(request).await);
            return None;
        }
        let put = PutRequest { key: b"k"[..].into(), ..Default::default() };
        KvClient::new(channel(&configs[wanted])).put(put).await.ok()
    })
    .await;
}

/// The members 1 to 3, the way to each of which can be cut.
fn configure(directory: &tempfile::TempDir, cut: &Cut) -> Vec<ServerConfig> {
    let mut members = Vec::new();
    let mut places = Vec::new();
    for id in 1..=3 {
        let (client, peer, front) = (free_address(), free_address(), free_address());
        let listener = StdListener::bind(front).unwrap();
        listener.set_nonblocking(true).unwrap();
        let listener = TcpListener::from_std(listener).unwrap();
        tokio::spawn(pass_on(listener, peer, cut.clone()));
        members.push(MemberConfig {
            id: MemberId(id),
            name: format!("m{id}"),
            peer: front.to_string(),
            client: client.to_string(),
        });
        places.push((id, client, peer));
    }
    let configure = |(id, client, peer)| ServerConfig {
        member: MemberId(id),
        cluster: ClusterId(78),
        heartbeat_interval: Duration::from_millis(50),
        election_timeout: ELECTION_TIMEOUT,
        members: members.clone(),
        ..ServerConfig::alone(directory.path().join(format!("m{id}")), client, peer)
    };
    places.into_iter().map(configure).collect()
}

/// Has the first of three, which leads, write that 3 is removed into its own log only: the ways
/// between servers stay cut.
async fn remove_in_vain(
    servers: &[Option<Server>],
    configs: &[ServerConfig],
    cut: &Cut,
) -> tokio::task::JoinHandle<Result<(), tonic::Status>> {
    have_lead(servers, configs, 0).await;
    // Names are published by changes of their own; no other change goes before they are done.
    tokio::time::sleep(ELECTION_TIMEOUT / 2).await;
    cut.send_replace(true);
    let mut cluster = ClusterClient::new(channel(&configs[0]));
    let removal = tokio::spawn(async move {
        cluster.member_remove(MemberRemoveRequest { id: 3 }).await.map(drop)
    });
    // It is in the log before anybody could have noticed the cut.
    tokio::time::sleep(ELECTION_TIMEOUT / 8).await;
    removal
}

/// Who asked for a change hears that nobody knows what became of it as soon as it is known that it
/// was not made, and not only when all of its time is up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_change_that_was_undone_is_not_waited_for() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let cut = Cut::new(false);
        let mut configs = configure(&directory, &cut);
        configs[0].request_timeout = Some(TEST_TIME_MAX);
        let mut servers = Vec::new();
        for config in &configs {
            servers.push(Some(run(config).await));
        }
        let removal = remove_in_vain(&servers, &configs, &cut).await;
        // The others find a way to each other, and elect one of them.
        for at in [1, 2] {
            servers[at].take().unwrap().stop().await;
        }
        let direct = [1, 2].map(|at| configs[at].listen_peer.to_string());
        for at in [1, 2] {
            for (member, peer) in configs[at].members[1..].iter_mut().zip(&direct) {
                member.peer.clone_from(peer);
            }
            servers[at] = Some(run(&configs[at]).await);
        }
        let is_over = |server: &Option<Server>| !server.as_ref().unwrap().is_leader();
        soon(async || is_over(&servers[0]).then_some(())).await;
        have_lead(&servers, &configs, 2).await;
        cut.send_replace(false);
        let answer = tokio::time::timeout(TEST_TIME_MAX / 4, removal).await;
        let error = answer.expect("long before the request's time is up").unwrap().unwrap_err();
        assert!(error.message().contains("previous leader failure"), "{error}");
        for server in servers.into_iter().flatten() {
            server.stop().await;
        }
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.expect("the cluster goes on");
}

/// The leader of {1, 2, 3} writes that 3 is removed into its own log only, and ends. 3 leads then;
/// when 1 is back, 3 is no member as far as 1 can see, and 2 is not there to explain.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_leads_reaches_a_server_that_does_not_know_it_any_more() {
    let test = async {
        let directory = tempfile::tempdir().unwrap();
        let cut = Cut::new(false);
        let configs = configure(&directory, &cut);
        let mut servers = Vec::new();
        for config in &configs {
            servers.push(Some(run(config).await));
        }
        let removal = remove_in_vain(&servers, &configs, &cut).await;
        servers[0].take().unwrap().stop().await;
        assert!(removal.await.unwrap().is_err(), "nobody can have agreed");
        cut.send_replace(false);
        have_lead(&servers, &configs, 2).await;
        servers[1].take().unwrap().stop().await;
        servers[0] = Some(run(&configs[0]).await);
        // Two of three, one of whom knows only better.
        have_lead(&servers, &configs, 2).await;
        let mut cluster = ClusterClient::new(channel(&configs[0]));
        let list = cluster.member_list(MemberListRequest { linearizable: true }).await.unwrap();
        assert_eq!(list.into_inner().members.len(), 3);
        for server in servers.into_iter().flatten() {
            server.stop().await;
        }
    };
    tokio::time::timeout(TEST_TIME_MAX, test).await.expect("the cluster goes on");
}
