//! The boot listener: where machines that are being installed fetch their settings and report. Off by default.
//!
//! Machines on that network have no identity: settings are handed out once per attempt, only while its step runs, to the
//! MAC address that the machine is registered with; reports carry the token that came with them. docs/providers.md says
//! what that is worth.

mod files;

use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body::Body as HttpBody;
use hyper::body::{Bytes, Incoming};
use hyper_util::rt::TokioExecutor;
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;

pub(super) use self::files::Files;
use super::checks::{self, HostNames};
use super::config::{Config, Storage};
use super::error::StartError;
use super::gate::{Caps, Gate};
use super::limits::HEADER_LIST_BYTES_MAX;
use super::peers::{Peers, Rates};
use super::refusals::Refusals;
use super::{small, storage};
use crate::clock::Clock;
use crate::ids::MachineId;
use crate::model::{InstallReport, InstallStage, Installation};
use crate::provider::boot::{Desk, DeskError, Reports, ReportsError, ReportsFut, TokenKey};
use crate::store::{Batch, Store};

/// A rack boots at once; a machine has one connection at a time.
const CAPS: Caps =
    Caps { connections_max: 1_024, connections_per_peer_max: 16, connections_loopback_max: 256 };
/// What one machine may ask for: it reports a few times per boot. Behind one address there may be a rack.
const RATES: Rates = Rates { mutations_per_s: 50, written_bytes_per_s: 256 * 1024 };
/// Time for the body of a report.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// The same where files are served: firmware takes its time for an installer.
const DOWNLOAD_MAX: Duration = Duration::from_secs(15 * 60);
/// Below `/boot/v1/`, where files are.
const FILES: &str = "files/";
/// Most bytes of a report.
const REPORT_BYTES_MAX: usize = 16 * 1024;
/// Most characters of what is kept of a text in a report.
const TEXT_CHARS_MAX: usize = 1_000;
/// The file of the key in the data directory.
const KEY_FILE: &str = "boot.key";

/// What the listener works with.
#[derive(Debug)]
pub(super) struct Boot {
    desk: Arc<Desk>,
    host_names: HostNames,
    refusals: Refusals,
    peers: Peers,
    files: Files,
    clock: Arc<dyn Clock>,
}

impl Boot {
    pub(super) fn new(
        desk: Arc<Desk>,
        host_names: HostNames,
        refusals: Refusals,
        files: Files,
        clock: Arc<dyn Clock>,
    ) -> Self {
        let peers = Peers::new(RATES, clock.clone());
        Self { desk, host_names, refusals, peers, files, clock }
    }
}

/// The desk of a listener.
///
/// # Errors
/// [`StartError`] if its key cannot be had.
pub(super) async fn desk(
    config: &Config,
    listener: &TcpListener,
    store: &Arc<dyn Store>,
    clock: &Arc<dyn Clock>,
) -> Result<Arc<Desk>, StartError> {
    let failed = "the key of installation tokens";
    let internal =
        |source: std::io::Error| StartError::Internal { what: failed, source: source.into() };
    let address = listener.local_addr().map_err(internal)?;
    let given = config.boot.as_ref().and_then(|boot| boot.url.clone());
    let url = given.unwrap_or_else(|| format!("http://{address}"));
    let key = match &config.storage {
        Storage::Ephemeral => TokenKey::ephemeral()?,
        Storage::Dir(dir) => {
            let path = dir.join(KEY_FILE);
            storage::blocking(failed, move || Ok(TokenKey::of_file(&path)?)).await?
        }
    };
    let images = config.images.clone();
    let reports = Arc::new(Stored(store.clone()));
    Ok(Arc::new(Desk::new(reports, clock.clone(), key, images, url)))
}

/// Keeps reports in the store.
struct Stored(Arc<dyn Store>);

impl Reports for Stored {
    fn load<'a>(&'a self, machine: &'a MachineId) -> ReportsFut<'a, Option<Installation>> {
        Box::pin(async move {
            let loaded = self.0.installation(machine).await;
            loaded.map_err(|error| ReportsError(error.to_string()))
        })
    }

