//! The inputs of programs, as files; and what a server that was killed has left running.
//!
//! A program that acts has its input as its standard input, from a named pipe that is locked as long as the program has it open;
//! what goes through it, secrets too, is on no disk.
//! The system keeps the lock, so the next server sees by it that a program of the former one still runs, and which group
//! to end. The pipe of a program that has ended is removed.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::{
    DirBuilderExt as _, FileTypeExt as _, OpenOptionsExt as _, PermissionsExt as _, chown,
};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::fs::{CWD, Mode, OFlags, fcntl_getfl, fcntl_setfl, mkfifoat};
use tokio::net::unix::pipe;
use zeroize::Zeroizing;

use super::group::Group;
use super::judge::Account;
use crate::clock::Clock;
use crate::credentials::Secret;
use crate::files;
use crate::ids::MachineId;

/// Time between two looks whether a program has ended.
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// In the mode of a folder: anyone may pass it on the way to a file whose name is known.
const PASSABLE: u32 = 0o001;

/// A folder of inputs, for one class and one server at a time.
#[derive(Debug)]
pub(super) struct Folder {
    path: PathBuf,
    next: AtomicU64,
}

/// The files of a program that acts.
#[derive(Debug)]
pub(super) struct Slot {
    input: PathBuf,
    group: PathBuf,
}

/// A folder of secrets, removed when this is dropped.
#[derive(Debug)]
pub(super) struct Handed(PathBuf);

impl Handed {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Handed {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::error!(%error, path = %self.0.display(), "a folder of secrets was not removed");
        }
    }
}

/// A program of a former server that still runs.
#[derive(Debug)]
pub(super) struct Left {
    pub(super) machine: MachineId,
    slot: Slot,
    input: File,
    /// `None` if that server was killed before it could note it.
    group: Option<Group>,
}

impl Folder {
    /// Creates the folder, for no one else to read.
    pub(super) fn open(path: PathBuf) -> io::Result<Self> {
        // Programs have a working folder of their own.
        let path = std::path::absolute(path)?;
        DirBuilder::new().recursive(true).mode(0o700).create(&path)?;
        // Of programs that a killed server has left.
        for entry in std::fs::read_dir(&path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|end| end == "secrets") {
                std::fs::remove_dir_all(&path)?;
            }
        }
        Ok(Self { path, next: AtomicU64::new(0) })
    }

    /// Lets other accounts reach what they own in the folder, and list nothing.
    ///
    /// # Errors
    /// If a folder above those of this server cannot be passed; the message says what to do.
    pub(super) fn let_pass(&self) -> io::Result<()> {
        let own = [Some(self.path.as_path()), self.path.parent()];
        for own in own.into_iter().flatten() {
            std::fs::set_permissions(own, std::fs::Permissions::from_mode(0o711))?;
        }
        for above in self.path.ancestors().skip(2) {
            if std::fs::metadata(above)?.permissions().mode() & PASSABLE == 0 {
                return Err(io::Error::other(format!(
                    "programs of another account could not reach their credentials through {}; chmod o+x it",
                    above.display()
                )));
            }
        }
        Ok(())
    }

    /// Writes secrets as files, for the eyes of one account alone, until the result is dropped.
    pub(super) fn hand_over(
        &self,
        secrets: &[(String, Secret)],
        account: Option<Account>,
    ) -> io::Result<Handed> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}.secrets"));
        DirBuilder::new().mode(0o700).create(&path)?;
        let handed = Handed(path);
        let give = |path: &Path| match account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        };
        for (name, secret) in secrets {
            let path = handed.0.join(name);
            // As an editor leaves it: some programs want the line feed.
            let mut text = Zeroizing::new(String::with_capacity(secret.expose().len() + 1));
            text.push_str(secret.expose());
            text.push('\n');
            write(&path, &text)?;
            give(&path)?;
        }
        give(&handed.0)?;
        Ok(handed)
    }

    /// An input that no one finds: for a program that only looks.
    pub(super) fn input(&self, json: &str) -> io::Result<File> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.path.join(format!("{number}.look"));
        write(&path, json)?;
        let file = File::open(&path)?;
        std::fs::remove_file(&path)?;
        Ok(file)
    }

    /// The input of a program that acts, locked, and where it comes from.
    pub(super) fn slot(&self, machine: &MachineId) -> io::Result<(Slot, File, pipe::Sender)> {
        let slot = self.of(machine);
        slot.clear();
        mkfifoat(CWD, &slot.input, Mode::RUSR | Mode::WUSR)?;
        let input = open_pipe(&slot.input)?;
        input.try_lock().map_err(io::Error::from)?;
        let source = pipe::OpenOptions::new().open_sender(&slot.input)?;
        // The program waits for what it is given.
        fcntl_setfl(&input, fcntl_getfl(&input)? - OFlags::NONBLOCK)?;
        Ok((slot, input, source))
    }

    /// What a former server has left running; the files of what has ended are removed. Only before anything acts.
    pub(super) fn left(&self) -> io::Result<Vec<Left>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(&self.path)? {
            let name = entry?.file_name();
            let machine = name.to_str().and_then(|name| name.strip_suffix(".act"));
            let Some(Ok(machine)) = machine.map(MachineId::parse) else { continue };
            let slot = self.of(&machine);
            let input = match open_pipe(&slot.input) {
                Ok(input) => input,
                Err(error) => {
                    tracing::warn!(%error, path = %slot.input.display(), "not the input of a program");
                    continue;
                }
            };
            let noted = files::read_own(&slot.group).ok();
            let number = noted.and_then(|bytes| String::from_utf8(bytes).ok()?.trim().parse().ok());
            let left = Left { machine, slot, input, group: number.and_then(Group::of) };
            if left.runs() {
                all.push(left);
            } else {
                left.slot.clear();
            }
        }
        Ok(all)
    }

    fn of(&self, machine: &MachineId) -> Slot {
        // Each kind of file has an ending of its own, so that no machine's file is that of another.
        let at = |ending| self.path.join(format!("{machine}.{ending}"));
        Slot { input: at("act"), group: at("group") }
    }
}

