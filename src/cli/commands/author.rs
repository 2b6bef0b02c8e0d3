//! For plan authors: `plan check`, `plan graph`, `plan new`, `plan explain`, `plan schema`

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};

use crate::files;
use crate::pb;
use crate::plan::limits::FILE_BYTES_MAX;
use crate::plan::{Actions, Plan, SourceFile, compile_actions, compile_with, render};

use super::super::error::{About, Error, Exit};
use super::super::output::{Drawing, schema_json, template, write_action, write_actions};
use super::super::resolve::nearest;
use super::super::session::Session;

/// Check plan files with the rules of the build, without a server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli plan check plans/*.toml")]
pub(crate) struct CheckArgs {
    /// TOML files, checked together: ids and defaults must be unique among them
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    #[command(flatten)]
    actions: ActionsArgs,
}

/// Which actions plans can use.
#[derive(Debug, Args)]
pub(crate) struct ActionsArgs {
    /// Folder with actions (*.toml) that the plans use, as the server's --actions-dir
    #[arg(long, value_name = "DIR")]
    actions_dir: Option<PathBuf>,
}

impl ActionsArgs {
    /// The built-in actions and those of the folder; `None` if one has a mistake, which is then printed.
    pub(crate) fn read(&self, session: &mut Session) -> Result<Option<Actions>, Error> {
        let Some(dir) = &self.actions_dir else { return Ok(Some(Actions::default())) };
        let unreadable = |error: std::io::Error| Error::Local {
            message: format!("cannot read {}", dir.display()),
            hint: None,
            source: Some(error.into()),
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(dir).map_err(unreadable)? {
            let path = entry.map_err(unreadable)?.path();
            let is_hidden =
                path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
            if !is_hidden && path.extension().is_some_and(|end| end.eq_ignore_ascii_case("toml")) {
                paths.push(path);
            }
        }
        paths.sort();
        let files = paths
            .iter()
            .map(|path| Ok((path.display().to_string(), read(path)?)))
            .collect::<Result<Vec<_>, Error>>()?;
        let sources: Vec<SourceFile<'_>> =
            files.iter().map(|(name, bytes)| SourceFile { name, bytes }).collect();
        match compile_actions(&sources) {
            Ok(actions) => Ok(Some(actions)),
            Err(diagnostics) => {
                let text = render(&sources, &diagnostics, session.ui.note_look.color);
                session.ui.err().write_all(text.as_bytes())?;
                Ok(None)
            }
        }
    }
}

/// Draw a plan from the server, or from a plan file.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli plan graph repave-join
  bmdemo-cli plan graph plans/upgrade.toml -o dot | dot -Tsvg > upgrade.svg")]
pub(crate) struct GraphArgs {
    /// Plan, with or without plan/, or a .toml file
    #[arg(value_name = "PLAN")]
    plan: String,
    /// Format of the drawing
    #[arg(short, long, value_name = "FORM", default_value = "mermaid")]
    output: GraphForm,
    #[command(flatten)]
    actions: ActionsArgs,
}

/// Format of a drawing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum GraphForm {
    /// For Markdown
    Mermaid,
    /// For Graphviz
    Dot,
}

/// Print a commented starter plan. It passes `plan check` as it is.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli plan new firmware-update > plans/firmware-update.toml"
)]
pub(crate) struct NewArgs {
    /// Name: lower-case letters, digits and -
    #[arg(value_name = "NAME")]
    name: String,
}

/// List the actions that plans can use, or explain one: what it does and its arguments.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli plan explain\n  bmdemo-cli plan explain wipe")]
pub(crate) struct ExplainArgs {
    /// Action; all of them if omitted
    #[arg(value_name = "ACTION")]
    action: Option<String>,
    #[command(flatten)]
    actions: ActionsArgs,
}

/// Print the JSON schema of plan files, for editors that complete and check TOML.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli plan schema > plans/schema.json")]
pub(crate) struct SchemaArgs {
    #[command(flatten)]
    actions: ActionsArgs,
}

pub(crate) fn read(path: &Path) -> Result<Vec<u8>, Error> {
    files::read(path, FILE_BYTES_MAX as u64).map_err(|error| Error::Local {
        message: format!("cannot read {}", path.display()),
        hint: None,
        source: Some(error.into()),
    })
}

