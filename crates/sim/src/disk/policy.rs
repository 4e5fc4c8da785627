//! What a loss of power does to what was not synced: drawn, per crash and per file.

use kvraft_base::Prng;

use super::SECTOR_SIZE_BYTES;

/// How a loss of power treats unsynced sectors, sizes and names. Plain data, so a plan can carry
/// it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CrashPolicy {
    /// What happens to unsynced file content.
    pub content: ContentLoss,
    /// What happens to unsynced names.
    pub names: NameLoss,
}

/// What happens to sectors written but not synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentLoss {
    /// Every one is lost.
    All,
    /// None is lost.
    None,
    /// Up to a place drawn per file everything is kept, beyond it everything is lost, and the
    /// sector there may be torn: what an append usually leaves.
    Tail,
    /// As `Tail`, but the sector there is lost whole.
    Cut,
    /// Each sector for itself: kept, lost or torn, by these weights.
    Each {
        /// Weight of "kept whole".
        kept: u32,
        /// Weight of "lost whole".
        lost: u32,
        /// Weight of "a prefix of the new content, then the old one".
        torn: u32,
    },
}

/// What happens to names created, renamed or removed without a sync of their directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameLoss {
    /// Every change of names is undone.
    All,
    /// Every change of names is kept.
    None,
    /// Changes are kept in order up to a drawn one: a journaling file system.
    Tail,
    /// Each change for itself: POSIX promises no more.
    Each,
    /// The newest change alone is kept: it may rely on one of those that are gone.
    /// [`CrashPolicy::draw`] never draws it.
    AllButLast,
}

impl CrashPolicy {
    /// Everything unsynced is lost.
    pub const LOSE_ALL: Self = Self { content: ContentLoss::All, names: NameLoss::All };
    /// Everything unsynced happens to be durable.
    pub const KEEP_ALL: Self = Self { content: ContentLoss::None, names: NameLoss::None };
    /// Each sector and each name for itself, evenly.
    pub const EACH: Self =
        Self { content: ContentLoss::Each { kept: 4, lost: 4, torn: 1 }, names: NameLoss::Each };

    /// A policy for one crash. Extremes are as likely as mixtures: bugs live at both.
    ///
    /// No sector is torn: disks write 512 bytes whole or not at all, and the header of the table
    /// relies on it. [`ContentLoss::Tail`] and a weight of `torn` are for stricter tests.
    #[must_use]
    pub fn draw(prng: &mut Prng) -> Self {
        let content = match prng.below(4) {
            0 => ContentLoss::All,
            1 => ContentLoss::None,
            2 => ContentLoss::Cut,
            _ => {
                let mut weight = || u32::try_from(prng.below(5)).unwrap_or(0);
                ContentLoss::Each { kept: weight(), lost: 1 + weight(), torn: 0 }
            }
        };
        let names = match prng.below(4) {
            0 => NameLoss::All,
            1 => NameLoss::None,
            2 => NameLoss::Tail,
            _ => NameLoss::Each,
        };
        Self { content, names }
    }

    /// The treatment of one file whose last unsynced sector is `last`.
    pub(super) fn for_file(self, prng: &mut Prng, last: Option<usize>) -> FilePlan {
        let cut = match (self.content, last) {
            (ContentLoss::Tail | ContentLoss::Cut, Some(last)) => {
                to_size(prng.below(last as u64 + 2))
            }
            _ => 0,
        };
        FilePlan { content: self.content, cut }
    }
}

/// What becomes of one sector.
pub(super) enum Fate {
    Kept,
    Lost,
    /// The first `kept` bytes are new, the rest is old.
    Split {
        kept: usize,
    },
}

/// The treatment of one file in one crash.
pub(super) struct FilePlan {
    content: ContentLoss,
    /// With [`ContentLoss::Tail`]: the sector from which on everything is lost.
    cut: usize,
}

impl FilePlan {
    pub(super) fn fate(&mut self, prng: &mut Prng, sector: usize) -> Fate {
        let split =
            |prng: &mut Prng| Fate::Split { kept: to_size(prng.below(SECTOR_SIZE_BYTES as u64)) };
        match self.content {
            ContentLoss::All => Fate::Lost,
            ContentLoss::None => Fate::Kept,
            ContentLoss::Tail | ContentLoss::Cut if sector < self.cut => Fate::Kept,
            ContentLoss::Tail if sector == self.cut => split(prng),
            ContentLoss::Tail | ContentLoss::Cut => Fate::Lost,
            ContentLoss::Each { kept, lost, torn } => {
                let (kept, lost, torn) = (u64::from(kept), u64::from(lost), u64::from(torn));
                let drawn = prng.below((kept + lost + torn).max(1));
                if drawn < kept {
                    Fate::Kept
                } else if drawn < kept + lost || torn == 0 {
                    Fate::Lost
                } else {
                    split(prng)
                }
            }
        }
    }

    /// The size that survives: one of the two, or one between them.
    pub(super) fn size(&mut self, prng: &mut Prng, durable: usize, live: usize) -> usize {
        let (low, high) = (durable.min(live), durable.max(live));
        match self.content {
            ContentLoss::All => durable,
            ContentLoss::None => live,
            ContentLoss::Tail | ContentLoss::Cut if durable < live => {
                (self.cut.saturating_add(1) * SECTOR_SIZE_BYTES).clamp(low, high)
            }
            ContentLoss::Tail | ContentLoss::Cut | ContentLoss::Each { .. } if low == high => low,
            ContentLoss::Tail | ContentLoss::Cut | ContentLoss::Each { .. } => {
                match prng.below(3) {
                    0 => durable,
                    1 => live,
                    _ => to_size(prng.between(low as u64, high as u64)),
                }
            }
        }
    }
}

fn to_size(number: u64) -> usize {
    usize::try_from(number).expect("sizes of simulated files fit in memory")
}
