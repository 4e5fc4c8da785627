//! The tracing server: gathers what nodes record, and writes it to two files.
//!
//! Invariants:
//! - a node's records stand in both files in the order of its own count, each once; a record that
//!   comes again is dropped. Records of a killed node that others know of and that will never come
//!   are stood in for by `RecordsLost`, so that a trace has no holes;
//! - a node that starts again goes on where its clock stood;
//! - what has been taken is in the files within a second, and at once when the server stops;
//! - a node that sends rubbish loses its connection, and nobody else notices.
//!
//! What it lacks: TLS and any check of who a node is; it listens on loopback unless told otherwise.
//! Its files are begun anew when it starts, and so are the clocks that it knows.

mod files;
mod nodes;

use std::{
    io,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use kvraft_trace::{clock, record::Record};
use serde::{Deserialize, Serialize};
use tokio::{
    net::{TcpListener, TcpStream, tcp::OwnedReadHalf},
    sync::{Semaphore, mpsc, watch},
    task::{JoinHandle, JoinSet},
    time::timeout,
};

use self::{
    files::{Files, write_records},
    nodes::{Batch, Nodes},
};
use crate::recorder::wire::{Frame, Reader, Writer};

/// What a tracing server is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct CollectorConfig {
    /// Where nodes are listened for.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The trace, as JSON lines.
    #[serde(default = "default_output")]
    pub output_file: PathBuf,
    /// The same for ShiViz.
    #[serde(default = "default_shiviz_output")]
    pub shiviz_output_file: PathBuf,
}

impl Default for CollectorConfig {
    fn default() -> Self {
        Self {
            listen: default_listen(),
            output_file: default_output(),
            shiviz_output_file: default_shiviz_output(),
        }
    }
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 23_000))
}

fn default_output() -> PathBuf {
    "trace_output.log".into()
}

fn default_shiviz_output() -> PathBuf {
    "shiviz_output.log".into()
}

/// Why a tracing server could not start, or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum CollectorError {
    /// The address is in use, or not of this machine.
    #[error("cannot listen for nodes on {address}: {error}")]
    Listen {
        /// The configured address.
        address: SocketAddr,
        /// The system's own words.
        error: io::Error,
    },
    /// A file cannot be written.
    #[error("cannot write {path}: {error}")]
    File {
        /// The file.
        path: PathBuf,
        /// The system's own words.
        error: io::Error,
    },
}

/// A running tracing server.
#[derive(Debug)]
pub struct Collector {
    local_address: SocketAddr,
    stopping: watch::Sender<bool>,
    accepting: JoinHandle<()>,
    writing: JoinHandle<Result<u64, CollectorError>>,
}

/// Nodes that may be connected at once.
const CONNECTIONS_MAX: usize = 1024;

/// Batches that may wait for the files; nodes that send more wait.
const BATCHES_MAX: usize = 64;

/// How long a stranger may take to name itself.
const HELLO_MAX: Duration = Duration::from_secs(5);

/// How long connections may take to end.
const END_MAX: Duration = Duration::from_secs(1);

/// What all connections share.
struct Shared {
    nodes: Mutex<Nodes>,
    room: Arc<Semaphore>,
    stop: watch::Receiver<bool>,
}

impl Collector {
    /// Starts on the runtime that it is called in. Files that are there are written anew.
    ///
    /// # Errors
    /// [`CollectorError`].
    pub async fn start(config: CollectorConfig) -> Result<Self, CollectorError> {
        let address = config.listen;
        let failed = |error| CollectorError::Listen { address, error };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let local_address = listener.local_addr().map_err(failed)?;
        let files = Files::create(&config)?;
        let (to_files, batches) = mpsc::channel(BATCHES_MAX);
        let stopping = watch::Sender::new(false);
        let shared = Shared {
            nodes: Mutex::default(),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            stop: stopping.subscribe(),
        };
        let writing = tokio::spawn(write_records(files, batches));
        let accepting = tokio::spawn(accept(listener, Arc::new(shared), to_files));
        Ok(Self { local_address, stopping, accepting, writing })
    }

    /// Where nodes are listened for.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.local_address
    }

    /// Returns when the files cannot be written any more, and why.
    ///
    /// # Errors
    /// [`CollectorError::File`].
    pub async fn failed(&mut self) -> Result<(), CollectorError> {
        (&mut self.writing).await.expect("writing does not panic").map(drop)
    }

    /// Ends every connection, writes out what has come, and says how many records there were.
    ///
    /// # Errors
    /// [`CollectorError::File`].
    pub async fn stop(self) -> Result<u64, CollectorError> {
        self.stopping.send_replace(true);
        self.accepting.await.expect("accepting does not panic");
        self.writing.await.expect("writing does not panic")
    }
}

