//! `stop-all`, `resume-all`, `lock …`, `unlock` and `locks`

use std::collections::BTreeMap;

use clap::{Args, Subcommand};

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::flags::{OutputArgs, parse_ms};
use super::super::output::{lock_line, lock_name, sanitized, wrapped};
use super::super::resolve;
use super::super::session::Session;
use super::show;

/// Stop everything: from the answer on nothing begins, on any machine, until resume-all.
///
/// Calls that were sent before are waited for. No run fails: each waits until everything is resumed. It survives a restart.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli stop-all --reason \"wrong image in rack 5\"")]
pub(crate) struct StopArgs {
    /// Why; shown to everyone who finds everything stopped
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lift a stop: what waits because of it continues.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli resume-all --reason \"the image is replaced\"")]
pub(crate) struct ResumeArgs {
    /// Why; kept in the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Lock a caller out, or machines.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  bmdemo-cli lock principal ann --reason \"laptop lost\"
  bmdemo-cli lock machines -l rack=r5 --reason \"water\" --for 2h")]
pub(crate) enum LockCommand {
    /// Refuse the calls of a caller, and end its streams
    Principal(PrincipalArgs),
    /// Begin nothing on machines with these labels, and start no run
    Machines(MachinesArgs),
}

/// Refuse the calls of a caller, and end its streams.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli lock principal ann --reason \"laptop lost\"")]
pub(crate) struct PrincipalArgs {
    /// Name of the caller, as the server's configuration has it
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    output: OutputArgs,
}

/// Begin nothing on machines with these labels, and start no run.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli lock machines -l rack=r5 --reason \"water\" --for 2h
  bmdemo-cli lock machines -l rack=r5 -l role=db --reason \"audit of the databases\"")]
pub(crate) struct MachinesArgs {
    /// Label that the machines have; several: all of them
    #[arg(short = 'l', long = "label", value_name = "KEY=VALUE", required = true)]
    labels: Vec<String>,
    #[command(flatten)]
    terms: Terms,
    #[command(flatten)]
    output: OutputArgs,
}

/// Why, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Terms {
    /// Why; shown to everyone whom it holds back
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// End by itself after this time; else it stays until it is lifted
    #[arg(long = "for", value_name = "TIME", value_parser = parse_ms)]
    lasts_ms: Option<u64>,
}

/// Lift a lock, or the pause of a plan.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli locks
  bmdemo-cli unlock machines-5fe81a02 --reason \"dry again\"
  bmdemo-cli unlock ann --reason \"laptop found\"")]
