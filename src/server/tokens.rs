//! Static tokens: random texts that name a principal. Only their hashes are stored.
//!
//! A token is `bmd_`, 43 characters that stand for 256 random bits, and 6 that check the rest, so that a text that was never
//! a token is refused before anything is compared, and scanners of secrets know ours by its look.

use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom as _, SystemRandom};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use super::config::ConfigError;
use super::identities::Principal;
use crate::clock::Timestamp;
use crate::files;

/// What every token begins with.
pub(super) const PREFIX: &str = "bmd_";
/// Characters of the random part, and of the check.
const RANDOM_CHARS: usize = 43;
const CHECK_CHARS: usize = 6;
/// Longest file of tokens, in bytes, and most tokens in it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const TOKENS_MAX: usize = 10_000;

/// What is stored of a token.
pub(super) type TokenHash = [u8; 32];

/// A new token.
///
/// # Errors
/// If the operating system has no randomness.
pub(super) fn generate() -> Result<String, ring::error::Unspecified> {
    let mut bytes = [0; 32];
    SystemRandom::new().fill(&mut bytes)?;
    let body = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes));
    Ok(format!("{body}{}", check(&body)))
}

/// The characters that check a token's others.
fn check(body: &str) -> String {
    let mut text = URL_SAFE_NO_PAD.encode(Sha256::digest(body));
    text.truncate(CHECK_CHARS);
    text
}

/// The hash of a text, if it is one of our tokens by its look.
pub(super) fn hash(text: &str) -> Option<TokenHash> {
    let place = PREFIX.len() + RANDOM_CHARS;
    let (body, given) = text.split_at_checked(place)?;
    let is_ours = text.len() == place + CHECK_CHARS
        && text.starts_with(PREFIX)
        && bool::from(check(body).as_bytes().ct_eq(given.as_bytes()));
    is_ours.then(|| Sha256::digest(text).into())
}

/// The entry of a token in the file.
pub(super) fn entry(
    token_hash: &TokenHash,
    principal: &str,
    created_at: Timestamp,
    expires_at: Option<Timestamp>,
) -> String {
    let hex: String = token_hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let expires = expires_at.map_or_else(String::new, |at| format!("expires_at = \"{at}\"\n"));
    format!(
        "\n[[tokens]]\nprincipal = \"{principal}\"\nsha256 = \"{hex}\"\ncreated_at = \"{created_at}\"\n{expires}"
    )
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    tokens: Vec<Entry>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    principal: String,
    sha256: String,
    /// For people.
    #[serde(rename = "created_at")]
    _created_at: Option<String>,
    expires_at: Option<String>,
}

/// A token that is accepted.
#[derive(Debug, Clone)]
pub(super) struct KnownToken {
    hash: TokenHash,
    /// Whose it is.
    pub(super) principal: Arc<Principal>,
    /// When it expires, if it does.
    pub(super) expires_at: Option<Timestamp>,
}

/// The tokens of a file.
#[derive(Debug, Default)]
pub(super) struct Tokens(Vec<KnownToken>);

