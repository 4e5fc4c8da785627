//! The frames that wait for a connection: bounded, never blocking.
//!
//! Invariants:
//! - at most [`FRAME_COUNT_MAX`] frames and [`SIZE_BYTES_MAX`] bytes wait, whatever the peer does;
//! - nothing waits while there is no connection: a frame goes out on the connection that is up, or
//!   it is dropped and counted. Old news would only delay the new after a reconnect.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kvraft_base::limits::FRAME_SIZE_BYTES_MAX;
use tokio::sync::Notify;

use super::SendError;

/// Most frames that wait for one connection.
pub(super) const FRAME_COUNT_MAX: usize = 8192;

/// Most bytes that wait for one connection: a tenth of a second at 1 Gb/s, and always several
/// frames of the greatest size.
pub(super) const SIZE_BYTES_MAX: usize = 16 * 1024 * 1024;

const _: () = assert!(2 * FRAME_SIZE_BYTES_MAX <= SIZE_BYTES_MAX, "the greatest frame must fit");

#[derive(Debug, Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    frames: VecDeque<Bytes>,
    size_bytes: usize,
    open: bool,
}

impl Queue {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Accepts frames from now on: a connection is up.
    pub(super) fn open(&self) {
        self.waiting().open = true;
    }

    /// Drops what waits and everything that comes until the next `open`; says how many waited.
    pub(super) fn close(&self) -> u64 {
        let mut waiting = self.waiting();
        let count = waiting.frames.len() as u64;
        *waiting = Waiting::default();
        count
    }

    /// Adds a frame, unless there is no connection or no room.
    pub(super) fn push(&self, frame: Bytes) -> Result<(), SendError> {
        let mut waiting = self.waiting();
        if !waiting.open {
            return Err(SendError::Closed);
        }
        let size_bytes = waiting.size_bytes + frame.len();
        if FRAME_COUNT_MAX <= waiting.frames.len() || SIZE_BYTES_MAX < size_bytes {
            return Err(SendError::Full);
        }
        waiting.size_bytes = size_bytes;
        waiting.frames.push_back(frame);
        drop(waiting);
        self.arrived.notify_one();
        Ok(())
    }

    /// Takes frames in order: at least one if there is any, and no more than fit in
    /// `size_bytes_max` after that.
    pub(super) fn take(&self, size_bytes_max: usize) -> Vec<Bytes> {
        let mut waiting = self.waiting();
        let mut taken = Vec::new();
        let mut size_bytes = 0;
        while let Some(frame) = waiting.frames.front() {
            if !taken.is_empty() && size_bytes_max < size_bytes + frame.len() {
                break;
            }
            size_bytes += frame.len();
            taken.extend(waiting.frames.pop_front());
        }
        waiting.size_bytes -= size_bytes;
        taken
    }

    /// Lets the next `arrived` return at once if frames are still waiting.
    pub(super) fn again(&self) {
        if !self.waiting().frames.is_empty() {
            self.arrived.notify_one();
        }
    }

    /// Waits until something may have been added. May return for nothing.
    pub(super) async fn arrived(&self) {
        self.arrived.notified().await;
    }
}
