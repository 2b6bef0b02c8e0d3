//! Measures calls to drivers.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::error::{ProviderError, ProviderErrorKind};
use crate::clock::Clock;

/// A call to a driver that has returned, or was dropped.
#[derive(Debug, Clone, Copy)]
pub struct Metered<'a> {
    /// Name of the driver.
    pub driver: &'a str,
    /// What it was called for: observe, act, and so on.
    pub call: &'static str,
    /// The action; empty for a fence or a probe.
    pub action: &'a str,
    /// `ok`, what went wrong, or `dropped`.
    pub code: &'static str,
    /// How long it took.
    pub took: Duration,
}

/// Is notified of each call to a driver.
pub trait Meter: fmt::Debug + Send + Sync {
    /// A call has returned, or was dropped.
    fn called(&self, call: &Metered<'_>);
}

/// A meter with its clock; without one, calls are not measured.
#[derive(Debug, Clone, Default)]
pub(super) struct Measure(pub(super) Option<(Arc<dyn Meter>, Arc<dyn Clock>)>);

impl Measure {
    /// Measures a call.
    pub(super) async fn of<'a, T>(
        &'a self,
        driver: &'a str,
        call: &'static str,
        action: &'a str,
        answer: impl Future<Output = Result<T, ProviderError>>,
    ) -> Result<T, ProviderError> {
        let Some((meter, clock)) = &self.0 else { return answer.await };
        let begun = clock.monotonic();
        let mut timer = Timer {
            meter: &**meter,
            clock: &**clock,
            begun,
            driver,
            call,
            action,
            code: "dropped",
        };
        let answer = answer.await;
        timer.code = match &answer {
            Ok(_) => "ok",
            Err(error) => match error.kind {
                ProviderErrorKind::Fenced { .. } => "fenced",
                ProviderErrorKind::Class(_) => error.code.as_str(),
            },
        };
        answer
    }
}

/// Reports to the meter when dropped, so that a dropped call counts too.
struct Timer<'a> {
    meter: &'a dyn Meter,
    clock: &'a dyn Clock,
    begun: Duration,
    driver: &'a str,
    call: &'static str,
    action: &'a str,
    code: &'static str,
}

impl Drop for Timer<'_> {
    fn drop(&mut self) {
        let Self { driver, call, action, code, .. } = *self;
        let took = self.clock.monotonic().saturating_sub(self.begun);
        self.meter.called(&Metered { driver, call, action, code, took });
    }
}
