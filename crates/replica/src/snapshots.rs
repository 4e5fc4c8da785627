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
    /// The follower has the log, so what it matches does not say that it has the snapshot.
    state_only: bool,
    /// What the snapshot contains, once its view is open. The journal after it stays.
    position: Option<Position>,
    begun_at: Instant,
    /// Number of the last chunk that the follower has taken.
    taken: Option<u64>,
    resend_at: Instant,
    resend_count: u32,
}

impl Transfer {
    fn new(state_only: bool, now: Instant) -> Self {
        Self {
            state_only,
            position: None,
            begun_at: now,
            taken: None,
            resend_at: now + RESEND_INTERVAL,
            resend_count: 0,
        }
    }
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
    pub(crate) fn begin(&mut self, to: MemberId, state_only: bool, now: Instant) -> bool {
        if self.by_peer.contains_key(&to) {
            return false;
        }
        self.by_peer.insert(to, Transfer::new(state_only, now));
        true
    }

    /// The follower does not know the beginning of this snapshot: true if it is to begin again. A
    /// word on what was sent before the last beginning says nothing.
    pub(crate) fn restart(&mut self, to: MemberId, position: Position, now: Instant) -> bool {
        let Some(transfer) = self.by_peer.get_mut(&to) else { return false };
        let fits = transfer.position == Some(position);
        if !fits || now.since(transfer.begun_at) < RESEND_INTERVAL {
            return false;
        }
        *transfer = Transfer::new(transfer.state_only, now);
        true
    }

    pub(crate) fn on_opened(&mut self, to: MemberId, position: Position) {
        if let Some(transfer) = self.by_peer.get_mut(&to) {
            transfer.position = Some(position);
        }
    }

    /// The follower took something; what it says twice is no sign of progress.
    pub(crate) fn on_taken(&mut self, to: MemberId, position: Position, seq: u64, now: Instant) {
        if let Some(transfer) = self.by_peer.get_mut(&to)
            && transfer.position == Some(position)
            && transfer.taken < Some(seq)
        {
            transfer.taken = Some(seq);
            transfer.resend_at = now + RESEND_INTERVAL;
            transfer.resend_count = 0;
        }
    }

    /// Ends a transfer; false if there was none.
    pub(crate) fn end(&mut self, to: MemberId) -> bool {
        self.by_peer.remove(&to).is_some()
    }

    /// Followers, each with the position at which the log alone shows that it has the snapshot; a
    /// transfer without one ends when nothing is taken any more.
    pub(crate) fn peers(&self) -> Vec<(MemberId, Option<Position>)> {
        let position = |transfer: &Transfer| transfer.position.filter(|_| !transfer.state_only);
        self.by_peer.iter().map(|(peer, transfer)| (*peer, position(transfer))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use kvraft_base::Term;

    const C: MemberId = MemberId(3);

    fn position(index: u64) -> Position {
        Position::new(Term(1), Index(index))
    }

    fn opened(now: Instant) -> Transfers {
        let mut transfers = Transfers::default();
        assert!(transfers.begin(C, false, now));
        transfers.on_opened(C, position(9));
        transfers
    }

    /// Time passes until the transfer is due; what the follower says meanwhile is `say`'s.
    fn ends_after(mut transfers: Transfers, say: impl Fn(&mut Transfers, Instant)) -> Option<u32> {
        for count in 1..100 {
            let now = transfers.deadline();
            let due = transfers.due(now);
            if due == [Due::GiveUp(C)] {
                return Some(count);
            }
            say(&mut transfers, now);
        }
        None
    }

    /// A follower that says the same again and again has not taken anything; one that moves is
    /// waited for.
    #[test]
    fn only_progress_keeps_a_transfer() {
        let begun = Instant(1);
        let give_up = Some(RESEND_COUNT_MAX + 1);
        assert_eq!(ends_after(opened(begun), |_, _| {}), give_up);
        let mut stuck = opened(begun);
        stuck.on_taken(C, position(9), 4, begun);
        assert_eq!(ends_after(stuck, |t, now| t.on_taken(C, position(9), 4, now)), give_up);
        let moving = ends_after(opened(begun), |t, now| t.on_taken(C, position(9), now.0, now));
        assert_eq!(moving, None);
    }

    /// A follower that has forgotten the beginning gets the snapshot again, once for all the parts
    /// that it does not know.
    #[test]
    fn a_forgotten_beginning_is_sent_again_once() {
        let mut transfers = opened(Instant(1));
        let later = Instant(1) + RESEND_INTERVAL;
        assert!(!transfers.restart(C, position(9), Instant(2)), "its first part is on its way");
        assert!(!transfers.restart(C, position(8), later), "that was another snapshot");
        assert!(transfers.restart(C, position(9), later));
        assert!(!transfers.restart(C, position(9), later), "not opened yet");
        transfers.on_opened(C, position(9));
        assert!(!transfers.restart(C, position(9), later + RESEND_INTERVAL / 2));
        assert!(!transfers.restart(MemberId(2), position(9), later));
    }
}
