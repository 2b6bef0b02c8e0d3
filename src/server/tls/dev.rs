//! `dev-certs`: an authority of one's own, with certificates for a server and for clients.

use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use crate::clock::Clock;
use crate::files;
use crate::server::config::{ConfigError, check_host_name};
use crate::server::error::StartError;
use crate::server::identities::{OWN_SCHEME, check_name};

/// How long the certificates are valid.
const VALID: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// They begin a little earlier, for clients whose clocks are slow.
const EARLIER: Duration = Duration::from_secs(60 * 60);
/// Names that the certificate of a server always has.
const LOCAL: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Writes an authority, a server's certificate for this machine and `names`, and one for each of `clients` to new
/// files in a directory, and prints what was made. No file is overwritten.
///
/// # Errors
/// [`StartError`] for a name that cannot be one, and for a file that exists or cannot be written.
pub(in crate::server) fn write(
    dir: &Path,
    names: &[String],
    clients: &[String],
    clock: &dyn Clock,
    out: &mut dyn std::io::Write,
) -> Result<(), StartError> {
    let mut files = made(names, clients, clock)?;
    for (name, _) in &mut files {
        *name = dir.join(&*name);
    }
    let failed =
        |path: &Path, source| StartError::CertificateFile { path: path.to_owned(), source };
    create_dir(dir).map_err(|source| failed(dir, source))?;
    // All of them or none.
    for (path, _) in &files {
        if path.symlink_metadata().is_ok() {
            return Err(failed(path, std::io::ErrorKind::AlreadyExists.into()));
        }
    }
    for (path, text) in &files {
        files::create_secret(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|source| failed(path, source))?;
    }
    for (path, _) in &files {
        // A closed pipe is no reason to fail: the files are there.
        let _ = writeln!(out, "{}", path.display());
    }
    Ok(())
}

fn create_dir(dir: &Path) -> std::io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// The files by their names.
fn made(
    names: &[String],
    clients: &[String],
    clock: &dyn Clock,
) -> Result<Vec<(PathBuf, String)>, StartError> {
    let bug = |error: rcgen::Error| StartError::Internal {
        what: "cannot make certificates",
        source: error.into(),
    };
    let usage = ConfigError::Setting;
    let mut authority = params(clock);
    authority.distinguished_name.push(DnType::CommonName, "bmdemo development authority");
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let authority_key = KeyPair::generate().map_err(bug)?;
    let signed = authority.self_signed(&authority_key).map_err(bug)?;
    let mut files =
        vec![("ca.pem".into(), signed.pem()), ("ca-key.pem".into(), authority_key.serialize_pem())];
    let issuer = Issuer::new(authority, authority_key);

    let mut server = params(clock);
    server.distinguished_name.push(DnType::CommonName, "bmdemo-server");
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    for name in LOCAL.iter().copied().chain(names.iter().map(String::as_str)) {
        let san = match name.parse::<IpAddr>() {
            Ok(address) => SanType::IpAddress(address),
            Err(_) => {
                check_host_name("--name", name).map_err(usage)?;
                let name = name.try_into().map_err(bug)?;
                SanType::DnsName(name)
            }
        };
        if !server.subject_alt_names.contains(&san) {
            server.subject_alt_names.push(san);
        }
    }
    let mut leaf = |params: CertificateParams, file: &str| -> Result<(), StartError> {
        let key = KeyPair::generate().map_err(bug)?;
        let signed = params.signed_by(&key, &issuer).map_err(bug)?;
        files.push((format!("{file}.pem").into(), signed.pem()));
        files.push((format!("{file}-key.pem").into(), key.serialize_pem()));
        Ok(())
    };
    leaf(server, "server")?;
    let mut before: Vec<&String> = Vec::new();
    for name in clients {
        check_name(name).map_err(|why| usage(why.replacen("principals.", "--client ", 1)))?;
        if before.contains(&name) {
            return Err(usage(format!("--client {name} is given twice")).into());
        }
        before.push(name);
        let mut client = params(clock);
        client.distinguished_name.push(DnType::CommonName, name.as_str());
        client.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        let uri = format!("{OWN_SCHEME}{name}").try_into().map_err(bug)?;
        client.subject_alt_names = vec![SanType::URI(uri)];
        leaf(client, &format!("client-{name}"))?;
    }
    Ok(files)
}

fn params(clock: &dyn Clock) -> CertificateParams {
    let mut params = CertificateParams::default();
    let now = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_millis(clock.now().0);
    params.not_before = now - EARLIER;
    params.not_after = now + VALID;
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.use_authority_key_identifier_extension = true;
    params
}
