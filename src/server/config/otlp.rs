//! Where spans are exported to.

use std::fmt;

/// Where spans are exported to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::server) enum Otlp {
    /// To this URL.
    Endpoint(String),
    /// To the endpoint in the environment.
    Environment,
}

impl fmt::Display for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Endpoint(url) => f.write_str(url),
            Self::Environment => f.write_str("the endpoint of the environment"),
        }
    }
}

/// Where spans go: from the flag, then the standard OpenTelemetry variables. The variables are meant for all programs
/// of an environment, so a server that cannot export only warns about them; the flag is meant for this server, so it
/// is refused.
///
/// # Errors
/// What is wrong with an address that is no collector.
pub(super) fn endpoint(flag: Option<&str>) -> Result<Option<Otlp>, String> {
    let Some(url) = flag else {
        let variables = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let is_set = |name| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        return Ok(variables.into_iter().any(is_set).then_some(Otlp::Environment));
    };
    let refused = |why: &str| Err(format!("--otlp-endpoint {url}: {why}"));
    if !cfg!(feature = "otlp") {
        return refused("this server was built without span export; build it with --features otlp");
    }
    match url.parse::<http::Uri>() {
        Ok(uri) if uri.scheme_str() == Some("http") && uri.host().is_some() => {
            Ok(Some(Otlp::Endpoint(url.to_owned())))
        }
        Ok(uri) if uri.scheme_str() == Some("https") => refused(
            "TLS is not supported; send to a collector on this machine over http, and let it forward the spans",
        ),
        Ok(_) | Err(_) => refused("expected http://HOST:PORT, as in http://127.0.0.1:4317"),
    }
}
