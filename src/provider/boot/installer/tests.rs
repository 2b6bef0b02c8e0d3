//! Installations of machines that behave like real ones, in virtual time.

mod said;

use std::sync::atomic::{AtomicU32, Ordering};

use super::*;
use crate::clock::{Timestamp, TokioClock};
use crate::ids::RunId;
use crate::model::{InstallReport, LogStream, MachineFacts, MachineSpec, Power};
use crate::plan::Capability;
use crate::provider::boot::{Image, InMemory, Reports, TokenKey};
use crate::provider::{Fut, LogSink, ProviderErrorKind};

mod refused;

const MAC: &str = "52:54:00:d0:00:01";
const SHA256: &str = "00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff";

/// What a machine does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// It boots something else.
    NeverBoots,
    /// The installer finds another checksum.
    BadChecksum,
    /// It loses its power while it writes, once.
    PowerLost,
    /// The installed system does not start.
    NeverUp,
    /// It is not the machine that is registered.
    OtherMachine,
}

/// A machine with a disk, whose power and boot source are controlled.
#[derive(Debug)]
struct Hardware {
    fault: Fault,
    clock: Arc<dyn Clock>,
    desk: Mutex<Arc<Desk>>,
    state: Mutex<State>,
    /// How often the disk was written to the end.
    written: AtomicU32,
    boots: AtomicU32,
}

#[derive(Debug, Default)]
struct State {
    on: Option<CancellationToken>,
    boots_disk: bool,
    token: String,
    settings: String,
    faults: u32,
}

impl Hardware {
    fn is_on(&self) -> bool {
        self.state.lock().unwrap().on.is_some()
    }

    async fn wait(&self, seconds: u64) {
        self.clock.sleep(Duration::from_secs(seconds)).await;
    }

    fn desk(&self) -> Arc<Desk> {
        self.desk.lock().unwrap().clone()
    }

    /// Says it until it is heard, as installers do.
    async fn report(&self, stage: InstallStage, message: &str) {
        let token = self.state.lock().unwrap().token.clone();
        let report = InstallReport {
            image_sha256: SHA256.to_owned(),
            boot_id: format!("boot-{}", self.boots.load(Ordering::SeqCst)),
            message: message.to_owned(),
        };
        self.desk().report(&node(), &token, stage, report).await.unwrap();
    }

    async fn boot(self: Arc<Self>) {
        self.boots.fetch_add(1, Ordering::SeqCst);
        self.wait(5).await;
        if self.state.lock().unwrap().boots_disk {
            if self.fault != Fault::NeverUp && self.written.load(Ordering::SeqCst) > 0 {
                self.report(InstallStage::Up, "").await;
            }
            return;
        }
        if self.fault == Fault::NeverBoots {
            return;
        }
        // The offer may be on its way again, after the server was started again.
        let settings = loop {
            match self.desk().take_settings(MAC).await {
                Ok(text) => break text,
                Err(crate::provider::boot::DeskError::NotOffered) => self.wait(1).await,
                Err(_) => return,
            }
        };
        let token = settings.lines().find_map(|line| line.strip_prefix("token=")).unwrap();
        {
            let mut state = self.state.lock().unwrap();
            (state.token, state.settings) = (token.to_owned(), settings.clone());
        }
        self.wait(1).await;
        self.report(InstallStage::Installing, "").await;
        self.wait(5).await;
        if self.fault == Fault::BadChecksum {
            self.report(InstallStage::Failed, "image checksum 12ab").await;
            self.state.lock().unwrap().on = None;
            return;
        }
        if self.fault == Fault::PowerLost && self.state.lock().unwrap().faults == 0 {
            let mut state = self.state.lock().unwrap();
            (state.faults, state.on) = (1, None);
            return;
        }
        self.wait(5).await;
        self.written.fetch_add(1, Ordering::SeqCst);
        self.report(InstallStage::Written, "disk S1 in 10 s").await;
        self.wait(1).await;
        self.state.lock().unwrap().on = None;
    }
}

#[derive(Debug)]
struct Switch(Arc<Hardware>);

impl Control for Switch {
    fn power<'a>(&'a self, _: &'a Target) -> Fut<'a, Power> {
        Box::pin(async { Ok(if self.0.is_on() { Power::On } else { Power::Off }) })
    }

