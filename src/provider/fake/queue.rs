//! What waits to be written to the journal.

use tokio::sync::oneshot;

/// What has been recorded and not been written yet.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) waiters: Vec<oneshot::Sender<Result<(), String>>>,
    /// Records up to this one are durable.
    pub(super) durable: u64,
    pub(super) trouble: Option<Trouble>,
    /// Somebody wants to write again after trouble.
    pub(super) try_again: bool,
    pub(super) closing: bool,
    /// Flushes so far.
    pub(super) flushes: u64,
    /// The writer is held up, as by a slow disk.
    #[cfg(test)]
    pub(super) held_up: bool,
    /// The disk is full.
    #[cfg(test)]
    pub(super) full: bool,
}

/// Why nothing can be made durable.
#[derive(Debug, Clone)]
pub(super) struct Trouble {
    pub(super) why: String,
    /// Whether writing may succeed again, for example because room was made. After a failed flush it is not known
    /// what is on the disk, and only a restart helps.
    pub(super) may_pass: bool,
}

impl Queue {
    pub(super) fn has_work(&self) -> bool {
        #[cfg(test)]
        if self.held_up && !self.closing {
            return false;
        }
        let work = self.closing || !self.bytes.is_empty() || !self.waiters.is_empty();
        match &self.trouble {
            None => work,
            Some(trouble) => self.closing || (trouble.may_pass && self.try_again),
        }
    }

    /// Answers everybody who waits, and keeps the trouble for those who come.
    pub(super) fn refuse(&mut self, trouble: Trouble) {
        for waiter in self.waiters.drain(..) {
            // A caller that has gone away does not want to know.
            let _ = waiter.send(Err(trouble.why.clone()));
        }
        self.trouble = Some(trouble);
    }
}
