//! `demo`: the main job in one command, as a transcript

mod crash;

use clap::{Args, Parser as _};

use crate::pb;

use super::super::Context;
use super::super::args::Cli;
use super::super::error::{Error, Exit};
use super::super::local::LocalServer;
use super::super::output::Meaning;

/// Failure that the session needs: the first repave of machine-2 fails for good, later ones do not.
const SCRIPT: &str = "machine=machine-2 step=repave do=fail-permanent times=1";

/// Play a session and print its transcript. Without --server it starts a fresh server of its own and stops it again.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli demo\n  bmdemo-cli demo --crash\n  bmdemo-cli demo --server localhost:50051"
)]
pub(crate) struct DemoArgs {
    /// Kill the server in the middle of a step, start it again, and show the runs going on
    #[arg(long)]
    crash: bool,
    /// Show the log of the demo's own server
    #[arg(long)]
    verbose: bool,
}

pub(crate) async fn demo(ctx: &mut Context, args: &DemoArgs) -> Result<Exit, Error> {
    let interrupted = ctx.ui.interrupted();
    let play = async {
        if args.crash {
            crash::play(ctx, args.verbose).await
        } else {
            session(ctx, args.verbose).await
        }
    };
    tokio::select! {
        result = play => result,
        // The demo's own server dies with this future.
        () = interrupted => Ok(Exit::Interrupted),
    }
}

async fn session(ctx: &mut Context, verbose: bool) -> Result<Exit, Error> {
    let server = if ctx.server_given {
        None
    } else {
        let args = ["--ephemeral", "--port", "0", "--seed", "42", "--fake-script", SCRIPT]
            .map(str::to_owned);
        let server = LocalServer::start(&args, verbose, &*ctx.ui.clock()).await?;
        ctx.use_server(server.address.clone());
        Some(server)
    };
    let played = acts(ctx).await;
    if let Some(server) = server {
        server.kill().await?;
    }
    played?;
    Ok(Exit::Ok)
}

async fn acts(ctx: &mut Context) -> Result<(), Error> {
    say(ctx, "Register three machines.")?;
    enter(ctx, &["import", "3"]).await?;
    enter(ctx, &["list"]).await?;
    say(ctx, "Image one anew and join it to its cluster.")?;
    enter(ctx, &["repave", "machine-1"]).await?;
    enter(ctx, &["list"]).await?;
    say(ctx, "A run that fails leaves the phase alone and asks for a person.")?;
    enter(ctx, &["repave", "machine-2"]).await?;
    enter(ctx, &["list", "-o", "wide"]).await?;
    enter(ctx, &["machine", "describe", "machine-2"]).await?;
    if let Some(run) = last_run(ctx, "machine-2").await?
        && run.phase() == pb::RunPhase::Failed
    {
        say(
            ctx,
            "A retry repeats what did not succeed, and what that needs; its success clears NeedsIntervention.",
        )?;
        enter(ctx, &["retry", &run.run_id]).await?;
        enter(ctx, &["list", "-o", "wide"]).await?;
    }
    say(ctx, "Send one back to its manufacturer.")?;
    enter(ctx, &["rma", "machine-1"]).await?;
    enter(ctx, &["list"]).await?;
    say(ctx, "What ran, and what can run.")?;
    enter(ctx, &["runs"]).await?;
    enter(ctx, &["plans"]).await?;
    Ok(())
}

/// A remark between commands.
fn say(ctx: &mut Context, text: &str) -> Result<(), Error> {
    let remark = ctx.ui.look.paint(Meaning::Dim, &format!("# {text}"));
    writeln!(ctx.ui.out(), "{remark}")?;
    Ok(())
}

/// Prints a command line, carries it out as if it had been typed, and prints its errors the same way.
async fn enter(ctx: &mut Context, words: &[&str]) -> Result<(), Error> {
    let line = ctx.ui.look.paint(Meaning::Strong, &format!("$ bmdemo-cli {}", words.join(" ")));
    writeln!(ctx.ui.out(), "{line}")?;
    let cli = Cli::try_parse_from(std::iter::once(&"bmdemo-cli").chain(words))
        .map_err(|error| Error::Answer(error.to_string()))?;
    match Box::pin(super::dispatch(ctx, cli.command)).await {
        Ok(_) => {}
        // A refusal belongs to the transcript; without a server there is none.
        Err(error @ Error::Rpc { .. }) => {
            ctx.report(&error).await;
        }
        Err(error) => return Err(error),
    }
    writeln!(ctx.ui.out())?;
    ctx.ui.flush()?;
    Ok(())
}

async fn last_run(ctx: &mut Context, machine: &str) -> Result<Option<pb::Run>, Error> {
    let client = ctx.client().await?;
    Ok(client.all_runs(&format!("machine_id={machine}"), usize::MAX).await?.pop())
}
