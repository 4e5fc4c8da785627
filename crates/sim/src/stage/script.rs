//! A script: the seed, the settings, what clients ask for, what goes wrong. As text, and drawn.

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use kvraft_base::{Instant, Prng};

use super::System;
use crate::{
    network::NetworkConfig,
    plan::{
        CLIENT_MAX, Fault, FaultChoice, FaultKind, FaultKinds, Plan, PlanError, RunConfig, Target,
        TimedFault, parse_seconds, read_lines, seconds,
    },
    settings::settings,
};

/// How a stage is set up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageConfig {
    /// Servers, with ids 1 and upwards.
    pub servers: u64,
    /// Faults happen up to here; then everything is mended.
    pub faults_until: Duration,
    /// Disks take no time; else each has its own costs.
    pub free_disks: bool,
    /// Links.
    pub network: NetworkConfig,
}

impl StageConfig {
    /// Three servers on a good day: what no line says is so.
    #[must_use]
    pub fn plain() -> Self {
        Self {
            servers: 3,
            faults_until: Duration::from_secs(5),
            free_disks: true,
            network: NetworkConfig::CALM,
        }
    }
}

settings! {
    StageConfig, STAGE_SETTINGS, and its network;
    "servers": (servers), "1 to 64", |count| (1..=64).contains(count);
    "first-phase": (faults_until), "a time such as 4.000s, up to 600s",
        |time: &Duration| *time <= Duration::from_secs(600);
    "free-disks": (free_disks), "yes or no", |_| true;
}

/// An operation of a script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<O> {
    /// Who asks.
    pub client: u64,
    /// How long after the end of the client's operation before this one.
    pub after: Duration,
    /// For what.
    pub operation: O,
}

/// Everything that decides a play.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script<O> {
    /// What the lines leave open is drawn from it.
    pub seed: u64,
    /// The check that the play is known to fail, or to have failed.
    pub check: Option<String>,
    /// How the stage is set up.
    pub config: StageConfig,
    /// What clients ask for; those of one client in the order in which it asks.
    pub lines: Vec<Line<O>>,
    /// What goes wrong, sorted by time, all of it in the first phase.
    pub faults: Vec<TimedFault>,
}

/// How large a drawn script is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Casting {
    /// Servers. `None`: drawn, 3 to 5.
    pub servers: Option<u64>,
    /// Clients, at most.
    pub clients_max: u64,
    /// Operations of a client, at most.
    pub operations_max: u64,
    /// Which faults there may be.
    pub faults: FaultChoice,
}

impl Default for Casting {
    fn default() -> Self {
        let faults = FaultChoice::default();
        Self { servers: None, clients_max: 4, operations_max: 20, faults }
    }
}

/// Kinds of fault that mean nothing here: they are of clusters with members, a leader, known files.
const FOREIGN: [FaultKind; 13] = [
    FaultKind::Rot,
    FaultKind::Misdirect,
    FaultKind::LostWrite,
    FaultKind::Misread,
    FaultKind::Members,
    FaultKind::Regrow,
    FaultKind::Transfer,
    FaultKind::Replace,
    FaultKind::Stop,
    FaultKind::Usurp,
    FaultKind::Rolling,
    FaultKind::Upgrade,
    FaultKind::Coordinator,
];

impl<O> Script<O> {
    /// The script of a seed.
    #[must_use]
    pub fn draw<S: System<Operation = O>>(system: &S, seed: u64, casting: Casting) -> Self {
        let root = Prng::new(seed).fork("stage");
        let mut prng = root.fork("sizes");
        let servers = casting.servers.unwrap_or_else(|| prng.between(3, 5));
        let kinds = casting.faults.draw(&mut root.fork("kinds"));
        let kinds = FOREIGN.into_iter().fold(kinds, FaultKinds::without);
        let millis = Duration::from_millis;
        let config = StageConfig {
            servers,
            faults_until: prng.duration(millis(500), millis(5_000)),
            free_disks: prng.chance(1, 4),
            network: NetworkConfig::draw(&mut root.fork("network"), kinds),
        };
        let mut lines = Vec::new();
        for client in 1..=prng.between(1, casting.clients_max.clamp(1, CLIENT_MAX)) {
            let mut prng = root.fork(&format!("client {client}"));
            for number in 1..=prng.between(1, casting.operations_max.max(1)) {
                let after = prng.duration(millis(1), millis(50));
                let operation = system.draw(client, number, &mut prng);
                lines.push(Line { client, after, operation });
            }
        }
        let run = RunConfig {
            faults_from: Instant::ZERO,
            faults_until: Instant::ZERO + config.faults_until,
            fault_interval_mean: *prng.pick(&[millis(50), millis(200), millis(800)]).expect("any"),
            repair_after_max: prng.duration(millis(10), millis(2_000)),
            kinds,
            leave_broken: true,
            ..RunConfig::calm(servers)
        };
        let mut faults = Plan::draw_faults(&run, &root.fork("faults"));
        faults.retain(|timed| refuse(&timed.fault).is_ok());
        Self { seed, check: None, config, lines, faults }
    }
}

