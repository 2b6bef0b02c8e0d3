//! Opens files that users name: regular files, of a bounded size, without waiting for another process.
//!
//! A path may lead to a pipe without a writer, an endless device, or a directory. Opening does not wait for a writer,
//! the file type is checked before reading, and reading stops at the limit.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::path::Path;

#[cfg(unix)]
use std::os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _};

/// Reads a regular file of at most `bytes_max` bytes.
///
/// # Errors
/// Those of the operating system, and one that names the file type if it is not regular, or its size if it is too
/// large.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open_regular(path)?;
    bounded(&file, len, bytes_max)
}

/// Opens a regular file for reading; returns its size too.
///
/// # Errors
/// As [`read`], but for the size.
pub fn open_regular(path: &Path) -> io::Result<(File, u64)> {
    let mut options = OpenOptions::new();
    options.read(true);
    #[cfg(unix)]
    options.custom_flags(flags(rustix::fs::OFlags::NONBLOCK | rustix::fs::OFlags::NOCTTY));
    let file = match options.open(path) {
        Ok(file) => file,
        // A socket cannot be opened; name the file type.
        Err(error) => {
            return Err(std::fs::metadata(path)
                .ok()
                .and_then(|found| irregular(&found))
                .unwrap_or(error));
        }
    };
    let metadata = file.metadata()?;
    match irregular(&metadata) {
        Some(refused) => Err(refused),
        None => Ok((file, metadata.len())),
    }
}

/// Like [`read`], for text.
///
/// # Errors
/// Like [`read`], and if it is not UTF-8.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    text(read(path, bytes_max)?)
}

/// Like [`read`], for a file that decides what is done to machines: it must belong to the user of this process or to root,
/// and no one else may be able to write it.
///
/// # Errors
/// Like [`read`], and one that says who else can write it, and how to change that.
pub fn read_trusted(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let (file, len) = open_regular(path)?;
    refuse_writable(&file.metadata()?, false)?;
    bounded(&file, len, bytes_max)
}

/// Refuses a directory of such files in the same way. One on a file system that is mounted only for reading may have any mode.
///
/// # Errors
/// One that says who else can write to it, and how to change that; those of the operating system.
pub fn refuse_writable_dir(dir: &Path) -> io::Result<()> {
    #[cfg(unix)]
    let is_read_only = rustix::fs::statvfs(dir)
        .is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY));
    #[cfg(not(unix))]
    let is_read_only = false;
    refuse_writable(&std::fs::metadata(dir)?, is_read_only)
}

#[cfg(unix)]
fn refuse_writable(metadata: &std::fs::Metadata, is_read_only: bool) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return refused(format!(
            "it belongs to another user ({owner}), who could change what plans do: use chown"
        ));
    }
    if mode & 0o022 != 0 && !is_read_only {
        return refused(format!(
            "other users can write to it (mode {mode:04o}), and so change what plans do: use chmod go-w"
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_writable(_: &std::fs::Metadata, _: bool) -> io::Result<()> {
    Ok(())
}

/// Reads one of our own files, of any size: a regular one, and never through a symbolic link.
///
/// # Errors
/// Those of the operating system, and one that names what is there instead of a regular file.
pub fn read_own(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_own(OpenOptions::new().read(true), path)?.read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Reads a file that holds a secret: a regular one of at most `bytes_max` bytes, never through a symbolic link, that
/// belongs to the user of this process or to root, and that no one else can read or write.
///
/// # Errors
/// Those of the operating system, and one that says who else can read it, and how to change that.
pub fn read_secret(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = open_own(OpenOptions::new().read(true), path)?;
    let metadata = file.metadata()?;
    refuse_shared(&metadata)?;
    bounded(&file, metadata.len(), bytes_max)
}

/// Like [`read_secret`], for text.
///
/// # Errors
/// Like [`read_secret`], and if it is not UTF-8.
pub fn read_secret_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    text(read_secret(path, bytes_max)?)
}

/// Refuses a file that belongs to another user, or that others can read or write.
#[cfg(unix)]
fn refuse_shared(metadata: &std::fs::Metadata) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    let (owner, mode) = (metadata.uid(), metadata.mode() & 0o7777);
    if owner != 0 && owner != rustix::process::geteuid().as_raw() {
        return refused("it belongs to another user".to_owned());
    }
    if mode & 0o077 != 0 {
        return refused(format!(
            "other users can read or write it (mode {mode:04o}): use chmod 600"
        ));
    }
    Ok(())
}

#[cfg(not(unix))]
fn refuse_shared(_: &std::fs::Metadata) -> io::Result<()> {
    Ok(())
}

/// Creates a file that only its owner can read and write; it must not exist.
///
/// # Errors
/// Those of the operating system.
pub fn create_secret(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    options.mode(0o600);
    options.open(path)
}

fn bounded(source: impl Read, len: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
    let too_large = |found: String| {
        let message = format!("it has {found} bytes, at most {bytes_max} are read");
        io::Error::new(io::ErrorKind::FileTooLarge, message)
    };
    if len > bytes_max {
        return Err(too_large(len.to_string()));
    }
    let mut bytes = Vec::new();
    // It may have grown since, or not report its size.
    source.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        return Err(too_large("more".to_owned()));
    }
    Ok(bytes)
}

fn text(bytes: Vec<u8>) -> io::Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        io::Error::new(io::ErrorKind::InvalidData, format!("it is not UTF-8 text: see byte {at}"))
    })
}

