//! `demo`: the main job in one command, as a transcript

mod crash;
mod fleet;
mod stage;
mod transcript;

use clap::Args;

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::local::LocalServer;
use super::super::session::Session;
use transcript::{last_run, say};

pub(crate) use transcript::{Carry, Typed};

/// Failure that the session needs: the first repave of machine-2 fails permanently, later ones do not.
const SCRIPT: &str = "machine=machine-2 step=repave do=fail-permanent times=1";

/// Play a session and print its transcript. Without --server it starts its own server, in memory and in virtual time,
/// and prints the same at every run. On a terminal it takes as long as the times it shows.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli demo\n  bmdemo-cli demo --crash\n  bmdemo-cli demo --fleet 40\n  bmdemo-cli demo --server localhost:50051"
)]
pub(crate) struct DemoArgs {
    /// Kill the server in the middle of a step, start it again, and show the runs resume
    #[arg(long)]
    crash: bool,
    /// Repave a rack of N machines with failures and retries, on the live screen where there is a terminal
    #[arg(long, value_name = "N", conflicts_with_all = ["crash", "verbose"], value_parser = clap::value_parser!(u32).range(1..=200))]
    fleet: Option<u32>,
    /// Start the demo's own server as a process, and show its log
    #[arg(long)]
    verbose: bool,
}

/// Plays the demo. `carry` runs its commands.
pub(crate) async fn demo(
    session: &mut Session,
    args: &DemoArgs,
    carry: Carry,
) -> Result<Exit, Error> {
    if let Some(count) = args.fleet {
        return fleet::play(session, count, carry).await;
    }
    if !args.crash && !args.verbose && !session.server_given {
        return stage::on_stage(session, SCRIPT.to_owned(), async move |session: &mut Session| {
            acts(session, carry).await.map(|()| Exit::Ok)
        })
        .await;
    }
    let interrupted = session.ui.interrupted();
    let play = async {
        if args.crash {
            crash::play(session, args.verbose, carry).await
        } else {
            play(session, args.verbose, carry).await
        }
    };
    tokio::select! {
        result = play => result,
        // The demo's own server dies with this future.
        () = interrupted => Ok(Exit::Interrupted),
    }
}

async fn play(session: &mut Session, verbose: bool, carry: Carry) -> Result<Exit, Error> {
    let server = if session.server_given {
        None
    } else {
        let args = ["--ephemeral", "--port", "0", "--seed", "42", "--fake-script", SCRIPT]
            .map(str::to_owned);
        let server = LocalServer::start(&args, verbose, &*session.ui.clock()).await?;
        session.use_server(server.address.clone());
        Some(server)
    };
    let played = acts(session, carry).await;
    if let Some(server) = server {
        server.kill().await?;
    }
    played?;
    Ok(Exit::Ok)
}

async fn acts(session: &mut Session, carry: Carry) -> Result<(), Error> {
    say(session, "Register three machines.")?;
    carry.enter(session, &["import", "3"]).await?;
    carry.enter(session, &["list"]).await?;
    say(session, "Image one and join it to its cluster.")?;
    carry.enter(session, &["repave", "machine-1"]).await?;
    carry.enter(session, &["list"]).await?;
    say(session, "A run that fails leaves the phase alone and asks for a person.")?;
    carry.enter(session, &["repave", "machine-2"]).await?;
    carry.enter(session, &["list", "-o", "wide"]).await?;
    carry.enter(session, &["machine", "describe", "machine-2"]).await?;
    if let Some(run) = last_run(session, "machine-2").await?
        && run.phase() == pb::RunPhase::Failed
    {
        say(
            session,
            "A retry repeats what did not succeed, and what that needs; its success clears NeedsIntervention.",
        )?;
        carry.enter(session, &["retry", &run.run_id]).await?;
        carry.enter(session, &["list", "-o", "wide"]).await?;
    }
    say(session, "Send one back to its manufacturer.")?;
    carry.enter(session, &["rma", "machine-1"]).await?;
    carry.enter(session, &["list"]).await?;
    say(session, "What ran, and what can run.")?;
    carry.enter(session, &["runs"]).await?;
    carry.enter(session, &["plans"]).await?;
    Ok(())
}
