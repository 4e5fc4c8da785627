//! Clients who ask the coordinator for the leader.

use std::io;

use kvraft_coord::{LeaderInfo, ToClient, ToCoordinator, encode};
use tokio::net::{TcpStream, tcp::OwnedWriteHalf};

use super::lines::{LineReader, with_token, write_line};

/// A conversation with a coordinator about who leads.
pub struct LeaderWatch {
    reader: LineReader,
    /// Open as long as news are wanted.
    _writer: OwnedWriteHalf,
    token: Option<String>,
}

impl LeaderWatch {
    /// Asks the coordinator at `address`. A client that traces gives a token, in base64, and gets
    /// one with each answer.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn open(address: &str, client: &str, token: Option<String>) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let ask = ToCoordinator::GetLeader { client: client.to_owned() };
        write_line(&mut writer, &with_token(token, &encode(&ask))).await?;
        Ok(Self { reader: LineReader::new(reader), _writer: writer, token: None })
    }

    /// The leader: the first time as soon as there is one, then whenever it is another, and when
    /// all servers have joined.
    ///
    /// # Errors
    /// The coordinator has gone, or does not want to.
    pub async fn news(&mut self) -> io::Result<LeaderInfo> {
        match self.reader.read::<ToClient>().await? {
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
    /// trace.
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
