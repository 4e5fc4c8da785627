//! Finds Rust files that no `mod` reaches: they look alive and are never compiled.

use std::collections::BTreeSet;

use super::lexer::{Views, views, words};
use super::{Finding, Tree, TreeFile};

/// Every Rust file in a package that is not reached from one of its roots.
pub(super) fn unreached(tree: &Tree) -> Vec<Finding> {
    let rust: Vec<&TreeFile> = tree.files.iter().filter(|file| file.is_rust()).collect();
    let mut reached: BTreeSet<String> = BTreeSet::new();
    let mut pending: Vec<&TreeFile> =
        rust.iter().copied().filter(|file| is_root(tree, &file.path)).collect();
    while let Some(file) = pending.pop() {
        if !reached.insert(file.path.clone()) {
            continue;
        }
        for candidate in children(tree, file) {
            pending.extend(tree.file(&candidate));
        }
    }
    rust.iter()
        .filter(|file| !reached.contains(&file.path))
        .map(|file| Finding::new(&file.path, 0, "no `mod` reaches this file: it is not compiled"))
        .collect()
}

/// Whether cargo compiles `path` by itself.
fn is_root(tree: &Tree, path: &str) -> bool {
    let Some((folder, name)) = path.rsplit_once('/') else { return true };
    let is_package = |folder: &str| tree.file(&format!("{folder}/Cargo.toml")).is_some();
    if name == "build.rs" {
        return is_package(folder);
    }
    let Some((package, kind)) = folder.rsplit_once('/') else { return false };
    match kind {
        "src" => is_package(package) && (name == "lib.rs" || name == "main.rs"),
        "tests" | "benches" | "examples" | "fuzz_targets" => is_package(package),
        "bin" => package.strip_suffix("/src").is_some_and(is_package),
        folder_name => {
            // tests/NAME/main.rs and src/bin/NAME/main.rs are roots, too.
            let outer = package.rsplit_once('/').map_or(package, |(_, last)| last);
            name == "main.rs" && !folder_name.is_empty() && matches!(outer, "tests" | "bin")
        }
    }
}

/// The paths at which the modules that `file` declares may lie.
fn children(tree: &Tree, file: &TreeFile) -> Vec<String> {
    let views = views(&file.text);
    let (folder, name) = file.path.rsplit_once('/').unwrap_or(("", &file.path));
    let stem = name.strip_suffix(".rs").unwrap_or(name);
    let owns_folder = matches!(stem, "lib" | "main" | "mod" | "build") || is_root(tree, &file.path);
    let base = if owns_folder { folder.to_owned() } else { format!("{folder}/{stem}") };
    let mut paths = Vec::new();
    for (offset, module) in declared(&views) {
        let inner = enclosing(&views, offset);
        let base = inner.iter().fold(base.clone(), |base, module| format!("{base}/{module}"));
        match explicit_path(&file.text, &views, offset) {
            Some(path) if inner.is_empty() => paths.push(normal(&format!("{folder}/{path}"))),
            Some(path) => paths.push(normal(&format!("{base}/{path}"))),
            None => {
                paths.push(format!("{base}/{module}.rs"));
                paths.push(format!("{base}/{module}/mod.rs"));
            }
        }
    }
    paths
}

/// Offset and name of each `mod name;`.
fn declared(views: &Views) -> Vec<(usize, String)> {
    named(views, ';')
}

fn named(views: &Views, end: char) -> Vec<(usize, String)> {
    words(&views.code, "mod")
        .into_iter()
        .filter_map(|offset| {
            let rest = views.code[offset + 3..].trim_start();
            let size = rest.find(|c: char| !c.is_alphanumeric() && c != '_')?;
            let name = rest[..size].to_owned();
            rest[size..].trim_start().starts_with(end).then_some((offset, name))
        })
        .collect()
}

/// The inline modules, outermost first, whose braces enclose `offset`.
fn enclosing(views: &Views, offset: usize) -> Vec<String> {
    let mut inline = named(views, '{');
    inline.retain(|(start, _)| *start < offset && encloses(&views.code, *start, offset));
    inline.into_iter().map(|(_, name)| name).collect()
}

fn encloses(code: &str, start: usize, offset: usize) -> bool {
    let mut depth = 0_i64;
    for (at, c) in code[start..offset].char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        if c == '}' && depth == 0 && at > 0 {
            return false;
        }
    }
    depth > 0
}

/// What `#[path = ".."]` before the declaration at `offset` says.
fn explicit_path(text: &str, views: &Views, offset: usize) -> Option<String> {
    let start = views.code[..offset].rfind([';', '{', '}']).map_or(0, |at| at + 1);
    let attribute = views.code[start..offset].find("path")? + start;
    let quoted = text[attribute..offset].split_once('"')?.1;
    Some(quoted.split_once('"')?.0.to_owned())
}

/// `a/b/../c` as `a/c`.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "." | "" => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}
