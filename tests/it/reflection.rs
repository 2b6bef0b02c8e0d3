//! Server reflection over the wire, in both versions.

use prost::Message as _;
use tokio_stream::StreamExt as _;

use crate::support::Server;

macro_rules! ask {
    ($server:expr, $version:ident, $question:ident, $text:expr) => {{
        use tonic_reflection::pb::$version::server_reflection_client::ServerReflectionClient;
        use tonic_reflection::pb::$version::server_reflection_request::MessageRequest;
        use tonic_reflection::pb::$version::server_reflection_response::MessageResponse;
        let request = tonic_reflection::pb::$version::ServerReflectionRequest {
            host: String::new(),
            message_request: Some(MessageRequest::$question($text.to_owned())),
        };
        let mut client = ServerReflectionClient::new($server.channel().await);
        let answers = client.server_reflection_info(tokio_stream::once(request)).await.unwrap();
        match answers.into_inner().next().await.unwrap().unwrap().message_response.unwrap() {
            MessageResponse::ListServicesResponse(list) => {
                list.service.into_iter().map(|service| service.name).collect::<Vec<_>>()
            }
            MessageResponse::FileDescriptorResponse(files) => files
                .file_descriptor_proto
                .iter()
                .map(|file| {
                    prost_types::FileDescriptorProto::decode(file.as_slice())
                        .unwrap()
                        .name()
                        .to_owned()
                })
                .collect(),
            other => panic!("{other:?}"),
        }
    }};
}

#[tokio::test]
async fn both_versions_describe_everything() {
    let server = Server::ephemeral(&[]).await;
    let lists = [ask!(server, v1, ListServices, ""), ask!(server, v1alpha, ListServices, "")];
    for services in lists {
        for service in [
            "baremetal.v1.MachineService",
            "baremetal.v1.PlanService",
            "baremetal.v1.RunService",
            "baremetal.v1.ServerService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        ] {
            assert!(
                services.iter().any(|name| name == service),
                "{service} is not in {services:?}"
            );
        }
    }
    for symbol in ["google.rpc.ErrorInfo", "google.rpc.BadRequest"] {
        let files = ask!(server, v1, FileContainingSymbol, symbol);
        assert_eq!(files, ["error_details.proto"]);
        assert_eq!(ask!(server, v1alpha, FileContainingSymbol, symbol), files);
    }
    let files = ask!(server, v1, FileContainingSymbol, "baremetal.v1.RunService.StartRun");
    assert_eq!(files, ["baremetal/v1/baremetal.proto"]);
}