impl Slot {
    /// Notes the group of the program that has been started.
    pub(super) fn note(&self, group: Group) {
        if let Err(error) = write(&self.group, &group.number().to_string()) {
            tracing::warn!(%error, path = %self.group.display(), "the group of a program was not noted");
        }
    }

    /// Removes what belongs to a program that has ended.
    pub(super) fn clear(&self) {
        for path in [&self.input, &self.group] {
            match std::fs::remove_file(path) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::warn!(%error, path = %path.display(), "a file of a program was not removed");
                }
            }
        }
    }
}

impl Left {
    /// Whether it still runs.
    fn runs(&self) -> bool {
        match self.input.try_lock() {
            Ok(()) => false,
            Err(TryLockError::WouldBlock) => true,
            Err(TryLockError::Error(error)) => {
                tracing::warn!(%error, path = %self.slot.input.display(), "cannot tell whether a program runs");
                true
            }
        }
    }

    /// Ends it with its children, and resolves when it has ended.
    pub(super) async fn end(self, clock: &dyn Clock, grace: Duration) {
        tracing::warn!(machine = %self.machine, "a program that a former server has started still runs: it is ended");
        if let Some(group) = self.group {
            group.ask();
        }
        let kill_at = clock.monotonic() + grace;
        let mut is_killed = false;
        // Its children do not hold the lock.
        while self.runs() || (!is_killed && self.group.is_some_and(Group::exists)) {
            if !is_killed && clock.monotonic() >= kill_at {
                is_killed = true;
                match self.group {
                    Some(group) => group.kill(),
                    // Its end has to be waited for.
                    None => {
                        tracing::warn!(machine = %self.machine, "the group of the program is unknown")
                    }
                }
            }
            clock.sleep(LOOK_AGAIN).await;
        }
        self.slot.clear();
    }
}

/// Opens a pipe of our own for reading, without waiting for a writer, and never through a symbolic link.
fn open_pipe(path: &Path) -> io::Result<File> {
    let file = files::never_follow(OpenOptions::new().read(true)).open(path)?;
    let kind = file.metadata()?.file_type();
    // A server of an earlier version has left a file.
    match kind.is_fifo() || kind.is_file() {
        true => Ok(file),
        false => Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no pipe")),
    }
}

fn write(path: &Path, text: &str) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    files::open_own(&mut options, path)?.write_all(text.as_bytes())
}
