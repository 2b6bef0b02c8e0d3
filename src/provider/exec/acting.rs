//! A program that acts, and before it, if the secret that it needs is lost, the one that mints it again.

use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::answer;
use super::host::Host;
use super::input;
use super::judge::Account;
use super::leftover::{Folder, Handed};
use super::material::{Handle, Material, Vault};
use super::settings::MaterialBy;
use super::supervisor::{Launch, run};
use crate::credentials::{CredentialsError, Secret};
use crate::lifecycle::step::ErrorClass;
use crate::model::LogStream;
use crate::provider::boot::Handover;
use crate::provider::message::Purpose;
use crate::provider::{Acted, Call, ErrorCode, Logs, ProviderError, Target};

/// What is the same for every program of a class.
#[derive(Debug, Clone)]
pub(super) struct Ways {
    pub(super) class: String,
    pub(super) dir: PathBuf,
    pub(super) grace: Duration,
    pub(super) account: Option<Account>,
    /// Credentials that programs get as files, by name.
    pub(super) credentials: Vec<String>,
    pub(super) host: Host,
    pub(super) folder: Arc<Folder>,
    pub(super) vault: Vault,
}

/// A program that acts, and what for.
pub(super) struct Acting {
    pub(super) argv: Vec<String>,
    pub(super) limit: Duration,
    pub(super) call: Call,
    pub(super) material: MaterialBy,
}

/// The operation that a program is part of.
pub(super) struct Going {
    pub(super) target: Target,
    pub(super) logs: Logs,
    pub(super) stop: CancellationToken,
}