pub(crate) fn check(session: &mut Session, args: &CheckArgs) -> Result<Exit, Error> {
    let files = args
        .files
        .iter()
        .map(|path| Ok((path.display().to_string(), read(path)?)))
        .collect::<Result<Vec<_>, Error>>()?;
    let Some(actions) = args.actions.read(session)? else { return Ok(Exit::Refused) };
    match compiled(&files, &actions, session.ui.note_look.color) {
        Ok(plans) => {
            for plan in plans {
                let steps = plan.steps.len();
                let noun = if steps == 1 { "step" } else { "steps" };
                writeln!(session.ui.out(), "{}: ok, {steps} {noun}", plan.id)?;
            }
            Ok(Exit::Ok)
        }
        Err(diagnostics) => {
            session.ui.err().write_all(diagnostics.as_bytes())?;
            Ok(Exit::Refused)
        }
    }
}

/// The plans in the files, or every diagnostic, rendered.
pub(crate) fn compiled(
    files: &[(String, Vec<u8>)],
    actions: &Actions,
    color: bool,
) -> Result<Vec<Plan>, String> {
    let sources: Vec<SourceFile<'_>> =
        files.iter().map(|(name, bytes)| SourceFile { name, bytes }).collect();
    compile_with(&sources, actions).map_err(|diagnostics| render(&sources, &diagnostics, color))
}

pub(crate) async fn graph(session: &mut Session, args: &GraphArgs) -> Result<Exit, Error> {
    let mut drawings = Vec::new();
    if args.plan.ends_with(".toml") {
        let files = [(args.plan.clone(), read(Path::new(&args.plan))?)];
        let Some(actions) = args.actions.read(session)? else { return Ok(Exit::Refused) };
        match compiled(&files, &actions, session.ui.note_look.color) {
            Ok(plans) => drawings.extend(plans.iter().map(Drawing::of_file)),
            Err(diagnostics) => {
                session.ui.err().write_all(diagnostics.as_bytes())?;
                return Ok(Exit::Refused);
            }
        }
    } else {
        let client = session.client().await?;
        let found = client.get_plan(pb::GetPlanRequest { plan_id: args.plan.clone() }).await;
        let plan = found.map_err(|error| error.about(About::Plan(args.plan.clone())))?;
        drawings.push(Drawing::of_server(&plan));
    }
    for drawing in drawings {
        match args.output {
            GraphForm::Mermaid => drawing.write_mermaid(session.ui.out())?,
            GraphForm::Dot => drawing.write_dot(session.ui.out())?,
        }
    }
    Ok(Exit::Ok)
}

pub(crate) fn new(session: &mut Session, args: &NewArgs) -> Result<Exit, Error> {
    let name = args.name.strip_prefix("plan/").unwrap_or(&args.name);
    let text = template(name);
    let source = [(format!("{name}.toml"), text.clone().into_bytes())];
    if compiled(&source, Actions::BUILT_IN, false).is_err() {
        return Err(Error::usage(
            format!("{name:?} cannot be the name of a plan"),
            "names have lower-case letters, digits and -, at most 63, and begin with a letter",
        ));
    }
    session.ui.out().write_all(text.as_bytes())?;
    session.ui.note(&format!(
        "Written into {name}.toml, check it with: bmdemo-cli plan check {name}.toml"
    ));
    session.ui.note(&format!("Try it with:   bmdemo-cli plan simulate {name}.toml"));
    Ok(Exit::Ok)
}

pub(crate) fn explain(session: &mut Session, args: &ExplainArgs) -> Result<Exit, Error> {
    let Some(actions) = args.actions.read(session)? else { return Ok(Exit::Refused) };
    let look = session.ui.look;
    let Some(wanted) = &args.action else {
        write_actions(session.ui.out(), look, &actions)?;
        return Ok(Exit::Ok);
    };
    let Some(spec) = actions.find(wanted) else {
        let near = nearest(wanted, actions.iter().map(|spec| &*spec.name));
        let hint = match near.as_slice() {
            [] => "see them all with: bmdemo-cli plan explain".to_owned(),
            near => format!("did you mean {}?", near.join(" or ")),
        };
        return Err(Error::usage(format!("there is no action {wanted:?}"), hint));
    };
    write_action(session.ui.out(), look, spec)?;
    Ok(Exit::Ok)
}

pub(crate) fn schema(session: &mut Session, args: &SchemaArgs) -> Result<Exit, Error> {
    let Some(actions) = args.actions.read(session)? else { return Ok(Exit::Refused) };
    let text = schema_json(&actions).map_err(|error| Error::Answer(error.to_string()))?;
    writeln!(session.ui.out(), "{text}")?;
    Ok(Exit::Ok)
}
