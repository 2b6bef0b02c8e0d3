//! Callers with a scope: what they see, what they may touch, and what they cannot find out.

mod moves;

use std::collections::BTreeSet;

use prost::Message as _;
use tonic::Request;

use super::super::identity::{Identity, Proof};
use super::super::methods::{METHODS, ObjectKind, Role, Scoping};
use super::codec::call_by;
use super::*;
use crate::model::scope::Scope;
use crate::pb::server_service_client::ServerServiceClient;

/// A principal with this role; of the whole fleet without a scope.
fn principal(role: Role, scope: &str) -> Identity {
    Identity {
        name: "ann".into(),
        role,
        scope: (!scope.is_empty()).then(|| Arc::new(Scope::parse(scope).unwrap())),
        proof: Proof::Token,
        expires_at: None,
        ended: Arc::new(|| Box::pin(std::future::pending())),
    }
}

/// A request of a caller.
fn by<M>(caller: &Identity, message: M) -> Request<M> {
    let mut request = Request::new(message);
    request.extensions_mut().insert(caller.clone());
    request
}

fn labels(pairs: &[(&str, &str)]) -> std::collections::BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

fn registering(id: &str, tenant: &str) -> pb::RegisterMachineRequest {
    let mut request = registration(id);
    request.machine.as_mut().unwrap().labels = labels(&[("tenant", tenant), ("rack", "r1")]);
    request
}

fn relabelled(id: &str, pairs: &[(&str, &str)]) -> pb::UpdateMachineRequest {
    let machine =
        pb::Machine { machine_id: id.to_owned(), labels: labels(pairs), ..pb::Machine::default() };
    let paths = pairs.iter().map(|(key, _)| format!("labels.{key}")).collect();
    pb::UpdateMachineRequest {
        machine: Some(machine),
        update_mask: Some(prost_types::FieldMask { paths }),
        ..Default::default()
    }
}

/// A fleet of two tenants: `m-in` of tenant a, `m-out` of tenant b, each with a run that has ended.
struct Fleet {
    api: Api,
    run_in: String,
    run_out: String,
}

/// As long as the other ids, and of nothing.
const NO_MACHINE: &str = "m-not";
const NO_RUN: &str = "019b0000-0000-7000-8000-000000000000";

impl Fleet {
    async fn new() -> Self {
        let mut api = Api::new().await;
        let mut runs = Vec::new();
        for (id, tenant) in [("m-inn", "a"), ("m-out", "b")] {
            api.machines.register_machine(registering(id, tenant)).await.unwrap();
            let run = api.start(id, "plan/reboot").await.unwrap();
            runs.push(api.finished(&run.run_id).await.run_id);
        }
        let run_out = runs.pop().unwrap();
        Self { api, run_in: runs.pop().unwrap(), run_out }
    }

    fn server(&self) -> ServerServiceClient<Routes> {
        ServerServiceClient::new(routes(self.api.engine.clone()))
    }

    async fn info(&self, caller: &Identity) -> pb::ServerInfo {
        let request = by(caller, pb::GetServerInfoRequest {});
        self.server().get_server_info(request).await.unwrap().into_inner()
    }

    async fn retire_and_delete(&mut self, id: &str) {
        let machine = pb::Machine {
            machine_id: id.to_owned(),
            status: Some(pb::MachineStatus {
                phase: pb::Phase::Retired.into(),
                ..Default::default()
            }),
            ..Default::default()
        };
        let retire = pb::UpdateMachineRequest {
            machine: Some(machine),
            reason: "a test".to_owned(),
            ..Default::default()
        };
        self.api.machines.update_machine(retire).await.unwrap();
        let delete = pb::DeleteMachineRequest { machine_id: id.to_owned(), ..Default::default() };
        self.api.machines.delete_machine(delete).await.unwrap();
    }

    async fn machines_of(&mut self, caller: &Identity) -> Vec<String> {
        let request = by(caller, pb::ListMachinesRequest::default());
        let listed = self.api.machines.list_machines(request).await.unwrap().into_inner();
        listed.machines.into_iter().map(|machine| machine.machine_id).collect()
    }

