//! Durable commits per second of the SQLite store, beside a bare append and flush on the same disk.
//!
//! Each writer has a machine with a run and advances the run: a run row, a change with its entries, every fourth time
//! a log chunk, fenced by the machine's epoch, as the engine does. `cargo bench --bench store [-- SECONDS]`.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock, Timestamp};
use bmdemo::ids::{Epoch, MachineId, OperationId, Revision, RunId};
use bmdemo::lifecycle::{run, step};
use bmdemo::model::{
    Actor, Entry, EntryKind, LogChunk, LogStream, Machine, MachineSpec, Run, RunSpec, RunType,
    StepRecord,
};
use bmdemo::store::sqlite::{SqliteOptions, SqliteStore};
use bmdemo::store::{Batch, Store, Write};

const WRITERS: [u64; 3] = [1, 64, 1024];
const ROUNDS: usize = 3;

fn machine(number: u64) -> Machine {
    let id = MachineId::parse(&format!("machine-{number}")).expect("digits are allowed in ids");
    let spec = MachineSpec {
        provider: "fake".to_owned(),
        mac_addresses: vec![format!("02:00:00:{number:06x}")],
        ..MachineSpec::default()
    };
    Machine::registered(id, BTreeMap::new(), spec, Timestamp(1_700_000_000_000))
}

fn new_run(number: u64, machine_id: &MachineId) -> Run {
    let steps = ["set-netboot", "repave", "mint-join", "join", "verify"];
    Run {
        id: RunId::new(Timestamp(1_700_000_000_000), [number, 0]),
        machine_id: machine_id.clone(),
        spec: Arc::new(RunSpec {
            labels: Some(BTreeMap::new()),
            provider: "fake".to_owned(),
            request_id: format!("request-{number}"),
            run_type: RunType::Repave,
            plan_id: "plan/repave-join".to_owned(),
            plan_digest: "sha256:d4735e3a265e16eee03f59718b9b5d03019c07d8b6c51f90da3a666eec13ab35"
                .into(),
            parameters: BTreeMap::new(),
            retry_of: None,
            requested_by: Actor::operator("someone"),
            reason: String::new(),
            forced: false,
        }),
        state: run::State::Running,
        steps: steps.into_iter().map(StepRecord::waiting).collect(),
        current_step: None,
        error: None,
        hold: None,
        cancel_requested_at: None,
        queued_at: None,
        created_at: Timestamp(1_700_000_000_000),
        started_at: Some(Timestamp(1_700_000_000_000)),
        finished_at: None,
        ordinal: 0,
        revision: Revision(0),
    }
}

/// The run after its step `turn % 5` has ended and the next one has begun.
fn advance(before: &Run, turn: u64, now: Timestamp) -> Run {
    let mut after = before.clone();
    let place = usize::try_from(turn % 5).unwrap_or_default();
    let ended = &mut after.steps[place];
    ended.state = step::State::Succeeded;
    ended.finished_at = Some(now);
    ended.observed = "as expected".to_owned();
    let next = (place + 1) % 5;
    let begun = &mut after.steps[next];
    begun.state = step::State::Acting { attempt: 1 };
    begun.attempt = 1;
    begun.operation = Some(OperationId::new(before.id, &begun.name, 1));
    (begun.started_at, begun.attempt_at) = (Some(now), Some(now));
    begun.deadline_at = Some(now.plus_ms(600_000));
    after.current_step = Some(next);
    after
}

/// The commit of one turn.
fn turn(before: &Arc<Run>, count: u64, now: Timestamp) -> Batch {
    let after = advance(before, count, now);
    let entry =
        |kind, step: usize| Entry::new(kind, Actor::engine()).step(&before.steps[step].name);
    let place = usize::try_from(count % 5).unwrap_or_default();
    let logs = if count.is_multiple_of(4) {
        vec![LogChunk {
            run_id: before.id,
            offset: count / 4,
            at: now,
            step: before.steps[place].name.clone(),
            attempt: 1,
            stream: LogStream::Stdout,
            text: "imaging: 40 % of the disk written, 12 minutes to go\n".repeat(4),
            truncated: false,
        }]
    } else {
        Vec::new()
    };
    let entries = vec![
        entry(EntryKind::StepSucceeded, place),
        entry(EntryKind::StepStarted, (place + 1) % 5),
    ];
    Batch {
        holds: vec![(before.machine_id.clone(), Epoch(0))],
        writes: vec![Write::new(Some(before.clone()), after, entries)],
        logs,
        ..Batch::default()
    }
}

struct Figures {
    per_second: f64,
    flushes: f64,
}

