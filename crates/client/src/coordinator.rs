//! What a client asks of a coordinator, and hears from it: who leads, and where the servers are.
//!
//! Invariant: the coordinator is believed in nothing but where to ask first. Servers say who leads.

use std::{io, sync::Weak, time::Duration};

use kvraft_coord::{LINE_SIZE_BYTES_MAX, LeaderInfo, ToClient, ToCoordinator, decode, encode};
use kvraft_recorder::lines::{LineReader, connect, with_token, write_line};
use tokio::net::tcp::OwnedWriteHalf;

use crate::{
    client::{Client, Inner},
    traced::Traced,
};

/// Before a coordinator that has gone is asked again.
const RETRY_INTERVAL: Duration = Duration::from_secs(1);

/// A coordinator that has just started knows few of the servers: those that run report to it within
/// this time. Later ones are not among the endpoints.
const GATHER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a client that traces waits for its first token before it asks: see
/// [`Traced::gives_tokens`].
const TOKEN_WAIT_MAX: Duration = Duration::from_millis(500);

/// A conversation with a coordinator about who leads.
#[derive(Debug)]
pub struct LeaderWatch {
    reader: LineReader,
    /// Open as long as news are wanted.
    _writer: OwnedWriteHalf,
    token: Option<String>,
}

impl LeaderWatch {
    /// Asks the coordinator at `address`, a `host:port`, as `client`. A client that traces gives a
    /// token, in base64, and gets one with each answer.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn open(address: &str, client: &str, token: Option<String>) -> io::Result<Self> {
        let (reader, mut writer) = connect(address).await?.into_split();
        let ask = ToCoordinator::GetLeader { client: client.to_owned() };
        write_line(&mut writer, &with_token(token, &encode(&ask))).await?;
        let reader = LineReader::new(reader, LINE_SIZE_BYTES_MAX);
        Ok(Self { reader, _writer: writer, token: None })
    }

    /// The leader: the first time as soon as there is one, then whenever it is another, and when
    /// all servers have joined.
    ///
    /// # Errors
    /// The coordinator has gone, or does not want to.
    pub async fn news(&mut self) -> io::Result<LeaderInfo> {
        match self.reader.read(decode::<ToClient>).await? {
            Some(line) => {
                self.token = line.token;
                match line.content {
                    ToClient::Leader(info) => Ok(info),
                    ToClient::Refused(why) => Err(io::Error::other(why)),
                }
            }
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the coordinator has gone")),
        }
    }

    /// The token that the newest answer has brought, in base64; none if the coordinator does not
    /// trace, or was asked without one.
    pub fn take_token(&mut self) -> Option<String> {
        self.token.take()
    }
}

/// Who leads, as the coordinator at `address` says; waits until somebody does.
///
/// # Errors
/// As [`LeaderWatch`].
pub async fn ask_leader(address: &str, client: &str) -> io::Result<LeaderInfo> {
    LeaderWatch::open(address, client, None).await?.news().await
}

/// Asks at `address` until somebody leads and, for one that `waits_for_all`, all servers have
/// joined. The conversation goes on.
pub(crate) async fn ask(
    address: &str,
    name: &str,
    traced: Option<&Traced>,
    waits_for_all: bool,
) -> io::Result<(LeaderInfo, LeaderWatch)> {
    if let Some(traced) = traced {
        // Without a token the question is as good.
        let _in_time = tokio::time::timeout(TOKEN_WAIT_MAX, traced.gives_tokens()).await;
        traced.on_leader_asked();
    }
    let token = traced.and_then(Traced::token);
    let mut watch = LeaderWatch::open(address, name, token).await?;
    let mut info = told_news(&mut watch, traced).await?;
    let patience = if waits_for_all { Duration::MAX } else { GATHER_TIME_MAX };
    let gathered = async {
        while !info.all_joined {
            info = told_news(&mut watch, traced).await?;
        }
        io::Result::Ok(())
    };
    match tokio::time::timeout(patience, gathered).await {
        Ok(Ok(())) | Err(_) => Ok((info, watch)),
        Ok(Err(error)) => Err(error),
    }
}

async fn told_news(watch: &mut LeaderWatch, traced: Option<&Traced>) -> io::Result<LeaderInfo> {
    let info = watch.news().await?;
    if let Some(traced) = traced {
        traced.take_token(watch.take_token().as_deref());
        traced.on_leader_told(info.server);
    }
    Ok(info)
}

/// Hears of new leaders for as long as the client lives, and asks each of them first from then on.
/// A coordinator that has gone is asked again now and then; nothing else waits for it.
pub(crate) async fn follow(
    client: Weak<Inner>,
    address: String,
    name: String,
    mut watch: Option<LeaderWatch>,
) {
    while 0 < client.strong_count() {
        if let Some(open) = &mut watch {
            while let Some(Ok(info)) = while_alive(&client, open.news()).await {
                let Some(inner) = client.upgrade() else { return };
                Client { inner }.on_news(&info, open.take_token().as_deref());
            }
        }
        tokio::time::sleep(RETRY_INTERVAL).await;
        watch = LeaderWatch::open(&address, &name, None).await.ok();
    }
}

/// Waits no longer than the client lives, give or take a moment.
async fn while_alive<T>(client: &Weak<Inner>, what: impl Future<Output = T>) -> Option<T> {
    let mut what = std::pin::pin!(what);
    while 0 < client.strong_count() {
        if let Ok(done) = tokio::time::timeout(RETRY_INTERVAL, &mut what).await {
            return Some(done);
        }
    }
    None
}

impl Client {
    fn on_news(&self, info: &LeaderInfo, token: Option<&str>) {
        if let Some(traced) = &self.inner.traced {
            traced.take_token(token);
        }
        let mut endpoints = self.endpoints();
        let Some((leader, _)) = endpoints.find(|(_, name)| *name == info.client) else { return };
        if self.inner.session().preferred() == leader {
            return;
        }
        if let Some(traced) = &self.inner.traced {
            traced.on_leader_changed(info.server);
        }
        self.inner.session().prefer(leader);
    }
}
