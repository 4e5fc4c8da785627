//! Scenarios as text: `testdata/*.txt`, commands and what they print. `UPDATE_GOLDENFILES=1` writes
//! what is printed; the difference is reviewed like code.
//!
//! Commands (ids and numbers are plain, lists are quoted):
//! - `cluster N [window=BYTES] [append=BYTES] [inflight=COUNT]`: servers 1 to N, not yet started;
//! - `disk ID log="TERM TERM …" [term=T] [commit=I] [applied=I] [released=I] [attested=I]`;
//! - `start [ID …]`, `crash ID`, `cut ID`, `heal ID`, `close ID PEER`, `open ID PEER`;
//! - `timeout ID`: time moves to this server's deadline, which fires; `run MS`: everything happens;
//! - `deliver`, `drop`, `repeat [type=BODY] [from=ID] [to=ID] [count=N]`: what is on its way now;
//!   `repeat` delivers and keeps it; `stabilize`: delivers all, without time; `pending` lists it;
//! - `hold ID`, `sync ID [COUNT]`: writes wait until they are synced;
//! - `propose ID [VALUE …]`, `read ID`, `settle ID [release=I]`, `ship`: sends waiting snapshots;
//! - `inject FROM TO term=T append prev="TERM INDEX" [commit=I] log="TERM …"`: a forged Append;
//! - `verbose`: also print messages as they leave; `status [ID …]`, `log [ID …]`.

use std::{error::Error, fmt::Write as _, path::Path, time::Duration};

use bytes::Bytes;
use goldenscript::{Argument, Command, Context, Runner};
use kvraft_base::{Entry, EntryKind, Index, MemberId, Position, Term};
use kvraft_raft::{Body, Input, Message};

use crate::world::{World, describe};

/// Every file is a scenario, and says first which rule it shows.
#[test]
fn scenarios_print_what_is_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata");
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(12 <= paths.len(), "the scenarios are there");
    for path in paths {
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with("# "), "{} names its rule first", path.display());
        let mut script = Script { world: World::new(1, 1, |_| {}) };
        goldenscript::run(&mut script, &path).unwrap();
    }
}

struct Script {
    world: World,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Arguments of a command: plain ones in order, named ones by name.
struct Args<'a>(&'a [Argument]);

impl<'a> Args<'a> {
    fn named(&self, name: &str) -> Option<&str> {
        self.0.iter().find_map(|argument| match argument {
            Argument::KeyValue(key, value) if key == name => Some(value.as_str()),
            _ => None,
        })
    }

    fn number(&self, name: &str) -> Result<Option<u64>> {
        Ok(self.named(name).map(str::parse).transpose()?)
    }

    fn terms(&self, name: &str) -> Result<Vec<u64>> {
        let list = self.named(name).unwrap_or_default();
        Ok(list.split_whitespace().map(str::parse).collect::<std::result::Result<_, _>>()?)
    }

