//! Quorum arithmetic as tables: `testdata/tables/*.txt`, rows and what they come to.
//!
//! - `voters ID … [outgoing="ID …"]`: the configuration of the rows after it;
//! - `reached ID=N …`: how far each voter is, 0 if it is not named; what a quorum has reached;
//! - `vote [yes="ID …"] [no="ID …"]`: who has answered an election, and how it stands.

use std::{
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use goldenscript::{Argument, Command, Context, Runner};
use kvraft_base::{MemberId, Members, MembersDraft};

use crate::quorum::{reached, tally};

/// Every row comes to what is recorded.
#[test]
fn tables_say_what_is_recorded() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/tables");
    let mut paths: Vec<_> = dir.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(4 <= paths.len(), "the tables are there");
    let mut failed = Vec::new();
    for path in paths {
        let run = || {
            let mut table = Table { members: Members::new([MemberId(1)]).unwrap() };
            goldenscript::run(&mut table, &path).unwrap();
        };
        if catch_unwind(AssertUnwindSafe(run)).is_err() {
            failed.push(format!("tables/{}", path.file_stem().unwrap().to_string_lossy()));
        }
    }
    assert!(failed.is_empty(), "other than recorded: {}", failed.join(" "));
}

struct Table {
    members: Members,
}

type Result<T> = std::result::Result<T, Box<dyn Error>>;

impl Runner for Table {
    type Command = Command;

    fn run(&mut self, command: &Command, _context: &Context) -> Result<String> {
        let row: Vec<String> = command.args.iter().map(describe).collect();
        let row = if row.is_empty() { "nobody".to_owned() } else { row.join(" ") };
        match command.name.as_str() {
            "voters" => {
                self.members = configuration(&command.args)?;
                Ok(format!("voters {row}\n"))
            }
            "reached" => {
                let at = |id: MemberId| named(&command.args, &id.to_string());
                let at = |id| at(id).map_or(0, |value| value.parse::<u64>().unwrap());
                Ok(format!("{row} → {}\n", reached(&self.members, at)))
            }
            "vote" => {
                let (yes, no) = (ids(&command.args, "yes")?, ids(&command.args, "no")?);
                let answer =
                    |id| (yes.contains(&id) || no.contains(&id)).then(|| yes.contains(&id));
                Ok(format!("{row} → {:?}\n", tally(&self.members, answer)))
            }
            other => Err(format!("there is no row {other}").into()),
        }
    }
}

fn describe(argument: &Argument) -> String {
    match argument {
        Argument::Positional(value) => value.clone(),
        Argument::KeyValue(key, value) => format!("{key}={}", value.replace(' ', ",")),
        _ => String::new(),
    }
}

fn configuration(args: &[Argument]) -> Result<Members> {
    let plain = |argument: &Argument| match argument {
        Argument::Positional(value) => Some(value.parse().map(MemberId)),
        _ => None,
    };
    let voters = args.iter().filter_map(plain).collect::<std::result::Result<_, _>>()?;
    let voters_outgoing = ids(args, "outgoing")?.into_iter().collect();
    let id_max = MemberId(99);
    Ok(MembersDraft { voters, voters_outgoing, id_max, ..MembersDraft::default() }.finish()?)
}

fn ids(args: &[Argument], name: &str) -> Result<Vec<MemberId>> {
    let list = named(args, name).unwrap_or_default();
    let ids = list.split_whitespace().map(|id| id.parse().map(MemberId));
    Ok(ids.collect::<std::result::Result<_, _>>()?)
}

fn named<'a>(args: &'a [Argument], name: &str) -> Option<&'a str> {
    args.iter().find_map(|argument| match argument {
        Argument::KeyValue(key, value) if key == name => Some(value.as_str()),
        _ => None,
    })
}
