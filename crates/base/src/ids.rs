//! Newtypes for every number that could be mistaken for another.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Defines a `u64` newtype with the conversions and the plain `Display` that all ids share.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Clone,
            Copy,
            Debug,
            Default,
            PartialEq,
            Eq,
            PartialOrd,
            Ord,
            Hash,
            Serialize,
            Deserialize,
        )]
        pub struct $name(pub u64);

        impl $name {
            /// The smallest value; for counters, "before the first".
            pub const ZERO: Self = Self(0);

            /// The following value.
            ///
            /// # Panics
            /// When the 64-bit space is used up, which takes centuries at a million steps a second.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("64-bit counters do not run out"))
            }

            /// The preceding value, or zero.
            #[must_use]
            pub fn prev(self) -> Self {
                Self(self.0.saturating_sub(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        /// As commands show ids of members and clusters, like etcd's.
        impl fmt::LowerHex for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id!(
    /// Raft's logical clock (Raft §5.1). Term 0 is before the first election.
    Term
);
id!(
    /// A position in the log. The first entry has index 1; 0 is "before the log".
    Index
);
id!(
    /// Names one server for ever; never reused, so a replaced server is another member. 0 is
    /// nobody.
    MemberId
);
id!(
    /// Names one cluster; peers and data directories of another one are refused.
    ClusterId
);
id!(
    /// Names one Raft group within a cluster. Always 0 today; the formats carry it.
    GroupId
);
id!(
    /// Names one write to the journal; strictly grows over the life of a process.
    WriteId
);
id!(
    /// Names a client's session in the replicated state.
    ClientId
);
id!(
    /// Numbers a client's operations, from 1 upwards.
    OpId
);
id!(
    /// Names one waiting request inside one server process; never written to the log alone.
    Ticket
);

/// The store's version: one per mutating transaction. A fresh store is at 1 (as etcd's).
///
/// Signed because etcd's API is: negative values arrive from clients and mean "latest".
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
