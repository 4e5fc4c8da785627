//! What the parts of a plan could be instead, to be simpler: fewer, shorter, sooner, plainer.
//!
//! Invariant: no part becomes itself again by becoming simpler.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::Instant;

use super::{ClientPlan, Fault, Intent, PlannedOperation, RATE_PPM, TimedFault};
use crate::{history::Action, network::Partition};

/// The pause that says nothing.
const AFTER_PLAIN: Duration = Duration::from_millis(1);

/// Times are rounded down to multiples of these, coarsest first.
pub(crate) const GRAINS: [Duration; 3] =
    [Duration::from_millis(100), Duration::from_millis(10), Duration::from_millis(1)];

/// `at` without what is finer than `grain`; `None` if that is nothing.
pub(crate) fn rounded(at: Instant, grain: Duration) -> Option<Instant> {
    let grain = u64::try_from(grain.as_nanos()).unwrap_or(u64::MAX);
    (!at.0.is_multiple_of(grain)).then(|| Instant(at.0 - at.0 % grain))
}

fn rounded_duration(time: Duration) -> impl Iterator<Item = Duration> {
    let of = move |grain| rounded(Instant::ZERO + time, grain).map(|at| at.since(Instant::ZERO));
    GRAINS.into_iter().filter_map(of).filter(|time| !time.is_zero())
}

/// Smaller numbers above 0, the smallest first.
fn smaller(number: u64) -> impl Iterator<Item = u64> {
    let mut wanted = vec![1, number / 2];
    wanted.dedup();
    wanted.into_iter().filter(move |smaller| 0 < *smaller && *smaller < number)
}

impl TimedFault {
    /// Simpler faults at the same time, then the same fault at rounder times.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        let at = self.at;
        let faults = self.fault.simpler().into_iter().map(|fault| Self { at, fault });
        let times = GRAINS.into_iter().filter_map(|grain| rounded(at, grain));
        faults.chain(times.map(|at| Self { at, fault: self.fault.clone() })).collect()
    }
}

impl Fault {
    fn simpler(&self) -> Vec<Self> {
        match self {
            Self::Fuse { target, change_count } => {
                let with = |change_count| Self::Fuse { target: *target, change_count };
                smaller(*change_count).map(with).collect()
            }
            Self::Ambush { target, point, change_count } => {
                let with =
                    |change_count| Self::Ambush { target: *target, point: *point, change_count };
                smaller(*change_count).map(with).collect()
            }
            Self::FalseClean { target, sync_count } => {
                let with = |sync_count| Self::FalseClean { target: *target, sync_count };
                smaller(*sync_count).map(with).collect()
            }
            Self::SyncError { target, sync_count } => {
                let with = |sync_count| Self::SyncError { target: *target, sync_count };
                smaller(*sync_count).map(with).collect()
            }
            Self::WriteError { target, write_count } => {
                let with = |write_count| Self::WriteError { target: *target, write_count };
                smaller(*write_count).map(with).collect()
            }
            Self::ReadError { target, read_count } => {
                let with = |read_count| Self::ReadError { target: *target, read_count };
                smaller(*read_count).map(with).collect()
            }
            Self::Slow { target, factor } if *factor != 1 => {
                let with = |factor| Self::Slow { target: *target, factor };
                smaller(*factor).filter(|factor| 1 < *factor).map(with).collect()
            }
            Self::Full { target, left_bytes } if 0 < *left_bytes => {
                vec![Self::Full { target: *target, left_bytes: 0 }]
            }
            Self::Jump { target, by_ms } => {
                let seconds = by_ms - by_ms % 1_000;
                let is_rounder = seconds != *by_ms && seconds != 0;
                is_rounder
                    .then_some(Self::Jump { target: *target, by_ms: seconds })
                    .into_iter()
                    .collect()
            }
            Self::Drift { target, rate_ppm } => {
                let percent = RATE_PPM / 100;
                let round = rate_ppm - rate_ppm % percent;
                let is_rounder = round != *rate_ppm && round != 0;
                is_rounder
                    .then_some(Self::Drift { target: *target, rate_ppm: round })
                    .into_iter()
                    .collect()
            }
            Self::Partition(partition) => {
                partition.simpler().into_iter().map(Self::Partition).collect()
            }
            Self::Change(wishes) if 1 < wishes.len() => {
                let without = |at| {
                    let mut fewer = wishes.clone();
                    fewer.remove(at);
                    Self::Change(fewer)
                };
                (0..wishes.len()).map(without).collect()
            }
            _ => self.shorter(),
        }
    }

