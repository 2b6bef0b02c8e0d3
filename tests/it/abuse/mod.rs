//! Peers that mean harm, in small: what they try must not reach a handler, nor the other clients.

mod heads;
mod unread;
mod wire;
