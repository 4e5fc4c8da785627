//! Rules on the text of Rust files.
//!
//! Why: a core that reads a clock, a file or a map in random order can no longer be replayed; a
//! test that is ignored and a lint that is silenced for ever are lies that compile.

use super::lexer::{Views, line_of, views, words};
use super::{Finding, Report, TreeFile};

/// Crates whose code must be a function of its inputs.
pub(super) const CORES: [&str; 9] =
    ["base", "raft", "kv", "store", "replica", "session", "trace", "coord", "sim"];

/// Crates in which every server must compute the same: no floats.
const FLOATLESS: [&str; 2] = ["raft", "kv"];

/// Columns in a line of Rust, at most. A line that holds an address is let off.
const COLUMN_COUNT_MAX: usize = 100;

/// Lines in a file before tidy asks for the second noun.
const LINE_COUNT_WARN: usize = 800;

/// Paths of the standard library that are closed to a core.
const CORE_PATHS: [(&str, &str); 6] = [
    ("std::fs", "a core reaches disks through kvraft_base::Disk"),
    ("std::net", "a core sends messages as outputs"),
    ("std::thread", "a core has no threads"),
    ("std::env", "configuration is an argument"),
    ("std::time::SystemTime", "time is an input"),
    ("std::time::Instant", "time is an input: kvraft_base::Instant"),
];

/// Words that are closed to a core.
const CORE_WORDS: [(&str, &str); 3] = [
    ("HashMap", "iteration order is random: use BTreeMap"),
    ("HashSet", "iteration order is random: use BTreeSet"),
    ("SystemTime", "time is an input"),
];

/// Applies every rule of this file to `file`.
pub(super) fn check(file: &TreeFile, report: &mut Report) {
    let views = views(&file.text);
    report.errors.extend(long_lines(file));
    report.errors.extend(unfinished(file, &views));
    if is_core(file) {
        report.errors.extend(impure(file, &views));
    }
    if file.crate_name().is_some_and(|name| FLOATLESS.contains(&name)) {
        report.errors.extend(floats(file, &views));
    }
    let line_count = file.text.lines().count();
    if line_count > LINE_COUNT_WARN {
        let message = format!("{line_count} lines: look for the second noun");
        report.warnings.push(Finding::new(&file.path, 0, message));
    }
}

fn is_core(file: &TreeFile) -> bool {
    file.crate_name().is_some_and(|name| {
        CORES.contains(&name) && file.path.starts_with(&format!("crates/{name}/src/"))
    })
}

/// Recorded outputs in tests are as long as they are.
fn long_lines(file: &TreeFile) -> Vec<Finding> {
    if file.path.contains("/tests/") || file.path.ends_with("/tests.rs") {
        return Vec::new();
    }
    // Of code rustfmt decides; comments it leaves alone.
    let is_comment = |line: &str| line.trim_start().starts_with("//");
    let too_long = |line: &str| {
        is_comment(line) && line.chars().count() > COLUMN_COUNT_MAX && !line.contains("://")
    };
    (1..)
        .zip(file.text.lines())
        .filter(|(_, line)| too_long(line))
        .map(|(number, line)| {
            let message = format!("{} columns, {COLUMN_COUNT_MAX} at most", line.chars().count());
            Finding::new(&file.path, number, message)
        })
        .collect()
}

/// Code that says of itself that it is not done, tests that do not run, lints silenced for ever.
fn unfinished(file: &TreeFile, views: &Views) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut found = |offset: usize, message: &str| {
        findings.push(Finding::new(&file.path, line_of(&file.text, offset), message));
    };
    for at in attributes(&views.code) {
        let (offset, name) = at;
        match name {
            "ignore" => found(offset, "a test that is ignored tests nothing"),
            "allow" => found(offset, "use #[expect(.., reason = \"..\")]"),
            _ => {}
        }
    }
    for word in ["todo", "unimplemented"] {
        for offset in words(&views.code, word) {
            if views.code[offset + word.len()..].starts_with('!') {
                found(offset, "finish it, or leave it out");
            }
        }
    }
    for offset in words(&views.comments, concat!("FIX", "ME")) {
        found(offset, "mend it now, or say in a sentence what is lacking");
    }
    findings
}

/// Offset and first word of every attribute.
fn attributes(code: &str) -> Vec<(usize, &str)> {
    code.match_indices('#')
        .filter_map(|(offset, _)| {
            let rest = code[offset + 1..].trim_start_matches(['!', ' ']);
            let inner = rest.strip_prefix('[')?.trim_start();
            let end = inner.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            Some((offset, &inner[..end]))
        })
        .collect()
}

/// What makes a core's outcome depend on more than its inputs.
fn impure(file: &TreeFile, views: &Views) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (word, reason) in CORE_WORDS {
        for offset in words(&views.code, word) {
            let message = format!("{word} in a core: {reason}");
            findings.push(Finding::new(&file.path, line_of(&file.text, offset), message));
        }
    }
    for (offset, path) in std_paths(&views.code) {
        let closed = |of: &str| path == of || path.starts_with(&format!("{of}::"));
        for (of, reason) in CORE_PATHS {
            if closed(of) {
                let message = format!("{of} in a core: {reason}");
                findings.push(Finding::new(&file.path, line_of(&file.text, offset), message));
            }
        }
    }
    findings.sort();
    findings.dedup();
    findings
}

/// Every path that begins with `std::`, groups of imports taken apart.
fn std_paths(code: &str) -> Vec<(usize, String)> {
    let mut paths = Vec::new();
    for offset in words(code, "std") {
        let rest = &code[offset..];
        let end = rest.find(|c: char| !is_path_char(c)).unwrap_or(rest.len());
        if rest[end..].trim_start().starts_with('{') && rest[..end].ends_with("::") {
            paths.extend(expand(&rest[..end], &rest[end..]).into_iter().map(|p| (offset, p)));
        } else {
            paths.push((offset, rest[..end].to_owned()));
        }
    }
    paths
}

fn is_path_char(c: char) -> bool {
    c.is_alphanumeric() || c == '_' || c == ':'
}

/// The paths of a group such as `{fs, time::{Duration, Instant}}` behind `prefix`.
fn expand(prefix: &str, group: &str) -> Vec<String> {
    let mut prefixes: Vec<String> = Vec::new();
    let mut current = prefix.to_owned();
    let mut paths = Vec::new();
    for c in group.chars() {
        match c {
            '{' => prefixes.push(current.clone()),
            '}' | ',' => {
                paths.push(std::mem::take(&mut current));
                if c == '}' {
                    prefixes.pop();
                }
                let Some(prefix) = prefixes.last() else { break };
                current.clone_from(prefix);
            }
            c if is_path_char(c) => current.push(c),
            _ => {}
        }
    }
    paths
}

/// Floats: two machines may round them differently.
fn floats(file: &TreeFile, views: &Views) -> Vec<Finding> {
    let bytes = views.code.as_bytes();
    let mut findings = Vec::new();
    for float in ["f32", "f64"] {
        for (offset, _) in views.code.match_indices(float) {
            let before = offset.checked_sub(1).map(|at| bytes[at]);
            let after = bytes.get(offset + float.len());
            let is_letter = |byte: u8| byte == b'_' || byte.is_ascii_alphabetic();
            let alone = before.is_none_or(|byte| !is_letter(byte) || byte == b'_')
                && after.is_none_or(|byte| !is_letter(*byte) && !byte.is_ascii_digit());
            if alone {
                let message =
                    format!("{float}: what every server must compute alike has no floats");
                findings.push(Finding::new(&file.path, line_of(&file.text, offset), message));
            }
        }
    }
    findings
}
