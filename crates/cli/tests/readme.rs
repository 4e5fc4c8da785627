//! The README's commands exist, and its sample of a simulation is what the simulator prints.
//!
//! Why: a sample is believed by those who read it first, and goes stale without a sound.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::{
    path::Path,
    process::{Command, Output, Stdio},
};

const KVRAFT: &str = env!("CARGO_BIN_EXE_kvraft");

fn readme() -> String {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    std::fs::read_to_string(root.join("README.md")).unwrap()
}

fn run(arguments: &[&str]) -> Output {
    Command::new(KVRAFT).args(arguments).stdin(Stdio::null()).output().unwrap()
}

/// The lines after `prompt`, up to the end of its block or the next prompt.
fn sample<'a>(readme: &'a str, prompt: &str) -> Vec<&'a str> {
    let after = readme.lines().skip_while(|line| *line != prompt).skip(1);
    after.take_while(|line| *line != "```" && !line.starts_with("$ ")).collect()
}

/// The time that the machine took is nobody's promise.
fn without_duration(line: &str) -> &str {
    line.rsplit_once(" (").filter(|(_, end)| end.ends_with(" s)")).map_or(line, |(start, _)| start)
}

#[test]
fn the_sample_of_a_simulation_is_what_is_printed() {
    let readme = readme();
    let shown = sample(&readme, "$ kvraft sim -n 5 --seed 42");
    assert!(!shown.is_empty(), "the sample is there");
    let output = run(&["sim", "-n", "5", "--seed", "42"]);
    assert!(output.status.success());
    let printed = String::from_utf8(output.stdout).unwrap();
    let printed: Vec<&str> = printed.lines().map(without_duration).collect();
    let shown: Vec<&str> = shown.into_iter().map(without_duration).collect();
    assert_eq!(printed, shown, "copy the new sample into README.md");
}

#[test]
fn every_command_that_is_named_exists() {
    let readme = readme();
    let named = readme.split("kvraft ").skip(1).filter_map(|after| after.split_whitespace().next());
    let named = named.map(|word| word.trim_matches(|c: char| !c.is_ascii_alphanumeric()));
    let mut asked = 0;
    for command in named {
        // `put|range|mixed` and words of a sentence are no commands.
        let Some(first) = command.split('|').next().filter(|word| is_command(&readme, word)) else {
            continue;
        };
        asked += 1;
        let output = run(&["help", first]);
        assert!(output.status.success(), "README.md names `kvraft {first}`, which is no command");
    }
    assert!(10 < asked, "the README was understood: {asked} commands");
}

/// Whether a word stands behind the program's name in code.
fn is_command(readme: &str, word: &str) -> bool {
    !word.is_empty()
        && word.chars().all(|c| c.is_ascii_lowercase() || c == '-')
        && [format!("`kvraft {word}"), format!("$ kvraft {word}"), format!("  kvraft {word}")]
            .iter()
            .any(|code| readme.contains(code))
}
