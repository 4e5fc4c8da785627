//! Plans as text: one fault or operation a line, words and numbers only, `#` to the end of a line
//! for remarks.
//!
//! ```text
//! client 1 home 2 pinned
//! client 1 after 0.001s put k0 c1v1
//! # the leader loses power while a follower is cut off
//! at 1.250s partition isolate 3
//! at 1.900s crash leader
//! at 4.000s heal
//! ```

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    str::FromStr,
    time::Duration,
};

use kvraft_base::{Instant, MemberId};

use super::{
    ClientPlan, Fault, Plan, TimedFault,
    client_text::{ClientLine, write_client},
};

/// No time in a plan is longer: more than any run lasts.
const TIME_MAX: Duration = Duration::from_secs(24 * 3600);

/// The largest count, size or factor in a plan.
pub(super) const NUMBER_MAX: u64 = 1 << 40;

/// A line that is no part of a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanError {
    /// Number of the line, from 1.
    pub line_number: usize,
    /// The line.
    pub line: String,
    /// What is wrong with it.
    pub reason: String,
}

impl PlanError {
    /// Something is wrong with the first statement of `text` that `is_it`.
    pub(crate) fn at(text: &str, is_it: impl Fn(&str) -> bool, reason: String) -> Self {
        let mut lines = text.lines().enumerate();
        let (at, line) = lines.find(|(_, line)| is_it(statement_of(line))).unwrap_or_default();
        Self { line_number: at + 1, line: line.to_owned(), reason }
    }
}

impl fmt::Display for PlanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}: {}", self.line_number, self.reason, self.line)
    }
}

impl std::error::Error for PlanError {}

/// Seconds with at least three decimals and no more than needed.
pub(crate) fn seconds(time: Duration) -> String {
    let mut text = String::new();
    let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    write_seconds(&mut text, nanos).expect("text takes everything");
    text
}

fn write_seconds(f: &mut impl fmt::Write, nanos: u64) -> fmt::Result {
    let decimals = format!("{:09}", nanos % 1_000_000_000);
    let used = decimals.trim_end_matches('0').len().max(3);
    write!(f, "{}.{}s", nanos / 1_000_000_000, &decimals[..used])
}

/// The reverse of [`seconds`], in nanoseconds.
pub(crate) fn parse_seconds(text: &str) -> Result<u64, String> {
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

impl fmt::Display for TimedFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("at ")?;
        write_seconds(f, self.at.0)?;
        write!(f, " {}", self.fault)
    }
}

/// One line for each client, operation and fault.
impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.clients.iter().try_for_each(|client| write_client(f, client))?;
        self.faults.iter().try_for_each(|timed| writeln!(f, "{timed}"))
    }
}

impl FromStr for Plan {
    type Err = PlanError;

    fn from_str(text: &str) -> Result<Self, PlanError> {
        let mut reader = PlanReader::default();
        read_lines(text, |statement| reader.read(statement).map(drop))?;
        Ok(reader.finish())
    }
}

/// Hands every line that says something to `read`, without remarks.
///
/// # Errors
/// The first line that `read` refuses.
pub(crate) fn read_lines(
    text: &str,
    mut read: impl FnMut(&str) -> Result<(), String>,
) -> Result<(), PlanError> {
    for (at, line) in text.lines().enumerate() {
        let statement = statement_of(line);
        if !statement.is_empty() {
            let (line_number, line) = (at + 1, line.to_owned());
            read(statement).map_err(|reason| PlanError { line_number, line, reason })?;
        }
    }
    Ok(())
}

/// A line without its remark.
fn statement_of(line: &str) -> &str {
    line.split('#').next().unwrap_or("").trim()
}

/// What a line of a plan was.
#[derive(Debug)]
pub(crate) enum PlanLine<'a> {
    /// What a client is like.
    Client(&'a ClientPlan),
    /// What it does.
    Operation,
    /// What goes wrong.
    Fault(&'a TimedFault),
}

/// A plan of which some lines have been read.
#[derive(Debug, Default)]
pub(crate) struct PlanReader {
    clients: BTreeMap<u64, ClientPlan>,
    faults: Vec<TimedFault>,
}

impl PlanReader {
    /// Takes one line without remarks.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn read(&mut self, statement: &str) -> Result<PlanLine<'_>, String> {
        let mut words = Words(statement.split_whitespace());
        if words.next("line")? != "client" {
            self.faults.push(statement.parse()?);
            return Ok(PlanLine::Fault(self.faults.last().expect("pushed above")));
        }
        let line = words.client()?;
        words.end()?;
        match line {
            ClientLine::Is(client) => match self.clients.entry(client.id) {
                Entry::Vacant(vacant) => Ok(PlanLine::Client(vacant.insert(client))),
                Entry::Occupied(_) => Err(format!("there is another client {}", client.id)),
            },
            ClientLine::Does(id, operation) => {
                let client = self.clients.get_mut(&id).ok_or_else(|| {
                    format!("client {id} does something before a line: client {id} home SERVER")
                })?;
                client.operations.push(operation);
                Ok(PlanLine::Operation)
            }
        }
    }

    pub(crate) fn finish(self) -> Plan {
        Plan::new(self.clients.into_values().collect(), self.faults)
    }
}

impl FromStr for Fault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Words(text.split_whitespace());
        let fault = words.fault()?;
        words.end()?;
        Ok(fault)
    }
}

impl FromStr for TimedFault {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = Words(text.split_whitespace());
        if words.next("at")? != "at" {
            let word = text.split_whitespace().next().unwrap_or("");
            return Err(format!("a line begins with at TIME or client NUMBER, not with {word}"));
        }
        let at = Instant(words.nanos()?);
        let fault = words.fault()?;
        words.end()?;
        Ok(Self { at, fault })
    }
}

/// The words of one line, still to be read.
pub(super) struct Words<'a>(pub(super) std::str::SplitWhitespace<'a>);

impl<'a> Words<'a> {
    pub(super) fn next(&mut self, what: &str) -> Result<&'a str, String> {
        self.0.next().ok_or_else(|| format!("missing: {what}"))
    }

    fn end(&mut self) -> Result<(), String> {
        match self.0.next() {
            None => Ok(()),
            Some(word) => Err(format!("nothing belongs here any more: {word}")),
        }
    }

    fn nanos(&mut self) -> Result<u64, String> {
        let word = self.next("time")?;
        match parse_seconds(word)? {
            nanos if u128::from(nanos) <= TIME_MAX.as_nanos() => Ok(nanos),
            _ => Err(format!("longer than a day: {word}")),
        }
    }

    pub(super) fn duration(&mut self) -> Result<Duration, String> {
        self.nanos().map(Duration::from_nanos)
    }

    /// A size, count or factor.
    pub(super) fn bounded(&mut self, what: &str, most: u64) -> Result<u64, String> {
        match self.number(what)? {
            number if number <= most => Ok(number),
            number => Err(format!("a {what} is at most {most}: {number}")),
        }
    }

    pub(super) fn number(&mut self, what: &str) -> Result<u64, String> {
        let word = self.next(what)?;
        word.parse().map_err(|_| format!("not a {what}: {word}"))
    }

    pub(super) fn positive(&mut self, what: &str) -> Result<u64, String> {
        match self.bounded(what, NUMBER_MAX)? {
            0 => Err(format!("a {what} counts from 1")),
            number => Ok(number),
        }
    }

    pub(super) fn server(&mut self) -> Result<MemberId, String> {
        self.number("server").map(MemberId)
    }
}
