//! Everything a maintainer runs, as one typed tool: `cargo xtask ci | tidy | conformance |
//! power-loss | fail-over | grow-and-shrink | rejoin | bugs | determinism | model-check |
//! bench-etcd | seed-demo | viewer | show-bug | pictures`.
//!
//! Why: no shell dialect, nothing to install, and the checks can be tested like any other code.
//!
//! Invariants:
//! - nothing here writes to the tree, but for `pictures` to docs/images; build products go to the
//!   target folder, the rest to temporary folders;
//! - a step that cannot do its work fails. None is skipped.

mod bench;
mod bugs;
mod ci;
mod cluster;
mod conformance;
mod determinism;
mod fail_over;
mod fleet;
mod grow_and_shrink;
mod kills;
mod members;
mod model;
mod mutants;
mod planted;
mod ports;
mod power;
mod processes;
mod readme;
mod rejoin;
mod rules;
mod run;
mod seed_demo;
mod show_bug;
pub mod tidy;
mod viewer;

use std::path::{Path, PathBuf};

pub use bench::{BenchOptions, bench_etcd};
pub use bugs::{BugOptions, bugs};
pub use ci::{check_tidy, ci};
pub use conformance::conformance;
pub use determinism::determinism;
pub use fail_over::{fail_over, fail_over_compared};
pub use grow_and_shrink::grow_and_shrink;
pub use model::{model_check, model_check_planted};
pub use mutants::{MutantOptions, mutants};
pub use power::power_loss;
pub use rejoin::{RejoinOptions, rejoin};
pub use rules::rules;
pub use seed_demo::seed_demo;
pub use show_bug::show_bug;
pub use viewer::{pictures, viewer};

/// The root of the workspace that this tool was built from.
#[must_use]
pub fn workspace_root() -> PathBuf {
    let xtask = Path::new(env!("CARGO_MANIFEST_DIR"));
    xtask.parent().expect("xtask lies in the workspace").to_path_buf()
}
