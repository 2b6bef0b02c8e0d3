//! Sessions of a controller, and the password where it has none.
//!
//! A process has one session per controller and login. The server that raises the fence of a machine ends every other session of
//! the same user: a former owner, in another process, cannot act any more, because a change never opens a session.

use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use http::Method;
use http::header::{self, HeaderName, HeaderValue};
use serde_json::json;
use sha2::{Digest as _, Sha256};

use super::bmc::{Bmc, created};
use super::failure::Failure;
use super::gate::{Gate, Refused, Session};
use super::json;
use super::ticket::Asking;
use crate::credentials::Login;
use crate::lifecycle::step::ErrorClass;
use crate::provider::{ErrorCode, ProviderError};

/// Header of a session's token.
const TOKEN: HeaderName = HeaderName::from_static("x-auth-token");
/// Most sessions that are looked at: controllers have room for 4 to 64.
const SESSIONS_MAX: usize = 64;
/// How long passwords go with each request after no session could be opened.
const BASIC: Duration = Duration::from_secs(60);
/// A session that was not used for so long is ended: others need the place.
const IDLE_MAX: Duration = Duration::from_secs(120);
/// How long refused credentials are not tried again; doubles, since controllers lock users out.
const REFUSED: Duration = Duration::from_secs(60);
const REFUSED_MAX: Duration = Duration::from_secs(15 * 60);

fn digest(login: &Login) -> [u8; 32] {
    let hasher = Sha256::new().chain_update(login.user.expose()).chain_update([0]);
    hasher.chain_update(login.password.expose()).finalize().into()
}

fn basic(login: &Login) -> Result<HeaderValue, Failure> {
    let pair =
        zeroize::Zeroizing::new(format!("{}:{}", login.user.expose(), login.password.expose()));
    let value =
        zeroize::Zeroizing::new(format!("Basic {}", BASE64_STANDARD.encode(pair.as_bytes())));
    secret_header(&value)
}

fn secret_header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        let message = "the controller gave a session without a usable token";
        ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, message)
    })?;
    value.set_sensitive(true);
    Ok(value)
}

impl Bmc {
    fn login(&self, gate: &Gate, reference: &str) -> Result<Login, Failure> {
        let permanent = |code, message: String| {
            Failure::from(ProviderError::new(ErrorClass::Permanent, code, message))
        };
        if reference.is_empty() {
            let message =
                "the machine names no credentials of its controller: set spec.bmc_credentials";
            return Err(permanent(ErrorCode::Unauthorized, message.to_owned()));
        }
        let login = self
            .credentials
            .login(reference)
            .map_err(|error| permanent(ErrorCode::Unauthorized, error.to_string()))?;
        let now = self.clock.monotonic();
        let refused = gate.refused.as_ref().filter(|refused| {
            refused.reference == reference
                && refused.until > now
                && refused.digest == digest(&login)
        });
        match refused {
            Some(refused) => Err(self.unauthorized(reference, refused.until - now)),
            None => Ok(login),
        }
    }

    fn unauthorized(&self, reference: &str, pause: Duration) -> Failure {
        let message = format!(
            "{} refused the credentials {reference:?}; they are tried again in {} s, or at once when the file changes",
            self.channel.origin(),
            pause.as_secs().max(1)
        );
        ProviderError::new(ErrorClass::Permanent, ErrorCode::Unauthorized, message).into()
    }

    /// The controller does not accept the credentials: they are not tried again soon.
    pub(super) fn refuse(&self, gate: &mut Gate, asking: Asking<'_>) -> Failure {
        let reference = asking.reference;
        let Ok(login) = self.credentials.login(reference) else {
            return self.unauthorized(reference, Duration::ZERO);
        };
        let digest = digest(&login);
        let before = gate.refused.as_ref().filter(|refused| refused.digest == digest);
        let pause = before.map_or(REFUSED, |refused| (refused.pause * 2).min(REFUSED_MAX));
        let until = self.clock.monotonic() + pause;
        gate.refused = Some(Refused { reference: reference.to_owned(), digest, until, pause });
        self.unauthorized(reference, pause)
    }

    /// The header that proves who asks: of the session, opened if there is none yet, or with the password.
    pub(super) async fn pass(
        &self,
        gate: &mut Gate,
        asking: Asking<'_>,
    ) -> Result<(HeaderName, HeaderValue), Failure> {
        let now = self.clock.monotonic();
        match (&gate.ended_during, asking.operation) {
            (Some(at), Some(operation)) if at == operation => return Err(self.ended()),
            // Another operation, or its fence. A probe is none.
            (Some(_), Some(_)) => gate.ended_during = None,
            (None, _) | (_, None) => {}
        }
        if let Some(session) = gate.sessions.get_mut(asking.reference) {
            session.used_at = now;
            return Ok((TOKEN, session.token.clone()));
        }
        let by_password =
            !self.settings.uses_sessions || gate.basic_until.is_some_and(|at| at > now);
        if by_password {
            let login = self.login(gate, asking.reference)?;
            return Ok((header::AUTHORIZATION, basic(&login)?));
        }
        let root = self.root(gate).await?;
        let sessions = json::link(&root, &["Links", "Sessions"]).map(str::to_owned).or_else(|| {
            json::link(&root, &["SessionService"])
                .map(|at| format!("{}/Sessions", at.trim_end_matches('/')))
        });
        let login = self.login(gate, asking.reference)?;
        let Some(sessions) = sessions else {
            return Ok((header::AUTHORIZATION, basic(&login)?));
        };
        if asking.is_acting {
            return Err(self.ended());
        }
        match self.open(gate, &sessions, &login, asking).await? {
            Some(session) => {
                let token = session.token.clone();
                gate.sessions.insert(asking.reference.to_owned(), session);
                Ok((TOKEN, token))
            }
            None => {
                gate.basic_until = Some(self.clock.monotonic() + BASIC);
                Ok((header::AUTHORIZATION, basic(&login)?))
            }
        }
    }

