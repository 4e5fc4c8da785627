//! Small changes of the product's code, one at a time, in a scratch copy: simulation or scenarios
//! must notice each.
//!
//! Why: planted bugs are what somebody thought of. `cargo-mutants` knows how to change an
//! expression or empty a function; what it lists is a fair sample of what nobody thought of.
//!
//! Only its list is used. Its own runs build and test whole packages for each mutant; here the
//! judge is the program that `crates/hunt` builds in seconds, and scenarios: see [`judge`].
//!
//! Invariants:
//! - the tree itself is never touched;
//! - unit tests have no say;
//! - a mutant that does not compile counts for nothing; one that never ends, or wants all the
//!   memory, was noticed.

mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::json;

use crate::bugs::{drawn, start_of};
use crate::planted::Scratch;
use crate::run::{cargo, output};
use judge::{Judge, Outcome};

/// Whose code is changed.
const PACKAGES: [&str; 3] = ["kvraft-raft", "kvraft-replica", "kvraft-store"];

/// Of those that count, so many in a hundred must be noticed.
const NOTICED_PERCENT_MIN: usize = 95;

/// How to choose mutants and judge them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MutantOptions {
    /// How many are drawn.
    pub count: usize,
    /// Which part of them, and of how many parts.
    pub shard: (usize, usize),
    /// How many of the part were judged before and are left out.
    pub skip: usize,
    /// Seconds of simulation for each.
    pub seconds: u64,
    /// Threads of it.
    pub jobs: usize,
    /// The number that the sample and the seeds are made of. `None`: drawn.
    pub from: Option<u64>,
    /// Only mutants whose name contains one of these; all of them, not a sample.
    pub names: Vec<String>,
}

/// Judges a sample of mutants, prints what became of each, and writes them to
/// `target/mutants.jsonl`.
///
/// # Errors
/// When `cargo-mutants` is missing, the tree without a mutant fails, or too few were noticed.
pub fn mutants(root: &Path, options: &MutantOptions) -> Result<()> {
    let from = options.from.unwrap_or_else(drawn);
    let all = listed(root)?;
    let chosen = chosen(&all, options, from)?;
    println!("{} of {} mutants; to repeat: --from {from}", chosen.len(), all.len());
    let scratch = Scratch::new(root)?;
    scratch.restore()?;
    let (seconds, jobs) = (options.seconds, options.jobs);
    let judge = Judge { scratch: &scratch, from: start_of(from, 0), seconds, jobs };
    let folders: BTreeSet<&str> = chosen.iter().map(|mutant| mutant.folder()).collect();
    for folder in folders {
        let clean = judge.judge(folder)?;
        ensure!(clean == Outcome::Survived, "without a mutant of {folder}: {clean:?}");
    }
    let path = crate::run::target_folder(root)?.join("mutants.jsonl");
    let mut file = fs::OpenOptions::new().create(true).append(true).open(&path)?;
    let mut outcomes = Vec::new();
    for (number, mutant) in (1..).zip(&chosen) {
        let began = Instant::now();
        let outcome = scratch.restore().and_then(|()| mutant.plant(&scratch.tree()));
        let outcome = outcome.and_then(|()| judge.judge(&mutant.file));
        let outcome = outcome.with_context(|| mutant.name.clone())?;
        let seconds = began.elapsed().as_secs_f64();
        println!("{number}/{} {seconds:.0} s {}: {}", chosen.len(), outcome.shown(), mutant.name);
        let shown = outcome.shown();
        let line =
            json!({ "from": from, "name": mutant.name, "outcome": shown, "seconds": seconds });
        writeln!(file, "{line}")?;
        outcomes.push((*mutant, outcome));
    }
    scratch.restore()?;
    println!("\n{}", summary(&outcomes));
    println!("each is a line of {}", path.display());
    ensure!(is_enough(&outcomes), "fewer than {NOTICED_PERCENT_MIN} in a hundred were noticed");
    Ok(())
}

/// What `cargo mutants --list --json` says of one.
#[derive(Clone, Debug, Deserialize)]
struct Mutant {
    name: String,
    /// From the root of the tree.
    file: String,
    span: Span,
    replacement: String,
}

#[derive(Clone, Copy, Debug, Deserialize)]
struct Span {
    start: Place,
    end: Place,
}

/// A line and a column, both from 1; columns count characters.
#[derive(Clone, Copy, Debug, Deserialize)]
struct Place {
    line: usize,
    column: usize,
}

impl Mutant {
    /// The folder of its package.
    fn folder(&self) -> &str {
        self.file.find("src/").map_or("", |end| &self.file[..end])
    }

    /// Changes the file of the tree at `tree`.
    fn plant(&self, tree: &Path) -> Result<()> {
        let path = tree.join(&self.file);
        let text = fs::read_to_string(&path).with_context(|| self.file.clone())?;
        let start = offset(&text, self.span.start).context("the start is not in the file")?;
        let end = offset(&text, self.span.end).context("the end is not in the file")?;
        ensure!(start <= end, "the end comes before the start");
        Ok(fs::write(path, [&text[..start], &self.replacement, &text[end..]].concat())?)
    }
}

/// Where a place is in the text, in bytes.
fn offset(text: &str, place: Place) -> Option<usize> {
    let line = text.split_inclusive('\n').nth(place.line.checked_sub(1)?)?;
    let before = line.chars().take(place.column.checked_sub(1)?);
    let column: usize = before.map(char::len_utf8).sum();
    let above: usize = text.split_inclusive('\n').take(place.line - 1).map(str::len).sum();
    Some(above + column)
}

