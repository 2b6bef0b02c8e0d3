//! The real binaries against real machines: UEFI firmware behind a Redfish BMC that was written elsewhere. docs/hardware-lab.md
//! says how to start them; `BMDEMO_LAB` names their environment file.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests: whatever fails fails the test, and what they say is for people; real machines take real time"
)]

mod drills;
mod place;

use std::time::{Duration, Instant};

use place::{Lab, Server, fails, succeeds};

/// Longest time of a run: machines without KVM boot slowly, more so on a busy host.
const RUN: Duration = Duration::from_secs(420);

/// One after the other, on the same two machines: each part begins where the one before has left them.
#[test]
fn real_machines_are_installed_operated_and_erased() {
    let Some(lab) = Lab::find() else { return };
    lab.configure();
    let server = Server::start(&lab);

    lab.part("register");
    for (machine, class) in [(1, "lab-media"), (2, "lab-network")] {
        lab.register(machine, class);
    }
    let described = succeeds(lab.cli(&["machine", "describe", "node1"]), RUN);
    assert!(described.contains("imaging, ") && described.contains("by redfish"), "{described}");

    lab.part("repave both, one by virtual media, one over the network");
    let begun = Instant::now();
    let (writes, downloads) = ([lab.writes(1), lab.writes(2)], lab.downloads());
    let requests = lab.requests();
    let both = ["node1", "node2"].map(|node| lab.cli(&["repave", node, "--yes"]).spawn());
    for repaving in both {
        succeeds(repaving, RUN);
    }
    eprintln!("  both serve after {} s", begun.elapsed().as_secs());
    eprintln!("  by {} requests to their controllers", lab.requests() - requests);
    for node in ["node1", "node2"] {
        let described = succeeds(lab.cli(&["run", "describe", node]), RUN);
        for line in described.lines() {
            eprintln!("  | {line}");
        }
    }
    for node in ["node1", "node2"] {
        assert_eq!(lab.member(node), "alive");
        assert!(succeeds(lab.cli(&["list"]), RUN).contains("IN_SERVICE"));
    }
    assert_eq!([lab.writes(1), lab.writes(2)], writes.map(|writes| writes + 1), "the disks count");
    assert_eq!(lab.downloads(), downloads + 2, "the image server counts");
    let joined = succeeds(lab.cli(&["logs", "node2", "--step", "join"]), RUN);
    assert!(joined.contains("the machine has fetched the material"), "{joined}");
    assert_eq!(lab.leaks(), "", "the key of the cluster is nowhere in what the server keeps");

    lab.part("a machine in service is protected");
    let refused = fails(lab.cli(&["repave", "node1", "--yes"]), RUN);
    assert!(refused.contains("IN_SERVICE"), "{refused}");

    lab.part("reboot: another boot id, and the machine joins again");
    let boot_id = lab.boot_id(1);
    succeeds(lab.cli(&["reboot", "node1", "--yes"]), RUN);
    let now = lab.boot_id(1);
    assert_ne!(now, boot_id);
    let described = succeeds(lab.cli(&["run", "describe", "node1"]), RUN);
    assert!(described.contains(&format!("another boot id, {now}")), "{described}");
    lab.until("node1 is a member again", || lab.member("node1") == "alive");

    lab.part("net-reconfig over SSH");
    succeeds(lab.cli(&["net-reconfig", "node1", "--yes"]), RUN);
    assert_eq!(lab.on(1, "cat /sys/class/net/eth0/mtu").as_deref(), Some("1400"));

    lab.part(
        "a wrong checksum fails the run in the installer's words, and the disk keeps what it has",
    );
    succeeds(
        lab.cli(&["machine", "set-phase", "node1", "MAINTENANCE", "--yes", "--reason", "drills"]),
        RUN,
    );
    let failed = fails(lab.cli(&["repave", "node1", "--yes", "--set", "image=damaged"]), RUN);
    assert!(failed.contains("image checksum"), "{failed}");
    assert_eq!(lab.writes(1), writes[0] + 1);

    lab.part("wrong credentials are named by their reference");
    lab.password("wrong");
    let failed = fails(lab.cli(&["reboot", "node1", "--yes"]), RUN);
    assert!(failed.contains("lab") && !failed.contains("wrong"), "{failed}");
    lab.password(&lab.get("LAB_PASS"));

    lab.part("a certificate of another authority is named, and nothing is sent");
    let class = |name: &str| {
        let update = ["machine", "update", "node1", "--provider", name, "--reason", "drill"];
        succeeds(lab.cli(&update), RUN);
    };
    class("lab-elsewhere");
    let failed = fails(lab.cli(&["reboot", "node1", "--yes"]), RUN);
    assert!(failed.contains("certificate"), "{failed}");
    class("lab-media");

    let server = drills::kills(&lab, server);
    drills::run(&lab);

    lab.part("rma: erased by an eraser from virtual media, and no member any more");
    succeeds(lab.cli(&["rma", "node1", "--yes"]), RUN);
    assert_eq!(lab.member("node1"), "left");
    let logs = succeeds(lab.cli(&["logs", "node1", "--step", "wipe"]), RUN);
    assert!(logs.contains("LABDISK1") && logs.contains("read back as zeros"), "{logs}");
    assert!(lab.disk(1).iter().all(|byte| *byte == 0), "the disk says so itself");
    assert!(succeeds(lab.cli(&["list"]), RUN).contains("RMA"));
    server.stop();
}
