//! Each rule, with an example that fails it and one that does not.

use super::arrows::{self, Graph};
use super::{Report, Tree, TreeFile, check_tree};

fn tree(files: &[(&str, &str)]) -> Tree {
    let file = |(path, text): &(&str, &str)| TreeFile {
        path: (*path).to_owned(),
        text: (*text).to_owned(),
    };
    Tree { files: files.iter().map(file).collect() }
}

/// Findings in `text` as the root of the crate `name`.
fn in_crate(name: &str, text: &str) -> Vec<String> {
    let manifest = format!("crates/{name}/Cargo.toml");
    let path = format!("crates/{name}/src/lib.rs");
    errors(&check_tree(&tree(&[(&manifest, ""), (&path, text)])))
}

fn errors(report: &Report) -> Vec<String> {
    report.errors.iter().map(ToString::to_string).collect()
}

fn errors_of(files: &[(&str, &str)]) -> Vec<String> {
    errors(&check_tree(&tree(files)))
}

#[track_caller]
fn finds(findings: &[String], needle: &str) {
    assert_eq!(findings.len(), 1, "one finding was expected: {findings:?}");
    assert!(findings[0].contains(needle), "{needle} was expected: {findings:?}");
}

#[test]
fn core_may_not_touch_the_world() {
    finds(&in_crate("raft", "use std::fs::File;\n"), "lib.rs:1: std::fs in a core");
    finds(&in_crate("store", "\nfn f() { std::net::lookup() }\n"), "lib.rs:2: std::net");
    finds(&in_crate("kv", "use std::{fmt, thread};\n"), "std::thread");
    finds(&in_crate("sim", "use std::{\n  fmt,\n  env::var,\n};\n"), "std::env");
    finds(&in_crate("base", "use std::time::{Duration, Instant};\n"), "std::time::Instant");
    finds(&in_crate("session", "use std::{time::{Duration, Instant}, fmt};"), "std::time::Instant");
    finds(&in_crate("replica", "fn f(m: HashMap<u8, u8>) {}\n"), "BTreeMap");
    finds(&in_crate("replica", "fn f(m: HashSet<u8>) {}\n"), "BTreeSet");
    assert_eq!(in_crate("raft", "fn now() -> SystemTime {}\n").len(), 1);
}

#[test]
fn core_may_speak_of_the_world_in_sentences() {
    let text = "//! No std::fs, no HashMap.\nuse std::time::Duration;\n\
                const WHY: &str = r#\"std::net \"f64\" \"#; /* /* SystemTime */ std::thread */\n\
                fn f<'a>(quote: &'a char) -> bool { *quote == '\"' || *quote == '\\'' }\n";
    assert_eq!(in_crate("raft", text), Vec::<String>::new());
    assert_eq!(in_crate("server", "use std::{fs, net, thread};\n"), Vec::<String>::new());
}

#[test]
fn floats_are_for_the_edge() {
    finds(&in_crate("raft", "fn f(x: f64) {}\n"), "f64");
    finds(&in_crate("kv", "const X: u8 = 1.0_f32 as u8;\n"), "f32");
    assert_eq!(in_crate("sim", "fn f(x: f64) {}\n"), Vec::<String>::new());
    assert_eq!(in_crate("kv", "fn buf64() {}\n"), Vec::<String>::new());
}

#[test]
fn unfinished_code_is_not_kept() {
    finds(&in_crate("cli", "#[test]\n#[ignore]\nfn f() {}\n"), "lib.rs:2: a test that is ignored");
    finds(&in_crate("cli", "#[ignore = \"slow\"]\nfn f() {}\n"), "ignored");
    finds(&in_crate("cli", "fn f() { todo!() }\n"), "finish it");
    finds(&in_crate("cli", "fn f() { unimplemented!(\"x\") }\n"), "finish it");
    finds(&in_crate("cli", &format!("// {}: x\n", concat!("FIX", "ME"))), "mend it");
    finds(&in_crate("cli", "#![allow(dead_code)]\n"), "expect");
    finds(&in_crate("cli", "#[allow(dead_code)]\nfn f() {}\n"), "expect");
    let fine = "#[expect(dead_code, reason = \"shown\")]\nfn todo() { ignore(\"todo!\") }\n";
    assert_eq!(in_crate("cli", fine), Vec::<String>::new());
}

#[test]
fn lines_have_a_hundred_columns() {
    finds(&in_crate("cli", &format!("// {}\n", "é".repeat(98))), "101 columns");
    assert_eq!(in_crate("cli", &format!("// {}\n", "é".repeat(97))), Vec::<String>::new());
}