    async fn runs_of(&mut self, caller: &Identity, filter: &str) -> Vec<String> {
        let request = pb::ListRunsRequest { filter: filter.to_owned(), ..Default::default() };
        let listed = self.api.runs.list_runs(by(caller, request)).await.unwrap().into_inner();
        listed.runs.into_iter().map(|run| run.run_id).collect()
    }
}

/// A request that is right in everything but, perhaps, its object.
#[allow(clippy::needless_update, reason = "some requests have only the fields that are given")]
fn whole(name: &str, machine: &str, run: &str, request_id: &str) -> Vec<u8> {
    let (machine_id, run_id) = (machine.to_owned(), run.to_owned());
    let (request_id, reason) = (request_id.to_owned(), "a test".to_owned());
    macro_rules! message {
        ($kind:ident { $($field:ident $(: $value:expr)?),* }) => {
            pb::$kind { $($field $(: $value)?,)* ..Default::default() }.encode_to_vec()
        };
    }
    match name {
        "GetMachine" => message!(GetMachineRequest { machine_id }),
        "UpdateMachine" => {
            let mut update = relabelled(machine, &[("note", "x")]);
            update.request_id = request_id;
            // Another etag than any has.
            update.machine.as_mut().unwrap().etag = "\"9999\"".to_owned();
            update.encode_to_vec()
        }
        "ClearIntervention" => {
            message!(ClearInterventionRequest { machine_id, request_id, reason })
        }
        "InspectMachine" => message!(InspectMachineRequest { machine_id, request_id }),
        "ListMachineHistory" => message!(ListMachineHistoryRequest { machine_id }),
        "DeleteMachine" => message!(DeleteMachineRequest { machine_id, request_id, reason }),
        "StartRun" => message!(StartRunRequest {
            machine_id,
            request_id,
            reason,
            plan_id: "plan/reboot".to_owned()
        }),
        "GetRun" => message!(GetRunRequest { run_id }),
        "CancelRun" => message!(CancelRunRequest { run_id, request_id, reason }),
        "StreamRunLogs" => message!(StreamRunLogsRequest { run_id }),
        "AbortRun" => message!(AbortRunRequest { run_id, request_id, reason }),
        "PauseRun" => message!(PauseRunRequest { run_id, request_id, reason }),
        "ResumeRun" => message!(ResumeRunRequest { run_id, request_id, reason }),
        "RetryRun" => message!(RetryRunRequest { run_id, request_id, reason }),
        "SkipStep" => {
            message!(SkipStepRequest { run_id, request_id, reason, step: "restart".to_owned() })
        }
        "ResolveStep" => message!(ResolveStepRequest {
            run_id,
            request_id,
            reason,
            step: "restart".to_owned(),
            resolution: pb::StepResolution::Done.into()
        }),
        "ListRunHistory" => message!(ListRunHistoryRequest { run_id }),
        "WaitRun" => message!(WaitRunRequest { run_id }),
        other => panic!("{other} is new: write a request of it"),
    }
}

/// An answer without the id that was asked for.
fn blind(status: &Status, id: &str) -> (Code, String, Vec<u8>) {
    let mut details = status.details().to_vec();
    while let Some(at) = details.windows(id.len()).position(|part| part == id.as_bytes()) {
        details[at..at + id.len()].fill(b'_');
    }
    (status.code(), status.message().replace(id, "_"), details)
}

