//! Reader threads, each with its own connection.
//!
//! There are two lanes, so that lists and counts never block reads of single records.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use rusqlite::Connection;

use super::open::{OpenError, connect_reader, sqlite};

/// Threads of a lane.
const THREADS: usize = 2;

/// By how much the threads that give way are nicer than the others.
const PATIENCE: i32 = 5;

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// Threads that share a queue.
#[derive(Debug)]
pub(super) struct Lane {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    /// Threads called `name`, which give way to others if `is_patient`.
    pub(super) fn spawn(name: &str, path: &Path, is_patient: bool) -> Result<Self, OpenError> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let conn = connect_reader(path).map_err(|error| sqlite(path, error))?;
            let queue = queue.clone();
            let builder = std::thread::Builder::new().name(format!("store-{name}-{number}"));
            let spawned = builder.spawn(move || {
                if is_patient {
                    give_way();
                }
                work(&conn, &queue);
            });
            threads.push(spawned.map_err(|source| OpenError::Io {
                action: "start a thread to read",
                path: path.to_owned(),
                source,
            })?);
        }
        Ok(Self { jobs: Some(jobs), threads })
    }

    /// Queues a job. Returns whether there is a thread to run it.
    pub(super) fn send(&self, job: Job) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.send(job).is_ok())
    }
}

impl Drop for Lane {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has nothing left to finish.
            let _ = thread.join();
        }
    }
}

/// Has the other threads of the program go first where processors are scarce: a list can wait for a commit, and for the
/// answer of a small call.
fn give_way() {
    // Of this thread alone, as Linux has it.
    let nice = rustix::process::getpriority_process(None).unwrap_or(0);
    // Without it lists are as fast as the rest, no more.
    let _ = rustix::process::setpriority_process(None, (nice + PATIENCE).min(19));
}

fn work(conn: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics drops its answer, which its caller notices; the thread continues.
        let _ = catch_unwind(AssertUnwindSafe(|| job(conn)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lists_give_way() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("empty.db");
        drop(Connection::open(&path).unwrap());
        let nice = |is_patient| {
            let lane = Lane::spawn("test", &path, is_patient).unwrap();
            let (sender, receiver) = channel();
            let job = move |_: &Connection| {
                sender.send(rustix::process::getpriority_process(None).unwrap()).unwrap();
            };
            assert!(lane.send(Box::new(job)));
            receiver.recv().unwrap()
        };
        let own = rustix::process::getpriority_process(None).unwrap();
        assert_eq!((nice(false), nice(true)), (own, (own + PATIENCE).min(19)));
    }
}
