//! Logs: on stderr, as text for people or as JSON for machines. Spans: to a collector, with the feature `otlp`.

#[cfg(feature = "otlp")]
mod otlp;

use std::io::IsTerminal as _;

use http::HeaderMap;
use tracing::Span;
#[cfg(not(feature = "otlp"))]
use tracing_subscriber::layer::Identity;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use super::config::{Config, ConfigError, Format, Level};

/// Directives: libraries only log problems.
fn directives(level: Level) -> &'static str {
    match level {
        Level::Debug => "info,bmdemo=debug",
        Level::Info => "warn,bmdemo=info",
        Level::Warn => "warn",
        Level::Error => "error",
    }
}

/// The logs and spans of this process.
#[derive(Debug)]
pub(super) struct Telemetry {
    #[cfg(feature = "otlp")]
    export: Option<otlp::Export>,
}

impl Telemetry {
    /// Starts logging to stderr, and exporting spans to a collector if there is one. The first call wins: a process
    /// has one log.
    ///
    /// # Errors
    /// If the collector's address cannot be used.
    pub(super) fn start(config: &Config) -> Result<Self, ConfigError> {
        #[cfg(feature = "otlp")]
        let export = match &config.otlp {
            Some(otlp) => Some(otlp::Export::start(otlp).map_err(|error| {
                ConfigError::Setting(format!("spans cannot be exported to {otlp}: {error}"))
            })?),
            None => None,
        };
        #[cfg(feature = "otlp")]
        let spans = export.as_ref().map(otlp::Export::layer);
        #[cfg(not(feature = "otlp"))]
        let spans = None::<Identity>;
        let log = tracing_subscriber::fmt::layer()
            .with_writer(std::io::stderr)
            .with_ansi(std::io::stderr().is_terminal());
        let log = match config.log_format {
            Format::Text => log.boxed(),
            Format::Json => log.json().flatten_event(true).boxed(),
        };
        let log = log.with_filter(EnvFilter::new(directives(config.log_level)));
        let started = tracing_subscriber::registry().with(spans).with(log).try_init();
        if let Err(error) = started {
            tracing::debug!(%error, "logging is already set up");
        }
        #[cfg(not(feature = "otlp"))]
        if let Some(otlp) = &config.otlp {
            tracing::warn!(
                "spans are not exported to {otlp}: this server was built without the feature otlp"
            );
        }
        Ok(Self {
            #[cfg(feature = "otlp")]
            export,
        })
    }

    /// Sends the remaining spans.
    pub(super) async fn stop(self) {
        #[cfg(feature = "otlp")]
        if let Some(export) = self.export {
            export.stop().await;
        }
    }
}

/// Makes the span of a call part of the caller's trace, if spans are exported.
pub(super) fn continue_trace(span: &Span, headers: &HeaderMap) {
    #[cfg(feature = "otlp")]
    otlp::continue_trace(span, headers);
    #[cfg(not(feature = "otlp"))]
    let _ = (span, headers);
}
