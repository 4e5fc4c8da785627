//! A stage for a system of somebody's own: its servers and clients, as values, in the same world of
//! links, clocks and disks that fail, under plans that can be written, read and shrunk.
//!
//! What belongs to the system is a [`System`]: how a server starts on its disk, what servers and
//! clients do with what they hear, and what must hold. Everything else is here: time, delivery,
//! faults, the history of calls, the fingerprint, the recording that people look at.
//!
//! ```text
//! seed 7
//! set servers 3
//! client 1 after 0.002s write 5      # a line of the system's own words
//! at 0.250s crash 3                  # a fault in the words of every plan
//! ```
//!
//! Invariants:
//! - a play is a function of its script: the same script gives the same hash;
//! - a server acts only in its own steps, on its own disk, by its own clock, and says nothing
//!   before its disk is done with the step;
//! - when the faults are over everything is mended, and every call must be answered.
//!
//! What it lacks: servers that come and go, a leader that faults could name, rot, and damage that
//! reaches the receiver: a damaged message is lost, as behind a checksum.

mod host;
mod play;
mod recorder;
mod script;
mod smaller;
mod step;
#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, fmt, str::FromStr, time::Duration};

use kvraft_base::{DiskError, MemberId, Prng};
use kvraft_trace::run::Run;

use crate::{
    linear::{Call, LinearVerdict, Model, check_linear},
    network::Endpoint,
};

pub use script::{Casting, Line, Script, StageConfig};
pub use smaller::shrink_script;
pub use step::Step;

/// A system that is played: what its servers and clients are, and what must hold.
///
/// Its methods are functions of their arguments: no clock, no thread, no randomness but
/// [`Step::prng`].
pub trait System: Sized {
    /// What clients ask for. Its text is one line, the end of a line of a script.
    type Operation: Clone + fmt::Debug + fmt::Display + FromStr<Err: fmt::Display>;
    /// What a client is told in the end.
    type Answer: Clone + fmt::Debug;
    /// What servers and clients say to each other. The first word of its `Debug` text is what the
    /// recording calls it.
    type Message: Clone + fmt::Debug;
    /// A running server.
    type Server;
    /// A client.
    type Client;

    /// An operation for a script that is drawn: the `number`-th of this client, from 1.
    fn draw(&self, client: u64, number: u64, prng: &mut Prng) -> Self::Operation;

    /// A server starts, for the first time or again, with what is on its disk.
    ///
    /// # Errors
    /// When its disk fails it: the process ends.
    fn start(&self, step: &mut Step<'_, Self>) -> Result<Self::Server, DiskError>;

    /// A server hears something.
    ///
    /// # Errors
    /// When its disk fails it: the process ends, what it said in this step is not heard, and it is
    /// started again after a while.
    fn serve(
        &self,
        server: &mut Self::Server,
        heard: Heard<Self>,
        step: &mut Step<'_, Self>,
    ) -> Result<(), DiskError>;

    /// A client, before its first operation.
    fn client(&self, number: u64) -> Self::Client;

    /// A client hears something. It is asked for one operation after another, the next when it has
    /// called [`Step::answer`].
    fn act(&self, client: &mut Self::Client, heard: Heard<Self>, step: &mut Step<'_, Self>);

    /// Looks at the running servers after every event.
    ///
    /// # Errors
    /// The rule that they break.
    fn check(&self, _servers: &BTreeMap<MemberId, &Self::Server>) -> Result<(), Broken> {
        Ok(())
    }

    /// Judges what clients asked for and were told, at the end of every play.
    ///
    /// # Errors
    /// The rule that it breaks.
    fn judge(&self, calls: &[Asked<Self>]) -> Result<(), Broken>;
}

/// A call of a client: the operation, and the answer if there was one.
pub type Asked<S> = Call<(<S as System>::Operation, Option<<S as System>::Answer>)>;

/// What a server or a client hears.
#[derive(Clone, Debug)]
pub enum Heard<S: System> {
    /// A message.
    Message {
        /// From whom.
        from: Endpoint,
        /// What.
        message: S::Message,
    },
    /// The time that it asked for with [`Step::wake_after`] is over.
    Wake,
    /// A client alone: this is what to do.
    Ask(S::Operation),
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The rule's name: one word, which scripts refer to.
    pub check: String,
    /// Who did what.
    pub detail: String,
}

impl Broken {
    /// A rule that was broken.
    #[must_use]
    pub fn new(check: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { check: check.into(), detail: detail.into() }
    }
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.check, self.detail)
    }
}

/// What came of a play.
#[derive(Clone, Debug)]
pub struct Played<S: System> {
    /// The first broken rule.
    pub broken: Option<Broken>,
    /// Fingerprint of everything that happened: equal for equal plays.
    pub trace_hash: u64,
    /// Events handled.
    pub event_count: u64,
    /// Virtual time passed.
    pub virtual_time: Duration,
    /// What clients asked for and were told, in the order in which they asked.
    pub calls: Vec<Asked<S>>,
    /// Every event in columns, if it was recorded.
    pub lines: Vec<String>,
    /// What the viewer shows, if it was recorded: see [`kvraft_trace::run::page`].
    pub recorded: Option<Run>,
}

/// Plays a script.
pub fn play<S: System>(system: &S, script: &Script<S::Operation>) -> Played<S> {
    play::play(system, script, false, &|| true)
}

/// Plays a script as [`play()`] does, and records it for people to look at.
pub fn play_and_record<S: System>(system: &S, script: &Script<S::Operation>) -> Played<S> {
    play::play(system, script, true, &|| true)
}

/// Judges calls by a search for an order that `model` explains. A search that needs more than
/// `step_count_max` tries finds nothing wrong.
///
/// # Errors
/// The rule `linearizable`, with the first call that no order explains.
pub fn judge_linear<M: Model>(
    model: &M,
    calls: &[Call<M::Op>],
    step_count_max: u64,
) -> Result<(), Broken> {
    match check_linear(model, calls, step_count_max) {
        LinearVerdict::Linearizable { .. } | LinearVerdict::Unknown { .. } => Ok(()),
        LinearVerdict::Violation { longest, stuck } => {
            let before: Vec<_> = longest.iter().map(|call| &calls[*call].op).collect();
            let stuck = &calls[stuck].op;
            let detail = format!("no order explains {stuck:?}; the longest: {before:?}");
            Err(Broken::new("linearizable", detail))
        }
    }
}