#[tokio::test(start_paused = true)]
async fn what_is_out_of_scope_is_answered_as_if_it_were_not_there() {
    let fleet = Fleet::new().await;
    let routes = routes(fleet.api.engine.clone());
    let ann = principal(Role::Admin, "tenant=a");
    let mut methods = 0;
    for method in METHODS.iter().filter(|method| method.scoping == Scoping::Object) {
        let is_run = method.object == ObjectKind::Run;
        for request_id in ["", "once"] {
            let request_id = if method.is_mutation { request_id } else { "" };
            let ask = async |caller: &Identity, machine: &str, run: &str| {
                let message = whole(method.name, machine, run, request_id);
                call_by(&routes, method.path, &message, Some(caller.clone())).await
            };
            let there = ask(&ann, "m-out", &fleet.run_out).await;
            let (out, absent) =
                if is_run { (fleet.run_out.as_str(), NO_RUN) } else { ("m-out", NO_MACHINE) };
            let absent_status = ask(&ann, NO_MACHINE, NO_RUN).await;
            assert_eq!(there.code(), Code::NotFound, "{}: {there:?}", method.name);
            assert_eq!(blind(&there, out), blind(&absent_status, absent), "{}", method.name);
            // It is in the scope of someone else, and what is in the scope of ann is there for her.
            let everyone = principal(Role::Admin, "");
            for (caller, machine, run) in
                [(&everyone, "m-out", &fleet.run_out), (&ann, "m-inn", &fleet.run_in)]
            {
                let message = whole(method.name, machine, run, "");
                let status = call_by(&routes, method.path, &message, Some(caller.clone())).await;
                let hidden = [Code::NotFound, Code::PermissionDenied, Code::InvalidArgument];
                assert!(!hidden.contains(&status.code()), "{}: {status:?}", method.name);
            }
        }
        methods += 1;
    }
    assert!(methods >= 18, "{methods}");
}

#[tokio::test(start_paused = true)]
async fn lists_counts_and_history_show_what_is_in_the_scope() {
    let mut fleet = Fleet::new().await;
    for (scope, machines, runs) in [
        ("tenant=a", vec!["m-inn"], vec![fleet.run_in.clone()]),
        (
            "tenant in (a,b),rack=r1",
            vec!["m-inn", "m-out"],
            vec![fleet.run_in.clone(), fleet.run_out.clone()],
        ),
        ("tenant=c", vec![], vec![]),
        ("!tenant", vec![], vec![]),
        ("", vec!["m-inn", "m-out"], vec![fleet.run_in.clone(), fleet.run_out.clone()]),
    ] {
        let ann = principal(Role::Viewer, scope);
        assert_eq!(fleet.machines_of(&ann).await, machines, "{scope}");
        assert_eq!(fleet.runs_of(&ann, "").await, runs, "{scope}");
        let of_machines = pb::ListMachinesRequest { with_total_size: true, ..Default::default() };
        let listed = fleet.api.machines.list_machines(by(&ann, of_machines)).await.unwrap();
        assert_eq!(listed.into_inner().total_size, Some(machines.len() as u64), "{scope}");
        let of_runs = pb::ListRunsRequest { with_total_size: true, ..Default::default() };
        let listed = fleet.api.runs.list_runs(by(&ann, of_runs)).await.unwrap();
        assert_eq!(listed.into_inner().total_size, Some(runs.len() as u64), "{scope}");
        let request = by(&ann, pb::ListHistoryRequest { page_size: 1000, ..Default::default() });
        let page = fleet.api.machines.list_history(request).await.unwrap().into_inner();
        let seen: BTreeSet<_> =
            page.entries.iter().map(|entry| entry.machine_id.as_str()).collect();
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), machines, "{scope}");
    }
    // The labels of runs can be asked for.
    let everyone = principal(Role::Viewer, "");
    assert_eq!(fleet.runs_of(&everyone, "labels.tenant = b").await, [fleet.run_out.clone()]);
    let ann = principal(Role::Viewer, "tenant=a");
    assert_eq!(fleet.runs_of(&ann, "labels.tenant = b").await, Vec::<String>::new());
    let who = fleet.info(&ann).await;
    assert!(who.runs_max == 0 && who.data_dir.is_empty() && !who.version.is_empty(), "{who:?}");
    assert!(fleet.info(&everyone).await.runs_max > 0);
}

