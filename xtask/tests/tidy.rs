//! The workspace keeps its own rules.

#[test]
fn workspace_is_tidy() {
    let report = xtask::tidy::check(&xtask::workspace_root()).expect("the tree can be read");
    let errors: Vec<String> = report.errors.iter().map(ToString::to_string).collect();
    assert!(errors.is_empty(), "{}", errors.join("\n"));
}
