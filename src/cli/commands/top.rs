//! `top`

use std::pin::pin;

use clap::Args;
use tokio::sync::mpsc::UnboundedReceiver;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{Fleet, RATE_MS, View, board, lock_line, write_run};
use super::super::query::Selection;
use super::super::screen::{Key, Screen, keys};
use super::super::session::Session;
use super::super::ui::TICK;
use super::super::watch::{MachineWatch, READ_AGAIN, RunWatch, Seen};

/// Time between two questions what is stopped.
const ASK: std::time::Duration = std::time::Duration::from_secs(2);

/// Rows of a screen that is only printed once.
const ROWS_PRINTED: usize = 60;

/// Show the fleet live: counts, rates, runs in progress, what needs a person.
///
/// q quits, / filters by words, Up and Down choose a run, Enter opens it. In a pipe it prints the present state once.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli top
  bmdemo-cli top -l rack=r1
  bmdemo-cli top --once
  bmdemo-cli repave -l rack=r1 --detach --yes && bmdemo-cli top -l rack=r1 --until-idle")]
pub(crate) struct TopArgs {
    #[command(flatten)]
    selection: Selection,
    /// Print the present state and exit
    #[arg(long)]
    once: bool,
    /// Exit once no run is in progress, and print the final state
    #[arg(long, conflicts_with = "once")]
    until_idle: bool,
}

pub(crate) async fn top(session: &mut Session, args: &TopArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let clock = session.ui.clock();
    let filter = args.selection.to_filter()?;
    let recent = format!("phase = PENDING OR phase = RUNNING OR finished_at > -{}ms", RATE_MS);
    let mut top = Top {
        client: client.clone(),
        machines: MachineWatch::new(client.clone(), clock.clone(), filter.clone()),
        runs: RunWatch::new(client.clone(), clock.clone(), recent),
        fleet: Fleet { only_these: !filter.is_empty(), ..Fleet::default() },
        view: View { server: client.address.clone(), ..View::default() },
        open: None,
        above: 0,
    };
    top.load().await?;
    top.ask_what_is_stopped(session).await;
    let live = session.ui.is_live() && !args.once;
    if !live {
        let mut exit = Exit::Ok;
        if args.until_idle {
            exit = top.until_idle(session).await?;
            top.renew(MachineWatch::new(client, clock, filter)).await?;
        }
        top.print(session)?;
        return Ok(exit);
    }
    let screen = Screen::open(&mut session.ui)?;
    let pressed = keys(&mut session.ui);
    top.view.keys = session.ui.io().stdin_is_terminal;
    let (screen, exit) = top.show(session, screen, pressed, args.until_idle).await?;
    screen.close(&mut session.ui)?;
    if args.until_idle {
        top.renew(MachineWatch::new(client, clock, filter)).await?;
        top.print(session)?;
    }
    Ok(exit)
}

struct Top {
    client: Client,
    machines: MachineWatch,
    runs: RunWatch,
    fleet: Fleet,
    view: View,
    /// The run that is open.
    open: Option<String>,
    /// How many of its lines are scrolled off the top.
    above: usize,
}

impl Top {
    /// Fetches the machines again: the two watches are independent, and the last changes of the machines may not have
    /// arrived when the last run has ended.
    async fn renew(&mut self, machines: MachineWatch) -> Result<(), Error> {
        self.machines = machines;
        self.fleet.machines.clear();
        self.load_machines().await
    }

    /// Fetches the present state.
    async fn load(&mut self) -> Result<(), Error> {
        self.load_machines().await?;
        self.load_runs().await
    }

    /// Asks what is stopped: nothing of that is in the records that are watched.
    async fn ask_what_is_stopped(&mut self, session: &Session) {
        // The watches say if the server cannot be reached.
        let Ok(facts) = self.client.server_facts().await else { return };
        let (look, now_ms) = (session.ui.look, session.ui.now_ms());
        let locks = facts.info.map(|info| info.locks).unwrap_or_default();
        let stop = locks.iter().find(|lock| lock.kind() == pb::LockKind::Stop);
        self.view.stopped = stop.map(|stop| lock_line(look, stop, now_ms)).unwrap_or_default();
    }

