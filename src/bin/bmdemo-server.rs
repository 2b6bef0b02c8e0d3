//! The server.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    let code = bmdemo::server::cli_main(std::env::args_os().collect()).await;
    ExitCode::from(code)
}
