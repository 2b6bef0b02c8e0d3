//! A server for the demo: engine and API in memory and in virtual time.
//!
//! Everything is on one thread and all randomness comes from the seed, so that the same session always prints the
//! same. It can be paced like real time, for people who watch, or not at all.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use super::wiring::serve_stream;
use crate::clock::simulated::SimulatedClock;
use crate::clock::{Clock, SeededRandom, Timestamp};
use crate::executor::{Engine, EngineConfig, Limits, error::EngineError};
use crate::plan::Registry;
use crate::provider::fake::{FakeOptions, FakeProvider, Script, ScriptError};
use crate::store::memory::MemoryStore;

/// Start of every session: 2026-01-01T00:00:00Z.
const START: Timestamp = Timestamp(1_767_225_600_000);
/// Bytes in flight between the client and the server.
const PIPE_BYTES: usize = 256 * 1024;

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum StageError {
    /// The script cannot be parsed.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// The engine failed.
    #[error("the engine did not start")]
    Engine(#[from] EngineError),
    /// The connection inside the process could not be made: a bug.
    #[error("cannot connect to the server in this process")]
    Connect(#[from] tonic::transport::Error),
    /// No thread or runtime was available.
    #[error("cannot run the demo in this process: {0}")]
    Runtime(String),
}

/// How fast virtual time passes.
#[derive(Debug)]
pub enum Pace {
    /// As fast as the work is done.
    None,
    /// Like real time, until something is received or the sender is gone.
    Real(Receiver<()>),
}

/// A server in this process. It stops when dropped.
#[derive(Debug)]
pub struct Stage {
    engine: Engine,
    clock: Arc<dyn Clock>,
    stop: CancellationToken,
}

/// Runs `work` in virtual time on this thread, and returns its result. `work` gets the clock for [`Stage::start`].
/// Blocks; call it where that is allowed.
///
/// # Errors
/// [`StageError::Runtime`] if no runtime can be created.
pub fn perform<F: Future>(
    pace: Pace,
    work: impl FnOnce(Arc<dyn Clock>) -> F,
) -> Result<F::Output, StageError> {
    let clock = Arc::new(SimulatedClock::new(START));
    let idle = clock.clone();
    let pace = Mutex::new(pace);
    // A waiting future may never have been polled, or not be wanted any more: then nothing runs that would advance
    // time again.
    let awake: Arc<Mutex<Option<Waker>>> = Arc::default();
    let main = awake.clone();
    let runtime = tokio::runtime::Builder::new_current_thread()
        // Only the deadlines of calls use it: none of them passes before its response.
        .enable_time()
        .on_thread_park(move || {
            if is_time(&pace, idle.until_next())
                && idle.advance()
                && let Some(waker) = &*lock(&main)
            {
                waker.wake_by_ref();
            }
        })
        .build()
        .map_err(|error| StageError::Runtime(error.to_string()))?;
    let mut work = std::pin::pin!(work(clock));
    Ok(runtime.block_on(std::future::poll_fn(|context| {
        *lock(&awake) = Some(context.waker().clone());
        work.as_mut().poll(context)
    })))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for as long as the pace says; false if interrupted.
fn is_time(pace: &Mutex<Pace>, wait: Option<Duration>) -> bool {
    match (&*lock(pace), wait) {
        (Pace::Real(interrupt), Some(wait)) => {
            interrupt.recv_timeout(wait) == Err(RecvTimeoutError::Timeout)
        }
        (Pace::None | Pace::Real(_), _) => true,
    }
}

impl Stage {
    /// Starts an engine without machines. `script` has the faults of the fake provider; at most `runs_max` runs are
    /// in progress at a time.
    ///
    /// # Errors
    /// [`StageError`] if the script cannot be parsed or the engine does not start.
    pub async fn start(
        clock: Arc<dyn Clock>,
        seed: u64,
        script: &str,
        runs_max: usize,
    ) -> Result<Self, StageError> {
        let options =
            FakeOptions { seed, script: Script::parse(script)?, ..FakeOptions::default() };
        let engine = Engine::start(EngineConfig {
            store: Arc::new(MemoryStore::new(clock.clone())),
            providers: vec![Arc::new(FakeProvider::new(options, clock.clone()))],
            plans: Registry::built_in(),
            clock: clock.clone(),
            random: Arc::new(SeededRandom::new(seed)),
            limits: Limits { runs_max, ..Limits::default() },
            planted: None,
        })
        .await?;
        Ok(Self { engine, clock, stop: CancellationToken::new() })
    }

    /// The clock of the session.
    #[must_use]
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.clock.clone()
    }

    /// A connection, as over a network.
    ///
    /// # Errors
    /// [`StageError::Connect`], a bug.
    pub async fn connect(&self) -> Result<Channel, StageError> {
        let (ours, theirs) = tokio::io::duplex(PIPE_BYTES);
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        tokio::spawn(async move {
            if let Err(error) = serve_stream(theirs, engine, stop).await {
                tracing::error!(%error, "the connection of the demo cannot be served");
            }
        });
        let mut ours: Option<TokioIo<DuplexStream>> = Some(TokioIo::new(ours));
        let connector = tower::service_fn(move |_: http::Uri| {
            let stream = ours.take().ok_or_else(|| std::io::Error::other("one connection only"));
            std::future::ready(stream)
        });
        Ok(Endpoint::from_static("http://demo").connect_with_connector(connector).await?)
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.engine.kill();
        self.stop.cancel();
    }
}
