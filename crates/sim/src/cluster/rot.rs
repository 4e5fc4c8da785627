//! Disks that go wrong without a word: bits of a server that is down flip, its writes were lost or
//! went elsewhere, sectors cannot be read.
//!
//! What exactly is drawn when it happens, from the number in the plan, since only then is it known
//! what there is. Of the newest segment of a journal only what later batches attest is hit: no
//! server can tell the damage of the last batch from a torn write.
//!
//! Invariants:
//! - a server that was hit may lose what it had durable, but then it must know;
//! - until a server that was hit is whole again, the others can do without it, whatever
//!   configuration may come: what was acknowledged stays on a quorum.

use std::ops::Range;

use kvraft_base::{Disk, MemberId, Prng};
use kvraft_replica::Fatal;
use kvraft_store::{DumpItem, Note, TableError, dump};

use super::{server::Standing, sometimes::Sometimes, world::World};
use crate::{
    disk::{SECTOR_SIZE_BYTES, SimDisk},
    plan::{Decay, Part},
};

const SECTOR: u64 = SECTOR_SIZE_BYTES as u64;

/// A write that goes wrong has up to so many sectors.
const SECTOR_COUNT_MAX: u64 = 8;

impl World {
    /// Power is lost, and when it comes back the disk does not have what was written.
    pub(crate) fn rot(&mut self, id: MemberId, decay: Decay, part: Part, draw: u64) {
        let in_use = |world: &Self| {
            world.servers.get(&id).is_some_and(|server| server.standing == Standing::InUse)
        };
        if !in_use(self) {
            return;
        }
        self.find_healed();
        let may_hit = match part {
            Part::Journal => self.may_lose(id),
            // Its log is whole, so that it votes, but it does not lead without its state: of two
            // the other one must be able to.
            Part::Table => self.may_lose(id) || self.may_be_led_past(id),
        };
        if !may_hit {
            return;
        }
        self.crash(id);
        let disk = self.servers[&id].disk.reboot();
        let mut prng = Prng::new(draw);
        let Some(place) = choose(&disk, part, &mut prng) else { return };
        let is_hit = match decay {
            Decay::Flip => choose_byte(&disk, &place, &mut prng)
                .is_some_and(|offset| disk.damage(&place.path, offset, 1 << prng.below(8))),
            Decay::Misdirect => misdirect(&disk, &place, &mut prng),
            Decay::Lose => lose_writes(&disk, &place, &mut prng),
            Decay::Misread => misread(&disk, &place, &mut prng),
        };
        let _: std::time::Duration = disk.take_cost();
        if !is_hit {
            return;
        }
        self.rotted.insert(id);
        self.hurt.insert(id);
        match part {
            Part::Table => self.sometimes.table_rotted += 1,
            Part::Journal => self.sometimes.journal_rotted += 1,
        }
        match decay {
            Decay::Flip => {}
            Decay::Misdirect => self.sometimes.misdirected += 1,
            Decay::Lose => self.sometimes.writes_lost += 1,
            Decay::Misread => self.sometimes.misreads += 1,
        }
        self.sometimes.newest_rotted += u64::from(place.is_newest);
    }

    /// A sector cannot be read any more: whoever needs it ends, and cannot start before it can.
    pub(crate) fn break_sector(&mut self, id: MemberId, part: Part, draw: u64) {
        let Some(server) = self.servers.get(&id) else { return };
        let disk = server.disk.clone();
        let mut prng = Prng::new(draw);
        let Some(place) = choose_whole(&disk, part, &mut prng) else { return };
        let Some(offset) = choose_byte(&disk, &place, &mut prng) else { return };
        if disk.break_sector(&place.path, offset) {
            self.sometimes.bad_sectors += 1;
        }
    }

    /// Servers that were hit, that run and say that nothing is missing, and on whose disk no
    /// damaged sector is left.
    pub(crate) fn find_healed(&mut self) {
        let servers = &self.servers;
        let is_hurt = |id: &MemberId| {
            let Some(server) = servers.get(id) else { return false };
            let is_whole = server.lanes.as_ref().is_some_and(|lanes| {
                let status = lanes.node.status();
                !status.muted && !status.hollow
            });
            !is_whole || has_damage(&server.disk)
        };
        let before = self.hurt.len();
        self.hurt.retain(is_hurt);
        self.sometimes.healed += (before - self.hurt.len()) as u64;
    }

    /// Every other voter is sound, and some have all that this one has.
    fn may_be_led_past(&self, id: MemberId) -> bool {
        self.reachable_members(None).iter().all(|members| {
            let others = || members.voters().iter().filter(|other| **other != id);
            others().all(|other| self.is_sound(*other))
                && others().any(|other| self.checks.is_as_complete(*other, id))
        })
    }

    /// A server whose disk was hit may find out while it runs: its process ends, and must be able
    /// to start again.
    pub(crate) fn survives(&self, id: MemberId, fatal: &Fatal) -> bool {
        let damage = match fatal {
            Fatal::Damage(damage) | Fatal::Table(TableError::Damage(damage)) => damage,
            Fatal::Journal(_)
            | Fatal::Table(TableError::Poisoned { .. } | TableError::Format { .. })
            | Fatal::Superseded { .. }
            | Fatal::Removed { .. }
            | Fatal::Unsupported(_)
            | Fatal::Import(_) => return false,
        };
        self.rotted.contains(&id) && matches!(damage, kvraft_base::Damage::Lost { .. })
    }
}