#[tokio::test(start_paused = true)]
async fn page_tokens_do_not_go_from_one_scope_to_another() {
    let mut fleet = Fleet::new().await;
    fleet.api.machines.register_machine(registering("m-in2", "a")).await.unwrap();
    let run = fleet.api.start("m-inn", "plan/reboot").await.unwrap();
    fleet.api.finished(&run.run_id).await;
    let (ann, bob) = (principal(Role::Viewer, "tenant=a"), principal(Role::Viewer, "rack=r1"));
    let everyone = principal(Role::Viewer, "");
    let mismatch = (Code::InvalidArgument, "PAGE_TOKEN_MISMATCH".to_owned());
    macro_rules! crosses {
        ($client:ident, $call:ident, $request:expr) => {
            let request = $request;
            let first = fleet.api.$client.$call(by(&ann, request.clone())).await.unwrap();
            let page_token = first.into_inner().next_page_token;
            assert_ne!(page_token, "", stringify!($call));
            let mut next = request;
            next.page_token = page_token;
            fleet.api.$client.$call(by(&ann, next.clone())).await.unwrap();
            for other in [&bob, &everyone] {
                let refused = fleet.api.$client.$call(by(other, next.clone())).await;
                assert_eq!(refusal(refused), mismatch, stringify!($call));
            }
        };
    }
    crosses!(
        machines,
        list_machines,
        pb::ListMachinesRequest { page_size: 1, ..Default::default() }
    );
    crosses!(runs, list_runs, pb::ListRunsRequest { page_size: 1, ..Default::default() });
    crosses!(machines, list_history, pb::ListHistoryRequest { page_size: 1, ..Default::default() });
    let machine_id = "m-inn".to_owned();
    crosses!(
        machines,
        list_machine_history,
        pb::ListMachineHistoryRequest { machine_id, page_size: 1, ..Default::default() }
    );
    let run_id = fleet.run_in.clone();
    crosses!(
        runs,
        list_run_history,
        pb::ListRunHistoryRequest { run_id, page_size: 1, ..Default::default() }
    );
}

#[tokio::test(start_paused = true)]
async fn batches_answer_each_machine_as_if_the_others_were_not_there() {
    let mut fleet = Fleet::new().await;
    let ann = principal(Role::Operator, "tenant=a");
    let ids = ["m-inn", "m-out", NO_MACHINE];
    for validate_only in [true, false] {
        let request = pb::BatchStartRunsRequest {
            machine_ids: ids.map(str::to_owned).to_vec(),
            plan_id: "plan/reboot".to_owned(),
            validate_only,
            ..Default::default()
        };
        let results = fleet.api.runs.batch_start_runs(by(&ann, request)).await.unwrap();
        let outcomes: Vec<_> = results
            .into_inner()
            .results
            .into_iter()
            .map(|result| match result.outcome.unwrap() {
                pb::run_result::Outcome::Run(run) => run.machine_id,
                pb::run_result::Outcome::Error(error) => {
                    format!("{} {}", error.reason, error.message.replace(&result.machine_id, "_"))
                }
            })
            .collect();
        let hidden = "NOT_FOUND machine \"_\" not found";
        assert_eq!(outcomes, ["m-inn", hidden, hidden]);
    }
    let request = pb::BatchStartRunsRequest {
        filter: "machine_id:*".to_owned(),
        plan_id: "plan/reboot".to_owned(),
        validate_only: true,
        ..Default::default()
    };
    let chosen = fleet.api.runs.batch_start_runs(by(&ann, request)).await.unwrap().into_inner();
    assert_eq!(chosen.results.len(), 1);

    // Registration: the answer to what is not ann's does not say whether it is there.
    let machine = |id: &str, tenant: &str| registering(id, tenant).machine.unwrap();
    let mut taken = machine("m-new", "a");
    taken.spec.as_mut().unwrap().mac_addresses = vec![mac_of("m-out")];
    for validate_only in [true, false] {
        let request = pb::BatchRegisterMachinesRequest {
            machines: vec![
                machine("m-inn", "a"),
                machine("m-in2", "a"),
                machine("m-out", "a"),
                machine("m-not", "b"),
                machine("m-out", "b"),
            ],
            validate_only,
            ..Default::default()
        };
        let results = fleet.api.machines.batch_register_machines(by(&ann, request)).await;
        let outcomes: Vec<_> = results
            .unwrap()
            .into_inner()
            .results
            .into_iter()
            .map(|result| match result.outcome.unwrap() {
                pb::machine_result::Outcome::Machine(machine) => machine.machine_id,
                pb::machine_result::Outcome::Error(error) => {
                    format!("{} {}", error.reason, error.message.replace(&result.machine_id, "_"))
                }
            })
            .collect();
        let hidden = "OUT_OF_SCOPE ann may not register machine _: its labels must be in the scope tenant=a, and its \
                      id and MAC addresses free";
        assert_eq!(outcomes, ["m-inn", "m-in2", hidden, hidden, hidden], "{validate_only}");
    }
    // So does one by one, with a MAC address of another tenant, too.
    let single = pb::RegisterMachineRequest { machine: Some(taken), ..Default::default() };
    let mut seen = BTreeSet::new();
    for (request, id) in [
        (single, "m-new"),
        (registering("m-out", "a"), "m-out"),
        (registering("m-not", "b"), "m-not"),
        (registering("m-out", "b"), "m-out"),
    ] {
        let status = fleet.api.machines.register_machine(by(&ann, request)).await.unwrap_err();
        seen.insert(format!("{:?}", blind(&status, id)));
    }
    assert_eq!(seen.len(), 1, "{seen:?}");
    // What everyone may know is still said.
    let everyone = principal(Role::Operator, "");
    let again = fleet.api.machines.register_machine(by(&everyone, registering("m-out", "b"))).await;
    assert_eq!(again.unwrap().into_inner().machine_id, "m-out");
}

