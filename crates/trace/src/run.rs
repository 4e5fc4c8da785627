//! A recorded run: everything that the viewer shows, as plain data.
//!
//! Why a model of its own: the simulator, the flight recorder and logs of other programs know
//! different things, and whoever looks at a run should not have to care where it comes from.
//!
//! Invariants, held by [`Run::check`]:
//! - events stand in the order in which they happened: an event's cause comes before it, and with a
//!   clock that tells time, times never go back;
//! - what one node did stands in the order in which it did it, so that happened-before follows from
//!   that order and from [`Event::cause`] alone. Vector clocks are derived, never stored;
//! - every node and event that is referred to exists.
//!
//! What it lacks: values of a key in bytes. All content is text, cut where it was made.

mod check;
mod columns;
mod decode;
mod encode;
mod page;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, fmt, sync::Arc};

pub use check::RunError;
pub use decode::RunDecodeError;
pub use page::{live_page, page, runs_of};

/// A name out of a small set, such as a kind of event: borrowed by whoever knows it in advance.
pub type Name = Cow<'static, str>;

/// Number of a node: its place in [`Run::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeId(pub u16);

/// Number of an event: its place in [`Run::events`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventId(pub u32);

/// A recorded run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// What it is, in a few words.
    pub title: String,
    /// The command that makes it again; empty if there is none.
    pub command: String,
    /// Which version of which program made it.
    pub version: String,
    /// The seed, of a simulated run.
    pub seed: Option<u64>,
    /// What [`Event::at`] counts.
    pub clock: Clock,
    /// Who took part, in the order in which they are shown.
    pub nodes: Vec<Node>,
    /// What happened, in order.
    pub events: Vec<Event>,
    /// What was wrong with whom, for how long.
    pub bands: Vec<Band>,
    /// What clients asked for.
    pub operations: Vec<Operation>,
    /// Rules that were broken.
    pub violations: Vec<Violation>,
    /// Said to whoever looks at it when something was left out: what, and why.
    pub truncated: Option<String>,
}

/// What a time of a run counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// Nanoseconds of the simulated world since its beginning.
    Virtual,
    /// Nanoseconds of real time since the beginning of the recording.
    Wall,
    /// Steps of causal depth: the recording has no times.
    Logical,
}

/// Who took part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// As people call it: `server1`, `client2`, `coord`.
    pub name: String,
    /// What it is.
    pub kind: NodeKind,
}

/// What a node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum NodeKind {
    /// Has a log.
    Server,
    /// Asks for operations.
    Client,
    /// Gathers servers.
    Coordinator,
    /// Everything else: who injects faults and judges.
    World,
}

/// Something that happened at a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// When; see [`Clock`].
    pub at: u64,
    /// Where.
    pub node: NodeId,
    /// What kind of thing: the name of a message, of an event of consensus, of a fault.
    pub kind: Name,
    /// What else is known, in the order in which it is shown. Fields that have a meaning to the
    /// viewer: `to` and `from` (node names), `term`, `key`.
    pub fields: Vec<Field>,
    /// What made it happen: for a receive, its send.
    pub cause: Option<EventId>,
    /// What became of it, if it is a send.
    pub fate: Option<Fate>,
    /// How the node's shown state is different after it.
    pub changes: Vec<Change>,
}

/// One thing known of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Its name.
    pub name: Name,
    /// Its value.
    pub value: Value,
}

/// A value of a field.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// A number: takes less room and can be compared.
    Number(u64),
    /// Anything else.
    Text(Arc<str>),
}

/// What became of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was received at least once.
    Delivered,
    /// It never will be.
    Lost,
    /// The run ended before that was clear.
    Pending,
}

/// How the shown state of a node is different after an event. A server starts up, as a follower of
/// term 0 with an empty log whose first index is 1.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its role in its term.
    Role(Role),
    /// Its term.
    Term(u64),
    /// Whom it voted for in its term.
    Vote(Option<NodeId>),
    /// Whom it believes to lead.
    Leader(Option<NodeId>),
    /// Highest index that it knows to be committed.
    Commit(u64),
    /// Highest index that its machine has applied.
    Applied(u64),
    /// Highest index that is durable on its disk.
    Durable(u64),
    /// First index that is still in its log: what is below is in a snapshot or checkpoint only.
    LogFirst(u64),
    /// Entries from this index on are gone.
    LogCut {
        /// The first that is gone.
        from: u64,
    },
    /// One more entry at the end of its log.
    LogAppend(LogEntry),
    /// What it knows, as a leader, of a follower.
    Progress {
        /// The follower.
        peer: NodeId,
        /// Highest index known to be durable there.
        matched: u64,
        /// Next index to send.
        next: u64,
    },
    /// It leads no more: what it knew of followers is nothing.
    ProgressEnd,
    /// Whether it runs.
    Power(Power),
}

/// An entry of a log, as far as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    /// Where.
    pub index: u64,
    /// Of which term.
    pub term: u64,
    /// What it says, in a line.
    pub text: Arc<str>,
    /// The key that it is about; empty if none or several.
    pub key: Arc<str>,
}

