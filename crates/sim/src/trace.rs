//! What a run did, in 64 bits and in the last few lines.
//!
//! Every event goes into a rolling hash: two runs of one seed that differ anywhere end with
//! different hashes. The last events are kept as text for a person, if room was given; text that
//! nobody will see is never made.
//!
//! Invariant: the hash depends on events and their order only, never on whether lines are kept.
//!
//! What it lacks: strength against an adversary. It is a fingerprint, not a signature.

use std::{collections::VecDeque, fmt};

use kvraft_base::Instant;

use crate::network::Endpoint;

/// The rolling hash alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceHash(u64);

impl TraceHash {
    /// The hash of nothing.
    pub const EMPTY: Self = Self(0x6b76_7261_6674_0001);

    /// Mixes in one number. Order matters.
    pub fn mix(&mut self, number: u64) {
        // A 64 by 64 to 128 bit product folded on itself: each input bit reaches every output bit.
        let left = self.0 ^ number.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let right = self.0.rotate_left(29) ^ 0xd6e8_feb8_6659_fd93;
        let product = u128::from(left) * u128::from(right | 1);
        let low = u64::try_from(product & u128::from(u64::MAX)).expect("masked to 64 bits");
        let high = u64::try_from(product >> 64).expect("shifted to 64 bits");
        self.0 = low ^ high ^ left.rotate_left(41);
    }

    /// Mixes in bytes, with their count, so that two pieces are not the same as one.
    pub fn mix_bytes(&mut self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    /// The hash so far.
    #[must_use]
    pub fn value(self) -> u64 {
        self.0
    }
}

/// The fingerprint of some bytes: what an event's digest may be made of.
#[must_use]
pub fn digest(bytes: &[u8]) -> u64 {
    let mut hash = TraceHash::EMPTY;
    hash.mix_bytes(bytes);
    hash.value()
}

/// One event as a person reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceLine {
    /// Number of the event in its run, from 0.
    pub number: u64,
    /// When.
    pub at: Instant,
    /// Where; `None` is the world itself.
    pub node: Option<Endpoint>,
    /// What kind of event.
    pub kind: &'static str,
    /// In the event's own words.
    pub detail: String,
}

impl fmt::Display for TraceLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { number, at, node, kind, detail } = self;
        let node = node.map_or_else(|| "world".to_owned(), |node| node.to_string());
        let line = format!("{number:>8} {:>14} {node:<5} {kind:<12} {detail}", at.to_string());
        f.write_str(line.trim_end())
    }
}

/// A run's fingerprint and its last events.
#[derive(Clone, Debug)]
pub struct Trace {
    hash: TraceHash,
    count: u64,
    lines: VecDeque<TraceLine>,
    line_count_max: usize,
    /// The hash after each block of events, if asked for.
    marks: Option<Vec<u64>>,
}

/// Events between two marks.
const MARK_EVENT_COUNT: u64 = 256;

impl Trace {
    /// A trace that keeps the last `line_count_max` events as text.
    #[must_use]
    pub fn new(line_count_max: usize) -> Self {
        let hash = TraceHash::EMPTY;
        Self { hash, count: 0, lines: VecDeque::new(), line_count_max, marks: None }
    }

    /// Also notes the hash now and then, so that [`Trace::first_difference`] can tell where two
    /// runs parted.
    #[must_use]
    pub fn with_marks(mut self) -> Self {
        self.marks = Some(Vec::new());
        self
    }

    /// Records an event. `digest` stands for its content; `detail` is called only if lines are
    /// kept.
    pub fn record(
        &mut self,
        at: Instant,
        node: Option<Endpoint>,
        kind: &'static str,
        digest: u64,
        detail: impl FnOnce() -> String,
    ) {
        self.hash.mix(at.0);
        self.hash.mix(node_number(node));
        self.hash.mix_bytes(kind.as_bytes());
        self.hash.mix(digest);
        if 0 < self.line_count_max {
            if self.lines.len() == self.line_count_max {
                self.lines.pop_front();
            }
            let line = TraceLine { number: self.count, at, node, kind, detail: detail() };
            self.lines.push_back(line);
        }
        self.count += 1;
        if let Some(marks) = &mut self.marks
            && self.count.is_multiple_of(MARK_EVENT_COUNT)
        {
            marks.push(self.hash.value());
        }
    }

