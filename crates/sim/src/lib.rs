//! The seeded world: network, disk, clock, processes, workload, checks.
//!
//! The foundations know nothing of consensus: a disk that loses power (`disk`), links that fail in
//! every direction (`network`), a total order of events (`heap`), a run's faults as data (`plan`),
//! its fingerprint (`trace`), what clients saw (`history`) and whether that is linearizable: by
//! search (`linear`) or by the order that the servers say (`witness`), against plain `models`.
//! What fails is made smaller by `shrink`. `cluster` puts the shipped lanes into that world.
//!
//! Invariant: a run is a function of its seed and its plan.

mod clock;
mod cluster;
mod disk;
mod heap;
pub mod history;
mod judge;
mod linear;
mod models;
mod network;
mod plan;
pub mod replay;
mod settings;
mod shrink;
pub mod stage;
mod trace;
mod witness;

// What a stage's systems are written with, so that they depend on this crate alone.
pub use kvraft_base::{Disk, DiskError, DiskErrorKind, DiskFile, Instant, MemberId, Prng};
pub use kvraft_trace::run::{Run, page};

pub use cluster::{
    Check, Choices, ClusterConfig, Ending, Live, Report, Scenario, Sometimes, Trial, Violation,
    first_difference, record_scenario, run, run_bounded, run_scenario,
};
pub use disk::{
    ChangePoint, ContentLoss, CrashPolicy, DiskCosts, DiskStats, DiskTrouble, NameLoss,
    SECTOR_SIZE_BYTES, SimDisk,
};
pub use heap::EventHeap;
pub use history::History;
pub use judge::{Judgement, Searched, judge, search};
pub use linear::{Call, LinearVerdict, Model, check_linear, check_linear_by_key};
pub use models::{KeyModel, KeyState, PastModel, PastState, StoreModel, StoreState};
pub use network::{Endpoint, EndpointError, Network, NetworkConfig, NetworkStats, Partition};
pub use plan::{
    Build, CLIENT_MAX, ClientPlan, CoordinatorFault, DRIFT_PPM_MAX, Decay, Fault, FaultChoice,
    FaultKind, FaultKinds, Intent, PAUSE_MIN, Part, Plan, PlanError, PlannedOperation, Profile,
    RATE_PPM, RunConfig, Target, TimedFault, Whom, Wish,
};
pub use shrink::{Judged, Shrink, ShrinkStep, Shrunk, shrink};
pub use trace::{Trace, TraceHash, TraceLine, digest};
pub use witness::{Place, Role, WitnessViolation, Witnessed, check_witness};
