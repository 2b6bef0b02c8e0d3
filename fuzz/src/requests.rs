//! Request messages, as bytes on the wire, against the real services.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SeededRandom, Timestamp, TokioClock};
use bmdemo::executor::{Engine, EngineConfig, Limits};
use bmdemo::pb;
use bmdemo::plan::Registry;
use bmdemo::provider::fake::{FakeOptions, FakeProvider, World};
use bmdemo::store::memory::MemoryStore;
use prost_reflect::DescriptorPool;
use tonic::service::Routes;
use tonic::{Code, Status};

use self::codec::call;

#[path = "../../src/api/tests/codec.rs"]
mod codec;

/// One request, after a byte that selects the method: it is answered or refused, but never with an internal error.
pub fn requests(data: &[u8]) {
    let Some((&method, message)) = data.split_first() else { return };
    let methods = methods();
    let path = &methods[usize::from(method) % methods.len()];
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        let clock = Arc::new(TokioClock::new(Timestamp(1_767_225_600_000)));
        let engine = engine(clock.clone()).await;
        let routes = bmdemo::api::routes(engine.clone());
        register(&routes).await;
        let status = tokio::select! {
            biased;
            status = call(&routes, path, message) => status,
            // A stream may be empty.
            () = clock.sleep(Duration::from_secs(100)) => Status::ok(""),
        };
        engine.kill();
        let is_ours = matches!(status.code(), Code::Internal | Code::Unknown | Code::DataLoss);
        assert!(!is_ours, "{path} answers {status:?}");
    });
}

/// Every method of the API, as paths.
pub fn methods() -> &'static [String] {
    static METHODS: OnceLock<Vec<String>> = OnceLock::new();
    METHODS.get_or_init(|| {
        let pool = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).expect("our own descriptors");
        let services = pool.services().filter(|service| service.package_name() == "baremetal.v1");
        let mut paths: Vec<_> = services
            .flat_map(|service| {
                let name = service.full_name().to_owned();
                let paths = service.methods().map(|method| format!("/{name}/{}", method.name()));
                paths.collect::<Vec<_>>()
            })
            .collect();
        paths.sort();
        paths
    })
}

async fn engine(clock: Arc<TokioClock>) -> Engine {
    let options = FakeOptions { world: World::in_memory(), ..FakeOptions::default() };
    let config = EngineConfig {
        store: Arc::new(MemoryStore::new(clock.clone())),
        providers: vec![Arc::new(FakeProvider::new(options, clock.clone()))],
        plans: Registry::built_in(),
        clock,
        random: Arc::new(SeededRandom::new(1)),
        limits: Limits::default(),
        planted: None,
    };
    Engine::start(config).await.expect("it starts")
}

/// A machine for requests to name: `m`.
async fn register(routes: &Routes) {
    let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
    let machine =
        pb::Machine { machine_id: "m".to_owned(), spec: Some(spec), ..Default::default() };
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    let mut client = pb::machine_service_client::MachineServiceClient::new(routes.clone());
    client.register_machine(request).await.expect("a new machine");
}