    fn facts<'a>(&'a self, _: &'a Target) -> Fut<'a, MachineFacts> {
        let mac = if self.0.fault == Fault::OtherMachine { "52:54:00:d0:00:ff" } else { MAC };
        let mac_addresses = vec![mac.to_owned()];
        Box::pin(async { Ok(MachineFacts { mac_addresses, ..MachineFacts::default() }) })
    }

    fn switch_on<'a>(&'a self, _: &'a Target, _: &'a Grant) -> Fut<'a, ()> {
        Box::pin(async {
            self.0.wait(1).await;
            let mut state = self.0.state.lock().unwrap();
            if state.on.is_none() {
                let off = CancellationToken::new();
                state.on = Some(off.clone());
                let hardware = self.0.clone();
                tokio::spawn(async move {
                    tokio::select! {
                        () = off.cancelled() => {}
                        () = hardware.boot() => {}
                    }
                });
            }
            Ok(())
        })
    }

    fn switch_off<'a>(&'a self, _: &'a Target, _: &'a Grant) -> Fut<'a, ()> {
        Box::pin(async {
            self.0.wait(1).await;
            if let Some(off) = self.0.state.lock().unwrap().on.take() {
                off.cancel();
            }
            Ok(())
        })
    }

    fn boot_installer<'a>(&'a self, _: &'a Target, _: &'a Grant) -> Fut<'a, ()> {
        Box::pin(async {
            assert!(!self.0.is_on(), "media are changed while the machine is off");
            self.0.state.lock().unwrap().boots_disk = false;
            Ok(())
        })
    }

    fn boot_disk<'a>(&'a self, _: &'a Target, _: &'a Grant) -> Fut<'a, ()> {
        Box::pin(async {
            assert!(!self.0.is_on(), "media are changed while the machine is off");
            self.0.state.lock().unwrap().boots_disk = true;
            Ok(())
        })
    }
}

#[derive(Debug, Default)]
struct Lines(Mutex<Vec<String>>);

impl LogSink for Lines {
    fn line(&self, _: LogStream, text: &str) {
        self.0.lock().unwrap().push(text.to_owned());
    }
}

/// A server with its installer, over reports that outlive it.
struct Lab {
    clock: Arc<dyn Clock>,
    store: Arc<dyn Reports>,
    hardware: Arc<Hardware>,
    installer: Installer,
    lines: Arc<Lines>,
}

fn node() -> MachineId {
    MachineId::parse("node-1").unwrap()
}

fn target() -> Target {
    let spec = MachineSpec { mac_addresses: vec![MAC.to_owned()], ..MachineSpec::default() };
    Target { machine_id: node(), spec }
}

fn call(attempt: u32, epoch: u64, action: &str) -> Call {
    let run = RunId::new(Timestamp(1), [1, 2]);
    let text = |text: &str| Value::Str(text.to_owned().into());
    let args = [("image", "ubuntu"), ("method", "secure")];
    Call {
        operation: OperationId::new(run, action, attempt),
        epoch: Epoch(epoch),
        action: action.to_owned(),
        capability: Capability::Imaging,
        args: args.into_iter().map(|(name, value)| (name.to_owned(), text(value))).collect(),
        inputs: BTreeMap::new(),
        handle: None,
    }
}

fn desk(store: &Arc<dyn Reports>, clock: &Arc<dyn Clock>) -> Arc<Desk> {
    let image = Image {
        url: "http://10.0.0.1/disk".to_owned(),
        sha256: SHA256.to_owned(),
        architecture: "x86_64".to_owned(),
        kernel_arguments: String::new(),
    };
    let images = BTreeMap::from([("ubuntu".to_owned(), image)]);
    let url = "http://10.0.0.1:8069".to_owned();
    Arc::new(Desk::new(store.clone(), clock.clone(), TokenKey::new(&[7; 32]), images, url))
}

fn installer(desk: Arc<Desk>, hardware: &Arc<Hardware>) -> Installer {
    let seconds = Duration::from_secs;
    let (boot, write, up) = (seconds(60), seconds(300), seconds(60));
    let patience = Patience { boot, write, up, look: seconds(2) };
    let options = InstallerOptions { disk: "smallest".to_owned(), ssh_keys: Vec::new(), patience };
    let control = Arc::new(Switch(hardware.clone()));
    Installer::new(desk, control, options, hardware.clock.clone())
}

