//! `--watch` on lists, until Ctrl-C: repainted in place on a terminal, a row for every change in a pipe.

use std::collections::{HashMap, HashSet};
use std::pin::pin;

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::{Format, OutputArgs};
use super::super::output::{
    Columned, DataForm, cut, sanitized, write_csv_header, write_csv_rows, write_machine_row,
    write_machines, write_one, write_run_row, write_runs,
};
use super::super::screen::Screen;
use super::super::session::Session;
use super::super::ui::TICK;
use super::super::watch::{MachineWatch, READ_AGAIN, RunWatch, STARTED_OVER, Seen};
use super::show;

/// One record per line in every form; a single document cannot be streamed.
fn line_form(format: &Format) -> Option<DataForm> {
    match format.data() {
        Some(DataForm::Json | DataForm::Jsonl) => Some(DataForm::Jsonl),
        other => other,
    }
}

/// Whether the list is repainted in place.
fn is_repainted(session: &Session, args: &OutputArgs) -> bool {
    session.ui.is_live() && !args.output.is_data() && args.columns.is_empty()
}

/// Refuses forms of output that cannot be streamed.
fn check<T: Columned>(args: &OutputArgs) -> Result<(), Error> {
    show::check_columns::<T>(args)?;
    if matches!(args.output, Format::JsonPath(_))
        || (!args.columns.is_empty() && args.output != Format::Csv)
    {
        return Err(Error::usage(
            "this form cannot be streamed",
            "with --watch use jsonl, csv, name, yaml or a table without --columns",
        ));
    }
    Ok(())
}

/// Shows the runs that match, of these machines if any are named, and every change.
pub(crate) async fn runs(
    session: &mut Session,
    filter: String,
    machines: Option<HashSet<String>>,
    args: &OutputArgs,
) -> Result<Exit, Error> {
    check::<pb::Run>(args)?;
    let client = session.client().await?;
    let mut watch = RunWatch::new(client, session.ui.clock(), filter);
    let mut list = List::<pb::Run>::begin(session, args)?;
    let mut interrupted = pin!(session.ui.left());
    let clock = session.ui.clock();
    loop {
        let seen = tokio::select! {
            biased;
            () = &mut interrupted => return list.end(session),
            seen = watch.next() => seen?,
            () = clock.sleep(TICK * 10), if list.screen.is_some() => {
                list.paint(session)?;
                continue;
            }
        };
        match seen {
            Seen::Event(event) => {
                let is_removed = event.r#type() == pb::RunEventType::Removed;
                let Some(run) = event.snapshot else { continue };
                if machines.as_ref().is_some_and(|machines| !machines.contains(&run.machine_id)) {
                    continue;
                }
                if is_removed {
                    list.remove(&run.run_id);
                    continue;
                }
                let (id, revision) = (run.run_id.clone(), run.revision);
                list.see(session, id, revision, run)?;
            }
            Seen::Lost => list.note(session, "connection lost, reconnecting…"),
            Seen::Reset => list.start_over(session),
            Seen::Ended => watch.lose(),
        }
    }
}

/// Shows the machines that match, and every change.
pub(crate) async fn machines(
    session: &mut Session,
    filter: String,
    args: &OutputArgs,
) -> Result<Exit, Error> {
    check::<pb::Machine>(args)?;
    let client = session.client().await?;
    let mut watch = MachineWatch::new(client, session.ui.clock(), filter);
    let mut list = List::<pb::Machine>::begin(session, args)?;
    let mut interrupted = pin!(session.ui.left());
    let clock = session.ui.clock();
    loop {
        let seen = tokio::select! {
            biased;
            () = &mut interrupted => return list.end(session),
            seen = watch.next() => seen?,
            () = clock.sleep(TICK * 10), if list.screen.is_some() => {
                list.paint(session)?;
                continue;
            }
        };
        match seen {
            Seen::Event(event) => {
                let is_removed = event.r#type() == pb::MachineEventType::Removed;
                let Some(machine) = event.snapshot else { continue };
                if is_removed {
                    list.remove(&machine.machine_id);
                    if list.screen.is_none() {
                        session
                            .ui
                            .note(&format!("{} no longer matches", sanitized(&machine.machine_id)));
                    }
                    continue;
                }
                let (id, revision) = (machine.machine_id.clone(), machine.revision);
                list.see(session, id, revision, machine)?;
            }
            Seen::Lost => list.note(session, "connection lost, reconnecting…"),
            Seen::Reset => list.start_over(session),
            Seen::Ended => watch.lose(),
        }
    }
}

/// A record in a list that is watched.
trait Row: Columned + super::super::output::Record + Sized {
    fn write_table(session: &mut Session, rows: &[Self], wide: bool) -> Result<(), Error>;
    fn write_row(&self, session: &mut Session, wide: bool) -> Result<(), Error>;
    /// The table as lines, without writing it.
    fn lines(session: &Session, columns: usize, rows: &[Self], wide: bool)
    -> Result<String, Error>;
}

