//! Printing what a command fetched, in the form that was asked for.

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::flags::Format;
use super::super::output::{
    DataForm, write_list, write_machines, write_one, write_plans, write_runs,
};
use super::super::session::Session;

impl Format {
    /// The form for programs, if it is one.
    pub(crate) fn data(self) -> Option<DataForm> {
        match self {
            Self::Table | Self::Wide => None,
            Self::Json => Some(DataForm::Json),
            Self::Jsonl => Some(DataForm::Jsonl),
            Self::Yaml => Some(DataForm::Yaml),
            Self::Name => Some(DataForm::Name),
        }
    }
}

pub(crate) fn machines(
    session: &mut Session,
    machines: &[pb::Machine],
    format: Format,
) -> Result<Exit, Error> {
    let look = session.ui.look;
    match format.data() {
        Some(form) => write_list(session.ui.out(), form, machines)?,
        None => write_machines(session.ui.out(), look, machines, format == Format::Wide)?,
    }
    Ok(Exit::Ok)
}

pub(crate) fn machine(
    session: &mut Session,
    machine: &pb::Machine,
    format: Format,
) -> Result<Exit, Error> {
    match format.data() {
        Some(form) => write_one(session.ui.out(), form, machine)?,
        None => return machines(session, std::slice::from_ref(machine), format),
    }
    Ok(Exit::Ok)
}

pub(crate) fn runs(session: &mut Session, runs: &[pb::Run], format: Format) -> Result<Exit, Error> {
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    match format.data() {
        Some(form) => write_list(session.ui.out(), form, runs)?,
        None => write_runs(session.ui.out(), look, runs, now_ms, format == Format::Wide)?,
    }
    Ok(Exit::Ok)
}

pub(crate) fn run(session: &mut Session, run: &pb::Run, format: Format) -> Result<Exit, Error> {
    match format.data() {
        Some(form) => write_one(session.ui.out(), form, run)?,
        None => return runs(session, std::slice::from_ref(run), format),
    }
    Ok(Exit::Ok)
}

pub(crate) fn plans(
    session: &mut Session,
    plans: &[pb::Plan],
    format: Format,
) -> Result<Exit, Error> {
    let look = session.ui.look;
    match format.data() {
        Some(form) => write_list(session.ui.out(), form, plans)?,
        None => write_plans(session.ui.out(), look, plans)?,
    }
    Ok(Exit::Ok)
}
