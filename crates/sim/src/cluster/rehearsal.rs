//! Losses of power that are only tried: on copies of a server's disk, each in several ways, while
//! the server goes on.
//!
//! Why: a sync that is missing shows only if power goes between two certain operations, and keeps
//! and loses just the wrong half. A run that really loses power has one try, and is another run
//! afterwards. Here every moment at which a name changes may be tried, and the moment at which a
//! recovery is over: what that has returned must be durable, and so must what is written next.
//! Power goes before that write or after it, since its sync makes up for one that is missing.
//!
//! Invariant: nothing of it touches the run. The copies' draws are their own.
//!
//! What it lacks: disks that were hit. What may be missing there, nobody knows beforehand.

use kvraft_base::{MemberId, Position, Prng};
use kvraft_store::Note;

use super::{
    checks::Checks,
    mirror::Mirror,
    server::{Found, LaneId, Server},
    violation::{Check, Violation},
    world::{CLUSTER, World},
};
use crate::disk::{ContentLoss, CrashPolicy, Exposures, NameLoss, SimDisk};

/// Copies of one turn, of each kind.
const TURN_COPIES_MAX: usize = 6;

/// Copies of a run, by what they are of: they cost as much as a recovery for each way to lose
/// power. A table changes its size in every run, and names beside it change only in an install.
const JOURNAL_COPIES_MAX: usize = 6;
const TABLE_NAME_COPIES_MAX: usize = 8;
const TABLE_SIZE_COPIES_MAX: usize = 12;
const START_COPIES_MAX: usize = 2;

/// Copies of a disk in the middle of a recovery, of each kind.
const RECOVERY_COPIES_MAX: usize = 4;

/// Of the turns of a journal, one in so many is looked at.
const JOURNAL_ONE_IN: u64 = 3;

/// The ways in which power is lost. What is not synced is gone; only names are kept; of these only
/// the newest; content is kept, but names here and there; and anything.
const LOSSES: [CrashPolicy; 5] = [
    CrashPolicy::LOSE_ALL,
    CrashPolicy { content: ContentLoss::All, names: NameLoss::None },
    CrashPolicy { content: ContentLoss::All, names: NameLoss::AllButLast },
    CrashPolicy { content: ContentLoss::None, names: NameLoss::Each },
    CrashPolicy { content: ContentLoss::Each { kept: 1, lost: 1, torn: 0 }, names: NameLoss::Each },
];

/// How much more is tried in this run.
#[derive(Debug)]
pub(crate) struct Rehearsals {
    prng: Prng,
    journal_left: Exposures,
    table_left: Exposures,
    starts_left: usize,
}

impl Rehearsals {
    pub(crate) fn new(prng: Prng) -> Self {
        Self {
            prng,
            journal_left: Exposures { names: JOURNAL_COPIES_MAX, sizes: 0 },
            table_left: Exposures { names: TABLE_NAME_COPIES_MAX, sizes: TABLE_SIZE_COPIES_MAX },
            starts_left: START_COPIES_MAX,
        }
    }

    fn left(&mut self, lane: LaneId) -> Option<&mut Exposures> {
        match lane {
            LaneId::Journal => Some(&mut self.journal_left),
            LaneId::Table => Some(&mut self.table_left),
            LaneId::Node | LaneId::Machine => None,
        }
    }
}

/// What must be there after a loss of power.
struct Promise<'a> {
    durable: &'a Mirror,
    /// The journal began anew there meanwhile.
    reset: Option<Position>,
    /// Disks from which it was recovered, as they were before. What a recovery finds is a function
    /// of the disk alone: one that is the same again needs no second one.
    tried: Vec<SimDisk>,
}

impl World {
    /// A turn begins: if it is to be looked at, its disk makes copies from now on.
    pub(crate) fn load_film(&mut self, id: MemberId, lane: LaneId) {
        let Some(left) = self.rehearsals.left(lane).copied() else { return };
        let turn = Exposures {
            names: left.names.min(TURN_COPIES_MAX),
            sizes: left.sizes.min(TURN_COPIES_MAX),
        };
        if !self.config.is_rehearsed || turn == Exposures::default() || self.rotted.contains(&id) {
            return;
        }
        if lane != LaneId::Journal || self.rehearsals.prng.chance(1, JOURNAL_ONE_IN) {
            self.servers[&id].disk.load_film(turn);
        }
    }

    /// The turn is over, and the mirrors know nothing of it yet: what was durable before must be
    /// there after any loss of power within. `reset`: in it the journal began anew there.
    pub(crate) fn develop_film(&mut self, id: MemberId, lane: LaneId, reset: Option<Position>) {
        let (copies, made) = self.servers[&id].disk.take_film();
        if copies.is_empty() {
            return;
        }
        if let Some(left) = self.rehearsals.left(lane) {
            *left = Exposures { names: left.names - made.names, sizes: left.sizes - made.sizes };
        }
        let before = self.checks.durable(id).clone();
        let mut promise = Promise { durable: &before, reset, tried: Vec::new() };
        for copy in &copies {
            self.rehearse(id, copy, &mut promise);
        }
    }

