//! `doctor`, `version` and `man`

use std::collections::HashMap;
use std::path::PathBuf;

use clap::Args;
use tonic_health::pb::health_check_response::ServingStatus;

use crate::pb;

use super::super::client::Client;
use super::super::error::{Error, Exit};
use super::super::output::{
    Meaning, elapsed_text, instant, issues_of, lock_line, sanitized, wrapped,
};
use super::super::session::Session;

/// Clock differences below this are not reported.
const SKEW_MS_MAX: i64 = 2_000;
/// Receivers of notifications whose oldest event waits longer are reported.
const LAG_MS_MAX: i64 = 60_000;
/// Answers slower than this are reported.
const LATENCY_MS_MAX: u128 = 500;

/// Check the connection, the server with its clock, store and limits, versions, and what is stuck.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli doctor\n  bmdemo-cli doctor --server 10.0.0.7:50051 --exit-code"
)]
pub(crate) struct DoctorArgs {
    /// Exit with 1 if a check is not good
    #[arg(long)]
    exit_code: bool,
}

/// Print the version of this program, and of the server if it can be reached.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  bmdemo-cli version")]
pub(crate) struct VersionArgs {}

/// Print the manual page, or write the pages of all commands.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  bmdemo-cli man | man -l -\n  bmdemo-cli man run start | man -l -\n  bmdemo-cli man --dir /usr/local/share/man/man1"
)]
pub(crate) struct ManArgs {
    /// Command to print the page of, for example: run start
    #[arg(value_name = "COMMAND", conflicts_with = "dir")]
    words: Vec<String>,
    /// Directory to write one page per command to
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// Free space for the server's files below this is reported.
const BYTES_FREE_MIN: u64 = 1 << 30;
/// Lines shown of why a reload was refused, after the first: enough for the first diagnostic.
const RELOAD_LINES_MAX: usize = 6;

/// The result of a check.
enum Verdict {
    Good,
    Look,
    Bad,
}

/// Whether every check so far passed.
type Good = bool;

fn say(
    session: &mut Session,
    good: &mut Good,
    verdict: &Verdict,
    what: &str,
    text: &str,
) -> Result<(), Error> {
    *good &= matches!(verdict, Verdict::Good);
    let look = session.ui.look;
    let (glyph, meaning) = match verdict {
        Verdict::Good => (look.good(), Meaning::Good),
        Verdict::Look => ("!", Meaning::Attention),
        Verdict::Bad => (look.bad(), Meaning::Bad),
    };
    let line = format!("{} {what:10} {}", look.paint(meaning, glyph), sanitized(text));
    writeln!(session.ui.out(), "{}", wrapped(look, &line, 13))?;
    Ok(())
}

pub(crate) async fn doctor(session: &mut Session, args: &DoctorArgs) -> Result<Exit, Error> {
    let from = session.server_from;
    let good = &mut true;
    say(session, good, &Verdict::Good, "client", env!("CARGO_PKG_VERSION"))?;
    let client = match session.client().await {
        Ok(client) => client,
        Err(error) => {
            say(session, good, &Verdict::Bad, "connection", &format!("{error} ({from})"))?;
            return Err(error);
        }
    };
    let clock = session.ui.clock();
    let before = clock.monotonic();
    let machines = client.all_machines("", usize::MAX).await?;
    let took = clock.monotonic().saturating_sub(before);
    let verdict = if took.as_millis() > LATENCY_MS_MAX { Verdict::Look } else { Verdict::Good };
    let address = client.address.clone();
    let text =
        format!("{address} ({from}), all machines listed in {:.0} ms", took.as_secs_f64() * 1000.0);
    say(session, good, &verdict, "connection", &text)?;

    let (verdict, text) = match client.health().await {
        Ok(ServingStatus::Serving) => (Verdict::Good, "serving".to_owned()),
        Ok(status) => (Verdict::Bad, status.as_str_name().to_lowercase()),
        Err(error) => (Verdict::Look, format!("cannot be asked: {error}")),
    };
    say(session, good, &verdict, "health", &text)?;
    versions_and_clock(session, good, &client).await?;
    let plans = client.all_plans().await?;
    say(session, good, &Verdict::Good, "plans", &plans.len().to_string())?;

    let active = client.all_runs("phase = PENDING OR phase = RUNNING", usize::MAX).await?;
    let now_ms = session.ui.now_ms();
    let by_machine: HashMap<&str, &pb::Run> =
        active.iter().map(|run| (run.machine_id.as_str(), run)).collect();
    let troubled = machines
        .iter()
        .filter(|machine| {
            let run = by_machine.get(machine.machine_id.as_str()).copied();
            issues_of(machine, run, now_ms).iter().any(|issue| !issue.waits)
        })
        .count();
    let text = format!(
        "{} machine{}, {} active run{}, {troubled} in need of a look",
        machines.len(),
        plural(machines.len()),
        active.len(),
        plural(active.len())
    );
    let verdict = if troubled > 0 { Verdict::Look } else { Verdict::Good };
    say(session, good, &verdict, "fleet", &text)?;
    if troubled > 0 {
        session.ui.note("Next: bmdemo-cli issues");
    }
    Ok(if args.exit_code && !*good { Exit::Refused } else { Exit::Ok })
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// What the server reports about itself.
async fn versions_and_clock(
    session: &mut Session,
    good: &mut Good,
    client: &Client,
) -> Result<(), Error> {
    let answer = client.server_facts().await?;
    match answer.version {
        Some(version) if version == env!("CARGO_PKG_VERSION") => {
            say(session, good, &Verdict::Good, "server", &version)?
        }
        Some(version) => {
            let text = format!("{version}, while this client is {}", env!("CARGO_PKG_VERSION"));
            say(session, good, &Verdict::Look, "server", &text)?;
        }
        None => say(session, good, &Verdict::Look, "server", "does not report its version")?,
    }
    if let Some(at_ms) = answer.clock_ms {
        let skew = i64::try_from(session.ui.now_ms()).unwrap_or(i64::MAX) - at_ms;
        let verdict = if skew.abs() > SKEW_MS_MAX { Verdict::Look } else { Verdict::Good };
        let text = match skew {
            skew if skew.abs() <= SKEW_MS_MAX => "agrees with the server's".to_owned(),
            skew if skew > 0 => format!("{} ahead of the server's", elapsed_text(skew)),
            skew => format!("{} behind the server's", elapsed_text(-skew)),
        };
        say(session, good, &verdict, "clock", &text)?;
    }
    if let Some(info) = &answer.info {
        locks(session, good, info)?;
        store_and_limits(session, good, info)?;
        data_and_reload(session, good, info)?;
        receivers(session, good, info)?;
    }
    Ok(())
}

/// What is stopped, locked or paused.
fn locks(session: &mut Session, good: &mut Good, info: &pb::ServerInfo) -> Result<(), Error> {
    let (look, now_ms) = (session.ui.look, session.ui.now_ms());
    for lock in &info.locks {
        let what = match lock.kind() {
            pb::LockKind::Stop => "stop",
            pb::LockKind::Plan => "plan",
            pb::LockKind::Principal | pb::LockKind::Machines | pb::LockKind::Unspecified => "lock",
        };
        let verdict = match lock.kind() {
            pb::LockKind::Stop => Verdict::Bad,
            pb::LockKind::Plan
            | pb::LockKind::Principal
            | pb::LockKind::Machines
            | pb::LockKind::Unspecified => Verdict::Look,
        };
        say(session, good, &verdict, what, &lock_line(look, lock, now_ms))?;
    }
    if info.runs_held_back > 0 {
        let count = usize::try_from(info.runs_held_back).unwrap_or(usize::MAX);
        let verb = if count == 1 { "waits" } else { "wait" };
        let text = format!("{count} run{} {verb} for that", plural(count));
        say(session, good, &Verdict::Look, "held back", &text)?;
    }
    Ok(())
}

/// Who is notified of what happens, and who lags.
fn receivers(session: &mut Session, good: &mut Good, info: &pb::ServerInfo) -> Result<(), Error> {
    let now_ms = i64::try_from(session.ui.now_ms()).unwrap_or(i64::MAX);
    for receiver in &info.receivers {
        let oldest = instant(receiver.oldest_event_at.as_ref());
        let lag_ms = oldest.map_or(0, |at_ms| (now_ms - at_ms).max(0));
        let is_well = receiver.error.is_empty() && lag_ms < LAG_MS_MAX;
        let verdict = if is_well { Verdict::Good } else { Verdict::Look };
        let mut text = format!("{}: ", receiver.name);
        match oldest {
            None => text.push_str("has everything"),
            Some(_) => {
                // The one that is being sent waits, too, before it is counted.
                let count = usize::try_from(receiver.events_waiting.max(1)).unwrap_or(usize::MAX);
                let (s, verb) = (plural(count), if count == 1 { "waits" } else { "wait" });
                text +=
                    &format!("{count} event{s} {verb}, the oldest for {}", elapsed_text(lag_ms));
            }
        }
        for (count, what) in [(receiver.refused, "left out"), (receiver.gaps, "gaps")] {
            if count > 0 {
                text += &format!("; {count} {what}");
            }
        }
        if !receiver.error.is_empty() {
            text += &format!(": {}", receiver.error);
        }
        say(session, good, &verdict, "notify", &text)?;
    }
    Ok(())
}

fn store_and_limits(
    session: &mut Session,
    good: &mut Good,
    info: &pb::ServerInfo,
) -> Result<(), Error> {
    let verdict = if info.store == "memory" { Verdict::Look } else { Verdict::Good };
    let lasts = if info.store == "memory" { ", nothing survives a restart" } else { "" };
    let text = format!(
        "{}{lasts}; revision {}, watches resume from {}",
        info.store, info.revision, info.oldest_revision
    );
    say(session, good, &verdict, "store", &text)?;
    // A server with a limit says it, but not to callers with a scope.
    if info.runs_max == 0 {
        return Ok(());
    }
    let mut text = format!(
        "{} of at most {} runs in progress, {} waiting",
        info.runs_in_progress, info.runs_max, info.runs_waiting
    );
    let by_provider =
        info.runs_max_by_provider.iter().map(|(name, most)| (format!("provider {name}"), most));
    let by_label = info.runs_max_by_label.iter().map(|(name, most)| (format!("each {name}"), most));
    for (what, most) in by_provider.chain(by_label) {
        text.push_str(&format!("; at most {most} for {what}"));
    }
    for (kind, most, by_label) in [
        ("disruptive", &info.disruptive_max, &info.disruptive_max_by_label),
        ("data-destroying", &info.data_destroying_max, &info.data_destroying_max_by_label),
    ] {
        if !most.is_empty() {
            text.push_str(&format!("; at most {most} that are {kind}"));
        }
        for (label, most) in by_label {
            text.push_str(&format!("; at most {most} that are {kind} for each {label}"));
        }
    }
    // That some wait is what limits are for; those that wait too long are among the issues.
    say(session, good, &Verdict::Good, "limits", &text)
}

fn data_and_reload(
    session: &mut Session,
    good: &mut Good,
    info: &pb::ServerInfo,
) -> Result<(), Error> {
    let now_ms = i64::try_from(session.ui.now_ms()).unwrap_or(i64::MAX);
    let ago = |at: Option<&prost_types::Timestamp>| {
        instant(at).map(|at_ms| format!("{} ago", elapsed_text((now_ms - at_ms).max(0))))
    };
    if !info.data_dir.is_empty() {
        let little = info.data_bytes_free < BYTES_FREE_MIN;
        let verdict = if little { Verdict::Look } else { Verdict::Good };
        let backup = match ago(info.last_backup_at.as_ref()) {
            Some(ago) => format!("last backup {ago}"),
            None if info.store == "postgresql" => "the database is in PostgreSQL".to_owned(),
            None => "no backup known".to_owned(),
        };
        let text = format!(
            "{}: {}, {} free; {backup}",
            info.data_dir,
            bytes_text(info.data_bytes),
            bytes_text(info.data_bytes_free)
        );
        say(session, good, &verdict, "data", &text)?;
    }
    let Some(reload) = &info.last_reload else { return Ok(()) };
    let ago = ago(reload.at.as_ref()).unwrap_or_default();
    let mut lines = reload.error.lines();
    match lines.next() {
        None => {
            let text = format!("configuration and plans were reloaded {ago}");
            say(session, good, &Verdict::Good, "reload", &text)
        }
        Some(why) => {
            let text =
                format!("reload refused {ago}, the previous configuration stays in force: {why}");
            say(session, good, &Verdict::Bad, "reload", &text)?;
            // A diagnostic of a plan has the file and the line below its first one.
            let rest: Vec<&str> = lines.filter(|line| !line.trim().is_empty()).collect();
            for line in rest.iter().take(RELOAD_LINES_MAX) {
                let line = format!("  {}", sanitized(line));
                writeln!(session.ui.out(), "{line}")?;
            }
            let next = match rest.is_empty() {
                true => "fix it, then send SIGHUP to the server",
                false => "bmdemo-cli plan check FILE… on the server's plans",
            };
            writeln!(session.ui.out(), "  Next: {next}")?;
            Ok(())
        }
    }
}

/// A number of bytes, for people.
fn bytes_text(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut tenths = u128::from(bytes) * 10 / 1024;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

pub(crate) async fn version(session: &mut Session, _args: &VersionArgs) -> Result<Exit, Error> {
    writeln!(session.ui.out(), "bmdemo-cli {}", env!("CARGO_PKG_VERSION"))?;
    session.ui.flush()?;
    // Not reaching a server is no error here.
    if let Ok(client) = session.client().await
        && let Ok(answer) = client.server_facts().await
    {
        let version = answer.version.unwrap_or_else(|| "of unknown version".to_owned());
        let address = client.address.clone();
        writeln!(session.ui.out(), "server {} at {address}", sanitized(&version))?;
    }
    Ok(Exit::Ok)
}

pub(crate) fn man(
    session: &mut Session,
    args: &ManArgs,
    command: clap::Command,
) -> Result<Exit, Error> {
    let Some(dir) = &args.dir else {
        let mut page = command;
        page.build();
        for word in &args.words {
            let found = page.find_subcommand(word).cloned().ok_or_else(|| {
                Error::usage(
                    format!("there is no command {word:?}"),
                    "list the commands with: bmdemo-cli --help",
                )
            })?;
            page = found;
        }
        // The page of the whole program.
        let title = page.get_bin_name().unwrap_or("bmdemo-cli").replace(' ', "-");
        clap_mangen::Man::new(page).title(title).render(&mut session.ui.out())?;
        return Ok(Exit::Ok);
    };
    let failed = |error: std::io::Error| Error::Local {
        message: format!("cannot write the manual pages to {}", dir.display()),
        hint: None,
        source: Some(error.into()),
    };
    std::fs::create_dir_all(dir).map_err(failed)?;
    clap_mangen::generate_to(command, dir).map_err(failed)?;
    Ok(Exit::Ok)
}

#[cfg(test)]
mod tests {
    use super::bytes_text;

    #[test]
    fn bytes_are_shown_in_units() {
        let texts =
            [0, 1023, 1024, 1536, 10 << 20, (1 << 40) - 1, 5 << 40, u64::MAX].map(bytes_text);
        assert_eq!(
            texts,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "10.0 MiB",
                "1023.9 GiB",
                "5.0 TiB",
                "16777215.9 TiB"
            ]
        );
    }
}
