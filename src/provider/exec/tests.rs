//! Real programs: shell scripts that a test writes, seen through the trait.

mod bench;
mod material;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use self::bench::{Bench, call, class_of, hurried, is_alive, target};
use super::*;
use crate::clock::simulated::SimulatedClock;
use crate::clock::{Clock as _, SystemClock, Timestamp};
use crate::ids::Epoch;
use crate::lifecycle::step::ErrorClass;
use crate::plan::Value;
use crate::provider::{
    Acted, Call, ErrorCode, Observation, Provider as _, ProviderErrorKind, Verification,
};

#[tokio::test]
async fn a_program_gets_typed_input_and_nothing_of_the_servers_environment() {
    let bench = Bench::new().acts(
        "cat > input; env | cut -d= -f1 | sort | tr '\\n' ' ' > names; pwd > where; echo \"$0 $*\" > argv\n\
         echo moving; echo late >&2\n\
         echo 'bmdemo: {\"evidence\":\"7 pods moved\",\"outputs\":{\"pods\":7}}'",
    );
    let mut bench = bench;
    bench.drain().act.extend(["--x".to_owned(), "$(id) ; *".to_owned()]);
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 3));
    driver.fence(&target, Epoch(3), driver.capabilities(&target)).await.unwrap();
    let done = driver.act(&target, &call, bench.logs()).await.unwrap();
    let output = [("pods".to_owned(), Value::Int(7))].into();
    assert_eq!(done, Acted::Done { evidence: "7 pods moved".to_owned(), output });
    let mut lines = bench.logs.all();
    lines.sort();
    assert_eq!(lines, ["stderr: late", "stdout: moving"]);
    let input: serde_json::Value = serde_json::from_str(&bench.read("input")).unwrap();
    crate::assert_golden!("exec_input", serde_json::to_string_pretty(&input).unwrap());
    // What the shell itself adds is not ours.
    let names = bench.read("names");
    let names: Vec<&str> = names
        .split_whitespace()
        .filter(|name| !["PWD", "SHLVL", "_", "OLDPWD"].contains(name))
        .collect();
    assert_eq!(
        names,
        [
            "BMDEMO_ACTION",
            "BMDEMO_CALL",
            "BMDEMO_EPOCH",
            "BMDEMO_MACHINE",
            "BMDEMO_OPERATION_ID",
            "LANG",
            "PATH"
        ]
    );
    assert_eq!(Path::new(bench.read("where").trim()), bench.dir.path().canonicalize().unwrap());
    assert!(bench.read("argv").trim().ends_with("/act --x $(id) ; *"), "{}", bench.read("argv"));
    assert_eq!(std::fs::read_dir(bench.at("inputs/rack")).unwrap().count(), 0);
}

#[tokio::test]
async fn the_exit_code_says_what_a_failure_means() {
    for (code, class, error_code) in [
        (1, ErrorClass::Transient, ErrorCode::Failed),
        (65, ErrorClass::Permanent, ErrorCode::Invalid),
        (69, ErrorClass::Transient, ErrorCode::Unreachable),
        (74, ErrorClass::OutcomeUnknown, ErrorCode::Failed),
        (75, ErrorClass::Transient, ErrorCode::Busy),
        (77, ErrorClass::NeedsHuman, ErrorCode::Unauthorized),
    ] {
        let bench = Bench::new().acts(&format!("echo one >&2; echo two >&2; exit {code}"));
        let driver = bench.driver();
        let failed = driver.act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap_err();
        assert_eq!((class_of(&failed), failed.code), (class, error_code), "{code}");
        assert_eq!(failed.message, format!("act of drain exited with {code}: two"));
    }
    let bench = Bench::new().acts("kill -s SEGV $$");
    let failed = bench.driver().act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap_err();
    assert_eq!(class_of(&failed), ErrorClass::OutcomeUnknown);
    assert_eq!(failed.message, "act of drain was ended by signal 11");
}

