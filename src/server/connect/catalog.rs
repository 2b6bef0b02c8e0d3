//! The methods that are called in the shapes of Connect: all of the API, and health.

use std::collections::HashMap;
use std::sync::OnceLock;

use prost_reflect::{MessageDescriptor, MethodDescriptor};
use prost_types::method_options::IdempotencyLevel;

use crate::json;

/// What is known of a method.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) input: MessageDescriptor,
    pub(super) output: MessageDescriptor,
    /// Whether it is answered by several messages.
    pub(super) is_stream: bool,
    /// Whether the proto says that it changes nothing.
    changes_nothing: bool,
}

impl Entry {
    fn new(method: &MethodDescriptor) -> Self {
        let options = method.method_descriptor_proto().options.as_ref();
        let level = options.map(prost_types::MethodOptions::idempotency_level);
        Self {
            input: method.input(),
            output: method.output(),
            is_stream: method.is_server_streaming(),
            changes_nothing: level == Some(IdempotencyLevel::NoSideEffects),
        }
    }

    /// Whether it may be called by GET.
    pub(super) fn may_be_got(&self) -> bool {
        self.changes_nothing && !self.is_stream
    }
}

/// The method with this path.
pub(super) fn find(path: &str) -> Option<&'static Entry> {
    static METHODS: OnceLock<HashMap<String, Entry>> = OnceLock::new();
    METHODS.get_or_init(methods).get(path)
}

fn methods() -> HashMap<String, Entry> {
    let services = json::pool().into_iter().flat_map(prost_reflect::DescriptorPool::services);
    let methods = services.flat_map(|service| service.methods().collect::<Vec<_>>());
    let path = |method: &MethodDescriptor| {
        format!("/{}/{}", method.parent_service().full_name(), method.name())
    };
    methods.map(|method| (path(&method), Entry::new(&method))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::methods::METHODS;

    #[test]
    fn what_changes_something_cannot_be_got() {
        for method in METHODS {
            let entry = find(method.path).unwrap();
            assert_eq!(entry.changes_nothing, !method.is_mutation, "{method:?}");
            assert_eq!(entry.may_be_got(), !method.is_mutation && !method.is_stream, "{method:?}");
            assert_eq!(entry.is_stream, method.is_stream, "{method:?}");
        }
        assert!(find("/grpc.health.v1.Health/Check").is_some_and(|entry| !entry.may_be_got()));
        assert!(find("/baremetal.v1.RunService/Fly").is_none());
    }
}
