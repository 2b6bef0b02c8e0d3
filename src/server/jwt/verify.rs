//! Verifies tokens of an issuer.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::keys::KeySet;
use crate::clock::Timestamp;
use crate::text::escaped;

/// Longest token, in bytes.
const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// A token may begin to be valid this much later than now: clocks differ.
const SKEW_S: u64 = 60;
/// Longest time until a token expires.
const VALID_S_MAX: u64 = 24 * 60 * 60;
/// Longest part of a token that the log repeats, in characters.
const SHOWN_CHARS_MAX: usize = 80;

/// Why a token is refused. Only the log says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in crate::server) enum JwtRefusal {
    #[error("it is longer than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    #[error("it does not have three parts in base64url")]
    Form,
    #[error("its head cannot be read: {0}")]
    Head(String),
    #[error("its type \"{0}\" is not JWT")]
    Type(String),
    #[error("it has extensions that must be understood (crit)")]
    Critical,
    #[error("none of the keys in auth.jwt.jwks_file is the one that it names (\"{0}\")")]
    UnknownKey(String),
    #[error("its algorithm \"{found}\" is not the one of its key, {wanted}")]
    Algorithm { found: String, wanted: &'static str },
    #[error("its signature is wrong")]
    Signature,
    #[error("its claims cannot be read: {0}")]
    Claims(String),
    #[error("its issuer \"{0}\" is not auth.jwt.issuer")]
    Issuer(String),
    #[error("it is not for auth.jwt.audience")]
    Audience,
    #[error("it has expired")]
    Expired,
    #[error("it expires more than a day from now")]
    TooFar,
    #[error("it is not valid yet")]
    NotYetValid,
    #[error("it has no subject")]
    NoSubject,
}

/// Verifies the tokens of one issuer.
#[derive(Debug)]
pub(in crate::server) struct Verifier {
    keys: KeySet,
    issuer: String,
    audience: String,
}

/// What a token that was verified says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Verified {
    /// Of whom it speaks.
    pub(in crate::server) subject: String,
    /// When it expires.
    pub(in crate::server) expires_at: Timestamp,
}

/// Known members twice are an error; unknown ones are not looked at.
#[derive(Deserialize)]
struct Head {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
}

#[derive(Deserialize)]
struct Claims {
    iss: String,
    aud: Audience,
    exp: u64,
    nbf: u64,
    sub: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Several(Vec<String>),
}

impl Verifier {
    pub(in crate::server) fn new(keys: KeySet, issuer: &str, audience: &str) -> Self {
        Self { keys, issuer: issuer.to_owned(), audience: audience.to_owned() }
    }

    /// What a token says, if it is to be believed now.
    ///
    /// # Errors
    /// [`JwtRefusal`]: nothing of it is believed.
    pub(in crate::server) fn verify(
        &self,
        token: &str,
        now: Timestamp,
    ) -> Result<Verified, JwtRefusal> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(JwtRefusal::TooLong);
        }
        let (message, signature) = token.rsplit_once('.').ok_or(JwtRefusal::Form)?;
        let (head, claims) = message.split_once('.').ok_or(JwtRefusal::Form)?;
        let decoded = |part: &str| URL_SAFE_NO_PAD.decode(part).map_err(|_| JwtRefusal::Form);
        let (head, claims, signature) = (decoded(head)?, decoded(claims)?, decoded(signature)?);
        let head: Head =
            serde_json::from_slice(&head).map_err(|error| JwtRefusal::Head(error.to_string()))?;
        if let Some(kind) = head
            .typ
            .as_ref()
            .filter(|kind| !["JWT", "at+jwt"].iter().any(|known| kind.eq_ignore_ascii_case(known)))
        {
            return Err(JwtRefusal::Type(shown(kind)));
        }
        if head.crit.is_some() {
            return Err(JwtRefusal::Critical);
        }
        let id = head.kid.as_deref();
        let key = self.keys.find(id);
        let key = key.ok_or_else(|| JwtRefusal::UnknownKey(shown(id.unwrap_or_default())))?;
        let wanted = key.algorithm().as_str();
        if head.alg != wanted {
            return Err(JwtRefusal::Algorithm { found: shown(&head.alg), wanted });
        }
        if !key.verifies(message.as_bytes(), &signature) {
            return Err(JwtRefusal::Signature);
        }
        self.claims(&claims, now)
    }

    fn claims(&self, claims: &[u8], now: Timestamp) -> Result<Verified, JwtRefusal> {
        let claims: Claims = serde_json::from_slice(claims)
            .map_err(|error| JwtRefusal::Claims(error.to_string()))?;
        if claims.iss != self.issuer {
            return Err(JwtRefusal::Issuer(shown(&claims.iss)));
        }
        let is_for_us = match &claims.aud {
            Audience::One(one) => *one == self.audience,
            Audience::Several(several) => several.contains(&self.audience),
        };
        if !is_for_us {
            return Err(JwtRefusal::Audience);
        }
        let now_s = now.0 / 1000;
        if claims.exp <= now_s {
            return Err(JwtRefusal::Expired);
        }
        if claims.exp - now_s > VALID_S_MAX {
            return Err(JwtRefusal::TooFar);
        }
        if claims.nbf > now_s + SKEW_S {
            return Err(JwtRefusal::NotYetValid);
        }
        if claims.sub.is_empty() {
            return Err(JwtRefusal::NoSubject);
        }
        let expires_at = Timestamp(claims.exp.saturating_mul(1000));
        Ok(Verified { subject: claims.sub, expires_at })
    }
}

/// A part of a token, for the log: on one line, and not long.
fn shown(text: &str) -> String {
    escaped(&text.chars().take(SHOWN_CHARS_MAX).collect::<String>()).into_owned()
}