/// The error of a file that is not a regular one.
fn irregular(metadata: &std::fs::Metadata) -> Option<io::Error> {
    let kind = metadata.file_type();
    if kind.is_file() {
        return None;
    }
    #[cfg(unix)]
    let special = if kind.is_fifo() {
        Some("a named pipe")
    } else if kind.is_char_device() || kind.is_block_device() {
        Some("a device")
    } else if kind.is_socket() {
        Some("a socket")
    } else {
        None
    };
    #[cfg(not(unix))]
    let special: Option<&str> = None;
    let (is, error) = match special {
        Some(special) => (special, io::ErrorKind::InvalidInput),
        None if kind.is_dir() => ("a directory", io::ErrorKind::IsADirectory),
        None => ("something else", io::ErrorKind::InvalidInput),
    };
    Some(io::Error::new(error, format!("it is {is}, not a regular file")))
}

/// Makes opening fail if the last part of the path is a symbolic link: for files that a program writes where someone
/// else might have put a link to a file that should be overwritten. Nor does opening wait for the other end of a
/// pipe.
pub fn never_follow(options: &mut OpenOptions) -> &mut OpenOptions {
    #[cfg(unix)]
    options.custom_flags(flags(rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK));
    options
}

/// Opens with these options, never through a symbolic link, and only a regular file.
///
/// # Errors
/// Those of the operating system, and one that names what is there instead of a regular file.
pub fn open_own(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    let file = never_follow(options).open(path).map_err(|error| refuse_link(path, error))?;
    match irregular(&file.metadata()?) {
        Some(refused) => Err(refused),
        None => Ok(file),
    }
}

/// Takes a file of ours that a directory of ours is said to hold: it must belong to the user of this process and have no
/// other name, and from now on only its owner can read and write it.
///
/// # Errors
/// One that says whose it is, or those of the operating system.
#[cfg(unix)]
pub fn take_own(file: &File) -> io::Result<()> {
    use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
    let metadata = file.metadata()?;
    let refused = |why: &str| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        return refused("it belongs to another user");
    }
    if metadata.nlink() > 1 {
        return refused("it has another name somewhere else (a hard link)");
    }
    match metadata.mode() & 0o077 {
        0 => Ok(()),
        _ => file.set_permissions(std::fs::Permissions::from_mode(0o600)),
    }
}

/// Nothing is known about owners here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn take_own(_: &File) -> io::Result<()> {
    Ok(())
}

/// Refuses a directory for files of ours that belongs to another user, or that others can write to: they could put
/// files of their own in place of ours.
///
/// # Errors
/// One that says who else can write to it, and how to change that; those of the operating system.
#[cfg(unix)]
pub fn refuse_shared_dir(dir: &Path) -> io::Result<()> {
    use std::os::unix::fs::MetadataExt as _;
    let metadata = std::fs::metadata(dir)?;
    let refused = |why: String| Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
    if metadata.uid() != rustix::process::geteuid().as_raw() {
        let owner = metadata.uid();
        return refused(format!(
            "it belongs to another user ({owner}): use chown, or run the server as that user"
        ));
    }
    let mode = metadata.mode() & 0o7777;
    if mode & 0o022 != 0 {
        return refused(format!("other users can write to it (mode {mode:04o}): use chmod go-w"));
    }
    Ok(())
}

/// Nothing is known about owners here.
///
/// # Errors
/// None.
#[cfg(not(unix))]
pub fn refuse_shared_dir(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Refuses a path whose last part is a symbolic link, or something that is not a regular file; a path that does not
/// exist is accepted.
///
/// # Errors
/// One that names what is there.
pub fn refuse_others(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_symlink() => Err(link()),
        Ok(found) => irregular(&found).map_or(Ok(()), Err),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

fn refuse_link(path: &Path, error: io::Error) -> io::Error {
    match std::fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_symlink() => link(),
        Ok(_) | Err(_) => error,
    }
}

fn link() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "it is a symbolic link, which is not followed here")
}

