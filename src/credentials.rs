//! Credentials by reference: a name stands for a file or a folder below one directory, which is read at each use.
//!
//! Only the name is ever part of a request, a record, a message or a log. What is read is a [`Secret`], which cannot be
//! printed and is wiped from memory when it is dropped. A file that is replaced counts from its next use.
//!
//! - A *secret* is a file: its text without the line feed at its end.
//! - A *login* is a folder with the files `username` and `password`, as Kubernetes mounts one of type basic-auth, or a file
//!   of two lines, the user and the password.

use std::fmt;
use std::fs::{File, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

/// Longest name, in characters.
const NAME_CHARS_MAX: usize = 63;
/// Largest file, in bytes.
const BYTES_MAX: u64 = 64 * 1024;

/// A text that is not to be seen: it has neither `Debug` nor `Display`, and its memory is wiped at the end.
#[derive(Clone)]
pub struct Secret(Zeroizing<String>);

impl Secret {
    /// Takes a text as a secret.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(Zeroizing::new(text))
    }

    /// The text, for the one place that sends it or computes with it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

/// A user with a password.
#[derive(Clone)]
pub struct Login {
    /// The user: not secret, but not shown either.
    pub user: Secret,
    /// The password.
    pub password: Secret,
}

/// Why a reference gives nothing. Names the reference and the file, never what is in it.
#[derive(Debug, thiserror::Error)]
pub enum CredentialsError {
    /// The server has no directory for credentials.
    #[error(
        "credentials {0:?} cannot be read: the server has no directory for them; start it with --credentials-dir DIR"
    )]
    NoDirectory(String),
    /// No name.
    #[error(
        "{0:?} cannot name credentials: a name has 1 to {NAME_CHARS_MAX} letters, digits, '.', '-' and '_', and begins with a letter or digit"
    )]
    Name(String),
    /// The file is refused or cannot be read.
    #[error("credentials {name:?} cannot be used: {} {why}", .path.display())]
    File {
        /// The reference.
        name: String,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The operating system.
    #[error("credentials {name:?} cannot be used: {} cannot be read", .path.display())]
    Unreadable {
        /// The reference.
        name: String,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

/// What is wrong with a text as the name of credentials.
///
/// # Errors
/// The rule, for a message that begins with the name of the field.
pub fn check_name(name: &str) -> Result<(), String> {
    let inside = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let begins = name.chars().next().is_some_and(|c| c.is_ascii_alphanumeric());
    if begins && name.len() <= NAME_CHARS_MAX && name.chars().all(inside) {
        return Ok(());
    }
    Err(format!(
        "must be the name of credentials of the server, not the credentials: 1 to {NAME_CHARS_MAX} letters, digits, '.', '-' and '_', and a letter or digit first"
    ))
}

/// The credentials of a server.
#[derive(Clone)]
pub struct Credentials {
    directory: Option<Arc<Path>>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

impl Credentials {
    /// Those below a directory; with `None` every reference is refused.
    #[must_use]
    pub fn new(directory: Option<PathBuf>) -> Self {
        Self { directory: directory.map(Arc::from) }
    }

    /// The secret of this name. Blocks on the disk: the files are small and local.
    ///
    /// # Errors
    /// [`CredentialsError`], which no other attempt will change until a person changes the file.
    pub fn secret(&self, name: &str) -> Result<Secret, CredentialsError> {
        self.text(name, Path::new(name)).map(one_line)
    }

    /// The login of this name. Blocks on the disk.
    ///
    /// # Errors
    /// Like [`Credentials::secret`].
    pub fn login(&self, name: &str) -> Result<Login, CredentialsError> {
        let directory = self.directory(name)?;
        let login = if directory.join(name).is_dir() {
            let part = |file: &str| self.text(name, &Path::new(name).join(file)).map(one_line);
            Login { user: part("username")?, password: part("password")? }
        } else {
            let text = self.text(name, Path::new(name))?;
            let mut lines = text.lines();
            match (lines.next(), lines.next(), lines.next()) {
                (Some(user), Some(password), None) => Login {
                    user: Secret::new(user.to_owned()),
                    password: Secret::new(password.to_owned()),
                },
                _ => {
                    let why = "must have two lines, the user and the password";
                    return Err(refused(name, &directory.join(name), why));
                }
            }
        };
        let path = directory.join(name);
        if login.user.expose().is_empty() || login.password.expose().is_empty() {
            return Err(refused(name, &path, "has an empty user or password"));
        }
        if login.user.expose().contains([':', '\n', '\r']) {
            return Err(refused(name, &path, "has a user with a colon or several lines"));
        }
        Ok(login)
    }

    fn directory(&self, name: &str) -> Result<&Path, CredentialsError> {
        check_name(name).map_err(|_| CredentialsError::Name(name.to_owned()))?;
        let none = || CredentialsError::NoDirectory(name.to_owned());
        self.directory.as_deref().ok_or_else(none)
    }

    /// The text of a file below the directory.
    fn text(&self, name: &str, below: &Path) -> Result<Zeroizing<String>, CredentialsError> {
        let directory = self.directory(name)?;
        let path = directory.join(below);
        let unreadable = |source| CredentialsError::Unreadable {
            name: name.to_owned(),
            path: path.clone(),
            source,
        };
        // Links within the directory are how Kubernetes replaces all files at once; a link out of it would make this
        // server read any file that it may read.
        let whole = directory.canonicalize().map_err(unreadable)?;
        let real = path.canonicalize().map_err(unreadable)?;
        if !real.starts_with(&whole) {
            return Err(refused(name, &path, "is a link out of the directory of credentials"));
        }
        let file = open(&real).map_err(unreadable)?;
        let about = file.metadata().map_err(unreadable)?;
        if let Some(why) = wrong(&about) {
            return Err(refused(name, &path, &why));
        }
        // Room for the largest, so that no copy of a part is left behind in memory that was outgrown.
        let mut bytes = Zeroizing::new(Vec::with_capacity(BYTES_MAX as usize + 1));
        file.take(BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
        if bytes.len() as u64 > BYTES_MAX {
            return Err(refused(name, &path, &format!("has more than {BYTES_MAX} bytes")));
        }
        match std::str::from_utf8(&bytes) {
            Ok("") => Err(refused(name, &path, "is empty")),
            Ok(text) if text.contains('\0') => Err(refused(name, &path, "has a zero byte")),
            Ok(text) => Ok(Zeroizing::new(text.to_owned())),
            Err(_) => Err(refused(name, &path, "is not UTF-8 text")),
        }
    }
}

fn refused(name: &str, path: &Path, why: &str) -> CredentialsError {
    CredentialsError::File { name: name.to_owned(), path: path.to_owned(), why: why.to_owned() }
}

/// The text without the line feed that editors put at its end.
fn one_line(text: Zeroizing<String>) -> Secret {
    let line = text.strip_suffix('\n').unwrap_or(&text);
    Secret::new(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

#[cfg(unix)]
fn open(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let flags =
        rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY;
    let flags = i32::try_from(flags.bits()).unwrap_or(0);
    OpenOptions::new().read(true).custom_flags(flags).open(path)
}

#[cfg(not(unix))]
fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().read(true).open(path)
}

/// What is wrong with an opened file, if anything.
#[cfg(unix)]
fn wrong(about: &Metadata) -> Option<String> {
    use std::os::unix::fs::MetadataExt as _;
    judged(about.is_file(), about.mode(), about.uid(), rustix::process::geteuid().as_raw())
}

#[cfg(not(unix))]
fn wrong(about: &Metadata) -> Option<String> {
    (!about.is_file()).then(|| "is not a regular file".to_owned())
}

#[cfg(unix)]
fn judged(is_file: bool, mode: u32, owner: u32, server: u32) -> Option<String> {
    const ROOT: u32 = 0;
    if !is_file {
        return Some("is not a regular file".to_owned());
    }
    if owner != server && owner != ROOT {
        return Some(format!(
            "belongs to user {owner}, not to the server's user {server} or to root"
        ));
    }
    // Kubernetes and systemd hand root's files to a service through its group. Then reading is all it may.
    let by_group = if owner == ROOT && server != ROOT { 0o040 } else { 0 };
    if mode & 0o077 & !by_group != 0 {
        return Some(format!(
            "has mode {:04o}: others must have no access; chmod 600 it",
            mode & 0o7777
        ));
    }
    None
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn write(path: &Path, text: &str, mode: u32) {
        fs::write(path, text).unwrap();
        fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    }

    fn text<T>(answer: Result<T, CredentialsError>) -> String {
        answer.err().map(|error| error.to_string()).unwrap_or_default()
    }

    #[test]
    fn secrets_and_logins_are_read_at_each_use() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let store = Credentials::new(Some(dir.path().to_owned()));
        write(&at("hook"), "s3cret\n", 0o600);
        assert_eq!(store.secret("hook").unwrap().expose(), "s3cret");
        write(&at("hook"), "rotated", 0o400);
        assert_eq!(store.secret("hook").unwrap().expose(), "rotated");

        write(&at("lines"), "admin\npass word:1\n", 0o600);
        let login = store.login("lines").unwrap();
        assert_eq!((login.user.expose(), login.password.expose()), ("admin", "pass word:1"));

        // As Kubernetes mounts a secret: links to a folder that is exchanged as a whole.
        fs::create_dir_all(at("bmc/..2026_1")).unwrap();
        write(&at("bmc/..2026_1/username"), "root", 0o600);
        write(&at("bmc/..2026_1/password"), "old", 0o600);
        symlink("..2026_1", at("bmc/..data")).unwrap();
        for file in ["username", "password"] {
            symlink(format!("..data/{file}"), at("bmc").join(file)).unwrap();
        }
        let login = store.login("bmc").unwrap();
        assert_eq!((login.user.expose(), login.password.expose()), ("root", "old"));
        fs::create_dir(at("bmc/..2026_2")).unwrap();
        write(&at("bmc/..2026_2/username"), "root", 0o600);
        write(&at("bmc/..2026_2/password"), "new", 0o600);
        fs::remove_file(at("bmc/..data")).unwrap();
        symlink("..2026_2", at("bmc/..data")).unwrap();
        assert_eq!(store.login("bmc").unwrap().password.expose(), "new");
        assert_eq!(format!("{store:?}"), "Credentials { .. }");
    }

    #[test]
    fn what_others_may_have_written_or_read_is_refused() {
        let (dir, outside) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let at = |name: &str| dir.path().join(name);
        let store = Credentials::new(Some(dir.path().to_owned()));
        write(&at("open"), "canary\n", 0o644);
        write(&at("grouped"), "canary\n", 0o660);
        write(&at("empty"), "", 0o600);
        write(&at("binary"), "x", 0o600);
        fs::write(at("binary"), [b'c', 0xff]).unwrap();
        write(&at("large"), &"c".repeat(65 * 1024), 0o600);
        write(&at("one-line"), "canary\n", 0o600);
        write(&at("colon"), "ca:nary\npassword\n", 0o600);
        write(&outside.path().join("shadow"), "canary\n", 0o600);
        symlink(outside.path().join("shadow"), at("out")).unwrap();
        fs::create_dir(at("folder")).unwrap();
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        for (name, why) in [
            ("open", "has mode 0644: others must have no access; chmod 600 it"),
            ("grouped", "has mode 0660: others must have no access; chmod 600 it"),
            ("empty", "is empty"),
            ("binary", "is not UTF-8 text"),
            ("large", "has more than 65536 bytes"),
            ("out", "is a link out of the directory of credentials"),
            ("folder", "is not a regular file"),
            ("pipe", "is not a regular file"),
        ] {
            let wanted =
                format!("credentials {name:?} cannot be used: {} {why}", at(name).display());
            assert_eq!(text(store.secret(name)), wanted);
        }
        assert!(text(store.secret("absent")).contains("\"absent\" cannot be used"));
        assert!(
            text(store.login("one-line"))
                .ends_with("must have two lines, the user and the password")
        );
        assert!(text(store.login("colon")).ends_with("has a user with a colon or several lines"));
        let long = "x".repeat(64);
        for name in ["", "..", "../shadow", ".hidden", "a/b", "a b", "-x", "ü", &long] {
            assert!(text(store.secret(name)).contains("cannot name credentials"), "{name}");
            assert!(check_name(name).is_err());
        }
        let none = Credentials::new(None);
        assert!(text(none.secret("hook")).contains("--credentials-dir DIR"));
        for name in ["open", "one-line", "colon", "out", "absent"] {
            assert!(!text(store.login(name)).contains("canary"));
        }
    }

    #[test]
    fn the_owner_decides_what_the_group_may() {
        let [server, other] = [1_000, 1_001];
        assert_eq!(judged(true, 0o100_600, server, server), None);
        assert_eq!(judged(true, 0o100_400, 0, server), None);
        // Root's file, for the group of the service: a mount of Kubernetes with fsGroup, a credential of systemd.
        assert_eq!(judged(true, 0o100_440, 0, server), None);
        assert!(judged(true, 0o100_440, server, server).is_some());
        assert!(judged(true, 0o100_440, 0, 0).is_some());
        assert!(judged(true, 0o100_460, 0, server).is_some());
        assert!(judged(true, 0o100_444, 0, server).is_some());
        let foreign = judged(true, 0o100_600, other, server).unwrap();
        assert_eq!(foreign, "belongs to user 1001, not to the server's user 1000 or to root");
    }
}
