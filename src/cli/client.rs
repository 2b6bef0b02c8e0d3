//! The connection to a server: address, metadata, deadlines, and retries with the same request id.

mod named;
mod pages;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status, Streaming};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::clock::{Clock, Random};
use crate::pb;
use crate::pb::audit_service_client::AuditServiceClient;
use crate::pb::lock_service_client::LockServiceClient;
use crate::pb::machine_service_client::MachineServiceClient;
use crate::pb::plan_service_client::PlanServiceClient;
use crate::pb::run_service_client::RunServiceClient;
use crate::pb::server_service_client::ServerServiceClient;

use super::connector::{self, Noticed};
use super::credentials::Credentials;
use super::error::{Error, is_connection_loss};
use super::fault::Fault;
use super::server_address::ServerAddress;

/// Most tries of one call.
const TRIES_MAX: u32 = 4;
/// Wait before the second try; doubles up to [`BACKOFF_MAX`].
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// Longest wait between two tries.
const BACKOFF_MAX: Duration = Duration::from_secs(2);
/// Longest wait for a connection.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How long `--wait-for-server` waits.
const WAIT_FOR_SERVER: Duration = Duration::from_secs(60);
/// Largest message taken from a server: a page of 1,000 large machines.
const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Largest page that servers give.
pub(crate) const PAGE_SIZE: i32 = 1000;
/// Metadata key for the name of the caller.
const ACTOR_KEY: &str = "bmdemo-actor";

/// Where the server is, and the identity to call it with.
#[derive(Debug, Clone)]
pub(crate) struct Target {
    /// host:port, or a URL.
    pub(crate) server: String,
    /// Name for the audit trail.
    pub(crate) actor: Option<String>,
    /// Whether to wait for a server that does not listen yet.
    pub(crate) wait: bool,
    /// Deadline of one unary call.
    pub(crate) timeout: Duration,
    /// What to show to the server, and how to know it.
    pub(crate) credentials: Credentials,
}

/// A connected client; cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    channel: Channel,
    /// URL of the server.
    pub(crate) address: String,
    actor: Option<AsciiMetadataValue>,
    timeout: Duration,
    clock: Arc<dyn Clock>,
    random: Arc<dyn Random>,
    noticed: Noticed,
    credentials: Credentials,
    /// The token as it was last read.
    token: Arc<Mutex<Option<AsciiMetadataValue>>>,
    /// Records that lists have omitted because they cannot be read.
    unreadable: Arc<AtomicU64>,
}

