//! Clients who ask the coordinator for the leader.

use std::io;

use kvraft_coord::{LeaderInfo, ToClient, ToCoordinator, encode};
use tokio::net::{TcpStream, tcp::OwnedWriteHalf};

use super::lines::{LineReader, write_line};

/// A conversation with a coordinator about who leads.
pub struct LeaderWatch {
    reader: LineReader,
    /// Open as long as news are wanted.
    _writer: OwnedWriteHalf,
}

impl LeaderWatch {
    /// Asks the coordinator at `address`.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn open(address: &str, client: &str) -> io::Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, mut writer) = stream.into_split();
        let ask = ToCoordinator::GetLeader { client: client.to_owned() };
        write_line(&mut writer, &encode(&ask)).await?;
        Ok(Self { reader: LineReader::new(reader), _writer: writer })
    }

    /// The leader: the first time as soon as there is one, then whenever it is another.
    ///
    /// # Errors
    /// The coordinator has gone, or does not want to.
    pub async fn news(&mut self) -> io::Result<LeaderInfo> {
        match self.reader.read::<ToClient>().await? {
            Some(line) => match line.content {
                ToClient::Leader(info) => Ok(info),
                ToClient::Refused(why) => Err(io::Error::other(why)),
            },
            None => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the coordinator has gone")),
        }
    }
}

/// Who leads, as the coordinator at `address` says; waits until all servers have joined.
///
/// # Errors
/// As [`LeaderWatch`].
pub async fn ask_leader(address: &str, client: &str) -> io::Result<LeaderInfo> {
    LeaderWatch::open(address, client).await?.news().await
}
