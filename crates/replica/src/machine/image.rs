//! The machine as a recording carries it.

use std::collections::{BTreeMap, VecDeque};

use kvraft_base::{Entry, Instant, MemberId, Position};
use kvraft_kv::Kv;
use serde::{Deserialize, Serialize};

use super::{MachineLane, MachineOptions, Row, Settled};

/// Everything that decides what the machine makes of the next entries. Queries are not in it: they
/// change nothing.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct MachineImage {
    me: MemberId,
    incarnation: u64,
    options: MachineOptions,
    pub(crate) kv: Kv,
    backlog: VecDeque<Entry>,
    settling: Option<Position>,
    settled_upto: Position,
    checkpoint_due: Option<Instant>,
    failed: bool,
}

/// What a key, a change of it, a session and a result of one take in an image, about. The bytes of
/// results are in overlay or table.
const KEY_SIZE_BYTES: u64 = 64;
const CHANGE_SIZE_BYTES: u64 = 24;
const SESSION_SIZE_BYTES: u64 = 64;
const RESULT_SIZE_BYTES: u64 = 16;

impl MachineLane {
    /// About how large an image would be, in bytes.
    pub(crate) fn image_size_bytes(&self) -> u64 {
        let stats = self.kv.stats();
        let backlog: usize = self.backlog.iter().map(Entry::size_bytes).sum();
        stats.key_count * KEY_SIZE_BYTES
            + stats.change_count * CHANGE_SIZE_BYTES
            + stats.session_count as u64 * SESSION_SIZE_BYTES
            + stats.result_count as u64 * RESULT_SIZE_BYTES
            + (stats.overlay_size_bytes + backlog) as u64
    }

    /// The machine as it is.
    pub(crate) fn image(&self) -> MachineImage {
        MachineImage {
            me: self.me,
            incarnation: self.incarnation,
            options: self.options,
            kv: self.kv.clone(),
            backlog: self.backlog.clone(),
            settling: self.settling,
            settled_upto: self.settled_upto,
            checkpoint_due: self.checkpoint_due,
            failed: self.failed,
        }
    }

    /// The machine as it was, without a table.
    pub(crate) fn restore(image: MachineImage) -> Self {
        Self {
            me: image.me,
            incarnation: image.incarnation,
            options: image.options,
            kv: image.kv,
            settled: Settled::recorded(),
            backlog: image.backlog,
            queries: BTreeMap::new(),
            readings: VecDeque::new(),
            settling: image.settling,
            settled_upto: image.settled_upto,
            checkpoint_due: image.checkpoint_due,
            failed: image.failed,
            is_recorded: false,
        }
    }

    /// Whether what applying reads from the table is kept from now on.
    pub(crate) fn set_recorded(&mut self, on: bool) {
        self.is_recorded = on;
        self.settled.take_heard();
    }

    /// What applying has read from the table since this was last asked.
    pub(crate) fn take_heard(&mut self) -> Vec<Row> {
        self.settled.take_heard()
    }

    /// In a replay: what the next turn reads.
    pub(crate) fn expect(&mut self, rows: Vec<Row>) {
        self.settled.expect(rows);
    }

    /// In a replay: rows that were read then and not now.
    pub(crate) fn unread_count(&self) -> usize {
        self.settled.unread_count()
    }

    /// What tells one state from another at the price of a few numbers: not all of it.
    pub(crate) fn digest_parts(&self) -> [u64; 5] {
        [
            self.kv.applied().index.0,
            self.kv.revision().0.cast_unsigned(),
            self.kv.overlay_size_bytes() as u64,
            self.backlog.len() as u64,
            self.settling.map_or(0, |position| position.index.0),
        ]
    }
}
