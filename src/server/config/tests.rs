use clap::{CommandFactory as _, Parser as _};

use super::*;

/// The documented example with every commented-out key switched on: those are the lines with no space after the `#`.
fn example() -> String {
    include_str!("../../../docs/config.toml")
        .lines()
        .map(|line| match line.strip_prefix('#') {
            Some(key) if !key.is_empty() && !key.starts_with(' ') => key,
            _ => line,
        })
        .collect::<Vec<_>>()
        .join("\n")
}

fn load(flags: &[&str], text: &str) -> Result<Config, ConfigError> {
    let args = Args::try_parse_from(["bmdemo-server"].iter().chain(flags)).unwrap();
    Config::merge(&args, parse_file(Path::new("bmdemo.toml"), text)?)
}

#[test]
fn the_flags_are_consistent() {
    Args::command().debug_assert();
    crate::assert_golden!("server_help", Args::command().render_long_help().to_string());
}

#[test]
fn the_example_documents_every_key() {
    let file = parse_file(Path::new("docs/config.toml"), &example()).unwrap();
    let shown = format!("{file:#?}");
    assert!(!shown.contains("None"), "a key is missing in docs/config.toml:\n{shown}");
}

#[test]
fn the_example_gives_the_defaults() {
    let defaults = load(&["--ephemeral"], "").unwrap();
    // Keys without a default, and the two that contradict each other.
    let specific = [
        "seed",
        "metrics_listen",
        "host_names",
        "connection_age_max",
        "data_dir",
        "url",
        "password_file",
        "dir",
        "bmc",
        "webhook",
        "image",
        "script",
        "fake",
        "rack",
        "disruptive_max",
        "data_destroying_max",
        "cert_file",
        "key_file",
        "client_ca_file",
        "crl_file",
        "certificates",
        "subjects",
        "role",
        "scope",
        "tokens_file",
        "jwks_file",
        "issuer",
        "audience",
    ];
    // Sections without a default: they name things of an operator's own.
    let own = [
        "[machine_classes.",
        "[probes.",
        "[boot]",
        "[images.",
        "[principals.",
        "[auth.jwt]",
        "[[notify]]",
    ];
    let mut is_own = false;
    let text: Vec<String> = example()
        .lines()
        .filter(|line| {
            if line.starts_with('[') {
                is_own = own.iter().any(|start| line.starts_with(start));
            }
            let key = line.split_once(" = ").map_or("", |(key, _)| key);
            !specific.contains(&key) && !is_own
        })
        .map(str::to_owned)
        .collect();
    assert_eq!(load(&["--ephemeral"], &text.join("\n")).unwrap(), defaults);
}

#[test]
fn flags_win_over_the_file() {
    let file = "seed = 1\n[server]\nport = 1\n[log]\nlevel = \"warn\"\n[fake]\ntiming = \"zero\"\n[store]\nephemeral = true";
    let config = load(
        &["--port", "2", "--seed", "3", "--slow", "--data-dir", "d", "--log-level", "debug"],
        file,
    );
    let config = config.unwrap();
    assert_eq!((config.listen.port(), config.seed), (2, Some(3)));
    assert_eq!((config.fake_timing.as_str(), config.log_level), ("slow", Level::Debug));
    assert_eq!(config.storage, Storage::Dir("d".into()));
    let config = load(&[], file).unwrap();
    assert_eq!((config.listen.port(), config.fake_timing.as_str()), (1, "zero"));
    assert_eq!((config.storage, config.log_level), (Storage::Ephemeral, Level::Warn));
}

