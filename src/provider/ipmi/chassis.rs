//! A machine at its controller: what is asked for, and what is then seen. An answer is never taken for the effect.

use std::sync::Arc;
use std::time::Duration;

use super::bmc::{Bmc, Claim, Failure};
use crate::lifecycle::step::ErrorClass;
use crate::model::{LogStream, Power};
use crate::provider::restart::SeenOff;
use crate::provider::{ErrorCode, Logs, ProviderError, ProviderErrorKind};

/// A machine at its controller.
#[derive(Debug, Clone)]
pub(super) struct Chassis {
    pub(super) bmc: Arc<Bmc>,
    /// Reference of the credentials.
    pub(super) reference: String,
}

/// What is to be booted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Boot {
    /// From the network.
    Network,
    /// From the disk.
    Disk,
    /// As the firmware is configured.
    Own,
}

impl Boot {
    /// The word that sets it, and the one that is read back.
    const fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::Network => ("pxe", "Force PXE"),
            Self::Disk => ("disk", "Force Boot from default Hard-Drive"),
            Self::Own => ("none", "No override"),
        }
    }

    /// What is said of one that is not read back.
    fn believed(self) -> String {
        format!("boot device {}, as the controller took it; it is not read back", self.words().0)
    }
}

/// What a wait for a power state ended with.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Waited {
    /// It came and stayed.
    Held,
    /// It did not.
    Missed {
        /// What was seen last.
        seen: String,
    },
}

/// A request that may have had an effect, and what spoke against it.
type Sent = Option<ProviderError>;

/// Whether an error ends a wait: another look would give it again.
fn is_final(error: &ProviderError) -> bool {
    error.kind != ProviderErrorKind::Class(ErrorClass::Transient)
}

pub(super) fn say(logs: &Logs, text: &str) {
    logs.line(LogStream::Stdout, text);
}

const fn word(power: Power) -> &'static str {
    match power {
        Power::On => "power on",
        Power::Off => "power off",
        Power::Unknown => "a power state",
    }
}

impl Chassis {
    /// Waits until the power state is `wanted` and has stayed so for `settle`. Looks that fail are repeated.
    ///
    /// # Errors
    /// Those that no other look would change.
    pub(super) async fn until_power(
        &self,
        wanted: Power,
        within: Duration,
        settle: Duration,
        logs: &Logs,
    ) -> Result<Waited, ProviderError> {
        let clock = &self.bmc.ports.clock;
        let until = clock.monotonic() + within;
        let mut since: Option<Duration> = None;
        loop {
            let seen = match self.bmc.status(&self.reference).await {
                Ok(status) => {
                    if status.power == wanted {
                        let began = *since.get_or_insert_with(|| clock.monotonic());
                        if clock.monotonic().saturating_sub(began) >= settle {
                            return Ok(Waited::Held);
                        }
                    } else if since.take().is_some() {
                        let text = status.text();
                        say(logs, &format!("it was {} and is not any more: {text}", word(wanted)));
                    }
                    status.text()
                }
                Err(failure) if is_final(&failure.error) => return Err(failure.error),
                Err(failure) => format!("no answer ({})", failure.error),
            };
            let now = clock.monotonic();
            // A state that came in time may settle later; one that comes and goes ends, too.
            if now >= until && (since.is_none() || now >= until + settle * 2) {
                return Ok(Waited::Missed { seen });
            }
            clock.sleep(self.bmc.settings.poll).await;
        }
    }

    /// Asks for something. An answer that is lost may come after the effect: the state decides.
    async fn send(
        &self,
        claim: &Claim,
        words: &[&str],
        logs: &Logs,
    ) -> Result<Sent, ProviderError> {
        say(logs, &words.join(" "));
        match self.bmc.ask(&self.reference, Some(claim), words).await {
            Ok(_) => Ok(None),
            Err(Failure { error, may_be_done: true }) => {
                say(logs, &format!("{error}; the state decides"));
                Ok(Some(error))
            }
            Err(Failure { error, .. }) => Err(error),
        }
    }

