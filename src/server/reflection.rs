//! gRPC server reflection: v1 for buf and newer clients, v1alpha for grpcurl and older ones.

use tonic::service::Routes;
use tonic_reflection::server::{Builder, Error};

/// Every descriptor that is served: ours, health, reflection itself, and google.rpc so that error details can be
/// decoded.
const DESCRIPTORS: [&[u8]; 5] = [
    crate::pb::FILE_DESCRIPTOR_SET,
    tonic_health::pb::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
    tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    tonic_types::pb::FILE_DESCRIPTOR_SET,
];

/// Adds both versions.
///
/// # Errors
/// A descriptor set that does not decode: a bug of the build.
pub(super) fn add_to(routes: Routes) -> Result<Routes, Error> {
    let builder = || {
        DESCRIPTORS.into_iter().fold(
            Builder::configure().include_reflection_service(false),
            Builder::register_encoded_file_descriptor_set,
        )
    };
    Ok(routes.add_service(builder().build_v1()?).add_service(builder().build_v1alpha()?))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message as _;

    use super::*;

    #[test]
    fn every_import_is_served_too() {
        let files: Vec<_> = DESCRIPTORS
            .into_iter()
            .flat_map(|bytes| prost_types::FileDescriptorSet::decode(bytes).unwrap().file)
            .collect();
        let names: BTreeSet<&str> = files.iter().map(|file| file.name()).collect();
        for file in &files {
            for import in &file.dependency {
                assert!(names.contains(import.as_str()), "{} imports {import}", file.name());
            }
        }
        add_to(Routes::default()).unwrap();
    }
}
