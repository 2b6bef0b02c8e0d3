//! The real server on a private PostgreSQL: it is killed, its database is stopped, another one competes.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use bmdemo::pb;
use bmdemo::pb::machine_service_client::MachineServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Status};
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::pb::{HealthCheckRequest, HealthCheckResponse};

use crate::cluster::{Cluster, PASSWORD, USER};
use crate::runs::{register, repave, watched};
use crate::support::{Server, run_to_end, text, within};
use crate::tls::lab::Authority;

/// A server's settings for a database of a cluster.
struct Place {
    dir: tempfile::TempDir,
    url: String,
}

impl Place {
    fn new(cluster: &Cluster, database: &str, mode: &str) -> Self {
        let url = format!("postgres://{USER}@localhost:{}/{database}?{mode}", cluster.port());
        let place = Self { dir: tempfile::tempdir().unwrap(), url };
        secret(&place.password_file(), PASSWORD);
        place
    }

    fn password_file(&self) -> PathBuf {
        self.dir.path().join("password")
    }

    /// The arguments of a server with its own data directory.
    fn args(&self, data: &str) -> Vec<String> {
        let data = self.dir.path().join(data).display().to_string();
        let password = self.password_file().display().to_string();
        let args = ["--port", "0", "--fake-timing", "0.2", "--store", &self.url]
            .into_iter()
            .chain(["--store-password-file", &password, "--data-dir", &data]);
        args.map(str::to_owned).collect()
    }

    async fn start(&self, data: &str) -> Server {
        let args = self.args(data);
        Server::start(&args.iter().map(String::as_str).collect::<Vec<_>>()).await
    }

    /// What a server says that does not start, and its exit code.
    async fn refused(&self, data: &str) -> (String, Option<i32>) {
        let args = self.args(data);
        let output = run_to_end(&args.iter().map(String::as_str).collect::<Vec<_>>()).await;
        (text(&output.stderr), output.status.code())
    }
}

fn secret(path: &Path, content: &str) {
    std::fs::write(path, content).unwrap();
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).unwrap();
}

async fn machines(channel: &Channel) -> Result<usize, Status> {
    let request = pb::ListMachinesRequest { page_size: 100, ..Default::default() };
    let listed = MachineServiceClient::new(channel.clone()).list_machines(request).await?;
    Ok(listed.into_inner().machines.len())
}