    fn plain(&self) -> Vec<&'a str> {
        let plain = |argument: &'a Argument| match argument {
            Argument::Positional(value) => Some(value.as_str()),
            _ => None,
        };
        self.0.iter().filter_map(plain).collect()
    }

    fn id(&self, at: usize) -> Result<MemberId> {
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
            "timeout" => {
                let id = args.id(0)?;
                let deadline = self.world.node(id).raft.as_ref().ok_or("it is down")?.deadline();
                self.world.now = self.world.now.max(deadline);
                self.world.turn(id, Vec::new());
            }
            "run" => {
                let span: u64 = args.plain().first().ok_or("how long?")?.parse()?;
                self.world.run(self.world.now + Duration::from_millis(span));
            }
            "deliver" | "drop" | "repeat" => self.move_messages(name, args)?,
            "stabilize" => self.world.settle_network(),
            "pending" => {
                return Ok(self.world.network.iter().map(|m| describe(m) + "\n").collect());
            }
            "hold" => self.world.node(args.id(0)?).manual_disk = true,
            "sync" => self.sync(args)?,
            "propose" => {
                let values = args.plain();
                for value in values.iter().skip(1) {
                    self.world.propose(args.id(0)?, value.as_bytes());
                }
            }
            "read" => drop(self.world.read(args.id(0)?)),
            "settle" => {
                let release = args.number("release")?.map(Index);
                self.world.settle(args.id(0)?, release);
            }
            "ship" => return Ok(self.ship()),
            "inject" => self.inject(args)?,
            "verbose" => self.world.verbose = true,
            "status" => return self.status(args),
            "log" => return self.log(args),
            other => return Err(format!("there is no command {other}").into()),
        }
        Ok(String::new())
    }

    fn ids(&self, args: &Args<'_>) -> Result<Vec<MemberId>> {
        let plain = args.plain();
        if plain.is_empty() {
            return Ok(self.world.ids());
        }
        (0..plain.len()).map(|at| args.id(at)).collect()
    }

    fn cluster(&mut self, args: &Args<'_>) -> Result<()> {
        let window = args.number("window")?.map(usize::try_from).transpose()?;
        let append = args.number("append")?.map(usize::try_from).transpose()?;
        let inflight = args.number("inflight")?.map(usize::try_from).transpose()?;
        self.world = World::new(args.id(0)?.0, 1, |config| {
            config.window_bytes_max = window.unwrap_or(config.window_bytes_max);
            config.append_size_bytes_max = append.unwrap_or(config.append_size_bytes_max);
            config.inflight_count_max = inflight.unwrap_or(config.inflight_count_max);
        });
        Ok(())
    }

    fn disk(&mut self, args: &Args<'_>) -> Result<()> {
        let terms = args.terms("log")?;
        let entries = make_entries(0, &terms);
        let at = |index: u64| {
            let found = entries.iter().find(|entry| entry.index.0 == index);
            found.map_or(Position::ZERO, Entry::position)
        };
        let disk = &mut self.world.node(args.id(0)?).disk;
        disk.table = at(args.number("applied")?.unwrap_or(0));
        disk.released = at(args.number("released")?.unwrap_or(0));
        disk.attested = Index(args.number("attested")?.unwrap_or(0));
        disk.hard_state.commit = Index(args.number("commit")?.unwrap_or(0));
        let last = terms.last().copied().unwrap_or(0);
        disk.hard_state.term = Term(args.number("term")?.unwrap_or(last));
        let released = disk.released.index;
        disk.entries = entries.into_iter().filter(|entry| released < entry.index).collect();
        Ok(())
    }

    fn move_messages(&mut self, how: &str, args: &Args<'_>) -> Result<()> {
        let (from, to) = (args.number("from")?, args.number("to")?);
        let mut count = args.number("count")?.unwrap_or(u64::MAX);
        let mut chosen = |message: &Message| {
            let right = args.named("type").is_none_or(|name| name == message.body.name())
                && from.is_none_or(|id| id == message.from.0)
                && to.is_none_or(|id| id == message.to.0)
                && 0 < count;
            count -= u64::from(right);
            right
        };
        let network = std::mem::take(&mut self.world.network);
        let (taken, left): (Vec<_>, Vec<_>) = network.into_iter().partition(|m| chosen(m));
        self.world.network = left;
        if how == "repeat" {
            self.world.network.extend(taken.iter().cloned());
        }
        if how != "drop" {
            for message in taken {
                self.world.deliver(message);
            }
        }
        Ok(())
    }

    fn sync(&mut self, args: &Args<'_>) -> Result<()> {
        let count = args.plain().get(1).map(|count| count.parse()).transpose()?;
        let id = args.id(0)?;
        let durable = self.world.complete_writes(id, count.unwrap_or(usize::MAX));
        self.world.turn(id, durable.into_iter().collect());
        Ok(())
    }

    fn ship(&mut self) -> String {
        let mut text = String::new();
        for shipment in std::mem::take(&mut self.world.shipments) {
            let taken = if self.world.ship(&shipment) { "installed" } else { "not wanted" };
            text += &format!("snapshot {} for {}: {taken}\n", shipment.position, shipment.to);
        }
        text
    }

    fn inject(&mut self, args: &Args<'_>) -> Result<()> {
        let prev = args.terms("prev")?;
        let [term, index] = prev[..] else { return Err("prev is a term and an index".into()) };
        let prev = Position::new(Term(term), Index(index));
        let commit = Index(args.number("commit")?.unwrap_or(0));
        let entries = make_entries(index, &args.terms("log")?);
        let message = Message {
            from: args.id(0)?,
            to: args.id(1)?,
            term: Term(args.number("term")?.ok_or("which term?")?),
            body: Body::Append { prev, commit, entries },
        };
        self.world.deliver(message);
        Ok(())
    }

    fn status(&self, args: &Args<'_>) -> Result<String> {
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
            writeln!(text, "{}", if status.muted { " muted" } else { "" })?;
            for peer in status.peers {
                let (id, matched, next) = (peer.id, peer.matched, peer.next);
                writeln!(text, "   {id}: {:?} matched={matched} next={next}", peer.state)?;
            }
        }
        Ok(text)
    }

    fn log(&self, args: &Args<'_>) -> Result<String> {
        let mut text = String::new();
        for id in self.ids(args)? {
            let journal = self.world.nodes[&id].journal();
            let terms: Vec<String> = journal.entries.iter().map(|e| e.term.to_string()).collect();
            writeln!(text, "{id}: after {}: {}", journal.released, terms.join(" "))?;
        }
        Ok(text)
    }
}

/// Entries of these terms, after `index`. Equal places have equal contents.
fn make_entries(index: u64, terms: &[u64]) -> Vec<Entry> {
    let make = |(term, index)| {
        let payload = Bytes::from(format!("{term}.{index}"));
        Entry::new(Term(term), Index(index), EntryKind::Command, payload)
    };
    terms.iter().copied().zip(index + 1..).map(make).collect()
}
