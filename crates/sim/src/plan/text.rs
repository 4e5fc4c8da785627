//! Plans as text: one fault a line, words and numbers only, `#` to the end of a line for remarks.
//!
//! ```text
//! # the leader loses power while a follower is cut off
//! at 1.250s partition isolate 3
//! at 1.900s crash leader
//! at 4.000s heal
//! ```

use std::{fmt, str::FromStr, time::Duration};

use kvraft_base::{Instant, MemberId};

use super::{Fault, Part, Plan, Target, TimedFault, Wish};
use crate::network::{Endpoint, Partition};

/// A line that is no fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Number of the line, from 1.
    pub line_number: usize,
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub reason: String,
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line_number, self.reason, self.line)
    }
}

impl std::error::Error for PlanError {}

/// Seconds with at least three decimals and no more than needed.
fn write_seconds(f: &mut fmt::Formatter<'_>, nanos: u64) -> fmt::Result {
    let decimals = format!("{:09}", nanos % 1_000_000_000);
    let used = decimals.trim_end_matches('0').len().max(3);
    write!(f, "{}.{}s", nanos / 1_000_000_000, &decimals[..used])
}

fn parse_seconds(text: &str) -> Result<u64, String> {
    let wrong = || format!("not a time such as 1.250s: {text}");
    let number = text.strip_suffix('s').ok_or_else(wrong)?;
    let (seconds, decimals) = number.split_once('.').unwrap_or((number, ""));
    let is_digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if !is_digits(seconds) || !is_digits(decimals) || 9 < decimals.len() {
        return Err(wrong());
    }
    let seconds: u64 = seconds.parse().map_err(|_| wrong())?;
    let nanos: u64 = format!("{decimals:0<9}").parse().map_err(|_| wrong())?;
    seconds.checked_mul(1_000_000_000).and_then(|whole| whole.checked_add(nanos)).ok_or_else(wrong)
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Server(server) => server.fmt(f),
            Self::Leader => f.write_str("leader"),
            Self::All => f.write_str("all"),
        }
    }
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Isolate(server) => write!(f, "isolate {server}"),
            Self::Deaf(server) => write!(f, "deaf {server}"),
            Self::Mute(server) => write!(f, "mute {server}"),
            Self::Split(side) => write!(f, "split {}", list(side)),
            Self::OneWay(side) => write!(f, "oneway {}", list(side)),
            Self::Ring => f.write_str("ring"),
            Self::Bridge(server) => write!(f, "bridge {server}"),
        }
    }
}

fn list(servers: &[MemberId]) -> String {
    servers.iter().map(MemberId::to_string).collect::<Vec<_>>().join(",")
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Table => "table",
            Self::Journal => "journal",
        })
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(target) => write!(f, "crash {target}"),
            Self::Kill(target) => write!(f, "kill {target}"),
            Self::Fuse { target, change_count } => write!(f, "fuse {target} {change_count}"),
            Self::Restart(target) => write!(f, "restart {target}"),
            Self::Pause(target) => write!(f, "pause {target}"),
            Self::Suspend(target) => write!(f, "suspend {target}"),
            Self::Resume(target) => write!(f, "resume {target}"),
            Self::Jump { target, by_ms } => write!(f, "jump {target} {by_ms}"),
            Self::Drift { target, rate_ppm } => write!(f, "drift {target} {rate_ppm}"),
            Self::Slow { target, factor } => write!(f, "slow {target} {factor}"),
            Self::Stall { target, lasts } => {
                write!(f, "stall {target} ")?;
                write_seconds(f, u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX))
            }
            Self::SyncError { target, sync_count } => {
                write!(f, "sync-error {target} {sync_count}")
            }
            Self::WriteError { target, write_count } => {
                write!(f, "write-error {target} {write_count}")
            }
            Self::Full { target, left_bytes } => write!(f, "full {target} {left_bytes}"),
            Self::Space(target) => write!(f, "space {target}"),
            Self::Disconnect(target) => write!(f, "disconnect {target}"),
            Self::Reconnect(target) => write!(f, "reconnect {target}"),
            Self::Partition(partition) => write!(f, "partition {partition}"),
            Self::Block { from, to } => write!(f, "block {from} {to}"),
            Self::Unblock { from, to } => write!(f, "unblock {from} {to}"),
            Self::Clog { from, to, lasts } => {
                write!(f, "clog {from} {to} ")?;
                write_seconds(f, u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX))
            }
            Self::Heal => f.write_str("heal"),
            Self::Rot { server, part, draw } => write!(f, "rot {server} {part} {draw}"),
            Self::Change(wishes) => {
                let wishes: Vec<_> = wishes.iter().map(ToString::to_string).collect();
                write!(f, "change {}", wishes.join(","))
            }
            Self::Transfer(None) => f.write_str("transfer any"),
            Self::Transfer(Some(to)) => write!(f, "transfer {to}"),
            Self::Replace(whom) => write!(f, "replace {whom}"),
            Self::Stop(target) => write!(f, "stop {target}"),
        }
    }
}

impl fmt::Display for TimedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("at ")?;
        write_seconds(f, self.at.0)?;
        write!(f, " {}", self.fault)
    }
}

/// One line for each fault.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.faults.iter().try_for_each(|timed| writeln!(f, "{timed}"))
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut faults = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let statement = line.split('#').next().unwrap_or("").trim();
            if statement.is_empty() {
                continue;
            }
            let timed = statement.parse().map_err(|reason| PlanError {
                line_number: at + 1,
                line: line.to_owned(),
                reason,
            })?;
            faults.push(timed);
        }
        Ok(Self::new(faults))
    }
}

