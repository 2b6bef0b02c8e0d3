//! Checks that the compiler does not make: layers, purity, reasons, sizes, prose, and that documents name existing files.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a file that cannot be read fails the test"
)]

mod circles;
mod prose;
mod supply;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A file of the repository: its path from the root, with `/`, and its text if it has one.
struct File {
    path: String,
    text: String,
}

/// Every text file below a folder of the repository, except what builds leave behind.
fn files(folder: &str) -> Vec<File> {
    let mut pending = vec![root().join(folder)];
    let mut found = Vec::new();
    while let Some(path) = pending.pop() {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name == ".git" || name == "target" {
            continue;
        }
        if path.is_dir() {
            pending.extend(entries(&path));
        } else if let Ok(text) = fs::read_to_string(&path) {
            found.push(File { path: relative(&path), text });
        }
    }
    assert!(!found.is_empty(), "{folder} is empty");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect()
}

fn relative(path: &Path) -> String {
    let parts = path.strip_prefix(root()).unwrap().components();
    parts.map(|part| part.as_os_str().to_string_lossy().into_owned()).collect::<Vec<_>>().join("/")
}

fn sources() -> Vec<File> {
    files("src").into_iter().filter(|file| file.path.ends_with(".rs")).collect()
}

impl File {
    /// First part of the path below `src/`, without `.rs`.
    fn layer(&self) -> &str {
        let rest = self.path.strip_prefix("src/").unwrap_or(&self.path);
        rest.split('/').next().unwrap_or(rest).trim_end_matches(".rs")
    }

    fn is_test(&self) -> bool {
        let ends = ["/tests.rs", "_tests.rs"].iter().any(|end| self.path.ends_with(end));
        ends || self.path.contains("/tests/")
    }

    /// The code without comments and without the unit tests at its end.
    fn code(&self) -> String {
        let text = self.text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
        let is_code = |line: &&str| !line.trim_start().starts_with("//");
        text.lines().filter(is_code).collect::<Vec<_>>().join("\n")
    }
}

fn no_findings(what: &str, found: &[String]) {
    assert!(found.is_empty(), "{what}:\n  {}", found.join("\n  "));
}

/// Each module with the modules that it may name (ARCHITECTURE: a module names only modules above it).
///
/// `plan` names none: build.rs compiles it too. The CLI talks to servers over the API: it knows the generated code and
/// the plans, and only `cli/local.rs` starts a server.
const LAYERS: &[(&str, &[&str])] = &[
    ("text", &[]),
    ("selector", &[]),
    ("address", &[]),
    ("files", &[]),
    ("clock", &[]),
    ("credentials", &[]),
    ("outbound", &["address", "files", "clock"]),
    ("ids", &["clock"]),
    ("lifecycle", &["clock"]),
    ("plan", &["text"]),
    ("model", &["selector", "clock", "ids", "lifecycle", "plan"]),
    ("store", &["files", "clock", "ids", "lifecycle", "plan", "model"]),
    (
        "provider",
        &[
            "address",
            "files",
            "clock",
            "credentials",
            "outbound",
            "ids",
            "lifecycle",
            "plan",
            "model",
        ],
    ),
    ("notify", &["clock", "credentials", "outbound", "ids", "lifecycle", "plan", "model", "store"]),
    ("executor", &["clock", "ids", "lifecycle", "model", "plan", "store", "provider"]),
    ("pb", &[]),
    ("json", &["plan", "pb"]),
    (
        "api",
        &[
            "text",
            "address",
            "clock",
            "credentials",
            "outbound",
            "ids",
            "lifecycle",
            "model",
            "plan",
            "store",
            "executor",
            "pb",
            "json",
        ],
    ),
    ("fuzzing", &["ids", "store", "json", "api"]),
    (
        "server",
        &[
            "text",
            "address",
            "files",
            "clock",
            "credentials",
            "outbound",
            "ids",
            "lifecycle",
            "model",
            "plan",
            "store",
            "notify",
            "provider",
            "executor",
            "pb",
            "json",
            "api",
        ],
    ),
    ("cli", &["text", "selector", "address", "files", "clock", "pb", "json", "plan"]),
    ("bin", &["server", "cli"]),
];

/// Names of crate modules that the code of a file mentions after `crate::` or `bmdemo::`.
fn named_modules(code: &str) -> BTreeSet<String> {
    let mut named = BTreeSet::new();
    for prefix in ["crate::", "bmdemo::"] {
        for tail in code.split(prefix).skip(1) {
            // `crate::{a, b::c}` names several.
            let list = tail.strip_prefix('{').map(|list| list.split('}').next().unwrap_or(list));
            for item in list.map_or_else(|| vec![tail], |list| list.split(',').collect()) {
                let word = |c: &char| c.is_alphanumeric() || *c == '_';
                let name: String = item.trim().chars().take_while(word).collect();
                if name.chars().next().is_some_and(char::is_lowercase) {
                    named.insert(name);
                }
            }
        }
    }
    named
}

