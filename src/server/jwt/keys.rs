//! The keys of an issuer: a JSON Web Key Set (RFC 7517) in a file.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::{self, RsaPublicKeyComponents, UnparsedPublicKey};
use serde::Deserialize;

use crate::files;
use crate::server::config::ConfigError;
use crate::text::escaped;

/// Longest file of keys, in bytes, and most keys in it.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const KEYS_MAX: usize = 100;
/// Sizes of RSA keys that are accepted, in bytes.
const RSA_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;

/// A way to sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    EdDsa,
    Es256,
    Rs256,
}

impl Algorithm {
    /// Name in tokens and keys.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::EdDsa => "EdDSA",
            Self::Es256 => "ES256",
            Self::Rs256 => "RS256",
        }
    }
}

/// What a key verifies with.
#[derive(Debug, Clone)]
enum Material {
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
    Rsa { n: Vec<u8>, e: Vec<u8> },
}

/// A key, for one algorithm.
#[derive(Debug, Clone)]
pub(super) struct Key {
    id: Option<String>,
    material: Material,
}

impl Key {
    /// The only algorithm that it is for.
    pub(super) const fn algorithm(&self) -> Algorithm {
        match self.material {
            Material::Ed25519(_) => Algorithm::EdDsa,
            Material::P256(_) => Algorithm::Es256,
            Material::Rsa { .. } => Algorithm::Rs256,
        }
    }

    /// Whether it made this signature of the message.
    pub(super) fn verifies(&self, message: &[u8], signed: &[u8]) -> bool {
        let verified = match &self.material {
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&signature::ED25519, key).verify(message, signed)
            }
            Material::P256(key) => UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, key)
                .verify(message, signed),
            Material::Rsa { n, e } => RsaPublicKeyComponents { n, e }.verify(
                &signature::RSA_PKCS1_2048_8192_SHA256,
                message,
                signed,
            ),
        };
        verified.is_ok()
    }
}

#[derive(Debug, Deserialize)]
struct File {
    keys: Vec<Jwk>,
}

#[derive(Debug, Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    x: Option<String>,
    y: Option<String>,
    n: Option<String>,
    e: Option<String>,
}

/// The keys of an issuer.
#[derive(Debug, Default)]
pub(in crate::server) struct KeySet(Vec<Key>);

impl KeySet {
    /// Reads a file. Keys that are not for signatures that we verify are left out, which is logged.
    ///
    /// # Errors
    /// [`ConfigError`] for a file that cannot be used, or without a key that can.
    pub(in crate::server) fn load(path: &Path) -> Result<Self, ConfigError> {
        let bytes = files::read(path, FILE_BYTES_MAX)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let wrong = |why: String| {
            ConfigError::Setting(format!("auth.jwt.jwks_file: {}: {why}", path.display()))
        };
        let file: File = serde_json::from_slice(&bytes)
            .map_err(|error| wrong(format!("is no JSON Web Key Set: {error}")))?;
        if file.keys.len() > KEYS_MAX {
            return Err(wrong(format!("has more than {KEYS_MAX} keys")));
        }
        let mut keys: Vec<Key> = Vec::new();
        for (place, jwk) in file.keys.iter().enumerate() {
            match key(jwk) {
                Ok(key) if key.id.is_some() && keys.iter().any(|before| before.id == key.id) => {
                    let id = key.id.unwrap_or_default();
                    return Err(wrong(format!("two keys have the id \"{}\"", escaped(&id))));
                }
                Ok(key) => keys.push(key),
                Err(why) => {
                    tracing::warn!(file = %path.display(), key = place + 1, why, "a key is left out");
                }
            }
        }
        match keys.is_empty() {
            true => Err(wrong("has no key for EdDSA, ES256 or RS256".to_owned())),
            false => Ok(Self(keys)),
        }
    }

    /// The key of a token: by its id, or without one the only key.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&Key> {
        match (id, &self.0[..]) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

fn key(jwk: &Jwk) -> Result<Key, &'static str> {
    if jwk.usage.as_deref().is_some_and(|usage| usage != "sig") {
        return Err("it is not for signatures");
    }
    let material = match (jwk.kty.as_str(), jwk.crv.as_deref()) {
        ("OKP", Some("Ed25519")) => Material::Ed25519(bytes_of(jwk.x.as_ref(), 32)?),
        ("EC", Some("P-256")) => {
            let (x, y) = (bytes_of(jwk.x.as_ref(), 32)?, bytes_of(jwk.y.as_ref(), 32)?);
            Material::P256([&[4][..], &x, &y].concat())
        }
        ("RSA", None) => {
            let (n, e) = (number(jwk.n.as_ref())?, number(jwk.e.as_ref())?);
            if !RSA_BYTES.contains(&n.len()) {
                return Err("it is an RSA key of less than 2048 bits, or more than 8192");
            }
            Material::Rsa { n, e }
        }
        _ => return Err("it is of a kind that is not used"),
    };
    let key = Key { id: jwk.kid.clone(), material };
    match &jwk.alg {
        Some(alg) if alg != key.algorithm().as_str() => Err("it is for another algorithm"),
        Some(_) | None => Ok(key),
    }
}

fn bytes_of(text: Option<&String>, length: usize) -> Result<Vec<u8>, &'static str> {
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    bytes.filter(|bytes| bytes.len() == length).ok_or("a part of it is missing, or cannot be read")
}

/// A number without zeros before it.
fn number(text: Option<&String>) -> Result<Vec<u8>, &'static str> {
    let bytes = text.and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    let bytes = bytes.ok_or("a part of it is missing, or cannot be read")?;
    let zeros = bytes.iter().take_while(|byte| **byte == 0).count();
    Ok(bytes[zeros..].to_vec())
}