    /// Fingerprint of all events so far.
    #[must_use]
    pub fn hash(&self) -> u64 {
        self.hash.value()
    }

    /// Number of events so far.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The last events, oldest first.
    pub fn lines(&self) -> impl Iterator<Item = &TraceLine> {
        self.lines.iter()
    }

    /// The range of event numbers in which two traces first differ; `None` when they are equal.
    /// With marks in both it is a block's width, without it is everything.
    #[must_use]
    pub fn first_difference(&self, other: &Self) -> Option<std::ops::Range<u64>> {
        if self.hash == other.hash && self.count == other.count {
            return None;
        }
        let none = Vec::new();
        let (left, right) =
            (self.marks.as_ref().unwrap_or(&none), other.marks.as_ref().unwrap_or(&none));
        let equal_count = left.iter().zip(right).take_while(|(left, right)| left == right).count();
        let start = equal_count as u64 * MARK_EVENT_COUNT;
        let marked = equal_count < left.len().min(right.len());
        let end = if marked { start + MARK_EVENT_COUNT } else { self.count.max(other.count) };
        Some(start..end)
    }
}

fn node_number(node: Option<Endpoint>) -> u64 {
    match node {
        None => 0,
        Some(Endpoint::Server(member)) => member.0 << 1,
        Some(Endpoint::Client(number)) => (number << 1) | 1,
    }
}

/// The last events in columns: number, time, node, kind, detail.
impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for line in &self.lines {
            writeln!(f, "{line}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use kvraft_base::{Instant, MemberId};

    use super::{Trace, TraceHash, digest};
    use crate::network::Endpoint;

    fn run(line_count_max: usize, count: u64, odd: Option<u64>) -> Trace {
        let mut trace = Trace::new(line_count_max).with_marks();
        for number in 0..count {
            let node = Some(Endpoint::Server(MemberId(number % 3 + 1)));
            let content = if odd == Some(number) { 999 } else { number };
            trace.record(Instant(number * 1_000), node, "deliver", content, || {
                format!("message {number}")
            });
        }
        trace
    }

    /// A fingerprint must mean the same in every build, or recorded ones are worthless.
    #[test]
    fn hash_of_a_trace_never_changes() {
        assert_eq!(run(0, 100, None).hash(), 3_977_190_522_201_682_145);
    }

    /// The text is a by-product: it changes nothing.
    #[test]
    fn hash_does_not_depend_on_lines_kept() {
        assert_eq!(run(0, 1_000, None).hash(), run(10, 1_000, None).hash());
        assert_ne!(run(0, 1_000, None).hash(), run(0, 1_000, Some(500)).hash());
        assert_ne!(run(0, 1_000, None).hash(), run(0, 999, None).hash());
    }

    /// Two runs that part are told where.
    #[test]
    fn first_difference_is_found() {
        let trace = run(0, 2_000, None);
        assert_eq!(trace.first_difference(&run(0, 2_000, None)), None);
        assert_eq!(trace.first_difference(&run(0, 2_000, Some(600))), Some(512..768));
        assert_eq!(trace.first_difference(&run(0, 2_000, Some(1_990))), Some(1_792..2_000));
        assert_eq!(trace.first_difference(&run(0, 1_500, None)), Some(1_280..2_000));
    }

    /// Only the last lines are kept, and they stand in columns.
    #[test]
    fn last_events_print_in_columns() {
        let mut trace = run(3, 12, None);
        trace.record(Instant(1_250_000_000), None, "heal", 0, String::new);
        assert_eq!(
            trace.to_string(),
            "      10      0.000010s s2    deliver      message 10\n\
             \u{20}     11      0.000011s s3    deliver      message 11\n\
             \u{20}     12      1.250000s world heal\n"
        );
        assert_eq!((trace.lines().count(), trace.count()), (3, 13));
    }

    /// Small inputs in every order and cut give different values.
    #[test]
    fn mixing_does_not_collide_easily() {
        let mut seen = BTreeSet::new();
        for left in 0..200 {
            for right in 0..200 {
                let mut hash = TraceHash::EMPTY;
                hash.mix(left);
                hash.mix(right);
                assert!(seen.insert(hash.value()), "{left} {right}");
            }
        }
        assert_ne!(digest(b""), digest(b"\0"));
        assert_ne!(digest(b"ab"), digest(b"ab\0"));
    }
}
