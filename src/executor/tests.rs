//! The whole engine over the memory store and the fake provider, in virtual time.

mod harness;
mod runs;
