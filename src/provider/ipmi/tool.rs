//! One run of `ipmitool`: bounded in time and output, and ended with everything that it has started.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::Command;

use crate::clock::Clock;
use crate::credentials::Secret;
use crate::provider::exec::Group;

/// Most bytes that are read of what it prints, on each of its outputs.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
/// The variable that it takes the password from.
const PASSWORD: &str = "IPMITOOL_PASSWORD";

/// How it ended.
#[derive(Debug)]
pub(super) enum Ran {
    /// By itself.
    Ended {
        /// Whether it says that it succeeded.
        is_success: bool,
        /// What it printed.
        stdout: String,
        /// What it printed about errors.
        stderr: String,
    },
    /// It took too long.
    TimedOut,
}

/// A process group that ends when this is dropped.
struct Ending(Option<Group>);

impl Drop for Ending {
    fn drop(&mut self) {
        if let Some(group) = self.0.filter(|group| group.exists()) {
            group.kill();
        }
    }
}

/// Runs it to its end. If this is dropped, it ends at once.
///
/// # Errors
/// If it could not be started: nothing has happened.
pub(super) async fn run(
    program: &Path,
    arguments: &[String],
    password: &Secret,
    limit: Duration,
    clock: &dyn Clock,
) -> io::Result<Ran> {
    let mut child = Command::new(program)
        .args(arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C")
        .env(PASSWORD, password.expose())
        .current_dir("/")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let mut ending = Ending(child.id().and_then(Group::of));
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let whole = async {
        let (stdout, stderr) = tokio::join!(read(stdout), read(stderr));
        child.wait().await.map(|status| (status, stdout, stderr))
    };
    let ended = tokio::select! {
        biased;
        ended = whole => ended?,
        () = clock.sleep(limit) => return Ok(Ran::TimedOut),
    };
    // Its number may belong to another process from now on.
    if ending.0.is_some_and(|group| !group.exists()) {
        ending.0 = None;
    }
    let (status, stdout, stderr) = ended;
    Ok(Ran::Ended { is_success: status.success(), stdout, stderr })
}

/// Reads to the end, and keeps the beginning.
async fn read(pipe: Option<impl AsyncRead + Unpin>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept = Vec::new();
    let is_read = (&mut pipe).take(OUTPUT_BYTES_MAX).read_to_end(&mut kept).await;
    if is_read.is_ok() {
        drop(tokio::io::copy(&mut pipe, &mut tokio::io::sink()).await);
    }
    String::from_utf8_lossy(&kept).into_owned()
}