#[tokio::test]
async fn a_program_that_is_gone_or_has_none_has_done_nothing() {
    let bench = Bench::new().acts("exit 0");
    let driver = bench.driver();
    std::fs::remove_file(bench.at("act")).unwrap();
    let failed = driver.act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap_err();
    assert_eq!(class_of(&failed), ErrorClass::NeedsHuman);
    assert!(failed.message.contains("No such file"), "{failed}");
    let wipe = Call { action: "wipe".to_owned(), ..call(1, 1) };
    let failed = driver.act(&target("m-1"), &wipe, bench.logs()).await.unwrap_err();
    assert_eq!(failed.code, ErrorCode::Unsupported);
    assert!(failed.message.contains("[machine_classes.rack.exec.actions.wipe]"), "{failed}");
}

/// Where everything is stopped.
struct Stopped;

impl crate::provider::LogSink for Stopped {
    fn line(&self, _: crate::model::LogStream, _: &str) {}

    fn may_begin(&self) -> bool {
        false
    }
}

#[tokio::test]
async fn a_program_whose_turn_comes_too_late_is_not_started() {
    let bench = Bench::new().acts("echo begun > begun");
    let driver = bench.driver();
    let put_off = driver.act(&target("m-1"), &call(1, 1), Arc::new(Stopped)).await.unwrap_err();
    assert_eq!(put_off.code, ErrorCode::PutOff);
    assert!(!bench.at("begun").exists());
    // The same operation is carried out when it may be.
    driver.act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap();
}

/// The clock of the test stands still, so the limit is reached when the test moves it, and not before.
#[tokio::test]
async fn a_program_that_takes_too_long_is_ended_with_its_children() {
    let clock = Arc::new(SimulatedClock::new(Timestamp(0)));
    let bench = Bench::with(clock.clone()).acts(
        "trap '' TERM\n(trap '' TERM; echo $$ > leader; exec sleep 1000) &\necho $! > child; echo ready; wait; sleep 1000",
    );
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    let acting = {
        let (driver, target, call, logs) =
            (driver.clone(), target.clone(), call.clone(), bench.logs());
        tokio::spawn(async move { driver.act(&target, &call, logs).await })
    };
    bench.logs.until("ready").await;
    let child = bench.read("child");
    assert!(is_alive(&child));
    let failed = hurried(&clock, acting).await.unwrap().unwrap_err();
    assert_eq!((class_of(&failed), failed.code), (ErrorClass::OutcomeUnknown, ErrorCode::Timeout));
    assert_eq!(failed.message, "act of drain was ended: it took longer than 5m");
    assert!(
        clock.monotonic() >= Duration::from_secs(305),
        "limit and grace: {:?}",
        clock.monotonic()
    );
    // The last signal has been sent; that it has been carried out only real time can show.
    let real = SystemClock::new();
    while is_alive(&child) || is_alive(&bench.read("leader")) {
        real.sleep(Duration::from_millis(5)).await;
    }
    assert!(bench.logs.all().last().unwrap().ends_with("/act was ended: it took longer than 5m]"));
    // Without a program that looks, no one can tell.
    let seen = driver.observe(&target, &call, bench.logs()).await.unwrap();
    assert_eq!(seen, Observation::Unknowable { why: failed.message });
}

#[tokio::test]
async fn a_dropped_call_ends_its_program_before_anything_else_looks_or_acts() {
    let bench = Bench::new()
        .acts("echo start >> notes; trap 'echo end >> notes; exit 3' TERM; echo ready; while :; do sleep 0.01; done")
        .looks("echo look >> notes; exit 10");
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    for _ in 0..2 {
        bench.logs.lines.lock().unwrap().clear();
        tokio::select! {
            ended = driver.act(&target, &call, bench.logs()) => panic!("{ended:?}"),
            () = bench.logs.until("ready") => {}
        }
    }
    let seen = driver.observe(&target, &call, bench.logs()).await.unwrap();
    let observed = "observe of drain exited with 10".to_owned();
    assert_eq!(seen, Observation::NotDone { observed });
    assert_eq!(bench.read("notes"), "start\nend\nstart\nend\nlook\n");
}

