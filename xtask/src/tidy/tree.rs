//! The tracked files of the workspace, as values.
//!
//! Why: rules over values can be tested with three-line examples.
//!
//! Invariant: paths are relative to the root, with `/`, in order.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// The text files of the workspace.
#[derive(Debug, Default)]
pub struct Tree {
    /// In order of path. Files that are not UTF-8 text are left out.
    pub files: Vec<TreeFile>,
}

/// One text file.
#[derive(Debug)]
pub struct TreeFile {
    /// Path from the root.
    pub path: String,
    /// Its contents.
    pub text: String,
}

impl TreeFile {
    /// Whether this is Rust source.
    #[must_use]
    pub fn is_rust(&self) -> bool {
        self.path.ends_with(".rs")
    }

    /// The crate below `crates/` that this file is part of, if any.
    #[must_use]
    pub fn crate_name(&self) -> Option<&str> {
        self.path.strip_prefix("crates/")?.split('/').next()
    }
}

impl Tree {
    /// Reads every tracked file below `root`. A tree without a repository (an unpacked archive)
    /// counts as tracked as a whole, but for `target` and hidden folders.
    ///
    /// # Errors
    /// When a file cannot be read, or when there is none.
    pub fn load(root: &Path) -> Result<Self> {
        let mut paths = if root.join(".git").exists() { tracked(root)? } else { walk(root)? };
        paths.sort();
        let mut files = Vec::new();
        for path in paths {
            let full = root.join(&path);
            if !full.is_file() {
                continue; // A link, or deleted and not yet committed.
            }
            let bytes = std::fs::read(&full).with_context(|| format!("reading {path}"))?;
            if let Ok(text) = String::from_utf8(bytes)
                && !text.contains('\0')
            {
                files.push(TreeFile { path, text });
            }
        }
        ensure!(!files.is_empty(), "no tracked file below {}", root.display());
        Ok(Self { files })
    }

    /// The file at `path`, if it is there.
    #[must_use]
    pub fn file(&self, path: &str) -> Option<&TreeFile> {
        self.files.iter().find(|file| file.path == path)
    }
}

fn tracked(root: &Path) -> Result<Vec<String>> {
    let output = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z"])
        .current_dir(root)
        .output()
        .context("running git ls-files")?;
    ensure!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let listing = String::from_utf8(output.stdout).context("a tracked path is not UTF-8")?;
    Ok(listing.split('\0').filter(|path| !path.is_empty()).map(str::to_owned).collect())
}

fn walk(root: &Path) -> Result<Vec<String>> {
    let mut pending = vec![String::new()];
    let mut paths = Vec::new();
    while let Some(folder) = pending.pop() {
        for entry in std::fs::read_dir(root.join(&folder))? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
            let kind = entry.file_type()?;
            if kind.is_file() {
                paths.push(path);
            } else if kind.is_dir() && name != "target" && !name.starts_with('.') {
                pending.push(path);
            }
        }
    }
    Ok(paths)
}
