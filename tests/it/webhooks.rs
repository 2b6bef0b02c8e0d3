//! The driver `webhook`: actions of one's own by signed messages to a receiver, under the real server and command line.

use std::time::Duration;

use bmdemo::clock::{Clock as _, SystemClock};

use crate::receiver::{Message, Receiver, Reply, answer, credentials, json};
use crate::support::{Server, within};
use crate::terminal::piped;

/// A folder with an action of one's own, a plan with it, and a class that performs it by the receiver.
struct Site {
    dir: tempfile::TempDir,
    receiver: Receiver,
}

impl Site {
    async fn new(
        on_unknown: &str,
        observe: bool,
        judge: impl Fn(&Message, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let site = Self { dir: tempfile::tempdir().unwrap(), receiver: Receiver::new(judge).await };
        let at = |name: &str| site.dir.path().join(name).display().to_string();
        for dir in ["plans", "actions"] {
            std::fs::create_dir(at(dir)).unwrap();
        }
        let action = "name = \"order-disk\"\ndescription = \"Orders a disk.\"\nrisk = \"none\"\nidempotent = true\n\
                      timeout = \"1h\"\n[args.slot]\nkind = \"integer\"\n";
        std::fs::write(at("actions/order-disk.toml"), action).unwrap();
        let plan = format!(
            "id = \"plan/order\"\nallowed_phases = [\"FACTORY_READY\"]\n[[steps]]\nname = \"order\"\n\
             action = \"order-disk\"\nargs = {{ slot = 3 }}\non_unknown = \"{on_unknown}\"\n\
             retry = {{ max_attempts = 3, backoff = \"10ms\", backoff_max = \"20ms\" }}\n"
        );
        std::fs::write(at("plans/order.toml"), plan).unwrap();
        let config = format!(
            "[plans]\ndir = {:?}\n[actions]\ndir = {:?}\n[credentials]\ndir = {:?}\n\
             [networks]\nwebhook = [\"127.0.0.0/8\"]\n[machine_classes.rack]\ncustom = \"webhook\"\n\
             [machine_classes.rack.webhook]\nurl = {:?}\nsecret = \"hook\"\ntimeout = \"5s\"\nobserve = {observe}\n\
             actions = [\"order-disk\"]\n",
            at("plans"),
            at("actions"),
            credentials(site.dir.path()),
            site.receiver.url(),
        );
        std::fs::write(at("bmdemo.toml"), config).unwrap();
        site
    }

    async fn server(&self) -> Server {
        let at = |name: &str| self.dir.path().join(name).display().to_string();
        let (config, data) = (at("bmdemo.toml"), at("data"));
        Server::start(&["--port", "0", "--config", &config, "--data-dir", &data]).await
    }

    /// A server with a machine, on which the plan has been started.
    async fn started(&self) -> Server {
        let server = self.server().await;
        let address = server.address.to_string();
        piped(&address, "machine register node-1 --provider rack").await;
        let started = piped(&address, "run start order node-1 --yes --detach").await;
        assert!(started.contains("order"), "{started}");
        server
    }

    fn acts(&self) -> Vec<Message> {
        let messages = self.receiver.messages();
        messages.into_iter().filter(|message| message.body["call"] == "act").collect()
    }
}

/// Waits until the newest run of the machine is described with a text, and returns how it is described.
async fn until(server: &Server, wanted: &str) -> String {
    let address = server.address.to_string();
    let clock = SystemClock::new();
    within(wanted, async {
        loop {
            let shown = piped(&address, "run describe node-1").await;
            if shown.contains(wanted) {
                return shown;
            }
            clock.sleep(Duration::from_millis(20)).await;
        }
    })
    .await
}

#[tokio::test]
async fn an_action_of_ones_own_is_a_signed_message() {
    let site = Site::new("hold", false, |_, before| match before {
        0 => answer("503 Later", "retry-after: 0\r\n", ""),
        _ => json("200 OK", r#"{"evidence":"order 7","outputs":{"order":7}}"#),
    })
    .await;
    let server = site.started().await;
    until(&server, "SUCCEEDED").await;
    let acts = site.acts();
    let key = |at: usize| acts[at].header("idempotency-key").to_owned();
    assert_eq!(acts.len(), 2, "{acts:?}");
    assert_ne!(key(0), key(1), "another attempt is another operation");
    assert_eq!(acts[1].body["operation_id"].as_str().unwrap().to_lowercase(), key(1));
    assert_eq!(acts[1].body["args"]["slot"], 3);
    assert_eq!(acts[1].body["machine"]["id"], "node-1");
    let address = server.address.to_string();
    let history = piped(&address, "run history node-1").await;
    assert!(history.contains("order-disk was answered 503"), "{history}");
    let described = piped(&address, "machine describe node-1").await;
    assert!(described.contains("webhook"), "{described}");
    server.signal("TERM").await;
    let (_, _, log) = server.ended().await;
    assert!(!log.contains("canary") && !history.contains("canary"), "{log}");
}

/// The server is killed while the receiver has the message and has not answered; the rule of the step decides.
#[tokio::test]
async fn a_crash_in_the_middle_of_a_message_is_decided_by_the_rule_of_the_step() {
    for (rule, observe, wanted, acts) in [
        ("retry", false, "SUCCEEDED", 2),
        ("hold", false, "OUTCOME_UNKNOWN", 1),
        ("verify", false, "OUTCOME_UNKNOWN", 1),
        ("verify", true, "SUCCEEDED", 1),
    ] {
        let site = Site::new(rule, observe, move |message, before| {
            match (message.body["call"].as_str(), before) {
                (Some("observe"), 0) => json("200 OK", r#"{"state":"not-done"}"#),
                // It has been done, although no one got the answer.
                (Some("observe"), _) => json("200 OK", r#"{"state":"done","evidence":"order 7"}"#),
                (Some("act"), before) if before <= usize::from(observe) => Reply::Silence,
                _ => json("200 OK", "{}"),
            }
        })
        .await;
        let server = site.started().await;
        let is_act = |message: &Message| message.body["call"] == "act";
        site.receiver.until("the message", |messages| messages.iter().any(is_act)).await;
        server.signal("KILL").await;
        server.ended().await;
        let server = site.server().await;
        let shown = until(&server, wanted).await;
        let sent = site.acts();
        assert_eq!(sent.len(), acts, "{rule} {observe}: {shown}");
        let keys: std::collections::BTreeSet<&str> =
            sent.iter().map(|message| message.header("idempotency-key")).collect();
        assert_eq!(keys.len(), 1, "{rule} {observe}: {sent:?}");
        let epoch = |at: usize| sent[at].body["epoch"].as_u64().unwrap();
        assert!(epoch(0) < epoch(acts - 1) || acts == 1, "{sent:?}");
    }
}

/// What a receiver answers to each message.
type Answers = Box<dyn Fn() -> Reply + Send + Sync>;

/// Nothing that a receiver answers hurts the server, and no message is sent twice below the engine.
#[tokio::test]
async fn answers_that_say_nothing_leave_the_outcome_unknown() {
    let huge = format!("{{\"evidence\":\"{}\"}}", "x".repeat(1 << 20));
    let elsewhere = Receiver::new(|_, _| json("200 OK", "{}")).await;
    let away = format!("location: {}\r\n", elsewhere.url());
    let cases: [(&str, Answers); 4] = [
        ("OUTCOME_UNKNOWN", Box::new(move || json("200 OK", &huge))),
        (
            "OUTCOME_UNKNOWN",
            Box::new(|| Reply::Answer(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{".to_vec())),
        ),
        ("OUTCOME_UNKNOWN", Box::new(|| Reply::HangUp)),
        ("is not followed", Box::new(move || answer("308 There", &away, ""))),
    ];
    for (wanted, reply) in cases {
        let site = Site::new("hold", false, move |_, _| reply()).await;
        let server = site.started().await;
        until(&server, wanted).await;
        assert_eq!(site.acts().len(), 1);
        assert!(elsewhere.messages().is_empty());
    }
}