fn text_of(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> Result<String, Error> {
    let mut text = Vec::new();
    write(&mut text)?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

impl Row for pb::Run {
    fn write_table(session: &mut Session, rows: &[Self], wide: bool) -> Result<(), Error> {
        let (look, now_ms) = (session.ui.look, session.ui.now_ms());
        Ok(write_runs(session.ui.out(), look, rows, now_ms, wide)?)
    }

    fn write_row(&self, session: &mut Session, wide: bool) -> Result<(), Error> {
        let (look, now_ms) = (session.ui.look, session.ui.now_ms());
        Ok(write_run_row(session.ui.out(), look, self, now_ms, wide)?)
    }

    fn lines(
        session: &Session,
        columns: usize,
        rows: &[Self],
        wide: bool,
    ) -> Result<String, Error> {
        let mut look = session.ui.look;
        look.columns = Some(columns);
        text_of(|out| write_runs(out, look, rows, session.ui.now_ms(), wide))
    }
}

impl Row for pb::Machine {
    fn write_table(session: &mut Session, rows: &[Self], wide: bool) -> Result<(), Error> {
        let look = session.ui.look;
        Ok(write_machines(session.ui.out(), look, rows, wide)?)
    }

    fn write_row(&self, session: &mut Session, wide: bool) -> Result<(), Error> {
        let look = session.ui.look;
        Ok(write_machine_row(session.ui.out(), look, self, wide)?)
    }

    fn lines(
        session: &Session,
        columns: usize,
        rows: &[Self],
        wide: bool,
    ) -> Result<String, Error> {
        let mut look = session.ui.look;
        look.columns = Some(columns);
        text_of(|out| write_machines(out, look, rows, wide))
    }
}

/// A list that is watched.
struct List<'a, T> {
    args: &'a OutputArgs,
    /// The screen, where the list is repainted; absent where rows are appended.
    screen: Option<Screen>,
    /// The rows, in the order in which they were first seen. Only what a screen shows.
    rows: Vec<(String, T)>,
    revisions: HashMap<String, u64>,
    note: String,
    /// Whether the list was read again.
    again: bool,
}

impl<'a, T: Row + Clone> List<'a, T> {
    fn begin(session: &mut Session, args: &'a OutputArgs) -> Result<Self, Error> {
        let screen =
            if is_repainted(session, args) { Some(Screen::open(&mut session.ui)?) } else { None };
        if screen.is_none() && args.output == Format::Csv {
            write_csv_header::<T>(session.ui.out(), &args.columns)?;
        } else if screen.is_none() && line_form(&args.output).is_none() {
            T::write_table(session, &[], args.output == Format::Wide)?;
        }
        session.ui.flush()?;
        let (rows, revisions, note) = (Vec::new(), HashMap::new(), String::new());
        Ok(Self { args, screen, rows, revisions, note, again: false })
    }

    fn see(
        &mut self,
        session: &mut Session,
        id: String,
        revision: u64,
        record: T,
    ) -> Result<(), Error> {
        self.note.clear();
        // A reconnect may start over with snapshots that are already known.
        if self.revisions.get(&id).is_some_and(|known| *known >= revision) {
            return Ok(());
        }
        self.revisions.insert(id.clone(), revision);
        if self.screen.is_some() {
            match self.rows.iter_mut().find(|(known, _)| *known == id) {
                Some((_, row)) => *row = record,
                None => self.rows.push((id, record)),
            }
            return self.paint(session);
        }
        let now_ms = session.ui.now_ms();
        if self.args.output == Format::Csv {
            write_csv_rows(session.ui.out(), &[record], &self.args.columns, now_ms)?;
        } else {
            match line_form(&self.args.output) {
                Some(form) => write_one(session.ui.out(), form, &record)?,
                None => record.write_row(session, self.args.output == Format::Wide)?,
            }
        }
        session.ui.flush()?;
        Ok(())
    }

    fn remove(&mut self, id: &str) {
        self.revisions.remove(id);
        self.rows.retain(|(known, _)| known != id);
    }

    /// Drops the rows: the server sends the present state.
    fn start_over(&mut self, session: &mut Session) {
        self.rows.clear();
        self.revisions.clear();
        self.again = true;
        if self.screen.is_none() {
            session.ui.note(STARTED_OVER);
        }
    }

    fn note(&mut self, session: &mut Session, text: &str) {
        if self.screen.is_some() {
            text.clone_into(&mut self.note);
        } else {
            session.ui.note(text);
        }
    }

    /// Paints the newest rows that fit, under their header.
    fn paint(&mut self, session: &mut Session) -> Result<(), Error> {
        let Some(screen) = &mut self.screen else { return Ok(()) };
        let (columns, height) = Screen::size(&session.ui);
        let room = height.saturating_sub(2);
        let hidden = self.rows.len().saturating_sub(room.saturating_sub(1));
        let shown: Vec<T> = self.rows[hidden..].iter().map(|(_, row)| row.clone()).collect();
        let text = T::lines(session, columns, &shown, self.args.output == Format::Wide)?;
        let mut lines: Vec<String> = text.lines().take(room).map(str::to_owned).collect();
        let mut foot = String::new();
        if hidden > 0 {
            foot = format!("{hidden} older ones are not shown.  ");
        }
        foot.push_str(if self.note.is_empty() { "Ctrl-C ends it" } else { &self.note });
        if self.again {
            foot.push_str(&format!("  ({READ_AGAIN})"));
        }
        lines.push(cut(session.ui.look, &foot, columns));
        Ok(screen.paint(&mut session.ui, &lines)?)
    }

    /// Ends the list, leaving its last state on the terminal.
    fn end(self, session: &mut Session) -> Result<Exit, Error> {
        if let Some(screen) = self.screen {
            screen.close(&mut session.ui)?;
            let rows: Vec<T> = self.rows.into_iter().map(|(_, row)| row).collect();
            T::write_table(session, &rows, self.args.output == Format::Wide)?;
        }
        Ok(Exit::Interrupted)
    }
}