/// Faults that a stage knows nothing of.
fn refuse(fault: &Fault) -> Result<(), String> {
    let is_of_leader = |target: &Target| *target == Target::Leader;
    let is_foreign = match fault {
        Fault::Rot { .. }
        | Fault::BadSector { .. }
        | Fault::Change(_)
        | Fault::Transfer(_)
        | Fault::Replace(_)
        | Fault::ClientCrash { .. }
        | Fault::ClientPause { .. }
        | Fault::Coordinator(_)
        | Fault::Stop(_)
        | Fault::Install { .. } => true,
        Fault::Crash(target)
        | Fault::Kill(target)
        | Fault::Restart(target)
        | Fault::Pause(target)
        | Fault::Suspend(target)
        | Fault::Resume(target)
        | Fault::Space(target)
        | Fault::Disconnect(target)
        | Fault::Reconnect(target)
        | Fault::Fuse { target, .. }
        | Fault::Ambush { target, .. }
        | Fault::FalseClean { target, .. }
        | Fault::Jump { target, .. }
        | Fault::Drift { target, .. }
        | Fault::Slow { target, .. }
        | Fault::Stall { target, .. }
        | Fault::SyncError { target, .. }
        | Fault::WriteError { target, .. }
        | Fault::ReadError { target, .. }
        | Fault::GoodSectors(target)
        | Fault::Full { target, .. } => is_of_leader(target),
        Fault::Partition(_)
        | Fault::Block { .. }
        | Fault::Unblock { .. }
        | Fault::Clog { .. }
        | Fault::Lag { .. }
        | Fault::Throttle { .. }
        | Fault::Unthrottle { .. }
        | Fault::Heal => false,
    };
    if is_foreign {
        Err(format!(
            "a stage has no members, no leader, no rot and no processes of clients: {fault}"
        ))
    } else {
        Ok(())
    }
}

impl<O: fmt::Display> fmt::Display for Script<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(check) = &self.check {
            writeln!(f, "check {check}")?;
        }
        writeln!(f, "seed {}", self.seed)?;
        let plain = StageConfig::plain().settings();
        for ((name, word), (_, plain)) in self.config.settings().into_iter().zip(plain) {
            if word != plain {
                writeln!(f, "set {name} {word}")?;
            }
        }
        for Line { client, after, operation } in &self.lines {
            writeln!(f, "client {client} after {} {operation}", seconds(*after))?;
        }
        self.faults.iter().try_for_each(|timed| writeln!(f, "{timed}"))
    }
}

impl<O: FromStr<Err: fmt::Display>> FromStr for Script<O> {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let config = StageConfig::plain();
        let mut script =
            Self { seed: 0, check: None, config, lines: Vec::new(), faults: Vec::new() };
        // Faults must fit into the first phase, which is known when all settings are.
        read_lines(text, |statement| match statement.split_whitespace().next() {
            Some("seed" | "check" | "set") => script.read_head(statement),
            _ => Ok(()),
        })?;
        let mut clients: BTreeMap<u64, Vec<Line<O>>> = BTreeMap::new();
        read_lines(text, |statement| match statement.split_whitespace().next() {
            Some("seed" | "check" | "set") => Ok(()),
            Some("client") => {
                let line = read_line(statement)?;
                clients.entry(line.client).or_default().push(line);
                Ok(())
            }
            _ => {
                let timed: TimedFault = statement.parse()?;
                refuse(&timed.fault)?;
                if Instant::ZERO + script.config.faults_until <= timed.at {
                    let end = seconds(script.config.faults_until);
                    return Err(format!("the first phase ends at {end}"));
                }
                script.faults.push(timed);
                Ok(())
            }
        })?;
        script.lines = clients.into_values().flatten().collect();
        script.faults.sort_by_key(|timed| timed.at);
        Ok(script)
    }
}

impl<O> Script<O> {
    fn read_head(&mut self, statement: &str) -> Result<(), String> {
        let words: Vec<&str> = statement.split_whitespace().collect();
        match words[..] {
            ["seed", word] => {
                self.seed = word.parse().map_err(|_| format!("not a seed: {word}"))?;
                Ok(())
            }
            ["check", word] => {
                self.check = Some(word.to_owned());
                Ok(())
            }
            ["set", name, word] => self.config.set(name, word),
            _ => Err("write seed NUMBER, check NAME or set NAME VALUE".to_owned()),
        }
    }
}

/// `client NUMBER after TIME OPERATION`.
fn read_line<O: FromStr<Err: fmt::Display>>(statement: &str) -> Result<Line<O>, String> {
    let wrong = || "write client NUMBER after TIME OPERATION".to_owned();
    let mut words = statement.splitn(5, ' ');
    let mut next = || words.next().ok_or_else(wrong);
    let (_, client, after_word, time, rest) = (next()?, next()?, next()?, next()?, next()?);
    let client = client.parse().map_err(|_| format!("not a client: {client}"))?;
    if after_word != "after" || CLIENT_MAX < client {
        return Err(wrong());
    }
    let after = Duration::from_nanos(parse_seconds(time)?);
    let operation = rest.trim().parse().map_err(|error: O::Err| format!("{error}: {rest}"))?;
    Ok(Line { client, after, operation })
}
