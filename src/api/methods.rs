//! Every method of the API with what it touches, as declared by the option `touches` in the proto. build.rs generates
//! the list: a method without the option fails the build.

use prost::Message;

pub use crate::pb::{ObjectKind, Role, Scoping};

/// A method of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Method {
    /// Service, without the package.
    pub service: &'static str,
    /// Name.
    pub name: &'static str,
    /// Path of its calls: `/baremetal.v1.RunService/StartRun`.
    pub path: &'static str,
    /// Whether it may change anything.
    pub is_mutation: bool,
    /// Kind of the object that it acts on.
    pub object: ObjectKind,
    /// Path of the request field that names the object; empty if it acts on several, or on the server.
    pub id_field: &'static str,
    /// The least role that may call it.
    pub role: Role,
    /// How it keeps to the scope of its caller.
    pub scoping: Scoping,
    /// Whether the response is a stream.
    pub is_stream: bool,
}

/// The method with this path, if it is one of ours.
#[must_use]
pub fn by_path(path: &str) -> Option<&'static Method> {
    METHODS.iter().find(|method| method.path == path)
}

/// A request of the API. Each method has its own.
pub(super) trait Called: Message + Clone {
    /// The method.
    const METHOD: &'static Method;

    /// The idempotency key, where the method takes one.
    fn request_id(&mut self) -> Option<&mut String>;
}

include!(concat!(env!("OUT_DIR"), "/methods.rs"));

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_only_looks_changes_nothing() {
        for method in METHODS {
            // The audit says what others did: it is for admins, and looking at it changes nothing.
            let is_audit = method.name.ends_with("Audit") || method.name == "GetAuditHead";
            let wanted = if is_audit { Role::Admin } else { Role::Operator };
            assert_eq!(method.is_mutation || is_audit, method.role >= wanted, "{method:?}");
        }
    }

    /// Which of them are for callers with a scope, and how: written here once more, so that a new one is thought about.
    #[test]
    fn every_method_keeps_to_scopes() {
        for method in METHODS {
            let wanted = match method.name {
                "GetPlan" | "ListPlans" | "WhoAmI" | "CheckAccess" => Scoping::None,
                "ListAudit" | "GetAuditHead" | "VerifyAudit" | "StopAll" | "ResumeAll"
                | "CreateLock" | "DeleteLock" | "ListLocks" => Scoping::Fleet,
                "RegisterMachine" => Scoping::New,
                "BatchRegisterMachines" | "BatchStartRuns" => Scoping::Each,
                "ListMachines" | "ListRuns" | "ListHistory" | "WatchMachines" | "WatchRuns"
                | "GetServerInfo" => Scoping::Filter,
                "GetMachine" | "UpdateMachine" | "ClearIntervention" | "InspectMachine"
                | "ListMachineHistory" | "DeleteMachine" | "StartRun" | "GetRun" | "CancelRun"
                | "StreamRunLogs" | "AbortRun" | "PauseRun" | "ResumeRun" | "RetryRun"
                | "SkipStep" | "ResolveStep" | "ListRunHistory" | "WaitRun" => Scoping::Object,
                other => panic!("{other} is new: say how it keeps to scopes"),
            };
            assert_eq!(method.scoping, wanted, "{method:?}");
        }
    }

    #[test]
    fn mutations_take_a_request_id_and_reads_do_not() {
        let pool = prost_reflect::DescriptorPool::decode(crate::pb::FILE_DESCRIPTOR_SET).unwrap();
        for method in METHODS {
            let service = pool.get_service_by_name(&format!("baremetal.v1.{}", method.service));
            let service = service.unwrap();
            let found = service.methods().find(|found| found.name() == method.name).unwrap();
            let takes_id = found.input().get_field_by_name("request_id").is_some();
            // Registration is idempotent by itself.
            let wanted = method.is_mutation && method.name != "BatchRegisterMachines";
            assert_eq!(takes_id, wanted, "{method:?}");
            assert_eq!(by_path(method.path), Some(method));
        }
        assert_eq!(by_path("/baremetal.v1.RunService/Fly"), None);
    }
}
