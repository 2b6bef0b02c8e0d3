//! Messages of the API as JSON of protobuf: read strictly, and written so that the same message is always the same text.

mod comments;
mod openapi;
mod pool;
mod read;
mod write;

pub(crate) use self::comments::Comments;
pub(crate) use self::openapi::openapi;
pub(crate) use self::pool::pool;
pub(crate) use self::read::{JsonError, read};
pub(crate) use self::write::Canonical;

#[cfg(test)]
mod tests;
