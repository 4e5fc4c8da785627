//! The kinds of fault by name, sets of them, and profiles.

use std::{fmt, str::FromStr};

use kvraft_base::Prng;

macro_rules! fault_kinds {
    ($($(#[$doc:meta])* $kind:ident: $name:literal,)*) => {
        /// A kind of fault: what can be switched on and off by name.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum FaultKind {
            $($(#[$doc])* $kind,)*
        }

        impl FaultKind {
            /// Every kind.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            /// Its name in plans, options and seeds' streams.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }
    };
}

fault_kinds! {
    /// One server loses power.
    Crash: "crash",
    /// All servers lose power at once.
    Power: "power",
    /// A process ends, its machine goes on.
    Kill: "kill",
    /// One process after another ends and comes back.
    Rolling: "rolling",
    /// Power is lost in the middle of a change of the disk.
    Fuse: "fuse",
    /// A process stops executing for a while; its clock goes on.
    Pause: "pause",
    /// A machine stops for a while, its clock too.
    Suspend: "suspend",
    /// The wall clock of a server jumps, either way.
    Jump: "jump",
    /// The clocks of a server run at another rate.
    Drift: "drift",
    /// A disk becomes slower.
    Slow: "slow",
    /// One operation of a disk takes very long.
    Stall: "stall",
    /// A sync fails, once.
    SyncError: "sync-error",
    /// A write fails, once.
    WriteError: "write-error",
    /// A disk is full for a while.
    Full: "full",
    /// A server is cut off from everything.
    Disconnect: "disconnect",
    /// Links among servers stop, in any shape.
    Partition: "partition",
    /// One directed link stops.
    Block: "block",
    /// One directed link holds everything back.
    Clog: "clog",
    /// Frames are lost by chance.
    Loss: "loss",
    /// Frames arrive twice by chance.
    Duplicate: "duplicate",
    /// Links do not keep the order of frames.
    Reorder: "reorder",
    /// Bits of frames flip by chance, or a connection ends inside a frame.
    Corrupt: "corrupt",
    /// Bits of a server's disk flip; its peers repair that.
    Rot: "rot",
    /// Servers are added, removed, promoted and demoted.
    Members: "members",
    /// The cluster moves to other servers, step by step, with a loss of power in each.
    Regrow: "regrow",
    /// Leadership is handed over, to somebody or to whoever is nearest.
    Transfer: "transfer",
    /// A disk is lost with everything on it, and a new server takes its place.
    Replace: "replace",
    /// A process is asked to stop, and a leader hands over before it does.
    Stop: "stop",
    /// A leader on a slow clock is cut off from the other servers, whose clocks are fast, and not
    /// from its clients.
    Usurp: "usurp",
    /// A read fails, once; or a sector cannot be read for a while.
    ReadError: "read-error",
    /// What was written went elsewhere on the disk.
    Misdirect: "misdirect",
    /// A write that was synced is not there.
    LostWrite: "lost-write",
    /// A read is answered from elsewhere on the disk, once.
    Misread: "misread",
    /// A sync fails, once, and what it has not written counts as written.
    FalseClean: "false-clean",
    /// Power is lost at a named point: in a sync, a rename, a removal.
    Ambush: "ambush",
    /// One directed link is slower than the others.
    Lag: "lag",
    /// One directed link carries few bytes a second, and loses what does not fit into its queue.
    Throttle: "throttle",
    /// A client does not reach some of the servers, or they do not reach it.
    ClientCut: "client-cut",
    /// A client's process ends, and another one takes its place.
    ClientCrash: "client-crash",
    /// A client's process stands still for a while.
    ClientPause: "client-pause",
    /// There is a coordinator, and it crashes, stands still, is cut off, late, or lies.
    Coordinator: "coordinator",
    /// Servers begin with an older build, and one after the other gets the new one.
    Upgrade: "upgrade",
}

impl fmt::Display for FaultKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for FaultKind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|kind| kind.name() == text);
        found.copied().ok_or_else(|| {
            let names: Vec<_> = Self::ALL.iter().map(|kind| kind.name()).collect();
            format!("no such kind of fault: {text}; there are {}", names.join(", "))
        })
    }
}

/// A set of kinds of fault.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct FaultKinds(u64);

impl FaultKinds {
    /// No fault at all.
    pub const NONE: Self = Self(0);

    /// Every kind.
    #[must_use]
    pub fn all() -> Self {
        FaultKind::ALL.iter().copied().collect()
    }

    /// The set has this kind.
    #[must_use]
    pub fn has(self, kind: FaultKind) -> bool {
        self.0 & (1 << kind as u32) != 0
    }

    /// The set with this kind.
    #[must_use]
    pub fn with(self, kind: FaultKind) -> Self {
        Self(self.0 | 1 << kind as u32)
    }

    /// The set without this kind.
    #[must_use]
    pub fn without(self, kind: FaultKind) -> Self {
        Self(self.0 & !(1 << kind as u32))
    }

    /// The kinds in it, in their own order.
    pub fn iter(self) -> impl Iterator<Item = FaultKind> {
        FaultKind::ALL.iter().copied().filter(move |kind| self.has(*kind))
    }

    /// A subset: each kind for itself, in with a chance of `num` in `den`. One draw for every kind
    /// there is, so that a kind that is not in the set disturbs no other.
    #[must_use]
    pub fn draw(self, prng: &mut Prng, num: u64, den: u64) -> Self {
        let drawn: Self =
            FaultKind::ALL.iter().copied().filter(|_| prng.chance(num, den)).collect();
        Self(self.0 & drawn.0)
    }
}

impl FromIterator<FaultKind> for FaultKinds {
    fn from_iter<I: IntoIterator<Item = FaultKind>>(kinds: I) -> Self {
        kinds.into_iter().fold(Self::NONE, Self::with)
    }
}

/// Which kinds of fault a seed may draw.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Profile {
    /// None: a good day.
    Quiet,
    /// Links.
    Network,
    /// Disks, and the ends of processes that show what is on them.
    Disk,
    /// Clocks, and processes that stand still.
    Clock,
    /// Members that come and go, leaders that hand over, and what hurts meanwhile.
    Membership,
    /// Every kind.
    #[default]
    Everything,
}