/// A role, as in Raft.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// Follows a leader, or waits for one.
    Follower,
    /// Asks whether a campaign has a chance.
    PreCandidate,
    /// Campaigns.
    Candidate,
    /// Leads.
    Leader,
}

/// Whether a node runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Power {
    /// It runs.
    Up,
    /// Its process has ended.
    Down,
    /// Its process stands still.
    Paused,
}

/// Something was wrong with somebody for a while.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Band {
    /// With whom; the whole world if empty.
    pub nodes: Vec<NodeId>,
    /// What kind of thing.
    pub kind: BandKind,
    /// Since when.
    pub from: u64,
    /// Until when; the end of the run at most.
    pub to: u64,
    /// In words.
    pub text: Arc<str>,
}

/// What can be wrong for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum BandKind {
    /// Its process does not run.
    Crash,
    /// Its process stands still.
    Pause,
    /// It is cut off from some of its peers.
    Partition,
    /// A link is blocked or holds everything back.
    Link,
    /// Its disk is slow, full or failing.
    Disk,
    /// Its clock runs at another rate, or stands still.
    Clock,
}

/// What a client asked for, from its question to its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Who asked.
    pub client: NodeId,
    /// The client's number of it, from 1.
    pub number: u64,
    /// What was asked for, in a line.
    pub text: Arc<str>,
    /// The keys that it is about.
    pub keys: Vec<Arc<str>>,
    /// When it was asked.
    pub from: u64,
    /// When the client was told, or gave up; `None` when the run ended before.
    pub to: Option<u64>,
    /// What the client was told.
    pub outcome: Outcome,
    /// The answer, in a line; empty if there was none.
    pub answer: Arc<str>,
    /// When it took effect, if that is known.
    pub point: Option<Point>,
}

/// What a client was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Outcome {
    /// It took effect.
    Ok,
    /// It did not and never will.
    Failed,
    /// Nobody knows.
    Unknown,
}

/// Where an operation took effect, in time and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// When.
    pub at: u64,
    /// At this index of the log: executed there, or seeing what that entry left.
    pub index: u64,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// When it was noticed.
    pub at: u64,
    /// The event that showed it; `None` if the verdict came at the end.
    pub event: Option<EventId>,
    /// Who is concerned; the whole world if empty.
    pub nodes: Vec<NodeId>,
    /// The rule's name.
    pub check: Arc<str>,
    /// Who did what.
    pub text: Arc<str>,
}

impl Run {
    /// A run in which nothing has happened yet.
    #[must_use]
    pub fn new(title: impl Into<String>, clock: Clock) -> Self {
        Self {
            title: title.into(),
            command: String::new(),
            version: String::new(),
            seed: None,
            clock,
            nodes: Vec::new(),
            events: Vec::new(),
            bands: Vec::new(),
            operations: Vec::new(),
            violations: Vec::new(),
            truncated: None,
        }
    }

    /// Adds a node, which is shown below those that are there already.
    ///
    /// # Panics
    /// With more than 65,536 nodes: nobody could look at them.
    pub fn add_node(&mut self, name: impl Into<String>, kind: NodeKind) -> NodeId {
        let id = u16::try_from(self.nodes.len()).expect("a run has at most 65,536 nodes");
        self.nodes.push(Node { name: name.into(), kind });
        NodeId(id)
    }

    /// Gives every node another number, as when they are put into another order; `nodes` itself is
    /// left as it is.
    pub fn renumber_nodes(&mut self, number: impl Fn(NodeId) -> NodeId) {
        for event in &mut self.events {
            event.node = number(event.node);
            for change in &mut event.changes {
                if let Change::Vote(Some(node))
                | Change::Leader(Some(node))
                | Change::Progress { peer: node, .. } = change
                {
                    *node = number(*node);
                }
            }
        }
        let bands = self.bands.iter_mut().flat_map(|band| &mut band.nodes);
        let violations = self.violations.iter_mut().flat_map(|violation| &mut violation.nodes);
        bands.chain(violations).for_each(|node| *node = number(*node));
        for operation in &mut self.operations {
            operation.client = number(operation.client);
        }
    }

    /// Adds an event after all others.
    ///
    /// # Panics
    /// With more than 2^32 events: whoever records stops long before.
    pub fn add_event(&mut self, event: Event) -> EventId {
        let id = u32::try_from(self.events.len()).expect("a run has fewer than 2^32 events");
        self.events.push(event);
        EventId(id)
    }
}

impl Event {
    /// An event of which nothing else is known yet.
    #[must_use]
    pub fn new(at: u64, node: NodeId, kind: impl Into<Name>) -> Self {
        let (fields, changes) = (Vec::new(), Vec::new());
        Self { at, node, kind: kind.into(), fields, cause: None, fate: None, changes }
    }

    /// The same, with one more field.
    #[must_use]
    pub fn with(mut self, name: impl Into<Name>, value: impl Into<Value>) -> Self {
        self.fields.push(Field { name: name.into(), value: value.into() });
        self
    }
}

impl From<u64> for Value {
    fn from(number: u64) -> Self {
        Self::Number(number)
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.into())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text.into())
    }
}

impl From<Arc<str>> for Value {
    fn from(text: Arc<str>) -> Self {
        Self::Text(text)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            Self::Text(text) => f.write_str(text),
        }
    }
}
