//! `plan simulate`

use std::path::Path;

use clap::{Args, ValueEnum};

use crate::pb;
use crate::plan::registry::BUILT_IN;
use crate::plan::{ActionSpec, Phase, Plan, Step};

use super::super::error::{Error, Exit};
use super::super::flags::{OutputArgs, by_key, parse_pair};
use super::super::local::{self, MACHINES_MAX, Simulation};
use super::super::output::{
    effective_name, hold, phase_name, sanitized, wrapped, write_simulated, write_timeline,
};
use super::super::resolve::nearest;
use super::super::session::Session;
use super::phase::parse_phase;
use super::{author, show};

/// Run a plan on simulated machines in virtual time, with the failures you name, and print a timeline.
///
/// Needs no server. Steps take as long as the plan expects, hours pass instantly, and the same command always prints
/// the same. Exits with 0 if every run succeeds, with 3 if one fails or is held.
#[derive(Debug, Args)]
// A timeline is no table.
#[command(
    mut_arg("columns", |columns| columns.hide(true)),
    mut_arg("output", |output| output.help("Output form: table, json, jsonl, yaml, name, jsonpath=TEMPLATE"))
)]
#[command(after_help = "Rules of --fail:
  A step's name, or key=value pairs joined by commas. A rule without do= makes the step fail, and is tried again as the
  plan says.
  step=NAME      the step or the action, undo-NAME for what undoes it; * and ? match anything
  attempt=N      only this attempt                 times=N   only so often
  machine=NAME   only this machine                 p=0.1     only with this probability, drawn from --seed
  do=WHAT        fail, fail-permanent, fail-human (before any effect), fail-late (at its end), fail-after (it took
                 effect and is not known), hang, lie (says done, is not), slow:TIME, busy:TIME, unreachable, flap, unknowable

Examples:
  bmdemo-cli plan simulate repave-join
  bmdemo-cli plan simulate plans/repave-join.toml --fail repave,times=1 --fail join,do=hang
  bmdemo-cli plan simulate upgrade --after repave-join --set image=debian-13
  bmdemo-cli plan simulate reboot --machines 100 --fail step=*,p=0.1 --seed 7 --quiet")]
pub(crate) struct SimulateArgs {
    /// Built-in plan, with or without plan/, or a .toml file
    #[arg(value_name = "PLAN|FILE")]
    plan: String,
    #[command(flatten)]
    actions: author::ActionsArgs,
    /// What fails; repeatable, the first rule that matches decides
    #[arg(long, value_name = "RULE")]
    fail: Vec<String>,
    /// What fails, in the language of the server's --fake-script; applied after the rules of --fail
    #[arg(long, value_name = "TEXT|@FILE")]
    script: Option<String>,
    /// How many machines run it at the same time
    #[arg(long, value_name = "N", default_value = "1", value_parser = machines)]
    machines: usize,
    /// Seed of all random choices; another seed gives another outcome
    #[arg(long, value_name = "N", default_value = "1")]
    seed: u64,
    /// Parameter of the plan; repeatable
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = parse_pair)]
    set: Vec<(String, String)>,
    /// Label that the simulated machines have, not a selector; repeatable
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_pair)]
    labels: Vec<(String, String)>,
    /// Phase of the machines at the start [default: the first that the plan allows]
    #[arg(long, value_name = "PHASE")]
    phase: Option<String>,
    /// Run this plan first, without failures and without output; repeatable
    #[arg(long, value_name = "PLAN")]
    after: Vec<String>,
    /// Run although the machine's effective state refuses it
    #[arg(long)]
    force: bool,
    /// How long actions take: default, slow, zero or a factor, as --fake-timing [default: as the plan expects]
    #[arg(long, value_name = "TIMING")]
    timing: Option<String>,
    /// Answer to steps that ask for approval; wait lets them time out, which counts as a no
    #[arg(long, value_name = "ANSWER", default_value = "yes", value_enum)]
    approve: Answer,
    /// Print only the result
    #[arg(short, long)]
    quiet: bool,
    #[command(flatten)]
    output: OutputArgs,
}

