//! `demo --crash`: the server is killed in the middle of a step, and the runs resume.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::pb;
use crate::pb::{RunPhase, StepState};

use super::super::super::error::{Error, Exit};
use super::super::super::local::LocalServer;
use super::super::super::output::{Meaning, Progress, write_line};
use super::super::super::session::Session;
use super::super::super::watch::{RunWatch, Seen};
use super::transcript::{Carry, last_run, say};

/// Machines on which runs are in progress when the server dies.
const MACHINES: [&str; 3] = ["machine-1", "machine-2", "machine-3"];

/// The demo's own directory, removed at the end.
struct DataDir(PathBuf);

impl DataDir {
    fn create() -> Result<Self, Error> {
        let path = std::env::temp_dir().join(format!("bmdemo-crash-{}", std::process::id()));
        std::fs::create_dir_all(&path).map_err(|error| Error::Local {
            message: format!("cannot make the directory {}", path.display()),
            hint: Some("set TMPDIR to a directory that can be written".to_owned()),
            source: Some(error.into()),
        })?;
        Ok(Self(path))
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for DataDir {
    fn drop(&mut self) {
        // What cannot be removed is left to the cleanup of the temporary directory.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What is known of the runs.
#[derive(Default)]
struct Runs {
    latest: BTreeMap<String, pb::Run>,
    shown: BTreeMap<String, Progress>,
    /// Steps that were done when the server died, with attempt and end.
    done_before: Vec<(String, pb::StepStatus)>,
}

pub(super) async fn play(
    session: &mut Session,
    verbose: bool,
    carry: Carry,
) -> Result<Exit, Error> {
    if session.server_given {
        return Err(Error::usage("--crash starts and kills its own server", "remove --server"));
    }
    let data = DataDir::create()?;
    let clock = session.ui.clock();
    let server = LocalServer::start(&server_args(data.path(), "0"), verbose, &*clock).await?;
    let port = server.address.rsplit(':').next().unwrap_or("0").to_owned();
    session.use_server(server.address.clone());

    say(session, "A server with a data directory, and three machines with runs in progress.")?;
    carry.enter(session, &["import", "3"]).await?;
    for machine in MACHINES {
        carry.enter(session, &["repave", machine, "--detach"]).await?;
    }
    let mut runs = Runs::default();
    let mut watch = RunWatch::new(session.client().await?, clock.clone(), String::new());
    let mut server = Some(server);
    loop {
        match watch.next().await? {
            Seen::Event(event) => {
                if let Some(run) = event.snapshot {
                    runs.show(session, run)?;
                }
            }
            Seen::Reset => {}
            Seen::Lost => session.ui.note("connection lost, reconnecting…"),
            Seen::Ended => watch.lose(),
        }
        if runs.done_before.is_empty()
            && let Some(step) = runs.midway()
        {
            if let Some(server) = server.take() {
                server.kill().await?;
            }
            runs.remember();
            announce(session, &format!("kill -9: the server dies in the middle of {step}"))?;
            let since = clock.monotonic();
            server =
                Some(LocalServer::start(&server_args(data.path(), &port), verbose, &*clock).await?);
            let took = clock.monotonic().saturating_sub(since).as_secs_f64();
            announce(
                session,
                &format!("a new server listens after {took:.1}s, on the same data directory"),
            )?;
        }
        if runs.all_ended() {
            break;
        }
    }
    writeln!(session.ui.out())?;
    carry.enter(session, &["runs"]).await?;
    let exit = runs.verdict(session).await?;
    if let Some(server) = server {
        server.kill().await?;
    }
    Ok(exit)
}

fn server_args(data: &Path, port: &str) -> Vec<String> {
    let data = data.display().to_string();
    ["--data-dir", &data, "--port", port, "--seed", "42"].map(str::to_owned).to_vec()
}

fn announce(session: &mut Session, text: &str) -> Result<(), Error> {
    let line = session.ui.look.paint(Meaning::Attention, &format!("*** {text}"));
    writeln!(session.ui.out(), "{line}")?;
    session.ui.flush()?;
    Ok(())
}

impl Runs {
    /// Prints what is new, each line with its machine in front.
    fn show(&mut self, session: &mut Session, run: pb::Run) -> Result<(), Error> {
        let look = session.ui.look;
        let progress = self.shown.entry(run.run_id.clone()).or_default();
        for line in progress.advance(&run) {
            write!(session.ui.out(), "{}  ", look.paint(Meaning::Dim, &run.machine_id))?;
            write_line(session.ui.out(), look, &line)?;
        }
        session.ui.flush()?;
        self.latest.insert(run.run_id.clone(), run);
        Ok(())
    }

    /// The step to kill the server in: a destructive one in flight, once every run has a finished step.
    fn midway(&self) -> Option<String> {
        let has_done =
            |run: &pb::Run| run.steps.iter().any(|step| step.state() == StepState::Succeeded);
        if self.latest.len() < MACHINES.len() || !self.latest.values().all(has_done) {
            return None;
        }
        self.latest.values().find_map(|run| {
            let acting = |step: &&pb::StepStatus| {
                step.destructive
                    && step.state() == StepState::Running
                    && matches!(
                        step.activity(),
                        pb::StepActivity::Acting | pb::StepActivity::Polling
                    )
            };
            run.steps.iter().find(acting).map(|step| format!("{} on {}", step.name, run.machine_id))
        })
    }

    fn remember(&mut self) {
        for run in self.latest.values() {
            let done = run.steps.iter().filter(|step| step.state() == StepState::Succeeded);
            self.done_before.extend(done.map(|step| (run.run_id.clone(), step.clone())));
        }
    }

    fn all_ended(&self) -> bool {
        let ended = |run: &pb::Run| {
            matches!(run.phase(), RunPhase::Succeeded | RunPhase::Failed | RunPhase::Canceled)
        };
        self.latest.len() >= MACHINES.len() && self.latest.values().all(ended)
    }

    /// Says whether the promise was kept, from the records of the new server.
    async fn verdict(&self, session: &mut Session) -> Result<Exit, Error> {
        let mut repeated = 0;
        let mut succeeded = 0;
        for machine in MACHINES {
            let Some(run) = last_run(session, machine).await? else { continue };
            succeeded += usize::from(
                run.phase() == RunPhase::Succeeded && self.latest.contains_key(&run.run_id),
            );
            for (_, before) in self.done_before.iter().filter(|(id, _)| *id == run.run_id) {
                let same = run.steps.iter().any(|after| {
                    after.name == before.name
                        && after.attempt == before.attempt
                        && after.finished_at == before.finished_at
                });
                repeated += usize::from(!same);
            }
        }
        let kept = succeeded == MACHINES.len() && repeated == 0 && !self.done_before.is_empty();
        let look = session.ui.look;
        let glyph = if kept {
            look.paint(Meaning::Good, look.good())
        } else {
            look.paint(Meaning::Bad, look.bad())
        };
        writeln!(
            session.ui.out(),
            "{glyph} {succeeded} of {} runs resumed and succeeded; of {} steps done before the crash {repeated} were repeated",
            MACHINES.len(),
            self.done_before.len()
        )?;
        Ok(if kept { Exit::Ok } else { Exit::RunFailed })
    }
}
