//! `audit …`: who asked for what, and whether that was altered

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::pb;

use super::super::client::PAGE_SIZE;
use super::super::error::{Error, Exit};
use super::super::flags::OutputArgs;
use super::super::output::{DataForm, sanitized, write_audit, write_one};
use super::super::session::Session;
use super::show;

/// Longest file of a head, in bytes.
const HEAD_BYTES_MAX: u64 = 4 * 1024;

/// Commands on the audit.
#[derive(Debug, Subcommand)]
#[command(after_help = "Examples:
  bmdemo-cli audit list --last 20
  bmdemo-cli audit head > head-of-today
  bmdemo-cli audit verify --head head-of-today")]
pub(crate) enum AuditCommand {
    /// Print who asked for what, and which calls were denied, oldest first
    List(ListArgs),
    /// Print the number and hash of the newest entry, signed, in one line: to keep elsewhere
    Head(HeadArgs),
    /// Follow the whole chain, and say whether anything was altered, left out, moved or added; exit with 1 if so
    Verify(VerifyArgs),
}

/// Print who asked for what, and which calls were denied, oldest first.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli audit list --last 20
  bmdemo-cli audit list --denied
  bmdemo-cli audit list --by ann -o jsonl > ann.jsonl")]
pub(crate) struct ListArgs {
    /// Only entries after the one of this number
    #[arg(long, value_name = "SEQ", default_value_t = 0)]
    after: u64,
    /// Only what this principal asked for
    #[arg(long, value_name = "NAME")]
    by: Option<String>,
    /// Only calls that were denied
    #[arg(long)]
    denied: bool,
    /// Print only the newest entries, this many
    #[arg(long, value_name = "N")]
    last: Option<usize>,
    #[command(flatten)]
    output: OutputArgs,
}

/// Print the number and hash of the newest entry, signed, in one line: to keep elsewhere.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli audit head > head-of-today
  bmdemo-cli audit head --json")]
pub(crate) struct HeadArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Follow the whole chain, and say whether anything was altered, left out, moved or added; exit with 1 if so.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  bmdemo-cli audit verify
  bmdemo-cli audit verify --head head-of-today")]
pub(crate) struct VerifyArgs {
    /// File with the line of a head that was kept: the chain must lead through it
    #[arg(long, value_name = "FILE")]
    head: Option<PathBuf>,
    /// Public key with which the head was signed, if that is not the one of the server
    #[arg(long, value_name = "HEX", default_value = "", requires = "head")]
    public_key: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(crate) async fn audit(session: &mut Session, command: AuditCommand) -> Result<Exit, Error> {
    match command {
        AuditCommand::List(args) => list(session, &args).await,
        AuditCommand::Head(args) => head(session, &args).await,
        AuditCommand::Verify(args) => verify(session, &args).await,
    }
}

async fn list(session: &mut Session, args: &ListArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let wanted = |entry: &pb::AuditEntry| {
        (!args.denied || entry.decision == "denied")
            && args.by.as_ref().is_none_or(|by| entry.principal == *by)
    };
    let mut entries = Vec::new();
    let mut page_token = String::new();
    loop {
        let request = pb::ListAuditRequest { page_size: PAGE_SIZE, page_token, after: args.after };
        let page = client.list_audit(request).await?;
        entries.extend(page.entries.into_iter().filter(&wanted));
        if let Some(last) = args.last {
            entries.drain(..entries.len().saturating_sub(last));
        }
        if page.next_page_token.is_empty() {
            break;
        }
        page_token = page.next_page_token;
    }
    if show::table(session, &entries, &args.output)? {
        return Ok(Exit::Ok);
    }
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    write_audit(session.ui.out(), look, &entries, now_ms)?;
    Ok(Exit::Ok)
}

async fn head(session: &mut Session, args: &HeadArgs) -> Result<Exit, Error> {
    let client = session.client().await?;
    let head = client.get_audit_head(pb::GetAuditHeadRequest {}).await?;
    if args.json {
        write_one(session.ui.out(), DataForm::Json, &head)?;
    } else {
        writeln!(session.ui.out(), "{}", sanitized(&head.line))?;
    }
    Ok(Exit::Ok)
}

async fn verify(session: &mut Session, args: &VerifyArgs) -> Result<Exit, Error> {
    let head = match &args.head {
        Some(path) => crate::files::read_text(path, HEAD_BYTES_MAX).map_err(|error| {
            Error::usage(
                format!("--head {}: {error}", path.display()),
                "give a file with the line of bmdemo-cli audit head",
            )
        })?,
        None => String::new(),
    };
    let client = session.client().await?;
    let public_key = args.public_key.clone();
    let request = pb::VerifyAuditRequest { head: head.trim().to_owned(), public_key };
    let answer = client.verify_audit(request).await?;
    let exit = if answer.holds { Exit::Ok } else { Exit::Refused };
    if args.json {
        write_one(session.ui.out(), DataForm::Json, &answer)?;
        return Ok(exit);
    }
    let text = match answer.head.filter(|_| answer.holds) {
        Some(head) => format!(
            "ok: {} entries, the newest is {}, {}{}",
            answer.entries,
            head.seq,
            head.hash,
            if args.head.is_some() { ", through the head that was kept" } else { "" }
        ),
        None => format!("THE AUDIT DOES NOT HOLD: {}", answer.problem),
    };
    writeln!(session.ui.out(), "{}", sanitized(&text))?;
    Ok(exit)
}
