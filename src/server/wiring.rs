//! Wires the parts together: clock, randomness, store, providers, plans, engine, API, connections.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;

use super::access::Access;
use super::activity::Activity;
use super::checks::HostNames;
use super::config::{Args, Config, ConfigError, Keep, Retention};
use super::connection::Membership;
use super::durable::Durable;
use super::edge::Edge;
use super::error::StartError;
use super::gate::Gate;
use super::health::Readiness;
use super::host::Host;
use super::metrics::{self, Metrics, Sources};
use super::notices::{log_overdue, notices};
use super::peers::Peers;
use super::programs::Programs;
use super::refusals::Refusals;
use super::room::Room;
use super::watches::Watches;
use super::{
    accept, audit, boot, connection, maintenance, notifications, plans, providers, reflection,
    simulator, storage,
};
use crate::clock::{Clock, OsRandom, Random, SeededRandom, SystemClock};
use crate::executor::{Engine, EngineConfig};
use crate::plan::Registry;
use crate::provider::Provider;

/// Time that connections get to finish after the engine has stopped.
const GOODBYE: Duration = Duration::from_secs(1);

/// The settings from flags and the configuration file, with the plans that they name.
pub(super) struct Settings {
    config: Config,
    plans: Registry,
    access: Access,
}

impl Settings {
    /// Reads the configuration file and the plans. Blocks the calling thread.
    ///
    /// # Errors
    /// [`ConfigError`] for anything that cannot be read or is refused.
    pub(super) fn load(args: &Args) -> Result<Self, ConfigError> {
        let config = Config::load(args)?;
        let actions = plans::actions(config.actions_dir.as_deref())?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        Ok(Self {
            plans: plans::load(config.plans_dir.as_deref(), &actions)?,
            access: Access::load(&config, &clock)?,
            config,
        })
    }
}

/// A running server.
pub(super) struct Server {
    config: Config,
    address: SocketAddr,
    engine: Engine,
    host: Arc<Host>,
    readiness: Readiness,
    retention: watch::Sender<Retention>,
    access: watch::Sender<Arc<Access>>,
    stop: CancellationToken,
    programs: Programs,
    durable: Option<Durable>,
    /// The accept loop.
    serving: JoinHandle<()>,
}

