//! Seeds in which one server's disk rots: table and journal are repaired, and nothing is lost.

use kvraft_sim::{Choices, FaultChoice, Sometimes, run};

/// A table that a bit flipped in is given up and filled again, from the journal or by a snapshot; a
/// journal is repaired by its peers; all servers end up equal.
#[test]
fn rotten_disks_are_repaired() {
    let mut seen = Sometimes::default();
    for seed in 0..120 {
        let faults = FaultChoice::default().switch("rot,crash").expect("kinds of fault");
        let servers = Some(2 + seed % 4);
        let choices = Choices { servers, faults, trace_line_count: 40, ..Choices::default() };
        let outcome = run(seed, choices);
        outcome.assert_clean();
        seen += outcome.sometimes;
    }
    let rows = seen.rows();
    let happened = [
        seen.table_rotted,
        seen.journal_rotted,
        seen.table_set_aside,
        seen.hollow_start,
        seen.muted_start,
    ];
    assert!(happened.iter().all(|count| 0 < *count), "{rows:?}");
}
