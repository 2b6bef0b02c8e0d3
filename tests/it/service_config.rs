//! docs/service_config.json, which clients use: it names what the server has.

use prost_reflect::DescriptorPool;

#[test]
fn it_names_services_and_methods_that_exist_and_streams_have_no_deadline() {
    let pool = DescriptorPool::decode(bmdemo::pb::FILE_DESCRIPTOR_SET).unwrap();
    let config: serde_json::Value =
        serde_json::from_str(include_str!("../../docs/service_config.json")).unwrap();
    for entry in config["methodConfig"].as_array().unwrap() {
        for name in entry["name"].as_array().unwrap() {
            let service = pool.get_service_by_name(name["service"].as_str().unwrap()).unwrap();
            let Some(method) = name["method"].as_str() else {
                assert!(
                    entry["timeout"].is_null(),
                    "{name} has streams: a deadline would cut them off"
                );
                continue;
            };
            let method = service.methods().find(|found| found.name() == method);
            let method = method.unwrap_or_else(|| panic!("{name} does not exist"));
            assert_eq!(entry["timeout"].is_null(), method.is_server_streaming(), "{name}");
        }
    }
}
