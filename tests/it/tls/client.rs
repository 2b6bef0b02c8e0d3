//! What the command line says about TLS that does not come about.

use super::lab::{Authority, Lab};
use crate::support::{Server, text};

#[tokio::test]
async fn a_server_without_tls_is_said_so() {
    let lab = Lab::new("");
    let server = Server::ephemeral(&[]).await;
    let output = lab.cli(&server, "", &["list"]).await;
    let error = text(&output.stderr);
    assert_eq!(output.status.code(), Some(78), "{error}");
    assert!(error.contains("does not speak TLS"), "{error}");
    assert!(error.contains(&format!("give http://{}", server.address)), "{error}");
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let other = Authority::new("other");
    lab.put("other.pem", &other.pem);
    let address = format!("https://{}", server.address);
    let with = async |args: &[&str]| {
        let output = lab.run(&[&["list"], args].concat(), &[]).await;
        (output.status.code(), text(&output.stderr))
    };
    let (code, error) = with(&["--server", &address, "--ca-file", &lab.at("other.pem")]).await;
    assert_eq!(code, Some(78), "{error}");
    assert!(error.contains("is not trusted: none of the given authorities"), "{error}");
    let named = format!("https://ip6-localhost:{}", server.address.port());
    let by_other_address = format!("https://127.0.0.2:{}", server.address.port());
    for address in [&named, &by_other_address] {
        let (code, error) = with(&["--server", address, "--ca-file", &lab.at("ca.pem")]).await;
        assert_eq!(code, Some(78), "{error}");
    }
    let (code, error) = with(&["--server", &address]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("give --ca-file FILE"), "{error}");
    let ca = lab.at("ca.pem");
    let (code, error) =
        with(&["--server", &address, "--ca-file", &ca, "--cert-file", &lab.at("ann.pem")]).await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("the key of the client is not given"), "{error}");
    let wrong = ["--ca-file", &ca, "--cert-file", &lab.at("ann.pem"), "--key-file"];
    let (code, error) =
        with(&[&["--server", &address][..], &wrong, &[&lab.at("server-key.pem")]].concat()).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("it is not the key of"), "{error}");
    let (code, error) =
        with(&[&["--server", &address][..], &wrong, &[&lab.at("nowhere.pem")]].concat()).await;
    assert_eq!(code, Some(1), "{error}");
    assert!(error.contains("cannot read") && error.contains("nowhere.pem"), "{error}");
}
