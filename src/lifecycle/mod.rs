//! The three lifecycles as typed hierarchical state machines (statig), and what is computed from them.
//!
//! Pure: no I/O, no clock, no randomness. Time, jitter and facts come in with the event; what the engine must do is
//! returned as effects. This module cannot fail for outside reasons.

pub mod backoff;
pub mod effective;
pub mod hsm;
pub mod machine;
pub mod run;
pub mod step;

#[cfg(test)]
mod tests;
