//! Tokens by which a machine proves which attempt to install it fetched its settings.
//!
//! A token is a MAC of machine and attempt under a key of the server, so that nothing secret is stored per attempt and
//! a restarted server knows the tokens it has handed out.

use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::path::Path;

use ring::hmac;
use ring::rand::{SecureRandom as _, SystemRandom};

use crate::files;
use crate::ids::{MachineId, OperationId};

/// Begins every token, so that one that leaked can be recognized.
const PREFIX: &str = "bmi_";
/// Length of the key, in bytes.
const KEY_BYTES: usize = 32;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeyError {
    /// The file cannot be read or written.
    #[error("the key of installation tokens, {path}")]
    File {
        /// The file.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The file has another length.
    #[error(
        "the key of installation tokens, {path}, has {found} bytes instead of {KEY_BYTES}: delete it to get a new one; \
         installations in progress then fail and are tried again"
    )]
    Length {
        /// The file.
        path: String,
        /// Bytes that it has.
        found: usize,
    },
    /// The operating system gives no random numbers.
    #[error("the operating system gave no random numbers for the key of installation tokens")]
    Random,
}

/// The key of a server's tokens.
pub struct TokenKey(hmac::Key);

impl fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenKey")
    }
}

impl TokenKey {
    /// The key in these bytes.
    #[must_use]
    pub fn new(bytes: &[u8; KEY_BYTES]) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, bytes))
    }

    /// A key for as long as the process lives.
    ///
    /// # Errors
    /// [`TokenKeyError::Random`].
    pub fn ephemeral() -> Result<Self, TokenKeyError> {
        Ok(Self::new(&random()?))
    }

    /// The key in this file, which is made, for its owner only, if it is not there. Blocks the calling thread.
    ///
    /// # Errors
    /// [`TokenKeyError`]; a file that is there is left as it is.
    pub fn of_file(path: &Path) -> Result<Self, TokenKeyError> {
        let failed = |source| TokenKeyError::File { path: path.display().to_string(), source };
        match files::read_own(path) {
            Ok(bytes) => match <&[u8; KEY_BYTES]>::try_from(bytes.as_slice()) {
                Ok(bytes) => Ok(Self::new(bytes)),
                Err(_) => Err(TokenKeyError::Length {
                    path: path.display().to_string(),
                    found: bytes.len(),
                }),
            },
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let key = random()?;
                write(path, &key).map_err(failed)?;
                Ok(Self::new(&key))
            }
            Err(error) => Err(failed(error)),
        }
    }

    /// The token of an attempt to install a machine.
    #[must_use]
    pub fn token(&self, machine: &MachineId, operation: &OperationId) -> String {
        let tag = hmac::sign(&self.0, &text(machine, operation));
        let mut token = PREFIX.to_owned();
        for byte in tag.as_ref() {
            write!(token, "{byte:02x}").expect("writing to memory");
        }
        token
    }

    /// Whether this is the token of the attempt; takes as long for a wrong one as for the right one.
    #[must_use]
    pub fn accepts(&self, token: &str, machine: &MachineId, operation: &OperationId) -> bool {
        let Some(digits) = token.strip_prefix(PREFIX) else { return false };
        let Some(tag) = unhex(digits) else { return false };
        hmac::verify(&self.0, &text(machine, operation), &tag).is_ok()
    }
}

/// Neither id has a line feed.
fn text(machine: &MachineId, operation: &OperationId) -> Vec<u8> {
    format!("bmdemo installation\n{}\n{}", machine.as_str(), operation.as_str()).into_bytes()
}

fn unhex(digits: &str) -> Option<Vec<u8>> {
    let is_hex = digits.bytes().all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase());
    if !is_hex || !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = digits.as_bytes().chunks(2);
    pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect()
}

fn random() -> Result<[u8; KEY_BYTES], TokenKeyError> {
    let mut key = [0; KEY_BYTES];
    SystemRandom::new().fill(&mut key).map_err(|_| TokenKeyError::Random)?;
    Ok(key)
}

fn write(path: &Path, key: &[u8]) -> std::io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    // A half-written key is found by its length.
    let mut file = files::open_own(&mut options, path)?;
    file.write_all(key)?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::ids::RunId;

    fn ids() -> (MachineId, OperationId) {
        let run = RunId::new(Timestamp(1), [1, 2]);
        (MachineId::parse("node-1").unwrap(), OperationId::new(run, "repave", 1))
    }

    #[test]
    fn a_token_is_that_of_one_machine_and_one_attempt() {
        let (machine, operation) = ids();
        let key = TokenKey::new(&[7; 32]);
        let token = key.token(&machine, &operation);
        assert!(key.accepts(&token, &machine, &operation));
        let other = MachineId::parse("node-2").unwrap();
        assert!(!key.accepts(&token, &other, &operation));
        let next = OperationId::new(RunId::new(Timestamp(1), [1, 2]), "repave", 2);
        assert!(!key.accepts(&token, &machine, &next));
        assert!(!TokenKey::new(&[8; 32]).accepts(&token, &machine, &operation));
        let cut = &token[..token.len() - 2];
        let upper = token.to_uppercase();
        for wrong in ["", "bmi_", "bmi_0", "bmi_zz", cut, upper.as_str()] {
            assert!(!key.accepts(wrong, &machine, &operation), "{wrong}");
        }
    }

    #[test]
    fn a_key_is_kept_in_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("boot.key");
        let (machine, operation) = ids();
        let token = TokenKey::of_file(&path).unwrap().token(&machine, &operation);
        assert!(TokenKey::of_file(&path).unwrap().accepts(&token, &machine, &operation));
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "short").unwrap();
        let error = TokenKey::of_file(&path).unwrap_err().to_string();
        assert!(error.contains("5 bytes"), "{error}");
        assert_eq!(format!("{:?}", TokenKey::ephemeral().unwrap()), "TokenKey");
    }
}
