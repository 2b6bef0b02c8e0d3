//! The PostgreSQL database of a server: an address without a password, and the file that has it.

use std::path::PathBuf;

use super::args::Args;
use super::file::Store;
use crate::outbound::Trust;
use crate::store::postgres::Host;

/// What an address looks like.
const FORM: &str = "postgres://USER@HOST:PORT/DATABASE";
/// Default port of PostgreSQL.
const PORT: u16 = 5432;

/// A database and how to reach it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) struct Database {
    pub(in crate::server) host: Host,
    pub(in crate::server) user: String,
    pub(in crate::server) name: String,
    /// Whose certificate is believed; `None` for a plain connection.
    pub(in crate::server) trust: Option<Trust>,
    pub(in crate::server) password_file: Option<PathBuf>,
}

/// The database, from the flags, then the file; `None` if it is in the data directory or in memory.
///
/// # Errors
/// What makes no sense, naming the setting.
pub(super) fn read(args: &Args, file: &Store) -> Result<Option<Database>, String> {
    if args.ephemeral {
        return Ok(None);
    }
    if file.ephemeral == Some(true) && file.url.is_some() && args.store.is_none() {
        return Err(
            "store.ephemeral and store.url contradict each other; remove one of them".to_owned()
        );
    }
    let password_file = args.store_password_file.clone().or(file.password_file.clone());
    let (name, url) = match (&args.store, &file.url) {
        (Some(url), _) => ("--store", url),
        (None, Some(url)) => ("store.url", url),
        (None, None) if password_file.is_some() => {
            return Err(format!(
                "a password file is given, and no database that needs it: give --store {FORM} or store.url, or leave it out"
            ));
        }
        (None, None) => return Ok(None),
    };
    parse(url, password_file).map(Some).map_err(|why| format!("{name} {why}"))
}

/// Reads the address of a database. Errors never repeat it: it may have a password.
///
/// # Errors
/// What is wrong with it, for after the name of the setting.
pub(super) fn parse(url: &str, password_file: Option<PathBuf>) -> Result<Database, String> {
    let rest = url.strip_prefix("postgres://").or_else(|| url.strip_prefix("postgresql://"));
    let rest = rest.ok_or_else(|| format!("must begin with postgres://, as in {FORM}"))?;
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, name) = rest
        .split_once('/')
        .filter(|(_, name)| !name.is_empty() && !name.contains('/'))
        .ok_or_else(|| format!("has no database, as in {FORM}"))?;
    let (user, address) =
        authority.rsplit_once('@').ok_or_else(|| format!("has no user, as in {FORM}"))?;
    if user.contains(':') {
        return Err(password_in_address());
    }
    if user.is_empty() {
        return Err(format!("has no user, as in {FORM}"));
    }
    let mut database = Database {
        host: Host::Tcp(String::new(), PORT),
        user: decoded(user)?,
        name: decoded(name)?,
        trust: Some(Trust::System),
        password_file,
    };
    let (host, port) = split_address(address)?;
    let (mut folder, mut mode, mut authorities) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decoded(value)?;
        match key {
            "sslmode" => mode = Some(value),
            "sslrootcert" => authorities = Some(PathBuf::from(value)),
            "host" if value.starts_with('/') => folder = Some(PathBuf::from(value)),
            "password" => return Err(password_in_address()),
            other => {
                return Err(format!(
                    "has the parameter {other:?}: sslmode, sslrootcert and host=/DIRECTORY (of a socket) are known"
                ));
            }
        }
    }
    database.host = match (host.is_empty(), folder) {
        (false, None) => Host::Tcp(host, port),
        (true, Some(folder)) => Host::Unix(folder, port),
        (true, None) => {
            return Err(format!("has no host: write {FORM}, or ?host=/DIRECTORY for a socket"));
        }
        (false, Some(_)) => return Err("has two hosts: remove one of them".to_owned()),
    };
    let is_socket = matches!(database.host, Host::Unix(..));
    database.trust = match (mode.as_deref(), authorities) {
        (None, None) if is_socket => None,
        (Some("disable"), None) => None,
        (Some("disable"), Some(_)) => {
            return Err("has sslmode=disable and sslrootcert: remove one of them".to_owned());
        }
        (Some("verify-full") | None, _) if is_socket => {
            return Err("has TLS for a socket, which PostgreSQL does not do: remove it".to_owned());
        }
        (Some("verify-full") | None, Some(path)) => Some(Trust::Authorities(path)),
        (Some("verify-full") | None, None) => Some(Trust::System),
        (Some(mode @ ("allow" | "prefer" | "require" | "verify-ca")), _) => {
            return Err(format!(
                "has sslmode={mode}, which does not check who answers: use verify-full (with sslrootcert=FILE for an \
                 authority of your own), or disable where no one else can listen"
            ));
        }
        (Some(_), _) => return Err("has an unknown sslmode: verify-full or disable".to_owned()),
    };
    if let Some(trust) = &database.trust {
        trust.check().map_err(|error| format!("has a sslrootcert that cannot be used: {error}"))?;
    }
    Ok(database)
}

