//! Rules on documents: one title each, goldens that say what they show, decisions that are listed.

use super::{Finding, Tree, TreeFile};

const DECISIONS: &str = "docs/decisions/";

/// A markdown document has exactly one title.
pub(super) fn one_title(file: &TreeFile) -> Option<Finding> {
    let titles: Vec<usize> = prose(&file.text)
        .filter(|(_, line)| line.starts_with("# "))
        .map(|(number, _)| number)
        .collect();
    match titles.as_slice() {
        [_] => None,
        [] => Some(Finding::new(&file.path, 0, "a document begins with one `# title`")),
        [_, second, ..] => Some(Finding::new(&file.path, *second, "a second title: use `##`")),
    }
}

/// Lines, with numbers, outside fenced blocks.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut fenced = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    })
}

/// A golden script says in its first line what the reader will learn.
pub(super) fn golden_begins_with_sentence(file: &TreeFile) -> Option<Finding> {
    let golden = file.path.split('/').any(|part| part == "testdata") && file.path.ends_with(".txt");
    if !golden {
        return None;
    }
    let first = file.text.lines().next().unwrap_or_default();
    let sentence = first.strip_prefix('#').is_some_and(|rest| rest.trim().contains(' '));
    (!sentence).then(|| Finding::new(&file.path, 1, "begin with a `#` sentence on what this shows"))
}

/// Every decision record stands in the index, and the index names none that is not there.
pub(super) fn decisions_are_listed(tree: &Tree) -> Vec<Finding> {
    let records: Vec<&str> = tree
        .files
        .iter()
        .filter_map(|file| file.path.strip_prefix(DECISIONS))
        .filter(|name| name.ends_with(".md") && *name != "README.md")
        .collect();
    if records.is_empty() {
        return Vec::new();
    }
    let index_path = format!("{DECISIONS}README.md");
    let index = tree.file(&index_path).map_or("", |file| file.text.as_str());
    records
        .iter()
        .filter(|name| !index.contains(&format!("({name})")))
        .map(|name| Finding::new(&index_path, 0, format!("{name} is not listed here")))
        .collect()
}
