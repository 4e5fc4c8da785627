//! The frames that wait for a connection: bounded, never blocking.
//!
//! Invariants:
//! - at most [`limits::PEER_QUEUE_SIZE_BYTES_MAX`] wait, whatever the peer does, and a reserve
//!   beyond for small frames: the newest heartbeat is sent when data has filled the queue;
//! - nothing waits while there is no connection: a frame goes out on the connection that is up, or
//!   it is dropped and counted. Old news would only delay the new after a reconnect.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use kvraft_base::limits;
use tokio::sync::Notify;

use super::SendError;

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
        let most = limits::PEER_QUEUE_SIZE_BYTES_MAX;
        if !limits::peer_frame_finds_room(frame.len(), waiting.size_bytes, most) {
            return Err(SendError::Full);
        }
        waiting.size_bytes += limits::peer_frame_cost(frame.len());
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
        let (mut size_bytes, mut waiting_bytes) = (0, 0);
        while let Some(frame) = waiting.frames.front() {
            if !taken.is_empty() && size_bytes_max < size_bytes + frame.len() {
                break;
            }
            size_bytes += frame.len();
            waiting_bytes += limits::peer_frame_cost(frame.len());
            taken.extend(waiting.frames.pop_front());
        }
        waiting.size_bytes -= waiting_bytes;
        taken
    }

    /// Bytes that wait now, with what each frame takes beside its own.
    pub(super) fn size_bytes(&self) -> u64 {
        self.waiting().size_bytes as u64
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
