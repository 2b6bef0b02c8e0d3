//! What each action does, reports, prints and refuses.

use super::*;

const ACTIONS: [&str; 14] = [
    "set-netboot",
    "clear-netboot",
    "repave",
    "mint-join",
    "join",
    "verify",
    "drain",
    "undrain",
    "wipe",
    "notify",
    "reboot",
    "apply-net-config",
    "restore-net-config",
    "verify-connectivity",
];

#[tokio::test(start_paused = true)]
async fn every_action_is_done_at_once_in_zero_time() {
    let fixture = Fixture::zero("");
    let mut text = String::new();
    let mut handle = None;
    for action in ACTIONS {
        let mut call = call(1, action, 1);
        if action == "join" {
            call.inputs.extend(handle.take().map(|handle| ("mint-join".to_owned(), handle)));
        }
        if action == "verify-connectivity" {
            // The machine was wiped, and so powered off, before.
            fixture.carry_out(&super::call(2, "reboot", 1)).await;
        }
        let before = fixture.observe(&call).await.unwrap();
        fixture.lines.take();
        let acted = fixture.act(&call).await.unwrap();
        let lines = fixture.lines.take().join("\n    ");
        let again = fixture.act(&call).await.unwrap();
        assert_eq!(acted, again, "{action}");
        let observed = fixture.observe(&call).await.unwrap();
        let verified = fixture.verify(&call).await.unwrap();
        if let Acted::Done { output, .. } = &acted
            && !output.is_empty()
        {
            handle = Some(output.clone());
        }
        text += &format!(
            "{action}\n  before: {before:?}\n  act: {acted:?}\n    {lines}\n  after: {observed:?}\n  check: {verified:?}\n"
        );
    }
    assert_eq!(fixture.provider.world().ledger().len(), ACTIONS.len() + 1);
    assert_eq!(fixture.clock.now(), Timestamp(START_MS));
    crate::assert_golden!("fake-actions", text);
}

#[tokio::test(start_paused = true)]
async fn what_is_a_state_need_not_be_brought_about_again() {
    let fixture = Fixture::zero("");
    let handle = fixture.carry_out(&call(1, "mint-join", 1)).await.unwrap();
    for action in ACTIONS {
        let mut first = call(1, action, 2);
        first.inputs.insert("mint-join".to_owned(), minted(&handle));
        fixture.carry_out(&first).await;
        let seen = fixture.observe(&call(1, action, 3)).await.unwrap();
        let declarative = ["set-netboot", "clear-netboot", "join", "drain", "undrain"]
            .contains(&action)
            || action == "apply-net-config";
        assert_eq!(matches!(seen, Observation::Done { .. }), declarative, "{action}: {seen:?}");
        if action == "wipe" {
            fixture.carry_out(&call(2, "reboot", 1)).await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_older_epoch_is_refused_by_every_call_that_has_one() {
    let fixture = Fixture::zero("");
    let (provider, target) = (&fixture.provider, &fixture.target);
    provider.fence(target, Epoch(3), Capabilities::all()).await.unwrap();
    provider.fence(target, Epoch(3), Capabilities::all()).await.unwrap();
    let late = call(1, "repave", 1);
    let errors = [
        provider.fence(target, Epoch(2), Capabilities::all()).await.unwrap_err(),
        fixture.observe(&late).await.unwrap_err(),
        fixture.act(&late).await.unwrap_err(),
        fixture.verify(&late).await.unwrap_err(),
        provider.stop(target, &late).await.unwrap_err(),
    ];
    for error in errors {
        assert_eq!(error.kind, ProviderErrorKind::Fenced { current: Epoch(3) });
    }
    assert!(provider.world().ledger().is_empty());
    let current = Call { epoch: Epoch(3), ..late };
    assert!(fixture.act(&current).await.is_ok());
    // Another machine has its own fence.
    let other = super::target("machine-2");
    assert!(provider.act(&other, &call(2, "reboot", 1), fixture.logs()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn bad_calls_are_refused_for_good() {
    let fixture = Fixture::zero("");
    let mut no_image = call(1, "repave", 1);
    no_image.args.clear();
    let mut bad_ttl = call(1, "mint-join", 1);
    bad_ttl.args.insert("ttl".to_owned(), Value::Str("soon".into()));
    let cases = [
        (no_image, "repave needs the argument image: name what to install"),
        (bad_ttl, "argument ttl is soon, of kind string: expected a duration"),
        (call(1, "levitate", 1), "the fake provider has no action \"levitate\""),
    ];
    for (call, message) in cases {
        for error in
            [fixture.act(&call).await.unwrap_err(), fixture.observe(&call).await.unwrap_err()]
        {
            assert_eq!((class(&error), error.message.as_str()), (ErrorClass::Permanent, message));
        }
    }
}

#[tokio::test(start_paused = true)]
async fn join_material_is_a_handle_that_expires_and_belongs_to_its_machine() {
    let fixture = Fixture::zero("");
    let mut mint = call(1, "mint-join", 1);
    mint.args.insert("ttl".to_owned(), Value::DurationMs(5_000));
    let handle = fixture.carry_out(&mint).await.unwrap();
    let with = |attempt, handle: &str| {
        let mut join = call(1, "join", attempt);
        join.inputs.insert("mint-join".to_owned(), minted(handle));
        join
    };
    let refused = async |join: Call| {
        let error = fixture.act(&join).await.unwrap_err();
        assert_eq!(class(&error), ErrorClass::Permanent);
        error.message
    };
    assert!(refused(call(1, "join", 1)).await.starts_with("join needs the output of mint-join"));
    assert!(refused(with(2, "join-0")).await.starts_with("no join material join-0"));
    let elsewhere = target("machine-2");
    let other = fixture.provider.act(&elsewhere, &with(3, &handle), fixture.logs()).await;
    assert_eq!(class(&other.unwrap_err()), ErrorClass::Permanent);
    fixture.carry_out(&with(4, &handle)).await;
    fixture.pass(5_000).await;
    let late = refused(with(5, &handle)).await;
    assert_eq!(late, format!("join material {handle} has expired; retry the run from mint-join"));
    // An operation that was done before the material expired stays done.
    assert!(matches!(fixture.act(&with(4, &handle)).await, Ok(Acted::Done { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_check_that_does_not_hold_is_said_with_both_sides() {
    let fixture = Fixture::zero("");
    let error = fixture.act(&call(1, "verify", 1)).await.unwrap_err();
    assert_eq!(class(&error), ErrorClass::Transient);
    assert_eq!(
        (error.expected.as_str(), error.observed.as_str()),
        ("cluster prod-1", "there is no cluster")
    );
    // To the engine a failed operation is one that is not done.
    let seen = fixture.observe(&call(1, "verify", 1)).await.unwrap();
    assert!(matches!(seen, Observation::NotDone { .. }), "{seen:?}");
}