#[test]
fn errors_in_the_file_name_their_place() {
    let mut table = String::new();
    for text in [
        "[server]\nprot = 1",
        "[server]\n  port = 70000",
        "[serve]\n",
        "[retention]\nended_runs = \"ninety days\"",
        "[retention]\nended_runs = \"4000d\"",
        "[server]\nlisten = \"here\"",
        "[server]\nlisten = \"127.0.0.1:50051\"",
        "[server]\nmetrics_listen = \"9464\"",
        "[limits]\nruns_max = -1",
        "limits = 7",
        "[store]\ndata_dir = 7",
        "[log]\nlevel = \"loud\"",
        "# äöü\n[limits]\nruns_max = \"ä\"",
        "[limits]\nruns_max = 1\nruns_max = 2",
        "[limits",
        "[limits]\ndisruptive_max = \"0%\"",
        "[limits]\ndisruptive_max = \"5\"",
        "[limits]\ndisruptive_max = -1",
        "[limits]\ndisruptive_max = 0.05",
        "[machine_classes.rack]\npwoer = \"fake\"",
        "[machine_classes.rack]\nengine = \"fake\"",
        "[machine_classes.rack]\npower = \"fkae\"",
        "[machine_classes.rack]\npower = 7",
        "machine_classes = 7",
        "[machine_classes.rack.exec]\nact = [\"/bin/true\"]",
        "[machine_classes.rack.exec.actions.drain]\nact = \"/bin/true --now\"",
        "[machine_classes.rack.exec]\ntimeout = 30",
    ] {
        let error = load(&["--ephemeral"], text).unwrap_err();
        assert!(matches!(error, ConfigError::File { .. }), "{text}");
        table += &format!("{text:?}\n    {error}\n");
    }
    for text in [
        "[server]\nlisten = \"0.0.0.0\"",
        "[server]\nmetrics_listen = \"[::]:9464\"",
        "[server]\nconnections_max = 0",
        "[limits.runs_max_by_label]\nrack = 0",
        "[retention]\nrequests = \"1h\"",
        "[retention]\ninterval = \"5ms\"",
        "[probes.fake]\nconcurrent_max = 0",
        "[probes.fake]\ninterval = \"1ms\"",
        "[probes.fake]\ntimeout = \"2d\"",
        "[probes.nope]",
        "[probes.fkae]",
        "[limits.runs_max_by_provider]\nfak = 1",
        "[limits.runs_max_by_label]\n\"-rack\" = 1",
        "[limits.runs_max_by_label]\n\"r\\u202Eack\" = 1",
        "[limits]\nruns_max = 0",
        "[limits]\ndata_destroying_max = 0",
        "[limits.disruptive_max_by_label]\nrack = 0",
        "[limits.data_destroying_max_by_label]\n\"-rack\" = 1",
        "[limits]\nruns_max = 1000001",
        "[limits]\nstep_log_bytes_max = 0",
        "[limits]\nstep_log_bytes_max = 9007199254740993",
        "[loop_breaker]\ndestructive_max = 0",
        "[loop_breaker]\nwindow = \"0s\"",
        "[retention]\nended_runs_max = 0",
        "[server]\nshutdown_grace = \"2d\"",
        "[machine_classes.fake]\npower = \"fake\"",
        "[machine_classes.rack]\npower = \"redfish\"",
        "[machine_classes.rack]\ndrain = \"redfish\"",
        "[machine_classes.rack]\npower = \"fake\"\n[machine_classes.rack.redfish]\ninsecure = true",
        "[networks]\nbmc = [\"10.0.0.0/8\"]\n[machine_classes.rack]\npower = \"redfish\"\n[machine_classes.rack.redfish]\npoll = \"1h\"",
        "[networks]\nbmc = [\"10.0.0.0/8\"]\n[machine_classes.rack]\npower = \"redfish\"\n[machine_classes.rack.redfish]\nca_file = \"/nowhere\"",
        "[networks]\nbmc = [\"10.0.0.0/8\"]\n[machine_classes.rack]\npower = \"redfish\"\n[machine_classes.rack.redfish]\nca_file = \"/nowhere\"\ninsecure = true",
        "[networks]\nbmc = [\"10.0.0.0/8\"]\n[machine_classes.rack]\npower = \"redfish\"\n[machine_classes.rack.redfish]\nimage = \"http://10.0.0.1/x\"",
        "[machine_classes.rack]\npower = \"fake\"\n[machine_classes.rack.ipmi]\nefi = false",
        "[networks]\nbmc = [\"10.0.0.0/8\"]\n[machine_classes.rack]\npower = \"ipmi\"\n[machine_classes.rack.ipmi]\ncipher_suite = 15",
        "[networks]\nbmc = [\"10.0.0.1/8\"]",
        "[networks]\nbmc = [\"bmc.example\"]",
        "[machine_classes.Rack_1]\npower = \"fake\"",
        "[machine_classes.rack]",
        "[machine_classes.rack]\npower = \"fake\"\n[probes.rack]",
        "[machine_classes.rack]\npower = \"fake\"\n[probes.rakc]",
        "[machine_classes.rack]\ndrain = \"exec\"",
        "[machine_classes.rack]\nnotify = \"webhook\"",
        "[machine_classes.rack]\nprobe = \"webhook\"",
        "[machine_classes.rack]\nnotify = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"https://h/x\"",
        "[machine_classes.rack]\nnotify = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"ftp://h/x\"\nsecret = \"s\"",
        "[machine_classes.rack]\nnotify = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"https://h/x\"\nsecret = \"a/b\"",
        "[machine_classes.rack]\nnotify = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"https://h/x\"\nsecret = \"s\"\ncertificate_sha256 = \"ab\"",
        "[machine_classes.rack]\nnotify = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"https://h/x\"\nsecret = \"s\"\nactions = [\"x\"]",
        "[machine_classes.rack]\nnotify = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"https://h/x\"\nsecret = \"s\"",
        "[machine_classes.rack]\ncustom = \"webhook\"\n[machine_classes.rack.webhook]\nurl = \"https://h/x\"\nsecret = \"s\"",
        "[[notify]]",
        "[[notify]]\nname = \"Ops\"",
        "[[notify]]\nname = \"ops\"",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"\nevents = [\"run.faild\"]",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"\nevents = []",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"\nmachines = \"phase = READYY\"",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"\nsource = \"a b\"",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"\ngive_up_after = \"10ms\"",
        "[[notify]]\nname = \"ops\"\nurl = \"https://h/x\"\n[[notify]]\nname = \"ops\"\nurl = \"https://h/y\"",
        "[notify]\nname = \"ops\"",
        "[machine_classes.rack]\ncustom = \"exec\"",
        "[machine_classes.rack]\ncluster-join = \"exec\"\n[machine_classes.rack.exec.actions.join]\nact = [\"/bin/true\"]\nmaterial = \"report\"",
        "[machine_classes.rack]\ndrain = \"exec\"\n[machine_classes.rack.exec.actions.drain]\nact = [\"/bin/true\"]",
        "[machine_classes.rack]\npower = \"fake\"\n[machine_classes.rack.exec]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec.actions.reboto]\nact = [\"/bin/true\"]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec.actions.drain]\nact = [\"/bin/true\"]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec.actions.reboot]\nobserve = [\"/bin/true\"]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec.actions.reboot]\nact = []",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec.actions.reboot]\nact = [\"true\"]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec]\nworking_dir = \"tmp\"\n[machine_classes.rack.exec.actions.reboot]\nact = [\"/bin/true\"]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec]\nmax_parallel = 0\n[machine_classes.rack.exec.actions.reboot]\nact = [\"/bin/true\"]",
        "[machine_classes.rack]\npower = \"exec\"\n[machine_classes.rack.exec]\ngrace = \"2h\"\n[machine_classes.rack.exec.actions.reboot]\nact = [\"/bin/true\"]",
    ] {
        let error = load(&["--ephemeral"], text).unwrap_err();
        table += &format!("{text:?}\n    {error}\n");
    }
    crate::assert_golden!("server_config_errors", table);
}

