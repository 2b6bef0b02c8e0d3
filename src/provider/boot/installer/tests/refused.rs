//! What is refused before anything is done.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_cannot_be_is_refused_before_anything_is_done() {
    let lab = Lab::new(Fault::None).await;
    let mut unknown = call(1, 1, "repave");
    unknown.args.insert("image".to_owned(), Value::Str("debian".into()));
    let error = lab.installer.act(&target(), &unknown).unwrap_err();
    let expected = "there is no image \"debian\" in the configuration; there is ubuntu";
    assert_eq!(error.message, expected);
    let of = |call: &Call| {
        let (name, capability, args) = (&*call.action, call.capability, &call.args);
        lab.installer.objection(&target(), &Asked { name, capability, args })
    };
    assert_eq!(of(&unknown).as_deref(), Some(expected), "before a run is started, too");
    assert_eq!(of(&call(1, 1, "repave")), None);
    let mut nameless = target();
    nameless.spec.mac_addresses.clear();
    let error = lab.installer.act(&nameless, &call(1, 1, "repave")).unwrap_err();
    assert!(error.message.contains("no MAC address"), "{error}");
    assert!(lab.installer.act(&target(), &call(1, 1, "reboot")).is_err());
    lab.clock.sleep(Duration::from_secs(60)).await;
    assert_eq!(lab.hardware.boots.load(Ordering::SeqCst), 0);
}
