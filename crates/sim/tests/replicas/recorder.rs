//! A flight recorder in memory for one server that is stepped by hand.
//!
//! Every process is recorded from its first turn to its last, in segments of a few hundred turns.
//! When it ends, what was recorded is run again, and must come to the same digests, the same states
//! where segments meet, and the same state in the end.

use std::{collections::BTreeSet, time::Duration};

use bytes::Bytes;
use kvraft_base::{ClusterId, Instant, MemberId};
use kvraft_replica::{
    Hop, MachineIn, NodeIn, Now, Replica,
    flight::{
        Cut, Follows, Header, Image, Replay, Segment, Tape, end_block, header_bytes, image_block,
        records_block, seal_block,
    },
};
use kvraft_sim::replay::{NamedSegment, replay};

const SOFTWARE: &str = "test";

/// Turns of a segment.
const SEGMENT_TURNS: u64 = 400;

/// A second in which something was applied has a hash of the whole state.
const HASH_INTERVAL: Duration = Duration::from_secs(1);

/// Turns of a block.
const BLOCK_TURNS: u64 = 50;

/// See the module.
#[derive(Default)]
pub(crate) struct Recorder {
    member: u64,
    /// There while turns are recorded.
    tape: Option<Tape>,
    /// The present segment.
    file: Vec<u8>,
    files: Vec<(Header, Vec<u8>)>,
    /// Turns of the present segment.
    turns: u64,
    /// Turns of all segments.
    turns_all: u64,
    /// Turns that no segment has, since the last one.
    missing: Option<u64>,
    borders: u64,
    gaps: u64,
    /// When the machine's whole state was hashed last, by the present tape, and up to where it had
    /// applied then.
    hashed: (Instant, u64),
    hashes: u64,
}

impl Recorder {
    pub(crate) fn new(member: MemberId) -> Self {
        Self { member: member.0, ..Self::default() }
    }

    /// A turn begins.
    pub(crate) fn begin(
        &mut self,
        now: Now,
        replica: &mut Replica,
        (node, machine): (&[NodeIn], &[MachineIn]),
    ) {
        if self.tape.is_none() || self.turns == SEGMENT_TURNS {
            self.begin_segment(now, replica);
        }
        let Some(tape) = &mut self.tape else {
            self.missing = self.missing.map(|count| count + 1);
            return;
        };
        if tape.turn(now, node, machine) {
            self.turns += 1;
            self.turns_all += 1;
            return;
        }
        self.end_segment(Cut::Installed);
        let tape = self.tape.take().expect("it is there");
        tape.stop(&mut replica.machine);
        self.missing = Some(1);
    }

    fn begin_segment(&mut self, now: Now, replica: &mut Replica) {
        let Some(image) = Image::of(&mut replica.node, &replica.machine, u64::MAX) else { return };
        let follows = match (self.tape.is_some(), self.missing.take()) {
            (true, _) => Follows::Nothing,
            (false, Some(count)) => Follows::Gap(count),
            (false, None) => Follows::Start,
        };
        if follows == Follows::Nothing {
            self.end_segment(Cut::Full);
            self.borders += 1;
        } else {
            self.tape = Some(Tape::new(&mut replica.machine));
            self.hashed = (Instant(0), 0);
            self.gaps += u64::from(follows != Follows::Start);
        }
        let header = Header {
            software: SOFTWARE.into(),
            cluster: ClusterId(1),
            member: MemberId(self.member),
            incarnation: 1 << 40,
            number: self.files.len() as u64 + 1,
            wall_ms: now.wall_ms,
            follows,
            is_redacted: false,
        };
        self.turns = 0;
        self.file = header_bytes(&header).to_vec();
        self.add(&image_block(&image));
        self.files.push((header, Vec::new()));
    }

    fn add(&mut self, block: &[u8]) {
        let head = seal_block(self.file.len() as u64, block);
        self.file.extend_from_slice(&head);
        self.file.extend_from_slice(block);
    }

