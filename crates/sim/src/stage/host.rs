//! A machine with a server on it, and a client with its operations.

use std::{collections::VecDeque, time::Duration};

use kvraft_base::Instant;

use super::{Heard, System};
use crate::{clock::Clock, disk::SimDisk, stage::script::Line};

/// What wall clocks show in the beginning.
const WALL_ORIGIN_MS: i64 = 1_700_000_000_000;

/// A machine: its disk and clocks outlive its process.
pub(super) struct Host<S: System> {
    pub(super) disk: SimDisk,
    pub(super) clock: Clock,
    pub(super) process: Option<S::Server>,
    /// Grows with every process: what was meant for an earlier one is void.
    pub(super) boot: u64,
    pub(super) is_paused: bool,
    /// Until then its disk works on the last step.
    pub(super) busy_until: Instant,
    /// What it has not heard yet because it is paused or busy.
    pub(super) waiting: VecDeque<Heard<S>>,
    /// When it wants to be woken, by its own clock.
    pub(super) wake_at: Option<Instant>,
}

impl<S: System> Host<S> {
    pub(super) fn new(disk: SimDisk) -> Self {
        Self {
            disk,
            clock: Clock::new(WALL_ORIGIN_MS),
            process: None,
            boot: 0,
            is_paused: false,
            busy_until: Instant::ZERO,
            waiting: VecDeque::new(),
            wake_at: None,
        }
    }

    pub(super) fn is_up(&self) -> bool {
        self.process.is_some()
    }

    /// The process is no more, and nothing that it was about to hear.
    pub(super) fn end(&mut self) {
        self.process = None;
        self.is_paused = false;
        self.busy_until = Instant::ZERO;
        self.waiting.clear();
        self.wake_at = None;
        self.disk = self.disk.reboot();
        // What a dead process spent is nobody's.
        let _: Duration = self.disk.take_cost();
    }
}

/// A client and what it is to do.
pub(super) struct Player<S: System> {
    pub(super) client: S::Client,
    pub(super) lines: VecDeque<Line<S::Operation>>,
    /// The call that it has not answered, by number.
    pub(super) calling: Option<usize>,
    pub(super) wake_at: Option<Instant>,
}

impl<S: System> Player<S> {
    pub(super) fn is_done(&self) -> bool {
        self.calling.is_none() && self.lines.is_empty()
    }
}
