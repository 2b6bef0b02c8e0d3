//! How rough the world of a seed is. Each seed switches some kinds of faults off, so that others show by themselves.

use bmdemo::clock::SplitMix64;
use bmdemo::executor::{Cap, Limits, RiskLimits};
use bmdemo::provider::fake::{Chaos, Timing};

use crate::plans::{DESTROYING_PLANS, LANGUAGE_PLANS, PLANS};

/// What a seed does. Chances are in thousandths, times in milliseconds.
#[derive(Debug, Clone)]
pub(crate) struct Profile {
    pub(crate) machines: u64,
    /// Steps of the driver in the fault phase.
    pub(crate) steps: u64,
    /// Longest time between two steps of the driver.
    pub(crate) gap_ms: u64,
    /// Longest time before a store call takes effect, and again before it answers.
    pub(crate) store_ms: u64,
    /// Longest time that a provider call travels, in each direction.
    pub(crate) wire_ms: u64,
    /// Some provider calls travel up to this long instead.
    pub(crate) late_ms: u64,
    pub(crate) late_permille: u64,
    /// Chance of each kind of fault at a step of the driver.
    pub(crate) crash_permille: u64,
    pub(crate) fuse_permille: u64,
    pub(crate) stop_permille: u64,
    pub(crate) jump_permille: u64,
    pub(crate) outage_permille: u64,
    /// Longest time between the end of an incarnation and the start of the next.
    pub(crate) down_ms: u64,
    /// Chance that a commit fails without effect, and that its outcome is unknown.
    pub(crate) unavailable_permille: u64,
    pub(crate) unknown_permille: u64,
    /// Machines are swapped, and looked at.
    pub(crate) swap_permille: u64,
    /// Everything is stopped, and resumed.
    pub(crate) brake_permille: u64,
    pub(crate) chaos: Chaos,
    pub(crate) timing: Timing,
    pub(crate) limits: Limits,
    /// The plans that are run.
    pub(crate) plans: &'static [&'static str],
}

impl Profile {
    /// The profile of a seed: every fourth has much overlap, the others have a bit of everything.
    pub(crate) fn of(seed: u64) -> Self {
        if seed.is_multiple_of(4) { Self::overlapping(seed) } else { Self::varied(seed) }
    }

    fn varied(seed: u64) -> Self {
        let mut rng = SplitMix64::new(seed ^ 0x70_72_6F_66_69_6C_65);
        let rng = &mut rng;
        let maybe = |rng: &mut SplitMix64, permille: u64| {
            if rng.chance(1, 2) { 1 + rng.below(permille) } else { 0 }
        };
        let small =
            |rng: &mut SplitMix64, permille: u64| u32::try_from(maybe(rng, permille)).unwrap_or(0);
        let timing = match rng.below(4) {
            0 => Timing::Zero,
            1 => Timing::Scaled(10.0),
            _ => Timing::Default,
        };
        let runs_max = if rng.chance(1, 3) { 1 + rng.below(3) } else { 10_000 };
        Self {
            machines: 3 + rng.below(4),
            steps: 25 + rng.below(50),
            gap_ms: [300, 1_500, 6_000][usize::try_from(rng.below(3)).unwrap_or(0)],
            store_ms: 1 + rng.below(60),
            wire_ms: 1 + rng.below(120),
            late_ms: 1 + rng.below(4_000),
            late_permille: maybe(rng, 200),
            crash_permille: maybe(rng, 60),
            fuse_permille: maybe(rng, 150),
            stop_permille: maybe(rng, 60),
            jump_permille: maybe(rng, 50),
            outage_permille: maybe(rng, 50),
            down_ms: [5, 500, 20_000][usize::try_from(rng.below(3)).unwrap_or(0)],
            unavailable_permille: maybe(rng, 60),
            unknown_permille: maybe(rng, 60),
            swap_permille: 0,
            brake_permille: 0,
            chaos: Chaos {
                fail_permille: small(rng, 200),
                hang_permille: small(rng, 100),
                lie_permille: small(rng, 100),
                fail_after_permille: small(rng, 200),
                unknowable_permille: small(rng, 200),
                busy_permille: 0,
            },
            timing,
            limits: Limits {
                runs_max: usize::try_from(runs_max).unwrap_or(1),
                // The breaker counts on real machines only, unless configured otherwise.
                destructive_on_simulated: rng.chance(1, 4),
                destructive_max: 3,
                // One limit at a time, so that the order of those that wait can be judged.
                data_destroying: at_most((runs_max > 3 && seed % 4 == 1).then_some(1)),
                ..Limits::default()
            },
            plans: &PLANS,
        }
    }

