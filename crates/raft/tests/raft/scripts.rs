//! Scenarios as text: `testdata/*.txt`, commands and what they print. `UPDATE_GOLDENFILES=1` writes
//! what is printed; the difference is reviewed like code. A command in parentheses prints nothing.
//!
//! Commands (ids and numbers are plain, lists are quoted):
//! - `cluster N [SETTING=NUMBER …]`: servers 1 to N, not yet started; see [`Script::cluster`];
//! - `disk ID log="TERM TERMxCOUNT …" [term=T] [commit=I] [applied=I] [released=I] [attested=I]
//!   [config=I] [members=1]`: the entry there is the cluster's configuration; the journal names the
//!   configuration in force where it begins;
//! - `start [ID …]`, `crash ID`, `damage ID keep=I`: what was durable after there is gone;
//! - `block FROM TO`, `unblock FROM TO`: one direction of a link; `cut ID`, `heal ID`, `close ID PEER`, `open ID PEER`;
//! - `suspect ID`: somebody outside says to it that its leader is dead;
//! - `elect ID`: starts who is not up, lets this server campaign and everyone answer;
//! - `timeout ID`: time moves to this server's deadline, which fires; `run MS`: everything happens;
//!   `pause MS`: time passes, and nobody is there to see it; `due ID`: how far its deadline is;
//! - `deliver`, `drop`, `repeat [type=BODY] [from=ID] [to=ID] [skip=N] [count=N]`: what is on its way
//!   now; `repeat` delivers and keeps it; `together` delivers what is for one server in one turn;
//!   `stabilize`: delivers all, without time; `pending` lists it;
//! - `hold ID`, `sync ID [COUNT]`: writes wait until they are synced; `stall ID`, `apply ID [COUNT]`:
//!   the machine waits; `free ID`: both keep up again;
//! - `propose ID [VALUE …]`, `batch ID [VALUE …]`: the same in one turn, `read ID`;
//! - `change ID [voter|learner|auto|remove|promote|demote|update=ID …]`: all in one; `auto` is a
//!   learner to be promoted when in step; spares come with `cluster N spare=M`;
//! - `transfer ID [SUCCESSOR]`: leadership is handed over;
//! - `settle ID [release=I]`, `ship`: sends waiting snapshots, `ship start`, `ship end`: in two
//!   steps, `ship repeat`: they may come again, `ship unreported`: the sender does not hear of it;
//! - `inject FROM TO term=T BODY …`: a forged message, see `inject.rs`;
//! - `verbose`: also print messages as they leave; `status [ID …]`, `log [ID …]`, `members [ID …]`.

use std::{
    error::Error,
    fmt::Write as _,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
    time::Duration,
};

use bytes::Bytes;
use goldenscript::{Argument, Command, Context, Runner};
use kvraft_base::{Entry, EntryKind, Index, MemberId, MemberInfo, Position, Term};
use kvraft_raft::{Change, Config, Input, LeaseReads, Membership, Message, RoleName};

use crate::{inject, text::describe, world::World};

/// Every file is a scenario, and says first which rule it shows.
#[test]
fn scenarios_print_what_is_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    paths.sort();
    assert!(12 <= paths.len(), "the scenarios are there");
    let mut failed = Vec::new();
    for path in paths {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{name} names its rule first");
        let run = || {
            let mut script = Script { world: World::new(1, 1, |_| {}) };
            goldenscript::run(&mut script, &path).unwrap();
        };
        // All of them run, so that one look shows everything that a change has moved.
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            failed.push(name);
        }
    }
    assert!(failed.is_empty(), "other than recorded: {}", failed.join(" "));
}

struct Script {
    world: World,
}

pub(crate) type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Arguments of a command: plain ones in order, named ones by name.
pub(crate) struct Args<'a>(&'a [Argument]);

impl<'a> Args<'a> {
    pub(crate) fn named(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|argument| match argument {
            Argument::KeyValue(key, value) if key == name => Some(value.as_str()),
            _ => None,
        })
    }

    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.named(name).map(str::parse).transpose()?)
    }

    /// `4` is one of term 4, `4x20` are twenty, `4..8` are 4, 6 and 8.
    pub(crate) fn terms(&self, name: &str) -> Result<Vec<u64>> {
        let mut terms = Vec::new();
        for run in self.named(name).unwrap_or_default().split_whitespace() {
            if let Some((first, last)) = run.split_once("..") {
                terms.extend((first.parse::<u64>()?..=last.parse::<u64>()?).step_by(2));
                continue;
            }
            let (term, count) = run.split_once('x').unwrap_or((run, "1"));
            let (term, count): (u64, usize) = (term.parse()?, count.parse()?);
            terms.extend(std::iter::repeat_n(term, count));
        }
        Ok(terms)
    }

    pub(crate) fn plain(&self) -> Vec<&'a str> {
        let plain = |argument: &'a Argument| match argument {
            Argument::Positional(value) => Some(value.as_str()),
            _ => None,
        };
        self.0.iter().filter_map(plain).collect()
    }

    pub(crate) fn id(&self, at: usize) -> Result<MemberId> {
        Ok(MemberId(self.plain().get(at).ok_or("an id is missing")?.parse()?))
    }
}

