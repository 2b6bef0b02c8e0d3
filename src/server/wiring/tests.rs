//! A whole server in virtual time.

use hyper_util::rt::TokioIo;
use tonic::transport::Endpoint;

use super::*;
use crate::clock::{Timestamp, TokioClock};
use crate::pb;
use crate::pb::machine_service_client::MachineServiceClient;
use crate::pb::run_service_client::RunServiceClient;
use crate::provider::fake::{FakeOptions, FakeProvider};
use crate::store::memory::MemoryStore;

/// A whole server without a socket, in virtual time.
#[tokio::test(start_paused = true)]
async fn an_engine_is_served_over_any_stream() {
    let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(1_700_000_000_000)));
    let fake = FakeProvider::new(FakeOptions::default(), clock.clone());
    let engine = Engine::start(EngineConfig {
        store: Arc::new(MemoryStore::new(clock.clone())),
        providers: vec![Arc::new(fake)],
        plans: Registry::built_in(),
        clock: clock.clone(),
        random: Arc::new(SeededRandom::new(1)),
        limits: crate::executor::Limits::default(),
        planted: None,
    })
    .await
    .unwrap();
    let stop = CancellationToken::new();
    let (ours, theirs) = tokio::io::duplex(64 * 1024);
    let serving = tokio::spawn(serve_stream(theirs, engine.clone(), stop.clone()));
    let mut ours = Some(TokioIo::new(ours));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = ours.take().ok_or_else(|| std::io::Error::other("one connection only"));
        std::future::ready(stream)
    });
    let channel =
        Endpoint::from_static("http://simulated").connect_with_connector(connector).await.unwrap();

    let machine = pb::Machine {
        machine_id: "machine-1".to_owned(),
        spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    MachineServiceClient::new(channel.clone()).register_machine(request).await.unwrap();
    let mut runs = RunServiceClient::new(channel.clone());
    let request = pb::StartRunRequest {
        machine_id: "machine-1".to_owned(),
        plan_id: "plan/repave-join".to_owned(),
        ..Default::default()
    };
    let run = runs.start_run(request).await.unwrap().into_inner();
    let filter = format!("run_id = {}", run.run_id);
    let request = pb::WatchRunsRequest { filter, ..Default::default() };
    let mut events = runs.watch_runs(request).await.unwrap().into_inner();
    let mut last = None;
    while let Some(event) = events.message().await.unwrap() {
        last = event.snapshot.or(last);
    }
    assert_eq!(last.unwrap().phase(), pb::RunPhase::Succeeded);
    assert!(clock.now().since(Timestamp(1_700_000_000_000)) >= Duration::from_millis(2_500));

    engine.drain(Duration::from_secs(1)).await;
    stop.cancel();
    drop((channel, runs, events));
    serving.await.unwrap().unwrap();
}
