//! Requests to the engine: its handle, and the registration of machines.

mod engine;
mod registration;

pub use engine::Engine;
