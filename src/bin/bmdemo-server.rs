//! The server.

use std::process::ExitCode;
use std::time::Duration;

/// A run makes some thousands of small allocations, most of them freed by another thread: with the system's allocator
/// that took a quarter of a loaded server's processor time.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// How long to wait at the end for a read that a file system blocks; it needs no cleanup.
const EXIT_GRACE: Duration = Duration::from_secs(1);

/// Tasks that a busy thread polls before it looks for new calls and data again. A task may encode a page of a list, some
/// milliseconds: by the library's default, 61, others would wait for hundreds of them.
const EVENT_INTERVAL: u32 = 5;

fn main() -> ExitCode {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    let runtime = match builder.enable_all().event_interval(EVENT_INTERVAL).build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::from(70),
    };
    let code = runtime.block_on(bmdemo::server::cli_main(std::env::args_os().collect()));
    runtime.shutdown_timeout(EXIT_GRACE);
    ExitCode::from(code)
}
