//! Every method with every caller and every scope, against a table of its own: what is decided, and what is shown.

use bmdemo::api::methods::METHODS;
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use prost_reflect::{DescriptorPool, DynamicMessage};
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::lab::Lab;
use super::table::Kind::{
    self, AdminsEach, AdminsObject, Each, Fleet, Makes, Object, Same, Shows, Stops,
};
use super::table::{ALSO, TABLE};
use super::tokens::new_token;
use crate::abuse::wire::Wire;
use crate::support::{Server, text, within};

/// Callers in the order of what they may do.
const CALLERS: [&str; 5] = ["anonymous", "unknown", "viewer", "operator", "admin"];
/// Scopes of callers: none, one that has the machine, one that has not.
const SCOPES: [(&str, &str); 3] = [("all", ""), ("in", "tenant=a"), ("out", "tenant=b")];

/// Codes of gRPC.
const OK: &str = "0";
const NOT_FOUND: &str = "5";
const PERMISSION_DENIED: &str = "7";
const UNAUTHENTICATED: &str = "16";

/// What the answer of a machine that is not in the scope says in a batch.
const REFUSED: [&str; 2] = ["NOT_FOUND", "OUT_OF_SCOPE"];

struct Crossed {
    lab: Lab,
    server: Server,
    tokens: Vec<(String, String)>,
    pool: DescriptorPool,
    run: String,
    forced: String,
    careful: String,
}

impl Crossed {
    /// A server with a principal of each role and scope, a machine of tenant a with an ended run, and one whose run was
    /// started with force and failed.
    async fn new() -> Self {
        let lab = Lab::new("");
        let file = lab.at("tokens.toml");
        let mut settings = format!("[auth]\ntokens_file = \"{file}\"\n");
        let mut names = Vec::new();
        for role in &CALLERS[2..] {
            for (scope, selector) in SCOPES {
                let name = format!("{role}-{scope}");
                settings += &format!("[principals.{name}]\nrole = \"{role}\"\n");
                if !selector.is_empty() {
                    settings += &format!("scope = \"{selector}\"\n");
                }
                names.push(name);
            }
        }
        lab.put("bmdemo.toml", &settings);
        let mut tokens = Vec::new();
        for name in names {
            let token = new_token(&lab, &[&name]).await;
            tokens.push((name, token));
        }
        let broken = "machine=m-f do=fail-permanent";
        // One that only admins run.
        std::fs::create_dir(lab.at("plans")).unwrap();
        let plan = crate::configuration::a_plan("plan/careful");
        lab.put("plans/careful.toml", &format!("role = \"admin\"\n{plan}"));
        let server = lab.server(&["--fake-script", broken, "--plans-dir", &lab.at("plans")]).await;
        let pool = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
        let none = String::new();
        let (run, forced, careful) = (none.clone(), none.clone(), none);
        let mut crossed = Self { lab, server, tokens, pool, run, forced, careful };
        crossed.run = crossed.run_on("m-a", "plan/reboot", false).await;
        crossed.forced = crossed.run_on("m-f", "plan/reboot", true).await;
        crossed.careful = crossed.run_on("m-c", "plan/careful", false).await;
        crossed
    }

    fn token(&self, caller: &str, scope: &str) -> Option<String> {
        match caller {
            "anonymous" => None,
            "unknown" => Some(format!("bmd_{}", "A".repeat(49))),
            _ => {
                let name = format!("{caller}-{scope}");
                let found = self.tokens.iter().find(|(known, _)| *known == name);
                Some(found.unwrap().1.clone())
            }
        }
    }

