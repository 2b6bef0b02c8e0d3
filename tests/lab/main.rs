//! The real binaries against real machines: UEFI firmware behind a Redfish BMC that was written elsewhere. docs/hardware-lab.md
//! says how to start them; `BMDEMO_LAB` names their environment file.

#![allow(
    clippy::unwrap_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests: whatever fails fails the test, and what they say is for people; real machines take real time"
)]

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
    let both = ["node1", "node2"].map(|node| lab.cli(&["repave", node, "--yes"]).spawn());
    for repaving in both {
        succeeds(repaving, RUN);
    }
    eprintln!("  both serve after {} s", begun.elapsed().as_secs());
    for node in ["node1", "node2"] {
        assert_eq!(lab.member(node), "alive");
        assert!(succeeds(lab.cli(&["list"]), RUN).contains("IN_SERVICE"));
    }
    assert_eq!((lab.writes(1), lab.writes(2)), (1, 1), "the disks count");
    assert_eq!(lab.downloads(), 2, "the image server counts");

    lab.part("a machine in service is protected");
    let refused = fails(lab.cli(&["repave", "node1", "--yes"]), RUN);
    assert!(refused.contains("IN_SERVICE"), "{refused}");

    lab.part("reboot: another boot id, and the machine joins again");
    let boot_id = lab.boot_id(1);
    succeeds(lab.cli(&["reboot", "node1", "--yes"]), RUN);
    lab.until("node1 answers under another boot id", || {
        lab.on(1, "cat /proc/sys/kernel/random/boot_id").is_some_and(|now| now != boot_id)
    });
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
    assert_eq!(lab.writes(1), 1);

    lab.part("wrong credentials are named by their reference");
    lab.password("wrong");
    let failed = fails(lab.cli(&["reboot", "node1", "--yes"]), RUN);
    assert!(failed.contains("lab") && !failed.contains("wrong"), "{failed}");
    lab.password(&lab.get("LAB_PASS"));

    let server = kills(&lab, server);

    lab.part("rma: erased by an eraser from virtual media, and no member any more");
    succeeds(lab.cli(&["rma", "node1", "--yes"]), RUN);
    assert_eq!(lab.member("node1"), "left");
    let logs = succeeds(lab.cli(&["logs", "node1", "--step", "wipe"]), RUN);
    assert!(logs.contains("LABDISK1") && logs.contains("read back as zeros"), "{logs}");
    assert!(lab.disk(1).iter().all(|byte| *byte == 0), "the disk says so itself");
    assert!(succeeds(lab.cli(&["list"]), RUN).contains("RMA"));
    server.stop();
}

/// The server dies in the middle of an installation, and the next one carries it on: the disk is written once.
fn kills(lab: &Lab, mut server: Server) -> Server {
    let serial = ["LAB", "settings fetched", "reported: written"];
    let rounds = if std::env::var_os("BMDEMO_PROOF").is_some() { 10 } else { 3 };
    let mut writes = lab.writes(1);
    for round in 0..rounds {
        let until = serial[round % serial.len()];
        lab.part(&format!("kill -9 once the machine has printed {until:?}"));
        let printed = lab.serial(1).len();
        succeeds(
            lab.cli(&["repave", "node1", "--yes", "--detach", "--force", "--reason", "drill"]),
            RUN,
        );
        lab.until(until, || lab.serial(1)[printed..].contains(until));
        // Later rounds die at other instants after the same line.
        std::thread::sleep(Duration::from_millis(700 * (round / serial.len()) as u64));
        server.kill();
        server = Server::start(lab);
        succeeds(lab.cli(&["wait", "node1", "--for", "run=done"]), RUN);
        let described = succeeds(lab.cli(&["machine", "describe", "node1"]), RUN);
        assert!(described.contains("SUCCEEDED"), "{described}");
        writes += 1;
        assert_eq!(lab.writes(1), writes, "the disk was written once");
        assert_eq!(lab.member("node1"), "alive");
    }
    server
}
