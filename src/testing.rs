//! Helpers shared by unit tests.

/// Compares `value` with the snapshot `name` in the top-level `snapshots/`, named by the caller and not by module path.
#[macro_export]
macro_rules! assert_golden {
    ($name:expr, $value:expr) => {
        insta::with_settings!({
            snapshot_path => concat!(env!("CARGO_MANIFEST_DIR"), "/snapshots"),
            prepend_module_to_snapshot => false,
            omit_expression => true,
        }, { insta::assert_snapshot!($name, $value) })
    };
}