    fn missed(sent: Sent, wanted: &str, seen: &str) -> ProviderError {
        let why = match sent {
            Some(error) => format!("({error})"),
            None => "although the controller accepted the request".to_owned(),
        };
        let message = format!("the machine did not come to {wanted} {why}");
        ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, message)
            .seen(wanted, seen.to_owned())
    }

    /// Switches the power, and waits until it is so and has stayed so for `settle`.
    pub(super) async fn switch(
        &self,
        claim: &Claim,
        wanted: Power,
        settle: Duration,
        logs: &Logs,
    ) -> Result<(), ProviderError> {
        let verb = if wanted == Power::On { "on" } else { "off" };
        let sent = self.send(claim, &["chassis", "power", verb], logs).await?;
        let within = self.bmc.settings.power;
        match self.until_power(wanted, within, settle, logs).await? {
            Waited::Held => Ok(()),
            Waited::Missed { seen } => Err(Self::missed(sent, word(wanted), &seen)),
        }
    }

    /// Brings the machine to a power state that stays, if it is not in it.
    pub(super) async fn bring(
        &self,
        claim: &Claim,
        wanted: Power,
        logs: &Logs,
    ) -> Result<(), ProviderError> {
        let settle = self.bmc.settings.settle;
        let status = self.bmc.status(&self.reference).await.map_err(|failure| failure.error)?;
        let is_so = status.power == wanted
            && self.until_power(wanted, Duration::ZERO, settle, logs).await? == Waited::Held;
        if is_so {
            return claim.check();
        }
        self.switch(claim, wanted, settle, logs).await
    }

    /// Off, seen to be off, on again, seen to be on.
    pub(super) async fn restart(
        &self,
        claim: &Claim,
        is_graceful: bool,
        logs: &Logs,
        seen_off: &SeenOff,
    ) -> Result<String, ProviderError> {
        let settings = self.bmc.settings.clone();
        let status = self.bmc.status(&self.reference).await.map_err(|failure| failure.error)?;
        if status.power == Power::Off {
            say(logs, "the machine is off already");
        } else if !(is_graceful && self.shut_down(claim, logs).await?) {
            self.switch(claim, Power::Off, Duration::ZERO, logs).await?;
        }
        say(logs, "the machine is off");
        // It may come on by itself, from a restart that someone asked for before: then it has been restarted.
        let stays = self.until_power(Power::Off, Duration::ZERO, settings.settle, logs).await?;
        seen_off.now();
        let status = self.bmc.status(&self.reference).await.map_err(|failure| failure.error)?;
        if stays != Waited::Held && status.power == Power::On {
            say(logs, "the machine came on by itself");
        } else {
            self.switch(claim, Power::On, Duration::ZERO, logs).await?;
        }
        say(logs, "the machine is on");
        Ok("power on, after it was seen off".to_owned())
    }

    /// Asks the operating system to shut down. `false` if it did not in time, or cannot be asked.
    async fn shut_down(&self, claim: &Claim, logs: &Logs) -> Result<bool, ProviderError> {
        match self.send(claim, &["chassis", "power", "soft"], logs).await {
            Ok(_) => {}
            Err(error) if error.code == ErrorCode::Unsupported => {
                say(logs, &format!("no graceful shutdown: {error}"));
                return Ok(false);
            }
            Err(error) => return Err(error),
        }
        let graceful = self.bmc.settings.graceful;
        let waited = self.until_power(Power::Off, graceful, Duration::ZERO, logs).await?;
        if let Waited::Missed { seen } = waited {
            let seconds = graceful.as_secs();
            say(logs, &format!("no shutdown within {seconds} s ({seen}): the power is cut"));
            return Ok(false);
        }
        Ok(true)
    }

    /// Whether the next boot is this one, with what was seen.
    async fn boots(&self, boot: Boot) -> Result<(bool, String), ProviderError> {
        let selector = self.bmc.selector(&self.reference).await.map_err(|failure| failure.error)?;
        let note = if selector.is_valid { "" } else { ", which it says does not hold" };
        let is_set = selector.word == boot.words().1;
        Ok((is_set, format!("boot device {}{note}", selector.word)))
    }

    /// Whether the next boot is this one already, with what was seen. What is not read back is not known, and set again.
    pub(super) async fn boots_already(&self, boot: Boot) -> Result<(bool, String), ProviderError> {
        if self.bmc.settings.reads_boot_device {
            return self.boots(boot).await;
        }
        Ok((false, "the boot device is not read back".to_owned()))
    }

    /// Whether the next boot is the one that was set just now, with what was seen.
    pub(super) async fn boots_still(&self, boot: Boot) -> Result<(bool, String), ProviderError> {
        if self.bmc.settings.reads_boot_device {
            return self.boots(boot).await;
        }
        Ok((true, boot.believed()))
    }

    /// Sets what is booted next, for good: an override for one boot ends a minute after it was set.
    pub(super) async fn set_boot(
        &self,
        claim: &Claim,
        boot: Boot,
        logs: &Logs,
    ) -> Result<String, ProviderError> {
        let (device, wanted) = boot.words();
        let options = match (boot, self.bmc.settings.is_efi) {
            (Boot::Own, _) => None,
            (Boot::Network | Boot::Disk, true) => Some("options=persistent,efiboot"),
            (Boot::Network | Boot::Disk, false) => Some("options=persistent"),
        };
        let mut words = vec!["chassis", "bootdev", device];
        words.extend(options);
        let sent = self.send(claim, &words, logs).await?;
        if !self.bmc.settings.reads_boot_device {
            // Nothing but the answer decides. To set it twice does no harm.
            return sent.map_or_else(|| Ok(boot.believed()), Err);
        }
        let clock = &self.bmc.ports.clock;
        let until = clock.monotonic() + self.bmc.settings.power;
        loop {
            let seen = match self.boots(boot).await {
                Ok((true, seen)) => return Ok(seen),
                Ok((false, seen)) => seen,
                Err(error) if is_final(&error) => return Err(error),
                Err(error) => format!("no answer ({error})"),
            };
            if clock.monotonic() >= until {
                return Err(Self::missed(sent, &format!("boot device {wanted}"), &seen));
            }
            clock.sleep(self.bmc.settings.poll).await;
        }
    }
}
