//! What a cluster version changes, and what a build does with one that it does not know.

use bytes::Bytes;
use expect_test::expect;
use kvraft_base::{Entry, EntryKind, Index, TableId, Term};

use super::{harness::Machine, script::check};
use crate::{Command, Kv, META_STATE, Origin, Request, StateError, Versions, check_state_row};

const OLD: Versions = Versions { oldest: 1, newest: 1 };

/// Before version 2 the clock is the greatest wall clock of all leaders: one that is ahead expires
/// sessions, and stops time for the one that follows it.
#[test]
fn leader_that_is_ahead_expires_sessions_in_version_one() {
    check(
        "time 1000
         open 5000
         term 2
         time 100000
         put a 1
         @1/1/0 put a 2
         term 3
         time 2000
         open 5000
         time 99000
         put a 3
         stats",
        expect![[r#"
            time 1000
                done
            open 5000
                client=1
            term 2
                done
            time 100000
                done
            put a 1
                rev=2
            @1/1/0 put a 2
                FailedPrecondition: kvraft: session unknown or expired
            term 3
                done
            time 2000
                done
            open 5000
                client=4
            time 99000
                done
            put a 3
                rev=3
            stats
                keys=1 changes=2 records=24B clock=100000 sessions=1 results=0B
        "#]],
    );
}

/// From version 2 on only the time that passes within one leader's term counts, whatever its wall
/// clock shows; within a term a clock that goes back waits.
#[test]
#[expect(clippy::too_many_lines, reason = "one script, and what each line answers")]
fn only_time_within_a_term_counts_in_version_two() {
    check(
        "time 1000
         open 5000
         raise 2
         term 2
         time 100000
         put a 1
         @1/1/0 put a 2
         time 104000
         @1/2/1 put a 3
         time 50000
         put a 4
         time 105000
         stats
         settle
         crash
         put a 5
         stats
         term 3
         time 7
         put a 6
         stats
         time 5006
         put a 7
         stats
         time 5008
         @1/3/2 put a 8",
        expect![[r#"
            time 1000
                done
            open 5000
                client=1
            raise 2
                version=2
            term 2
                done
            time 100000
                done
            put a 1
                rev=2
            @1/1/0 put a 2
                rev=3
            time 104000
                done
            @1/2/1 put a 3
                rev=4
            time 50000
                done
            put a 4
                rev=5
            time 105000
                done
            stats
                keys=1 changes=4 records=48B clock=5000 sessions=1 results=76B
            settle
                done
            crash
                done
            put a 5
                rev=6
            stats
                keys=1 changes=5 records=60B clock=6000 sessions=1 results=76B
            term 3
                done
            time 7
                done
            put a 6
                rev=7
            stats
                keys=1 changes=6 records=72B clock=6000 sessions=1 results=76B
            time 5006
                done
            put a 7
                rev=8
            stats
                keys=1 changes=7 records=84B clock=10999 sessions=0 results=0B
            time 5008
                done
            @1/3/2 put a 8
                FailedPrecondition: kvraft: session unknown or expired
        "#]],
    );
}

/// The version never goes down, and is the same for whoever comes late.
#[test]
fn version_never_goes_down() {
    check(
        "raise 1
         raise 2
         raise 1
         settle
         crash
         raise 0",
        expect![[r#"
            raise 1
                version=1
            raise 2
                version=2
            raise 1
                version=2
            settle
                done
            crash
                done
            raise 0
                version=2
        "#]],
    );
}

fn raise(index: u64, version: u32) -> Entry {
    let command = Command::new(Origin::default(), 5, Request::RaiseVersion { version });
    Entry::new(Term(1), Index(index), EntryKind::Command, command.encode())
}

/// An entry that raises the version beyond what the build knows changes nothing, and says both.
#[test]
fn raise_to_an_unknown_version_is_not_applied() {
    let mut machine = Machine { kv: Kv::of_versions(OLD), ..Machine::default() };
    let before = machine.kv.state_hash();
    let error = machine.kv.apply(&machine.memory, &raise(1, 2)).unwrap_err();
    assert!(matches!(error, StateError::Unsupported(_)));
    let said = "the cluster has version 2, and this build knows versions 1 to 1: install a build \
                that knows it";
    assert_eq!(error.to_string(), said);
    assert_eq!(machine.kv.state_hash(), before);
    assert!(machine.kv.apply(&machine.memory, &raise(1, 1)).is_ok());
}

/// A table of a version that the build does not know is not damage: it is refused by name, whatever
/// its row looks like beyond what all rows have in common.
#[test]
fn table_of_an_unknown_version_is_refused() {
    let mut machine = Machine::default();
    machine.request(Request::RaiseVersion { version: 2 });
    while machine.settle(usize::MAX) {}
    assert!(Kv::load(&machine.memory, Versions::OF_BUILD).is_ok());
    let refused = Kv::load(&machine.memory, OLD).unwrap_err();
    assert!(matches!(refused, StateError::Unsupported(_)), "{refused}");
    let place = (TableId::Meta, Bytes::from_static(META_STATE));
    let mut row = machine.memory.0[&place].to_vec();
    (row[0], row[25]) = (9, 77);
    row.push(0);
    machine.memory.0.insert(place.clone(), row.into());
    let refused = Kv::load(&machine.memory, Versions::OF_BUILD).unwrap_err();
    let said = "the cluster has version 77, and this build knows versions 1 to 2: install a build \
                that knows it";
    assert_eq!(refused.to_string(), said);
    assert!(check_state_row(&machine.memory.0[&place], Versions::OF_BUILD).is_err());
    assert!(check_state_row(&Bytes::from_static(b"short"), OLD).is_ok());
}
