//! The server process: configuration, wiring, connections, health, logs, shutdown.

mod accept;
mod config;
mod connection;
mod edge;
mod health;
mod reflection;
mod telemetry;

/// Runs the server with the arguments of `bmdemo-server` (the first is the program's name) and returns its exit code.
pub async fn cli_main(args: Vec<std::ffi::OsString>) -> u8 {
    drop(args);
    1
}