    /// Registers a machine of tenant a and returns a run of it that has ended.
    async fn run_on(&self, id: &str, plan_id: &str, force: bool) -> String {
        let channel = self.server.channel().await;
        let token = format!("Bearer {}", self.token("admin", "all").unwrap());
        let token = MetadataValue::try_from(token).unwrap();
        let by_admin = move |mut request: Request<()>| {
            request.metadata_mut().insert("authorization", token.clone());
            Ok(request)
        };
        let mut machines =
            MachineServiceClient::with_interceptor(channel.clone(), by_admin.clone());
        let mut runs = RunServiceClient::with_interceptor(channel, by_admin);
        let machine = pb::Machine {
            machine_id: id.to_owned(),
            labels: [("tenant".to_owned(), "a".to_owned())].into(),
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
        machines.register_machine(request).await.unwrap();
        let request = pb::StartRunRequest {
            machine_id: id.to_owned(),
            plan_id: plan_id.to_owned(),
            reason: "a test".to_owned(),
            force,
            ..Default::default()
        };
        let run_id = runs.start_run(request).await.unwrap().into_inner().run_id;
        let request = pb::WaitRunRequest { run_id: run_id.clone(), ..Default::default() };
        let ended = within("the run ends", runs.wait_run(request)).await.unwrap().into_inner();
        assert!(ended.finished_at.is_some(), "{ended:?}");
        run_id
    }

    fn message(&self, method: &str, json: &str) -> DynamicMessage {
        let json = json.replace("FORCED", &self.forced).replace("CAREFUL", &self.careful);
        let json = json.replace("\"RUN\"", &format!("{:?}", self.run));
        let method = METHODS.iter().find(|known| known.name == method).unwrap();
        let service = format!("baremetal.v1.{}", method.service);
        let service = self.pool.get_service_by_name(&service).unwrap();
        let found = service.methods().find(|known| known.name() == method.name).unwrap();
        let mut reader = serde_json::Deserializer::from_str(&json);
        DynamicMessage::deserialize(found.input(), &mut reader).unwrap()
    }
}

/// The code of an answer and its bytes: all of them, or the first message of one that continues.
async fn answer(
    wire: &mut Wire,
    path: &str,
    token: Option<&str>,
    message: &impl prost::Message,
) -> (String, Vec<u8>) {
    let mut head = wire.call(path);
    if let Some(token) = token {
        head = head.header("authorization", format!("Bearer {token}"));
    }
    let response = wire.answer(head, message).await;
    if let Some(status) = response.headers().get("grpc-status") {
        return (status.to_str().unwrap().to_owned(), Vec::new());
    }
    let goes_on = path.contains("/Watch") || path.contains("/ServerReflection");
    let (_, mut body) = response.into_parts();
    let mut bytes: Vec<u8> = Vec::new();
    while let Some(piece) = within("the answer continues", body.data()).await {
        let piece = piece.unwrap();
        body.flow_control().release_capacity(piece.len()).unwrap();
        bytes.extend_from_slice(&piece);
        let length = bytes.get(1..5).map_or(usize::MAX, |head| {
            usize::try_from(u32::from_be_bytes(head.try_into().unwrap())).unwrap() + 5
        });
        if goes_on && bytes.len() >= length {
            return (OK.to_owned(), bytes);
        }
    }
    let trailers = within("the answer ends", body.trailers()).await.unwrap().unwrap_or_default();
    let status = trailers.get("grpc-status").map(|status| status.to_str().unwrap().to_owned());
    (status.unwrap_or_default(), bytes)
}

fn rank(caller: &str) -> usize {
    CALLERS.iter().position(|known| *known == caller).unwrap()
}

fn has(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|part| part == text.as_bytes())
}