impl Runner for Script {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String> {
        let args = Args(&command.args);
        let mut text = self.execute(&command.name, &args)?;
        for line in self.world.trace.drain(..) {
            writeln!(text, "{line}")?;
        }
        Ok(text)
    }
}

impl Script {
    fn execute(&mut self, name: &str, args: &Args<'_>) -> Result<String> {
        match name {
            "cluster" => self.cluster(args)?,
            "disk" => self.disk(args)?,
            "start" => {
                for id in self.ids(args)? {
                    self.world.start(id, 0)?;
                }
            }
            "crash" => self.world.crash(args.id(0)?),
            "damage" => {
                let keep = Index(args.number("keep")?.ok_or("what is left?")?);
                self.world.node(args.id(0)?).disk.entries.retain(|entry| entry.index <= keep);
            }
            "block" => drop(self.world.blocked.insert((args.id(0)?, args.id(1)?))),
            "unblock" => drop(self.world.blocked.remove(&(args.id(0)?, args.id(1)?))),
            "cut" => self.world.node(args.id(0)?).cut = true,
            "heal" => self.world.node(args.id(0)?).cut = false,
            "close" => {
                let input = Input::Disconnected { peer: args.id(1)? };
                self.world.turn(args.id(0)?, vec![input]);
            }
            "open" => {
                let input = Input::Connected { peer: args.id(1)? };
                self.world.turn(args.id(0)?, vec![input]);
            }
            "suspect" => self.world.turn(args.id(0)?, vec![Input::LeaderSuspected]),
            "due" => {
                let id = args.id(0)?;
                let deadline = self.world.node(id).raft.as_ref().ok_or("it is down")?.deadline();
                return Ok(format!(
                    "{id}: due in {} ms\n",
                    deadline.since(self.world.now).as_millis()
                ));
            }
            "verbose" => self.world.verbose = true,
            "status" => return self.status(args),
            "log" => return self.log(args),
            "members" => return self.members(args),
            "elect" | "timeout" | "run" | "pause" => return self.pass_time(name, args),
            "deliver" | "drop" | "repeat" | "together" => self.move_messages(name, args)?,
            "stabilize" => self.world.settle_network(),
            "pending" => {
                return Ok(self.world.network.iter().map(|m| describe(m) + "\n").collect());
            }
            "hold" => self.world.node(args.id(0)?).manual_disk = true,
            "stall" => self.world.node(args.id(0)?).manual_machine = true,
            "sync" | "apply" | "settle" | "free" => self.progress(name, args)?,
            "propose" | "batch" | "read" => self.request(name, args)?,
            "change" => self.change(args)?,
            "transfer" => self.world.transfer(args.id(0)?, args.id(1).ok()),
            "ship" => return self.ship(args),
            "inject" => {
                let message = inject::message(args)?;
                self.world.deliver(message);
            }
            other => return Err(format!("there is no command {other}").into()),
        }
        Ok(String::new())
    }

    /// Commands that move the clock.
    fn pass_time(&mut self, name: &str, args: &Args<'_>) -> Result<String> {
        if let "run" | "pause" = name {
            let span: u64 = args.plain().first().ok_or("how long?")?.parse()?;
            let until = self.world.now + Duration::from_millis(span);
            if name == "run" {
                self.world.run(until);
            } else {
                self.world.now = until;
            }
            return Ok(String::new());
        }
        let id = args.id(0)?;
        if name == "elect" {
            for id in self.world.ids() {
                if self.world.node(id).raft.is_none() {
                    self.world.start(id, 0)?;
                }
            }
        }
        let deadline = self.world.node(id).raft.as_ref().ok_or("it is down")?.deadline();
        self.world.now = self.world.now.max(deadline);
        self.world.turn(id, Vec::new());
        if name == "timeout" {
            return Ok(String::new());
        }
        self.world.settle_network();
        self.world.trace.clear();
        let status = self.world.node(id).status().ok_or("it is down")?;
        match status.role {
            RoleName::Leader => Ok(format!("{id} leads term {}\n", status.term)),
            other => Err(format!("{id} was not elected, it is {other:?}").into()),
        }
    }

