//! The fuzzed code: plain functions of bytes, which panic if a promise is broken.
//!
//! The fuzzer calls them (`fuzz_targets/`), and so does `tests/fuzz/main.rs` of the crate, which needs no fuzzer:
//! with every file of `corpus/`, and with random and mutated bytes.

mod requests;

use bmdemo::clock::Timestamp;
use bmdemo::fuzzing::{self, Record};
use bmdemo::ids::MachineId;
use bmdemo::model::filter::{Filter, Subject};
use bmdemo::model::{Machine, MachineSpec};
use bmdemo::plan::{Plan, SourceFile, compile, render};

pub use requests::requests;

/// A plan file: every mistake has a text, and a valid plan can be read back from its canonical form.
pub fn plan_toml(data: &[u8]) {
    let files = [SourceFile { name: "fuzz.toml", bytes: data }];
    match compile(&files) {
        Ok(plans) => {
            for plan in plans {
                let read =
                    Plan::from_canonical(&plan.canonical()).expect("a canonical form reads back");
                assert_eq!(read.digest(), plan.digest());
            }
        }
        Err(mistakes) => {
            let text = render(&files, &mistakes, false);
            assert!(!mistakes.is_empty() && text.contains("fuzz.toml"), "{text:?}");
        }
    }
}

/// A filter: it is evaluated without a panic, and a refusal points into the text.
pub fn filter(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let spec = MachineSpec { provider: "fake".to_owned(), ..MachineSpec::default() };
    let id = MachineId::parse("machine-1").expect("an id");
    let machine =
        Machine::registered(id, [("rack".to_owned(), "r1".to_owned())].into(), spec, Timestamp(1));
    for subject in [Subject::Machine, Subject::Run] {
        match Filter::parse(text, subject) {
            Ok(filter) => {
                let matches = filter.matches_machine(&machine);
                if subject == Subject::Machine
                    && filter.pinned("machine_id").is_some_and(|id| id != "machine-1")
                {
                    assert!(!matches, "{text:?} pins another machine, and matches");
                }
            }
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

/// A page token, after the filter of its list: an accepted token says where to continue, in that list only.
pub fn tokens(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (filter, token) = text.split_once('\n').unwrap_or(("", text));
    if let Some(cursor) = fuzzing::page_cursor(filter, token) {
        assert_eq!(
            fuzzing::page_cursor(filter, &fuzzing::page_token(filter, cursor)),
            Some(cursor)
        );
        assert_eq!(
            fuzzing::page_cursor(&format!("{filter}x"), token),
            None,
            "a token of another list"
        );
    }
}

/// A message in JSON, after a byte that selects its kind: one that can be read reads the same after being written, and a refusal is
/// a short sentence.
pub fn json(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    match fuzzing::json_again(usize::from(kind), text) {
        Ok(again) => {
            assert_eq!(fuzzing::json_again(usize::from(kind), &again).as_ref(), Ok(&again));
        }
        Err(why) => assert!(!why.is_empty() && !why.starts_with("not written"), "{why}"),
    }
}

/// A stored record, after a byte that selects the kind: a record that can be read reads the same after being stored
/// again.
pub fn stored_records(data: &[u8]) {
    let Some((&kind, bytes)) = data.split_first() else { return };
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let kind = Record::ALL[usize::from(kind) % Record::ALL.len()];
    if let Some(again) = fuzzing::stored_again(kind, text) {
        assert_eq!(fuzzing::stored_again(kind, &again).as_ref(), Some(&again), "{kind:?}");
    }
}
