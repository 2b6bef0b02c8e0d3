//! What callers with a scope see of the fleet, and what they may touch.
//!
//! How each method keeps to it is declared in the proto (`touches.scoping`). What is not in the scope is answered as if it
//! were not there; the engine judges a machine again when it changes it, by the record that it changes.

use std::sync::Arc;

use super::caller::Caller;
use super::methods::{Called, ObjectKind, Scoping};
use super::roles;
use super::status::ApiError;
use crate::executor::{Engine, EngineError};
use crate::ids::{MachineId, RunId};
use crate::model::filter::Filter;
use crate::model::scope::Scope;
use crate::model::{Machine, Run};

impl Caller {
    /// The only machines that the caller may see and touch, and their runs; all of them if there is none.
    pub(super) fn scope(&self) -> Option<&Arc<Scope>> {
        self.identity()?.scope.as_ref()
    }

    /// What the caller may see, of machines and of runs. Lists, counts and watches AND it with the filter of the
    /// request.
    pub(super) fn sees(&self) -> Filter {
        self.scope().map(|scope| scope.filter().clone()).unwrap_or_default()
    }

    /// How many records were left out of an answer because they cannot be read: whose those are is not known.
    pub(super) fn counted(&self, unreadable_count: u64) -> u64 {
        if self.scope().is_some() { 0 } else { unreadable_count }
    }

    /// What page tokens of a list are bound to: its parameters, and the scope of the caller.
    pub(super) fn bound<'a>(&'a self, parameters: &[&'a str]) -> Vec<&'a str> {
        parameters.iter().copied().chain(self.scope().map(|scope| scope.tag())).collect()
    }

    /// A machine that the caller may see.
    ///
    /// # Errors
    /// The same whether it is not there or not in the scope.
    pub(super) async fn machine(
        &self,
        engine: &Engine,
        id: &MachineId,
    ) -> Result<Arc<Machine>, ApiError> {
        let found = engine.machine(id).await?;
        match self.scope() {
            Some(scope) if !scope.takes_machine(&found) => {
                Err(EngineError::NotFound { kind: "machine", id: id.to_string() }.into())
            }
            Some(_) | None => Ok(found),
        }
    }

    /// A run that the caller may see.
    ///
    /// # Errors
    /// The same whether it is not there or not in the scope.
    pub(super) async fn run(&self, engine: &Engine, id: RunId) -> Result<Arc<Run>, ApiError> {
        let found = engine.run(id).await?;
        match self.scope() {
            Some(scope) if !scope.takes_run(&found) => {
                Err(EngineError::NotFound { kind: "run", id: id.to_string() }.into())
            }
            Some(_) | None => Ok(found),
        }
    }

    /// Refuses a request whose method is not for callers with a scope, or whose object is not in it. What is not in
    /// the scope is answered as if it were not there, after the same look at the store.
    ///
    /// # Errors
    /// [`EngineError::NotFound`] or [`EngineError::OutOfScope`].
    pub(super) async fn check_scope<M: Called>(
        &self,
        engine: &Engine,
        message: &M,
    ) -> Result<(), ApiError> {
        let Some(scope) = self.scope() else { return Ok(()) };
        let method = M::METHOD;
        match method.scoping {
            Scoping::Object => {}
            Scoping::Fleet | Scoping::Unspecified => {
                let message = format!(
                    "{} is about the whole fleet, and {} has the scope {scope}",
                    method.name,
                    self.actor().name
                );
                return Err(EngineError::OutOfScope { message }.into());
            }
            // Its handler sees to it.
            Scoping::None | Scoping::Each | Scoping::Filter | Scoping::New => return Ok(()),
        }
        // What names nothing is refused by the handler, with the field that is wrong.
        let Some(id) = roles::id_of(method, message) else { return Ok(()) };
        let (object, found) = if method.object == ObjectKind::Run {
            let Ok(id) = RunId::parse(&id) else { return Ok(()) };
            (id.to_string(), self.run(engine, id).await.map(|_| ()))
        } else {
            let Ok(id) = MachineId::parse(&id) else { return Ok(()) };
            (id.to_string(), self.machine(engine, &id).await.map(|_| ()))
        };
        match found {
            Err(error) if self.was_answered(engine, message, &object).await? => {
                tracing::debug!(%error, "a request is repeated whose object is gone");
                Ok(())
            }
            found => found,
        }
    }

    /// Whether a caller with the same scope has made this very request before: then it gets the same answer again,
    /// though its object may be gone since.
    async fn was_answered<M: Called>(
        &self,
        engine: &Engine,
        message: &M,
        object: &str,
    ) -> Result<bool, ApiError> {
        let mut message = message.clone();
        let origin = self.origin(&mut message, "", None);
        if origin.request_id.is_empty() {
            return Ok(false);
        }
        let key = origin.key(M::METHOD.name, &object);
        let before = engine.store().request(&key, &origin.request_id).await?;
        Ok(before.is_some_and(|before| before.body_digest == origin.body_digest))
    }
}