#[test]
fn imports_point_downwards() {
    let modules: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
    let mut upward = Vec::new();
    for file in sources().iter().filter(|file| !file.is_test()) {
        let layer = file.layer();
        if ["lib", "testing"].contains(&layer) {
            continue;
        }
        let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == layer) else {
            panic!("{} is in no layer: add it to LAYERS", file.path);
        };
        for named in named_modules(&file.code()) {
            let starts_server = file.path == "src/cli/local.rs" && named == "server";
            let is_module = modules.contains(&named.as_str());
            if is_module && named != layer && !allowed.contains(&named.as_str()) && !starts_server {
                upward.push(format!("{} names {named}", file.path));
            }
        }
        if file.code().contains("super::super::") && file.path.matches('/').count() <= 2 {
            upward.push(format!("{} may reach another layer by super::super", file.path));
        }
    }
    no_findings("imports that climb a layer", &upward);
}

#[test]
fn the_fence_sees_imports() {
    let code =
        "use crate::store::Store;\nuse crate::{api, server::wiring};\nlet x = bmdemo::cli::run();";
    let wanted = ["api", "cli", "server", "store"].map(str::to_owned);
    assert_eq!(named_modules(code), BTreeSet::from(wanted));
}

/// Layers that must stay pure, and the words that would make them impure.
const PURE: &[&str] = &[
    "src/lifecycle/",
    "src/model/",
    "src/plan/",
    "src/executor/decide/",
    "src/executor/admission.rs",
];
const IMPURE: &[&str] = &[
    "async ",
    ".await",
    "tokio",
    "tonic",
    "std::fs",
    "std::net",
    "std::thread",
    "std::process",
    "std::env",
    "SystemTime",
    "Instant",
    "uuid",
];

#[test]
fn pure_layers_do_no_io() {
    let mut impure = Vec::new();
    let pure = |file: &&File| PURE.iter().any(|path| file.path.starts_with(path));
    let all = sources();
    assert!(PURE.iter().all(|path| all.iter().any(|file| file.path.starts_with(path))));
    for file in all.iter().filter(pure).filter(|file| !file.is_test()) {
        let code = file.code();
        let found = IMPURE.iter().filter(|word| code.contains(**word));
        impure.extend(found.map(|word| format!("{} mentions {word:?}", file.path)));
    }
    no_findings("impure code in a pure layer", &impure);
}

/// Each call gets its caller, and its deadline, in one place.
#[test]
fn requests_are_opened_in_one_place() {
    let mut opened = Vec::new();
    for file in sources() {
        let elsewhere = file.path.starts_with("src/api/") && file.path != "src/api/caller.rs";
        if !elsewhere || file.is_test() {
            continue;
        }
        let code = file.code();
        for way in
            ["request.into_inner()", "request.into_parts()", "request.get_ref()", ".metadata()"]
        {
            if code.contains(way) {
                opened.push(format!("{} has {way}: use caller::handle", file.path));
            }
        }
    }
    no_findings("requests that are opened elsewhere", &opened);
}

#[test]
fn the_lints_are_on() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    for lint in [
        "unsafe_code = \"forbid\"",
        "missing_docs = \"warn\"",
        "unreachable_pub = \"warn\"",
        "disallowed_methods = \"deny\"",
        "print_stdout = \"deny\"",
        "print_stderr = \"deny\"",
        "dbg_macro = \"deny\"",
        "todo = \"deny\"",
        "unwrap_used = \"warn\"",
        "wildcard_enum_match_arm = \"warn\"",
    ] {
        assert!(manifest.contains(lint), "Cargo.toml lacks {lint}");
    }
}

/// Words that stand for work that was put off. Written in two parts, so that this file does not accuse itself.
const PUT_OFF: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("todo", "!("),
    concat!("unimplemented", "!("),
];

/// Where the code of the project is.
const CODE: &[&str] = &["src", "tests", "plans", "proto", "docs"];

#[test]
fn nothing_is_put_off_and_no_test_is_left_out() {
    let ignored = concat!("#[ig", "nore");
    let mut found = Vec::new();
    for file in CODE.iter().flat_map(|folder| files(folder)) {
        for (number, line) in file.text.lines().enumerate() {
            let words = PUT_OFF.iter().chain([&ignored]);
            for word in words.filter(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", file.path, number + 1));
            }
        }
    }
    no_findings("work that was put off", &found);
}

#[test]
fn every_exception_from_a_lint_has_a_reason() {
    let mut bare = Vec::new();
    let rust = |file: &File| file.path.ends_with(".rs");
    for file in ["src", "tests"].iter().flat_map(|folder| files(folder)).filter(rust) {
        for kind in ["allow(", "expect("] {
            for (place, _) in file.text.match_indices(kind) {
                let is_attribute =
                    ["#[", "#!["].iter().any(|open| file.text[..place].ends_with(open));
                let attribute = file.text[place..].split(")]").next().unwrap_or_default();
                if is_attribute && !attribute.contains("reason = \"") {
                    let line = file.text[..place].lines().count();
                    bare.push(format!("{}:{line}", file.path));
                }
            }
        }
    }
    no_findings("exceptions without a reason", &bare);
}

/// Most lines of a source file. Past it, split by topic.
const LINES_MAX: usize = 450;

