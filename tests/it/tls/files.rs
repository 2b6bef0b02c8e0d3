//! `dev-certs`, and the files and settings that a server refuses to start with.

use std::os::unix::fs::{PermissionsExt as _, symlink};

use super::lab::Lab;
use crate::support::{Server, run_to_end, text};

#[tokio::test]
async fn certificates_for_development_let_client_and_server_talk() {
    let lab = Lab::new("");
    let dir = lab.at("certs");
    let made = ["dev-certs", &dir, "--name", "bmdemo.lab.example", "--client", "ann"];
    let output = run_to_end(&made).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let names = ["ca", "ca-key", "server", "server-key", "client-ann", "client-ann-key"];
    assert_eq!(text(&output.stdout).lines().count(), names.len());
    for name in names {
        let path = format!("{dir}/{name}.pem");
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600, "{path}");
    }
    assert_eq!(std::fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
    let before = std::fs::read(format!("{dir}/ca.pem")).unwrap();
    let again = run_to_end(&made).await;
    assert_eq!(again.status.code(), Some(73));
    assert!(text(&again.stderr).contains("nothing was written"), "{}", text(&again.stderr));
    assert_eq!(std::fs::read(format!("{dir}/ca.pem")).unwrap(), before);
    for wrong in [&["--client", "a b"][..], &["--name", "a b"], &["--client", "x", "--client", "x"]]
    {
        let refused = run_to_end(&[&["dev-certs", &lab.at("none")], wrong].concat()).await;
        assert_eq!(refused.status.code(), Some(78), "{wrong:?}: {}", text(&refused.stderr));
        assert!(text(&refused.stderr).contains(wrong[0]), "{}", text(&refused.stderr));
    }
    assert!(!std::path::Path::new(&lab.at("none")).exists());

    lab.put("own.toml", "[principals.ann]\nrole = \"admin\"\n");
    let (cert, key, ca) =
        (format!("{dir}/server.pem"), format!("{dir}/server-key.pem"), format!("{dir}/ca.pem"));
    let server = Server::ephemeral(&[
        "--config",
        &lab.at("own.toml"),
        "--tls-cert-file",
        &cert,
        "--tls-key-file",
        &key,
        "--tls-client-ca-file",
        &ca,
        // With identities it may be reached from elsewhere.
        "--listen",
        "0.0.0.0",
    ])
    .await;
    let log = server.logged("serving").await;
    assert!(!log.contains("WITHOUT"), "{log}");
    // By a name: the certificate has it, and so the server goes by it.
    let address = format!("https://localhost:{}", server.address.port());
    let context = [
        "context",
        "set",
        "dev",
        &address,
        "--ca-file",
        &ca,
        "--cert-file",
        &format!("{dir}/client-ann.pem"),
        "--key-file",
        &format!("{dir}/client-ann-key.pem"),
    ];
    let output = lab.run(&context, &[]).await;
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let listed = lab.run(&["list", "--context", "dev"], &[]).await;
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
    // The credentials of a context are for its server alone.
    let other = lab.run(&["list", "--context", "dev", "--server", &address], &[]).await;
    assert_eq!(other.status.code(), Some(2), "{}", text(&other.stderr));
    assert!(text(&other.stderr).contains("--ca-file"), "{}", text(&other.stderr));
    let env = [
        ("BMDEMO_SERVER", address.as_str()),
        ("BMDEMO_CA_FILE", &ca),
        ("BMDEMO_CERT_FILE", &format!("{dir}/client-ann.pem")),
        ("BMDEMO_KEY_FILE", &format!("{dir}/client-ann-key.pem")),
    ];
    let listed = lab.run(&["list"], &env).await;
    assert_eq!(listed.status.code(), Some(0), "{}", text(&listed.stderr));
}

#[tokio::test]
async fn files_that_cannot_be_used_are_refused_at_the_start() {
    let lab = Lab::new("");
    let config = lab.at("bmdemo.toml");
    let key = lab.at("server-key.pem");
    let refused = async |expected: &str| {
        let output = run_to_end(&["--ephemeral", "--port", "0", "--config", &config]).await;
        let error = text(&output.stderr);
        assert_eq!(output.status.code(), Some(78), "{expected}: {error}");
        assert!(error.contains(expected), "{expected}: {error}");
        assert!(!error.contains("PRIVATE"), "{error}");
    };
    let with_mode = |mode: u32| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    with_mode(0o640);
    refused("other users can read or write it (mode 0640)").await;
    with_mode(0o600);
    std::fs::rename(&key, lab.at("moved.pem")).unwrap();
    symlink(lab.at("moved.pem"), &key).unwrap();
    refused("symbolic link").await;
    std::fs::remove_file(&key).unwrap();
    refused(&key).await;
    std::fs::rename(lab.at("moved.pem"), &key).unwrap();
    let ca = std::fs::read_to_string(lab.at("ca.pem")).unwrap();
    lab.put("ca.pem", &lab.authority.client(|_| ()).cert);
    refused("is not one of an authority").await;
    lab.put("ca.pem", &ca);
    lab.put("crl.pem", &ca);
    refused("has no list of revocations").await;
    lab.put("crl.pem", &lab.authority.revoked(&[]));
    lab.configure("");
    refused("there are no principals").await;
    lab.configure("[principals.engine]\nrole = \"admin\"");
    refused("the name is reserved").await;
    lab.put("bmdemo.toml", "[tls]\ncert_file = \"x\"\n");
    refused("tls.key_file is not set").await;
    lab.put("bmdemo.toml", "[tls]\ncrl_file = \"x\"\n");
    refused("without tls.client_ca_file").await;

    // Encrypted, and still anyone may call.
    let dir = lab.dir.path().display();
    lab.put(
        "bmdemo.toml",
        &format!(
            "[server]\nlisten = \"0.0.0.0\"\n[tls]\ncert_file = \"{dir}/server.pem\"\nkey_file = \"{dir}/server-key.pem\"\n"
        ),
    );
    refused("calls there are not authenticated").await;
}
