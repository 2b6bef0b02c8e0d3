//! What the machine boots next: the override of its controller, and the medium attached to it.

use std::time::Duration;

use http::Method;
use serde_json::{Value as Json, json};

use super::failure::Failure;
use super::json;
use super::power::say;
use super::system::{Remote, System};
use super::ticket::{Asking, Ticket};
use crate::lifecycle::step::ErrorClass;
use crate::provider::{ErrorCode, Logs, ProviderError};

/// Most devices for media that are looked at.
const DEVICES_MAX: usize = 8;

/// What is to be booted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Boot {
    /// From the network, or over HTTP: the controller's word for it.
    Network(&'static str),
    /// The class's installation medium.
    Medium(String),
    /// The disk.
    Disk,
    /// As the firmware is configured.
    Own,
}

/// A device that media are attached to.
#[derive(Debug)]
struct Device {
    path: String,
    json: Json,
}

impl Device {
    fn is_inserted(&self) -> bool {
        let inserted = json::at(&self.json, &["Inserted"]).and_then(Json::as_bool);
        inserted.unwrap_or_else(|| !json::text(&self.json, &["Image"]).is_empty())
    }

    fn has(&self, image: &str) -> bool {
        self.is_inserted() && json::text(&self.json, &["Image"]) == image
    }

    fn takes_discs(&self) -> bool {
        let types = json::texts(&self.json, &["MediaTypes"]);
        types.is_empty() || types.iter().any(|kind| ["CD", "DVD"].contains(kind))
    }

    fn action(&self, name: &str) -> String {
        let action = format!("#VirtualMedia.{name}");
        let named = json::link(&self.json, &["Actions", &action, "target"]);
        named.map_or_else(
            || format!("{}/Actions/VirtualMedia.{name}", self.path.trim_end_matches('/')),
            str::to_owned,
        )
    }
}

impl Boot {
    /// Whether the override of a system says so. That it is to hold once is not asked for: some set it for good and say
    /// so, some say so and do not.
    fn is_set(&self, system: &System) -> bool {
        let (enabled, target) = system.boot_override();
        let is_on = ["Once", "Continuous"].contains(&enabled);
        match self {
            Self::Network(word) => is_on && target == *word,
            Self::Medium(_) => is_on && target == "Cd",
            Self::Disk => is_on && target == "Hdd",
            // Where the override cannot be cleared, it is set to the disk.
            Self::Own => !is_on || ["None", "", "Hdd"].contains(&target),
        }
    }

    fn target(&self) -> &'static str {
        match self {
            Self::Network(word) => word,
            Self::Medium(_) => "Cd",
            Self::Disk | Self::Own => "Hdd",
        }
    }
}

impl Remote {
    /// Whether the next boot is this one, with what was seen.
    pub(super) async fn boots(
        &self,
        asking: Asking<'_>,
        boot: &Boot,
    ) -> Result<(bool, String), Failure> {
        let system = self.system(asking).await?;
        let (enabled, target) = system.boot_override();
        let mut seen = format!("boot override {} {}", json::plain(enabled), json::plain(target));
        if enabled.is_empty() {
            seen = "no boot override".to_owned();
        }
        let is_set = boot.is_set(&system);
        if self.bmc.settings.image.is_none() {
            return Ok((is_set, seen));
        }
        let device = self.device(asking, &system).await?;
        let (fits, medium) = match (boot, &device) {
            (Boot::Medium(image), Some(device)) if device.is_inserted() => {
                // Some report a path of their own for what they were given.
                let is_it = device.has(image);
                (true, if is_it { "the medium attached" } else { "a medium attached" })
            }
            (Boot::Medium(_), _) => (false, "no medium attached"),
            (Boot::Network(_) | Boot::Disk | Boot::Own, Some(device)) if device.is_inserted() => {
                (false, "a medium attached")
            }
            (Boot::Network(_) | Boot::Disk | Boot::Own, _) => (true, "no medium attached"),
        };
        Ok((is_set && fits, format!("{seen}, {medium}")))
    }

    /// Makes the next boot this one: the medium first, since an override to an absent device is refused.
    pub(super) async fn set_boot(
        &self,
        ticket: &Ticket,
        boot: &Boot,
        logs: &Logs,
    ) -> Result<String, ProviderError> {
        let asking = ticket.asking();
        let system = self.system(asking).await?;
        let mut attached_before = false;
        if self.bmc.settings.image.is_some() {
            match boot {
                Boot::Medium(image) => {
                    attached_before = !self.insert(ticket, &system, image, logs).await?;
                }
                Boot::Network(_) | Boot::Disk | Boot::Own => {
                    self.eject(ticket, &system, logs).await?;
                }
            }
        }
        if !boot.is_set(&system) {
            let mut refusal = self.set_override(ticket, &system, boot, logs).await?;
            if let (Some(_), Boot::Medium(image), true) = (&refusal, boot, attached_before) {
                // A controller that died while it attached the medium may have one that the machine lacks.
                say(logs, "the medium that the controller has may not be at the machine");
                self.eject(ticket, &system, logs).await?;
                self.insert(ticket, &system, image, logs).await?;
                refusal = self.set_override(ticket, &system, boot, logs).await?;
            }
            if let Some(refusal) = refusal {
                return Err(refusal);
            }
        }
        self.until_boots(asking, boot).await
    }

