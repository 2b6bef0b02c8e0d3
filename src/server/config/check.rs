//! What the settings must be, taken together.

use std::net::SocketAddr;
use std::time::Duration;

use super::bounds::{self, HOUR, LOG_BYTES_MAX, MANY, SECOND, YEARS, number, span};
use super::classes::Driver;
use super::{Config, ConfigError, REQUESTS_MIN, connection_limits, receivers};
use crate::executor::Cap;
use crate::plan::{Capability, Risk};

/// Whether an address can be reached from other machines.
fn is_public(address: &SocketAddr) -> bool {
    !address.ip().to_canonical().is_loopback()
}

impl Config {
    /// Refuses settings that contradict each other or make no sense.
    ///
    /// # Errors
    /// [`ConfigError::Setting`], naming the key.
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.is_exposed() && !self.insecure_no_auth {
            return Err(ConfigError::Setting(format!(
                "refusing to listen on {}: {}, so anyone who reaches the address can wipe every machine; listen on \
                 127.0.0.1, set up TLS with certificates of clients (docs/security.md), or take the risk with \
                 --insecure-no-auth",
                self.listen.ip(),
                if self.tls.is_none() {
                    "calls there are neither encrypted nor authenticated"
                } else {
                    "calls there are not authenticated"
                }
            )));
        }
        if let Some(address) = self.metrics_listen.filter(is_public)
            && !self.insecure_no_auth
        {
            return Err(ConfigError::Setting(format!(
                "refusing to serve metrics on {}: they are neither encrypted nor authenticated; listen on 127.0.0.1, or \
                 take the risk with --insecure-no-auth",
                address.ip()
            )));
        }
        if self.authenticates() && self.principals.is_empty() {
            return Err(ConfigError::Setting(
                "tls.client_ca_file or [auth] is set, and there are no principals, so no one could call: add \
                 [principals.NAME] to the configuration"
                    .into(),
            ));
        }
        if let Some(jwt) = &self.auth.jwt {
            for (key, text) in [("issuer", &jwt.issuer), ("audience", &jwt.audience)] {
                if text.is_empty() {
                    return Err(ConfigError::Setting(format!("auth.jwt.{key} is empty")));
                }
            }
        }
        self.check_names().and_then(|()| self.check_numbers()).map_err(ConfigError::Setting)
    }

    /// Whether callers have to say who they are, and prove it.
    pub(in crate::server) fn authenticates(&self) -> bool {
        self.auth.takes_tokens() || self.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some())
    }

    /// Whether everyone who reaches the address may call.
    pub(in crate::server) fn is_exposed(&self) -> bool {
        is_public(&self.listen) && !(self.tls.is_some() && self.authenticates())
    }

    fn check_names(&self) -> Result<(), String> {
        if let Some(dir) = self.credentials_dir.as_deref().filter(|dir| !dir.is_dir()) {
            return Err(format!(
                "credentials.dir (--credentials-dir) is {}, and there is no such directory: make it, with access for the server's user alone",
                dir.display()
            ));
        }
        for (name, class) in &self.machine_classes {
            class.check(name)?;
            if let Some(capability) = class.installs()
                && self.boot.is_none()
            {
                return Err(format!(
                    "machine_classes.{name}.{capability} boots an installer, which asks this server for its settings: give \
                     boot.listen, such as \"10.0.0.1:8069\""
                ));
            }
            if class.uses(Driver::Webhook) && self.networks.webhook.is_empty() {
                return Err(format!(
                    "machine_classes.{name} has a webhook, but networks.webhook is empty, so that no receiver could be called; list its network, as in webhook = [\"10.30.0.7/32\"]"
                ));
            }
            let by_controller =
                [Driver::Redfish, Driver::Ipmi].into_iter().find(|driver| class.uses(*driver));
            if let Some(driver) = by_controller.filter(|_| self.networks.bmc.is_empty()) {
                let driver = driver.as_str();
                return Err(format!(
                    "machine_classes.{name} is driven by {driver}, but networks.bmc is empty, so that no controller could be called; list their networks, as in bmc = [\"10.0.0.0/8\"]"
                ));
            }
            let image = class.redfish.as_ref().and_then(|settings| settings.image.as_ref());
            if image.is_some() && self.networks.image.is_empty() {
                return Err(format!(
                    "machine_classes.{name}.redfish.image cannot be attached: networks.image is empty; list the network of its server"
                ));
            }
        }
        let classes = self.machine_classes.keys().map(String::as_str);
        let providers: Vec<&str> = std::iter::once(Driver::Fake.as_str()).chain(classes).collect();
        for name in self.limits.runs_max_by_provider.keys() {
            bounds::provider("limits.runs_max_by_provider", name, &providers)?;
        }
        for name in self.probes.keys() {
            bounds::provider("probes", name, &providers)?;
            if let Some(class) = self.machine_classes.get(name)
                && !class.routes.contains_key(&Capability::Probe)
            {
                return Err(format!(
                    "probes.{name} cannot be: the class has no driver that looks; give machine_classes.{name}.probe one"
                ));
            }
        }
        for receiver in receivers(&self.notify)? {
            if self.networks.webhook.is_empty() {
                return Err(format!(
                    "notify.{} cannot be called: networks.webhook is empty; list its network, as in webhook = [\"10.30.0.7/32\"]",
                    receiver.name
                ));
            }
        }
        if let Some(boot) = &self.boot {
            boot.check()?;
        }
        for name in &self.host_names {
            bounds::host_name("server.host_names", name)?;
        }
        for label in self.limits.runs_max_by_label.keys() {
            bounds::label("limits.runs_max_by_label", label)?;
        }
        for (risk, limits) in self.limits.on_risk(Risk::DataDestroying) {
            for label in limits.max_by_label.keys() {
                bounds::label(&format!("limits.{}_max_by_label", setting(risk)), label)?;
            }
        }
        Ok(())
    }

    fn check_numbers(&self) -> Result<(), String> {
        let Self { limits, caps, retention, .. } = self;
        let [none, no_run] = ["nothing would ever be served", "no run of it would ever start"];
        let held = "every run would be held at its first destructive step";
        let [no_log, no_probe] =
            ["nothing that a step prints would be kept", "nothing would be probed"];
        let per_peer = caps.connections_per_peer_max as u64;
        number("server.connections_max", caps.connections_max as u64, MANY, none)?;
        number("server.connections_per_peer_max", per_peer, MANY, none)?;
        let loopback = caps.connections_loopback_max as u64;
        number("server.connections_loopback_max", loopback, MANY, none)?;
        let mutations = self.rates.mutations_per_s;
        number("server.mutations_per_peer_per_s", mutations, MANY, "nothing could be changed")?;
        bounds::bytes(
            "server.written_bytes_per_peer_per_s",
            self.rates.written_bytes_per_s,
            connection_limits::WRITTEN_BYTES_PER_PEER_PER_S_MIN,
        )?;
        let watched = "nothing could be watched";
        number("server.watches_max", self.watches_max as u64, MANY, watched)?;
        let of_peer = self.watches_per_peer_max as u64;
        number("server.watches_per_peer_max", of_peer, MANY, watched)?;
        let unsent = self.unsent;
        let (least, one) =
            (connection_limits::UNSENT_BYTES_MIN, connection_limits::ANSWER_LARGE_BYTES);
        bounds::bytes("server.unsent_bytes_max", unsent.in_all, least)?;
        bounds::bytes("server.unsent_bytes_per_connection_max", unsent.of_connection, one)?;
        number("limits.runs_max", limits.runs_max as u64, MANY, none)?;
        for (name, most) in &limits.runs_max_by_provider {
            number(&format!("limits.runs_max_by_provider.{name}"), *most as u64, MANY, no_run)?;
        }
        for (name, most) in &limits.runs_max_by_label {
            number(&format!("limits.runs_max_by_label.{name}"), *most as u64, MANY, no_run)?;
        }
        for (risk, of_risk) in limits.on_risk(Risk::DataDestroying) {
            let key = format!("limits.{}_max", setting(risk));
            if let Some(Cap::Number(most)) = of_risk.max {
                number(&key, most as u64, MANY, no_run)?;
            }
            for (name, most) in &of_risk.max_by_label {
                if let Cap::Number(most) = most {
                    number(&format!("{key}_by_label.{name}"), *most as u64, MANY, no_run)?;
                }
            }
        }
        number("loop_breaker.destructive_max", limits.destructive_max as u64, MANY, held)?;
        number("limits.step_log_bytes_max", limits.step_log_bytes_max, LOG_BYTES_MAX, no_log)?;
        let kept = retention.machine_changes_max;
        let unseen = "what was changed could not be seen";
        number("retention.machine_changes_max", kept, MANY * 10_000, unseen)?;
        let forgotten = "no run that has ended would be kept";
        number("retention.ended_runs_max", retention.ended_runs_max, MANY * 1000, forgotten)?;
        for (provider, policy) in &self.probes {
            let key = |name: &str| format!("probes.{provider}.{name}");
            number(&key("concurrent_max"), policy.concurrent_max as u64, MANY, no_probe)?;
            span(&key("interval"), Duration::from_millis(policy.interval_ms), SECOND, YEARS)?;
            span(&key("timeout"), Duration::from_millis(policy.timeout_ms), SECOND / 1000, HOUR)?;
        }
        let window = Duration::from_millis(limits.destructive_window_ms);
        span("loop_breaker.window", window, SECOND, YEARS)?;
        span("retention.ended_runs", retention.ended_runs, SECOND, YEARS)?;
        let unknown = "what was done would be forgotten at once";
        number("retention.audit_max", retention.audit_max, MANY * 1000, unknown)?;
        span("retention.audit", retention.audit, HOUR, YEARS)?;
        span("retention.interval", retention.interval, SECOND, YEARS)?;
        span("server.shutdown_grace", self.shutdown_grace, Duration::ZERO, HOUR * 24)?;
        if let Some(idle) = self.keep.idle_max {
            span("server.connection_idle_max", idle, SECOND, YEARS)?;
        }
        if let Some(age) = self.keep.age_max {
            span("server.connection_age_max", age, SECOND, YEARS)?;
        }
        if retention.requests < REQUESTS_MIN {
            return Err(
                "retention.requests is below 1d: request ids are promised to be kept a day".into(),
            );
        }
        Ok(())
    }
}

/// Name of a class of risk in settings.
fn setting(risk: Risk) -> String {
    risk.as_str().replace('-', "_")
}
