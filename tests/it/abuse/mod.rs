//! Peers that mean harm, in small: what they try must not reach a handler, nor the other clients.

mod heads;
mod held;
mod rations;
mod unread;
pub(crate) mod wire;
