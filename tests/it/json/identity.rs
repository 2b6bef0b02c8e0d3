//! Callers that prove who they are.

use rustls::version::TLS13;
use serde_json::json;

use super::client::{Envelopes, Http1, JSON, STREAM, enveloped};
use crate::abuse::wire::{LIST, REGISTER};
use crate::support::text;
use crate::tls::lab::{Lab, secured};
use crate::tls::tokens::new_token;

const WHO: &str = "/baremetal.v1.ServerService/WhoAmI";
const GET: &str = "/baremetal.v1.MachineService/GetMachine";

#[tokio::test]
async fn a_certificate_is_shown_over_http_1_1() {
    let lab = Lab::new("");
    let server = lab.server(&[]).await;
    let mut config = lab.config(Some(&lab.authority.client(|_| ())), &[&TLS13]);
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    let stream = secured(&server, config).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"http/1.1"[..]));
    let host = format!("localhost:{}", server.address.port());
    let mut ann = Http1::over(stream, &host).await;
    let who = ann.call(WHO, "{}").await.json();
    assert_eq!((&who["name"], &who["proof"]), (&json!("ann"), &json!("certificate")), "{who}");
    // What a page makes a browser with this certificate send.
    let page = [("content-type", JSON), ("origin", "https://evil.example")];
    assert_eq!(ann.send("POST", REGISTER, &page, "{}").await.status, 403);
    let form = [("content-type", "text/plain")];
    assert_eq!(ann.send("POST", REGISTER, &form, "{}").await.status, 415);
}

#[tokio::test]
async fn tokens_roles_and_scopes_are_those_of_every_call() {
    let lab = Lab::new("");
    let tokens = lab.at("tokens.toml");
    lab.put(
        "bmdemo.toml",
        &format!(
            "[auth]\ntokens_file = \"{tokens}\"\n[principals.ann]\nrole = \"admin\"\n\
             [principals.bob]\nrole = \"viewer\"\nscope = \"tenant=a\"\n"
        ),
    );
    let ann = format!("Bearer {}", new_token(&lab, &["ann"]).await);
    let bob = format!("Bearer {}", new_token(&lab, &["bob"]).await);
    let server = lab.server(&[]).await;
    let mut one = Http1::open(&server).await;
    for (authorization, name) in [(&ann, "ann"), (&bob, "bob")] {
        let headers = [("content-type", JSON), ("authorization", authorization.as_str())];
        let who = one.send("POST", WHO, &headers, "{}").await.json();
        assert_eq!((&who["name"], &who["proof"]), (&json!(name), &json!("token")), "{who}");
    }
    for wrong in [&[][..], &[("authorization", "Bearer x")], &[("authorization", "Basic eDp5")]] {
        // Before anything of the body is read: it is no JSON.
        let headers = [&[("content-type", JSON)], wrong].concat();
        let refused = one.send("POST", LIST, &headers, "no JSON").await;
        assert_eq!((refused.status, refused.reason().as_str()), (401, "UNAUTHENTICATED"));
        assert_eq!(refused.text("www-authenticate"), "Bearer");
    }
    assert_eq!(one.send("GET", LIST, &[], "").await.status, 401);
    let machine = |id: &str, tenant: &str| {
        format!(
            r#"{{"machine":{{"machineId":"{id}","spec":{{"provider":"fake"}},"labels":{{"tenant":"{tenant}"}}}}}}"#
        )
    };
    let by_ann = [("content-type", JSON), ("authorization", ann.as_str())];
    let by_bob = [("content-type", JSON), ("authorization", bob.as_str())];
    for (id, tenant) in [("m-a", "a"), ("m-b", "b")] {
        assert_eq!(one.send("POST", REGISTER, &by_ann, machine(id, tenant)).await.status, 200);
    }
    let listed = one.send("POST", LIST, &by_bob, "{}").await.json();
    let ids: Vec<_> =
        listed["machines"].as_array().unwrap().iter().map(|one| &one["machineId"]).collect();
    assert_eq!(ids, [&json!("m-a")]);
    // What is outside is answered like what does not exist.
    let outside = one.send("POST", GET, &by_bob, r#"{"machineId":"m-b"}"#).await;
    let nowhere = one.send("POST", GET, &by_bob, r#"{"machineId":"m-x"}"#).await;
    assert_eq!((outside.status, nowhere.status), (404, 404));
    let alike = text(&outside.body).replace("m-b", "m-x");
    assert_eq!(alike.len(), text(&nowhere.body).len());
    let refused = one.send("POST", REGISTER, &by_bob, machine("m-c", "a")).await;
    assert_eq!((refused.status, refused.reason().as_str()), (403, "ROLE_MISSING"));
    // The audit says who asked, and who was denied.
    let audit = "/baremetal.v1.AuditService/ListAudit";
    let entries = one.send("POST", audit, &by_ann, "{}").await.json();
    let registered = entries["entries"].as_array().unwrap().iter().filter(|entry| {
        entry["rpc"] == "RegisterMachine"
            && entry["principal"] == "ann"
            && entry["verified"] == true
    });
    assert_eq!(registered.count(), 2, "{entries}");
}

/// Who watches much over connections of HTTP/1.1 gives way as over one of HTTP/2.
#[tokio::test]
async fn the_oldest_watch_of_who_has_most_ends_with_its_connection() {
    let lab = Lab::new("");
    let tokens = lab.at("tokens.toml");
    lab.put(
        "bmdemo.toml",
        &format!(
            "[server]\nwatches_max = 2\n[auth]\ntokens_file = \"{tokens}\"\n\
             [principals.ann]\nrole = \"viewer\"\n[principals.bob]\nrole = \"viewer\"\n"
        ),
    );
    let ann = format!("Bearer {}", new_token(&lab, &["ann"]).await);
    let bob = format!("Bearer {}", new_token(&lab, &["bob"]).await);
    let server = lab.server(&[]).await;
    let watch = async |token: &str| {
        let mut connection = Http1::open(&server).await;
        let headers = [("content-type", STREAM), ("authorization", token)];
        let path = "/baremetal.v1.RunService/WatchRuns";
        let mut events =
            Envelopes::of(connection.begin("POST", path, &headers, enveloped("{}")).await);
        let (flags, first) = events.next().await.unwrap().unwrap();
        assert_eq!((flags, &first["type"]), (0, &json!("RUN_EVENT_TYPE_SYNCED")), "{first}");
        (connection, events)
    };
    let (_first, mut oldest) = watch(&ann).await;
    let (_second, _newer) = watch(&ann).await;
    let (_third, _of_bob) = watch(&bob).await;
    // In the middle of the stream: it has no end.
    assert!(oldest.next().await.is_err());
}