    /// Commands by which a server's disk and machine get on with their work.
    fn progress(&mut self, name: &str, args: &Args<'_>) -> Result<()> {
        let id = args.id(0)?;
        if name == "settle" {
            let release = args.number("release")?.map(Index);
            self.world.settle(id, release);
            return Ok(());
        }
        if name == "free" {
            self.world.node(id).manual_disk = false;
            self.world.node(id).manual_machine = false;
            let inputs =
                [self.world.complete_writes(id, usize::MAX), self.world.apply(id, usize::MAX)];
            self.world.turn(id, inputs.into_iter().flatten().collect());
            return Ok(());
        }
        let count = args.plain().get(1).map(|count| count.parse()).transpose()?;
        let count = count.unwrap_or(usize::MAX);
        let input = match name {
            "sync" => self.world.complete_writes(id, count),
            _ => self.world.apply(id, count),
        };
        self.world.turn(id, input.into_iter().collect());
        Ok(())
    }

    fn request(&mut self, name: &str, args: &Args<'_>) -> Result<()> {
        let id = args.id(0)?;
        let values: Vec<&[u8]> =
            args.plain().into_iter().skip(1).map(|value| value.as_bytes()).collect();
        match name {
            "read" => drop(self.world.read(id)),
            "batch" => drop(self.world.propose_batch(id, &values)),
            _ => {
                for value in values {
                    self.world.propose(id, value);
                }
            }
        }
        Ok(())
    }

    fn change(&mut self, args: &Args<'_>) -> Result<()> {
        let mut changes = Vec::new();
        for argument in args.0 {
            let Argument::KeyValue(wish, id) = argument else { continue };
            let id = MemberId(id.parse()?);
            let info = MemberInfo { name: format!("server {id}"), ..MemberInfo::default() };
            changes.push(match wish.as_str() {
                "voter" => Change::AddVoter { id, info },
                "learner" => Change::AddLearner { id, info, promote: false },
                "auto" => Change::AddLearner { id, info, promote: true },
                "remove" => Change::Remove { id },
                "promote" => Change::Promote { id },
                "demote" => Change::Demote { id },
                "update" => Change::Update { id, info: info.into() },
                other => return Err(format!("nobody can be {other}d").into()),
            });
        }
        self.world.change(args.id(0)?, changes);
        Ok(())
    }

    fn ids(&self, args: &Args<'_>) -> Result<Vec<MemberId>> {
        let plain = args.plain();
        if plain.is_empty() {
            return Ok(self.world.ids());
        }
        (0..plain.len()).map(|at| args.id(at)).collect()
    }

    /// Settings: `spare`, `lease` (drift in parts per million), `append`, `inflight`, `inflight_bytes`, `window`, `catch_up`, `apply` and `uncommitted`.
    fn cluster(&mut self, args: &Args<'_>) -> Result<()> {
        let mut config = Config::new(MemberId(1));
        let settings = [
            ("append", &mut config.append_size_bytes_max),
            ("inflight", &mut config.inflight_count_max),
            ("inflight_bytes", &mut config.inflight_bytes_max),
            ("window", &mut config.window_bytes_max),
            ("catch_up", &mut config.catch_up_bytes_min),
            ("apply", &mut config.apply_bytes_max),
            ("uncommitted", &mut config.uncommitted_bytes_max),
        ];
        for (name, setting) in settings {
            if let Some(value) = args.number(name)? {
                *setting = value.try_into()?;
            }
        }
        if let Some(ppm) = args.number("lease")? {
            let drift_ppm_max = ppm.try_into()?;
            config.lease = Some(LeaseReads { drift_ppm_max, margin: Duration::ZERO });
        }
        let spare_count = args.number("spare")?.unwrap_or(0);
        self.world = World::with_spares(args.id(0)?.0, spare_count, 1, |own| {
            *own = Config { id: own.id, ..config.clone() };
        });
        Ok(())
    }

    fn disk(&mut self, args: &Args<'_>) -> Result<()> {
        let terms = args.terms("log")?;
        let mut entries = make_entries(0, &terms);
        if let Some(index) = args.number("config")? {
            let entry = entries.iter_mut().find(|entry| entry.index.0 == index);
            let entry = entry.ok_or("the log has no such entry")?;
            let payload = self.world.members.encode();
            *entry = Entry::new(entry.term, entry.index, EntryKind::Config, payload);
        }
        let at = |index: u64| {
            let found = entries.iter().find(|entry| entry.index.0 == index);
            found.map_or(Position::ZERO, Entry::position)
        };
        let disk = &mut self.world.node(args.id(0)?).disk;
        disk.table = at(args.number("applied")?.unwrap_or(0));
        disk.released = at(args.number("released")?.unwrap_or(0));
        disk.attested = Index(args.number("attested")?.unwrap_or(0));
        disk.names_members = args.number("members")?.is_some();
        disk.hard_state.commit = Index(args.number("commit")?.unwrap_or(0));
        let last = terms.last().copied().unwrap_or(0);
        disk.hard_state.term = Term(args.number("term")?.unwrap_or(last));
        let released = disk.released.index;
        disk.entries = entries.into_iter().filter(|entry| released < entry.index).collect();
        Ok(())
    }