#[test]
fn long_files_are_worth_a_look() {
    let text = "//! x\n".repeat(801);
    let report = check_tree(&tree(&[("xtask/Cargo.toml", ""), ("xtask/src/lib.rs", &text)]));
    assert_eq!(report.warnings.len(), 1);
    assert!(report.errors.is_empty(), "{:?}", report.errors);
}

#[test]
fn every_file_is_reached() {
    let files = [
        ("crates/kv/Cargo.toml", ""),
        ("crates/kv/src/lib.rs", "mod a;\nmod b { mod c; }\n#[path = \"odd.rs\"]\nmod tests;\n"),
        ("crates/kv/src/a.rs", "mod deep;\n// mod lost;\n"),
        ("crates/kv/src/a/deep.rs", ""),
        ("crates/kv/src/b/c/mod.rs", ""),
        ("crates/kv/src/odd.rs", ""),
        ("crates/kv/src/lost.rs", ""),
        ("crates/kv/tests/all.rs", "mod part;\n"),
        ("crates/kv/tests/part/mod.rs", ""),
    ];
    finds(&errors_of(&files), "crates/kv/src/lost.rs: no `mod` reaches");
}

#[test]
fn document_has_one_title() {
    finds(&errors_of(&[("docs/a.md", "text\n")]), "begins with one");
    finds(&errors_of(&[("docs/a.md", "# A\n\n# B\n")]), "docs/a.md:3: a second title");
    assert_eq!(errors_of(&[("a.md", "# A\n```sh\n# b\n```\n## C\n")]), Vec::<String>::new());
}

#[test]
fn golden_says_what_it_shows() {
    let path = "crates/raft/src/testdata/vote/once.txt";
    finds(&errors_of(&[(path, "nodes 3\n")]), "begin with a `#` sentence");
    assert_eq!(errors_of(&[(path, "# A vote is given once.\n")]), Vec::<String>::new());
}

#[test]
fn decision_stands_in_the_index() {
    let record = ("docs/decisions/0001-x.md", "# X\n");
    finds(&errors_of(&[record]), "0001-x.md is not listed");
    let index = ("docs/decisions/README.md", "# Decisions\n- [X](0001-x.md)\n");
    assert_eq!(errors_of(&[record, index]), Vec::<String>::new());
}

#[test]
fn text_speaks_of_the_project_alone() {
    for word in [concat!("/wo", "rk/x"), concat!("..", "/shared"), concat!("py", "pi.org")] {
        finds(&errors_of(&[("a.txt", word)]), "a.txt:1");
    }
    let lock = "source = \"sparse+https://example.org/\"\n";
    finds(&errors_of(&[("Cargo.lock", lock)]), "public registry");
}

/// Every crate with arrows of its own, each knowing base only.
fn graph() -> Graph {
    let mut graph = Graph::new();
    for name in super::source::CORES.into_iter().chain(["raft-model", "hunt"]) {
        graph.insert(format!("kvraft-{name}"), ["bytes".to_owned()].into());
    }
    graph
}

fn with(mut graph: Graph, from: &str, to: &str) -> Vec<String> {
    graph.entry(from.to_owned()).or_default().insert(to.to_owned());
    arrows::check(&graph).iter().map(ToString::to_string).collect()
}

#[test]
fn siblings_never_meet() {
    let siblings = ["raft", "kv", "store"];
    for from in siblings {
        for to in siblings.into_iter().filter(|to| *to != from) {
            let findings = with(graph(), &format!("kvraft-{from}"), &format!("kvraft-{to}"));
            finds(&findings, &format!("{from} must not know {to}"));
        }
    }
    assert_eq!(with(graph(), "kvraft-replica", "kvraft-raft"), Vec::<String>::new());
}

#[test]
fn cores_stay_off_the_edge_through_others_too() {
    let mut far = graph();
    far.insert("bytes".to_owned(), ["serde".to_owned()].into());
    let findings = with(far, "serde", "tokio");
    assert_eq!(findings.len(), super::source::CORES.len(), "each core reaches tokio: {findings:?}");
    assert!(findings[0].contains("must not reach tokio, but does through serde"));
}

#[test]
fn missing_core_is_noticed() {
    let mut graph = graph();
    graph.remove("kvraft-raft");
    finds(&with(graph, "kvraft-kv", "bytes"), "kvraft-raft is missing");
}
