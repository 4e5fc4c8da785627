//! Tests of plans: text both ways, drawing, shrinking.

use kvraft_base::{Instant, Prng};
use proptest::prelude::*;

use super::{Fault, FaultChoice, FaultKind, FaultKinds, Plan, Profile, RunConfig, Target};

const EVERYTHING: &str = "\
at 0.000s crash 3
at 1.250s kill leader
at 1.250s fuse 2 17
at 1.250001s restart all
at 1.250000001s pause 1
at 2.000s resume 1
at 2.000s disconnect leader
at 2.500s reconnect all
at 3.000s partition isolate 1
at 3.100s partition deaf 2
at 3.200s partition mute 3
at 3.300s partition split 1,2
at 3.400s partition oneway 3
at 3.500s partition ring
at 3.600s partition bridge 2
at 4.000s block s1 s2
at 4.000s unblock s1 c2
at 4.000s clog s2 s1 0.350s
at 5.000s heal
at 5.000s suspend all
at 5.000s jump leader -7200000
at 5.000s drift 2 250000
at 5.000s slow 1 50
at 5.000s stall 1 2.500s
at 5.000s sync-error leader 3
at 5.000s write-error 3 30
at 5.000s full 2 0
at 5.000s space all
at 6.000s change add-voter
at 6.000s change add-learner,add-learner+,remove:leader,promote:4,demote:nth-17
at 6.000s transfer any
at 6.000s transfer nth-3
at 6.000s replace 2
at 6.000s stop leader
";

/// Every fault reads back as it prints. Lines are sorted by time; the order of equals stays.
#[test]
fn every_fault_round_trips() {
    let plan: Plan = EVERYTHING.parse().unwrap();
    assert_eq!(plan.len(), EVERYTHING.lines().count());
    let mut sorted: Vec<&str> = EVERYTHING.lines().collect();
    sorted.swap(3, 4);
    assert_eq!(plan.to_string().lines().collect::<Vec<_>>(), sorted);
    assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
}

/// People may leave remarks and empty lines.
#[test]
fn remarks_are_skipped() {
    let plan: Plan = "# two lines\n\n  at 1s heal # now\nat 0.5s crash all".parse().unwrap();
    assert_eq!(plan.to_string(), "at 0.500s crash all\nat 1.000s heal\n");
}

/// What is wrong is said, with the line.
#[test]
fn errors_name_the_line() {
    let error = |text: &str| text.parse::<Plan>().unwrap_err().to_string();
    assert_eq!(error("\nat 1s explode"), "line 2: no such fault: explode: at 1s explode");
    assert_eq!(error("at 1 heal"), "line 1: not a time such as 1.250s: 1: at 1 heal");
    assert_eq!(error("at 1s crash"), "line 1: missing: server, leader or all: at 1s crash");
    for wrong in [
        "crash 1",
        "at",
        "at -1s heal",
        "at 1.0000000001s heal",
        "at 99999999999999s heal",
        "at 1s heal now",
        "at 1s crash x",
        "at 1s fuse 1 0",
        "at 1s partition cake",
        "at 1s partition split 1,,2",
        "at 1s block 1 2",
        "at 1s clog s1 s2 5",
        "at s heal",
        "at 1s change",
        "at 1s change add-voter,",
        "at 1s change remove",
        "at 1s change remove:nth-x",
        "at 1s transfer",
        "at 1s replace all",
    ] {
        assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
    }
}

fn wild() -> RunConfig {
    RunConfig { kinds: FaultKinds::all(), ..RunConfig::calm(5) }
}

/// A plan is a function of its seed, ends repaired, and stays within its time.
#[test]
fn drawn_plans_are_repaired_and_bounded() {
    let config = wild();
    let plan = Plan::draw(&config, &Prng::new(1));
    assert_eq!(plan, Plan::draw(&config, &Prng::new(1)));
    assert_ne!(plan, Plan::draw(&config, &Prng::new(2)));
    assert!(20 < plan.len());
    let (body, repairs) = plan.faults().split_at(plan.len() - 7);
    assert!(
        body.iter()
            .all(|timed| { config.faults_from <= timed.at && timed.at < config.faults_until })
    );
    assert!(repairs.iter().all(|timed| timed.at == config.faults_until));
    assert_eq!(repairs[6].fault, Fault::Restart(Target::All));
    let broken = Plan::draw(&RunConfig { leave_broken: true, ..config }, &Prng::new(1));
    assert_eq!(broken.faults(), body);
}

/// Turning one kind off takes its lines away and moves no other.
#[test]
fn kinds_do_not_disturb_each_other() {
    let config = wild();
    let all = Plan::draw(&config, &Prng::new(3));
    let kinds = config.kinds.without(FaultKind::Partition);
    let some = Plan::draw(&RunConfig { kinds, ..config }, &Prng::new(3));
    assert!(some.len() < all.len());
    assert!(some.faults().iter().all(|timed| all.faults().contains(timed)));
    let none = Plan::draw(&RunConfig { leave_broken: true, ..RunConfig::calm(3) }, &Prng::new(3));
    assert!(none.is_empty());
}

/// Of a long plan, shrinking leaves the two lines that matter.
#[test]
fn shrinking_leaves_what_matters() {
    let plan = Plan::draw(&wild(), &Prng::new(9));
    let has = |plan: &Plan, word: &str| plan.to_string().contains(word);
    let mut run_count = 0;
    let small = plan.shrink(1_000, |plan| {
        run_count += 1;
        has(plan, "crash") && has(plan, "partition")
    });
    assert_eq!(small.len(), 2, "{small}");
    assert!(has(&small, "crash") && has(&small, "partition") && run_count < 200, "{run_count}");
    assert_eq!(plan.shrink(0, |_| panic!("no run is allowed")), plan);
    assert!(plan.shrink(1_000, |_| true).is_empty());
}

/// Faults are switched by name, and print as they are read.
#[test]
fn kinds_are_switched_by_name() {
    let choice = FaultChoice::default().switch("+crash,-jump,full").unwrap();
    assert_eq!(choice.switches(), "+crash,+full,-jump");
    assert_eq!(FaultChoice::default().switch(&choice.switches()).unwrap(), choice);
    for seed in 0..50 {
        let kinds = choice.draw(&mut Prng::new(seed));
        assert!(kinds.has(FaultKind::Crash) && kinds.has(FaultKind::Full));
        assert!(!kinds.has(FaultKind::Jump));
    }
    assert!(choice.switch("-crsh").unwrap_err().starts_with("no such kind of fault: crsh"));
    let quiet = FaultChoice { profile: Profile::Quiet, ..FaultChoice::default() };
    assert_eq!(quiet.draw(&mut Prng::new(1)), FaultKinds::NONE);
    assert!("disk".parse() == Ok(Profile::Disk) && "cake".parse::<Profile>().is_err());
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Any drawn plan reads back from its text.
    #[test]
    fn drawn_plans_round_trip(seed: u64) {
        let mut prng = Prng::new(seed);
        let config = RunConfig::draw(&mut prng);
        let plan = Plan::draw(&config, &prng);
        prop_assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
    }

    /// No text makes the reader panic.
    #[test]
    fn any_text_is_read_or_refused(text in "(at [0-9.s]{0,6} [a-z]{0,9} ?[s0-9, ]{0,6}\n?){0,3}|.*") {
        let _read = text.parse::<Plan>();
    }
}

/// Times keep every nanosecond.
#[test]
fn times_are_exact() {
    let plan: Plan = "at 12.345678901s heal".parse().unwrap();
    assert_eq!(plan.faults()[0].at, Instant(12_345_678_901));
}
