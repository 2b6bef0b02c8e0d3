//! Generated code of `proto/baremetal/v1/baremetal.proto`, nothing else.
#![allow(
    missing_docs,
    unreachable_pub,
    unused_qualifications,
    clippy::all,
    clippy::wildcard_enum_match_arm,
    reason = "generated"
)]

include!(concat!(env!("OUT_DIR"), "/baremetal.v1.rs"));

/// The file descriptors of the API and what it imports, encoded.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/baremetal.bin"));
