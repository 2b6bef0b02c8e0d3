//! Heads of the audit with the signature of a server, in one line that can be kept elsewhere.
//!
//! `bmdemo-audit-head-1:SEQ:HASH:AT_MS:KEY:SIGNATURE`; the signature (Ed25519, hexadecimal as the rest) is of all that is
//! before its colon. A server without a key leaves both empty.

use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

use crate::clock::Timestamp;
use crate::model::{AuditHash, AuditHead};

/// What every line begins with.
const MARK: &str = "bmdemo-audit-head-1";
/// Longest line that is read.
const LINE_CHARS_MAX: usize = 512;

/// Signs heads of the audit.
pub struct HeadSigner(Option<Ed25519KeyPair>);

impl std::fmt::Debug for HeadSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("HeadSigner").field(&self.public_key()).finish()
    }
}

impl HeadSigner {
    /// Signs with this key.
    #[must_use]
    pub fn new(key: Ed25519KeyPair) -> Self {
        Self(Some(key))
    }

    /// Does not sign.
    #[must_use]
    pub const fn none() -> Self {
        Self(None)
    }

    /// The public key, in hexadecimal; empty without one.
    #[must_use]
    pub fn public_key(&self) -> String {
        self.0.as_ref().map_or_else(String::new, |key| hex(key.public_key().as_ref()))
    }

    /// The line of a head.
    #[must_use]
    pub fn line(&self, head: &AuditHead, at: Timestamp) -> String {
        let key = self.public_key();
        let said = format!("{MARK}:{}:{}:{}:{key}", head.seq, head.hash, at.0);
        let signature =
            self.0.as_ref().map_or_else(String::new, |key| hex(key.sign(said.as_bytes()).as_ref()));
        format!("{said}:{signature}")
    }

    /// The head of a line that this server has signed, or one with the public key `trusted`.
    ///
    /// # Errors
    /// Why it is not believed.
    pub fn head_of(&self, line: &str, trusted: &str) -> Result<AuditHead, String> {
        let line = line.trim();
        if line.chars().count() > LINE_CHARS_MAX {
            return Err(format!("it is longer than {LINE_CHARS_MAX} characters"));
        }
        let form = || format!("it is no line such as {MARK}:SEQ:HASH:AT:KEY:SIGNATURE");
        let parts: Vec<&str> = line.split(':').collect();
        let &[MARK, seq, hash, at, key, signature] = parts.as_slice() else {
            return Err(form());
        };
        let (Ok(seq), Some(hash), Ok(_)) = (seq.parse(), AuditHash::parse(hash), at.parse::<u64>())
        else {
            return Err(form());
        };
        let own = self.public_key();
        let expected = if trusted.is_empty() { own.as_str() } else { trusted };
        if !key.eq_ignore_ascii_case(expected) {
            return Err(match key {
                "" => "it is not signed".to_owned(),
                _ => format!(
                    "it was signed with the key {key}, not with the one of this server; if that was its key then, say so: --public-key {key}"
                ),
            });
        }
        if !key.is_empty() {
            let said = &line[..line.len() - signature.len() - 1];
            let (Some(key), Some(signature)) = (unhex(key), unhex(signature)) else {
                return Err(form());
            };
            UnparsedPublicKey::new(&ED25519, key)
                .verify(said.as_bytes(), &signature)
                .map_err(|_| "its signature does not match: it was altered".to_owned())?;
        }
        Ok(AuditHead { seq, hash })
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u32>> = text.chars().map(|digit| digit.to_digit(16)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2))?;
    digits.chunks_exact(2).map(|pair| u8::try_from(pair[0] << 4 | pair[1]).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn signer(seed: u8) -> HeadSigner {
        HeadSigner::new(Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap())
    }

    #[test]
    fn a_head_is_believed_as_it_was_signed() {
        let head = AuditHead { seq: 12, hash: AuditHash([0xab; 32]) };
        let (ours, other) = (signer(1), signer(2));
        let line = ours.line(&head, Timestamp(77));
        assert_eq!(ours.head_of(&format!(" {line}\n"), ""), Ok(head));
        assert_eq!(other.head_of(&line, &ours.public_key()), Ok(head));
        for (line, trusted, why) in [
            (other.line(&head, Timestamp(77)), "", "not with the one of this server"),
            (line.replace(":12:", ":13:"), "", "was altered"),
            (line.replace(":77:", ":78:"), "", "was altered"),
            (line.replacen("ab", "ac", 1), "", "was altered"),
            (line.clone(), "00", "not with the one"),
            (HeadSigner::none().line(&head, Timestamp(77)), "", "not signed"),
            ("bmdemo-audit-head-1:1:2".to_owned(), "", "no line such as"),
            (line.replace("head-1", "head-2"), "", "no line such as"),
            (String::new(), "", "no line such as"),
            ("x".repeat(600), "", "longer than"),
        ] {
            let error = ours.head_of(&line, trusted).unwrap_err();
            assert!(error.contains(why), "{line}: {error}");
        }
        let plain = HeadSigner::none();
        assert_eq!(plain.head_of(&plain.line(&head, Timestamp(1)), ""), Ok(head));
    }
}
