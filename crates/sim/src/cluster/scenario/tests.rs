//! Tests of scenarios: text both ways, replay, and what is refused.

use std::time::Duration;

use proptest::prelude::*;

use super::Scenario;
use crate::{
    Check, Choices, ClusterConfig,
    cluster::{run, run_scenario},
};

/// A run written down and read again is the same run, to the last event.
#[test]
fn a_written_run_replays() {
    for seed in 0..6 {
        let choices = Choices { ops_max: 20, ..Choices::default() };
        let first = run(seed, choices);
        let read: Scenario = first.scenario.to_string().parse().unwrap();
        let second = run_scenario(read, &|| true);
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.event_count, second.event_count, "seed {seed}");
    }
}

/// The seed decides what the lines leave open.
#[test]
fn the_seed_has_its_say() {
    let scenario: Scenario = "seed 1\nclient 1 home 1\nclient 1 after 1s put k v".parse().unwrap();
    let other = Scenario { seed: 2, ..scenario.clone() };
    let (first, second) = (run_scenario(scenario, &|| true), run_scenario(other, &|| true));
    assert_eq!((first.violation, second.violation), (None, None));
    assert_ne!(first.trace_hash, second.trace_hash);
}

/// Who wants a longer run gets more of the same: everything else is as it was drawn.
#[test]
fn a_first_phase_of_ones_own_changes_nothing_else() {
    let drawn = Scenario::draw(3, Choices::default());
    let first_phase = Some(Duration::from_secs(30));
    let longer = Scenario::draw(3, Choices { first_phase, ..Choices::default() });
    assert_eq!(longer.config.faults_until, Duration::from_secs(30));
    let drawn_config = ClusterConfig { faults_until: Duration::from_secs(30), ..drawn.config };
    assert_eq!(longer.config, drawn_config);
    assert_eq!(longer.plan.clients(), drawn.plan.clients());
    assert!(drawn.plan.faults().len() < longer.plan.faults().len());
}

/// What no line says is plain; what is plain is not said.
#[test]
fn plain_settings_are_not_said() {
    let empty: Scenario = "".parse().unwrap();
    assert_eq!(empty.config, ClusterConfig::plain());
    assert_eq!(empty.to_string(), "seed 0\n");
    let text = "check linearizable\nseed 7\nset servers 5\nset first-phase 2.500s\n";
    let scenario: Scenario = text.parse().unwrap();
    assert_eq!(scenario.check, Some(Check::Linearizable));
    assert_eq!(scenario.to_string(), text);
}

/// What is wrong is said, with the line and the word.
#[test]
fn errors_name_line_and_word() {
    let error = |text: &str| text.parse::<Scenario>().unwrap_err().to_string();
    assert_eq!(error("seed x"), "line 1: not a seed: x: seed x");
    assert_eq!(error("\ncheck x"), "line 2: no such check: x: check x");
    assert_eq!(error("set servers 9"), "line 1: servers must be 1 to 7, not 9: set servers 9");
    assert!(error("set cake 9").starts_with("line 1: no such setting: cake; there are servers,"));
    assert_eq!(
        error("client 1 home 2\nclient 2 home 4"),
        "line 2: client 2: server 4 is not there in the beginning: client 2 home 4"
    );
    assert_eq!(
        error("at 1s heal\nset first-phase 0.500s"),
        "line 1: the first phase ends at 0.500s, and nothing goes wrong from then on: \
         at 1.000s heal: at 1s heal"
    );
    assert!(error("seed 1\nset heartbeat 0.200s").starts_with("line 2: "));
    assert!(error("set lease-drift 999999").starts_with("line 1: "));
    for wrong in ["set servers", "seed", "seed 1 2", "check", "set leave-broken maybe", "clients"] {
        assert!(wrong.parse::<Scenario>().is_err(), "{wrong}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any drawn scenario reads back from its text and can be run.
    #[test]
    fn drawn_scenarios_round_trip(seed: u64) {
        let scenario = Scenario::draw(seed, Choices::default());
        prop_assert_eq!(scenario.validate(), Ok(()));
        let read: Scenario = scenario.to_string().parse().unwrap();
        prop_assert_eq!(read, scenario);
    }

    /// No value of a setting makes the reader panic, and what it takes can be run.
    #[test]
    fn any_setting_is_taken_or_refused(which in 0..64_usize, word in "[0-9]{0,20}|[0-9]{1,4}s|yes|no|none") {
        let names = super::super::settings::SETTINGS;
        let text = format!("set {} {word}", names[which % names.len()]);
        if let Ok(scenario) = text.parse::<Scenario>() {
            prop_assert_eq!(scenario.validate(), Ok(()));
        }
    }
}