    fn add_records(&mut self) {
        let tape = self.tape.as_mut().expect("a segment has a tape");
        let block = records_block(tape.bytes());
        tape.clear();
        self.add(&block);
    }

    fn end_segment(&mut self, why: Cut) {
        self.add_records();
        self.add(&end_block(why));
        self.files.last_mut().expect("a segment has begun").1 = std::mem::take(&mut self.file);
    }

    /// The node has made its step.
    pub(crate) fn node_done(&mut self, replica: &Replica, hops: &[Hop]) {
        if let Some(tape) = &mut self.tape {
            tape.node_done(&replica.node, hops);
        }
    }

    /// The turn is over.
    pub(crate) fn end(&mut self, now: Now, replica: &mut Replica, hops: &[Hop]) {
        if let Some(tape) = &mut self.tape {
            tape.end(&mut replica.machine, hops);
            let (at, applied) = (now.instant, replica.machine.kv().applied().index.0);
            if self.hashed.0 + HASH_INTERVAL <= at && self.hashed.1 != applied {
                self.hashed = (at, applied);
                self.hashes += 1;
            }
            if self.turns.is_multiple_of(BLOCK_TURNS) {
                self.add_records();
            }
        }
    }

    /// The process ends: runs all of it again.
    pub(crate) fn finish(mut self, replica: &Replica) {
        let is_whole = self.tape.is_some();
        if is_whole {
            self.end_segment(Cut::Stopped);
        }
        let segments: Vec<NamedSegment> = self.files.into_iter().map(read).collect();
        let outcome = replay(&segments, SOFTWARE, |_| {}, |_| {});
        assert_eq!(outcome.divergence, None);
        if let Some(first) = segments.first() {
            assert_differs(&first.segment);
            assert_digest_moves(&first.segment);
        }
        assert_eq!((outcome.turns, outcome.borders), (self.turns_all, self.borders));
        let compared = 2 * self.turns_all + self.hashes;
        assert_eq!(outcome.compared, compared, "each turn has two digests, and some a hash");
        assert_eq!(outcome.notes.len() as u64, self.gaps, "{:?}", outcome.notes);
        let kv = replica.machine.kv();
        let state = (kv.applied().index.0, kv.state_hash());
        assert!(!is_whole || outcome.state.is_none_or(|replayed| replayed == state));
    }
}

/// The file is read as it was written.
fn read((header, file): (Header, Vec<u8>)) -> NamedSegment {
    let segment = Segment::read(&Bytes::from(file)).expect("it is a segment");
    assert_eq!(segment.header, header);
    assert!(segment.torn.is_none() && segment.cut.is_some(), "{:?}", segment.torn);
    NamedSegment { name: format!("segment {}", segment.header.number), segment }
}

/// Who is given something else comes to other digests.
fn assert_differs(segment: &Segment) {
    let mut replay = Replay::new(segment.image().expect("it is an image"));
    let mut is_moved = false;
    for step in segment.steps() {
        let mut step = step.expect("it is a turn");
        // A written entry is what every state depends on.
        is_moved |= step.turn.node.iter().any(|input| matches!(input, NodeIn::Durable(_)));
        step.turn.node.clear();
        if replay.play(step).difference.is_some() {
            return;
        }
    }
    assert!(!is_moved, "nothing differs");
}

/// Whoever applies comes to other digests: a number that never moves would agree with everything.
fn assert_digest_moves(segment: &Segment) {
    let mut replay = Replay::new(segment.image().expect("it is an image"));
    let (mut applied, mut digests) = (BTreeSet::new(), BTreeSet::new());
    for step in segment.steps() {
        let step = step.expect("it is a turn");
        let end = step.end.as_ref().map(|end| end.machine);
        replay.play(step);
        if let (Some(digest), Some(machine)) = (end, replay.machine()) {
            applied.insert(machine.kv().applied().index);
            digests.insert(digest);
        }
    }
    assert!(applied.len() < 2 || 1 < digests.len(), "the machine's digest stands still");
}
