//! Counts and times the calls to the drivers of classes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::{Registry, Unit};

use super::seconds::{Seconds, seconds};
use crate::provider::{Meter, Metered};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    driver: String,
    call: &'static str,
    action: String,
    code: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimeLabels {
    driver: String,
    call: &'static str,
}

/// Calls to every driver. Drivers, actions and codes are few: those of the program and of the server's own files.
#[derive(Debug)]
pub(super) struct DriverCalls {
    calls: Family<CallLabels, Counter>,
    seconds: Seconds<TimeLabels>,
}

impl DriverCalls {
    /// Empty counters.
    pub(super) fn new(registry: &mut Registry) -> Self {
        let calls = Family::default();
        let help = "Calls to the drivers of classes, by action and by what went wrong";
        registry.register("driver_calls", help, calls.clone());
        let seconds: Seconds<TimeLabels> = Family::new_with_constructor(seconds);
        let help = "Duration of calls to the drivers of classes";
        registry.register_with_unit("driver_call", help, Unit::Seconds, seconds.clone());
        Self { calls, seconds }
    }
}

impl Meter for DriverCalls {
    fn called(&self, call: &Metered<'_>) {
        let driver = call.driver.to_owned();
        let labels = TimeLabels { driver: driver.clone(), call: call.call };
        self.seconds.get_or_create(&labels).observe(call.took.as_secs_f64());
        let (call, action, code) = (call.call, call.action.to_owned(), call.code);
        self.calls.get_or_create(&CallLabels { driver, call, action, code }).inc();
    }
}
