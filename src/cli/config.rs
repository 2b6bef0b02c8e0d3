//! Contexts: named servers in the user's configuration file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::Error;
use super::ui::Io;
use crate::files;

/// Largest file of contexts, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// What the file holds.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Config {
    /// Name of the context in use.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) current: Option<String>,
    /// Name of the previous one, for `context use -`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) previous: Option<String>,
    /// Every context by its name.
    #[serde(default)]
    pub(crate) contexts: BTreeMap<String, Entry>,
}

/// One context.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Entry {
    /// Address of the server, as `--server`.
    pub(crate) server: String,
    /// Name in the audit trail, as `--as`.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub(crate) actor: Option<String>,
    /// Authority of the server's certificate, as `--ca-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ca_file: Option<PathBuf>,
    /// Certificate of the client, as `--cert-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) cert_file: Option<PathBuf>,
    /// Its key, as `--key-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) key_file: Option<PathBuf>,
    /// File with a token, as `--token-file`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_file: Option<PathBuf>,
    /// Command that prints a token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) token_command: Option<String>,
}

/// Where the file is: `$BMDEMO_CONFIG`, else `bmdemo/config.toml` in `$XDG_CONFIG_HOME` or `~/.config`.
pub(crate) fn path(io: &Io) -> Option<PathBuf> {
    if let Some(path) = io.var("BMDEMO_CONFIG") {
        return Some(PathBuf::from(path));
    }
    let base = match io.var("XDG_CONFIG_HOME") {
        Some(base) => PathBuf::from(base),
        None => Path::new(io.var("HOME")?).join(".config"),
    };
    Some(base.join("bmdemo").join("config.toml"))
}

impl Config {
    /// Reads the file; a missing one is empty.
    pub(crate) fn load(io: &Io) -> Result<Self, Error> {
        let Some(path) = path(io) else { return Ok(Self::default()) };
        let text = match files::read_text(&path, FILE_BYTES_MAX) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            Err(error) => return Err(failed("cannot read", &path, error)),
        };
        toml::from_str(&text).map_err(|error| {
            // On one line: the excerpt of the file that the library draws needs several.
            let line = error.span().map_or(1, |span| 1 + text[..span.start].matches('\n').count());
            failed("there is a mistake in", &path, format!("line {line}: {}", error.message()))
        })
    }

    /// Writes the file; readers see either the old one or the new one.
    pub(crate) fn save(&self, io: &Io) -> Result<(), Error> {
        let Some(path) = path(io) else {
            return Err(Error::local(
                "there is no place for a config file",
                "set BMDEMO_CONFIG or HOME",
            ));
        };
        let text = toml::to_string(self).map_err(|error| failed("cannot write", &path, error))?;
        let written = path.parent().map_or(Ok(()), std::fs::create_dir_all).and_then(|()| {
            // Replacing a symbolic link would move the file away from where its owner keeps it.
            files::refuse_others(&path)?;
            let fresh = path.with_extension("toml.new");
            // What an earlier command has left, or what someone has put there.
            match std::fs::remove_file(&fresh) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
            // A command that prints a token is no one else's business.
            files::create_secret(&fresh)?.write_all(text.as_bytes())?;
            std::fs::rename(&fresh, &path)
        });
        written.map_err(|error| failed("cannot write", &path, error))
    }

    /// The context in use: the one named, or the current one.
    pub(crate) fn context(&self, named: Option<&str>) -> Result<Option<&Entry>, Error> {
        let Some(name) = named.or(self.current.as_deref()) else { return Ok(None) };
        self.contexts.get(name).map(Some).ok_or_else(|| self.unknown(name))
    }

    /// The error for a context that does not exist.
    pub(crate) fn unknown(&self, name: &str) -> Error {
        let names: Vec<&str> = self.contexts.keys().map(String::as_str).collect();
        let hint = if names.is_empty() {
            "make one with: bmdemo-cli context set NAME HOST:PORT".to_owned()
        } else {
            format!("the contexts are {}", names.join(", "))
        };
        Error::usage(format!("there is no context {name:?}"), hint)
    }
}

fn failed(
    what: &str,
    path: &Path,
    source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> Error {
    let hint = Some(
        "every key is in: bmdemo-cli context --help; another file is named by BMDEMO_CONFIG"
            .to_owned(),
    );
    Error::Local {
        message: format!("{what} the file of contexts, {}", path.display()),
        hint,
        source: Some(source.into()),
    }
}
