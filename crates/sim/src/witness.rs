//! Is a history linearizable in the order that the servers say? One pass, any length.
//!
//! The simulated world knows where each operation took effect: a write at its index in the log, a
//! read after the last entry applied when it was served. So there is nothing to search: execute the
//! operations in that order and compare, and see that no operation is ordered before another that
//! had returned before it was called. A stale read fails the second, a lost update the first.
//!
//! What it lacks: distrust of the order itself. The search in `linear` is there for that.

#[cfg(test)]
mod tests;

use std::fmt;

use crate::linear::Model;

/// Where in the order of all operations one took effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Index of the log, or revision of the store; all of a history must use the same.
    pub order: u64,
    /// Whether it is what happened there, or only looked.
    pub role: Role,
}

/// What an operation did at its place. What happens there comes before who looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// It is the one operation executed at this place.
    Executed,
    /// It saw the state that this place left.
    Looked,
}

/// One operation and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Witnessed<Op> {
    /// What was asked for and seen.
    pub op: Op,
    /// When it was called: a place in the order of all calls and returns.
    pub called: u64,
    /// When it returned; `None` if its client never learnt of it.
    pub returned: Option<u64>,
    /// Where it took effect.
    pub place: Place,
}

/// Why the order is no explanation. Numbers are places in the slice of operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WitnessViolation {
    /// A client did not see what the operation would have answered at its place.
    WrongResult {
        /// The operation.
        operation: usize,
    },
    /// An operation is ordered after one that was called only when it had already returned.
    OutOfTime {
        /// Called too late to be ordered first.
        ordered_first: usize,
        /// Had already returned.
        ordered_second: usize,
    },
    /// Two operations were executed at one place.
    SharedPlace {
        /// One of them.
        first: usize,
        /// The other.
        second: usize,
    },
}

impl fmt::Display for WitnessViolation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongResult { operation } => {
                write!(f, "operation {operation} did not see what it should have at its place")
            }
            Self::OutOfTime { ordered_first, ordered_second } => write!(
                f,
                "operation {ordered_second} had returned before {ordered_first} was called, \
                 but is ordered after it"
            ),
            Self::SharedPlace { first, second } => {
                write!(f, "operations {first} and {second} were executed at the same place")
            }
        }
    }
}

impl std::error::Error for WitnessViolation {}

/// Executes `operations` by place and compares; O(n log n). Returns the state after the last one.
///
/// # Errors
/// The first violation in the order of places.
pub fn check_witness<M: Model>(
    model: &M,
    operations: &[Witnessed<M::Op>],
) -> Result<M::State, WitnessViolation> {
    let mut order: Vec<usize> = (0..operations.len()).collect();
    // Lookers at one place may stand in any order among each other: by call is one that fits time.
    order.sort_by_key(|number| {
        let operation = &operations[*number];
        (operation.place, operation.called, *number)
    });
    let mut state = model.initial();
    let mut last_called: Option<usize> = None;
    let mut last_place: Option<(Place, usize)> = None;
    for number in order {
        let operation = &operations[number];
        if let Some((place, first)) = last_place
            && place == operation.place
            && place.role == Role::Executed
        {
            return Err(WitnessViolation::SharedPlace { first, second: number });
        }
        last_place = Some((operation.place, number));
        if let (Some(last), Some(returned)) = (last_called, operation.returned)
            && returned < operations[last].called
        {
            let (ordered_first, ordered_second) = (last, number);
            return Err(WitnessViolation::OutOfTime { ordered_first, ordered_second });
        }
        if last_called.is_none_or(|last| operations[last].called < operation.called) {
            last_called = Some(number);
        }
        if !model.apply(&mut state, &operation.op) {
            return Err(WitnessViolation::WrongResult { operation: number });
        }
    }
    Ok(state)
}