impl Tokens {
    /// Whether the file may have no more.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= TOKENS_MAX
    }

    /// Reads a file; `principal` finds a principal by its name.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that others can read, or with an entry that cannot be used: it is named by its number.
    pub(super) fn load(
        path: &Path,
        principal: impl Fn(&str) -> Option<Arc<Principal>>,
    ) -> Result<Self, ConfigError> {
        let text = files::read_secret_text(path, FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let wrong = |why: String| {
            ConfigError::Setting(format!("auth.tokens_file: {}: {why}", path.display()))
        };
        // The message of the parser quotes the line.
        let file: File = toml::from_str(&text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count() + 1;
            wrong(format!("line {line}: {}", error.message()))
        })?;
        if file.tokens.len() > TOKENS_MAX {
            return Err(wrong(format!("has more than {TOKENS_MAX} tokens")));
        }
        let mut known: Vec<KnownToken> = Vec::new();
        for (place, entry) in file.tokens.iter().enumerate() {
            let refused = |why: &str| wrong(format!("token {}: {why}", place + 1));
            let hash = parse_hash(&entry.sha256)
                .ok_or_else(|| refused("sha256 is not 64 hexadecimal digits"))?;
            let principal = principal(&entry.principal).ok_or_else(|| {
                refused("its principal is not in the configuration ([principals.NAME])")
            })?;
            let expires_at = match &entry.expires_at {
                None => None,
                Some(text) => Some(parse_time(text).ok_or_else(|| {
                    refused("expires_at is no time such as 2027-01-31T08:00:00Z")
                })?),
            };
            if known.iter().any(|before| before.hash == hash) {
                return Err(refused("it is there twice"));
            }
            known.push(KnownToken { hash, principal, expires_at });
        }
        Ok(Self(known))
    }

    /// The token with this hash. Takes the same time for every hash.
    pub(super) fn find(&self, hash: &TokenHash) -> Option<&KnownToken> {
        let mut found = u64::MAX;
        for (place, known) in (0_u64..).zip(&self.0) {
            found.conditional_assign(&place, known.hash.ct_eq(hash));
        }
        self.0.get(usize::try_from(found).ok()?)
    }
}

fn parse_hash(text: &str) -> Option<TokenHash> {
    let mut hash = [0; 32];
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    for (place, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * place..2 * place + 2)?, 16).ok()?;
    }
    Some(hash)
}

fn parse_time(text: &str) -> Option<Timestamp> {
    let at: jiff::Timestamp = text.parse().ok()?;
    u64::try_from(at.as_millisecond()).ok().map(Timestamp)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn tokens_are_known_by_their_look_and_by_nothing_else() {
        let token = generate().unwrap();
        assert_eq!(token.len(), 53);
        assert_ne!(token, generate().unwrap());
        assert!(hash(&token).is_some());
        let place = token.len() / 2;
        let other = if &token[place..=place] == "A" { "B" } else { "A" };
        let changed = format!("{}{other}{}", &token[..place], &token[place + 1..]);
        let upper = token.to_uppercase();
        for wrong in
            ["", PREFIX, &token[1..], &token[..52], &format!("{token}A"), &changed, &upper, "ü"]
        {
            assert_eq!(hash(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_file_has_hashes_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tokens.toml");
        let ann =
            Arc::new(Principal { name: "ann".into(), role: crate::pb::Role::Viewer, scope: None });
        let load = |text: &str| {
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
            let principal = |name: &str| (name == "ann").then(|| ann.clone());
            Tokens::load(&path, principal).map_err(|error| error.to_string())
        };
        let (first, second) = (generate().unwrap(), generate().unwrap());
        let [one, two] = [&first, &second].map(|token| hash(token).unwrap());
        let at = Timestamp(1_700_000_000_000);
        let text = entry(&one, "ann", at, None) + &entry(&two, "ann", at, Some(at));
        assert!(!text.contains(&first[4..20]), "{text}");
        let tokens = load(&text).unwrap();
        assert_eq!(tokens.find(&one).unwrap().expires_at, None);
        assert_eq!(tokens.find(&two).unwrap().expires_at, Some(at));
        assert!(tokens.find(&[0; 32]).is_none());
        assert!(load("").unwrap().find(&one).is_none());

        let good = entry(&one, "ann", at, None);
        for (text, why) in [
            (good.replace("ann", "bob"), "token 1: its principal is not in the configuration"),
            (good.replace("sha256 = \"", "sha256 = \"0"), "64 hexadecimal digits"),
            (good.clone() + &good, "token 2: it is there twice"),
            (good.clone() + "expires_at = \"soon\"", "is no time"),
            (good.clone() + "secret = \"x\"", "unknown field"),
            ("[[tokens]]\n".to_owned(), "missing field"),
        ] {
            let error = load(&text).unwrap_err();
            assert!(error.contains(why), "{error}");
        }
    }
}
