use std::sync::Mutex;

use super::*;
use crate::clock::Timestamp;
use crate::ids::{MachineId, OperationId, RunId};
use crate::model::{LogStream, MachineFacts, MachineSpec};
use crate::plan::Values;
use crate::provider::{LogSink, ProviderErrorKind};

/// A driver that notes what it is asked.
#[derive(Debug)]
struct Noting {
    name: &'static str,
    offers: Vec<Capability>,
    refuses_fence: bool,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Noting {
    fn note(&self, what: impl std::fmt::Display) {
        self.asked.lock().unwrap().push(format!("{} {what}", self.name));
    }
}

impl Provider for Noting {
    fn name(&self) -> &str {
        self.name
    }

    fn capabilities(&self, _target: &Target) -> Capabilities {
        self.offers.iter().copied().collect()
    }

    fn fence<'a>(&'a self, _target: &'a Target, epoch: Epoch, uses: Capabilities) -> Fut<'a, ()> {
        self.note(format!("fence {} {uses:?}", epoch.0));
        let refused = ProviderError::fenced(Epoch(epoch.0 + 1), "taken over");
        Box::pin(async move { if self.refuses_fence { Err(refused) } else { Ok(()) } })
    }

    fn observe<'a>(
        &'a self,
        _target: &'a Target,
        call: &'a Call,
        _logs: Logs,
    ) -> Fut<'a, Observation> {
        self.note(format!("observe {}", call.action));
        Box::pin(async { Ok(Observation::NotDone { observed: String::new() }) })
    }

    fn act<'a>(&'a self, _target: &'a Target, call: &'a Call, _logs: Logs) -> Fut<'a, Acted> {
        self.note(format!("act {}", call.action));
        Box::pin(async { Ok(Acted::Done { evidence: String::new(), output: Values::new() }) })
    }

    fn verify<'a>(
        &'a self,
        _target: &'a Target,
        call: &'a Call,
        _logs: Logs,
    ) -> Fut<'a, Verification> {
        self.note(format!("verify {}", call.action));
        Box::pin(async { Ok(Verification::Holds { evidence: String::new() }) })
    }

    fn stop<'a>(&'a self, _target: &'a Target, call: &'a Call) -> Fut<'a, ()> {
        self.note(format!("stop {}", call.action));
        Box::pin(async { Ok(()) })
    }

    fn probe<'a>(&'a self, _target: &'a Target) -> Fut<'a, Health> {
        self.note("probe");
        let facts = MachineFacts::default();
        let health = Health { reachable: true, degraded: false, message: String::new(), facts };
        Box::pin(async { Ok(health) })
    }

    fn is_real(&self) -> bool {
        self.name == "steel"
    }
}

struct NoLogs;

impl LogSink for NoLogs {
    fn line(&self, _stream: LogStream, _text: &str) {}
}

fn call(action: &str, capability: Capability) -> Call {
    Call {
        operation: OperationId::new(RunId::new(Timestamp(1), [1, 0]), "step", 1),
        epoch: Epoch(7),
        action: action.to_owned(),
        capability,
        args: Values::new(),
        inputs: BTreeMap::new(),
        handle: None,
    }
}

type Asked = Arc<Mutex<Vec<String>>>;

/// `steel` switches power and looks, `script` drains; `steel` does not offer the disks that its class gives it.
fn class(script_refuses: bool) -> (Routed, Target, Asked) {
    let asked = Asked::default();
    let driver = |name, offers: &[Capability], refuses_fence| -> Arc<dyn Provider> {
        Arc::new(Noting { name, offers: offers.to_vec(), refuses_fence, asked: asked.clone() })
    };
    let steel = driver("steel", &[Capability::Power, Capability::Probe], false);
    let script = driver("script", Capability::ALL, script_refuses);
    let routes = BTreeMap::from([
        (Capability::Power, steel.clone()),
        (Capability::Probe, steel.clone()),
        (Capability::Wipe, steel),
        (Capability::Drain, script),
    ]);
    let machine_id = MachineId::parse("m-1").unwrap();
    let target = Target { machine_id, spec: MachineSpec::default() };
    (Routed::new("rack".to_owned(), routes), target, asked)
}

fn uses(capabilities: &[Capability]) -> Capabilities {
    capabilities.iter().copied().collect()
}

#[test]
fn a_class_can_do_what_its_drivers_offer_for_it() {
    let (class, target, _) = class(false);
    let can: Vec<_> = class.capabilities(&target).iter().collect();
    assert_eq!(can, [Capability::Power, Capability::Probe, Capability::Drain]);
    assert_eq!(class.driver(Capability::Power), "steel");
    assert_eq!(class.driver(Capability::Drain), "script");
    assert_eq!(class.driver(Capability::Imaging), "");
    assert!(class.is_real());
}

