//! How records travel to the tracing server: frames over TCP.
//!
//! A frame is `u32` size of the payload, `u32` checksum of the payload seeded with the frame's
//! number in its direction (from 0), and the payload, little-endian. A payload is a byte that says
//! what it is, and text.
//!
//! Input from the other side is bounded and never believed before its checksum is.

use std::io;

use kvraft_base::checksum_seeded;
use kvraft_trace::clock::VectorClock;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};

/// Bytes of a payload at most.
pub const PAYLOAD_SIZE_BYTES_MAX: usize = 4 << 20;

/// What is said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A node names itself.
    Hello(String),
    /// Lines as in `trace_output.log`.
    Records(String),
    /// The node stops, and has sent everything.
    Bye,
    /// What the tracing server has of the node.
    Welcome(VectorClock),
    /// It has all records up to this number now.
    Taken(u64),
    /// It does not want this node, and why.
    Refused(String),
}

impl Frame {
    fn parts(&self) -> (u8, String) {
        match self {
            Self::Hello(identity) => (1, format!("1 {identity}")),
            Self::Records(lines) => (2, lines.clone()),
            Self::Bye => (3, String::new()),
            Self::Welcome(clock) => (4, clock.to_string()),
            Self::Taken(own) => (5, own.to_string()),
            Self::Refused(why) => (6, why.clone()),
        }
    }

    fn read(payload: Vec<u8>) -> io::Result<Self> {
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let text = String::from_utf8(payload).map_err(|_| bad("a frame is not text"))?;
        let mut letters = text.chars();
        let kind = letters.next().map_or(0, u32::from);
        let text = letters.as_str();
        Ok(match kind {
            1 => match text.split_once(' ') {
                Some(("1", identity)) => Self::Hello(identity.to_owned()),
                _ => return Err(bad("a node speaks another version of the tracing protocol")),
            },
            2 => Self::Records(text.to_owned()),
            3 => Self::Bye,
            4 => Self::Welcome(serde_json::from_str(text).map_err(|_| bad("no vector clock"))?),
            5 => Self::Taken(text.parse().map_err(|_| bad("no number of records"))?),
            6 => Self::Refused(text.to_owned()),
            _ => return Err(bad("a frame of an unknown kind")),
        })
    }
}

/// Writes frames.
#[derive(Debug)]
pub struct Writer<W> {
    to: W,
    count: u64,
}

impl<W: AsyncWrite + Unpin> Writer<W> {
    /// Over a connection on which nothing was said yet.
    pub fn new(to: W) -> Self {
        Self { to, count: 0 }
    }

    /// Writes one, which must fit into a payload.
    ///
    /// # Errors
    /// Those of the connection.
    pub async fn write(&mut self, frame: &Frame) -> io::Result<()> {
        let (kind, text) = frame.parts();
        let mut payload = Vec::with_capacity(1 + text.len());
        payload.push(kind);
        payload.extend_from_slice(text.as_bytes());
        assert!(payload.len() <= PAYLOAD_SIZE_BYTES_MAX, "batches are cut to fit");
        let size = u32::try_from(payload.len()).expect("a payload is at most 4 MiB");
        let checksum = checksum_seeded(self.count, &payload);
        self.count += 1;
        self.to.write_all(&size.to_le_bytes()).await?;
        self.to.write_all(&checksum.to_le_bytes()).await?;
        self.to.write_all(&payload).await?;
        self.to.flush().await
    }
}

/// Reads frames. Not to be dropped in the middle of a frame and used again.
#[derive(Debug)]
pub struct Reader<R> {
    from: R,
    count: u64,
}

impl<R: AsyncRead + Unpin> Reader<R> {
    /// Over a connection on which nothing was heard yet.
    pub fn new(from: R) -> Self {
        Self { from, count: 0 }
    }

    /// The next frame; `None` at a clean end.
    ///
    /// # Errors
    /// Those of the connection, and `InvalidData` for what is no frame.
    pub async fn read(&mut self) -> io::Result<Option<Frame>> {
        let mut head = [0; 8];
        if let Err(error) = self.from.read_exact(&mut head).await {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Ok(None),
                _ => Err(error),
            };
        }
        let [a, b, c, d, e, f, g, h] = head;
        let size = usize::try_from(u32::from_le_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let checksum = u32::from_le_bytes([e, f, g, h]);
        let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        if size == 0 || PAYLOAD_SIZE_BYTES_MAX < size {
            return Err(bad("a frame of an impossible size"));
        }
        // Grows as bytes come: who claims much and sends little costs little.
        let mut payload = Vec::new();
        let limit = u64::try_from(size).unwrap_or(u64::MAX);
        (&mut self.from).take(limit).read_to_end(&mut payload).await?;
        if payload.len() < size {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if checksum_seeded(self.count, &payload) != checksum {
            return Err(bad("a frame whose checksum does not match"));
        }
        self.count += 1;
        Frame::read(payload).map(Some)
    }
}
