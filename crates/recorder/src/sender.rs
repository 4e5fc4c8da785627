//! Carries records to the tracing server, for as long as this node runs.
//!
//! Invariant: a failure here is a line in the log and another try; nothing waits for it.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    net::{TcpStream, tcp},
    sync::watch,
    time::{Instant, timeout},
};

use crate::{
    outbox::{Buffer, Outbox},
    wire::{Frame, PAYLOAD_SIZE_BYTES_MAX, Reader, Writer},
};

/// Wait before another try.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Longest wait for a connection and its greeting.
const HANDSHAKE_MAX: Duration = Duration::from_secs(2);

/// How long the tracing server may take over a batch. After that the connection is a dead one.
const TAKEN_MAX: Duration = Duration::from_secs(10);

/// How long a stopping node tries to get rid of its last records.
const FAREWELL_MAX: Duration = Duration::from_secs(1);

/// How often losses are told at most.
const LOSS_INTERVAL: Duration = Duration::from_secs(10);

/// Bytes of lines in a batch, about. A line can be larger than that by itself.
const BATCH_SIZE_BYTES: usize = 256 << 10;

/// Sends to the tracing server at `address`, as `host:port`. Runs until told to stop, and then
/// until everything is sent or a second has passed.
pub async fn send_records(
    outbox: Arc<Outbox>,
    address: String,
    mut stopping: watch::Receiver<bool>,
) {
    let mut losses = Losses { told: 0, next: Instant::now() };
    let mut was_refused = false;
    loop {
        let connected = connect(&outbox, &address);
        let stopped = stopping.wait_for(|stop| *stop);
        let ended = tokio::select! {
            ended = async {
                let link = connected.await?;
                was_refused = false;
                carry(&outbox, link, &mut losses).await
            } => ended,
            _ = stopped => break,
        };
        let Err(error) = ended;
        if !std::mem::replace(&mut was_refused, true) {
            tracing::warn!(%address, "no tracing server: {error}; tries again and again");
        }
        losses.tell(&outbox);
        tokio::select! {
            () = tokio::time::sleep(RETRY_INTERVAL) => {}
            _ = stopping.wait_for(|stop| *stop) => break,
        }
    }
    let farewell = timeout(FAREWELL_MAX, say_farewell(&outbox, &address)).await;
    let left = outbox.buffer().waiting.len();
    if !matches!(farewell, Ok(Ok(()))) && 0 < left {
        tracing::warn!(left, "records did not reach the tracing server");
    }
    losses.next = Instant::now();
    losses.tell(&outbox);
}

/// A connection that has been greeted.
struct Link {
    reader: Reader<tcp::OwnedReadHalf>,
    writer: Writer<tcp::OwnedWriteHalf>,
}

enum Never {}

async fn connect(outbox: &Outbox, address: &str) -> io::Result<Link> {
    let greeted = async {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let (reader, writer) = stream.into_split();
        let (mut reader, mut writer) = (Reader::new(reader), Writer::new(writer));
        let identity = outbox.buffer().tracer.identity().to_string();
        writer.write(&Frame::Hello(identity)).await?;
        match reader.read().await? {
            Some(Frame::Welcome(clock)) => {
                outbox.start(&clock);
                tracing::info!(%address, "traces");
                Ok(Link { reader, writer })
            }
            Some(Frame::Refused(why)) => Err(io::Error::other(why)),
            _ => Err(io::Error::other("it does not speak the tracing protocol")),
        }
    };
    timeout(HANDSHAKE_MAX, greeted).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

/// Sends what there is, batch by batch, until the connection fails.
async fn carry(outbox: &Outbox, mut link: Link, losses: &mut Losses) -> io::Result<Never> {
    loop {
        send_all(outbox, &mut link).await?;
        losses.tell(outbox);
        outbox.filled.notified().await;
    }
}

/// Sends until nothing waits.
async fn send_all(outbox: &Outbox, link: &mut Link) -> io::Result<()> {
    loop {
        let (lines, own) = batch(&outbox.buffer());
        if lines.is_empty() {
            return Ok(());
        }
        link.writer.write(&Frame::Records(lines)).await?;
        let answer = timeout(TAKEN_MAX, link.reader.read()).await;
        match answer.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))? {
            Some(Frame::Taken(taken)) if own <= taken => outbox.buffer().taken(own),
            Some(Frame::Refused(why)) => return Err(io::Error::other(why)),
            _ => return Err(io::Error::other("the connection to the tracing server ended")),
        }
    }
}

/// The first records that wait, and the number of the last of them.
fn batch(buffer: &Buffer) -> (String, u64) {
    let (mut lines, mut own) = (String::new(), 0);
    for record in &buffer.waiting {
        let line = record.to_json();
        assert!(line.len() < PAYLOAD_SIZE_BYTES_MAX / 2, "what is recorded is cut");
        lines.push_str(&line);
        lines.push('\n');
        own = record.own();
        if BATCH_SIZE_BYTES <= lines.len() {
            break;
        }
    }
    (lines, own)
}

async fn say_farewell(outbox: &Outbox, address: &str) -> io::Result<()> {
    let mut link = connect(outbox, address).await?;
    send_all(outbox, &mut link).await?;
    link.writer.write(&Frame::Bye).await
}

/// Losses are told when there are new ones, and not too often.
struct Losses {
    told: u64,
    next: Instant,
}

impl Losses {
    fn tell(&mut self, outbox: &Outbox) {
        let lost = outbox.buffer().lost_count();
        if self.told < lost && self.next <= Instant::now() {
            tracing::warn!(lost, "things were not recorded, since too many wait to be sent");
            self.told = lost;
            self.next = Instant::now() + LOSS_INTERVAL;
        }
    }
}
