//! Heads of the audit: the key that signs them, and where they are said again and again.

use std::io::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ring::rand::SystemRandom;
use ring::signature::Ed25519KeyPair;
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;

use super::config::{Config, ConfigError, Storage};
use super::error::StartError;
use crate::api::signed::HeadSigner;
use crate::executor::Engine;
use crate::files;

/// File of the key in the data directory.
const KEY_FILE: &str = "audit-key.pem";
/// File in the data directory with the line of the present head, for programs that collect it.
pub(super) const HEAD_FILE: &str = "audit-head";
/// Longest file of a key, in bytes.
const KEY_BYTES_MAX: u64 = 16 * 1024;
/// Characters of a line of a PEM file.
const PEM_LINE: usize = 64;
/// Time between two heads that are said.
const INTERVAL: Duration = Duration::from_secs(60);

/// The signer of a server: with the key of its configuration, or with that of its data directory, which is made if there
/// is none.
///
/// # Errors
/// [`StartError`] for a key that cannot be read or made.
pub(super) fn signer(config: &Config) -> Result<HeadSigner, StartError> {
    match existing(config)? {
        Some(signer) => Ok(signer),
        None => made(&config.storage),
    }
}

/// The signer with the key that is there already, if there is one.
///
/// # Errors
/// [`StartError`] for a key that cannot be read.
pub(super) fn existing(config: &Config) -> Result<Option<HeadSigner>, StartError> {
    if let Some(path) = &config.audit_key_file {
        return read(path).map(Some);
    }
    match &config.storage {
        Storage::Dir(dir) if dir.join(KEY_FILE).symlink_metadata().is_ok() => {
            read(&dir.join(KEY_FILE)).map(Some)
        }
        Storage::Dir(_) | Storage::Ephemeral => Ok(None),
    }
}

fn read(path: &Path) -> Result<HeadSigner, StartError> {
    let refused = |why: String| {
        let path = path.display();
        StartError::Config(ConfigError::Setting(format!("the key of the audit {path}: {why}")))
    };
    let text =
        files::read_secret(path, KEY_BYTES_MAX).map_err(|error| refused(error.to_string()))?;
    let form = || {
        refused(
            "is no Ed25519 key in PKCS#8 and PEM, as of openssl genpkey -algorithm ed25519".into(),
        )
    };
    match PrivateKeyDer::from_pem_slice(&text) {
        Ok(PrivateKeyDer::Pkcs8(key)) => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(key.secret_pkcs8_der());
            key.map(HeadSigner::new).map_err(|_| form())
        }
        Ok(_) | Err(_) => Err(form()),
    }
}

fn made(storage: &Storage) -> Result<HeadSigner, StartError> {
    let bug = |what| move |error: String| StartError::Internal { what, source: error.into() };
    let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new())
        .map_err(|error| error.to_string())
        .map_err(bug("the operating system has no randomness"))?;
    if let Storage::Dir(dir) = storage {
        let path = dir.join(KEY_FILE);
        let mut text = "-----BEGIN PRIVATE KEY-----\n".to_owned();
        for line in STANDARD.encode(&key).as_bytes().chunks(PEM_LINE) {
            text += &String::from_utf8_lossy(line);
            text += "\n";
        }
        text += "-----END PRIVATE KEY-----\n";
        let written = files::create_secret(&path)
            .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
        written.map_err(|source| StartError::CertificateFile { path, source })?;
    }
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref())
        .map_err(|error| error.to_string())
        .map_err(bug("a new key is damaged"))?;
    Ok(HeadSigner::new(key))
}

/// Says the head in the log and in a file, whenever there is a new one, at most once in [`INTERVAL`]. Never returns.
pub(super) async fn announce(engine: Engine, signer: Arc<HeadSigner>, storage: Storage) {
    let mut said = None;
    loop {
        match engine.store().audit_ends().await {
            Ok((_, head)) if said == Some(head.seq) || head.seq == 0 => {}
            Ok((_, head)) => {
                let line = signer.line(&head, engine.clock().now());
                if let Storage::Dir(dir) = &storage {
                    let (dir, line) = (dir.clone(), line.clone());
                    let saved = tokio::task::spawn_blocking(move || save(&dir, &line)).await;
                    if let Ok(Err(error)) = saved {
                        tracing::warn!(%error, "the head of the audit could not be written to its file");
                    }
                }
                tracing::info!(seq = head.seq, %line, "the head of the audit");
                said = Some(head.seq);
            }
            Err(error) => tracing::debug!(%error, "the head of the audit could not be read"),
        }
        engine.clock().sleep(INTERVAL).await;
    }
}

/// Puts the line in place of the one before, never through a link.
fn save(dir: &Path, line: &str) -> std::io::Result<()> {
    let new = dir.join(format!("{HEAD_FILE}.new"));
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    files::create_secret(&new)?.write_all(format!("{line}\n").as_bytes())?;
    std::fs::rename(new, dir.join(HEAD_FILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;
    use crate::model::{AuditHash, AuditHead};

    #[test]
    fn a_key_is_made_once_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let storage = Storage::Dir(dir.path().to_owned());
        let made = made(&storage).unwrap();
        let path = dir.path().join(KEY_FILE);
        let again = read(&path).unwrap();
        assert_eq!(made.public_key(), again.public_key());
        assert_eq!(made.public_key().len(), 64);
        let head = AuditHead { seq: 3, hash: AuditHash([3; 32]) };
        save(dir.path(), &made.line(&head, Timestamp(5))).unwrap();
        save(dir.path(), &made.line(&head, Timestamp(6))).unwrap();
        let line = std::fs::read_to_string(dir.path().join(HEAD_FILE)).unwrap();
        assert_eq!(again.head_of(&line, ""), Ok(head));
        std::fs::write(&path, "no key").unwrap();
        let error = read(&path).unwrap_err().to_string();
        assert!(error.contains(KEY_FILE) && error.contains("Ed25519"), "{error}");
        assert!(matches!(super::made(&storage), Err(StartError::CertificateFile { .. })));
    }
}
