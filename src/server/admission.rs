//! Finds out who calls, from the certificate of the connection and the head of the call, and when that ends.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tonic::Status;

use super::access::{Access, Present};
use super::denials::Denials;
use super::gate::Spare;
use super::identities::Principal;
use super::jwt::{JwtRefusal, Verified};
use super::tls::{Certified, judge_again};
use super::tokens::{self, KnownToken, TokenHash};
use crate::api::methods;
use crate::api::status::ApiError;
use crate::api::{Identity, Proof};
use crate::clock::{Clock, Timestamp};
use crate::pb::Role;
use crate::text::escaped;

/// A credential is looked at again at least this often while a stream depends on it.
const LOOK_AGAIN: Duration = Duration::from_secs(60 * 60);

/// Why a call is refused before its handler sees it. Only the log says it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum AdmissionRefusal {
    /// There are none.
    #[error("the call has no credentials")]
    Missing,
    /// Something else than one token is in the head.
    #[error("the head authorization is not one \"Bearer\" with a token")]
    Form,
    /// It is no token of any kind that is accepted here.
    #[error(
        "the token is none of this server, and no issuer is configured (auth.tokens_file, auth.jwt)"
    )]
    UnknownKind,
    /// It looks like one of ours and is damaged.
    #[error("the token begins with bmd_ and is damaged")]
    TokenDamaged,
    /// No principal has this token.
    #[error("the token is not one in auth.tokens_file")]
    TokenUnknown,
    /// Its time is over.
    #[error("the token of {0} has expired")]
    TokenExpired(Arc<str>),
    /// The token of an issuer is not to be believed.
    #[error("the token of an issuer is refused: {0}")]
    Jwt(JwtRefusal),
    /// It speaks of someone whom the configuration does not know.
    #[error("the token of an issuer speaks of \"{}\", who is not a principal", escaped(.0))]
    SubjectUnknown(String),
    /// The certificate is someone else's.
    #[error("the token is one of {token}, and the certificate one of {certificate}")]
    TwoPrincipals {
        /// Of the token.
        token: Arc<str>,
        /// Of the certificate.
        certificate: Arc<str>,
    },
    /// The certificate of the connection is no longer accepted.
    #[error("the certificate of the client is no longer accepted: {0}")]
    Certificate(String),
}

impl AdmissionRefusal {
    /// Name of the kind, in the log and in the metrics.
    const fn kind(&self) -> &'static str {
        match self {
            Self::Missing => "credentials_missing",
            Self::Form => "credentials_form",
            Self::UnknownKind => "credentials_unknown_kind",
            Self::TokenDamaged => "credentials_token_damaged",
            Self::TokenUnknown => "credentials_token_unknown",
            Self::TokenExpired(_) => "credentials_token_expired",
            Self::Jwt(_) => "credentials_jwt",
            Self::SubjectUnknown(_) => "credentials_subject_unknown",
            Self::TwoPrincipals { .. } => "credentials_two_principals",
            Self::Certificate(_) => "credentials_certificate",
        }
    }
}

/// What a caller shows.
#[derive(Clone)]
enum Credential {
    Certificate(Certified),
    Token(TokenHash),
    Jwt(Arc<str>),
}

/// Until when a certificate that was accepted needs no other look, under the same settings.
fn sure_until(access: &Access, certified: &Certified) -> Timestamp {
    let lists = access.tls.as_ref().and_then(|tls| tls.revocations_expire_at);
    lists.map_or(certified.expires_at, |at| at.min(certified.expires_at))
}

/// A credential that was accepted.
struct Admitted {
    principal: Arc<Principal>,
    proof: Proof,
    expires_at: Option<Timestamp>,
}

/// The token of the head `authorization`.
fn token(text: &str) -> Result<Credential, AdmissionRefusal> {
    let (scheme, token) = text.split_once(' ').ok_or(AdmissionRefusal::Form)?;
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() || token.contains(' ') {
        return Err(AdmissionRefusal::Form);
    }
    if token.starts_with(tokens::PREFIX) {
        return tokens::hash(token).map(Credential::Token).ok_or(AdmissionRefusal::TokenDamaged);
    }
    Ok(Credential::Jwt(token.into()))
}

