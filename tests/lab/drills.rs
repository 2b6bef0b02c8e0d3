//! The long form: what goes wrong around a machine while it is worked on, one thing after the other. Each ends with the machine
//! in service again.

use std::time::Duration;

use super::RUN;
use super::place::{IPMI, Lab, Server, fails, succeeds};

/// Why the drills do it, in the history.
const WHY: [&str; 3] = ["--force", "--reason", "drill"];

/// What is done to the lab, by its name.
type Drill = (&'static str, fn(&Lab));

/// Runs the drills whose names are in `BMDEMO_LAB_LONG`, with commas between them; `1` stands for all, and for ten kills.
pub(crate) fn run(lab: &Lab) {
    let drills: [Drill; 8] = [
        ("libvirtd", libvirtd_dies),
        ("shutdown", shutdown_is_ignored),
        ("switched-on", someone_switches_it_on),
        ("upgrade", upgrade),
        ("here", where_the_run_says),
        ("cancel", cancel_in_each_step),
        ("abort", abort_in_each_step),
        ("ipmi", by_ipmi),
    ];
    for (name, drill) in drills {
        if is_chosen(name) {
            drill(lab);
        }
    }
}

fn is_chosen(drill: &str) -> bool {
    let chosen = std::env::var("BMDEMO_LAB_LONG").unwrap_or_default();
    chosen == "1" || chosen.split(',').any(|one| one == drill)
}

fn begin(lab: &Lab, verb: &str) {
    let mut args = vec![verb, "node1", "--yes", "--detach"];
    args.extend(WHY);
    succeeds(lab.cli(&args), RUN);
}

/// The run ends, and the machine serves.
fn serves(lab: &Lab, writes: usize) {
    succeeds(lab.cli(&["run", "wait", "node1"]), RUN);
    assert_eq!(lab.writes(1), writes, "what the disk counts");
    assert_eq!(lab.member("node1"), "alive");
}

/// Everything behind the controller dies: it answers 500 to every request until it is back. The machine continues by itself.
fn libvirtd_dies(lab: &Lab) {
    for until in ["", "LAB", "settings fetched"] {
        lab.part(&format!("what the controller works with is killed after {until:?}"));
        let (writes, printed) = (lab.writes(1), lab.serial(1).len());
        begin(lab, "repave");
        if until.is_empty() {
            lab.until("the run asks the controller for something", || {
                !lab.log_of("set-netboot").is_empty()
            });
        } else {
            lab.until(until, || lab.serial(1)[printed..].contains(until));
        }
        lab.kill_libvirtd();
        lab.until("an error of the controller", || {
            succeeds(lab.cli(&["run", "history", "node1"]), RUN).contains("500")
        });
        lab.start_libvirtd();
        serves(lab, writes + 1);
    }
}

fn shutdown_is_ignored(lab: &Lab) {
    lab.part("a system that ignores the power button is switched off after the deadline");
    lab.on(1, "touch /run/ignorebutton").unwrap();
    let boot_id = lab.boot_id(1);
    succeeds(lab.cli(&["reboot", "node1", "--yes"]), RUN);
    let log = lab.log_of("reboot");
    assert!(log.contains("no shutdown within 30 s"), "{log}");
    lab.until("node1 answers under another boot id", || {
        lab.on(1, "cat /proc/sys/kernel/random/boot_id").is_some_and(|now| now != boot_id)
    });
    lab.until("node1 is a member again", || lab.member("node1") == "alive");
}

/// Off must stay off for a while: it does not, and what was begun is tried again.
fn someone_switches_it_on(lab: &Lab) {
    lab.part("someone switches the machine on while it is to be off");
    let writes = lab.writes(1);
    begin(lab, "repave");
    lab.until("node1 is off", || lab.virsh(&["domstate", "node1"]).contains("shut off"));
    lab.virsh(&["start", "node1"]);
    serves(lab, writes + 1);
}

fn upgrade(lab: &Lab) {
    lab.part("upgrade: out of the cluster, another image, in again");
    let writes = lab.writes(1);
    succeeds(lab.cli(&["upgrade", "node1", "--yes"]), RUN);
    serves(lab, writes + 1);
}

/// Disk, name and data of the run's own, which the installed system has.
fn where_the_run_says(lab: &Lab) {
    lab.part("a run says where to install, and under which name");
    let writes = lab.writes(1);
    let start = |disk: &str| {
        let (disk, name) = (format!("disk={disk}"), "hostname=db-1.example.org");
        let mut args = vec!["run", "start", "install-here", "node1", "--yes", "--set", &disk];
        args.extend(["--set", name, "--set", "user-data=role=db"]);
        args.extend(WHY);
        lab.cli(&args)
    };
    let refused = fails(start("sda"), RUN);
    assert!(refused.contains("disk") && refused.contains("serial:NUMBER"), "{refused}");
    let failed = fails(start("serial:NONE"), RUN);
    assert!(failed.contains("no disk serial:NONE"), "{failed}");
    assert_eq!(lab.writes(1), writes);
    succeeds(start("serial:LABDISK1"), RUN);
    serves(lab, writes + 1);
    assert_eq!(lab.on(1, "hostname").as_deref(), Some("db-1.example.org"));
    assert_eq!(lab.on(1, "grep user_data /run/settings").as_deref(), Some("user_data=role=db"));
}

/// The run is canceled in a step, and retried from there: what has succeeded is not done again.
fn cancel_in_each_step(lab: &Lab) {
    let canceled = |lab: &Lab| {
        succeeds(lab.cli(&["cancel", "node1", "--reason", "drill", "--yes"]), RUN);
        succeeds(lab.cli(&["wait", "node1", "--for", "run=done"]), RUN);
        let described = succeeds(lab.cli(&["machine", "describe", "node1"]), RUN);
        assert!(described.contains("CANCELED"), "{described}");
    };
    let writes = lab.writes(1);
    lab.part("cancel in set-netboot");
    begin(lab, "repave");
    canceled(lab);
    assert_eq!(lab.writes(1), writes, "nothing was written");

    lab.part("cancel in repave: the disk is written to its end");
    let printed = lab.serial(1).len();
    begin(lab, "repave");
    lab.until("settings fetched", || lab.serial(1)[printed..].contains("settings fetched"));
    canceled(lab);
    assert_eq!(lab.writes(1), writes + 1);

    lab.part("cancel in mint-join, join and verify: the next run begins there");
    lab.hold("mint-join");
    begin(lab, "repave");
    lab.until_held("mint-join");
    canceled(lab);
    assert_eq!(lab.writes(1), writes + 2);
    for step in ["join", "verify"] {
        lab.hold(step);
        succeeds(lab.cli(&["retry", "node1", "--detach", "--yes"]), RUN);
        lab.until_held(step);
        canceled(lab);
    }
    succeeds(lab.cli(&["retry", "node1", "--detach", "--yes"]), RUN);
    serves(lab, writes + 2);
}

/// The run is cut off in a step: the machine is blocked until an operator has looked, and then is installed as if nothing
/// had happened.
fn abort_in_each_step(lab: &Lab) {
    for step in ["set-netboot", "settings fetched", "mint-join", "join", "verify"] {
        lab.part(&format!("abort in {step}"));
        let (writes, printed) = (lab.writes(1), lab.serial(1).len());
        match step {
            "set-netboot" => begin(lab, "repave"),
            "settings fetched" => {
                begin(lab, "repave");
                lab.until(step, || lab.serial(1)[printed..].contains(step));
            }
            action => {
                lab.hold(action);
                begin(lab, "repave");
                lab.until_held(action);
            }
        }
        succeeds(lab.cli(&["abort", "node1", "--reason", "drill", "--yes"]), RUN);
        let blocked = fails(lab.cli(&["reboot", "node1", "--yes"]), RUN);
        assert!(blocked.contains("is blocked, ABORTED"), "{blocked}");
        let clear = ["machine", "clear-intervention", "node1", "--reason", "drill", "--yes"];
        succeeds(lab.cli(&clear), RUN);
        // A machine that was writing when its run was cut off writes to the end, or is cut off by the next run.
        assert!(lab.writes(1) <= writes + 1);
    }
    lab.part("and after all that it is installed");
    let writes = lab.writes(1);
    begin(lab, "repave");
    succeeds(lab.cli(&["wait", "node1", "--for", "run=done"]), RUN);
    let now = lab.writes(1);
    assert!(now == writes + 1 || now == writes + 2, "{writes} writes became {now}");
    serves(lab, now);
}

/// The machine gets a controller that speaks IPMI, and with it another class: it is restarted and installed through that, and goes back.
fn by_ipmi(lab: &Lab) {
    lab.part("ipmi: another class drives the machine");
    assert_eq!(lab.get("LAB_IPMI"), "1", "start the lab with IPMI=1 for this drill");
    let port: u16 = lab.get("LAB_IPMI_PORT").parse().unwrap();
    let becomes = |class: &str, bmc: &str| {
        let mut args = vec!["machine", "update", "node2", "--provider", class, "--bmc", bmc];
        args.extend(["--reason", "drill"]);
        succeeds(lab.cli(&args), RUN);
    };
    becomes(IPMI, &format!("ipmi://127.0.0.1:{}", port + 2));
    let boot_id = lab.boot_id(2);
    succeeds(lab.cli(&["reboot", "node2", "--yes"]), RUN);
    assert_ne!(lab.boot_id(2), boot_id);
    lab.until("node2 is a member again", || lab.member("node2") == "alive");

    lab.part("ipmi: power and boot device by IPMI, installed over the network");
    let described = succeeds(lab.cli(&["machine", "describe", "node2"]), RUN);
    assert!(described.contains("the boot device is not read back"), "{described}");
    let (writes, downloads) = (lab.writes(2), lab.downloads());
    let mut args = vec!["repave", "node2", "--yes"];
    args.extend(WHY);
    succeeds(lab.cli(&args), RUN);
    for line in succeeds(lab.cli(&["run", "describe", "node2"]), RUN).lines() {
        eprintln!("  | {line}");
    }
    assert_eq!((lab.writes(2), lab.downloads()), (writes + 1, downloads + 1), "installed once");
    assert_eq!(lab.member("node2"), "alive");
    becomes("lab-network", &lab.get("LAB_REDFISH"));
    succeeds(lab.cli(&["reboot", "node2", "--yes"]), RUN);
}

/// The server is killed at ten instants of an installation, or three in the short form, and the next one carries it on: the disk
/// is written once.
pub(crate) fn kills(lab: &Lab, mut server: Server) -> Server {
    let serial = ["LAB", "settings fetched", "reported: written"];
    let rounds = if is_chosen("kills") { 10 } else { serial.len() };
    for round in 0..rounds {
        let until = serial[round % serial.len()];
        lab.part(&format!("kill -9 once the machine has printed {until:?}"));
        let (writes, printed) = (lab.writes(1), lab.serial(1).len());
        begin(lab, "repave");
        lab.until(until, || lab.serial(1)[printed..].contains(until));
        // Later rounds die at other instants after the same line.
        std::thread::sleep(Duration::from_millis(700 * (round / serial.len()) as u64));
        server.kill();
        server = Server::start(lab);
        serves(lab, writes + 1);
    }
    server
}