impl Lab {
    async fn new(fault: Fault) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(Timestamp(1_000_000)));
        let store: Arc<dyn Reports> = Arc::<InMemory>::default();
        let desk = desk(&store, &clock);
        let hardware = Arc::new(Hardware {
            fault,
            clock: clock.clone(),
            desk: Mutex::new(desk.clone()),
            state: Mutex::default(),
            written: AtomicU32::new(0),
            boots: AtomicU32::new(0),
        });
        let installer = installer(desk, &hardware);
        Self { clock, store, hardware, installer, lines: Arc::default() }
    }

    /// The server ends at once, and another one begins with what is stored.
    fn restart(&mut self) {
        let desk = desk(&self.store, &self.clock);
        *self.hardware.desk.lock().unwrap() = desk.clone();
        self.installer = installer(desk, &self.hardware);
    }

    async fn observe(&self, call: &Call) -> Result<Observation, ProviderError> {
        let logs: Logs = self.lines.clone();
        self.installer.observe(&target(), call, &logs).await
    }

    /// Polls an accepted operation as the engine does, until it has ended or the virtual time is up.
    async fn end(&self, call: &Call, within_s: u64) -> Option<Result<Observation, ProviderError>> {
        let deadline = self.clock.monotonic() + Duration::from_secs(within_s);
        while self.clock.monotonic() < deadline {
            match self.observe(call).await {
                Ok(Observation::InProgress { .. }) => {
                    self.clock.sleep(Duration::from_secs(2)).await
                }
                ended => return Some(ended),
            }
        }
        None
    }

    fn act(&self, call: &Call) -> Call {
        match self.installer.act(&target(), call).unwrap() {
            Acted::Accepted { handle, .. } => Call { handle: Some(handle), ..call.clone() },
            done @ Acted::Done { .. } => panic!("{done:?}"),
        }
    }

    fn written(&self) -> u32 {
        self.hardware.written.load(Ordering::SeqCst)
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_installed_and_boots_from_its_disk() {
    let lab = Lab::new(Fault::None).await;
    let call = call(1, 1, "repave");
    assert!(matches!(lab.observe(&call).await, Ok(Observation::NotDone { .. })));
    let call = lab.act(&call);
    let ended = lab.end(&call, 300).await.unwrap().unwrap();
    let Observation::Done { evidence, output } = ended else { panic!("{ended:?}") };
    assert_eq!(evidence, format!("the machine reports image SHA-256 {SHA256} and boot id boot-2"));
    assert_eq!(output["boot_id"].to_string(), "boot-2");
    assert!(lab.hardware.is_on() && lab.written() == 1);
    let holds = lab.installer.verify(&target(), &call).await.unwrap();
    assert!(matches!(holds, Verification::Holds { .. }), "{holds:?}");
    let lines = lab.lines.0.lock().unwrap().join("\n");
    insta::assert_snapshot!(lines, @r"
    settings offered: booting the installer
    the installer fetched its settings
    the machine reports: installing
    image written, SHA-256 00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff00ff: booting it
    the installer says: disk S1 in 10 s
    the installed system is up, boot id boot-2
    ");
    // The next run of the plan installs again, whatever is on the disk.
    let other = OperationId::new(RunId::new(Timestamp(2), [3, 4]), "repave", 1);
    let next = Call { operation: other, handle: None, ..call };
    assert!(matches!(lab.observe(&next).await, Ok(Observation::NotDone { .. })));
}

/// What is registered under the record of one machine is the address of another: nothing is done to either.
#[tokio::test(start_paused = true)]
async fn another_machine_is_neither_switched_nor_written() {
    for action in ["repave", "wipe"] {
        let lab = Lab::new(Fault::OtherMachine).await;
        lab.hardware.state.lock().unwrap().on = Some(CancellationToken::new());
        let call = lab.act(&call(1, 1, action));
        let error = lab.end(&call, 300).await.unwrap().unwrap_err();
        assert_eq!(error.kind, ProviderErrorKind::Class(ErrorClass::NeedsHuman));
        assert_eq!((error.expected.as_str(), error.observed.as_str()), (MAC, "52:54:00:d0:00:ff"));
        assert!(error.message.contains("nothing was done to it"), "{}", error.message);
        assert!(lab.hardware.is_on() && lab.written() == 0);
        assert_eq!(lab.hardware.boots.load(Ordering::SeqCst), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_is_erased_and_left_off() {
    let lab = Lab::new(Fault::None).await;
    lab.hardware.state.lock().unwrap().boots_disk = true;
    let call = lab.act(&call(1, 1, "wipe"));
    let ended = lab.end(&call, 300).await.unwrap().unwrap();
    let Observation::Done { evidence, .. } = ended else { panic!("{ended:?}") };
    assert_eq!(evidence, "the machine reports that its disks are erased: disk S1 in 10 s");
    assert!(!lab.hardware.is_on() && lab.hardware.state.lock().unwrap().boots_disk);
    let holds = lab.installer.verify(&target(), &call).await.unwrap();
    assert!(matches!(holds, Verification::Holds { .. }), "{holds:?}");
}

/// Whenever the server dies, and whether or not it had heard that the operation was accepted: the disk is written once.
#[tokio::test(start_paused = true)]
async fn a_machine_is_installed_once_whenever_the_server_dies() {
    for heard in [true, false] {
        for second in 0..28 {
            let mut lab = Lab::new(Fault::None).await;
            let mut call = call(1, 1, "repave");
            let accepted = lab.act(&call);
            assert!(lab.end(&accepted, second).await.is_none(), "after {second} s");
            lab.restart();
            if heard {
                call = accepted;
            }
            call.epoch = Epoch(2);
            let ended = match lab.end(&call, 400).await.unwrap().unwrap() {
                // As after any unknown outcome that was none: another attempt.
                Observation::NotDone { .. } if !heard => {
                    call.operation = self::call(2, 2, "repave").operation;
                    let observed = lab.observe(&call).await;
                    assert!(matches!(observed, Ok(Observation::NotDone { .. })), "{observed:?}");
                    let call = lab.act(&call);
                    lab.end(&call, 400).await.unwrap().unwrap()
                }
                ended => ended,
            };
            assert!(matches!(ended, Observation::Done { .. }), "after {second} s: {ended:?}");
            assert_eq!(lab.written(), 1, "after {second} s, heard: {heard}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_installer_says_is_the_error() {
    let lab = Lab::new(Fault::BadChecksum).await;
    let call = lab.act(&call(1, 1, "repave"));
    let error = lab.end(&call, 300).await.unwrap().unwrap_err();
    assert_eq!(error.message, "the installer gave up: image checksum 12ab");
    assert_eq!(error.kind, ProviderErrorKind::Class(ErrorClass::Permanent));
    assert_eq!(lab.written(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_got_stuck_is_followed_by_another() {
    for (fault, says) in [
        (Fault::NeverBoots, "the installer did not fetch its settings within 60 s"),
        (Fault::PowerLost, "the machine went off before the disk was written"),
        (Fault::NeverUp, "the installed system did not report within 60 s"),
    ] {
        let lab = Lab::new(fault).await;
        let first = lab.act(&call(1, 1, "repave"));
        let ended = lab.end(&first, 900).await.unwrap().unwrap();
        assert_eq!(ended, Observation::NotDone { observed: says.to_owned() });
        let second = call(2, 1, "repave");
        match fault {
            // It is on the disk: the next attempt only boots it.
            Fault::NeverUp => {
                let ended = lab.end(&second, 900).await.unwrap().unwrap();
                assert_eq!(ended, Observation::NotDone { observed: says.to_owned() });
                assert_eq!(lab.written(), 1);
            }
            Fault::PowerLost => {
                assert!(matches!(lab.observe(&second).await, Ok(Observation::NotDone { .. })));
                let second = lab.act(&second);
                let ended = lab.end(&second, 900).await.unwrap().unwrap();
                assert!(matches!(ended, Observation::Done { .. }), "{ended:?}");
                assert_eq!(lab.written(), 1);
            }
            Fault::NeverBoots | Fault::None | Fault::BadChecksum | Fault::OtherMachine => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_canceled_installation_that_has_not_begun_never_does() {
    let lab = Lab::new(Fault::NeverBoots).await;
    let call = lab.act(&call(1, 1, "repave"));
    assert!(lab.end(&call, 10).await.is_none());
    lab.installer.stop(&target(), &call).await.unwrap();
    assert!(!lab.hardware.is_on());
    assert!(lab.hardware.desk().take_settings(MAC).await.is_err());
}
