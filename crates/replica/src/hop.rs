//! The closed vocabulary between the lanes, and between the lanes and the world.

use bytes::Bytes;
use kvraft_base::{
    Checkpoint, Damage, DiskError, Entry, Index, Instant, MemberId, Members, Position, Term,
    Ticket, Write, WriteId,
};
use kvraft_kv::{Answer, Kv, Query, Refused, Response, StateError, Unsupported};
use kvraft_raft::{Change, Fetch, Membership, Refusal};
use kvraft_store::{ImportError, TableError, TableReader};

use crate::frame::SnapshotChunk;

/// Both clocks, read once per turn after the inbox is closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Now {
    /// Monotonic: drives every timer.
    pub instant: Instant,
    /// Wall clock, in milliseconds since 1970: only stamped into commands, never compared with
    /// another server's.
    pub wall_ms: u64,
}

/// Which of the two connections to a peer a frame takes, so that bulk never delays heartbeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum PeerLane {
    /// Votes, heartbeats, fresh appends, forwarded requests.
    Control,
    /// Snapshot chunks, and what a follower has missed.
    Bulk,
}

/// A message on its way out of a lane.
#[derive(Debug)]
pub enum Hop {
    /// To the deciding lane.
    Node(NodeIn),
    /// To the log on disk.
    Journal(JournalIn),
    /// To the state machine.
    Machine(MachineIn),
    /// To the table on disk.
    Table(TableIn),
    /// Out to a peer. May be lost.
    Peer {
        /// Receiver.
        to: MemberId,
        /// Which connection.
        lane: PeerLane,
        /// An encoded [`crate::Frame`].
        frame: Bytes,
    },
    /// Out to a waiting client.
    Reply(Reply),
    /// Something happened that logs and traces want to know.
    Event(kvraft_raft::Event),
    /// The configuration in force has changed, or is known to be committed now. First said in the
    /// first turn. Those from before this server was a member are not said; until it is, the one
    /// that its disk was formatted with is.
    Members(Membership),
    /// This server must stop.
    Fatal(Fatal),
}

/// A client's wish.
#[derive(Clone, Debug)]
pub enum ClientRequest {
    /// An encoded [`kvraft_kv::Command`] whose origin is this server and the ticket.
    Propose(Bytes),
    /// A question about the state.
    Query {
        /// What is asked.
        query: Query,
        /// Whether the answer must reflect everything acknowledged before the question.
        linearizable: bool,
    },
    /// Other members; answered when the change is committed and no longer joint.
    ChangeMembers(Vec<Change>),
    /// Another leader; only this server's own leadership is handed over.
    Transfer {
        /// Who; the most up-to-date voter that is reachable if `None`.
        to: Option<MemberId>,
    },
}

/// Into the deciding lane.
#[derive(Debug)]
pub enum NodeIn {
    /// From a client of this server.
    Client {
        /// Names the request in its [`Reply`]. Never reused within a process.
        ticket: Ticket,
        /// What is wanted.
        request: ClientRequest,
    },
    /// The client has stopped waiting; the outcome no longer matters to anyone.
    Cancel(Ticket),
    /// From a peer's connection.
    Frame {
        /// The peer, as its connection was admitted.
        from: MemberId,
        /// An encoded [`crate::Frame`].
        frame: Bytes,
    },
    /// A frame that passes a client's command on did not leave this server, and will not: it must
    /// be told, since nothing repeats it. Other frames may get lost without a word.
    Undelivered {
        /// The peer.
        to: MemberId,
        /// The encoded [`crate::Frame`].
        frame: Bytes,
        /// Why.
        reason: NotSent,
    },
    /// A peer's connection came up.
    Connected(MemberId),
    /// A peer's connection closed.
    Disconnected(MemberId),
    /// Somebody outside says that the leader is dead; it may be a lie.
    LeaderSuspected,
    /// Every write up to this one is durable.
    Durable(WriteId),
    /// The journal's answer to a fetch.
    Fetched {
        /// Names the fetch.
        id: u64,
        /// `None` when the range is gone or damaged.
        entries: Option<Vec<Entry>>,
    },
    /// The journal has let go of everything up to this position.
    Released(Position),
    /// The journal is empty and starts after this position.
    ResetDone(Position),
    /// The machine has applied up to here.
    Applied {
        /// Last applied index.
        index: Index,
        /// Tickets of this server that were answered.
        answered: Vec<Ticket>,
    },
    /// The machine runs on an installed snapshot.
    Reloaded {
        /// What the snapshot contains.
        position: Position,
        /// The configuration in it, if it is not the bootstrap one.
        members: Option<Members>,
    },
    /// The machine's state has this cluster version from now on.
    Version(u32),
    /// A checkpoint is durable.
    Settled(Position),
    /// A snapshot chunk to send.
    SnapshotChunk {
        /// The follower.
        to: MemberId,
        /// What to send.
        chunk: SnapshotChunk,
    },
    /// An outgoing snapshot is open at this position; the journal after it stays.
    ExportOpened {
        /// The follower.
        to: MemberId,
        /// What the snapshot contains.
        position: Position,
    },
    /// The table has taken the chunk with this number.
    ImportTaken {
        /// The sender.
        from: MemberId,
        /// The snapshot.
        position: Position,
        /// Chunk number, from 0.
        seq: u64,
    },
    /// A later chunk has come of a snapshot that the table is not receiving.
    ImportUnknown {
        /// The sender.
        from: MemberId,
        /// The snapshot.
        position: Position,
    },
    /// All chunks have arrived and were verified.
    ImportReady {
        /// The sender.
        from: MemberId,
        /// The sender's term.
        term: Term,
        /// The snapshot.
        position: Position,
    },
    /// What was to be installed has been superseded by a newer snapshot, or was found to be wrong;
    /// nothing has changed.
    InstallRefused(Position),
    /// The received table has durably replaced the old one.
    Installed {
        /// The snapshot.
        position: Position,
        /// Read access to the new table.
        reader: TableReader,
        /// The state that it holds.
        kv: Box<Kv>,
    },
}

