//! The clocks of one simulated machine: monotonic and wall, as wrong as real ones.
//!
//! Invariants:
//! - the monotonic clock never goes back, whatever its rate does;
//! - the wall clock moves with the monotonic one and may be set either way;
//! - a stopped clock shows the same time until it goes on.

use kvraft_base::Instant;

use crate::plan::RATE_PPM;

/// Both clocks of a machine, as functions of the world's time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    /// When rate or state changed last, in the world's time.
    since: Instant,
    /// What the monotonic clock showed then.
    shown: Instant,
    rate_ppm: u64,
    is_stopped: bool,
    /// Wall clock less monotonic clock, in milliseconds.
    wall_offset_ms: i64,
}

impl Clock {
    /// Clocks that agree with the world's, the wall clock showing `wall_ms` at its beginning.
    pub(crate) fn new(wall_ms: i64) -> Self {
        Self {
            since: Instant::ZERO,
            shown: Instant::ZERO,
            rate_ppm: RATE_PPM,
            is_stopped: false,
            wall_offset_ms: wall_ms,
        }
    }

    /// How fast the clocks run, of the world's time.
    pub(crate) fn rate_ppm(&self) -> u64 {
        self.rate_ppm
    }

    /// The clocks stand still.
    pub(crate) fn is_stopped(&self) -> bool {
        self.is_stopped
    }

    /// The monotonic clock.
    pub(crate) fn monotonic(&self, now: Instant) -> Instant {
        if self.is_stopped {
            return self.shown;
        }
        if self.rate_ppm == RATE_PPM {
            return self.shown + now.since(self.since);
        }
        let passed = now.since(self.since).as_nanos() * u128::from(self.rate_ppm);
        let passed = u64::try_from(passed / u128::from(RATE_PPM)).unwrap_or(u64::MAX);
        Instant(self.shown.0.saturating_add(passed))
    }

    /// The wall clock, in milliseconds since 1970; it stops at 0.
    pub(crate) fn wall_ms(&self, now: Instant) -> u64 {
        let monotonic_ms = i64::try_from(self.monotonic(now).0 / 1_000_000).unwrap_or(i64::MAX);
        u64::try_from(monotonic_ms.saturating_add(self.wall_offset_ms)).unwrap_or(0)
    }

    /// When, in the world's time, the monotonic clock will show `at`; never, if it is stopped.
    pub(crate) fn world_at(&self, at: Instant) -> Instant {
        if self.is_stopped || at == Instant::NEVER {
            return Instant::NEVER;
        }
        let left = u128::from(at.0.saturating_sub(self.shown.0)) * u128::from(RATE_PPM);
        let left = left.div_ceil(u128::from(self.rate_ppm));
        Instant(self.since.0.saturating_add(u64::try_from(left).unwrap_or(u64::MAX)))
    }

    /// From now on, time passes at this rate.
    pub(crate) fn set_rate(&mut self, now: Instant, rate_ppm: u64) {
        self.settle(now);
        self.rate_ppm = rate_ppm.max(1);
    }

    /// The machine stops, or goes on.
    pub(crate) fn set_stopped(&mut self, now: Instant, is_stopped: bool) {
        self.settle(now);
        self.is_stopped = is_stopped;
    }

    /// Somebody sets the wall clock.
    pub(crate) fn jump(&mut self, by_ms: i64) {
        self.wall_offset_ms = self.wall_offset_ms.saturating_add(by_ms);
    }

    fn settle(&mut self, now: Instant) {
        self.shown = self.monotonic(now);
        self.since = now;
    }
}

#[cfg(test)]
mod tests {
    use kvraft_base::{Instant, Prng};

    use super::Clock;

    /// Through any changes of rate the clock never goes back, and a deadline is reached exactly
    /// when the clock says so.
    #[test]
    fn monotonic_clock_keeps_its_word() {
        let mut prng = Prng::new(7);
        let mut clock = Clock::new(5_000);
        let (mut now, mut last) = (Instant::ZERO, Instant::ZERO);
        for _ in 0..2_000 {
            now = Instant(now.0 + prng.below(1_000_000_000));
            let shown = clock.monotonic(now);
            assert!(last <= shown, "the clock never goes back");
            last = shown;
            let deadline = Instant(shown.0 + prng.below(1_000_000_000));
            let at = clock.world_at(deadline);
            if at < Instant::NEVER {
                assert!(deadline <= clock.monotonic(at), "reached when it is said");
                assert!(now <= at || deadline <= shown);
            }
            match prng.below(4) {
                0 => clock.set_rate(now, prng.between(250_000, 4_000_000)),
                1 => clock.set_stopped(now, prng.chance(1, 2)),
                2 => clock.jump(-1_000),
                _ => {}
            }
        }
    }

    /// The wall clock goes where it is set, and no further back than its origin.
    #[test]
    fn wall_clock_jumps() {
        let mut clock = Clock::new(5_000);
        let now = Instant(2_000_000_000);
        assert_eq!(clock.wall_ms(now), 7_000);
        clock.jump(-3_000);
        assert_eq!(clock.wall_ms(now), 4_000);
        clock.jump(-30_000);
        assert_eq!(clock.wall_ms(now), 0);
        clock.set_stopped(now, true);
        assert_eq!(clock.monotonic(Instant(9_000_000_000)), now);
    }
}
