//! The audit of real servers: what is in it, who may look, and whether it was altered.

use std::path::{Path, PathBuf};

use bmdemo::pb;
use bmdemo::pb::audit_service_client::AuditServiceClient;
use bmdemo::store::sqlite::DATABASE_FILE;
use rusqlite::Connection;
use tonic::transport::Channel;

use crate::runs::{register, repave, watched};
use crate::support::{Server, run_to_end, text};
use crate::tls::lab::Lab;
use crate::tls::tokens::new_token;

async fn entries(channel: &Channel) -> Vec<pb::AuditEntry> {
    let mut client = AuditServiceClient::new(channel.clone());
    let mut entries = Vec::new();
    let mut page_token = String::new();
    loop {
        // Small pages, so that there are several.
        let request = pb::ListAuditRequest { page_size: 3, page_token, after: 0 };
        let page = client.list_audit(request).await.unwrap().into_inner();
        entries.extend(page.entries);
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return entries;
        }
    }
}

async fn head(channel: &Channel) -> pb::AuditHead {
    let mut client = AuditServiceClient::new(channel.clone());
    client.get_audit_head(pb::GetAuditHeadRequest {}).await.unwrap().into_inner()
}

async fn verify(channel: &Channel, head: &str) -> Result<pb::VerifyAuditResponse, tonic::Status> {
    let request = pb::VerifyAuditRequest { head: head.to_owned(), ..Default::default() };
    let mut client = AuditServiceClient::new(channel.clone());
    Ok(client.verify_audit(request).await?.into_inner())
}

