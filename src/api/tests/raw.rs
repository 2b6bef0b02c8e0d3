//! Bytes that no generated client would send.

use std::time::Duration;

use proptest::prelude::*;

use super::super::Deadline;
use super::super::methods::METHODS;
use super::codec::{call, call_by};
use super::*;

/// Every method of the API, as paths.
fn methods() -> Vec<String> {
    METHODS.iter().map(|method| method.path.to_owned()).collect()
}

#[tokio::test(start_paused = true)]
async fn no_method_is_left_out() {
    let api = Api::new().await;
    let routes = routes(api.engine.clone());
    assert!(methods().len() >= 27, "{:?}", methods());
    for path in methods() {
        let status = call(&routes, &path, &[]).await;
        assert_ne!(status.code(), Code::Unimplemented, "{path}");
        assert_ne!(status.code(), Code::Internal, "{path}: {status:?}");
        if status.code() != Code::Ok {
            let details = status.get_error_details();
            assert!(details.error_info().is_some(), "{path} has no reason: {status:?}");
        }
    }
}

/// No call is handled after its deadline, whatever it asks; before the deadline it is.
#[tokio::test(start_paused = true)]
async fn no_method_is_handled_after_its_deadline() {
    let api = Api::new().await;
    let routes = routes(api.engine.clone());
    let now = api.engine.clock().monotonic();
    for path in methods() {
        let late = call_by(&routes, &path, &[], Some(Deadline(now))).await;
        assert_eq!(late.code(), Code::DeadlineExceeded, "{path}: {late:?}");
        assert!(late.message().contains("nothing was changed"), "{path}: {late:?}");
        assert_eq!(late.get_error_details().error_info().unwrap().reason, "DEADLINE_EXCEEDED");
        let in_time = Some(Deadline(now + Duration::from_secs(3600)));
        let status = call_by(&routes, &path, &[], in_time).await;
        assert_ne!(status.code(), Code::DeadlineExceeded, "{path}: {status:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_undecodable_message_is_the_clients_fault() {
    let api = Api::new().await;
    let routes = routes(api.engine.clone());
    for path in methods() {
        // A length-delimited field that is longer than the message.
        let status = call(&routes, &path, &[0x0a, 0xff, 0x01]).await;
        assert_eq!(status.code(), Code::InvalidArgument, "{path}");
        let details = status.get_error_details();
        assert_eq!(details.error_info().unwrap().reason, "MESSAGE_MALFORMED", "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// No request, however malformed, is answered with INTERNAL.
    #[test]
    fn random_bytes_never_give_internal(bytes: Vec<u8>, which: prop::sample::Index) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(async {
            let api = Api::new().await;
            let methods = methods();
            let status = call(&routes(api.engine.clone()), &methods[which.index(methods.len())], &bytes).await;
            prop_assert!(![Code::Internal, Code::Unknown].contains(&status.code()), "{status:?}");
            Ok(())
        })?;
    }
}
