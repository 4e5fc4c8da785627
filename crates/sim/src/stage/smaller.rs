//! Makes a failing script smaller: fewer operations and faults, fewer servers, plainer settings,
//! rounder times, as long as the same check fails.

use std::{cell::Cell, time::Duration};

use super::{Script, StageConfig, System, play::play};
use crate::{
    plan::{GRAINS, TimedFault, rounded},
    shrink::{Judged, Shrink, Shrunk, shrink},
};

/// Settings that are not made plain: each has a way of its own to become smaller.
const OWN_WAY: [&str; 2] = ["servers", "first-phase"];

/// The pause that says nothing.
const AFTER_PLAIN: Duration = Duration::from_millis(1);

/// Seeds that are tried beside a script's own: what is left out shifts all that is drawn after it.
const SEED_COUNT: u64 = 2;

/// Shrinks a script whose play breaks a rule, in at most `play_count_max` plays; `None` if it
/// breaks none.
pub fn shrink_script<S: System>(
    system: &S,
    script: &Script<S::Operation>,
    play_count_max: u64,
) -> Option<Shrunk<Script<S::Operation>>>
where
    S::Operation: PartialEq,
{
    let played = play(system, script, false, &|| true);
    let check = played.broken?.check;
    let looks_max = played.event_count / super::play::EVENTS_BETWEEN_LOOKS * 2 + 2;
    let mut plays_left = play_count_max;
    let mut fails = |script: &Script<S::Operation>| {
        plays_left = plays_left.checked_sub(1)?;
        let looks_left = Cell::new(looks_max);
        let may_go_on = || {
            looks_left.set(looks_left.get().saturating_sub(1));
            0 < looks_left.get()
        };
        let broken = play(system, script, false, &may_go_on).broken;
        Some(broken.is_some_and(|broken| broken.check == check))
    };
    let mut start = script.clone();
    start.check = Some(check.clone());
    let judge = |candidates: &[Script<S::Operation>]| {
        for (place, candidate) in candidates.iter().enumerate() {
            let others = (0..SEED_COUNT).filter(|seed| *seed != candidate.seed);
            for seed in std::iter::once(candidate.seed).chain(others) {
                let script = Script { seed, ..candidate.clone() };
                match fails(&script) {
                    None => return Judged::Stop,
                    Some(true) => return Judged::Fails(place, script),
                    Some(false) => {}
                }
            }
        }
        Judged::NoneFails
    };
    Some(shrink(start, judge, |_| {}))
}

impl<O: Clone + PartialEq> Shrink for Script<O> {
    fn item_count(&self) -> usize {
        self.lines.len() + self.faults.len()
    }

    /// Operations come first, then the faults.
    fn without(&self, first: usize, end: usize) -> Self {
        let mut number = 0;
        let mut is_kept = || {
            number += 1;
            !(first..end).contains(&(number - 1))
        };
        let lines = self.lines.iter().filter(|_| is_kept()).cloned().collect();
        let faults = self.faults.iter().filter(|_| is_kept()).cloned().collect();
        Self { lines, faults, ..self.clone() }
    }

    fn simpler(&self) -> Vec<(String, Self)> {
        let mut all = Vec::new();
        for servers in 1..self.config.servers {
            let config = StageConfig { servers, ..self.config.clone() };
            all.push((format!("servers {servers}"), Self { config, ..self.clone() }));
        }
        let plain = StageConfig::plain().settings();
        for ((name, word), (_, plain)) in self.config.settings().into_iter().zip(plain) {
            if word != plain && !OWN_WAY.contains(&name) {
                let mut config = self.config.clone();
                config.set(name, &plain).expect("a plain value is allowed");
                all.push((name.to_owned(), Self { config, ..self.clone() }));
            }
        }
        let mut lines = self.lines.clone();
        lines.iter_mut().for_each(|line| line.after = line.after.min(AFTER_PLAIN));
        all.push(("pauses".to_owned(), Self { lines, ..self.clone() }));
        for grain in GRAINS {
            let round = |timed: &TimedFault| {
                let at = rounded(timed.at, grain).unwrap_or(timed.at);
                TimedFault { at, fault: timed.fault.clone() }
            };
            let faults = self.faults.iter().map(round).collect();
            all.push(("times".to_owned(), Self { faults, ..self.clone() }));
        }
        for (at, timed) in self.faults.iter().enumerate() {
            for simpler in timed.simpler() {
                let mut faults = self.faults.clone();
                faults[at] = simpler;
                faults.sort_by_key(|timed| timed.at);
                all.push((format!("{}", timed.fault), Self { faults, ..self.clone() }));
            }
        }
        all.retain(|(_, simpler)| simpler != self);
        all
    }
}
