//! One controller: requests go to it one at a time, and not while it is left alone.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use sha2::Digest as _;
use tokio::sync::Mutex;

use super::answer::{self, Selector, Status};
use super::settings::{IpmiPorts, IpmiSettings};
use super::tool::{self, Ran};
use crate::address::{Authority, Host};
use crate::credentials::Login;
use crate::ids::{Epoch, MachineId};
use crate::lifecycle::step::ErrorClass;
use crate::outbound::CallErrorKind;
use crate::provider::breaker::{Breaker, OpenBreakers};
use crate::provider::epochs::Epochs;
use crate::provider::{ErrorCode, ProviderError};

/// The port of the protocol.
const PORT: u16 = 623;
/// Longest password of the protocol, in bytes.
const PASSWORD_BYTES_MAX: usize = 20;
/// How long a login that was refused is not sent again, at first and at most: controllers lock users out.
const REFUSED: Duration = Duration::from_secs(60);
const REFUSED_MAX: Duration = Duration::from_secs(15 * 60);
/// Each request is sent again this often by the program, after this many seconds: the protocol loses packets.
const TRIES: &str = "4";
const TRY_AGAIN_S: &str = "2";

/// The right to change something at a machine's controller, until the machine has a new owner.
#[derive(Debug, Clone)]
pub(super) struct Claim {
    pub(super) machine: MachineId,
    pub(super) epoch: Epoch,
    pub(super) epochs: Arc<Epochs>,
}

impl Claim {
    /// # Errors
    /// If the machine has a new owner.
    pub(super) fn check(&self) -> Result<(), ProviderError> {
        self.epochs.check(&self.machine, self.epoch)
    }
}

/// A request that was not carried out as far as is known.
#[derive(Debug, Clone)]
pub(super) struct Failure {
    /// The error of the whole operation, if this ends it.
    pub(super) error: ProviderError,
    /// Whether it may have had an effect all the same.
    pub(super) may_be_done: bool,
}

impl From<ProviderError> for Failure {
    fn from(error: ProviderError) -> Self {
        Self { error, may_be_done: false }
    }
}

/// What is known of one controller between two requests.
#[derive(Debug, Default)]
struct Gate {
    breaker: Breaker,
    refused: Option<Refused>,
}

/// A login that was refused.
#[derive(Debug)]
struct Refused {
    digest: [u8; 32],
    until: Duration,
    pause: Duration,
}

/// One controller.
#[derive(Debug)]
pub(super) struct Bmc {
    host: Host,
    port: u16,
    pub(super) settings: Arc<IpmiSettings>,
    pub(super) ports: IpmiPorts,
    gate: Mutex<Gate>,
}

/// The controllers of a class.
#[derive(Debug)]
pub(super) struct Bmcs {
    settings: Arc<IpmiSettings>,
    ports: IpmiPorts,
    known: StdMutex<HashMap<String, Arc<Bmc>>>,
    /// Those that are left alone.
    pub(super) open: OpenBreakers,
}

impl Bmcs {
    pub(super) fn new(settings: Arc<IpmiSettings>, ports: IpmiPorts) -> Self {
        Self { settings, ports, known: StdMutex::default(), open: OpenBreakers::default() }
    }

    /// The controller at an endpoint: machines that share it share its turns.
    ///
    /// # Errors
    /// What is wrong with the endpoint.
    pub(super) fn get(&self, endpoint: &str) -> Result<Arc<Bmc>, String> {
        let (host, port) = address(endpoint)?;
        let key = format!("{host} {port}");
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let bmc = known.entry(key).or_insert_with(|| {
            Arc::new(Bmc {
                host,
                port,
                settings: self.settings.clone(),
                ports: self.ports.clone(),
                gate: Mutex::new(Gate {
                    breaker: Breaker::among(self.open.clone()),
                    refused: None,
                }),
            })
        });
        Ok(bmc.clone())
    }
}

/// Host and port of a controller: `ipmi://host:port`, or the host of a URL that has the port of another protocol.
fn address(endpoint: &str) -> Result<(Host, u16), String> {
    let (scheme, rest) = endpoint
        .split_once("://")
        .ok_or_else(|| "must be a URL, such as ipmi://10.0.0.8".to_owned())?;
    let is_own = scheme.eq_ignore_ascii_case("ipmi");
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let Authority { host, port } =
        Authority::parse(&rest[..end]).map_err(|error| error.to_string())?;
    Ok((host, port.filter(|_| is_own).unwrap_or(PORT)))
}