impl Server {
    /// Starts serving health at once, recovers the active runs, then serves everything.
    ///
    /// # Errors
    /// [`StartError`] for whatever fails; nothing is left running.
    pub(super) async fn start(config: Config) -> Result<Self, StartError> {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
        let (plans, actions, access) = {
            let (config, clock) = (config.clone(), clock.clone());
            storage::blocking("reading plans and certificates failed", move || {
                let actions = plans::actions(config.actions_dir.as_deref())?;
                let plans = plans::load(config.plans_dir.as_deref(), &actions)?;
                Ok((plans, actions, Access::load(&config, &clock)?))
            })
            .await?
        };
        let (access, present) = watch::channel(Arc::new(access));
        let (timing, script) = simulator::behaviour(&config)?;
        let listener = accept::bind(config.listen).await.map_err(|source| StartError::Listen {
            address: config.listen,
            option: "--port N (0 takes a free one)",
            source,
        })?;
        let address = listener.local_addr().map_err(|source| StartError::Listen {
            address: config.listen,
            option: "--port N (0 takes a free one)",
            source,
        })?;
        let metrics_listener = match config.metrics_listen {
            Some(address) => {
                Some(accept::bind(address).await.map_err(|source| StartError::Listen {
                    address,
                    option: "--metrics-listen HOST:PORT (port 0 takes a free one)",
                    source,
                })?)
            }
            None => None,
        };
        let boot_listener = match &config.boot {
            Some(boot) => {
                let address = boot.listen;
                let option = "--boot-listen HOST:PORT (port 0 takes a free one)";
                let listening = accept::bind(address).await;
                Some(listening.map_err(|source| StartError::Listen { address, option, source })?)
            }
            None => None,
        };
        let refusals = Refusals::default();
        let metrics = metrics_listener.is_some().then(|| Arc::new(Metrics::new(&refusals)));
        let boot_refusals = refusals.clone();
        let room = Room::new(config.unsent);
        let host_names = HostNames::new(&config.host_names);
        let host = Arc::new(Host::new(&config.storage));
        let random = random(config.seed);
        let opened = storage::open(
            (&config.storage, config.database.as_ref()),
            config.fake_world,
            &clock,
            &*random,
        )
        .await?;
        let signer = Arc::new(audit::signer(&config)?);

        let readiness = Readiness::new();
        let always = reflection::add_to(Routes::new(readiness.service())).map_err(|error| {
            StartError::Internal { what: "cannot serve reflection", source: error.into() }
        })?;
        let ready = Arc::new(OnceLock::new());
        let edge = Edge::new(always.prepare(), ready.clone(), clock.clone())
            .measured(metrics.clone())
            .guarded(host_names.clone(), refusals.clone())
            .with_room(room.clone())
            .rationed(
                Peers::new(config.rates, clock.clone()),
                Watches::new(config.watches_max, config.watches_per_peer_max),
            );
        let denials = edge.denials().clone();
        let gate = Gate::new(config.caps, refusals.clone());
        let stop = CancellationToken::new();
        // Ends the accept loop too if a later step fails.
        let guard = stop.clone().drop_guard();
        let serving = tokio::spawn(accept::serve(
            listener,
            gate.clone(),
            edge,
            present.clone(),
            config.keep,
            clock.clone(),
            accept::End { stop: stop.clone(), goodbye: GOODBYE },
        ));

        let fake: Arc<dyn Provider> =
            Arc::new(simulator::provider(&config, timing, script, opened.world, &*random, &clock));
        let programs = Programs::new(&config, clock.clone(), &*random);
        let boot_files =
            boot::Files::open(config.boot.as_ref().and_then(|boot| boot.files_dir.as_deref()))?;
        let desk = match &boot_listener {
            Some(listener) => Some(boot::desk(&config, listener, &opened.store, &clock).await?),
            None => None,
        };
        let meter = metrics.as_ref().map(|metrics| metrics.meter());
        let providers = providers::all(
            &config,
            &fake,
            &programs,
            desk.as_ref(),
            &clock,
            &actions,
            meter.as_ref(),
        )?;
        let (notices, noticed) = notices();
        opened.store.listen(Arc::new(notices));
        let (providers, store) = match &metrics {
            Some(metrics) => metrics.around(providers, opened.store, &clock),
            None => (providers, opened.store),
        };
        let engine = Engine::start(EngineConfig {
            store,
            providers,
            plans,
            clock: clock.clone(),
            random,
            limits: config.limits.clone(),
            planted: None,
        })
        .await
        .map_err(StartError::Recovery)?;
        engine.start_probes(config.probes.clone());
        denials.audited(engine.denied().clone());

        let receivers = notifications::start(&config, &engine).await?;
        engine.spawn(noticed.log());
        engine.spawn(log_overdue(engine.clone()));
        if let Some(metrics) = metrics.clone() {
            let store = engine.store().clone();
            engine.spawn(async move { metrics.read_once(&*store).await });
        }
        if let Some(durable) = opened.durable.clone() {
            engine.spawn(readiness.clone().follow(durable.availability(), engine.clone()));
        }
        if let (Some(listener), Some(metrics)) = (metrics_listener, metrics) {
            if let Ok(address) = listener.local_addr() {
                tracing::info!(url = %format!("http://{address}/metrics"), "serving metrics");
            }
            let sources = Sources {
                engine: engine.clone(),
                gate,
                room,
                durable: opened.durable.clone(),
                access: present,
                host: host.clone(),
                receivers: receivers.clone(),
                is_exposed: config.is_exposed(),
            };
            tokio::spawn(metrics::http::serve(
                listener,
                metrics,
                sources,
                metrics::http::Guard { host_names, refusals },
                clock.clone(),
                stop.clone(),
            ));
        }
        if let (Some(listener), Some(desk)) = (boot_listener, desk) {
            tracing::info!(url = %format!("{}/boot/v1", desk.url()), "serving machines that are installed");
            let names = boot::host_names(&config, &desk);
            let boot = boot::Boot::new(desk, names, boot_refusals, boot_files, clock.clone());
            tokio::spawn(boot::serve(listener, Arc::new(boot), stop.clone()));
        }
        let (retention, policy) = watch::channel(config.retention);
        engine.spawn(maintenance::retain(engine.store().clone(), clock.clone(), policy));
        engine.spawn(audit::announce(engine.clone(), signer.clone(), config.storage.clone()));
        if config.is_exposed() {
            engine.spawn(maintenance::warn_of_exposure(clock, address));
        }
        let facts: crate::api::Host = {
            let host = host.clone();
            Arc::new(move || notifications::with_facts(host.facts(), &receivers))
        };
        if ready.set(crate::api::routes_on(engine.clone(), facts, signer).prepare()).is_err() {
            tracing::debug!("the services were set before");
        }
        readiness.set(true);
        tracing::info!(
            %address,
            version = env!("CARGO_PKG_VERSION"),
            tls = config.tls.is_some(),
            authenticated = config.authenticates(),
            "serving"
        );
        guard.disarm();
        Ok(Self {
            config,
            address,
            engine,
            host,
            readiness,
            retention,
            access,
            stop,
            programs,
            durable: opened.durable,
            serving,
        })
    }

