//! TLS of the listener: its certificate and key, the authorities of clients, and what is refused at a handshake.
//!
//! Only TLS 1.3, whatever the features of the library are. Sessions are not resumed: a certificate is judged at every
//! connection.

pub(super) mod dev;
mod handshake;
mod judge;
mod material;
mod naming;
mod refusal;
#[cfg(test)]
mod tests;

pub(super) use self::handshake::{Certified, Handshakes, Secured, judge_again};
pub(super) use self::material::Tls;
