//! Bounds on what a plan may ask for, in one place.

/// Longest plan file, in bytes.
pub const FILE_BYTES_MAX: usize = 256 * 1024;
/// Most plan files in one compilation.
pub const FILES_MAX: usize = 1_024;
/// Most actions that a server declares.
pub const ACTIONS_MAX: usize = 256;
/// Most steps in a plan.
pub const STEPS_MAX: usize = 64;
/// Most parameters of a plan.
pub const PARAMS_MAX: usize = 32;
/// Most values in a `one_of` list.
pub const ONE_OF_MAX: usize = 32;
/// Longest name of a plan (after `plan/`), a step or a parameter, in bytes.
pub const NAME_BYTES_MAX: usize = 63;
/// Longest one-line text (`display_name`, a string value), in bytes.
pub const LINE_BYTES_MAX: usize = 1_024;
/// Longest free text (`description`, `refused_hint`), in bytes.
pub const TEXT_BYTES_MAX: usize = 4_096;
/// Most attempts of a step.
pub const ATTEMPTS_MAX: u32 = 100;
/// Longest timeout of one attempt, in milliseconds: 24 hours.
pub const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// Longest pause between two attempts, in milliseconds: 1 hour.
pub const BACKOFF_MS_MAX: u64 = 60 * 60 * 1_000;
/// Longest duration a parameter or an argument may hold, in milliseconds: 30 days.
pub const DURATION_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Longest time limit of a whole run, and longest wait for a condition or an approval, in milliseconds: 30 days.
pub const PATIENCE_MS_MAX: u64 = 30 * 24 * 60 * 60 * 1_000;
/// Most parameters named in one text.
pub const TEXT_PARAMS_MAX: usize = 8;
/// Most labels, providers or outputs named in one guard.
pub const GUARD_ENTRIES_MAX: usize = 32;
/// Most mistakes shown for one plan file.
pub const DIAGNOSTICS_PER_FILE_MAX: usize = 50;
