//! Quorum arithmetic and configurations as tables: `testdata/tables/*.txt`, rows and what they come
//! to.
//!
//! - `voters ID … [outgoing="ID …"] [learners="ID ID+ …"] [behind="ID …"]`: the configuration of
//!   the rows after it; a plus is "to be promoted", and who is behind is not in step;
//! - `change v4 l5 l6+ r3 p5 d2 u1`: add a voter, add learners, remove, promote, demote, update,
//!   all at once; what comes of it holds for the rows after it, unless it is refused;
//! - `leave`: the joint configuration is left;
//! - `reached ID=N …`: how far each voter is, 0 if it is not named; what a quorum has reached;
//! - `vote [yes="ID …"] [no="ID …"]`: who has answered an election, and how it stands.

use std::{
    collections::BTreeSet,
    error::Error,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

use goldenscript::{Argument, Command, Context, Runner};
use kvraft_base::{MemberId, Members, MembersDraft};

use crate::{
    change::{change, leave, tests::changes},
    quorum::{reached, tally},
};

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
            let members = Members::new([MemberId(1)]).unwrap();
            let mut table = Table { members, behind: BTreeSet::new() };
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
    /// Learners that are not in step.
    behind: BTreeSet<MemberId>,
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
                self.behind = ids(&command.args, "behind")?.into_iter().collect();
                Ok(format!("voters {row}\n"))
            }
            "change" => {
                let in_step = |id| !self.behind.contains(&id);
                let wishes = if command.args.is_empty() { "" } else { &row };
                let text = match change(&self.members, &changes(wishes), in_step) {
                    Ok(members) => {
                        self.members = members;
                        self.members.to_string()
                    }
                    Err(error) => error.to_string(),
                };
                Ok(format!("{row} → {text}\n"))
            }
            "leave" => {
                self.members = leave(&self.members);
                Ok(format!("left → {}\n", self.members))
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
    let learner = |word: &str| Ok((word.trim_end_matches('+').parse()?, word.ends_with('+')));
    let learners = named(args, "learners").unwrap_or_default().split_whitespace().map(learner);
    let learners: Result<Vec<(u64, bool)>> = learners.collect();
    let learners = learners?.into_iter().map(|(id, promote)| (MemberId(id), promote)).collect();
    let mut draft = MembersDraft { voters, voters_outgoing, learners, ..MembersDraft::default() };
    let named = draft.voters.iter().chain(&draft.voters_outgoing).chain(draft.learners.keys());
    draft.id_max = named.copied().max().unwrap_or_default();
    Ok(draft.finish()?)
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
