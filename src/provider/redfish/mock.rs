//! Controllers in this process, over real HTTP, with the faults of real ones.

mod answer;
mod resources;

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::{Request, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use serde_json::{Value as Json, json};
use tokio::sync::Notify;

use self::answer::{Answer, Asked};
use crate::address::Host;
use crate::clock::Clock;
use crate::outbound::{CallError, Dial, Fut, Origin, Stream};

const SYSTEM: &str = "/redfish/v1/Systems/1";
const ADAPTERS: &str = "/redfish/v1/Systems/1/EthernetInterfaces";
const MANAGER: &str = "/redfish/v1/Managers/bmc";
const SESSIONS: &str = "/redfish/v1/SessionService/Sessions";
const TASK: &str = "/redfish/v1/TaskService/TaskMonitors/1";
/// What the user and password are, unless a test changes them.
pub(crate) const LOGIN: (&str, &str) = ("admin", "canary-password");

/// What a controller is like.
#[derive(Debug, Clone)]
pub(crate) struct Traits {
    /// Most sessions; zero: it knows none.
    pub(crate) sessions_max: usize,
    /// How long power takes to change.
    pub(crate) power_delay: Duration,
    /// How long each answer takes.
    pub(crate) answer_delay: Duration,
    /// An operating system that does not react to a shutdown.
    pub(crate) ignores_shutdown: bool,
    /// A machine that comes on by itself so long after it went off.
    pub(crate) comes_back: Option<Duration>,
    /// Media belong to the manager, and not to the system.
    pub(crate) media_at_manager: bool,
    /// Whatever an override is to be, it is for good.
    pub(crate) always_continuous: bool,
    /// An override cannot be cleared.
    pub(crate) keeps_override: bool,
    /// The system is unknown until the collection was read.
    pub(crate) needs_parent: bool,
    /// A change needs the tag of the resource.
    pub(crate) needs_tag: bool,
    /// Attaching a medium is a task that ends in this state.
    pub(crate) task: Option<&'static str>,
    /// The MAC addresses of its adapters; if empty, it lists none.
    pub(crate) adapters: Vec<&'static str>,
    /// The resets that it lists.
    pub(crate) resets: Vec<&'static str>,
}

impl Default for Traits {
    fn default() -> Self {
        Self {
            sessions_max: 8,
            power_delay: Duration::from_secs(3),
            answer_delay: Duration::from_millis(20),
            ignores_shutdown: false,
            comes_back: None,
            media_at_manager: false,
            always_continuous: false,
            keeps_override: false,
            needs_parent: false,
            needs_tag: false,
            task: None,
            adapters: Vec::new(),
            resets: vec!["On", "ForceOff", "GracefulShutdown", "ForceRestart", "PowerCycle"],
        }
    }
}

/// What it does with a request instead of an answer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fault {
    /// This status, nothing done.
    Status(u16),
    /// This status with `Retry-After`, nothing done.
    Later(u16, u64),
    /// Success, nothing done.
    Nothing,
    /// It is done, and the connection is closed without an answer.
    DoneAndDrop,
    /// The connection is closed without an answer.
    Drop,
    /// Half an answer.
    Half,
    /// No answer.
    Hang,
    /// An answer that leads elsewhere.
    Redirect(&'static str),
    /// An answer without an end.
    Huge,
    /// An answer that is not JSON.
    Text(&'static str),
}

#[derive(Debug)]
struct State {
    power: &'static str,
    /// What the power will be, and when.
    pending: Vec<(Duration, &'static str)>,
    boot: (String, String),
    image: Option<String>,
    /// It has the medium in its own record only.
    image_is_lost: bool,
    sessions: BTreeMap<u64, String>,
    next_session: u64,
    login: (String, String),
    parent_was_read: bool,
    faults: Vec<(String, Fault, usize)>,
    /// Every request: method and path.
    seen: Vec<String>,
    health: &'static str,
    serial: &'static str,
}

/// One controller with one system.
pub(crate) struct Mock {
    pub(crate) traits: Traits,
    clock: Arc<dyn Clock>,
    state: Mutex<State>,
    /// Its power will change.
    switched: Notify,
}

/// Without its password: what it is part of is printed by tests that look for secrets.
impl std::fmt::Debug for Mock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mock")
    }
}

impl Mock {
    pub(crate) fn new(traits: Traits, clock: Arc<dyn Clock>) -> Arc<Self> {
        let state = State {
            power: "On",
            pending: Vec::new(),
            boot: ("Disabled".to_owned(), "None".to_owned()),
            image: None,
            image_is_lost: false,
            sessions: BTreeMap::new(),
            next_session: 1,
            login: (LOGIN.0.to_owned(), LOGIN.1.to_owned()),
            parent_was_read: false,
            faults: Vec::new(),
            seen: Vec::new(),
            health: "OK",
            serial: "S-1",
        };
        Arc::new(Self { traits, clock, state: Mutex::new(state), switched: Notify::new() })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        while let Some(at) = state.pending.iter().position(|(at, _)| *at <= now) {
            let (at, power) = state.pending.remove(at);
            state.power = power;
            if power == "Off"
                && let Some(back) = self.traits.comes_back
            {
                state.pending.push((at + back, "On"));
            }
        }
        state
    }

    pub(crate) fn power(&self) -> &'static str {
        self.state().power
    }

    /// Waits until the power is this, by looks at every second from the reset on.
    pub(crate) async fn until_power(&self, power: &str) {
        loop {
            let switching = async {
                while !self.state().pending.is_empty() {
                    self.clock.sleep(Duration::from_secs(1)).await;
                }
            };
            switching.await;
            if self.power() == power {
                return;
            }
            self.switched.notified().await;
        }
    }

    pub(crate) fn set_power(&self, power: &'static str) {
        let mut state = self.state();
        state.pending.clear();
        state.power = power;
    }

    pub(crate) fn set_health(&self, health: &'static str) {
        self.state().health = health;
    }

    pub(crate) fn set_serial(&self, serial: &'static str) {
        self.state().serial = serial;
    }

    pub(crate) fn set_password(&self, password: &str) {
        password.clone_into(&mut self.state().login.1);
    }

    /// The next requests whose method and path contain this fail so, `times` times.
    pub(crate) fn fail(&self, request: &str, fault: Fault, times: usize) {
        self.state().faults.push((request.to_owned(), fault, times));
    }

    /// The requests that contain this.
    pub(crate) fn seen(&self, part: &str) -> Vec<String> {
        self.state().seen.iter().filter(|line| line.contains(part)).cloned().collect()
    }

    pub(crate) fn sessions(&self) -> usize {
        self.state().sessions.len()
    }

    /// Ends every session, as another server or a restart of the controller does.
    pub(crate) fn drop_sessions(&self) {
        self.state().sessions.clear();
    }

    pub(crate) fn boot(&self) -> (String, String) {
        self.state().boot.clone()
    }

    pub(crate) fn image(&self) -> Option<String> {
        self.state().image.clone()
    }

    /// A medium that it shows, and that the machine does not have, as after its death while it attached one.
    pub(crate) fn lose_image(&self, image: &str) {
        let mut state = self.state();
        (state.image, state.image_is_lost) = (Some(image.to_owned()), true);
    }

    fn takes(&self, line: &str) -> Option<Fault> {
        let mut state = self.state();
        let fault =
            state.faults.iter_mut().find(|(part, _, left)| *left > 0 && line.contains(&**part))?;
        fault.2 -= 1;
        Some(fault.1.clone())
    }

    async fn serve(self: Arc<Self>, request: Request<Incoming>) -> io::Result<Response<Body>> {
        let line = format!("{} {}", request.method(), request.uri().path());
        let headers = request.headers().clone();
        let header =
            |name: &str| headers.get(name).and_then(|it| it.to_str().ok()).map(str::to_owned);
        let body = request.into_body().collect().await.map_err(io::Error::other)?.to_bytes();
        let body: Json = serde_json::from_slice(&body).unwrap_or_default();
        self.clock.sleep(self.traits.answer_delay).await;
        self.state().seen.push(match &body {
            Json::Null => line.clone(),
            _ if line.contains("Sessions") => line.clone(),
            body => format!("{line} {body}"),
        });
        let asked = Asked {
            token: header("x-auth-token"),
            basic: header("authorization"),
            tag: header("if-match"),
            body,
        };
        let fault = self.takes(&line);
        let answer = match fault {
            None | Some(Fault::DoneAndDrop) => self.answer(&line, &asked),
            Some(Fault::Status(status)) => {
                Answer::new(status, json!({"error": {"message": "planted"}}))
            }
            Some(Fault::Later(status, seconds)) => {
                Answer::new(status, Json::Null).header("retry-after", seconds.to_string())
            }
            Some(Fault::Nothing) => Answer::new(204, Json::Null),
            Some(Fault::Drop) => return Err(io::Error::other("planted")),
            Some(Fault::Redirect(to)) => {
                Answer::new(307, Json::Null).header("location", to.to_owned())
            }
            Some(Fault::Hang) => std::future::pending().await,
            Some(Fault::Half) => {
                let parts =
                    [Ok(Frame::data(Bytes::from("{\"Pow"))), Err(io::Error::other("planted"))];
                return Ok(Response::new(BodyExt::boxed(StreamBody::new(stream::iter(parts)))));
            }
            Some(Fault::Huge) => {
                let parts =
                    stream::repeat_with(|| Ok(Frame::data(Bytes::from(vec![b' '; 64 * 1024]))));
                return Ok(Response::new(BodyExt::boxed(StreamBody::new(parts))));
            }
            Some(Fault::Text(text)) => return Ok(Response::new(full(text.to_owned()))),
        };
        if fault == Some(Fault::DoneAndDrop) {
            return Err(io::Error::other("planted"));
        }
        let text = if answer.body.is_null() { String::new() } else { answer.body.to_string() };
        let mut response = Response::builder().status(answer.status);
        for (name, value) in answer.headers {
            response = response.header(name, value);
        }
        response.body(full(text)).map_err(io::Error::other)
    }
}

type Body = BoxBody<Bytes, io::Error>;

fn full(text: String) -> Body {
    Full::new(Bytes::from(text)).map_err(|never: Infallible| match never {}).boxed()
}

/// Controllers by the name of their host.
#[derive(Debug, Clone, Default)]
pub(crate) struct Racks(Arc<Mutex<HashMap<String, Arc<Mock>>>>);

impl Racks {
    pub(crate) fn add(&self, host: &str, mock: Arc<Mock>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(host.to_owned(), mock);
    }
}

impl Dial for Racks {
    fn dial<'a>(&'a self, to: &'a Origin) -> Fut<'a, Result<Box<dyn Stream>, CallError>> {
        Box::pin(async move {
            let Host::Name(name) = &to.host else { std::future::pending().await };
            let mock = self.0.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
            // No route: nothing answers.
            let Some(mock) = mock else { std::future::pending().await };
            let (ours, theirs) = tokio::io::duplex(64 * 1024);
            tokio::spawn(async move {
                let service =
                    hyper::service::service_fn(move |request| mock.clone().serve(request));
                let served = hyper::server::conn::http1::Builder::new();
                drop(served.serve_connection(TokioIo::new(theirs), service).await);
            });
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}
