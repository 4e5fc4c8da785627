//! Several servers' replays as one run to be looked at: put in order by their messages.
//!
//! Clocks of different machines differ, so the order of two servers' turns follows from what one
//! has received of the other; wall clocks decide where nothing else does.

use std::collections::{BTreeMap, VecDeque};

use bytes::Bytes;
use kvraft_base::{Index, Instant, MemberId, Term, checksum};
use kvraft_replica::{Frame, Hop};
use kvraft_trace::run::Run;

use super::SeenTurn;
use crate::cluster::{Recording, RecordingSent};

/// One server's turns.
#[derive(Debug)]
pub struct Viewed {
    /// Whose they are.
    pub member: MemberId,
    /// In order.
    pub turns: Vec<SeenTurn>,
}

/// A frame that a server has sent: which turn, and which of its hops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct SentAt {
    turn: usize,
    hop: usize,
}

/// For each server and turn, whose frame came from which turn of whom.
type Sources = BTreeMap<(MemberId, usize, usize), SentAt>;

/// One run of all of them. Frames of servers whose recordings are not there came from nowhere.
#[must_use]
pub fn merge(servers: &[Viewed], title: &str) -> Run {
    let sources = match_frames(servers);
    let delivered: std::collections::BTreeSet<(MemberId, SentAt)> = sources
        .iter()
        .map(|((to, turn, frame), sent)| {
            let from = turns_of(servers, *to)[*turn].frames[*frame].0;
            (from, *sent)
        })
        .collect();
    let members: Vec<MemberId> = servers.iter().map(|server| server.member).collect();
    let mut recording = Recording::new(&members, &[]);
    let mut done: BTreeMap<MemberId, usize> = members.iter().map(|id| (*id, 0)).collect();
    let mut sent: BTreeMap<(MemberId, SentAt), RecordingSent> = BTreeMap::new();
    let origin = servers.iter().filter_map(|s| s.turns.first()).map(|t| t.now.wall_ms).min();
    let mut now = 0;
    while let Some((server, turn)) = next(servers, &done, &sources) {
        let seen = &server.turns[turn];
        // A turn is shown no earlier than what it follows from.
        now = now.max((seen.now.wall_ms - origin.unwrap_or(0).min(seen.now.wall_ms)) * 1_000_000);
        let at = Instant(now);
        recording.begin_step();
        if let Some(begins) = &seen.begins {
            let terms = begins.iter().map(|(index, term)| (Index(*index), Term(*term))).collect();
            recording.on_start(at, server.member, Some((&seen.status, &terms)));
        }
        for frame in 0..seen.frames.len() {
            let key = (server.member, turn, frame);
            let from = seen.frames[frame].0;
            let source = sources.get(&key).and_then(|source| sent.get(&(from, *source)));
            match source {
                Some(sent) => recording.on_frame_arrived(at, server.member, *sent, false),
                None => {
                    if let Ok(frame) = Frame::decode(seen.frames[frame].1.clone()) {
                        recording.on_frame_of_stranger(at, server.member, from, &frame);
                    }
                }
            }
        }
        recording.on_turn(at, server.member, &seen.status, &seen.hops);
        for (hop, (to, frame)) in frames_sent(seen) {
            let Ok(frame) = Frame::decode(frame.clone()) else { continue };
            let name = (server.member, SentAt { turn, hop });
            let is_lost = members.contains(&to) && !delivered.contains(&name);
            let events = recording.on_frame_sent(at, (server.member, to), &frame, is_lost);
            sent.insert(name, events);
        }
        *done.get_mut(&server.member).expect("every server is in it") += 1;
    }
    recording.finish_replay(title)
}

fn turns_of(servers: &[Viewed], member: MemberId) -> &[SeenTurn] {
    let server = servers.iter().find(|server| server.member == member);
    server.map_or(&[], |server| &server.turns)
}

/// The next turn: of those whose frames have all been sent, the earliest by the wall clock. If
/// there is none, a frame was taken for another, and the earliest of all goes on.
fn next<'a>(
    servers: &'a [Viewed],
    done: &BTreeMap<MemberId, usize>,
    sources: &Sources,
) -> Option<(&'a Viewed, usize)> {
    let is_ready = |server: &Viewed, turn: usize| {
        (0..server.turns[turn].frames.len()).all(|frame| {
            let from = server.turns[turn].frames[frame].0;
            let source = sources.get(&(server.member, turn, frame));
            source.is_none_or(|source| done.get(&from).is_none_or(|done| source.turn < *done))
        })
    };
    let waiting = servers.iter().filter_map(|server| {
        let turn = done[&server.member];
        let seen = server.turns.get(turn)?;
        Some((!is_ready(server, turn), seen.now.wall_ms, server.member, server, turn))
    });
    let first = waiting.min_by_key(|(blocked, at, member, _, _)| (*blocked, *at, *member));
    first.map(|(_, _, _, server, turn)| (server, turn))
}

fn frames_sent(seen: &SeenTurn) -> impl Iterator<Item = (usize, (MemberId, &Bytes))> {
    seen.hops.iter().enumerate().filter_map(|(at, hop)| match hop {
        Hop::Peer { to, frame, .. } => Some((at, (*to, frame))),
        _ => None,
    })
}

/// What tells a frame from others, whatever was left out of it.
fn fingerprint(frame: &Bytes) -> (u32, usize) {
    (checksum(Frame::head(frame)), frame.len())
}

/// Finds for each frame that arrived the one that was sent: in order, equal ones first come first
/// served.
fn match_frames(servers: &[Viewed]) -> Sources {
    let mut sent: BTreeMap<(MemberId, MemberId, (u32, usize)), VecDeque<SentAt>> = BTreeMap::new();
    for server in servers {
        for (turn, seen) in server.turns.iter().enumerate() {
            for (hop, (to, frame)) in frames_sent(seen) {
                let key = (server.member, to, fingerprint(frame));
                sent.entry(key).or_default().push_back(SentAt { turn, hop });
            }
        }
    }
    let mut sources = Sources::new();
    for server in servers {
        for (turn, seen) in server.turns.iter().enumerate() {
            for (at, (from, frame)) in seen.frames.iter().enumerate() {
                let key = (*from, server.member, fingerprint(frame));
                if let Some(found) = sent.get_mut(&key).and_then(VecDeque::pop_front) {
                    sources.insert((server.member, turn, at), found);
                }
            }
        }
    }
    sources
}
