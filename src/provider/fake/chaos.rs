//! Random faults, drawn from the seed.

use super::script::Fault;
use crate::clock::SplitMix64;

/// How long an operation that is busy asks to be left alone, in milliseconds.
const BUSY_MS: u64 = 20_000;

/// How often operations fail at random, in thousandths.
///
/// The fault of a call depends on the seed, the operation and how often that call was made, never on the order of
/// calls: the same seed gives the same faults however the work is interleaved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Chaos {
    /// Fails before any effect; a retry may help.
    pub fail_permille: u32,
    /// The call never returns, while the world continues.
    pub hang_permille: u32,
    /// Is reported done and is not.
    pub lie_permille: u32,
    /// Takes effect, and the response is lost.
    pub fail_after_permille: u32,
    /// An observation is inconclusive.
    pub unknowable_permille: u32,
    /// Asks to be retried in 20 s.
    pub busy_permille: u32,
}

impl Chaos {
    /// The fault of the `nth` act of an operation.
    pub(super) fn on_act(&self, seed: u64, operation: &str, nth: u32) -> Option<Fault> {
        let odds = [
            (self.fail_permille, Fault::Fail),
            (self.hang_permille, Fault::Hang),
            (self.lie_permille, Fault::Lie),
            (self.fail_after_permille, Fault::FailAfter),
            (self.busy_permille, Fault::Busy { ms: BUSY_MS }),
        ];
        let mut roll = draw(seed, &["chaos", "act", operation], nth) % 1_000;
        for (permille, fault) in odds {
            let permille = u64::from(permille);
            if roll < permille {
                return Some(fault);
            }
            roll -= permille;
        }
        None
    }

    /// Whether there are no random faults.
    pub(super) fn is_calm(&self) -> bool {
        *self == Self::default()
    }

    /// Whether the `nth` observation of an operation is inconclusive.
    pub(super) fn is_unknowable(&self, seed: u64, operation: &str, nth: u32) -> bool {
        let roll = draw(seed, &["chaos", "observe", operation], nth) % 1_000;
        roll < u64::from(self.unknowable_permille)
    }
}

/// 64 bits that depend on nothing but the arguments.
pub(super) fn draw(seed: u64, parts: &[&str], nth: u32) -> u64 {
    // FNV-1a over the parts, each terminated by a byte that is in no text, then mixed.
    let mut hash = 0xCBF2_9CE4_8422_2325_u64 ^ seed;
    for part in parts {
        for byte in part.bytes().chain([0xFF]) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3);
        }
    }
    SplitMix64::new(hash ^ seed.rotate_left(32) ^ u64::from(nth)).next_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_as_often_as_asked() {
        let chaos = Chaos {
            fail_permille: 100,
            hang_permille: 50,
            lie_permille: 200,
            fail_after_permille: 150,
            unknowable_permille: 300,
            busy_permille: 100,
        };
        let mut counts = [0_u32; 6];
        for n in 0..20_000 {
            let operation = format!("run-{n}/step/1");
            match chaos.on_act(7, &operation, 0) {
                Some(Fault::Fail) => counts[0] += 1,
                Some(Fault::Hang) => counts[1] += 1,
                Some(Fault::Lie) => counts[2] += 1,
                Some(Fault::FailAfter) => counts[3] += 1,
                Some(Fault::Busy { .. }) => counts[5] += 1,
                _ => {}
            }
            counts[4] += u32::from(chaos.is_unknowable(7, &operation, 0));
        }
        for (count, wanted) in counts.into_iter().zip([2_000, 1_000, 4_000, 3_000, 6_000, 2_000]) {
            assert!(count.abs_diff(wanted) < 250, "{counts:?}");
        }
    }

    #[test]
    fn a_draw_depends_on_each_argument() {
        let base = draw(1, &["a", "b"], 0);
        assert_eq!(base, draw(1, &["a", "b"], 0));
        for other in [draw(2, &["a", "b"], 0), draw(1, &["ab", ""], 0), draw(1, &["a", "b"], 1)] {
            assert_ne!(base, other);
        }
    }
}
