//! Secrets from one program to another.

use super::*;
use crate::ids::{OperationId, RunId};
use crate::model::{InstallReport, InstallStage};
use crate::plan::{Capability, Values};
use crate::provider::boot::{Desk, InMemory, Settings, Task, TokenKey};

/// A class whose join material is minted by one program and redeemed by another; each minting gives another secret.
fn bench() -> Bench {
    let mut bench = Bench::new();
    let minting = "cat > /dev/null; echo mint >> mints; n=$(wc -l < mints)\n\
         echo \"bmdemo: {\\\"material\\\":\\\"canary-$n\\\",\\\"evidence\\\":\\\"minted $n\\\"}\"";
    let joining = "grep -o 'canary-[0-9]*' >> redeemed || echo none >> redeemed\n\
         tr '\\0' ' ' < /proc/$$/cmdline >> seen; tr '\\0' ' ' < /proc/$$/environ >> seen\n\
         cat \"$0\".d 2>/dev/null; exit $(cat code 2>/dev/null || echo 0)";
    for (action, script) in [("mint-join", minting), ("join", joining)] {
        let act = bench.program(action, script);
        bench.settings.actions.insert(action.to_owned(), Programs { act, ..Programs::default() });
    }
    bench
}

fn of(action: &str, attempt: u32) -> Call {
    let run = RunId::new(Timestamp(1), [1, 0]);
    Call {
        operation: OperationId::new(run, action, attempt),
        epoch: Epoch(1),
        action: action.to_owned(),
        capability: Capability::ClusterJoin,
        args: Values::new(),
        inputs: std::collections::BTreeMap::new(),
        handle: None,
    }
}

/// The call that redeems what another one has given.
fn join(attempt: u32, minted: &Acted) -> Call {
    let Acted::Done { output, .. } = minted else { panic!("{minted:?}") };
    Call { inputs: [("mint-join".to_owned(), output.clone())].into(), ..of("join", attempt) }
}

#[tokio::test]
async fn a_secret_goes_from_memory_to_standard_input_and_nowhere_else() {
    let bench = bench();
    let (driver, target) = (bench.driver(), target("m-1"));
    let minted = driver.act(&target, &of("mint-join", 1), bench.logs()).await.unwrap();
    let shown = format!("{minted:?} {driver:?}");
    assert!(shown.contains("material:mint-join:900000:") && !shown.contains("canary"), "{shown}");
    driver.act(&target, &join(1, &minted), bench.logs()).await.unwrap();
    assert_eq!(bench.read("redeemed"), "canary-1\n");
    let seen = bench.read("seen") + &bench.logs.all().join("\n");
    assert!(seen.contains("join") && !seen.contains("canary"), "{seen}");
    assert_eq!(std::fs::read_dir(bench.at("inputs/rack")).unwrap().count(), 0);
}

#[tokio::test]
async fn a_secret_that_is_lost_is_minted_again_by_the_step_that_needs_it() {
    let bench = bench();
    let (driver, target) = (bench.driver(), target("m-1"));
    let mut ttl = of("mint-join", 1);
    ttl.args.insert("ttl".to_owned(), Value::DurationMs(60_000));
    let minted = driver.act(&target, &ttl, bench.logs()).await.unwrap();
    // It was handed over, and the program failed: another attempt needs another one.
    std::fs::write(bench.at("code"), "75").unwrap();
    driver.act(&target, &join(1, &minted), bench.logs()).await.unwrap_err();
    std::fs::write(bench.at("code"), "0").unwrap();
    driver.act(&target, &join(2, &minted), bench.logs()).await.unwrap();
    // Another server has never had it.
    let next = bench.driver();
    next.act(&target, &join(3, &minted), bench.logs()).await.unwrap();
    assert_eq!(bench.read("redeemed"), "canary-1\ncanary-2\ncanary-3\n");
    let notes = bench.logs.all().iter().filter(|line| line.contains("is minted again")).count();
    assert_eq!(notes, 2);
    // What the program says itself is passed on as it is.
    let own = [("handle".to_owned(), Value::Str("h-1".into()))].into();
    let inputs = [("mint-join".to_owned(), own)].into();
    next.act(&target, &Call { inputs, ..of("join", 4) }, bench.logs()).await.unwrap();
    assert!(bench.read("redeemed").ends_with("canary-3\nnone\n"));
}