    /// Opens a session; `None` if there is none to be had.
    async fn open(
        &self,
        gate: &mut Gate,
        sessions: &str,
        login: &Login,
        asking: Asking<'_>,
    ) -> Result<Option<Session>, Failure> {
        let (user, password) = (login.user.expose(), login.password.expose());
        let body = json!({ "UserName": user, "Password": password }).to_string().into_bytes();
        let call = self.made(Method::POST, sessions).body("application/json", body);
        let answer = self.raw(gate, &call).await?;
        match answer.status.as_u16() {
            401 | 403 => return Err(self.refuse(gate, asking)),
            200..=299 => {}
            status => {
                tracing::debug!(bmc = %self.channel.origin(), status, "no session could be opened");
                return Ok(None);
            }
        }
        let Some(token) = answer.header("x-auth-token").filter(|token| !token.is_empty()) else {
            return Ok(None);
        };
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let path = created(&answer, &body);
        let used_at = self.clock.monotonic();
        Ok(Some(Session { token: secret_header(token)?, path, user: user.to_owned(), used_at }))
    }

    /// Ends every other session of our user: from now on a former owner of a machine cannot change anything here.
    ///
    /// # Errors
    /// If it cannot be done now. A controller without sessions, or that does not list them, is a weaker fence, and no
    /// error.
    pub(super) async fn end_others(&self, asking: Asking<'_>) -> Result<(), Failure> {
        let mut gate = self.gate().await;
        // Opens ours, if there is none.
        self.root(&mut gate).await?;
        self.pass(&mut gate, asking).await?;
        let Some(ours) = gate.sessions.get(asking.reference) else { return Ok(()) };
        let (Some(ours), user) = (ours.path.clone(), ours.user.clone()) else { return Ok(()) };
        let Some((list, _)) = ours.trim_end_matches('/').rsplit_once('/') else { return Ok(()) };
        let list = match self.get_in(&mut gate, asking, list).await {
            Ok(list) => list,
            Err(failure) if failure.is(&[403, 404, 405, 501]) => return Ok(()),
            Err(failure) => return Err(failure),
        };
        // Reading the list has opened another session if the one that was kept had ended.
        let ours = gate.sessions.get(asking.reference).and_then(|session| session.path.clone());
        let is_ours = |path: &str| {
            ours.as_deref()
                .is_some_and(|ours| path.trim_end_matches('/') == ours.trim_end_matches('/'))
        };
        let others: Vec<String> = json::links(&list, &["Members"])
            .into_iter()
            .filter(|path| !is_ours(path))
            .take(SESSIONS_MAX)
            .map(str::to_owned)
            .collect();
        for path in others {
            let other = match self.get_in(&mut gate, asking, &path).await {
                Ok(other) => other,
                // It has ended meanwhile, or is not for us to see.
                Err(failure) if failure.is(&[403, 404, 410]) => continue,
                Err(failure) => return Err(failure),
            };
            if json::text(&other, &["UserName"]) != user {
                continue;
            }
            let call = self.made(Method::DELETE, &path);
            match self.in_turn(&mut gate, asking, &call, None).await {
                Err(failure) if !failure.is(&[404, 410]) => return Err(failure),
                Ok(_) | Err(_) => {}
            }
        }
        Ok(())
    }

    /// Ends our sessions: those that were not used for a while, or all.
    pub(super) async fn log_out(&self, all: bool) {
        let mut gate = self.gate().await;
        let now = self.clock.monotonic();
        let is_over = |session: &Session| all || now.saturating_sub(session.used_at) >= IDLE_MAX;
        let over: Vec<String> = gate
            .sessions
            .iter()
            .filter(|(_, session)| is_over(session))
            .map(|(reference, _)| reference.clone())
            .collect();
        for reference in over {
            let Some(session) = gate.sessions.remove(&reference) else { continue };
            let Some(path) = session.path else { continue };
            let call = self.made(Method::DELETE, &path).header(TOKEN, session.token);
            // The controller ends it by itself in the end.
            if let Err(failure) = self.raw(&mut gate, &call).await {
                tracing::debug!(bmc = %self.channel.origin(), error = %failure.error, "a session was not ended");
            }
        }
    }
}