    /// The address it listens on.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Applies the settings that can change while running: plans, retention, how many runs may be in progress, and
    /// access, unless TLS or authentication is turned on or off. An invalid configuration changes nothing and is logged.
    pub(super) fn reload(&mut self, loaded: Result<Settings, ConfigError>) {
        let Settings { config, plans, access } = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                let why = with_causes(&error);
                // First, so that who reads the log finds it in the metrics, too.
                self.host.reloaded(self.engine.clock().now(), Some(why.clone()));
                tracing::error!("configuration, plans and certificates were not reloaded: {why}");
                return;
            }
        };
        let count = plans.iter().len();
        let plans::Changes { all, more_dangerous } = plans::changes(&self.engine.plans(), &plans);
        for change in all {
            tracing::info!("a plan was reloaded: {change}");
        }
        for change in more_dangerous {
            tracing::warn!("a plan that was reloaded puts more at risk than before: {change}");
        }
        self.engine.set_plans(plans);
        self.engine.set_run_limits(&config.limits);
        self.retention.send_replace(config.retention);
        if access.tls.is_some() == self.config.tls.is_some()
            && config.authenticates() == self.config.authenticates()
        {
            self.access.send_replace(Arc::new(access));
            self.config.tls.clone_from(&config.tls);
            self.config.auth.clone_from(&config.auth);
            self.config.principals.clone_from(&config.principals);
            self.config.host_names.clone_from(&config.host_names);
        } else {
            tracing::warn!(
                "TLS or authentication was turned on or off: certificates, tokens and principals stay as they were until \
                 the next start"
            );
        }
        self.config.plans_dir.clone_from(&config.plans_dir);
        self.config.actions_dir.clone_from(&config.actions_dir);
        self.config.retention = config.retention;
        self.config.limits.set_runs(&config.limits);
        self.host.reloaded(self.engine.clock().now(), None);
        tracing::info!(plans = count, "reloaded configuration, plans and certificates");
        if self.config != config {
            tracing::warn!("other settings have changed too: they take effect at the next start");
        }
    }

    /// Resolves if the accept loop ends by itself, which is a bug, or if the database is lost for good.
    pub(super) async fn broken(&mut self) -> StartError {
        let lost = async {
            match &self.durable {
                Some(durable) => durable.until_lost().await,
                None => std::future::pending().await,
            }
        };
        let source = tokio::select! {
            why = lost => return StartError::Lost { why },
            ended = &mut self.serving => match ended {
                Ok(()) => "it ended".into(),
                Err(error) => error.into(),
            },
        };
        StartError::Internal { what: "the server no longer accepts connections", source }
    }

    /// Reports not ready, lets steps reach a commit point, ends the connections.
    pub(super) async fn shut_down(self) {
        self.readiness.set(false);
        self.engine.drain(self.config.shutdown_grace).await;
        for provider in self.engine.providers().values() {
            provider.close().await;
        }
        self.programs.end(&self.config).await;
        self.stop.cancel();
        if let Err(error) = self.serving.await {
            tracing::error!(%error, "the accept loop failed");
        }
        tracing::info!("stopped");
    }
}

/// Serves the API of an engine, with health and reflection, on one connection accepted elsewhere. Returns when the
/// peer has left, or after `stop` when its streams have ended.
///
/// For connections that do not come over TCP, as in simulations of a network.
///
/// # Errors
/// If reflection cannot be served: a bug of the build.
pub async fn serve_stream<IO>(
    stream: IO,
    engine: Engine,
    stop: CancellationToken,
) -> Result<(), tonic_reflection::server::Error>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let clock = engine.clock().clone();
    let readiness = Readiness::new();
    readiness.set(!engine.is_draining());
    let always = reflection::add_to(Routes::new(readiness.service()))?;
    let ready = Arc::new(OnceLock::from(crate::api::routes(engine)));
    let edge = Edge::new(always, ready, clock.clone()).of_connection(None, None);
    let of = Membership { activity: Activity::new(clock.clone()), leave: CancellationToken::new() };
    connection::serve(stream, edge, Keep::default(), of, clock, stop).await;
    Ok(())
}

/// An error with all its causes.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

fn random(seed: Option<u64>) -> Arc<dyn Random> {
    match seed {
        Some(seed) => Arc::new(SeededRandom::new(seed)),
        None => Arc::new(OsRandom),
    }
}

#[cfg(test)]
mod tests;
