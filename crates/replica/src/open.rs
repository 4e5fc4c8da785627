//! Opening a server's lanes from its disk: the same recovery for the real and the simulated world.

use kvraft_base::{ClusterId, Damage, Disk, Position};
use kvraft_kv::{StateError, Unsupported, Versions};
use kvraft_raft::{Config, Raft, Start, StartError};
use kvraft_store::{Identity, Note, OpenError, Opened, Options};

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
    /// Bytes of rows in one snapshot chunk; a row at least is in each.
    pub snapshot_chunk_bytes: usize,
    /// Which cluster versions this server takes part in. A simulation gives it those of other
    /// builds.
    pub versions: Versions,
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
    /// The state is of a cluster version that this build does not know.
    #[error(transparent)]
    Unsupported(#[from] Unsupported),
    /// Journal and table contradict each other, or the configuration is not valid.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl ReplicaError {
    fn table_damage(&self) -> Option<&Damage> {
        match self {
            Self::Store(error) => error.table_damage(),
            Self::Damage(damage @ Damage::Lost { .. }) => Some(damage),
            Self::Damage(Damage::Disk(_)) | Self::Unsupported(_) | Self::Start(_) => None,
        }
    }
}

impl From<StateError> for ReplicaError {
    fn from(error: StateError) -> Self {
        match error {
            StateError::Damage(damage) => Self::Damage(damage),
            StateError::Unsupported(unsupported) => Self::Unsupported(unsupported),
        }
    }
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

/// Recovers a server from a formatted disk. A damaged table is set aside, and filled again from the
/// journal or a peer.
///
/// # Errors
/// [`ReplicaError`]; the server must not run.
pub fn open(disk: &dyn Disk, options: OpenOptions, now: Now) -> Result<Replica, ReplicaError> {
    let (opened, machine, mut notes) = open_rebuilt(disk, &options)?;
    let recovered = opened.recovered;
    let applied: Position = machine.kv().applied();
    assert_eq!(applied, recovered.applied, "machine and store read the same checkpoint");
    let bootstrap = opened.identity.members.clone();
    let is_hollow = applied.index < recovered.released.index;
    let at_base = recovered.members_at_base.filter(|_| is_hollow);
    let members_are_old = is_hollow && at_base.is_none();
    let of_table = || machine.kv().members().cloned().unwrap_or_else(|| bootstrap.clone());
    let start = Start {
        hard_state: recovered.hard_state,
        members: at_base.unwrap_or_else(of_table),
        members_are_old,
        applied,
        released: recovered.released,
        last: recovered.last,
        tail: recovered.tail,
        attested: recovered.attested,
    };
    notes.extend(recovered.notes);
    let version = machine.kv().cluster_version();
    let raft = Raft::new(options.raft, start, options.seed, now.instant)?;
    Ok(Replica {
        node: Node::new(
            options.node,
            options.incarnation,
            raft,
            bootstrap,
            applied,
            (options.versions, version),
        ),
        journal: JournalLane::new(opened.journal),
        machine,
        table: TableLane::new(
            disk.handle(),
            options.store,
            options.snapshot_chunk_bytes,
            options.versions,
            opened.table,
        ),
        identity: opened.identity,
        notes,
    })
}

/// Opens store and machine; where the table turns out to be damaged, gives it up and tries again.
fn open_rebuilt(
    disk: &dyn Disk,
    options: &OpenOptions,
) -> Result<(Opened, MachineLane, Vec<Note>), ReplicaError> {
    let mut notes = Vec::new();
    for _ in 0..REBUILD_COUNT_MAX {
        let error = match open_state(disk, options) {
            Ok((opened, machine)) => return Ok((opened, machine, notes)),
            Err(error) => error,
        };
        let Some(damage) = error.table_damage().cloned() else { return Err(error) };
        notes.extend(kvraft_store::rebuild(disk, &options.store, &damage)?);
    }
    let (opened, machine) = open_state(disk, options)?;
    Ok((opened, machine, notes))
}

fn open_state(
    disk: &dyn Disk,
    options: &OpenOptions,
) -> Result<(Opened, MachineLane), ReplicaError> {
    let me = options.raft.id;
    let opened = kvraft_store::open(disk, &options.store, Some((options.cluster, me)))?;
    let reader = opened.table.reader();
    match MachineLane::new(me, options.incarnation, options.machine, options.versions, reader) {
        Ok(machine) => Ok((opened, machine)),
        Err(error) => {
            opened.table.close().map_err(OpenError::from)?;
            Err(error.into())
        }
    }
}

/// A rebuild that was cut short takes two: one that ends it, one for what is found then.
const REBUILD_COUNT_MAX: usize = 2;