async fn store_round(writers: u64, seconds: Duration, dir: &std::path::Path) -> Figures {
    let store = Arc::new(SqliteStore::open(dir, SqliteOptions::default()).expect("a store opens"));
    let mut runs = Vec::new();
    for number in 0..writers {
        let machine = machine(number);
        let run = new_run(number, &machine.id);
        let writes = vec![Write::new(None, machine, Vec::new()), Write::new(None, run, Vec::new())];
        let batch = Batch { writes, ..Batch::default() };
        let committed = store.commit(batch).await.expect("a run is stored");
        runs.extend(committed.run().cloned());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let before = store.stats();
    let clock = SystemClock::new();
    let mut tasks = Vec::new();
    for mut run in runs {
        let (store, stop, clock) = (store.clone(), stop.clone(), clock.clone());
        tasks.push(tokio::spawn(async move {
            let mut count = 0;
            while !stop.load(Relaxed) {
                let committed = store.commit(turn(&run, count, clock.now())).await;
                let committed = committed.expect("the run has no other writer");
                run = committed.run().expect("it was written").clone();
                count += 1;
            }
        }));
    }
    let began = clock.monotonic();
    clock.sleep(seconds).await;
    let after = store.stats();
    let elapsed = (clock.monotonic() - began).as_secs_f64();
    stop.store(true, Relaxed);
    for task in tasks {
        task.await.expect("a writer ends");
    }
    let commits = (after.commits - before.commits) as f64;
    Figures {
        per_second: commits / elapsed,
        flushes: (after.flushes - before.flushes) as f64 / commits,
    }
}

/// Appends of as many bytes as such a commit has, with one flush for what is waiting: the limit of the disk.
async fn bare_round(writers: u64, seconds: Duration, dir: &std::path::Path) -> f64 {
    let mut file = std::fs::File::create(dir.join("bare")).expect("a file is made");
    let (send, receive) = std::sync::mpsc::channel::<tokio::sync::oneshot::Sender<()>>();
    let count = Arc::new(AtomicU64::new(0));
    let counted = count.clone();
    let appender = std::thread::spawn(move || {
        let record = [b'x'; 2600];
        while let Ok(first) = receive.recv() {
            let mut waiting = vec![first];
            while let Ok(next) = receive.try_recv() {
                waiting.push(next);
            }
            file.write_all(&record.repeat(waiting.len())).expect("the disk has room");
            file.sync_data().expect("the disk works");
            counted.fetch_add(waiting.len() as u64, Relaxed);
            for answer in waiting {
                let _ = answer.send(());
            }
        }
    });
    let stop = Arc::new(AtomicBool::new(false));
    let mut tasks = Vec::new();
    for _ in 0..writers {
        let (send, stop) = (send.clone(), stop.clone());
        tasks.push(tokio::spawn(async move {
            while !stop.load(Relaxed) {
                let (answer, answered) = tokio::sync::oneshot::channel();
                if send.send(answer).is_err() || answered.await.is_err() {
                    return;
                }
            }
        }));
    }
    let clock = SystemClock::new();
    let began = clock.monotonic();
    clock.sleep(seconds).await;
    let per_second = count.load(Relaxed) as f64 / (clock.monotonic() - began).as_secs_f64();
    stop.store(true, Relaxed);
    for task in tasks {
        task.await.expect("a writer ends");
    }
    drop(send);
    appender.join().expect("the appender ends");
    per_second
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

#[expect(clippy::print_stdout, reason = "a bench reports on standard output")]
#[tokio::main]
async fn main() {
    // Cargo passes `--bench`; `cargo test --benches` does not: then only check that it works.
    let measured = std::env::args().any(|argument| argument == "--bench");
    let seconds = std::env::args().find_map(|argument| argument.parse().ok());
    let seconds = Duration::from_secs_f64(seconds.unwrap_or(if measured { 2.0 } else { 0.05 }));
    println!("WRITERS  COMMITS/S  FLUSHES/COMMIT  BARE/S    RATIO");
    for writers in WRITERS {
        let (mut commits, mut flushes, mut bare) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..if measured { ROUNDS } else { 1 } {
            let dir =
                tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory is made");
            bare.push(bare_round(writers, seconds, dir.path()).await);
            let figures = store_round(writers, seconds, &dir.path().join("data")).await;
            commits.push(figures.per_second);
            flushes.push(figures.flushes);
        }
        let (commits, flushes, bare) = (median(commits), median(flushes), median(bare));
        let ratio = commits / bare;
        println!("{writers:<8} {commits:<10.0} {flushes:<15.4} {bare:<9.0} {ratio:.2}");
    }
}
