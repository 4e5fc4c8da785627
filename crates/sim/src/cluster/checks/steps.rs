//! Which configuration may follow which, told once more from the papers and apart from the code
//! that is judged.

use std::collections::BTreeSet;

use kvraft_base::{MemberId, Members};

use crate::cluster::violation::Check;

/// Whether `next` may be appended after `before`.
///
/// # Errors
/// The rule that it breaks, and how.
pub(super) fn check_step(before: &Members, next: &Members) -> Result<(), (Check, String)> {
    check_overlap(before, next)?;
    check_ids(before, next)
}

fn check_overlap(before: &Members, next: &Members) -> Result<(), (Check, String)> {
    let wrong = |check, what: &str| Err((check, format!("{before} is followed by {next}: {what}")));
    if before.is_joint() {
        let is_left = !next.is_joint() && next.voters() == before.voters();
        let why = "a joint configuration is followed by its new half";
        return if is_left { Ok(()) } else { wrong(Check::OneChangeAtATime, why) };
    }
    if next.is_joint() {
        let is_entered = next.voters_outgoing() == before.voters();
        let why = "the old half of a joint configuration is the one before";
        return if is_entered { Ok(()) } else { wrong(Check::ConfigurationsOverlap, why) };
    }
    // One server more or less: the two majorities are too large to miss each other (Ongaro 2014,
    // §4.1).
    let (old, new) = (set(before.voters()), set(next.voters()));
    if 1 < old.symmetric_difference(&new).count() {
        return wrong(Check::ConfigurationsOverlap, "more than one voter comes or goes at once");
    }
    Ok(())
}

fn check_ids(before: &Members, next: &Members) -> Result<(), (Check, String)> {
    let wrong = |what: String| {
        Err((Check::IdsNeverReused, format!("{before} is followed by {next}: {what}")))
    };
    if next.id_max() < before.id_max() {
        return wrong(format!("greatest id {} goes back to {}", before.id_max(), next.id_max()));
    }
    let known = before.ids();
    let reused = |id: &&MemberId| !known.contains(id) && **id <= before.id_max();
    let ids = next.ids();
    match ids.iter().find(reused) {
        Some(id) => wrong(format!("{id} is added, up to {} were used", before.id_max())),
        None => Ok(()),
    }
}

fn set(ids: &[MemberId]) -> BTreeSet<MemberId> {
    ids.iter().copied().collect()
}
