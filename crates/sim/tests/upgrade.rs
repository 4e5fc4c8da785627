//! Servers of two builds in one cluster: the cluster version is raised when all know it, and never
//! before; who comes too late with the old build is turned away, and loses nothing.

use kvraft_sim::{
    Choices, FaultChoice, FaultKind, FaultKinds, Profile, Report, Scenario, Sometimes, run,
    run_scenario,
};

const CLIENTS: &str = "\
client 1 home 1 session 2.000s
client 1 after 0.500s put k0 c1v1
client 1 after 1.000s put k0 c1v2
client 1 after 2.000s put k1 c1v3
client 1 after 2.000s get k0..k9
client 2 home 3
client 2 after 0.900s put k2 c2v1
client 2 after 1.900s put k2 c2v2
client 2 after 1.900s get k0..k9
";

/// Runs a plan and demands that no rule is broken.
fn clean(settings: &str, faults: &str) -> Report {
    let text = format!("seed 7\n{settings}{CLIENTS}{faults}");
    let mut scenario: Scenario = text.parse().expect("the plan can be read");
    scenario.config.trace_line_count = 60;
    let report = run_scenario(scenario, &|| true);
    report.assert_clean();
    assert!(0 < report.sometimes.answered, "clients are served");
    report
}

/// One server after the other gets the new build. In between both builds serve together, and the
/// first one goes back and forth once more, which is allowed as long as nothing was raised.
#[test]
fn cluster_is_raised_when_the_last_server_has_the_new_build() {
    let faults = "\
at 1.000s install 1 new
at 1.200s restart 1
at 2.000s install 2 new
at 2.200s restart 2
at 2.500s install 1 old
at 2.700s restart 1
at 3.200s install 1 new
at 3.400s restart 1
at 5.000s install 3 new
at 5.200s restart 3
";
    let seen = clean("set old-servers 3\n", faults).sometimes;
    assert_eq!((seen.upgrades, seen.downgrades, seen.builds_refused), (4, 1, 0));
    assert_eq!((seen.versions_raised, seen.raised_by_upgrade), (1, 1));
}

/// As long as one member has the old build, a learner will do, everything stays as it is, and the
/// new one can be taken back.
#[test]
fn one_old_member_holds_the_version() {
    let faults = "\
at 0.500s change add-learner
at 2.000s install 1 old
at 2.200s restart 1
at 4.000s install 2 old
at 4.200s restart 2
";
    let seen = clean("set old-newcomers yes\nset old-servers 1\n", faults).sometimes;
    assert_eq!((seen.downgrades, seen.builds_refused, seen.versions_raised), (1, 0, 0));
}

/// After the cluster was raised the old build is turned away, at a start and as a new server, and
/// the new one goes on with what is there.
#[test]
fn old_build_is_turned_away_from_a_raised_cluster() {
    let faults = "\
at 3.000s install 2 old
at 3.200s restart 2
at 4.000s change add-voter
";
    let report = clean("set old-newcomers yes\n", faults);
    let seen = report.sometimes;
    assert_eq!((seen.versions_raised, seen.downgrades), (1, 1));
    assert!(2 <= seen.builds_refused, "the downgraded one and the newcomer: {seen:?}");
    assert_eq!(report.members.voters().len(), 4, "with the new build it is one of them");
}

/// The same where the newcomer gets a snapshot.
#[test]
fn snapshot_of_a_raised_cluster_is_refused_before_it_replaces_anything() {
    let settings = "\
set old-newcomers yes
set retain-entries 0
set checkpoint-interval 0.020s
set checkpoint-bytes 256
set segment-bytes 4096
";
    let seen = clean(settings, "at 4.500s change add-voter\n").sometimes;
    assert_eq!((seen.versions_raised, seen.builds_refused), (1, 1));
    assert!(0 < seen.snapshot_needed && 0 < seen.snapshot_installed, "{seen:?}");
}

/// With every other fault in between, whatever can happen does, and every rule holds.
#[test]
fn everything_about_builds_happens() {
    let mut seen = Sometimes::default();
    let on: FaultKinds = [FaultKind::Upgrade].into_iter().collect();
    for seed in 0..60 {
        let profile = if seed % 2 == 0 { Profile::Membership } else { Profile::Everything };
        let faults = FaultChoice { profile, on, ..FaultChoice::default() };
        let report = run(seed, Choices { faults, trace_line_count: 40, ..Choices::default() });
        report.assert_clean();
        seen += report.sometimes;
    }
    let happened = [
        ("raised", seen.versions_raised),
        ("raised by an upgrade", seen.raised_by_upgrade),
        ("upgraded", seen.upgrades),
        ("downgraded", seen.downgrades),
        ("turned away", seen.builds_refused),
    ];
    for (name, count) in happened {
        assert!(0 < count, "never: {name}");
    }
}