pub(crate) struct UnlockArgs {
    /// Id of the lock, the name of a caller, a label, or a plan
    #[arg(value_name = "LOCK")]
    lock: String,
    /// Why; kept in the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// Let a plan be used again that was paused because its runs failed.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli plan resume repave-join --reason \"the image is replaced\"")]
pub(crate) struct PlanResumeArgs {
    /// Plan, with or without plan/
    #[arg(value_name = "PLAN")]
    plan: String,
    /// Why; kept in the audit
    #[arg(long, value_name = "TEXT")]
    reason: String,
    #[command(flatten)]
    output: OutputArgs,
}

/// List what is in force: the stop, locks, and plans that are paused.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli locks\n  bmdemo-cli locks -o json")]
pub(crate) struct LocksArgs {
    #[command(flatten)]
    output: OutputArgs,
}

pub(crate) async fn stop_all(session: &mut Session, args: &StopArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request =
        pb::StopAllRequest { reason: args.reason.clone(), request_id: client.new_request_id() };
    let lock = client.stop_all(request).await?;
    set(session, &lock, &args.output, "Next, when all is well: bmdemo-cli resume-all --reason ...")
}

pub(crate) async fn resume_all(session: &mut Session, args: &ResumeArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request =
        pb::ResumeAllRequest { reason: args.reason.clone(), request_id: client.new_request_id() };
    let lock = client.resume_all(request).await?;
    lifted(session, &lock, &args.output)
}

pub(crate) async fn lock(session: &mut Session, command: LockCommand) -> Result<Exit, Error> {
    let client = session.client().await?;
    let request_id = client.new_request_id();
    let (request, terms, output) = match &command {
        LockCommand::Principal(args) => {
            let principal = args.name.clone();
            (pb::CreateLockRequest { principal, ..Default::default() }, &args.terms, &args.output)
        }
        LockCommand::Machines(args) => {
            let labels = labels(&args.labels)?;
            (pb::CreateLockRequest { labels, ..Default::default() }, &args.terms, &args.output)
        }
    };
    let duration = terms.lasts_ms.map(|ms| prost_types::Duration {
        // Whole seconds, and never less than was asked for.
        seconds: i64::try_from(ms.div_ceil(1000)).unwrap_or(i64::MAX),
        nanos: 0,
    });
    let request =
        pb::CreateLockRequest { request_id, reason: terms.reason.clone(), duration, ..request };
    let lock = client.create_lock(request).await?;
    let next = format!("Next: bmdemo-cli unlock {} --reason ...", lock.lock_id);
    set(session, &lock, output, &next)
}

/// The labels of words such as `rack=r5`.
fn labels(words: &[String]) -> Result<BTreeMap<String, String>, Error> {
    let each = words.iter().flat_map(|word| word.split(',')).map(|word| {
        let (key, value) = word.split_once('=').ok_or_else(|| {
            Error::usage(format!("-l {word}: there is no value"), "write it as -l rack=r5")
        })?;
        Ok((key.trim().to_owned(), value.trim().to_owned()))
    });
    each.collect()
}

pub(crate) async fn unlock(session: &mut Session, args: &UnlockArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    lift(session, &client, &args.lock, &args.reason, &args.output).await
}

/// `plan resume`
pub(crate) async fn resume_plan(
    session: &mut Session,
    args: &PlanResumeArgs,
) -> Result<Exit, Error> {
    let client = session.client().await?;
    let plan = match args.plan.contains('/') {
        true => args.plan.clone(),
        false => format!("plan/{}", args.plan),
    };
    lift(session, &client, &plan, &args.reason, &args.output).await
}

/// Lifts the only lock that goes by a name.
async fn lift(
    session: &mut Session,
    client: &Client,
    name: &str,
    reason: &str,
    output: &OutputArgs,
) -> Result<Exit, Error> {
    let locks = client.list_locks(pb::ListLocksRequest {}).await?.locks;
    let plan = format!("plan/{name}");
    let found: Vec<_> = locks
        .iter()
        .filter(|lock| {
            let goes_by = lock_name(lock);
            lock.lock_id == name || goes_by == name || goes_by == plan
        })
        .collect();
    let lock_id = match found.as_slice() {
        [lock] => lock.lock_id.clone(),
        [] => {
            let ids = locks.iter().map(|lock| lock.lock_id.as_str());
            let hint = match resolve::nearest(name, ids).first() {
                Some(near) => format!("did you mean {near}?"),
                None => "bmdemo-cli locks lists what is in force".to_owned(),
            };
            return Err(Error::usage(format!("no lock {name:?} is in force"), hint));
        }
        several => {
            let ids: Vec<_> = several.iter().map(|lock| lock.lock_id.as_str()).collect();
            return Err(Error::usage(
                format!("{name:?} is several locks"),
                format!("give one of {}", ids.join(", ")),
            ));
        }
    };
    let request = pb::DeleteLockRequest {
        request_id: client.new_request_id(),
        lock_id,
        reason: reason.to_owned(),
    };
    let lock = client.delete_lock(request).await?;
    lifted(session, &lock, output)
}

pub(crate) async fn locks(session: &mut Session, args: &LocksArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let answer = client.list_locks(pb::ListLocksRequest {}).await?;
    if show::table(session, &answer.locks, &args.output)? {
        return Ok(Exit::Ok);
    }
    if answer.locks.is_empty() {
        session.ui.note("Nothing is stopped, locked or paused.");
    }
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    for lock in &answer.locks {
        let line = format!("{}  {}", lock.lock_id, lock_line(look, lock, now_ms));
        writeln!(session.ui.out(), "{}", wrapped(look, &sanitized(&line), 2))?;
    }
    if answer.runs_held_back > 0 {
        session.ui.note(&format!("Runs that wait for it: {}.", answer.runs_held_back));
    }
    Ok(Exit::Ok)
}

fn set(
    session: &mut Session,
    lock: &pb::Lock,
    output: &OutputArgs,
    next: &str,
) -> Result<Exit, Error> {
    if show::one(session, lock, output)? {
        return Ok(Exit::Ok);
    }
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    let line = lock_line(look, lock, now_ms);
    writeln!(session.ui.out(), "{}", wrapped(look, &sanitized(&line), 2))?;
    session.ui.note(next);
    Ok(Exit::Ok)
}

fn lifted(session: &mut Session, lock: &pb::Lock, output: &OutputArgs) -> Result<Exit, Error> {
    if show::one(session, lock, output)? {
        return Ok(Exit::Ok);
    }
    let text = match lock.kind() {
        pb::LockKind::Stop => "resumed: what waits continues".to_owned(),
        pb::LockKind::Plan => format!("{} can be used again", lock.plan_id),
        pb::LockKind::Principal | pb::LockKind::Machines | pb::LockKind::Unspecified => {
            format!("unlocked: {}", lock_name(lock))
        }
    };
    writeln!(session.ui.out(), "{}", sanitized(&text))?;
    Ok(Exit::Ok)
}