/// All mutants of the packages.
fn listed(root: &Path) -> Result<Vec<Mutant>> {
    let mut command = cargo(root);
    command.args(["mutants", "--list", "--json"]);
    for package in PACKAGES {
        command.args(["--package", package]);
    }
    let text = output(&mut command).context("install it: cargo install --locked cargo-mutants")?;
    serde_json::from_str(&text).context("reading what cargo-mutants lists")
}

/// The n-th number that SplitMix64 gives from a start: neighbours of the list must not be drawn
/// together, nor at equal distances.
fn scattered(from: u64, n: u64) -> u64 {
    let mixed = from.wrapping_add(n.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The sample: each mutant has a number made of `from` and its own, and the least numbers count.
fn chosen<'a>(all: &'a [Mutant], options: &MutantOptions, from: u64) -> Result<Vec<&'a Mutant>> {
    let is_named = |mutant: &Mutant| options.names.iter().any(|name| mutant.name.contains(name));
    let mut numbered: Vec<(u64, &Mutant)> = (1..).map(|n| scattered(from, n)).zip(all).collect();
    if options.names.is_empty() {
        numbered.sort_by_key(|(number, _)| *number);
        numbered.truncate(options.count);
    } else {
        numbered.retain(|(_, mutant)| is_named(mutant));
    }
    let (part, parts) = options.shard;
    ensure!(part < parts, "there is no part {part} of {parts}: the first is 0");
    let ours = numbered.into_iter().enumerate().filter(|(n, _)| n % parts == part);
    let ours = ours.map(|(_, (_, mutant))| mutant).skip(options.skip);
    let ours: Vec<&Mutant> = ours.collect();
    ensure!(!ours.is_empty(), "no mutant is called so, or all are left out");
    Ok(ours)
}

fn counted(outcomes: &[(&Mutant, Outcome)]) -> (usize, usize) {
    let counted = outcomes.iter().filter(|(_, outcome)| *outcome != Outcome::Unviable);
    let survived = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Survived).count();
    (counted.count(), survived)
}

fn is_enough(outcomes: &[(&Mutant, Outcome)]) -> bool {
    let (counted, survived) = counted(outcomes);
    0 < counted && counted * NOTICED_PERCENT_MIN <= (counted - survived) * 100
}

fn summary(outcomes: &[(&Mutant, Outcome)]) -> String {
    let mut kinds: BTreeMap<String, usize> = BTreeMap::new();
    for (_, outcome) in outcomes {
        *kinds.entry(outcome.kind()).or_default() += 1;
    }
    let (counted, survived) = counted(outcomes);
    let mut lines: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    lines.push(format!("{} of {counted} were noticed", counted - survived));
    let left = outcomes.iter().filter(|(_, outcome)| *outcome == Outcome::Survived);
    lines.extend(left.map(|(mutant, _)| format!("survived: {}", mutant.name)));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::{
        Mutant, MutantOptions, Outcome, Place, Span, chosen, is_enough, offset, scattered, summary,
    };

    fn mutant(name: &str) -> Mutant {
        let start = Place { line: 1, column: 1 };
        let span = Span { start, end: start };
        Mutant { name: name.into(), file: String::new(), span, replacement: String::new() }
    }

    #[test]
    fn places_count_characters() {
        let text = "a\n„é“ = 1\n";
        assert_eq!(offset(text, Place { line: 2, column: 5 }), Some(2 + 3 + 2 + 3 + 1));
        assert_eq!(offset(text, Place { line: 9, column: 1 }), None);
    }

    #[test]
    fn the_parts_of_a_sample_are_the_sample() {
        let all: Vec<_> = (0..50).map(|n| mutant(&format!("m{n}"))).collect();
        let draw = |shard| {
            let names = Vec::new();
            let options =
                MutantOptions { count: 20, shard, skip: 0, seconds: 1, jobs: 1, from: None, names };
            let chosen = chosen(&all, &options, 7).unwrap();
            chosen.into_iter().map(|mutant| mutant.name.clone()).collect::<Vec<_>>()
        };
        let whole = draw((0, 1));
        let mut parts = [draw((0, 2)), draw((1, 2))].concat();
        assert_eq!(whole.len(), 20);
        parts.sort();
        let mut sorted = whole;
        sorted.sort();
        assert_eq!(parts, sorted);
    }

    /// As the generator's author gives them for 1234567.
    #[test]
    fn samples_are_scattered() {
        let first = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973];
        assert_eq!([1, 2].map(|n| scattered(1_234_567, n)), first);
    }

    #[test]
    fn what_does_not_compile_does_not_count() {
        let mutant = mutant("m");
        let of = |survived: usize, noticed: usize| {
            let outcomes = [(Outcome::Survived, survived), (Outcome::Endless, noticed)];
            let all = outcomes.into_iter().chain([(Outcome::Unviable, 50)]);
            all.flat_map(|(outcome, count)| vec![(&mutant, outcome); count]).collect::<Vec<_>>()
        };
        assert!(is_enough(&of(5, 95)));
        assert!(!is_enough(&of(6, 94)));
        assert!(summary(&of(6, 94)).contains("94 of 100 were noticed\nsurvived: m"));
    }
}
