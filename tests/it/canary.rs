//! One secret of each kind, sent along every path that takes one, and then looked for wherever it must not be.

use std::path::Path;
use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bmdemo::clock::{Clock as _, SystemClock};
use bmdemo::pb;
use bmdemo::pb::server_service_client::ServerServiceClient;
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use crate::metrics::get;
use crate::receiver::{Receiver, SECRET, json};
use crate::support::{Server, run_to_end, text, within};
use crate::tls::lab::{Lab, channel};
use crate::tls::tokens::new_token;

/// The middle of a text, which nothing else has.
fn core(secret: &str) -> String {
    secret.chars().skip(8).take(24).collect()
}

/// The tokens of an issuer: its keys, and a token for ann and one for a stranger.
fn issued(lab: &Lab) -> [String; 2] {
    let key = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).unwrap();
    let key = Ed25519KeyPair::from_pkcs8(key.as_ref()).unwrap();
    let encoded = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let public = encoded(key.public_key().as_ref());
    let keys =
        serde_json::json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": public}]});
    lab.put("jwks.json", &keys.to_string());
    let now_s = SystemClock::new().now().0 / 1000;
    ["ann@example.com", "stranger@example.com"].map(|subject| {
        let claims = serde_json::json!({
            "iss": "https://idp", "aud": "bmdemo", "sub": subject, "nbf": now_s, "exp": now_s + 600,
        });
        let head = encoded(br#"{"alg":"EdDSA","kid":"k"}"#);
        let message = format!("{head}.{}", encoded(claims.to_string().as_bytes()));
        format!("{message}.{}", encoded(key.sign(message.as_bytes()).as_ref()))
    })
}

/// Every file below a directory, with its bytes.
fn contents(dir: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            contents(&path, found);
        } else {
            found.push((path.display().to_string(), std::fs::read(&path).unwrap()));
        }
    }
}

