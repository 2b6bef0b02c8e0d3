use super::*;

fn refused(check: impl FnOnce(&mut Checks)) -> Vec<String> {
    let mut checks = Checks::default();
    check(&mut checks);
    checks.0.into_iter().map(|wrong| format!("{}: {}", wrong.field, wrong.description)).collect()
}

fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

#[test]
fn label_keys_are_those_of_kubernetes() {
    let long = "x".repeat(63);
    for key in ["rack", "a", "r.a-c_k", "example.com/rack", "9", "Rack", &long] {
        assert_eq!(refused(|checks| checks.labels("labels", &map(&[(key, "")]))).len(), 0, "{key}");
    }
    let too_long = "x".repeat(64);
    for key in [
        "", "-a", "a-", "a b", "\u{e4}", &too_long, "/a", "a/", "Ex.com/a", "a..b/c", "a/b/c",
        "a\n",
    ] {
        assert_eq!(refused(|checks| checks.labels("labels", &map(&[(key, "")]))).len(), 1, "{key}");
    }
    let value = "v".repeat(257);
    assert_eq!(
        refused(|checks| checks.labels("labels", &map(&[("a", &value), ("b", "x\u{7}")]))),
        [
            "labels.a: must be at most 256 characters long",
            "labels.b: must not contain the character U+0007, which is invisible: leave it out"
        ]
    );
    let many: BTreeMap<_, _> = (0..65).map(|n| (format!("l{n}"), String::new())).collect();
    assert_eq!(
        refused(|checks| checks.labels("labels", &many)),
        ["labels: must have at most 64 entries, not 65"]
    );
}

#[test]
fn what_cannot_be_seen_is_in_no_label_name_or_parameter() {
    for hidden in ["\u{202e}", "\u{200b}", "\u{2066}", "\u{ad}", "\u{feff}", "\u{7f}"] {
        let text = format!("r{hidden}1");
        assert_eq!(refused(|checks| checks.labels("labels", &map(&[("rack", &text)]))).len(), 1);
        assert_eq!(refused(|checks| checks.labels("labels", &map(&[(&text, "")]))).len(), 1);
        assert_eq!(refused(|checks| checks.name("plan_id", &text)).len(), 1);
        assert_eq!(refused(|checks| checks.line("serial", &text, 10)).len(), 1);
        assert_eq!(refused(|checks| checks.parameters(&map(&[(&text, "")]))).len(), 1);
    }
    // A reason may contain them; they are escaped when it is shown.
    assert_eq!(refused(|checks| checks.reason("a\u{200d}b")).len(), 0);
    assert_eq!(refused(|checks| checks.labels("labels", &map(&[("rack", "räck ✓")]))).len(), 0);
}

#[test]
fn endpoints_are_judged_by_their_field() {
    let mut table = String::new();
    let bmc = |text: &str| refused(|checks| checks.bmc_endpoint("bmc_endpoint", text));
    let ssh = |text: &str| refused(|checks| checks.ssh_endpoint("ssh_endpoint", text));
    for good in [
        "",
        "https://10.0.0.8",
        "http://bmc-8.example.com:8443/redfish/v1/",
        "HTTPS://[2001:db8::8]:443",
        "https://127.0.0.1:8000",
        "ipmi://10.0.0.8",
        "ipmi://[2001:db8::8]:9623",
    ] {
        assert_eq!(bmc(good), Vec::<String>::new(), "{good}");
    }
    for good in ["", "node-8", "10.0.0.8:22", "[2001:db8::8]:22"] {
        assert_eq!(ssh(good), Vec::<String>::new(), "{good}");
    }
    let long = format!("https://a/{}", "x".repeat(300));
    for bad in [
        "10.0.0.8",
        "file:///etc/passwd",
        "gopher://a",
        "javascript:alert(1)",
        "https://",
        "ipmi://10.0.0.8/redfish/v1",
        "ipmi://admin@10.0.0.8",
        "https:///x",
        "https://root:pw@a",
        "https://a#b",
        "https://a?b=c",
        "https://a:0",
        "https://a:99999",
        "https://a/x y",
        "https://-o",
        "https://0.0.0.0",
        "https://169.254.169.254/latest",
        "https://[::ffff:169.254.169.254]",
        "https://a/\u{202e}",
        &long,
    ] {
        let [wrong] = &bmc(bad)[..] else { panic!("{bad}") };
        table += &format!("{bad:?}\n    {wrong}\n");
    }
    for bad in
        ["-oProxyCommand=x", "a:99999", "root@a", "ssh://a", "a b", "::1", "a/b", "255.255.255.255"]
    {
        let [wrong] = &ssh(bad)[..] else { panic!("{bad}") };
        table += &format!("{bad:?}\n    {wrong}\n");
    }
    crate::assert_golden!("endpoints_refused", table);
}

