//! What is asked of the engine: its handle, and the registration of machines.

mod engine;
mod registration;

pub use engine::Engine;
