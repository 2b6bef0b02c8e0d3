//! The lock files and the local copy of the advisories agree. `.ci/supply-chain` checks the advisories themselves.

use std::collections::BTreeSet;
use std::fs;

use toml::{Table, Value};

use super::{no_findings, root};

fn table(path: &str) -> Table {
    fs::read_to_string(root().join(path)).unwrap().parse().unwrap()
}

fn packages(lock: &str) -> Vec<Value> {
    table(lock)["package"].as_array().unwrap().clone()
}

/// A crate that was not looked up could have a known hole that no check finds.
#[test]
fn locked_crates_are_looked_up_in_the_advisory_database() {
    let copy = table(".ci/advisory-db/copy.toml");
    let looked_up: BTreeSet<&str> =
        copy["looked_up"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    let mut missing = Vec::new();
    for lock in ["Cargo.lock", "fuzz/Cargo.lock"] {
        for package in packages(lock) {
            let name = package["name"].as_str().unwrap();
            if package.get("source").is_some() && !looked_up.contains(name) {
                missing.push(format!("{lock}: {name}: see .ci/advisory-db/README.md"));
            }
        }
    }
    no_findings("crates that were not looked up in the advisory database", &missing);
}

/// The fuzzer has a lock file of its own, which a new dependency leaves behind.
#[test]
fn the_lock_file_of_the_fuzzer_follows() {
    let manifest = table("Cargo.toml");
    let mut sections = vec![&manifest["dependencies"], &manifest["build-dependencies"]];
    sections.extend(
        manifest["target"].as_table().unwrap().values().map(|target| &target["dependencies"]),
    );
    let mut wanted = BTreeSet::new();
    for section in sections {
        for (name, dependency) in section.as_table().unwrap() {
            let optional = dependency.get("optional").and_then(Value::as_bool).unwrap_or(false);
            if !optional {
                wanted.insert(name.clone());
            }
        }
    }
    let fuzz = packages("fuzz/Cargo.lock");
    let ours = fuzz.iter().find(|package| package["name"].as_str() == Some("bmdemo")).unwrap();
    // A version behind the name says only that this lock file has several of them.
    let locked: BTreeSet<String> = ours["dependencies"]
        .as_array()
        .unwrap()
        .iter()
        .map(|name| name.as_str().unwrap().split(' ').next().unwrap().to_owned())
        .collect();
    let differ: Vec<String> = wanted.symmetric_difference(&locked).cloned().collect();
    no_findings(
        "dependencies in one of Cargo.toml and fuzz/Cargo.lock only (cargo update --workspace --manifest-path fuzz/Cargo.toml mends it)",
        &differ,
    );
}
