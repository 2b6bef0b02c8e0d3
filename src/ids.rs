//! Identifiers: small types that cannot be mixed up.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::clock::Timestamp;

/// Longest machine id, in bytes.
pub const MACHINE_ID_BYTES_MAX: usize = 128;

/// Why a text is not an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing was given.
    #[error("must not be empty")]
    Empty,
    /// Longer than allowed.
    #[error("must be at most {max} characters long")]
    TooLong {
        /// Most characters allowed.
        max: usize,
    },
    /// A character, or its position, is not allowed.
    #[error("must consist of a-z, 0-9 and, inside, '-', '.' or '_'")]
    Characters,
    /// Not a UUID.
    #[error("must be a UUID such as 0190f5fe-7c00-7a00-8000-000000000000")]
    NotUuid,
}

/// Id of a machine, chosen by the client that registers it: `[a-z0-9]([a-z0-9._-]*[a-z0-9])?`, at most 128 bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MachineId(Arc<str>);

impl MachineId {
    /// Checks and wraps a text.
    ///
    /// # Errors
    /// [`IdError`] if the text is empty, too long, or has a character that is not allowed.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MACHINE_ID_BYTES_MAX {
            return Err(IdError::TooLong { max: MACHINE_ID_BYTES_MAX });
        }
        let edge = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let inner = |byte: u8| edge(byte) || matches!(byte, b'-' | b'.' | b'_');
        let bytes = text.as_bytes();
        let well_formed =
            edge(bytes[0]) && edge(bytes[bytes.len() - 1]) && bytes.iter().copied().all(inner);
        if well_formed { Ok(Self(text.into())) } else { Err(IdError::Characters) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The sort key of machines: [`natural_key`] of the text.
    #[must_use]
    pub fn natural_key(&self) -> String {
        natural_key(&self.0)
    }
}

/// A text whose bytes give the natural order: machine-2 before machine-10. Different texts have different keys.
///
/// A run of digits becomes its length and its digits without leading zeros, after a byte that sorts before every
/// printable one, so that a number comes before a letter. If leading zeros were left out, the text follows, after a
/// byte that sorts before everything that a longer text could have there.
#[must_use]
pub fn natural_key(text: &str) -> String {
    const NUMBER: char = '\u{2}';
    const TEXT: char = '\u{1}';
    let mut key = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut shortened = false;
    while let Some(first) = rest.chars().next() {
        let digits = first.is_ascii_digit();
        let end = rest.find(|c: char| c.is_ascii_digit() != digits).unwrap_or(rest.len());
        let (piece, after) = rest.split_at(end);
        if digits {
            let significant = piece.trim_start_matches('0');
            shortened |= significant.len() < piece.len();
            let length = u32::try_from(significant.len() + 1).ok().and_then(char::from_u32);
            key.extend([NUMBER, length.unwrap_or(char::MAX)]);
            key.push_str(significant);
        } else {
            key.push_str(piece);
        }
        rest = after;
    }
    if shortened {
        key.push(TEXT);
        key.push_str(text);
    }
    key
}

impl fmt::Display for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MachineId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for MachineId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

/// Id of a run: a UUID of version 7, so ids sort by creation.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunId(uuid::Uuid);

impl RunId {
    /// Creates an id from the given time and random bits.
    #[must_use]
    pub fn new(now: Timestamp, random: [u64; 2]) -> Self {
        let mut bytes = [0_u8; 10];
        bytes[..8].copy_from_slice(&random[0].to_be_bytes());
        bytes[8..].copy_from_slice(&random[1].to_be_bytes()[..2]);
        Self(uuid::Builder::from_unix_timestamp_millis(now.0, &bytes).into_uuid())
    }

    /// Parses the hyphenated form.
    ///
    /// # Errors
    /// [`IdError::NotUuid`] if the text is not a UUID.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        uuid::Uuid::try_parse(text).map(Self).map_err(|_| IdError::NotUuid)
    }
}

impl fmt::Display for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for RunId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for RunId {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        Self::parse(text)
    }
}

