//! What is written while the lanes run, and read when they run again.

use bytes::Bytes;
use kvraft_base::{DecodeError, Instant, Reader, Writer};
use serde::{Deserialize, Serialize};

use super::{
    digest,
    inputs::{decode_list, decode_machine, decode_node, encode_machine, encode_node},
};
use crate::{
    hop::{Hop, MachineIn, NodeIn, Now},
    machine::{MachineImage, MachineLane},
    node::Node,
    settled::Row,
};

/// The whole state of the machine is hashed this often at most, in nanoseconds of its time: the
/// hash looks at every session.
const STATE_HASH_INTERVAL: u64 = 1_000_000_000;

const KIND_TURN: u8 = 1;
const KIND_END: u8 = 2;

/// The state of the deciding lanes between two turns. Its bytes are those of one version of the
/// program, and no other reads them.
#[derive(Debug, Serialize, Deserialize)]
pub struct Image {
    pub(super) node: Node,
    /// Left out where it would be too large.
    pub(super) machine: Option<MachineImage>,
}

/// The bytes are not an image of this version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the state cannot be read: {0}")]
pub struct ImageError(String);

impl Image {
    /// Looks at the lanes; the machine only if that takes no more than `machine_size_bytes_max`.
    /// `None` while a snapshot is being installed.
    #[must_use]
    pub fn of(node: &mut Node, machine: &MachineLane, machine_size_bytes_max: u64) -> Option<Self> {
        let is_small = machine.image_size_bytes() <= machine_size_bytes_max;
        let node = node.image()?;
        Some(Self { node, machine: is_small.then(|| machine.image()) })
    }

    /// Whether the machine is in it.
    #[must_use]
    pub fn has_machine(&self) -> bool {
        self.machine.is_some()
    }

    /// Its bytes.
    ///
    /// # Panics
    /// Never: memory is all that it takes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).expect("every part of a state has an encoding")
    }

    /// Reads an image.
    ///
    /// # Errors
    /// [`ImageError`] when it is damaged, or of another version.
    pub fn decode(bytes: &[u8]) -> Result<Self, ImageError> {
        match postcard::take_from_bytes(bytes) {
            Ok((image, [])) => Ok(image),
            Ok((_, rest)) => Err(ImageError(format!("{} bytes after its end", rest.len()))),
            Err(error) => Err(ImageError(error.to_string())),
        }
    }
}

/// What was taken into a turn.
#[derive(Debug)]
pub struct Turn {
    /// The clocks of the turn.
    pub now: Now,
    /// What the node was given.
    pub node: Vec<NodeIn>,
    /// What the machine was given by others than the node.
    pub machine: Vec<MachineIn>,
}

/// What came of a turn.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Digest of the node and what it sent.
    pub node: u32,
    /// Digest of the machine and what it answered.
    pub machine: u32,
    /// Hash of the machine's whole state, from time to time.
    pub state_hash: Option<u64>,
    /// Rows that applying has read from the table.
    pub(super) rows: Vec<Row>,
}

/// Turns into bytes what goes into the lanes, turn by turn.
///
/// Invariant: between [`Tape::turn`] and [`Tape::end`] lies one step of the node and one of the
/// machine.
#[derive(Debug, Default)]
pub struct Tape {
    writer: Writer,
    node_digest: u32,
    now: Instant,
    hashed_at: Instant,
    /// Last index that was hashed.
    hashed: u64,
}

impl Tape {
    /// A tape for these lanes; what applying reads is kept from now on.
    #[must_use]
    pub fn new(machine: &mut MachineLane) -> Self {
        machine.set_recorded(true);
        Self::default()
    }

    /// Ends the recording of these lanes.
    pub fn stop(self, machine: &mut MachineLane) {
        machine.set_recorded(false);
    }