    async fn load_machines(&mut self) -> Result<(), Error> {
        let mut synced = false;
        while !synced {
            match self.machines.next().await? {
                Seen::Event(event) => {
                    synced = event.r#type() == pb::MachineEventType::Synced;
                    self.machine(*event);
                }
                Seen::Lost => {}
                Seen::Reset => self.fleet.machines.clear(),
                Seen::Ended => self.machines.lose(),
            }
        }
        Ok(())
    }

    async fn load_runs(&mut self) -> Result<(), Error> {
        let mut synced = false;
        while !synced {
            match self.runs.next().await? {
                Seen::Event(event) => {
                    synced = event.r#type() == pb::RunEventType::Synced;
                    self.run(*event);
                }
                Seen::Lost => {}
                Seen::Reset => self.fleet.runs.clear(),
                Seen::Ended => self.runs.lose(),
            }
        }
        Ok(())
    }

    fn machine(&mut self, event: pb::MachineEvent) {
        self.view.note.clear();
        let is_removed = event.r#type() == pb::MachineEventType::Removed;
        let Some(machine) = event.snapshot else { return };
        if is_removed {
            self.fleet.machines.remove(&machine.machine_id);
        } else {
            self.fleet.machines.insert(machine.machine_id.clone(), machine);
        }
    }

    fn run(&mut self, event: pb::RunEvent) {
        self.view.note.clear();
        let is_removed = event.r#type() == pb::RunEventType::Removed;
        let Some(run) = event.snapshot else { return };
        if is_removed {
            self.fleet.runs.remove(&run.run_id);
        } else {
            self.fleet.runs.insert(run.run_id.clone(), run);
        }
    }

    /// Drops runs that ended before the window of the rates, except the open one.
    fn forget(&mut self, now_ms: u64) {
        let now_ms = i64::try_from(now_ms).unwrap_or(i64::MAX);
        let open = self.open.as_deref();
        self.fleet.runs.retain(|id, run| {
            let ended = super::super::output::instant(run.finished_at.as_ref());
            ended.is_none_or(|ended| now_ms - ended <= RATE_MS) || open == Some(id.as_str())
        });
    }

    fn is_idle(&self) -> bool {
        self.fleet.active("").is_empty()
    }

    async fn next(&mut self) -> Result<(), Error> {
        tokio::select! {
            biased;
            seen = self.runs.next() => match seen? {
                Seen::Event(event) => self.run(*event),
                Seen::Lost => "connection lost, reconnecting…".clone_into(&mut self.view.note),
                Seen::Reset => {
                    self.fleet.runs.clear();
                    self.view.again = READ_AGAIN;
                    // An idle fleet is one whose runs have all been sent.
                    self.load_runs().await?;
                }
                Seen::Ended => self.runs.lose(),
            },
            seen = self.machines.next() => match seen? {
                Seen::Event(event) => self.machine(*event),
                Seen::Lost => "connection lost, reconnecting…".clone_into(&mut self.view.note),
                Seen::Reset => {
                    self.fleet.machines.clear();
                    self.view.again = READ_AGAIN;
                }
                Seen::Ended => self.machines.lose(),
            },
        }
        Ok(())
    }

    /// Waits until no run is in progress, or for Ctrl-C.
    async fn until_idle(&mut self, session: &Session) -> Result<Exit, Error> {
        let mut interrupted = pin!(session.ui.interrupted());
        while !self.is_idle() {
            tokio::select! {
                () = &mut interrupted => return Ok(Exit::Interrupted),
                next = self.next() => next?,
            }
        }
        Ok(Exit::Ok)
    }

    /// Prints the present state once.
    fn print(&mut self, session: &mut Session) -> Result<(), Error> {
        self.view.keys = false;
        let (look, now_ms) = (session.ui.look, session.ui.now_ms());
        for line in board(look, ROWS_PRINTED, &self.fleet, &self.view, now_ms) {
            writeln!(session.ui.out(), "{}", line.trim_end())?;
        }
        Ok(())
    }