    /// A server has recovered, and relies on what it has found.
    pub(crate) fn rehearse_start(&mut self, id: MemberId) {
        let is_first = self.servers[&id].boot == 1;
        let is_tried = self.config.is_rehearsed && 0 < self.rehearsals.starts_left;
        if is_first || !is_tried || self.rotted.contains(&id) {
            return;
        }
        self.rehearsals.starts_left -= 1;
        let (copy, found) = (self.servers[&id].disk.copy(), self.checks.durable(id).clone());
        self.rehearse(id, &copy, &mut Promise { durable: &found, reset: None, tried: Vec::new() });
    }

    fn rehearse(&mut self, id: MemberId, copy: &SimDisk, promise: &mut Promise<'_>) {
        let judged = self
            .lose_power_on(id, copy, promise, &LOSSES)
            .and_then(|()| self.kill_on(id, copy, promise));
        if let Err(Violation { check, detail }) = judged {
            self.checks.fail(check, format!("server {id}, if {detail}"));
        }
    }

    fn lose_power_on(
        &mut self,
        id: MemberId,
        copy: &SimDisk,
        promise: &mut Promise<'_>,
        losses: &[CrashPolicy],
    ) -> Result<(), Violation> {
        for policy in losses {
            let disk = copy.copy();
            disk.crash(&mut self.rehearsals.prng, *policy);
            if promise.tried.iter().any(|tried| tried.is_same(&disk)) {
                self.sometimes.rehearsals += 1;
                continue;
            }
            promise.tried.push(disk.copy());
            let recovered = self.recover_on(id, &disk, promise, false).map(drop);
            recovered.map_err(|Violation { check, detail }| {
                Violation::new(check, format!("power were lost as {policy:?}: {detail}"))
            })?;
        }
        Ok(())
    }

    /// The process dies here, and loses nothing; the next one relies on what it finds, perhaps
    /// writes something behind it, and then power is lost.
    fn kill_on(
        &mut self,
        id: MemberId,
        copy: &SimDisk,
        promise: &mut Promise<'_>,
    ) -> Result<(), Violation> {
        let told = |Violation { check, detail }| {
            Violation::new(check, format!("the process were killed: {detail}"))
        };
        let disk = copy.copy();
        disk.sever();
        disk.load_film(Exposures { names: RECOVERY_COPIES_MAX, sizes: RECOVERY_COPIES_MAX });
        let writes = self.rehearsals.prng.chance(1, 2);
        let (relied_on, completed) = self.recover_on(id, &disk, promise, writes).map_err(told)?;
        // In the middle of the recovery, too.
        let reset = promise.reset.or(completed);
        let mut anew = Promise { durable: promise.durable, reset, tried: Vec::new() };
        let anew = if reset == promise.reset { promise } else { &mut anew };
        for copy in disk.take_film().0 {
            self.lose_power_on(id, &copy, anew, &LOSSES[..1]).map_err(told)?;
        }
        let mut promise = Promise { durable: &relied_on, reset: None, tried: Vec::new() };
        self.lose_power_on(id, &disk, &mut promise, &LOSSES[..1]).map_err(told)
    }

    /// A process starts on a copy, may write an entry, and ends. Returns what is durable then, and
    /// the end of a snapshot whose install it has completed.
    fn recover_on(
        &mut self,
        id: MemberId,
        disk: &SimDisk,
        promise: &Promise<'_>,
        writes: bool,
    ) -> Result<(Mirror, Option<Position>), Violation> {
        self.sometimes.rehearsals += 1;
        let server = &self.servers[&id];
        let options = self.config.open_options(id, CLUSTER, server.boot + 1, server.versions(), 0);
        let recovered = Server::recover(&disk.reboot(), options, server.now(self.now), writes);
        let (found, written) = recovered.map_err(|error| Violation::new(Check::Recovery, error))?;
        let (mut durable, completed) = judge(&found, promise)?;
        if let Some(write) = &written {
            durable.on_synced(write);
        }
        Ok((durable, completed))
    }
}

/// What is there, if that is what was durable, or what an install that was under way leads to.
fn judge(found: &Found, promise: &Promise<'_>) -> Result<(Mirror, Option<Position>), Violation> {
    let Promise { durable, reset, .. } = *promise;
    if let Some(note) = Checks::loss(&found.notes) {
        return Err(Violation::new(Check::SyncedSurvives, note.to_string()));
    }
    let completed = found.notes.iter().find_map(|note| match note {
        Note::InstallRolledForward { position } => Some(*position),
        _ => None,
    });
    let mut kept = durable.clone();
    let Err(detail) = kept.on_found(found, false) else { return Ok((kept, completed)) };
    if let Some(position) = completed.or(reset) {
        let mut anew = durable.clone();
        anew.on_reset(position);
        if anew.on_found(found, false).is_ok() {
            return Ok((anew, completed));
        }
    }
    Err(Violation::new(Check::SyncedSurvives, detail))
}