/// Admits the calls of one connection.
#[derive(Debug, Clone)]
pub(super) struct Admission {
    access: Present,
    clock: Arc<dyn Clock>,
    denials: Denials,
    peer: Option<SocketAddr>,
    certified: Option<Arc<Judged>>,
    /// Of a connection in a place that is kept for admins.
    spare: Option<Spare>,
}

/// A certificate, with the settings under which it was last judged.
#[derive(Debug)]
struct Judged {
    certified: Certified,
    under: Mutex<Arc<Access>>,
}

impl Admission {
    pub(super) fn new(access: Present, clock: Arc<dyn Clock>, denials: Denials) -> Self {
        Self { access, clock, denials, peer: None, certified: None, spare: None }
    }

    /// The same for one connection. The certificate was judged under `present`.
    pub(super) fn of_connection(
        &self,
        peer: SocketAddr,
        present: &Arc<Access>,
        certified: Option<Certified>,
    ) -> Self {
        let under = || Mutex::new(present.clone());
        let certified = certified.map(|certified| Arc::new(Judged { certified, under: under() }));
        Self { peer: Some(peer), certified, ..self.clone() }
    }

    /// The same, for a connection in a place that is kept for admins.
    pub(super) fn proving(&self, spare: Spare) -> Self {
        Self { spare: Some(spare), ..self.clone() }
    }

    /// Who calls; `None` where callers need not say so.
    ///
    /// # Errors
    /// The same answer for every reason: UNAUTHENTICATED.
    pub(super) fn admit(
        &self,
        path: &str,
        headers: &HeaderMap,
    ) -> Result<Option<Identity>, Status> {
        let access = self.access.borrow().clone();
        if !access.authenticates {
            return Ok(None);
        }
        let admitted = self.credential(headers).and_then(|credential| {
            let admitted = self.check(&access, &credential)?;
            Ok((credential, admitted))
        });
        match admitted {
            Ok((credential, admitted)) => {
                if let Some(spare) = self.spare.as_ref()
                    && admitted.principal.role >= Role::Admin
                {
                    spare.prove();
                }
                Ok(Some(self.identity(credential, admitted)))
            }
            Err(refusal) => {
                let kind = refusal.kind();
                // A path that is none of ours says nothing.
                let rpc = methods::by_path(path).map_or("", |method| method.name);
                let why = (rpc, &refusal as &dyn std::fmt::Display);
                self.denials.note("a call was refused", kind, kind, self.peer, why);
                Err(ApiError::Unauthenticated.into())
            }
        }
    }

    fn identity(&self, credential: Credential, admitted: Admitted) -> Identity {
        let Admitted { principal, proof, expires_at } = admitted;
        let (admission, admitted) = (self.clone(), principal.clone());
        let ended = move || -> crate::api::Ended {
            let (admission, credential) = (admission.clone(), credential.clone());
            let admitted = admitted.clone();
            Box::pin(async move { admission.until_ended(&credential, Some(&admitted)).await })
        };
        Identity {
            name: principal.name.clone(),
            role: principal.role,
            scope: principal.scope.clone(),
            proof,
            expires_at,
            ended: Arc::new(ended),
        }
    }

    fn credential(&self, headers: &HeaderMap) -> Result<Credential, AdmissionRefusal> {
        let mut given = headers.get_all(AUTHORIZATION).iter();
        if let Some(value) = given.next() {
            return match (value.to_str(), given.next()) {
                (Ok(text), None) => token(text),
                (Ok(_) | Err(_), _) => Err(AdmissionRefusal::Form),
            };
        }
        match &self.certified {
            Some(judged) => Ok(Credential::Certificate(judged.certified.clone())),
            None => Err(AdmissionRefusal::Missing),
        }
    }

