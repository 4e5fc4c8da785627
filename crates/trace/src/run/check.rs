//! Whether a run is one: what everybody who reads it relies on.

use std::fmt;

use super::{Change, Clock, EventId, NodeId, Run};

/// Why a run is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunError {
    /// An event stands before another that happened earlier.
    TimeGoesBack {
        /// The later one.
        event: EventId,
    },
    /// An event's cause does not come before it.
    CauseAfter {
        /// The event.
        event: EventId,
    },
    /// Somebody is named who is not there.
    UnknownNode {
        /// The number.
        node: NodeId,
        /// In what.
        place: &'static str,
    },
    /// An event is named that is not there.
    UnknownEvent {
        /// The number.
        event: EventId,
    },
    /// Something ends before it begins.
    EndsBeforeItBegins {
        /// In what.
        place: &'static str,
        /// Its number.
        number: usize,
    },
}

impl fmt::Display for RunError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TimeGoesBack { event } => {
                write!(f, "event {} happened before the one above it", event.0)
            }
            Self::CauseAfter { event } => {
                write!(f, "event {} comes before its cause", event.0)
            }
            Self::UnknownNode { node, place } => write!(f, "{place} names no node {}", node.0),
            Self::UnknownEvent { event } => write!(f, "there is no event {}", event.0),
            Self::EndsBeforeItBegins { place, number } => {
                write!(f, "{place} {number} ends before it begins")
            }
        }
    }
}

impl std::error::Error for RunError {}

impl Run {
    /// Looks at every invariant of the module.
    ///
    /// # Errors
    /// The first that does not hold.
    pub fn check(&self) -> Result<(), RunError> {
        self.check_events()?;
        for (number, band) in self.bands.iter().enumerate() {
            self.check_nodes(&band.nodes, "a band")?;
            if band.to < band.from {
                return Err(RunError::EndsBeforeItBegins { place: "band", number });
            }
        }
        for (number, operation) in self.operations.iter().enumerate() {
            self.check_nodes(&[operation.client], "an operation")?;
            if operation.to.is_some_and(|to| to < operation.from) {
                return Err(RunError::EndsBeforeItBegins { place: "operation", number });
            }
        }
        for violation in &self.violations {
            self.check_nodes(&violation.nodes, "a violation")?;
            if let Some(event) = violation.event
                && self.events.len() <= event.0 as usize
            {
                return Err(RunError::UnknownEvent { event });
            }
        }
        Ok(())
    }

    fn check_events(&self) -> Result<(), RunError> {
        let mut before = 0;
        for (number, event) in self.events.iter().enumerate() {
            let id = EventId(u32::try_from(number).unwrap_or(u32::MAX));
            self.check_nodes(&[event.node], "an event")?;
            if self.clock != Clock::Logical && event.at < before {
                return Err(RunError::TimeGoesBack { event: id });
            }
            if event.cause.is_some_and(|cause| id <= cause) {
                return Err(RunError::CauseAfter { event: id });
            }
            before = event.at;
            for change in &event.changes {
                if let Change::Vote(Some(node))
                | Change::Leader(Some(node))
                | Change::Progress { peer: node, .. } = change
                {
                    self.check_nodes(&[*node], "a change")?;
                }
            }
        }
        Ok(())
    }

    fn check_nodes(&self, nodes: &[NodeId], place: &'static str) -> Result<(), RunError> {
        let unknown = nodes.iter().find(|node| self.nodes.len() <= usize::from(node.0));
        unknown.map_or(Ok(()), |node| Err(RunError::UnknownNode { node: *node, place }))
    }
}
