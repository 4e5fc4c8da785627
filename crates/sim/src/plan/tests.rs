//! Tests of plans: text both ways, drawing, shrinking.

use kvraft_base::{Instant, Prng};
use proptest::prelude::*;

use super::{
    Fault, FaultChoice, FaultKind, FaultKinds, Plan, Profile, RunConfig, Target, TimedFault,
};

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
at 5.000s false-clean leader 2
at 5.000s ambush 2 rename 1
at 5.000s ambush leader sync-dir 2
at 5.000s lag s1 s2 0.050s
at 5.000s throttle s2 s1 5000 0
at 5.000s unthrottle s2 s1
at 5.000s client-crash 3 0.100s
at 5.000s client-pause 1 1.500s
at 5.000s block c1 s2
at 5.000s write-error 3 30
at 5.000s full 2 0
at 5.000s space all
at 6.000s change add-voter
at 6.000s change add-learner,add-learner+,remove:leader,promote:4,demote:nth-17
at 6.000s transfer any
at 6.000s transfer nth-3
at 6.000s replace 2
at 6.000s stop leader
at 6.000s install all new
at 6.000s install 2 old
at 6.000s rot 2 journal 17
at 6.000s misdirect 2 table 18
at 6.000s lost-write 2 table 19
at 6.000s misread 2 journal 19
at 6.000s read-error leader 3
at 6.000s bad-sector 3 table 20
at 6.000s good-sectors all
at 7.000s coordinator crash
at 7.000s coordinator restart
at 7.000s coordinator pause
at 7.000s coordinator resume
at 7.000s coordinator cut leader
at 7.000s coordinator late 0.250s
at 7.000s coordinator lie
at 7.000s coordinator mend
";

const CLIENTS: &str = "\
client 1 home 2
client 1 after 0.001s put k0 c1v1
client 1 after 0.013s get k0
client 1 after 0.000s get k..l
client 2 home 1 pinned session 2.000s pause 0.050s attempt 0.500s operation 60.000s
client 2 after 0.001s delete k0
client 2 after 1.500s delete k0..l
client 2 after 0.001s stale-get k1
client 2 after 0.001s swap k0 c2v1
client 2 reserve 0.050s together put k0 c2v2 + put k1 c2v3 + get k0
client 3 home 3
";

/// Every client and operation reads back as it prints.
#[test]
fn every_operation_round_trips() {
    let plan: Plan = CLIENTS.parse().unwrap();
    assert_eq!(plan.to_string(), CLIENTS);
    assert_eq!((plan.clients().len(), plan.operation_count(), plan.len()), (3, 8, 8));
    assert!(plan.clients()[1].operations[4].is_reserve && plan.clients()[1].is_pinned);
}

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
    assert_eq!(
        error("client 1 home 2\nclient 1 sits 5"),
        "line 2: not home, after or reserve: sits: client 1 sits 5"
    );
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
        "at 90000s heal",
        "at 1s drift 1 99999999999",
        "at 1s slow 1 0",
        "client 0 home 1",
        "client 65 home 1",
        "client 1 home 0",
        "client 1 home 1 session 0s",
        "client 1 home 1 pause 0.001s",
        "client 1 home 1 tall",
        "client 1 home 1\nclient 1 home 2",
        "client 1 after 1s get k0",
        "client 1 home 1\nclient 1 after 1s",
        "client 1 home 1\nclient 1 after 1s take k0",
        "client 1 home 1\nclient 1 after 1s put k0",
        "client 1 home 1\nclient 1 after 1s put k0 a..b",
        "client 1 home 1\nclient 1 after 1s get k9..k0",
        "client 1 home 1\nclient 1 after 1s get ..k0",
        "client 1 home 1\nclient 1 after 1s get k0 k1",
        "client 1 home 1\nclient 1 after 1s together put k0 a + put k0 b",
        "client 1 home 1\nclient 1 after 1s together put k0 a + delete k1",
        "client 1 home 1\nclient 1 after 1s together put k0 a put k1 b",
    ] {
        assert!(wrong.parse::<Plan>().is_err(), "{wrong}");
    }
}

fn wild() -> RunConfig {
    RunConfig { kinds: FaultKinds::all(), ..RunConfig::calm(5) }
}

fn draw(config: &RunConfig, seed: u64) -> Vec<TimedFault> {
    Plan::draw_faults(config, &Prng::new(seed))
}

/// A plan is a function of its seed, ends repaired, and stays within its time.
#[test]
fn drawn_plans_are_repaired_and_bounded() {
    let config = wild();
    let faults = draw(&config, 1);
    assert_eq!(faults, draw(&config, 1));
    assert_ne!(faults, draw(&config, 2));
    assert!(20 < faults.len());
    let (body, repairs) = faults.split_at(faults.len() - 7);
    assert!(
        body.iter()
            .all(|timed| { config.faults_from <= timed.at && timed.at < config.faults_until })
    );
    assert!(repairs.iter().all(|timed| timed.at == config.faults_until));
    assert_eq!(repairs[6].fault, Fault::Restart(Target::All));
    assert_eq!(draw(&RunConfig { leave_broken: true, ..config }, 1), body);
}

/// Turning one kind off takes its lines away and moves no other.
#[test]
fn kinds_do_not_disturb_each_other() {
    let config = wild();
    let all = draw(&config, 3);
    let kinds = config.kinds.without(FaultKind::Partition);
    let some = draw(&RunConfig { kinds, ..config }, 3);
    assert!(some.len() < all.len());
    assert!(some.iter().all(|timed| all.contains(timed)));
    assert!(draw(&RunConfig { leave_broken: true, ..RunConfig::calm(3) }, 3).is_empty());
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
        let plan = Plan::new(Vec::new(), Plan::draw_faults(&config, &prng));
        prop_assert_eq!(plan.to_string().parse::<Plan>().unwrap(), plan);
    }

    /// No text makes the reader panic.
    #[test]
    fn any_text_is_read_or_refused(text in "((at [0-9.s]{0,6}|client [0-3] [a-z]{4,7} [0-9.s]{0,4}) [a-z]{0,9} ?[s0-9, ]{0,6}\n?){0,3}|.*") {
        let _read = text.parse::<Plan>();
    }
}

/// Times keep every nanosecond.
#[test]
fn times_are_exact() {
    let plan: Plan = "at 12.345678901s heal".parse().unwrap();
    assert_eq!(plan.faults()[0].at, Instant(12_345_678_901));
}
