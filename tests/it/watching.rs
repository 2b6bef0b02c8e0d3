//! List, then watch: a client ends with the truth, however often its connection breaks and its server is restarted.
//!
//! Clients with and without filters keep copies of machines and runs while others write, connections are lost and the
//! server is killed. At the end every copy equals what the server lists; so does the copy of every client that
//! resumes from any revision that one of them had seen, with the state it had there.
//!
//! Two seeds in this process and one against the real binary; 30 and 4 with `BMDEMO_PROOF=full`;
//! `BMDEMO_WATCHING_SEED=n` to repeat one seed. A seed decides the requests and when connections are lost; it does
//! not decide how tasks are scheduled.

use std::time::Duration;

use bmdemo::clock::{Clock as _, SplitMix64, SystemClock};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::copies::{Copy, Kept, by_id, list};
use crate::fleet::Fleet;
use crate::support::{repeats, seed, within};

const MACHINE_FILTERS: [&str; 6] = [
    "",
    "phase=READY",
    "labels.rack=a",
    "effective_state=IN_SERVICE OR effective_state=PROVISIONING",
    "conditions.NeedsIntervention=true",
    "machine_id=m-1",
];
const RUN_FILTERS: [&str; 5] = [
    "",
    "phase=RUNNING",
    "machine_id=m-2",
    "phase=SUCCEEDED AND plan_id=reboot",
    "error.code=STEP_FAILED",
];

const MACHINES: u64 = 6;
const ROUNDS: u64 = 4;
const WRITES_OF_A_ROUND: u64 = 30;

/// Refusals that a write may get: the state of the machine did not allow it.
const REFUSALS: [Code; 4] =
    [Code::FailedPrecondition, Code::NotFound, Code::AlreadyExists, Code::Aborted];

/// One random request.
async fn write(channel: &Channel, random: &mut SplitMix64) -> Result<(), Status> {
    let mut machines = MachineServiceClient::new(channel.clone());
    let mut runs = RunServiceClient::new(channel.clone());
    let machine_id = format!("m-{}", 1 + random.below(MACHINES));
    let update = |machine: pb::Machine, path: &str| pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
        ..Default::default()
    };
    match random.below(12) {
        0..3 => {
            let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
            let machine = pb::Machine { machine_id, spec: Some(spec), ..Default::default() };
            let request =
                pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
            machines.register_machine(request).await.map(drop)
        }
        3..5 => {
            let rack = if random.chance(1, 2) { "a" } else { "b" };
            let labels = [("rack".to_owned(), rack.to_owned())].into();
            let machine = pb::Machine { machine_id, labels, ..Default::default() };
            machines.update_machine(update(machine, "labels")).await.map(drop)
        }
        5..7 => {
            let phases = [pb::Phase::Ready, pb::Phase::InService, pb::Phase::Maintenance];
            let mut phase = phases[usize::try_from(random.below(3)).unwrap()];
            if random.chance(1, 4) {
                phase = pb::Phase::Retired;
            }
            let status = pb::MachineStatus { phase: phase.into(), ..Default::default() };
            let machine = pb::Machine { machine_id, status: Some(status), ..Default::default() };
            machines.update_machine(update(machine, "status.phase")).await.map(drop)
        }
        7 => {
            let request = pb::DeleteMachineRequest { machine_id, ..Default::default() };
            machines.delete_machine(request).await.map(drop)
        }
        8..11 => {
            let plans = ["reboot", "repave-join", "net-reconfig", "rma"];
            let plan_id = plans[usize::try_from(random.below(4)).unwrap()].to_owned();
            let request =
                pb::StartRunRequest { machine_id, plan_id, force: true, ..Default::default() };
            runs.start_run(request).await.map(drop)
        }
        _ => {
            let (active, _) = list::<pb::Run>(channel, "phase=RUNNING", 10).await?;
            let Some(run) = active.first() else { return Ok(()) };
            let request = pb::CancelRunRequest { run_id: run.run_id.clone(), ..Default::default() };
            runs.cancel_run(request).await.map(drop)
        }
    }
}

/// Waits until no run is active, ending those that wait for a person.
async fn calm(channel: &Channel) {
    let mut runs = RunServiceClient::new(channel.clone());
    loop {
        let (all, _) = list::<pb::Run>(channel, "", 1000).await.unwrap();
        let active: Vec<_> = all.into_iter().filter(|run| run.finished_at.is_none()).collect();
        if active.is_empty() {
            return;
        }
        for run in active {
            let reason = "the test ends".to_owned();
            let request = pb::AbortRunRequest { run_id: run.run_id, reason, ..Default::default() };
            // It may have ended meanwhile.
            let _ = runs.abort_run(request).await;
        }
        SystemClock::new().sleep(Duration::from_millis(5)).await;
    }
}