#[tokio::test]
async fn an_operation_that_has_said_how_it_ended_is_not_run_again() {
    let bench = Bench::new().acts("echo run >> runs; exit $(cat code)");
    let driver = bench.driver();
    let target = target("m-1");
    for (attempt, code) in [(1, 0), (2, 65), (3, 74)] {
        std::fs::write(bench.at("code"), code.to_string()).unwrap();
        let call = call(attempt, 1);
        let first = driver.act(&target, &call, bench.logs()).await;
        let again = driver.act(&target, &call, bench.logs()).await;
        assert_eq!(first, again);
    }
    // What is not known is done again, if the plan wants it.
    assert_eq!(bench.read("runs").lines().count(), 4);
    let seen = driver.observe(&target, &call(2, 1), bench.logs()).await.unwrap();
    assert!(matches!(seen, Observation::Unknowable { .. }), "only the last operation is known");
}

#[tokio::test]
async fn what_a_program_has_started_and_left_ends_with_it() {
    let bench = Bench::new()
        .acts("sleep 1000 > /dev/null 2>&1 &\necho $! > child; sleep 1000 &\necho $! > other");
    bench.driver().act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap();
    assert!(!is_alive(&bench.read("child")) && !is_alive(&bench.read("other")));
}

#[tokio::test]
async fn looks_and_checks_are_programs_too() {
    let mut bench = Bench::new().acts("exit 0").looks("exit $(cat look)");
    let look =
        |bench: &Bench, code: u8| std::fs::write(bench.at("look"), code.to_string()).unwrap();
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    for (code, holds) in
        [(0, Some(true)), (10, Some(false)), (11, Some(false)), (12, None), (1, None)]
    {
        look(&bench, code);
        let checked = driver.verify(&target, &call, bench.logs()).await;
        let holds_now = checked.as_ref().ok().map(|v| matches!(v, Verification::Holds { .. }));
        assert_eq!(holds_now, holds, "{code}: {checked:?}");
    }
    let script = "echo 'bmdemo: {\"expected\":\"0 pods\",\"observed\":\"3 pods\"}'; exit 10";
    bench.drain().verify = bench.program("verify", script);
    bench.settings.probe =
        bench.program("probe", "echo 'bmdemo: {\"power\":\"on\",\"serial\":\"S1\"}'; exit 11");
    let driver = bench.driver();
    let broken = driver.verify(&target, &call, bench.logs()).await.unwrap();
    let (expected, observed) = ("0 pods".to_owned(), "3 pods".to_owned());
    assert_eq!(broken, Verification::Broken { expected, observed });
    let health = driver.probe(&target).await.unwrap();
    assert!(health.reachable && health.degraded);
    assert_eq!((health.facts.power, health.facts.serial.as_str()), (crate::model::Power::On, "S1"));
    // Without either of them, what the program said is all there is.
    let blind = Bench::new().acts("exit 0");
    let driver = blind.driver();
    driver.act(&target, &call, blind.logs()).await.unwrap();
    let checked = driver.verify(&target, &call, blind.logs()).await.unwrap();
    assert_eq!(checked, Verification::Holds { evidence: "act of drain exited with 0".to_owned() });
}