#[test]
fn only_loopback_is_served_without_consent() {
    for loopback in ["127.0.0.1", "127.0.0.2", "::1", "[::1]", "localhost"] {
        let flag = load(&["--ephemeral", "--listen", loopback], "").unwrap();
        let file = load(&["--ephemeral"], &format!("[server]\nlisten = \"{loopback}\"")).unwrap();
        assert_eq!(flag, file);
    }
    for bad in ["[127.0.0.1]", "[::1]:50051", "127.0.0.1:50051", "", "[::1"] {
        let flags = ["bmdemo-server", "--listen", bad];
        assert!(Args::try_parse_from(flags).is_err(), "{bad}");
    }
    for public in ["0.0.0.0", "::", "192.0.2.1", "::ffff:192.0.2.1"] {
        let refused = load(&["--ephemeral", "--listen", public], "").unwrap_err();
        assert!(refused.to_string().contains("--insecure-no-auth"), "{refused}");
        assert!(
            load(&["--ephemeral", "--listen", public, "--insecure-no-auth"], "")
                .unwrap()
                .insecure_no_auth
        );
    }
}

#[test]
fn contradicting_flags_are_usage_errors() {
    for flags in [&["--slow", "--fake-timing", "zero"][..], &["--ephemeral", "--data-dir", "d"]] {
        assert!(Args::try_parse_from(["bmdemo-server"].iter().chain(flags)).is_err(), "{flags:?}");
    }
}

#[test]
fn a_script_can_come_from_a_file() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "machine=* step=repave do=fail").unwrap();
    let flag = format!("@{}", file.path().display());
    let config = load(&["--ephemeral", "--fake-script", &flag], "").unwrap();
    assert_eq!(config.fake_script, "machine=* step=repave do=fail");
    let device = load(&["--ephemeral", "--fake-script", "@/dev/zero"], "").unwrap_err();
    assert_eq!(device.to_string(), "cannot read /dev/zero");
    let missing = load(&["--ephemeral", "--fake-script", "@/nowhere/script"], "").unwrap_err();
    assert_eq!(missing.to_string(), "cannot read /nowhere/script");
}