#[cfg(unix)]
fn flags(flags: rustix::fs::OFlags) -> i32 {
    i32::try_from(flags.bits()).unwrap_or(0)
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    fn message(path: &Path) -> String {
        match read_text(path, 10) {
            Err(error) => error.to_string(),
            Ok(text) => panic!("{} was read: {text}", path.display()),
        }
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("good"), "0123456789").unwrap();
        symlink(at("good"), at("link")).unwrap();
        assert_eq!(read_text(&at("good"), 10).unwrap(), "0123456789");
        assert_eq!(read_text(&at("link"), 10).unwrap(), "0123456789");
        std::fs::write(at("large"), "0123456789a").unwrap();
        assert_eq!(message(&at("large")), "it has 11 bytes, at most 10 are read");
        let hole = File::create(at("hole")).unwrap();
        hole.set_len(200 << 20).unwrap();
        assert_eq!(message(&at("hole")), "it has 209715200 bytes, at most 10 are read");
        std::fs::write(at("binary"), [b'a', 0xff]).unwrap();
        assert_eq!(message(&at("binary")), "it is not UTF-8 text: see byte 1");
        assert_eq!(message(dir.path()), "it is a directory, not a regular file");
        assert_eq!(message(Path::new("/dev/zero")), "it is a device, not a regular file");
        rustix::fs::mknodat(
            rustix::fs::CWD,
            at("pipe"),
            rustix::fs::FileType::Fifo,
            rustix::fs::Mode::RUSR,
            0,
        )
        .unwrap();
        assert_eq!(message(&at("pipe")), "it is a named pipe, not a regular file");
        let _listener = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        assert_eq!(message(&at("socket")), "it is a socket, not a regular file");
        symlink(at("loop"), at("loop")).unwrap();
        assert!(read(&at("loop"), 10).is_err());
        assert_eq!(read(&at("nothing"), 10).unwrap_err().kind(), io::ErrorKind::NotFound);
        // It reports that it is empty, and is not.
        assert!(message(Path::new("/proc/self/status")).contains("more bytes"));
    }

    #[test]
    fn a_secret_is_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        create_secret(&at("key")).unwrap();
        assert_eq!(create_secret(&at("key")).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        std::fs::write(at("key"), "secret").unwrap();
        assert_eq!(read_secret_text(&at("key"), 10).unwrap(), "secret");
        assert!(read_secret(&at("key"), 5).unwrap_err().to_string().contains("at most 5"));
        symlink(at("key"), at("link")).unwrap();
        assert!(read_secret(&at("link"), 10).unwrap_err().to_string().contains("symbolic link"));
        for mode in [0o644, 0o640, 0o602, 0o610] {
            std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&at("key"), 10).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:04o}")), "{error}");
        }
        std::fs::set_permissions(at("key"), std::fs::Permissions::from_mode(0o400)).unwrap();
        assert_eq!(read_secret(&at("key"), 10).unwrap(), b"secret");
    }

    #[test]
    fn a_directory_that_others_can_write_to_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let with_mode = |mode| {
            std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(mode)).unwrap();
            refuse_shared_dir(dir.path()).map_err(|error| error.to_string())
        };
        for mode in [0o700, 0o750, 0o755, 0o500] {
            assert_eq!(with_mode(mode), Ok(()), "{mode:o}");
        }
        for mode in [0o770, 0o707, 0o777, 0o1777, 0o775] {
            let error = with_mode(mode).unwrap_err();
            assert!(
                error.contains(&format!("mode {mode:04o}")) && error.contains("go-w"),
                "{error}"
            );
        }
        with_mode(0o700).unwrap();
        let path = dir.path().join("file");
        let file = File::create(&path).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o666)).unwrap();
        take_own(&file).unwrap();
        assert_eq!(file.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::hard_link(&path, dir.path().join("other")).unwrap();
        assert!(take_own(&file).unwrap_err().to_string().contains("another name"));
    }

    #[test]
    fn what_is_written_is_never_written_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("victim"), "mine").unwrap();
        symlink(at("victim"), at("lock")).unwrap();
        symlink(at("nowhere"), at("dangling")).unwrap();
        for name in ["lock", "dangling"] {
            let error =
                open_own(OpenOptions::new().write(true).create(true).truncate(true), &at(name))
                    .unwrap_err();
            assert_eq!(error.to_string(), "it is a symbolic link, which is not followed here");
            assert!(refuse_others(&at(name)).is_err());
        }
        assert_eq!(std::fs::read(at("victim")).unwrap(), b"mine");
        assert!(!at("nowhere").exists());
        open_own(OpenOptions::new().write(true).create(true).truncate(true), &at("own")).unwrap();
        refuse_others(&at("own")).unwrap();
        refuse_others(&at("absent")).unwrap();
        assert!(refuse_others(dir.path()).is_err());
    }
}
