//! Plans of `--plans-dir`: added to the built-in ones, or replacing those with the same id. Actions of `--actions-dir`, which
//! plans use like built-in ones.

use std::path::{Path, PathBuf};

use super::config::ConfigError;
use crate::files;
use crate::plan::limits::{FILE_BYTES_MAX, FILES_MAX};
use crate::plan::registry::BUILT_IN;
use crate::plan::{
    Actions, Diagnostic, Registry, Risk, SourceFile, compile_actions, compile_with, render,
};

/// Characters of a digest that are said.
const DIGEST_CHARS: usize = 12;

/// The plans of the server: the built-in ones and those of `dir`.
///
/// # Errors
/// [`ConfigError`] with every diagnostic of every file, or the file that cannot be read.
pub(super) fn load(dir: Option<&Path>, actions: &Actions) -> Result<Registry, ConfigError> {
    let Some(dir) = dir else { return Ok(Registry::built_in()) };
    let files = read_dir(dir)?;
    let own = compiled(&files, |sources| compile_with(sources, actions))?;
    let built_in = BUILT_IN.iter().filter(|plan| !own.iter().any(|other| other.id == plan.id));
    let plans = built_in.cloned().chain(own.iter().cloned()).collect();
    Registry::from_plans(plans)
        .map_err(|error| ConfigError::Plans(format!("{error} (plans of {})", dir.display())))
}

/// The actions of the server: the built-in ones and those of `dir`.
///
/// # Errors
/// [`ConfigError`] with every diagnostic of every file, or the file that cannot be read.
pub(super) fn actions(dir: Option<&Path>) -> Result<Actions, ConfigError> {
    let Some(dir) = dir else { return Ok(Actions::default()) };
    compiled(&read_dir(dir)?, compile_actions)
}

/// What another set of plans changes.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    /// One sentence for each plan that was added, changed or removed.
    pub(super) all: Vec<String>,
    /// One for each of them that puts more at risk than the plan with its id did before.
    pub(super) more_dangerous: Vec<String>,
}

/// Compares the plans of before and after, by what they do and not by what they say of themselves.
pub(super) fn changes(before: &Registry, after: &Registry) -> Changes {
    let mut changes = Changes::default();
    let short = |digest: &str| digest.chars().take(DIGEST_CHARS).collect::<String>();
    for new in after.iter() {
        let id = &new.plan.id;
        let old = before.get(id);
        match old {
            Some(old) if old.digest() == new.digest() => continue,
            Some(old) => {
                let (old, new) = (short(old.digest()), short(new.digest()));
                changes.all.push(format!("{id} changed from {old} to {new}"));
            }
            None => changes.all.push(format!("{id} was added, {}", short(new.digest()))),
        }
        let risk = old.map_or(Risk::None, |old| old.plan.risk());
        if new.plan.risk() > risk {
            let what = match new.plan.risk() {
                Risk::None => continue,
                Risk::Disruptive => "stops service",
                Risk::DataDestroying => "destroys data",
            };
            let steps = new.plan.steps.iter();
            let names: Vec<&str> = steps
                .filter(|step| step.action.traits.risk > risk)
                .map(|step| &*step.name)
                .collect();
            changes.more_dangerous.push(format!("{id} now {what}, in {}", names.join(", ")));
        }
    }
    for old in before.iter().filter(|old| after.get(&old.plan.id).is_none()) {
        changes.all.push(format!("{} was removed", old.plan.id));
    }
    changes
}

/// The files of a directory, by name.
fn read_dir(dir: &Path) -> Result<Vec<(String, Vec<u8>)>, ConfigError> {
    files::refuse_writable_dir(dir)
        .map_err(|source| ConfigError::Unreadable { path: dir.to_owned(), source })?;
    list(dir)?
        .into_iter()
        .map(|path| match files::read_trusted(&path, FILE_BYTES_MAX as u64) {
            Ok(bytes) => Ok((path.display().to_string(), bytes)),
            Err(source) => Err(ConfigError::Unreadable { path, source }),
        })
        .collect()
}