#[tokio::test]
async fn each_call_goes_to_the_driver_of_its_capability() {
    let (class, target, asked) = class(false);
    let (drain, reboot) = (call("drain", Capability::Drain), call("reboot", Capability::Power));
    class.observe(&target, &drain, Arc::new(NoLogs)).await.unwrap();
    class.act(&target, &reboot, Arc::new(NoLogs)).await.unwrap();
    class.verify(&target, &reboot, Arc::new(NoLogs)).await.unwrap();
    class.stop(&target, &drain).await.unwrap();
    class.probe(&target).await.unwrap();
    assert_eq!(
        *asked.lock().unwrap(),
        [
            "script observe drain",
            "steel act reboot",
            "steel verify reboot",
            "script stop drain",
            "steel probe"
        ]
    );
}

#[tokio::test]
async fn every_driver_that_is_used_is_fenced_and_no_other() {
    let (class, target, asked) = class(false);
    class.fence(&target, Epoch(3), uses(&[Capability::Power, Capability::Probe])).await.unwrap();
    assert_eq!(asked.lock().unwrap().split_off(0), ["steel fence 3 {Power, Probe}"]);
    let both = uses(&[Capability::Power, Capability::Drain, Capability::Engine]);
    class.fence(&target, Epoch(4), both).await.unwrap();
    assert_eq!(
        asked.lock().unwrap().split_off(0),
        ["script fence 4 {Drain}", "steel fence 4 {Power}"]
    );
}

#[tokio::test]
async fn a_driver_that_is_owned_by_another_fences_the_whole() {
    let (class, target, _) = class(true);
    let both = uses(&[Capability::Power, Capability::Drain]);
    let refused = class.fence(&target, Epoch(3), both).await.unwrap_err();
    assert_eq!(refused.kind, ProviderErrorKind::Fenced { current: Epoch(4) });
}

#[tokio::test]
async fn what_no_driver_does_is_refused_before_anything_is_asked() {
    let (class, target, asked) = class(false);
    let image = call("repave", Capability::Imaging);
    let refused = class.act(&target, &image, Arc::new(NoLogs)).await.unwrap_err();
    assert_eq!(refused.kind, ProviderErrorKind::Class(ErrorClass::NeedsHuman));
    assert_eq!(
        refused.message,
        "class rack has no driver for imaging: name one in [machine_classes.rack]"
    );
    let fence = class.fence(&target, Epoch(3), uses(&[Capability::Power, Capability::Imaging]));
    assert_eq!(fence.await.unwrap_err().code, ErrorCode::Unsupported);
    assert!(asked.lock().unwrap().is_empty());
}

/// Notes the calls.
#[derive(Debug, Default)]
struct Metered(Mutex<Vec<String>>);

impl Meter for Metered {
    fn called(&self, of: &crate::provider::Metered<'_>) {
        let text = format!("{} {} {:?} {}", of.driver, of.call, of.action, of.code);
        self.0.lock().unwrap().push(text);
    }
}

#[tokio::test]
async fn calls_are_measured_by_driver_whatever_becomes_of_them() {
    let (class, target, _) = class(true);
    let metered = Arc::new(Metered::default());
    let class = class.measured(metered.clone(), Arc::new(crate::clock::SystemClock::new()));
    let (drain, reboot) = (call("drain", Capability::Drain), call("reboot", Capability::Power));
    class.act(&target, &reboot, Arc::new(NoLogs)).await.unwrap();
    class.probe(&target).await.unwrap();
    class
        .fence(&target, Epoch(3), uses(&[Capability::Power, Capability::Drain]))
        .await
        .unwrap_err();
    class.stop(&target, &drain).await.unwrap();
    assert_eq!(
        *metered.0.lock().unwrap(),
        [
            "steel act \"reboot\" ok",
            "steel probe \"\" ok",
            "script fence \"\" fenced",
            "script stop \"drain\" ok"
        ]
    );
    let measure = Measure(Some((metered.clone(), Arc::new(crate::clock::SystemClock::new()))));
    let waker = std::task::Waker::noop();
    let never: Fut<'_, ()> = Box::pin(std::future::pending());
    let mut dropped = Box::pin(measure.of("steel", "act", "reboot", never));
    drop(dropped.as_mut().poll(&mut std::task::Context::from_waker(waker)));
    drop(dropped);
    assert_eq!(metered.0.lock().unwrap().last().unwrap(), "steel act \"reboot\" dropped");
}
