//! The rules of the house that a compiler does not know, checked over the tracked files.
//!
//! Why: what is only agreed on is forgotten. Which crate may know which, what a core may touch and
//! how a document begins is held here, by `cargo test` as well as by `cargo xtask tidy`.
//!
//! Invariants:
//! - a rule is a pure function from a [`Tree`] to findings, and has a test with an example that
//!   fails it;
//! - nothing is written, and untracked files are not looked at.
//!
//! What it deliberately lacks: a parser of Rust. A lexer that tells code, comments and strings
//! apart is enough for these rules.

mod arrows;
mod banned;
mod documents;
mod lexer;
mod modules;
mod source;
mod tree;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};

pub use tree::{Tree, TreeFile};

/// One place that breaks a rule.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Finding {
    /// Path from the root of the workspace.
    pub path: String,
    /// Line, from 1; 0 when the file as a whole is meant.
    pub line: usize,
    /// What is wrong and what to do instead.
    pub message: String,
}

impl Finding {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => write!(f, "{}: {}", self.path, self.message),
            line => write!(f, "{}:{line}: {}", self.path, self.message),
        }
    }
}

/// What a run of tidy found.
#[derive(Debug, Default)]
pub struct Report {
    /// Breaches: there must be none.
    pub errors: Vec<Finding>,
    /// Places worth a look.
    pub warnings: Vec<Finding>,
    /// Number of files that were read.
    pub file_count: usize,
}

/// Runs every rule over the workspace at `root`.
///
/// # Errors
/// When the files or the dependency graph cannot be read.
pub fn check(root: &Path) -> Result<Report> {
    let tree = Tree::load(root).context("reading the tracked files")?;
    let graph = arrows::load(root).context("reading the dependency graph")?;
    let mut report = check_tree(&tree);
    report.errors.extend(arrows::check(&graph));
    report.errors.sort();
    Ok(report)
}

/// Runs every rule that needs no more than the files.
fn check_tree(tree: &Tree) -> Report {
    let mut report = Report { file_count: tree.files.len(), ..Report::default() };
    for file in &tree.files {
        if file.is_rust() {
            source::check(file, &mut report);
        }
        if file.path.ends_with(".md") {
            report.errors.extend(documents::one_title(file));
        }
        report.errors.extend(documents::golden_begins_with_sentence(file));
        report.errors.extend(banned::check(file));
    }
    report.errors.extend(modules::unreached(tree));
    report.errors.extend(documents::decisions_are_listed(tree));
    report
}
