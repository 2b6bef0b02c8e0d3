//! Errors: what, why, and what to do next.

use std::error::Error as _;
use std::io::{self, Write};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::super::error::{Error, effective_code, is_cut_off};
use super::text::{Look, Meaning, sanitized, shortened, wrapped};

/// Writes an error: `Error:`, its causes, what the server added, and hints. `suggestions` are ids like the one typed.
pub(crate) fn write_error(
    out: &mut dyn Write,
    look: Look,
    error: &Error,
    suggestions: &[String],
) -> io::Result<()> {
    let label = look.paint(Meaning::Bad, "Error:");
    let status = error.status();
    let message = match status {
        Some(status) if effective_code(status) == Code::DeadlineExceeded => {
            "the server did not answer in time".to_owned()
        }
        Some(status) if is_foreign(status) => {
            "what answers at this address is no server of bmdemo".to_owned()
        }
        Some(status) if status.code() == Code::Unavailable && status.source().is_some() => {
            "the server cannot be reached any more".to_owned()
        }
        Some(status) if is_cut_off(status) => {
            "the server closed the connection without an answer".to_owned()
        }
        Some(status) if status.message().is_empty() => {
            format!("the server answered {:?}", status.code())
        }
        _ => sanitized(&error.to_string()).into_owned(),
    };
    writeln!(out, "{}", wrapped(look, &format!("{label} {message}"), 2))?;
    if status.is_none() {
        write_causes(out, error)?;
    }
    let mut hints = Vec::new();
    let is_suggested = status.is_some_and(|status| {
        status_hints(status).iter().any(|hint| hint.starts_with("did you mean"))
    });
    if !suggestions.is_empty() && !is_suggested {
        let quoted: Vec<String> = suggestions.iter().map(|id| sanitized(id).into_owned()).collect();
        hints.push(format!("did you mean {}?", quoted.join(" or ")));
    }
    if let Some(status) = status {
        write_details(out, status)?;
        hints.extend(status_hints(status));
    }
    hints.extend(own_hint(error));
    hints.dedup();
    for hint in hints {
        let line =
            format!("{} {}", look.paint(Meaning::Active, "Hint:"), sanitized(&shortened(&hint)));
        writeln!(out, "{}", wrapped(look, &line, 2))?;
    }
    Ok(())
}

/// A short hint after an error: the first one.
pub(crate) fn hint_of(error: &Error) -> Option<String> {
    let of_server = error.status().and_then(|status| status_hints(status).into_iter().next());
    of_server.or_else(|| own_hint(error))
}

/// Causes below the first level. For a server that cannot be reached only the last one is shown: the others are about
/// the internals of the client. A refused connection needs no cause.
fn write_causes(out: &mut dyn Write, error: &Error) -> io::Result<()> {
    let mut cause = error.source();
    if let Error::Unreachable { .. } = error {
        let root = std::iter::successors(cause, |cause| (**cause).source()).last();
        let refused = root
            .and_then(|root| root.downcast_ref::<io::Error>())
            .is_some_and(|root| root.kind() == io::ErrorKind::ConnectionRefused);
        cause = root.filter(|_| !refused);
    }
    while let Some(error) = cause {
        writeln!(out, "  because: {}", sanitized(&error.to_string()))?;
        cause = error.source();
    }
    Ok(())
}

fn write_details(out: &mut dyn Write, status: &Status) -> io::Result<()> {
    let details = status.get_error_details();
    for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
        // With a single violation, the message of the status says it already.
        if status.message().contains(&violation.description) {
            continue;
        }
        writeln!(out, "  {}: {}", sanitized(&violation.field), sanitized(&violation.description))?;
    }
    for violation in details.precondition_failure().map_or(&[][..], |failure| &failure.violations) {
        // The message of the status is often the description of its only violation.
        if violation.description != status.message() {
            let subject = sanitized(&violation.subject);
            writeln!(
                out,
                "  {} {subject}: {}",
                sanitized(&violation.r#type),
                sanitized(&violation.description)
            )?;
        }
    }
    for violation in details.quota_failure().map_or(&[][..], |failure| &failure.violations) {
        writeln!(
            out,
            "  {}: {}",
            sanitized(&violation.subject),
            sanitized(&violation.description)
        )?;
    }
    Ok(())
}