/// The answer to a step that asks for approval.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Answer {
    /// The run continues
    Yes,
    /// The step fails
    No,
    /// No answer
    Wait,
}

fn machines(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count) if (1..=MACHINES_MAX).contains(&count) => Ok(count),
        Ok(_) | Err(_) => Err(format!("expected a whole number from 1 to {MACHINES_MAX}")),
    }
}

pub(crate) async fn simulate(session: &mut Session, args: &SimulateArgs) -> Result<Exit, Error> {
    show::no_columns(&args.output)?;
    let mut own = Vec::new();
    if args.plan.ends_with(".toml") {
        let files = [(args.plan.clone(), author::read(Path::new(&args.plan))?)];
        let Some(actions) = args.actions.read(session)? else { return Ok(Exit::Refused) };
        match author::compiled(&files, &actions, session.ui.note_look.color) {
            Ok(plans) => own = plans,
            Err(diagnostics) => {
                session.ui.err().write_all(diagnostics.as_bytes())?;
                return Ok(Exit::Refused);
            }
        }
    }
    let plan = plan_of(&args.plan, &own)?;
    let mut script = String::new();
    for rule in &args.fail {
        script += &read_rule(plan, rule)?;
        script.push('\n');
    }
    if let Some(text) = &args.script {
        script += &match text.strip_prefix('@') {
            Some(path) => String::from_utf8_lossy(&author::read(Path::new(path))?).into_owned(),
            None => text.clone(),
        };
    }
    let simulation = Simulation {
        plan_id: plan.id.to_string(),
        plans: own.clone(),
        after: args.after.clone(),
        machines: args.machines,
        phase: args.phase.as_deref().map(phase_of).transpose()?,
        labels: by_key("--label ", &args.labels)?,
        parameters: by_key("--set ", &args.set)?,
        force: args.force,
        script,
        timing: args.timing.clone(),
        approve: match args.approve {
            Answer::Yes => Some(true),
            Answer::No => Some(false),
            Answer::Wait => None,
        },
        seed: args.seed,
    };
    let simulated = local::simulate(simulation).await?;
    if !show::listed(session, &simulated.events, &args.output)? {
        let look = session.ui.look;
        let begin = simulated.before.first().and_then(|machine| machine.status.as_ref());
        let (phase, effective) =
            begin.map_or((0, 0), |status| (status.phase, status.effective_state));
        let count = match args.machines {
            1 => "1 machine".to_owned(),
            several => format!("{several} machines"),
        };
        let title = format!(
            "{} on {count}, phase {}, effective {}, seed {}",
            sanitized(&simulated.plan.plan_id),
            phase_name(phase),
            effective_name(effective),
            args.seed
        );
        writeln!(session.ui.out(), "{}", wrapped(look, &title, 2))?;
        if !args.quiet {
            writeln!(session.ui.out())?;
            write_timeline(session.ui.out(), look, &simulated.events)?;
        }
        write_simulated(session.ui.out(), look, &simulated.runs, &simulated.after)?;
    }
    let failed = |run: &pb::Run| run.phase() != pb::RunPhase::Succeeded || hold(run).is_some();
    Ok(if simulated.runs.iter().any(failed) { Exit::RunFailed } else { Exit::Ok })
}

/// The plan of the file, or the built-in one.
fn plan_of<'a>(wanted: &str, own: &'a [Plan]) -> Result<&'a Plan, Error> {
    if let Some(plan) = own.first() {
        return Ok(plan);
    }
    let built_in = BUILT_IN.iter().find(|plan| plan.id == wanted || plan.name() == wanted);
    built_in.ok_or_else(|| {
        let near = nearest(wanted, BUILT_IN.iter().map(Plan::name));
        let hint = match near.as_slice() {
            [] => {
                let names: Vec<&str> = BUILT_IN.iter().map(Plan::name).collect();
                format!("name one of {}, or the path of a .toml file", names.join(", "))
            }
            near => format!("did you mean {}?", near.join(" or ")),
        };
        Error::usage(format!("there is no built-in plan {wanted:?}"), hint)
    })
}

