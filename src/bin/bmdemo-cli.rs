//! The command-line client.

use std::process::ExitCode;

fn main() -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(_) => return ExitCode::FAILURE,
    };
    let code = runtime.block_on(bmdemo::cli::run(std::env::args_os(), bmdemo::cli::Io::process()));
    // A read of standard input or a name lookup may still block a thread, which needs no cleanup.
    runtime.shutdown_background();
    ExitCode::from(code)
}
