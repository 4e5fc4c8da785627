//! The scenarios of KVRaft (Go), as plans: each keeps every rule, and shows what its head says.
//!
//! A head says in remarks: `answered:` how many operations are answered, which must be all of them;
//! `shows:` what must happen at least once, by its name in a sweep's table; `leaders:` how many
//! elections are won, and `members:` how many servers there are in the end, if that matters.

use std::{fs, path::Path};

use kvraft_sim::{Report, Scenario, run_scenario};

/// What the head of a plan says after `key`.
fn head<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let remarks = text.lines().map_while(|line| line.strip_prefix('#'));
    let mut values = remarks.filter_map(|line| line.trim().strip_prefix(key)?.strip_prefix(':'));
    values.next().map(str::trim)
}

/// `3` is exactly three, `2..` at least two, `1..1` exactly one.
fn is_within(count: u64, range: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().expect("a number");
    match range.split_once("..") {
        None => count == number(range),
        Some((least, "")) => number(least) <= count,
        Some((least, most)) => (number(least)..=number(most)).contains(&count),
    }
}

fn judge(text: &str, report: &Report) -> Result<(), String> {
    if let Some(violation) = &report.violation {
        return Err(violation.to_string());
    }
    let rows = report.sometimes.rows();
    let count = |name: &str| {
        let row = rows.iter().find(|(known, _)| *known == name);
        row.map(|(_, count)| *count).ok_or_else(|| format!("nothing is called {name:?}"))
    };
    let answered = head(text, "answered").ok_or("its head lacks answered:")?;
    let open = report.operation_count - count("operation answered")?;
    if open != 0 || !is_within(count("operation answered")?, answered) {
        return Err(format!("{} answered, {open} not", count("operation answered")?));
    }
    for name in head(text, "shows").ok_or("its head lacks shows:")?.split(", ") {
        if count(name)? == 0 {
            return Err(format!("{name}: never"));
        }
    }
    let members = u64::try_from(report.members.ids().len()).expect("few servers");
    let counts = [("leaders", count("leader elected")?), ("members", members)];
    for (key, found) in counts {
        if let Some(range) = head(text, key)
            && !is_within(found, range)
        {
            return Err(format!("{key}: {found}"));
        }
    }
    Ok(())
}

/// Every plan in the folder shows what it says.
#[test]
fn scenarios_of_the_older_system() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../testdata/scenarios");
    let files = fs::read_dir(&folder).expect("the folder is there");
    let mut paths: Vec<_> = files.map(|file| file.expect("it can be read").path()).collect();
    paths.sort();
    assert!(9 <= paths.len(), "the folder holds plans");
    let mut failed = Vec::new();
    for path in paths {
        let text = fs::read_to_string(&path).expect("it can be read");
        let name = path.file_name().expect("a file").to_string_lossy().into_owned();
        let scenario: Scenario = text.parse().unwrap_or_else(|error| panic!("{name}: {error}"));
        if let Err(why) = judge(&text, &run_scenario(scenario, &|| true)) {
            failed.push(format!("{name}: {why}"));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}