fn compiled<T>(
    files: &[(String, Vec<u8>)],
    compile: impl FnOnce(&[SourceFile<'_>]) -> Result<T, Vec<Diagnostic>>,
) -> Result<T, ConfigError> {
    let sources: Vec<SourceFile<'_>> =
        files.iter().map(|(name, bytes)| SourceFile { name, bytes }).collect();
    compile(&sources).map_err(|diagnostics| {
        ConfigError::Plans(render(&sources, &diagnostics, false).trim_end().to_owned())
    })
}

/// The plan files of a directory, sorted; hidden ones are skipped, since editors and mounts leave copies in them.
fn list(dir: &Path) -> Result<Vec<PathBuf>, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: dir.to_owned(), source };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
        {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            let message = format!("it has more than {FILES_MAX} plans");
            return Err(unreadable(std::io::Error::other(message)));
        }
    }
    files.sort();
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    const REBOOT: &str = include_str!("../../plans/reboot.toml");

    fn dir_of(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), text).unwrap();
        }
        dir
    }

    #[test]
    fn plans_are_added_and_replaced() {
        let own = REBOOT
            .replace("plan/reboot", "plan/reboot-twice")
            .replace("default_for", "# default_for");
        let changed = REBOOT.replace("display_name = \"", "display_name = \"Our ");
        let dir = dir_of(&[
            ("a.toml", &own),
            ("b.toml", &changed),
            (".c.toml", "not a plan"),
            ("README.md", "not a plan"),
        ]);
        let plans = load(Some(dir.path()), Actions::BUILT_IN).unwrap();
        assert_eq!(plans.iter().len(), BUILT_IN.len() + 1);
        assert!(plans.get("plan/reboot-twice").is_some());
        assert!(plans.get("plan/reboot").unwrap().plan.display_name.starts_with("Our "));
    }

    #[test]
    fn a_plan_that_puts_more_at_risk_is_named() {
        let before = Registry::built_in();
        assert_eq!(changes(&before, &Registry::built_in()), Changes::default());
        // The wipe of another plan, under the id of a restart.
        let rma = include_str!("../../plans/rma.toml");
        let worse = rma
            .replace("plan/rma", "plan/reboot")
            .replace("default_for = \"RMA\"", "default_for = \"REBOOT\"\nallow_destructive = true");
        let own = REBOOT.replace("plan/reboot", "plan/own").replace("default_for", "# default_for");
        let dir = dir_of(&[("a.toml", &worse), ("b.toml", &own)]);
        let after = load(Some(dir.path()), Actions::BUILT_IN).unwrap();
        let Changes { all, more_dangerous } = changes(&before, &after);
        assert_eq!(all.len(), 2, "{all:?}");
        assert!(all.iter().any(|said| said.starts_with("plan/own was added, ")), "{all:?}");
        assert!(all.iter().any(|said| said.starts_with("plan/reboot changed from ")), "{all:?}");
        assert_eq!(more_dangerous.len(), 2, "{more_dangerous:?}");
        let found = |start: &str| more_dangerous.iter().any(|said| said.starts_with(start));
        assert!(
            found("plan/reboot now destroys data, in ") && found("plan/own now stops service, in "),
            "{more_dangerous:?}"
        );
        let back = changes(&after, &before);
        assert!(back.all.contains(&"plan/own was removed".to_owned()), "{back:?}");
        assert_eq!(back.more_dangerous, Vec::<String>::new());
    }

    #[test]
    fn what_others_can_write_is_refused() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir =
            dir_of(&[("a.toml", &REBOOT.replace("display_name = \"", "display_name = \"Our "))]);
        let file = dir.path().join("a.toml");
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        let refused = || {
            let Err(ConfigError::Unreadable { path, source }) =
                load(Some(dir.path()), Actions::BUILT_IN)
            else {
                panic!("it is not refused")
            };
            assert!(actions(Some(dir.path())).is_err());
            (path, source.to_string())
        };
        load(Some(dir.path()), Actions::BUILT_IN).unwrap();
        for mode in [0o664, 0o646] {
            set(&file, mode);
            let (path, why) = refused();
            assert_eq!(path, file);
            assert!(why.contains("chmod go-w") && why.contains(&format!("{mode:04o}")), "{why}");
        }
        set(&file, 0o600);
        for mode in [0o770, 0o707, 0o1777] {
            set(dir.path(), mode);
            let (path, why) = refused();
            assert_eq!(path, dir.path());
            assert!(why.contains("chmod go-w"), "{why}");
        }
        set(dir.path(), 0o755);
        load(Some(dir.path()), Actions::BUILT_IN).unwrap();
    }

    #[test]
    fn an_extension_is_one_in_any_case() {
        let dir = dir_of(&[("A.TOML", "not a plan")]);
        assert!(
            load(Some(dir.path()), Actions::BUILT_IN).is_err(),
            "a plan that would not be read is no plan"
        );
    }

    #[test]
    fn what_is_no_file_is_not_waited_for() {
        for (place, what) in
            ["a named pipe", "a directory", "bytes", "symbolic"].into_iter().enumerate()
        {
            let dir = dir_of(&[]);
            let path = dir.path().join("a.toml");
            match place {
                0 => rustix::fs::mknodat(
                    rustix::fs::CWD,
                    &path,
                    rustix::fs::FileType::Fifo,
                    rustix::fs::Mode::RUSR,
                    0,
                )
                .unwrap(),
                1 => std::fs::create_dir(&path).unwrap(),
                2 => std::fs::File::create(&path).unwrap().set_len(200 << 20).unwrap(),
                _ => std::os::unix::fs::symlink(&path, &path).unwrap(),
            }
            let error = load(Some(dir.path()), Actions::BUILT_IN).unwrap_err();
            assert!(error.to_string().starts_with("cannot read "), "{error}");
            let ConfigError::Unreadable { source, .. } = error else { panic!("{error}") };
            assert!(source.to_string().contains(what), "{source}");
        }
    }

    #[test]
    fn bad_plans_are_shown_where_they_are_bad() {
        let dir = dir_of(&[("a.toml", &REBOOT.replace("steps", "stepps"))]);
        let error = load(Some(dir.path()), Actions::BUILT_IN).unwrap_err().to_string();
        assert!(error.contains("a.toml:") && error.contains("stepps"), "{error}");
    }

    #[test]
    fn a_second_default_is_refused_by_both_names() {
        let second = REBOOT.replace("plan/reboot", "plan/reboot-twice");
        let error = load(Some(dir_of(&[("a.toml", &second)]).path()), Actions::BUILT_IN)
            .unwrap_err()
            .to_string();
        assert!(error.contains("plan/reboot`") && error.contains("plan/reboot-twice`"), "{error}");
    }
}
