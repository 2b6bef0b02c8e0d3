//! Receivers in virtual time: they fail, the server dies, the store is trimmed.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::event::Event;
use super::post::Post;
use super::verdict::Verdict;
use super::wake::Wake;
use super::worker::Worker;
use super::*;
use crate::clock::{Clock, SeededRandom, SplitMix64, Timestamp, TokioClock};
use crate::credentials::Credentials;
use crate::ids::{Epoch, MachineId, Revision};
use crate::model::filter::{Filter, Subject};
use crate::model::{Actor, Cursor, Entry, EntryKind, Machine, MachineSpec};
use crate::outbound::{Networks, Origin, TcpDial, Trust};
use crate::store::memory::MemoryStore;
use crate::store::{Batch, CursorMove, Retention, Store as _, Write};

const T0: Timestamp = Timestamp(1_700_000_000_000);
/// No time limit in virtual time: longer than anything takes.
const LONG: Duration = Duration::from_secs(100_000);

/// What a receiver does with an event.
type Judge = Box<dyn Fn(&Event) -> Verdict + Send + Sync>;

/// A receiver that notes what reaches it.
struct Noting {
    judge: Judge,
    took: Mutex<Vec<(String, Vec<u8>)>>,
    clock: Arc<dyn Clock>,
}

impl Post for Noting {
    fn post<'a>(&'a self, event: &'a Event) -> Pin<Box<dyn Future<Output = Verdict> + Send + 'a>> {
        Box::pin(async move {
            self.clock.sleep(Duration::from_millis(3)).await;
            self.took.lock().unwrap().push((event.id.clone(), event.body.clone()));
            self.clock.sleep(Duration::from_millis(3)).await;
            (self.judge)(event)
        })
    }
}

struct Bench {
    clock: Arc<dyn Clock>,
    store: Arc<MemoryStore>,
    settings: ReceiverSettings,
    receiver: Arc<Noting>,
    status: Arc<Status>,
}

impl Bench {
    fn new(judge: impl Fn(&Event) -> Verdict + Send + Sync + 'static) -> Self {
        let clock: Arc<dyn Clock> = Arc::new(TokioClock::new(T0));
        let settings = ReceiverSettings {
            name: "ops".to_owned(),
            origin: Origin::parse("http://127.0.0.1:1/").unwrap().0,
            path: "/".to_owned(),
            secret: None,
            trust: Trust::System,
            timeout: Duration::from_secs(1),
            give_up_after: None,
            interest: Interest {
                kinds: kinds(&[]).unwrap(),
                machines: Filter::default(),
                runs: Filter::default(),
            },
            source: "/bmdemo".to_owned(),
        };
        let receiver =
            Noting { judge: Box::new(judge), took: Mutex::default(), clock: clock.clone() };
        Self {
            store: Arc::new(MemoryStore::new(clock.clone())),
            clock,
            settings,
            receiver: Arc::new(receiver),
            status: Arc::new(Status::new("ops")),
        }
    }

    /// Starts a server's task.
    fn start(&self) -> JoinHandle<()> {
        let ports = NotifyPorts {
            store: self.store.clone(),
            dial: Arc::new(TcpDial::new(Networks::new("networks.webhook", Vec::new()))),
            credentials: Credentials::new(None),
            clock: self.clock.clone(),
            random: Arc::new(SeededRandom::new(1)),
        };
        let wake = Arc::new(Wake::default());
        self.store.listen(wake.clone());
        let (receiver, status) = (self.receiver.clone(), self.status.clone());
        tokio::spawn(
            Worker::new(self.settings.clone(), &ports, receiver, status, wake.woken()).run(),
        )
    }

    /// Registers machines in one commit, which makes as many events.
    async fn register(&self, from: u32, count: u32) {
        let write = |number: u32| {
            let id = MachineId::parse(&format!("m-{number}")).unwrap();
            let labels = BTreeMap::from([("odd".to_owned(), (number % 2).to_string())]);
            let machine = Machine::registered(id, labels, MachineSpec::default(), self.clock.now());
            let entry = Entry::new(EntryKind::MachineRegistered, Actor::engine());
            let step = Entry::new(EntryKind::StepStarted, Actor::engine());
            Write::new(None, machine, vec![step, entry])
        };
        let writes = (from..from + count).map(write).collect();
        self.store.commit(Batch { writes, ..Batch::default() }).await.unwrap();
    }

