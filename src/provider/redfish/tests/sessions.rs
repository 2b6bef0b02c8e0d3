//! Sessions and passwords.

use super::super::mock::Fault;
use super::*;
use crate::provider::boot::{Control as _, Grant};

#[tokio::test(start_paused = true)]
async fn a_session_is_used_again_and_ended_when_it_is_idle() {
    let setup = setup(Traits::default());
    setup.attempt(&reboot("force")).await.unwrap();
    setup.attempt(&netboot("pxe")).await.unwrap();
    assert_eq!(setup.mock.seen("POST /redfish/v1/SessionService").len(), 1);
    assert_eq!(setup.mock.sessions(), 1);
    setup.clock.sleep(Duration::from_secs(400)).await;
    assert_eq!(setup.mock.sessions(), 0);
    assert!(setup.driver.probe(&setup.target).await.unwrap().reachable);
    assert_eq!(setup.mock.sessions(), 1);
    setup.driver.close().await;
    assert_eq!(setup.mock.sessions(), 0);
}

#[tokio::test(start_paused = true)]
async fn without_sessions_or_room_for_one_the_password_goes_along() {
    let setup = setup(Traits { sessions_max: 0, ..Traits::default() });
    setup.attempt(&reboot("force")).await.unwrap();
    assert!(setup.mock.seen("SessionService").is_empty());

    let setup = self::setup(Traits { sessions_max: 1, ..Traits::default() });
    let other = driver(&setup.racks, &setup.credentials, &setup.clock, insecure());
    other.probe(&setup.target).await.unwrap();
    assert!(setup.driver.probe(&setup.target).await.unwrap().reachable);
    assert_eq!(setup.mock.sessions(), 1);

    let settings = RedfishSettings { uses_sessions: false, ..insecure() };
    let setup = setup_with(Traits::default(), settings);
    setup.attempt(&reboot("force")).await.unwrap();
    assert!(setup.mock.seen("SessionService").is_empty());
}

/// The former owner has a session and is about to act; the new one ends it.
#[tokio::test(start_paused = true)]
async fn who_takes_over_ends_the_session_of_the_former_owner() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    let call = netboot("pxe");
    setup.observe(&call).await.unwrap();
    let new_owner = driver(&setup.racks, &setup.credentials, &setup.clock, insecure());
    let uses = CAPABILITIES.into_iter().collect();
    new_owner.fence(&setup.target, Epoch(2), uses).await.unwrap();
    assert_eq!(setup.mock.sessions(), 1);

    // The former owner does not know yet. Its change fails, however often it tries within this operation.
    for _ in 0..2 {
        let error = setup.act(&call).await.unwrap_err();
        assert_eq!((class(&error), error.code), (ErrorClass::Transient, ErrorCode::Unauthorized));
        assert!(error.message.contains("ended by the controller or by another server"));
        setup.observe(&call).await.unwrap_err();
        // A probe opens a session; the operation is lost all the same.
        setup.driver.probe(&setup.target).await.unwrap();
    }
    assert!(setup.mock.seen("PATCH").is_empty());
    assert_eq!(setup.mock.boot().1, "None");
    // The new owner works on.
    let call = Call { epoch: Epoch(2), ..call };
    new_owner.act(&setup.target, &call, setup.logs()).await.unwrap();
    assert_eq!(setup.mock.boot().1, "Pxe");
}

/// The controller has restarted: its sessions are gone. A look opens one again; a change fails and is tried in another
/// operation, which the engine has recorded.
#[tokio::test(start_paused = true)]
async fn a_session_that_has_ended_is_opened_again() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    setup.mock.drop_sessions();
    assert!(setup.driver.probe(&setup.target).await.unwrap().reachable);
    setup.observe(&netboot("pxe")).await.unwrap();
    setup.mock.drop_sessions();
    let error = setup.act(&netboot("pxe")).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::Transient);
    let next = call("set-netboot", Capability::Netboot, &[("target", text("pxe"))], 2);
    setup.observe(&next).await.unwrap();
    setup.act(&next).await.unwrap();
    assert_eq!(setup.mock.boot().1, "Pxe");
}

#[tokio::test(start_paused = true)]
async fn a_wrong_password_is_named_by_its_reference_and_not_repeated() {
    for sessions_max in [0, 8] {
        let setup = setup(Traits { sessions_max, ..Traits::default() });
        setup.mock.set_password("another");
        let probe = async || setup.driver.probe(&setup.target).await;
        let error = probe().await.unwrap_err();
        assert_eq!((class(&error), error.code), (ErrorClass::Permanent, ErrorCode::Unauthorized));
        assert!(error.message.contains("refused the credentials \"rack\""), "{error}");
        let asked = setup.mock.seen("").len();
        // Controllers lock users out: it is not sent again for a while.
        probe().await.unwrap_err();
        assert_eq!(setup.mock.seen("").len(), asked);
        // A new file counts at once.
        write_login(&setup.credentials, "another");
        assert!(probe().await.unwrap().reachable);
    }
}

/// The kept session has ended, which the fence only finds out: the one that it opens is ours too.
#[tokio::test(start_paused = true)]
async fn a_fence_leaves_the_session_that_it_has_opened() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    setup.mock.drop_sessions();
    setup.fence().await.unwrap();
    assert_eq!(setup.mock.sessions(), 1);
}

/// An installation asks nothing while the machine writes, and its session is ended meanwhile.
#[tokio::test(start_paused = true)]
async fn an_installation_outlives_its_session() {
    let setup = setup(Traits::default());
    setup.fence().await.unwrap();
    setup.clock.sleep(Duration::from_secs(400)).await;
    assert_eq!(setup.mock.sessions(), 0);
    let by = Grant { epoch: Epoch(1), operation: reboot("force").operation };
    setup.driver.switch_off(&setup.target, &by).await.unwrap();
    assert_eq!(setup.mock.power(), "Off");
    setup.driver.switch_on(&setup.target, &by).await.unwrap();
    assert_eq!(setup.mock.power(), "On");
}

/// No secret is in any text that leaves the driver.
#[tokio::test(start_paused = true)]
async fn passwords_and_tokens_are_seen_nowhere() {
    let setup = setup(Traits::default());
    setup.attempt(&reboot("force")).await.unwrap();
    let mut texts = vec![setup.log(), format!("{:?}", setup.driver)];
    setup.mock.fail("GET", Fault::Text("{"), 1);
    let error = setup.driver.probe(&setup.target).await.unwrap_err();
    assert!(error.message.contains("is not JSON"), "{error}");
    texts.push(format!("{error:?}"));
    setup.mock.set_password("another");
    setup.mock.drop_sessions();
    texts.push(format!("{:?}", setup.driver.probe(&setup.target).await));
    for text in texts {
        assert!(!text.contains("canary-password") && !text.contains("token-"), "{text}");
        assert!(!text.contains("Basic "), "{text}");
    }
}
