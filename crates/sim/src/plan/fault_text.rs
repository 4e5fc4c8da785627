//! Faults as text: the name of one, then whom it meets, how strong it is.

use std::fmt;

use kvraft_base::MemberId;

use super::{
    Build, CoordinatorFault, Decay, Fault, Part, Target, Wish,
    text::{NUMBER_MAX, Words, seconds},
};
use crate::{
    disk::ChangePoint,
    network::{Endpoint, Partition},
};

/// The slowest disk that a plan may ask for, in times as long.
const FACTOR_MAX: u64 = 1_000_000;

/// The fastest clock that a plan may ask for, in parts per million.
const RATE_PPM_MAX: u64 = 1_000_000_000;

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

impl fmt::Display for Build {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Old => "old",
            Self::New => "new",
        })
    }
}

impl fmt::Display for Decay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Flip => "rot",
            Self::Misdirect => "misdirect",
            Self::Lose => "lost-write",
            Self::Misread => "misread",
        })
    }
}

impl fmt::Display for CoordinatorFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash => f.write_str("crash"),
            Self::Restart => f.write_str("restart"),
            Self::Pause => f.write_str("pause"),
            Self::Resume => f.write_str("resume"),
            Self::Cut(target) => write!(f, "cut {target}"),
            Self::Late(by) => write!(f, "late {}", seconds(*by)),
            Self::Lie => f.write_str("lie"),
            Self::Mend => f.write_str("mend"),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Crash(target) => write!(f, "crash {target}"),
            Self::Kill(target) => write!(f, "kill {target}"),
            Self::Fuse { target, change_count } => write!(f, "fuse {target} {change_count}"),
            Self::Ambush { target, point, change_count } => {
                write!(f, "ambush {target} {} {change_count}", point.name())
            }
            Self::Restart(target) => write!(f, "restart {target}"),
            Self::Pause(target) => write!(f, "pause {target}"),
            Self::Suspend(target) => write!(f, "suspend {target}"),
            Self::Resume(target) => write!(f, "resume {target}"),
            Self::Jump { target, by_ms } => write!(f, "jump {target} {by_ms}"),
            Self::Drift { target, rate_ppm } => write!(f, "drift {target} {rate_ppm}"),
            Self::Slow { target, factor } => write!(f, "slow {target} {factor}"),
            Self::Stall { target, lasts } => {
                write!(f, "stall {target} {}", seconds(*lasts))
            }
            Self::SyncError { target, sync_count } => {
                write!(f, "sync-error {target} {sync_count}")
            }
            Self::FalseClean { target, sync_count } => {
                write!(f, "false-clean {target} {sync_count}")
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
                write!(f, "clog {from} {to} {}", seconds(*lasts))
            }
            Self::Lag { from, to, mean } => write!(f, "lag {from} {to} {}", seconds(*mean)),
            Self::Throttle { from, to, rate_bytes, queue_bytes } => {
                write!(f, "throttle {from} {to} {rate_bytes} {queue_bytes}")
            }
            Self::Unthrottle { from, to } => write!(f, "unthrottle {from} {to}"),
            Self::ClientCrash { client, down } => {
                write!(f, "client-crash {client} {}", seconds(*down))
            }
            Self::ClientPause { client, lasts } => {
                write!(f, "client-pause {client} {}", seconds(*lasts))
            }
            Self::Heal => f.write_str("heal"),
            Self::Rot { decay, server, part, draw } => write!(f, "{decay} {server} {part} {draw}"),
            Self::ReadError { target, read_count } => {
                write!(f, "read-error {target} {read_count}")
            }
            Self::BadSector { server, part, draw } => {
                write!(f, "bad-sector {server} {part} {draw}")
            }
            Self::GoodSectors(target) => write!(f, "good-sectors {target}"),
            Self::Change(wishes) => {
                let wishes: Vec<_> = wishes.iter().map(ToString::to_string).collect();
                write!(f, "change {}", wishes.join(","))
            }
            Self::Transfer(None) => f.write_str("transfer any"),
            Self::Transfer(Some(to)) => write!(f, "transfer {to}"),
            Self::Replace(whom) => write!(f, "replace {whom}"),
            Self::Stop(target) => write!(f, "stop {target}"),
            Self::Coordinator(fault) => write!(f, "coordinator {fault}"),
            Self::Install { target, build } => write!(f, "install {target} {build}"),
        }
    }
}

