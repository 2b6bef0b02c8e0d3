//! The server.

use std::process::ExitCode;

/// A run makes some thousands of small allocations, most of them freed by another thread: with the system's allocator a
/// quarter of a loaded server's processor time went into it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let code = bmdemo::server::cli_main(std::env::args_os().collect()).await;
    ExitCode::from(code)
}
