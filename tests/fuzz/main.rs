//! The fuzz targets of `fuzz/` without a fuzzer: every file of their corpus, and random and mutated bytes.
//!
//! ```sh
//! cargo test --test fuzz
//! BMDEMO_PROOF=full cargo test --profile sim --test fuzz
//! cd fuzz && cargo +nightly fuzz run filter        # with coverage, for as long as wanted
//! ```
//!
//! An input that a fuzzer finds goes into `fuzz/corpus/<target>/`, and so is always tested.

#[path = "../../fuzz/src/lib.rs"]
#[expect(unreachable_pub, reason = "public in the crate of the fuzzer")]
mod targets;

use std::fs;
use std::path::PathBuf;

use proptest::prelude::*;
use proptest::sample::Index;

type Target = (&'static str, fn(&[u8]));

const TARGETS: [Target; 6] = [
    ("plan_toml", targets::plan_toml),
    ("filter", targets::filter),
    ("tokens", targets::tokens),
    ("stored_records", targets::stored_records),
    ("requests", targets::requests),
    ("json", targets::json),
];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files of a folder, in the order of their names.
fn files(folder: &str) -> Vec<Vec<u8>> {
    let entries =
        fs::read_dir(root().join(folder)).unwrap_or_else(|error| panic!("{folder}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    paths
        .iter()
        .filter(|path| path.is_file())
        .map(|path| fs::read(path).expect("a file of the corpus"))
        .collect()
}

/// The inputs of a target: its corpus, and for plans also those of the crate.
fn corpus(target: &str) -> Vec<Vec<u8>> {
    let mut found = files(&format!("fuzz/corpus/{target}"));
    if target == "plan_toml" {
        found.extend(files("plans"));
        found.extend(files("tests/plans/broken"));
    }
    assert!(!found.is_empty(), "{target} has no corpus");
    found
}

#[test]
fn the_corpus_of_every_target_passes() {
    for (name, target) in TARGETS {
        for input in corpus(name) {
            target(&input);
        }
    }
}

/// Every target of the fuzzer is tested here, and has a corpus.
#[test]
fn no_target_is_left_out() {
    let mut there: Vec<_> = fs::read_dir(root().join("fuzz/fuzz_targets"))
        .unwrap()
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_string_lossy().into_owned())
        .collect();
    there.sort();
    let mut tested: Vec<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    tested.sort();
    assert_eq!(there, tested);
}

/// A small change of an input, of the kinds that fuzzers make.
#[derive(Debug, Clone)]
enum Mutation {
    Set(Index, u8),
    Remove(Index, usize),
    Insert(Index, Vec<u8>),
    Repeat(Index, usize),
    /// The rest of another input follows.
    Splice(Index, Index, Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), any::<u8>()).prop_map(|(at, byte)| Mutation::Set(at, byte)),
        (any::<Index>(), 1_usize..9).prop_map(|(at, count)| Mutation::Remove(at, count)),
        (any::<Index>(), prop::collection::vec(any::<u8>(), 1..5))
            .prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
        (any::<Index>(), 1_usize..33).prop_map(|(at, count)| Mutation::Repeat(at, count)),
        (any::<Index>(), any::<Index>(), any::<Index>())
            .prop_map(|(at, other, from)| Mutation::Splice(at, other, from)),
    ]
}

fn mutate(mut input: Vec<u8>, mutation: &Mutation, corpus: &[Vec<u8>]) -> Vec<u8> {
    let place = |at: &Index, bytes: &[u8]| at.index(bytes.len() + 1);
    match mutation {
        Mutation::Set(at, byte) if !input.is_empty() => {
            let at = at.index(input.len());
            input[at] = *byte;
        }
        Mutation::Set(_, byte) => input.push(*byte),
        Mutation::Remove(at, count) => {
            let at = place(at, &input);
            let end = input.len().min(at + count);
            input.drain(at..end);
        }
        Mutation::Insert(at, bytes) => {
            let at = place(at, &input);
            input.splice(at..at, bytes.iter().copied());
        }
        Mutation::Repeat(at, count) => {
            let at = place(at, &input);
            let part = input[at..input.len().min(at + count)].to_vec();
            input.splice(at..at, part);
        }
        Mutation::Splice(at, other, from) => {
            let other = &corpus[other.index(corpus.len())];
            input.truncate(place(at, &input));
            input.extend(&other[place(from, other)..]);
        }
    }
    input
}

/// Cases per target; calls of the services cost more than the rest.
fn cases(target: &str) -> u32 {
    let is_full = std::env::var("BMDEMO_PROOF").is_ok_and(|proof| proof == "full");
    match (target, is_full) {
        ("requests", false) => 150,
        (_, false) => 1_000,
        ("requests", true) => 20_000,
        (_, true) => 200_000,
    }
}

fn survives_mutations(target: usize) {
    let (name, target) = TARGETS[target];
    let corpus = corpus(name);
    let config = ProptestConfig {
        cases: cases(name),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mutated = (any::<Index>(), prop::collection::vec(mutation(), 1..6));
    let random = prop::collection::vec(any::<u8>(), 0..200);
    proptest!(config, |(kind in 0..10, (seed, mutations) in mutated, bytes in random)| {
        let mut input = bytes;
        if kind > 0 {
            input = corpus[seed.index(corpus.len())].clone();
            for mutation in &mutations {
                input = mutate(input, mutation, &corpus);
            }
        }
        target(&input);
    });
}

#[test]
fn plan_files_survive_mutations() {
    survives_mutations(0);
}

#[test]
fn filters_survive_mutations() {
    survives_mutations(1);
}

#[test]
fn tokens_survive_mutations() {
    survives_mutations(2);
}

#[test]
fn stored_records_survive_mutations() {
    survives_mutations(3);
}

#[test]
fn requests_survive_mutations() {
    survives_mutations(4);
}

#[test]
fn json_survives_mutations() {
    survives_mutations(5);
}
