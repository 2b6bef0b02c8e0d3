//! The semantics of the API, compared with a model written from the rules.
//!
//! Requests in any order, with and without request ids and etags, dry runs, crashes and orderly restarts of the engine
//! on the same store and world. After each of them the answer must match the model, and so must every machine and every
//! run.
//!
//! ```sh
//! cargo test --test model                                        # 40 cases
//! BMDEMO_PROOF=full cargo test --profile sim --test model        # 5,000 cases
//! BMDEMO_MODEL_CASES=100000 cargo test --profile sim --test model
//! ```
//!
//! A failure is shrunk to the fewest requests that show it, and kept in `tests/model/regressions.txt`.

#![allow(
    clippy::wildcard_enum_match_arm,
    reason = "a rule names the states and phases that it is about"
)]

mod asking;
mod reference;
mod rules;
mod system;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;
use proptest::test_runner::FileFailurePersistence;
use proptest_state_machine::{
    ReferenceStateMachine as _, StateMachineTest as _, prop_state_machine,
};

use asking::{Ask, Etag, Step};
use reference::Model;
use rules::{Plan, SCRIPT};
use system::Api;

fn cases() -> u32 {
    let is_full = std::env::var("BMDEMO_PROOF").is_ok_and(|proof| proof == "full");
    let given = std::env::var("BMDEMO_MODEL_CASES").ok();
    let given = given.map(|text| text.parse().expect("BMDEMO_MODEL_CASES is a number"));
    given.unwrap_or(if is_full { 5_000 } else { 40 })
}

/// Whether the server agrees with the model, in a world with the faults of the script.
fn agrees(script: &'static str, steps: &[Step]) -> bool {
    let run = || {
        let start = (Model::new(), Api::with(script));
        steps.iter().fold(start, |(model, api), step| {
            let model = Model::apply(model, step);
            let api = Api::apply(api, &model, *step);
            (model, api)
        })
    };
    catch_unwind(AssertUnwindSafe(run)).is_ok()
}

/// The comparison detects differences.
#[test]
fn differences_are_noticed() {
    let (machine, plan, etag) = (0, Plan::Short, Etag::None);
    let start = Ask::Start { machine, plan, force: false, dry: false, etag };
    let ask = |ask| Step::Ask(ask, None);
    let steps = [ask(Ask::Register { machine, serves: false }), ask(start), Step::Pass];
    assert!(agrees(SCRIPT, &steps));
    assert!(!agrees("machine=good-* do=fail-permanent", &steps), "a run failed");
    assert!(!agrees("machine=good-* do=slow:3h", &steps), "a run has not ended");
}

prop_state_machine! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        max_shrink_iters: 2_000,
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct("tests/model/regressions.txt"))),
        ..ProptestConfig::default()
    })]

    #[test]
    fn the_api_does_what_its_rules_say(sequential 1..40 => Api);
}