impl Words<'_> {
    pub(super) fn fault(&mut self) -> Result<Fault, String> {
        let name = self.next("fault")?;
        let readers = [
            Self::process_fault,
            Self::clock_fault,
            Self::disk_fault,
            Self::content_fault,
            Self::link_fault,
            Self::client_fault,
            Self::member_fault,
            Self::coordinator_fault,
        ];
        for read in readers {
            if let Some(fault) = read(self, name)? {
                return Ok(fault);
            }
        }
        Err(format!("no such fault: {name}"))
    }

    fn process_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "crash" => Fault::Crash(self.target()?),
            "kill" => Fault::Kill(self.target()?),
            "fuse" => {
                Fault::Fuse { target: self.target()?, change_count: self.positive("change")? }
            }
            "ambush" => Fault::Ambush {
                target: self.target()?,
                point: self.point()?,
                change_count: self.positive("change")?,
            },
            "restart" => Fault::Restart(self.target()?),
            "pause" => Fault::Pause(self.target()?),
            "suspend" => Fault::Suspend(self.target()?),
            "resume" => Fault::Resume(self.target()?),
            "stop" => Fault::Stop(self.target()?),
            "install" => Fault::Install { target: self.target()?, build: self.build()? },
            _ => return Ok(None),
        }))
    }

    fn clock_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "jump" => {
                let (target, word) = (self.target()?, self.next("milliseconds")?);
                let by_ms: i64 = word.parse().map_err(|_| format!("not milliseconds: {word}"))?;
                if NUMBER_MAX < by_ms.unsigned_abs() {
                    return Err(format!("more than {NUMBER_MAX} milliseconds: {word}"));
                }
                Fault::Jump { target, by_ms }
            }
            "drift" => {
                let (target, rate_ppm) = (self.target()?, self.positive("rate")?);
                if RATE_PPM_MAX < rate_ppm {
                    return Err(format!("a rate is at most {RATE_PPM_MAX}: {rate_ppm}"));
                }
                Fault::Drift { target, rate_ppm }
            }
            _ => return Ok(None),
        }))
    }

    fn disk_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "slow" => Fault::Slow { target: self.target()?, factor: self.factor()? },
            "stall" => Fault::Stall { target: self.target()?, lasts: self.duration()? },
            "sync-error" => {
                Fault::SyncError { target: self.target()?, sync_count: self.positive("sync")? }
            }
            "false-clean" => {
                Fault::FalseClean { target: self.target()?, sync_count: self.positive("sync")? }
            }
            "write-error" => {
                Fault::WriteError { target: self.target()?, write_count: self.positive("write")? }
            }
            "read-error" => {
                Fault::ReadError { target: self.target()?, read_count: self.positive("read")? }
            }
            "full" => {
                let (target, what) = (self.target()?, "count of bytes");
                Fault::Full { target, left_bytes: self.bounded(what, NUMBER_MAX)? }
            }
            "space" => Fault::Space(self.target()?),
            _ => return Ok(None),
        }))
    }

    fn content_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "rot" => self.rot(Decay::Flip)?,
            "misdirect" => self.rot(Decay::Misdirect)?,
            "lost-write" => self.rot(Decay::Lose)?,
            "misread" => self.rot(Decay::Misread)?,
            "bad-sector" => Fault::BadSector {
                server: self.server()?,
                part: self.part()?,
                draw: self.number("draw")?,
            },
            "good-sectors" => Fault::GoodSectors(self.target()?),
            _ => return Ok(None),
        }))
    }

    fn link_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "disconnect" => Fault::Disconnect(self.target()?),
            "reconnect" => Fault::Reconnect(self.target()?),
            "partition" => Fault::Partition(self.partition()?),
            "block" => Fault::Block { from: self.endpoint()?, to: self.endpoint()? },
            "unblock" => Fault::Unblock { from: self.endpoint()?, to: self.endpoint()? },
            "clog" => {
                let (from, to) = (self.endpoint()?, self.endpoint()?);
                Fault::Clog { from, to, lasts: self.duration()? }
            }
            "lag" => {
                let (from, to) = (self.endpoint()?, self.endpoint()?);
                Fault::Lag { from, to, mean: self.duration()? }
            }
            "throttle" => Fault::Throttle {
                from: self.endpoint()?,
                to: self.endpoint()?,
                rate_bytes: self.positive("rate")?,
                queue_bytes: self.bounded("count of bytes", NUMBER_MAX)?,
            },
            "unthrottle" => Fault::Unthrottle { from: self.endpoint()?, to: self.endpoint()? },
            "heal" => Fault::Heal,
            _ => return Ok(None),
        }))
    }

    fn client_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "client-crash" => {
                Fault::ClientCrash { client: self.positive("client")?, down: self.duration()? }
            }
            "client-pause" => {
                Fault::ClientPause { client: self.positive("client")?, lasts: self.duration()? }
            }
            _ => return Ok(None),
        }))
    }

    fn member_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        Ok(Some(match name {
            "change" => Fault::Change(self.wishes()?),
            "transfer" => {
                Fault::Transfer(match self.next("member, leader, nth-number or any")? {
                    "any" => None,
                    whom => Some(whom.parse()?),
                })
            }
            "replace" => Fault::Replace(self.next("member, leader or nth-number")?.parse()?),
            _ => return Ok(None),
        }))
    }

    fn coordinator_fault(&mut self, name: &str) -> Result<Option<Fault>, String> {
        if name != "coordinator" {
            return Ok(None);
        }
        let fault = match self.next("what happens to it")? {
            "crash" => CoordinatorFault::Crash,
            "restart" => CoordinatorFault::Restart,
            "pause" => CoordinatorFault::Pause,
            "resume" => CoordinatorFault::Resume,
            "cut" => CoordinatorFault::Cut(self.target()?),
            "late" => CoordinatorFault::Late(self.duration()?),
            "lie" => CoordinatorFault::Lie,
            "mend" => CoordinatorFault::Mend,
            word => return Err(format!("nothing that happens to a coordinator: {word}")),
        };
        Ok(Some(Fault::Coordinator(fault)))
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

    fn side(&mut self) -> Result<Vec<MemberId>, String> {
        let word = self.next("servers")?;
        let wrong = |_| format!("not a list of servers: {word}");
        word.split(',').map(|id| id.parse().map(MemberId).map_err(wrong)).collect()
    }

    fn endpoint(&mut self) -> Result<Endpoint, String> {
        self.next("endpoint")?.parse().map_err(|error| format!("{error}"))
    }

    fn factor(&mut self) -> Result<u64, String> {
        match self.bounded("factor", FACTOR_MAX)? {
            0 => Err("a factor counts from 1".to_owned()),
            factor => Ok(factor),
        }
    }

    fn rot(&mut self, decay: Decay) -> Result<Fault, String> {
        let (server, part, draw) = (self.server()?, self.part()?, self.number("draw")?);
        Ok(Fault::Rot { decay, server, part, draw })
    }

    fn part(&mut self) -> Result<Part, String> {
        match self.next("table or journal")? {
            "table" => Ok(Part::Table),
            "journal" => Ok(Part::Journal),
            word => Err(format!("not a part of a disk: {word}")),
        }
    }

    fn build(&mut self) -> Result<Build, String> {
        match self.next("old or new")? {
            "old" => Ok(Build::Old),
            "new" => Ok(Build::New),
            word => Err(format!("not a build: {word}")),
        }
    }

    fn point(&mut self) -> Result<ChangePoint, String> {
        let word = self.next("kind of change")?;
        let found = ChangePoint::ALL.into_iter().find(|point| point.name() == word);
        found.ok_or_else(|| format!("not a kind of change: {word}"))
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
