//! Wakes the runs that a stop, a lock or a pause of their plan has held back, when nothing does any more.

use std::time::Duration;

use super::dispatch::Scheduler;
use crate::executor::worker::Message;

/// Longest time until it is looked at again whether a lock has ended: the wall clock may have been set.
const LOOK: Duration = Duration::from_secs(60);

impl Scheduler {
    /// Wakes runs as locks end, forever.
    pub(in crate::executor) async fn keep_brakes(self) {
        let clock = &self.ports().clock;
        let mut changes = self.ports().brakes.subscribe();
        loop {
            changes.mark_unchanged();
            let now = clock.now();
            let (free, next) = self.ports().brakes.take_released(now);
            for (run_id, machine) in free {
                self.send(&machine, Message::Released { run_id });
            }
            let nap = next.map(|next| clock.sleep(next.since(now).min(LOOK)));
            let nap = async {
                match nap {
                    Some(nap) => nap.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                changed = changes.changed() => if changed.is_err() { return },
                () = nap => {}
            }
        }
    }
}
