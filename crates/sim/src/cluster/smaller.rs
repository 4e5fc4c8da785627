//! Makes a failing run smaller: fewer operations, faults, clients, servers and keys, plainer
//! settings, rounder times, as long as the same check fails.

use std::{cell::Cell, collections::BTreeSet, time::Duration};

use bytes::Bytes;
use kvraft_base::{Instant, MemberId};

use super::{
    config::ClusterConfig,
    run::{EVENTS_BETWEEN_LOOKS, Report, run_scenario},
    scenario::Scenario,
    violation::Check,
};
use crate::{
    history::Action,
    plan::{ClientPlan, GRAINS, Plan, TimedFault, rounded},
    shrink::Shrink,
};

/// Settings that are not made plain: each has a way of its own to become smaller.
const OWN_WAY: [&str; 2] = ["servers", "first-phase"];

/// A run that fails, and how it is told whether a smaller one fails alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The check that must fail.
    pub check: Check,
    /// A run that takes more events does not count.
    pub event_count_max: u64,
    /// Seeds that are tried beside the run's own. What is left out shifts all that is drawn after
    /// it, so that the same failure may need another seed.
    pub seed_count: u64,
}

impl Trial {
    /// How to try smaller runs than this one; `None` if it broke no rule.
    #[must_use]
    pub fn of(report: &Report) -> Option<Self> {
        let check = report.violation.as_ref()?.check;
        // Fewer faults may mean more traffic.
        let event_count_max = report.event_count * 2 + 2 * EVENTS_BETWEEN_LOOKS;
        Some(Self { check, event_count_max, seed_count: 2 })
    }

    /// The candidate as it fails alike, perhaps with another seed; `None` if it does not.
    #[must_use]
    pub fn fails(&self, candidate: &Scenario) -> Option<Scenario> {
        let own = std::iter::once(candidate.seed);
        let seeds = own.chain((0..self.seed_count).filter(|seed| *seed != candidate.seed));
        let mut scenarios = seeds.map(|seed| Scenario { seed, ..candidate.clone() });
        scenarios.find(|scenario| self.fails_as_it_is(scenario))
    }

    fn fails_as_it_is(&self, scenario: &Scenario) -> bool {
        let looks_left = Cell::new(self.event_count_max / EVENTS_BETWEEN_LOOKS);
        let report = run_scenario(scenario.clone(), &|| {
            looks_left.set(looks_left.get().saturating_sub(1));
            0 < looks_left.get()
        });
        report.violation.is_some_and(|violation| violation.check == self.check)
    }
}

impl Shrink for Scenario {
    fn item_count(&self) -> usize {
        self.plan.len()
    }

    /// Operations come first, client by client, then the faults.
    fn without(&self, first: usize, end: usize) -> Self {
        let mut number = 0;
        let mut is_kept = || {
            number += 1;
            !(first..end).contains(&(number - 1))
        };
        let mut clients = self.plan.clients().to_vec();
        for client in &mut clients {
            client.operations.retain(|_| is_kept());
        }
        clients.retain(|client| !client.operations.is_empty());
        let faults = self.plan.faults().iter().filter(|_| is_kept()).cloned().collect();
        self.with_plan(clients, faults)
    }

    fn simpler(&self) -> Vec<(String, Self)> {
        let mut all = self.with_fewer_servers();
        all.extend(self.with_fewer_clients());
        all.extend(self.with_plainer_settings());
        all.extend(self.with_fewer_keys());
        all.extend(self.with_rounder_times());
        all.extend(self.with_simpler_clients());
        all.extend(self.with_simpler_faults());
        all
    }
}

type Simpler = Vec<(String, Scenario)>;

impl Scenario {
    fn with_plan(&self, clients: Vec<ClientPlan>, faults: Vec<TimedFault>) -> Self {
        Self { plan: Plan::new(clients, faults), ..self.clone() }
    }

    fn with_config(&self, config: ClusterConfig) -> Self {
        Self { config, ..self.clone() }
    }

    fn with_fewer_servers(&self) -> Simpler {
        let with = |servers| {
            let mut clients = self.plan.clients().to_vec();
            for client in &mut clients {
                client.home = MemberId(1 + (client.home.0 - 1) % servers);
            }
            let smaller = self.with_plan(clients, self.plan.faults().to_vec());
            let config = ClusterConfig { servers, ..self.config.clone() };
            (format!("servers {servers}"), smaller.with_config(config))
        };
        (1..self.config.servers).map(with).collect()
    }

    fn with_fewer_clients(&self) -> Simpler {
        let without = |gone: &ClientPlan| {
            let kept = self.plan.clients().iter().filter(|client| client.id != gone.id);
            let smaller = self.with_plan(kept.cloned().collect(), self.plan.faults().to_vec());
            (format!("client {}", gone.id), smaller)
        };
        self.plan.clients().iter().map(without).collect()
    }

