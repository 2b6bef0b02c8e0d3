//! Calls with one answer.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use bmdemo::api::methods::METHODS;
use bmdemo::pb;
use http_body_util::BodyExt as _;
use prost::Message as _;
use prost_reflect::{DescriptorPool, DynamicMessage};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::client::{Http1, JSON, STREAM, enveloped, opened, over_http2};
use crate::abuse::wire::{LIST, REGISTER, Wire, registration, whole};
use crate::support::{Server, within};

const GET: &str = "/baremetal.v1.MachineService/GetMachine";

#[tokio::test]
async fn machines_are_registered_and_listed_in_json() {
    let server = Server::ephemeral(&[]).await;
    let mut one = Http1::open(&server).await;
    let machine = r#"{"machine":{"machineId":"machine-1","spec":{"provider":"fake"},"labels":{"b":"2","a":"1"}}}"#;
    let registered = one.call(REGISTER, machine).await;
    assert_eq!((registered.status, registered.text("content-type")), (200, JSON));
    assert_eq!(registered.text("content-length"), registered.body.len().to_string());
    let machine = registered.json();
    assert_eq!(machine["status"]["phase"], "PHASE_FACTORY_READY");
    let created = machine["createdAt"].as_str().unwrap();
    assert!(created.ends_with('Z') && created.contains('T'), "{created}");
    // The same connection, and another one of HTTP/2.
    let mut two = Wire::open(&server, 65_535).await;
    let versioned = [("content-type", JSON), ("connect-protocol-version", "1")];
    for listed in [
        one.call(LIST, "{}").await,
        over_http2(&mut two, "POST", LIST, &versioned, "{}").await,
        one.send("GET", LIST, &[], "").await,
        over_http2(
            &mut two,
            "GET",
            &format!("{LIST}?encoding=json&message=%7B%7D&connect=v1"),
            &[],
            "",
        )
        .await,
    ] {
        assert_eq!((listed.status, listed.text("content-type")), (200, JSON));
        assert_eq!(listed.text("cache-control"), "no-store");
        let page = listed.json();
        assert_eq!(page["machines"][0]["machineId"], "machine-1");
        // 64-bit numbers are texts, and maps are sorted.
        assert!(
            page["revision"].as_str().is_some_and(|text| text.parse::<u64>().is_ok()),
            "{page}"
        );
        let text = String::from_utf8(listed.body.to_vec()).unwrap();
        assert!(text.contains(r#""labels":{"a":"1","b":"2"}"#), "{text}");
    }
    let filter = "?message=%7B%22machineId%22%3A%22machine-1%22%7D";
    let got = one.send("GET", &format!("{GET}{filter}"), &[], "").await;
    assert_eq!(got.json()["machineId"], "machine-1");
    let proto = pb::GetMachineRequest { machine_id: "machine-1".to_owned(), ..Default::default() };
    let headers = [("content-type", "application/proto")];
    let got = one.send("POST", GET, &headers, proto.encode_to_vec()).await;
    assert_eq!(pb::Machine::decode(got.body).unwrap().machine_id, "machine-1");
}

#[tokio::test]
async fn what_is_no_call_is_answered_in_words() {
    let server = Server::ephemeral(&[]).await;
    let mut one = Http1::open(&server).await;
    let mut two = Wire::open(&server, 65_535).await;
    for answer in [
        one.send("GET", "/", &[], "").await,
        over_http2(&mut two, "GET", "/index.html", &[], "").await,
    ] {
        assert_eq!(answer.status, 404);
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        assert!(text.contains("speaks gRPC, and JSON by POST"), "{text}");
    }
    let body = r#"{"machine":{"machineId":"machine-1","spec":{"provider":"fake"}}}"#;
    let json = ("content-type", JSON);
    for (method, path, headers, status) in [
        ("GET", REGISTER, &[][..], 405),
        ("GET", "/baremetal.v1.MachineService/RegisterMachine?message=%7B%7D&connect=v1", &[], 405),
        ("POST", REGISTER, &[("content-type", "text/plain")], 415),
        ("POST", REGISTER, &[("content-type", "application/x-www-form-urlencoded")], 415),
        ("POST", REGISTER, &[], 415),
        ("POST", REGISTER, &[json, ("origin", "http://evil.example")], 403),
        ("POST", REGISTER, &[json, ("origin", "null")], 403),
        ("POST", REGISTER, &[json, ("sec-fetch-site", "cross-site")], 403),
        ("GET", LIST, &[("sec-fetch-site", "cross-site"), ("sec-fetch-mode", "no-cors")], 403),
        ("GET", LIST, &[("origin", "http://evil.example")], 403),
        ("OPTIONS", REGISTER, &[("access-control-request-method", "POST")], 405),
        ("POST", REGISTER, &[("content-type", "application/grpc")], 505),
        ("POST", "/baremetal.v1.RunService/WatchRuns", &[json], 415),
        ("POST", REGISTER, &[("content-type", STREAM)], 415),
    ] {
        let answer = one.send(method, path, headers, body).await;
        assert_eq!(answer.status, status, "{method} {path} {headers:?}");
        assert!(answer.body.ends_with(b"\n"), "a sentence says why");
        assert!(!answer.headers.keys().any(|name| name.as_str().starts_with("access-control-")));
    }
    one.host = "evil.example".to_owned();
    assert_eq!(one.call(REGISTER, body).await.status, 421);
    for head in [
        "POST {} HTTP/1.1\r\n".to_owned(),
        format!("POST {{}} HTTP/1.1\r\nhost: {0}\r\nhost: {0}\r\n", server.address),
        "POST {} HTTP/1.0\r\n".to_owned(),
        format!("POST http://evil.example{{}} HTTP/1.1\r\nhost: {}\r\n", server.address),
    ] {
        let mut raw = server.raw().await;
        let head = head.replace("{}", REGISTER);
        let length = body.len();
        let rest = format!(
            "content-type: {JSON}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        raw.write_all(format!("{head}{rest}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        within("an answer", raw.read_to_string(&mut answer)).await.unwrap();
        let wanted = if head.contains("evil") { " 421 " } else { " 400 " };
        assert!(answer.lines().next().unwrap().contains(wanted), "{head}: {answer}");
    }
    one.host = server.address.to_string();
    assert!(one.call(LIST, "{}").await.json()["machines"].is_null(), "nothing was registered");
}

/// Every method answers an empty request in JSON, with the same error as over gRPC.
#[tokio::test]
async fn every_method_answers_in_json_what_it_answers_over_grpc() {
    let server = Server::ephemeral(&[]).await;
    let pool = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    let mut wire = Wire::open(&server, 1 << 20).await;
    for method in METHODS {
        // The first message, or the error, in JSON.
        let mut one = Http1::open(&server).await;
        let answer = if method.is_stream {
            let headers = [("content-type", STREAM)];
            let response = one.begin("POST", method.path, &headers, enveloped("{}")).await;
            assert_eq!(
                (response.status().as_u16(), &response.headers()["content-type"]),
                (200, &STREAM.parse().unwrap())
            );
            let (mut body, mut read) = (response.into_body(), Vec::new());
            loop {
                if let Some((flags, json)) = opened(&mut read) {
                    break if flags == 2 { Err(json["error"].clone()) } else { Ok(json) };
                }
                let frame = within("a message", body.frame()).await.unwrap().unwrap();
                read.extend_from_slice(&frame.into_data().unwrap());
            }
        } else {
            let answer = one.call(method.path, "{}").await;
            assert_eq!(answer.text("content-type"), JSON, "{method:?}");
            if answer.status == 200 { Ok(answer.json()) } else { Err(answer.json()) }
        };
        let head = wire.call(method.path);
        let (response, mut body) = wire.begin(head).await;
        body.send_data(vec![0; 5].into(), true).unwrap();
        let response = within("an answer", response).await.unwrap();
        match answer {
            Ok(json) => {
                assert!(response.headers().get("grpc-status").is_none(), "{method:?}: {json}");
                let service = pool.get_service_by_name(&format!("baremetal.v1.{}", method.service));
                let found = service.unwrap().methods().find(|found| found.name() == method.name);
                let text = json.to_string();
                let mut reader = serde_json::Deserializer::from_str(&text);
                DynamicMessage::deserialize(found.unwrap().output(), &mut reader).unwrap();
            }
            Err(error) => {
                let details = response.headers()["grpc-status-details-bin"].to_str().unwrap();
                let details = STANDARD_NO_PAD.decode(details).or_else(|_| STANDARD.decode(details));
                let status = tonic_types::pb::Status::decode(&*details.unwrap()).unwrap();
                let codes = tonic::Code::from(status.code);
                let name = format!("{codes:?}").to_lowercase();
                assert_eq!(error["code"].as_str().unwrap().replace('_', ""), name, "{method:?}");
                assert_eq!(error["message"], status.message, "{method:?}");
                let wanted = status.details.iter().map(|any| {
                    let kind = any.type_url.rsplit('/').next().unwrap();
                    json!([kind, STANDARD_NO_PAD.encode(&any.value)])
                });
                let found = error["details"].as_array().unwrap();
                let found = found.iter().map(|one| json!([one["type"], one["value"]]));
                assert_eq!(found.collect::<Vec<Value>>(), wanted.collect::<Vec<_>>(), "{method:?}");
                assert!(
                    error["details"].as_array().unwrap().iter().all(|one| one["debug"].is_object())
                );
            }
        }
    }
}

#[tokio::test]
async fn hostile_texts_are_refused_and_name_the_field() {
    let server = Server::ephemeral(&[]).await;
    let mut one = Http1::open(&server).await;
    let deep = format!("{}{}", "[".repeat(300_000), "]".repeat(300_000));
    let nested = format!(r#"{{"machine":{}"#, r#"{"spec":{"boot":"#.repeat(1000));
    for (body, field) in [
        (deep.clone().into_bytes(), ""),
        (nested.into_bytes(), "machine.spec.boot"),
        (format!(r#"{{"machine":{{"labels":{deep}}}}}"#).into_bytes(), "machine.labels"),
        (br#"{"machine":{"machineId":"a"},"machine":{"machineId":"b"}}"#.to_vec(), "machine"),
        (br#"{"machine":{"machineId":"a","machine_id":"b"}}"#.to_vec(), "machine.machine_id"),
        (br#"{"machine":{"machineId":NaN}}"#.to_vec(), "machine.machineId"),
        (b"{\"machine\":{\"machineId\":\"\xff\xfe\"}}".to_vec(), "machine.machineId"),
        (br#"{"machine":{"machineId":"\ud800"}}"#.to_vec(), "machine.machineId"),
        (br#"{"__proto__":{}}"#.to_vec(), "__proto__"),
        (b"\xef\xbb\xbf{}".to_vec(), ""),
        (b"{}{}".to_vec(), ""),
        (b"machine=machine-1".to_vec(), ""),
    ] {
        let shown = String::from_utf8_lossy(&body).chars().take(60).collect::<String>();
        let answer = one.call(REGISTER, body).await;
        assert_eq!(answer.status, 400, "{shown}");
        let error = answer.json();
        assert_eq!(error["code"], "invalid_argument", "{shown}");
        assert!(answer.body.len() < 8_000, "{shown}");
        let details = error["details"].as_array().unwrap();
        let bad = details.iter().find(|one| one["type"] == "google.rpc.BadRequest");
        let named = bad.map(|bad| bad["debug"]["fieldViolations"][0]["field"].as_str().unwrap());
        assert!(named.unwrap_or_default().starts_with(field), "{shown}: {error}");
        assert_eq!(named.is_none(), field.is_empty(), "{shown}: {error}");
    }
    // Larger than may be: by what is announced, and by what comes.
    let huge = vec![b' '; 3 * 1024 * 1024];
    // Nothing is sent after the head: the server answers and closes, and what arrives after that would lose the answer.
    let mut raw = server.raw().await;
    let head = format!(
        "POST {REGISTER} HTTP/1.1\r\nhost: {}\r\ncontent-type: {JSON}\r\ncontent-length: {}\r\n\r\n",
        server.address,
        huge.len()
    );
    raw.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    within("an answer", raw.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 429 "), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(super::client::reason(&serde_json::from_str(body).unwrap()), "MESSAGE_TOO_LARGE");
    let mut wire = Wire::open(&server, 65_535).await;
    let large = over_http2(&mut wire, "POST", REGISTER, &[("content-type", JSON)], huge).await;
    assert_eq!((large.status, large.reason().as_str()), (429, "MESSAGE_TOO_LARGE"));
    // The same request over gRPC is taken, and no text was.
    let head = wire.call(REGISTER);
    let (_, status) = whole(wire.answer(head, &registration("machine-1")).await).await;
    assert_eq!(status, "0");
    let mut one = Http1::open(&server).await;
    assert_eq!(one.call(LIST, "{}").await.json()["machines"].as_array().unwrap().len(), 1);
}

#[tokio::test]
async fn curl_is_answered() {
    let Ok(version) = tokio::process::Command::new("curl").arg("--version").output().await else {
        assert!(std::env::var_os("BMDEMO_CURL_REQUIRED").is_none(), "curl is not installed");
        crate::support::announce("SKIPPED curl_is_answered: curl is not installed");
        return;
    };
    assert!(version.status.success());
    let server = Server::ephemeral(&[]).await;
    let url = |path: &str| format!("http://{}{path}", server.address);
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::new("curl");
        command.args(["-sS", "-g", "-w", "\n%{http_code} %{http_version} %{content_type}"]);
        let output = within("curl ends", command.args(args).output()).await.unwrap();
        assert!(output.status.success(), "{}", crate::support::text(&output.stderr));
        crate::support::text(&output.stdout)
    };
    let json = ["-H", "content-type: application/json", "-d", "{}"];
    for (version, shown) in [
        ("--http1.1", "1.1"),
        ("--http2-prior-knowledge", "2"),
        ("--http2", "1.1"),
        ("--http1.0", "1.1"),
    ] {
        let answer = run(&[&[version], &json[..], &[&url(LIST)]].concat()).await;
        let last = answer.lines().last().unwrap();
        let shown = if version == "--http1.0" { last.split(' ').nth(1).unwrap() } else { shown };
        assert_eq!(last, format!("200 {shown} application/json"), "{version}: {answer}");
    }
    let page = run(&[&url("/")]).await;
    assert!(page.ends_with("404 1.1 text/plain; charset=utf-8"), "{page}");
    let got = run(&[&url(&format!("{LIST}?encoding=json&message={{}}"))]).await;
    assert!(got.ends_with("200 1.1 application/json"), "{got}");
}

#[tokio::test]
async fn the_api_is_described_where_it_is_served() {
    let server = Server::ephemeral(&[]).await;
    let mut one = Http1::open(&server).await;
    let served = one.send("GET", "/openapi.json", &[], "").await;
    assert_eq!((served.status, served.text("content-type")), (200, JSON));
    let described = served.json();
    assert_eq!(described["openapi"], "3.1.0");
    assert_eq!(described["paths"].as_object().unwrap().len(), METHODS.len());
    let page = [("sec-fetch-site", "cross-site")];
    assert_eq!(one.send("GET", "/openapi.json", &page, "").await.status, 403);
    let printed = crate::support::run_to_end(&["openapi"]).await;
    assert!(printed.status.success());
    assert_eq!(printed.stdout, served.body);
}