#[tokio::test(start_paused = true)]
async fn what_is_about_the_fleet_is_not_for_callers_with_a_scope() {
    let fleet = Fleet::new().await;
    let routes = routes(fleet.api.engine.clone());
    let (ann, everyone) = (principal(Role::Admin, "tenant=a"), principal(Role::Admin, ""));
    for method in METHODS.iter().filter(|method| method.scoping == Scoping::Fleet) {
        let status = call_by(&routes, method.path, &[], Some(ann.clone())).await;
        assert_eq!(status.code(), Code::PermissionDenied, "{}", method.name);
        assert!(status.message().contains("has the scope tenant=a"), "{status:?}");
        let status = call_by(&routes, method.path, &[], Some(everyone.clone())).await;
        assert_ne!(status.code(), Code::PermissionDenied, "{}: {status:?}", method.name);
    }
}

#[tokio::test(start_paused = true)]
async fn callers_can_ask_which_rule_decides() {
    let fleet = Fleet::new().await;
    let mut server = fleet.server();
    let ann = principal(Role::Operator, "tenant=a");
    let mut ask = async |caller: &Identity, method: &str, object: &str| {
        let request = pb::CheckAccessRequest {
            method: method.to_owned(),
            object: object.to_owned(),
            ..Default::default()
        };
        let answer = server.check_access(by(caller, request)).await.unwrap().into_inner();
        (answer.allowed, answer.rule)
    };
    let (allowed, rule) = ask(&ann, "StartRun", "m-inn").await;
    assert!(
        allowed && rule.ends_with("m-inn is in the scope tenant=a (principals.ann.scope)"),
        "{rule}"
    );
    let (out, out_rule) = ask(&ann, "StartRun", "m-out").await;
    let (absent, absent_rule) = ask(&ann, "StartRun", NO_MACHINE).await;
    assert!(
        !out && !absent && out_rule.contains("is not in it, or not there at all"),
        "{out_rule}"
    );
    assert_eq!(out_rule.replace("m-out", "_"), absent_rule.replace(NO_MACHINE, "_"));
    let (allowed, rule) = ask(&ann, "DeleteMachine", "m-inn").await;
    assert!(!allowed && rule.contains("principals.ann.role"), "{rule}");
    assert!(ask(&ann, "CancelRun", &fleet.run_in).await.0);
    assert!(!ask(&ann, "CancelRun", &fleet.run_out).await.0);
    assert!(ask(&ann, "CancelRun", "m-inn").await.0);
    assert!(ask(&ann, "ListRuns", "").await.1.contains("it shows what is in the scope tenant=a"));
    let admin = principal(Role::Admin, "tenant=a");
    assert!(!ask(&admin, "ListAudit", "").await.0);
    assert!(ask(&principal(Role::Operator, ""), "StartRun", "m-out").await.0);
}
