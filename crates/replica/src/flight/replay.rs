//! Runs a recording through the lanes again.

use std::fmt;

use kvraft_raft::Status;

use super::{Image, Turn, digest, segment::Step, tape::End};
use crate::{
    hop::{Hop, MachineIn},
    machine::MachineLane,
    node::Node,
};

/// What a replay does otherwise than the recorded server did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Difference {
    /// The node's digest after a turn: the recorded one, then the replay's.
    Node(u32, u32),
    /// The machine's digest after a turn.
    Machine(u32, u32),
    /// The hash of the machine's whole state.
    State(u64, u64),
    /// Rows of the table that were read then and not now.
    Unread(usize),
    /// The whole state where two segments meet.
    Border,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(was, is) => {
                write!(f, "the node's digest was {was:08x} and is {is:08x}")
            }
            Self::Machine(was, is) => {
                write!(f, "the machine's digest was {was:08x} and is {is:08x}")
            }
            Self::State(was, is) => write!(f, "the state's hash was {was:016x} and is {is:016x}"),
            Self::Unread(count) => write!(f, "{count} rows were read from the table and are not"),
            Self::Border => write!(f, "the whole state is not as the next segment begins with it"),
        }
    }
}

/// What came of a turn that was run again.
#[derive(Debug)]
pub struct Played {
    /// What the node sent.
    pub node: Vec<Hop>,
    /// What the machine sent.
    pub machine: Vec<Hop>,
    /// What was recorded otherwise, if anything was.
    pub difference: Option<Difference>,
    /// Digests and hashes that were compared.
    pub compared: u64,
}

/// The deciding lanes of one server, run again.
#[derive(Debug)]
pub struct Replay {
    node: Node,
    machine: Option<MachineLane>,
}

impl Replay {
    /// Begins with a recorded state.
    #[must_use]
    pub fn new(image: Image) -> Self {
        let Image { mut node, machine } = image;
        node.thaw();
        Self { node, machine: machine.map(MachineLane::restore) }
    }

    /// Role, term, positions and progress as they are now.
    #[must_use]
    pub fn status(&self) -> Status {
        self.node.status()
    }

    /// The node, to be looked at.
    #[must_use]
    pub fn node(&self) -> &Node {
        &self.node
    }

    /// The machine, where the recording holds it.
    #[must_use]
    pub fn machine(&self) -> Option<&MachineLane> {
        self.machine.as_ref()
    }

    /// Makes a recorded turn again.
    pub fn play(&mut self, step: Step) -> Played {
        let Step { turn: Turn { now, node: mut inbox, machine: mut machine_inbox }, end, .. } =
            step;
        let (mut sent, mut answered) = (Vec::new(), Vec::new());
        self.node.step(now, &mut inbox, &mut sent);
        let node_digest = digest::of_node(&self.node, &sent);
        let mut machine_digest = None;
        let mut unread = 0;
        if let Some(machine) = &mut self.machine {
            machine_inbox.extend(sent.iter().filter_map(committed));
            machine.expect(end.as_ref().map_or_else(Vec::new, |end| end.rows.clone()));
            machine.step(now, &mut machine_inbox, &mut answered);
            unread = machine.unread_count();
            machine_digest = Some(digest::of_machine(machine, &answered));
        }
        let (difference, compared) = match end {
            None => (None, 0),
            Some(end) => self.compare(&end, node_digest, machine_digest, unread),
        };
        Played { node: sent, machine: answered, difference, compared }
    }

    fn compare(
        &self,
        end: &End,
        node: u32,
        machine: Option<u32>,
        unread: usize,
    ) -> (Option<Difference>, u64) {
        if end.node != node {
            return (Some(Difference::Node(end.node, node)), 1);
        }
        let Some(digest) = machine else { return (None, 1) };
        if end.machine != digest {
            return (Some(Difference::Machine(end.machine, digest)), 2);
        }
        if unread != 0 {
            return (Some(Difference::Unread(unread)), 2);
        }
        let (Some(was), Some(machine)) = (end.state_hash, &self.machine) else { return (None, 2) };
        let is = machine.kv().state_hash();
        ((was != is).then_some(Difference::State(was, is)), 3)
    }

    /// Compares the state with the one that the next segment begins with. A machine that was left
    /// out there is not compared.
    pub fn meet(&mut self, next: &Image) -> Option<Difference> {
        let machine = self.machine.as_ref().filter(|_| next.has_machine());
        let now = Image { node: self.node.image()?, machine: machine.map(MachineLane::image) };
        (now.encode() != next.encode()).then_some(Difference::Border)
    }
}

/// Queries change nothing, and their answers need the table: they are not asked again.
fn committed(hop: &Hop) -> Option<MachineIn> {
    match hop {
        Hop::Machine(MachineIn::Committed(entries)) => Some(MachineIn::Committed(entries.clone())),
        _ => None,
    }
}
