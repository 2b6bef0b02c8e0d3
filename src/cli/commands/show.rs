//! Printing what a command fetched, in the form that was asked for.

use crate::pb;

use super::super::Context;
use super::super::args::Format;
use super::super::error::{Error, Exit};
use super::super::output::{
    DataForm, write_list, write_machines, write_one, write_plans, write_runs,
};

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
    ctx: &mut Context,
    machines: &[pb::Machine],
    format: Format,
) -> Result<Exit, Error> {
    let look = ctx.ui.look;
    match format.data() {
        Some(form) => write_list(ctx.ui.out(), form, machines)?,
        None => write_machines(ctx.ui.out(), look, machines, format == Format::Wide)?,
    }
    Ok(Exit::Ok)
}

pub(crate) fn machine(
    ctx: &mut Context,
    machine: &pb::Machine,
    format: Format,
) -> Result<Exit, Error> {
    match format.data() {
        Some(form) => write_one(ctx.ui.out(), form, machine)?,
        None => return machines(ctx, std::slice::from_ref(machine), format),
    }
    Ok(Exit::Ok)
}

pub(crate) fn runs(ctx: &mut Context, runs: &[pb::Run], format: Format) -> Result<Exit, Error> {
    let (look, now_ms) = (ctx.ui.look, ctx.ui.now_ms());
    match format.data() {
        Some(form) => write_list(ctx.ui.out(), form, runs)?,
        None => write_runs(ctx.ui.out(), look, runs, now_ms, format == Format::Wide)?,
    }
    Ok(Exit::Ok)
}

pub(crate) fn run(ctx: &mut Context, run: &pb::Run, format: Format) -> Result<Exit, Error> {
    match format.data() {
        Some(form) => write_one(ctx.ui.out(), form, run)?,
        None => return runs(ctx, std::slice::from_ref(run), format),
    }
    Ok(Exit::Ok)
}

pub(crate) fn plans(ctx: &mut Context, plans: &[pb::Plan], format: Format) -> Result<Exit, Error> {
    let look = ctx.ui.look;
    match format.data() {
        Some(form) => write_list(ctx.ui.out(), form, plans)?,
        None => write_plans(ctx.ui.out(), look, plans)?,
    }
    Ok(Exit::Ok)
}
