//! The second phase: some servers stay broken for ever, and the others must make progress.
//!
//! Faults that come and go heal by luck and hide what one that stays would show: a deaf server that
//! forces election after election, a leader that cannot be heard and does not notice.

use std::{collections::BTreeSet, time::Duration};

use kvraft_base::{Index, MemberId, Prng};

use super::{
    server::Lanes,
    violation::{Check, Violation},
    world::{Happening, World},
};
use crate::network::{Endpoint, Partition};

/// How a server outside the core stays broken.
#[derive(Clone, Copy, Debug)]
enum Fate {
    /// It does not run.
    Down,
    /// It runs and stands still.
    Paused,
    /// Nothing reaches it, and it reaches nobody.
    Cut,
    /// Its peers do not reach it.
    Deaf,
    /// It does not reach its peers.
    Mute,
    /// Some of its peers do not reach it, and it does not reach others.
    OneWay,
    /// It is cut off, and back, and cut off again.
    Flapping,
    /// Its disk is very slow.
    Slow,
    /// As the first phase left it, but for links.
    Left,
}

const FATES: [Fate; 9] = [
    Fate::Down,
    Fate::Paused,
    Fate::Cut,
    Fate::Deaf,
    Fate::Mute,
    Fate::OneWay,
    Fate::Flapping,
    Fate::Slow,
    Fate::Left,
];

/// A slow disk's factor.
const SLOWNESS: u64 = 50;

impl World {
    /// Mends a majority for good and leaves the others broken.
    pub(crate) fn begin_core(&mut self, prng: &mut Prng) {
        self.dismiss_operators();
        self.find_healed();
        let core = self.draw_core(prng);
        let members = self.members_in_use();
        self.end_plan();
        for id in self.server_ids() {
            if core.contains(&id) {
                self.mend(id);
            } else if members.contains(&id) {
                let fate = *prng.pick(&FATES).expect("any");
                self.leave(id, fate);
            }
        }
        for (id, client) in &mut self.clients {
            let is_served = client.pinned_to().is_some_and(|home| core.contains(&home));
            if is_served && let Some(pause) = client.grant() {
                self.heap.push(self.now + pause, Happening::ClientWake { client: *id });
            }
        }
        self.core = core;
    }

    /// Who is mended: the members, or a majority of them, and whoever else may come to be needed.
    fn draw_core(&self, prng: &mut Prng) -> BTreeSet<MemberId> {
        let servers = self.members_in_use();
        let mut core = if self.config.leave_broken {
            self.draw_majority(&servers, prng)
        } else {
            servers.into_iter().collect()
        };
        self.complete_core(&mut core);
        core
    }

    /// A majority, if possible with a client that depends on it.
    fn draw_majority(&self, servers: &[MemberId], prng: &mut Prng) -> BTreeSet<MemberId> {
        let count = servers.len() as u64;
        let wanted = prng.between(count / 2 + 1, count);
        let mut homes: Vec<MemberId> =
            self.clients.values().filter_map(|c| c.pinned_to()).collect();
        homes.retain(|home| servers.contains(home));
        let mut core: BTreeSet<MemberId> = prng.pick(&homes).copied().into_iter().collect();
        while (core.len() as u64) < wanted {
            core.insert(*prng.pick(servers).expect("at least one server"));
        }
        // A server whose disk was hit may need the others before it can help anybody.
        let majority = servers.len() / 2 + 1;
        let sound = || servers.iter().filter(|id| !self.hurt.contains(id));
        for id in sound() {
            if majority <= sound().filter(|id| core.contains(id)).count() {
                break;
            }
            core.insert(*id);
        }
        core
    }

    fn leave(&mut self, id: MemberId, fate: Fate) {
        self.sometimes.left_behind += 1;
        self.trace.record(self.now, None, "leave", id.0, || format!("s{id} {fate:?}"));
        if let Some(recording) = &mut self.recording {
            recording.on_world(self.now, "LeftBroken", format!("server{id} {fate:?}"));
        }
        let servers = self.server_ids();
        match fate {
            Fate::Down => self.kill(id),
            Fate::Paused => self.pause(id),
            Fate::Cut => self.disconnect(id),
            Fate::Deaf => self.network.partition(&Partition::Deaf(id), &servers),
            Fate::Mute => self.network.partition(&Partition::Mute(id), &servers),
            Fate::OneWay => {
                self.is_partial = true;
                self.block_some(id, &servers);
            }
            Fate::Flapping => self.after(Duration::ZERO, Happening::Flap { server: id }),
            Fate::Slow => self.servers[&id].disk.set_slowness(SLOWNESS),
            Fate::Left => {}
        }
    }

    /// Stops one direction of each of its links, or none.
    fn block_some(&mut self, id: MemberId, servers: &[MemberId]) {
        for peer in servers.iter().filter(|peer| **peer != id) {
            let (here, there) = (Endpoint::Server(id), Endpoint::Server(*peer));
            match self.core_prng.below(3) {
                0 => self.network.block(here, there),
                1 => self.network.block(there, here),
                _ => {}
            }
        }
    }

    /// The core's clients are served, and its servers agree on everything so far. A server with
    /// one-way links may lead: who hears it does not help those who do not, so that the least is
    /// that somebody leads a quorum and has committed everything.
    pub(crate) fn has_core_progressed(&self) -> bool {
        if self.is_partial {
            return self.is_led();
        }
        let end = Index(self.checks.agreed().len() as u64);
        let is_behind = |lanes: &Lanes| lanes.machine.kv().applied().index != end;
        let mut clients = self.clients.values();
        clients.all(|client| {
            client.is_done() || client.pinned_to().is_none_or(|home| !self.core.contains(&home))
        }) && self.members_in_use().iter().filter(|id| self.core.contains(id)).all(|id| {
            let lanes = self.servers[id].lanes.as_ref();
            lanes.is_some_and(|lanes| !is_behind(lanes))
        })
    }

    fn is_led(&self) -> bool {
        let Some(leader) = self.leader() else { return false };
        let (_, members) = self.checks.members_of(leader);
        let status = |id: &MemberId| {
            let lanes = self.servers.get(id).and_then(|server| server.lanes.as_ref());
            lanes.map(|lanes| lanes.node.status())
        };
        let has_all = status(&leader).is_some_and(|status| status.commit == status.last.index);
        has_all
            && members
                .is_quorum(|id| status(&id).is_some_and(|status| status.leader == Some(leader)))
    }

    /// Nobody in the core was served in time, which was `after`.
    pub(crate) fn no_progress(&self, after: Duration) -> Violation {
        let core: Vec<_> = self.core.iter().map(ToString::to_string).collect();
        let detail =
            format!("servers {} are well: {}", core.join(", "), self.describe_state(after));
        Violation::new(Check::Progress, detail)
    }
}
