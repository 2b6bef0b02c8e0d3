//! Where the reports of machines are kept.

use crate::ids::MachineId;
use crate::model::Installation;

/// Boxed future of a record of installations.
pub type ReportsFut<'a, T> =
    std::pin::Pin<Box<dyn Future<Output = Result<T, ReportsError>> + Send + 'a>>;

/// Why a report could not be read or stored.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct ReportsError(pub String);

/// Keeps the latest installation of each machine, durably.
pub trait Reports: Send + Sync + 'static {
    /// The latest one of a machine.
    fn load<'a>(&'a self, machine: &'a MachineId) -> ReportsFut<'a, Option<Installation>>;
    /// Replaces it; resolves once it is durable.
    fn save<'a>(&'a self, machine: &'a MachineId, of: Installation) -> ReportsFut<'a, ()>;
}

/// Reports of tests.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct InMemory(std::sync::Mutex<std::collections::BTreeMap<MachineId, Installation>>);

#[cfg(test)]
impl Reports for InMemory {
    fn load<'a>(&'a self, machine: &'a MachineId) -> ReportsFut<'a, Option<Installation>> {
        Box::pin(async { Ok(self.0.lock().unwrap().get(machine).cloned()) })
    }

    fn save<'a>(&'a self, machine: &'a MachineId, of: Installation) -> ReportsFut<'a, ()> {
        Box::pin(async {
            self.0.lock().unwrap().insert(machine.clone(), of);
            Ok(())
        })
    }
}