/// Exit code, stdout and stderr of `audit …` on a data directory.
async fn command(dir: &Path, args: &[&str]) -> (Option<i32>, String, String) {
    let all = [&["audit"], args, &["--data-dir", dir.to_str().unwrap()]].concat();
    let output = run_to_end(&all).await;
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

async fn serve(dir: &Path) -> Server {
    let dir = dir.to_str().unwrap();
    Server::start(&["--port", "0", "--data-dir", dir, "--fake-timing", "zero"]).await
}

async fn stop(server: Server) {
    server.signal("TERM").await;
    assert!(server.ended().await.0.success());
}

#[tokio::test]
async fn each_change_has_its_entry_and_the_engine_has_none() {
    let dir = tempfile::tempdir().unwrap();
    let server = serve(dir.path()).await;
    let channel = server.channel().await;
    register(&channel, 2).await;
    let run = repave(&channel, 1).await.unwrap();
    watched(channel.clone(), &run.run_id).await.unwrap();
    repave(&channel, 1).await.unwrap();
    let entries = entries(&channel).await;
    let said: Vec<_> = entries
        .iter()
        .map(|entry| {
            (entry.seq, entry.decision.as_str(), entry.rpc.as_str(), entry.objects.join(" "))
        })
        .collect();
    let started = format!("machines/machine-1 runs/{}", run.run_id);
    assert_eq!(
        said,
        [
            (1, "done", "RegisterMachine", "machines/machine-1".to_owned()),
            (2, "done", "RegisterMachine", "machines/machine-2".to_owned()),
            (3, "done", "StartRun", started),
        ],
        "a run of many commits has one entry, and the repetition of a request none"
    );
    let start = &entries[2];
    assert_eq!(
        (start.principal.as_str(), start.verified, start.proof.as_str()),
        ("anonymous", false, "")
    );
    assert_eq!((start.request_id.as_str(), start.calls), ("repave-1", 1));
    assert_eq!(start.plan_digest, run.plan_digest);
    assert!(start.peer.starts_with("127.0.0.1:") && start.body_digest.len() == 64, "{start:?}");
    assert!(start.revision > entries[1].revision);
    assert!(entries.iter().all(|entry| entry.hash.len() == 64));

    let kept = head(&channel).await;
    assert_eq!((kept.seq, &kept.hash), (3, &start.hash));
    assert!(verify(&channel, &kept.line).await.unwrap().holds);
    let altered = kept.line.replace(":3:", ":2:");
    let refused = verify(&channel, &altered).await.unwrap_err();
    assert!(refused.message().contains("was altered"), "{refused:?}");
    stop(server).await;

    // The chain continues over a restart, and the key stays.
    let server = serve(dir.path()).await;
    let channel = server.channel().await;
    register(&channel, 3).await;
    let answer = verify(&channel, &kept.line).await.unwrap();
    let newest = answer.head.unwrap();
    assert!(answer.holds && answer.entries == 4 && newest.public_key == kept.public_key);
    let log = server.logged("the head of the audit").await;
    assert!(log.contains("bmdemo-audit-head-1:"), "{log}");
    let file = std::fs::read_to_string(dir.path().join("audit-head")).unwrap();
    assert!(verify(&channel, file.trim()).await.unwrap().holds);
    stop(server).await;
    let (code, said, _) = command(dir.path(), &["list", "--after", "3"]).await;
    assert!(code == Some(0) && said.lines().count() == 1, "{said}");
    assert!(said.contains("\"verified\":false") && said.contains("machines/machine-3"), "{said}");
}

/// A data directory with an audit of ten entries, the head of the seventh and of the last, and a backup of the seventh.
async fn audited(dir: &Path) -> (PathBuf, [String; 2]) {
    let data = dir.join("data");
    let server = serve(&data).await;
    let channel = server.channel().await;
    register(&channel, 7).await;
    let seventh = head(&channel).await.line;
    let copy = dir.join("copy.db");
    let backup = ["backup", copy.to_str().unwrap(), "--data-dir", data.to_str().unwrap()];
    assert!(run_to_end(&backup).await.status.success());
    register(&channel, 10).await;
    let last = head(&channel).await.line;
    stop(server).await;
    (data, [seventh, last])
}

#[tokio::test]
async fn whatever_is_done_to_the_file_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (data, [seventh, last]) = audited(dir.path()).await;
    let database = data.join(DATABASE_FILE);
    let pristine = std::fs::read(&database).unwrap();
    let [seventh, last] = [("seventh", seventh), ("last", last)].map(|(name, line)| {
        let path = dir.path().join(name);
        std::fs::write(&path, line + "\n").unwrap();
        path.to_str().unwrap().to_owned()
    });
    let with = |head: &'static str| match head {
        "last" => vec!["verify", "--head", last.as_str()],
        "seventh" => vec!["verify", "--head", seventh.as_str()],
        _ => vec!["verify"],
    };
    for head in ["", "seventh", "last"] {
        let (code, said, error) = command(&data, &with(head)).await;
        assert!(
            code == Some(0) && said.contains("ok (10 entries, the newest is 10"),
            "{said}{error}"
        );
    }
    // The hashes after a change made again, as someone with the program could.
    let renew = "CREATE TEMP TABLE unused (x)";
    for (what, sql, head, finding) in [
        ("a byte", "UPDATE audit SET body = replace(body, 'machine-4', 'machine-5') WHERE seq = 4", "", "entry 4"),
        ("a time", "UPDATE audit SET at = at + 1 WHERE seq = 6", "", "entry 6"),
        ("a revision", "UPDATE audit SET revision = revision + 1 WHERE seq = 2", "", "entry 2"),
        ("a hash", "UPDATE audit SET hash = randomblob(32) WHERE seq = 9", "", "entry 9"),
        ("a hash of another length", "UPDATE audit SET hash = x'00' WHERE seq = 9", "", "entry 9"),
        ("a body of another type", "UPDATE audit SET body = x'00' WHERE seq = 9", "", "does not hold"),
        ("the first entry", "DELETE FROM audit WHERE seq = 1", "", "entry 2"),
        ("an entry", "DELETE FROM audit WHERE seq = 5", "", "missing"),
        (
            "an entry, and the numbers closed up",
            "DELETE FROM audit WHERE seq = 5; UPDATE audit SET seq = seq - 1 WHERE seq > 5",
            "",
            "entry 5",
        ),
        (
            "two entries",
            "CREATE TEMP TABLE t AS SELECT * FROM audit WHERE seq IN (3, 4);
             UPDATE audit SET body = (SELECT body FROM t WHERE t.seq = 7 - audit.seq) WHERE seq IN (3, 4)",
            "",
            "entry 3",
        ),
        (
            "one more in between",
            "UPDATE audit SET seq = -seq - 1 WHERE seq > 4; UPDATE audit SET seq = -seq WHERE seq < 0;
             INSERT INTO audit SELECT 5, revision, at, body, hash FROM audit WHERE seq = 4",
            "",
            "entry 5",
        ),
        (
            "one more at the end",
            "INSERT INTO audit SELECT 11, revision, at, body, randomblob(32) FROM audit WHERE seq = 4",
            "",
            "entry 11",
        ),
        ("the tail", "DELETE FROM audit WHERE seq > 8", "last", "ends with entry 8"),
        ("everything", "DELETE FROM audit", "seventh", "ends with entry 0"),
        (
            "the beginning, as the retention does",
            "INSERT INTO audit_anchor SELECT 1, seq, hash FROM audit WHERE seq = 8; DELETE FROM audit WHERE seq <= 8",
            "seventh",
            "deleted by the retention",
        ),
        (
            "the beginning, as the retention does, with another hash",
            "INSERT INTO audit_anchor SELECT 1, seq, hash FROM audit WHERE seq = 7; DELETE FROM audit WHERE seq <= 8",
            "",
            "missing",
        ),
    ] {
        for beside in ["-wal", "-shm"] {
            let _ = std::fs::remove_file(data.join(format!("{DATABASE_FILE}{beside}")));
        }
        std::fs::write(&database, &pristine).unwrap();
        let conn = Connection::open(&database).unwrap();
        conn.execute_batch(&format!("{renew}; {sql}")).unwrap();
        drop(conn);
        let (code, said, error) = command(&data, &with(head)).await;
        assert_eq!(code, Some(74), "{what}: {said}{error}");
        assert!(error.contains("does not hold") && error.contains(finding), "{what}: {error}");
        if head.is_empty() {
            // The check of the whole store finds it too.
            let check = run_to_end(&["check", "--data-dir", data.to_str().unwrap()]).await;
            assert_eq!(check.status.code(), Some(74), "{what}");
        } else {
            assert_eq!(command(&data, &["verify"]).await.0, Some(0), "{what}: whole in itself");
        }
    }
    std::fs::write(&database, &pristine).unwrap();
    assert_eq!(command(&data, &with("last")).await.0, Some(0));
    let refused = command(&data, &["verify", "--head", database.to_str().unwrap()]).await;
    assert_eq!(refused.0, Some(78), "{refused:?}");
}

