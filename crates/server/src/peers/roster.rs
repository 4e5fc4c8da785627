//! Who the peers are, and who may become one.
//!
//! Why not just the configuration: who has left is still told so for a moment, and who is not known
//! yet may be the leader that will say why. A server that was down while others were added has an
//! old configuration, in which perhaps nobody is left that still runs.
//!
//! Invariants:
//! - a member that left keeps its connections for [`PeerConfig::linger`]; then it is told that it
//!   was removed whenever it asks, and nothing else;
//! - nobody leaves and nobody is told so but by a configuration that is committed and not joint:
//!   such a one is never undone, and an id that it says is used up never comes back. By any other
//!   the rightful leader might be the one that is cut off, and with it the log without the change;
//! - a guest, which is of this cluster and was not removed for all that is known, is believed no
//!   more than any peer; there are few, and one that has gone is forgotten.
//!
//! [`PeerConfig::linger`]: super::PeerConfig::linger

use std::{
    collections::BTreeMap,
    sync::{Arc, PoisonError, RwLockReadGuard, RwLockWriteGuard},
};

use kvraft_base::{Index, MemberId, limits};
use tokio::time::Instant;

use super::{
    Lane, Net, dial,
    frame::Hello,
    link::{Peer, Standing},
};

/// Who takes part, as far as this server knows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peers {
    /// Everyone, and where each can be reached: `host:port`, the likeliest first. This server's own
    /// entry is what it says of itself.
    pub addresses: BTreeMap<MemberId, Vec<String>>,
    /// The entry of the newest configuration that is known to be committed and not joint. Everyone
    /// in it is in `addresses`, so that who has an id up to `id_max` and is not there was removed
    /// for good. Without one nobody is known to be removed.
    pub settled: Option<Index>,
    /// The greatest id that was ever given to a member, as that configuration says.
    pub id_max: MemberId,
}

/// What the tasks of the connections see of it.
#[derive(Default)]
pub(super) struct Roster {
    pub(super) peers: BTreeMap<MemberId, Arc<Peer>>,
    own: Vec<String>,
    id_max: MemberId,
    settled: Option<Index>,
}

/// What is answered to a greeting.
pub(super) enum Admission {
    /// A peer, or a guest.
    Welcome(Arc<Peer>),
    /// It was removed by the configuration at this index.
    Removed(Index),
    /// Why it is not let in.
    Refused(String),
}

/// Most guests at once: as many as one change of members can bring.
const GUEST_COUNT_MAX: usize = limits::VOTERS_MAX + limits::LEARNERS_MAX;

impl Net {
    pub(super) fn roster(&self) -> RwLockReadGuard<'_, Roster> {
        self.roster.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn roster_mut(&self) -> RwLockWriteGuard<'_, Roster> {
        self.roster.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where this server says that it can be reached.
    pub(super) fn own_addresses(&self) -> Vec<String> {
        self.roster().own.clone()
    }

    pub(super) fn peer(&self, id: MemberId) -> Option<Arc<Peer>> {
        self.roster().peers.get(&id).cloned()
    }

    /// Adds, moves and parts with peers.
    pub(super) fn set_peers(self: &Arc<Self>, peers: Peers) {
        let Peers { mut addresses, id_max, settled } = peers;
        let mut roster = self.roster_mut();
        roster.own = addresses.remove(&self.config.me).unwrap_or_default();
        roster.id_max = id_max;
        roster.settled = settled;
        let until = Instant::now() + self.config.linger;
        for (id, peer) in &roster.peers {
            let known = addresses.contains_key(id);
            peer.standing.send_if_modified(|standing| {
                let next = match standing {
                    _ if known => Standing::Member,
                    _ if settled.is_none() => return false,
                    Standing::Guest { .. } if id_max < *id => return false,
                    Standing::Leaving { .. } | Standing::Gone => return false,
                    Standing::Guest { .. } | Standing::Member => Standing::Leaving { until },
                };
                std::mem::replace(standing, next) != next
            });
        }
        for (id, addresses) in addresses {
            match roster.peers.get(&id) {
                Some(peer) => peer.move_to(addresses),
                None => drop(self.begin(&mut roster, id, addresses, Standing::Member)),
            }
        }
    }

    /// A new peer, whom to dial begins at once.
    fn begin(
        self: &Arc<Self>,
        roster: &mut Roster,
        id: MemberId,
        addresses: Vec<String>,
        standing: Standing,
    ) -> Arc<Peer> {
        let peer = Arc::new(Peer::new(id, addresses, standing, Arc::clone(&self.events)));
        roster.peers.insert(id, Arc::clone(&peer));
        for lane in Lane::ALL {
            self.spawn(dial::dial(Arc::clone(self), Arc::clone(&peer), lane));
        }
        self.spawn(watch_over(Arc::clone(self), Arc::clone(&peer)));
        peer
    }

    /// What to answer to a greeting that is for this server.
    pub(super) fn admit(self: &Arc<Self>, hello: &Hello) -> Admission {
        let id = hello.from;
        if id == self.config.me {
            return Admission::Refused(format!("member {id:x} is this server itself"));
        }
        if id == MemberId::ZERO {
            return Admission::Refused("a greeting without a member id".to_owned());
        }
        // Looked at once and as a whole: who becomes a member right now is not taken for one that
        // was removed.
        let mut roster = self.roster_mut();
        if let Some(peer) = roster.peers.get(&id) {
            if peer.is_guest() && !hello.addresses.is_empty() {
                peer.move_to(hello.addresses.clone());
            }
            return Admission::Welcome(Arc::clone(peer));
        }
        if let Some(settled) = roster.settled
            && id <= roster.id_max
        {
            return Admission::Removed(settled);
        }
        let guests = roster.peers.values().filter(|peer| peer.is_guest()).count();
        if hello.addresses.is_empty() {
            let text =
                format!("member {id:x} is unknown here and does not say where it is reached");
            return Admission::Refused(text);
        }
        if GUEST_COUNT_MAX <= guests {
            let text = format!(
                "member {id:x} is unknown here, as are {guests} others: no more are let in"
            );
            return Admission::Refused(text);
        }
        let standing = Standing::Guest { until: Instant::now() + self.config.linger };
        Admission::Welcome(self.begin(&mut roster, id, hello.addresses.clone(), standing))
    }

    /// Ends a peer whose time is over; whether it is.
    fn part_with(&self, peer: &Peer) -> bool {
        let now = Instant::now();
        // Before the roster is locked: who holds a peer's state may look at the roster.
        let is_heard = peer.is_heard();
        let mut roster = self.roster_mut();
        let mut gone = false;
        peer.standing.send_if_modified(|standing| {
            match standing {
                Standing::Guest { until } if *until <= now && is_heard => {
                    *until = now + self.config.linger;
                }
                Standing::Guest { until } | Standing::Leaving { until } if *until <= now => {
                    *standing = Standing::Gone;
                }
                _ => return false,
            }
            gone = *standing == Standing::Gone;
            true
        });
        if gone {
            roster.peers.remove(&peer.id);
        }
        gone
    }
}

/// Parts with a peer when it is time.
async fn watch_over(net: Arc<Net>, peer: Arc<Peer>) {
    let part = async {
        loop {
            peer.expired().await;
            if net.part_with(&peer) {
                tracing::info!(peer = %peer.id, "this peer is gone: its connections are closed");
                return;
            }
        }
    };
    tokio::select! {
        () = net.stopped() => {}
        () = part => {}
    }
}
