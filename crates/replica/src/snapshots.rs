//! The node's side of outgoing snapshots: retries, pacing, and the journal that stays for those who
//! receive them.
//!
//! Why the journal stays longer than a transfer lasts: while a snapshot travels the log goes on,
//! and a follower that has installed it reads the rest from the journal. If that were released the
//! moment the snapshot is there, then under steady load the follower would be behind the journal
//! again before it had read on, and would get one snapshot after the other.
//!
//! Invariants:
//! - the journal after a snapshot, or after what its receiver has matched since, stays until the
//!   receiver is in step and sent what is in memory: what is only on the way to it may get lost;
//! - a transfer of which all was taken lasts as long as its receiver says that it installs: given
//!   up then, the journal after it would go, and the next snapshot would end like it;
//! - the journal does not stay for one that makes no progress ([`TAIL_PATIENCE`], and the bound on
//!   repeats during the transfer), nor when it has grown by more than [`HELD_GROWTH_BYTES_BASE`]
//!   and twice the snapshot since that was begun: then another snapshot costs less than to read
//!   all that.

use std::{collections::BTreeMap, time::Duration};

use kvraft_base::{Index, Instant, MemberId, Position};
use serde::{Deserialize, Serialize};

use crate::frame::SnapshotChunk;

pub(crate) use pace::Pace;

mod pace;

/// Without a sign of the follower for this long, what was sent is sent once more.
const RESEND_INTERVAL: Duration = Duration::from_millis(500);

/// After so many repeats without a sign the transfer is given up, and raft asks again later: half a
/// minute, so that a connection that comes back within that goes on where it was.
const RESEND_COUNT_MAX: u32 = 60;

/// The same for a follower that has the log: it takes only as much of what comes after as it can
/// keep in memory until it has its state.
const RESEND_COUNT_MAX_STATE_ONLY: u32 = 10;

/// A follower that has its snapshot and has not moved for so long gets no more consideration than
/// others: it may be gone for good.
const TAIL_PATIENCE: Duration = Duration::from_secs(30);

/// The journal may grow by this much, and twice the snapshot, for one follower: some seconds of all
/// that a disk can write, so that small snapshots get through any load.
const HELD_GROWTH_BYTES_BASE: u64 = 1 << 30;

/// One outgoing transfer.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct OutgoingSnapshot {
    /// The follower has the log, so what it matches does not say that it has the snapshot.
    state_only: bool,
    /// The follower has said that its state is durable there.
    is_installed: bool,
    /// What the snapshot contains, once its view is open. The journal after it stays.
    position: Option<Position>,
    begun_at: Instant,
    /// Number of the last chunk that the follower has taken.
    taken: Option<u64>,
    resend_at: Instant,
    resend_count: u32,
    /// Number of the last chunk that has left.
    sent: Option<u64>,
    growth: Growth,
}

/// What has been written to the journal since a snapshot was begun, and what that is measured by.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Growth {
    journal_bytes: u64,
    snapshot_bytes: u64,
}

impl Growth {
    fn is_excessive(self) -> bool {
        HELD_GROWTH_BYTES_BASE + 2 * self.snapshot_bytes < self.journal_bytes
    }
}

/// A follower that has its snapshot and still needs the journal.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Tail {
    /// It has everything up to here.
    matched: Index,
    /// When that has moved last.
    moved_at: Instant,
    growth: Growth,
}

impl OutgoingSnapshot {
    fn new(state_only: bool, now: Instant) -> Self {
        Self {
            state_only,
            is_installed: false,
            position: None,
            begun_at: now,
            taken: None,
            resend_at: now + RESEND_INTERVAL,
            resend_count: 0,
            sent: None,
            growth: Growth::default(),
        }
    }

    fn is_hopeless(&self) -> bool {
        let count_max =
            if self.state_only { RESEND_COUNT_MAX_STATE_ONLY } else { RESEND_COUNT_MAX };
        count_max < self.resend_count
    }

    /// Whether a follower that has taken the chunk with this number, once more, has taken all that
    /// was sent.
    fn has_all(&self, seq: u64) -> bool {
        self.taken == Some(seq) && self.sent == Some(seq)
    }

    /// The journal after this index stays for the receiver.
    fn pin(&self) -> Option<Index> {
        let held = !self.growth.is_excessive();
        self.position.filter(|_| held).map(|position| position.index)
    }
}

/// What to do about a transfer whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Resend(MemberId),
    GiveUp(MemberId),
}

/// All outgoing transfers, and those who have just received one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct OutgoingSnapshots {
    by_peer: BTreeMap<MemberId, OutgoingSnapshot>,
    tails: BTreeMap<MemberId, Tail>,
}

impl OutgoingSnapshots {
    /// A transfer begins; false when one to this follower is already under way.
    pub(crate) fn begin(&mut self, to: MemberId, state_only: bool, now: Instant) -> bool {
        if self.by_peer.contains_key(&to) {
            return false;
        }
        // The journal after an earlier snapshot stays meanwhile: what is asked for may be late and
        // that snapshot enough, and this one holds nothing before it is open.
        self.by_peer.insert(to, OutgoingSnapshot::new(state_only, now));
        true
    }

    /// A transfer to a follower that cannot be reached is given up before it begins: what its view
    /// shows would be old when the follower is back, and the view and the journal after it would be
    /// held until then.
    pub(crate) fn refuse(&mut self, to: MemberId, now: Instant) {
        // As one whose last repeat is overdue: it ends like any that makes no progress, and raft
        // hears of that in one way only.
        let refused = || OutgoingSnapshot {
            resend_at: now,
            resend_count: RESEND_COUNT_MAX,
            ..OutgoingSnapshot::new(false, now)
        };
        self.by_peer.entry(to).or_insert_with(refused);
    }

