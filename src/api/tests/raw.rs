//! Bytes that no generated client would send.

use proptest::prelude::*;
use prost_reflect::DescriptorPool;

use super::codec::call;
use super::*;

/// Every method of the API, as paths.
fn methods() -> Vec<String> {
    let pool = DescriptorPool::decode(pb::FILE_DESCRIPTOR_SET).unwrap();
    let services = pool.services().filter(|service| service.package_name() == "baremetal.v1");
    services
        .flat_map(|service| {
            let name = service.full_name().to_owned();
            service
                .methods()
                .map(move |method| format!("/{name}/{}", method.name()))
                .collect::<Vec<_>>()
        })
        .collect()
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