impl Profile {
    /// Every profile.
    pub const ALL: &[Self] =
        &[Self::Quiet, Self::Network, Self::Disk, Self::Clock, Self::Membership, Self::Everything];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Quiet => "quiet",
            Self::Network => "network",
            Self::Disk => "disk",
            Self::Clock => "clock",
            Self::Membership => "membership",
            Self::Everything => "everything",
        }
    }

    /// What a seed may draw from.
    #[must_use]
    pub fn kinds(self) -> FaultKinds {
        use FaultKind as K;
        let kinds: &[K] = match self {
            Self::Quiet => &[],
            Self::Network => &[
                K::Disconnect,
                K::Partition,
                K::Block,
                K::Clog,
                K::Loss,
                K::Duplicate,
                K::Reorder,
                K::Corrupt,
                K::Lag,
                K::Throttle,
                K::ClientCut,
                K::ClientCrash,
                K::ClientPause,
            ],
            Self::Disk => &[
                K::Crash,
                K::Power,
                K::Kill,
                K::Rolling,
                K::Fuse,
                K::Slow,
                K::Stall,
                K::SyncError,
                K::FalseClean,
                K::WriteError,
                K::Full,
                K::Rot,
                K::ReadError,
                K::Misdirect,
                K::LostWrite,
                K::Misread,
                K::Ambush,
            ],
            Self::Clock => &[K::Pause, K::Suspend, K::Jump, K::Drift, K::Usurp, K::ClientPause],
            Self::Membership => &[
                K::Members,
                K::Regrow,
                K::Transfer,
                K::Replace,
                K::Stop,
                K::Upgrade,
                K::Usurp,
                K::Crash,
                K::Power,
                K::Kill,
                K::Fuse,
                K::Pause,
                K::Drift,
                K::Disconnect,
                K::Partition,
                K::Block,
                K::Clog,
                K::Loss,
                K::Duplicate,
                K::Reorder,
            ],
            Self::Everything => K::ALL,
        };
        kinds.iter().copied().collect()
    }
}

impl FromStr for Profile {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = Self::ALL.iter().find(|profile| profile.name() == text);
        found.copied().ok_or_else(|| format!("no such profile: {text}"))
    }
}

/// What a person says about faults: a profile, and kinds that a seed must or must not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FaultChoice {
    /// What a seed may draw from.
    pub profile: Profile,
    /// In every seed.
    pub on: FaultKinds,
    /// In no seed.
    pub off: FaultKinds,
}

impl FaultChoice {
    /// The kinds of one seed. How many of them is drawn as well: bugs hide both where one fault
    /// acts alone and where many meet (swarm testing).
    #[must_use]
    pub fn draw(self, prng: &mut Prng) -> FaultKinds {
        let num = *prng.pick(&[1, 2, 4]).expect("any");
        let drawn = self.profile.kinds().draw(prng, num, 6);
        FaultKinds((drawn.0 | self.on.0) & !self.off.0)
    }

    /// The kinds of one seed and one more, unless it may not be.
    #[must_use]
    pub(crate) fn admit(self, kinds: FaultKinds, kind: FaultKind) -> FaultKinds {
        let may = (self.profile.kinds().0 & FaultKinds::NONE.with(kind).0 & !self.off.0) != 0;
        if may { kinds.with(kind) } else { kinds }
    }

    /// Reads `NAME`, `+NAME` (on) and `-NAME` (off), separated by commas.
    ///
    /// # Errors
    /// The first name that is none.
    pub fn switch(mut self, text: &str) -> Result<Self, String> {
        for word in text.split(',').filter(|word| !word.is_empty()) {
            if let Some(name) = word.strip_prefix('-') {
                let kind = name.parse()?;
                (self.on, self.off) = (self.on.without(kind), self.off.with(kind));
            } else {
                let kind = word.strip_prefix('+').unwrap_or(word).parse()?;
                (self.on, self.off) = (self.on.with(kind), self.off.without(kind));
            }
        }
        Ok(self)
    }

    /// The switches as [`FaultChoice::switch`] reads them; empty when there are none.
    #[must_use]
    pub fn switches(self) -> String {
        let on = self.on.iter().map(|kind| format!("+{kind}"));
        let off = self.off.iter().map(|kind| format!("-{kind}"));
        on.chain(off).collect::<Vec<_>>().join(",")
    }
}
