//! `CheckAccess`: whether a caller may call a method, on an object, and which rule says so.

use super::caller::Caller;
use super::identity::Identity;
use super::methods::{METHODS, Method, ObjectKind, Scoping};
use super::plans;
use super::roles;
use super::status::{ApiError, Reason};
use super::validate::{Checks, NAME_CHARS_MAX};
use crate::executor::{Engine, EngineError};
use crate::ids::{MachineId, RunId};
use crate::model::scope::Scope;
use crate::pb;

/// Answers a request.
pub(super) async fn check(
    engine: &Engine,
    caller: &Caller,
    request: &pb::CheckAccessRequest,
) -> Result<pb::CheckAccessResponse, ApiError> {
    let mut checks = Checks::default();
    checks.line("object", &request.object, NAME_CHARS_MAX);
    checks.done(Some(()))?;
    let method = METHODS.iter().find(|method| method.name == request.method);
    let method = method.ok_or_else(|| {
        EngineError::invalid("method", "is no method of this server; give one such as StartRun")
    })?;
    let Some(identity) = caller.identity() else {
        return Ok(pb::CheckAccessResponse {
            allowed: true,
            rule: "this server asks no one for proof, and everyone may do everything".to_owned(),
        });
    };
    let plan = plan_for_admins(engine, caller, request).await?;
    let (allowed, rule) = by_role(identity, method, request.force, plan.as_deref());
    let Some(scope) = caller.scope().filter(|_| allowed) else {
        return Ok(pb::CheckAccessResponse { allowed, rule });
    };
    let (allowed, by_scope) = by_scope(engine, caller, method, scope, &request.object).await?;
    let who = &identity.name;
    let rule = match allowed {
        true => format!("{rule}; {by_scope} (principals.{who}.scope)"),
        false => format!("{by_scope} (principals.{who}.scope)"),
    };
    Ok(pb::CheckAccessResponse { allowed, rule })
}

/// The plan that the request is about, if it is for admins. A run out of scope is answered as one that is not there.
async fn plan_for_admins(
    engine: &Engine,
    caller: &Caller,
    request: &pb::CheckAccessRequest,
) -> Result<Option<String>, ApiError> {
    if !request.run_id.is_empty() {
        let id = RunId::parse(&request.run_id)
            .map_err(|_| EngineError::invalid("run_id", "is no id of a run"))?;
        let run = caller.run(engine, id).await?;
        let plan = engine.pinned_plan(&run).await?;
        return Ok(plan.for_admins.then(|| plan.id.to_string()));
    }
    if request.plan_id.is_empty() {
        return Ok(None);
    }
    let plans = engine.plans();
    let found = plans.get(&plans::full_id(&request.plan_id));
    let found = found.ok_or_else(|| plans::not_found(&plans, &request.plan_id))?;
    Ok(found.plan.for_admins.then(|| found.plan.id.to_string()))
}

fn by_role(
    identity: &Identity,
    method: &Method,
    force: bool,
    plan: Option<&str>,
) -> (bool, String) {
    let wanted = match (force || plan.is_some()) && method.is_mutation {
        true => pb::Role::Admin,
        false => method.role,
    };
    let forced = match (plan, force) {
        (_, true) => " with force".to_owned(),
        (Some(plan), false) => format!(" of {plan}, which is for admins,"),
        (None, false) => String::new(),
    };
    let rule = format!(
        "{}{forced} needs the role {}, and {} has the role {} (principals.{}.role)",
        method.name,
        roles::name(wanted),
        identity.name,
        roles::name(identity.role),
        identity.name
    );
    (identity.role >= wanted, rule)
}

/// Whether the scope of a caller allows it. What is not in it and what is not there have the same answer.
async fn by_scope(
    engine: &Engine,
    caller: &Caller,
    method: &Method,
    scope: &Scope,
    object: &str,
) -> Result<(bool, String), ApiError> {
    let who = &caller.actor().name;
    match method.scoping {
        Scoping::None => return Ok((true, format!("it does not depend on the scope of {who}"))),
        Scoping::Fleet | Scoping::Unspecified => {
            let why = format!(
                "{} is about the whole fleet, and {who} has the scope {scope}",
                method.name
            );
            return Ok((false, why));
        }
        Scoping::Filter => return Ok((true, format!("it shows what is in the scope {scope}"))),
        Scoping::New | Scoping::Each | Scoping::Object => {}
    }
    if object.is_empty() || method.scoping == Scoping::New {
        return Ok((true, format!("{who} may do it to what is in the scope {scope}")));
    }
    // Verbs on runs may be asked about by the machine, too.
    let found = match (method.object, RunId::parse(object)) {
        (ObjectKind::Run, Ok(id)) => caller.run(engine, id).await.map(|_| ()),
        _ => match MachineId::parse(object) {
            Ok(id) => caller.machine(engine, &id).await.map(|_| ()),
            Err(error) => {
                return Err(EngineError::invalid("object", error.to_string()).into());
            }
        },
    };
    match found {
        Ok(()) => Ok((true, format!("{object} is in the scope {scope}"))),
        Err(error) if error.reason() == Reason::NotFound => Ok((
            false,
            format!("{who} has the scope {scope}, and {object} is not in it, or not there at all"),
        )),
        Err(error) => Err(error),
    }
}