impl Ways {
    /// The environment of a program.
    pub(super) fn variables(
        &self,
        own: Vec<(&'static str, String)>,
        handed: Option<&Handed>,
    ) -> Vec<(&'static str, OsString)> {
        let own = own.into_iter().map(|(name, text)| (name, text.into()));
        let secrets = handed.map(|handed| ("BMDEMO_CREDENTIALS", handed.path().into()));
        self.host.variables.iter().cloned().chain(own).chain(secrets).collect()
    }

    /// The secrets of the class, as files. They are read for each program: a changed one needs no restart.
    ///
    /// # Errors
    /// For credentials that cannot be read, and files that cannot be written.
    pub(super) fn hand_over(&self) -> Result<Option<Handed>, ProviderError> {
        if self.credentials.is_empty() {
            return Ok(None);
        }
        let secrets = self
            .credentials
            .iter()
            .map(|name| Ok((name.clone(), self.host.credentials.secret(name)?)))
            .collect::<Result<Vec<_>, CredentialsError>>()
            .map_err(|error| {
                let (class, code) = (ErrorClass::Permanent, ErrorCode::Unauthorized);
                ProviderError::new(class, code, error.to_string())
            })?;
        let handed = self.folder.hand_over(&secrets, self.account);
        handed.map(Some).map_err(|error| not_started("a program", &error, ErrorClass::Transient))
    }

    /// Runs a program to its end, with the secret that it needs; what it mints itself is kept.
    ///
    /// # Errors
    /// What the program says, or that it cannot be run.
    pub(super) async fn act_with(
        &self,
        acting: Acting,
        needed: Option<Handle>,
        minting: Option<Acting>,
        going: Going,
    ) -> Result<Acted, ProviderError> {
        let (material, handover) = match &needed {
            Some(handle) => {
                let (material, until) = self.material(handle, minting, &going).await?;
                match acting.material {
                    MaterialBy::Input => (Some(material), None),
                    MaterialBy::Report => (None, Some(self.offer(&material, until, &going)?)),
                }
            }
            None => (None, None),
        };
        let acted = {
            let mut acting = std::pin::pin!(self.act(&acting, material, &going));
            tokio::select! {
                biased;
                acted = &mut acting => acted,
                // A program that is asked to end may take a while; nothing is handed over meanwhile.
                () = going.stop.cancelled() => {
                    handover.iter().for_each(Handover::end);
                    acting.await
                }
            }
        };
        if let Some(handover) = handover {
            let did = if handover.is_fetched() { "has" } else { "has not" };
            going
                .logs
                .line(LogStream::Engine, &format!("[the machine {did} fetched the material]"));
        }
        let (acted, minted) = acted?;
        match (acted, minted) {
            (Acted::Done { evidence, mut output }, Some(minted)) => {
                let machine = &going.target.machine_id;
                let life = self.vault.keep(machine, &acting.call, minted, &mut output);
                self.forget_after(life);
                Ok(Acted::Done { evidence, output })
            }
            (acted, _) => Ok(acted),
        }
    }

    /// Offers a secret to the machine, which gets it as the answer to a report.
    fn offer(
        &self,
        material: &Material,
        until: Duration,
        going: &Going,
    ) -> Result<Handover, ProviderError> {
        let desk = self.host.desk.as_ref().ok_or_else(|| {
            let message = "the server has no boot listener, at which the machine would fetch the material: give boot.listen";
            ProviderError::new(ErrorClass::NeedsHuman, ErrorCode::Unsupported, message)
        })?;
        let note = "[the machine may fetch the material, as the answer to a report]";
        going.logs.line(LogStream::Engine, note);
        let secret = Secret::new(material.reveal().to_owned());
        Ok(desk.hand_over(&going.target.machine_id, secret, until))
    }

    /// The secret, with the end of its time.
    async fn material(
        &self,
        handle: &Handle,
        minting: Option<Acting>,
        going: &Going,
    ) -> Result<(Material, Duration), ProviderError> {
        if let Some(kept) = self.vault.take(&going.target.machine_id, handle) {
            return Ok(kept);
        }
        let Some(minting) = minting else {
            let message = format!(
                "the material of {} is lost, and class {} has no program for it any more",
                handle.action, self.class
            );
            return Err(ProviderError::new(
                ErrorClass::NeedsHuman,
                ErrorCode::Unsupported,
                message,
            ));
        };
        let note = format!("[the material of {} is lost: it is minted again]", handle.action);
        going.logs.line(LogStream::Engine, &note);
        let (_, minted) = self.act(&minting, None, going).await.map_err(nothing_done)?;
        let until = self.host.clock.monotonic() + handle.life();
        minted.map(|minted| (minted, until)).ok_or_else(|| {
            let message = format!("act of {} has minted no material this time", handle.action);
            ProviderError::new(ErrorClass::NeedsHuman, ErrorCode::Failed, message)
        })
    }

    async fn act(
        &self,
        acting: &Acting,
        material: Option<Material>,
        going: &Going,
    ) -> Result<(Acted, Option<Material>), ProviderError> {
        let Acting { argv, limit, call, material: _ } = acting;
        let Going { target, logs, stop } = going;
        let program = argv.first().cloned().unwrap_or_default();
        let input =
            input::with_material(Purpose::Act, &self.class, target, call, material.as_ref());
        let handed = self.hand_over()?;
        let (slot, file, source) = self
            .folder
            .slot(&target.machine_id)
            .map_err(|error| not_started(&program, &error, ErrorClass::Transient))?;
        let launch = Launch {
            argv: argv.clone(),
            variables: self.variables(input.variables, handed.as_ref()),
            dir: self.dir.clone(),
            account: self.account,
            input: file,
            source: Some((source, input.json)),
            slot: Some(slot),
            handed,
            limit: *limit,
            grace: self.grace,
            logs: Some(logs.clone()),
            stop: stop.clone(),
        };
        let clock = self.host.clock.clone();
        let ended = run(launch, clock.clone())
            .await
            .map_err(|error| not_started(&program, &error, ErrorClass::NeedsHuman))?;
        let acted = answer::acted(&call.action, &ended, clock.now())?;
        Ok((acted, answer::material(&ended)))
    }

    /// What is not handed over does not stay in memory longer than it may.
    fn forget_after(&self, life: Duration) {
        let (vault, clock) = (self.vault.clone(), self.host.clock.clone());
        let stop = self.host.supervisors.stop();
        self.host.supervisors.spawn(async move {
            tokio::select! {
                () = clock.sleep(life) => vault.expire(),
                () = stop.cancelled() => {}
            }
        });
    }
}

/// That a program is not known to have minted says all there is to say about the one that needs it: it was not run.
fn nothing_done(error: ProviderError) -> ProviderError {
    match error.kind {
        crate::provider::ProviderErrorKind::Class(ErrorClass::OutcomeUnknown) => ProviderError {
            kind: crate::provider::ProviderErrorKind::Class(ErrorClass::Transient),
            ..error
        },
        crate::provider::ProviderErrorKind::Class(
            ErrorClass::Transient | ErrorClass::Permanent | ErrorClass::NeedsHuman,
        )
        | crate::provider::ProviderErrorKind::Fenced { .. } => error,
    }
}

pub(super) fn not_started(program: &str, error: &io::Error, class: ErrorClass) -> ProviderError {
    let message = format!("cannot run {program}: {error}");
    ProviderError::new(class, ErrorCode::Unavailable, message)
}
