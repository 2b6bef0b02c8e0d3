//! Callers that are locked, and plans that are for admins.

use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::audit_service_client::AuditServiceClient;
use bmdemo::pb::lock_service_client::LockServiceClient;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::plan_service_client::PlanServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::pb::server_service_client::ServerServiceClient;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt as _;

use super::lab::Lab;
use super::tokens::new_token;
use crate::support::within;

/// Two admins and an operator, with the tokens of each.
async fn three() -> (Lab, [String; 3]) {
    let lab = Lab::new("");
    let tokens = lab.at("tokens.toml");
    let mut settings = format!("[auth]\ntokens_file = \"{tokens}\"\n");
    for (name, role) in [("ann", "admin"), ("bob", "admin"), ("carl", "operator")] {
        settings += &format!("[principals.{name}]\nrole = \"{role}\"\n");
    }
    lab.put("bmdemo.toml", &settings);
    let tokens = [
        new_token(&lab, &["ann"]).await,
        new_token(&lab, &["bob"]).await,
        new_token(&lab, &["carl"]).await,
    ];
    (lab, tokens)
}

fn by<T>(token: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

fn reason(status: &Status) -> String {
    status.get_error_details().error_info().map(|info| info.reason.clone()).unwrap_or_default()
}

fn lock(principal: &str) -> pb::CreateLockRequest {
    pb::CreateLockRequest {
        principal: principal.to_owned(),
        reason: "laptop lost".to_owned(),
        ..Default::default()
    }
}

#[tokio::test]
async fn a_locked_caller_is_refused_and_its_streams_end() {
    let (lab, [ann, bob, carl]) = three().await;
    let server = lab.server(&[]).await;
    let channel = server.channel().await;
    let mut locks = LockServiceClient::new(channel.clone());
    let mut machines = MachineServiceClient::new(channel.clone());

    let refused = locks.create_lock(by(&carl, lock("bob"))).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_MISSING");
    let refused = locks.create_lock(by(&ann, lock("ann"))).await.unwrap_err();
    assert_eq!(reason(&refused), "FIELD_INVALID");
    assert!(refused.message().contains("is you"), "{refused:?}");

    let watched = machines.watch_machines(by(&bob, pb::WatchMachinesRequest::default())).await;
    let mut watched = watched.unwrap().into_inner();
    within("the watch begins", watched.message()).await.unwrap();
    let set = locks.create_lock(by(&ann, lock("bob"))).await.unwrap().into_inner();
    let ended = within("the watch ends", async {
        loop {
            match watched.message().await {
                Ok(Some(_)) => {}
                Ok(None) => panic!("it ends without a reason"),
                Err(ended) => return ended,
            }
        }
    });
    assert_eq!(reason(&ended.await), "CREDENTIALS_ENDED");
    let nothing = pb::ListMachinesRequest::default;
    let refused = machines.list_machines(by(&bob, nothing())).await.unwrap_err();
    assert_eq!(reason(&refused), "PRINCIPAL_LOCKED");
    assert!(refused.message().contains("bob is locked by ann: laptop lost"), "{refused:?}");
    machines.list_machines(by(&carl, nothing())).await.unwrap();

    let lift = pb::DeleteLockRequest {
        lock_id: set.lock_id,
        reason: "found".to_owned(),
        ..Default::default()
    };
    let refused = locks.delete_lock(by(&bob, lift.clone())).await.unwrap_err();
    assert_eq!(reason(&refused), "PRINCIPAL_LOCKED");
    locks.delete_lock(by(&ann, lift)).await.unwrap();
    machines.list_machines(by(&bob, nothing())).await.unwrap();
}

#[tokio::test]
async fn an_admin_gets_in_when_every_place_is_taken() {
    let (lab, [ann, _, carl]) = three().await;
    let settings = std::fs::read_to_string(lab.at("bmdemo.toml")).unwrap();
    lab.put("bmdemo.toml", &format!("[server]\nconnections_max = 24\n{settings}"));
    let server = lab.server(&[]).await;
    let mut busy = Vec::new();
    for _ in 0..21 {
        let mut client = HealthClient::new(server.channel().await);
        busy.push(client.watch(HealthCheckRequest::default()).await.unwrap().into_inner());
    }
    // The places for admins are taken by connections that say nothing.
    let silent = [server.raw().await, server.raw().await, server.raw().await];
    let clock = SystemClock::new();
    let stop = pb::StopAllRequest { reason: "smoke".to_owned(), ..Default::default() };
    let channel = within("an admin gets in", async {
        loop {
            let channel = server.channel().await;
            if LockServiceClient::new(channel.clone())
                .stop_all(by(&ann, stop.clone()))
                .await
                .is_ok()
            {
                return channel;
            }
            clock.sleep(Duration::from_millis(100)).await;
        }
    })
    .await;
    // Someone else's connection does not stay, and the admin's does.
    within("an operator is sent away", async {
        loop {
            let mut client = HealthClient::new(server.channel().await);
            let Ok(watch) = client.watch(HealthCheckRequest::default()).await else {
                clock.sleep(Duration::from_millis(100)).await;
                continue;
            };
            let mut watch = watch.into_inner();
            while let Ok(Some(_)) = watch.message().await {}
            return;
        }
    })
    .await;
    let who = pb::WhoAmIRequest {};
    let mut client = ServerServiceClient::new(channel);
    assert_eq!(client.who_am_i(by(&ann, who)).await.unwrap().into_inner().name, "ann");
    drop((silent, busy, carl));
}

/// A restart under its usual name, for admins only.
const FOR_ADMINS: &str = "\
id = \"plan/reboot\"
default_for = \"REBOOT\"
allowed_phases = [\"FACTORY_READY\", \"READY\"]
role = \"admin\"

[[steps]]
name = \"ask\"
action = \"approve\"
args = { message = \"Restart it?\" }

[[steps]]
name = \"reboot\"
action = \"reboot\"
on_unknown = \"verify\"
";

#[tokio::test]
async fn a_plan_for_admins_is_started_and_steered_by_admins_alone() {
    let (lab, [ann, _, carl]) = three().await;
    let plans = lab.dir.path().join("plans");
    std::fs::create_dir(&plans).unwrap();
    std::fs::write(plans.join("reboot.toml"), FOR_ADMINS).unwrap();
    let server = lab.server(&["--plans-dir", plans.to_str().unwrap()]).await;
    let channel = server.channel().await;
    let mut machines = MachineServiceClient::new(channel.clone());
    let machine = pb::Machine {
        machine_id: "machine-1".to_owned(),
        spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
        ..Default::default()
    };
    let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
    machines.register_machine(by(&carl, request)).await.unwrap();
    let request = pb::GetPlanRequest { plan_id: "reboot".to_owned() };
    let plan = PlanServiceClient::new(channel.clone()).get_plan(by(&carl, request)).await;
    assert_eq!(plan.unwrap().into_inner().role(), pb::Role::Admin);

    let mut runs = RunServiceClient::new(channel.clone());
    let start = pb::StartRunRequest {
        machine_id: "machine-1".to_owned(),
        r#type: pb::RunType::Reboot.into(),
        reason: "a test".to_owned(),
        ..Default::default()
    };
    let dry = pb::StartRunRequest { validate_only: true, ..start.clone() };
    for refused in [start.clone(), dry] {
        let refused = runs.start_run(by(&carl, refused)).await.unwrap_err();
        assert_eq!(reason(&refused), "ROLE_MISSING", "{refused:?}");
        let said = "carl has the role operator, and StartRun of plan/reboot needs the role admin";
        assert!(refused.message().contains(said), "{refused:?}");
    }
    let batch = pb::BatchStartRunsRequest {
        machine_ids: vec!["machine-1".to_owned()],
        plan_id: "plan/reboot".to_owned(),
        ..Default::default()
    };
    let answer = runs.batch_start_runs(by(&carl, batch)).await.unwrap().into_inner();
    let Some(pb::run_result::Outcome::Error(error)) = &answer.results[0].outcome else {
        panic!("{answer:?}")
    };
    assert_eq!(error.reason, "ROLE_MISSING");

    let run_id = runs.start_run(by(&ann, start)).await.unwrap().into_inner().run_id;
    // Another plan under this name changes nothing: the run has pinned its own.
    std::fs::write(plans.join("reboot.toml"), FOR_ADMINS.replace("role = \"admin\"\n", ""))
        .unwrap();
    server.signal("HUP").await;
    server.logged("reloaded configuration, plans and certificates").await;
    let why = "a test".to_owned();
    let id = run_id.clone();
    let refusals = [
        runs.pause_run(by(&carl, pb::PauseRunRequest { run_id: id.clone(), ..Default::default() }))
            .await,
        runs.cancel_run(by(
            &carl,
            pb::CancelRunRequest { run_id: id.clone(), ..Default::default() },
        ))
        .await,
        runs.abort_run(by(
            &carl,
            pb::AbortRunRequest { run_id: id.clone(), reason: why.clone(), ..Default::default() },
        ))
        .await,
        runs.resume_run(by(
            &carl,
            pb::ResumeRunRequest { run_id: id.clone(), ..Default::default() },
        ))
        .await,
        runs.skip_step(by(
            &carl,
            pb::SkipStepRequest {
                run_id: id.clone(),
                step: "ask".to_owned(),
                reason: why.clone(),
                ..Default::default()
            },
        ))
        .await,
        runs.resolve_step(by(
            &carl,
            pb::ResolveStepRequest {
                run_id: id.clone(),
                resolution: pb::StepResolution::Approve.into(),
                reason: why.clone(),
                ..Default::default()
            },
        ))
        .await,
    ];
    for refused in refusals {
        assert_eq!(reason(&refused.unwrap_err()), "ROLE_MISSING");
    }
    let mut may = ServerServiceClient::new(channel.clone());
    let mut can_i = async |token: &str, plan_id: &str, run_id: &str| {
        let request = pb::CheckAccessRequest {
            method: "StartRun".to_owned(),
            plan_id: plan_id.to_owned(),
            run_id: run_id.to_owned(),
            ..Default::default()
        };
        may.check_access(by(token, request)).await.unwrap().into_inner()
    };
    let answer = can_i(&carl, "", &run_id).await;
    assert!(
        !answer.allowed && answer.rule.contains("plan/reboot, which is for admins"),
        "{answer:?}"
    );
    assert!(can_i(&carl, "reboot", "").await.allowed, "the plan of now is for operators");
    assert!(can_i(&ann, "", &run_id).await.allowed);

    let cancel = pb::CancelRunRequest { run_id: run_id.clone(), ..Default::default() };
    runs.cancel_run(by(&ann, cancel)).await.unwrap();
    let retry = pb::RetryRunRequest { run_id, reason: why, ..Default::default() };
    let refused = runs.retry_run(by(&carl, retry.clone())).await.unwrap_err();
    assert_eq!(reason(&refused), "ROLE_MISSING", "a retry repeats the plan that was pinned");
    runs.retry_run(by(&ann, retry)).await.unwrap();
    // What was refused is in the audit.
    let clock = SystemClock::new();
    let mut audit = AuditServiceClient::new(channel);
    within("the denials are written", async {
        loop {
            let request = pb::ListAuditRequest { page_size: 1000, ..Default::default() };
            let entries = audit.list_audit(by(&ann, request)).await.unwrap().into_inner().entries;
            let denied = entries.iter().filter(|entry| entry.decision == "denied");
            let rpcs: Vec<_> = denied.map(|entry| entry.rpc.as_str()).collect();
            if ["StartRun", "PauseRun", "ResolveStep", "RetryRun"]
                .iter()
                .all(|rpc| rpcs.contains(rpc))
            {
                return;
            }
            clock.sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}
