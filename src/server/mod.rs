//! Wiring of the server process.

use std::ffi::OsString;

/// Runs the server with the arguments of `bmdemo-server` (the first is the program's name) and returns its exit code.
pub async fn cli_main(args: Vec<OsString>) -> u8 {
    drop(args);
    1
}
