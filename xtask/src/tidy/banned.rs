//! Words that no tracked file may hold.
//!
//! Why: the text of the project speaks of the project alone, to whoever reads it, on any machine.

use super::{Finding, TreeFile};

/// Each word is put together here so that this file does not hold it.
const BANNED: [(&str, &str); 13] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("/ho", "me/"), "a path of one machine"),
    (concat!("..", "/shared"), "a path that readers do not have"),
    (concat!("/tmp/", "contracts"), "a path that readers do not have"),
    (concat!("design", ".md"), "a document that readers do not have"),
    (concat!("seed", "-systems"), "say: the Go Raft simulation, KVRaft (Go)"),
    (concat!("seed", " system"), "say: the Go Raft simulation, KVRaft (Go)"),
    (concat!("index.", "crates.io"), "a registry's host name"),
    (concat!("static.", "crates.io"), "a registry's host name"),
    (concat!("registry.", "npmjs"), "a registry's host name"),
    (concat!("py", "pi.org"), "a registry's host name"),
    (concat!("proxy.", "golang"), "a registry's host name"),
];

/// The only source of packages that the lock file may name.
const REGISTRY: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Every banned word in `file`.
pub(super) fn check(file: &TreeFile) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (number, line) in (1..).zip(file.text.lines()) {
        for (word, reason) in BANNED {
            if line.contains(word) {
                let message = format!("`{word}`: {reason}");
                findings.push(Finding::new(&file.path, number, message));
            }
        }
        let source = line.strip_prefix("source = \"").map(|rest| rest.trim_end_matches('"'));
        if file.path == "Cargo.lock" && source.is_some_and(|source| source != REGISTRY) {
            let message = "packages come from the public registry, or from this workspace";
            findings.push(Finding::new(&file.path, number, message));
        }
    }
    findings
}
