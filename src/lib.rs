//! bmdemo: a durable bare-metal lifecycle engine.
//!
//! The modules are layers; each imports only modules listed above it (`tests/tidy.rs` holds the table).

#[cfg(test)]
mod testing;

pub mod pb;
pub mod plan;