/// A desk that knows an installed m-1, and the token of that.
async fn desk(bench: &Bench) -> (Arc<Desk>, String) {
    let machine = target("m-1").machine_id;
    let (reports, key) = (Arc::<InMemory>::default(), TokenKey::new(&[7; 32]));
    let images = std::collections::BTreeMap::new();
    let url = "http://192.0.2.1:8069".to_owned();
    let desk = Arc::new(Desk::new(reports, bench.clock.clone(), key, images, url));
    let settings = Settings {
        machine_id: machine.clone(),
        task: Task::Erase { method: "quick".to_owned() },
        hostname: "m-1".to_owned(),
        disk: "smallest".to_owned(),
        ssh_keys: Vec::new(),
        user_data: String::new(),
    };
    let mac = "02:00:00:00:00:01".to_owned();
    let until = bench.clock.now().plus(Duration::from_secs(600));
    desk.offer(of("repave", 1).operation, std::slice::from_ref(&mac), settings, until);
    let settings = desk.take_settings(&mac).await.unwrap();
    let token = settings.lines().find_map(|line| line.strip_prefix("token=")).unwrap().to_owned();
    desk.report(&machine, &token, InstallStage::Up, InstallReport::default()).await.unwrap();
    (desk, token)
}

#[tokio::test]
async fn a_secret_can_be_the_answer_to_a_report_of_the_machine() {
    let mut bench = bench();
    let (desk, token) = desk(&bench).await;
    bench.desk = Some(desk.clone());
    let script = "cat >> input; tr '\\0' ' ' < /proc/$$/cmdline >> seen; tr '\\0' ' ' < /proc/$$/environ >> seen\n\
                  echo waiting; while [ ! -e member ]; do sleep 0.01; done; rm member; exit $(cat code 2>/dev/null || echo 0)";
    let act = bench.program("join", script);
    let material = MaterialBy::Report;
    let programs = Programs { act, material, ..Programs::default() };
    bench.settings.actions.insert("join".to_owned(), programs);
    let (driver, target) = (bench.driver(), target("m-1"));
    let take = async || {
        let secret = desk.take_secret(&target.machine_id, &token).await.unwrap();
        secret.map(|secret| secret.expose().to_owned())
    };
    let minted = driver.act(&target, &of("mint-join", 1), bench.logs()).await.unwrap();
    assert_eq!(take().await, None, "the step that needs it does not run yet");
    let call = join(1, &minted);
    let (joined, ()) = tokio::join!(driver.act(&target, &call, bench.logs()), async {
        bench.logs.until("waiting").await;
        assert_eq!(take().await.as_deref(), Some("canary-1"));
        assert_eq!(take().await, None);
        std::fs::write(bench.at("member"), "").unwrap();
    });
    joined.unwrap();
    // The next attempt has another one. It is not fetched, and cannot be later.
    std::fs::write(bench.at("code"), "75").unwrap();
    std::fs::write(bench.at("member"), "").unwrap();
    driver.act(&target, &join(2, &minted), bench.logs()).await.unwrap_err();
    assert_eq!(take().await, None);
    assert_eq!(bench.read("mints").lines().count(), 2);
    let log = bench.logs.all().join("\n");
    for part in ["the machine has fetched the material", "the machine has not fetched the material"]
    {
        assert!(log.contains(part), "{part}: {log}");
    }
    let seen = bench.read("input") + &bench.read("seen") + &log;
    assert!(seen.contains("material:mint-join:") && !seen.contains("canary"), "{seen}");
    // Without a place to report to, nothing is handed to anyone.
    bench.desk = None;
    let failed = bench.driver().act(&target, &join(3, &minted), bench.logs()).await.unwrap_err();
    assert!(failed.message.contains("no boot listener"), "{failed}");
}

#[tokio::test]
async fn a_minting_that_fails_is_a_step_that_has_done_nothing() {
    let mut bench = bench();
    let driver = bench.driver();
    let minted = driver.act(&target("m-1"), &of("mint-join", 1), bench.logs()).await.unwrap();
    for (script, code) in [("exit 74", ErrorCode::Failed), ("exit 0", ErrorCode::Failed)] {
        bench.program("mint-join", script);
        let next = bench.driver();
        let failed = next.act(&target("m-1"), &join(1, &minted), bench.logs()).await.unwrap_err();
        assert_eq!(failed.code, code);
        assert_ne!(class_of(&failed), ErrorClass::OutcomeUnknown, "{failed}");
    }
    assert_eq!(bench.read("redeemed"), "");
    bench.settings.actions.remove("mint-join");
    let next = bench.driver();
    let failed = next.act(&target("m-1"), &join(1, &minted), bench.logs()).await.unwrap_err();
    assert!(failed.message.contains("has no program for it any more"), "{failed}");
}

/// Whatever is wrong with an answer, what is said about it has no secret.
#[tokio::test]
async fn an_answer_with_a_secret_is_never_quoted() {
    for answer in [
        r#"{"material":["canary"]}"#,
        r#"{"material":"canary","epoch":"canary"}"#,
        r#"{"material":"canary","outputs":"canary"}"#,
        r#"{"material":"canary"#,
        r#"{"material":""}"#,
        r#"{"material":"canary","handle":"job-1"}"#,
    ] {
        let bench = Bench::new().acts(&format!("echo 'bmdemo: {answer}'"));
        let failed =
            bench.driver().act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap_err();
        let said = format!("{failed:?} {}", bench.logs.all().join("\n"));
        assert!(said.contains("material") && !said.contains("canary"), "{said}");
    }
}
