//! Every method with every role, and what callers may ask about it.

use bmdemo::api::methods::{METHODS, Role};
use bmdemo::pb;

use super::lab::Lab;
use super::tokens::new_token;
use crate::abuse::wire::{REGISTER, Wire, registration};
use crate::support::{text, within};

/// Codes of gRPC.
const PERMISSION_DENIED: &str = "7";
const UNAUTHENTICATED: &str = "16";
const RESOURCE_EXHAUSTED: &str = "8";

/// A server with tokens for one principal of each role, and those tokens.
async fn roles() -> (Lab, Vec<(Role, String)>) {
    let lab = Lab::new("");
    let tokens = lab.at("tokens.toml");
    let mut settings = format!("[auth]\ntokens_file = \"{tokens}\"\n");
    let roles = [(Role::Viewer, "viewer"), (Role::Operator, "operator"), (Role::Admin, "admin")];
    for (_, name) in roles {
        settings += &format!("[principals.the-{name}]\nrole = \"{name}\"\n");
    }
    lab.put("bmdemo.toml", &settings);
    let mut made = Vec::new();
    for (role, name) in roles {
        made.push((role, new_token(&lab, &[&format!("the-{name}")]).await));
    }
    (lab, made)
}

/// The code of the answer to a call; empty for one whose answer continues.
async fn code(
    wire: &mut Wire,
    path: &str,
    token: Option<&str>,
    request: &impl prost::Message,
) -> String {
    let mut head = wire.call(path);
    if let Some(token) = token {
        head = head.header("authorization", format!("Bearer {token}"));
    }
    let response = wire.answer(head, request).await;
    if let Some(status) = response.headers().get("grpc-status") {
        return status.to_str().unwrap().to_owned();
    }
    let (_, mut body) = response.into_parts();
    let is_stream = METHODS.iter().any(|method| method.path == path && method.is_stream);
    if is_stream || path.starts_with("/grpc.") {
        return String::new();
    }
    while let Some(piece) = within("the answer continues", body.data()).await {
        let length = piece.unwrap().len();
        body.flow_control().release_capacity(length).unwrap();
    }
    let trailers = within("the answer ends", body.trailers()).await.unwrap().unwrap_or_default();
    trailers
        .get("grpc-status")
        .map(|status| status.to_str().unwrap().to_owned())
        .unwrap_or_default()
}

/// What a principal may change in a time, and watch, is one principal's at all of its connections, and no one else's.
#[tokio::test]
async fn rations_are_of_principals() {
    let (lab, tokens) = roles().await;
    let settings = std::fs::read_to_string(lab.at("bmdemo.toml")).unwrap();
    let limits = "[server]\nmutations_per_peer_per_s = 1\nwatches_per_peer_max = 2\n";
    lab.put("bmdemo.toml", &(settings + limits));
    let server = lab.server(&[]).await;
    let token = |wanted: Role| {
        tokens.iter().find(|(role, _)| *role == wanted).map(|(_, token)| token.as_str())
    };
    let (operator, admin) = (token(Role::Operator), token(Role::Admin));
    let mut wires = [Wire::open(&server, 65_535).await, Wire::open(&server, 65_535).await];
    let mut codes = Vec::new();
    for n in 0..40 {
        let machine = registration(&format!("m-{n}"));
        codes.push(code(&mut wires[n % 2], REGISTER, operator, &machine).await);
    }
    let refused = codes.iter().filter(|code| *code == RESOURCE_EXHAUSTED).count();
    assert!((1..=30).contains(&refused), "{codes:?}");
    // Of the same address.
    let machine = registration("m-admin");
    assert_eq!(code(&mut wires[0], REGISTER, admin, &machine).await, "0");

    let watch = "/baremetal.v1.RunService/WatchRuns";
    let nothing = pb::WatchRunsRequest::default();
    let mut held = Vec::new();
    for wire in &mut wires {
        let head =
            wire.call(watch).header("authorization", format!("Bearer {}", operator.unwrap()));
        held.push(wire.answer(head, &nothing).await);
    }
    assert_eq!(code(&mut wires[0], watch, operator, &nothing).await, RESOURCE_EXHAUSTED);
    assert_eq!(code(&mut wires[0], watch, admin, &nothing).await, "");
    drop(held);
}

