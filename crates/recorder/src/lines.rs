//! Lines between a coordinator and those who talk to it: a message each, after a token if its
//! sender traces.
//!
//! Invariant: a line that does not end within its bound ends the connection.

use std::io;

use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::tcp::{OwnedReadHalf, OwnedWriteHalf},
};

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
}

impl LineReader {
    /// Reads lines of at most so many bytes.
    #[must_use]
    pub fn new(from: OwnedReadHalf, size_bytes_max: usize) -> Self {
        Self { from: BufReader::new(from), size_bytes_max }
    }

    /// The next message, which `decode` makes of its text; `None` when the other side has ended.
    ///
    /// # Errors
    /// The connection is broken, or what came is no such line.
    pub async fn read<T>(
        &mut self,
        decode: impl Fn(&str) -> Result<T, String>,
    ) -> io::Result<Option<Line<T>>> {
        let mut bytes = Vec::new();
        let most = u64::try_from(self.size_bytes_max).unwrap_or(u64::MAX);
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
