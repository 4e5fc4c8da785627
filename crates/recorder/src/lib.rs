//! Carries what a node records to the tracing server, and tokens beside what it says to a
//! coordinator.
//!
//! Why apart: servers, coordinators and clients all record, and clients know no server's code.
//! What is recorded is for them to say; here are the clock, the buffer and the connection.
//!
//! Invariants:
//! - nobody ever waits for the tracing server: what is recorded goes into a bounded buffer, and
//!   what finds no room there is counted and not recorded. It takes no tick of the clock either, so
//!   that a full buffer leaves no hole in the trace;
//! - what is in the buffer stays there until the tracing server says that it has it, and is sent
//!   again over a new connection: a node that lives on loses nothing but what found no room;
//! - before the tracing server has said where this node's clock stands no token goes out, so that
//!   nobody can know of a record under a number that changes.
//!
//! What it lacks: what is still in the buffer when the process is killed is lost.

pub mod lines;
mod outbox;
mod sender;
pub mod wire;

pub use outbox::{BUFFER_SIZE_BYTES_MAX, Buffer, Outbox};
pub use sender::send_records;

/// Keys and values as people read them; long ones are cut, which is said.
#[must_use]
pub fn text(bytes: &[u8]) -> String {
    let cut = bytes.get(..TEXT_SIZE_BYTES_MAX);
    let mut text = String::from_utf8_lossy(cut.unwrap_or(bytes)).into_owned();
    if cut.is_some() {
        text.push_str(&format!("… ({} bytes)", bytes.len()));
    }
    text
}

/// Bytes of a key or a value that a record holds: a trace is for people.
const TEXT_SIZE_BYTES_MAX: usize = 256;
