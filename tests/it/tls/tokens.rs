//! Tokens of a real server: what is accepted, what is refused, what ends, and where they are not to be seen.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use bmdemo::pb::run_service_client::RunServiceClient;
use bmdemo::pb::server_service_client::ServerServiceClient;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tonic::metadata::MetadataValue;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt as _;

use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::lab::Lab;
use crate::support::{Server, run_to_end, text, within};

/// A configuration without TLS, with tokens; and a token of `ann`.
async fn tokens() -> (Lab, String) {
    let lab = Lab::new("");
    let tokens = lab.at("tokens.toml");
    lab.put(
        "bmdemo.toml",
        &format!("[auth]\ntokens_file = \"{tokens}\"\n[principals.ann]\nrole = \"admin\"\n[principals.bob]\nrole = \"admin\"\n"),
    );
    let token = new_token(&lab, &["ann"]).await;
    (lab, token)
}

/// What `token new` prints.
pub(crate) async fn new_token(lab: &Lab, args: &[&str]) -> String {
    let config = lab.at("bmdemo.toml");
    let output = run_to_end(&[&["token", "new"], args, &["--config", &config]].concat()).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout).trim().to_owned()
}

async fn who(channel: &Channel, authorization: &[&str]) -> Result<pb::WhoAmIResponse, Status> {
    let mut request = Request::new(pb::WhoAmIRequest {});
    for value in authorization {
        let value = MetadataValue::try_from(*value).unwrap();
        request.metadata_mut().append("authorization", value);
    }
    let answer = ServerServiceClient::new(channel.clone()).who_am_i(request).await?;
    Ok(answer.into_inner())
}

#[tokio::test]
async fn a_token_says_who_calls() {
    let (lab, token) = tokens().await;
    let stored = std::fs::read_to_string(lab.at("tokens.toml")).unwrap();
    assert!(stored.contains("principal = \"ann\"") && !stored.contains(&token[4..40]), "{stored}");
    let server = lab.server(&[]).await;
    let channel = server.channel().await;
    let ann = who(&channel, &[&format!("Bearer {token}")]).await.unwrap();
    assert_eq!((ann.name.as_str(), ann.verified, ann.proof.as_str()), ("ann", true, "token"));
    assert_eq!(ann.expires_at, None);

    let damaged = format!("Bearer {}", token.replace('_', "-"));
    let bearer = format!("Bearer {token}");
    let unknown = format!("Bearer {}", new_token(&lab, &["bob"]).await);
    let cases: Vec<(Vec<&str>, &str)> = vec![
        (vec![], "the call has no credentials"),
        (vec![&token], "is not one \"Bearer\""),
        (vec!["Basic YW5uOng="], "is not one \"Bearer\""),
        (vec!["Bearer "], "is not one \"Bearer\""),
        (vec![&bearer, &bearer], "is not one \"Bearer\""),
        (vec!["Bearer bmd_x"], "begins with bmd_ and is damaged"),
        (vec![&damaged], "no issuer is configured"),
        (vec![&unknown], "the token is not one in auth.tokens_file"),
    ];
    let mut messages = std::collections::BTreeSet::new();
    for (authorization, reason) in cases {
        let refused = who(&channel, &authorization).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{authorization:?}");
        let info = refused.get_error_details().error_info().cloned().unwrap();
        assert_eq!(info.reason, "UNAUTHENTICATED");
        messages.insert((refused.message().to_owned(), info.metadata.len()));
        let log = server.logged(reason).await;
        assert!(!log.contains(&token[..20]), "{log}");
    }
    assert_eq!(messages.len(), 1, "{messages:?}");
}

/// A watch of machines with a token, and the revision from which it resumes.
async fn watch(
    channel: &Channel,
    filter: &str,
    token: &str,
) -> (tonic::Streaming<pb::MachineEvent>, u64) {
    let request = pb::WatchMachinesRequest { filter: filter.to_owned(), ..Default::default() };
    let mut machines = MachineServiceClient::new(channel.clone());
    let watch = machines.watch_machines(with(request, token)).await.unwrap();
    let mut watch = watch.into_inner();
    let synced = within("a watch begins", watch.message()).await.unwrap().unwrap();
    (watch, synced.revision)
}

fn with<M>(message: M, token: &str) -> Request<M> {
    let mut request = Request::new(message);
    let value = MetadataValue::try_from(format!("Bearer {token}")).unwrap();
    request.metadata_mut().insert("authorization", value);
    request
}

