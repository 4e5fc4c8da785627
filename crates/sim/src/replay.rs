//! Runs recordings of real servers again: the same lanes, given what they were given.
//!
//! Why here: a replay is a world like the simulated one, in which time and inputs come from files.
//!
//! Each server is run by itself: its recorded inputs are all that it needs. What several have in
//! common, messages, is only looked for when the run is shown ([`Viewed`]).
//!
//! Invariant: a recording never makes a replay panic. A lane that breaks one of its assertions is
//! caught and told, as a server that did the same would be.
//!
//! What it lacks: the disk lanes, and answers to queries.

mod merge;

use std::panic::{AssertUnwindSafe, catch_unwind};

use kvraft_base::{ClusterId, MemberId};
use kvraft_kv::Kv;
use kvraft_raft::Status;
use kvraft_replica::{
    Hop, MachineLane, NodeIn, Now,
    flight::{Difference, Follows, Replay, Segment, SegmentError, Step},
};

pub use merge::{Viewed, merge};

/// A segment, and how its file is called.
#[derive(Clone, Debug)]
pub struct NamedSegment {
    /// For messages.
    pub name: String,
    /// What is in it.
    pub segment: Segment,
}

/// What is kept of each turn for those who look at it.
#[derive(Debug)]
pub struct SeenTurn {
    /// The clocks.
    pub now: Now,
    /// Frames that came in, with their senders.
    pub frames: Vec<(MemberId, bytes::Bytes)>,
    /// What the node sent.
    pub hops: Vec<Hop>,
    /// The node's state after it.
    pub status: Status,
    /// The recording begins here, or goes on after a gap: terms of the log as far as it is known.
    pub begins: Option<Vec<(u64, u64)>>,
}

/// A turn that came out otherwise than it was recorded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// Which file.
    pub file: String,
    /// The block of the file that the turn is in, by its offset.
    pub offset: u64,
    /// Which turn of the file, from 1.
    pub turn: u64,
    /// What is different.
    pub what: String,
}

/// What a replay of one server has come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Turns that were run again.
    pub turns: u64,
    /// Digests and hashes that were compared, all equal but the last if there is a divergence.
    pub compared: u64,
    /// Places where two segments meet, whose whole states were equal.
    pub borders: u64,
    /// The first turn that came out otherwise.
    pub divergence: Option<Divergence>,
    /// What whoever looks at it should know: gaps, torn ends, files that cannot be read.
    pub notes: Vec<String>,
    /// The last state of the machine: applied index and hash; none where it is not recorded.
    pub state: Option<(u64, u64)>,
}

/// Whose recording it is.
///
/// # Errors
/// A sentence, when the segments are not of one server.
pub fn owner(segments: &[NamedSegment]) -> Result<(ClusterId, MemberId), String> {
    let first = segments.first().ok_or("there is no file of a recording in it")?;
    let of = |named: &NamedSegment| (named.segment.header.cluster, named.segment.header.member);
    match segments.iter().find(|named| of(named) != of(first)) {
        None => Ok(of(first)),
        Some(other) => Err(format!("{} and {} are of different servers", first.name, other.name)),
    }
}

/// Runs a server's segments, in order. `progress` hears of bytes done; `see` of every turn.
pub fn replay(
    segments: &[NamedSegment],
    software: &str,
    mut progress: impl FnMut(u64),
    mut see: impl FnMut(SeenTurn),
) -> Outcome {
    let mut outcome = Outcome::default();
    let mut running: Option<Replay> = None;
    for (at, named) in segments.iter().enumerate() {
        let begun = begin(named, running.take(), at == 0, software, &mut outcome);
        let (mut replay, fresh) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                outcome.notes.push(format!("{}: {error}; it is left out", named.name));
                continue;
            }
        };
        if outcome.divergence.is_some() {
            return outcome;
        }
        let mut begins = fresh.then(|| terms(&replay));
        for (number, step) in (1..).zip(named.segment.steps()) {
            let step = match step {
                Ok(step) => step,
                Err(error) => {
                    outcome.notes.push(format!("{}: {error}; nothing behind is run", named.name));
                    break;
                }
            };
            let seen = play(&mut replay, step, (named, number), &mut outcome);
            if let Some(mut seen) = seen {
                seen.begins = begins.take();
                see(seen);
            }
            if outcome.divergence.is_some() {
                return outcome;
            }
        }
        progress(named.segment.records_size_bytes());
        note_end(named, at + 1 == segments.len(), &mut outcome);
        outcome.state = replay.machine().map(MachineLane::kv).map(state_of);
        running = Some(replay);
    }
    outcome
}

