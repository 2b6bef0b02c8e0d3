//! Page tokens: where a list goes on, bound to the list that gave them.
//!
//! Opaque to clients: base64url of a version, two numbers, a digest of what the list is, and a checksum. They hold no
//! secret and grant nothing; the checksum only tells a damaged token from a good one.

use sha2::{Digest as _, Sha256};

use super::status::ApiError;

const VERSION: u8 = 1;
const BODY_BYTES: usize = 25;
const CHECK_BYTES: usize = 4;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Longest token that is looked at, in bytes.
const TOKEN_BYTES_MAX: usize = 128;

/// Where to go on: an ordinal, or a revision and a place in it.
pub(crate) type Cursor = (u64, u64);

/// What a list is: its method and everything that chooses or orders what it gives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List([u8; 8]);

impl List {
    pub(crate) fn new(method: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(&method).chain(parts) {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut digest = [0; 8];
        digest.copy_from_slice(&hash.finalize()[..8]);
        Self(digest)
    }

    pub(crate) fn token(self, cursor: Cursor) -> String {
        let mut bytes = Vec::with_capacity(BODY_BYTES + CHECK_BYTES);
        bytes.push(VERSION);
        bytes.extend(cursor.0.to_be_bytes());
        bytes.extend(cursor.1.to_be_bytes());
        bytes.extend(self.0);
        bytes.extend(checksum(&bytes));
        encode(&bytes)
    }

    /// Where `token` says to go on; `None` at the beginning.
    pub(crate) fn cursor(self, token: &str) -> Result<Option<Cursor>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let bytes = decode(token).ok_or(ApiError::PageTokenInvalid)?;
        let (body, check) = bytes.split_at_checked(BODY_BYTES).ok_or(ApiError::PageTokenInvalid)?;
        if check != checksum(body) || body[0] != VERSION {
            return Err(ApiError::PageTokenInvalid);
        }
        if body[17..] != self.0 {
            return Err(ApiError::PageTokenMismatch);
        }
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&body[at..at + 8]);
            u64::from_be_bytes(bytes)
        };
        Ok(Some((number(1), number(9))))
    }
}

fn checksum(body: &[u8]) -> [u8; CHECK_BYTES] {
    let mut check = [0; CHECK_BYTES];
    check.copy_from_slice(&Sha256::digest(body)[..CHECK_BYTES]);
    check
}

fn encode(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let group = (0..3)
            .fold(0_u32, |group, at| group << 8 | u32::from(chunk.get(at).copied().unwrap_or(0)));
        for at in 0..=chunk.len() {
            let index = (group >> (18 - 6 * at)) & 63;
            text.push(char::from(ALPHABET[index as usize]));
        }
    }
    text
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() > TOKEN_BYTES_MAX {
        return None;
    }
    let mut bytes = Vec::new();
    for chunk in text.as_bytes().chunks(4) {
        let mut group = 0_u32;
        for at in 0..4 {
            let digit = match chunk.get(at) {
                Some(byte) => ALPHABET.iter().position(|known| known == byte)?,
                None => 0,
            };
            group = group << 6 | u32::try_from(digit).ok()?;
        }
        let whole = group.to_be_bytes();
        bytes.extend(&whole[1..chunk.len().max(1)]);
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn tokens_read_back(ordinal: u64, index: u64, filter: String) {
            let list = List::new("ListRuns", &[&filter]);
            let token = list.token((ordinal, index));
            prop_assert!(token.bytes().all(|byte| ALPHABET.contains(&byte)));
            prop_assert_eq!(list.cursor(&token).unwrap(), Some((ordinal, index)));
        }

        #[test]
        fn a_damaged_token_is_refused(ordinal: u64, at in 0_usize..38, to in 0_usize..64) {
            let list = List::new("ListRuns", &[]);
            let mut token = list.token((ordinal, 0)).into_bytes();
            prop_assume!(token[at] != ALPHABET[to]);
            token[at] = ALPHABET[to];
            let token = String::from_utf8(token).unwrap();
            prop_assert!(matches!(list.cursor(&token), Err(ApiError::PageTokenInvalid)));
        }

        #[test]
        fn any_text_is_a_token_or_refused(text: String) {
            let _ = List::new("ListRuns", &[]).cursor(&text);
        }
    }

    #[test]
    fn a_token_of_another_list_is_refused() {
        let token = List::new("ListRuns", &["phase=RUNNING"]).token((7, 0));
        for other in [
            List::new("ListRuns", &["phase=PENDING"]),
            List::new("ListMachines", &["phase=RUNNING"]),
            List::new("ListRuns", &["phase=", "RUNNING"]),
        ] {
            assert!(matches!(other.cursor(&token), Err(ApiError::PageTokenMismatch)));
        }
        assert_eq!(List::new("ListRuns", &[]).cursor("").unwrap(), None);
    }
}
