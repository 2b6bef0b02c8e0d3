//! Pages compared with a full scan, while machines and runs come and go.
//!
//! Objects that exist before the first page and after the last appear exactly once, in the order of the list; nothing
//! appears twice; nothing appears that the filter excludes.
//!
//! Three seeds; 300 with `BMDEMO_PROOF=full`, `BMDEMO_PAGING_SEED=n` to repeat one.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bmdemo::clock::{Clock as _, OsRandom, Random as _, SplitMix64, SystemClock, Timestamp};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::store::{Retention, Store as _, Trimmed};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use crate::fleet::Fleet;
use crate::support::{repeats, within};

const LASTING: usize = 40;
const LISTS: usize = 40;

fn machine(id: String, rack: &str) -> pb::Machine {
    let spec = pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() };
    let labels = [("rack".to_owned(), rack.to_owned())].into();
    pb::Machine { machine_id: id, spec: Some(spec), labels, ..Default::default() }
}

fn rack(random: &mut SplitMix64) -> &'static str {
    if random.chance(1, 3) { "a" } else { "b" }
}

async fn register(channel: &Channel, machine: pb::Machine) {
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    MachineServiceClient::new(channel.clone()).register_machine(request).await.unwrap();
}

async fn retire_and_delete(channel: &Channel, machine_id: String) {
    let mut client = MachineServiceClient::new(channel.clone());
    let status = pb::MachineStatus { phase: pb::Phase::Retired.into(), ..Default::default() };
    let machine =
        pb::Machine { machine_id: machine_id.clone(), status: Some(status), ..Default::default() };
    let request = pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths: vec!["status.phase".to_owned()] }),
        ..Default::default()
    };
    client.update_machine(request).await.unwrap();
    client
        .delete_machine(pb::DeleteMachineRequest { machine_id, ..Default::default() })
        .await
        .unwrap();
}

/// Repeatedly registers and deletes its own machines.
async fn churn_machines(channel: Channel, mut random: SplitMix64, stop: CancellationToken) {
    let mut there = Vec::new();
    let mut next = 0;
    while !stop.is_cancelled() {
        if there.len() < 8 || random.chance(1, 2) {
            // Some ids are reused, for another machine.
            let id = format!("passing-{}", if random.chance(1, 2) { next } else { next % 11 });
            next += 1;
            if !there.contains(&id) {
                register(&channel, machine(id.clone(), rack(&mut random))).await;
                there.push(id);
            }
        } else {
            let at = usize::try_from(random.below(there.len() as u64)).unwrap();
            retire_and_delete(&channel, there.swap_remove(at)).await;
        }
    }
}

async fn reboot(channel: &Channel, machine_id: String) -> pb::Run {
    let plan_id = "reboot".to_owned();
    let request = pb::StartRunRequest { machine_id, plan_id, ..Default::default() };
    let mut client = RunServiceClient::new(channel.clone());
    let run_id = client.start_run(request).await.unwrap().into_inner().run_id;
    crate::runs::watched(channel.clone(), &run_id).await.unwrap()
}

/// Creates runs on its own machines, in a store that keeps few ended runs.
async fn churn_runs(channel: Channel, name: &'static str, stop: CancellationToken) {
    register(&channel, machine(name.to_owned(), "b")).await;
    while !stop.is_cancelled() {
        reboot(&channel, name.to_owned()).await;
    }
}

/// Unique identity of an object: an id may be reused.
type Key = (String, Option<prost_types::Timestamp>, String);