impl Client {
    /// Connects. A refused connection fails at once, unless the target says to wait.
    pub(crate) async fn connect(
        target: &Target,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Result<Self, Error> {
        let server = ServerAddress::parse(&target.server)?;
        let mut endpoints = Vec::new();
        for url in &server.urls {
            endpoints.push(endpoint(url)?);
        }
        let secure_name = server.secure_name.as_deref();
        if secure_name.is_some() {
            // A mistake in the files is none of the network.
            target.credentials.read()?;
        }
        if target.credentials.has_token() && secure_name.is_none() && !server.is_local {
            return Err(Error::usage(
                format!("a token would be sent to {} in the clear", server.shown),
                "give https://HOST:PORT",
            ));
        }
        let token = target.credentials.token(&*clock).await?;
        let noticed = Noticed::default();
        let give_up_at = clock.monotonic() + WAIT_FOR_SERVER;
        let mut backoff = BACKOFF_FIRST;
        let (address, channel) = loop {
            let connect = async |endpoint: &Endpoint| {
                connector::connect(endpoint, secure_name, &target.credentials, &noticed).await
            };
            match connect_to_first(&endpoints, connect).await {
                Ok((place, channel)) => break (&server.urls[place], channel),
                Err(error) if let Some(fault) = Fault::among_causes(&error) => {
                    return Err(Error::Insecure { address: server.shown, fault });
                }
                Err(_) if target.wait && clock.monotonic() < give_up_at => {
                    clock.sleep(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(source) => {
                    let (address, port_assumed) = (server.shown.clone(), server.port_assumed);
                    return Err(Error::Unreachable { address, source, port_assumed });
                }
            }
        };
        let credentials = target.credentials.clone();
        let token = Arc::new(Mutex::new(token));
        let client = Self::over(channel, address, target, clock, random);
        Ok(Self { noticed, credentials, token, ..client })
    }

    /// A client over an existing connection. `address` is for display only.
    pub(crate) fn over(
        channel: Channel,
        address: &str,
        target: &Target,
        clock: Arc<dyn Clock>,
        random: Arc<dyn Random>,
    ) -> Self {
        let actor = target.actor.as_deref().and_then(metadata_text);
        let address = address.to_owned();
        let unreadable = Arc::default();
        let (timeout, noticed) = (target.timeout, Noticed::default());
        let (credentials, token) = (Credentials::default(), Arc::default());
        Self {
            channel,
            address,
            actor,
            timeout,
            clock,
            random,
            noticed,
            credentials,
            token,
            unreadable,
        }
    }

    /// A fresh idempotency key: a random UUID.
    pub(crate) fn new_request_id(&self) -> String {
        let bytes = (u128::from(self.random.next_u64()) << 64) | u128::from(self.random.next_u64());
        uuid::Builder::from_random_bytes(bytes.to_be_bytes()).into_uuid().to_string()
    }

    fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(actor) = &self.actor {
            request.metadata_mut().insert(ACTOR_KEY, actor.clone());
        }
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(token) = token.as_ref() {
            request.metadata_mut().insert("authorization", token.clone());
        }
        drop(token);
        request
    }

    /// Whether a call that was not accepted may be after [`Client::renew`]: its token or certificate may have expired.
    pub(crate) fn can_renew(&self, status: &Status) -> bool {
        status.code() == Code::Unauthenticated && self.credentials.can_change()
    }

    /// Reads the token again. A certificate is read at each connection, which a server ends with its certificate.
    pub(crate) async fn renew(&self) -> Result<(), Error> {
        let token = self.credentials.token(&*self.clock).await?;
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
        Ok(())
    }

    /// Calls, and retries while the server is unavailable: the request id in the message makes that safe.
    async fn unary<T, R, F>(
        &self,
        message: T,
        call: impl Fn(Channel, Request<T>) -> F,
    ) -> Result<R, Error>
    where
        T: Clone,
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let mut backoff = BACKOFF_FIRST;
        let (mut tries, mut renewed) = (1, false);
        loop {
            let mut request = self.request(message.clone());
            request.set_timeout(self.timeout);
            match call(self.channel.clone(), request).await {
                Ok(response) => return Ok(response.into_inner()),
                // Nothing was done.
                Err(status) if !renewed && self.can_renew(&status) => {
                    renewed = true;
                    self.renew().await?;
                }
                Err(status) if tries < TRIES_MAX && self.is_lost(&status) => {
                    tries += 1;
                    self.clock.sleep(self.jittered(backoff)).await;
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
                Err(status) => return Err(self.error(status)),
            }
        }
    }

    /// Whether the connection broke, and may be there again soon.
    pub(crate) fn is_lost(&self, status: &Status) -> bool {
        is_connection_loss(status) && self.noticed.fault().is_none()
    }

    /// The error of a call: if its connection broke for a reason that is known, that one.
    pub(crate) fn error(&self, status: Status) -> Error {
        match self.noticed.fault() {
            Some(fault) if is_connection_loss(&status) => {
                Error::Insecure { address: self.address.clone(), fault }
            }
            Some(_) | None => Error::rpc(status),
        }
    }

    /// Between 3/4 and 5/4 of a wait, so that many clients do not retry at the same instant.
    fn jittered(&self, wait: Duration) -> Duration {
        let quarters = 750 + u32::try_from(self.random.next_u64() % 501).unwrap_or(0);
        wait * quarters / 1000
    }
}

fn endpoint(url: &str) -> Result<Endpoint, Error> {
    let endpoint = Endpoint::from_shared(url.to_owned())
        .map_err(|error| Error::Answer(format!("{url} is not a URL: {error}")))?;
    Ok(endpoint
        .connect_timeout(CONNECT_LIMIT)
        .tcp_nodelay(true)
        .keep_alive_while_idle(true)
        .http2_keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(10)))
}

/// Connects to the first endpoint that listens and returns its index too; the error is that of the first endpoint.
async fn connect_to_first(
    endpoints: &[Endpoint],
    connect: impl AsyncFn(&Endpoint) -> Result<Channel, tonic::transport::Error>,
) -> Result<(usize, Channel), tonic::transport::Error> {
    let refused = match connect(&endpoints[0]).await {
        Ok(channel) => return Ok((0, channel)),
        Err(error) => error,
    };
    for (place, endpoint) in endpoints.iter().enumerate().skip(1) {
        if let Ok(channel) = connect(endpoint).await {
            return Ok((place, channel));
        }
    }
    Err(refused)
}

/// A name that can be sent as metadata; `None` for one that the server would refuse anyway.
fn metadata_text(text: &str) -> Option<AsciiMetadataValue> {
    // Characters beyond ASCII are sent as they are: the server reads UTF-8.
    AsciiMetadataValue::try_from(text.as_bytes()).ok()
}

/// One method of [`Client`] for each unary RPC.
macro_rules! unary {
    ($($service:ident: $($name:ident($request:ident) -> $response:ident),+;)+) => {
        impl Client {
            $($(
                pub(crate) async fn $name(&self, message: pb::$request) -> Result<pb::$response, Error> {
                    self.unary(message, |channel, request| async move {
                        $service::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX).$name(request).await
                    })
                    .await
                }
            )+)+
        }
    };
}

