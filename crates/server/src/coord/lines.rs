//! Lines over a connection: a message each, after a token if its sender traces.
//!
//! Invariant: a line that does not end within its bound ends the connection.

use std::io;

use kvraft_coord::{LINE_SIZE_BYTES_MAX, decode};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

/// A message, and the token that it has brought, in base64.
pub(super) struct Line<T> {
    pub(super) content: T,
    pub(super) token: Option<String>,
}

pub(super) struct LineReader {
    from: BufReader<OwnedReadHalf>,
}

impl LineReader {
    pub(super) fn new(from: OwnedReadHalf) -> Self {
        Self { from: BufReader::new(from) }
    }

    /// The next message; `None` when the other side has ended.
    pub(super) async fn read<T: DeserializeOwned>(&mut self) -> io::Result<Option<Line<T>>> {
        let mut bytes = Vec::new();
        let most = u64::try_from(LINE_SIZE_BYTES_MAX).unwrap_or(u64::MAX);
        (&mut self.from).take(most).read_until(b'\n', &mut bytes).await?;
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
pub(super) fn with_token(token: Option<String>, line: &str) -> String {
    match token {
        Some(token) => format!("@{token} {line}"),
        None => line.to_owned(),
    }
}

pub(super) async fn write_line(writer: &mut OwnedWriteHalf, line: &str) -> io::Result<()> {
    writer.write_all(line.as_bytes()).await
}
