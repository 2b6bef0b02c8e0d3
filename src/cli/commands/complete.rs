//! Shell completion: small scripts that ask this program, which knows its commands and the server's ids.

use std::time::Duration;

use clap::{Arg, Args, Command, ValueEnum};

use crate::pb;

use super::super::config::Config;
use super::super::error::{Error, Exit};
use super::super::flags::FORMS;
use super::super::output::{effective_name, ended_name, sanitized};
use super::super::session::Session;
use super::super::ui::within;

/// Longest time that the shell waits for ids.
const LIVE_LIMIT: Duration = Duration::from_millis(300);
/// Most ids offered.
const IDS_MAX: usize = 1000;

/// Print the completion script of a shell. Ids of machines, runs and plans come from the server.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  source <(bmdemo-cli completions bash)
  bmdemo-cli completions zsh > \"${fpath[1]}/_bmdemo-cli\"
  bmdemo-cli completions fish > ~/.config/fish/completions/bmdemo-cli.fish")]
pub(crate) struct CompletionsArgs {
    /// Shell
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// A shell.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

const BASH: &str = r#"_bmdemo_cli() {
    local IFS=$'\n'
    COMPREPLY=($(bmdemo-cli __complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1))
}
complete -o default -F _bmdemo_cli bmdemo-cli
"#;

const ZSH: &str = r#"#compdef bmdemo-cli
_bmdemo_cli() {
    local -a found
    local line
    for line in "${(@f)$(bmdemo-cli __complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        [[ -n $line ]] && found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
    done
    if (( ${#found} )); then
        _describe 'bmdemo-cli' found
    else
        _files
    fi
}
if [ "$funcstack[1]" = "_bmdemo_cli" ]; then
    _bmdemo_cli "$@"
else
    compdef _bmdemo_cli bmdemo-cli
fi
"#;

const FISH: &str = r#"function __bmdemo_cli_complete
    set -l words (commandline -opc) (commandline -ct)
    bmdemo-cli __complete -- $words[2..] 2>/dev/null
end
complete -c bmdemo-cli -f -a '(__bmdemo_cli_complete)'
complete -c bmdemo-cli -n '__fish_seen_subcommand_from check graph simulate' -F
"#;

pub(crate) fn completions(session: &mut Session, args: &CompletionsArgs) -> Result<Exit, Error> {
    let script = match args.shell {
        Shell::Bash => BASH,
        Shell::Zsh => ZSH,
        Shell::Fish => FISH,
    };
    session.ui.out().write_all(script.as_bytes())?;
    Ok(Exit::Ok)
}

/// What a word can be.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// One of these, each with what it means.
    OneOf(Vec<(String, String)>),
    /// Values that must be looked up on the server, by the name of the argument.
    Live(String),
}

/// Prints the candidates for the last word, one per line: the word, a tab, what it means. Prints nothing on failure:
/// errors would disturb the shell's command line.
pub(crate) async fn complete(
    session: &mut Session,
    words: &[String],
    mut root: Command,
) -> Result<Exit, Error> {
    let (typed, before) =
        words.split_last().map_or(("", &[][..]), |(last, before)| (last.as_str(), before));
    root.build();
    let candidates = match wanted(&root, before, typed) {
        Wanted::OneOf(candidates) => candidates,
        Wanted::Live(name) => {
            let clock = session.ui.clock();
            within(&*clock, LIVE_LIMIT, live(session, &name)).await.unwrap_or_default()
        }
    };
    for (word, meaning) in candidates.iter().filter(|(word, _)| word.starts_with(typed)) {
        writeln!(session.ui.out(), "{}\t{}", sanitized(word), sanitized(meaning))?;
    }
    Ok(Exit::Ok)
}

/// Walks the tree of commands along the words before the one being typed.
fn wanted(root: &Command, before: &[String], typed: &str) -> Wanted {
    let mut command = root;
    let mut positionals = 0;
    let mut words = before.iter();
    while let Some(word) = words.next() {
        if let Some(option) = option_named(command, word) {
            if takes_value(option) && !word.contains('=') && words.next().is_none() {
                return values_of(option);
            }
        } else if let Some(sub) = command.find_subcommand(word) {
            command = sub;
            positionals = 0;
        } else if !word.starts_with('-') {
            // No command has this name, so nothing can follow it.
            if command.has_subcommands() {
                return Wanted::OneOf(Vec::new());
            }
            positionals += 1;
        }
    }
    if typed.starts_with('-') {
        let options = command.get_arguments().filter(|arg| !arg.is_hide_set());
        return Wanted::OneOf(
            options
                .filter_map(|arg| Some((format!("--{}", arg.get_long()?), help_of(arg))))
                .collect(),
        );
    }
    if command.has_subcommands() {
        let subs = command.get_subcommands().filter(|sub| !sub.is_hide_set());
        let about = |sub: &Command| sub.get_about().map(ToString::to_string).unwrap_or_default();
        return Wanted::OneOf(subs.map(|sub| (sub.get_name().to_owned(), about(sub))).collect());
    }
    let all: Vec<&Arg> = command.get_positionals().collect();
    let repeated = all
        .last()
        .copied()
        .filter(|last| last.get_num_args().is_some_and(|count| count.max_values() > 1));
    all.get(positionals).copied().or(repeated).map_or(Wanted::OneOf(Vec::new()), values_of)
}

fn option_named<'a>(command: &'a Command, word: &str) -> Option<&'a Arg> {
    let name = word.split('=').next().unwrap_or(word);
    command.get_opts().chain(command.get_arguments()).find(|arg| {
        arg.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long))
            || arg
                .get_short()
                .is_some_and(|short| name.strip_prefix('-') == Some(short.to_string().as_str()))
    })
}