/// Follows the readiness until it is this one.
async fn until_ready(channel: &Channel, wanted: ServingStatus) {
    let request = HealthCheckRequest { service: "readiness".to_owned() };
    let watch = HealthClient::new(channel.clone()).watch(request).await;
    let mut statuses = watch.unwrap().into_inner();
    let found = async {
        while let Some(HealthCheckResponse { status }) = statuses.message().await.unwrap() {
            if status == i32::from(wanted) {
                return;
            }
        }
        panic!("the watch of the health has ended");
    };
    within("the readiness", found).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_killed_continues_from_its_database() {
    let authority = Authority::new("databases");
    let pair = authority.server(|_| {});
    let settings =
        ["ssl = on", "ssl_cert_file = 'DIR/server.crt'", "ssl_key_file = 'DIR/server.key'"];
    let files = [("server.crt", pair.cert.as_str()), ("server.key", pair.key.as_str())];
    let Some(cluster) = Cluster::with_files(&settings, &files) else { return };
    cluster.create("fleet");
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path().join("root.pem");
    std::fs::write(&root, &authority.pem).unwrap();
    let mode = format!("sslmode=verify-full&sslrootcert={}", root.display());
    let place = Place::new(&cluster, "fleet", &mode);

    let server = place.start("data").await;
    let channel = server.channel().await;
    register(&channel, 3).await;
    let mut runs = Vec::new();
    for machine in 1..=3 {
        runs.push(repave(&channel, machine).await.unwrap().run_id);
    }
    // Everything on the wire is encrypted.
    let plain = "SELECT count(*) FROM pg_stat_ssl s JOIN pg_stat_activity a USING (pid)
        WHERE a.application_name LIKE 'bmdemo-server%' AND NOT s.ssl";
    assert_eq!(cluster.sql("fleet", plain), "0");
    server.signal("KILL").await;
    server.ended().await;

    let server = place.start("data").await;
    let channel = server.channel().await;
    for run in &runs {
        let run = within("the run ends", watched(channel.clone(), run)).await.unwrap();
        assert_eq!(run.phase(), pb::RunPhase::Succeeded);
    }
    // A repeated request is answered from history.
    assert_eq!(repave(&channel, 1).await.unwrap().run_id, runs[0]);
    assert_eq!(cluster.sql("fleet", "SELECT count(*) FROM bmdemo.runs"), "3");
    server.signal("TERM").await;
    let (status, _, log) = server.ended().await;
    assert!(status.success(), "{log}");

    // An authority that did not sign the certificate is not believed.
    std::fs::write(&root, Authority::new("others").pem).unwrap();
    let (refused, code) = place.refused("data").await;
    assert!(refused.contains("certificate") && code == Some(75), "{code:?}: {refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_stopped_is_waited_for() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    cluster.create("fleet");
    let place = Place::new(&cluster, "fleet", "sslmode=disable");
    let server = place.start("data").await;
    let channel = server.channel().await;
    register(&channel, 2).await;
    let runs = [repave(&channel, 1).await.unwrap(), repave(&channel, 2).await.unwrap()];
    until_ready(&channel, ServingStatus::Serving).await;

    tokio::task::block_in_place(|| cluster.stop("immediate"));
    until_ready(&channel, ServingStatus::NotServing).await;
    server.logged("the database is away").await;
    assert_eq!(machines(&channel).await.unwrap_err().code(), Code::Unavailable);
    tokio::task::block_in_place(|| cluster.go());
    until_ready(&channel, ServingStatus::Serving).await;
    server.logged("the database is back").await;

    assert_eq!(machines(&channel).await.unwrap(), 2);
    for run in &runs {
        let run = within("the run ends", watched(channel.clone(), &run.run_id)).await.unwrap();
        assert_eq!(run.phase(), pb::RunPhase::Succeeded);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_server_has_the_database_and_ends_when_it_has_lost_it() {
    let Some(cluster) = Cluster::start(&[]) else { return };
    cluster.create("fleet");
    let place = Place::new(&cluster, "fleet", "sslmode=disable");
    let server = place.start("first").await;
    let (refused, code) = place.refused("second").await;
    assert!(refused.contains("another server uses this database"), "{refused}");
    assert_eq!(code, Some(75), "{refused}");
    // The data directory has one server, too.
    let (refused, code) = place.refused("first").await;
    assert!(refused.contains("another live server") && code == Some(75), "{code:?}: {refused}");

    // What another server does that takes the place of one whose connection is cut.
    cluster.sql("fleet", "UPDATE bmdemo.meta SET holder = 7");
    cluster.sql(
        "fleet",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'bmdemo-server: writer'",
    );
    let (status, _, log) = server.ended().await;
    assert_eq!(status.code(), Some(75), "{log}");
    assert!(log.contains("another server has taken its place"), "{log}");

    secret(&place.password_file(), "wrong");
    let (refused, code) = place.refused("first").await;
    assert!(refused.contains("password authentication failed"), "{refused}");
    assert_eq!(code, Some(75), "{refused}");
    secret(&place.password_file(), PASSWORD);
    let server = place.start("first").await;
    server.signal("TERM").await;
    assert!(server.ended().await.0.success());
}

#[tokio::test]
async fn what_makes_no_sense_with_postgresql_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).display().to_string();
    let refused = async |args: &[&str]| {
        let output = run_to_end(args).await;
        assert_eq!(output.status.code(), Some(78), "{args:?}: {}", text(&output.stderr));
        text(&output.stderr)
    };
    let url = "postgres://me@127.0.0.1:1/fleet?sslmode=disable";
    let data = path("data");
    let leaked = refused(&["--store", "postgres://me:hunter2@h/fleet", "--data-dir", &data]).await;
    assert!(leaked.contains("--store-password-file") && !leaked.contains("hunter2"), "{leaked}");
    for command in [&["check"][..], &["repair"], &["backup", "copy.db"], &["restore", "copy.db"]] {
        let args: Vec<&str> =
            command.iter().copied().chain(["--store", url, "--data-dir", &data]).collect();
        let said = refused(&args).await;
        assert!(said.contains("PostgreSQL's own tools"), "{said}");
    }
    let open = path("open");
    std::fs::write(&open, "x").unwrap();
    std::fs::set_permissions(&open, std::fs::Permissions::from_mode(0o644)).unwrap();
    let args = ["--port", "0", "--store", url, "--store-password-file", &open];
    let said = refused(&[&args[..], &["--data-dir", &data]].concat()).await;
    assert!(said.contains(&open), "{said}");
    // A directory with a database of its own is not taken for what it is not.
    let own = path("own");
    let server = Server::start(&["--port", "0", "--data-dir", &own]).await;
    server.signal("TERM").await;
    server.ended().await;
    let said = refused(&["--port", "0", "--store", url, "--data-dir", &own]).await;
    assert!(said.contains("would not be used"), "{said}");
}
