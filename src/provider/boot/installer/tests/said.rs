//! What a run says about an installation, and what a machine says about its restarts.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_a_run_says_comes_before_what_its_class_says() {
    let lab = Lab::new(Fault::None).await;
    let mut said = call(1, 1, "repave");
    for (name, text) in [
        ("disk", "serial:S1"),
        ("hostname", "db-1"),
        ("ssh-key", "ssh-ed25519 AAAA one"),
        ("user-data", "role=db"),
    ] {
        said.args.insert(name.to_owned(), Value::Str(text.into()));
    }
    let said = lab.act(&said);
    assert!(lab.end(&said, 120).await.unwrap().is_ok());
    let settings = || lab.hardware.state.lock().unwrap().settings.clone();
    let text = settings();
    assert!(
        text.ends_with(
            "\nhostname=db-1\ndisk=serial:S1\nssh_key=ssh-ed25519 AAAA one\nuser_data=role=db\n"
        ),
        "{text}"
    );
    // Absent and empty are the same.
    let mut silent = call(1, 2, "repave");
    silent.operation = OperationId::new(RunId::new(Timestamp(9), [1, 2]), "repave", 1);
    silent.args.insert("disk".to_owned(), Value::Str("".into()));
    lab.hardware.written.store(0, Ordering::SeqCst);
    lab.hardware.state.lock().unwrap().boots_disk = false;
    let silent = lab.act(&silent);
    assert!(lab.end(&silent, 120).await.unwrap().is_ok());
    assert!(settings().ends_with("\nhostname=node-1\ndisk=smallest\n"), "{}", settings());
}

/// Another boot id since the run began is what a restart is known by.
#[tokio::test(start_paused = true)]
async fn a_restart_is_proven_by_another_boot_id() {
    let lab = Lab::new(Fault::None).await;
    let reboot = |at: u64| Call {
        operation: OperationId::new(RunId::new(Timestamp(at), [7, 7]), "reboot", 1),
        ..call(1, 1, "reboot")
    };
    let now = || lab.clock.now().0;
    assert_eq!(lab.installer.rebooted(&target(), &reboot(now())).await.unwrap(), None);
    let install = lab.act(&call(1, 1, "repave"));
    assert!(lab.end(&install, 120).await.unwrap().is_ok());
    lab.clock.sleep(Duration::from_secs(60)).await;
    let began = now();
    let control = Switch(lab.hardware.clone());
    let by = grant(&call(1, 1, "repave"));
    control.switch_off(&target(), &by).await.unwrap();
    control.switch_on(&target(), &by).await.unwrap();
    let seen = lab.installer.rebooted(&target(), &reboot(began)).await.unwrap().unwrap();
    assert_eq!(seen, "the system reports another boot id, boot-3");
    // A later run has seen no restart, and does not wait without end.
    lab.clock.sleep(Duration::from_secs(1)).await;
    let seen = lab.installer.rebooted(&target(), &reboot(now())).await.unwrap().unwrap();
    assert_eq!(seen, "the system has not reported its start for 60 s");
}