fn takes_value(arg: &Arg) -> bool {
    arg.get_action().takes_values()
}

fn help_of(arg: &Arg) -> String {
    arg.get_help().map(ToString::to_string).unwrap_or_default()
}

fn values_of(arg: &Arg) -> Wanted {
    let closed = arg.get_possible_values();
    if closed.is_empty() {
        let name = arg.get_value_names().and_then(|names| names.first()).map(ToString::to_string);
        if name.as_deref() == Some("FORM") {
            let forms = FORMS.map(|(form, about)| (form.to_owned(), about.to_owned()));
            return Wanted::OneOf(forms.to_vec());
        }
        return Wanted::Live(name.unwrap_or_default());
    }
    let help = |value: &clap::builder::PossibleValue| {
        value.get_help().map(ToString::to_string).unwrap_or_default()
    };
    Wanted::OneOf(closed.iter().map(|value| (value.get_name().to_owned(), help(value))).collect())
}

/// Ids of the kind that an argument is named after.
async fn live(session: &mut Session, name: &str) -> Vec<(String, String)> {
    if name == "CONTEXT" {
        let contexts = Config::load(session.ui.io()).unwrap_or_default().contexts;
        return contexts.into_iter().map(|(name, entry)| (name, entry.server)).collect();
    }
    if name == "MACHINE|PHASE" {
        let phases =
            (1..=6).map(|phase| (super::super::output::phase_name(phase), "phase".to_owned()));
        return phases.chain(machines(session).await).collect();
    }
    if name == "PHASE" {
        return (1..=6)
            .map(|phase| (super::super::output::phase_name(phase), String::new()))
            .collect();
    }
    if matches!(name, "MACHINE" | "MACHINE|LABEL") {
        return machines(session).await;
    }
    if name == "METHOD" {
        return super::api::methods();
    }
    if name == "ACTION" {
        let actions = crate::plan::ActionSpec::all().iter();
        return actions.map(|spec| (spec.name.to_string(), spec.description.to_string())).collect();
    }
    if name == "PLAN|FILE" {
        let plans = crate::plan::registry::BUILT_IN.iter();
        return plans.map(|plan| (plan.name().to_owned(), plan.display_name.to_string())).collect();
    }
    if !matches!(name, "RUN" | "PLAN") {
        return Vec::new();
    }
    let Ok(client) = session.client().await else { return Vec::new() };
    match name {
        "RUN" => {
            let runs = client.newest_runs("", IDS_MAX).await.unwrap_or_default();
            let about =
                |run: &pb::Run| format!("{} {} {}", run.machine_id, run.plan_id, ended_name(run));
            runs.into_iter().map(|run| (run.run_id.clone(), about(&run))).collect()
        }
        _ => {
            let plans = client.all_plans().await.unwrap_or_default();
            plans.into_iter().map(|plan| (plan.plan_id, plan.display_name)).collect()
        }
    }
}

/// Ids of machines, each with its effective state.
async fn machines(session: &mut Session) -> Vec<(String, String)> {
    let Ok(client) = session.client().await else { return Vec::new() };
    let machines = client.all_machines("", IDS_MAX).await.unwrap_or_default();
    let state = |machine: &pb::Machine| {
        effective_name(machine.status.as_ref().map_or(0, |status| status.effective_state))
    };
    machines.into_iter().map(|machine| (machine.machine_id.clone(), state(&machine))).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn at(line: &[&str]) -> Wanted {
        let mut root = super::super::super::tree::Cli::command();
        root.build();
        let words: Vec<String> = line.iter().map(|word| (*word).to_owned()).collect();
        let (typed, before) = words.split_last().unwrap();
        wanted(&root, before, typed)
    }

    #[test]
    fn every_place_knows_what_may_stand_there() {
        let is_live = |line: &[&str], name: &str| {
            assert_eq!(at(line), Wanted::Live(name.to_owned()), "{line:?}")
        };
        is_live(&["repave", ""], "MACHINE");
        is_live(&["repave", "machine-1", ""], "MACHINE");
        is_live(&["--server", "x:1", "machine", "describe", ""], "MACHINE");
        is_live(&["machine", "set-phase", "machine-1", ""], "MACHINE|PHASE");
        is_live(&["machine", "label", ""], "MACHINE|LABEL");
        is_live(&["watch", ""], "RUN");
        is_live(&["run", "start", ""], "PLAN");
        is_live(&["run", "start", "rma", "--reason", "x", ""], "MACHINE");
        is_live(&["plan", "explain", ""], "ACTION");
        is_live(&["api", ""], "METHOD");
        is_live(&["repave", "--server", ""], "HOST:PORT");
        let words = |line: &[&str]| match at(line) {
            Wanted::OneOf(words) => words.into_iter().map(|(word, _)| word).collect::<Vec<_>>(),
            Wanted::Live(name) => panic!("{name}"),
        };
        assert!(words(&["ma"]).contains(&"machine".to_owned()));
        assert!(!words(&[""]).contains(&"serve".to_owned()));
        assert!(words(&["list", "-o", ""]).contains(&"jsonl".to_owned()));
        assert!(words(&["list", "--"]).contains(&"--selector".to_owned()));
        assert_eq!(words(&["resolve", "x", "wipe", ""]), ["done", "retry", "skip", "abort"]);
        assert_eq!(words(&["skip", "x", "wipe", ""]), Vec::<String>::new());
    }
}
