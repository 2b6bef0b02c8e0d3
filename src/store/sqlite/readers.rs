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

type Job = Box<dyn FnOnce(&Connection) + Send>;

/// Threads that share a queue.
#[derive(Debug)]
pub(super) struct Lane {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl Lane {
    pub(super) fn spawn(name: &str, path: &Path) -> Result<Self, OpenError> {
        let (jobs, queue) = channel();
        let queue = Arc::new(Mutex::new(queue));
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let conn = connect_reader(path).map_err(|error| sqlite(path, error))?;
            let queue = queue.clone();
            let builder = std::thread::Builder::new().name(format!("store-{name}-{number}"));
            let spawned = builder.spawn(move || work(&conn, &queue));
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

fn work(conn: &Connection, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        // A job that panics drops its answer, which its caller notices; the thread continues.
        let _ = catch_unwind(AssertUnwindSafe(|| job(conn)));
    }
}