    /// Bytes since [`Tape::clear`].
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.writer.as_slice()
    }

    /// They are kept elsewhere now.
    pub fn clear(&mut self) {
        self.writer.clear();
    }

    /// A turn begins. False: a snapshot comes with it, the state is not that of what is recorded
    /// any more, and nothing was written.
    #[must_use]
    pub fn turn(&mut self, now: Now, node: &[NodeIn], machine: &[MachineIn]) -> bool {
        let is_foreign = node.iter().any(|input| matches!(input, NodeIn::Installed { .. }))
            || machine.iter().any(|input| matches!(input, MachineIn::Reload { .. }));
        if is_foreign {
            return false;
        }
        self.now = now.instant;
        encode_turn(now, node, machine, &mut self.writer);
        true
    }

    /// The node has made its step.
    pub fn node_done(&mut self, node: &Node, hops: &[Hop]) {
        self.node_digest = digest::of_node(node, hops);
    }

    /// The machine has made its step, and the turn is over.
    pub fn end(&mut self, machine: &mut MachineLane, hops: &[Hop]) {
        let digest = digest::of_machine(machine, hops);
        let rows = machine.take_heard();
        let applied = machine.kv().applied().index.0;
        let due = self.hashed_at.0 + STATE_HASH_INTERVAL <= self.now.0 && self.hashed != applied;
        if due {
            self.hashed_at = self.now;
            self.hashed = applied;
        }
        let state_hash = due.then(|| machine.kv().state_hash());
        let end = End { node: self.node_digest, machine: digest, state_hash, rows };
        encode_end(&end, &mut self.writer);
    }
}

/// Appends a turn; none of its inputs may bring a state with it.
pub(super) fn encode_turn(now: Now, node: &[NodeIn], machine: &[MachineIn], writer: &mut Writer) {
    writer.u8(KIND_TURN).u64(now.instant.0).u64(now.wall_ms).count(node.len());
    for input in node {
        let known = encode_node(input, writer);
        assert!(known, "a turn that brings a state is not recorded");
    }
    writer.count(machine.len());
    for input in machine {
        let known = encode_machine(input, writer);
        assert!(known, "a turn that brings a state is not recorded");
    }
}

/// Appends what came of a turn.
pub(super) fn encode_end(end: &End, writer: &mut Writer) {
    let End { node, machine, state_hash, rows } = end;
    writer.u8(KIND_END).u32(*node).u32(*machine).bool(state_hash.is_some());
    if let Some(hash) = state_hash {
        writer.u64(*hash);
    }
    encode_rows(rows, writer);
}

fn encode_rows(rows: &[Row], writer: &mut Writer) {
    writer.count(rows.len());
    for row in rows {
        writer.bool(row.is_some());
        if let Some(row) = row {
            writer.bytes(row);
        }
    }
}

/// Reads a turn that begins here.
pub(super) fn decode_turn(reader: &mut Reader) -> Result<Turn, DecodeError> {
    expect_kind(reader, KIND_TURN)?;
    let instant = Instant(reader.u64("instant")?);
    let wall_ms = reader.u64("wall clock")?;
    let node = decode_list(reader, 1, decode_node)?;
    let machine = decode_list(reader, 1, decode_machine)?.into_iter().flatten().collect();
    Ok(Turn { now: Now { instant, wall_ms }, node, machine })
}

/// Reads the end of a turn that stands here.
pub(super) fn decode_end(reader: &mut Reader) -> Result<End, DecodeError> {
    expect_kind(reader, KIND_END)?;
    let (node, machine) = (reader.u32("digest")?, reader.u32("digest")?);
    let is_hashed = reader.bool("state hash")?;
    let state_hash = if is_hashed { Some(reader.u64("state hash")?) } else { None };
    let rows = decode_list(reader, 1, decode_row)?;
    Ok(End { node, machine, state_hash, rows })
}

fn decode_row(reader: &mut Reader) -> Result<Row, DecodeError> {
    match reader.bool("row")? {
        true => reader.bytes("row").map(Some),
        false => Ok(None::<Bytes>),
    }
}

fn expect_kind(reader: &mut Reader, kind: u8) -> Result<(), DecodeError> {
    match reader.u8("record kind")? {
        found if found == kind => Ok(()),
        other => Err(DecodeError::Unknown { what: "record kind", value: u64::from(other) }),
    }
}
