//! The project's only source of randomness below the edges: seeded, small, the same everywhere.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// xoshiro256** (Blackman and Vigna 2018), seeded through SplitMix64. Not for secrets.
///
/// One stream per concern: [`Prng::fork`] derives streams that do not disturb each other, so adding
/// a draw in one place leaves the others as they were.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Prng {
    state: [u64; 4],
}

fn split_mix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl Prng {
    /// A stream that is wholly determined by `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut mixer = seed;
        Self { state: std::array::from_fn(|_| split_mix(&mut mixer)) }
    }

    /// An independent stream for the concern called `label`; draws nothing from this one.
    #[must_use]
    pub fn fork(&self, label: &str) -> Self {
        let mut mixer = self.state[0] ^ self.state[2].rotate_left(17);
        for byte in label.bytes() {
            mixer = split_mix(&mut mixer) ^ u64::from(byte);
        }
        Self::new(split_mix(&mut mixer))
    }

    /// The next 64 uniformly distributed bits.
    pub fn next_u64(&mut self) -> u64 {
        let result = self.state[1].wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = self.state[1] << 17;
        self.state[2] ^= self.state[0];
        self.state[3] ^= self.state[1];
        self.state[1] ^= self.state[2];
        self.state[0] ^= self.state[3];
        self.state[2] ^= shifted;
        self.state[3] = self.state[3].rotate_left(45);
        result
    }

    /// A uniform number in `0..bound`.
    ///
    /// # Panics
    /// When `bound` is 0: there is no such number.
    pub fn below(&mut self, bound: u64) -> u64 {
        assert!(0 < bound, "cannot draw below zero");
        // Lemire's multiply-shift; its bias is under 2^-32 for every bound used here.
        let product = u128::from(self.next_u64()) * u128::from(bound);
        u64::try_from(product >> 64).expect("the upper half of 128 bits fits in 64")
    }

    /// A uniform number in `low..=high`.
    ///
    /// # Panics
    /// When `high < low`, or when the range is all of `u64`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        assert!(low <= high, "the range must not be empty");
        low + self.below(high - low + 1)
    }

    /// True `num` times in `den`, on average: `chance(1, 10)` is 10 %.
    ///
    /// # Panics
    /// When `den` is 0.
    pub fn chance(&mut self, num: u64, den: u64) -> bool {
        self.below(den) < num
    }

    /// A uniform duration in `low..=high`, to the nanosecond.
    ///
    /// # Panics
    /// When `high < low`.
    pub fn duration(&mut self, low: Duration, high: Duration) -> Duration {
        let nanos = |d: Duration| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX - 1);
        Duration::from_nanos(self.between(nanos(low), nanos(high)))
    }

    /// One of the items, uniformly; `None` of an empty slice.
    pub fn pick<'a, T>(&mut self, items: &'a [T]) -> Option<&'a T> {
        if items.is_empty() {
            return None;
        }
        let at = usize::try_from(self.below(items.len() as u64)).ok()?;
        items.get(at)
    }

    /// Fills `bytes` with random ones.
    pub fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let random = self.next_u64().to_le_bytes();
            chunk.copy_from_slice(&random[..chunk.len()]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Prng;

    /// The stream is a promise: recorded seeds must keep their meaning.
    #[test]
    fn stream_of_a_seed_never_changes() {
        let mut prng = Prng::new(42);
        let drawn: Vec<u64> = (0..3).map(|_| prng.next_u64()).collect();
        assert_eq!(
            drawn,
            [1_546_998_764_402_558_742, 6_990_951_692_964_543_102, 12_544_586_762_248_559_009]
        );
    }

    /// Forking draws nothing from the parent, and labels give different streams.
    #[test]
    fn forks_are_independent() {
        let mut parent = Prng::new(7);
        let mut left = parent.fork("left");
        let mut right = parent.fork("right");
        assert_ne!(left.next_u64(), right.next_u64());
        assert_eq!(parent.next_u64(), Prng::new(7).next_u64());
    }

    /// Bounds are respected at both ends.
    #[test]
    fn draws_stay_within_bounds() {
        let mut prng = Prng::new(1);
        let mut seen = [false; 3];
        for _ in 0..200 {
            let drawn = prng.between(5, 7);
            assert!((5..=7).contains(&drawn));
            seen[usize::try_from(drawn - 5).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
