//! What is wrong with whom, for how long: read off the world, whoever made it so.
//!
//! Why not from the plan: a plan says what was meant to happen; who was hit, and for how long,
//! depends on who led, who was up, and what mended it.

use std::collections::{BTreeMap, BTreeSet};

use kvraft_base::{Instant, MemberId};
use kvraft_trace::run::{Band, BandKind, Change, Event, NodeId, Power};

use super::Recording;
use crate::{
    cluster::{server::Server, world::World},
    network::{Endpoint, Network},
    plan::RATE_PPM,
};

/// What can be wrong with one server; the kind is that of the band.
type Key = (Endpoint, BandKind);

/// Bands that have begun and not ended.
#[derive(Clone, Debug, Default)]
pub(super) struct Bands {
    open: BTreeMap<Key, Open>,
    paused: BTreeSet<MemberId>,
    up: BTreeSet<MemberId>,
}

#[derive(Clone, Debug)]
struct Open {
    node: NodeId,
    from: u64,
    text: String,
}

impl Bands {
    /// From now on the band of `key` says `text`; nothing is wrong if that is `None`.
    fn set(&mut self, now: u64, key: Key, node: NodeId, text: Option<String>, to: &mut Vec<Band>) {
        if self.open.get(&key).map(|open| &open.text) == text.as_ref() {
            return;
        }
        if let Some(open) = self.open.remove(&key) {
            to.push(open.close(key.1, now));
        }
        if let Some(text) = text {
            self.open.insert(key, Open { node, from: now, text });
        }
    }

    /// The run is over.
    pub(super) fn close_all(&mut self, now: u64, to: &mut Vec<Band>) {
        for (key, open) in std::mem::take(&mut self.open) {
            to.push(open.close(key.1, now));
        }
        to.sort_by_key(|band| band.from);
    }
}

impl Open {
    fn close(self, kind: BandKind, now: u64) -> Band {
        let Self { node, from, text } = self;
        Band { nodes: vec![node], kind, from, to: now, text: text.into() }
    }
}

impl Recording {
    /// Who runs and who stands still.
    pub(super) fn look_at_processes(&mut self, world: &World) {
        for server in world.servers.values() {
            let id = server.id;
            if server.is_up() != self.bands.up.contains(&id) {
                self.process_changed(world.now, id, server.is_up());
            }
            let is_paused = server.paused && server.is_up();
            if is_paused != self.bands.paused.contains(&id) {
                self.pause_changed(world.now, id, is_paused);
            }
        }
    }

    fn process_changed(&mut self, now: Instant, id: MemberId, is_up: bool) {
        if is_up {
            self.bands.up.insert(id);
        } else {
            self.bands.up.remove(&id);
        }
        let text = (!is_up).then(|| "its process does not run".to_owned());
        self.set(now, Endpoint::Server(id), BandKind::Crash, text);
    }

    fn pause_changed(&mut self, now: Instant, id: MemberId, is_paused: bool) {
        let is_up = self.bands.up.contains(&id);
        if is_paused {
            self.bands.paused.insert(id);
        } else {
            self.bands.paused.remove(&id);
        }
        let node = self.server(id);
        let (kind, power) =
            if is_paused { ("Pause", Power::Paused) } else { ("Resume", Power::Up) };
        // Who is down resumes by ending: that was said.
        if is_up {
            let changes = vec![Change::Power(power)];
            self.push(Event { changes, ..Event::new(now.0, node, kind) });
        }
        let text = is_paused.then(|| "its process stands still".to_owned());
        self.set(now, Endpoint::Server(id), BandKind::Pause, text);
    }

    /// Disks, clocks and links.
    pub(super) fn look_at_faults(&mut self, world: &World) {
        for server in world.servers.values() {
            let end = Endpoint::Server(server.id);
            self.set(world.now, end, BandKind::Disk, disk_trouble(server));
            self.set(world.now, end, BandKind::Clock, clock_trouble(server));
        }
        let mut cut = cuts(world);
        for id in world.servers.keys() {
            let end = Endpoint::Server(*id);
            self.set(world.now, end, BandKind::Partition, cut.remove(&end));
            self.set(world.now, end, BandKind::Link, clogs(&world.network, end, world.now));
        }
    }

    fn set(&mut self, now: Instant, end: Endpoint, kind: BandKind, text: Option<String>) {
        let node = self.node(end);
        self.bands.set(now.0, (end, kind), node, text, &mut self.run.bands);
    }
}

fn disk_trouble(server: &Server) -> Option<String> {
    let trouble = server.disk.trouble();
    let mut said = Vec::new();
    if 1 < trouble.slowness {
        said.push(format!("its disk takes {} times as long", trouble.slowness));
    }
    if trouble.is_bounded {
        said.push("its disk has little or no room".to_owned());
    }
    if trouble.is_armed {
        said.push("its disk is about to fail".to_owned());
    }
    (!said.is_empty()).then(|| said.join(", "))
}

fn clock_trouble(server: &Server) -> Option<String> {
    if server.clock.is_stopped() {
        return Some("its clocks stand still".to_owned());
    }
    let rate = server.clock.rate_ppm();
    (rate != RATE_PPM).then(|| format!("its clocks run at {} % of the time", rate / 10_000))
}

/// Who is cut off from whom. Of all ways to say which links are closed, the one that names the
/// fewest: again and again whoever most of the links are of that nobody has been named for.
fn cuts(world: &World) -> BTreeMap<Endpoint, String> {
    let ends: Vec<Endpoint> = world.servers.keys().map(|id| Endpoint::Server(*id)).collect();
    let pairs = ends.iter().flat_map(|from| ends.iter().map(move |to| (*from, *to)));
    let is_closed =
        |(from, to): &(Endpoint, Endpoint)| from != to && world.network.is_blocked(*from, *to);
    let mut closed: BTreeSet<(Endpoint, Endpoint)> = pairs.filter(is_closed).collect();
    let mut named = BTreeMap::new();
    while !closed.is_empty() {
        let links = |end: &Endpoint| closed.iter().filter(|(f, t)| f == end || t == end).count();
        let worst = ends.iter().rev().max_by_key(|end| links(end));
        let worst = *worst.expect("a closed link has ends");
        let to: BTreeSet<_> = closed.iter().filter(|l| l.0 == worst).map(|l| l.1).collect();
        let from: BTreeSet<_> = closed.iter().filter(|l| l.1 == worst).map(|l| l.0).collect();
        closed.retain(|(f, t)| *f != worst && *t != worst);
        named.insert(worst, say_cut(&to, &from));
    }
    for end in ends {
        if world.network.is_offline(end) {
            named.insert(end, "cut off from everybody, clients too".to_owned());
        }
    }
    named
}

fn say_cut(to: &BTreeSet<Endpoint>, from: &BTreeSet<Endpoint>) -> String {
    let mut said = Vec::new();
    let both: BTreeSet<_> = to & from;
    let groups = [
        ("cut off from", both.clone()),
        ("cannot reach", to - &both),
        ("does not hear", from - &both),
    ];
    for (what, group) in groups.into_iter().filter(|(_, group)| !group.is_empty()) {
        let names: Vec<_> = group.iter().map(ToString::to_string).collect();
        said.push(format!("{what} {}", names.join(" ")));
    }
    said.join(", ")
}

fn clogs(network: &Network, end: Endpoint, now: Instant) -> Option<String> {
    let to: Vec<_> = network.clogged_from(end, now).map(|to| to.to_string()).collect();
    (!to.is_empty()).then(|| format!("what it sends to {} is held back", to.join(" ")))
}
