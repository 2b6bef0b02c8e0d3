//! Printing what a command fetched, in the requested form.

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::{Format, OutputArgs};
use super::super::output::{
    Columned, DataForm, Record, hold, json_of, json_of_list, unknown_column, write_chosen,
    write_csv_header, write_csv_rows, write_list, write_machines, write_one, write_plans,
    write_runs,
};
use super::super::session::Session;

impl Format {
    /// The form for programs, if it is one that every record supports.
    pub(crate) fn data(&self) -> Option<DataForm> {
        match self {
            Self::Table | Self::Wide | Self::Csv | Self::JsonPath(_) => None,
            Self::Json => Some(DataForm::Json),
            Self::Jsonl => Some(DataForm::Jsonl),
            Self::Yaml => Some(DataForm::Yaml),
            Self::Name => Some(DataForm::Name),
        }
    }
}

/// Refuses columns that do not exist, before a command does anything.
pub(crate) fn check_columns<T: Columned>(args: &OutputArgs) -> Result<(), Error> {
    let labels = if T::LABELS { ", labels.KEY" } else { "" };
    match unknown_column::<T>(&args.columns) {
        None => Ok(()),
        Some(name) => Err(Error::usage(
            format!("there is no column {name:?}"),
            format!("the columns are {}{labels}", T::COLUMNS.join(", ")),
        )),
    }
}

/// Refuses what needs columns where there are none.
pub(crate) fn no_columns(args: &OutputArgs) -> Result<(), Error> {
    let given = match (args.columns.is_empty(), args.output == Format::Csv) {
        (true, false) => return Ok(()),
        (false, _) => "--columns",
        (true, true) => "-o csv",
    };
    Err(Error::usage(
        format!("{given} does not work here: there is no table"),
        "use -o json, -o jsonl or -o yaml",
    ))
}

/// Writes a list in a form that every record supports; returns whether the requested form is one.
pub(crate) fn listed<T: Record>(
    session: &mut Session,
    records: &[T],
    args: &OutputArgs,
) -> Result<bool, Error> {
    if let Format::JsonPath(template) = &args.output {
        let text = template.fill(&json_of_list(records)?);
        session.ui.out().write_all(text.as_bytes())?;
    } else if let Some(form) = args.output.data() {
        write_list(session.ui.out(), form, records)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Writes one record in a form that every record supports; returns whether the requested form is one.
fn single<T: Record>(session: &mut Session, record: &T, args: &OutputArgs) -> Result<bool, Error> {
    if let Format::JsonPath(template) = &args.output {
        let text = template.fill(&json_of(record)?);
        session.ui.out().write_all(text.as_bytes())?;
    } else if let Some(form) = args.output.data() {
        write_one(session.ui.out(), form, record)?;
    } else {
        return Ok(false);
    }
    Ok(true)
}

/// Writes a list as CSV or as a table of chosen columns; returns whether the requested form is one of these.
pub(crate) fn columned<T: Columned>(
    session: &mut Session,
    records: &[T],
    args: &OutputArgs,
) -> Result<bool, Error> {
    check_columns::<T>(args)?;
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    if args.output == Format::Csv {
        write_csv_header::<T>(session.ui.out(), &args.columns)?;
        write_csv_rows(session.ui.out(), records, &args.columns, now_ms)?;
    } else if args.columns.is_empty() {
        return Ok(false);
    } else {
        write_chosen(session.ui.out(), look, records, &args.columns, now_ms)?;
    }
    Ok(true)
}

pub(crate) fn machines(
    session: &mut Session,
    machines: &[pb::Machine],
    args: &OutputArgs,
) -> Result<Exit, Error> {
    if listed(session, machines, args)? || columned(session, machines, args)? {
        return Ok(Exit::Ok);
    }
    let look = session.ui.look;
    write_machines(session.ui.out(), look, machines, args.output == Format::Wide)?;
    let is_marked = |machine: &&pb::Machine| {
        machine.status.as_ref().is_some_and(|status| status.untrusted_disks.is_some())
    };
    let marked = machines.iter().filter(is_marked).count();
    if marked > 0 {
        session.ui.flush()?;
        session.ui.note(&format!(
            "! {marked} with disks that are not trusted: a step that destroys data did not succeed. See: bmdemo-cli issues"
        ));
    }
    Ok(Exit::Ok)
}

pub(crate) fn machine(
    session: &mut Session,
    machine: &pb::Machine,
    args: &OutputArgs,
) -> Result<Exit, Error> {
    if single(session, machine, args)? {
        return Ok(Exit::Ok);
    }
    machines(session, std::slice::from_ref(machine), args)
}

pub(crate) fn runs(
    session: &mut Session,
    runs: &[pb::Run],
    args: &OutputArgs,
) -> Result<Exit, Error> {
    if listed(session, runs, args)? || columned(session, runs, args)? {
        return Ok(Exit::Ok);
    }
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    write_runs(session.ui.out(), look, runs, now_ms, args.output == Format::Wide)?;
    let held = runs.iter().filter(|run| hold(run).is_some()).count();
    if held > 0 {
        session.ui.flush()?;
        session.ui.note(&format!("{held} held until an operator acts. See: bmdemo-cli issues"));
    }
    Ok(Exit::Ok)
}

pub(crate) fn run(session: &mut Session, run: &pb::Run, args: &OutputArgs) -> Result<Exit, Error> {
    if single(session, run, args)? {
        return Ok(Exit::Ok);
    }
    runs(session, std::slice::from_ref(run), args)
}

pub(crate) fn plans(
    session: &mut Session,
    plans: &[pb::Plan],
    args: &OutputArgs,
) -> Result<Exit, Error> {
    if !table(session, plans, args)? {
        let look = session.ui.look;
        write_plans(session.ui.out(), look, plans)?;
    }
    Ok(Exit::Ok)
}

/// One record for programs; returns whether the requested form is one of those.
pub(crate) fn one<T: Record + Columned>(
    session: &mut Session,
    record: &T,
    args: &OutputArgs,
) -> Result<bool, Error> {
    check_columns::<T>(args)?;
    Ok(single(session, record, args)? || columned(session, std::slice::from_ref(record), args)?)
}

/// Writes records for programs or as rows of columns; returns whether the requested form is one of those.
pub(crate) fn table<T: Record + Columned>(
    session: &mut Session,
    records: &[T],
    args: &OutputArgs,
) -> Result<bool, Error> {
    // Also where the form has no columns: a name that is none is a mistake.
    check_columns::<T>(args)?;
    Ok(listed(session, records, args)? || columned(session, records, args)?)
}