fn state_of(kv: &Kv) -> (u64, u64) {
    (kv.applied().index.0, kv.state_hash())
}

/// The lanes at the beginning of a segment: as the one before has left them, or as this one says.
fn begin(
    named: &NamedSegment,
    running: Option<Replay>,
    is_first: bool,
    software: &str,
    outcome: &mut Outcome,
) -> Result<(Replay, bool), SegmentError> {
    let Segment { header, .. } = &named.segment;
    if header.software != software {
        let name = &named.name;
        let wrote = &header.software;
        outcome.notes.push(format!("{name}: written by {wrote}, run by {software}"));
    }
    let image = named.segment.image()?;
    if header.follows == Follows::Nothing
        && let Some(mut replay) = running
    {
        let met = catch_unwind(AssertUnwindSafe(|| replay.meet(&image)));
        let difference = met.unwrap_or(Some(Difference::Border));
        outcome.borders += u64::from(difference.is_none());
        outcome.divergence = difference.map(|what| Divergence {
            file: named.name.clone(),
            offset: 0,
            turn: 0,
            what: what.to_string(),
        });
        return Ok((replay, false));
    }
    match header.follows {
        Follows::Gap(count) => {
            outcome.notes.push(format!("{}: {count} turns before it are not recorded", named.name))
        }
        Follows::Nothing if !is_first => {
            outcome.notes.push(format!("{}: what it goes on from is not there", named.name));
        }
        Follows::Nothing | Follows::Start => {}
    }
    if !image.has_machine() {
        let why = match header.is_redacted {
            true => "it is redacted",
            false => "the state of the machine was too large",
        };
        outcome.notes.push(format!("{}: {why}: consensus alone is run", named.name));
    }
    Ok((Replay::new(image), true))
}

fn play(
    replay: &mut Replay,
    step: Step,
    (named, number): (&NamedSegment, u64),
    outcome: &mut Outcome,
) -> Option<SeenTurn> {
    let (now, offset) = (step.turn.now, step.offset);
    let frames = step.turn.node.iter().filter_map(frame_of).collect();
    let has_end = step.end.is_some();
    let diverged = |what| Divergence { file: named.name.clone(), offset, turn: number, what };
    outcome.turns += 1;
    let played = catch_unwind(AssertUnwindSafe(|| (replay.play(step), replay.status())));
    let (played, status) = match played {
        Ok(played) => played,
        Err(panic) if has_end => {
            outcome.divergence = Some(diverged(format!("a lane panics: {}", text_of(&panic))));
            return None;
        }
        Err(panic) => {
            let what = text_of(&panic);
            outcome.notes.push(format!("{}: turn {number} ends in a panic: {what}", named.name));
            return None;
        }
    };
    if !has_end {
        outcome.notes.push(format!("{}: the server ended in turn {number}", named.name));
    }
    outcome.compared += played.compared;
    outcome.divergence = played.difference.map(|what| diverged(what.to_string()));
    let mut hops = played.node;
    hops.extend(played.machine);
    Some(SeenTurn { now, frames, hops, status, begins: None })
}

fn text_of(panic: &Box<dyn std::any::Any + Send>) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no words").to_owned()
}

fn frame_of(input: &NodeIn) -> Option<(MemberId, bytes::Bytes)> {
    match input {
        NodeIn::Frame { from, frame } => Some((*from, frame.clone())),
        _ => None,
    }
}

fn terms(replay: &Replay) -> Vec<(u64, u64)> {
    let status = replay.status();
    let indexes = status.released.index.0 + 1..=status.last.index.0;
    let raft = replay.node().raft();
    let term_at = |index| Some((index, raft.term_at(kvraft_base::Index(index))?.0));
    indexes.filter_map(term_at).collect()
}

fn note_end(named: &NamedSegment, is_last: bool, outcome: &mut Outcome) {
    if let Some(torn) = &named.segment.torn {
        outcome.notes.push(format!("{}: {torn}; nothing behind is run", named.name));
    } else if named.segment.cut.is_none() {
        let when = if is_last { "was killed, or still runs" } else { "was killed" };
        outcome.notes.push(format!("{}: the server {when}", named.name));
    }
}