fn phase_of(text: &str) -> Result<Phase, Error> {
    let name = phase_name(parse_phase(text)?.into());
    Phase::parse(&name).ok_or_else(|| Error::Answer(format!("the plans have no phase {name}")))
}

/// A rule of `--fail` in the language of the scripts.
fn read_rule(plan: &Plan, rule: &str) -> Result<String, Error> {
    let mut pairs: Vec<String> = Vec::new();
    for part in rule.split([',', ' ']).filter(|part| !part.is_empty()) {
        match part.split_once('=') {
            Some(("step", step)) => check_step(plan, step)?,
            Some(_) => {}
            None => check_step(plan, part)?,
        }
        pairs.push(if part.contains('=') { part.to_owned() } else { format!("step={part}") });
    }
    if !pairs.iter().any(|pair| pair.starts_with("do=")) {
        pairs.push("do=fail".to_owned());
    }
    Ok(pairs.join(" "))
}

fn is_meant(step: &Step, wanted: &str) -> bool {
    *step.name == *wanted || *step.action.name == *wanted
}

/// The refusal of a rule for a step that the engine carries out itself: no provider can fail at it.
fn no_provider(plan: &Plan, step: &Step) -> Error {
    let (name, plan) = (&step.name, &plan.id);
    if step.action.asks() {
        return Error::usage(
            format!("step {name} of {plan} asks an operator: no rule can make it fail"),
            "answer it with --approve no, or let its time limit pass with --approve wait",
        );
    }
    Error::usage(
        format!("step {name} of {plan} only waits: no rule can make it fail"),
        "a step with `until` fails at its timeout, if nothing in the simulation makes it true",
    )
}

/// A rule that no step of the plan can match is a typing mistake.
fn check_step(plan: &Plan, wanted: &str) -> Result<(), Error> {
    let meant = plan.steps.iter().filter(|step| is_meant(step, wanted));
    if let Some(own) = meant.clone().next()
        && meant.clone().all(|step| step.action.is_own())
    {
        return Err(no_provider(plan, own));
    }
    let mut names: Vec<String> = Vec::new();
    for step in plan.steps.iter() {
        names.push(step.name.to_string());
        if let Some(undo) = &step.compensation {
            // In the order of the plan, and an action of several compensations once.
            for name in [format!("undo-{}", step.name), undo.action.name.to_string()] {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    let actions = plan.steps.iter().map(|step| step.action.name.to_string());
    let fits = wanted.contains(['*', '?'])
        || names.iter().any(|name| name == wanted)
        || actions.clone().any(|action| action == wanted);
    if fits {
        return Ok(());
    }
    let near = nearest(wanted, names.iter().map(String::as_str));
    let hint = match near.as_slice() {
        [] => format!("its steps are {}", names.join(", ")),
        near => format!("did you mean {}?", near.join(" or ")),
    };
    let is_action = ActionSpec::find(wanted).is_some();
    let what = if is_action { "step with the action" } else { "step" };
    Err(Error::usage(format!("{} has no {what} {wanted:?}", plan.id), hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(text: &str) -> Result<String, Error> {
        read_rule(plan_of("plan/repave-join", &[]).unwrap(), text)
    }

    #[test]
    fn rules_are_short_to_type() {
        for (typed, script) in [
            ("repave", "step=repave do=fail"),
            ("repave,times=1", "step=repave times=1 do=fail"),
            ("step=join do=hang", "step=join do=hang"),
            ("machine=machine-2,do=unreachable", "machine=machine-2 do=unreachable"),
            ("step=*,p=0.1", "step=* p=0.1 do=fail"),
        ] {
            assert_eq!(rule(typed).unwrap(), script);
        }
    }

    #[test]
    fn a_rule_for_a_step_that_is_not_there_is_a_mistake() {
        for wrong in ["repav", "step=wipe", "undo-verify"] {
            assert_eq!(rule(wrong).unwrap_err().code(), 2, "{wrong}");
        }
        let error = rule("repav").unwrap_err();
        assert_eq!(error.to_string(), "plan/repave-join has no step \"repav\"");
    }
}