#[test]
fn providers_are_those_of_the_server() {
    let known = ["fake".to_owned(), "redfish".to_owned()];
    let provider = |text: &str| refused(|checks| checks.provider("provider", text, known.iter()));
    assert_eq!(provider("fake"), Vec::<String>::new());
    assert_eq!(
        [provider("redfihs"), provider("ipmi"), provider("")].concat(),
        [
            "provider: this server has no provider \"redfihs\": did you mean redfish?",
            "provider: this server has no provider \"ipmi\": it has fake, redfish",
            "provider: must not be empty",
        ]
    );
}

#[test]
fn mac_addresses_are_checked_and_lowered() {
    let macs = |texts: &[&str]| {
        let texts: Vec<_> = texts.iter().map(|text| (*text).to_owned()).collect();
        let mut normal = Vec::new();
        let wrong = refused(|checks| normal = checks.macs("m", &texts));
        (normal, wrong.len())
    };
    assert_eq!(macs(&["02:00:00:00:00:0A"]), (vec!["02:00:00:00:00:0a".to_owned()], 0));
    for bad in ["", "02-00-00-00-00-01", "02:00:00:00:00", "02:00:00:00:00:1", "gg:00:00:00:00:01"]
    {
        assert_eq!(macs(&[bad]).1, 1, "{bad}");
    }
    let impossible = |mac: &str| {
        let wrong = refused(|checks| _ = checks.macs("m", &[mac.to_owned()]));
        wrong.concat()
    };
    assert!(impossible("00:00:00:00:00:00").starts_with("m[0]: is all zero"));
    assert!(impossible("FF:ff:ff:ff:ff:ff").starts_with("m[0]: is the broadcast address"));
    assert!(impossible("01:00:5e:00:00:01").starts_with("m[0]: is a multicast address"));
    assert_eq!(macs(&["02:00:00:00:00:0A", "02:00:00:00:00:0a"]).1, 1, "twice");
    assert_eq!(macs(&[""; 33]).1, 1, "too many");
}

#[test]
fn request_ids_and_reasons_are_bounded_and_printable() {
    for good in ["", "0190f5fe-7c00-7a00-8000-000000000000", "try 2"] {
        assert_eq!(refused(|checks| checks.request_id(good)).len(), 0);
    }
    for bad in ["a\n", "\u{e4}", &"x".repeat(129)] {
        assert_eq!(refused(|checks| checks.request_id(bad)).len(), 1);
    }
    assert_eq!(refused(|checks| checks.reason("first\n\tsecond")).len(), 0);
    for bad in ["a\u{1b}[0m", &"x".repeat(1025)] {
        assert_eq!(refused(|checks| checks.reason(bad)).len(), 1);
    }
    assert_eq!(
        refused(|checks| checks.required_reason(" \n")),
        ["reason: must be given: it is kept in the history"]
    );
}