    fn move_messages(&mut self, how: &str, args: &Args<'_>) -> Result<()> {
        let (from, to) = (args.number("from")?, args.number("to")?);
        let skip = args.number("skip")?.unwrap_or(0);
        let end = args.number("count")?.map_or(u64::MAX, |count| skip + count);
        let mut seen = 0;
        let mut chosen = |message: &Message| {
            let right = args.named("type").is_none_or(|name| name == message.body.name())
                && from.is_none_or(|id| id == message.from.0)
                && to.is_none_or(|id| id == message.to.0);
            seen += u64::from(right);
            right && skip < seen && seen <= end
        };
        let network = std::mem::take(&mut self.world.network);
        let (taken, left): (Vec<_>, Vec<_>) = network.into_iter().partition(|m| chosen(m));
        self.world.network = left;
        if how == "repeat" {
            self.world.network.extend(taken.iter().cloned());
        }
        match how {
            "drop" => {}
            "together" => self.world.deliver_together(taken),
            _ => taken.into_iter().for_each(|message| self.world.deliver(message)),
        }
        Ok(())
    }

    fn ship(&mut self, args: &Args<'_>) -> Result<String> {
        let how = args.plain().first().copied().unwrap_or_default();
        let mut text = String::new();
        if how == "end" {
            for id in self.world.ids() {
                self.world.finish_shipment(id);
            }
            return Ok(text);
        }
        let shipments = std::mem::take(&mut self.world.shipments);
        if how == "repeat" {
            self.world.shipments.extend(shipments.iter().cloned());
        }
        for shipment in shipments {
            let begun = match how {
                "start" | "unreported" => self.world.begin_install(&shipment),
                _ => self.world.ship(&shipment),
            };
            let taken = match (begun, how) {
                (true, "start") => "begun",
                (true, "unreported") => {
                    self.world.install(shipment.to);
                    "installed"
                }
                (true, _) => "installed",
                (false, _) => "not wanted",
            };
            writeln!(text, "snapshot {} for {}: {taken}", shipment.position, shipment.to)?;
        }
        Ok(text)
    }

    fn status(&self, args: &Args<'_>) -> Result<String> {
        self.world.check_log_matching();
        let mut text = String::new();
        for id in self.ids(args)? {
            let Some(status) = self.world.nodes[&id].status() else {
                writeln!(text, "{id}: down")?;
                continue;
            };
            let leader = status.leader.map_or_else(|| "-".to_owned(), |leader| leader.to_string());
            write!(
                text,
                "{id}: {:?} term={} leader={leader} last={} durable={} commit={} applied={}",
                status.role,
                status.term,
                status.last,
                status.durable,
                status.commit,
                status.applied
            )?;
            text.push_str(if status.muted { " muted" } else { "" });
            writeln!(text, "{}", if status.hollow { " hollow" } else { "" })?;
            for peer in status.peers {
                let (id, matched, next) = (peer.id, peer.matched, peer.next);
                writeln!(text, "   {id}: {:?} matched={matched} next={next}", peer.state)?;
            }
        }
        Ok(text)
    }

    /// What is in force at each server.
    fn members(&self, args: &Args<'_>) -> Result<String> {
        let mut text = String::new();
        for id in self.ids(args)? {
            let Some(status) = self.world.nodes[&id].status() else { continue };
            let Membership { index, members, committed } = status.membership;
            let known = if committed { "committed" } else { "not known to be committed" };
            writeln!(text, "{id}: {members} at {index}, {known}")?;
        }
        Ok(text)
    }

    fn log(&self, args: &Args<'_>) -> Result<String> {
        let mut text = String::new();
        for id in self.ids(args)? {
            let journal = self.world.nodes[&id].journal();
            let runs: Vec<String> =
                journal.entries.chunk_by(|a, b| a.term == b.term).map(run).collect();
            writeln!(text, "{id}: after {}: {}", journal.released, runs.join(" "))?;
        }
        Ok(text)
    }
}

/// Entries of one term, as `disk` takes them.
fn run(entries: &[Entry]) -> String {
    let term = entries[0].term;
    match entries.len() {
        long @ 5.. => format!("{term}x{long}"),
        short => vec![term.to_string(); short].join(" "),
    }
}

/// Entries of these terms, after `index`. Equal places have equal contents.
pub(crate) fn make_entries(index: u64, terms: &[u64]) -> Vec<Entry> {
    let make = |(term, index)| {
        let payload = Bytes::from(format!("{term}.{index}"));
        Entry::new(Term(term), Index(index), EntryKind::Command, payload)
    };
    terms.iter().copied().zip(index + 1..).map(make).collect()
}
