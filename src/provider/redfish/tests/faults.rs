//! Each fault of a controller, and what becomes of a restart.

use super::super::mock::Fault;
use super::*;

const RESET: &str = "ComputerSystem.Reset";

#[tokio::test(start_paused = true)]
async fn an_accepted_request_without_effect_is_found_out() {
    let setup = setup(Traits::default());
    setup.mock.fail(RESET, Fault::Nothing, 1);
    let error = setup.attempt(&reboot("force")).await.unwrap_err();
    assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Failed));
    assert_eq!((&*error.expected, &*error.observed), ("power Off", "power On"));
    assert!(error.message.contains("although the controller accepted the request"), "{error}");
    let next = call("reboot", Capability::Power, &[("mode", text("force"))], 2);
    setup.attempt(&next).await.unwrap();
}

/// A reset that may have been carried out is not sent again: the state decides.
#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_failure() {
    for fault in [Fault::DoneAndDrop, Fault::Status(409)] {
        let setup = setup(Traits::default());
        if fault == Fault::Status(409) {
            setup.mock.set_power("Off");
        }
        setup.mock.fail(RESET, fault.clone(), 1);
        let result = setup.attempt(&reboot("force")).await;
        if fault == Fault::DoneAndDrop {
            result.unwrap();
            assert_eq!(setup.resets(), ["ForceOff", "On"]);
            assert!(setup.log().contains("the state decides"));
        } else {
            // Refused, and not so: the next attempt does it.
            assert_eq!(class(&result.unwrap_err()), ErrorClass::Transient);
            assert_eq!(setup.resets(), ["On"]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn reading_faults_are_looked_at_again() {
    for fault in [
        Fault::Status(500),
        Fault::Later(503, 3),
        Fault::Later(429, 3),
        Fault::Drop,
        Fault::Half,
        Fault::Huge,
        Fault::Text("not json"),
        Fault::Hang,
    ] {
        let setup = setup(Traits::default());
        setup.fence().await.unwrap();
        let call = reboot("force");
        setup.observe(&call).await.unwrap();
        let faulty = async {
            setup.clock.sleep(Duration::from_millis(1_500)).await;
            setup.mock.fail(
                "GET /redfish/v1/Systems/1",
                fault.clone(),
                if fault == Fault::Hang { 1 } else { 2 },
            );
        };
        let (result, ()) = tokio::join!(setup.attempt(&call), faulty);
        result.unwrap_or_else(|error| panic!("{fault:?}: {error}"));
        assert_eq!(setup.resets(), ["ForceOff", "On"], "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_asks_for_time_gets_it() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    setup.mock.fail("GET /redfish/v1/Systems/1", Fault::Later(503, 90), 1);
    let error = setup.observe(&reboot("force")).await.unwrap_err();
    assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Busy));
    let wait = error.retry_at.unwrap().since(setup.clock.now());
    assert_eq!(wait, Duration::from_secs(90));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_leads_elsewhere_needs_a_person() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    setup.mock.fail("Systems/1", Fault::Redirect("http://169.254.169.254/latest"), 1);
    let error = setup.observe(&reboot("force")).await.unwrap_err();
    assert_eq!((class(&error), error.code), (ErrorClass::NeedsHuman, ErrorCode::Invalid));
    setup.mock.fail(RESET, Fault::Redirect("http://evil.example/"), 1);
    let error = setup.attempt(&reboot("force")).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::NeedsHuman);
}

#[tokio::test(start_paused = true)]
async fn a_controller_that_is_away_is_left_alone_for_a_while() {
    let mut setup = setup(Traits::default());
    setup.target.spec.bmc_endpoint = "http://nowhere".to_owned();
    let probe = async || setup.driver.probe(&setup.target).await.unwrap_err();
    for _ in 0..3 {
        let error = probe().await;
        assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Timeout));
    }
    let began = setup.clock.monotonic();
    let error = probe().await;
    assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Unreachable));
    assert_eq!(error.retry_at, Some(setup.clock.now().plus_ms(5_000)));
    assert_eq!(setup.clock.monotonic(), began);
    // It is back: the trial after the pause closes the breaker.
    setup.racks.add("nowhere", setup.mock.clone());
    setup.clock.sleep(Duration::from_secs(5)).await;
    assert!(setup.driver.probe(&setup.target).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn requests_come_one_at_a_time_and_not_too_fast() {
    let setup = setup(Traits { answer_delay: Duration::ZERO, ..Traits::default() });
    let began = setup.clock.monotonic();
    let probes = (0..40).map(|_| setup.driver.probe(&setup.target));
    for health in futures_util::future::join_all(probes).await {
        assert!(health.unwrap().reachable);
    }
    // The root, the session, and 40 systems, ten a second.
    assert!(setup.clock.monotonic() - began >= Duration::from_millis(4_100));
    assert_eq!(setup.mock.seen("POST").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_new_owner_ends_what_the_former_one_has_begun() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    let call = reboot("force");
    let taken_over = async {
        setup.clock.sleep(Duration::from_secs(5)).await;
        let uses = CAPABILITIES.into_iter().collect();
        setup.driver.fence(&setup.target, Epoch(2), uses).await.unwrap();
    };
    let (_, ()) = tokio::join!(setup.act(&call), taken_over);
    setup.clock.sleep(Duration::from_secs(300)).await;
    assert_eq!(setup.resets(), ["ForceOff"]);
    let error = setup.act(&netboot("pxe")).await.unwrap_err();
    assert_eq!(error.kind, ProviderErrorKind::Fenced { current: Epoch(2) });
    // Under the new epoch the state decides, and no longer how the fenced call ended.
    let again = Call { epoch: Epoch(2), ..call.clone() };
    assert!(matches!(setup.observe(&again).await.unwrap(), Observation::NotDone { .. }));
    let uses = CAPABILITIES.into_iter().collect();
    let error = setup.driver.fence(&setup.target, Epoch(1), uses).await.unwrap_err();
    assert_eq!(error.kind, ProviderErrorKind::Fenced { current: Epoch(2) });
}
