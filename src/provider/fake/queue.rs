//! The queue of records to write to the journal.

use tokio::sync::oneshot;

/// Records that are not written yet.
#[derive(Default)]
pub(super) struct Queue {
    pub(super) bytes: Vec<u8>,
    pub(super) waiters: Vec<oneshot::Sender<Result<(), String>>>,
    /// Records up to this one are durable.
    pub(super) durable: u64,
    pub(super) trouble: Option<Trouble>,
    /// A caller wants to write again after an error.
    pub(super) try_again: bool,
    pub(super) closing: bool,
    /// Flushes so far.
    pub(super) flushes: u64,
    /// The writer is stalled, as by a slow disk.
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
    /// Whether writing may succeed again, for example after space was freed. After a failed flush it is unknown what
    /// is on the disk, and only a restart helps.
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

    /// Fails everything that waits, and keeps the error for later callers.
    pub(super) fn refuse(&mut self, trouble: Trouble) {
        for waiter in self.waiters.drain(..) {
            // The caller may have gone away.
            let _ = waiter.send(Err(trouble.why.clone()));
        }
        self.trouble = Some(trouble);
    }
}
