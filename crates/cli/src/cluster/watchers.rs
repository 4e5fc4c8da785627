//! Sees from outside how servers are: that a leader is known, that one is back that was started by
//! hand, that it is gone again.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use kvraft_proto::etcdserverpb::{StatusRequest, maintenance_client::MaintenanceClient};
use tokio::{
    net::TcpStream,
    task::JoinHandle,
    time::{sleep, timeout},
};

use super::{Member, screen::Screen};

const POLL_INTERVAL: Duration = Duration::from_millis(200);
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// Tasks that look at the servers.
#[derive(Debug)]
pub(super) struct Watchers {
    screen: Screen,
    ready: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Watchers {
    /// Begins with waiting for a leader.
    pub(super) fn new(members: &[Member], screen: Screen) -> Self {
        let ready = Arc::new(AtomicBool::new(false));
        let clients = members.iter().map(|member| member.client).collect();
        let task = tokio::spawn(tell_first_leader(clients, Arc::clone(&ready), screen));
        Self { screen, ready, tasks: vec![task] }
    }

    /// Whether a leader has been seen.
    pub(super) fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// From now on, someone may start this server by hand.
    pub(super) fn expect_back(&mut self, member: Member) {
        self.tasks.push(tokio::spawn(tell_returns(member, self.screen)));
    }

    pub(super) fn end(self) {
        for task in self.tasks {
            task.abort();
        }
    }
}

async fn tell_first_leader(clients: Vec<SocketAddr>, ready: Arc<AtomicBool>, screen: Screen) {
    loop {
        for client in &clients {
            if let Ok(Some(leader)) = timeout(ANSWER_TIME_MAX, leader(*client)).await {
                ready.store(true, Ordering::Relaxed);
                screen.say(&format!("ready: server-{leader} leads"));
                return;
            }
        }
        sleep(POLL_INTERVAL).await;
    }
}

/// Whom a server takes for the leader, if it answers and knows one.
async fn leader(client: SocketAddr) -> Option<u64> {
    let mut maintenance = MaintenanceClient::connect(format!("http://{client}")).await.ok()?;
    let status = maintenance.status(StatusRequest {}).await.ok()?;
    Some(status.into_inner().leader).filter(|leader| *leader != 0)
}

async fn tell_returns(member: Member, screen: Screen) {
    let number = member.number;
    loop {
        wait_until(member.client, true).await;
        let holder = std::fs::read_to_string(member.place.data.join(kvraft_server::LOCK_FILE));
        let pid = holder.ok().and_then(|text| text.trim().parse::<u32>().ok());
        let pid = pid.map_or_else(String::new, |pid| format!(" (pid {pid})"));
        screen.say(&format!("server-{number} is back{pid}, started by hand"));
        wait_until(member.client, false).await;
        screen.say(&format!("server-{number} is gone again"));
    }
}

/// Waits until the address accepts connections, or no longer does.
async fn wait_until(address: SocketAddr, accepts: bool) {
    loop {
        let connected = timeout(ANSWER_TIME_MAX, TcpStream::connect(address)).await;
        if matches!(connected, Ok(Ok(_))) == accepts {
            return;
        }
        sleep(POLL_INTERVAL).await;
    }
}
