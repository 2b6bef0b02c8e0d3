//! Duration of operations in the simulated world.

use std::fmt;
use std::str::FromStr;

use super::action::Action;

/// Largest factor of [`Timing::Scaled`].
pub const FACTOR_MAX: f64 = 10_000.0;

/// Factor of [`Timing::Slow`].
const SLOW_FACTOR: f64 = 6.0;

/// Duration of operations. There is no jitter: the same plan always takes the same time.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub enum Timing {
    /// A repave-join of five steps takes 2.5 s.
    #[default]
    Default,
    /// Six times as long, for demonstrations.
    Slow,
    /// Every action is done at once: no operation is ever accepted and polled.
    Zero,
    /// The default times multiplied by a factor.
    Scaled(f64),
}

impl Timing {
    /// Time that an action takes, in milliseconds.
    pub(super) fn of(self, action: Action) -> u64 {
        let factor = match self {
            Self::Default => 1.0,
            Self::Slow => SLOW_FACTOR,
            Self::Zero => return 0,
            Self::Scaled(factor) => factor.clamp(0.0, FACTOR_MAX),
        };
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            clippy::cast_precision_loss,
            reason = "the factor is bounded and not negative, and base times are a few thousand"
        )]
        let ms = (action.base_ms() as f64 * factor).round() as u64;
        ms
    }
}

impl fmt::Display for Timing {
    /// The form that [`Timing::from_str`] parses.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::Slow => f.write_str("slow"),
            Self::Zero => f.write_str("zero"),
            Self::Scaled(factor) => write!(f, "{factor}"),
        }
    }
}

/// A text that is not a timing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{text:?} is not a timing: expected default, slow, zero, or a factor such as 0.5, at most {FACTOR_MAX}"
)]
pub struct TimingError {
    text: String,
}

impl FromStr for Timing {
    type Err = TimingError;

    /// Parses the value of `--fake-timing`.
    fn from_str(text: &str) -> Result<Self, TimingError> {
        match text {
            "default" => Ok(Self::Default),
            "slow" => Ok(Self::Slow),
            "zero" => Ok(Self::Zero),
            _ => match text.parse::<f64>() {
                Ok(0.0) => Ok(Self::Zero),
                Ok(factor) if factor > 0.0 && factor <= FACTOR_MAX => Ok(Self::Scaled(factor)),
                Ok(_) | Err(_) => Err(TimingError { text: text.to_owned() }),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repave_join_takes_two_and_a_half_seconds() {
        let steps =
            [Action::SetNetboot, Action::Repave, Action::MintJoin, Action::Join, Action::Verify];
        let total = |timing: Timing| -> u64 { steps.iter().map(|action| timing.of(*action)).sum() };
        assert_eq!(total(Timing::Default), 2_500);
        assert_eq!(total(Timing::Slow), 15_000);
        assert_eq!(total(Timing::Zero), 0);
        assert_eq!(total(Timing::Scaled(0.1)), 250);
    }

    #[test]
    fn timings_read_back() {
        for timing in [Timing::Default, Timing::Slow, Timing::Zero, Timing::Scaled(0.25)] {
            assert_eq!(timing.to_string().parse(), Ok(timing));
        }
        assert_eq!("0".parse(), Ok(Timing::Zero));
        for bad in ["", "fast", "-1", "NaN", "inf", "1e9"] {
            let error = bad.parse::<Timing>().unwrap_err().to_string();
            assert!(error.contains("expected default, slow, zero, or a factor"), "{error}");
        }
    }
}
