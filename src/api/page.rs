//! Page tokens: where a list continues, bound to the list that returned them.
//!
//! Opaque to clients: base64url of a version, the position, a digest of the list's parameters, and a checksum. The
//! position is two numbers in the first version, an id in the second. Tokens hold no secret and grant nothing; the
//! checksum only tells a damaged token from a good one.

use sha2::{Digest as _, Sha256};

use super::status::ApiError;

/// Version of a token that holds numbers.
const NUMBERS: u8 = 1;
/// Version of a token that holds an id.
const ID: u8 = 2;
const LIST_BYTES: usize = 8;
const CHECK_BYTES: usize = 4;
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Longest token that is decoded, in bytes.
const TOKEN_BYTES_MAX: usize = 256;

/// Position in a list of numbered items: after an ordinal, or after a revision and an index within it.
pub(crate) type Cursor = (u64, u64);

/// Where a list continues.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// After a cursor.
    Numbers(u64, u64),
    /// After an id.
    Id(String),
}

/// Identity of a list: its method and every parameter that selects or orders its items.
#[derive(Debug, Clone, Copy)]
pub(crate) struct List([u8; LIST_BYTES]);

impl List {
    pub(crate) fn new(method: &str, parts: &[&str]) -> Self {
        let mut hash = Sha256::new();
        for part in std::iter::once(&method).chain(parts) {
            hash.update(part.len().to_be_bytes());
            hash.update(part.as_bytes());
        }
        let mut digest = [0; LIST_BYTES];
        digest.copy_from_slice(&hash.finalize()[..LIST_BYTES]);
        Self(digest)
    }

    pub(crate) fn token(self, cursor: Cursor) -> String {
        self.token_of(&Place::Numbers(cursor.0, cursor.1))
    }

    pub(crate) fn token_of(self, place: &Place) -> String {
        let mut bytes = Vec::new();
        match place {
            Place::Numbers(first, second) => {
                bytes.push(NUMBERS);
                bytes.extend(first.to_be_bytes());
                bytes.extend(second.to_be_bytes());
            }
            Place::Id(id) => {
                bytes.push(ID);
                bytes.extend(id.as_bytes());
            }
        }
        bytes.extend(self.0);
        bytes.extend(checksum(&bytes));
        encode(&bytes)
    }

    /// The position of `token` in a list of numbered items; `None` at the beginning.
    pub(crate) fn cursor(self, token: &str) -> Result<Option<Cursor>, ApiError> {
        match self.place(token)? {
            Some(Place::Numbers(first, second)) => Ok(Some((first, second))),
            Some(Place::Id(_)) => Err(ApiError::PageTokenInvalid),
            None => Ok(None),
        }
    }

    /// The position of `token`; `None` at the beginning.
    pub(crate) fn place(self, token: &str) -> Result<Option<Place>, ApiError> {
        if token.is_empty() {
            return Ok(None);
        }
        let (place, list) = read(token).ok_or(ApiError::PageTokenInvalid)?;
        if list == self.0 { Ok(Some(place)) } else { Err(ApiError::PageTokenMismatch) }
    }
}

/// The content of a token, if it is intact.
fn read(token: &str) -> Option<(Place, [u8; LIST_BYTES])> {
    let bytes = decode(token)?;
    let (body, check) = bytes.split_at_checked(bytes.len().checked_sub(CHECK_BYTES)?)?;
    if check != checksum(body) {
        return None;
    }
    let (place, list) = body.split_last_chunk()?;
    let place = match place.split_first()? {
        (&NUMBERS, numbers) => {
            let (first, second) = numbers.split_first_chunk()?;
            let second = second.try_into().ok()?;
            Place::Numbers(u64::from_be_bytes(*first), u64::from_be_bytes(second))
        }
        (&ID, id) => Place::Id(String::from_utf8(id.to_owned()).ok()?),
        _ => return None,
    };
    Some((place, *list))
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
        fn tokens_read_back(ordinal: u64, index: u64, id in "[a-z0-9.-]{1,128}", filter: String) {
            let list = List::new("ListRuns", &[&filter]);
            for place in [Place::Numbers(ordinal, index), Place::Id(id)] {
                let token = list.token_of(&place);
                prop_assert!(token.bytes().all(|byte| ALPHABET.contains(&byte)));
                prop_assert_eq!(list.place(&token).unwrap(), Some(place));
            }
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
