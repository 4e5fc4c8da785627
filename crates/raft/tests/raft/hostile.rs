//! Peers that say anything: damaged, forged, absurd. Nothing they say makes an assertion fail, and
//! no bytes make decoding panic.

use std::time::Duration;

use bytes::Bytes;
use kvraft_base::{
    Entry, EntryKind, Index, Instant, MemberId, Members, Position, Prng, Reader, Term, Ticket,
    Writer,
};
use kvraft_raft::{AppendOutcome, Body, Config, Input, Message, Output, Raft, RoleName, Start};
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Decoding garbage gives an error or a message, never a panic.
    #[test]
    fn garbage_decodes_to_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let decoded = Input::decode(&mut Reader::new(Bytes::from(bytes)));
        prop_assert!(decoded.is_ok() || decoded.is_err());
    }

    /// A flipped byte in a real message is decoded to something else or refused.
    #[test]
    fn damaged_messages_do_not_panic(seed in any::<u64>(), at in any::<u16>(), flip in 1u8..) {
        let mut writer = Writer::new();
        forge(&mut Prng::new(seed), Term(3), Index(5)).encode(&mut writer);
        let mut bytes = writer.finish().to_vec();
        let at = usize::from(at) % bytes.len();
        bytes[at] ^= flip;
        let decoded = Message::decode(&mut Reader::new(bytes.into()));
        prop_assert!(decoded.is_ok() || decoded.is_err());
    }

    /// A server among liars keeps every invariant of its own.
    #[test]
    fn lies_break_no_invariant(seed in any::<u64>()) {
        let mut prng = Prng::new(seed);
        let mut server = Server::new(seed);
        for _ in 0..300 {
            let status = server.raft.status();
            let message = forge(&mut prng, status.term, status.last.index);
            // Lies make a leader rarely; help it on.
            if prng.chance(1, 50) {
                server.elect(&mut prng);
            }
            server.now = server.now + prng.duration(Duration::ZERO, Duration::from_millis(20));
            server.turn(Input::Receive(message));
            if prng.chance(1, 5) {
                server.turn(Input::Propose {
                    ticket: Ticket(1),
                    kind: EntryKind::Command,
                    payload: Bytes::from_static(b"x"),
                });
                server.turn(Input::Read { ticket: Ticket(2) });
            }
        }
    }
}

struct Server {
    raft: Raft,
    now: Instant,
}

impl Server {
    fn new(seed: u64) -> Self {
        let members = Members::new((1..=3).map(MemberId)).unwrap();
        let mut config = Config::new(MemberId(1));
        config.window_bytes_max = 300;
        let raft = Raft::new(config, Start::fresh(members), seed, Instant::ZERO).unwrap();
        Self { raft, now: Instant::ZERO }
    }

    /// Disk, machine and journal answer at once.
    fn turn(&mut self, input: Input) {
        let mut inputs = vec![input];
        while !inputs.is_empty() {
            for input in inputs.drain(..) {
                self.raft.step(self.now, input);
            }
            let mut out = Output::default();
            self.raft.finish(self.now, &mut out);
            inputs.extend(out.write.map(|write| Input::Durable { write: write.id }));
            let applied = out.committed.last();
            inputs.extend(applied.map(|entry| Input::Applied { index: entry.index }));
            let gone = |fetch: kvraft_raft::Fetch| Input::Fetched { id: fetch.id, entries: None };
            inputs.extend(out.fetches.into_iter().map(gone));
        }
    }

    /// Its deadline passes, and server 2 votes for it.
    fn elect(&mut self, prng: &mut Prng) {
        self.now = self.now.max(self.raft.deadline());
        self.turn(Input::Connected { peer: MemberId(2) });
        let term = self.raft.status().term;
        let answers = [
            (term, Body::PreVoteAnswer { campaign: term.next(), granted: true }),
            (term.next(), Body::VoteAnswer { granted: true }),
        ];
        for (term, body) in answers {
            let message = Message { from: MemberId(2), to: MemberId(1), term, body };
            self.turn(Input::Receive(message));
        }
        if self.raft.status().role == RoleName::Leader && prng.chance(1, 2) {
            let last = self.raft.status().last;
            let outcome = AppendOutcome::Accepted { matched: last };
            let body = Body::AppendAnswer { outcome };
            let term = self.raft.status().term;
            self.turn(Input::Receive(Message { from: MemberId(2), to: MemberId(1), term, body }));
        }
    }
}

