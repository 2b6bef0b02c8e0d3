//! Output of steps.

use std::sync::Arc;

use tokio_stream::StreamExt as _;

use super::harness::Harness;
use crate::executor::Limits;
use crate::executor::feed::{LogQuery, follow_logs};
use crate::ids::RunId;
use crate::model::LogChunk;
use crate::provider::fake::Timing;

async fn read(harness: &Harness, run: RunId, query: LogQuery) -> Vec<Arc<LogChunk>> {
    let hub = harness.engine.watch().clone();
    let stream = follow_logs(harness.store.clone(), hub, run, query);
    stream.map(|chunk| chunk.unwrap()).collect().await
}

fn follow() -> LogQuery {
    LogQuery { follow: true, ..LogQuery::default() }
}

fn offsets(chunks: &[Arc<LogChunk>]) -> Vec<u64> {
    chunks.iter().map(|chunk| chunk.offset).collect()
}

#[tokio::test(start_paused = true)]
async fn a_follower_sees_every_line_once_and_the_end() {
    let (harness, id) = Harness::running("", "plan/repave-join").await;
    let live = read(&harness, id, follow()).await;
    let run = harness.engine.run(id).await.unwrap();
    assert!(!run.state.is_active(), "the stream ends with the run");
    let head = harness.store.log_head(id).await.unwrap();
    let dense: Vec<_> = (0..head.chunks).collect();
    assert_eq!(offsets(&live), dense);
    assert_eq!(read(&harness, id, LogQuery::default()).await, live, "the replay is the same");
    let text: String = live.iter().map(|chunk| chunk.text.as_str()).collect();
    for line in
        ["booting the installer\n", "writing image ubuntu-24.04\n", "joined cluster default\n"]
    {
        assert_eq!(text.matches(line).count(), 1, "{line:?} in {text}");
    }
    assert!(!text.contains("secret"));
    let tail = read(&harness, id, LogQuery { tail: Some(2), ..LogQuery::default() }).await;
    assert_eq!(offsets(&tail), dense[dense.len() - 2..]);
    let step = LogQuery { step: "join".to_owned(), ..LogQuery::default() };
    assert!(read(&harness, id, step).await.iter().all(|chunk| chunk.step == "join"));
}

#[tokio::test(start_paused = true)]
async fn offsets_stay_dense_over_crashes() {
    let (mut harness, id) = Harness::running("", "plan/repave-join").await;
    for _ in 0..12 {
        harness.pass(171).await;
        harness.crash().await;
    }
    let chunks = read(&harness, id, follow()).await;
    let head = harness.store.log_head(id).await.unwrap();
    assert_eq!(offsets(&chunks), (0..head.chunks).collect::<Vec<_>>());
}

#[tokio::test(start_paused = true)]
async fn a_step_that_prints_too_much_keeps_its_beginning() {
    let limits = Limits { step_log_bytes_max: 30, ..Limits::default() };
    let harness = Harness::with("", Timing::Default, limits).await;
    harness.register(1).await;
    let id = harness.start_where_allowed("plan/repave-join").await;
    harness.finished(id).await;
    let chunks = read(&harness, id, LogQuery::default()).await;
    let head = harness.store.log_head(id).await.unwrap();
    assert_eq!(offsets(&chunks), (0..head.chunks).collect::<Vec<_>>());
    let repave: Vec<_> = chunks.iter().filter(|chunk| chunk.step == "repave").collect();
    let text: String = repave.iter().map(|chunk| chunk.text.as_str()).collect();
    assert_eq!(
        text,
        "booting the installer\nwriting image ubuntu-24.04\n\
         [log of this step truncated here: it exceeded its limit]\n"
    );
    assert_eq!(repave.iter().filter(|chunk| chunk.truncated).count(), 1);
    assert!(chunks.iter().any(|chunk| chunk.step == "join"), "the bound is each step's own");
}