/// A run, in a step that takes a minute.
async fn slow(channel: &Channel, token: &str) -> String {
    let spec = Some(pb::MachineSpec { provider: "fake".to_owned(), ..Default::default() });
    let machine = Some(pb::Machine { machine_id: "m-1".to_owned(), spec, ..Default::default() });
    let register = pb::RegisterMachineRequest { machine, ..Default::default() };
    let mut machines = MachineServiceClient::new(channel.clone());
    machines.register_machine(with(register, token)).await.unwrap();
    let start = pb::StartRunRequest {
        machine_id: "m-1".to_owned(),
        plan_id: "plan/repave-join".to_owned(),
        ..Default::default()
    };
    let mut runs = RunServiceClient::new(channel.clone());
    runs.start_run(with(start, token)).await.unwrap().into_inner().run_id
}

async fn ends(mut watch: tonic::Streaming<pb::MachineEvent>, revision: u64) {
    let clock = SystemClock::new();
    let before = clock.monotonic();
    let ended = within("the watch ends", watch.message()).await.unwrap_err();
    assert!((clock.monotonic() - before).as_secs() < 5);
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    let info = ended.get_error_details().error_info().cloned().unwrap();
    assert_eq!(info.reason, "CREDENTIALS_ENDED");
    assert_eq!(info.metadata["resume_from"], revision.to_string());
}

#[tokio::test]
async fn streams_end_with_their_token() {
    let (lab, token) = tokens().await;
    let brief = new_token(&lab, &["bob", "--expires-in", "3s"]).await;
    let server = lab.server(&["--fake-script", "step=repave do=slow:60s"]).await;
    let channel = server.channel().await;
    let run = slow(&channel, &token).await;
    let filter = "machine_id = \"none\"";
    let (of_ann, at_ann) = watch(&channel, filter, &token).await;
    let (of_bob, at_bob) = watch(&channel, filter, &brief).await;
    let mut runs = RunServiceClient::new(channel.clone());
    let waiting = tokio::spawn({
        let brief = brief.clone();
        async move {
            let wait = pb::WaitRunRequest { run_id: run, ..Default::default() };
            runs.wait_run(with(wait, &brief)).await
        }
    });
    ends(of_bob, at_bob).await;
    let ended = within("the wait ends", waiting).await.unwrap().unwrap_err();
    assert_eq!(ended.get_error_details().error_info().unwrap().reason, "CREDENTIALS_ENDED");
    let refused = who(&channel, &[&format!("Bearer {brief}")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
    server.logged("the token of bob has expired").await;
    lab.put("tokens.toml", "");
    server.signal("HUP").await;
    ends(of_ann, at_ann).await;
    let refused = who(&channel, &[&format!("Bearer {token}")]).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn the_command_line_shows_a_token_from_a_file_or_a_command_and_renews_it() {
    let (lab, token) = tokens().await;
    let server = lab.server(&[]).await;
    let address = server.address.to_string();
    lab.put("ann.token", &format!("{token}\n"));
    let file = lab.at("ann.token");
    let output =
        lab.run(&["auth", "whoami", "--server", &address, "--token-file", &file], &[]).await;
    assert_eq!(text(&output.stdout), "ann, by a token; admin\n", "{}", text(&output.stderr));

    // The command prints an old token first, then the one that is accepted.
    let command = format!(
        "if [ -e {0}/again ]; then cat {1}; else touch {0}/again; echo bmd_old; fi",
        lab.dir.path().display(),
        file
    );
    let set = ["context", "set", "lab", &address, "--token-command", &command];
    assert_eq!(lab.run(&set, &[]).await.status.code(), Some(0));
    let written = lab.at(".config/bmdemo/config.toml");
    let mode =
        std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(written).unwrap().permissions());
    assert_eq!(mode & 0o777, 0o600);
    let output = lab.run(&["auth", "whoami", "--context", "lab", "--json"], &[]).await;
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&shown["name"], &shown["verified"]), (&"ann".into(), &true.into()));

    let refused = async |args: &[&str], expected: i32, why: &str| {
        let output = lab.run(args, &[]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(expected), "{error}");
        assert!(error.contains(why) && !error.contains(&token), "{error}");
    };
    let none = ["auth", "whoami", "--server", &address];
    refused(&none, 80, "the log of the server says why").await;
    let elsewhere = ["list", "--server", "10.255.255.1:1", "--token-file", &file];
    refused(&elsewhere, 2, "in the clear").await;
    std::fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    refused(&["list", "--server", &address, "--token-file", &file], 1, "mode 0644").await;
    let failing = ["context", "set", "lab", &address, "--token-command", "exit 3"];
    assert_eq!(lab.run(&failing, &[]).await.status.code(), Some(0));
    refused(&["list", "--context", "lab"], 1, "token_command of the context failed").await;
}