/// The store's commit counter, and the resume point of a watch. Zero is before the first commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Revision(pub u64);

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of a batch of writes, by which its writer can look up the outcome. Chosen by the writer at random; zero for
/// batches that are not looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BatchId(pub u64);

impl fmt::Display for BatchId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Fencing number of a machine: grows by one at every claim and restart, never reused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl Epoch {
    /// The next epoch.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of one attempt of one step at a provider: `run/step/attempt`. The same id means the same operation.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OperationId(Arc<str>);

impl OperationId {
    /// When its run was created.
    #[must_use]
    pub fn began_at(&self) -> Option<Timestamp> {
        let (run, _) = self.0.split_once('/')?;
        let millis = uuid::Uuid::try_parse(run).ok()?.as_u128() >> 80;
        u64::try_from(millis).ok().map(Timestamp)
    }

    /// The operation of `attempt` (from 1) of `step` of `run`.
    #[must_use]
    pub fn new(run: RunId, step: &str, attempt: u32) -> Self {
        Self(format!("{run}/{step}/{attempt}").into())
    }

    /// Whether it is the operation of `attempt` of `step` of `run`.
    #[must_use]
    pub fn is_of(&self, run: RunId, step: &str, attempt: u32) -> bool {
        let mut id = uuid::Uuid::encode_buffer();
        let rest = self.0.strip_prefix(&*run.0.hyphenated().encode_lower(&mut id));
        let rest =
            rest.and_then(|rest| rest.strip_prefix('/')?.strip_prefix(step)?.strip_prefix('/'));
        // Compared as written: a number has other spellings too.
        rest.is_some_and(|rest| !rest.starts_with(['0', '+']) && rest.parse() == Ok(attempt))
    }

    /// Wraps the stored form.
    #[must_use]
    pub fn from_stored(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for OperationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_ids_are_checked() {
        for good in ["a", "machine-1", "r1.b2_c3", &"x".repeat(128)] {
            assert_eq!(MachineId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["-a", "a-", "A", "a b", "ä", "a\n", "a/b", "."] {
            assert_eq!(MachineId::parse(bad), Err(IdError::Characters), "{bad:?}");
        }
        assert_eq!(MachineId::parse(""), Err(IdError::Empty));
        assert_eq!(MachineId::parse(&"x".repeat(129)), Err(IdError::TooLong { max: 128 }));
    }

    #[test]
    fn operations_know_what_they_are_of() {
        let (run, other) = (RunId::new(Timestamp(1), [1, 1]), RunId::new(Timestamp(1), [2, 2]));
        let operation = OperationId::new(run, "join", 12);
        assert!(operation.is_of(run, "join", 12));
        for (run, step, attempt) in
            [(other, "join", 12), (run, "joi", 12), (run, "join", 1), (run, "join", 2)]
        {
            assert!(!operation.is_of(run, step, attempt), "{run} {step} {attempt}");
        }
        for text in ["", "x", &format!("{run}/join/+12"), &format!("{run}/join/012")] {
            assert!(!OperationId::from_stored(text).is_of(run, "join", 12), "{text}");
        }
    }

    #[test]
    fn run_ids_sort_by_creation_and_read_back() {
        let first = RunId::new(Timestamp(1), [9, 9]);
        let second = RunId::new(Timestamp(2), [0, 0]);
        assert!(first < second);
        assert_eq!(RunId::parse(&first.to_string()), Ok(first));
        assert_eq!(RunId::parse("run-1"), Err(IdError::NotUuid));
    }

    #[test]
    fn natural_keys_sort_as_people_count() {
        let sorted = [
            "0",
            "00",
            "1",
            "a",
            "a0",
            "a1",
            "a01",
            "a1-1",
            "a2",
            "a10",
            "a10-b",
            "a-1",
            "a-b",
            "aa",
            "b",
            "machine-9",
            "machine-10",
            "machine-010",
            "machine-340282366920938463463374607431768211457",
        ];
        for pair in sorted.windows(2) {
            let (less, more) = (natural_key(pair[0]), natural_key(pair[1]));
            assert!(less < more, "{} before {}: {less:?}, {more:?}", pair[0], pair[1]);
        }
    }
}
