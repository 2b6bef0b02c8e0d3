//! The simulated network, the server on it, and its faults.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bmdemo::clock::{Clock, SeededRandom, Sleep, SplitMix64, Timestamp};
use bmdemo::executor::{Engine, EngineConfig, Limits};
use bmdemo::provider::fake::{FakeOptions, FakeProvider};
use bmdemo::server::serve_stream;
use hyper_util::rt::TokioIo;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use turmoil::net::{TcpListener, TcpStream};

use crate::book::{Mistake, Report, Shared};
use crate::{client, watcher};

const SERVER: &str = "server";
const PORT: u16 = 7700;
const CLIENTS: [&str; 3] = ["client-0", "client-1", "client-2"];
const WATCHER: &str = "watcher";
const START: Timestamp = Timestamp(1_700_000_000_000);

/// From then on there are no more faults.
const HEALED: Duration = Duration::from_secs(8);

/// The time of the simulation, for every host: a host that restarts has another runtime, and no tokio clock knows the
/// time between two runtimes.
#[derive(Debug, Default)]
struct SimClock {
    latest_ns: AtomicU64,
}

impl Clock for SimClock {
    fn now(&self) -> Timestamp {
        START.plus(self.monotonic())
    }

    fn monotonic(&self) -> Duration {
        if let Some(elapsed) = turmoil::sim_elapsed() {
            let elapsed_ns = u64::try_from(elapsed.as_nanos()).expect("it is minutes");
            self.latest_ns.fetch_max(elapsed_ns, Relaxed);
        }
        // After the simulation: when it ended.
        Duration::from_nanos(self.latest_ns.load(Relaxed))
    }

    #[expect(clippy::disallowed_methods, reason = "virtual time of a simulated host")]
    fn sleep(&self, duration: Duration) -> Sleep {
        Box::pin(tokio::time::sleep(duration))
    }
}

/// The clock of a simulated host.
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(SimClock::default())
}

/// The result of a future, if it comes in time.
pub(crate) async fn in_time<T>(
    clock: &Arc<dyn Clock>,
    limit: Duration,
    future: impl Future<Output = T>,
) -> Option<T> {
    tokio::select! {
        biased;
        value = future => Some(value),
        () = clock.sleep(limit) => None,
    }
}

/// A connection, if one can be made.
pub(crate) async fn connect(clock: &Arc<dyn Clock>) -> Option<Channel> {
    let connector = tower::service_fn(|_: http::Uri| async {
        TcpStream::connect((SERVER, PORT)).await.map(TokioIo::new)
    });
    // h2 keeps streams that it has reset for a second of the computer's time, not of the simulation's.
    let endpoint = Endpoint::from_static("http://server").http2_max_concurrent_reset_streams(0);
    let connecting = endpoint.connect_with_connector(connector);
    in_time(clock, Duration::from_secs(1), connecting).await?.ok()
}

async fn serve(seed: u64, shared: Shared) -> turmoil::Result {
    let clock = clock();
    let incarnation = turmoil::sim_elapsed().unwrap_or_default().as_nanos();
    let random = SeededRandom::new(seed ^ u64::try_from(incarnation)?.rotate_left(20));
    let fake = FakeOptions {
        timing: "0.1".parse()?,
        seed,
        world: shared.world.clone(),
        ..FakeOptions::default()
    };
    let engine = Engine::start(EngineConfig {
        store: shared.store.clone(),
        providers: vec![Arc::new(FakeProvider::new(fake, clock.clone()))],
        plans: bmdemo::plan::Registry::built_in(),
        clock: clock.clone(),
        random: Arc::new(random),
        limits: Limits::default(),
        planted: None,
    })
    .await?;
    let listener = TcpListener::bind((IpAddr::V4(Ipv4Addr::UNSPECIFIED), PORT)).await?;
    shared.note("the server is there".to_owned());
    loop {
        let (stream, _) = listener.accept().await?;
        // At a crash a runtime ends its tasks in an order that depends on how many there have been in the process, in
        // all simulations; a local set ends them in its own order. Connections close in that order.
        tokio::task::spawn_local(serve_stream(stream, engine.clone(), CancellationToken::new()));
    }
}

