//! A run as a whole: seed, settings, and the plan of operations and faults.
//!
//! ```text
//! check linearizable
//! seed 42
//! set servers 5
//! client 1 home 2
//! client 1 after 0.001s put k0 v1
//! at 1.250s crash 3
//! ```
//!
//! The seed decides what the other lines leave open: how long each frame and each turn of a disk
//! takes, what a crash keeps, when elections begin, who stays broken in the second phase.
//!
//! Invariants:
//! - equal scenarios give equal runs, to the last event;
//! - a scenario prints to text that reads back as the same scenario;
//! - what reads without an error can be run.

#[cfg(test)]
mod tests;

use std::{fmt, str::FromStr};

use kvraft_base::{Instant, MemberId};
use kvraft_kv::Versions;

use super::{
    authors,
    clients::Client,
    config::{Choices, ClusterConfig, Draft},
    faults,
    violation::Check,
    world::CLUSTER,
};
use crate::plan::{
    ClientPlan, Plan, PlanError, PlanLine, PlanReader, TimedFault, read_lines, seconds,
};

/// Everything that decides a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scenario {
    /// What the other parts leave open is drawn from it.
    pub seed: u64,
    /// The check that the run is known to fail, or to have failed.
    pub check: Option<Check>,
    /// Sizes, timings, delays, costs.
    pub config: ClusterConfig,
    /// What clients do and what goes wrong.
    pub plan: Plan,
}

impl Scenario {
    /// The scenario of a seed.
    #[must_use]
    pub fn draw(seed: u64, choices: Choices) -> Self {
        let draft = Draft::draw(seed, choices);
        let plan = Plan::new(authors::draw(seed, &draft), faults::draw(seed, &draft));
        Self { seed, check: None, config: draft.config, plan }
    }

    /// Whether it can be run.
    ///
    /// # Errors
    /// In words, what does not fit together.
    pub fn validate(&self) -> Result<(), String> {
        validate_timing(&self.config)?;
        self.plan.clients().iter().try_for_each(|client| validate_client(client, &self.config))?;
        self.plan.faults().iter().try_for_each(|timed| validate_fault(timed, &self.config))
    }
}

fn validate_timing(config: &ClusterConfig) -> Result<(), String> {
    let options = config.open_options(MemberId(1), CLUSTER, 1, Versions::OF_BUILD, 0);
    options.raft.validate().map_err(|error| error.to_string())
}

fn validate_client(client: &ClientPlan, config: &ClusterConfig) -> Result<(), String> {
    Client::new(client, config.servers, 0).map(drop)
}

fn validate_fault(timed: &TimedFault, config: &ClusterConfig) -> Result<(), String> {
    if timed.at < Instant::ZERO + config.faults_until {
        return Ok(());
    }
    let end = seconds(config.faults_until);
    Err(format!("the first phase ends at {end}, and nothing goes wrong from then on: {timed}"))
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(check) = self.check {
            writeln!(f, "check {check}")?;
        }
        writeln!(f, "seed {}", self.seed)?;
        let plain = ClusterConfig::plain().settings();
        for ((name, word), (_, plain)) in self.config.settings().into_iter().zip(plain) {
            if word != plain {
                writeln!(f, "set {name} {word}")?;
            }
        }
        write!(f, "{}", self.plan)
    }
}

impl FromStr for Scenario {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut scenario =
            Self { seed: 0, check: None, config: ClusterConfig::plain(), plan: Plan::default() };
        // What lines must fit to is known when all settings are.
        read_lines(text, |statement| scenario.read_head(statement).map(drop))?;
        if let Err(reason) = validate_timing(&scenario.config) {
            let is_timing = |statement: &str| TIMINGS.iter().any(|it| statement.starts_with(it));
            return Err(PlanError::at(text, is_timing, reason));
        }
        let mut reader = PlanReader::default();
        read_lines(text, |statement| {
            if scenario.read_head(statement)? {
                return Ok(());
            }
            match reader.read(statement)? {
                PlanLine::Client(client) => validate_client(client, &scenario.config),
                PlanLine::Operation => Ok(()),
                PlanLine::Fault(timed) => validate_fault(timed, &scenario.config),
            }
        })?;
        scenario.plan = reader.finish();
        Ok(scenario)
    }
}

/// Settings that must fit together.
const TIMINGS: [&str; 3] = ["set election-timeout", "set heartbeat", "set lease-drift"];

impl Scenario {
    /// Takes a line that is not of the plan; returns whether it is such a line.
    fn read_head(&mut self, statement: &str) -> Result<bool, String> {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words[..] {
            ["seed", word] => {
                self.seed = word.parse().map_err(|_| format!("not a seed: {word}"))?;
            }
            ["check", word] => self.check = Some(word.parse()?),
            ["set", name, word] => self.config.set(name, word)?,
            ["seed" | "check" | "set", ..] => {
                return Err("write seed NUMBER, check NAME or set NAME VALUE".to_owned());
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
