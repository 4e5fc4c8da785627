//! What the clients of a run are like, and what each asks for, as items of a plan.
//!
//! A client does its operations one after another: each begins so long after the one before has
//! ended. Times are relative since answers take as long as they take.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::MemberId;

use crate::history::Action;

/// One client and everything that it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientPlan {
    /// Its number, from 1 to [`CLIENT_MAX`].
    pub id: u64,
    /// Whom it asks first, one of the servers of the beginning.
    pub home: MemberId,
    /// It never asks anybody else.
    pub is_pinned: bool,
    /// It opens a session that lives for so long without use, and numbers its changes: each is done
    /// exactly once.
    pub session: Option<Duration>,
    /// Longest pause before it asks again.
    pub pause_max: Duration,
    /// How long it waits for one answer.
    pub attempt_timeout: Duration,
    /// How long an operation takes with all its attempts.
    pub operation_timeout: Duration,
    /// What it does, in this order.
    pub operations: Vec<PlannedOperation>,
}

/// One operation of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedOperation {
    /// How long after the end of the one before.
    pub after: Duration,
    /// It is done in the second phase only, and only if the client's server must make progress.
    pub is_reserve: bool,
    /// What.
    pub intent: Intent,
}

/// What a client means to do. What depends on answers is settled when its time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intent {
    /// One step.
    One(Action),
    /// A read that may be stale.
    Stale(Action),
    /// A put if nobody has written the key since this client saw it last, and a look at it.
    Swap {
        /// Which key.
        key: Bytes,
        /// To what it is set.
        value: Bytes,
    },
    /// Several steps at once.
    Together(Vec<Action>),
    /// A read at a revision that many before the newest that this client has seen.
    Past {
        /// The first key.
        key: Bytes,
        /// Just after the last; `None` for one key.
        end: Option<Bytes>,
        /// How many.
        back: u64,
    },
    /// What was before such a revision is forgotten.
    Compact {
        /// How many before the newest.
        back: u64,
    },
}

/// Greatest number of a client, and so the most that there are.
pub const CLIENT_MAX: u64 = 64;

/// The shortest pause before a client asks again: a longest one must not be below it.
pub const PAUSE_MIN: Duration = Duration::from_millis(20);

impl ClientPlan {
    /// A client without haste or numbers: what is not said of one in a plan is so.
    #[must_use]
    pub fn plain(id: u64) -> Self {
        Self {
            id,
            home: MemberId(1),
            is_pinned: false,
            session: None,
            pause_max: Duration::from_millis(500),
            attempt_timeout: Duration::from_secs(2),
            operation_timeout: Duration::from_secs(3),
            operations: Vec::new(),
        }
    }
}

impl PlannedOperation {
    /// Begins so long after the one before.
    #[must_use]
    pub fn new(after: Duration, intent: Intent) -> Self {
        Self { after, is_reserve: false, intent }
    }
}

impl Intent {
    /// A read of one key.
    #[must_use]
    pub fn get(key: Bytes) -> Self {
        Self::One(Action::Range { key, end: None })
    }

    /// Its steps, for whoever looks at their keys.
    #[must_use]
    pub fn actions(&self) -> Vec<Action> {
        match self {
            Self::One(action) | Self::Stale(action) => vec![action.clone()],
            Self::Swap { key, value } => {
                vec![Action::Put { key: key.clone(), value: value.clone() }]
            }
            Self::Together(actions) => actions.clone(),
            Self::Past { key, end, .. } => {
                vec![Action::Range { key: key.clone(), end: end.clone() }]
            }
            Self::Compact { .. } => Vec::new(),
        }
    }
}
