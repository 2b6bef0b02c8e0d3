//! JSON over HTTP, in the shapes of the Connect protocol (https://connectrpc.com/docs/protocol).
//!
//! Nothing is served here. A request is turned into the call of gRPC that it means, which goes the way of every other call,
//! and the answer is turned back: so callers, limits, handlers and the audit are the same for both.

mod answer;
mod catalog;
mod document;
mod error;
mod head;
mod query;
mod request;
mod shape;

pub(super) use self::document::{described, document, refused};
pub(super) use self::head::{Protocol, protocol};
pub(super) use self::request::Carried;
pub(super) use self::shape::Call;

#[cfg(test)]
mod tests;
