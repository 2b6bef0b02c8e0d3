//! Filesystems for a single test, mounted as root.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Shuts a filesystem down without flushing its journal, as in a power cut: `EXT4_IOC_SHUTDOWN` with
/// `EXT4_GOING_FLAGS_NOLOGFLUSH`. This crate cannot call it, since that needs unsafe code.
const CUT_POWER: &str = "\
import fcntl, os, struct, sys
fd = os.open(sys.argv[1], os.O_RDONLY)
fcntl.ioctl(fd, 0x8004587D, struct.pack('I', 2))
";

/// A filesystem, unmounted when dropped.
pub(crate) struct Mount {
    /// What is mounted, and how.
    args: Vec<String>,
    point: PathBuf,
}

/// What a program said, if it failed.
fn run(program: &str, args: &[&str]) -> Result<(), String> {
    let output = Command::new(program).args(args).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {said}", args.join(" ")))
}

impl Mount {
    /// An ext4 in a file below `dir`, on a loop device.
    pub(crate) fn ext4(dir: &Path, mebibytes: u32) -> Result<Self, String> {
        let image = dir.join("disk.img").to_str().ok_or("not text")?.to_owned();
        let size = format!("{mebibytes}M");
        run("mkfs.ext4", &["-q", "-F", &image, &size])?;
        // Without the ability to cut the power there is no point in starting.
        run("python3", &["-c", "import fcntl"])?;
        Self::new(dir, &["-o", "loop", &image])
    }

    /// A filesystem in memory of this size.
    pub(crate) fn tmpfs(dir: &Path, mebibytes: u32) -> Result<Self, String> {
        Self::new(dir, &["-t", "tmpfs", "-o", &format!("size={mebibytes}m"), "tmpfs"])
    }

    fn new(dir: &Path, args: &[&str]) -> Result<Self, String> {
        let point = dir.join("mount");
        std::fs::create_dir(&point).map_err(|error| error.to_string())?;
        let mount = Self { args: args.iter().map(|&arg| arg.to_owned()).collect(), point };
        mount.mount()?;
        Ok(mount)
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        &self.point
    }

    fn text(&self) -> &str {
        self.point.to_str().expect("temporary directories have names in text")
    }

    fn mount(&self) -> Result<(), String> {
        let mut args: Vec<&str> = self.args.iter().map(String::as_str).collect();
        args.push(self.text());
        run("mount", &args)
    }

    /// Everything that was not flushed is gone, and nothing can be written any more.
    pub(crate) fn cut_power(&self) {
        run("python3", &["-c", CUT_POWER, self.text()]).expect("the filesystem shuts down");
    }

    /// The filesystem as it is on disk. It must not be in use.
    pub(crate) fn remount(&self) {
        run("umount", &[self.text()]).expect("the filesystem is not in use");
        self.mount().expect("what could be mounted can be mounted again");
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // A test that failed may have left a server that still uses it.
        if run("umount", &[self.text()]).is_err() {
            let _ = run("umount", &["--lazy", self.text()]);
        }
    }
}

/// The filesystem, or a line that says why not and is hard to miss.
pub(crate) fn or_skip(what: &str, mount: Result<Mount, String>) -> Option<Mount> {
    mount.map_err(|why| crate::support::announce(&format!("SKIPPED {what}: {why}"))).ok()
}
