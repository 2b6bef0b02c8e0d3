//! Largest messages, in both directions.

/// Largest request, in bytes.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Largest response, in bytes: what clients accept by default.
pub const RESPONSE_BYTES_MAX: usize = 4 * 1024 * 1024;
