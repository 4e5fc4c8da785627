//! Lines between a coordinator and those who talk to it: a message each, after a token if its
//! sender traces.
//!
//! Invariant: a line that does not end within its bound ends the connection.

use std::{io, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
};

/// How long making a connection may take.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(5);

/// Between questions of the kernel whether a silent other side is still there. Linux gives it up
/// after nine without an answer.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(5);

/// Connects to `address`, a `host:port`, for lines. Another side that vanishes without a word ends
/// the connection within a minute.
///
/// # Errors
/// It cannot be reached, or not in 5 s.
pub async fn connect(address: &str) -> io::Result<TcpStream> {
    let stream = tokio::time::timeout(CONNECT_TIME_MAX, TcpStream::connect(address)).await??;
    stream.set_nodelay(true)?;
    let probes = TcpKeepalive::new().with_time(KEEP_ALIVE_INTERVAL);
    SockRef::from(&stream).set_tcp_keepalive(&probes.with_interval(KEEP_ALIVE_INTERVAL))?;
    Ok(stream)
}

/// A message, and the token that it has brought, in base64.
#[derive(Debug)]
pub struct Line<T> {
    /// What is said.
    pub content: T,
    /// In base64; not looked at here.
    pub token: Option<String>,
}

/// Reads lines.
#[derive(Debug)]
pub struct LineReader {
    from: BufReader<OwnedReadHalf>,
    size_bytes_max: usize,
    /// What has come of a line whose reader did not wait for its end.
    begun: Vec<u8>,
}

impl LineReader {
    /// Reads lines of at most so many bytes.
    #[must_use]
    pub fn new(from: OwnedReadHalf, size_bytes_max: usize) -> Self {
        Self { from: BufReader::new(from), size_bytes_max, begun: Vec::new() }
    }

    /// The next message, which `decode` makes of its text; `None` when the other side has ended.
    /// Whoever stops waiting loses nothing: the next call goes on where this one was.
    ///
    /// # Errors
    /// The connection is broken, or what came is no such line.
    pub async fn read<T>(
        &mut self,
        decode: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<Option<Line<T>>> {
        let room = self.size_bytes_max.saturating_sub(self.begun.len());
        let room = u64::try_from(room).unwrap_or(u64::MAX);
        (&mut self.from).take(room).read_until(b'\n', &mut self.begun).await?;
        let bytes = std::mem::take(&mut self.begun);
        if bytes.is_empty() {
            return Ok(None);
        }
        let bad = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        if bytes.last() != Some(&b'\n') {
            return Err(bad("a line without an end".to_owned()));
        }
        let line = String::from_utf8(bytes).map_err(|error| bad(error.to_string()))?;
        let (token, text) = match line.strip_prefix('@').and_then(|rest| rest.split_once(' ')) {
            Some((token, text)) => (Some(token.to_owned()), text),
            None => (None, line.as_str()),
        };
        Ok(Some(Line { content: decode(text).map_err(bad)?, token }))
    }
}

/// A line that brings a token.
#[must_use]
pub fn with_token(token: Option<String>, line: &str) -> String {
    match token {
        Some(token) => format!("@{token} {line}"),
        None => line.to_owned(),
    }
}

/// Sends a line, which has its end.
///
/// # Errors
/// The connection is broken.
pub async fn write_line(writer: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    writer.write_all(line.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[expect(clippy::unnecessary_wraps, reason = "what a reader asks for")]
    fn text(line: &str) -> Result<String, String> {
        Ok(line.trim_end().to_owned())
    }

    async fn pair() -> (LineReader, OwnedWriteHalf) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let near = connect(&listener.local_addr().unwrap().to_string()).await.unwrap();
        let (far, _) = listener.accept().await.unwrap();
        (LineReader::new(near.into_split().0, 16), far.into_split().1)
    }

    #[tokio::test]
    async fn a_reader_that_stopped_waiting_has_lost_nothing() {
        let (mut reader, mut writer) = pair().await;
        write_line(&mut writer, "@a b").await.unwrap();
        let soon = Duration::from_millis(50);
        tokio::time::timeout(soon, reader.read(text)).await.unwrap_err();
        write_line(&mut writer, "c\n").await.unwrap();
        let line = reader.read(text).await.unwrap().unwrap();
        assert_eq!((line.token.as_deref(), line.content.as_str()), (Some("a"), "bc"));
    }

    #[tokio::test]
    async fn a_line_in_two_parts_is_no_longer_than_its_bound() {
        let (mut reader, mut writer) = pair().await;
        write_line(&mut writer, "0123456789").await.unwrap();
        let soon = Duration::from_millis(50);
        tokio::time::timeout(soon, reader.read(text)).await.unwrap_err();
        write_line(&mut writer, "0123456789\n").await.unwrap();
        let error = reader.read(text).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