    /// The machines that it was notified of, in the order of their first time; a repetition must be the same event.
    fn received(&self) -> Vec<String> {
        let mut bodies: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        let mut order = Vec::new();
        for (id, body) in self.receiver.took.lock().unwrap().iter() {
            match bodies.get(id) {
                Some(before) => assert_eq!(before, body, "{id} is another event now"),
                None => {
                    bodies.insert(id.clone(), body.clone());
                    let event: serde_json::Value = serde_json::from_slice(body).unwrap();
                    let subject = event["subject"].as_str().unwrap_or(id);
                    order.push(subject.trim_start_matches("machines/").to_owned());
                }
            }
        }
        order
    }

    /// Waits until nothing has come for long.
    async fn settle(&self) {
        let mut before = usize::MAX;
        loop {
            let now = self.receiver.took.lock().unwrap().len();
            if now == before {
                return;
            }
            before = now;
            self.clock.sleep(Duration::from_secs(200)).await;
        }
    }
}

fn names(numbers: impl IntoIterator<Item = u32>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("m-{number}")).collect()
}

/// A random receiver, and a server that is killed at random instants: nothing is missing, nothing changes its id or its
/// place.
#[tokio::test(start_paused = true)]
async fn every_event_is_sent_in_its_order_through_crashes() {
    for seed in 0..40 {
        let dice = Arc::new(Mutex::new(SplitMix64::new(seed)));
        let rolls = dice.clone();
        let bench = Bench::new(move |_| match rolls.lock().unwrap().below(4) {
            0 => Verdict::Later("not now".to_owned(), None),
            // Taken, and the answer is lost.
            1 => Verdict::Later("hung up".to_owned(), None),
            _ => Verdict::Taken,
        });
        let mut server = bench.start();
        // A new receiver begins with what happens once it is known.
        bench.clock.sleep(Duration::from_secs(1)).await;
        let mut made = 0;
        for _ in 0..25 {
            let (count, pause) = {
                let mut dice = dice.lock().unwrap();
                (1 + dice.below(4) as u32, dice.below(2_500))
            };
            bench.register(made, count).await;
            made += count;
            bench.clock.sleep(Duration::from_millis(pause)).await;
            if pause % 2 == 0 {
                server.abort();
                assert!(server.await.unwrap_err().is_cancelled());
                server = bench.start();
            }
        }
        bench.settle().await;
        assert_eq!(bench.received(), names(0..made), "seed {seed}");
        let standing = bench.status.standing();
        assert_eq!((standing.waiting, standing.oldest), (0, None), "seed {seed}");
        assert_eq!(standing.error, "", "seed {seed}");
        server.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn a_receiver_that_is_away_is_waited_for_and_said_to_lag() {
    let back_at = T0.plus(Duration::from_secs(3_600));
    let clock: Arc<Mutex<Option<Arc<dyn Clock>>>> = Arc::default();
    let of_judge = clock.clone();
    let bench = Bench::new(move |_| {
        let now = of_judge.lock().unwrap().as_ref().unwrap().now();
        if now < back_at { Verdict::Later("gone".to_owned(), None) } else { Verdict::Taken }
    });
    *clock.lock().unwrap() = Some(bench.clock.clone());
    let server = bench.start();
    bench.clock.sleep(Duration::from_secs(1)).await;
    bench.register(0, 1).await;
    bench.clock.sleep(Duration::from_secs(30)).await;
    bench.register(1, 9).await;
    bench.clock.sleep(Duration::from_secs(600)).await;
    let standing = bench.status.standing();
    assert_eq!((standing.waiting, standing.delivered), (10, 0));
    assert_eq!(standing.error, "gone");
    assert!(bench.clock.now().since(standing.oldest.unwrap()) >= Duration::from_secs(600));
    // No more than one attempt in half a minute, once it has been away for a while.
    let before = bench.receiver.took.lock().unwrap().len();
    bench.clock.sleep(Duration::from_secs(600)).await;
    let tried = bench.receiver.took.lock().unwrap().len() - before;
    assert!((10..=20).contains(&tried), "{tried}");
    bench.clock.sleep(Duration::from_secs(3_600)).await;
    assert_eq!(bench.received(), names(0..10));
    assert_eq!((bench.status.standing().waiting, bench.status.standing().delivered), (0, 10));
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn what_a_receiver_refuses_is_left_out_and_so_is_what_it_does_not_take_for_too_long() {
    let is = |event: &Event, name: &str| String::from_utf8_lossy(&event.body).contains(name);
    let mut bench = Bench::new(move |event| match event {
        event if is(event, "machines/m-1\"") => Verdict::Refused("it answers 422".to_owned()),
        event if is(event, "machines/m-3\"") => Verdict::Later("it answers 500".to_owned(), None),
        _ => Verdict::Taken,
    });
    bench.settings.give_up_after = Some(Duration::from_secs(300));
    let server = bench.start();
    bench.clock.sleep(Duration::from_secs(1)).await;
    bench.register(0, 5).await;
    bench.settle().await;
    bench.clock.sleep(Duration::from_secs(600)).await;
    assert_eq!(bench.received(), names(0..5));
    let standing = bench.status.standing();
    assert_eq!((standing.delivered, standing.refused), (3, 2));
    assert_eq!(standing.error, "");
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_wait_that_a_receiver_asks_for_is_kept() {
    let asked = T0.plus(Duration::from_secs(900));
    let first = Mutex::new(true);
    let bench = Bench::new(move |_| match std::mem::take(&mut *first.lock().unwrap()) {
        true => Verdict::Later("it answers 429".to_owned(), Some(asked)),
        false => Verdict::Taken,
    });
    let server = bench.start();
    bench.clock.sleep(Duration::from_secs(1)).await;
    bench.register(0, 1).await;
    bench.clock.sleep(Duration::from_secs(890)).await;
    assert_eq!(bench.receiver.took.lock().unwrap().len(), 1);
    bench.clock.sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.status.standing().delivered, 1);
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn what_was_deleted_before_it_was_sent_is_a_gap() {
    let bench = Bench::new(|_| Verdict::Taken);
    let server = bench.start();
    bench.clock.sleep(Duration::from_secs(1)).await;
    bench.register(0, 2).await;
    bench.settle().await;
    server.abort();
    // While no server runs.
    bench.register(2, 2).await;
    bench.clock.sleep(Duration::from_secs(10)).await;
    let before = bench.clock.now();
    let all = Retention {
        ended_before: before,
        ended_runs_max: 0,
        machine_changes_max: u64::MAX,
        requests_before: before,
        audit_before: before,
        audit_max: 0,
    };
    assert!(bench.store.trim(all).await.unwrap().changes > 0);
    bench.register(4, 2).await;
    let server = bench.start();
    bench.settle().await;
    let received = bench.received();
    assert_eq!(received[..2], names([0, 1]));
    assert!(received[2].starts_with("gap."), "{received:?}");
    assert_eq!(received[3..], names([4, 5]));
    assert_eq!(bench.status.standing().gaps, 1);
    server.abort();
}

#[tokio::test(start_paused = true)]
async fn a_filter_chooses_machines() {
    let mut bench = Bench::new(|_| Verdict::Taken);
    bench.settings.interest.machines = Filter::parse("labels.odd = 1", Subject::Machine).unwrap();
    let server = bench.start();
    bench.clock.sleep(Duration::from_secs(1)).await;
    bench.register(0, 6).await;
    bench.settle().await;
    assert_eq!(bench.received(), names([1, 3, 5]));
    // What was of no interest is passed in the store too, or retention would make a gap of it.
    bench.register(6, 1).await;
    bench.clock.sleep(Duration::from_secs(120)).await;
    let head = bench.store.changes(Revision(0), 1_000).await.unwrap().last().unwrap().revision;
    assert_eq!(bench.store.cursor("ops").await.unwrap().unwrap().passed(), head);
    server.abort();
}

/// Of two servers, the one that came last sends; the other stops as soon as it wants to move the cursor.
#[tokio::test(start_paused = true)]
async fn a_server_that_lost_the_cursor_stops() {
    let bench = Bench::new(|_| Verdict::Taken);
    let former = bench.start();
    bench.clock.sleep(Duration::from_secs(1)).await;
    let before = bench.store.cursor("ops").await.unwrap();
    let after = Cursor { owner: Epoch(7), ..before.unwrap() };
    let cursors = vec![CursorMove { receiver: "ops".to_owned(), before, after }];
    bench.store.commit(Batch { cursors, ..Batch::default() }).await.unwrap();
    bench.register(0, 1).await;
    tokio::select! {
        ended = former => ended.unwrap(),
        () = bench.clock.sleep(LONG) => panic!("it does not stop"),
    }
    assert_eq!(bench.store.cursor("ops").await.unwrap(), Some(after));
}
