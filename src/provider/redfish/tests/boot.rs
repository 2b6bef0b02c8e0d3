//! What is booted next.

use super::*;

const IMAGE: &str = "http://10.0.0.7/installer.iso";

fn with_image() -> RedfishSettings {
    RedfishSettings { image: Some(IMAGE.to_owned()), ..insecure() }
}

fn own() -> Call {
    call("clear-netboot", Capability::Netboot, &[], 1)
}

fn boot(enabled: &str, target: &str) -> (String, String) {
    (enabled.to_owned(), target.to_owned())
}

#[tokio::test(start_paused = true)]
async fn the_override_is_set_read_back_and_cleared() {
    let setup = setup(Traits::default());
    for (target, word) in [("pxe", "Pxe"), ("http", "UefiHttp"), ("disk", "Hdd")] {
        let evidence = setup.attempt(&netboot(target)).await.unwrap();
        assert_eq!(evidence, format!("boot override Once {word}"));
        assert_eq!(setup.mock.boot(), boot("Once", word));
        // It is so already: nothing is sent.
        let sent = setup.mock.seen("PATCH").len();
        setup.attempt(&netboot(target)).await.unwrap();
        assert_eq!(setup.mock.seen("PATCH").len(), sent);
    }
    setup.attempt(&netboot("pxe")).await.unwrap();
    setup.attempt(&own()).await.unwrap();
    assert_eq!(setup.mock.boot(), boot("Disabled", "Pxe"));
}

#[tokio::test(start_paused = true)]
async fn an_override_that_is_for_good_or_cannot_be_cleared_is_no_error() {
    let traits = Traits {
        always_continuous: true,
        keeps_override: true,
        needs_tag: true,
        ..Traits::default()
    };
    let setup = setup(traits);
    setup.attempt(&netboot("pxe")).await.unwrap();
    assert_eq!(setup.mock.boot(), boot("Continuous", "Pxe"));
    setup.attempt(&own()).await.unwrap();
    assert_eq!(setup.mock.boot(), boot("Continuous", "Hdd"));
    assert!(setup.log().contains("was answered 400"));
}

#[tokio::test(start_paused = true)]
async fn the_medium_comes_before_the_override_and_goes_again() {
    for media_at_manager in [false, true] {
        let traits = Traits { media_at_manager, needs_parent: true, ..Traits::default() };
        let setup = setup_with(traits, with_image());
        let evidence = setup.attempt(&netboot("pxe")).await.unwrap();
        assert_eq!(evidence, "boot override Once Cd, the medium attached");
        assert_eq!(
            (setup.mock.image().as_deref(), setup.mock.boot().1.as_str()),
            (Some(IMAGE), "Cd")
        );
        let line = setup.mock.seen("InsertMedia").remove(0);
        assert!(line.contains(if media_at_manager { "Managers" } else { "Systems" }), "{line}");
        setup.attempt(&own()).await.unwrap();
        assert_eq!((setup.mock.image(), setup.mock.boot().0.as_str()), (None, "Disabled"));
        setup.attempt(&netboot("http")).await.unwrap();
        setup.attempt(&netboot("disk")).await.unwrap();
        assert_eq!((setup.mock.image(), setup.mock.boot().1.as_str()), (None, "Hdd"));
    }
}

#[tokio::test(start_paused = true)]
async fn a_medium_that_only_the_controller_has_is_attached_again() {
    let setup = setup_with(Traits::default(), with_image());
    setup.mock.lose_image(IMAGE);
    setup.attempt(&netboot("pxe")).await.unwrap();
    assert_eq!((setup.mock.image().as_deref(), setup.mock.boot().1.as_str()), (Some(IMAGE), "Cd"));
    let media = setup.mock.seen("VirtualMedia.");
    assert!(media[0].contains("EjectMedia") && media[1].contains("InsertMedia"), "{media:?}");
    assert!(setup.log().contains("may not be at the machine"));
    // A medium that it has attached itself a moment ago is not attached again: the refusal has another cause.
    let setup = setup_with(Traits::default(), with_image());
    setup.mock.fail("PATCH", Fault::Status(400), 2);
    setup.attempt(&netboot("pxe")).await.unwrap_err();
    assert_eq!(setup.mock.seen("VirtualMedia.").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_image_comes_from_where_it_may() {
    for (image, why) in [
        ("http://169.254.169.254/x", "link-local"),
        ("http://192.0.2.1/x", "in no configured network: see networks.image"),
    ] {
        let setup = setup_with(
            Traits::default(),
            RedfishSettings { image: Some(image.to_owned()), ..insecure() },
        );
        let error = setup.attempt(&netboot("pxe")).await.unwrap_err();
        assert_eq!(class(&error), ErrorClass::Permanent);
        assert!(error.message.contains(why), "{error}");
        assert!(setup.mock.seen("POST /redfish/v1/Systems").is_empty());
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_is_waited_for_and_its_failure_is_named() {
    let attempt = async |task| {
        let setup = setup_with(Traits { task: Some(task), ..Traits::default() }, with_image());
        let result = setup.attempt(&netboot("pxe")).await;
        result.map_err(|error| (class(&error), error.code, error.message))
    };
    assert!(attempt("Completed").await.is_ok());
    let (class, code, message) = attempt("Exception").await.unwrap_err();
    assert_eq!((class, code), (ErrorClass::Transient, ErrorCode::Failed));
    assert!(message.contains("ended as Exception"), "{message}");
    let (class, code, message) = attempt("Running").await.unwrap_err();
    assert_eq!((class, code), (ErrorClass::Transient, ErrorCode::Timeout));
    assert!(message.contains("is Running after 60 s"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn an_override_without_effect_is_a_failure() {
    let setup = setup(Traits::default());
    setup.mock.fail("PATCH", Fault::Nothing, 1);
    let error = setup.attempt(&netboot("pxe")).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::Transient);
    assert_eq!(error.expected, "boot from Pxe");
    assert_eq!(error.observed, "boot override Disabled None");
    setup.attempt(&netboot("pxe")).await.unwrap();
}
