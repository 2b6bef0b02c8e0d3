//! A session in this process: the server in memory, virtual time.

use tokio_util::sync::CancellationToken;

use super::super::super::client::Client;
use super::super::super::error::{Error, Exit};
use super::super::super::local::{Pace, Stage, StageError, perform};
use super::super::super::session::Session;

/// Seed of everything random on a stage: ids, and the fake provider's choices.
const STAGE_SEED: u64 = 42;

/// Most runs in progress at a time.
const RUNS_MAX: usize = 8;

/// Plays `act` in virtual time against a server in this process, whose fake provider fails as `script` says. The same
/// act always prints the same. On a terminal it takes the time that it shows; Ctrl-C ends it.
pub(super) async fn on_stage(
    session: &mut Session,
    script: String,
    act: impl AsyncFnOnce(&mut Session) -> Result<Exit, Error> + Send + 'static,
) -> Result<Exit, Error> {
    let left = session.ui.left();
    let (wake, woken) = std::sync::mpsc::channel();
    let pace = if session.ui.io().stdout_is_terminal { Pace::Real(woken) } else { Pace::None };
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    let mut actor = session.leave();
    let mut played = tokio::task::spawn_blocking(move || {
        let played = perform(pace, async |clock| {
            let result = tokio::select! {
                biased;
                () = stopped.cancelled() => Ok(Exit::Interrupted),
                result = async {
                    let stage = Stage::start(clock, STAGE_SEED, &script, RUNS_MAX).await.map_err(not_staged)?;
                    let channel = stage.connect().await.map_err(not_staged)?;
                    actor.enter(stage.clock(), STAGE_SEED, |target, clock, random| {
                        Client::over(channel, "the demo's own server", target, clock, random)
                    });
                    act(&mut actor).await
                } => result,
            };
            (actor, result)
        });
        played.map_err(not_staged)
    });
    let played = tokio::select! {
        played = &mut played => played,
        () = left => {
            stop.cancel();
            // This wakes whatever waits for real time to pass; nothing waits at the end.
            let _ = wake.send(());
            played.await
        }
    };
    let (actor, result) = played.map_err(|error| Error::Answer(error.to_string()))??;
    session.take_back(actor);
    result
}

fn not_staged(error: StageError) -> Error {
    Error::Local {
        message: "cannot play a session in this process".to_owned(),
        hint: None,
        source: Some(error.into()),
    }
}
