//! Takes each rule of `crates/raft/testdata/RULES.md` out of a scratch copy of the code and demands
//! that the scenario that shows it fails.
//!
//! Why: a scenario that passes without its rule shows nothing.
//!
//! Invariants:
//! - the tree itself is never touched;
//! - a rule names text that is in the code exactly once; a test of this file holds that, so that
//!   the list cannot go stale.

use std::collections::BTreeSet;
use std::fs;
use std::ops::Range;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::planted::Scratch;
use crate::run::{cargo, run};

/// The list, from the root of the tree.
const LIST: &str = "crates/raft/testdata/RULES.md";

/// What a failing run prints before the names of the scenarios.
const VERDICT: &str = "other than recorded: ";

/// One line of the code, and what it guards.
#[derive(Debug, PartialEq, Eq)]
struct Rule {
    /// The scenario that shows it: a file of `testdata`, without its ending.
    scenario: String,
    /// Where it is, from the root of the tree.
    path: String,
    old: String,
    new: String,
}

/// Runs every rule of the scenarios whose name contains one of `names`; all, when there is none.
///
/// # Errors
/// When a scenario passes without its rule.
pub fn rules(root: &Path, names: &[String]) -> Result<()> {
    let text = fs::read_to_string(root.join(LIST)).context(LIST)?;
    let mut rules = parse(&text);
    rules.retain(|rule| names.is_empty() || names.iter().any(|name| rule.scenario.contains(name)));
    ensure!(!rules.is_empty(), "no rule is of a scenario of that name");
    let scratch = Scratch::new(root)?;
    scratch.restore()?;
    ensure!(failing(&scratch)?.is_empty(), "the scenarios fail with every rule in its place");
    let mut missed = Vec::new();
    for rule in &rules {
        scratch.restore()?;
        remove(&scratch.tree(), rule).with_context(|| rule.scenario.clone())?;
        let mut failing = failing(&scratch).with_context(|| rule.scenario.clone())?;
        let found = failing.remove(&rule.scenario);
        let verdict = if found { "fails" } else { "PASSES" };
        println!("{verdict}: {} ({}), and {} others", rule.scenario, rule.path, failing.len());
        if !found {
            missed.push(format!("{} without `{}`", rule.scenario, rule.old.trim()));
        }
    }
    ensure!(missed.is_empty(), "these pass without their rule: {}", missed.join("; "));
    println!("all {} rules are shown", rules.len());
    Ok(())
}

fn remove(tree: &Path, rule: &Rule) -> Result<()> {
    let path = tree.join(&rule.path);
    let mut source = fs::read_to_string(&path).with_context(|| rule.path.clone())?;
    let places = places(&source, &rule.old);
    ensure!(places.len() == 1, "`{}` is there {} times", rule.old.trim(), places.len());
    source.replace_range(places[0].clone(), &rule.new);
    fs::write(&path, source).with_context(|| rule.path.clone())
}

/// The scenarios that fail in the copy as it is.
fn failing(scratch: &Scratch) -> Result<BTreeSet<String>> {
    let arguments = ["test", "--quiet", "--package", "kvraft-raft", "--lib", "--test", "raft"];
    let command = || {
        let mut command = cargo(&scratch.tree());
        command.args(arguments).env("CARGO_TARGET_DIR", scratch.target());
        command
    };
    run(command().arg("--no-run"))?;
    let output = command().args(["--no-fail-fast", "recorded"]).output()?;
    let printed = [output.stdout, output.stderr].concat();
    let printed = String::from_utf8_lossy(&printed);
    let lists = printed.lines().filter_map(|line| line.strip_prefix(VERDICT));
    let names: BTreeSet<String> =
        lists.flat_map(str::split_whitespace).map(str::to_owned).collect();
    ensure!(output.status.success() == names.is_empty(), "the scenarios did not run: {printed}");
    Ok(names)
}