impl Bmc {
    /// Its name, for people.
    pub(super) fn name(&self) -> String {
        format!("ipmi://{}:{}", self.host, self.port)
    }

    /// Asks for something: `claim` is the right to change what it changes. Returns what was printed.
    pub(super) async fn ask(
        &self,
        reference: &str,
        claim: Option<&Claim>,
        words: &[&str],
    ) -> Result<String, Failure> {
        let clock = &self.ports.clock;
        let mut gate = self.gate.lock().await;
        if let Some(pause) = gate.breaker.pause(clock.monotonic()) {
            let message = format!(
                "{} is left alone for {} s after failures in a row",
                self.name(),
                pause.as_secs().max(1)
            );
            let error = ProviderError::new(ErrorClass::Transient, ErrorCode::Unreachable, message);
            return Err(error.retry_at(clock.now().plus(pause)).into());
        }
        let login = self.login(reference)?;
        let digest = digest(&login);
        if let Some(refused) = gate.refused.as_ref().filter(|refused| refused.digest == digest)
            && let Some(left) = refused.until.checked_sub(clock.monotonic())
            && !left.is_zero()
        {
            return Err(self.unauthorized(reference, left).into());
        }
        let address = self.address().await?;
        let mut arguments: Vec<String> = [
            "-v",
            "-I",
            "lanplus",
            "-H",
            &address,
            "-p",
            &self.port.to_string(),
            "-U",
            login.user.expose(),
            "-E",
            "-C",
            &self.settings.cipher_suite.to_string(),
            "-N",
            TRY_AGAIN_S,
            "-R",
            TRIES,
        ]
        .map(str::to_owned)
        .to_vec();
        arguments.extend(words.iter().map(|word| (*word).to_owned()));
        // As late as possible: a new owner may have come while this waited for its turn.
        if let Some(claim) = claim {
            claim.check()?;
        }
        let settings = &self.settings;
        let what = format!("{} at {}", words.join(" "), self.name());
        let ran =
            tool::run(&settings.program, &arguments, &login.password, settings.request, &**clock);
        let failure = match ran.await {
            Ok(Ran::Ended { is_success: true, stdout, .. }) => {
                gate.breaker.worked();
                gate.refused = None;
                return Ok(stdout);
            }
            Ok(Ran::Ended { stderr, .. }) => {
                let (error, may_be_done) = answer::failure(&what, settings.cipher_suite, &stderr);
                Failure { error, may_be_done }
            }
            Ok(Ran::TimedOut) => {
                let message = format!("{what} took longer than {} s", settings.request.as_secs());
                let class = ErrorClass::Transient;
                let error = ProviderError::new(class, ErrorCode::Timeout, message);
                Failure { error, may_be_done: true }
            }
            Err(error) => return Err(self.unusable(&error).into()),
        };
        self.count(&mut gate, &failure, digest);
        Err(failure)
    }

    /// A controller that is away is left alone for a while, and a login that was refused is not sent again for one.
    fn count(&self, gate: &mut Gate, failure: &Failure, digest: [u8; 32]) {
        let now = self.ports.clock.monotonic();
        match failure.error.code {
            ErrorCode::Unreachable | ErrorCode::Timeout | ErrorCode::Failed => {
                if gate.breaker.failed(now) {
                    tracing::warn!(
                        bmc = self.name(),
                        "a controller is left alone after failures in a row"
                    );
                }
            }
            ErrorCode::Unauthorized => {
                gate.breaker.worked();
                let before = gate.refused.as_ref().filter(|refused| refused.digest == digest);
                let pause = before.map_or(REFUSED, |refused| (refused.pause * 2).min(REFUSED_MAX));
                gate.refused = Some(Refused { digest, until: now + pause, pause });
            }
            ErrorCode::Tls
            | ErrorCode::Busy
            | ErrorCode::Unsupported
            | ErrorCode::Invalid
            | ErrorCode::Precondition
            | ErrorCode::Stopped
            | ErrorCode::Fenced
            | ErrorCode::Unavailable
            | ErrorCode::PutOff
            | ErrorCode::Internal => gate.breaker.worked(),
        }
    }

