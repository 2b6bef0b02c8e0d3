//! Calls to one origin, one after the other, over a connection that is kept for a while.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::header::{self, HeaderValue};
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::sync::Mutex;
use tokio::task::AbortHandle;
use tokio_rustls::TlsConnector;

use super::answer::Answer;
use super::call::{Call, Limits};
use super::dial::{Dial, Stream};
use super::error::{CallError, CallErrorKind, with_causes};
use super::origin::Origin;
use super::trust::{Settings, Trust};
use crate::clock::Clock;

/// Longest time that an unused connection is kept: controllers have few to give.
const IDLE_MAX: Duration = Duration::from_secs(20);
/// Most redirects within the origin that a request follows.
const REDIRECTS_MAX: usize = 3;
/// Most bytes of the head of an answer.
const HEAD_BYTES_MAX: usize = 64 * 1024;

/// Calls to one origin.
pub struct Channel {
    origin: Origin,
    trust: Trust,
    settings: Settings,
    dial: Arc<dyn Dial>,
    clock: Arc<dyn Clock>,
    connection: Mutex<Option<Connection>>,
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("origin", &self.origin).finish_non_exhaustive()
    }
}

struct Connection {
    send: SendRequest<Full<Bytes>>,
    /// When a call over it last ended, in milliseconds of the monotonic clock; `u64::MAX` during a call.
    used_ms: Arc<AtomicU64>,
    task: AbortHandle,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Channel {
    /// To this origin; nothing is connected yet.
    #[must_use]
    pub fn new(origin: Origin, trust: Trust, dial: Arc<dyn Dial>, clock: Arc<dyn Clock>) -> Self {
        let (settings, connection) = (Settings::default(), Mutex::new(None));
        Self { origin, trust, settings, dial, clock, connection }
    }

    /// Where it goes.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// Sends a request and reads the whole answer. Waits for calls before it. A redirect within the origin is followed
    /// if the request changes nothing.
    ///
    /// # Errors
    /// [`CallError`] if there is no answer; an answer of any status is none.
    pub async fn call(&self, call: &Call) -> Result<Answer, CallError> {
        let mut connection = self.connection.lock().await;
        let whole = call.limits.whole;
        let timed = self.clock.sleep(whole);
        tokio::select! {
            biased;
            answer = self.followed(&mut connection, call) => answer,
            () = timed => {
                *connection = None;
                Err(self.late("whole answer", whole).sent())
            }
        }
    }

    async fn followed(
        &self,
        connection: &mut Option<Connection>,
        call: &Call,
    ) -> Result<Answer, CallError> {
        let mut call = call.clone();
        for _ in 0..=REDIRECTS_MAX {
            let answer = self.once(connection, &call).await?;
            if !answer.status.is_redirection() || answer.status == StatusCode::NOT_MODIFIED {
                return Ok(answer);
            }
            let to = answer.header("location").unwrap_or_default();
            call.path = self.within(to).filter(|_| call.is_harmless()).ok_or_else(|| {
                let message = format!(
                    "{} answers {} to {:?}, which is not followed",
                    self.origin,
                    answer.status,
                    shortened(to)
                );
                CallError::new(CallErrorKind::Redirected, message).sent()
            })?;
        }
        let message = format!("{} redirects in a circle", self.origin);
        Err(CallError::new(CallErrorKind::Redirected, message).sent())
    }

    /// The path of a location within this origin.
    fn within(&self, location: &str) -> Option<String> {
        if location.starts_with('/') && !location.starts_with("//") {
            return Some(location.to_owned());
        }
        let (origin, path) = Origin::parse(location).ok()?;
        (origin == self.origin).then(|| path.to_owned())
    }

    async fn once(
        &self,
        connection: &mut Option<Connection>,
        call: &Call,
    ) -> Result<Answer, CallError> {
        let mut request = self.request(call)?;
        // Taken out: a call that is dropped midway leaves no connection behind in which an answer is on its way.
        if let Some(mut kept) = connection.take().filter(|kept| !kept.send.is_closed()) {
            kept.used_ms.store(u64::MAX, Ordering::Relaxed);
            if kept.send.ready().await.is_ok() {
                match self.send(&mut kept, request, call.limits).await {
                    Ok(answer) => {
                        self.keep(connection, kept, &answer);
                        return Ok(answer);
                    }
                    Err((error, unsent)) => {
                        // The other side has closed a connection that was idle: what was not sent, or changes nothing,
                        // is sent over a new one.
                        let closed = error.kind == CallErrorKind::Closed;
                        request = match unsent {
                            Some(unsent) => unsent,
                            None if closed && call.is_harmless() => self.request(call)?,
                            None => return Err(error),
                        };
                    }
                }
            }
        }
        let mut fresh = self.connect(call.limits).await?;
        match self.send(&mut fresh, request, call.limits).await {
            Ok(answer) => {
                self.keep(connection, fresh, &answer);
                Ok(answer)
            }
            Err((error, _)) => Err(error),
        }
    }

    fn keep(&self, slot: &mut Option<Connection>, connection: Connection, answer: &Answer) {
        let closes = answer.header("connection").is_some_and(|value| {
            value.split(',').any(|word| word.trim().eq_ignore_ascii_case("close"))
        });
        if !closes && !connection.send.is_closed() {
            connection.used_ms.store(ms(self.clock.monotonic()), Ordering::Relaxed);
            *slot = Some(connection);
        }
    }

    fn request(&self, call: &Call) -> Result<Request<Full<Bytes>>, CallError> {
        let invalid = |error: http::Error| {
            CallError::new(CallErrorKind::Invalid, format!("the request cannot be made: {error}"))
        };
        let mut request = Request::builder()
            .method(call.method.clone())
            .uri(&call.path)
            .header(header::HOST, self.origin.authority())
            .header(header::USER_AGENT, concat!("bmdemo/", env!("CARGO_PKG_VERSION")))
            .header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"))
            .body(Full::new(Bytes::from(call.body.clone())))
            .map_err(invalid)?;
        for (name, value) in &call.headers {
            request.headers_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }

    async fn connect(&self, limits: Limits) -> Result<Connection, CallError> {
        let late = self.clock.sleep(limits.connect);
        let stream = tokio::select! {
            biased;
            stream = self.secured() => stream?,
            () = late => return Err(self.late("connection", limits.connect)),
        };
        let mut builder = http1::Builder::new();
        builder.max_buf_size(HEAD_BYTES_MAX).title_case_headers(false);
        let (send, driven) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| {
            CallError::new(CallErrorKind::Closed, format!("{}: {error}", self.origin))
        })?;
        let used_ms = Arc::new(AtomicU64::new(u64::MAX));
        let (clock, last) = (self.clock.clone(), used_ms.clone());
        let task = tokio::spawn(async move {
            tokio::select! {
                // Its error is that of the call in flight, or of none.
                _ = driven => {}
                () = unused(&*clock, &last) => {}
            }
        });
        Ok(Connection { send, used_ms, task: task.abort_handle() })
    }

    async fn secured(&self) -> Result<Box<dyn Stream>, CallError> {
        let stream = self.dial.dial(&self.origin).await?;
        if !self.origin.is_tls {
            return Ok(stream);
        }
        let failed = |why: String| {
            CallError::new(CallErrorKind::Tls, format!("{} cannot be trusted: {why}", self.origin))
        };
        let settings = self.settings.get(&self.trust).map_err(|error| failed(error.to_string()))?;
        let host = self.origin.host.to_string();
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_owned();
        let name = ServerName::try_from(host).map_err(|error| failed(error.to_string()))?;
        let stream = TlsConnector::from(settings).connect(name, stream).await;
        stream
            .map(|stream| Box::new(stream) as Box<dyn Stream>)
            .map_err(|error| failed(in_words(with_causes(&error))))
    }

    /// Sends over a connection; with an error, the request if it was not sent.
    async fn send(
        &self,
        connection: &mut Connection,
        request: Request<Full<Bytes>>,
        limits: Limits,
    ) -> Result<Answer, (CallError, Option<Request<Full<Bytes>>>)> {
        let late = self.clock.sleep(limits.read);
        let answered = tokio::select! {
            biased;
            answered = connection.send.try_send_request(request) => answered,
            () = late => return Err((self.late("answer", limits.read).sent(), None)),
        };
        let answer = match answered {
            Ok(answer) => answer,
            Err(mut error) => {
                let unsent = error.take_message();
                let failed = self.broken(error.error());
                let failed = if unsent.is_some() { failed } else { failed.sent() };
                return Err((failed, unsent));
            }
        };
        let (head, body) = answer.into_parts();
        let coded = head.headers.get(header::CONTENT_ENCODING);
        if coded.is_some_and(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity")) {
            let message = format!("{} answers in a coding that was not asked for", self.origin);
            return Err((CallError::new(CallErrorKind::Malformed, message).sent(), None));
        }
        let body = self.body(body, limits).await.map_err(|error| (error.sent(), None))?;
        Ok(Answer { status: head.status, headers: head.headers, body })
    }

    async fn body(&self, mut body: Incoming, limits: Limits) -> Result<Vec<u8>, CallError> {
        let mut bytes = Vec::new();
        loop {
            let late = self.clock.sleep(limits.read);
            let frame = tokio::select! {
                biased;
                frame = body.frame() => frame,
                () = late => return Err(self.late("rest of the answer", limits.read)),
            };
            let Some(frame) = frame else { return Ok(bytes) };
            let frame = frame.map_err(|error| self.broken(&error))?;
            let Ok(part) = frame.into_data() else { continue };
            if bytes.len() + part.len() > limits.body_bytes_max {
                let message = format!(
                    "the answer of {} is larger than {} bytes",
                    self.origin, limits.body_bytes_max
                );
                return Err(CallError::new(CallErrorKind::TooLarge, message));
            }
            bytes.extend_from_slice(&part);
        }
    }

    fn broken(&self, error: &hyper::Error) -> CallError {
        let kind = if error.is_parse() || error.is_parse_too_large() {
            CallErrorKind::Malformed
        } else {
            CallErrorKind::Closed
        };
        CallError::new(kind, format!("{}: {}", self.origin, with_causes(error)))
    }

    fn late(&self, what: &str, limit: Duration) -> CallError {
        let message = format!("{}: no {what} within {} ms", self.origin, limit.as_millis());
        CallError::new(CallErrorKind::Timeout, message)
    }
}

/// What to do about the two faults of certificates that new controllers have most often, before the library's word for it.
fn in_words(why: String) -> String {
    let known = [
        (
            "CaUsedAsEndEntity",
            "its certificate is that of an authority, which only a pin makes believed",
        ),
        (
            "UnknownIssuer",
            "no authority that is believed has signed its certificate: name one, or pin the certificate",
        ),
    ];
    match known.into_iter().find(|(word, _)| why.contains(word)) {
        Some((_, meaning)) => format!("{meaning} ({why})"),
        None => why,
    }
}

/// Resolves when a connection has not been used for a while.
async fn unused(clock: &dyn Clock, used_ms: &AtomicU64) {
    loop {
        clock.sleep(IDLE_MAX).await;
        let used_ms = used_ms.load(Ordering::Relaxed);
        if used_ms != u64::MAX && ms(clock.monotonic()) >= used_ms.saturating_add(ms(IDLE_MAX)) {
            return;
        }
    }
}

fn ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX - 1)
}

/// A text of another server, short enough for a message.
fn shortened(text: &str) -> String {
    text.chars().take(200).collect()
}
