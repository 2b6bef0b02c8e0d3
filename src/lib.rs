//! bmdemo: a durable bare-metal lifecycle engine.
//!
//! The modules are layers; each imports only modules listed above it (`tests/tidy` holds the table).

#![cfg_attr(
    test,
    allow(clippy::wildcard_enum_match_arm, reason = "a test names the variants that it is about")
)]

#[cfg(test)]
mod testing;

pub mod address;
pub mod api;
pub mod cli;
pub mod clock;
pub mod credentials;
pub mod executor;
pub mod files;
#[doc(hidden)]
pub mod fuzzing;
pub mod ids;
mod json;
pub mod lifecycle;
pub mod model;
pub mod notify;
pub mod outbound;
pub mod pb;
pub mod plan;
pub mod provider;
pub mod selector;
pub mod server;
pub mod store;
pub mod text;
