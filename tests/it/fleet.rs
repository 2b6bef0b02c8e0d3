//! A server that can be restarted: in this process over a simulated connection, or the real binary.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bmdemo::clock::{Clock, OsRandom, Sleep, SystemClock, Timestamp};
use bmdemo::executor::{Engine, EngineConfig, Limits};
use bmdemo::provider::fake::{FakeOptions, FakeProvider, Script, World};
use bmdemo::server::serve_stream;
use bmdemo::store::sqlite::{OpenError, SqliteOptions, SqliteStore};
use hyper_util::rt::TokioIo;
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};

use crate::support::{Server, within};

/// How much faster than ours the time of a server in this process runs: bookmarks come every quarter of a second.
const SPEED: u32 = 40;

/// Faults of the machines, so that runs fail, are retried and need people.
const SCRIPT: &str =
    "machine=m-2 step=join do=fail-permanent times=2; machine=m-4 step=* do=fail times=3";

/// A clock that runs faster than that of the system.
#[derive(Debug)]
pub(crate) struct FastClock {
    system: SystemClock,
    began: Timestamp,
}

impl Clock for FastClock {
    fn now(&self) -> Timestamp {
        self.began.plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        self.system.monotonic() * SPEED
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        self.system.sleep(duration / SPEED)
    }
}

/// Where a fleet is stored, and which server serves it.
pub(crate) enum Fleet {
    /// The production engine, store and connection code in this process.
    Local { dir: TempDir, clock: Arc<FastClock>, local: Option<Local> },
    /// The real binary.
    Process { dir: TempDir, server: Option<Box<Server>> },
}

impl Fleet {
    /// A new one in this process.
    pub(crate) async fn local() -> Self {
        let system = SystemClock::new();
        let clock = Arc::new(FastClock { began: system.now(), system });
        let dir = tempfile::tempdir().unwrap();
        let local = Some(Local::boot(&dir, clock.clone()).await);
        Self::Local { dir, clock, local }
    }

    /// A new one with the real binary.
    pub(crate) async fn process() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let server = Some(Box::new(Server::start(&args(&dir)).await));
        Self::Process { dir, server }
    }

    /// Its own connection; it breaks when the server is restarted.
    pub(crate) async fn channel(&self) -> Channel {
        match self {
            Self::Local { local, .. } => local.as_ref().unwrap().channel(),
            Self::Process { server, .. } => server.as_ref().unwrap().channel().await,
        }
    }

    /// The store of a fleet in this process.
    pub(crate) fn local_store(&self) -> Arc<SqliteStore> {
        match self {
            Self::Local { local, .. } => local.as_ref().unwrap().store.clone(),
            Self::Process { .. } => panic!("the store is in another process"),
        }
    }

    /// Ends the server as a crash does, or in order, and starts it again with what is on disk.
    pub(crate) async fn restart(&mut self, crash: bool) {
        match self {
            Self::Local { dir, clock, local } => {
                local.take().unwrap().end(crash).await;
                *local = Some(Local::boot(dir, clock.clone()).await);
            }
            Self::Process { dir, server } => {
                let old = server.take().unwrap();
                old.signal(if crash { "KILL" } else { "TERM" }).await;
                old.ended().await;
                *server = Some(Box::new(Server::start(&args(dir)).await));
            }
        }
    }
}

fn args(dir: &TempDir) -> [&str; 8] {
    let data = dir.path().to_str().unwrap();
    let timing = "--fake-timing=0.02";
    ["--port=0", timing, "--fake-script", SCRIPT, "--data-dir", data, "--log-level", "error"]
}

/// A server in this process.
pub(crate) struct Local {
    store: Arc<SqliteStore>,
    provider: Arc<FakeProvider>,
    /// Taken away from the connections when the server ends.
    engine: Arc<Mutex<Option<Engine>>>,
    stop: CancellationToken,
}

impl Local {
    async fn boot(dir: &TempDir, clock: Arc<FastClock>) -> Self {
        let store = within("the store can be opened", async {
            loop {
                match SqliteStore::open(dir.path(), SqliteOptions::default()) {
                    // A test that starts a process elsewhere in this one holds every file lock of it for a moment,
                    // from the fork to the exec.
                    Err(OpenError::InUse { .. }) => {
                        SystemClock::new().sleep(Duration::from_millis(1)).await;
                    }
                    opened => return opened.unwrap(),
                }
            }
        });
        let store = Arc::new(store.await);
        let world = World::open(dir.path()).unwrap();
        let script = Script::parse(SCRIPT).unwrap();
        let fake = FakeOptions { script, world, ..FakeOptions::default() };
        let provider = Arc::new(FakeProvider::new(fake, clock.clone()));
        let engine = Engine::start(EngineConfig {
            store: store.clone(),
            providers: vec![provider.clone()],
            plans: bmdemo::plan::Registry::built_in(),
            clock,
            random: Arc::new(OsRandom),
            limits: Limits::default(),
            planted: None,
        });
        let engine = Arc::new(Mutex::new(Some(engine.await.unwrap())));
        Self { store, provider, engine, stop: CancellationToken::new() }
    }

    fn channel(&self) -> Channel {
        let (engine, stop) = (self.engine.clone(), self.stop.clone());
        let connector = tower::service_fn(move |_: http::Uri| {
            let Some(engine) = engine.lock().unwrap().clone() else {
                return std::future::ready(Err(std::io::Error::other("the server has ended")));
            };
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            let stop = stop.clone();
            tokio::spawn(async move {
                tokio::select! {
                    served = serve_stream(theirs, engine, CancellationToken::new()) => served.unwrap(),
                    // As when a process ends: everything open breaks.
                    () = stop.cancelled() => {}
                }
            });
            std::future::ready(Ok(TokioIo::new(ours)))
        });
        Endpoint::from_static("http://local").connect_with_connector_lazy(connector)
    }

    async fn end(self, crash: bool) {
        let Self { store, provider, engine, stop } = self;
        let engine = engine.lock().unwrap().take().unwrap();
        if crash {
            engine.kill();
        }
        engine.drain(Duration::from_secs(1)).await;
        stop.cancel();
        drop(engine);
        // Both files can be opened once at a time: the last owner must be gone, and that is this one.
        within("the store is closed", async {
            while Arc::strong_count(&store) > 1 || Arc::strong_count(&provider) > 1 {
                SystemClock::new().sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
    }
}
