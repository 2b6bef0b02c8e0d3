//! The command-line client: commands build values and call the server, `output` prints them.
//!
//! Data goes to standard output, everything else to standard error. Only `local` starts a server process.

mod client;
mod commands;
mod config;
mod connector;
mod credentials;
mod dispatch;
mod error;
mod fault;
mod flags;
mod local;
mod order;
mod output;
mod query;
mod resolve;
mod screen;
mod server_address;
mod session;
mod tree;
mod ui;
mod watch;

#[cfg(test)]
mod tests;

use std::ffi::OsString;
use std::io::Write as _;

use clap::FromArgMatches as _;

use flags::ColorChoice;
use session::{Session, wants_color};
use tree::Cli;

pub use ui::Io;

/// Runs one command line and returns the exit code of the process: 0 ok, 1 internal, 2 usage, 3 run failed or held,
/// 4 run canceled, 5 wait timed out, 64 + gRPC code for an error of the server, 130 interrupted.
pub async fn run(args: impl Iterator<Item = OsString>, mut io: Io) -> u8 {
    let args: Vec<OsString> = args.collect();
    if args.get(1).is_some_and(|verb| verb == "serve") {
        return local::serve(args).await;
    }
    let command_line = shell_words(&args);
    let parsed = tree::command().try_get_matches_from(args);
    let cli = match parsed.and_then(|matches| Cli::from_arg_matches(&matches)) {
        Ok(cli) => cli,
        Err(error) => return report_usage(&mut io, error),
    };
    let mut session = match Session::new(io, &cli.global, command_line) {
        Ok(session) => session,
        Err(failed) => {
            let (mut ui, error) = *failed;
            let look = ui.note_look;
            // There is nowhere to report that standard error is closed.
            let _ = output::write_error(ui.err(), look, &error, &[]);
            return error.code();
        }
    };
    let result = Box::pin(dispatch::dispatch(&mut session, cli.command)).await;
    let result = result.and_then(|exit| {
        session.ui.flush()?;
        Ok(exit)
    });
    match result {
        Ok(exit) => exit.code(),
        Err(error) => session.report(&error).await,
    }
}

/// Prints clap's message: help and version are data, the rest is an error.
fn report_usage(io: &mut Io, mut error: clap::Error) -> u8 {
    let is_data = !error.use_stderr();
    let terminal = if is_data { io.stdout_is_terminal } else { io.stderr_is_terminal };
    let color = wants_color(io, ColorChoice::Auto, terminal);
    let other = tree::other_words(&mut error);
    tree::no_dashes(&mut error);
    let text = error.render();
    let text = if color { text.ansi().to_string() } else { text.to_string() };
    // Begins like every other error of ours, and what was typed may have what cannot be seen.
    let mut text = if is_data { text } else { shown(&text.replacen("error:", "Error:", 1)) };
    if let Some(other) = other {
        text.push_str(&format!("\nHint: {other}\n"));
    }
    let out = if is_data { &mut io.stdout } else { &mut io.stderr };
    // The reader has gone away, so nothing is lost.
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    u8::try_from(error.exit_code()).unwrap_or(2)
}

/// A message with what cannot be seen escaped, but for line feeds and the colours of ours.
fn shown(text: &str) -> String {
    let is_hidden = |c: char| crate::text::hidden_in(c.encode_utf8(&mut [0; 4])).is_some();
    let escape = |c: char| match c {
        '\n' | '\u{1b}' => c.to_string(),
        c if is_hidden(c) => c.escape_unicode().to_string(),
        c => c.to_string(),
    };
    text.chars().map(escape).collect()
}

/// The arguments as they could be typed into a shell, after the name of the program.
fn shell_words(args: &[OsString]) -> String {
    let quoted = |arg: &OsString| {
        let text = arg.to_string_lossy();
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,@+".contains(c);
        if !text.is_empty() && text.chars().all(is_plain) {
            text.into_owned()
        } else {
            format!("'{}'", text.replace('\'', "'\\''"))
        }
    };
    std::iter::once("bmdemo-cli".to_owned())
        .chain(args.iter().skip(1).map(quoted))
        .collect::<Vec<_>>()
        .join(" ")
}