impl FromStr for TimedFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Words(text.split_whitespace());
        if words.next("at")? != "at" {
            return Err("a fault begins with: at TIME".to_owned());
        }
        let at = Instant(words.nanos()?);
        let fault = words.fault()?;
        match words.0.next() {
            None => Ok(Self { at, fault }),
            Some(word) => Err(format!("nothing belongs after the fault: {word}")),
        }
    }
}

/// The words of one line, still to be read.
struct Words<'a>(std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("missing: {what}"))
    }

    fn nanos(&mut self) -> Result<u64, String> {
        parse_seconds(self.next("time")?)
    }

    fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.next(what)?;
        word.parse().map_err(|_| format!("not a {what}: {word}"))
    }

    fn positive(&mut self, what: &str) -> Result<u64, String> {
        match self.number(what)? {
            0 => Err(format!("a {what} counts from 1")),
            number => Ok(number),
        }
    }

    fn server(&mut self) -> Result<MemberId, String> {
        self.number("server").map(MemberId)
    }

    fn side(&mut self) -> Result<Vec<MemberId>, String> {
        let word = self.next("servers")?;
        let wrong = |_| format!("not a list of servers: {word}");
        word.split(',').map(|id| id.parse().map(MemberId).map_err(wrong)).collect()
    }

    fn target(&mut self) -> Result<Target, String> {
        match self.next("server, leader or all")? {
            "leader" => Ok(Target::Leader),
            "all" => Ok(Target::All),
            word => word
                .parse()
                .map(|id| Target::Server(MemberId(id)))
                .map_err(|_| format!("not a server, leader or all: {word}")),
        }
    }

    fn endpoint(&mut self) -> Result<Endpoint, String> {
        self.next("endpoint")?.parse().map_err(|error| format!("{error}"))
    }

    fn fault(&mut self) -> Result<Fault, String> {
        Ok(match self.next("fault")? {
            "crash" => Fault::Crash(self.target()?),
            "kill" => Fault::Kill(self.target()?),
            "fuse" => {
                Fault::Fuse { target: self.target()?, change_count: self.positive("change")? }
            }
            "restart" => Fault::Restart(self.target()?),
            "pause" => Fault::Pause(self.target()?),
            "suspend" => Fault::Suspend(self.target()?),
            "resume" => Fault::Resume(self.target()?),
            "jump" => {
                let (target, word) = (self.target()?, self.next("milliseconds")?);
                let by_ms = word.parse().map_err(|_| format!("not milliseconds: {word}"))?;
                Fault::Jump { target, by_ms }
            }
            "drift" => Fault::Drift { target: self.target()?, rate_ppm: self.positive("rate")? },
            "slow" => Fault::Slow { target: self.target()?, factor: self.positive("factor")? },
            "stall" => {
                let (target, nanos) = (self.target()?, self.nanos()?);
                Fault::Stall { target, lasts: Duration::from_nanos(nanos) }
            }
            "sync-error" => {
                Fault::SyncError { target: self.target()?, sync_count: self.positive("sync")? }
            }
            "write-error" => {
                Fault::WriteError { target: self.target()?, write_count: self.positive("write")? }
            }
            "full" => {
                Fault::Full { target: self.target()?, left_bytes: self.number("count of bytes")? }
            }
            "space" => Fault::Space(self.target()?),
            "disconnect" => Fault::Disconnect(self.target()?),
            "reconnect" => Fault::Reconnect(self.target()?),
            "partition" => Fault::Partition(self.partition()?),
            "block" => Fault::Block { from: self.endpoint()?, to: self.endpoint()? },
            "unblock" => Fault::Unblock { from: self.endpoint()?, to: self.endpoint()? },
            "clog" => {
                let (from, to) = (self.endpoint()?, self.endpoint()?);
                Fault::Clog { from, to, lasts: Duration::from_nanos(self.nanos()?) }
            }
            "heal" => Fault::Heal,
            "rot" => Fault::Rot {
                server: self.server()?,
                part: match self.next("table or journal")? {
                    "table" => Part::Table,
                    "journal" => Part::Journal,
                    word => return Err(format!("not a part of a disk: {word}")),
                },
                draw: self.number("draw")?,
            },
            "change" => Fault::Change(self.wishes()?),
            "transfer" => {
                Fault::Transfer(match self.next("member, leader, nth-number or any")? {
                    "any" => None,
                    whom => Some(whom.parse()?),
                })
            }
            "replace" => Fault::Replace(self.next("member, leader or nth-number")?.parse()?),
            "stop" => Fault::Stop(self.target()?),
            word => return Err(format!("no such fault: {word}")),
        })
    }

    fn wishes(&mut self) -> Result<Vec<Wish>, String> {
        self.next("wishes")?.split(',').map(str::parse).collect()
    }

    fn partition(&mut self) -> Result<Partition, String> {
        Ok(match self.next("shape")? {
            "isolate" => Partition::Isolate(self.server()?),
            "deaf" => Partition::Deaf(self.server()?),
            "mute" => Partition::Mute(self.server()?),
            "split" => Partition::Split(self.side()?),
            "oneway" => Partition::OneWay(self.side()?),
            "ring" => Partition::Ring,
            "bridge" => Partition::Bridge(self.server()?),
            word => return Err(format!("no such shape: {word}")),
        })
    }
}