#[tokio::test]
async fn an_older_copy_that_was_put_back_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let (data, [seventh, last]) = audited(dir.path()).await;
    let second = dir.path().join("second");
    let copy = dir.path().join("copy.db");
    let restore = ["restore", copy.to_str().unwrap(), "--data-dir", second.to_str().unwrap()];
    assert!(run_to_end(&restore).await.status.success());
    std::fs::copy(data.join("audit-key.pem"), second.join("audit-key.pem")).unwrap();
    let server = serve(&second).await;
    let channel = server.channel().await;
    let answer = verify(&channel, &seventh).await.unwrap();
    assert!(answer.holds && answer.entries == 7, "{answer:?}");
    let answer = verify(&channel, &last).await.unwrap();
    assert!(!answer.holds && answer.problem.contains("older copy"), "{answer:?}");
    // Even when as many entries have come since.
    register(&channel, 12).await;
    let answer = verify(&channel, &last).await.unwrap();
    assert!(!answer.holds && answer.problem.contains("written again"), "{answer:?}");
}

#[tokio::test]
async fn who_was_denied_is_in_the_audit_and_a_flood_of_them_is_counted() {
    let lab = Lab::new("");
    let tokens = lab.at("tokens.toml");
    lab.put(
        "bmdemo.toml",
        &format!(
            "[auth]\ntokens_file = \"{tokens}\"\n[principals.ann]\nrole = \"admin\"\n[principals.bob]\nrole = \"viewer\"\n"
        ),
    );
    for name in ["ann", "bob"] {
        let token = new_token(&lab, &[name]).await;
        lab.put(&format!("{name}.token"), &token);
    }
    lab.put("eve.token", &format!("bmd_{}", "A".repeat(49)));
    let server = lab.server(&[]).await;
    let address = server.address.to_string();
    let ask = async |name: &str, args: &[&str]| {
        let file = lab.at(&format!("{name}.token"));
        let with = ["--server", &address, "--token-file", &file];
        let output = lab.run(&[args, &with].concat(), &[]).await;
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    assert_eq!(ask("ann", &["import", "1"]).await.0, Some(0));
    assert_eq!(ask("bob", &["machine", "delete", "machine-1"]).await.0, Some(71));
    assert_eq!(ask("bob", &["audit", "list"]).await.0, Some(71));
    assert_eq!(ask("bob", &["audit", "head"]).await.0, Some(71));
    assert_eq!(ask("eve", &["list"]).await.0, Some(80));
    let denied = async || {
        let (code, said) = ask("ann", &["audit", "list", "--denied", "-o", "jsonl"]).await;
        assert_eq!(code, Some(0), "{said}");
        said
    };
    let all = crate::support::within("the denials are written", async {
        loop {
            let said = denied().await;
            if said.contains("credentials_token_unknown") || said.contains("token_damaged") {
                return said;
            }
        }
    })
    .await;
    for line in [
        "\"principal\":\"bob\",\"verified\":true,\"proof\":\"token\"",
        "\"rpc\":\"DeleteMachine\",\"objects\":[\"machines/machine-1\"]",
        "\"rpc\":\"ListAudit\"",
        "DeleteMachine needs the role admin",
    ] {
        assert!(all.contains(line), "{line} is not in:\n{all}");
    }
    assert!(!all.contains(&"A".repeat(20)), "a token is in the audit: {all}");

    // A flood: counted, and in few entries.
    let token = std::fs::read_to_string(lab.at("bob.token")).unwrap();
    let before = denied().await.lines().count();
    let channel = server.channel().await;
    for _ in 0..2_000 {
        let mut request = tonic::Request::new(pb::GetAuditHeadRequest {});
        let value = format!("Bearer {}", token.trim()).parse().unwrap();
        request.metadata_mut().insert("authorization", value);
        AuditServiceClient::new(channel.clone()).get_audit_head(request).await.unwrap_err();
    }
    let counted = |said: &str| -> u64 {
        let each = said.lines().skip(before).map(|line| {
            let calls = line.split("\"calls\":\"").nth(1).unwrap().split('"').next().unwrap();
            calls.parse::<u64>().unwrap()
        });
        each.sum()
    };
    let said = crate::support::within("all are counted", async {
        loop {
            let said = denied().await;
            // A denial of before may be written only now.
            if (2_000..2_010).contains(&counted(&said)) {
                return said;
            }
        }
    })
    .await;
    let more = said.lines().count() - before;
    assert!(more <= 400, "{more} entries");
    assert!(said.contains("more calls were denied"), "{said}");
    let (code, said) = ask("ann", &["audit", "verify"]).await;
    assert!(code == Some(0) && said.starts_with("ok: "), "{said}");
    let (_, said) = ask("ann", &["audit", "list", "--last", "1"]).await;
    assert!(
        said.contains("denied bob by token from 127.0.0.1") || said.contains("more calls"),
        "{said}"
    );
}