    /// Of what lasts a while, the same for a rounder while.
    fn shorter(&self) -> Vec<Self> {
        match self {
            Self::Stall { target, lasts } => {
                let with = |lasts| Self::Stall { target: *target, lasts };
                rounded_duration(*lasts).map(with).collect()
            }
            Self::Clog { from, to, lasts } => {
                let with = |lasts| Self::Clog { from: *from, to: *to, lasts };
                rounded_duration(*lasts).map(with).collect()
            }
            Self::Lag { from, to, mean } => {
                let with = |mean| Self::Lag { from: *from, to: *to, mean };
                rounded_duration(*mean).map(with).collect()
            }
            Self::ClientCrash { client, down } => {
                let with = |down| Self::ClientCrash { client: *client, down };
                rounded_duration(*down).map(with).collect()
            }
            Self::ClientPause { client, lasts } => {
                let with = |lasts| Self::ClientPause { client: *client, lasts };
                rounded_duration(*lasts).map(with).collect()
            }
            _ => Vec::new(),
        }
    }
}

impl Partition {
    fn simpler(&self) -> Vec<Self> {
        match self {
            Self::Split(side) => side.iter().take(1).map(|id| Self::Isolate(*id)).collect(),
            Self::OneWay(side) => side.iter().take(1).map(|id| Self::Mute(*id)).collect(),
            Self::Isolate(_) | Self::Deaf(_) | Self::Mute(_) | Self::Ring | Self::Bridge(_) => {
                Vec::new()
            }
        }
    }
}

impl ClientPlan {
    /// Plainer clients that do the same.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        let operations = || self.operations.clone();
        let plain = Self { operations: operations(), home: self.home, ..Self::plain(self.id) };
        let mut all = vec![
            plain.clone(),
            Self { is_pinned: self.is_pinned, ..plain.clone() },
            Self { session: None, ..self.clone() },
            Self { is_pinned: false, ..self.clone() },
            Self { pause_max: plain.pause_max, ..self.clone() },
            Self { attempt_timeout: plain.attempt_timeout, ..self.clone() },
            Self { operation_timeout: plain.operation_timeout, ..self.clone() },
        ];
        all.retain(|simpler| simpler != self);
        all
    }
}

impl PlannedOperation {
    /// The same at once, and plainer operations.
    pub(crate) fn simpler(&self) -> Vec<Self> {
        let intents = self.intent.simpler().into_iter();
        let mut all: Vec<Self> = intents.map(|intent| Self { intent, ..self.clone() }).collect();
        if AFTER_PLAIN < self.after {
            all.push(Self { after: AFTER_PLAIN, ..self.clone() });
            let rounder = rounded_duration(self.after);
            all.extend(rounder.map(|after| Self { after, ..self.clone() }));
        }
        all
    }
}

impl Intent {
    fn simpler(&self) -> Vec<Self> {
        match self {
            Self::Swap { key, value } => {
                vec![Self::One(Action::Put { key: key.clone(), value: value.clone() })]
            }
            Self::Together(actions) => actions.iter().cloned().map(Self::One).collect(),
            Self::Stale(Action::Range { key, end: Some(_) })
            | Self::One(Action::Range { key, end: Some(_) }) => vec![Self::get(key.clone())],
            Self::One(Action::Delete { key, end: Some(_) }) => {
                vec![Self::One(Action::Delete { key: key.clone(), end: None })]
            }
            Self::Past { key, end: Some(_), back } => {
                vec![Self::Past { key: key.clone(), end: None, back: *back }]
            }
            Self::Past { key, end: None, .. } => vec![Self::get(key.clone())],
            Self::One(_) | Self::Stale(_) | Self::Compact { .. } => Vec::new(),
        }
    }

    /// The same on `to` wherever it was on `from`; `None` if that cannot be asked for.
    pub(crate) fn moved(&self, from: &Bytes, to: &Bytes) -> Option<Self> {
        let key_of = |key: &Bytes| if key == from { to.clone() } else { key.clone() };
        let moved = |action: &Action| match action {
            Action::Put { key, value } => Action::Put { key: key_of(key), value: value.clone() },
            Action::Range { key, end: None } => Action::Range { key: key_of(key), end: None },
            Action::Delete { key, end: None } => Action::Delete { key: key_of(key), end: None },
            Action::Range { end: Some(_), .. } | Action::Delete { end: Some(_), .. } => {
                action.clone()
            }
        };
        Some(match self {
            Self::One(action) => Self::One(moved(action)),
            Self::Stale(action) => Self::Stale(moved(action)),
            Self::Swap { key, value } => Self::Swap { key: key_of(key), value: value.clone() },
            Self::Past { key, end: None, back } => {
                Self::Past { key: key_of(key), end: None, back: *back }
            }
            Self::Past { .. } | Self::Compact { .. } => self.clone(),
            Self::Together(actions) => {
                let puts = |wanted| {
                    let is_put =
                        |it: &&Action| matches!(it, Action::Put { key, .. } if key == wanted);
                    actions.iter().any(|action| is_put(&action))
                };
                if puts(from) && puts(to) {
                    return None;
                }
                Self::Together(actions.iter().map(moved).collect())
            }
        })
    }
}
