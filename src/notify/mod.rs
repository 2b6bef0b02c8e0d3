//! Notifications: what happens to machines and runs, sent to receivers over HTTP as CloudEvents.
//!
//! Each receiver has a cursor in the store and one task, which reads the feed of changes from there, sends one event after
//! the other, and moves the cursor once they are taken. A receiver that is away costs nothing but its place in the feed.
//! An event may come twice, always under the same id, and never out of order. Nothing here is done on the committing
//! thread: it only wakes the tasks.

mod event;
mod interest;
mod post;
mod settings;
mod status;
#[cfg(test)]
mod tests;
mod verdict;
mod wake;
mod worker;

use std::sync::Arc;

pub use interest::{Interest, kinds};
pub use settings::{NotifyPorts, ReceiverSettings};
pub use status::{Standing, Status};

use self::post::Http;
use self::wake::Wake;
use self::worker::Worker;

/// A task that notifies one receiver; it never ends by itself while this server owns the cursor.
pub type Task = std::pin::Pin<Box<dyn Future<Output = ()> + Send>>;

/// Prepares the tasks of all receivers, for their caller to spawn, and their standing. What happens after this has
/// returned, a new receiver is notified of.
pub async fn receivers(
    settings: Vec<ReceiverSettings>,
    ports: &NotifyPorts,
) -> Vec<(Task, Arc<Status>)> {
    let mut all = Vec::with_capacity(settings.len());
    if settings.is_empty() {
        return all;
    }
    let wake = Arc::new(Wake::default());
    ports.store.listen(wake.clone());
    for settings in settings {
        let status = Arc::new(Status::new(&settings.name));
        let post = Arc::new(Http::new(&settings, ports));
        let mut worker = Worker::new(settings, ports, post, status.clone(), wake.woken());
        worker.begin().await;
        all.push((Box::pin(worker.run()) as Task, status));
    }
    all
}