/// What may be hit: a part of a file.
struct Place {
    path: String,
    bytes: Range<u64>,
    is_newest: bool,
}

fn segments(disk: &SimDisk) -> Vec<String> {
    let mut paths = disk.peek_files("journal");
    paths.retain(|path| path.ends_with(".seg"));
    paths
}

fn has_damage(disk: &SimDisk) -> bool {
    disk.has_damage("table") || segments(disk).iter().any(|segment| disk.has_damage(segment))
}

/// A file of this part, whole.
fn choose_whole(disk: &SimDisk, part: Part, prng: &mut Prng) -> Option<Place> {
    let segments = segments(disk);
    let path = match part {
        Part::Table => "table".to_owned(),
        Part::Journal => prng.pick(&segments)?.clone(),
    };
    let size = disk.peek_size(&path)?;
    let is_newest = segments.last() == Some(&path);
    Some(Place { path, bytes: 0..size, is_newest })
}

/// As much of a file as a server can tell from a torn write.
fn choose(disk: &SimDisk, part: Part, prng: &mut Prng) -> Option<Place> {
    let mut place = choose_whole(disk, part, prng)?;
    if place.is_newest {
        place.bytes = SECTOR..attested_end(disk, &place.path)?;
    }
    Some(place)
}

/// The end of the last batch of a segment that a later one says was durable.
fn attested_end(disk: &SimDisk, path: &str) -> Option<u64> {
    // What attests must not be lost itself.
    if !disk.is_synced(path) {
        return None;
    }
    let mut batches = Vec::new();
    dump(disk, &mut |item| {
        if let DumpItem::Batch { path: at, offset, sequence, .. } = item
            && at == path
        {
            batches.push((offset, sequence));
        }
    })
    .ok()?;
    let file = disk.open(path).ok()?;
    let mut durable = 0;
    for (offset, _) in &batches {
        let mut field = [0; 8];
        file.read_at(offset + DURABLE_OFFSET, &mut field).ok()?;
        durable = durable.max(u64::from_le_bytes(field));
    }
    let after = batches.iter().find(|(_, sequence)| durable < *sequence)?;
    Some(after.0).filter(|end| SECTOR < *end)
}

/// Where a batch says which batches were durable before it.
const DURABLE_OFFSET: u64 = 24;

/// Mostly a byte that is not zero: most of a file is room to grow.
fn choose_byte(disk: &SimDisk, place: &Place, prng: &mut Prng) -> Option<u64> {
    let size = place.bytes.end.checked_sub(place.bytes.start).filter(|size| 0 < *size)?;
    let mut offset = 0;
    for _ in 0..TRY_COUNT_MAX {
        offset = place.bytes.start + prng.below(size);
        if disk.peek_byte(&place.path, offset) != Some(0) {
            break;
        }
    }
    Some(offset)
}

/// Some sectors of the place were written to other ones of it.
fn misdirect(disk: &SimDisk, place: &Place, prng: &mut Prng) -> bool {
    each_pair(disk, place, prng, |from, to| disk.misdirect(&place.path, from, to))
}

/// Some sectors of the place will be read from other ones of it, once.
fn misread(disk: &SimDisk, place: &Place, prng: &mut Prng) -> bool {
    each_pair(disk, place, prng, |at, from| disk.misread(&place.path, at, from))
}

/// Draws two stretches of the place, and calls `hit` with each pair of their sectors.
fn each_pair(
    disk: &SimDisk,
    place: &Place,
    prng: &mut Prng,
    hit: impl Fn(u64, u64) -> bool,
) -> bool {
    let ends = (choose_byte(disk, place, prng), choose_byte(disk, place, prng));
    let (Some(from), Some(to)) = ends else { return false };
    let count = prng.between(1, SECTOR_COUNT_MAX);
    let mut is_hit = false;
    for sector in 0..count {
        let (from, to) = (from + sector * SECTOR, to + sector * SECTOR);
        let fits = from.max(to) / SECTOR * SECTOR + SECTOR <= place.bytes.end;
        is_hit |= fits && hit(from, to);
    }
    is_hit
}

/// Some sectors that the last sync of the file wrote are as they were before it.
fn lose_writes(disk: &SimDisk, place: &Place, prng: &mut Prng) -> bool {
    let mut written = disk.written_last(&place.path);
    written.retain(|offset| place.bytes.contains(offset) && offset + SECTOR <= place.bytes.end);
    if written.is_empty() {
        return false;
    }
    let first = usize::try_from(prng.below(written.len() as u64)).expect("below a length");
    let count = usize::try_from(prng.between(1, SECTOR_COUNT_MAX)).expect("a few");
    let mut is_hit = false;
    for offset in written[first..].iter().take(count) {
        is_hit |= disk.lose_write(&place.path, *offset);
    }
    is_hit
}

/// Enough to find a small table in a file of a megabyte, and few enough to miss sometimes.
const TRY_COUNT_MAX: u32 = 200;

impl Sometimes {
    pub(crate) fn on_notes(&mut self, notes: &[Note]) {
        for note in notes {
            match note {
                Note::TableSetAside { .. } => self.table_set_aside += 1,
                Note::Hollow { .. } => self.hollow_start += 1,
                Note::Muted { .. } => self.muted_start += 1,
                Note::JournalCut { .. } => self.journal_cut += 1,
                Note::InstallRolledForward { .. } => self.install_completed += 1,
                Note::TornTail { .. }
                | Note::Damaged { .. }
                | Note::Refounded { .. }
                | Note::LeftoverRemoved { .. } => {}
            }
        }
    }
}
