//! What all stored forms share: the format number, errors, and how fields are written and left out.

use std::borrow::Cow;

use serde::Serialize;

use crate::clock::Timestamp;

/// Number of the stored format; grows when an older reader would misunderstand a record.
pub(crate) const FORMAT: u32 = 2;

/// Why a stored record cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Not the expected JSON.
    #[error("{0}")]
    Json(String),
    /// A name that this version does not know.
    #[error("unknown {what} {name:?}")]
    Unknown {
        /// Kind of name.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// A field is missing that the rest of the record requires.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A field has an invalid value.
    #[error("{0}")]
    Invalid(String),
    /// It has been altered.
    #[error("its checksum does not match: it has been altered")]
    Checksum,
    /// Written by a newer version.
    #[error("format {0} is newer than this version reads ({FORMAT})")]
    Format(u32),
}

pub(super) type Text<'a> = Cow<'a, str>;

/// Enough for most records, so that writing one needs no further allocation.
const USUAL_BYTES: usize = 1536;

pub(super) fn to_json(value: &impl Serialize) -> String {
    let mut text = Vec::with_capacity(USUAL_BYTES);
    serde_json::to_writer(&mut text, value)
        .expect("records have string keys only and write to memory");
    String::from_utf8(text).expect("JSON is UTF-8")
}

pub(super) fn from_json<'a, T: serde::Deserialize<'a>>(text: &'a str) -> Result<T, DecodeError> {
    serde_json::from_str(text).map_err(|error| DecodeError::Json(error.to_string()))
}

pub(super) fn known<T>(
    what: &'static str,
    name: &str,
    parsed: Option<T>,
) -> Result<T, DecodeError> {
    parsed.ok_or_else(|| DecodeError::Unknown { what, name: name.to_owned() })
}

pub(super) fn check_format(format: u32) -> Result<(), DecodeError> {
    if format > FORMAT { Err(DecodeError::Format(format)) } else { Ok(()) }
}

/// Whether a field has its default and is left out.
pub(super) fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

pub(super) fn ms(at: Option<Timestamp>) -> Option<u64> {
    at.map(|at| at.0)
}

pub(super) fn at(ms: Option<u64>) -> Option<Timestamp> {
    ms.map(Timestamp)
}