    /// Whether a credential is accepted under these settings, now.
    fn check(
        &self,
        access: &Arc<Access>,
        credential: &Credential,
    ) -> Result<Admitted, AdmissionRefusal> {
        match credential {
            Credential::Certificate(certified) => self.check_certificate(access, certified),
            Credential::Token(hash) => {
                let known = access.tokens.find(hash).ok_or(AdmissionRefusal::TokenUnknown)?;
                let KnownToken { principal, expires_at, .. } = known.clone();
                if expires_at.is_some_and(|at| at <= self.clock.now()) {
                    return Err(AdmissionRefusal::TokenExpired(principal.name.clone()));
                }
                self.agreeing(access, Admitted { principal, proof: Proof::Token, expires_at })
            }
            Credential::Jwt(token) => {
                let verifier = access.jwt.as_ref().ok_or(AdmissionRefusal::UnknownKind)?;
                let verified = verifier.verify(token, self.clock.now());
                let Verified { subject, expires_at } = verified.map_err(AdmissionRefusal::Jwt)?;
                let principal = access.identities.of_subject(&subject);
                let principal = principal.ok_or(AdmissionRefusal::SubjectUnknown(subject))?;
                let expires_at = Some(expires_at);
                self.agreeing(access, Admitted { principal, proof: Proof::Jwt, expires_at })
            }
        }
    }

    /// A token that does not contradict the certificate of the connection: a caller is one principal.
    fn agreeing(
        &self,
        access: &Arc<Access>,
        admitted: Admitted,
    ) -> Result<Admitted, AdmissionRefusal> {
        if let Some(judged) = &self.certified {
            let certificate = self.check_certificate(access, &judged.certified)?.principal;
            if certificate.name != admitted.principal.name {
                return Err(AdmissionRefusal::TwoPrincipals {
                    token: admitted.principal.name.clone(),
                    certificate: certificate.name.clone(),
                });
            }
        }
        Ok(admitted)
    }

    fn check_certificate(
        &self,
        access: &Arc<Access>,
        certified: &Certified,
    ) -> Result<Admitted, AdmissionRefusal> {
        let now = self.clock.now();
        let is_judged = self.certified.as_ref().is_some_and(|judged| {
            let under = judged.under.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::ptr_eq(&under, access)
        });
        let principal = if is_judged && now < sure_until(access, certified) {
            certified.principal.clone()
        } else {
            let principal = judge_again(access.tls.as_ref(), certified, now)
                .map_err(AdmissionRefusal::Certificate)?;
            if let Some(judged) = self.certified.as_ref()
                && principal == judged.certified.principal
            {
                *judged.under.lock().unwrap_or_else(PoisonError::into_inner) = access.clone();
            }
            principal
        };
        let expires_at = Some(certified.expires_at);
        Ok(Admitted { principal, proof: Proof::Certificate, expires_at })
    }

    /// Resolves when a credential that was accepted is so no longer: it has expired, or a reload has revoked it, or its
    /// principal is no longer `as_it_was`, with the same role and scope.
    async fn until_ended(&self, credential: &Credential, as_it_was: Option<&Principal>) {
        let mut access = self.access.clone();
        loop {
            let present = access.borrow_and_update().clone();
            let Ok(admitted) = self.check(&present, credential) else { return };
            if as_it_was.is_some_and(|before| *admitted.principal != *before) {
                return;
            }
            let now = self.clock.now();
            let until = match credential {
                Credential::Certificate(certified) => Some(sure_until(&present, certified)),
                Credential::Token(_) | Credential::Jwt(_) => admitted.expires_at,
            };
            let left = until.map_or(LOOK_AGAIN, |at| at.since(now));
            tokio::select! {
                changed = access.changed() => if changed.is_err() {
                    return;
                },
                () = self.clock.sleep(left.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Resolves when the certificate of the connection is no longer accepted; never if it has none.
    pub(super) async fn until_certificate_ended(&self) {
        match &self.certified {
            Some(judged) => {
                self.until_ended(&Credential::Certificate(judged.certified.clone()), None).await;
            }
            None => std::future::pending().await,
        }
    }
}
