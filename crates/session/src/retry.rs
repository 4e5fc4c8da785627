//! How long to wait before trying again.

use std::time::Duration;

use kvraft_base::Prng;
use thiserror::Error;

/// Exponential back-off with jitter.
///
/// The n-th pause is drawn uniformly from the upper half of `pause_min * 2^n`, at most `pause_max`:
/// half of it is certain, so that a server in trouble gets rest, and half random, so that clients
/// that failed together do not return together.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetryPolicy {
    /// Greatest first pause. Greater than zero.
    pub pause_min: Duration,
    /// Greatest pause at all. At least `pause_min`.
    pub pause_max: Duration,
    /// How long one attempt may take before another server is asked, where asking again is allowed.
    /// Greater than zero.
    pub attempt_timeout: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            pause_min: Duration::from_millis(20),
            pause_max: Duration::from_millis(500),
            attempt_timeout: Duration::from_secs(2),
        }
    }
}

/// A policy that cannot work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RetryPolicyError {
    /// A pause of zero would spin.
    #[error("the shortest pause must be greater than zero")]
    PauseMinZero,
    /// The bounds are swapped.
    #[error("the longest pause must not be below the shortest")]
    PauseMaxBelowMin,
    /// No attempt could ever succeed.
    #[error("the attempt timeout must be greater than zero")]
    AttemptTimeoutZero,
}

impl RetryPolicy {
    /// Checks the bounds that the fields promise.
    ///
    /// # Errors
    /// The first bound that does not hold.
    pub fn validate(&self) -> Result<(), RetryPolicyError> {
        if self.pause_min.is_zero() {
            return Err(RetryPolicyError::PauseMinZero);
        }
        if self.pause_max < self.pause_min {
            return Err(RetryPolicyError::PauseMaxBelowMin);
        }
        if self.attempt_timeout.is_zero() {
            return Err(RetryPolicyError::AttemptTimeoutZero);
        }
        Ok(())
    }

    /// The pause after `count` earlier ones.
    pub(crate) fn pause(&self, count: u32, prng: &mut Prng) -> Duration {
        let factor = 1_u32.checked_shl(count).unwrap_or(u32::MAX);
        let greatest = self.pause_min.saturating_mul(factor).min(self.pause_max);
        prng.duration(greatest / 2, greatest)
    }
}
