//! The server.

use std::process::ExitCode;
use std::time::Duration;

/// A run makes some thousands of small allocations, most of them freed by another thread: with the system's allocator
/// that took a quarter of a loaded server's processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long to wait at the end for a read that a file system blocks; it needs no cleanup.
const EXIT_GRACE: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::from(70),
    };
    let code = runtime.block_on(bmdemo::server::cli_main(std::env::args_os().collect()));
    runtime.shutdown_timeout(EXIT_GRACE);
    ExitCode::from(code)
}