/// A watch of the client resumes with a new token where the old one ended.
#[tokio::test]
async fn a_watch_of_the_command_line_survives_its_token() {
    let (lab, token) = tokens().await;
    let brief = new_token(&lab, &["ann", "--expires-in", "4s"]).await;
    let server = Server::start(&[
        "--ephemeral",
        "--port",
        "0",
        "--fake-timing",
        "zero",
        "--fake-script",
        "machine=machine-1 step=repave do=slow:8s",
        "--config",
        &lab.at("bmdemo.toml"),
    ])
    .await;
    let address = server.address.to_string();
    lab.put("brief.token", &brief);
    lab.put("ann.token", &token);
    let file = lab.at("brief.token");
    let with = ["--server", &address, "--token-file", &file];
    let output = lab.run(&[&["import", "1"][..], &with].concat(), &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let repave = [&["repave", "machine-1"][..], &with].concat();
    std::fs::rename(lab.at("ann.token"), lab.at("next.token")).unwrap();
    let (output, ()) = tokio::join!(lab.run(&repave, &[]), async {
        // The old token was refused once; now the file gets the one that lasts.
        server.logged("the token of ann has expired").await;
        std::fs::rename(lab.at("next.token"), &file).unwrap();
    });
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
}

/// The token is in no argument and in no environment of the client, nor in what the server says at its most talkative.
#[tokio::test]
async fn a_token_is_not_to_be_seen() {
    let (lab, token) = tokens().await;
    let server = lab.server(&["--log-level", "debug"]).await;
    lab.put("ann.token", &token);
    let mut client = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"));
    client
        .args(["runs", "--watch", "--server", &server.address.to_string()])
        .args(["--token-file", &lab.at("ann.token")])
        .env_clear()
        .env("HOME", lab.dir.path())
        .stdout(std::process::Stdio::piped())
        .kill_on_drop(true);
    let mut child = client.spawn().unwrap();
    let mut shown = BufReader::new(child.stdout.take().unwrap()).lines();
    let address = server.address.to_string();
    for args in [&["import", "1"][..], &["repave", "machine-1", "--detach"]] {
        let with = ["--server", &address, "--token-file", &lab.at("ann.token")];
        let output = lab.run(&[args, &with].concat(), &[]).await;
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    }
    // The watch runs, so its token has been sent.
    let row = async { while !shown.next_line().await.unwrap().unwrap().contains("machine-1") {} };
    within("the watch shows the run", row).await;
    let pid = child.id().unwrap();
    for file in ["cmdline", "environ"] {
        let seen = std::fs::read(format!("/proc/{pid}/{file}")).unwrap();
        assert!(!text(&seen).contains(&token[4..]), "{file}");
    }
    drop(child);
    server.signal("TERM").await;
    let (_, _, log) = server.ended().await;
    assert!(log.contains("serving"), "{log}");
    assert!(!log.contains(&token[4..47]), "{log}");
}

#[tokio::test]
async fn what_an_issuer_says_is_believed_while_it_is_one_of_ours() {
    let lab = Lab::new("");
    let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let keys = serde_json::json!({"keys": [
        {"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": encoded(key.public_key().as_ref())},
    ]});
    lab.put("jwks.json", &keys.to_string());
    lab.put(
        "bmdemo.toml",
        &format!(
            "[auth.jwt]\njwks_file = \"{}\"\nissuer = \"https://idp\"\naudience = \"bmdemo\"\n\
             [principals.ann]\nrole = \"admin\"\nsubjects = [\"ann@example.com\"]\n",
            lab.at("jwks.json")
        ),
    );
    let server = lab.server(&[]).await;
    let now_s = SystemClock::new().now().0 / 1000;
    let token = |subject: &str, exp: u64| {
        let claims = serde_json::json!({
            "iss": "https://idp", "aud": "bmdemo", "sub": subject, "nbf": now_s, "exp": exp,
        });
        let head = encoded(br#"{"alg":"EdDSA","kid":"k"}"#);
        let message = format!("{head}.{}", encoded(claims.to_string().as_bytes()));
        let signature = encoded(key.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    };
    let channel = server.channel().await;
    let good = token("ann@example.com", now_s + 600);
    let ann = who(&channel, &[&format!("bearer {good}")]).await.unwrap();
    assert_eq!((ann.name.as_str(), ann.proof.as_str()), ("ann", "jwt"));
    assert_eq!(ann.expires_at.unwrap().seconds, i64::try_from(now_s + 600).unwrap());
    let (brief, at) = watch(&channel, "", &token("ann@example.com", now_s + 4)).await;
    ends(brief, at).await;
    for (token, reason) in [
        (
            token("root@example.com", now_s + 600),
            "speaks of \"root@example.com\", who is not a principal",
        ),
        (token("ann@example.com", now_s - 1), "refused: it has expired"),
        (good.replace('.', "x"), "refused: it does not have three parts"),
    ] {
        let refused = who(&channel, &[&format!("Bearer {token}")]).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated);
        server.logged(reason).await;
    }
    let (watched, at) = watch(&channel, "", &good).await;
    lab.put("jwks.json", &keys.to_string().replace("\"kid\":\"k\"", "\"kid\":\"next\""));
    server.signal("HUP").await;
    ends(watched, at).await;
}