/// What the rules say of an answer: by the role first, then by the scope.
fn judge(
    caller: &str,
    scope: &str,
    least: &str,
    kind: Kind,
    (code, bytes): &(String, Vec<u8>),
) -> bool {
    let denied = [NOT_FOUND, PERMISSION_DENIED, UNAUTHENTICATED].contains(&code.as_str());
    if rank(caller) < rank("viewer") {
        return code == UNAUTHENTICATED;
    }
    if rank(caller) < rank(least) {
        return code == PERMISSION_DENIED;
    }
    match (kind, scope) {
        (Same, _) => code == OK && (!has(bytes, "m-a") || has(bytes, "principals.")),
        (Fleet, "all") => code == OK,
        (Stops, "all") => code != OK && !denied,
        (Fleet | Stops, _) => code == PERMISSION_DENIED,
        (Object | Makes, "all" | "in") => !denied,
        (AdminsObject, "all" | "in") if caller == "admin" => !denied,
        (AdminsObject, "all" | "in") => code == PERMISSION_DENIED,
        // How a run was started, and by which plan, is not said of one that is outside.
        (Object | AdminsObject, _) => code == NOT_FOUND,
        (Makes, _) => code == PERMISSION_DENIED,
        (Shows, "all" | "in") => code == OK && has(bytes, "m-a"),
        (Shows, _) => code == OK && !has(bytes, "m-a") && !has(bytes, "tenant"),
        (AdminsEach, "all" | "in") if caller != "admin" => code == OK && has(bytes, "ROLE_MISSING"),
        (Each | AdminsEach, "all" | "in") => {
            code == OK && !REFUSED.iter().any(|word| has(bytes, word))
        }
        (Each | AdminsEach, _) => code == OK && REFUSED.iter().any(|word| has(bytes, word)),
    }
}