    /// Waits until the controller shows what it was asked for.
    pub(super) async fn until_boots(
        &self,
        asking: Asking<'_>,
        boot: &Boot,
    ) -> Result<String, ProviderError> {
        let until =
            self.bmc.clock.monotonic() + self.bmc.settings.settle.max(Duration::from_secs(1));
        loop {
            let (is_so, seen) = self.boots(asking, boot).await?;
            if is_so {
                return Ok(seen);
            }
            if self.bmc.clock.monotonic() >= until {
                let message = format!("the controller accepted the request, and still has {seen}");
                return Err(ProviderError::new(ErrorClass::Transient, ErrorCode::Failed, message)
                    .seen(format!("boot from {}", boot.target()), seen));
            }
            self.bmc.clock.sleep(self.bmc.settings.poll).await;
        }
    }

    /// Sets the override; the last refusal if the controller takes none of the ways to say it.
    async fn set_override(
        &self,
        ticket: &Ticket,
        system: &System,
        boot: &Boot,
        logs: &Logs,
    ) -> Result<Option<ProviderError>, ProviderError> {
        let known = system.boot_targets();
        let target = boot.target();
        if !known.is_empty() && !known.contains(&target) && *boot != Boot::Own {
            return Err(ProviderError::new(
                ErrorClass::NeedsHuman,
                ErrorCode::Unsupported,
                format!("the machine cannot boot from {target}"),
            )
            .seen(target, known.join(", ")));
        }
        let once = |target: &str, enabled: &str| {
            let boot = json!({
                "BootSourceOverrideTarget": target,
                "BootSourceOverrideEnabled": enabled,
            });
            json!({ "Boot": boot })
        };
        let clear = json!({ "Boot": { "BootSourceOverrideEnabled": "Disabled" } });
        let mut ways = vec![once(target, "Once"), once(target, "Continuous")];
        if *boot == Boot::Own {
            ways.insert(0, clear);
        }
        let mut refusal = None;
        for way in ways {
            say(logs, &format!("PATCH {}: {way}", system.path));
            let sent = self.bmc.change(ticket, Method::PATCH, &system.path, &way).await;
            match sent {
                Ok(changed) => {
                    self.task(ticket, changed.task).await?;
                    return Ok(None);
                }
                // It does not know this way; the state is as it was, and another way is tried.
                Err(failure) if failure.is(&[400, 405, 422, 500, 501]) => {
                    say(logs, &failure.error.to_string());
                    refusal = Some(failure.error);
                }
                Err(failure) => return Err(failure.error),
            }
        }
        Ok(refusal)
    }

    async fn task(&self, ticket: &Ticket, task: Option<String>) -> Result<(), ProviderError> {
        match task {
            Some(task) => Ok(self.bmc.finished(ticket.asking(), &task).await?),
            None => Ok(()),
        }
    }

    /// The device for discs: of the system, or of one of its managers.
    async fn device(&self, asking: Asking<'_>, system: &System) -> Result<Option<Device>, Failure> {
        let own = |path: &str| format!("{}/VirtualMedia", path.trim_end_matches('/'));
        let mut collections = vec![
            json::link(&system.json, &["VirtualMedia"])
                .map_or_else(|| own(&system.path), str::to_owned),
        ];
        for manager in Self::managers(system) {
            let linked = self
                .bmc
                .get(asking, &manager)
                .await
                .ok()
                .and_then(|manager| json::link(&manager, &["VirtualMedia"]).map(str::to_owned));
            collections.push(linked.unwrap_or_else(|| own(&manager)));
        }
        for collection in collections {
            let list = match self.bmc.get(asking, &collection).await {
                Ok(list) => list,
                Err(failure) if failure.is(&[404, 405, 501]) => continue,
                Err(failure) => return Err(failure),
            };
            for path in json::links(&list, &["Members"]).into_iter().take(DEVICES_MAX) {
                let device =
                    Device { path: path.to_owned(), json: self.bmc.get(asking, path).await? };
                if device.takes_discs() {
                    return Ok(Some(device));
                }
            }
        }
        Ok(None)
    }

    /// Attaches the medium; whether it was not attached before.
    async fn insert(
        &self,
        ticket: &Ticket,
        system: &System,
        image: &str,
        logs: &Logs,
    ) -> Result<bool, ProviderError> {
        let Some(device) = self.device(ticket.asking(), system).await? else {
            return Err(ProviderError::new(
                ErrorClass::NeedsHuman,
                ErrorCode::Unsupported,
                "the controller has no device for discs: neither the system nor its managers have one",
            ));
        };
        if device.has(image) {
            return Ok(false);
        }
        if device.is_inserted() {
            self.eject_from(ticket, &device, logs).await?;
        }
        say(logs, &format!("attach {image} to {}", device.path));
        let body = json!({ "Image": image, "Inserted": true, "WriteProtected": true });
        let path = device.action("InsertMedia");
        match self.bmc.change(ticket, Method::POST, &path, &body).await {
            Ok(changed) => self.task(ticket, changed.task).await.map(|()| true),
            // The answer is lost, and the state decides.
            Err(failure) if failure.may_be_done && !failure.is(&[500]) => Ok(true),
            Err(failure) => Err(failure.error),
        }
    }

    async fn eject(
        &self,
        ticket: &Ticket,
        system: &System,
        logs: &Logs,
    ) -> Result<(), ProviderError> {
        match self.device(ticket.asking(), system).await? {
            Some(device) if device.is_inserted() => self.eject_from(ticket, &device, logs).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn eject_from(
        &self,
        ticket: &Ticket,
        device: &Device,
        logs: &Logs,
    ) -> Result<(), ProviderError> {
        say(logs, &format!("detach the medium from {}", device.path));
        let path = device.action("EjectMedia");
        match self.bmc.change(ticket, Method::POST, &path, &json!({})).await {
            Ok(changed) => self.task(ticket, changed.task).await,
            Err(failure) if failure.may_be_done => Ok(()),
            Err(failure) => Err(failure.error),
        }
    }
}
