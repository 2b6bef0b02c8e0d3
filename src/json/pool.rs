//! The descriptors of messages.

use std::sync::OnceLock;

use prost::Message as _;
use prost_reflect::{DescriptorError, DescriptorPool};

/// Descriptors besides our own: health, and the details of errors.
const OTHERS: [&[u8]; 2] =
    [tonic_health::pb::FILE_DESCRIPTOR_SET, tonic_types::pb::FILE_DESCRIPTOR_SET];

/// The descriptors of the API, of health and of the details of errors, decoded once; `None` if this build's own are broken.
pub(crate) fn pool() -> Option<&'static DescriptorPool> {
    static POOL: OnceLock<Option<DescriptorPool>> = OnceLock::new();
    POOL.get_or_init(|| decoded().ok()).as_ref()
}

fn decoded() -> Result<DescriptorPool, DescriptorError> {
    let mut pool = DescriptorPool::decode(crate::pb::FILE_DESCRIPTOR_SET)?;
    for bytes in OTHERS {
        let set = prost_types::FileDescriptorSet::decode(bytes).unwrap_or_default();
        // Two builds of the same file differ in what does not matter here.
        let new = set.file.into_iter().filter(|file| pool.get_file_by_name(file.name()).is_none());
        let new: Vec<_> = new.collect();
        pool.add_file_descriptor_protos(new)?;
    }
    Ok(pool)
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_kind_of_descriptor_is_there() {
        let pool = super::pool().unwrap();
        for name in [
            "baremetal.v1.Machine",
            "grpc.health.v1.HealthCheckRequest",
            "google.rpc.ErrorInfo",
            "google.rpc.BadRequest",
        ] {
            assert!(pool.get_message_by_name(name).is_some(), "{name}");
        }
    }
}