/// Reads all pages of a list, of changing sizes.
async fn machines(
    channel: &Channel,
    filter: &str,
    order_by: &str,
    random: &mut SplitMix64,
) -> Vec<pb::Machine> {
    let mut client = MachineServiceClient::new(channel.clone());
    let mut request = pb::ListMachinesRequest {
        filter: filter.to_owned(),
        order_by: order_by.to_owned(),
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        request.page_size = 1 + i32::try_from(random.below(9)).unwrap();
        let page = client.list_machines(request.clone()).await.unwrap().into_inner();
        assert!(page.machines.len() <= usize::try_from(request.page_size).unwrap());
        all.extend(page.machines);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

async fn runs(
    channel: &Channel,
    filter: &str,
    order_by: &str,
    random: &mut SplitMix64,
) -> Vec<pb::Run> {
    let mut client = RunServiceClient::new(channel.clone());
    let mut request = pb::ListRunsRequest {
        filter: filter.to_owned(),
        order_by: order_by.to_owned(),
        ..Default::default()
    };
    let mut all = Vec::new();
    loop {
        request.page_size = 1 + i32::try_from(random.below(9)).unwrap();
        let page = client.list_runs(request.clone()).await.unwrap().into_inner();
        all.extend(page.runs);
        if page.next_page_token.is_empty() {
            return all;
        }
        request.page_token = page.next_page_token;
    }
}

/// Compares what was returned with what existed all the time, in the order of the list.
fn judge(what: &str, came: &[Key], lasting: &[String], newest_first: bool) {
    let once: BTreeSet<_> =
        came.iter().map(|(id, at, made)| (id, at.map(|at| (at.seconds, at.nanos)), made)).collect();
    assert_eq!(once.len(), came.len(), "{what}: something came twice in {came:?}");
    let mut wanted: Vec<&str> = lasting.iter().map(String::as_str).collect();
    if newest_first {
        wanted.reverse();
    }
    let of_lasting: Vec<&str> = came
        .iter()
        .map(|(id, ..)| id.as_str())
        .filter(|id| lasting.iter().any(|lasts| lasts == id))
        .collect();
    assert_eq!(of_lasting, wanted, "{what}: what lasted came once each, in order");
}

fn assert_ordered(what: &str, times: &[Option<prost_types::Timestamp>], newest_first: bool) {
    let mut times: Vec<_> =
        times.iter().map(|at| at.map(|at| (at.seconds, at.nanos)).unwrap()).collect();
    if newest_first {
        times.reverse();
    }
    assert!(times.is_sorted(), "{what}: out of order");
}

const ORDERS: [(&str, bool); 5] = [
    ("", false),
    ("created_at", false),
    ("created_at desc", true),
    ("id", false),
    ("id desc", true),
];

async fn machines_come_once(seed: u64) {
    let mut random = SplitMix64::new(seed);
    let fleet = Fleet::local().await;
    let channel = fleet.channel().await;
    let mut racks = BTreeMap::new();
    for number in 0..LASTING {
        let (id, rack) = (format!("lasting-{number}"), rack(&mut random));
        register(&channel, machine(id.clone(), rack)).await;
        racks.insert(id, rack);
        if random.chance(1, 2) {
            // Gaps in the sort key.
            register(&channel, machine("gap".to_owned(), "a")).await;
            retire_and_delete(&channel, "gap".to_owned()).await;
        }
    }
    let stop = CancellationToken::new();
    let churn = SplitMix64::new(random.next_u64());
    let churn = tokio::spawn(churn_machines(fleet.channel().await, churn, stop.clone()));
    let mut passing = 0;
    for _ in 0..LISTS {
        let filter =
            ["", "labels.rack=a", "provider=fake AND NOT labels.rack=a", "phase=FACTORY_READY"];
        let filter = filter[usize::try_from(random.below(4)).unwrap()];
        let (order_by, newest_first) = ORDERS[usize::try_from(random.below(5)).unwrap()];
        let what = format!("{filter:?} by {order_by:?}");
        let listed = machines(&channel, filter, order_by, &mut random).await;
        let lets_through = |rack: &str| match filter {
            "labels.rack=a" => rack == "a",
            "provider=fake AND NOT labels.rack=a" => rack != "a",
            _ => true,
        };
        for machine in &listed {
            assert!(lets_through(&machine.labels["rack"]), "{what}: {machine:?}");
            let phase = machine.status.as_ref().unwrap().phase();
            assert!(filter != "phase=FACTORY_READY" || phase == pb::Phase::FactoryReady);
        }
        let mut lasting: Vec<_> =
            racks.iter().filter(|(_, rack)| lets_through(rack)).map(|(id, _)| id.clone()).collect();
        lasting.sort_by_key(|id| id["lasting-".len()..].parse::<usize>().unwrap());
        let keys: Vec<Key> = listed
            .iter()
            .map(|machine| (machine.machine_id.clone(), machine.created_at, String::new()))
            .collect();
        passing += keys.len() - lasting.len();
        judge(&what, &keys, &lasting, newest_first);
        let times: Vec<_> = listed.iter().map(|machine| machine.created_at).collect();
        if !order_by.starts_with("id") {
            assert_ordered(&what, &times, newest_first);
        }
    }
    stop.cancel();
    within("the churn ends", churn).await.unwrap();
    assert!(passing > 0, "nothing came and went");
}

async fn runs_come_once(seed: u64) {
    let mut random = SplitMix64::new(seed);
    let fleet = Fleet::local().await;
    let channel = fleet.channel().await;
    let stop = CancellationToken::new();
    // Runs that are deleted while others are listed.
    for _ in 0..10 {
        let name = format!("old-{}", random.below(3));
        register(&channel, machine(name.clone(), "b")).await;
        reboot(&channel, name).await;
    }
    let first_forgotten = last_end(&channel).await;
    let mut lasting = Vec::new();
    for number in 0..12 {
        let name = format!("lasting-{number}");
        register(&channel, machine(name.clone(), rack(&mut random))).await;
        lasting.push(reboot(&channel, name).await.run_id);
    }
    let churn = tokio::spawn(churn_runs(fleet.channel().await, "passing", stop.clone()));
    let store = fleet.local_store();
    let forget = {
        let stop = stop.clone();
        tokio::spawn(async move {
            let retention = Retention {
                ended_before: first_forgotten.plus_ms(1),
                ended_runs_max: u64::MAX,
                machine_changes_max: u64::MAX,
                requests_before: Timestamp(0),
                audit_before: Timestamp(0),
                audit_max: u64::MAX,
            };
            let mut forgotten = 0;
            while !stop.is_cancelled() {
                let trimmed: Trimmed = store.trim(retention).await.unwrap();
                forgotten += trimmed.runs;
                SystemClock::new().sleep(Duration::from_millis(1)).await;
            }
            forgotten
        })
    };
    for _ in 0..LISTS {
        let filter =
            ["", "plan_id=reboot", "phase=SUCCEEDED", "provider=fake AND NOT machine_id=x"];
        let filter = filter[usize::try_from(random.below(4)).unwrap()];
        let (order_by, newest_first) = ORDERS[usize::try_from(random.below(5)).unwrap()];
        let what = format!("runs {filter:?} by {order_by:?}");
        let listed = runs(&channel, filter, order_by, &mut random).await;
        for run in &listed {
            let ended = run.phase() == pb::RunPhase::Succeeded;
            assert!(ended || filter != "phase=SUCCEEDED", "{what}: {run:?}");
        }
        let keys: Vec<Key> = listed
            .iter()
            .map(|run| (run.run_id.clone(), run.created_at, run.machine_id.clone()))
            .collect();
        judge(&what, &keys, &lasting, newest_first);
        let times: Vec<_> = listed.iter().map(|run| run.created_at).collect();
        if !order_by.starts_with("id") {
            assert_ordered(&what, &times, newest_first);
        }
    }
    stop.cancel();
    within("the churn ends", churn).await.unwrap();
    let forgotten = within("forgetting ends", forget).await.unwrap();
    assert_eq!(forgotten, 10, "what was to be forgotten was");
}

/// When the last run ended, in milliseconds.
async fn last_end(channel: &Channel) -> Timestamp {
    let listed = runs(channel, "", "", &mut SplitMix64::new(0)).await;
    let last = listed.iter().filter_map(|run| run.finished_at).map(|at| {
        u64::try_from(at.seconds).unwrap() * 1000 + u64::try_from(at.nanos).unwrap() / 1_000_000
    });
    Timestamp(last.max().unwrap())
}

/// Prints the seed on failure.
struct Seed(u64);

impl Drop for Seed {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("BMDEMO_PAGING_SEED={} fails", self.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_are_a_full_scan_while_others_write() {
    let seeds = match std::env::var("BMDEMO_PAGING_SEED") {
        Ok(seed) => vec![seed.parse().unwrap()],
        Err(_) => {
            let count = repeats("BMDEMO_PAGING_SEEDS", 3, 300);
            (0..count).map(|_| OsRandom.next_u64() >> 16).collect()
        }
    };
    for seed in seeds {
        let seeded = Seed(seed);
        machines_come_once(seeded.0).await;
        runs_come_once(seeded.0).await;
    }
}