fn password_in_address() -> String {
    "has a password, which others would see in lists of processes and in logs: write it into a file that only the server's \
     user may read, and name that with --store-password-file or store.password_file"
        .to_owned()
}

/// Host and port; a host of hexadecimal digits and colons stands in brackets.
fn split_address(address: &str) -> Result<(String, u16), String> {
    let (host, port) = match address.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']').ok_or("has a [ without a ]")?;
            (host, port.strip_prefix(':'))
        }
        None => match address.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (address, None),
        },
    };
    let port = match port {
        None => PORT,
        Some(port) => port.parse().map_err(|_| "has a port that is no number up to 65535")?,
    };
    Ok((decoded(host)?, port))
}

/// Text with `%XX` for bytes.
fn decoded(text: &str) -> Result<String, String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|digit| char::from(digit).to_digit(16));
        let value = digit().zip(digit()).and_then(|(high, low)| u8::try_from(high << 4 | low).ok());
        bytes.push(value.ok_or("has a % that two hexadecimal digits do not follow")?);
    }
    let text = String::from_utf8(bytes).map_err(|_| "is not UTF-8 after its % are replaced")?;
    if text.contains('\0') {
        return Err("has a %00".to_owned());
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read() {
        let read = |url: &str| parse(url, None).unwrap();
        let plain = read("postgres://me@db.example.com/fleet?sslmode=disable");
        assert_eq!(plain.host, Host::Tcp("db.example.com".to_owned(), 5432));
        assert_eq!((plain.user.as_str(), plain.name.as_str()), ("me", "fleet"));
        assert_eq!(plain.trust, None);
        let six = read("postgresql://a%40b@[::1]:6000/x%20y?sslmode=disable");
        assert_eq!(six.host, Host::Tcp("::1".to_owned(), 6000));
        assert_eq!((six.user.as_str(), six.name.as_str()), ("a@b", "x y"));
        let socket = read("postgres://me@:6000/fleet?host=/run/postgresql");
        assert_eq!(socket.host, Host::Unix("/run/postgresql".into(), 6000));
        assert_eq!(socket.trust, None);
    }

    #[test]
    fn what_is_refused_says_why_and_never_the_password() {
        for (url, why) in [
            ("mysql://me@db/x", "postgres://"),
            ("postgres://me:secret@db/x", "--store-password-file"),
            ("postgres://me@db/x?password=secret", "--store-password-file"),
            ("postgres://db/x", "no user"),
            ("postgres://me@db", "no database"),
            ("postgres://me@db/", "no database"),
            ("postgres://me@/x", "no host"),
            ("postgres://me@db:port/x", "port"),
            ("postgres://me@db/x?sslmode=require", "verify-full"),
            ("postgres://me@db/x?sslmode=maybe", "unknown sslmode"),
            ("postgres://me@db/x?sslrootcert=/nowhere.pem", "/nowhere.pem"),
            ("postgres://me@db/x?sslmode=disable&sslrootcert=/a", "remove one"),
            ("postgres://me@/x?host=/run&sslmode=verify-full", "socket"),
            ("postgres://me@db/x?host=/run", "two hosts"),
            ("postgres://me@db/x?options=-c", "options"),
            ("postgres://m%e@db/x", "%"),
        ] {
            let error = parse(url, None).unwrap_err();
            assert!(error.contains(why) && !error.contains("secret"), "{url}: {error}");
        }
    }
}