/// Two drivers on one folder are what a killed server and the next one are.
#[tokio::test]
async fn a_fence_ends_what_a_former_server_has_left_running() {
    let mut bench = Bench::new()
        .acts("(trap '' TERM; exec sleep 1000) &\necho $! > child; trap 'echo asked >> notes; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    bench.settings.grace = Duration::from_millis(200);
    let former = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    let acting = {
        let (target, call, logs) = (target.clone(), call.clone(), bench.logs());
        tokio::spawn(async move { former.act(&target, &call, logs).await })
    };
    bench.logs.until("ready").await;
    let next = bench.driver();
    next.fence(&target, Epoch(2), next.capabilities(&target)).await.unwrap();
    assert_eq!(bench.read("notes"), "asked\n");
    // The signal has been sent; that it has been carried out only real time can show.
    let real = SystemClock::new();
    while is_alive(&bench.read("child")) {
        real.sleep(Duration::from_millis(5)).await;
    }
    acting.await.unwrap().unwrap_err();
    let seen = next.observe(&target, &Call { epoch: Epoch(2), ..call.clone() }, bench.logs()).await;
    assert!(matches!(seen, Ok(Observation::Unknowable { .. })), "{seen:?}");
    let late = next.act(&target, &call, bench.logs()).await.unwrap_err();
    assert_eq!(late.kind, ProviderErrorKind::Fenced { current: Epoch(2) });
}

#[tokio::test]
async fn a_newer_epoch_ends_the_program_of_an_older_one_and_is_passed_on() {
    let mut bench = Bench::new().acts("echo ready; exec sleep 1000");
    bench.settings.fence = bench.program("fence", "echo \"fence $BMDEMO_EPOCH\" >> notes");
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    driver.fence(&target, Epoch(1), driver.capabilities(&target)).await.unwrap();
    let acting = {
        let (driver, target, logs) = (driver.clone(), target.clone(), bench.logs());
        tokio::spawn(async move { driver.act(&target, &call, logs).await })
    };
    bench.logs.until("ready").await;
    // The same epoch again changes nothing.
    driver.fence(&target, Epoch(1), driver.capabilities(&target)).await.unwrap();
    assert!(!acting.is_finished());
    driver.fence(&target, Epoch(2), driver.capabilities(&target)).await.unwrap();
    let failed = acting.await.unwrap().unwrap_err();
    assert_eq!(failed.message, "act of drain was ended before it was done");
    assert_eq!(bench.read("notes"), "fence 1\nfence 1\nfence 2\n");
    let late = driver.fence(&target, Epoch(1), driver.capabilities(&target)).await.unwrap_err();
    assert_eq!(late.kind, ProviderErrorKind::Fenced { current: Epoch(2) });
}

#[tokio::test]
async fn a_stop_ends_the_program_and_tells_what_it_has_started_elsewhere() {
    let mut bench = Bench::new()
        .acts("trap 'echo ended >> notes; exit 3' TERM; echo ready; while :; do sleep 0.01; done");
    bench.drain().stop = bench.program("stop", "echo \"stop $BMDEMO_OPERATION_ID\" >> notes");
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    let acting = {
        let (driver, target, call, logs) =
            (driver.clone(), target.clone(), call.clone(), bench.logs());
        tokio::spawn(async move { driver.act(&target, &call, logs).await })
    };
    bench.logs.until("ready").await;
    driver.stop(&target, &call).await.unwrap();
    acting.await.unwrap().unwrap_err();
    assert_eq!(bench.read("notes"), format!("ended\nstop {}\n", call.operation));
}

#[tokio::test]
async fn no_more_programs_act_at_a_time_than_are_allowed() {
    let mut bench = Bench::new().acts("echo start >> notes; sleep 0.02; echo end >> notes");
    bench.settings.parallel_max = 1;
    let driver = bench.driver();
    let acts = (0..5).map(|number| {
        let (driver, logs) = (driver.clone(), bench.logs());
        async move { driver.act(&target(&format!("m-{number}")), &call(1, 1), logs).await }
    });
    for done in futures_util::future::join_all(acts).await {
        done.unwrap();
    }
    assert_eq!(bench.read("notes"), "start\nend\n".repeat(5));
}

#[tokio::test]
async fn the_end_of_a_server_ends_its_programs() {
    let bench = Bench::new().acts("echo $$ > leader; echo ready; exec sleep 1000");
    let supervisors = Supervisors::default();
    let host = Host {
        folder: bench.at("inputs"),
        clock: bench.clock.clone(),
        supervisors: supervisors.clone(),
        desk: None,
        credentials: crate::credentials::Credentials::new(None),
        variables: Vec::new(),
    };
    let driver = Exec::new(bench.settings.clone(), None, host).unwrap();
    let (target, call) = (target("m-1"), call(1, 1));
    let (ended, ()) = tokio::join!(driver.act(&target, &call, bench.logs()), async {
        bench.logs.until("ready").await;
        supervisors.end().await;
    });
    assert_eq!(class_of(&ended.unwrap_err()), ErrorClass::OutcomeUnknown);
    assert!(!is_alive(&bench.read("leader")));
}

/// The first fence of an epoch was dropped, or another driver of the class refused: it is made again.
#[tokio::test]
async fn a_fence_that_was_cut_off_is_made_good_by_the_next() {
    let mut bench = Bench::new()
        .acts("trap '' TERM; echo $$ > leader; echo ready; while :; do sleep 0.01; done");
    bench.settings.grace = Duration::from_millis(200);
    let driver = bench.driver();
    let (target, call) = (target("m-1"), call(1, 1));
    let acting = {
        let (driver, target, logs) = (driver.clone(), target.clone(), bench.logs());
        tokio::spawn(async move { driver.act(&target, &call, logs).await })
    };
    bench.logs.until("ready").await;
    tokio::select! {
        biased;
        ended = driver.fence(&target, Epoch(2), driver.capabilities(&target)) => panic!("{ended:?}"),
        () = std::future::ready(()) => {}
    }
    driver.fence(&target, Epoch(2), driver.capabilities(&target)).await.unwrap();
    assert!(!is_alive(&bench.read("leader")));
    acting.await.unwrap().unwrap_err();
}

#[tokio::test]
async fn secrets_are_files_that_go_with_the_program() {
    let mut bench = Bench::new().acts(
        "cat $BMDEMO_CREDENTIALS/key > got; stat -c '%a %n' $BMDEMO_CREDENTIALS $BMDEMO_CREDENTIALS/key > modes\n\
         echo $BMDEMO_CREDENTIALS > where; env > names; cat > input",
    );
    bench.settings.credentials = vec!["key".to_owned()];
    let driver = bench.driver();
    let (target, logs) = (target("m-1"), bench.logs());
    let failed = driver.act(&target, &call(1, 1), logs.clone()).await.unwrap_err();
    assert_eq!(class_of(&failed), ErrorClass::Permanent);
    assert!(failed.message.contains("key"), "{failed}");
    std::fs::create_dir(bench.at("credentials")).unwrap();
    for secret in ["begin\nmiddle\nend", "rotated"] {
        let path = bench.at("credentials/key");
        std::fs::write(&path, secret).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))
            .unwrap();
        let attempt = secret.len() as u32;
        driver.act(&target, &call(attempt, 1), logs.clone()).await.unwrap();
        assert_eq!(bench.read("got"), format!("{secret}\n"));
        let modes = bench.read("modes");
        let modes: Vec<&str> = modes.lines().map(|line| &line[..3]).collect();
        assert_eq!(modes, ["700", "600"]);
        assert!(!Path::new(bench.read("where").trim()).exists(), "it is removed");
        assert!(!bench.read("names").contains(secret) && !bench.read("input").contains(secret));
    }
    // What a killed server has left of them goes at the next start.
    std::fs::create_dir(bench.at("inputs/rack/7.secrets")).unwrap();
    std::fs::write(bench.at("inputs/rack/7.secrets/key"), "old").unwrap();
    drop(bench.driver());
    assert!(!bench.at("inputs/rack/7.secrets").exists());
}

/// Only root can run programs under another account.
#[tokio::test]
async fn another_account_reaches_its_secrets_and_nothing_else() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let mut bench = Bench::new()
        .acts("cat $BMDEMO_CREDENTIALS/key; ls $BMDEMO_CREDENTIALS/.. && exit 64; exit 0");
    bench.settings.credentials = vec!["key".to_owned()];
    bench.settings.user = Some("nobody".to_owned());
    bench.settings.working_dir = "/".into();
    let mode = |path: PathBuf, mode| {
        std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(mode)).unwrap();
    };
    std::fs::create_dir(bench.at("credentials")).unwrap();
    std::fs::write(bench.at("credentials/key"), "canary").unwrap();
    mode(bench.at("credentials/key"), 0o600);
    mode(bench.dir.path().to_owned(), 0o700);
    let refused = bench.opened().unwrap_err();
    assert!(refused.to_string().contains("chmod o+x"), "{refused}");
    mode(bench.dir.path().to_owned(), 0o711);
    let driver = bench.driver();
    driver.act(&target("m-1"), &call(1, 1), bench.logs()).await.unwrap();
    assert_eq!(bench.logs.all()[0], "stdout: canary");
}
