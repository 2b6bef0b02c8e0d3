//! The ledger detects violations: each promise of the provider contract, broken.

use super::*;

/// An entry of a repave by run 1 that took effect.
fn entry(attempt: u32, from_ms: u64, to_ms: u64) -> LedgerEntry {
    LedgerEntry {
        machine: MachineId::parse("machine-1").unwrap(),
        operation: OperationId::new(run(1), "repave", attempt),
        action: "repave".to_owned(),
        epoch: Epoch(1),
        fence: Epoch(1),
        started_at: Timestamp(from_ms),
        finished_at: Some(Timestamp(to_ms)),
        outcome: Outcome::Done,
    }
}

fn accused(ledger: &[LedgerEntry], of: &str) {
    let found = violations(ledger);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains(of), "{found:?}");
}

#[test]
fn what_is_in_order_is_not_accused() {
    let mut elsewhere = entry(3, 12, 15);
    elsewhere.machine = MachineId::parse("machine-2").unwrap();
    let ledger = [entry(1, 0, 10), entry(2, 10, 20), elsewhere];
    assert_eq!(violations(&ledger), Vec::<String>::new());
    assert_eq!(violations(&[]), Vec::<String>::new());
}

#[test]
fn an_operation_done_twice() {
    accused(&[entry(1, 0, 10), entry(1, 10, 20)], "began 2 times");
}

#[test]
fn operations_that_overlap() {
    accused(&[entry(1, 0, 10), entry(2, 9, 12)], "ran until 10");
    // A short one in between does not hide the long one.
    let found = violations(&[entry(1, 0, 100), entry(2, 10, 20), entry(3, 50, 60)]);
    assert_eq!(found.len(), 2, "{found:?}");
    // An operation without a recorded end runs as planned.
    let running = LedgerEntry {
        finished_at: None,
        outcome: Outcome::Running { until: Timestamp(10) },
        ..entry(1, 0, 0)
    };
    accused(&[running, entry(2, 9, 12)], "ran until 10");
}

#[test]
fn an_effect_behind_the_fence() {
    let late = LedgerEntry { fence: Epoch(2), ..entry(1, 0, 10) };
    accused(&[late], "behind the fence 2");
}

#[test]
fn a_late_call_that_no_fence_kept_out() {
    let newer = LedgerEntry { epoch: Epoch(3), ..entry(1, 0, 10) };
    let late = LedgerEntry { epoch: Epoch(2), ..entry(2, 10, 20) };
    accused(&[newer, late], "under epoch 2 after epoch 3 had acted");
}

#[test]
fn a_destructive_step_that_took_effect_twice() {
    let ledger = [entry(1, 0, 10), entry(2, 10, 20)];
    let found = repeated_steps(&ledger);
    assert_eq!(found.len(), 1);
    assert!(found[0].contains("/repave took effect on machine-1 more than once"), "{found:?}");
    for outcome in [Outcome::Lied, Outcome::Failed, Outcome::Stopped] {
        let first = LedgerEntry { outcome, ..entry(1, 0, 10) };
        assert!(repeated_steps(&[first, entry(2, 10, 20)]).is_empty());
    }
    let harmless = ledger.map(|entry| LedgerEntry { action: "drain".to_owned(), ..entry });
    assert!(repeated_steps(&harmless).is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_engine_that_raises_no_fence_is_found_out() {
    let fixture = Fixture::zero("");
    let newer = Call { epoch: Epoch(2), ..call(1, "repave", 1) };
    fixture.act(&newer).await.unwrap();
    fixture.act(&call(2, "repave", 1)).await.unwrap();
    accused(&fixture.provider.world().ledger(), "after epoch 2 had acted");
}
