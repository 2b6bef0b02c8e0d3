//! Requests to the engine: its handle, and the registration of machines.

mod engine;
mod inspection;
mod locks;
mod registration;

pub use engine::Engine;