fn status_hints(status: &Status) -> Vec<String> {
    let details = status.get_error_details();
    let mut hints = Vec::new();
    for violation in details.bad_request().map_or(&[][..], |bad| &bad.field_violations) {
        if let Some(name) = violation.field.strip_prefix("parameters.")
            && violation.description.contains("must be given")
        {
            hints.push(format!("give it with: --set {name}=VALUE"));
        }
    }
    if is_cut_off(status) && !is_foreign(status) {
        hints.push(
            "it may be stopping, or at its limit of connections (server.connections_max): try again in a while".to_owned(),
        );
    }
    if let Some(info) = details.error_info() {
        match info.metadata.get("active_run_id").or_else(|| info.metadata.get("run_id")) {
            Some(run) if info.reason == "RUN_ACTIVE" => {
                hints.push(format!("watch the active run with: bmdemo-cli watch {run}"));
            }
            Some(_) | None => hints.extend(info.metadata.get("hint").cloned()),
        }
    }
    for link in details.help().map_or(&[][..], |help| &help.links) {
        let url = if link.url.is_empty() { String::new() } else { format!(" ({})", link.url) };
        hints.push(format!("{}{url}", link.description));
    }
    if let Some(delay) = details.retry_info().and_then(|retry| retry.retry_delay) {
        hints.push(format!("try again in {:.1} s", delay.as_secs_f64()));
    }
    hints.into_iter().map(|hint| as_flags(&hint)).collect()
}

/// A hint of the server in words of the client: a field of the API is a flag here.
pub(crate) fn as_flags(hint: &str) -> String {
    hint.replace("`force`", "--force")
}

fn own_hint(error: &Error) -> Option<String> {
    match error {
        Error::Usage { hint, .. } => Some(hint.clone()),
        Error::Local { hint, .. } => hint.clone(),
        Error::Unreachable { address, .. } if !is_local(address) => Some(
            "check the address, and that the server runs and listens there (bmdemo-server --listen)"
                .to_owned(),
        ),
        Error::Unreachable { port_assumed, address, .. } => {
            let port = address.rsplit_once(':').map_or("", |(_, port)| port);
            let port = if ["", "50051"].contains(&port) { String::new() } else { format!(" --port {port}") };
            let start = format!(
                "start one with: bmdemo-server{port}   (or: cargo run --bin bmdemo-server{}{port})",
                if port.is_empty() { "" } else { " --" }
            );
            Some(if *port_assumed {
                format!(
                    "no port was given, so 50051 was tried: give HOST:PORT for another; or {start}"
                )
            } else {
                start
            })
        }
        Error::Insecure { address, fault } => fault.hint(address),
        Error::Lost { resume, .. } => {
            Some(format!("the run continues once a server is up; watch it with: {resume}"))
        }
        Error::Rpc { status, about } => rpc_hint(status, about),
        Error::Output(_) | Error::Answer(_) => None,
    }
}

/// Whether an address is this machine's own, as far as its text shows.
fn is_local(address: &str) -> bool {
    let host = address.rsplit_once("//").map_or(address, |(_, rest)| rest);
    ["localhost", "127.", "[::1]", "::1"].iter().any(|local| host.starts_with(local))
}

/// Whether something that speaks another protocol has answered: a page where a message should be, or text where a frame
/// of HTTP/2 should be, whose first bytes make an impossible length.
fn is_foreign(status: &Status) -> bool {
    let causes = std::iter::successors(status.source(), |error| (**error).source());
    status.message().starts_with("protocol error: received message with invalid compression flag")
        || causes.into_iter().any(|cause: &dyn std::error::Error| {
            cause.to_string().contains("frame with invalid size")
        })
}

fn rpc_hint(status: &Status, about: &super::super::error::About) -> Option<String> {
    use super::super::error::About;
    if is_foreign(status) {
        return Some(
            "something else answers at this address, perhaps the metrics of the server: give the address of its API"
                .to_owned(),
        );
    }
    match (effective_code(status), about) {
        (Code::NotFound, About::Machine(_)) => {
            Some("see the machines with: bmdemo-cli list".to_owned())
        }
        (Code::NotFound, About::Run(_)) => Some("see the runs with: bmdemo-cli runs".to_owned()),
        (Code::NotFound, About::Plan(_)) => Some("see the plans with: bmdemo-cli plans".to_owned()),
        (Code::DeadlineExceeded, _) => Some("give it more time with --request-timeout".to_owned()),
        (Code::Unavailable, _) => {
            Some("the server is unavailable or shutting down; try again".to_owned())
        }
        (Code::Unimplemented, _) => {
            Some("the server is older than this client; see bmdemo-cli doctor".to_owned())
        }
        _ => None,
    }
}
