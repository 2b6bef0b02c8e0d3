//! What a role may do. The role of a method is declared in the proto; some requests need more than their method.

use std::sync::OnceLock;

use prost::Message;
use prost_reflect::{DescriptorPool, DynamicMessage, MessageDescriptor, Value};

use super::methods::{Called, Method};
use super::status::ApiError;
use crate::pb::{Phase, Role};

/// Name of a role, for people and in the configuration.
pub(super) const fn name(role: Role) -> &'static str {
    match role {
        Role::Unspecified => "none",
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// Refuses a request that a role does not allow.
///
/// # Errors
/// [`ApiError::RoleMissing`], naming the rule.
pub(super) fn check<M: Called>(who: &str, role: Role, message: &M) -> Result<(), ApiError> {
    let method = M::METHOD;
    let refused =
        |wanted, beyond: &str| Err(missing(who, role, format!("{}{beyond}", method.name), wanted));
    if role < method.role {
        return refused(method.role, "");
    }
    if role >= Role::Admin || !method.is_mutation {
        return Ok(());
    }
    match beyond(method, message) {
        Some(beyond) => refused(Role::Admin, beyond),
        None => Ok(()),
    }
}

/// The refusal of what needs another role.
pub(super) fn missing(who: &str, role: Role, what: String, wanted: Role) -> ApiError {
    ApiError::RoleMissing { who: who.to_owned(), role: name(role), what, wanted: name(wanted) }
}

/// What of a request only an admin may ask for.
fn beyond<M: Message>(method: &Method, message: &M) -> Option<&'static str> {
    let dynamic = request(method).and_then(|descriptor| {
        DynamicMessage::decode(descriptor, message.encode_to_vec().as_slice()).ok()
    });
    match dynamic {
        Some(dynamic) if has_force(&dynamic) => Some(" with force"),
        Some(dynamic) if retires(&dynamic) => Some(" to the phase RETIRED"),
        Some(_) => None,
        // A request that cannot be looked at may ask for anything.
        None => Some(" in this form"),
    }
}

/// The id in the field of a request that names its object; `None` if there is none, or nothing in it.
pub(super) fn id_of<M: Message>(method: &Method, message: &M) -> Option<String> {
    let bytes = message.encode_to_vec();
    let mut at = DynamicMessage::decode(request(method)?, bytes.as_slice()).ok()?;
    let (path, last) = method.id_field.rsplit_once('.').unwrap_or(("", method.id_field));
    for name in path.split('.').filter(|name| !name.is_empty()) {
        at = at.get_field_by_name(name)?.as_message()?.clone();
    }
    let id = at.get_field_by_name(last)?.as_str()?.to_owned();
    (!id.is_empty()).then_some(id)
}

fn request(method: &Method) -> Option<MessageDescriptor> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    let pool = POOL.get_or_init(|| DescriptorPool::decode(crate::pb::FILE_DESCRIPTOR_SET).ok());
    let service =
        pool.as_ref()?.get_service_by_name(&format!("baremetal.v1.{}", method.service))?;
    service.methods().find(|found| found.name() == method.name).map(|found| found.input())
}

/// Whether a field `force` is set, in the message or in one inside it.
fn has_force(message: &DynamicMessage) -> bool {
    message.fields().any(|(field, value)| {
        (field.name() == "force" && value.as_bool() == Some(true)) || inside(value, &has_force)
    })
}

/// Whether a machine is to be retired.
fn retires(message: &DynamicMessage) -> bool {
    message.fields().any(|(field, value)| {
        (field.name() == "phase" && value.as_enum_number() == Some(Phase::Retired.into()))
            || inside(value, &retires)
    })
}

fn inside(value: &Value, is_so: &dyn Fn(&DynamicMessage) -> bool) -> bool {
    match value {
        Value::Message(message) => is_so(message),
        Value::List(values) => values.iter().any(|value| inside(value, is_so)),
        Value::Map(values) => values.values().any(|value| inside(value, is_so)),
        Value::Bool(_)
        | Value::I32(_)
        | Value::I64(_)
        | Value::U32(_)
        | Value::U64(_)
        | Value::F32(_)
        | Value::F64(_)
        | Value::String(_)
        | Value::Bytes(_)
        | Value::EnumNumber(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pb;

    #[test]
    fn force_and_retirement_are_for_admins() {
        let start = |force| pb::StartRunRequest { force, ..Default::default() };
        let phase = |phase: Phase, force| pb::UpdateMachineRequest {
            machine: Some(pb::Machine {
                status: Some(pb::MachineStatus { phase: phase.into(), ..Default::default() }),
                ..Default::default()
            }),
            force,
            ..Default::default()
        };
        let of = |result: Result<(), ApiError>| result.map_err(|error| error.to_string());
        for role in [Role::Viewer, Role::Unspecified] {
            let error = of(check("ann", role, &start(false))).unwrap_err();
            assert!(error.contains("StartRun needs the role operator"), "{error}");
        }
        assert_eq!(of(check("ann", Role::Operator, &start(false))), Ok(()));
        let error = of(check("ann", Role::Operator, &start(true))).unwrap_err();
        assert!(error.contains("StartRun with force needs the role admin"), "{error}");
        assert_eq!(of(check("ann", Role::Admin, &start(true))), Ok(()));
        assert_eq!(of(check("ann", Role::Operator, &phase(Phase::Maintenance, false))), Ok(()));
        for (update, why) in [
            (phase(Phase::Retired, false), "to the phase RETIRED"),
            (phase(Phase::Maintenance, true), "with force"),
        ] {
            let error = of(check("ann", Role::Operator, &update)).unwrap_err();
            assert!(error.contains(why), "{error}");
            assert_eq!(of(check("ann", Role::Admin, &update)), Ok(()));
        }
        let delete = pb::DeleteMachineRequest::default();
        assert!(check("ann", Role::Operator, &delete).is_err());
        assert_eq!(of(check("ann", Role::Viewer, &pb::ListRunsRequest::default())), Ok(()));
        assert!(check("ann", Role::Unspecified, &pb::ListRunsRequest::default()).is_err());
    }
}
