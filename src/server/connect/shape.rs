//! What a call looks like.

use super::catalog::Entry;

/// How messages are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Json,
    Proto,
}

/// What a request and its answer look like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// One message each, which is the whole body.
    Unary,
    /// The same; the request is in the query.
    Get,
    /// Messages in envelopes.
    Stream,
}

/// A call in the shape of Connect.
#[derive(Debug)]
pub(in crate::server) struct Call {
    pub(super) format: Format,
    pub(super) shape: Shape,
    /// What is known of its method; `None` if it is none of ours.
    pub(super) method: Option<&'static Entry>,
}
