//! Calls of this server to others: controllers of machines, receivers of notifications.
//!
//! A [`Channel`] goes to one [`Origin`] and has one call in flight at a time. Everything about a call is bounded: its
//! times, on the injected clock, and the size of its answer. Where a name leads is checked when the connection is made
//! ([`Networks`]), no answer leads to another origin, and nothing but a request that changes nothing is sent twice.

mod answer;
mod call;
mod channel;
mod dial;
mod error;
mod networks;
mod origin;
pub mod signature;
#[cfg(test)]
mod tests;
mod trust;

pub use answer::{Answer, retry_at};
pub use call::{Call, Limits};
pub use channel::Channel;
pub use dial::{Dial, Fut, Resolve, Stream, SystemResolver, TcpDial};
pub use error::{CallError, CallErrorKind};
pub use networks::{Network, NetworkError, Networks};
pub use origin::{Origin, OriginError};
pub use trust::{Fingerprint, Trust, TrustError};