unary! {
    AuditServiceClient:
        list_audit(ListAuditRequest) -> ListAuditResponse,
        get_audit_head(GetAuditHeadRequest) -> AuditHead,
        verify_audit(VerifyAuditRequest) -> VerifyAuditResponse;
    LockServiceClient:
        stop_all(StopAllRequest) -> Lock,
        resume_all(ResumeAllRequest) -> Lock,
        create_lock(CreateLockRequest) -> Lock,
        delete_lock(DeleteLockRequest) -> Lock,
        list_locks(ListLocksRequest) -> ListLocksResponse;
    MachineServiceClient:
        register_machine(RegisterMachineRequest) -> Machine,
        get_machine(GetMachineRequest) -> Machine,
        list_machines(ListMachinesRequest) -> ListMachinesResponse,
        update_machine(UpdateMachineRequest) -> Machine,
        batch_register_machines(BatchRegisterMachinesRequest) -> BatchRegisterMachinesResponse,
        delete_machine(DeleteMachineRequest) -> DeleteMachineResponse,
        clear_intervention(ClearInterventionRequest) -> Machine,
        inspect_machine(InspectMachineRequest) -> Machine,
        list_history(ListHistoryRequest) -> ListHistoryResponse,
        list_machine_history(ListMachineHistoryRequest) -> ListMachineHistoryResponse;
    PlanServiceClient:
        get_plan(GetPlanRequest) -> Plan,
        list_plans(ListPlansRequest) -> ListPlansResponse;
    ServerServiceClient:
        who_am_i(WhoAmIRequest) -> WhoAmIResponse,
        check_access(CheckAccessRequest) -> CheckAccessResponse;
    RunServiceClient:
        start_run(StartRunRequest) -> Run,
        batch_start_runs(BatchStartRunsRequest) -> BatchStartRunsResponse,
        get_run(GetRunRequest) -> Run,
        list_runs(ListRunsRequest) -> ListRunsResponse,
        cancel_run(CancelRunRequest) -> Run,
        abort_run(AbortRunRequest) -> Run,
        pause_run(PauseRunRequest) -> Run,
        resume_run(ResumeRunRequest) -> Run,
        retry_run(RetryRunRequest) -> Run,
        skip_step(SkipStepRequest) -> Run,
        resolve_step(ResolveStepRequest) -> Run,
        wait_run(WaitRunRequest) -> Run,
        list_run_history(ListRunHistoryRequest) -> ListRunHistoryResponse;
}

