//! A server and its coordinator: joining, reporting, and what it makes of a hint.
//!
//! Invariant: nothing in a server waits for the coordinator, once the server has data.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use kvraft_base::{ClusterId, MemberId};
use kvraft_coord::{
    Candidate, Hello, LINE_SIZE_BYTES_MAX, Membership, Report, ToCoordinator, ToServer, decode,
    encode,
};
use kvraft_raft::RoleName;
use kvraft_recorder::lines::{LineReader, connect, with_token, write_line};
use kvraft_trace::action::Action;
use tokio::{
    net::tcp::OwnedWriteHalf,
    sync::{Notify, watch},
    time::{Instant, MissedTickBehavior},
};

use crate::{
    board::Board,
    config::{MemberConfig, derived_id},
    driver::Driver,
    recorder::Recorder,
};

/// Wait before another try.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);

/// How long a coordinator may take to answer a server that has data.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// How long a server that traces waits for its first token before it joins.
const TOKEN_WAIT_MAX: Duration = Duration::from_millis(500);

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
            Ok(Ok(membership)) => return joined(membership),
            Ok(Err(refused)) => return Err(refused),
            Err(error) => {
                if !std::mem::replace(&mut was_told, true) {
                    tracing::warn!(%address, "no coordinator: {error}; tries again and again");
                }
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
    }
}

async fn try_join(address: &str, hello: &Hello) -> io::Result<Result<Membership, CoordError>> {
    let (reader, mut writer) = connect(address).await?.into_split();
    write_line(&mut writer, &encode(&ToCoordinator::Join(hello.clone()))).await?;
    tracing::info!(%address, "waits until all servers have joined");
    let mut reader = LineReader::new(reader, LINE_SIZE_BYTES_MAX);
    loop {
        match reader.read(decode).await?.ok_or_else(gone)?.content {
            ToServer::Welcome(membership) => return Ok(Ok(membership)),
            ToServer::Refused(why) => return Ok(Err(CoordError::Refused(why))),
            // Hints are not for a server without data.
            _ => {}
        }
    }
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
        following.wait_for_tokens().await;
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

/// What a server has heard and not yet dealt with.
#[derive(Default)]
struct Heard {
    /// Of whose death it was told; 0: nobody's.
    failed: AtomicU64,
    /// It was asked how its log ends.
    asked: Notify,
}

impl Following {
    /// A trace tells more where the join has its token. Nothing but the coordinator waits, and not
    /// for long: the tracing server need not be there.
    async fn wait_for_tokens(&self) {
        let Some(recorder) = &self.recorder else { return };
        // Without a token the join is as good.
        let _in_time = tokio::time::timeout(TOKEN_WAIT_MAX, recorder.gives_tokens()).await;
    }

    async fn follow_once(&self, was_told: &mut bool) -> io::Result<()> {
        let (reader, mut writer) = connect(&self.address).await?.into_split();
        let mut reader = LineReader::new(reader, LINE_SIZE_BYTES_MAX);
        let server_id = self.hello.member.unwrap_or_default();
        let join = ToCoordinator::Join(self.hello.clone());
        self.send(&mut writer, &join, Some(&Action::ServerJoining { server_id })).await?;
        let token = tokio::time::timeout(ANSWER_TIME_MAX, acceptance(&mut reader)).await??;
        self.take_token(token.as_deref());
        *was_told = false;
        tracing::info!(address = %self.address, "reports to the coordinator");
        let heard = Heard::default();
        tokio::select! {
            ended = self.report_on(writer, &heard) => ended,
            ended = self.listen(reader, &heard) => ended,
        }
    }

    /// Says how this server is: regularly, at once when it has lost or found a leader, and when it
    /// is asked.
    async fn report_on(&self, mut writer: OwnedWriteHalf, heard: &Heard) -> io::Result<()> {
        let server_id = self.hello.member.unwrap_or_default();
        let first = ToCoordinator::Report(self.report());
        self.send(&mut writer, &first, Some(&Action::ServerJoined { server_id })).await?;
        let mut led = self.board.led();
        let mut ticks = tokio::time::interval(self.report_interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let is_asked = tokio::select! {
                _ = ticks.tick() => false,
                changed = led.changed() => if changed.is_ok() { false } else { return Ok(()) },
                () = heard.asked.notified() => true,
            };
            let report = self.report();
            self.look_whether_handled(heard, report);
            let (message, action) = if is_asked {
                let Candidate { term, index: log_idx } = report.last;
                // Its token is made after it is recorded.
                let token = Some(String::new());
                let state = Action::ServerLogState { server_id, term, log_idx, token };
                (ToCoordinator::LogState(report), Some(state))
            } else {
                (ToCoordinator::Report(report), None)
            };
            self.send(&mut writer, &message, action.as_ref()).await?;
        }
    }

    /// A failure is dealt with as soon as somebody else leads.
    fn look_whether_handled(&self, heard: &Heard, report: Report) {
        let failed_server_id = heard.failed.load(Ordering::Relaxed);
        let is_led = report.leader.is_some_and(|leader| leader != failed_server_id);
        if failed_server_id != 0 && is_led {
            heard.failed.store(0, Ordering::Relaxed);
            self.record(&Action::ServerFailHandled { failed_server_id });
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

    async fn listen(&self, mut reader: LineReader, heard: &Heard) -> io::Result<()> {
        let mut next = Instant::now();
        while let Some(line) = reader.read(decode::<ToServer>).await? {
            match line.content {
                ToServer::GetLogState {} => {
                    self.take_token(line.token.as_deref());
                    heard.asked.notify_one();
                }
                ToServer::LeaderLost { leader } => {
                    tracing::debug!(leader, "the coordinator says that the leader is dead");
                    // Who says it all the time is heard now and then.
                    if Instant::now() < next {
                        continue;
                    }
                    next = Instant::now() + HINT_INTERVAL;
                    self.take_token(line.token.as_deref());
                    self.record(&Action::ServerFailRecvd { failed_server_id: leader });
                    heard.failed.store(leader, Ordering::Relaxed);
                    self.driver.on_leader_suspected();
                }
                ToServer::Refused(why) => return Err(io::Error::other(why)),
                // Who it is, its data says.
                ToServer::Welcome(_) | ToServer::Joined {} => {}
            }
        }
        Err(gone())
    }

    /// Sends a message, after its action if that is recorded; a token goes with it then.
    async fn send(
        &self,
        writer: &mut OwnedWriteHalf,
        message: &ToCoordinator,
        action: Option<&Action>,
    ) -> io::Result<()> {
        let token = self.recorder.as_ref().zip(action).and_then(|(recorder, action)| {
            recorder.on_action(action);
            recorder.give_token()
        });
        write_line(writer, &with_token(token, &encode(message))).await
    }

    fn record(&self, action: &Action) {
        if let Some(recorder) = &self.recorder {
            recorder.on_action(action);
        }
    }

    fn take_token(&self, token: Option<&str>) {
        if let (Some(recorder), Some(token)) = (&self.recorder, token) {
            recorder.take_token(token);
        }
    }
}

/// Waits until the coordinator takes this server; the token that it says so with.
async fn acceptance(reader: &mut LineReader) -> io::Result<Option<String>> {
    loop {
        let line = reader.read(decode::<ToServer>).await?.ok_or_else(gone)?;
        match line.content {
            ToServer::Joined {} => return Ok(line.token),
            ToServer::Refused(why) => return Err(io::Error::other(why)),
            // It does not report yet, and is in no hurry.
            _ => {}
        }
    }
}

fn gone() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "the coordinator has gone")
}
