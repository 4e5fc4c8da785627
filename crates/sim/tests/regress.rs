//! Plans of bugs that were really found: each must run clean for ever.
//!
//! The head of each plan says in remarks what it is: `found:` the bug, `check:` the check that
//! found it, `fails before:` the commit that mended it, or what of it has to be undone.

use std::{fs, path::Path};

use kvraft_sim::{Check, Scenario, run_scenario};

/// What every head must say.
const KEYS: [&str; 3] = ["found", "check", "fails before"];

/// What the head of a plan says after `key`.
fn head<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let remarks = text.lines().map_while(|line| line.strip_prefix('#'));
    let mut values = remarks.filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
    values.next().map(str::trim).filter(|value| !value.is_empty())
}

/// What is wrong with a plan of a bug, in words.
fn fault_of(text: &str) -> Result<(), String> {
    if let Some(key) = KEYS.iter().find(|key| head(text, key).is_none()) {
        return Err(format!("its head lacks a line '# {key}: …'"));
    }
    let scenario: Scenario = text.parse().map_err(|error| format!("{error}"))?;
    let check: Check = head(text, "check").unwrap_or_default().parse()?;
    if scenario.check != Some(check) {
        return Err(format!("its head says {check}, and its plan does not"));
    }
    match run_scenario(scenario, &|| true).violation {
        None => Ok(()),
        Some(violation) => Err(violation.to_string()),
    }
}

/// Every plan in the folder runs clean.
#[test]
fn bugs_that_were_found_stay_mended() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/regress");
    let files = fs::read_dir(&folder).expect("the folder is there");
    let mut paths: Vec<_> = files.map(|file| file.expect("it can be read").path()).collect();
    paths.sort();
    assert!(!paths.is_empty(), "the folder holds plans");
    for path in paths {
        let name = path.display();
        assert_eq!(path.extension().and_then(|it| it.to_str()), Some("plan"), "{name}");
        let text = fs::read_to_string(&path).expect("it can be read");
        assert_eq!(fault_of(&text), Ok(()), "{name}");
    }
}

/// A plan whose head says too little is refused.
#[test]
fn a_head_without_its_story_fails() {
    let plan = "check convergence\nseed 1\nset first-phase 0.100s\n";
    let whole = format!("# found: x\n# check: convergence\n# fails before: y\n{plan}");
    assert_eq!(fault_of(&whole), Ok(()));
    for key in KEYS {
        let without = whole.replace(&format!("# {key}:"), "# nothing:");
        assert!(fault_of(&without).is_err_and(|error| error.contains(key)), "{key}");
    }
    assert!(fault_of(&whole.replace("check: convergence", "check: progress")).is_err());
}
