//! Clusters whose members change while clients use them.

use std::time::Duration;

use kvraft_sim::{
    Choices, ClusterConfig, FaultChoice, NetworkConfig, Plan, Profile, Scenario, Sometimes, run,
    run_scenario,
};

/// Three servers become five and then three others, under load and with a loss of power in every
/// step. Nothing is lost, and the change goes through.
#[test]
fn cluster_moves_to_other_servers() {
    let plan: Plan = include_str!("../testdata/grow-and-shrink.plan").parse().unwrap();
    for seed in 0..30 {
        let faults = FaultChoice { profile: Profile::Quiet, ..FaultChoice::default() };
        let choices = Choices { servers: Some(3), ops_max: 400, faults, ..Choices::default() };
        let mut scenario = Scenario::draw(seed, choices);
        scenario.config = ClusterConfig {
            network: NetworkConfig::CALM,
            election_timeout: Duration::from_millis(400),
            heartbeat_interval: Duration::from_millis(40),
            faults_until: Duration::from_secs(20),
            operators: 1,
            trace_line_count: 40,
            ..scenario.config
        };
        scenario.plan = scenario.plan.with_faults(plan.faults().to_vec());
        let report = run_scenario(scenario, &|| true);
        report.assert_clean();
        let members = &report.members;
        assert_eq!(members.voters().len(), 3, "seed {seed}: {members}");
        assert!(members.voters().iter().all(|id| 3 < id.0), "seed {seed}: {members}");
    }
}

/// Whatever can happen to members happens, and every rule holds.
#[test]
fn everything_about_members_happens() {
    let mut seen = Sometimes::default();
    for seed in 0..60 {
        let faults = FaultChoice { profile: Profile::Membership, ..FaultChoice::default() };
        let report = run(seed, Choices { faults, trace_line_count: 40, ..Choices::default() });
        report.assert_clean();
        seen += report.sometimes;
    }
    let happened = [
        ("members changed", seen.members_changed),
        ("joint configuration", seen.joint_entered),
        ("learner promoted", seen.learner_promoted),
        ("leader removed", seen.leader_removed),
        ("removed server ended", seen.removed_stopped),
        ("removed server disturbed", seen.removed_disturbed),
        ("disk lost for ever", seen.disks_lost),
        ("change done", seen.change_done),
        ("change refused", seen.change_refused),
        ("change unknown", seen.change_unknown),
        ("transfer done", seen.transfer_done),
        ("transfer failed", seen.transfer_failed),
        ("stop of a leader", seen.stops_of_leaders),
        ("read by lease", seen.lease_reads),
    ];
    for (name, count) in happened {
        assert!(0 < count, "never: {name}");
    }
}