#[tokio::test]
async fn every_method_with_every_caller_and_every_scope() {
    let crossed = Crossed::new().await;
    let mut wire = Wire::open(&crossed.server, 65_535).await;
    let mut wrong = Vec::new();
    let mut cases = 0;
    // Every method is in the table, once.
    let mut known: Vec<_> = METHODS.iter().map(|method| method.name).collect();
    let mut listed: Vec<_> = TABLE.iter().map(|(name, ..)| *name).collect();
    known.sort_unstable();
    listed.sort_unstable();
    assert_eq!(known, listed, "a method is not in the table of this test");
    for caller in CALLERS {
        for (scope, _) in SCOPES {
            let token = crossed.token(caller, scope);
            for (name, least, kind, json) in TABLE.iter().chain(ALSO) {
                let path = METHODS.iter().find(|method| method.name == *name).unwrap().path;
                let message = crossed.message(name, json);
                let answer = answer(&mut wire, path, token.as_deref(), &message).await;
                if !judge(caller, scope, least, *kind, &answer) {
                    let said = String::from_utf8_lossy(&answer.1).into_owned();
                    wrong.push(format!("{caller} {scope} {name} {json}: {} {said:?}", answer.0));
                }
                cases += 1;
            }
            // Health is for everyone, reflection for who is known: scopes mean nothing to either.
            for path in [
                "/grpc.health.v1.Health/Check",
                "/grpc.health.v1.Health/Watch",
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
            ] {
                let nothing = pb::GetServerInfoRequest {};
                let (code, _) = answer(&mut wire, path, token.as_deref(), &nothing).await;
                let is_open = path.starts_with("/grpc.health") || rank(caller) >= rank("viewer");
                if (code == UNAUTHENTICATED) == is_open || code == PERMISSION_DENIED {
                    wrong.push(format!("{caller} {scope} {path}: {code}"));
                }
                cases += 1;
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new(), "{} of {cases}", wrong.len());
    assert_eq!(cases, (TABLE.len() + ALSO.len() + 4) * CALLERS.len() * SCOPES.len());
    assert!(cases >= 450, "{cases}");
    // Until here its files are needed.
    drop(crossed.lab);
}

#[tokio::test]
async fn callers_see_their_scope_and_ask_about_machines() {
    let crossed = Crossed::new().await;
    let address = crossed.server.address.to_string();
    let ask = async |scope: &str, args: &[&str]| {
        let name = format!("operator-{scope}.token");
        crossed.lab.put(&name, &crossed.token("operator", scope).unwrap());
        let file = crossed.lab.at(&name);
        let with = ["--server", &address, "--token-file", &file];
        let output = crossed.lab.run(&[args, &with].concat(), &[]).await;
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (_, said) = ask("in", &["auth", "whoami"]).await;
    assert_eq!(said, "operator-in, by a token; operator, only for machines with tenant=a\n");
    let (_, said) = ask("all", &["auth", "whoami"]).await;
    assert_eq!(said, "operator-all, by a token; operator\n");
    let (code, said) = ask("in", &["auth", "can-i", "rma", "m-a"]).await;
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("m-a is in the scope tenant=a (principals.operator-in.scope)"), "{said}");
    let (code, said) = ask("out", &["auth", "can-i", "rma", "m-a"]).await;
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("m-a is not in it, or not there at all (principals.operator-out.scope)"));
    assert_eq!(ask("out", &["auth", "can-i", "rma", "m-z"]).await.1, said.replace("m-a", "m-z"));
    let (code, said) = ask("out", &["doctor"]).await;
    assert!(code == Some(0) && said.contains("0 machines") && !said.contains("limits"), "{said}");
    let (code, said) = ask("out", &["machine", "describe", "m-a"]).await;
    assert!(code != Some(0) && said.contains("machine \"m-a\" not found"), "{said}");
}

/// A stream ends when a reload gives its caller another scope; the answers after it are those of the new one.
#[tokio::test]
async fn a_reload_changes_scopes_and_ends_streams() {
    let lab = Lab::new("");
    let file = lab.at("tokens.toml");
    let settings =
        |rest: &str| format!("[auth]\ntokens_file = \"{file}\"\n[principals.ann]\n{rest}\n");
    lab.put("bmdemo.toml", &settings("role = \"admin\""));
    let token = new_token(&lab, &["ann"]).await;
    let server = lab.server(&[]).await;
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    let by_ann = move |mut request: Request<()>| {
        request.metadata_mut().insert("authorization", value.clone());
        Ok(request)
    };
    let mut client = MachineServiceClient::with_interceptor(server.channel().await, by_ann);
    for (id, tenant) in [("m-a", "a"), ("m-b", "b")] {
        let machine = pb::Machine {
            machine_id: id.to_owned(),
            labels: [("tenant".to_owned(), tenant.to_owned())].into(),
            spec: Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() }),
            ..Default::default()
        };
        let request = pb::RegisterMachineRequest { machine: Some(machine), ..Default::default() };
        client.register_machine(request).await.unwrap();
    }
    let mut seen = Vec::new();
    // Another scope, another role, and a scope that is wrong, which changes nothing.
    for rest in [
        "role = \"admin\"\nscope = \"tenant=b\"",
        "role = \"viewer\"\nscope = \"tenant=b\"",
        "role = \"viewer\"\nscope = \"tenant b\"",
    ] {
        let request = pb::WatchMachinesRequest::default();
        let mut watch = client.watch_machines(request).await.unwrap().into_inner();
        let mut shown = Vec::new();
        let synced = loop {
            let event = within("an event", watch.message()).await.unwrap().unwrap();
            match event.snapshot {
                Some(machine) => shown.push(machine.machine_id),
                None => break event.revision,
            }
        };
        seen.push(shown.join(" "));
        lab.put("bmdemo.toml", &settings(rest));
        server.signal("HUP").await;
        if rest.contains("tenant b") {
            server.logged("principals.ann.scope").await;
            continue;
        }
        let ended = within("the stream ends", watch.message()).await.unwrap_err();
        assert_eq!(ended.code(), tonic::Code::Unauthenticated);
        let details = tonic_types::StatusExt::get_error_details(&ended);
        let info = details.error_info().unwrap();
        assert_eq!(info.reason, "CREDENTIALS_ENDED");
        assert_eq!(info.metadata["resume_from"], synced.to_string());
    }
    assert_eq!(seen, ["m-a m-b", "m-b", "m-b"]);
}
