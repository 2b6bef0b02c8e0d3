//! `auth …`: who you are to the server

use clap::{Args, Subcommand};

use crate::pb;

use super::super::error::{Error, Exit};
use super::super::output::{DataForm, elapsed_text, instant, sanitized, write_one};
use super::super::resolve;
use super::super::session::Session;

/// Commands on who you are.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:\n  bmdemo-cli auth whoami\n  bmdemo-cli auth whoami --json")]
pub(crate) enum AuthCommand {
    /// Print who you are to the server, and how it knows
    Whoami(WhoamiArgs),
    /// Print whether you may do something, and which rule says so; exit with 1 if not
    CanI(CanIArgs),
}

/// Print whether you may do something, and which rule says so; exit with 1 if not.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli auth can-i rma machine-7\n  bmdemo-cli auth can-i repave --force\n  bmdemo-cli auth can-i DeleteMachine"
)]
pub(crate) struct CanIArgs {
    /// A command such as rma or cancel, or a method of the API such as StartRun
    #[arg(value_name = "VERB")]
    verb: String,
    /// Machine or run that it is to be done to: scopes depend on it, and the plan of a run may be for admins
    #[arg(value_name = "ID")]
    object: Option<String>,
    /// With force, or to the phase RETIRED
    #[arg(long)]
    force: bool,
}

/// The method behind each command.
const METHODS: [(&str, &str); 40] = [
    ("list", "ListMachines"),
    ("runs", "ListRuns"),
    ("plans", "ListPlans"),
    ("watch", "WatchRuns"),
    ("top", "WatchRuns"),
    ("logs", "StreamRunLogs"),
    ("history", "ListHistory"),
    ("issues", "ListMachines"),
    ("wait", "WatchMachines"),
    ("doctor", "GetServerInfo"),
    ("import", "BatchRegisterMachines"),
    ("register", "RegisterMachine"),
    ("apply", "BatchRegisterMachines"),
    ("update", "UpdateMachine"),
    ("label", "UpdateMachine"),
    ("unlabel", "UpdateMachine"),
    ("set-phase", "UpdateMachine"),
    ("delete", "DeleteMachine"),
    ("clear-intervention", "ClearIntervention"),
    ("inspect", "InspectMachine"),
    ("start", "StartRun"),
    ("repave", "StartRun"),
    ("rma", "StartRun"),
    ("reboot", "StartRun"),
    ("upgrade", "StartRun"),
    ("net-reconfig", "StartRun"),
    ("cancel", "CancelRun"),
    ("abort", "AbortRun"),
    ("pause", "PauseRun"),
    ("resume", "ResumeRun"),
    ("retry", "RetryRun"),
    ("skip", "SkipStep"),
    ("resolve", "ResolveStep"),
    ("approve", "ResolveStep"),
    ("audit", "ListAudit"),
    ("stop-all", "StopAll"),
    ("resume-all", "ResumeAll"),
    ("lock", "CreateLock"),
    ("unlock", "DeleteLock"),
    ("locks", "ListLocks"),
];

/// Commands on runs, whose plan decides, too.
const STEERING: [&str; 8] =
    ["cancel", "abort", "pause", "resume", "retry", "skip", "resolve", "approve"];

/// The type of the runs that a command starts.
fn verb_type(verb: &str) -> Option<pb::RunType> {
    Some(match verb {
        "repave" => pb::RunType::Repave,
        "rma" => pb::RunType::Rma,
        "reboot" => pb::RunType::Reboot,
        "upgrade" => pb::RunType::Upgrade,
        "net-reconfig" => pb::RunType::NetReconfig,
        _ => return None,
    })
}

async fn can_i(session: &mut Session, args: &CanIArgs) -> Result<Exit, Error> {
    let known = METHODS.iter().find(|(verb, _)| *verb == args.verb);
    let is_method = args.verb.starts_with(|c: char| c.is_ascii_uppercase());
    let method = match known {
        Some((_, method)) => (*method).to_owned(),
        None if is_method => args.verb.clone(),
        None => {
            let near = resolve::nearest(&args.verb, METHODS.iter().map(|(verb, _)| *verb));
            let hint = match near.first() {
                Some(near) => format!("did you mean {near}?"),
                None => "give a command such as rma, or a method such as StartRun".to_owned(),
            };
            return Err(Error::usage(
                format!("{:?} is no command that asks a server", args.verb),
                hint,
            ));
        }
    };
    let client = session.client().await?;
    let plan_id = match verb_type(&args.verb) {
        None => String::new(),
        // What a plan needs depends on the server's.
        Some(run_type) => {
            let plans = client.all_plans().await?;
            let of_type = |plan: &&pb::Plan| plan.is_default && plan.run_type() == run_type;
            plans.iter().find(of_type).map(|plan| plan.plan_id.clone()).unwrap_or_default()
        }
    };
    let run_id = match &args.object {
        Some(run) if STEERING.contains(&args.verb.as_str()) => {
            client.find_run(run).await.map(|run| run.run_id).unwrap_or_default()
        }
        Some(_) | None => String::new(),
    };
    let object = args.object.clone().unwrap_or_default();
    let request = pb::CheckAccessRequest { method, force: args.force, plan_id, run_id, object };
    let answer = client.check_access(request).await?;
    let object = args.object.as_ref().map(|object| format!(" {object}")).unwrap_or_default();
    let verdict = if answer.allowed { "yes" } else { "no" };
    let text = format!("{verdict}, {}{object}: {}", args.verb, answer.rule);
    writeln!(session.ui.out(), "{}", sanitized(&text))?;
    Ok(if answer.allowed { Exit::Ok } else { Exit::Refused })
}

/// Print who you are to the server, and how it knows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli auth whoami\n  bmdemo-cli auth whoami --json")]
pub(crate) struct WhoamiArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn auth(session: &mut Session, command: AuthCommand) -> Result<Exit, Error> {
    let args = match command {
        AuthCommand::Whoami(args) => args,
        AuthCommand::CanI(args) => return can_i(session, &args).await,
    };
    let client = session.client().await?;
    let answer = client.who_am_i(pb::WhoAmIRequest {}).await?;
    if args.json {
        write_one(session.ui.out(), DataForm::Json, &answer)?;
        return Ok(Exit::Ok);
    }
    let now_ms = i64::try_from(session.ui.now_ms()).unwrap_or(i64::MAX);
    let mut text = match (answer.verified, answer.proof.as_str()) {
        (false, _) => {
            format!("{} (as this client says: the server asks no one for proof)", answer.name)
        }
        (true, "certificate") => format!("{}, by a certificate", answer.name),
        (true, "jwt") => format!("{}, by the token of an issuer", answer.name),
        (true, _) => format!("{}, by a token", answer.name),
    };
    let role = answer.role().as_str_name().trim_start_matches("ROLE_").to_lowercase();
    if let Some(at_ms) = instant(answer.expires_at.as_ref()) {
        text += &format!(" that expires in {}", elapsed_text((at_ms - now_ms).max(0)));
    }
    if answer.verified {
        text += &format!("; {role}");
    }
    if !answer.scope.is_empty() {
        text += &format!(", only for machines with {}", answer.scope);
    }
    writeln!(session.ui.out(), "{}", sanitized(&text))?;
    Ok(Exit::Ok)
}