/// What a server reports about itself.
#[derive(Debug, Default)]
pub(crate) struct ServerFacts {
    /// Its version.
    pub(crate) version: Option<String>,
    /// Its wall clock, in milliseconds since the Unix epoch.
    pub(crate) clock_ms: Option<i64>,
    /// Its store, limits and load.
    pub(crate) info: Option<pb::ServerInfo>,
}

/// Metadata key in which servers report their version.
const VERSION_KEY: &str = "bmdemo-version";

impl Client {
    /// What the standard health service says of the whole server.
    pub(crate) async fn health(&self) -> Result<ServingStatus, Error> {
        let mut client = HealthClient::new(self.channel.clone());
        let mut request = self.request(HealthCheckRequest { service: String::new() });
        request.set_timeout(self.timeout);
        let answer = client.check(request).await;
        let answer = answer.map_err(|status| self.error(status))?.into_inner();
        Ok(answer.status())
    }

    /// What the server reports about itself, and the metadata of its answer.
    pub(crate) async fn server_facts(&self) -> Result<ServerFacts, Error> {
        let mut request = self.request(pb::GetServerInfoRequest {});
        request.set_timeout(self.timeout);
        let answer = ServerServiceClient::new(self.channel.clone()).get_server_info(request).await;
        match answer {
            Ok(answer) => {
                let info = answer.into_inner();
                let clock_ms =
                    info.time.map(|time| time.seconds * 1000 + i64::from(time.nanos) / 1_000_000);
                Ok(ServerFacts { version: Some(info.version.clone()), clock_ms, info: Some(info) })
            }
            // An older server sends its version with every answer, and nothing else.
            Err(status) if status.code() == Code::Unimplemented => {
                let version = status.metadata().get(VERSION_KEY);
                let version = version.and_then(|value| value.to_str().ok()).map(str::to_owned);
                Ok(ServerFacts { version, ..ServerFacts::default() })
            }
            Err(status) => Err(self.error(status)),
        }
    }

    /// Whether the server says that it has a feature, which an older one would leave out without a word.
    pub(crate) async fn has_feature(&self, name: &str) -> Result<bool, Error> {
        let info = self.server_facts().await?.info.unwrap_or_default();
        Ok(info.features.iter().any(|feature| feature == name))
    }

    /// Opens a watch; the caller reconnects.
    pub(crate) async fn watch_runs(
        &self,
        message: pb::WatchRunsRequest,
    ) -> Result<Streaming<pb::RunEvent>, Status> {
        let mut client = RunServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.watch_runs(self.request(message)).await?.into_inner())
    }

    /// Opens a watch of machines; the caller reconnects.
    pub(crate) async fn watch_machines(
        &self,
        message: pb::WatchMachinesRequest,
    ) -> Result<Streaming<pb::MachineEvent>, Status> {
        let mut client = MachineServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.watch_machines(self.request(message)).await?.into_inner())
    }

    /// Opens a stream of log lines; the caller reconnects.
    pub(crate) async fn stream_run_logs(
        &self,
        message: pb::StreamRunLogsRequest,
    ) -> Result<Streaming<pb::LogChunk>, Status> {
        let mut client = RunServiceClient::new(self.channel.clone())
            .max_decoding_message_size(MESSAGE_BYTES_MAX);
        Ok(client.stream_run_logs(self.request(message)).await?.into_inner())
    }

    /// Longest time that the server may deliberately keep a call open.
    pub(crate) fn patience(&self) -> Duration {
        (self.timeout / 2).min(Duration::from_secs(20))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_actor_cannot_smuggle_bytes_into_the_metadata() {
        assert_eq!(metadata_text("zo\u{eb}").unwrap().as_encoded_bytes(), "zo\u{eb}".as_bytes());
        assert!(metadata_text("ops\r\nx: y").is_none());
        assert!(metadata_text("\u{1b}").is_none());
    }
}