    fn unauthorized(&self, reference: &str, left: Duration) -> ProviderError {
        let message = format!(
            "{} has refused the login of credentials {reference:?}: it is sent again in {} s at the earliest, or once the file changes",
            self.name(),
            left.as_secs().max(1)
        );
        ProviderError::new(ErrorClass::Permanent, ErrorCode::Unauthorized, message)
    }

    fn unusable(&self, error: &io::Error) -> ProviderError {
        let message = format!("{} cannot be run: {error}", self.settings.program.display());
        ProviderError::new(ErrorClass::NeedsHuman, ErrorCode::Unavailable, message)
    }

    fn login(&self, reference: &str) -> Result<Login, ProviderError> {
        let refuse = |message: String| {
            ProviderError::new(ErrorClass::Permanent, ErrorCode::Unauthorized, message)
        };
        if reference.is_empty() {
            let message = "the machine names no credentials: set spec.bmc_credentials";
            return Err(refuse(message.to_owned()));
        }
        let login = self.ports.credentials.login(reference);
        let login = login.map_err(|error| refuse(error.to_string()))?;
        if login.password.expose().len() > PASSWORD_BYTES_MAX {
            return Err(refuse(format!(
                "the password of credentials {reference:?} is longer than the {PASSWORD_BYTES_MAX} bytes of IPMI"
            )));
        }
        // It becomes an argument.
        if login.user.expose().is_empty() || login.user.expose().starts_with('-') {
            return Err(refuse(format!(
                "the user of credentials {reference:?} cannot be one of IPMI: it is empty, or begins with '-'"
            )));
        }
        Ok(login)
    }

    /// Its address, in numbers: that is what was checked.
    async fn address(&self) -> Result<String, ProviderError> {
        let found = self.ports.networks.allowed(&self.host).await.map_err(|error| {
            let (class, code) = if error.kind == CallErrorKind::NotAllowed {
                (ErrorClass::Permanent, ErrorCode::Precondition)
            } else {
                (ErrorClass::Transient, ErrorCode::Unreachable)
            };
            ProviderError::new(class, code, error.message)
        })?;
        found.first().map(ToString::to_string).ok_or_else(|| {
            let message = format!("{} has no address", self.host);
            ProviderError::new(ErrorClass::Transient, ErrorCode::Unreachable, message)
        })
    }

    /// The state of the chassis.
    pub(super) async fn status(&self, reference: &str) -> Result<Status, Failure> {
        let text = self.ask(reference, None, &["chassis", "status"]).await?;
        Status::read(&text).ok_or_else(|| self.unreadable("chassis status").into())
    }

    /// What the machine boots from next.
    pub(super) async fn selector(&self, reference: &str) -> Result<Selector, Failure> {
        let text = self.ask(reference, None, &["chassis", "bootparam", "get", "5"]).await?;
        Selector::read(&text).ok_or_else(|| self.unreadable("chassis bootparam get 5").into())
    }

    fn unreadable(&self, what: &str) -> ProviderError {
        let message = format!("what {} answers to {what} cannot be read", self.name());
        ProviderError::new(ErrorClass::NeedsHuman, ErrorCode::Unsupported, message)
    }
}

/// So that a file that changes is tried at once, without keeping what is in it.
fn digest(login: &Login) -> [u8; 32] {
    let mut hasher = sha2::Sha256::new();
    for part in [&login.user, &login.password] {
        hasher.update((part.expose().len() as u64).to_le_bytes());
        hasher.update(part.expose().as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_name_a_host_and_a_port() {
        for (endpoint, wanted) in [
            ("ipmi://10.0.0.8", "10.0.0.8 623"),
            ("ipmi://10.0.0.8:9623", "10.0.0.8 9623"),
            ("ipmi://[2001:db8::1]:9623", "[2001:db8::1] 9623"),
            ("https://bmc-1:8443/redfish/v1", "bmc-1 623"),
        ] {
            let (host, port) = address(endpoint).unwrap();
            assert_eq!(format!("{host} {port}"), wanted, "{endpoint}");
        }
        for wrong in ["10.0.0.8", "ipmi://", "ipmi://a@b", "ipmi://-H"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
