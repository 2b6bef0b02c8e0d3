//! Delay before the next attempt.

/// Exponential backoff with equal jitter: half of the delay is fixed, half is random.
///
/// Equal jitter keeps a floor under the delay (a machine that has just failed is left alone for a while) and still
/// spreads the attempts of many machines that failed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// Delay after the first failure, in milliseconds.
    pub first_ms: u64,
    /// Longest delay, in milliseconds.
    pub ms_max: u64,
}

impl Backoff {
    /// Delay in milliseconds after `failures` (from 1) failures in a row, given 64 random bits.
    #[must_use]
    pub fn delay_ms(self, failures: u32, random: u64) -> u64 {
        let doublings = failures.saturating_sub(1).min(32);
        let full = self.first_ms.saturating_mul(1 << doublings).min(self.ms_max);
        let fixed = full / 2;
        fixed + random % (full - fixed + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn delays_double_up_to_the_bound() {
        let backoff = Backoff { first_ms: 100, ms_max: 1_000 };
        let longest = |failures| backoff.delay_ms(failures, 50 * 3 - 100);
        assert_eq!((1..=3).map(longest).collect::<Vec<_>>(), [50 + 50, 100 + 50, 200 + 50]);
    }

    proptest! {
        #[test]
        fn a_delay_lies_between_half_and_all_of_its_step(
            first_ms in 0_u64..1 << 40, ms_max in 0_u64..1 << 40, failures in 0_u32.., random in 0_u64..,
        ) {
            let delay = Backoff { first_ms, ms_max }.delay_ms(failures, random);
            prop_assert!(delay <= ms_max);
            prop_assert!(delay >= first_ms.min(ms_max) / 2);
        }
    }
}