    fn save<'a>(&'a self, machine: &'a MachineId, of: Installation) -> ReportsFut<'a, ()> {
        let batch = Batch { installations: vec![(machine.clone(), of)], ..Batch::default() };
        Box::pin(async move {
            let committed = self.0.commit(batch).await;
            committed.map(|_| ()).map_err(|error| ReportsError(error.to_string()))
        })
    }
}

/// The names by which machines call the listener.
pub(super) fn host_names(config: &Config, desk: &Desk) -> HostNames {
    let mut names = config.host_names.clone();
    let url = desk.url().parse::<http::Uri>();
    names.extend(url.ok().and_then(|url| url.host().map(ToOwned::to_owned)));
    HostNames::new(&names)
}

/// What a machine says, as JSON.
#[derive(Debug, Default, serde::Deserialize)]
struct Report {
    stage: String,
    #[serde(default)]
    image_sha256: String,
    #[serde(default)]
    boot_id: String,
    #[serde(default)]
    message: String,
    /// It asks for the secret that a step has for it.
    #[serde(default)]
    wants_material: bool,
}

/// Serves until `stop`.
pub(super) async fn serve(listener: TcpListener, boot: Arc<Boot>, stop: CancellationToken) {
    let gate = Gate::new(CAPS, boot.refusals.clone());
    let clock = boot.clock.clone();
    let age_max = if boot.files.are_served() { DOWNLOAD_MAX } else { CONNECTION_AGE_MAX };
    let mut builder = auto::Builder::new(TokioExecutor::new()).http1_only();
    // GRUB 2.06 knows `Content-Length` by these letters alone.
    builder.http1().max_buf_size(HEADER_LIST_BYTES_MAX as usize).title_case_headers(true);
    let answered = move |request: Request<Incoming>, peer| {
        let boot = boot.clone();
        async move { boot.answer(request, peer).await }
    };
    small::serve(listener, gate, age_max, builder, clock, stop, answered).await;
}

impl Boot {
    async fn answer<B>(&self, request: Request<B>, peer: SocketAddr) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
    {
        if let Err(refusal) = checks::source(request.uri(), request.headers(), &self.host_names) {
            self.refusals.count(refusal.cause());
            return refusal.response();
        }
        if let Err(limit) = self.peers.at(peer.ip()).mutate() {
            self.refusals.count("boot_rate");
            return later(limit.retry_after, "too many requests from this address");
        }
        let path = request.uri().path().to_owned();
        match (request.method(), path.strip_prefix("/boot/v1/")) {
            (&Method::GET, Some("settings")) => self.settings(request.uri().query()).await,
            (&Method::GET | &Method::HEAD, Some(rest)) if rest.starts_with(FILES) => {
                let wants_body = request.method() == Method::GET;
                let path = rest.get(FILES.len()..).unwrap_or_default();
                let found = self.files.answer(path, wants_body).await;
                found.unwrap_or_else(|| plain(StatusCode::NOT_FOUND, "there is no such file"))
            }
            (&Method::POST, Some(rest)) => match rest.strip_prefix("report/") {
                Some(machine) => self.report(machine, request).await,
                None => plain(StatusCode::NOT_FOUND, "nothing is here"),
            },
            (_, Some(rest)) if rest == "settings" || rest.starts_with("report/") => {
                plain(StatusCode::METHOD_NOT_ALLOWED, "GET settings, POST reports")
            }
            (_, _) => plain(StatusCode::NOT_FOUND, "nothing is here"),
        }
    }

    async fn settings(&self, query: Option<&str>) -> Response<Body> {
        let mac = query.into_iter().flat_map(|query| query.split('&')).find_map(|pair| {
            pair.strip_prefix("mac=").map(|mac| mac.replace("%3A", ":").replace("%3a", ":"))
        });
        let Some(mac) = mac else {
            return plain(
                StatusCode::BAD_REQUEST,
                "mac: give the address, as in settings?mac=52:54:00:12:34:56",
            );
        };
        match self.desk.take_settings(&mac).await {
            Ok(text) => never_stored(text),
            Err(error) => self.refused(&error),
        }
    }