#[tokio::test]
async fn a_secret_is_found_nowhere_but_where_it_was_put() {
    let lab = Lab::new("");
    let jwts = issued(&lab);
    let credentials = lab.dir.path().join("credentials");
    std::fs::create_dir(&credentials).unwrap();
    lab.put("credentials/bmc-login", "admin\ncanary-of-a-login-of-a-controller\n");
    lab.put("credentials/hook-key", SECRET);
    lab.put("credentials/program-secret", "canary-of-a-secret-of-a-program");
    let hook = Receiver::new(|_, _| json("200 OK", "{}")).await;
    for dir in ["plans", "actions"] {
        std::fs::create_dir(lab.dir.path().join(dir)).unwrap();
    }
    for (name, class) in [("ring", "posts"), ("toll", "runs")] {
        let action = format!(
            "name = \"{name}\"\ndescription = \"Rings.\"\nrisk = \"none\"\nidempotent = true\ntimeout = \"1m\"\n"
        );
        lab.put(&format!("actions/{name}.toml"), &action);
        let plan = format!(
            "id = \"plan/{class}\"\nallowed_phases = [\"FACTORY_READY\"]\n[[steps]]\nname = \"one\"\naction = \"{name}\"\n"
        );
        lab.put(&format!("plans/{class}.toml"), &plan);
    }
    // It has its secret, and keeps it for itself.
    lab.put(
        "toll",
        "#!/bin/sh\ngrep -q canary \"$BMDEMO_CREDENTIALS/program-secret\" && echo found\n",
    );
    std::fs::set_permissions(lab.at("toll"), std::os::unix::fs::PermissionsExt::from_mode(0o700))
        .unwrap();
    let dir = lab.dir.path().display();
    lab.configure(&format!(
        "[auth]\ntokens_file = \"{dir}/tokens.toml\"\n\
         [auth.jwt]\njwks_file = \"{dir}/jwks.json\"\nissuer = \"https://idp\"\naudience = \"bmdemo\"\n\
         [principals.ann]\nrole = \"admin\"\nsubjects = [\"ann@example.com\"]\n\
         [principals.bob]\nrole = \"viewer\"\n\
         [plans]\ndir = \"{dir}/plans\"\n[actions]\ndir = \"{dir}/actions\"\n[networks]\nwebhook = [\"127.0.0.0/8\"]\n\
         [machine_classes.posts]\ncustom = \"webhook\"\n[machine_classes.posts.webhook]\nurl = \"{}\"\n\
         secret = \"hook-key\"\nactions = [\"ring\"]\n\
         [machine_classes.runs]\ncustom = \"exec\"\n[machine_classes.runs.exec]\ncredentials = [\"program-secret\"]\n\
         [machine_classes.runs.exec.actions.toll]\nact = [\"{dir}/toll\"]\n",
        hook.url()
    ));
    let token = new_token(&lab, &["ann"]).await;
    let weak = new_token(&lab, &["bob"]).await;
    let unknown = format!("bmd_{}", "canaryofatokenthatisunknown".repeat(2));
    for (name, token) in
        [("ann", &token), ("bob", &weak), ("eve", &unknown), ("jwt", &jwts[0]), ("no", &jwts[1])]
    {
        lab.put(&format!("{name}.token"), token);
    }
    let data = lab.dir.path().join("data");
    let config = lab.at("bmdemo.toml");
    let server = Server::start(&[
        "--port",
        "0",
        "--fake-timing",
        "zero",
        "--log-level",
        "debug",
        "--metrics-listen",
        "127.0.0.1:0",
        "--config",
        &config,
        "--data-dir",
        data.to_str().unwrap(),
        "--credentials-dir",
        credentials.to_str().unwrap(),
    ])
    .await;
    let log = server.logged("/metrics").await;
    let metrics = log.split("http://").nth(1).unwrap().split("/metrics").next().unwrap().to_owned();

    // Each secret on its way, accepted and refused; what the client says of it is looked at, too.
    let address = format!("https://localhost:{}", server.address.port());
    let ca = lab.at("ca.pem");
    let mut said = String::new();
    let mut ask = async |name: &str, args: &[&str]| {
        let file = lab.at(&format!("{name}.token"));
        let with = ["--server", &address, "--ca-file", &ca, "--token-file", &file];
        let output = lab.run(&[args, &with].concat(), &[]).await;
        said += &(text(&output.stdout) + &text(&output.stderr));
        output.status.code()
    };
    assert_eq!(ask("ann", &["import", "2"]).await, Some(0));
    let login = ["machine", "update", "machine-1", "--credentials", "bmc-login"];
    assert_eq!(ask("ann", &login).await, Some(0));
    assert_eq!(ask("jwt", &["repave", "machine-1", "--yes"]).await, Some(0));
    for class in ["posts", "runs"] {
        let machine = format!("of-{class}");
        let register = ["machine", "register", &machine, "--provider", class];
        assert_eq!(ask("ann", &register).await, Some(0), "{class}");
        assert_eq!(
            ask("ann", &["run", "start", class, &machine, "--yes"]).await,
            Some(0),
            "{class}"
        );
        assert_eq!(ask("ann", &["logs", &machine]).await, Some(0), "{class}");
    }
    let signed = hook.messages();
    assert!(!signed.is_empty(), "the receiver was called");
    assert_eq!(ask("bob", &["repave", "machine-1", "--yes"]).await, Some(71));
    assert_eq!(ask("eve", &["list"]).await, Some(80));
    assert_eq!(ask("no", &["list"]).await, Some(80));
    assert_eq!(ask("ann", &["audit", "list", "-o", "json"]).await, Some(0));
    assert_eq!(ask("ann", &["machine", "describe", "machine-1"]).await, Some(0));
    ask("ann", &["doctor"]).await;
    let of_certificate = lab.cli(&server, "ann", &["auth", "whoami"]).await;
    assert_eq!(of_certificate.status.code(), Some(0));
    said += &(text(&of_certificate.stdout) + &text(&of_certificate.stderr));
    // A token in the wrong place of the head, and one that is damaged.
    let pair = Some(lab.authority.client(|_| ()));
    let plain = lab.config(pair.as_ref(), &[&rustls::version::TLS13]);
    let mut client = ServerServiceClient::new(channel(&server, plain).await);
    for value in [format!("Basic {token}"), token.clone(), format!("Bearer {}x", jwts[0])] {
        let mut request = tonic::Request::new(pb::WhoAmIRequest {});
        request.metadata_mut().insert("authorization", value.parse().unwrap());
        said += &format!("{:?}", client.who_am_i(request).await.unwrap_err());
    }

    // Both programs while they run, as anyone on the machine sees them.
    let mut watching = tokio::process::Command::new(env!("CARGO_BIN_EXE_bmdemo-cli"))
        .args(["runs", "--watch", "--server", &address, "--ca-file", &ca])
        .args(["--token-file", &lab.at("ann.token")])
        .env_clear()
        .env("HOME", lab.dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut shown = BufReader::new(watching.stdout.take().unwrap()).lines();
    let row = async { while !shown.next_line().await.unwrap().unwrap().contains("machine-1") {} };
    within("the watch shows the run", row).await;
    let mut places: Vec<(String, Vec<u8>)> = Vec::new();
    for pid in [server.pid(), watching.id().unwrap()] {
        for file in ["cmdline", "environ"] {
            let path = format!("/proc/{pid}/{file}");
            places.push((path.clone(), std::fs::read(&path).unwrap()));
        }
    }
    drop(watching);
    places.push(("the metrics".to_owned(), get(&metrics, "/metrics").await.1.into_bytes()));
    let copy = lab.dir.path().join("copy.db");
    let backup = ["backup", copy.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    assert!(run_to_end(&backup).await.status.success());
    places.push(("the backup".to_owned(), std::fs::read(&copy).unwrap()));
    // Denials are written in the second after them.
    let audit = within("the denials are in the audit", async {
        loop {
            let audit = run_to_end(&["audit", "list", "--data-dir", data.to_str().unwrap()]).await;
            if text(&audit.stdout).contains("credentials_token") {
                return audit;
            }
        }
    })
    .await;
    places.push(("the audit".to_owned(), audit.stdout));
    server.signal("TERM").await;
    let (_, printed, log) = server.ended().await;
    assert!(log.contains("a call was refused"), "{log}");
    places.push(("the log".to_owned(), (printed + &log).into_bytes()));
    places.push(("what the client says".to_owned(), said.into_bytes()));
    contents(&data, &mut places);
    // The data directory has a secret of its own, in one file.
    let own = std::fs::read_to_string(data.join("audit-key.pem")).unwrap();
    let own = own.lines().nth(1).unwrap().to_owned();

    let keys = ["server", "ann"]
        .map(|name| std::fs::read_to_string(lab.at(&format!("{name}-key.pem"))).unwrap());
    let keys = keys.map(|pem| pem.lines().nth(1).unwrap().to_owned());
    let secrets = [
        ("a static token", core(&token)),
        ("the token of a viewer", core(&weak)),
        ("a token that no one has", core(&unknown)),
        ("the signature of a token", jwts[0].rsplit('.').next().unwrap().to_owned()),
        ("the signature of a stranger's token", jwts[1].rsplit('.').next().unwrap().to_owned()),
        ("the login of a controller", "canary-of-a-login-of-a-controller".to_owned()),
        ("the key of a webhook", SECRET.trim().to_owned()),
        ("the secret of a program", "canary-of-a-secret-of-a-program".to_owned()),
        ("the key of the server", core(&keys[0])),
        ("the key of a client", core(&keys[1])),
        ("the key of the audit", core(&own)),
    ];
    for (what, secret) in &secrets {
        assert!(secret.len() >= 20, "{what}: {secret}");
        for (place, bytes) in &places {
            if place.ends_with("audit-key.pem") {
                continue;
            }
            let found = bytes.windows(secret.len()).any(|part| part == secret.as_bytes());
            assert!(!found, "{what} is in {place}");
        }
    }
    // Looking finds what is there.
    let seen = |name: &str| {
        places.iter().any(|(place, bytes)| {
            place == "the audit" && bytes.windows(name.len()).any(|part| part == name.as_bytes())
        })
    };
    assert!(seen("ann") && seen("bob") && seen("machine-1"));
}

/// Another user who can write to the data directory could replace what is in it.
#[tokio::test]
async fn a_data_directory_that_others_can_write_to_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let dir = tempfile::tempdir().unwrap();
    let data = dir.path().join("data");
    let started = ["--port", "0", "--data-dir", data.to_str().unwrap()];
    let server = Server::start(&started).await;
    let is_root = server.logged("serving").await.contains("running as root");
    server.signal("TERM").await;
    server.ended().await;
    let set = |path: &Path, mode: u32| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    set(&data, 0o777);
    let output = run_to_end(&started).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(73), "{error}");
    assert!(error.contains("mode 0777") && error.contains("chmod go-w"), "{error}");
    set(&data, 0o755);
    // A database that others can read is closed to them.
    let database = data.join("bmdemo.db");
    set(&database, 0o666);
    let server = Server::start(&started).await;
    let mode = std::fs::metadata(&database).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    server.signal("TERM").await;
    server.ended().await;
    if is_root {
        std::os::unix::fs::chown(&data, Some(4_711), None).unwrap();
        let output = run_to_end(&started).await;
        assert_eq!(output.status.code(), Some(73));
        assert!(text(&output.stderr).contains("belongs to another user (4711)"));
        std::os::unix::fs::chown(&data, Some(0), None).unwrap();
        std::os::unix::fs::chown(&database, Some(4_711), None).unwrap();
        let output = run_to_end(&started).await;
        assert!(
            text(&output.stderr).contains("it belongs to another user"),
            "{}",
            text(&output.stderr)
        );
    }
    std::fs::hard_link(&database, dir.path().join("other")).unwrap();
    let output = run_to_end(&started).await;
    assert_ne!(output.status.code(), Some(0));
}
