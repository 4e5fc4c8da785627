//! The node's side of snapshot transfers: pacing, retries, and the freeze while one is installed.

use std::{collections::BTreeMap, time::Duration};

use kvraft_base::{Index, Instant, MemberId, Position};

/// Without a sign of the follower for this long, what was sent is sent once more.
const RESEND_INTERVAL: Duration = Duration::from_millis(500);

/// After so many repeats without a sign the transfer is given up; raft asks again later.
const RESEND_COUNT_MAX: u32 = 10;

/// One outgoing transfer.
#[derive(Debug)]
struct Transfer {
    /// What the snapshot contains, once its view is open. The journal after it stays.
    position: Option<Position>,
    resend_at: Instant,
    resend_count: u32,
}

/// What to do about a transfer whose time has come.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Resend(MemberId),
    GiveUp(MemberId),
}

/// All outgoing transfers.
#[derive(Debug, Default)]
pub(crate) struct Transfers {
    by_peer: BTreeMap<MemberId, Transfer>,
}

impl Transfers {
    /// A transfer begins; false when one to this follower is already under way.
    pub(crate) fn begin(&mut self, to: MemberId, now: Instant) -> bool {
        if self.by_peer.contains_key(&to) {
            return false;
        }
        let resend_at = now + RESEND_INTERVAL;
        self.by_peer.insert(to, Transfer { position: None, resend_at, resend_count: 0 });
        true
    }

    pub(crate) fn on_opened(&mut self, to: MemberId, position: Position) {
        if let Some(transfer) = self.by_peer.get_mut(&to) {
            transfer.position = Some(position);
        }
    }

    /// The follower took something.
    pub(crate) fn on_taken(&mut self, to: MemberId, position: Position, now: Instant) {
        if let Some(transfer) = self.by_peer.get_mut(&to)
            && transfer.position == Some(position)
        {
            transfer.resend_at = now + RESEND_INTERVAL;
            transfer.resend_count = 0;
        }
    }

    /// Ends a transfer; false if there was none.
    pub(crate) fn end(&mut self, to: MemberId) -> bool {
        self.by_peer.remove(&to).is_some()
    }

    pub(crate) fn peers(&self) -> Vec<(MemberId, Option<Position>)> {
        self.by_peer.iter().map(|(peer, transfer)| (*peer, transfer.position)).collect()
    }

    /// The journal after this index must stay: a follower will need it next.
    pub(crate) fn pin(&self) -> Option<Index> {
        self.by_peer.values().filter_map(|t| t.position.map(|p| p.index)).min()
    }

    pub(crate) fn deadline(&self) -> Instant {
        self.by_peer.values().map(|t| t.resend_at).min().unwrap_or(Instant::NEVER)
    }

    /// Transfers whose time has come. Those given up are forgotten.
    pub(crate) fn due(&mut self, now: Instant) -> Vec<Due> {
        let mut due = Vec::new();
        for (peer, transfer) in &mut self.by_peer {
            if now < transfer.resend_at {
                continue;
            }
            transfer.resend_at = now + RESEND_INTERVAL;
            transfer.resend_count += 1;
            let hopeless = RESEND_COUNT_MAX < transfer.resend_count;
            due.push(if hopeless { Due::GiveUp(*peer) } else { Due::Resend(*peer) });
        }
        self.by_peer.retain(|_, transfer| transfer.resend_count <= RESEND_COUNT_MAX);
        due
    }
}
