//! Tokens of an issuer that the server trusts: signed statements (JWT, RFC 7519) whose keys are in a file.
//!
//! A key says which algorithm it is for; what a token says of that is only compared with it. Keys and addresses that a token
//! brings along (`jwk`, `jku`, `x5u`) are never looked at.

mod keys;
mod verify;

#[cfg(test)]
mod tests;

pub(super) use self::keys::KeySet;
pub(super) use self::verify::{JwtRefusal, Verified, Verifier};
