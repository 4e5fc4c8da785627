//! What a turn came to, in a few bytes.
//!
//! Why not the whole state: it is too large to be looked at every turn. These numbers move with
//! nearly everything that a lane does, every second the machine's whole state is hashed, and where
//! one segment follows another the replayed state is compared with the recorded one byte for byte.
//!
//! Invariant: no payload goes in, so that digests hold where payloads were left out or replaced.

use kvraft_base::checksum;

use crate::{
    frame::Frame,
    hop::{Hop, JournalIn, MachineIn, Outcome, PeerLane, TableIn},
    machine::MachineLane,
    node::Node,
};

#[derive(Clone, Copy)]
struct Digest(u64);

impl Digest {
    fn mix(&mut self, number: u64) {
        let mixed = (self.0 ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 29);
    }

    fn mix_all(&mut self, numbers: &[u64]) {
        numbers.iter().for_each(|number| self.mix(*number));
    }

    fn finish(self) -> u32 {
        let folded = (self.0 >> 32) ^ (self.0 & u64::from(u32::MAX));
        u32::try_from(folded).expect("two halves of 32 bits")
    }
}

/// Of the node after a turn, and of what it has sent.
pub(super) fn of_node(node: &Node, hops: &[Hop]) -> u32 {
    let mut digest = Digest(1);
    digest.mix_all(&node.raft().digest_parts());
    digest.mix(node.waiting_count() as u64);
    digest.mix(node.frames_refused());
    for hop in hops {
        add_hop(&mut digest, hop);
    }
    digest.finish()
}

/// Of the machine after a turn, and of what it has answered of the log.
pub(super) fn of_machine(machine: &MachineLane, hops: &[Hop]) -> u32 {
    let mut digest = Digest(2);
    digest.mix_all(&machine.digest_parts());
    for hop in hops {
        // Queries change nothing, and are not asked again.
        if !matches!(hop, Hop::Reply(reply) if matches!(reply.outcome, Outcome::Answered(_))) {
            add_hop(&mut digest, hop);
        }
    }
    digest.finish()
}

fn add_hop(digest: &mut Digest, hop: &Hop) {
    match hop {
        Hop::Journal(JournalIn::Write(write)) => {
            let last = write.entries.last().map_or(0, |entry| entry.index.0);
            let truncate = write.truncate_from.map_or(0, |index| index.0);
            let hard = write.hard_state;
            let vote = hard.vote.map_or(0, |vote| vote.0);
            let numbers = [1, write.id.0, last, truncate, hard.term.0, vote, hard.commit.0];
            digest.mix_all(&numbers);
        }
        Hop::Journal(JournalIn::Release(index)) => digest.mix_all(&[2, index.0]),
        Hop::Journal(JournalIn::Reset { position, members: _ }) => {
            digest.mix_all(&[3, position.index.0])
        }
        Hop::Journal(JournalIn::Fetch(fetch)) => {
            digest.mix_all(&[4, fetch.id, fetch.first.0, fetch.last.0]);
        }
        Hop::Machine(MachineIn::Committed(entries)) => {
            let last = entries.last().map_or(0, |entry| entry.index.0);
            digest.mix_all(&[5, entries.len() as u64, last]);
        }
        Hop::Machine(MachineIn::Query { ticket, at, .. }) => digest.mix_all(&[6, ticket.0, at.0]),
        Hop::Machine(MachineIn::Cancel(ticket)) => digest.mix_all(&[7, ticket.0]),
        Hop::Machine(MachineIn::Settled(_) | MachineIn::Reload { .. }) => digest.mix(8),
        Hop::Table(TableIn::Commit(checkpoint)) => {
            digest.mix_all(&[9, checkpoint.applied.index.0, checkpoint.ops.len() as u64]);
        }
        Hop::Table(_) => digest.mix(10),
        Hop::Peer { to, lane, frame } => {
            let bulk = u64::from(*lane == PeerLane::Bulk);
            let head = checksum(Frame::head(frame));
            digest.mix_all(&[11, to.0, bulk, frame.len() as u64, u64::from(head)]);
        }
        Hop::Reply(reply) => {
            digest.mix_all(&[12, reply.ticket.0, reply.index.0, outcome(&reply.outcome)]);
        }
        Hop::Members(membership) => {
            digest.mix_all(&[13, membership.index.0, u64::from(membership.committed)]);
        }
        Hop::Fatal(_) => digest.mix(14),
        // Said to the other lane, whose inputs are recorded; or to people.
        Hop::Node(_) | Hop::Event(_) => {}
    }
}

fn outcome(outcome: &Outcome) -> u64 {
    match outcome {
        Outcome::Done(Ok(_)) => 1,
        Outcome::Done(Err(_)) => 2,
        Outcome::Answered(_) => 3,
        Outcome::Failed(_) => 4,
        Outcome::Unknown(_) => 5,
        Outcome::Changed(_) => 6,
        Outcome::Transferred(_) => 7,
    }
}