    async fn report<B>(&self, machine: &str, request: Request<B>) -> Response<Body>
    where
        B: HttpBody<Data = Bytes>,
    {
        let Ok(machine) = MachineId::parse(machine) else {
            return self.refused(&DeskError::Token);
        };
        let Some(token) = bearer(request.headers()) else {
            return plain(
                StatusCode::UNAUTHORIZED,
                "the token of the settings is missing: Authorization: Bearer TOKEN",
            );
        };
        let read = read(request.into_body(), REPORT_BYTES_MAX);
        let too_late = self.clock.sleep(BODY_TIMEOUT);
        let body = tokio::select! {
            body = read => body,
            () = too_late => Err(StatusCode::REQUEST_TIMEOUT),
        };
        let body = match body {
            Ok(body) => body,
            Err(status) => return plain(status, "the report did not arrive, or is too large"),
        };
        let report: Report = match serde_json::from_slice(&body) {
            Ok(report) => report,
            Err(error) => {
                return plain(
                    StatusCode::BAD_REQUEST,
                    &format!("the report is not JSON as it should be: {error}"),
                );
            }
        };
        let stage = InstallStage::parse(&report.stage);
        let Some(stage) = stage.filter(|stage| *stage != InstallStage::SettingsTaken) else {
            return plain(StatusCode::BAD_REQUEST, "stage: installing, written, failed or up");
        };
        let said = InstallReport {
            image_sha256: kept(&report.image_sha256),
            boot_id: kept(&report.boot_id),
            message: kept(&report.message),
        };
        match self.desk.report(&machine, &token, stage, said).await {
            Ok(()) if report.wants_material && stage == InstallStage::Up => {
                match self.desk.take_secret(&machine, &token).await {
                    Ok(Some(secret)) => never_stored(secret.expose().to_owned()),
                    Ok(None) => no_content(),
                    Err(error) => self.refused(&error),
                }
            }
            Ok(()) => no_content(),
            Err(error) => self.refused(&error),
        }
    }

    fn refused(&self, error: &DeskError) -> Response<Body> {
        let (status, cause) = match error {
            DeskError::NotOffered => (StatusCode::NOT_FOUND, "boot_not_offered"),
            DeskError::Taken => (StatusCode::GONE, "boot_taken"),
            DeskError::Token => (StatusCode::FORBIDDEN, "boot_token"),
            DeskError::Store(source) => {
                tracing::warn!(%source, "the report of a machine could not be stored");
                return later(Duration::from_secs(1), &error.to_string());
            }
        };
        self.refusals.count(cause);
        plain(status, &error.to_string())
    }
}

/// A text of a report as it is kept: bounded, without control characters.
fn kept(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect()
}

fn bearer(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim().to_owned())
}

/// The whole body, if it has at most `bytes_max` bytes.
async fn read<B>(body: B, bytes_max: usize) -> Result<Vec<u8>, StatusCode>
where
    B: HttpBody<Data = Bytes>,
{
    let mut body = pin!(body);
    let mut bytes = Vec::new();
    while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        let frame = frame.map_err(|_| StatusCode::BAD_REQUEST)?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > bytes_max {
            return Err(StatusCode::PAYLOAD_TOO_LARGE);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

fn plain(status: StatusCode, text: &str) -> Response<Body> {
    let mut response = Response::new(Body::new(format!("{text}\n")));
    *response.status_mut() = status;
    let content_type = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// A text for the machine alone.
fn never_stored(text: String) -> Response<Body> {
    let mut response = plain(StatusCode::OK, "");
    *response.body_mut() = Body::new(text);
    let never = HeaderValue::from_static("no-store");
    response.headers_mut().insert(http::header::CACHE_CONTROL, never);
    response
}

fn no_content() -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::NO_CONTENT;
    response
}

fn later(after: Duration, text: &str) -> Response<Body> {
    let mut response = plain(StatusCode::SERVICE_UNAVAILABLE, text);
    let seconds = after.as_secs().max(1);
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    response
}

#[cfg(test)]
mod tests;
