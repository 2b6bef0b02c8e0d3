//! `plan simulate`: no server, virtual time, the same result every time.

use super::client;

#[tokio::test]
async fn simulations_print_a_timeline() {
    let own = tempfile::tempdir().unwrap();
    let path = own.path().join("burn-in.toml");
    let plan = client("plan new burn-in").run().await.stdout;
    std::fs::write(&path, plan).unwrap();
    let path = path.to_str().unwrap();
    let mut transcript = String::new();
    for line in [
        "plan simulate repave-join",
        "plan simulate repave-join --fail repave,times=1 --fail join,do=hang,times=1",
        "plan simulate upgrade --after repave-join --fail repave,do=fail-permanent",
        "plan simulate repave-join --fail repave,do=fail-after --fail repave,do=unknowable",
        "plan simulate reboot --machines 3 --fail machine=machine-2,do=fail-human",
        "plan simulate rma --machines 12 --fail p=0.3 --seed 7 --quiet",
        "plan simulate reboot -o jsonl",
        "plan simulate FILE",
        "plan simulate repave-jion",
        "plan simulate repave-join --fail verfy",
        "plan simulate repave-join --fail verify,do=explode",
        "plan simulate repave-join --set imag=x",
        "plan simulate repave-join --after repave-join",
        "plan simulate reboot --timing fast",
        "plan simulate reboot --machines 0",
    ] {
        let output = client(&line.replace("FILE", path)).run().await;
        transcript.push_str(&format!("$ bmdemo-cli {line}\n{output}\n\n"));
    }
    crate::assert_golden!("cli_simulate", transcript);
}