/// A message that nearly makes sense.
fn forge(prng: &mut Prng, term: Term, last: Index) -> Message {
    let near = |prng: &mut Prng, value: u64| match prng.below(60) {
        0 => u64::MAX - prng.below(3),
        1 => 0,
        2 => 1 << 62,
        _ => (value + prng.below(7)).saturating_sub(3),
    };
    let position =
        |prng: &mut Prng| Position::new(Term(near(prng, term.0)), Index(near(prng, last.0)));
    let outcome = match prng.chance(1, 2) {
        true => AppendOutcome::Accepted { matched: position(prng) },
        false => AppendOutcome::Conflict {
            rejected: position(prng),
            hint: position(prng),
            commit: Index(near(prng, last.0)),
            last: Index(near(prng, last.0)),
        },
    };
    let body = match prng.below(14) {
        0 => Body::PreVoteRequest { campaign: Term(near(prng, term.0)), last: position(prng) },
        1 => Body::PreVoteAnswer { campaign: Term(near(prng, term.0)), granted: prng.chance(1, 2) },
        2 => Body::VoteRequest { last: position(prng), transfer: prng.chance(1, 4) },
        3 => Body::VoteAnswer { granted: prng.chance(1, 2) },
        4..7 => forge_append(prng, term, last),
        7 | 8 => Body::AppendAnswer { outcome },
        9 => Body::Heartbeat { round: prng.below(9), commit: Index(near(prng, last.0)) },
        10 => Body::HeartbeatAnswer {
            round: near(prng, 3),
            received: Index(near(prng, last.0)),
            last: Index(near(prng, last.0)),
            matched: position(prng),
        },
        11 if prng.chance(1, 4) => Body::SnapshotWanted,
        11 => Body::CommitNotice { commit: Index(near(prng, last.0)) },
        12 => match prng.chance(1, 2) {
            true => Body::ReadRequest { context: prng.next_u64() },
            false => Body::ReadAnswer {
                context: prng.next_u64(),
                index: prng.chance(1, 2).then(|| Index(near(prng, last.0))),
            },
        },
        _ if prng.chance(1, 3) => Body::TimeoutNow,
        _ => Body::SnapshotNotice { position: position(prng) },
    };
    let term = if prng.chance(2, 3) { term } else { Term(near(prng, term.0)) };
    Message { from: MemberId(prng.between(1, 4)), to: MemberId(1), term, body }
}

fn forge_append(prng: &mut Prng, term: Term, last: Index) -> Body {
    let prev_index = last.0.saturating_sub(prng.below(4)) + prng.below(2);
    let prev = Position::new(Term(term.0.saturating_sub(prng.below(3))), Index(prev_index));
    let mut at = prev.term.0;
    let mut entries = Vec::new();
    for index in prev_index + 1..=prev_index + prng.below(4) {
        at += prng.below(2);
        let kind = *prng.pick(&[EntryKind::Command, EntryKind::Noop, EntryKind::Config]).unwrap();
        let payload = match kind {
            EntryKind::Config if prng.chance(2, 3) => {
                Members::new((1..=prng.between(3, 5)).map(MemberId)).unwrap().encode()
            }
            _ => Bytes::from_static(b"payload"),
        };
        let mut entry = Entry::new(Term(at), Index(index), kind, payload);
        entry.checksum ^= u32::from(prng.chance(1, 20));
        entries.push(entry);
    }
    Body::Append { prev, commit: Index(last.0.saturating_sub(2) + prng.below(4)), entries }
}
