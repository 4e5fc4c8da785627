//! Opening a server's lanes from its disk: the same recovery for the real and the simulated world.

use kvraft_base::{ClusterId, Damage, Disk, MemberId, Position};
use kvraft_raft::{Config, Raft, Start, StartError};
use kvraft_store::{Identity, Note, OpenError, Options};

use crate::{
    hop::Now,
    journal_lane::JournalLane,
    machine::{MachineLane, MachineOptions},
    node::{Node, NodeOptions},
    table_lane::TableLane,
};

/// Everything that is configuration below the edge.
#[derive(Clone, Debug)]
pub struct OpenOptions {
    /// Timings and windows of consensus; also names this server.
    pub raft: Config,
    /// Segment and cache sizes.
    pub store: Options,
    /// Bounds of the node.
    pub node: NodeOptions,
    /// Sizes and paces of the machine.
    pub machine: MachineOptions,
    /// The cluster that the data directory must be of.
    pub cluster: ClusterId,
    /// Tells this life of the server from earlier ones.
    pub incarnation: u64,
    /// For randomised timeouts.
    pub seed: u64,
}

/// Why a server's state could not be opened. Nothing was changed that was believed before.
#[derive(Debug, thiserror::Error)]
pub enum ReplicaError {
    /// The data directory is damaged, foreign, newer, or not readable.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The table's contents contradict themselves.
    #[error("table: {0}")]
    Damage(#[from] Damage),
    /// Journal and table contradict each other, or the configuration is not valid.
    #[error(transparent)]
    Start(#[from] StartError),
}

/// One server: its four lanes, ready to step.
#[derive(Debug)]
pub struct Replica {
    /// Decides.
    pub node: Node,
    /// Remembers the log.
    pub journal: JournalLane,
    /// Applies.
    pub machine: MachineLane,
    /// Settles.
    pub table: TableLane,
    /// Who this is, as the data directory says.
    pub identity: Identity,
    /// What recovery had to do.
    pub notes: Vec<Note>,
}

/// Recovers a server from a formatted disk.
///
/// # Errors
/// [`ReplicaError`]; the server must not run.
pub fn open(disk: &dyn Disk, options: OpenOptions, now: Now) -> Result<Replica, ReplicaError> {
    let me: MemberId = options.raft.id;
    let opened = kvraft_store::open(disk, &options.store, Some((options.cluster, me)))?;
    let recovered = opened.recovered;
    let machine =
        MachineLane::new(me, options.incarnation, options.machine, opened.table.reader())?;
    let applied: Position = machine.kv().applied();
    assert_eq!(applied, recovered.applied, "machine and store read the same checkpoint");
    let bootstrap = opened.identity.members.clone();
    let start = Start {
        hard_state: recovered.hard_state,
        members: machine.kv().members().cloned().unwrap_or_else(|| bootstrap.clone()),
        applied,
        released: recovered.released,
        last: recovered.last,
        tail: recovered.tail,
        attested: recovered.attested,
    };
    let raft = Raft::new(options.raft, start, options.seed, now.instant)?;
    Ok(Replica {
        node: Node::new(options.node, options.incarnation, raft, bootstrap, applied),
        journal: JournalLane::new(opened.journal),
        machine,
        table: TableLane::new(disk.handle(), options.store, opened.table),
        identity: opened.identity,
        notes: recovered.notes,
    })
}
