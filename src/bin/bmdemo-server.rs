//! The server.

use std::process::ExitCode;

/// A run makes some thousands of small allocations on several threads; measured against the system's allocator this
/// one takes a quarter of the processor time off a run (docs/performance.md).
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    let code = bmdemo::server::cli_main(std::env::args_os().collect()).await;
    ExitCode::from(code)
}
