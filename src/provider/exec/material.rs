//! Secrets that one program mints for another: kept in memory, for a time, and handed over once.
//!
//! What later steps, the store and operators see is a handle, which is no secret: it says who minted it and for how long. So a
//! secret that is lost, with its server or its time, is minted again by the step that needs it.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

use crate::clock::Clock;
use crate::ids::MachineId;
use crate::plan::{Value, Values};
use crate::provider::Call;

/// Longest secret, in bytes.
pub(super) const MATERIAL_BYTES_MAX: usize = 16 * 1024;
/// How long a secret is kept whose action has no argument `ttl`, and the longest time.
const LIFE_MS: u64 = 15 * 60 * 1_000;
const LIFE_MS_MAX: u64 = 24 * 60 * 60 * 1_000;
/// How a handle begins.
const MARK: &str = "material";
/// The output that has the handle, and the argument that says how long.
const HANDLE: &str = "handle";
const TTL: &str = "ttl";

/// A secret. It is never shown.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub(super) struct Material(Zeroizing<String>);

impl From<String> for Material {
    fn from(text: String) -> Self {
        Self(Zeroizing::new(text))
    }
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Material")
    }
}

impl Material {
    /// The secret itself, for the input of a program.
    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

/// What stands for a secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Handle {
    /// The action that mints it.
    pub(super) action: String,
    life_ms: u64,
    /// The operation that has minted it.
    operation: String,
}

impl Handle {
    /// That of what a call mints.
    fn of(call: &Call) -> Self {
        let life_ms = call.args.get(TTL).and_then(Value::as_duration_ms).unwrap_or(LIFE_MS);
        let life_ms = life_ms.clamp(1, LIFE_MS_MAX);
        let (action, operation) = (call.action.clone(), call.operation.as_str().to_owned());
        Self { action, life_ms, operation }
    }

    /// The one among the outputs of the steps that a call needs.
    pub(super) fn needed_by(call: &Call) -> Option<Self> {
        call.inputs.values().find_map(|outputs| Self::parse(outputs.get(HANDLE)?.as_str()?))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(4, ':');
        let is_one = parts.next() == Some(MARK);
        let (action, life_ms) = (parts.next()?.to_owned(), parts.next()?.parse().ok()?);
        let operation = parts.next()?.to_owned();
        is_one.then_some(Self { action, life_ms, operation })
    }

    /// How long the secret is kept.
    pub(super) const fn life(&self) -> Duration {
        Duration::from_millis(self.life_ms)
    }

    /// The call that mints it again, for the operation that needs it.
    pub(super) fn mint(&self, needed: &Call) -> Call {
        Call {
            action: self.action.clone(),
            args: [(TTL.to_owned(), Value::DurationMs(self.life_ms))].into(),
            inputs: std::collections::BTreeMap::new(),
            handle: None,
            ..needed.clone()
        }
    }
}

impl fmt::Display for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { action, life_ms, operation } = self;
        write!(f, "{MARK}:{action}:{life_ms}:{operation}")
    }
}

/// The secrets that have not been handed over.
#[derive(Debug, Clone)]
pub(super) struct Vault {
    kept: Arc<Mutex<HashMap<String, Kept>>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug)]
struct Kept {
    machine: MachineId,
    material: Material,
    until: Duration,
}

impl Vault {
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { kept: Arc::default(), clock }
    }

    /// Keeps what a call has minted, and adds its handle to the outputs of the call; returns for how long.
    pub(super) fn keep(
        &self,
        machine: &MachineId,
        call: &Call,
        material: Material,
        output: &mut Values,
    ) -> Duration {
        let handle = Handle::of(call);
        let life = handle.life();
        let until = self.clock.monotonic() + life;
        let handle = handle.to_string();
        output.insert(HANDLE.to_owned(), Value::Str(handle.clone().into()));
        self.lock().insert(handle, Kept { machine: machine.clone(), material, until });
        life
    }

    /// Hands a secret over, with the end of its time: it is not kept any longer. `None` if it is lost, or another machine's.
    pub(super) fn take(
        &self,
        machine: &MachineId,
        handle: &Handle,
    ) -> Option<(Material, Duration)> {
        let mut kept = self.lock();
        let handle = handle.to_string();
        kept.get(&handle).filter(|kept| kept.machine == *machine)?;
        kept.remove(&handle).map(|kept| (kept.material, kept.until))
    }

    /// Forgets what is too old.
    pub(super) fn expire(&self) {
        drop(self.lock());
    }

    /// Those that are not too old.
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Kept>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let now = self.clock.monotonic();
        kept.retain(|_, kept| kept.until > now);
        kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Timestamp, TokioClock};
    use crate::ids::{Epoch, OperationId, RunId};
    use crate::plan::Capability;

    fn call(action: &str, args: Values) -> Call {
        Call {
            operation: OperationId::new(RunId::new(Timestamp(1), [1, 0]), action, 1),
            epoch: Epoch(1),
            action: action.to_owned(),
            capability: Capability::ClusterJoin,
            args,
            inputs: std::collections::BTreeMap::new(),
            handle: None,
        }
    }

    #[test]
    fn a_handle_says_how_to_mint_again_and_nothing_else() {
        let ttl = [(TTL.to_owned(), Value::DurationMs(60_000))].into();
        let minting = call("mint-join", ttl);
        let handle = Handle::of(&minting);
        let mut join = call("join", Values::new());
        assert_eq!(Handle::needed_by(&join), None);
        let other = Value::Str("h-1".into());
        join.inputs.insert("a".to_owned(), [(HANDLE.to_owned(), other)].into());
        assert_eq!(Handle::needed_by(&join), None, "that of a program of its own");
        let text = Value::Str(handle.to_string().into());
        join.inputs.insert("mint-join".to_owned(), [(HANDLE.to_owned(), text)].into());
        assert_eq!(Handle::needed_by(&join), Some(handle.clone()));
        let again = handle.mint(&join);
        assert_eq!((again.action.as_str(), &again.args), ("mint-join", &minting.args));
        assert_eq!(again.operation, join.operation);
    }

    #[tokio::test(start_paused = true)]
    async fn a_secret_is_handed_over_once_to_its_machine_and_in_time() {
        let clock = Arc::new(TokioClock::new(Timestamp(0)));
        let vault = Vault::new(clock.clone());
        let [one, two] = ["m-1", "m-2"].map(|id| MachineId::parse(id).unwrap());
        let minting = call("mint-join", Values::new());
        let handle = Handle::of(&minting);
        let keep = || {
            let mut output = Values::new();
            let secret = Material::from("canary".to_owned());
            let life = vault.keep(&one, &minting, secret, &mut output);
            assert_eq!(life, Duration::from_millis(LIFE_MS));
            assert_eq!(output[HANDLE], Value::Str(handle.to_string().into()));
        };
        keep();
        assert!(!format!("{vault:?}").contains("canary"));
        assert_eq!(vault.take(&two, &handle), None);
        let (secret, until) = vault.take(&one, &handle).unwrap();
        assert_eq!((secret.reveal(), until), ("canary", Duration::from_millis(LIFE_MS)));
        assert_eq!(vault.take(&one, &handle), None);
        keep();
        clock.sleep(Duration::from_millis(LIFE_MS)).await;
        vault.expire();
        assert_eq!(vault.take(&one, &handle), None);
    }
}
