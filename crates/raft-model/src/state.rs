//! The whole group: three servers in a ring, what is on its way to each, and what must be
//! remembered of the past.
//!
//! Why a ring: turning it, or looking at it in a mirror, gives a group that behaves the same, and
//! of such six only one is explored. [`Hash`] is the same for all six; the checker tells states
//! apart by nothing else.

use std::hash::{Hash, Hasher};

use crate::{
    node::Tag,
    rules::Rule,
    table::{Digest, MessageId, NodeId},
};

/// Servers in the group.
pub const SERVER_COUNT: usize = 3;

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// In order of the ring.
    pub servers: [Server; SERVER_COUNT],
    /// Every entry that any server has known to be committed, from index 1.
    pub committed: Vec<Committed>,
    /// For each term from 1: who has led it, a bit for each server. Forgotten once nobody can win
    /// that term any more.
    pub leaders: Vec<u8>,
    /// The highest term that any server has been in.
    pub term_seen: u64,
    /// Client proposals so far.
    pub proposal_count: u8,
    /// Changes of the configuration so far.
    pub change_count: u8,
    /// Crashes so far.
    pub crash_count: u8,
    /// A rule that was broken in the last step. Nothing happens after that.
    pub broken: Option<Rule>,
}

/// One place in the ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its state.
    pub node: NodeId,
    /// Stands for its state.
    pub digest: Digest,
    /// Every message that was ever sent to it and can still do something, in order of number.
    pub inbox: Vec<MessageId>,
    /// Stands for the inbox: the sums of its messages' digests.
    pub inbox_digest: Digest,
    /// Votes that it let others know of: term, and a bit for each name it voted for. Only of terms
    /// that its disk has not left behind.
    pub votes: Vec<(u64, u8)>,
}

/// An entry that was committed.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    /// The entry.
    pub tag: Tag,
    /// The term of the leader that committed it.
    pub term: u64,
}

impl Hash for State {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let as_is = self.servers.each_ref().map(|server| server.digest(false));
        let mirrored = self.servers.each_ref().map(|server| server.digest(true));
        let mut least = u64::MAX;
        for first in 0..SERVER_COUNT {
            let turned = |at: usize| (first + at) % SERVER_COUNT;
            let reflected = |at: usize| (first + SERVER_COUNT - at) % SERVER_COUNT;
            least = least.min(self.arranged(|at| (turned(at), as_is[turned(at)])));
            least = least.min(self.arranged(|at| (reflected(at), mirrored[reflected(at)])));
        }
        least.hash(state);
        (self.term_seen, self.proposal_count, self.change_count, self.crash_count, self.broken)
            .hash(state);
        self.committed.hash(state);
    }
}

impl State {
    /// The digest of the ring when `place` says which server, and which digest of it, comes at
    /// each place.
    fn arranged(&self, place: impl Fn(usize) -> (usize, u64)) -> u64 {
        let mut digest = 0;
        let mut leaders = 0u64;
        for at in 0..SERVER_COUNT {
            let (server, its_digest) = place(at);
            digest = mix(digest ^ its_digest);
            for mask in &self.leaders {
                leaders = leaders << 1 | u64::from(mask >> server & 1);
            }
        }
        mix(digest ^ mix(leaders))
    }
}

impl Server {
    fn digest(&self, mirrored: bool) -> u64 {
        let of = |digest: &Digest| if mirrored { digest.mirrored } else { digest.as_is };
        let mut digest = mix(of(&self.digest) ^ mix(of(&self.inbox_digest)));
        for (term, names) in &self.votes {
            // Bits 1, 2 and 3 are the own name, the right and the left neighbour.
            let swapped = names & 0b0010 | (names & 0b0100) << 1 | (names & 0b1000) >> 1;
            let names = if mirrored { swapped } else { *names };
            digest = mix(digest ^ (*term << 8 | u64::from(names)));
        }
        digest
    }

    /// Puts a message in, if it is not there. Returns whether it was put.
    pub fn put(&mut self, message: MessageId, digest: Digest) -> bool {
        let Err(at) = self.inbox.binary_search(&message) else { return false };
        self.inbox.insert(at, message);
        self.inbox_digest = self.inbox_digest.plus(digest);
        true
    }

    /// Keeps the messages that `keep` says, given their digests too.
    pub fn retain(&mut self, mut keep: impl FnMut(MessageId) -> (bool, Digest)) {
        let total = &mut self.inbox_digest;
        self.inbox.retain(|message| {
            let (keeps, digest) = keep(*message);
            if !keeps {
                *total = total.minus(digest);
            }
            keeps
        });
    }
}

impl Digest {
    fn plus(self, other: Self) -> Self {
        Self {
            as_is: self.as_is.wrapping_add(other.as_is),
            mirrored: self.mirrored.wrapping_add(other.mirrored),
        }
    }

    fn minus(self, other: Self) -> Self {
        Self {
            as_is: self.as_is.wrapping_sub(other.as_is),
            mirrored: self.mirrored.wrapping_sub(other.mirrored),
        }
    }
}

/// Spreads every bit over all of them (Stafford's variant 13 of the MurmurHash3 finaliser).
fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ value >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ value >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ value >> 31
}