/// Why a frame did not leave this server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotSent {
    /// There is no connection.
    Closed,
    /// Too much is waiting for the connection already.
    Full,
}

/// Into the log on disk.
#[derive(Debug)]
pub enum JournalIn {
    /// Make durable and say so.
    Write(Write),
    /// Everything up to here is in two checkpoints and may go.
    Release(Index),
    /// Start over after an installed snapshot.
    Reset {
        /// What it contains.
        position: Position,
        /// In force there, if that is certain.
        members: Option<Members>,
    },
    /// Read entries back for a follower.
    Fetch(Fetch),
}

/// Into the state machine.
#[derive(Debug)]
pub enum MachineIn {
    /// Committed entries, contiguous.
    Committed(Vec<Entry>),
    /// Answer when everything up to `at` is applied.
    Query {
        /// Names the request.
        ticket: Ticket,
        /// The read index; 0 for "as it is".
        at: Index,
        /// What is asked.
        query: Query,
    },
    /// The client has stopped waiting for a query.
    Cancel(Ticket),
    /// A checkpoint is durable.
    Settled(Position),
    /// Start over on an installed snapshot.
    Reload {
        /// Read access to the new table.
        reader: TableReader,
        /// The state that it holds.
        kv: Box<Kv>,
    },
}

/// Into the table on disk.
#[derive(Debug)]
pub enum TableIn {
    /// Make durable and say so.
    Commit(Checkpoint),
    /// Open a view and stream it to a follower.
    Export {
        /// The follower.
        to: MemberId,
        /// Term of the sending leader.
        term: Term,
    },
    /// The follower has taken chunks up to this number.
    ExportTaken {
        /// The follower.
        to: MemberId,
        /// The snapshot.
        position: Position,
        /// Chunk number.
        seq: u64,
    },
    /// Send what was not taken once more, or the end if everything was.
    ExportResend {
        /// The follower.
        to: MemberId,
    },
    /// The follower has gone or needs it no more.
    ExportClose {
        /// The follower.
        to: MemberId,
    },
    /// A chunk of an incoming snapshot.
    Import {
        /// The sender.
        from: MemberId,
        /// The chunk.
        chunk: SnapshotChunk,
    },
    /// Replace the table by what was received.
    Install {
        /// What the snapshot contains.
        position: Position,
        /// The journal holds that, and goes on after it; else it is reset next.
        log_kept: bool,
    },
    /// Throw away what was received: none of it will be installed.
    ImportDrop,
}

/// What became of a client's request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The request.
    pub ticket: Ticket,
    /// What became of it.
    pub outcome: Outcome,
    /// Where it is in the log, or the index it was read at: the witness that checkers replay.
    pub index: Index,
}

/// Honest outcomes: "failed" is said only of what has had no effect and never will.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Applied; this is the state machine's answer.
    Done(Result<Response, Refused>),
    /// Read; this is the state machine's answer.
    Answered(Result<Answer, Refused>),
    /// It was never appended, or was overwritten by a committed entry of another term.
    Failed(Failure),
    /// It may or may not take effect.
    Unknown(Failure),
    /// The change of members is over, and this is what it, or a later one, has led to; or it was
    /// refused by the leader's rules, without any effect.
    Changed(Result<Membership, Refusal>),
    /// Who leads now, or why leadership stays.
    Transferred(Result<MemberId, Refusal>),
}

/// Why a request was not answered by the state machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// No leader is known here.
    #[error("no leader is known")]
    NoLeader,
    /// Leadership moved while the request was on its way.
    #[error("the leader changed")]
    LeaderChanged,
    /// Too much is waiting already.
    #[error("too many requests are waiting")]
    Busy,
    /// The command is over the size limit.
    #[error("the request is too large")]
    TooLarge,
    /// This server lacks the state before its log, and serves nothing of its own until a peer has
    /// sent that.
    #[error("this server waits for a peer to send it the state that it has lost")]
    Hollow,
}

/// Why this server must stop. Never retried: what a disk says after an error cannot be believed.
#[derive(Debug, thiserror::Error)]
pub enum Fatal {
    /// Reading or writing the journal failed.
    #[error("journal: {0}")]
    Journal(DiskError),
    /// Stored state is damaged.
    #[error("damage: {0}")]
    Damage(#[from] Damage),
    /// Writing the table failed.
    #[error("table: {0}")]
    Table(#[from] TableError),
    /// Another process runs as this member, has started later, and is connected to this peer.
    #[error(
        "member {peer:x} is connected to a later process with this server's id: only one may run"
    )]
    Superseded {
        /// Who said so.
        peer: MemberId,
    },
    /// This server is no member any more, by a committed configuration, and never will be again:
    /// ids are not reused.
    #[error("this server was removed from the cluster by the change at {index}")]
    Removed {
        /// The configuration's entry, or what held it when this server started.
        index: Index,
    },
    /// The cluster, as the log, or the snapshot that replaces this server's state, has it, is of a
    /// version that this build does not know. Nothing was changed.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Installing a received snapshot failed half-way.
    #[error("snapshot: {0}")]
    Import(#[from] ImportError),
}

impl From<StateError> for Fatal {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damage(damage) => Self::Damage(damage),
            StateError::Unsupported(unsupported) => Self::Unsupported(unsupported),
        }
    }
}