#[test]
fn enums_are_refused_by_name() {
    use crate::pb::{RunType, StepResolution};
    assert_eq!(
        refused(|checks| _ = checks.optional::<RunType>("type", 42)),
        [
            "type: 42 is not a value of the enum: one of RUN_TYPE_REPAVE, RUN_TYPE_RMA, RUN_TYPE_REBOOT, \
          RUN_TYPE_UPGRADE, RUN_TYPE_NET_RECONFIG, RUN_TYPE_CUSTOM"
        ]
    );
    assert_eq!(
        refused(|checks| _ = checks.given::<StepResolution>("resolution", 0)),
        ["resolution: must be given: one of STEP_RESOLUTION_DONE, STEP_RESOLUTION_RETRY, \
          STEP_RESOLUTION_SKIP, STEP_RESOLUTION_ABORT, STEP_RESOLUTION_APPROVE, STEP_RESOLUTION_REJECT"]
    );
    let mut checks = Checks::default();
    assert_eq!(checks.optional::<RunType>("type", 0), Some(None));
    assert_eq!(checks.optional("type", 2), Some(Some(RunType::Rma)));
}

#[test]
fn pages_and_etags_are_read() {
    let mut checks = Checks::default();
    let sizes = [0, 1, 1000, 1001, i32::MAX].map(|size| checks.page_size(size));
    assert_eq!(sizes, [50, 1, 1000, 1000, 1000]);
    assert_eq!(checks.etag("etag", ""), None);
    assert_eq!(checks.etag("etag", "\"17\""), Some(Revision(17)));
    checks.done(Some(())).unwrap();
    assert_eq!(refused(|checks| _ = checks.page_size(-1)).len(), 1);
    for bad in ["17", "\"\"", "\"x\"", "\"-1\"", "W/\"1\""] {
        assert_eq!(refused(|checks| _ = checks.etag("etag", bad)).len(), 1, "{bad}");
    }
}

#[test]
fn parameters_are_bounded() {
    let long = "x".repeat(4097);
    let wrong = refused(|checks| checks.parameters(&map(&[("image", &long), ("", "")])));
    assert_eq!(
        wrong,
        [
            "parameters: names must have 1 to 128 characters",
            "parameters.image: must be at most 4096 bytes long"
        ]
    );
    let many: BTreeMap<_, _> = (0..33).map(|n| (format!("p{n}"), String::new())).collect();
    assert_eq!(
        refused(|checks| checks.parameters(&many)),
        ["parameters: must have at most 32 entries, not 33"]
    );
}

#[test]
fn what_leads_to_a_controller_is_checked_by_its_field() {
    let system = |text: &str| refused(|checks| checks.bmc_system_id("id", text)).len();
    for good in ["", "1", "System.Embedded.1", "437XR1138R2", "d1a5-7c"] {
        assert_eq!(system(good), 0, "{good}");
    }
    for bad in ["..", ".", "1/../2", "a b", "a?x", "a%2f", "\u{e4}", &"x".repeat(129)] {
        assert_eq!(system(bad), 1, "{bad}");
    }
    let reference = |text: &str| refused(|checks| checks.bmc_credentials("credentials", text));
    assert_eq!(reference(""), Vec::<String>::new());
    assert_eq!(reference("rack-1.admin_2"), Vec::<String>::new());
    for bad in ["root:calvin", "../shadow", "a/b", ".x", "a b"] {
        let refused = reference(bad);
        assert_eq!(refused.len(), 1, "{bad}");
        assert!(!refused[0].contains(bad), "{refused:?}");
    }
    let pinned = |text: &str| {
        let mut checks = Checks::default();
        let pinned = checks.bmc_certificate("certificate", text);
        (pinned, checks.0.len())
    };
    let digits = "ab".repeat(32);
    assert_eq!(pinned(""), (String::new(), 0));
    assert_eq!(pinned(&digits.to_uppercase()), (digits.clone(), 0));
    assert_eq!(pinned(&vec!["AB"; 32].join(":")), (digits.clone(), 0));
    assert_eq!(pinned(&digits[2..]), (String::new(), 1));
}