/// Everything that happens from one seed.
pub(crate) fn simulate(seed: u64, mistake: Option<Mistake>) -> Report {
    let shared = Shared::new();
    let mut random = SplitMix64::new(seed);
    let mut sim = turmoil::Builder::new()
        .rng_seed(random.next_u64())
        .simulation_duration(Duration::from_secs(600))
        .tick_duration(Duration::from_millis(2))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5 + random.below(60)))
        .tcp_capacity(4096)
        .build();
    let of_server = shared.clone();
    sim.host(SERVER, move || serve(seed, of_server.clone()));
    for (number, name) in CLIENTS.into_iter().enumerate() {
        let random = SplitMix64::new(random.next_u64());
        sim.client(name, client::work(number, random, mistake, shared.clone()));
    }
    sim.client(WATCHER, watcher::watch(CLIENTS.len(), mistake, shared.clone()));

    let mut faults = Faults { random, next: Duration::from_millis(200), pending: Vec::new() };
    loop {
        match sim.step() {
            Ok(true) => break,
            Ok(false) => faults.happen(&mut sim, &shared),
            Err(error) => {
                shared.accuse(format!("the simulation ended: {error}"));
                break;
            }
        }
    }
    drop(sim);
    let judging = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    judging.block_on(shared.judge())
}

/// The repair of a fault.
#[derive(Clone, Copy)]
enum Mend {
    Bounce,
    Reconnect(&'static str),
    Release(&'static str),
}

/// The faults of a seed.
struct Faults {
    random: SplitMix64,
    next: Duration,
    pending: Vec<(Duration, Mend)>,
}

impl Faults {
    fn happen(&mut self, sim: &mut turmoil::Sim<'_>, shared: &Shared) {
        let now = sim.elapsed();
        let (due, later) = self.pending.drain(..).partition(|(at, _)| *at <= now);
        self.pending = later;
        let due: Vec<(Duration, Mend)> = due;
        for (_, repair) in due {
            match repair {
                Mend::Bounce => sim.bounce(SERVER),
                Mend::Reconnect(peer) => sim.repair(peer, SERVER),
                Mend::Release(peer) => sim.release(peer, SERVER),
            }
        }
        if now < self.next || now >= HEALED {
            return;
        }
        self.next = now + Duration::from_millis(50 + self.random.below(500));
        let peers = [CLIENTS[0], CLIENTS[1], CLIENTS[2], WATCHER, WATCHER];
        let peer = peers[usize::try_from(self.random.below(5)).expect("it is small")];
        let until = now + Duration::from_millis(50 + self.random.below(1_500));
        // One fault of a link or host at a time, so that each repair repairs what was broken.
        let is_down = |wanted: &str| {
            self.pending.iter().any(|(_, repair)| match repair {
                Mend::Bounce => wanted == SERVER,
                Mend::Reconnect(peer) | Mend::Release(peer) => wanted == *peer,
            })
        };
        let (what, repair) = match self.random.below(6) {
            0..=2 if !is_down(SERVER) => {
                sim.crash(SERVER);
                ("crash", Mend::Bounce)
            }
            3 if !is_down(peer) => {
                sim.partition(peer, SERVER);
                ("partition", Mend::Reconnect(peer))
            }
            4 if !is_down(peer) => {
                let (from, to) =
                    if self.random.chance(1, 2) { (peer, SERVER) } else { (SERVER, peer) };
                sim.partition_oneway(from, to);
                ("partition of one direction", Mend::Reconnect(peer))
            }
            5 if !is_down(peer) => {
                sim.hold(peer, SERVER);
                ("hold", Mend::Release(peer))
            }
            _ => return,
        };
        self.pending.push((until, repair));
        shared.book().report.faults += 1;
        shared.book().report.trace.push(format!("{:>8.3} {what} ({peer})", now.as_secs_f64()));
    }
}
