//! Hands out settings, and keeps what machines report.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::handing::{Handing, Handover};
use super::image::Image;
use super::reports::{Reports, ReportsError};
use super::settings::Settings;
use super::token::TokenKey;
use crate::clock::{Clock, Timestamp};
use crate::credentials::Secret;
use crate::ids::{MachineId, OperationId};
use crate::model::{InstallReport, InstallStage, Installation};

/// Why a machine gets nothing.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// No machine with this address is being installed.
    #[error("no machine with this address is waiting to be installed")]
    NotOffered,
    /// The settings of the attempt have been handed out.
    #[error(
        "the settings of this attempt have been handed out already: a machine is installed once per attempt"
    )]
    Taken,
    /// The token is not that of the machine's installation.
    #[error("the token is not that of this machine's installation")]
    Token,
    /// It could not be stored, so it may be said again.
    #[error("nothing can be stored now; say it again")]
    Store(#[source] ReportsError),
}

#[derive(Debug)]
struct Offer {
    operation: OperationId,
    macs: Vec<String>,
    settings: Settings,
    /// A driver renews it while its step runs.
    until: Timestamp,
}

/// Where machines that are being installed fetch their settings and report.
pub struct Desk {
    reports: Arc<dyn Reports>,
    clock: Arc<dyn Clock>,
    key: TokenKey,
    images: BTreeMap<String, Image>,
    /// The boot listener's own address, as machines reach it.
    url: String,
    offers: Mutex<BTreeMap<MachineId, Offer>>,
    handing: Handing,
    /// Held from the reading of an installation to its writing.
    storing: tokio::sync::Mutex<()>,
}

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Desk").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Desk {
    /// A desk without offers. `url` is where machines reach it, without a slash at its end.
    #[must_use]
    pub fn new(
        reports: Arc<dyn Reports>,
        clock: Arc<dyn Clock>,
        key: TokenKey,
        images: BTreeMap<String, Image>,
        url: String,
    ) -> Self {
        let (offers, storing) = (Mutex::default(), tokio::sync::Mutex::default());
        let handing = Handing::default();
        Self { reports, clock, key, images, url, offers, handing, storing }
    }

    /// The boot listener's address, as machines reach it.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The image of this name.
    #[must_use]
    pub fn image(&self, name: &str) -> Option<&Image> {
        self.images.get(name)
    }

    /// The names of all images.
    pub fn image_names(&self) -> impl Iterator<Item = &str> {
        self.images.keys().map(String::as_str)
    }

    /// Offers the settings of an attempt to the machine that has one of these MAC addresses, written as in its spec,
    /// until the instant. An offer of the machine from before is replaced.
    pub fn offer(
        &self,
        operation: OperationId,
        macs: &[String],
        settings: Settings,
        until: Timestamp,
    ) {
        let (machine, macs) = (settings.machine_id.clone(), macs.to_vec());
        self.offers().insert(machine, Offer { operation, macs, settings, until });
    }

    /// Takes the offer of an attempt back.
    pub fn withdraw(&self, machine: &MachineId, operation: &OperationId) {
        let mut offers = self.offers();
        if offers.get(machine).is_some_and(|offer| offer.operation == *operation) {
            offers.remove(machine);
        }
    }

    /// What the machine has reported about this attempt; `None` before it fetched the settings.
    ///
    /// # Errors
    /// [`ReportsError`] if that cannot be read.
    pub async fn installation(
        &self,
        machine: &MachineId,
        operation: &OperationId,
    ) -> Result<Option<Installation>, ReportsError> {
        let latest = self.latest(machine).await?;
        Ok(latest.filter(|installation| installation.operation == *operation))
    }

    /// What the machine has reported about its latest installation, whichever attempt that was.
    ///
    /// # Errors
    /// [`ReportsError`] if it cannot be read.
    pub async fn latest(&self, machine: &MachineId) -> Result<Option<Installation>, ReportsError> {
        self.reports.load(machine).await
    }

    /// Hands the settings of its attempt to the machine with this MAC address, once: that it has them is stored first.
    /// Returns the text for the installer.
    ///
    /// # Errors
    /// [`DeskError`]; nothing was handed out then.
    pub async fn take_settings(&self, mac: &str) -> Result<String, DeskError> {
        // Installers write it in other ways too.
        let mac = mac.trim().to_ascii_lowercase().replace('-', ":");
        let now = self.clock.now();
        let (machine, operation, settings) = {
            let offers = self.offers();
            let offer =
                offers.iter().find(|(_, offer)| offer.until > now && offer.macs.contains(&mac));
            let (machine, offer) = offer.ok_or(DeskError::NotOffered)?;
            (machine.clone(), offer.operation.clone(), offer.settings.clone())
        };
        let _storing = self.storing.lock().await;
        let known = self.reports.load(&machine).await.map_err(DeskError::Store)?;
        if known.is_some_and(|known| known.operation == operation) {
            return Err(DeskError::Taken);
        }
        self.keep(&machine, Installation::begin(operation.clone(), now)).await?;
        tracing::info!(%machine, operation = operation.as_str(), "a machine fetched its settings");
        let token = self.key.token(&machine, &operation);
        Ok(settings.text(&token, &format!("{}/boot/v1/report/{machine}", self.url)))
    }

    /// Stores what a machine reports about the attempt that its token is of. To say the same again is right, and
    /// changes nothing.
    ///
    /// # Errors
    /// [`DeskError`]; nothing was stored then.
    pub async fn report(
        &self,
        machine: &MachineId,
        token: &str,
        stage: InstallStage,
        report: InstallReport,
    ) -> Result<(), DeskError> {
        let _storing = self.storing.lock().await;
        let known = self.accepted(machine, token).await?;
        match known.after(stage, report, self.clock.now()) {
            Some(next) => {
                let (stage, operation) = (next.stage.as_str(), next.operation.clone());
                self.keep(machine, next).await?;
                tracing::info!(%machine, operation = operation.as_str(), stage, "a machine reported");
                Ok(())
            }
            None => Ok(()),
        }
    }

    /// Gives the machine a secret as the answer to a report, once, until `until` of the monotonic clock, and no longer than
    /// what is returned is kept.
    #[must_use]
    pub fn hand_over(&self, machine: &MachineId, secret: Secret, until: Duration) -> Handover {
        self.handing.offer(machine, secret, until)
    }

    /// The secret that there is for a machine whose installed system is up; it is there once.
    ///
    /// # Errors
    /// [`DeskError`] if the token is not that of the machine's latest installation, or that cannot be read.
    pub async fn take_secret(
        &self,
        machine: &MachineId,
        token: &str,
    ) -> Result<Option<Secret>, DeskError> {
        let known = self.accepted(machine, token).await?;
        if known.stage != InstallStage::Up {
            return Ok(None);
        }
        let secret = self.handing.take(machine, self.clock.monotonic());
        if secret.is_some() {
            tracing::info!(%machine, "a machine fetched a secret");
        }
        Ok(secret)
    }

    /// The latest installation of a machine, if the token is its own. Unknown machines and wrong tokens are refused in the
    /// same words.
    async fn accepted(&self, machine: &MachineId, token: &str) -> Result<Installation, DeskError> {
        let known = self.reports.load(machine).await.map_err(DeskError::Store)?;
        let known = known.ok_or(DeskError::Token)?;
        match self.key.accepts(token, machine, &known.operation) {
            true => Ok(known),
            false => Err(DeskError::Token),
        }
    }

    async fn keep(&self, machine: &MachineId, of: Installation) -> Result<(), DeskError> {
        self.reports.save(machine, of).await.map_err(DeskError::Store)
    }

    fn offers(&self) -> std::sync::MutexGuard<'_, BTreeMap<MachineId, Offer>> {
        self.offers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::super::reports::InMemory;
    use super::super::settings::Task;
    use super::*;
    use crate::clock::TokioClock;
    use crate::ids::RunId;

    const NOW: Timestamp = Timestamp(1_000_000);
    const MAC: &str = "52:54:00:d0:00:01";

    fn operation(attempt: u32) -> OperationId {
        OperationId::new(RunId::new(Timestamp(1), [1, 2]), "repave", attempt)
    }

    fn node() -> MachineId {
        MachineId::parse("node-1").unwrap()
    }

    struct Room {
        desk: Desk,
        clock: Arc<TokioClock>,
        store: Arc<dyn Reports>,
    }

    async fn room() -> Room {
        let clock = Arc::new(TokioClock::new(NOW));
        let store: Arc<dyn Reports> = Arc::<InMemory>::default();
        let desk = desk_of(&store, &clock);
        Room { desk, clock, store }
    }

    fn desk_of(store: &Arc<dyn Reports>, clock: &Arc<TokioClock>) -> Desk {
        let url = "http://10.0.0.1:8069".to_owned();
        let key = TokenKey::new(&[7; 32]);
        Desk::new(store.clone(), clock.clone(), key, BTreeMap::new(), url)
    }

    fn settings() -> Settings {
        let image = Image {
            url: "http://10.0.0.1/disk".to_owned(),
            sha256: "00".repeat(32),
            architecture: "x86_64".to_owned(),
            kernel_arguments: String::new(),
        };
        let (hostname, disk) = ("node-1".to_owned(), "smallest".to_owned());
        Settings {
            machine_id: node(),
            task: Task::Install(image),
            hostname,
            disk,
            ssh_keys: Vec::new(),
            user_data: String::new(),
        }
    }

    fn value<'a>(text: &'a str, key: &str) -> &'a str {
        text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap()
    }

    fn words(message: &str) -> InstallReport {
        InstallReport { message: message.to_owned(), ..InstallReport::default() }
    }

    #[tokio::test(start_paused = true)]
    async fn settings_are_handed_out_once_per_attempt() {
        let Room { desk, clock, store } = room().await;
        assert!(matches!(desk.take_settings(MAC).await, Err(DeskError::NotOffered)));
        desk.offer(operation(1), &[MAC.to_owned()], settings(), NOW.plus_ms(1_000));
        let text = desk.take_settings("52-54-00-D0-00-01").await.unwrap();
        assert_eq!(value(&text, "report_url"), "http://10.0.0.1:8069/boot/v1/report/node-1");
        assert!(matches!(desk.take_settings(MAC).await, Err(DeskError::Taken)));
        // Nor by a server that was started again.
        let again = desk_of(&store, &clock);
        again.offer(operation(1), &[MAC.to_owned()], settings(), NOW.plus_ms(1_000));
        assert!(matches!(again.take_settings(MAC).await, Err(DeskError::Taken)));
        // Another attempt has settings of its own.
        again.offer(operation(2), &[MAC.to_owned()], settings(), NOW.plus_ms(1_000));
        let next = again.take_settings(MAC).await.unwrap();
        assert_ne!(value(&next, "token"), value(&text, "token"));
        assert!(matches!(
            again.report(&node(), value(&text, "token"), InstallStage::Written, words("")).await,
            Err(DeskError::Token)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn an_offer_ends() {
        let Room { desk, clock, .. } = room().await;
        desk.offer(operation(1), &[MAC.to_owned()], settings(), NOW.plus_ms(1_000));
        desk.withdraw(&node(), &operation(2));
        clock.jump(1_000);
        assert!(matches!(desk.take_settings(MAC).await, Err(DeskError::NotOffered)));
        desk.offer(operation(1), &[MAC.to_owned()], settings(), NOW.plus_ms(9_000));
        desk.withdraw(&node(), &operation(1));
        assert!(matches!(desk.take_settings(MAC).await, Err(DeskError::NotOffered)));
    }

    #[tokio::test(start_paused = true)]
    async fn reports_are_kept_for_the_attempt_that_they_are_of() {
        let Room { desk, clock, store } = room().await;
        assert!(matches!(
            desk.report(&node(), "bmi_00", InstallStage::Written, words("")).await,
            Err(DeskError::Token)
        ));
        desk.offer(operation(1), &[MAC.to_owned()], settings(), NOW.plus_ms(1_000));
        let text = desk.take_settings(MAC).await.unwrap();
        let token = value(&text, "token");
        // The server may be another one by now, without the offer.
        let desk = desk_of(&store, &clock);
        for stage in [InstallStage::Installing, InstallStage::Installing, InstallStage::Written] {
            desk.report(&node(), token, stage, words("so far")).await.unwrap();
        }
        desk.report(&node(), token, InstallStage::Failed, words("too late")).await.unwrap();
        let kept = desk.installation(&node(), &operation(1)).await.unwrap().unwrap();
        assert_eq!((kept.stage, kept.message.as_str()), (InstallStage::Written, "so far"));
        assert_eq!(desk.installation(&node(), &operation(2)).await.unwrap(), None);
        let stranger = MachineId::parse("node-2").unwrap();
        assert!(matches!(
            desk.report(&stranger, token, InstallStage::Up, words("")).await,
            Err(DeskError::Token)
        ));
    }
}
