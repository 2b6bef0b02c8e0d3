//! Whether a program may be run: judged when the server starts, so that a mistake shows before a run meets it.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::settings::Settings;
use crate::files;

/// Longest file of accounts that is read.
const PASSWD_BYTES_MAX: u64 = 1024 * 1024;
/// Anyone or the group may write.
const WRITABLE_BY_OTHERS: u32 = 0o022;
/// Anyone may write.
const WRITABLE_BY_ALL: u32 = 0o002;
/// In a folder: only the owner of a file may replace it.
const STICKY: u32 = 0o1000;
const EXECUTABLE: u32 = 0o111;

/// The account that programs run under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    /// User.
    pub uid: u32,
    /// Its first group; it gets no others.
    pub gid: u32,
}

/// Refuses programs that could not be run, or that someone else could exchange. Returns the account that they run under,
/// if it is not that of the server.
///
/// # Errors
/// What is wrong and how to fix it, beginning with the key below the class.
pub fn judge(settings: &Settings) -> Result<Option<Account>, String> {
    for (key, argv) in settings.programs() {
        let path = argv.first().map(Path::new).unwrap_or_else(|| Path::new(""));
        judge_program(path).map_err(|why| format!("{key}: {}: {why}", path.display()))?;
    }
    let dir = &settings.working_dir;
    if !dir.is_dir() {
        return Err(format!("exec.working_dir: {} is no folder", dir.display()));
    }
    let Some(name) = &settings.user else { return Ok(None) };
    account(name).map_err(|why| format!("exec.user: {why}"))
}

/// Refuses a program that could not be run, or that someone else could exchange.
///
/// # Errors
/// What is wrong and how to fix it.
pub fn judge_program(path: &Path) -> Result<(), String> {
    let found = std::fs::metadata(path).map_err(|error| error.to_string())?;
    if !found.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    if found.mode() & EXECUTABLE == 0 {
        return Err("it is not executable; chmod +x it".to_owned());
    }
    if found.mode() & WRITABLE_BY_OTHERS != 0 {
        return Err(
            "others may write to it, so they could do anything to your machines; chmod go-w it"
                .to_owned(),
        );
    }
    trusted_owner(&found)?;
    // Who can write to a folder can exchange the program.
    let resolved = path.canonicalize().map_err(|error| error.to_string())?;
    // The way as it is written too: it may lead through links.
    for folder in path.ancestors().skip(1).chain(resolved.ancestors().skip(1)) {
        let found = std::fs::metadata(folder).map_err(|error| error.to_string())?;
        if found.mode() & WRITABLE_BY_ALL != 0 && found.mode() & STICKY == 0 {
            let folder = folder.display();
            return Err(format!(
                "anyone may write to {folder} and exchange it; chmod o-w {folder}"
            ));
        }
    }
    Ok(())
}

fn trusted_owner(found: &Metadata) -> Result<(), String> {
    let own = rustix::process::geteuid().as_raw();
    match found.uid() {
        0 => Ok(()),
        owner if owner == own => Ok(()),
        owner => Err(format!(
            "it belongs to the user {owner}; it must belong to root or to the server's own user, {own}"
        )),
    }
}

/// The account of this name; `None` if it is the one that the server has anyway.
fn account(name: &str) -> Result<Option<Account>, String> {
    let text = files::read_text(Path::new("/etc/passwd"), PASSWD_BYTES_MAX)
        .map_err(|error| format!("cannot read /etc/passwd: {error}"))?;
    let found = in_passwd(&text, name)
        .ok_or_else(|| format!("there is no account {name:?} in /etc/passwd"))?;
    let own = rustix::process::geteuid().as_raw();
    match own {
        _ if found.uid == own => Ok(None),
        0 => Ok(Some(found)),
        _ => Err(format!(
            "only a server that runs as root can run programs as {name:?}; remove the key, or start the server as {name:?}"
        )),
    }
}

fn in_passwd(text: &str, name: &str) -> Option<Account> {
    text.lines().find_map(|line| {
        let mut fields = line.split(':');
        let is_it = fields.next() == Some(name);
        let mut number = |skipped| fields.nth(skipped).and_then(|field| field.parse().ok());
        is_it.then(|| Some(Account { uid: number(1)?, gid: number(0)? })).flatten()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_program_is_a_file_that_runs_and_that_no_one_else_can_exchange() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("drain");
        assert!(judge_program(&path).unwrap_err().contains("No such file"));
        std::fs::write(&path, "#!/bin/sh\n").unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for (bits, why) in [(0o644, "not executable"), (0o775, "chmod go-w"), (0o757, "chmod go-w")]
        {
            mode(&path, bits);
            let refused = judge_program(&path).unwrap_err();
            assert!(refused.contains(why), "{bits:o}: {refused}");
        }
        mode(&path, 0o755);
        judge_program(&path).unwrap();
        assert!(judge_program(dir.path()).unwrap_err().contains("not a regular file"));
        mode(dir.path(), 0o777);
        assert!(judge_program(&path).unwrap_err().contains("anyone may write to"));
        mode(dir.path(), 0o1777);
        judge_program(&path).unwrap();
        // A link that others could lead elsewhere.
        let open = dir.path().join("open");
        std::fs::create_dir(&open).unwrap();
        mode(&open, 0o777);
        std::os::unix::fs::symlink(&path, open.join("link")).unwrap();
        assert!(judge_program(&open.join("link")).unwrap_err().contains("anyone may write to"));
    }

    #[test]
    fn an_account_is_found_by_its_name() {
        let text = "root:x:0:0:root:/:/bin/sh\nbm:x:1001:1002:,,,:/:/bin/sh\nhalf:x:7\n";
        assert_eq!(in_passwd(text, "bm"), Some(Account { uid: 1001, gid: 1002 }));
        assert_eq!(in_passwd(text, "half"), None);
        assert_eq!(in_passwd(text, "nope"), None);
    }
}