/// Clients of one kind of objects.
struct Clients<T>(JoinSet<Copy<T>>);

impl<T: Kept> Clients<T> {
    fn start(
        filters: &[&'static str],
        random: &mut SplitMix64,
        channels: &watch::Receiver<Channel>,
        settle: &watch::Receiver<Option<u64>>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        for filter in filters {
            let random = SplitMix64::new(random.next_u64());
            tasks.spawn(Copy::new(filter).follow(random, channels.clone(), settle.clone()));
        }
        Self(tasks)
    }

    /// Compares every copy with what the server lists, then resumes from everything that was seen. Returns how many
    /// removals were reported, connections resumed and revisions resumed from.
    async fn judge(
        self,
        channels: &watch::Receiver<Channel>,
        settle: &watch::Receiver<Option<u64>>,
    ) -> [usize; 3] {
        let channel = channels.borrow().clone();
        let copies = within("every client catches up", self.0.join_all()).await;
        let mut counts = [0; 3];
        let mut replays = JoinSet::new();
        for copy in copies {
            let (listed, _) = list::<T>(&channel, copy.filter, 7).await.unwrap();
            let truth = by_id(listed);
            assert_eq!(copy.objects, truth, "the copy of {:?}", copy.filter);
            counts[0] += copy.removals;
            counts[1] += copy.resumed;
            counts[2] += copy.seen.len();
            for (revision, objects) in copy.seen {
                let again = Copy::at(copy.filter, revision, objects);
                let (channels, settle) = (channels.clone(), settle.clone());
                let truth = truth.clone();
                replays.spawn(async move {
                    let again = again.follow(SplitMix64::new(revision), channels, settle).await;
                    let filter = again.filter;
                    assert_eq!(again.objects, truth, "{filter:?} from revision {revision}");
                });
                // Streams of one connection are limited.
                while replays.len() >= 400 {
                    within("a client catches up", replays.join_next()).await.unwrap().unwrap();
                }
            }
        }
        within("every client catches up", replays.join_all()).await;
        counts
    }
}

async fn scenario(seed: u64, mut fleet: Fleet, writes: u64) -> [usize; 3] {
    let mut random = SplitMix64::new(seed);
    let (publish, channels) = watch::channel(fleet.channel().await);
    let (settle, settled) = watch::channel(None);
    let machines =
        Clients::<pb::Machine>::start(&MACHINE_FILTERS, &mut random, &channels, &settled);
    let runs = Clients::<pb::Run>::start(&RUN_FILTERS, &mut random, &channels, &settled);
    for round in 0..ROUNDS {
        for _ in 0..writes {
            let channel = channels.borrow().clone();
            if let Err(status) = write(&channel, &mut random).await {
                assert!(REFUSALS.contains(&status.code()), "{status:?}");
            }
            let pause = Duration::from_millis(random.below(12));
            SystemClock::new().sleep(pause).await;
        }
        if round + 1 < ROUNDS {
            fleet.restart(random.chance(2, 3)).await;
            publish.send_replace(fleet.channel().await);
        }
    }
    let channel = channels.borrow().clone();
    within("every run ends", calm(&channel)).await;
    let (_, head) = list::<pb::Machine>(&channel, "", 1000).await.unwrap();
    settle.send_replace(Some(head));
    let judged = tokio::join!(machines.judge(&channels, &settled), runs.judge(&channels, &settled));
    let counts = [judged.0, judged.1];
    std::array::from_fn(|at| counts[0][at] + counts[1][at])
}

/// Prints the seed on failure.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BMDEMO_WATCHING_SEED={} fails", self.0);
        }
    }
}

fn seeds(count: usize) -> Vec<u64> {
    match std::env::var("BMDEMO_WATCHING_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => (0..count).map(|round| seed(round as u64)).collect(),
    }
}

fn assert_something_happened([removals, resumed, seen]: [usize; 3]) {
    eprintln!("{removals} removals, {resumed} resumed, resumed from {seen} revisions");
    assert!(removals > 0 && resumed > 0 && seen > 0, "the proof did not prove anything");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_end_with_the_truth() {
    for seed in seeds(repeats("BMDEMO_WATCHING_SEEDS", 2, 30)) {
        let seeded = Seed(seed);
        let counts = scenario(seeded.0, Fleet::local().await, WRITES_OF_A_ROUND).await;
        assert_something_happened(counts);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_end_with_the_truth_of_the_real_server() {
    for seed in seeds(repeats("BMDEMO_WATCHING_PROCESS_SEEDS", 1, 4)) {
        let seeded = Seed(seed);
        let counts = scenario(seeded.0, Fleet::process().await, 15).await;
        assert_something_happened(counts);
    }
}