    /// Incarnations that follow each other fast, and late calls of the former one.
    pub(crate) fn overlapping(_seed: u64) -> Self {
        Self {
            machines: 3,
            steps: 60,
            gap_ms: 1_500,
            store_ms: 10,
            wire_ms: 200,
            late_ms: 1_500,
            late_permille: 700,
            crash_permille: 120,
            fuse_permille: 250,
            stop_permille: 100,
            jump_permille: 0,
            outage_permille: 0,
            down_ms: 5,
            unavailable_permille: 0,
            unknown_permille: 0,
            swap_permille: 0,
            brake_permille: 0,
            chaos: Chaos::default(),
            timing: Timing::Default,
            limits: Limits::default(),
            plans: &PLANS,
        }
    }

    /// Runs with waits, approvals, time limits, and cleanup after their end.
    pub(crate) fn language(seed: u64) -> Self {
        Self {
            machines: 3,
            // Instants of the wall clock are compared.
            jump_permille: 0,
            timing: Timing::Default,
            plans: &LANGUAGE_PLANS,
            ..Self::varied(seed)
        }
    }

    /// One run at a time on many machines, and many crashes.
    pub(crate) fn queueing(seed: u64) -> Self {
        Self {
            machines: 6,
            steps: 60,
            gap_ms: 1_500,
            crash_permille: 120,
            stop_permille: 0,
            timing: Timing::Default,
            limits: Limits { runs_max: 1, ..Limits::default() },
            ..Self::varied(seed)
        }
    }

    /// Few slots, and machines that name a time for the next attempt.
    pub(crate) fn busy(seed: u64) -> Self {
        let queueing = Self::queueing(seed);
        let chaos = Chaos { busy_permille: 400, ..queueing.chaos };
        let limits =
            Limits { runs_max: 1 + usize::from(seed.is_multiple_of(2)), ..queueing.limits };
        Self { chaos, limits, ..queueing }
    }

    /// Machines are swapped while they are worked on.
    pub(crate) fn swapping(seed: u64) -> Self {
        Self { machines: 3, steps: 60, swap_permille: 300, ..Self::varied(seed) }
    }

    /// One run that destroys data at a time, and many crashes.
    pub(crate) fn careful(seed: u64) -> Self {
        let data_destroying = at_most(Some(1));
        Self { limits: Limits { data_destroying, ..Limits::default() }, ..Self::queueing(seed) }
    }

    /// Everything is stopped and resumed again and again, over crashes; plans whose runs fail are paused.
    pub(crate) fn braking(seed: u64) -> Self {
        let varied = Self::varied(seed);
        let fail_permille = varied.chaos.fail_permille.max(150);
        Self {
            steps: 60,
            crash_permille: 100,
            // Two incarnations at once: one that was stopped sends what it had decided before.
            stop_permille: 0,
            // How long something was held back is measured by the wall clock.
            jump_permille: 0,
            brake_permille: 300,
            chaos: Chaos { fail_permille, ..varied.chaos },
            limits: Limits {
                destructive_max: 10_000,
                destructive_on_simulated: true,
                pause_plan_after: 2,
                ..varied.limits
            },
            ..varied
        }
    }

    /// Little but plans that destroy data, most of which fails.
    pub(crate) fn failing(seed: u64) -> Self {
        let braking = Self::braking(seed);
        let chaos = Chaos { fail_permille: 600, ..braking.chaos };
        Self { brake_permille: 100, chaos, plans: &DESTROYING_PLANS, ..braking }
    }

    /// No random faults: for tests that inject their own.
    pub(crate) fn calm(timing: Timing) -> Self {
        Self {
            machines: 1,
            steps: 0,
            gap_ms: 1,
            store_ms: 3,
            wire_ms: 5,
            late_ms: 1,
            late_permille: 0,
            crash_permille: 0,
            fuse_permille: 0,
            stop_permille: 0,
            jump_permille: 0,
            outage_permille: 0,
            down_ms: 5,
            unavailable_permille: 0,
            unknown_permille: 0,
            swap_permille: 0,
            brake_permille: 0,
            chaos: Chaos::default(),
            timing,
            limits: Limits::default(),
            plans: &PLANS,
        }
    }
}

fn at_most(number: Option<usize>) -> RiskLimits {
    RiskLimits { max: number.map(Cap::Number), ..RiskLimits::default() }
}
