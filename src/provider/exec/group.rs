//! The process group of a program: the program and every child that has not left it.

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::provider) struct Group(Pid);

impl Group {
    /// The group that a process leads.
    pub(in crate::provider) fn of(leader: u32) -> Option<Self> {
        i32::try_from(leader).ok().and_then(Pid::from_raw).map(Self)
    }

    /// Its number.
    pub(super) fn number(self) -> i32 {
        self.0.as_raw_nonzero().get()
    }

    /// Asks it to end.
    pub(super) fn ask(self) {
        self.signal(Signal::TERM);
    }

    /// Ends it.
    pub(in crate::provider) fn kill(self) {
        self.signal(Signal::KILL);
    }

    /// Whether it has a member.
    pub(in crate::provider) fn exists(self) -> bool {
        test_kill_process_group(self.0) != Err(Errno::SRCH)
    }

    fn signal(self, signal: Signal) {
        match kill_process_group(self.0, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(error) => {
                tracing::warn!(group = self.number(), %error, "a program could not be signaled");
            }
        }
    }
}
