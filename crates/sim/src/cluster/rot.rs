//! Bit rot: one byte of one file of a server that is down flips.
//!
//! Which byte is drawn when it happens, from the number in the plan, since only then is it known
//! what there is. Of the journal only segments that are not the newest are hit: what the last batch
//! says is attested by nothing yet, so no server can tell its damage from a torn write.
//!
//! Invariant: a server that was hit may lose what it had durable, but then it must know.

use kvraft_base::{Disk, MemberId, Prng};
use kvraft_replica::Fatal;
use kvraft_store::{Note, TableError};

use super::{server::Standing, sometimes::Sometimes, world::World};
use crate::plan::Part;

impl World {
    /// Power is lost, and when it comes back one bit is not what it was.
    pub(crate) fn rot(&mut self, id: MemberId, part: Part, draw: u64) {
        let may_hit = match part {
            Part::Journal => self.may_lose(id),
            // Its log is whole, so that it votes, but it does not lead without its state: of two
            // the other one must be able to.
            Part::Table => self.may_lose(id) || self.may_be_led_past(id),
        };
        if !may_hit || self.servers[&id].standing != Standing::InUse {
            return;
        }
        self.crash(id);
        let disk = self.servers[&id].disk.reboot();
        let mut prng = Prng::new(draw);
        let Some(path) = choose(&disk, part, &mut prng) else { return };
        let hit = choose_byte(&disk, &path, &mut prng)
            .is_some_and(|offset| disk.damage(&path, offset, 1 << prng.below(8)));
        let _: std::time::Duration = disk.take_cost();
        if hit {
            self.rotted.insert(id);
            match part {
                Part::Table => self.sometimes.table_rotted += 1,
                Part::Journal => self.sometimes.journal_rotted += 1,
            }
        }
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
            | Fatal::Table(TableError::Poisoned { .. })
            | Fatal::Superseded { .. }
            | Fatal::Removed { .. }
            | Fatal::Import(_) => return false,
        };
        self.rotted.contains(&id) && matches!(damage, kvraft_base::Damage::Lost { .. })
    }
}

fn choose(disk: &dyn Disk, part: Part, prng: &mut Prng) -> Option<String> {
    match part {
        Part::Table => Some("table".to_owned()),
        Part::Journal => {
            let mut names = disk.list("journal").ok()?;
            names.retain(|name| name.ends_with(".seg"));
            names.pop();
            prng.pick(&names).map(|name| format!("journal/{name}"))
        }
    }
}

/// Mostly a byte that is not zero: most of a file is room to grow.
fn choose_byte(disk: &dyn Disk, path: &str, prng: &mut Prng) -> Option<u64> {
    let file = disk.open(path).ok()?;
    let size = file.size().ok().filter(|size| 0 < *size)?;
    let mut offset = 0;
    for _ in 0..TRY_COUNT_MAX {
        offset = prng.below(size);
        let mut byte = [0];
        file.read_at(offset, &mut byte).ok()?;
        if byte != [0] {
            break;
        }
    }
    Some(offset)
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