/// Longer files, each with its own bound and why it is longer.
const LONG: &[(&str, usize, &str)] =
    &[("src/cli/tests/server.rs", 850, "a server that answers every RPC for the tests of the CLI")];

#[test]
fn files_are_short() {
    let mut long = Vec::new();
    let all = sources();
    for file in &all {
        let lines = file.text.lines().count();
        let exception = LONG.iter().find(|(path, ..)| *path == file.path);
        let most = exception.map_or(LINES_MAX, |(_, most, _)| *most);
        if lines > most {
            long.push(format!("{} has {lines} lines, more than {most}", file.path));
        }
        if exception.is_some() && lines <= LINES_MAX {
            long.push(format!("{} is short now: remove it from LONG", file.path));
        }
    }
    for (path, _, reason) in LONG {
        assert!(!reason.is_empty() && all.iter().any(|file| file.path == *path), "{path}");
    }
    no_findings("long files", &long);
}

/// A module file that no `mod` declares is never compiled.
#[test]
fn every_source_file_is_part_of_the_crate() {
    let all = sources();
    let mut orphans = Vec::new();
    for file in all.iter().filter(|file| file.layer() != "bin" && file.path != "src/lib.rs") {
        let path = file.path.trim_end_matches("/mod.rs").trim_end_matches(".rs");
        let Some((folder, name)) = path.rsplit_once('/') else { continue };
        let parents = ["mod.rs", "lib.rs"].map(|parent| format!("{folder}/{parent}"));
        let declares = |parent: &File| {
            let above = parents.contains(&parent.path) || parent.path == format!("{folder}.rs");
            let by_path = format!("#[path = \"{name}.rs\"]");
            let by_name = |line: &str| line.trim_end().ends_with(&format!("mod {name};"));
            (above && parent.text.lines().any(by_name))
                || (parent.path.starts_with(folder) && parent.text.contains(&by_path))
        };
        if !all.iter().any(declares) {
            orphans.push(file.path.clone());
        }
    }
    no_findings("files that no module declares", &orphans);
}

/// Folders and files at the root that a path in a document can begin with.
fn top_level() -> BTreeSet<String> {
    let names = entries(root()).into_iter().map(|path| relative(&path));
    names.filter(|name| name != "target" && name != ".git").collect()
}

/// Paths of this repository that a document names: in backticks, or as the target of a link.
fn named_paths(file: &File, top: &BTreeSet<String>) -> Vec<String> {
    let mut named = Vec::new();
    for (number, part) in file.text.split('`').enumerate() {
        // Every other part stands between two backticks.
        let first = part.split('/').next().unwrap_or_default();
        let plain = part.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
        if number % 2 == 1 && plain && part.contains('/') && top.contains(first) {
            named.push(part.trim_end_matches('/').to_owned());
        }
    }
    let folder = file.path.rsplit_once('/').map_or("", |(folder, _)| folder);
    for tail in file.text.split("](").skip(1) {
        let target = tail.split([')', '#', ' ']).next().unwrap_or_default();
        if !target.is_empty() && !target.contains("://") && !target.starts_with("mailto:") {
            named.push(format!("{folder}/{target}").trim_start_matches('/').to_owned());
        }
    }
    named
}

#[test]
fn documents_name_files_that_exist() {
    let top = top_level();
    let mut missing = Vec::new();
    let documents = files("").into_iter().filter(|file| file.path.ends_with(".md"));
    for file in documents {
        for path in named_paths(&file, &top) {
            if !root().join(&path).exists() {
                missing.push(format!("{} names {path}", file.path));
            }
        }
    }
    no_findings("documents that name files which are not there", &missing);
}

#[test]
fn snapshots_belong_to_tests_that_exist() {
    let mut orphans = Vec::new();
    for file in files("snapshots") {
        let source = file.text.lines().find_map(|line| line.strip_prefix("source: "));
        let there = source.is_some_and(|source| root().join(source.trim_matches('"')).exists());
        if !there || !file.path.ends_with(".snap") {
            orphans.push(format!("{} from {}", file.path, source.unwrap_or("nowhere")));
        }
    }
    no_findings("snapshots without a test", &orphans);
}

/// Home folders of a private machine. Written in two parts, so that this file does not accuse itself.
const MACHINE_PATHS: &[&str] =
    &[concat!("/ro", "ot"), concat!("/wo", "rk"), concat!("/ho", "me"), concat!("/Us", "ers")];

#[test]
fn no_file_names_a_path_of_a_private_machine() {
    let mut found = Vec::new();
    for file in files("") {
        for path in MACHINE_PATHS {
            for (place, _) in file.text.match_indices(path) {
                let before = file.text[..place].chars().next_back();
                let after = file.text[place + path.len()..].chars().next();
                let part = |c: char| c.is_alphanumeric() || "/._-".contains(c);
                let begins = before.is_none_or(|c| !part(c) && c != '>' && c != '}');
                let ends = after.is_none_or(|c| c == '/' || !part(c));
                if begins && ends {
                    let line = file.text[..place].lines().count();
                    found.push(format!("{}:{line}: {path}", file.path));
                }
            }
        }
    }
    no_findings("paths of a machine", &found);
}
