//! A server and its coordinator: joining, reporting, and what it makes of a hint.
//!
//! Invariant: nothing in a server waits for the coordinator, once the server has data.

use std::{io, sync::Arc, time::Duration};

use kvraft_base::{ClusterId, MemberId};
use kvraft_coord::{Candidate, Hello, Membership, Report, ToCoordinator, ToServer, encode};
use kvraft_raft::RoleName;
use kvraft_trace::action::Action;
use tokio::{
    net::TcpStream,
    sync::watch,
    time::{Instant, MissedTickBehavior},
};

use super::lines::{LineReader, write_line};
use crate::{
    board::Board,
    config::{MemberConfig, derived_id},
    driver::Driver,
    recorder::Recorder,
};

/// Wait before another try.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// Between two hints that are listened to.
const HINT_INTERVAL: Duration = Duration::from_millis(10);

/// What a server without data has been told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joined {
    /// Who it is.
    pub member: MemberId,
    /// Made of the coordinator's token and of all members: whoever was told of others is in
    /// another cluster.
    pub cluster: ClusterId,
    /// All members.
    pub members: Vec<MemberConfig>,
}

/// Why a server without data cannot join.
#[derive(Debug, thiserror::Error)]
pub enum CoordError {
    /// The coordinator does not want it.
    #[error("the coordinator refuses this server: {0}")]
    Refused(String),
    /// What it says makes no cluster.
    #[error("the coordinator speaks of a cluster that cannot be: {0}")]
    Nonsense(&'static str),
}

/// Joins, and waits until all have come. A coordinator that is not there, or goes, is tried again.
///
/// # Errors
/// [`CoordError`].
pub async fn join_coordinator(
    address: &str,
    name: &str,
    peer: &str,
    client: &str,
) -> Result<Joined, CoordError> {
    let hello = Hello {
        name: name.to_owned(),
        peer: peer.to_owned(),
        client: client.to_owned(),
        ..Hello::default()
    };
    let mut was_told = false;
    loop {
        match try_join(address, &hello).await {
            Ok(ToServer::Welcome(membership)) => return joined(membership),
            Ok(ToServer::Refused(why)) => return Err(CoordError::Refused(why)),
            Ok(ToServer::LeaderLost { .. }) => {}
            Err(error) => {
                if !std::mem::replace(&mut was_told, true) {
                    tracing::warn!(%address, "no coordinator: {error}; tries again and again");
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn try_join(address: &str, hello: &Hello) -> io::Result<ToServer> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (reader, mut writer) = stream.into_split();
    write_line(&mut writer, &encode(&ToCoordinator::Join(hello.clone()))).await?;
    tracing::info!(%address, "waits until all servers have joined");
    let gone = || io::Error::from(io::ErrorKind::UnexpectedEof);
    Ok(LineReader::new(reader).read().await?.ok_or_else(gone)?.content)
}

/// What follows from a welcome; nothing in it is believed to be well-formed.
fn joined(membership: Membership) -> Result<Joined, CoordError> {
    let Membership { member, token, members } = membership;
    let mut all = token;
    let mut last = 0;
    let mut list = Vec::new();
    for entry in members {
        if entry.id <= last || u64::MAX >> 1 < entry.id {
            return Err(CoordError::Nonsense("ids do not grow"));
        }
        last = entry.id;
        all.push_str(&format!("\n{}={}", entry.id, entry.peer));
        let (id, name) = (MemberId(entry.id), entry.name);
        list.push(MemberConfig { id, name, peer: entry.peer, client: entry.client });
    }
    if !list.iter().any(|entry| entry.id.0 == member) {
        return Err(CoordError::Nonsense("this server is not in it"));
    }
    Ok(Joined { member: MemberId(member), cluster: ClusterId(derived_id(&all, "")), members: list })
}

/// What a running server is to its coordinator.
pub(crate) struct Following {
    pub(crate) address: String,
    pub(crate) hello: Hello,
    pub(crate) report_interval: Duration,
    pub(crate) driver: Arc<Driver>,
    pub(crate) board: Arc<Board>,
    pub(crate) recorder: Option<Arc<Recorder>>,
}

/// Reports, and hears hints, until the server stops.
pub(crate) async fn follow_coordinator(following: Following, mut stop: watch::Receiver<bool>) {
    let follow = async {
        let mut was_told = false;
        loop {
            if let Err(error) = following.follow_once(&mut was_told).await
                && !std::mem::replace(&mut was_told, true)
            {
                let address = &following.address;
                tracing::warn!(%address, "no coordinator: {error}; tries again and again");
            }
            tokio::time::sleep(RETRY_INTERVAL).await;
        }
    };
    tokio::select! {
        () = follow => {}
        _ = stop.wait_for(|stop| *stop) => {}
    }
}

impl Following {
    async fn follow_once(&self, was_told: &mut bool) -> io::Result<()> {
        let stream = TcpStream::connect(&self.address).await?;
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        write_line(&mut writer, &encode(&ToCoordinator::Join(self.hello.clone()))).await?;
        if let Some(recorder) = &self.recorder {
            recorder.on_action(&Action::ServerJoined {
                server_id: self.hello.member.unwrap_or_default(),
            });
        }
        *was_told = false;
        tracing::info!(address = %self.address, "reports to the coordinator");
        let report = async {
            let mut led = self.board.led();
            let mut ticks = tokio::time::interval(self.report_interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    changed = led.changed() => if changed.is_err() { return Ok(()) },
                }
                write_line(&mut writer, &encode(&ToCoordinator::Report(self.report()))).await?;
            }
        };
        tokio::select! {
            ended = report => ended,
            ended = self.listen(LineReader::new(reader)) => ended,
        }
    }

    fn report(&self) -> Report {
        let raft = self.board.snapshot().raft;
        Report {
            term: raft.term.0,
            leads: raft.role == RoleName::Leader,
            leader: raft.leader.map(|leader| leader.0),
            last: Candidate { term: raft.last.term.0, index: raft.last.index.0 },
        }
    }

    async fn listen(&self, mut reader: LineReader) -> io::Result<()> {
        let mut next = Instant::now();
        while let Some(line) = reader.read::<ToServer>().await? {
            match line.content {
                ToServer::LeaderLost { leader } => {
                    tracing::debug!(leader, "the coordinator says that the leader is dead");
                    // Who says it all the time is heard now and then.
                    if Instant::now() < next {
                        continue;
                    }
                    next = Instant::now() + HINT_INTERVAL;
                    if let (Some(recorder), Some(token)) = (&self.recorder, &line.token) {
                        recorder.take_token(token);
                        recorder.on_action(&Action::ServerFailRecvd { failed_server_id: leader });
                    }
                    self.driver.on_leader_suspected();
                }
                ToServer::Refused(why) => return Err(io::Error::other(why)),
                // Who it is, its data says.
                ToServer::Welcome(_) => {}
            }
        }
        Err(io::Error::from(io::ErrorKind::UnexpectedEof))
    }
}