    /// Repaints until it is over; restores the terminal.
    async fn show(
        &mut self,
        session: &mut Session,
        mut screen: Screen,
        mut pressed: UnboundedReceiver<Key>,
        until_idle: bool,
    ) -> Result<(Screen, Exit), Error> {
        let clock = session.ui.clock();
        let mut interrupted = pin!(session.ui.left());
        // Changes are collected between two repaints.
        let mut painting = pin!(clock.sleep(std::time::Duration::ZERO));
        let mut asking = pin!(clock.sleep(ASK));
        loop {
            tokio::select! {
                biased;
                () = &mut interrupted => return Ok((screen, Exit::Interrupted)),
                Some(key) = pressed.recv() => {
                    if self.press(key) {
                        return Ok((screen, Exit::Ok));
                    }
                    self.paint(session, &mut screen)?;
                }
                () = &mut painting => {
                    self.forget(session.ui.now_ms());
                    self.paint(session, &mut screen)?;
                    if until_idle && self.is_idle() {
                        return Ok((screen, Exit::Ok));
                    }
                    painting.set(clock.sleep(TICK * 2));
                }
                () = &mut asking => {
                    self.ask_what_is_stopped(session).await;
                    asking.set(clock.sleep(ASK));
                }
                next = self.next() => next?,
            }
        }
    }

    fn paint(&mut self, session: &mut Session, screen: &mut Screen) -> Result<(), Error> {
        let (columns, rows) = Screen::size(&session.ui);
        let (mut look, now_ms) = (session.ui.look, session.ui.now_ms());
        look.columns = Some(columns);
        let open = self.open.as_ref().and_then(|id| self.fleet.runs.get(id));
        let lines = match open {
            None => board(look, rows, &self.fleet, &self.view, now_ms),
            Some(run) => {
                let mut text = Vec::new();
                write_run(&mut text, look, run, now_ms)?;
                let text = String::from_utf8_lossy(&text).into_owned();
                let room = rows.saturating_sub(1);
                self.above = self.above.min(text.lines().count().saturating_sub(room));
                let shown = text.lines().skip(self.above).take(room);
                let mut lines: Vec<String> = shown.map(str::to_owned).collect();
                lines.push("Esc back  Up Down scroll  q quit".to_owned());
                lines
            }
        };
        Ok(screen.paint(&mut session.ui, &lines)?)
    }

    /// Handles a key; returns whether it ends the screen.
    fn press(&mut self, key: Key) -> bool {
        if self.view.typing {
            match key {
                Key::Char(c) => self.view.wanted.push(c),
                Key::Backspace => drop(self.view.wanted.pop()),
                Key::Enter => self.view.typing = false,
                Key::Escape => {
                    self.view.wanted.clear();
                    self.view.typing = false;
                }
                Key::Up | Key::Down => {}
            }
            self.view.chosen = 0;
            return false;
        }
        let last = self.fleet.active(&self.view.wanted).len().saturating_sub(1);
        match key {
            Key::Char('q') => return true,
            Key::Escape if self.open.is_some() => self.open = None,
            Key::Up | Key::Char('k') if self.open.is_some() => {
                self.above = self.above.saturating_sub(1);
            }
            Key::Down | Key::Char('j') if self.open.is_some() => self.above += 1,
            Key::Enter if self.open.is_some() => {}
            Key::Escape => self.view.wanted.clear(),
            Key::Char('/') if self.open.is_none() => self.view.typing = true,
            Key::Up | Key::Char('k') => {
                self.view.chosen = self.view.chosen.min(last).saturating_sub(1)
            }
            Key::Down | Key::Char('j') => self.view.chosen = (self.view.chosen + 1).min(last),
            Key::Enter => {
                let active = self.fleet.active(&self.view.wanted);
                self.above = 0;
                self.open = active.get(self.view.chosen.min(last)).map(|run| run.run_id.clone());
            }
            Key::Char(_) | Key::Backspace => {}
        }
        false
    }
}