#[tokio::test]
async fn every_method_is_for_its_role_and_those_above() {
    let (lab, tokens) = roles().await;
    let server = lab.server(&[]).await;
    let mut wire = Wire::open(&server, 65_535).await;
    let stranger = format!("bmd_{}", "A".repeat(49));
    let mut cases = 0;
    for method in METHODS {
        for (token, role) in [(None, None), (Some(&stranger), None)]
            .into_iter()
            .chain(tokens.iter().map(|(role, token)| (Some(token), Some(*role))))
        {
            let nothing = pb::GetServerInfoRequest {};
            let code = code(&mut wire, method.path, token.map(String::as_str), &nothing).await;
            let what = format!("{} as {role:?}: {code:?}", method.name);
            match role {
                None => assert_eq!(code, UNAUTHENTICATED, "{what}"),
                Some(role) if role < method.role => assert_eq!(code, PERMISSION_DENIED, "{what}"),
                Some(_) => {
                    assert!(![PERMISSION_DENIED, UNAUTHENTICATED].contains(&&*code), "{what}")
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, METHODS.len() * 5);
    // What does not look inside, and what does.
    let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
    for (path, expected) in [("/grpc.health.v1.Health/Check", ""), (reflection, UNAUTHENTICATED)] {
        let code = code(&mut wire, path, None, &pb::GetServerInfoRequest {}).await;
        assert_eq!(code, expected, "{path}");
    }
    // Some requests need more than their method.
    let start = "/baremetal.v1.RunService/StartRun";
    let update = "/baremetal.v1.MachineService/UpdateMachine";
    let forced = pb::StartRunRequest { force: true, ..Default::default() };
    let status = pb::MachineStatus { phase: pb::Phase::Retired.into(), ..Default::default() };
    let retired = pb::UpdateMachineRequest {
        machine: Some(pb::Machine { status: Some(status), ..Default::default() }),
        ..Default::default()
    };
    for (role, token) in &tokens {
        for is_denied in [
            code(&mut wire, start, Some(token), &forced).await == PERMISSION_DENIED,
            code(&mut wire, update, Some(token), &retired).await == PERMISSION_DENIED,
        ] {
            assert_eq!(is_denied, *role < Role::Admin, "{role:?}");
        }
    }
}

#[tokio::test]
async fn callers_can_ask_what_they_may_do() {
    let (lab, tokens) = roles().await;
    let broken = "machine=machine-1 do=fail-permanent";
    let server = lab.server(&["--fake-script", broken]).await;
    let address = server.address.to_string();
    for (role, token) in &tokens {
        lab.put(&format!("{role:?}.token"), token);
    }
    let ask = async |role: Role, args: &[&str]| {
        let file = lab.at(&format!("{role:?}.token"));
        let with = ["--server", &address, "--token-file", &file];
        let output = lab.run(&[args, &with].concat(), &[]).await;
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let (code, said) = ask(Role::Viewer, &["auth", "can-i", "rma", "machine-7"]).await;
    assert_eq!(
        (code, said.as_str()),
        (
            Some(1),
            "no, rma machine-7: StartRun needs the role operator, and the-viewer has the role viewer \
             (principals.the-viewer.role)\n"
        )
    );
    let (code, said) = ask(Role::Operator, &["auth", "can-i", "rma", "machine-7"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = ask(Role::Operator, &["auth", "can-i", "rma", "--force"]).await;
    assert!(code == Some(1) && said.contains("with force needs the role admin"), "{said}");
    let (code, said) = ask(Role::Operator, &["auth", "can-i", "delete"]).await;
    assert!(code == Some(1) && said.contains("DeleteMachine needs the role admin"), "{said}");
    let (code, said) = ask(Role::Admin, &["auth", "can-i", "DeleteMachine"]).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = ask(Role::Admin, &["auth", "can-i", "rmaa"]).await;
    assert!(code == Some(2) && said.contains("did you mean rma?"), "{said}");
    let (code, said) = ask(Role::Admin, &["auth", "can-i", "Fly"]).await;
    assert!(code == Some(67) && said.contains("is no method"), "{said}");

    let (code, said) = ask(Role::Operator, &["auth", "whoami"]).await;
    assert_eq!((code, said.as_str()), (Some(0), "the-operator, by a token; operator\n"));
    let (code, said) = ask(Role::Viewer, &["import", "1"]).await;
    assert_eq!(code, Some(71), "{said}");
    assert!(
        said.contains("the-viewer has the role viewer, and BatchRegisterMachines needs"),
        "{said}"
    );
    server.logged("a call was refused").await;
    assert_eq!(ask(Role::Operator, &["import", "1"]).await.0, Some(0));
    assert_eq!(ask(Role::Viewer, &["list"]).await.0, Some(0));

    // A retry repeats what its run was started with, force included.
    let forced = ["repave", "machine-1", "--force", "--yes", "--reason", "a test"];
    let (code, said) = ask(Role::Admin, &forced).await;
    assert!(code != Some(0) && said.contains("FAILED"), "{said}");
    let retry = ["retry", "machine-1", "--yes", "--reason", "a test"];
    let (code, said) = ask(Role::Operator, &retry).await;
    assert_eq!(code, Some(71), "{said}");
    assert!(
        said.contains("RetryRun of a run that was started with force needs the role admin"),
        "{said}"
    );
    let (_, said) = ask(Role::Admin, &retry).await;
    assert!(said.contains("FAILED") && !said.contains("needs the role"), "{said}");
}