    /// All at once, then each.
    fn with_plainer_settings(&self) -> Simpler {
        let plain = ClusterConfig::plain().settings().into_iter();
        let pairs = self.config.settings().into_iter().zip(plain);
        let odd =
            pairs.filter(|((name, word), (_, plain))| word != plain && !OWN_WAY.contains(name));
        let odd: Vec<(&str, String)> = odd.map(|(_, plain)| plain).collect();
        let with = |changes: &[(&str, String)]| {
            let mut config = self.config.clone();
            for (name, word) in changes {
                config.set(name, word).expect("plain settings are within their bounds");
            }
            self.with_config(config)
        };
        let mut all = Vec::new();
        if 1 < odd.len() {
            all.push(("settings".to_owned(), with(&odd)));
        }
        // Timings must fit to each other.
        let timings: Vec<_> =
            odd.iter().filter(|(name, _)| TIMINGS.contains(name)).cloned().collect();
        if !timings.is_empty() {
            all.push(("timings".to_owned(), with(&timings)));
        }
        let each =
            odd.iter().map(|change| (change.0.to_owned(), with(std::slice::from_ref(change))));
        all.extend(each);
        all.retain(|(_, simpler)| simpler.validate().is_ok());
        all
    }

    fn with_fewer_keys(&self) -> Simpler {
        let mut keys = BTreeSet::new();
        for operation in self.plan.clients().iter().flat_map(|client| &client.operations) {
            for action in operation.intent.actions() {
                let (Action::Put { key, .. }
                | Action::Range { key, .. }
                | Action::Delete { key, .. }) = action;
                keys.insert(key);
            }
        }
        let Some(first) = keys.pop_first() else { return Vec::new() };
        let moved = |key: &Bytes| {
            let mut clients = self.plan.clients().to_vec();
            for operation in clients.iter_mut().flat_map(|client| &mut client.operations) {
                operation.intent = operation.intent.moved(key, &first)?;
            }
            let smaller = self.with_plan(clients, self.plan.faults().to_vec());
            let name = format!("key {}", String::from_utf8_lossy(key));
            (smaller != *self).then_some((name, smaller))
        };
        keys.iter().filter_map(moved).collect()
    }

    /// The end of the first phase and the times of all faults.
    fn with_rounder_times(&self) -> Simpler {
        let mut all = Vec::new();
        let last = self.plan.faults().last().map_or(Instant::ZERO, |timed| timed.at);
        let tenth = GRAINS[0];
        let end = rounded(last, tenth).unwrap_or(last).since(Instant::ZERO) + tenth;
        if end < self.config.faults_until {
            let config = ClusterConfig { faults_until: end, ..self.config.clone() };
            all.push(("first phase".to_owned(), self.with_config(config)));
        }
        for grain in GRAINS {
            let round = |timed: &TimedFault| {
                let at = rounded(timed.at, grain).unwrap_or(timed.at);
                TimedFault { at, fault: timed.fault.clone() }
            };
            let faults = self.plan.faults().iter().map(round).collect();
            let smaller = self.with_plan(self.plan.clients().to_vec(), faults);
            if smaller != *self {
                all.push(("times".to_owned(), smaller));
            }
        }
        let mut clients = self.plan.clients().to_vec();
        for operation in clients.iter_mut().flat_map(|client| &mut client.operations) {
            operation.after = operation.after.min(Duration::from_millis(1));
        }
        let smaller = self.with_plan(clients, self.plan.faults().to_vec());
        if smaller != *self {
            all.push(("pauses".to_owned(), smaller));
        }
        all
    }

    fn with_simpler_clients(&self) -> Simpler {
        let mut all = Vec::new();
        for (at, client) in self.plan.clients().iter().enumerate() {
            let mut push = |simpler: ClientPlan| {
                let mut clients = self.plan.clients().to_vec();
                clients[at] = simpler;
                let smaller = self.with_plan(clients, self.plan.faults().to_vec());
                all.push((format!("client {}", client.id), smaller));
            };
            client.simpler().into_iter().for_each(&mut push);
            for (place, operation) in client.operations.iter().enumerate() {
                for simpler in operation.simpler() {
                    let mut client = client.clone();
                    client.operations[place] = simpler;
                    push(client);
                }
            }
        }
        all
    }

    fn with_simpler_faults(&self) -> Simpler {
        let mut all = Vec::new();
        for (at, timed) in self.plan.faults().iter().enumerate() {
            for simpler in timed.simpler() {
                let mut faults = self.plan.faults().to_vec();
                faults[at] = simpler;
                let smaller = self.with_plan(self.plan.clients().to_vec(), faults);
                all.push((format!("{}", timed.fault), smaller));
            }
        }
        all
    }
}

const TIMINGS: [&str; 3] = ["election-timeout", "heartbeat", "lease-drift"];
