//! How far a search goes.
//!
//! Why as data: a search is exhaustive only within its bounds, so they are printed with every
//! result.

use std::fmt;

/// What may happen in an explored run, at most. Losses, repetitions and delays of messages are not
/// bounded: the network never forgets a message and delivers it any number of times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Highest term that a server campaigns in.
    pub term_max: u64,
    /// Client proposals over the whole run. The no-op of each leader comes in addition.
    pub proposal_count_max: u8,
    /// Changes of the configuration: a leader removes one or two of the three.
    pub change_count_max: u8,
    /// Crashes of one server.
    pub crash_count_max: u8,
    /// Crashes over the whole run.
    pub crash_total_max: u8,
    /// Whether elections are single steps, and those that nobody wins are left out.
    pub whole_elections: bool,
    /// Whether servers crash, too, that lose nothing but memory.
    pub idle_crashes: bool,
    /// Heartbeats of one leader in its term. Without any, a leader sends on proposals and answers.
    pub heartbeat_count_max: u8,
    /// Writes of one server under way at once; one more waits for the oldest.
    pub write_count_max: usize,
    /// Encoded bytes of entries in one Append. With 1, each Append carries one entry.
    pub append_size_bytes_max: usize,
}

impl Bounds {
    /// Every interleaving of two elections and what they append: the frame of the others.
    const ELECTIONS: Self = Self {
        term_max: 2,
        proposal_count_max: 0,
        change_count_max: 0,
        crash_count_max: 1,
        crash_total_max: 0,
        idle_crashes: true,
        whole_elections: false,
        heartbeat_count_max: 0,
        write_count_max: 2,
        append_size_bytes_max: 4096,
    };

    /// The leader of the first term removes members, another may take over.
    const MEMBERS: Self =
        Self { change_count_max: 1, whole_elections: true, write_count_max: 1, ..Self::ELECTIONS };

    /// What the default test run exhausts.
    #[must_use]
    pub fn small() -> Vec<Search> {
        vec![
            Search::new("two elections, every interleaving", Self::ELECTIONS),
            Search::new(
                "a write and a crash in one term",
                Self { term_max: 1, proposal_count_max: 1, crash_total_max: 1, ..Self::ELECTIONS },
            ),
            Search::new(
                "a write over two terms",
                Self {
                    proposal_count_max: 1,
                    whole_elections: true,
                    write_count_max: 1,
                    ..Self::ELECTIONS
                },
            ),
            Search::new("members change", Self { term_max: 1, ..Self::MEMBERS }),
            Search::new(
                "three terms, an entry in each, a crash",
                Self {
                    term_max: 3,
                    crash_total_max: 1,
                    idle_crashes: false,
                    whole_elections: true,
                    write_count_max: 1,
                    ..Self::ELECTIONS
                },
            ),
        ]
    }

    /// What `cargo xtask model-check` exhausts beside.
    #[must_use]
    pub fn large() -> Vec<Search> {
        let every = Self { idle_crashes: false, ..Self::ELECTIONS };
        let whole = Self { whole_elections: true, ..every };
        vec![
            Search::new(
                "three terms, an entry in each, a crash of each server",
                Self { term_max: 3, crash_total_max: 3, ..whole },
            ),
            Search::new(
                "three terms, an entry in each, a crash, every interleaving of elections",
                Self { term_max: 3, crash_total_max: 1, ..every },
            ),
            Search::new(
                "a write over two terms, a crash of each server",
                Self { proposal_count_max: 1, crash_total_max: 3, write_count_max: 1, ..whole },
            ),
            Search::new(
                "a write over two terms, every interleaving of elections",
                Self { proposal_count_max: 1, ..every },
            ),
            Search::new(
                "a write over three terms",
                Self { term_max: 3, proposal_count_max: 1, write_count_max: 1, ..whole },
            ),
            Search::new(
                "heartbeats of one leader",
                Self { term_max: 1, heartbeat_count_max: 1, ..whole },
            ),
            Search::new(
                "members change over two terms, and a server crashes",
                Self { crash_total_max: 1, idle_crashes: false, ..Self::MEMBERS },
            ),
        ]
    }

    /// Reads `terms=3,crashes=1,whole`; what is not said is as in a search without any writes.
    ///
    /// # Errors
    /// The first part that says nothing that is known.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut bounds = Self { crash_total_max: 0, idle_crashes: false, ..Self::ELECTIONS };
        for part in text.split(',') {
            let (key, number) = part.split_once('=').unwrap_or((part, "1"));
            let number: u8 = number.parse().map_err(|error| format!("{part}: {error}"))?;
            match key {
                "terms" => bounds.term_max = number.into(),
                "proposals" => bounds.proposal_count_max = number,
                "changes" => bounds.change_count_max = number,
                "crashes" => bounds.crash_total_max = number,
                "heartbeats" => bounds.heartbeat_count_max = number,
                "writes" => bounds.write_count_max = number.into(),
                "whole" => bounds.whole_elections = number == 1,
                "idle" => bounds.idle_crashes = number == 1,
                _ => return Err(format!("{part}: no such bound")),
            }
        }
        Ok(bounds)
    }

    /// Where planted bugs are looked for, shallow ones first.
    #[must_use]
    pub fn hunt() -> Vec<Search> {
        let crash = Self { crash_total_max: 1, ..Self::ELECTIONS };
        vec![
            Search::new("two elections, every interleaving", Self::ELECTIONS),
            Search::new(
                "two elections, one entry in an Append",
                Self { append_size_bytes_max: 1, whole_elections: true, ..Self::ELECTIONS },
            ),
            Search::new("two elections with a crash, every interleaving", crash),
            Search::new("members change", Self { term_max: 1, ..Self::MEMBERS }),
        ]
    }
}

/// Bounds with a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Search {
    /// What it is about.
    pub name: &'static str,
    /// How far it goes.
    pub bounds: Bounds,
}

impl Search {
    fn new(name: &'static str, bounds: Bounds) -> Self {
        Self { name, bounds }
    }
}

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { term_max, proposal_count_max, crash_count_max, crash_total_max, .. } = self;
        let Self { heartbeat_count_max, write_count_max, append_size_bytes_max, .. } = self;
        let elections = if self.whole_elections { "won elections" } else { "every election" };
        let crashes = if self.idle_crashes { "crashes" } else { "crashes that lose a write" };
        write!(
            f,
            "3 servers, {term_max} terms, {proposal_count_max} proposals beside no-ops, \
             {} changes of members, {crash_total_max} {crashes} ({crash_count_max} of one server), \
             {heartbeat_count_max} heartbeats of a leader, {write_count_max} writes under way, \
             {append_size_bytes_max} bytes in an Append, \
             {elections}, any loss, repetition and order of messages",
            self.change_count_max
        )
    }
}