    /// The follower does not know the beginning of this snapshot: true if it is to begin again. A
    /// word on what was sent before the last beginning says nothing.
    pub(crate) fn restart(&mut self, to: MemberId, position: Position, now: Instant) -> bool {
        let Some(transfer) = self.by_peer.get_mut(&to) else { return false };
        let fits = transfer.position == Some(position);
        if !fits || now.since(transfer.begun_at) < RESEND_INTERVAL {
            return false;
        }
        *transfer = OutgoingSnapshot::new(transfer.state_only, now);
        true
    }

    pub(crate) fn on_opened(&mut self, to: MemberId, position: Position) {
        if let Some(transfer) = self.by_peer.get_mut(&to) {
            transfer.position = Some(position);
        }
    }

    /// The follower took something. What it says twice is no sign of progress, unless it has taken
    /// all: then it installs that.
    pub(crate) fn on_taken(&mut self, to: MemberId, position: Position, seq: u64, now: Instant) {
        if let Some(transfer) = self.by_peer.get_mut(&to)
            && transfer.position == Some(position)
            && (transfer.taken < Some(seq) || transfer.has_all(seq))
        {
            transfer.taken = Some(seq);
            transfer.resend_at = now + RESEND_INTERVAL;
            transfer.resend_count = 0;
        }
    }

    /// The follower's state holds this snapshot, or more.
    pub(crate) fn on_installed(&mut self, to: MemberId, position: Position) {
        if let Some(transfer) = self.by_peer.get_mut(&to)
            && transfer.position == Some(position)
        {
            transfer.is_installed = true;
        }
    }

    /// A chunk has left. Its answer is waited for from now on.
    pub(crate) fn on_sent(&mut self, to: MemberId, chunk: &SnapshotChunk, now: Instant) {
        if let Some(transfer) = self.by_peer.get_mut(&to)
            && transfer.position == Some(chunk.position)
        {
            transfer.resend_at = now + RESEND_INTERVAL;
            if transfer.sent < Some(chunk.seq) {
                transfer.sent = Some(chunk.seq);
                transfer.growth.snapshot_bytes += chunk.bytes.len() as u64;
            }
        }
    }

    /// A connection is back: what was not taken is sent at once.
    pub(crate) fn on_connected(&mut self, to: MemberId, now: Instant) {
        if let Some(transfer) = self.by_peer.get_mut(&to) {
            transfer.resend_at = transfer.resend_at.min(now);
        }
    }

    /// Ends a transfer. The journal stays for a follower that has the snapshot.
    pub(crate) fn end(&mut self, to: MemberId, received: Option<Position>, now: Instant) {
        let Some(transfer) = self.by_peer.remove(&to) else { return };
        if let Some(position) = received {
            let tail = Tail { matched: position.index, moved_at: now, growth: transfer.growth };
            self.tails.insert(to, tail);
        }
    }

    /// So many bytes have been written to the journal.
    pub(crate) fn on_written(&mut self, size_bytes: u64) {
        let transfers = self.by_peer.values_mut().map(|transfer| &mut transfer.growth);
        for growth in transfers.chain(self.tails.values_mut().map(|tail| &mut tail.growth)) {
            growth.journal_bytes += size_bytes;
        }
    }

    /// Whether any have received a snapshot and may still need the journal.
    pub(crate) fn has_tails(&self) -> bool {
        !self.tails.is_empty()
    }

    /// Looks at those who have received a snapshot: `needs_from` says up to where a follower has
    /// the log if it still needs what the journal has after that.
    pub(crate) fn tend_tails(
        &mut self,
        now: Instant,
        needs_from: impl Fn(MemberId) -> Option<Index>,
    ) {
        self.tails.retain(|peer, tail| {
            let Some(matched) = needs_from(*peer) else { return false };
            if tail.matched < matched {
                tail.matched = matched;
                tail.moved_at = now;
            }
            now.since(tail.moved_at) < TAIL_PATIENCE && !tail.growth.is_excessive()
        });
    }

    /// Followers, each with the position at which its log shows that it has the snapshot; of one
    /// that has the log anyway only when it has said that it has the state, too.
    pub(crate) fn peers(&self) -> Vec<(MemberId, Option<Position>)> {
        let position =
            |it: &OutgoingSnapshot| it.position.filter(|_| !it.state_only || it.is_installed);
        self.by_peer.iter().map(|(peer, transfer)| (*peer, position(transfer))).collect()
    }

    /// The journal after this index must stay: a follower will need it next.
    pub(crate) fn pin(&self) -> Option<Index> {
        let transfers = self.by_peer.values().filter_map(OutgoingSnapshot::pin);
        transfers.chain(self.tails.values().map(|tail| tail.matched)).min()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.by_peer.values().map(|t| t.resend_at).min().unwrap_or(Instant::NEVER)
    }

    /// Transfers whose time has come. Those given up are forgotten. `is_waiting` says of whom there
    /// are chunks that have not left yet: nothing of theirs is overdue.
    pub(crate) fn due(&mut self, now: Instant, is_waiting: impl Fn(MemberId) -> bool) -> Vec<Due> {
        let mut due = Vec::new();
        for (peer, transfer) in &mut self.by_peer {
            if now < transfer.resend_at {
                continue;
            }
            transfer.resend_at = now + RESEND_INTERVAL;
            if is_waiting(*peer) {
                continue;
            }
            transfer.resend_count += 1;
            let hopeless = transfer.is_hopeless();
            due.push(if hopeless { Due::GiveUp(*peer) } else { Due::Resend(*peer) });
        }
        self.by_peer.retain(|_, transfer| !transfer.is_hopeless());
        due
    }
}

#[cfg(test)]
mod tests;