/// Reads the list: a title for each scenario, a path, and what to take out and put in.
fn parse(text: &str) -> Vec<Rule> {
    let (mut scenario, mut path) = (String::new(), String::new());
    let mut block: Option<(Vec<&str>, Vec<&str>)> = None;
    let mut rules = Vec::new();
    for line in text.lines() {
        if let Some((old, new)) = &mut block {
            if let Some(line) = line.strip_prefix('-') {
                old.push(line);
            } else if let Some(line) = line.strip_prefix('+') {
                new.push(line);
            } else {
                let (old, new) = (old.join("\n"), new.join("\n"));
                rules.push(Rule { scenario: scenario.clone(), path: path.clone(), old, new });
                block = None;
            }
        } else if line == "```diff" {
            block = Some((Vec::new(), Vec::new()));
        } else if let Some(title) = line.strip_prefix("## ") {
            scenario = title.to_owned();
        } else if let Some(name) = line.strip_prefix('`').and_then(|line| line.strip_suffix("`:")) {
            path = name.to_owned();
        }
    }
    rules
}

/// Where `text` stands in `source`, however the two are indented and broken into lines.
fn places(source: &str, text: &str) -> Vec<Range<usize>> {
    let words: Vec<&str> = text.split_whitespace().collect();
    let Some(first) = words.first() else { return Vec::new() };
    let ends_at = |start: usize| {
        let mut at = start + first.len();
        for word in &words[1..] {
            let rest = &source[at..];
            let next = rest.trim_start();
            if next.len() == rest.len() || !next.starts_with(word) {
                return None;
            }
            at += rest.len() - next.len() + word.len();
        }
        Some(at)
    };
    let starts = source.match_indices(first).map(|(start, _)| start);
    starts.filter_map(|start| Some(start..ends_at(start)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every scenario has a rule, every rule a scenario, and what it takes out is in the code once.
    #[test]
    fn every_rule_is_in_the_code() {
        let root = crate::workspace_root();
        let rules = parse(&fs::read_to_string(root.join(LIST)).unwrap());
        let mut wrong = Vec::new();
        for rule in &rules {
            let source = fs::read_to_string(root.join(&rule.path)).unwrap_or_default();
            let count = places(&source, &rule.old).len();
            if count != 1 {
                wrong.push(format!("{}: `{}` is there {count} times", rule.path, rule.old.trim()));
            }
        }
        assert!(wrong.is_empty(), "{LIST} is out of date:\n{}", wrong.join("\n"));
        let shown: BTreeSet<String> = rules.into_iter().map(|rule| rule.scenario).collect();
        assert_eq!(scenarios(&root), shown, "scenarios, and those that {LIST} has a rule for");
    }

    fn scenarios(root: &Path) -> BTreeSet<String> {
        let testdata = root.join("crates/raft/testdata");
        let names = |folder: &str| {
            let files = fs::read_dir(testdata.join(folder)).unwrap();
            let paths = files.map(|file| file.unwrap().path());
            let scripts = paths.filter(|path| path.extension().is_some_and(|kind| kind == "txt"));
            let name = |path: std::path::PathBuf| {
                format!("{folder}{}", path.file_stem().unwrap().to_string_lossy())
            };
            scripts.map(name).collect::<Vec<_>>()
        };
        names("").into_iter().chain(names("tables/")).collect()
    }

    /// Blocks become rules; what is written on one line is found on two.
    #[test]
    fn a_rule_is_read_and_found() {
        let text = "## a\n\n`src/b.rs`:\n\n```diff\n-if x && y {\n+if x {\n```\n";
        let rules = parse(text);
        let (scenario, path) = ("a".to_owned(), "src/b.rs".to_owned());
        let (old, new) = ("if x && y {".to_owned(), "if x {".to_owned());
        assert_eq!(rules, [Rule { scenario, path, old, new }]);
        let source = "    if x\n        && y {\n    if xx && y {";
        let found: Vec<&str> =
            places(source, &rules[0].old).into_iter().map(|place| &source[place]).collect();
        assert_eq!(found, ["if x\n        && y {"]);
    }
}