/// Serves nodes until told to stop.
async fn accept(listener: TcpListener, shared: Arc<Shared>, files: mpsc::Sender<Batch>) {
    let mut nodes = JoinSet::new();
    let mut stop = shared.stop.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            _ = stop.wait_for(|stop| *stop) => break,
        };
        while nodes.try_join_next().is_some() {}
        let Ok((stream, from)) = accepted else {
            // Such as too many open files: it passes.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let Ok(permit) = Arc::clone(&shared.room).try_acquire_owned() else {
            tracing::warn!(%from, "too many nodes are connected: refused");
            continue;
        };
        let (shared, files) = (Arc::clone(&shared), files.clone());
        nodes.spawn(async move {
            serve(stream, from, &shared, &files).await;
            drop(permit);
        });
    }
    let ended = async { while nodes.join_next().await.is_some() {} };
    if timeout(END_MAX, ended).await.is_err() {
        tracing::warn!("connections of nodes did not end in time and were cut");
    }
}

/// Serves one node until it goes, sends rubbish, or the server stops.
async fn serve(stream: TcpStream, from: SocketAddr, shared: &Shared, files: &mpsc::Sender<Batch>) {
    let mut stop = shared.stop.clone();
    let mut identity = String::new();
    let ended = tokio::select! {
        ended = converse(stream, shared, files, &mut identity) => ended,
        _ = stop.wait_for(|stop| *stop) => Ok(()),
    };
    match ended {
        Ok(()) => tracing::info!(%from, identity, "a node has gone"),
        Err(error) => tracing::warn!(%from, identity, "a node's connection ended: {error}"),
    }
}

async fn converse(
    stream: TcpStream,
    shared: &Shared,
    files: &mpsc::Sender<Batch>,
    identity: &mut String,
) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let (reader, writer) = stream.into_split();
    let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
    *identity = match greeting(&mut reader).await {
        Ok(Some(identity)) => identity,
        Ok(None) => return Ok(()),
        Err(error) => {
            writer.write(&Frame::Refused(error.to_string())).await?;
            return Err(error);
        }
    };
    let (session, clock) = shared.nodes().welcome(identity)?;
    tracing::info!(identity, own = clock.get(identity), "a node has come");
    writer.write(&Frame::Welcome(clock)).await?;
    while let Some(frame) = reader.read().await? {
        let lines = match frame {
            Frame::Records(lines) => lines,
            Frame::Bye => return Ok(()),
            _ => return Err(rubbish("a frame that nodes do not send")),
        };
        let taken = records_in(&lines);
        // Room first: what is taken is then certain to get to the files, in order.
        let room = files.reserve().await.map_err(|_| io::Error::other("the files are closed"))?;
        let taken = taken.and_then(|records| {
            let mut nodes = shared.nodes();
            let (batch, own) = nodes.take(identity, session, records)?;
            room.send(batch);
            Ok(own)
        });
        match taken {
            Ok(own) => writer.write(&Frame::Taken(own)).await?,
            Err(error) => {
                writer.write(&Frame::Refused(error.to_string())).await?;
                return Err(error);
            }
        }
    }
    Ok(())
}

/// A record a line, and nothing else.
fn records_in(lines: &str) -> io::Result<Vec<Record>> {
    let records = (1..).zip(lines.lines()).map(|(number, line)| Record::from_json(line, number));
    records.collect::<Result<_, _>>().map_err(|error| rubbish(&error.to_string()))
}

/// The name of whoever has come.
async fn greeting(reader: &mut Reader<OwnedReadHalf>) -> io::Result<Option<String>> {
    match timeout(HELLO_MAX, reader.read()).await {
        Err(_) => Err(io::ErrorKind::TimedOut.into()),
        Ok(Ok(None)) => Ok(None),
        Ok(Ok(Some(Frame::Hello(identity)))) if clock::is_identity(&identity) => Ok(Some(identity)),
        Ok(Ok(Some(Frame::Hello(_)))) => Err(rubbish("a node's name is one word of 128 bytes")),
        Ok(Ok(Some(_))) => Err(rubbish("a node names itself first")),
        Ok(Err(error)) => Err(error),
    }
}

fn rubbish(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

impl Shared {
    fn nodes(&self) -> std::sync::MutexGuard<'_, Nodes> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[path = "collector/tests.rs"]
mod tests;
