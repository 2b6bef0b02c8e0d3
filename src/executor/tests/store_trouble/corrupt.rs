//! Records that cannot be read.

use super::*;

/// One record that cannot be read blocks its machine and nothing else.
#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_blocks_its_machine_alone() {
    let (mut harness, store) = troubled().await;
    harness.register(2).await;
    let id = harness.start(1, "plan/repave-join").await.unwrap().id;
    let other = harness.start(2, "plan/repave-join").await.unwrap().id;
    harness.pass(100).await;
    harness.engine.kill();
    *store.unreadable.lock().unwrap() = Some(id);
    harness.restart().await;
    assert_eq!(harness.finished(other).await.phase(), run::Phase::Succeeded);
    let needed = harness.intervention().await.unwrap();
    assert_eq!((needed.status, needed.reason.as_str()), (true, "RECORD_UNREADABLE"));
    assert!(needed.message.contains(&id.to_string()), "{needed:?}");
    assert_eq!(harness.machine(1).await.blocked_by(), Some(&needed));
    for answer in [harness.engine.run(id).await, harness.operate(id, Verb::Abort).await] {
        assert!(
            matches!(answer, Err(EngineError::Store(StoreError::Corrupt { .. }))),
            "{answer:?}"
        );
    }
    // It is marked once, and continues when it is readable again.
    let revision = harness.machine(1).await.revision;
    harness.crash().await;
    assert_eq!(harness.machine(1).await.revision, revision);
    *store.unreadable.lock().unwrap() = None;
    harness.crash().await;
    assert_eq!(harness.finished(id).await.phase(), run::Phase::Succeeded);
    assert!(!harness.intervention().await.unwrap().status, "nothing is left to look at");
}
