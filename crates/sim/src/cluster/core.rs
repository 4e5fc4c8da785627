//! The second phase: some servers stay broken for ever, and the others must make progress.
//!
//! Faults that come and go heal by luck and hide what one that stays would show: a deaf server that
//! forces election after election, a leader that cannot be heard and does not notice.

use std::collections::BTreeSet;

use kvraft_base::{Index, MemberId, Prng};

use super::{
    server::Lanes,
    violation::{Check, Violation},
    world::{Happening, World},
};
use crate::network::Partition;

/// What each client of the core has to do in the second phase, at least.
const CORE_OPERATION_COUNT: u64 = 2;

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
    /// Its disk is very slow.
    Slow,
    /// As the first phase left it, but for links.
    Left,
}

const FATES: [Fate; 7] =
    [Fate::Down, Fate::Paused, Fate::Cut, Fate::Deaf, Fate::Mute, Fate::Slow, Fate::Left];

/// A slow disk's factor.
const SLOWNESS: u64 = 50;

impl World {
    /// Mends a majority for good and leaves the others broken.
    pub(crate) fn begin_core(&mut self, prng: &mut Prng) {
        let core = self.draw_core(prng);
        self.end_plan();
        for id in self.server_ids() {
            if core.contains(&id) {
                self.mend(id);
            } else {
                let fate = *prng.pick(&FATES).expect("any");
                self.leave(id, fate);
            }
        }
        for client in self.clients.values_mut() {
            if client.pinned_to().is_some_and(|home| core.contains(&home)) {
                client.grant(CORE_OPERATION_COUNT);
            }
        }
        for client in self.clients.keys().copied().collect::<Vec<_>>() {
            self.after(std::time::Duration::ZERO, Happening::ClientWake { client });
        }
        self.core = core;
    }

    /// A majority, if possible with a client that depends on it.
    fn draw_core(&self, prng: &mut Prng) -> BTreeSet<MemberId> {
        let servers = self.server_ids();
        let count = servers.len() as u64;
        let wanted = prng.between(count / 2 + 1, count);
        let homes: Vec<MemberId> = self.clients.values().filter_map(|c| c.pinned_to()).collect();
        let mut core: BTreeSet<MemberId> = prng.pick(&homes).copied().into_iter().collect();
        while (core.len() as u64) < wanted {
            core.insert(*prng.pick(&servers).expect("at least one server"));
        }
        // A server whose disk was hit may need the others before it can help anybody.
        let majority = servers.len() / 2 + 1;
        let sound = || servers.iter().filter(|id| !self.rotted.contains(id));
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
        let servers = self.server_ids();
        match fate {
            Fate::Down => self.kill(id),
            Fate::Paused => self.pause(id),
            Fate::Cut => self.disconnect(id),
            Fate::Deaf => self.network.partition(&Partition::Deaf(id), &servers),
            Fate::Mute => self.network.partition(&Partition::Mute(id), &servers),
            Fate::Slow => self.servers[&id].disk.set_slowness(SLOWNESS),
            Fate::Left => {}
        }
    }

    /// The core's clients are served, and its servers agree on everything so far.
    pub(crate) fn has_core_progressed(&self) -> bool {
        let end = Index(self.checks.agreed().len() as u64);
        let is_behind = |lanes: &Lanes| lanes.machine.kv().applied().index != end;
        let mut clients = self.clients.values();
        clients.all(|client| {
            client.is_done() || client.pinned_to().is_none_or(|home| !self.core.contains(&home))
        }) && self.core.iter().all(|id| {
            let lanes = self.servers[id].lanes.as_ref();
            lanes.is_some_and(|lanes| !is_behind(lanes))
        })
    }

    /// Nobody in the core was served in time.
    pub(crate) fn no_progress(&self) -> Violation {
        let core: Vec<_> = self.core.iter().map(ToString::to_string).collect();
        let detail = format!("servers {} are well: {}", core.join(", "), self.describe_state());
        Violation::new(Check::Progress, detail)
    }
}
